import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics.evaluator import add
from jaxseg.metrics.miou import class_scores, confusion_matrix, majority_confusion, mean_iou, miou
from jaxseg.text.vocabulary import Vocabulary

NAMES = Vocabulary(("a", "b", "c"), (True, True, False), {"seen": (0, 2), "unseen": (1,)})


def one_hot(labels, num_classes=3):
    """Probabilities [B, K, H, W] whose argmax is the labels."""
    return np.moveaxis(np.eye(num_classes, dtype=np.float32)[labels], -1, 1)


def sums_of(evaluator, predicted, truth, mask=None, size=None):
    batch = {
        "label_map": jnp.asarray(truth, jnp.int32),
        "example_mask": jnp.ones(len(truth), bool) if mask is None else jnp.asarray(mask),
        "original_size": jnp.asarray([truth.shape[1:]] * len(truth) if size is None else size, jnp.int32),
    }
    return add({}, jax.jit(evaluator.count)({"probabilities": one_hot(predicted)}, batch))


def test_confusion_by_hand():
    predicted = jnp.array([[[0, 0, 1], [2, 1, -1]]])
    truth = jnp.array([[[0, 1, 1], [-1, 7, 0]]])  # -1 and 7 are void
    expected = np.array([[1, 1, 0, 0], [0, 1, 0, 1], [0, 0, 0, 1], [1, 0, 0, 0]])
    np.testing.assert_array_equal(jax.jit(confusion_matrix, static_argnums=2)(predicted, truth, 3), expected)


def test_scores_by_hand():
    # true: a 4, b 2, c 0; predicted: a 3, b 2, c 1
    confusion = np.zeros((4, 4), int)
    confusion[0, 0], confusion[0, 1], confusion[1, 0], confusion[1, 1], confusion[2, 0] = 2, 1, 1, 1, 1
    confusion[1, 3] = 100  # void truth leaves everything
    scores = class_scores(confusion)
    np.testing.assert_allclose(scores["iou"], [2 / 5, 1 / 3, np.nan])
    np.testing.assert_allclose(scores["acc"], [1 / 2, 1 / 2, np.nan])
    assert scores["pacc"] == pytest.approx(3 / 6) and scores["macc"] == pytest.approx(0.5)
    assert scores["fwiou"] == pytest.approx((4 * 2 / 5 + 2 / 3) / 6)
    assert mean_iou(confusion) == pytest.approx((2 / 5 + 1 / 3) / 3)  # c is predicted: a zero
    assert mean_iou(confusion, absent_classes="skip") == pytest.approx((2 / 5 + 1 / 3) / 2)
    assert mean_iou(confusion, [1, 2], "skip") == pytest.approx(1 / 3)
    assert np.isnan(mean_iou(confusion, [2], "skip")) and np.isnan(mean_iou(np.zeros((4, 4))))
    np.testing.assert_array_equal(majority_confusion(confusion)[0], [4, 2, 0, 100])


def test_metrics_and_baseline():
    truth = np.array([[[0, 0, 0, 1]]])
    metrics = miou(NAMES).compute(sums_of(miou(NAMES), truth, truth))
    assert metrics["miou"] == metrics["miou/harmonic"] == metrics["pacc"] == metrics["iou/b"] == 1
    assert metrics["miou_baseline"] == pytest.approx(0.75 / 2) and metrics["pacc_baseline"] == 0.75
    assert metrics["miou_baseline/unseen"] == 0 and metrics["miou_baseline/harmonic"] == 0
    assert "iou/c" not in metrics and "miou/stuff" not in metrics
    assert miou(NAMES).compute(sums_of(miou(NAMES), truth, -np.ones_like(truth))) == {}


def test_split_of_batches_and_padding_do_not_matter():
    rng = np.random.default_rng(0)
    predicted, truth = rng.integers(0, 3, (5, 6, 7)), rng.integers(-1, 3, (5, 6, 7))
    evaluator = miou(NAMES, boundary=True)
    whole = sums_of(evaluator, predicted, truth)
    parts = add(sums_of(evaluator, predicted[:2], truth[:2]), sums_of(evaluator, predicted[2:], truth[2:]))
    # Padded to six examples and to a larger canvas, with rubbish in what is masked.
    more_truth = np.concatenate([np.pad(truth, ((0, 0), (0, 3), (0, 2)), constant_values=-1), np.ones((1, 9, 9), int)])
    more = np.pad(predicted, ((0, 1), (0, 3), (0, 2)), constant_values=2)
    padded = sums_of(evaluator, more, more_truth, [True] * 5 + [False], [[6, 7]] * 6)
    for other in (parts, padded):
        np.testing.assert_array_equal(whole["confusion"][:, :-1], other["confusion"][:, :-1])
        np.testing.assert_array_equal(whole["boundary"][:-1], other["boundary"][:-1])
        np.testing.assert_array_equal(whole["boundary"][:, :-1], other["boundary"][:, :-1])
        assert evaluator.compute(whole) == evaluator.compute(other)


def test_boundary_iou_by_hand():
    truth = np.zeros((1, 6, 6), int)
    truth[0, 2:4, 2:4] = 1
    predicted = truth.copy()
    predicted[0, 2, 2] = 0
    metrics = miou(NAMES, boundary=True).compute(sums_of(miou(NAMES, boundary=True), predicted, truth))
    # Width 1. b: 4 true, 3 predicted. a: all 32 pixels touch the square or the frame; in the prediction the pixel
    # (2, 2) comes in and (1, 1) is no boundary any more.
    assert metrics["boundary_iou/unseen"] == pytest.approx(3 / 4)
    assert metrics["boundary_iou/seen"] == pytest.approx(31 / 33)
    assert metrics["boundary_iou"] == pytest.approx((3 / 4 + 31 / 33) / 2)
