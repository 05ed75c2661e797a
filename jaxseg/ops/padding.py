"""Images of different sizes in one array: where each one is, and what stands beside it."""

import jax.numpy as jnp

from jaxseg.statistics import DETECTRON2
from jaxseg.typing import Array


def inside_canvas(sizes: Array, canvas) -> Array:
    """[B, H, W] bool, True where a pixel of the canvas (H, W) belongs to the image, which is top-left.

    Args:
        sizes: [B, 2] (height, width).
    """
    rows = jnp.arange(canvas[0])[None, :] < sizes[:, :1]
    columns = jnp.arange(canvas[1])[None, :] < sizes[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def normalize_inside(image: Array, sizes: Array, statistics=DETECTRON2) -> Array:
    """[B, H, W, 3] pixels in 0..255 -> float32, normalised, and 0 where there is no image: padding comes after the mean.

    Args:
        sizes: [B, 2] (height, width) of each image.
        statistics: mean and deviation of each channel.
    """
    return jnp.where(inside_canvas(sizes, image.shape[1:3])[..., None], normalize(image, statistics), 0)


def normalize(image: Array, statistics) -> Array:
    """[..., 3] -> float32, (image - mean) / deviation."""
    shape = (1,) * (image.ndim - 1) + (3,)
    mean, deviation = (jnp.asarray(values, jnp.float32).reshape(shape) for values in statistics)
    return (image.astype(jnp.float32) - mean) / deviation
