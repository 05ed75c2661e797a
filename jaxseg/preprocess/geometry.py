"""Ops that move pixels; masks, boxes, outlines and the words left and right move with them.

Images are resized as PIL does it, uint8 with its antialiasing, labels by PIL's nearest neighbour.
"""

import cv2
import numpy as np
from PIL import Image

from jaxseg.preprocess import objects, words
from jaxseg.preprocess.arguments import pair, positive, share
from jaxseg.preprocess.registry import random, register
from jaxseg.resampling import pil_nearest

METHODS = {"bilinear": Image.Resampling.BILINEAR, "bicubic": Image.Resampling.BICUBIC, "nearest": Image.Resampling.NEAREST}
# Label arrays, whose last axes are height and width, and what stands where there is no image.
FILL = {"segment_map": 0, "part_map": 0, "label_map": -1, "object_masks": 0, "masks": 0, "mask": 0, "mask_valid": 0}


def resize_image(image, size, method="bilinear") -> np.ndarray:
    """uint8 [H, W, 3] or [H, W] to `size` (height, width), exactly as PIL does it (antialiased but for nearest)."""
    if image.dtype != np.uint8:
        raise ValueError(f"resize: found an image of {image.dtype}; after normalize use resize_float")
    if image.shape[:2] == tuple(size):
        return image
    return np.asarray(Image.fromarray(image).resize((size[1], size[0]), METHODS[method]))


def resize_nearest(labels, size, nearest=pil_nearest) -> np.ndarray:
    """[..., H, W] of any type to `size` (height, width); `nearest(out_size, in_size)` gives the indices of an axis."""
    if labels.shape[-2:] == tuple(size):
        return labels
    rows, columns = nearest(size[0], labels.shape[-2]), nearest(size[1], labels.shape[-1])
    return labels[..., rows, :][..., columns]


def _label_arrays(example):
    return {name: example[name] for name in FILL if name in example}


def label_size(example):
    """(height, width) of the labels."""
    return tuple(example.get("label_size") or example["image"].shape[:2])


def resized_labels(example, size, nearest=pil_nearest):
    """The example with its labels at `size`; the image stays."""
    moved = {name: resize_nearest(array, size, nearest) for name, array in _label_arrays(example).items()}
    if "objects" in example:
        moved["objects"] = objects.resized(example["objects"], label_size(example), size, nearest)
    return {**example, **moved, "label_size": tuple(size)}


def resized(example, size, method="bilinear", labels=True):
    example = {**example, "image": resize_image(example["image"], size, method)}
    return resized_labels(example, size) if labels else example


def cropped(example, y, x, height, width, *, labels=True):
    """The window [y, y + height) x [x, x + width), which lies inside the image."""
    moved = {"image": example["image"][y : y + height, x : x + width]}
    if labels:
        _same_size(example, "crop")
        moved |= {k: v[..., y : y + height, x : x + width] for k, v in _label_arrays(example).items()}
        if "objects" in example:
            moved["objects"] = objects.cropped(example["objects"], y, x, (height, width))
        moved["label_size"] = (height, width)
    return {**example, **moved}


def padded(example, size, fill):
    """Grown right and down to `size`; the image by the grey level `fill`, labels by void."""
    height, width = example["image"].shape[:2]
    grow = (max(size[0] - height, 0), max(size[1] - width, 0))
    if grow == (0, 0):
        return example
    _same_size(example, "pad")
    image = np.pad(example["image"], ((0, grow[0]), (0, grow[1]), (0, 0)), constant_values=fill)
    moved = {"image": image, "label_size": image.shape[:2]}
    for name, array in _label_arrays(example).items():
        moved[name] = np.pad(array, ((0, 0),) * (array.ndim - 2) + ((0, grow[0]), (0, grow[1])), constant_values=FILL[name])
    if "objects" in example:
        moved["objects"] = objects.padded(example["objects"], image.shape[:2])
    return {**example, **moved}


def _same_size(example, op):
    if label_size(example) != example["image"].shape[:2]:
        found = f"{label_size(example)}, the image is {example['image'].shape[:2]}"
        raise ValueError(f"preprocess: {op}: the labels are {found}; it needs a resize that moves labels too")


def short_side_size(height, width, short, max_long):
    """(height, width) with the short side at `short`, or less where the long one would exceed `max_long` (0: no limit)."""
    scale = short / min(height, width)
    new = (short, scale * width) if height < width else (scale * height, short)
    if max_long and max(new) > max_long:
        shrink = max_long / max(new)
        new = (new[0] * shrink, new[1] * shrink)
    return int(new[0] + 0.5), int(new[1] + 0.5)


