"""CLIP's byte-pair tokenizer: OpenAI's cleaning in front of `instant_clip_tokenizer`, with OpenAI's ids for every text.

The package differs from the published tokenizer on three inputs, found by encoding every code point both ways: special
tokens typed in a text are spelled out instead of being ids; `'` and a long s are two pieces instead of one (the published
pattern ignores case, and the long s folds to s); U+0345 is kept, where the published pattern matches it nowhere. Code
points that are younger than the package's Unicode tables count as punctuation.
"""

import functools
import re
import unicodedata
import warnings
from collections.abc import Iterable, Sequence

import numpy as np

START, END = 49406, 49407
VOCAB_SIZE = 49408
_SPECIAL = {"<|startoftext|>": START, "<|endoftext|>": END}
_LONG_S = "'\u017f"
_APOSTROPHE = 6  # not at the end of a piece
_REPAIRED = re.compile("|".join(map(re.escape, (*_SPECIAL, _LONG_S))))
_SPACES = re.compile(r"\s+")
_SHOWN = 60  # characters of a text in a message


def tokenize(texts: str | Iterable[str], context_length: int = 77, truncate: bool = False) -> np.ndarray:
    """Texts as rows of ids: start token, text, end token, zeros.

    Args:
        texts: one text, or N of them; N may be 0.
        context_length: T, the ids of a row.
        truncate: cut what is longer and warn, instead of an error; the last id of a cut row is the end token.

    Returns:
        [N, T] int32.

    Raises:
        ValueError: a text is no string or longer than the context, with its token count.
    """
    texts = [texts] if isinstance(texts, str) else list(texts)
    if context_length < 2:
        raise ValueError(f"context_length: found {context_length}, expected at least 2, for the start and the end token")
    out = np.zeros((len(texts), context_length), np.int32)
    too_long = []
    for i, text in enumerate(texts):
        if not isinstance(text, str):
            raise ValueError(f"text {i}: found {type(text).__name__}, expected a string")
        ids = [START, *encode(text), END]
        if len(ids) > context_length:
            too_long.append((i, len(ids) - 2))
            ids = [*ids[: context_length - 1], END]
        out[i, : len(ids)] = ids
    if too_long:
        message = _too_long(texts, too_long, context_length)
        if not truncate:
            raise ValueError(f"{message}; shorten it, or truncate")
        warnings.warn(f"{message}; truncated", stacklevel=2)
    return out


def shorten(token_ids: np.ndarray, multiple: int = 16) -> np.ndarray:
    """Rows of ids without the columns behind every text's end token, but for a multiple, so that few lengths are compiled.

    CLIP's text tower is causal and read at the end token: embeddings stay the same, at the cost of what is written.

    Args:
        token_ids: [N, T], of `tokenize`.

    Returns:
        [N, t], t the least multiple that holds every text, or T.
    """
    length = 1 + int(np.argmax(token_ids == END, axis=1).max(initial=0))
    return token_ids[:, : -(-length // multiple) * multiple]


def _too_long(texts, too_long, context_length):
    index, count = too_long[0]
    message = f"text {index} ({_shown(texts[index])}): {count} tokens, a context of {context_length} holds {context_length - 2}"
    others = len(too_long) - 1
    return message + (f" (and {others} more of {len(texts)} texts are too long)" if others else "")


def _shown(text):
    return repr(text if len(text) <= _SHOWN else text[: _SHOWN - 3] + "...")


def encode(text: str) -> list[int]:
    """The ids of one text, without start token, end token and padding."""
    text = clean(text).replace("\u0345", " ")
    bpe, ids, start = _bpe(), [], 0
    for match in _REPAIRED.finditer(text):
        # As in the published pattern, a special token inside a run of punctuation is punctuation.
        if match.start() == start or not _is_punctuation(text[match.start() - 1]):
            ids += bpe.encode(text[start : match.start()])
            special = _SPECIAL.get(match[0])
            ids += [_APOSTROPHE, *bpe.encode(_LONG_S[1])] if special is None else [special]
            start = match.end()
    return ids + bpe.encode(text[start:])


def _is_punctuation(character):
    return not (character.isspace() or unicodedata.category(character)[0] in "LN")


def clean(text: str) -> str:
    """OpenAI's cleaning: mojibake repaired, HTML entities resolved twice, white space collapsed, lower case."""
    if text.isascii() and text.isprintable() and "&" not in text:  # nothing to repair: ten times faster
        return _SPACES.sub(" ", text.strip()).lower()
    import html

    import ftfy

    text = html.unescape(html.unescape(ftfy.fix_text(text))).strip()
    return _SPACES.sub(" ", text).strip().lower()


def decode(ids: Sequence[int]) -> str:
    """The text of one row of ids; a space follows every word. Zeros behind an end token are padding, any other 0 is "!".

    Raises:
        ValueError: an id that is not in the vocabulary.
    """
    ids = np.asarray(ids).reshape(-1)
    if ids.size and not (ids.min() >= 0 and ids.max() < VOCAB_SIZE):
        raise ValueError(f"ids: found {ids.min()} to {ids.max()}, expected 0 to {VOCAB_SIZE - 1}")
    last = np.flatnonzero(ids)[-1] + 1 if ids.any() else 0
    if last and ids[last - 1] == END:
        ids = ids[:last]
    names, text, run = {i: name for name, i in _SPECIAL.items()}, "", []
    for i in [*ids.tolist(), None]:
        if i is None or i in names:
            text += (_bpe().decode(run) if run else "") + names.get(i, "")
            run = []
        else:
            run.append(i)
    return text


@functools.cache
def _bpe():
    """The package's tokenizer, checked: with other merges every prompt would be silently wrong."""
    try:
        from instant_clip_tokenizer import Tokenizer
    except ImportError as error:
        raise ImportError("CLIP's tokenizer needs a package: pip install instant-clip-tokenizer") from error
    bpe = Tokenizer()
    specials, known = (bpe.start_of_text(), bpe.end_of_text()), bpe.encode("a photo of a cat.")
    if specials != (START, END) or known != [320, 1125, 539, 320, 2368, 269]:
        raise RuntimeError(
            f"instant_clip_tokenizer does not hold CLIP's vocabulary: found special ids {specials} and {known} for "
            "'a photo of a cat.'"
        )
    return bpe
