"""Ops on annotations: which pixel is which class, and which pixels say nothing."""

import numpy as np

from jaxseg.preprocess import objects
from jaxseg.preprocess.geometry import label_size
from jaxseg.preprocess.registry import register

VOID = -1
_TABLE = 1 << 16  # largest segment id that a table is used for


@register
def label_map(crowds=False):
    """Makes `label_map` int32 [H, W]: contiguous class ids, -1 where no class is said (void, crowds, unlabelled objects).

    The source's own, or from `segment_map` and `segments`, or from `objects`, later ones over earlier ones.

    Args:
        crowds: whether crowds are of their class, as in COCO's semantic maps of the panoptic annotations.

    Raises:
        ValueError: a class id beyond the vocabulary.
    """

    def apply(example, context):
        found = class_map(example, crowds)
        check_ids(_class_ids(found), example, context)
        return {**example, "label_map": found}

    return apply


@register
def object_masks():
    """Makes `object_masks` uint8 [N, H, W] from `objects`, at the labels' present size."""
    return lambda example, context: {**example, "object_masks": objects.draw(example["objects"], label_size(example))}


def _class_ids(classes):
    """The class ids of a class map, ascending."""
    return np.flatnonzero(np.bincount((classes - VOID).ravel())[1:]).tolist()


def check_ids(class_ids, example, context):
    """Refuses an example whose class ids go beyond the vocabulary."""
    if context.vocabulary is not None:
        outside = [int(c) for c in class_ids if not 0 <= c < len(context.vocabulary)]
        if outside:
            name = example.get("path", "example")
            raise ValueError(f"{name}: class id {outside[0]}, expected 0 to {len(context.vocabulary) - 1}")


def class_map(example, crowds=False) -> np.ndarray:
    """int32 [H, W] of contiguous class ids, -1 = void; see `label_map`."""
    if "label_map" in example:
        return example["label_map"]
    if "segment_map" in example:
        return _from_segments(example["segment_map"], example.get("segments", ()), crowds)
    if "objects" in example:
        return _from_objects(example["objects"], label_size(example), crowds)
    raise ValueError("preprocess: label_map: the example has no segment_map and no objects")


def _from_segments(segment_map, segments, crowds):
    class_of = {s["id"]: _class_of(s, crowds) for s in reversed(segments)}
    class_of[0] = VOID
    largest = int(segment_map.max(initial=0))
    if largest < _TABLE and int(segment_map.min(initial=0)) >= 0:
        table = np.full(largest + 1, VOID, np.int32)
        for segment, class_id in class_of.items():
            if 0 <= segment <= largest:
                table[segment] = class_id
        return table.take(segment_map)
    ids, where = np.unique(segment_map, return_inverse=True)  # ids as COCO colours them, up to 2^24
    return np.array([class_of.get(int(i), VOID) for i in ids], np.int32)[where].reshape(segment_map.shape)


def _from_objects(items, size, crowds):
    found = np.full(size, VOID, np.int32)
    for mask, item in zip(objects.draw(items, size), items, strict=True):
        found[mask > 0] = _class_of(item, crowds)
    return found


def _class_of(annotation, crowds):
    return VOID if annotation.get("is_crowd") and not crowds else annotation["class_id"]


class ClassMasks:
    """What an example says of each class, objects that overlap included.

    Attributes:
        seen: ids of the classes that have pixels.
        size: (height, width) of the masks.
    """

    def __init__(self, example):
        self.size = label_size(example)
        self._unknown, self._masks, self._classes = {}, {}, None
        if "objects" in example:
            self._gather(example["objects"])
            self.seen = tuple(self._masks)
        else:
            self._classes = class_map(example)
            self._known, self.size = self._classes != VOID, self._classes.shape
            self.seen = tuple(_class_ids(self._classes))

    def mask(self, class_id) -> np.ndarray:
        """bool [H, W]: the pixels of a class that is seen."""
        return self._classes == class_id if self._classes is not None else self._masks[class_id]

    def known(self, class_id) -> np.ndarray:
        """bool [H, W]: the pixels that say whether they belong to a class, seen or not."""
        if self._classes is not None:
            return self._known
        nothing = np.zeros(self.size, bool)
        return ~self._unknown.get(class_id, nothing) | self._masks.get(class_id, nothing)

    def _gather(self, items):
        for mask, item in zip(objects.draw(items, self.size), items, strict=True):
            class_id = int(item["class_id"])
            if not item["has_outline"]:
                self._unknown.setdefault(class_id, np.zeros(self.size, bool))[_box_slices(item["box_xyxy"])] = True
            elif item.get("is_crowd"):
                self._unknown.setdefault(class_id, np.zeros(self.size, bool))[mask > 0] = True
            elif mask.any():
                self._masks[class_id] = self._masks.get(class_id, False) | (mask > 0)


def _box_slices(box):
    x0, y0 = np.floor(box[:2]).astype(int)
    x1, y1 = np.ceil(box[2:]).astype(int)
    return slice(y0, y1), slice(x0, x1)
