"""CLIPSeg's scores over fixed thresholds: foreground, binary and class IoU, average precision (Lueddecke & Ecker 2022).

Counts of true and false positives and negatives are taken at 49 thresholds 0.02, 0.04, ..., 0.98 with a strict float32
comparison, summed over samples, and only then divided, with 1 added to every denominator: part of the published protocol.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics.evaluator import Counts, register
from jaxseg.metrics.groups import check_names
from jaxseg.ops.resize import resize
from jaxseg.typing import Array

OPERATING_POINTS = (0.1, 0.2, 0.3, 0.5)
OUTCOMES = ("tp", "fp", "fn", "tn")


@register("fixed_interval")
def fixed_interval(vocabulary, *thresholds):
    """FixedIntervalMetrics over the pairs of an image and a name present in it; classes are the names.

    Metrics: `ap`, and `fgiou`, `biniou`, `class_iou` each as `..._best`, `..._best_t` (its threshold) and `...@t` for t =
    0.1, 0.2, 0.3, 0.5 and the given thresholds (multiples of 0.02).
    """
    num_names = check_names(vocabulary)
    grid = interval()
    points = [*OPERATING_POINTS, *thresholds]
    for t in thresholds:
        nearest_threshold(grid, t)

    def count(outputs, batch):
        probabilities, label_map = outputs["probabilities"], batch["label_map"]
        shape = probabilities.shape
        truth = label_map[:, None] == jnp.arange(num_names, dtype=label_map.dtype)[None, :, None, None]
        present = jnp.any(truth, (2, 3)) & batch["example_mask"][:, None]
        valid = (label_map >= 0)[:, None] & present[:, :, None, None]
        class_ids = jnp.broadcast_to(jnp.arange(num_names)[None], shape[:2])
        return outcome_counts(probabilities, truth, valid, class_ids, num_names, grid)

    def compute(sums):
        curves = score_curves(sums)
        metrics = {"ap": average_precision(*precision_recall(sums))}
        for measure in ("fgiou", "biniou", "class_iou"):
            best = int(np.argmax(curves[measure]))
            metrics |= {f"{measure}_best": curves[measure][best], f"{measure}_best_t": grid[best]}
            metrics |= {f"{measure}@{t:g}": curves[measure][nearest_threshold(grid, t)] for t in points}
        return {name: float(value) for name, value in metrics.items()} if sums["tp"].any() or sums["fn"].any() else {}

    return Counts(count, compute, fields=("label_map", "example_mask"), outputs=("probabilities",))


def interval(num_values=51):
    """The thresholds, float64: `num_values` from 0 to 1 without both ends."""
    return np.linspace(0, 1, num_values)[1:-1]


def nearest_threshold(grid, t):
    """Index of a threshold.

    Raises:
        ValueError: where the grid does not have it.
    """
    i = int(np.argmin(np.abs(grid - t)))
    if abs(grid[i] - t) > 1e-6:
        raise ValueError(f"threshold: found {t}, expected one of {grid[0]:g}, {grid[1]:g}, ..., {grid[-1]:g}")
    return i


def outcome_counts(probabilities, truth, valid, class_ids, num_classes, thresholds=None) -> dict[str, Array]:
    """Pixels by outcome, class and threshold.

    Args:
        probabilities: [..., H, W] float32; truth: the same shape, > 0.5 = foreground; valid: broadcastable to it, > 0 =
            counted; class_ids: [...] int in [0, num_classes), the class of each sample.
        thresholds: T ascending numbers, `interval()` by default.

    Returns:
        `tp`, `fp`, `fn`, `tn`: [num_classes, T] int32; a pixel is positive where probability > threshold.
    """
    thresholds = np.asarray(interval() if thresholds is None else thresholds, np.float32)
    num_bins = len(thresholds) + 1
    probabilities = jnp.asarray(probabilities, jnp.float32)
    # How many thresholds lie below; one fused pass of comparisons is far faster than a binary search of every pixel.
    level = sum((probabilities > t).astype(jnp.int32) for t in thresholds)
    truth = (jnp.asarray(truth) > 0.5).astype(jnp.int32)
    weight = jnp.broadcast_to((jnp.asarray(valid) > 0).astype(jnp.int32), probabilities.shape)
    cells = (class_ids.astype(jnp.int32)[..., None, None] * 2 + truth) * num_bins + level

    # By the first axis, so that a batch split over devices is counted where it lies.
    def of_row(cells, weight):
        return jnp.zeros(num_classes * 2 * num_bins, jnp.int32).at[cells].add(weight)

    rows = len(cells)
    counts = jax.vmap(of_row)(cells.reshape(rows, -1), weight.reshape(rows, -1))
    counts = jnp.sum(counts, 0).reshape(num_classes, 2, num_bins)
    below = jnp.cumsum(counts, -1)[..., :-1]  # [t]: pixels not above threshold t
    above = jnp.sum(counts, -1, keepdims=True) - below
    return {"tp": above[:, 1], "fp": above[:, 0], "fn": below[:, 1], "tn": below[:, 0]}


def probabilities_at(logits, size=None, *, shift=0.0, sigmoid=True, align_corners=True) -> Array:
    """`sigmoid(logits + shift)` [..., h, w], then resized to the truth's size (published `resize_pred`: corners aligned)."""
    x = jnp.asarray(logits, jnp.float32) + shift
    x = jax.nn.sigmoid(x) if sigmoid else x
    return x if size is None else resize(x, size, align_corners=align_corners)


