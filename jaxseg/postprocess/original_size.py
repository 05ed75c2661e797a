"""Masks of a padded, resized input at the size of the photograph that it was made of.

A network sees a photograph of `original_size` resized to `image_size`, top-left in `padded_size`. Its masks come back the same
way: bilinear to `padded_size`, cut to `image_size`, bilinear to `original_size` (Cheng et al. 2022, `sem_seg_postprocess`).
"""

import jax.numpy as jnp
import numpy as np

from jaxseg.ops.resize import of_rows_and_columns, traced_matrix
from jaxseg.resampling import resize_matrix
from jaxseg.typing import Array


def crop_and_resize(x: Array, image_size, original_size, *, canvas=None, padded_size=None) -> Array:
    """Cuts the padding off and resizes to the original size; both steps, and the one before, are two products.

    Args:
        x: [B, ..., h, w] floats.
        image_size: (height, width) of what is no padding, in pixels of `padded_size`.
        original_size: (height, width) of the result.
        canvas: static (Hc, Wc), at least every original size: sizes are then traced, [B, 2] integers, and differ between
            examples. None: sizes are static and the same for all.
        padded_size: static (height, width) that `x` is resized to at first; by default it has that size.

    Returns:
        [B, ..., H, W] at the static original size, or [B, ..., Hc, Wc] with zeros below and right of it.
    """
    padded_size = padded_size or x.shape[-2:]
    if canvas is None:
        rows, columns = (
            jnp.asarray(_static_matrix(x.shape[axis - 2], padded_size[axis], image_size[axis], original_size[axis]), x.dtype)
            for axis in (0, 1)
        )
        x = jnp.einsum("b...hw,vw->b...hv", x, columns, precision="highest")
        return jnp.einsum("b...hw,uh->b...uw", x, rows, precision="highest")
    rows, columns = (
        _traced_matrix(x.shape[axis - 2], padded_size[axis], image_size[:, axis], original_size[:, axis], canvas[axis])
        for axis in (0, 1)
    )
    return of_rows_and_columns(x, rows, columns)


def _static_matrix(in_size, padded, cropped, out_size):
    """[out_size, in_size] of all steps along one axis."""
    first = np.asarray(resize_matrix(padded, in_size), np.float64)[:cropped]
    return np.asarray(resize_matrix(out_size, cropped), np.float64) @ first


def _traced_matrix(in_size, padded, cropped, out_sizes, canvas):
    """[B, canvas, in_size] of all steps along one axis, zero rows beyond `out_sizes` [B]."""
    last = traced_matrix(padded, out_sizes, canvas, cropped)
    if padded == in_size:
        return last
    return jnp.einsum("bup,ph->buh", last, jnp.asarray(resize_matrix(padded, in_size)), precision="highest")
