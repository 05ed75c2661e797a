"""Ops on pixel values: reading, CLIP's resize, float resize, normalisation."""

import numpy as np
from PIL import Image

from jaxseg.preprocess import geometry, objects, reading
from jaxseg.preprocess.arguments import pair, positive
from jaxseg.preprocess.registry import register
from jaxseg.resampling import resize_matrix, torch_nearest
from jaxseg.statistics import STATISTICS


@register
def decode(rgb=True, max_pixels=reading.MAX_PIXELS):
    """Makes `image` uint8 [H, W, 3] from `encoded`, `image` or the file `path`; sets `original_size` (h, w).

    With `rgb=False` gray images stay [H, W] and transparent ones [H, W, 4], for `clip_preprocess`. `original_image` keeps the
    pixels for pictures.

    Raises:
        ValueError: one line with the path: damaged, too large, or labels of another size than the image.
    """
    if not 0 < max_pixels <= 2 * reading.MAX_PIXELS:
        raise ValueError(f"max_pixels: found {max_pixels}, expected 1 to {2 * reading.MAX_PIXELS}")

    def apply(example, context):
        del context
        name = str(example.get("path") or example.get("id") or "image")
        if "encoded" in example:
            image = reading.read_image(example["encoded"], name=name, max_pixels=max_pixels, convert=rgb)
        elif "image" in example:
            image = _pixels(example["image"], name, rgb)
        else:
            image = reading.read_image(example["path"], max_pixels=max_pixels, convert=rgb)
        size = image.shape[:2]
        for key in ("segment_map", "part_map", "label_map"):
            if key in example and example[key].shape != size:
                raise ValueError(f"{name}: {key} is {example[key].shape}, the image is {size} (height, width)")
        if tuple(example.get("annotated_size", size)) != size:
            raise ValueError(f"{name}: the annotations are of {example['annotated_size']}, the image is {size} (height, width)")
        example = {k: v for k, v in example.items() if k != "encoded"}
        if "objects" in example:
            example["objects"] = objects.checked(example["objects"], size, name)
        return {**example, "image": image, "original_image": _rgb(image), "original_size": size, "label_size": size}

    return apply


def _pixels(image, name, rgb):
    """An image that is already in memory: PIL, or uint8 of one, three or four channels."""
    if isinstance(image, Image.Image):
        return reading.read_image(image, name=name, convert=rgb)
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ValueError(f"{name}: found an array {image.dtype} {image.shape}, expected uint8 [H, W], [H, W, 3] or [H, W, 4]")
    if not image.size:
        raise ValueError(f"{name}: found an array {image.shape} without pixels")
    if image.ndim == 3 and image.shape[2] == 1:
        image = image[..., 0]
    return _rgb(image) if rgb else image


def _rgb(image):
    return np.repeat(image[..., None], 3, 2) if image.ndim == 2 else image[..., :3]


@register
def clip_preprocess(size, labels=True):
    """CLIP's own: the short side to `size` by PIL's bicubic, centre crop, then RGB."""
    size = positive(size, "size")

    def apply(example, context):
        del context
        height, width = example["image"].shape[:2]
        short, long = min(height, width), max(height, width)
        other = int(size * long / short)
        resized = (size, other) if height <= width else (other, size)
        image = np.asarray(Image.fromarray(example["image"]).resize(resized[::-1], Image.Resampling.BICUBIC).convert("RGB"))
        moved = geometry.resized_labels(example, resized) if labels else dict(example)
        y, x = round((resized[0] - size) / 2), round((resized[1] - size) / 2)
        return geometry.cropped({**moved, "image": image}, y, x, size, size, labels=labels)

    return apply


@register
def resize_float(size, antialias=False, align_corners=False, labels=True):
    """Bilinear resize in floating point, as a torch tensor is resized; labels by torch's nearest.

    CLIPSeg's quick start is `normalize(imagenet)|resize_float(352)` (with `antialias=True` under torchvision >= 0.17), its
    PhraseCut loader `resize_float(352, align_corners=True)|normalize(imagenet)`, its COCO loader and Hugging Face
    `resize(352)|normalize(imagenet)`.
    """
    size = pair(size, "size")
    resize_matrix(1, 1, "bilinear", align_corners, antialias)  # refuses what does not go together

    def apply(example, context):
        del context
        image = example["image"].astype(np.float32)
        for axis in (0, 1):
            matrix = resize_matrix(size[axis], image.shape[axis], "bilinear", align_corners, antialias)
            image = np.moveaxis(np.tensordot(matrix, image, (1, axis)), 0, axis)
        moved = geometry.resized_labels(example, size, torch_nearest) if labels else dict(example)
        return {**moved, "image": image}

    return apply


@register
def normalize(statistics):
    """(image / 255 - mean) / deviation, float32; `statistics`: imagenet or clip."""
    if statistics not in STATISTICS:
        raise ValueError(f"statistics: found {statistics!r}, expected one of {', '.join(STATISTICS)}")
    mean, deviation = (np.asarray(values, np.float64) for values in STATISTICS[statistics])
    scale, shift = (1 / (255 * deviation)).astype(np.float32), (-mean / deviation).astype(np.float32)

    def apply(example, context):
        del context
        image = example["image"]
        # Rows of W * 3 numbers: numpy is slow where the last axis is 3 (14 times, measured at 352 pixels).
        rows = image.reshape(image.shape[0], -1) * np.tile(scale, image.shape[1])
        rows += np.tile(shift, image.shape[1])
        return {**example, "image": rows.reshape(image.shape)}

    return apply