def score_curves(sums):
    """{"fgiou", "biniou", "class_iou": [T] float64, "iou_by_class": [K, T]} from the sums of `outcome_counts`.

    `biniou` is the mean of the IoUs of foreground and background; `class_iou` the mean over classes that have samples.
    """
    sums = {name: np.asarray(sums[name], np.float64) for name in OUTCOMES}
    seen = sum(sums.values())[:, 0] > 0
    total = {name: value.sum(0) for name, value in sums.items()}
    by_class = sums["tp"] / (1 + sums["tp"] + sums["fp"] + sums["fn"])
    foreground = total["tp"] / (1 + total["tp"] + total["fp"] + total["fn"])
    background = total["tn"] / (1 + total["tn"] + total["fn"] + total["fp"])
    return {
        "fgiou": foreground,
        "biniou": 0.5 * foreground + 0.5 * background,
        "class_iou": by_class[seen].mean(0) if seen.any() else np.zeros(len(foreground)),
        "iou_by_class": by_class,
    }


def precision_recall(sums, *, ties="descending"):
    """Points (recall, precision) [N] each, by ascending recall, of thresholds with any prediction, without duplicates.

    Args:
        ties: the order of precisions at equal recall; "descending" follows the curve. The published order is arbitrary.
    """
    tp, fp, fn = (np.asarray(sums[name], np.float64).sum(0) for name in ("tp", "fp", "fn"))
    predicted = tp + fp > 0
    tp, fp, fn = tp[predicted], fp[predicted], fn[predicted]
    points = np.unique(np.stack([tp / (1 + tp + fn), tp / (1 + tp + fp)], 1), axis=0)
    order = np.lexsort((points[:, 1] if ties == "ascending" else -points[:, 1], points[:, 0]))
    return points[order, 0], points[order, 1]


def average_precision(recall, precision, *, rule="average"):
    """The precision-recall curve integrated over the recalls that were visited, by Simpson's rule on an irregular grid.

    Args:
        rule: for an even number of points. "average", the published values (SciPy's `simps` before 1.11): the mean of
            taking the first and the last interval as a trapezoid; "corrected": a parabola through the last three points
            for the last interval (SciPy since, after Cartwright 2017).
    """
    x, y = np.asarray(recall, np.float64), np.asarray(precision, np.float64)
    if len(x) < 2:
        return 0.0
    if len(x) % 2:
        return _simpson(x, y)
    first, last = _trapezoid(x[:2], y[:2]), _trapezoid(x[-2:], y[-2:])
    if rule == "average" or len(x) == 2:
        return 0.5 * (first + _simpson(x[1:], y[1:]) + _simpson(x[:-1], y[:-1]) + last)
    before, width = x[-2] - x[-3], x[-1] - x[-2]
    end = _over(2 * width**2 + 3 * before * width, 6 * (before + width)) * y[-1]
    end += _over(width**2 + 3 * before * width, 6 * before) * y[-2]
    end -= _over(width**3, 6 * before * (before + width)) * y[-3]
    return float(_simpson(x[:-1], y[:-1]) + end)


def _simpson(x, y):
    """Composite rule for an odd number of points; quotients by an interval of no width count as 0, as in SciPy."""
    left, right = np.diff(x)[::2], np.diff(x)[1::2]
    width, skew = left + right, _over(left, right)
    weights = 2 - _over(1.0, skew), width * _over(width, left * right), 2 - skew
    return float(np.sum(width / 6 * (weights[0] * y[:-2:2] + weights[1] * y[1:-1:2] + weights[2] * y[2::2])))


def _trapezoid(x, y):
    return float(0.5 * (x[1] - x[0]) * (y[0] + y[1]))


def _over(a, b):
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.zeros(np.broadcast_shapes(a.shape, b.shape)), where=b != 0)
