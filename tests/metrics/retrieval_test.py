import numpy as np
import pytest

from jaxseg.metrics.retrieval import best_ranks, recalls, retrieval
from jaxseg.text.vocabulary import Vocabulary

EVALUATOR = retrieval(Vocabulary((), ()), 1, 2)


def unit(*rows):
    rows = np.array(rows, np.float32)
    return rows / np.linalg.norm(rows, axis=-1, keepdims=True)


def collected(images, texts, tokens, ids=None, mask=None):
    batch = {"token_ids": np.asarray(tokens), "example_mask": np.ones(len(images), bool) if mask is None else np.array(mask)}
    metas = [{"id": i} for i in (ids or map(str, range(len(images))))]
    return EVALUATOR.collect({"image_embeddings": images, "text_embeddings": texts}, batch, metas)


def test_by_hand():
    images = unit([1, 0], [0, 1], [1, 1])
    texts = unit([1, 0.1], [1, 0], [0, 1])  # the second text suits the first image, the third the second
    found = recalls(images, texts, [0, 1, 2], (1, 2))
    # image 0: text 1 before its text 0; image 1: 2, 0, 1; image 2: 0, then 1 and 2 alike
    assert found["image_to_text@1"] == 0 and found["image_to_text@2"] == pytest.approx(1 / 3)
    # text 0: image 0; text 1: image 0, 2, 1; text 2: image 1, 2, 0
    assert found["text_to_image@1"] == pytest.approx(1 / 3) and found["text_to_image@2"] == pytest.approx(2 / 3)


def test_equal_captions_are_one_text():
    images, texts = unit([1, 0, 0], [0, 1, 0], [0, 0, 1]), unit([1, 1, 0], [1, 1, 0], [0, 0, 1])
    found = EVALUATOR.compute(collected(images, texts, [[5, 0], [5, 0], [6, 0]]))
    assert found["image_to_text@1"] == found["text_to_image@1"] == 1
    apart = EVALUATOR.compute(collected(images, texts, [[5, 0], [5, 1], [6, 0]]))
    assert apart["image_to_text@1"] < 1


def test_equal_embeddings_find_nothing():
    same = unit(*[[1, 1]] * 4)
    found = EVALUATOR.compute(collected(same, same, np.arange(4)[:, None]))
    assert found["image_to_text@1"] == found["text_to_image@2"] == 0
    np.testing.assert_array_equal(best_ranks(same * np.nan, same, lambda rows: rows[:, None] == np.arange(4)), [3] * 4)


def test_baseline_is_chance():
    images = unit(*np.random.default_rng(0).standard_normal((4, 3)))
    found = recalls(images, images[:3], [0, 1, 2, 2], (1, 2, 5))
    keys = [f"{way}@{k}_baseline" for way in ("image_to_text", "text_to_image") for k in (1, 2, 5)]
    # text 2 has two of four images: missed by two draws with probability 2/4 * 1/3
    expected = [1 / 3, 2 / 3, 1, (1 / 4 + 1 / 4 + 1 / 2) / 3, (1 / 2 + 1 / 2 + 5 / 6) / 3, 1]
    assert [found[key] for key in keys] == pytest.approx(expected)


def test_order_batches_and_padding_do_not_matter():
    rng = np.random.default_rng(1)
    images, texts, tokens = unit(*rng.standard_normal((6, 4))), unit(*rng.standard_normal((6, 4))), rng.integers(0, 4, (6, 1))
    whole = collected(images, texts, tokens)
    padded = collected(images[:4], texts[:4], tokens[:4], "0123", [True, True, True, False])
    rest = collected(images[3:], texts[3:], tokens[3:], "345")
    assert len(padded) == 3
    assert EVALUATOR.compute(rest + padded) == EVALUATOR.compute(whole)
    assert EVALUATOR.compute([]) == {}
