"""Areas, boxes and overlaps of masks; counts of pixels are exact up to 2**24."""

import jax.numpy as jnp

from jaxseg.typing import Array


def mask_areas(masks: Array) -> Array:
    """[..., H, W] bool -> [...] int32, pixels."""
    return jnp.sum(masks.astype(bool), (-2, -1), dtype=jnp.int32)


def mask_boxes(masks: Array) -> Array:
    """[..., H, W] bool -> boxes_xyxy [..., 4] float in pixels, right and bottom exclusive; zeros where a mask is empty."""
    masks = masks.astype(bool)
    x0, x1 = _extent(jnp.any(masks, -2))
    y0, y1 = _extent(jnp.any(masks, -1))
    return jnp.stack([x0, y0, x1, y1], -1).astype(float)


def _extent(occupied):
    """First index and one past the last of [..., N] bool; zeros where none is set."""
    size = occupied.shape[-1]
    first, last = jnp.argmax(occupied, -1), size - jnp.argmax(occupied[..., ::-1], -1)
    some = jnp.any(occupied, -1)
    return jnp.where(some, first, 0), jnp.where(some, last, 0)


def flat_pixels(masks: Array) -> Array:
    """[..., H, W] -> [..., H * W]."""
    return masks.reshape(*masks.shape[:-2], masks.shape[-2] * masks.shape[-1])  # -1 fails where there are no masks


def pairwise_products(a: Array, b: Array) -> Array:
    """Sums over points of a * b: [..., N, P], [..., M, P] of any type -> [..., N, M] float; of 0/1 masks, intersections."""
    a, b = _floats(a), _floats(b)
    return jnp.einsum("...np,...mp->...nm", a, b, precision="highest")


def pairwise_iou(a: Array, b: Array, b_is_crowd: Array | None = None) -> Array:
    """Intersection over union of masks.

    Args:
        a: [..., N, H, W] bool; b: [..., M, H, W] bool.
        b_is_crowd: [..., M] bool: against a crowd, COCO divides by the area of `a` alone.

    Returns:
        [..., N, M] float; 0 where both masks are empty.
    """
    a, b = flat_pixels(a.astype(bool)), flat_pixels(b.astype(bool))
    return overlap(pairwise_products(a, b), jnp.sum(a, -1), jnp.sum(b, -1), b_is_crowd)


def overlap(intersection: Array, area_a: Array, area_b: Array, b_is_crowd: Array | None = None) -> Array:
    """Intersection over union from areas, of masks or boxes: [..., N, M], [..., N], [..., M] -> [..., N, M]."""
    area_a, area_b = area_a[..., :, None], area_b[..., None, :]
    union = area_a + area_b - intersection
    if b_is_crowd is not None:
        union = jnp.where(b_is_crowd[..., None, :].astype(bool), area_a.astype(union.dtype), union)
    return jnp.where(intersection > 0, intersection / jnp.where(intersection > 0, union, 1), 0)


def pairwise_dice(a: Array, b: Array, smooth=1.0) -> Array:
    """(2 sum ab + smooth) / (sum a + sum b + smooth): [..., N, P], [..., M, P] in [0, 1] -> [..., N, M]."""
    a, b = _floats(a), _floats(b)
    return (2 * pairwise_products(a, b) + smooth) / (jnp.sum(a, -1)[..., :, None] + jnp.sum(b, -1)[..., None, :] + smooth)


def _floats(x):
    """At least float32."""
    return x.astype(jnp.promote_types(x.dtype, jnp.result_type(float)))
