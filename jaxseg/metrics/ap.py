"""COCO's average precision of masks and boxes, computed by pycocotools."""

import contextlib
import io
from typing import NamedTuple

import numpy as np

from jaxseg.coco import check_size, encode_masks
from jaxseg.metrics import ground_truth
from jaxseg.metrics.coco_files import box_rows, mask_rows
from jaxseg.metrics.evaluator import Collected, register
from jaxseg.metrics.groups import by_group, check_names, class_groups, finite, ratio

KINDS = {"mask": "segm", "box": "bbox"}
IOU_THRESHOLDS = tuple(float(t) for t in np.linspace(0.5, 0.95, 10))
MAX_DETECTIONS = (1, 10, 100)
AREAS = ("all", "small", "medium", "large")  # below 32^2, from there, above 96^2 pixels
TRUTHS = ("objects", "segments")


@register("mask_ap")
def mask_ap(vocabulary, truth="objects", *, class_agnostic=False):
    """Average precision of instances by the overlap of masks, at original size.

    Metrics: `mask_ap`, `mask_ap50`, `mask_ap75` and each of them per group (`/base`); `mask_ap_small`, `_medium`, `_large`;
    `mask_ar1`, `mask_ar10`, `mask_ar100`, `mask_ar_small`, `_medium`, `_large`; `class_mask_ap/<class>` and
    `class_mask_ap50/<class>` of classes that occur. Where a vocabulary has things and stuff, things alone are counted.

    Args:
        truth: "objects": of the examples' annotations; "segments": the things among the examples' panoptic segments; or the
            path of a COCO JSON whose image ids are the examples' and whose categories have the vocabulary's names.
        class_agnostic: whatever the classes, as for proposals: `agnostic_mask_ap`, `agnostic_mask_ar100`, ... and recall per
            group of true classes (`agnostic_mask_ar100/novel`).
    """
    return _evaluator(vocabulary, "mask", truth, class_agnostic)


@register("box_ap")
def box_ap(vocabulary, truth="objects", *, class_agnostic=False):
    """Average precision of instances by the overlap of boxes; metrics and arguments as of `mask_ap`, named `box_...`."""
    return _evaluator(vocabulary, "box", truth, class_agnostic)


def _evaluator(vocabulary, kind, truth, class_agnostic):
    check_names(vocabulary)
    counted = vocabulary.things if len(vocabulary.things) and len(vocabulary.stuff) else np.arange(len(vocabulary))
    if truth not in TRUTHS and not str(truth).endswith(".json"):
        raise ValueError(f"truth: found {truth!r}, expected one of {', '.join(TRUTHS)}, or the path of a COCO JSON")
    annotated = None if truth in TRUTHS else ground_truth.read_annotations(truth, vocabulary.names)
    drawn = "instance_masks" if kind == "mask" else "instance_boxes"

    def collect(outputs, batch, metas):
        records = []
        for i in np.flatnonzero(batch["example_mask"]):
            size, name = tuple(int(n) for n in metas[i]["original_size"]), str(metas[i]["id"])
            keep = np.asarray(outputs["instance_valid"][i], bool)
            shapes = np.asarray(outputs[drawn][i])[keep]
            shapes = encode_masks(shapes[:, : size[0], : size[1]]) if kind == "mask" else shapes.astype(np.float64)
            row = {"scores": outputs["instance_scores"][i][keep], "classes": outputs["instance_classes"][i][keep]}
            truths = _from_file(annotated, truth, name, size) if annotated is not None else _of(truth, batch, metas, i, size)
            records.append({"id": name, "size": size, "shapes": shapes, "truth": truths, **row})
        return records

    def compute(records):
        data, detections = _coco_form(records, kind, counted)
        if class_agnostic:
            return _agnostic_metrics(data, detections, kind, vocabulary)
        return _metrics(precision_recall(data, detections, KINDS[kind], category_ids=counted), kind, vocabulary)

    fields = ("example_mask", "segment_map") if truth == "segments" else ("example_mask",)
    return Collected(collect, compute, fields, ("instance_valid", "instance_scores", "instance_classes", drawn))


