"""Boxes: formats, overlaps, and the deltas by which a detector moves them; right and bottom are exclusive."""

import math

import jax.numpy as jnp

from jaxseg.ops.masks import overlap
from jaxseg.typing import Array

DELTA_CLAMP = math.log(1000 / 16)  # of predicted logarithms: no box grows to more than 62.5 times its reference
REGION_WEIGHTS = (10.0, 10.0, 5.0, 5.0)  # of the deltas of regions, which are closer than anchors (Fast R-CNN)
_SMALLEST = 1e-6  # pixels; boxes of padding count as that wide, so that their deltas are finite


def to_cxcywh(boxes_xyxy: Array) -> Array:
    """[..., 4] (x0, y0, x1, y1) -> (centre x, centre y, width, height)."""
    low, high = boxes_xyxy[..., :2], boxes_xyxy[..., 2:]
    return jnp.concatenate([(low + high) / 2, high - low], -1)


def to_xyxy(boxes_cxcywh: Array) -> Array:
    """[..., 4] (centre x, centre y, width, height) -> (x0, y0, x1, y1)."""
    centre, half = boxes_cxcywh[..., :2], boxes_cxcywh[..., 2:] / 2
    return jnp.concatenate([centre - half, centre + half], -1)


def box_areas(boxes_xyxy: Array) -> Array:
    """[..., 4] -> [...]."""
    return jnp.prod(boxes_xyxy[..., 2:] - boxes_xyxy[..., :2], -1)


def has_area(boxes_xyxy: Array) -> Array:
    """[..., 4] -> [...] bool, whether a box is wider and higher than nothing; False where it is not a number."""
    return jnp.all(boxes_xyxy[..., 2:] > boxes_xyxy[..., :2], -1)


def clip_boxes(boxes_xyxy: Array, sizes: Array) -> Array:
    """[..., N, 4] cut to images of sizes [..., 2] (height, width)."""
    height, width = sizes[..., 0], sizes[..., 1]
    limits = jnp.stack([width, height, width, height], -1)[..., None, :]
    return jnp.clip(boxes_xyxy, 0, limits.astype(jnp.result_type(boxes_xyxy)))


def pairwise_iou(a: Array, b: Array, b_is_crowd: Array | None = None) -> Array:
    """Intersection over union of boxes.

    Args:
        a: [..., N, 4] xyxy; b: [..., M, 4] xyxy.
        b_is_crowd: [..., M] bool: against a crowd, COCO divides by the area of `a` alone.

    Returns:
        [..., N, M]; 0 where both boxes are empty.
    """
    intersection = _intersection(a[..., :, None, :], b[..., None, :, :])
    return overlap(intersection, box_areas(a), box_areas(b), b_is_crowd)


def pairwise_giou(a: Array, b: Array) -> Array:
    """`giou` of every xyxy box of [..., N, 4] with every one of [..., M, 4] -> [..., N, M]."""
    return giou(a[..., :, None, :], b[..., None, :, :])


def giou(a: Array, b: Array) -> Array:
    """Generalized intersection over union (Rezatofighi et al. 2019): IoU less the share of the hull that neither box fills.

    Args:
        a, b: [..., 4] xyxy, of shapes that broadcast.

    Returns:
        [...] in (-1, 1]; two boxes without area at one point give 0.
    """
    intersection = _intersection(a, b)
    union = box_areas(a) + box_areas(b) - intersection
    low, high = jnp.minimum(a[..., :2], b[..., :2]), jnp.maximum(a[..., 2:], b[..., 2:])
    hull = jnp.prod(jnp.maximum(high - low, 0), -1)
    return _ratio(intersection, union) - _ratio(hull - union, hull)


def _intersection(a, b):
    low, high = jnp.maximum(a[..., :2], b[..., :2]), jnp.minimum(a[..., 2:], b[..., 2:])
    return jnp.prod(jnp.maximum(high - low, 0), -1)


def _ratio(a, b):
    """a / b, and 0 without a gradient where b is 0."""
    return jnp.where(b > 0, a / jnp.where(b > 0, b, 1), 0)


def encode_deltas(boxes: Array, references: Array, weights=(1.0, 1.0, 1.0, 1.0)) -> Array:
    """What turns references into boxes (Girshick et al. 2014): shifts in units of their size, logarithms of their growth.

    Args:
        boxes, references: [..., 4] xyxy.
        weights: of (dx, dy, dw, dh), which they multiply.

    Returns:
        [..., 4], finite also where a box has no area.
    """
    box, reference = to_cxcywh(boxes), to_cxcywh(references)
    size, reference_size = (jnp.maximum(x[..., 2:], _SMALLEST) for x in (box, reference))
    shift = (box[..., :2] - reference[..., :2]) / reference_size
    return jnp.concatenate([shift, jnp.log(size / reference_size)], -1) * _of_rank(weights, boxes)


def decode_deltas(deltas: Array, references: Array, weights=(1.0, 1.0, 1.0, 1.0), clamp=DELTA_CLAMP) -> Array:
    """The boxes_xyxy [..., 4] that `deltas` [..., 4] make of xyxy references [..., 4]: the inverse of `encode_deltas`.

    Args:
        clamp: logarithms of growth above it count as it.
    """
    deltas, reference = deltas / _of_rank(weights, deltas), to_cxcywh(references)
    size = reference[..., 2:]
    centre = reference[..., :2] + deltas[..., :2] * size
    return to_xyxy(jnp.concatenate([centre, size * jnp.exp(jnp.minimum(deltas[..., 2:], clamp))], -1))


def _of_rank(weights, x):
    return jnp.asarray(weights, jnp.result_type(x)).reshape((1,) * (x.ndim - 1) + (4,))
