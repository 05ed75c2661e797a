import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.integrate import simpson

from jaxseg.metrics import fixed_interval as F
from jaxseg.metrics.evaluator import add
from jaxseg.text.vocabulary import Vocabulary

RNG = np.random.default_rng(0)


def counts_by_definition(probabilities, truth, valid, class_ids, num_classes):
    thresholds = F.interval().astype(np.float32)
    found = {name: np.zeros((num_classes, len(thresholds)), int) for name in F.OUTCOMES}
    for p, t, v, k in zip(probabilities, truth > 0.5, valid > 0, class_ids, strict=True):
        for j, threshold in enumerate(thresholds):
            positive = p > threshold
            for name, pixels in (("tp", positive & t), ("fp", positive & ~t), ("fn", ~positive & t), ("tn", ~positive & ~t)):
                found[name][k, j] += (pixels & v).sum()
    return found


def test_counts_follow_the_definition_also_on_thresholds():
    probabilities = RNG.random((4, 5, 6)).astype(np.float32)
    probabilities[0, 0] = F.interval().astype(np.float32)[[0, 4, 9, 24, 34, 48]]  # exactly on a threshold: not above it
    probabilities[0, 1] = [0, 1, 0.02, 0.98, np.nextafter(np.float32(0.5), 1), 0.5]
    truth, valid, classes = RNG.random((4, 5, 6)) > 0.5, RNG.random((4, 5, 6)) > 0.2, [0, 2, 2, 0]
    found = jax.jit(F.outcome_counts, static_argnums=4)(jnp.asarray(probabilities), truth, valid, jnp.asarray(classes), 3)
    for name, expected in counts_by_definition(probabilities, truth, valid, classes, 3).items():
        np.testing.assert_array_equal(found[name], expected)


def test_scores_add_one_to_every_denominator():
    sums = {"tp": [[3], [0]], "fp": [[1], [0]], "fn": [[2], [0]], "tn": [[4], [0]]}
    curves = F.score_curves(sums)
    assert curves["fgiou"] == pytest.approx(3 / 7)
    assert curves["biniou"] == pytest.approx(0.5 * 3 / 7 + 0.5 * 4 / 8)
    assert curves["class_iou"] == pytest.approx(3 / 7)  # a class without samples is no class
    recall, precision = F.precision_recall(sums)
    assert (recall, precision) == (pytest.approx(3 / 6), pytest.approx(3 / 5))


def test_points_are_unique_sorted_and_predicted():
    sums = {"tp": [[4, 2, 2, 2, 0]], "fp": [[5, 3, 1, 1, 0]], "fn": [[0, 2, 2, 2, 4]]}
    recall, precision = F.precision_recall(sums)
    np.testing.assert_allclose(recall, [2 / 5, 2 / 5, 4 / 5])
    np.testing.assert_allclose(precision, [2 / 4, 2 / 6, 4 / 10])
    np.testing.assert_allclose(F.precision_recall(sums, ties="ascending")[1], [2 / 6, 2 / 4, 4 / 10])


@pytest.mark.parametrize("num_points", [2, 3, 4, 7, 8])
def test_integration_equals_scipys(num_points):
    x, y = np.sort(RNG.random(num_points)), RNG.random(num_points)
    assert F.average_precision(x, y, rule="corrected") == pytest.approx(simpson(y, x=x), abs=1e-12)
    # A parabola is integrated exactly whatever the grid, where the number of points is odd.
    if num_points % 2:
        assert F.average_precision(x, x**2) == pytest.approx((x[-1] ** 3 - x[0] ** 3) / 3)


def test_published_rule_for_an_even_number_of_points():
    # 0, 1, 3, 4 with values 1, 2, 0, 4: a trapezoid and a parabola through the other three points, both ways, halved.
    parabola = np.polynomial.Polynomial.fit([1, 3, 4], [2, 0, 4], 2).integ()
    first = 1.5 + parabola(4) - parabola(1)
    parabola = np.polynomial.Polynomial.fit([0, 1, 3], [1, 2, 0], 2).integ()
    last = parabola(3) - parabola(0) + 2
    assert F.average_precision([0, 1, 3, 4], [1, 2, 0, 4]) == pytest.approx((first + last) / 2)


@pytest.mark.parametrize("num_points", [0, 1])
def test_no_curve_has_no_area(num_points):
    assert F.average_precision(np.ones(num_points), np.ones(num_points)) == 0


def test_equal_recalls_are_finite():
    assert np.isfinite(F.average_precision([0.1, 0.5, 0.5, 0.5, 0.5, 0.9], [1, 0.9, 0.8, 0.7, 0.6, 0.5]))


def test_thresholds_are_found_although_floats_differ():
    grid = F.interval()
    assert [round(float(grid[F.nearest_threshold(grid, t)]), 2) for t in (0.7, 0.82, 0.94)] == [0.7, 0.82, 0.94]


def evaluate(probabilities, truth, mask):
    evaluator = F.fixed_interval(Vocabulary(("a", "b"), (True, True)), 0.24)
    batch = {"label_map": jnp.asarray(truth, jnp.int32), "example_mask": jnp.asarray(mask)}
    return evaluator, add({}, jax.jit(evaluator.count)({"probabilities": jnp.asarray(probabilities, jnp.float32)}, batch))


def test_evaluator_counts_present_names_only():
    truth = np.array([[[0, 0], [0, -1]], [[1, 1], [0, 0]]])
    probabilities = np.zeros((2, 2, 2, 2))
    probabilities[0, 0] = 1  # right, and one pixel on void
    probabilities[0, 1] = 1  # b is absent from the first image
    probabilities[1, 0, 0] = 0.4  # wrong below 0.4
    evaluator, sums = evaluate(probabilities, truth, [True, True])
    metrics = evaluator.compute(sums)
    # At 0.3: a: tp 3, fp 2, fn 2; b: fn 2
    assert metrics["fgiou@0.3"] == pytest.approx(3 / (1 + 3 + 2 + 4)) and metrics["fgiou@0.5"] == pytest.approx(3 / (1 + 3 + 4))
    assert metrics["class_iou@0.3"] == pytest.approx(0.5 * 3 / (1 + 3 + 2 + 2)) and "fgiou@0.24" in metrics
    assert metrics["fgiou_best"] == metrics["fgiou@0.5"] and 0.39 < metrics["fgiou_best_t"] < 0.41
    assert {name for name in metrics if name.startswith("ap")} == {"ap"}


def test_split_of_batches_and_padding_do_not_matter():
    probabilities, truth = RNG.random((3, 2, 4, 5)), RNG.integers(-1, 2, (3, 4, 5))
    evaluator, whole = evaluate(probabilities, truth, [True] * 3)
    parts = add(evaluate(probabilities[:1], truth[:1], [True])[1], evaluate(probabilities[1:], truth[1:], [True] * 2)[1])
    more_truth = np.concatenate([truth, truth[:1]])
    padded = evaluate(np.concatenate([probabilities, probabilities[:1]]), more_truth, [True] * 3 + [False])[1]
    for other in (parts, padded):
        for name, value in whole.items():
            np.testing.assert_array_equal(other[name], value)
    _, none = evaluate(probabilities, truth, [False] * 3)
    assert evaluator.compute(none) == {}