def _of(truth, batch, metas, i, size):
    """The annotations of an example."""
    if truth == "segments":
        return ground_truth.from_segments(batch["segment_map"][i][: size[0], : size[1]], metas[i]["segments"])
    if "objects" not in metas[i]:
        raise ValueError(f"{metas[i]['id']}: the example has no objects; truth='segments' takes those of panoptic segments")
    return ground_truth.from_objects(metas[i]["objects"], size, str(metas[i]["id"]))


def _from_file(annotated, path, name, size):
    if name not in annotated:
        raise ValueError(f"{path}: no image with id {name}")
    found, annotations = annotated[name]
    check_size({"size": found}, size, f"{path}: image {name}")
    return annotations


def _coco_form(records, kind, counted):
    """The records as pycocotools reads them, images in the order of their ids."""
    counted = set(np.asarray(counted).tolist())
    data = {"images": [], "annotations": [], "categories": [{"id": c} for c in sorted(counted)]}
    detections = []
    for number, record in enumerate(sorted(records, key=_by_id), 1):
        data["images"].append({"id": number, "height": record["size"][0], "width": record["size"][1], "name": record["id"]})
        data["annotations"] += [{**row, "image_id": number} for row in record["truth"] if row["category_id"] in counted]
        rows = (mask_rows if kind == "mask" else box_rows)(number, record["shapes"], record["scores"], record["classes"])
        detections += [row for row in rows if row["category_id"] in counted]
    for number, row in enumerate(data["annotations"], 1):
        row["id"] = number  # pycocotools takes 0 for "not matched"
    return data, detections


def _by_id(record):
    """COCO's order of images, on which ties between them depend: numbers as numbers, other ids as text."""
    name = record["id"]
    return (0, int(name), "") if name.isdecimal() else (1, 0, name)


def _metrics(curves, kind, vocabulary):
    metrics = finite({f"{kind}_{name}": value for name, value in summary(curves).items()})
    for name, iou in (("ap", None), ("ap50", 0.5), ("ap75", 0.75)):
        values = np.full(len(vocabulary), np.nan)
        values[list(curves.category_ids)] = class_ap(curves, iou)
        metrics |= by_group(f"{kind}_{name}", vocabulary, lambda ids, values=values: _mean(values[ids]))
        if name != "ap75":
            rows = zip(vocabulary.names, values, strict=True)
            metrics |= finite({f"class_{kind}_{name}/{label}": value for label, value in rows})
    return metrics


def _agnostic_metrics(data, detections, kind, vocabulary):
    def found(data):
        return summary(precision_recall(data, detections, KINDS[kind], class_agnostic=True))

    metrics = {f"agnostic_{kind}_{name}": value for name, value in found(data).items()}
    for group, ids in class_groups(vocabulary).items():
        # What a detection finds beside the group's objects does not matter for their recall.
        part = {**data, "annotations": [row for row in data["annotations"] if row["category_id"] in ids]}
        recalls = {name: value for name, value in found(part).items() if name.startswith("ar")}
        metrics |= {f"agnostic_{kind}_{name}/{group}": value for name, value in recalls.items()}
    return finite(metrics)


class Curves(NamedTuple):
    """Precision and recall of K categories at T overlaps, R = 101 recalls, A areas and M numbers of detections.

    Attributes:
        precision: [T, R, K, A, M]; recall: [T, K, A, M]; -1 where a category has no object to find.
        category_ids: K, ascending; iou_thresholds: T; max_detections: M per image and category, ascending.
    """

    precision: np.ndarray
    recall: np.ndarray
    category_ids: tuple
    iou_thresholds: tuple[float, ...]
    max_detections: tuple[int, ...]


