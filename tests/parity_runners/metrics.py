"""Metrics against the numbers of the published evaluators."""

import jax.numpy as jnp
import numpy as np

from jaxseg.metrics import fixed_interval as F
from jaxseg.metrics import miou as M
from jaxseg.metrics.boundary import published_boundary
from jaxseg.metrics.evaluator import add
from tests.parity_runners.registry import runner


def images(x):
    """[B, 1, H, W] with or without further axes of one -> [B, H, W]."""
    return jnp.asarray(x).reshape(len(x), *np.shape(x)[-2:])


def class_indices(ids):
    """(sorted class ids, index of each sample's class)."""
    known = np.unique(np.concatenate(ids))
    return known, [jnp.asarray(np.searchsorted(known, part)) for part in ids]


def count(predictions, truths, valids, classes, thresholds, sigmoid=True, shift=0.0, resize_pred=False, resize_to=None):
    """Counts summed over batches, and the class ids they belong to."""
    known, indices = class_indices(classes)
    sums = {}
    for logits, truth, valid, class_ids in zip(predictions, truths, valids, indices, strict=True):
        logits, truth = images(logits), images(truth)
        valid = images(valid) if np.size(valid) else jnp.ones(truth.shape)
        size = truth.shape[1:] if resize_pred else None
        if resize_to:
            size = (resize_to, resize_to) if np.ndim(resize_to) == 0 else tuple(resize_to)
            truth, valid = (F.resize(x, size, method="nearest") for x in (truth, valid))
        p = F.probabilities_at(logits, size, shift=shift, sigmoid=sigmoid, align_corners=not resize_to)
        sums = add(sums, F.outcome_counts(p, truth, valid, class_ids, len(known), thresholds))
    return sums, known


def scalars(curves, thresholds, custom=None):
    """Values at the published operating points, named as published."""
    found = {}
    for name, curve in (("fgiou", "fgiou"), ("biniou", "biniou"), ("miou", "class_iou")):
        values, best = curves[curve], int(np.argmax(curves[curve]))
        found |= {f"{name}_best": values[best], f"{name}_best_t": thresholds[best]}
        found |= {f"{name}_{t}": values[F.nearest_threshold(thresholds, t)] for t in F.OPERATING_POINTS}
        if custom is not None:
            key = "mean_iou_ct" if name == "miou" else f"{name}_ct"
            found[key] = values[F.nearest_threshold(thresholds, custom)]
    return found


@runner("clipseg/metric_fixed_interval")
def metric_fixed_interval(config, weights, inputs):
    args, thresholds = config["args"], F.interval(config["args"].get("n_values", 51))
    parts = [[inputs[f"{name}_{i}"] for i in range(config["n_batches"])] for name in ("pred", "gt", "valid", "class")]
    options = {name: args[name] for name in ("resize_pred", "resize_to") if args.get(name)}
    sums, known = count(*parts, thresholds, sigmoid=bool(args.get("sigmoid", False)), shift=config.get("shift", 0.0), **options)
    curves, custom = F.score_curves(sums), args.get("custom_threshold")
    recall, precision = F.precision_recall(sums)
    out = scalars(curves, thresholds, custom)
    out |= {f"{name}_scores": curves[name] for name in ("fgiou", "biniou")}
    out |= {f"summed_{name}": sums[name].sum(0) for name in F.OUTCOMES}
    for ties in ("ascending", "descending"):
        out[f"ap_avg_ties_precision_{ties}"] = F.average_precision(*F.precision_recall(sums, ties=ties))
    if custom is not None:
        out["ct"] = thresholds[F.nearest_threshold(thresholds, custom)]
    return out | {
        "mean_iou_scores": curves["class_iou"],
        "ap_simpson_avg": F.average_precision(recall, precision),
        "ap_simpson_scipy117": F.average_precision(recall, precision, rule="corrected"),
        "pr_curve_recall": recall,
        "pr_curve_precision": precision,
        "class_ids": known,
        "by_class_tp": sums["tp"],
    }


@runner("dataeval/clipseg_metrics")
def clipseg_metrics(config, weights, inputs):
    thresholds = F.interval(config["n_values"])
    valid = inputs["mask"] if config["mask_used"] else np.ones_like(inputs["gt"])
    parts = ([inputs[name]] for name in ("pred_logits", "gt"))
    sums, _ = count(*parts, [valid], [inputs["class_id"]], thresholds)
    curves, points = F.score_curves(sums), F.precision_recall(sums)
    named = scalars(curves, thresholds) | {"ap": F.average_precision(*points)}
    return {
        "scalars": [named[name] for name in config["scalar_names"]],
        "fgiou_scores": curves["fgiou"],
        "biniou_scores": curves["biniou"],
        "miou_scores": curves["class_iou"],
        "recall_precision": np.stack(points, 1),
        "ap_simpson_new": F.average_precision(*points, rule="corrected"),
        **{f"sum_{name}": sums[name].sum(0) for name in F.OUTCOMES},
    }


@runner("dataeval/semseg")
def semseg(config, weights, inputs):
    num_classes, void = config["num_classes"], config["ignore_label"]
    total = {}
    for name in sorted(name for name in inputs if name.startswith("pred_")):
        predicted, truth = (jnp.asarray(inputs[key], jnp.int32)[None] for key in (name, name.replace("pred", "gt")))
        truth = jnp.where(truth == void, num_classes, truth)
        size = jnp.asarray([truth.shape[1:]])
        edges = (published_boundary(x, size) for x in (predicted, truth))
        counts = {
            "confusion": M.confusion_matrix(predicted, truth, num_classes),
            "boundary": M.confusion_matrix(*edges, num_classes),
        }
        total = add(total, counts)
    scores = M.class_scores(total["confusion"])
    rest = [scores[name] for name in ("fwiou", "macc", "pacc")]
    means = {rule: M.mean_iou(total["confusion"], absent_classes=rule) for rule in M.ABSENT_CLASSES}
    return {
        "confusion": total["confusion"],
        "hipie_miou_fwiou_macc_pacc": 100 * np.array([means["zero"], *rest]),
        "d2_main_miou_fwiou_macc_pacc": 100 * np.array([means["skip"], *rest]),
        "iou_per_class": 100 * scores["iou"],
        "acc_per_class": 100 * scores["acc"],
        "d2_main_boundary_iou_per_class": 100 * M.label_iou(total["boundary"]),
    }
