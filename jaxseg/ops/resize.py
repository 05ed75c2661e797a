"""Resizing as PyTorch and PIL compute it: separable, as two products with small matrices.

`jax.image.resize` differs from torch in the cubic coefficient, in antialiasing and in nearest neighbours; the matrices here are
written from the definitions, so that released position embeddings, kernels and masks come out as they were trained.
"""

import functools

import jax.numpy as jnp
import numpy as np

from jaxseg.typing import Array

_CUBIC_A = -0.75  # torch's coefficient; PIL and jax.image use -0.5


def _positions(out_size, in_size, align_corners):
    """Where output samples lie in the input, in input pixels (0 = centre of the first)."""
    i = np.arange(out_size, dtype=np.float64)
    if align_corners:
        return i * ((in_size - 1) / max(out_size - 1, 1))
    return (i + 0.5) * (in_size / out_size) - 0.5


def _bilinear(x):
    return np.maximum(0.0, 1 - np.abs(x))


def _bicubic(x, a=_CUBIC_A):
    x = np.abs(x)
    near = ((a + 2) * x - (a + 3)) * x * x + 1
    far = ((a * x - 5 * a) * x + 8 * a) * x - 4 * a
    return np.where(x <= 1, near, np.where(x < 2, far, 0.0))


@functools.lru_cache(maxsize=256)
def resize_matrix(out_size, in_size, method="bilinear", align_corners=False, antialias=False):
    """The float32 matrix [out_size, in_size] that resizes one axis.

    Args:
        method: "bilinear", "bicubic" (a = -0.75) or "nearest" (index floor(i * in / out), torch's "nearest").
        align_corners: whether first and last samples of input and output coincide.
        antialias: whether the kernel widens with the reduction (torch's `antialias=True`); bilinear without align_corners only.
    """
    matrix = np.zeros((out_size, in_size))
    rows = np.arange(out_size)
    if method == "nearest":
        # float32 as in torch: the product decides where an output index falls on an input boundary.
        source = np.floor(rows.astype(np.float32) * np.float32(in_size / out_size)).astype(int)
        matrix[rows, np.minimum(source, in_size - 1)] = 1
        return matrix.astype(np.float32)
    kernel, support = {"bilinear": (_bilinear, 1), "bicubic": (_bicubic, 2)}[method]
    centre = _positions(out_size, in_size, align_corners)
    if antialias:
        if method != "bilinear" or align_corners:
            raise ValueError(f"antialias: found {method}, align_corners={align_corners}; expected plain bilinear")
        stretch = max(in_size / out_size, 1.0)
        matrix = kernel((np.arange(in_size)[None] - centre[:, None]) / stretch)
        return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
    if method == "bilinear":
        centre = np.clip(centre, 0, in_size - 1)  # the border is replicated
    first = np.floor(centre).astype(int)
    for tap in range(1 - support, support + 1):
        np.add.at(matrix, (rows, np.clip(first + tap, 0, in_size - 1)), kernel(first + tap - centre))
    return matrix.astype(np.float32)


def resize(x: Array, size, *, method="bilinear", align_corners=False, antialias=False, axes=(-2, -1)) -> Array:
    """Resizes two axes of `x` to `size` (height, width), as torch's `interpolate` does; see `resize_matrix`."""
    for axis, out_size in zip(axes, size, strict=True):
        if x.shape[axis] == out_size:
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
    rows, columns = (_traced_matrix(x.shape[axis - 2], size[:, axis], canvas[axis]) for axis in (0, 1))
    x = jnp.einsum("b...hw,bvw->b...hv", x, columns.astype(x.dtype), precision="highest")
    return jnp.einsum("b...hw,buh->b...uw", x, rows.astype(x.dtype), precision="highest")


def _traced_matrix(in_size, out_sizes, canvas):
    """[B, canvas, in_size] hat functions around the source positions of `out_sizes` [B] samples; zero rows beyond."""
    out_sizes = out_sizes.astype(jnp.float32)[:, None]
    i = jnp.arange(canvas, dtype=jnp.float32)[None, :]
    centre = jnp.clip((i + 0.5) * (in_size / out_sizes) - 0.5, 0, in_size - 1)
    hats = jnp.maximum(0, 1 - jnp.abs(centre[:, :, None] - jnp.arange(in_size, dtype=jnp.float32)[None, None, :]))
    return jnp.where((i < out_sizes)[:, :, None], hats, 0)