def precision_recall(
    truth,
    detections,
    kind,
    *,
    category_ids=None,
    iou_thresholds=IOU_THRESHOLDS,
    max_detections=MAX_DETECTIONS,
    box_areas=False,
    class_agnostic=False,
):
    """pycocotools' curves; ties are ordered as it orders them.

    Args:
        truth: of a COCO JSON of instances: `images`, `categories`, `annotations`; ids of annotations are not 0.
        detections: rows of a results file, best of equals first: `image_id`, `category_id`, `score`, and `segmentation` (run
            lengths) or `bbox`.
        kind: "segm" or "bbox".
        category_ids: those to count, by default all.
        box_areas: whether small and large detected masks are told by their boxes, as pycocotools does with files that hold
            both; by default by their pixels.

    Raises:
        ValueError: one line: a mask of another size than its image, a detection of an unknown image, or a score that is not
            finite.
    """
    from pycocotools.coco import COCO
    from pycocotools.cocoeval import COCOeval

    sizes = {image["id"]: (image["height"], image["width"]) for image in truth["images"]}
    found = [_detection(i, row, kind, sizes, box_areas) for i, row in enumerate(detections, 1)]
    for row in truth["annotations"] if kind == "segm" else ():
        if isinstance(row.get("segmentation"), dict):
            check_size(row["segmentation"], sizes[row["image_id"]], f"image {row['image_id']}: annotation {row['id']}")
    with contextlib.redirect_stdout(io.StringIO()):
        annotated, detected = COCO(), COCO()
        annotated.dataset = {**truth, "annotations": [dict(row) for row in truth["annotations"]]}
        detected.dataset = {**truth, "annotations": found}
        annotated.createIndex()
        detected.createIndex()
        run = COCOeval(annotated, detected, kind)
        if category_ids is not None:
            run.params.catIds = [int(i) for i in category_ids]
        run.params.iouThrs, run.params.maxDets = np.asarray(iou_thresholds), [int(n) for n in max_detections]
        run.params.useCats = int(not class_agnostic)
        run.evaluate()
        run.accumulate()
    params, known = run.params, tuple(int(i) for i in run.params.catIds)
    return Curves(run.eval["precision"], run.eval["recall"], known, tuple(params.iouThrs), tuple(params.maxDets))


def _detection(number, row, kind, sizes, box_areas):
    from pycocotools import mask as coco

    where = f"image {row['image_id']}: detection {number}"
    if row["image_id"] not in sizes:
        raise ValueError(f"{where}: no such image among the {len(sizes)} annotated ones")
    if not np.isfinite(row["score"]):
        raise ValueError(f"{where}: score {row['score']}, expected a finite number; are the weights?")
    found = {**row, "id": number, "iscrowd": 0}
    if kind == "segm":
        check_size(row["segmentation"], sizes[row["image_id"]], where)
        if not box_areas:
            return {**found, "area": float(coco.area(row["segmentation"]))}
    return {**found, "area": row["bbox"][2] * row["bbox"][3]}


def summary(curves) -> dict[str, float]:
    """COCO's twelve numbers in [0, 1], in its order; NaN where there is nothing to find.

    `ap`, `ap50`, `ap75`, `ap_small`, `ap_medium`, `ap_large`, `ar<n>` for each number of detections, `ar_small`, ...: where
    not named, at the largest number of detections.
    """
    precision, recall = (np.where(x > -1, x, np.nan) for x in curves[:2])
    found = {"ap": _mean(precision[..., 0, -1])}
    for name, iou in (("ap50", 0.5), ("ap75", 0.75)):
        found[name] = _mean(precision[_at(curves, iou)][..., 0, -1])
    found |= {f"ap_{area}": _mean(precision[..., i, -1]) for i, area in enumerate(AREAS) if i}
    found |= {f"ar{n}": _mean(recall[..., 0, i]) for i, n in enumerate(curves.max_detections)}
    return found | {f"ar_{area}": _mean(recall[..., i, -1]) for i, area in enumerate(AREAS) if i}


def class_ap(curves, iou=None):
    """[K] average precision in [0, 1] over all overlaps, or at one; NaN for categories that do not occur."""
    precision = curves.precision[..., 0, -1] if iou is None else curves.precision[_at(curves, iou)][..., 0, -1]
    precision = np.where(precision > -1, precision, np.nan)
    return np.array([_mean(precision[:, :, k]) for k in range(precision.shape[2])])


def _at(curves, iou):
    """Slice of an overlap; empty where it was not asked for."""
    return np.flatnonzero(np.isclose(curves.iou_thresholds, iou, rtol=0, atol=1e-9))


def _mean(values):
    known = values[~np.isnan(values)]
    return float(ratio(known.sum(), known.size))
