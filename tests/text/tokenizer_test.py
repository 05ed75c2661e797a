"""Ids of every kind of text, and prompts that are wrong (FAULTS: none, many, long, emoji, NUL, right-to-left, end token)."""

import subprocess
import sys

import numpy as np
import pytest

from jaxseg.text import tokenizer


def test_rows_hold_start_text_end_and_zeros():
    ids = tokenizer.tokenize(["a photo of a cat.", ""], context_length=10)
    assert ids.dtype == np.int32
    np.testing.assert_array_equal(ids[0], [49406, 320, 1125, 539, 320, 2368, 269, 49407, 0, 0])
    np.testing.assert_array_equal(ids[1], [49406, 49407] + [0] * 8)
    assert tokenizer.tokenize("a single text").shape == (1, 77)


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<|endoftext|> inside", [49407, 2912]),
        ("cat<|ENDOFTEXT|>", [2368, 49407]),
        ("&lt;|startoftext|&gt;", [49406]),
        ("<|endoftext|><|endoftext|>", [49407, 49407]),
        # Inside a run of punctuation it is punctuation: the published pattern takes the run first.
        (".<|endoftext|>", tokenizer.encode(".<|") + tokenizer.encode("endoftext") + tokenizer.encode("|>")),
        ("'\u017f", [6, 129, 379]),
        ("a\u0345b", [320, 321]),
    ],
)
def test_where_the_package_differs_from_the_published_tokenizer(text, expected):
    assert tokenizer.encode(text) == expected


@pytest.mark.parametrize(
    ("text", "same"),
    [
        ("fish &amp;amp; chips", "fish & chips"),
        ("“curly” ﬁnd", '"curly" find'),
        ("a\x00b", "ab"),
        ("half \ud800", "half \ufffd"),
        ("\u3000a\t\r\n cat \x1b[31m", "a cat"),
        ("ＦＵＬＬ", "full"),
    ],
)
def test_cleaning(text, same):
    assert tokenizer.encode(text) == tokenizer.encode(same)


@pytest.mark.parametrize("text", ["😀👨\u200d👩\u200d👧 🇩🇪", "한국어 العربية", "café", "\u200f\u202eabc", "1 2 ½"])
def test_any_script_comes_back(text):
    assert tokenizer.decode(tokenizer.encode(text)).replace(" ", "") == text.replace(" ", "")


def test_decode_drops_padding_and_keeps_exclamation_marks():
    row = tokenizer.tokenize(["hi !"], 8)[0]
    assert tokenizer.decode(row) == "<|startoftext|>hi ! <|endoftext|>"
    assert tokenizer.decode([0, 256]) == "!! "
    assert tokenizer.decode([]) == ""
    with pytest.raises(ValueError, match="found 5 to 49408, expected 0 to 49407"):
        tokenizer.decode([5, 49408])


def test_no_prompts_and_a_thousand():
    assert tokenizer.tokenize([]).shape == (0, 77)
    ids = tokenizer.tokenize([f"prompt {i}" for i in range(1000)])
    assert len(np.unique(ids, axis=0)) == 1000


def test_too_long_names_the_text_and_its_tokens():
    texts = ["a cat", "blue " * 76, "red " * 100]
    with pytest.raises(ValueError, match=r"^text 1 \('blue blue .*\): 76 tokens, a context of 77 holds 75 \(and 1 more of 3"):
        tokenizer.tokenize(texts)
    with pytest.warns(UserWarning, match="76 tokens.*truncated"):
        ids = tokenizer.tokenize(texts, truncate=True)
    assert ids[1, 0] == 49406 and ids[1, -1] == 49407 and np.all(ids[1, 1:-1] == ids[1, 1])
    tokenizer.tokenize(["blue " * 75])  # exactly fits


@pytest.mark.parametrize("text", ["x" * 100_000, "ab " * 33_333, "é" * 100_000])
def test_a_very_long_text_is_one_short_line(text):
    with pytest.raises(ValueError, match=r"\d+ tokens, a context of 77 holds 75") as error:
        tokenizer.tokenize([text])
    assert len(str(error.value)) < 250 and "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("texts", "message"),
    [
        (["a", None], "text 1: found NoneType, expected a string"),
        ([b"a cat"], "text 0: found bytes, expected a string"),
    ],
)
def test_what_is_no_text(texts, message):
    with pytest.raises(ValueError, match=message):
        tokenizer.tokenize(texts)


@pytest.mark.parametrize("words, length", [(1, 16), (14, 16), (15, 32), (30, 32), (75, 77)])
def test_shortened_rows_hold_every_text(words, length):
    ids = tokenizer.tokenize(["a cat", " ".join(["cat"] * words), ""])
    short = tokenizer.shorten(ids)
    np.testing.assert_array_equal(short, ids[:, :length])
    assert not ids[:, length:].any() and (short == 49407).any(1).all()


def test_what_follows_an_end_token_that_is_typed_is_not_needed():
    ids = tokenizer.tokenize("a cat <|endoftext|> " + "dog " * 40)
    assert tokenizer.shorten(ids).shape == (1, 16)


def test_shortening_no_text():
    assert tokenizer.shorten(tokenizer.tokenize([])).shape == (0, 16)


def test_a_context_without_room():
    with pytest.raises(ValueError, match="context_length: found 1"):
        tokenizer.tokenize(["a"], context_length=1)


def test_a_wrong_vocabulary_is_noticed(monkeypatch):
    import instant_clip_tokenizer

    class Other:
        def start_of_text(self):
            return 49406

        def end_of_text(self):
            return 49407

        def encode(self, text):
            return [1, 2, 3]

    tokenizer._bpe.cache_clear()
    monkeypatch.setattr(instant_clip_tokenizer, "Tokenizer", Other)
    with pytest.raises(RuntimeError, match="does not hold CLIP's vocabulary"):
        tokenizer.tokenize(["a cat"])
    tokenizer._bpe.cache_clear()


def test_importing_is_cheap():
    code = "import sys, jaxseg.text.tokenizer; assert not {'ftfy', 'instant_clip_tokenizer'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
