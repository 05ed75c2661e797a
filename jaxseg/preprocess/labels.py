"""Ops on annotations: which pixel is which class, and which pixels say nothing."""

import numpy as np

from jaxseg.preprocess import objects
from jaxseg.preprocess.geometry import label_size
from jaxseg.preprocess.registry import register

VOID = -1


@register
def label_map():
    """Makes `label_map` int32 [H, W]: contiguous class ids, -1 where no class is said (void, crowds, unlabelled objects).

    From `segment_map` and `segments`, or from `objects`, later ones over earlier ones.
    """
    return lambda example, context: {**example, "label_map": class_map(example)}


@register
def object_masks():
    """Makes `object_masks` uint8 [N, H, W] from `objects`, at the labels' present size."""
    return lambda example, context: {**example, "object_masks": objects.draw(example["objects"], label_size(example))}


def class_map(example) -> np.ndarray:
    """int32 [H, W] of contiguous class ids, -1 = void; see `label_map`."""
    if "label_map" in example:
        return example["label_map"]
    if "segment_map" in example:
        return _from_segments(example["segment_map"], example.get("segments", ()))
    if "objects" in example:
        return _from_objects(example["objects"], label_size(example))
    raise ValueError("preprocess: label_map: the example has no segment_map and no objects")


def _from_segments(segment_map, segments):
    ids, where = np.unique(segment_map, return_inverse=True)
    class_of = {s["id"]: VOID if s.get("is_crowd") else s["class_id"] for s in reversed(segments)}
    classes = np.array([class_of.get(int(i), VOID) if i else VOID for i in ids], np.int32)
    return classes[where].reshape(segment_map.shape)


def _from_objects(items, size):
    found = np.full(size, VOID, np.int32)
    for mask, item in zip(objects.draw(items, size), items, strict=True):
        found[mask > 0] = VOID if item.get("is_crowd") else item["class_id"]
    return found


def class_masks(example):
    """What an example says of each class, objects that overlap included.

    Returns:
        ({class id: bool [H, W]} of the classes that are seen, function class id -> bool [H, W] of the pixels that say whether
        they belong to that class).
    """
    if "objects" not in example:
        classes = class_map(example)
        known = classes != VOID
        return {int(c): classes == c for c in np.unique(classes[known])}, lambda class_id: known
    size, items = label_size(example), example["objects"]
    seen, unknown = {}, {}
    for mask, item in zip(objects.draw(items, size), items, strict=True):
        class_id = int(item["class_id"])
        if not item["has_outline"]:
            unknown.setdefault(class_id, np.zeros(size, bool))[_box_slices(item["box_xyxy"])] = True
        elif item.get("is_crowd"):
            unknown.setdefault(class_id, np.zeros(size, bool))[mask > 0] = True
        elif mask.any():
            seen[class_id] = seen.get(class_id, False) | (mask > 0)

    def known_of(class_id):
        return ~(unknown.get(class_id, np.zeros(size, bool)) & ~seen.get(class_id, np.zeros(size, bool)))

    return seen, known_of


def _box_slices(box):
    x0, y0 = np.floor(box[:2]).astype(int)
    x1, y1 = np.ceil(box[2:]).astype(int)
    return slice(y0, y1), slice(x0, x1)
