"""Boundaries of label maps, at traced image sizes inside a canvas (Cheng et al. 2021, "Boundary IoU").

A pixel belongs to the boundary of its class if another class, or the end of the image, lies within `d` pixels
(chessboard distance), `d` = 2 % of the image's diagonal.
"""

import math

import jax
import jax.numpy as jnp

from jaxseg.typing import Array

_OUTSIDE = -2  # below every label and below void


def boundary_labels(labels: Array, size: Array) -> Array:
    """The labels of boundary pixels, -1 elsewhere.

    Args:
        labels: [B, H, W] int, -1 = void; size: [B, 2] int (height, width) of each image, top-left in the canvas.
    """
    labels = jnp.where(_inside(labels, size), labels, _OUTSIDE)
    lowest = erode(labels, size, _OUTSIDE)
    highest = -erode(-labels, size, -_OUTSIDE)
    return jnp.where((lowest != labels) | (highest != labels), jnp.maximum(labels, -1), -1)


def published_boundary(labels: Array, size: Array) -> Array:
    """Detectron2's `mask_to_boundary` on a whole label map: each label minus the lowest label within `d` pixels.

    The published evaluator erodes label maps as if they were masks, so its "labels" are differences of class ids; zero
    lies around the image. Kept for its numbers; `boundary_labels` is what the paper defines.
    """
    labels = jnp.where(_inside(labels, size), labels, 0)
    return labels - erode(labels, size, 0)


def erode(labels: Array, size: Array, outside: int) -> Array:
    """The lowest label within `boundary_width(size)` pixels [B, H, W]; `outside` lies around the canvas."""
    max_width = int(boundary_width(labels.shape[1:]))
    width = boundary_width(size)[:, None, None]

    def step(i, current):
        padded = jnp.pad(current, ((0, 0), (1, 1), (1, 1)), constant_values=outside)
        most = jnp.iinfo(labels.dtype).max
        lowest = jax.lax.reduce_window(padded, jnp.asarray(most, labels.dtype), jax.lax.min, (1, 3, 3), (1, 1, 1), "VALID")
        return jnp.where(i < width, lowest, current)

    return jax.lax.fori_loop(0, max_width, step, labels)


def boundary_width(size):
    """`max(1, round(0.02 * diagonal))` pixels, ties to even, in integers.

    Args:
        size: (height, width) as numbers, or an array [B, 2]; the result is a number or an array [B].
    """
    if isinstance(size, tuple):
        return max(1, round(0.02 * math.hypot(*size)))
    squared = jnp.sum(size.astype(jnp.int32) ** 2, -1)
    # Widths grow by one where the diagonal passes 25, 75, 125, ...; 512 of them cover 25,000 pixels.
    steps = jnp.arange(512)
    turns = (50 * steps + 25) ** 2
    passed = (squared[:, None] > turns[None]) | ((squared[:, None] == turns[None]) & (steps % 2 == 1)[None])
    return jnp.maximum(1, jnp.sum(passed, -1))


def _inside(labels, size):
    rows = jnp.arange(labels.shape[1])[None, :] < size[:, :1]
    columns = jnp.arange(labels.shape[2])[None, :] < size[:, 1:]
    return rows[:, :, None] & columns[:, None, :]
