"""The op that makes what mask transformers are trained on: a fixed number of masks with their labels."""

import logging
import threading

import numpy as np

from jaxseg.preprocess import objects
from jaxseg.preprocess.arguments import positive
from jaxseg.preprocess.geometry import label_size
from jaxseg.preprocess.labels import check_ids
from jaxseg.preprocess.registry import register


@register
def target_masks(num, things_only=False, class_agnostic=False, min_pixels=0):
    """Makes `masks` uint8 [num, H, W], `labels` int32 [num] and `valid` bool [num] of `objects`, or `segments`.

    In the order of the annotation. Left out are crowds, objects without an outline, and objects of which cropping has left
    nothing; masks that are merely too small to have a pixel stay, empty, as published systems train (`min_pixels=1` leaves
    them out). Of more than `num`, the largest are kept, the earlier one of two equal ones; the log says so once. Places that
    are not valid have an empty mask and label 0.

    Also makes `image_size` int32 [2], (height, width) of the image, unless `pad_to_multiple` has.

    Args:
        num: masks per example; the batch holds as many bytes per pixel.
        things_only: leave stuff out.
        class_agnostic: every label is 0.
        min_pixels: of a mask that is kept.

    Raises:
        ValueError: a class id beyond the vocabulary; an example without objects and segments.
    """
    positive(num, "num")
    if isinstance(min_pixels, bool) or not isinstance(min_pixels, int) or min_pixels < 0:
        raise ValueError(f"min_pixels: found {min_pixels!r}, expected an integer from 0 on")
    overflow = _Once()

    def apply(example, context):
        wanted = _Wanted(example, context, things_only)
        class_ids, drawn = _from_objects(example, wanted) if "objects" in example else _from_segments(example, wanted)
        kept = np.arange(len(drawn))
        if min_pixels or len(drawn) > num:
            pixels = np.array([mask.sum(dtype=np.int64) for mask in drawn], np.int64)
            kept = np.flatnonzero(pixels >= min_pixels)
            if len(kept) > num:
                overflow.warn(f"{example.get('path', 'example')}: {len(kept)} masks, target_masks keeps the {num} largest")
                kept = np.sort(kept[np.argsort(-pixels[kept], kind="stable")[:num]])
        masks = np.zeros((num, *label_size(example)), np.uint8)
        labels, valid = np.zeros(num, np.int32), np.zeros(num, bool)
        for place, index in enumerate(kept):
            masks[place] = drawn[index]
            labels[place] = 0 if class_agnostic else class_ids[index]
        valid[: len(kept)] = True
        size = example.get("image_size", np.array(example["image"].shape[:2], np.int32))
        return {**example, "masks": masks, "labels": labels, "valid": valid, "image_size": size}

    return apply


class _Wanted:
    """Which annotations of an example are targets."""

    def __init__(self, example, context, things_only):
        self._example, self._context = example, context
        if things_only and context.vocabulary is None:
            raise ValueError("preprocess: target_masks: things_only needs a source whose classes say which are things")
        self._is_thing = context.vocabulary.is_thing if things_only else None

    def __call__(self, annotations):
        kept = [a for a in annotations if not a.get("is_crowd")]
        check_ids([a["class_id"] for a in kept], self._example, self._context)
        return [a for a in kept if self._is_thing is None or self._is_thing[a["class_id"]]]


def _from_objects(example, wanted):
    items = [item for item in wanted(example["objects"]) if objects.has_extent(item)]
    return [item["class_id"] for item in items], objects.draw(items, label_size(example))


def _from_segments(example, wanted):
    if "segment_map" not in example:
        raise ValueError("preprocess: target_masks: the example has no objects and no segment_map")
    segments, segment_map = wanted(example.get("segments", ())), example["segment_map"]
    return [s["class_id"] for s in segments], [(segment_map == s["id"]).astype(np.uint8) for s in segments]


class _Once:
    """A warning that is given for the first time only."""

    def __init__(self):
        self._lock, self._said = threading.Lock(), False

    def warn(self, line):
        with self._lock:
            if not self._said:
                self._said = True
                logging.warning("%s (said once)", line)
