"""Which input pixels make an output pixel, in PyTorch and in PIL: matrices and indices of one axis, in numpy.

Preprocessing applies them to photographs and label maps, `ops.resize` to arrays in a compiled program.
"""

import functools

import numpy as np

_CUBIC_A = -0.75  # torch's coefficient; PIL and jax.image use -0.5


def _positions(out_size, in_size, align_corners):
    """Where output samples lie in the input, in input pixels (0 = centre of the first)."""
    i = np.arange(out_size, dtype=np.float64)
    # A float32 factor and one rounding, as in torch: far from 0 the exact position differs from torch's by 1e-6 of a pixel.
    if align_corners:
        exact = i * np.float32((in_size - 1) / max(out_size - 1, 1))
    else:
        exact = (i + 0.5) * np.float32(in_size / out_size) - 0.5
    return exact.astype(np.float32).astype(np.float64)


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
        matrix[rows, torch_nearest(out_size, in_size)] = 1
        return matrix.astype(np.float32)
    kernel, support = {"bilinear": (_bilinear, 1), "bicubic": (_bicubic, 2)}[method]
    centre = _positions(out_size, in_size, align_corners)
    if antialias:
        if method != "bilinear" or align_corners:
            raise ValueError(f"antialias: found {method}, align_corners={align_corners}; expected plain bilinear")
        centre, stretch = (rows + 0.5) * (in_size / out_size) - 0.5, max(in_size / out_size, 1.0)
        matrix = kernel((np.arange(in_size)[None] - centre[:, None]) / stretch)
        return (matrix / matrix.sum(1, keepdims=True)).astype(np.float32)
    if method == "bilinear":
        centre = np.clip(centre, 0, in_size - 1)  # the border is replicated
    first = np.floor(centre).astype(int)
    for tap in range(1 - support, support + 1):
        np.add.at(matrix, (rows, np.clip(first + tap, 0, in_size - 1)), kernel(first + tap - centre))
    return matrix.astype(np.float32)


@functools.lru_cache(maxsize=256)
def torch_nearest(out_size, in_size):
    """Input index of each output index, floor(i * in / out): torch's "nearest"."""
    # float32 as in torch: the product decides where an output index falls on an input boundary.
    source = np.floor(np.arange(out_size).astype(np.float32) * np.float32(in_size / out_size)).astype(int)
    return np.minimum(source, in_size - 1)


@functools.lru_cache(maxsize=256)
def pil_nearest(out_size, in_size):
    """Input index of each output index, floor((i + 0.5) * in / out): PIL's NEAREST."""
    # PIL steps through the input by repeated addition, whose rounding decides ties.
    step = in_size / out_size
    steps = np.full(out_size, step)
    steps[0] = step * 0.5
    return np.clip(np.cumsum(steps).astype(int), 0, in_size - 1)
