import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics.evaluator import add
from jaxseg.metrics.prompt_iou import prompt_iou
from jaxseg.text.vocabulary import Vocabulary

NAMES = Vocabulary(("cat", "dog", "sky"), (True, True, False), {"seen": (0, 2), "unseen": (1,)})


def sums_of(probabilities, truth, mask=None, threshold=0.5):
    evaluator = prompt_iou(NAMES, threshold)
    batch = {
        "label_map": jnp.asarray(truth, jnp.int32),
        "example_mask": jnp.ones(len(truth), bool) if mask is None else jnp.asarray(mask),
    }
    return add({}, jax.jit(evaluator.count)({"probabilities": jnp.asarray(probabilities, jnp.float32)}, batch))


def by_hand():
    """One image of 2 x 4 pixels: cat 2, sky 4, void 2; dog is absent."""
    truth = np.array([[[0, 0, -1, -1], [2, 2, 2, 2]]])
    probabilities = np.zeros((1, 3, 2, 4), np.float32)
    probabilities[0, 0, 0] = [0.9, 0.5, 0.9, 0.9]  # one of two; exactly the threshold is not above it; void is left out
    probabilities[0, 1, 0] = [0.9, 0, 0.9, 0]  # a false positive of one pixel of six
    probabilities[0, 2] = 0.9  # everything
    return probabilities, truth


def test_by_hand():
    metrics = prompt_iou(NAMES).compute(sums_of(*by_hand()))
    expected = {
        "prompt_iou@0.5": (1 / 2 + 4 / 6) / 2,
        "prompt_iou@0.5/things": 1 / 2,
        "prompt_iou@0.5/stuff": 4 / 6,
        "prompt_iou@0.5/seen": (1 / 2 + 4 / 6) / 2,
        "foreground_iou@0.5": (1 + 4) / (2 + 6),
        "foreground_iou@0.5/things": 1 / 2,
        "prompt_iou@0.5_baseline": (2 / 6 + 4 / 6) / 2,
        "prompt_iou@0.5_baseline/things": 2 / 6,
        "foreground_iou@0.5_baseline": 6 / 12,
        "false_positive@0.5": 1,
        "false_positive@0.5/things": 1,
        "false_positive_large@0.5": 1,
        "present_pairs@0.5": 2,
        "present_pairs@0.5/stuff": 1,
        "present_pairs@0.5/unseen": 0,
        "absent_pairs@0.5": 1,
    }
    assert {name: metrics[name] for name in expected} == pytest.approx(expected)
    # No pair, no number.
    assert not {"prompt_iou@0.5/unseen", "prompt_iou@0.5/harmonic", "false_positive@0.5/stuff"} & set(metrics)


def test_small_false_positives_are_told_from_large_ones():
    truth = np.zeros((1, 10, 20), int)
    probabilities = np.zeros((1, 3, 10, 20))
    probabilities[0, 1, 0, :2] = 1  # exactly 1 % of 200 pixels
    probabilities[0, 2, 0, :3] = 1
    sums = sums_of(probabilities, truth)
    np.testing.assert_array_equal(sums["false_positive"], [0, 1, 1])
    np.testing.assert_array_equal(sums["false_positive_large"], [0, 0, 1])


def test_images_without_labels_do_not_count():
    probabilities, truth = by_hand()
    assert all(np.all(value == 0) for value in sums_of(probabilities, np.full_like(truth, -1)).values())


def test_split_of_batches_and_padding_do_not_matter():
    rng = np.random.default_rng(0)
    probabilities, truth = rng.random((5, 3, 6, 7)), rng.integers(-1, 3, (5, 6, 7))
    whole = sums_of(probabilities, truth)
    parts = add(sums_of(probabilities[:3], truth[:3]), sums_of(probabilities[3:], truth[3:]))
    more = np.pad(probabilities, ((0, 3), (0, 0), (0, 2), (0, 1)), constant_values=1)
    more_truth = np.pad(truth, ((0, 0), (0, 2), (0, 1)), constant_values=-1)
    more_truth = np.concatenate([more_truth, np.ones((3, 8, 8), int)])
    padded = sums_of(more, more_truth, [True] * 5 + [False] * 3)
    for name, value in whole.items():
        np.testing.assert_allclose(parts[name], value, rtol=1e-6)
        np.testing.assert_array_equal(padded[name], value)
