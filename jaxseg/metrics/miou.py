"""Semantic segmentation: mIoU, fwIoU, mACC, pACC and boundary IoU from confusion matrices."""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics.boundary import boundary_labels
from jaxseg.metrics.evaluator import Counts, register
from jaxseg.metrics.groups import as_baseline, by_group, check_names, finite, ratio
from jaxseg.typing import Array

ABSENT_CLASSES = ("zero", "skip")


@register("miou")
def miou(vocabulary, *, absent_classes="zero", boundary=False):
    """The class of highest probability against the label map, at original size; void pixels are left out.

    Metrics: `miou`, `miou/<group>`, `miou_present` (mean over the classes that occur in the truth), `fwiou`, `macc`,
    `pacc`, each also as `..._baseline`: the class with most pixels, predicted everywhere; `iou/<class>` and
    `acc/<class>` of classes that occur; with `boundary`, `boundary_iou` and `boundary_iou/<group>` over those.

    Args:
        absent_classes: see `mean_iou`.
    """
    num_classes = check_names(vocabulary)
    if absent_classes not in ABSENT_CLASSES:
        raise ValueError(f"absent_classes: found {absent_classes!r}, expected one of {', '.join(ABSENT_CLASSES)}")

    def count(outputs, batch):
        predicted, truth, keep = semantic_labels(outputs), batch["label_map"], batch["example_mask"]
        sums = {"confusion": confusion_matrix(predicted, truth, num_classes, keep)}
        if boundary:
            size = batch["original_size"]
            edges = [boundary_labels(jnp.asarray(x, jnp.int32), size) for x in (predicted, truth)]
            # Void is no class: where the truth is void, a predicted boundary is no mistake.
            edges[0] = jnp.where(truth >= 0, edges[0], -1)
            sums["boundary"] = confusion_matrix(*edges, num_classes, keep)
        return sums

    def compute(sums):
        confusion = sums["confusion"]
        metrics = _summary(confusion, vocabulary, absent_classes)
        metrics |= as_baseline(_summary(majority_confusion(confusion), vocabulary, absent_classes))
        scores = class_scores(confusion)
        for measure in ("iou", "acc"):
            metrics |= finite({f"{measure}/{n}": v for n, v in zip(vocabulary.names, scores[measure], strict=True)})
        if boundary:
            edges = boundary_iou(sums["boundary"])
            edges = np.where(np.isnan(scores["iou"]), np.nan, edges)
            metrics |= by_group("boundary_iou", vocabulary, lambda ids: _mean(edges[ids]))
        return metrics

    fields = ("label_map", "example_mask") + (("original_size",) if boundary else ())
    return Counts(count, compute, fields=fields, outputs=("probabilities",))


def _summary(confusion, vocabulary, absent_classes):
    scores = class_scores(confusion)
    metrics = by_group("miou", vocabulary, lambda ids: mean_iou(confusion, ids, absent_classes))
    metrics |= finite({"miou_present": mean_iou(confusion, absent_classes="skip")})
    return metrics | finite({name: scores[name] for name in ("fwiou", "macc", "pacc")})


def semantic_labels(outputs) -> Array:
    """[B, H, W] int32: the class of highest probability (the first one of equals)."""
    return jnp.argmax(outputs["probabilities"], 1).astype(jnp.int32)


def confusion_matrix(predicted: Array, truth: Array, num_classes: int, example_mask: Array | None = None) -> Array:
    """Pixels by predicted and true class.

    Args:
        predicted, truth: [B, H, W] integers; what is not in [0, num_classes) is void.
        example_mask: [B] bool, True = counted.

    Returns:
        [K + 1, K + 1] int32, rows: predicted, columns: true, the last of both: void.
    """
    size = num_classes + 1
    keep = jnp.ones(len(truth), bool) if example_mask is None else example_mask
    predicted, truth = (
        jnp.where((x >= 0) & (x < num_classes), x, num_classes).astype(jnp.int32).reshape(len(x), -1)
        for x in (predicted, truth)
    )

    # By example, so that a batch split over devices is counted where it lies.
    def of_example(cells, weight):
        return jnp.zeros(size * size, jnp.int32).at[cells].add(weight)

    counts = jax.vmap(of_example)(size * predicted + truth, keep.astype(jnp.int32))
    return jnp.sum(counts, 0).reshape(size, size)


def class_scores(confusion):
    """Scores of a confusion matrix [K + 1, K + 1] in [0, 1]; void rows and columns are left out of every sum.

    Returns:
        `iou` and `acc` [K], NaN for classes that do not occur in the truth; `fwiou` (IoUs weighted by true pixels),
        `macc` (mean of acc) and `pacc` (share of pixels), NaN where nothing is labelled.
    """
    inside = np.asarray(confusion, np.float64)[:-1, :-1]
    hits, true = np.diagonal(inside), inside.sum(0)
    acc = ratio(hits, true)
    iou = np.where(true > 0, label_iou(confusion), np.nan)
    return {
        "iou": iou,
        "acc": acc,
        "fwiou": float(ratio(np.nansum(iou * true), true.sum())),
        "macc": _mean(acc),
        "pacc": float(ratio(hits.sum(), true.sum())),
    }


def mean_iou(confusion, classes=None, absent_classes="zero"):
    """Mean IoU of some classes (all by default), NaN where there is nothing to average.

    Args:
        absent_classes: "zero": a class that is predicted on labelled pixels but never true counts as 0 (detectron2 0.6,
            mmsegmentation, and the systems of this library); "skip": it is left out (detectron2 since).
    """
    inside = np.asarray(confusion, np.float64)[:-1, :-1]
    true, predicted = inside.sum(0), inside.sum(1)
    iou = class_scores(confusion)["iou"]
    counted = true > 0 if absent_classes == "skip" else true + predicted > 0
    classes = np.arange(len(iou)) if classes is None else np.asarray(classes)
    return float(ratio(np.nansum(iou[classes]), counted[classes].sum()))


def majority_confusion(confusion):
    """The matrix that predicting the most frequent true class everywhere would have given."""
    confusion = np.asarray(confusion)
    trivial = np.zeros_like(confusion)
    trivial[np.argmax(confusion[:, :-1].sum(0))] = confusion.sum(0)
    return trivial


def label_iou(confusion):
    """[K] IoU of every label that is true or predicted anywhere, NaN for others; the last row and column are left out."""
    inside = np.asarray(confusion, np.float64)[:-1, :-1]
    hits = np.diagonal(inside)
    return ratio(hits, inside.sum(0) + inside.sum(1) - hits)


def boundary_iou(confusion):
    """[K] IoU of boundary regions from a matrix whose last row and column mean "no boundary of any class"."""
    padded = np.pad(np.asarray(confusion), ((0, 1), (0, 1)))
    return label_iou(padded)[:-1]


def _mean(values):
    return float(ratio(np.nansum(values), np.count_nonzero(~np.isnan(values))))
