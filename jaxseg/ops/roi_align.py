"""Regions of feature maps at one size (He et al. 2017, Mask R-CNN's RoIAlign, aligned to half pixels as detectron2 has it).

A region of r pixels gives n bins, each the mean of s samples along each axis at its evenly spaced places; a sample is bilinear,
outer pixels go on for one pixel outside of the map, and nothing is there beyond. Published models take as many samples as a bin
has pixels, s = ceil(r / n), which differs between regions; `adaptive` is that, up to a static number.
"""

from collections.abc import Sequence

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.typing import Array


def assign_levels(boxes: Array, num_levels: int, *, finest=2, canonical_size=224.0, canonical_level=4) -> Array:
    """Which map of a pyramid a region is taken from, by its area (Lin et al. 2017, equation 1).

    Args:
        boxes: [..., 4] xyxy in pixels of the image.
        finest: level of the first map, whose stride is 2**finest.
        canonical_size: side of a region that belongs to `canonical_level`.

    Returns:
        [...] int32 in [0, num_levels).
    """
    area = jnp.prod(jnp.maximum(boxes[..., 2:] - boxes[..., :2], 0), -1)
    level = jnp.floor(canonical_level + jnp.log2(jnp.sqrt(area) / canonical_size + 1e-8))
    return jnp.clip(level.astype(jnp.int32) - finest, 0, num_levels - 1)


def sample_places(start: Array, length: Array, size: Array, num_bins: int, num_samples: int, adaptive: bool):
    """Where the samples of regions lie along one axis of their maps.

    Args:
        start, length: [R] of each region, in pixels of its map, whose first spans 0 to 1.
        size: [R] of its map.

    Returns:
        (places, weights), [R, num_bins, num_samples] float32: a place is in [0, size - 1], 0 the centre of the first pixel;
        weights are 1 over the number of samples, and 0 where there is none, or outside of the map.
    """
    start, length, size = (jnp.asarray(x, jnp.float32)[:, None, None] for x in (start, length, size))
    number = jnp.clip(jnp.ceil(length / num_bins), 0, num_samples) if adaptive else jnp.full_like(length, num_samples)
    bins, samples = np.arange(num_bins, dtype=np.float32)[None, :, None], np.arange(num_samples, dtype=np.float32)[None, None]
    place = start - 0.5 + (bins + (samples + 0.5) / jnp.maximum(number, 1)) * (length / num_bins)
    counts = (samples < number) & (place >= -1) & (place <= size)
    return jnp.clip(place, 0, size - 1), jnp.where(counts, 1 / jnp.maximum(number, 1), 0)


def roi_align(
    maps: Sequence[Array],
    strides: Sequence[float],
    boxes: Array,
    levels: Array,
    size: int,
    *,
    num_samples: int = 2,
    adaptive: bool = False,
) -> Array:
    """Regions of a pyramid at `size` x `size`; differentiable in the maps.

    Args:
        maps: L of [..., h_l, w_l, C].
        strides: L, pixels of the image for each of a map.
        boxes: [..., R, 4] xyxy in pixels of the image; boxes without area give samples at one place, or 0 where adaptive.
        levels: [..., R] which map each region is taken from.
        num_samples: along each axis of a bin (detectron2's `sampling_ratio`).
        adaptive: ceil(length of the region on its map / size) samples instead, and `num_samples` at most (detectron2's
            `sampling_ratio=0`, where that is enough).

    Returns:
        [..., R, size, size, C] in the type of the maps.
    """
    shapes = [x.shape[-3:-1] for x in maps]
    flat = jnp.concatenate([x.reshape(*x.shape[:-3], -1, x.shape[-1]) for x in maps], -2)

    def function(flat, boxes, levels):
        return _align(flat, shapes, strides, boxes, levels, size, num_samples, adaptive)

    for _ in range(boxes.ndim - 2):
        function = jax.vmap(function)
    return function(flat, jax.lax.stop_gradient(boxes), levels)


def _align(flat, shapes, strides, boxes, levels, size, num_samples, adaptive):
    heights, widths = np.array(shapes, np.int32).T
    offsets = np.cumsum([0, *(heights * widths)[:-1]], dtype=np.int32)
    height, width, offset, stride = (jnp.asarray(x)[levels] for x in (heights, widths, offsets, np.array(strides, np.float32)))
    boxes = boxes.astype(jnp.float32) / stride[:, None]
    axes = []
    for axis, extent in ((1, height), (0, width)):
        length = boxes[:, axis + 2] - boxes[:, axis]
        if not adaptive:
            length = jnp.maximum(length, 0)
        axes.append(sample_places(boxes[:, axis], length, extent, size, num_samples, adaptive))
    (y, y_weight), (x, x_weight) = axes

    def add(total, k):
        """The samples of number k along y and x of all bins, four neighbours each: few rows of C channels at a time."""
        rows, columns = k // num_samples, k % num_samples
        for row, row_weight in _neighbours(y[..., rows], y_weight[..., rows], height):
            for column, column_weight in _neighbours(x[..., columns], x_weight[..., columns], width):
                index = offset[:, None, None] + row[:, :, None] * width[:, None, None] + column[:, None]
                values = flat.at[index].get(mode="promise_in_bounds")
                total += values * (row_weight[:, :, None] * column_weight[:, None])[..., None]
        return total, None

    start = jnp.zeros((len(boxes), size, size, flat.shape[-1]), jnp.float32)
    total, _ = jax.lax.scan(add, start, jnp.arange(num_samples**2))
    return total.astype(flat.dtype)


def _neighbours(place, weight, size):
    """(index, weight) [R, size] of the pixel at or before each place and of the one after."""
    first = jnp.floor(place)
    after, last = place - first, size[:, None] - 1
    first = jnp.clip(first.astype(jnp.int32), 0, last)  # in range even where a place is not a number
    return (first, weight * (1 - after)), (jnp.minimum(first + 1, last), weight * after)
