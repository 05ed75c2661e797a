"""Panoptic quality (Kirillov et al. 2019), counted in the compiled evaluation step with panopticapi's rules.

Two segments of one class are the same where they overlap by more than half; at most one pair can, so nothing has to be
assigned. Counts and overlaps are integers, whatever the batches and devices: sums are exact.
"""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics.evaluator import Counts, register
from jaxseg.metrics.groups import by_group, check_names, finite, ratio
from jaxseg.typing import Array

_BASE, _NUM_DIGITS = 64, 8  # of overlaps: 48 bits, and no product beyond int32 below 2**25 pixels
TABLE = ("segment_ids", "segment_classes", "segment_is_crowd", "segment_areas")
_PREDICTED = ("panoptic_map", "panoptic_valid", "panoptic_classes")


class Segments(NamedTuple):
    """Segments of one image.

    Attributes:
        index: [H, W] int32: 0 = void, i + 1 = row i, S + 1 = a segment that is not in the table.
        valid: [S] bool; classes: [S] int32.
        is_crowd: [S] bool; areas: [S] int32 pixels. Of the truth only; areas are the annotation's, which need not be what the
            map has.
    """

    index: Array
    valid: Array
    classes: Array
    is_crowd: Array | None = None
    areas: Array | None = None


@register("pq")
def pq(vocabulary):
    """Panoptic quality, at original size; void and crowds as panopticapi has them.

    Reads the batch's `segment_map` and the table of the op `segment_table`. Metrics in [0, 1]: `pq`, `sq` (mean overlap of
    what was found), `rq` (F1 of finding it), each as the mean over classes that occur, in the truth or in a prediction, and
    over those of a group (`pq/things`, `pq/unseen`); `class_pq/<class>`, `class_sq/`, `class_rq/`, and the numbers of segments
    `class_tp/`, `class_fp/`, `class_fn/` of those classes.
    """
    num_classes = check_names(vocabulary)

    def count(outputs, batch):
        def of_image(predicted, truth, keep):
            sums = segment_counts(predicted, truth, num_classes)
            return {name: jnp.where(keep, value, 0) for name, value in sums.items()}

        predicted = Segments(*(outputs[name] for name in _PREDICTED))
        ids, classes, is_crowd, areas = (batch[name] for name in TABLE)
        index = jax.vmap(index_of)(batch["segment_map"], ids)
        truth = Segments(index, ids > 0, classes, is_crowd, areas)
        sums = jax.vmap(of_image)(predicted, truth, batch["example_mask"])
        return {name: jnp.sum(value, 0) for name, value in sums.items()}

    def compute(sums):
        scores = class_quality(sums)
        occurs = scores["n"] > 0
        metrics = {}
        for name in ("pq", "sq", "rq"):
            metrics |= by_group(name, vocabulary, lambda ids, values=scores[name]: quality_mean(values, scores["n"], ids))
        for name in ("pq", "sq", "rq", "tp", "fp", "fn"):
            rows = zip(vocabulary.names, scores[name], occurs, strict=True)
            metrics |= finite({f"class_{name}/{label}": value for label, value, found in rows if found})
        return metrics

    return Counts(count, compute, fields=("segment_map", *TABLE, "example_mask"), outputs=_PREDICTED)


def index_of(segment_map: Array, ids: Array) -> Array:
    """The row + 1 of each pixel's segment, as in `Segments.index`.

    Args:
        segment_map: [H, W] integer ids, 0 = void.
        ids: [S] integers in any order, different but for zeros, which are padding.
    """
    same = ids[:, None, None] == segment_map[None]
    row = jnp.where(jnp.any(same, 0), jnp.argmax(same, 0).astype(jnp.int32) + 1, len(ids) + 1)
    return jnp.where(segment_map == 0, 0, row)


