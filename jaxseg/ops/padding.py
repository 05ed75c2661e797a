"""Images of different sizes in one array: where each one is, and what stands beside it."""

import jax.numpy as jnp

from jaxseg.typing import Array

# Of ImageNet's RGB pixels in 0..255, as detectron2's models take them.
PIXEL_MEAN, PIXEL_STD = (123.675, 116.28, 103.53), (58.395, 57.12, 57.375)


def inside_canvas(sizes: Array, canvas) -> Array:
    """[B, H, W] bool, True where a pixel of the canvas (H, W) belongs to the image, which is top-left.

    Args:
        sizes: [B, 2] (height, width).
    """
    rows = jnp.arange(canvas[0])[None, :] < sizes[:, :1]
    columns = jnp.arange(canvas[1])[None, :] < sizes[:, 1:]
    return rows[:, :, None] & columns[:, None, :]


def normalize_inside(image: Array, sizes: Array, mean=PIXEL_MEAN, std=PIXEL_STD) -> Array:
    """[B, H, W, 3] pixels in 0..255 -> float32, normalised, and 0 where there is no image: padding comes after the mean.

    Args:
        sizes: [B, 2] (height, width) of each image.
    """
    normal = (image.astype(jnp.float32) - jnp.asarray(mean, jnp.float32)) / jnp.asarray(std, jnp.float32)
    return jnp.where(inside_canvas(sizes, image.shape[1:3])[..., None], normal, 0)