def scaled_size(height, width, scale, target):
    """(height, width) that fits into `scale` times `target` (height, width), rounded half to even."""
    factor = min(target[0] * scale / height, target[1] * scale / width)
    return int(np.round(height * factor)), int(np.round(width * factor))


def _at_least_one(size):
    return max(size[0], 1), max(size[1], 1)


@register
def resize(size, method="bilinear", labels=True):
    """Both sides to `size` (one integer or (height, width)); with `labels=False` labels stay as they are."""
    size = pair(size, "size")
    if method not in METHODS:
        raise ValueError(f"method: found {method!r}, expected one of {', '.join(METHODS)}")
    return lambda example, context: resized(example, size, method, labels)


@register(draws=True)
def resize_short(short, max_long=0, labels=True):
    """The short side to `short`, drawn if it is a tuple, unless the long side would exceed `max_long`."""
    sizes = [positive(s, "short") for s in (short if isinstance(short, tuple | list) else (short,))]
    if max_long:
        positive(max_long, "max_long")

    def apply(example, context):
        drawn = sizes[random(context, "resize_short").integers(len(sizes))] if len(sizes) > 1 else sizes[0]
        size = short_side_size(*example["image"].shape[:2], drawn, max_long)
        return resized(example, _at_least_one(size), labels=labels)

    return apply


@register(draws=True)
def resize_scale_crop(size, min_scale=0.1, max_scale=2.0, fill=128):
    """Large-scale jitter: fits the image into a drawn multiple of `size`, cuts a window of `size`, pads right and down.

    One draw places the window on both axes; padding is grey `fill`, void in labels.
    """
    size = pair(size, "size")
    if not 0 < min_scale <= max_scale:
        raise ValueError(f"min_scale, max_scale: found {min_scale}, {max_scale}, expected 0 < min_scale <= max_scale")

    def apply(example, context):
        rng = random(context, "resize_scale_crop")
        new = scaled_size(*example["image"].shape[:2], rng.uniform(min_scale, max_scale), size)
        example = resized(example, _at_least_one(new))
        return padded(_window(example, size, *[rng.uniform()] * 2), size, fill)

    return apply


def _window(example, size, u, v):
    """A window of at most `size`, at the shares `u`, `v` of the room that there is on each axis."""
    height, width = example["image"].shape[:2]
    y, x = int(np.round(max(height - size[0], 0) * u)), int(np.round(max(width - size[1], 0) * v))
    return cropped(example, y, x, min(size[0], height), min(size[1], width))


@register(draws=True)
def crop(size):
    """A random window of at most `size`."""
    size = pair(size, "size")

    def apply(example, context):
        rng = random(context, "crop")
        return _window(example, size, rng.uniform(), rng.uniform())

    return apply


@register
def pad(size, fill=128):
    """Grows the image right and down to at least `size`; the new part is grey `fill`, void in labels."""
    size = pair(size, "size")
    return lambda example, context: padded(example, size, fill)


@register
def pad_to_multiple(multiple, labels=False):
    """Grows the image right and down by zeros to sides that `multiple` divides.

    Makes `image_size` int32 [2], (height, width) before. Labels stay as they are, for evaluation at their own size; with
    `labels=True` they are padded by void.
    """
    positive(multiple, "multiple")

    def apply(example, context):
        del context
        image = example["image"]
        found = np.array(image.shape[:2], np.int32)
        size = tuple((-(-found // multiple) * multiple).tolist())
        example = {**example, "image_size": found}
        if labels:
            return padded(example, size, 0)
        grow = [(0, size[0] - image.shape[0]), (0, size[1] - image.shape[1]), (0, 0)]
        return {**example, "image": np.pad(image, grow)}

    return apply


@register(draws=True)
def flip_lr(probability=0.5):
    """Mirrors left and right, and the words "left" and "right" in caption, expressions and phrases."""
    share(probability, "probability")

    def apply(example, context):
        return flipped(example) if random(context, "flip_lr").uniform() < probability else example

    return apply


def flipped(example):
    """The mirrored example."""
    moved = {"image": cv2.flip(example["image"], 1)}
    moved |= {name: array[..., ::-1] for name, array in _label_arrays(example).items()}
    if "objects" in example:
        moved["objects"] = objects.flipped(example["objects"], label_size(example))
    return words.mirrored({**example, **moved})
