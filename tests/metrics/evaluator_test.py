import numpy as np
import pytest

from jaxseg.metrics.evaluator import Collected, Counts, add, make_evaluator, naming, parse
from jaxseg.metrics.groups import by_group, class_groups
from jaxseg.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(("cat", "dog", "sky"), (True, True, False), {"seen": (0, 2), "unseen": (1,)})
EMPTY = Vocabulary((), ())


def test_parse():
    assert parse("miou") == ("miou", [], {})
    assert parse("prompt_iou(0.5)") == ("prompt_iou", [0.5], {})
    assert parse("miou(boundary=True, absent_classes='skip')") == ("miou", [], {"boundary": True, "absent_classes": "skip"})
    for text in ("", "miou(", "miou(x)", "miou()()", "import os", "a.b(1)", "miou(**{})"):
        with pytest.raises(ValueError, match="expected a name"):
            parse(text)


def test_registered_names():
    assert isinstance(make_evaluator("prompt_iou(0.3)", VOCABULARY), Counts)
    assert isinstance(make_evaluator("miou", VOCABULARY), Counts)
    assert isinstance(make_evaluator("fixed_interval(0.24)", VOCABULARY), Counts)
    assert isinstance(make_evaluator("retrieval", EMPTY), Collected)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("promt_iou(0.5)", "evaluator 'promt_iou' is unknown; did you mean 'prompt_iou'"),
        ("miou(1)", "evaluator miou.1.: .*; miou takes .*absent_classes"),
        ("miou(absent_classes='none')", "absent_classes: found 'none', expected one of zero, skip"),
        ("prompt_iou(1.5)", "threshold: found 1.5"),
        ("fixed_interval(0.25)", "threshold: found 0.25"),
        ("retrieval(0)", "ranks: found"),
    ],
)
def test_errors_say_what_is_wrong(text, message):
    with pytest.raises(ValueError, match=message) as error:
        make_evaluator(text, VOCABULARY)
    assert "\n" not in str(error.value)


@pytest.mark.parametrize("text", ["miou", "prompt_iou(0.5)", "fixed_interval"])
def test_empty_vocabulary_is_one_line(text):
    with pytest.raises(ValueError, match=r"^evaluator \w+.*: the vocabulary of this split is empty"):
        make_evaluator(text, EMPTY)


def test_errors_name_evaluator_and_split():
    with pytest.raises(ValueError, match="^evaluator miou on val: shapes differ$"), naming("miou", "val"):
        raise ValueError("shapes differ")
    with pytest.raises(KeyError) as error, naming("miou", "val"):
        raise KeyError("x")
    assert error.value.__notes__ == ["in evaluator miou on val"]


def test_sums_are_wide():
    near = np.int32(2**31 - 1)
    total = add(add({}, {"n": near, "x": np.float32(2**24)}), {"n": near, "x": np.float32(1)})
    assert total["n"] == 2**32 - 2 and total["x"] == 2**24 + 1


def test_groups():
    values = np.array([0.2, 0.6, np.nan])
    found = by_group("m", VOCABULARY, lambda ids: np.nanmean(values[ids]) if np.isfinite(values[ids]).any() else np.nan)
    # stuff has no value, and is left out
    assert found == pytest.approx({"m": 0.4, "m/things": 0.4, "m/seen": 0.2, "m/unseen": 0.6, "m/harmonic": 0.3})
    assert set(class_groups(Vocabulary(("a",), (True,)))) == set()
    assert "m/harmonic" not in by_group("m", VOCABULARY, lambda ids: len(ids), harmonic=False)
