"""Resizing as PyTorch and PIL compute it: separable, as two products with small matrices.

`jax.image.resize` differs from torch in the cubic coefficient, in antialiasing and in nearest neighbours; the matrices here are
written from the definitions, so that released position embeddings, kernels and masks come out as they were trained.
"""

import jax.numpy as jnp

from jaxseg.resampling import resize_matrix, torch_nearest
from jaxseg.typing import Array


def resize(x: Array, size, *, method="bilinear", align_corners=False, antialias=False, axes=(-2, -1)) -> Array:
    """Resizes two axes of `x` to `size` (height, width), as torch's `interpolate` does; see `resize_matrix`.

    Raises:
        ValueError: integers or booleans by another method than "nearest".
    """
    if method != "nearest" and not jnp.issubdtype(x.dtype, jnp.floating):
        raise ValueError(f"method: found {method!r} for {x.dtype}, expected 'nearest' or floating point numbers")
    for axis, out_size in zip(axes, size, strict=True):
        if x.shape[axis] == out_size:
            continue
        if method == "nearest":
            x = jnp.take(x, jnp.asarray(torch_nearest(out_size, x.shape[axis])), axis=axis, mode="clip")
            continue
        matrix = resize_matrix(out_size, x.shape[axis], method, align_corners, antialias)
        x = jnp.moveaxis(jnp.tensordot(x, jnp.asarray(matrix, x.dtype), ((axis,), (1,)), precision="highest"), -1, axis)
    return x


def resize_to_canvas(x: Array, size: Array, canvas: tuple[int, int]) -> Array:
    """Bilinear resize to sizes that are known only at run time, inside a canvas of static size.

    Args:
        x: [B, ..., h, w].
        size: [B, 2] integer (height, width) per image, each at most the canvas.
        canvas: static (Hc, Wc).

    Returns:
        [B, ..., Hc, Wc]: rows below the height and columns right of the width are zero; inside equal to
        `resize(x, size, method="bilinear")`.
    """
    rows, columns = (traced_matrix(x.shape[axis - 2], size[:, axis], canvas[axis]) for axis in (0, 1))
    return of_rows_and_columns(x, rows, columns)


def of_rows_and_columns(x: Array, rows: Array, columns: Array) -> Array:
    """[B, ..., h, w] -> [B, ..., H, W]: both axes by a matrix of each example, [B, H, h] and [B, W, w]."""
    x = jnp.einsum("b...hw,bvw->b...hv", x, columns.astype(x.dtype), precision="highest")
    return jnp.einsum("b...hw,buh->b...uw", x, rows.astype(x.dtype), precision="highest")


def traced_matrix(in_size, out_sizes: Array, canvas: int, used: Array | None = None) -> Array:
    """[B, canvas, in_size] hat functions around the source positions of `out_sizes` [B] samples; zero rows beyond.

    `used` [B]: how much of the input, from its start, the samples spread over; all by default. What lies beyond has no part.
    """
    out_sizes = out_sizes.astype(jnp.float32)[:, None]
    used = in_size if used is None else used.astype(jnp.float32)[:, None]
    i = jnp.arange(canvas, dtype=jnp.float32)[None, :]
    centre = jnp.clip((i + 0.5) * (used / out_sizes) - 0.5, 0, used - 1)
    hats = jnp.maximum(0, 1 - jnp.abs(centre[:, :, None] - jnp.arange(in_size, dtype=jnp.float32)[None, None, :]))
    return jnp.where((i < out_sizes)[:, :, None], hats, 0)