def segment_counts(predicted: Segments, truth: Segments, num_classes: int) -> dict[str, Array]:
    """What one image adds for each class.

    - A pair is matched where its classes are equal, the true one is no crowd, and its overlap exceeds 1/2; void pixels of the
      predicted segment are not part of their union.
    - A predicted segment without a match counts as false unless more than half of it is void or in the crowd of its class,
      where several crowds of one class stand in the table the last of them.
    - A true segment without a match, crowds aside, counts as missed.

    Returns:
        `tp`, `fp`, `fn` [K] int32 and `overlap` [K, D] int32, the digits of the sum of overlaps (see `class_quality`).
    """
    num_predicted, num_true = len(predicted.valid), len(truth.valid)
    common = _common_pixels(predicted.index, truth.index, num_predicted, num_true)
    areas = jnp.sum(common, 1)[1:]
    void, shared = common[1:, 0], common[1:, 1 : num_true + 1]
    alive = predicted.valid & (areas > 0)
    alike = (predicted.classes[:, None] == truth.classes[None]) & alive[:, None] & truth.valid[None]

    union = areas[:, None] + truth.areas.astype(jnp.int32)[None] - shared - void[:, None]
    match = alike & ~truth.is_crowd[None] & (2 * shared > union) & (union > 0)
    crowded = alike & truth.is_crowd[None]
    last = num_true - 1 - jnp.argmax(crowded[:, ::-1], 1)
    crowd = jnp.where(jnp.any(crowded, 1), jnp.take_along_axis(shared, last[:, None], 1)[:, 0], 0)
    false = alive & ~jnp.any(match, 1) & (2 * (void + crowd) <= areas)
    missed = truth.valid & ~truth.is_crowd & ~jnp.any(match, 0)

    digits = jnp.where(match[:, :, None], _digits(shared, jnp.maximum(union, 1)), 0)
    return {
        "tp": _per_class(jnp.sum(match, 1), predicted.classes, num_classes),
        "fp": _per_class(false, predicted.classes, num_classes),
        "fn": _per_class(missed, truth.classes, num_classes),
        "overlap": _per_class(jnp.sum(digits, 1), predicted.classes, num_classes),
    }


def _common_pixels(predicted, truth, num_predicted, num_true):
    """[S + 1, T + 2] int32 pixels by index."""
    shape = (num_predicted + 1, num_true + 2)
    cells = (predicted.astype(jnp.int32) * shape[1] + truth.astype(jnp.int32)).reshape(-1)
    return jnp.zeros(shape[0] * shape[1], jnp.int32).at[cells].add(1).reshape(shape)


def _digits(above, below):
    """[..., D] int32: above / below to the base 64, the whole part first."""
    whole, rest = above // below, above % below
    digits = [whole]
    for _ in range(_NUM_DIGITS):
        rest = rest * _BASE
        digits.append(rest // below)
        rest = rest % below
    return jnp.stack(digits, -1)


def _per_class(values, classes, num_classes):
    """Sums over segments by class; segments without one, of class -1, have values of zero."""
    classes = jnp.where(classes < 0, num_classes, classes)
    total = jnp.zeros((num_classes, *values.shape[1:]), jnp.int32)
    return total.at[classes].add(values.astype(jnp.int32), mode="drop")


def class_quality(sums):
    """`pq`, `sq`, `rq` [K] in [0, 1], 0 for classes that do not occur, and `tp`, `fp`, `fn`, `overlap` and `n` (of segments).

    Args:
        sums: over images, of `segment_counts`, as int64; the overlaps of matched pairs add up to
            sum_i overlap[:, i] * 64**-i.
    """
    tp, fp, fn = (np.asarray(sums[name], np.float64) for name in ("tp", "fp", "fn"))
    digits = np.asarray(sums["overlap"], np.float64)
    overlap = digits @ float(_BASE) ** -np.arange(digits.shape[1], dtype=np.float64)
    of_all = tp + fp / 2 + fn / 2
    found = {"pq": ratio(overlap, of_all), "sq": ratio(overlap, tp), "rq": ratio(tp, of_all)}
    found = {name: np.nan_to_num(value) for name, value in found.items()}
    return {**found, "tp": tp, "fp": fp, "fn": fn, "overlap": overlap, "n": tp + fp + fn}


def quality_mean(values, num_segments, classes=None):
    """The mean over those of some classes (all by default) that occur, NaN where none does."""
    classes = np.arange(len(values)) if classes is None else np.asarray(classes)
    counted = classes[num_segments[classes] > 0]
    return float(ratio(values[counted].sum(), len(counted)))
