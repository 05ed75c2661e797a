"""Masks in the coordinates of a box, and back: what a mask head learns from, and what becomes of its small masks.

Both ways are bilinear and separable, so that they are products with a matrix for each axis.
"""

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.ops.roi_align import sample_places
from jaxseg.typing import Array

_AT_ONCE = 8  # masks at full size, in float32


def crop_masks(masks: Array, index: Array, boxes: Array, size: int) -> Array:
    """Which pixels of a grid over each box are at least half inside of its mask: RoIAlign's means, as detectron2 crops masks.

    Args:
        masks: [..., N, H, W], 0 or 1.
        index: [..., R], the mask of each box.
        boxes: [..., R, 4] xyxy in pixels, at most as large as the image.
        size: of the grid, along both axes.

    Returns:
        [..., R, size, size] bool.
    """

    def function(masks, index, boxes):
        return jax.lax.map(lambda row: _crop(masks[row[0]], row[1], size), (index, boxes), batch_size=_AT_ONCE)

    for _ in range(index.ndim - 1):
        function = jax.vmap(function)
    return function(masks, index, boxes)


def _crop(mask, box, size):
    rows, columns = (_crop_matrix(box[axis], box[axis + 2], mask.shape[1 - axis], size) for axis in (1, 0))
    share = jnp.einsum("uh,hw->uw", rows, mask.astype(jnp.float32), precision="highest")
    return jnp.einsum("uw,vw->uv", share, columns, precision="highest") >= 0.5


def _crop_matrix(low, high, in_size, size):
    """[size, in_size]: how much of each pixel is in each bin between `low` and `high`, rows of sum 1 inside of the image."""
    num_samples = -(-in_size // size)  # as many as a box of the image's size has
    one = (jnp.reshape(x, 1) for x in (low, high - low, jnp.int32(in_size)))
    places, weights = sample_places(*one, size, num_samples, adaptive=True)
    return jnp.sum(weights[0, ..., None] * _hats(places[0], in_size), 1)


def paste_masks(probabilities: Array, boxes: Array, size: tuple[int, int]) -> Array:
    """Small masks over their boxes in an image, bilinear between the centres of their pixels and 0 outside.

    Args:
        probabilities: [..., m, m] over each box; a pixel is inside from 0.5 on, as detectron2 decides.
        boxes: [..., 4] xyxy in pixels of the result.
        size: (H, W).

    Returns:
        [..., H, W] float32.
    """
    rows, columns = (
        _paste_matrix(boxes[..., axis], boxes[..., axis + 2], size[1 - axis], probabilities.shape[axis - 2]) for axis in (1, 0)
    )
    wide = jnp.einsum("...ij,...wj->...iw", probabilities.astype(jnp.float32), columns, precision="highest")
    return jnp.einsum("...hi,...iw->...hw", rows, wide, precision="highest")


def _paste_matrix(low, high, out_size, in_size):
    """[..., out_size, in_size] values of each pixel's centre; a box without extent has none."""
    extent = (high - low)[..., None]
    centres = (np.arange(out_size, dtype=np.float32) + 0.5).reshape((1,) * low.ndim + (-1,))
    places = (centres - low[..., None]) / jnp.where(extent > 0, extent, 1) * in_size - 0.5
    return jnp.where(extent[..., None] > 0, _hats(places, in_size), 0)


def _hats(places, size):
    """[...] -> [..., size]: how much each of `size` pixels counts in a bilinear value at a place, 0 beyond their neighbours."""
    pixels = np.arange(size, dtype=np.float32).reshape((1,) * places.ndim + (-1,))
    return jnp.maximum(0, 1 - jnp.abs(places[..., None] - pixels))
