"""Formulations of multi-scale deformable sampling: the same numbers and gradients, gathered from tables of different rows.

All take value [B, S, heads, D], locations [B, Q, heads, L, P, 2], weights [B, Q, heads, L, P] and static shapes, and return
[B, Q, heads, D] in float32; see `jaxseg.nn.deformable.ms_deform_attn`, the function to call.
"""

import functools
import math
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.typing import Array

# Above this many bytes of sampled rows per image, a TPU or GPU takes one point at a time.
SCAN_BYTES = 2**27
_CORNERS = ((0, 0), (0, 1), (1, 0), (1, 1))  # (dy, dx) of the pixels around a point


class _Points(NamedTuple):
    """Sampling points in pixels of their level.

    Attributes:
        x, y: column and row of the upper left of the four pixels around a point, from -1 on.
        tx, ty: how far the point is from it, 0 to 1.
        weight: of the point, 0 where no pixel of the level is near.
    """

    x: Array
    y: Array
    tx: Array
    ty: Array
    weight: Array

    def corner(self, dy, dx):
        """Bilinear weight of one of the four pixels."""
        return (self.tx if dx else 1 - self.tx) * (self.ty if dy else 1 - self.ty) * self.weight


def _points(x, y, weights, sizes):
    """_Points from locations in [0, 1]; everything in float32.

    Args:
        x, y, weights: arrays of one shape.
        sizes: heights and widths, of a shape that broadcasts to it.
    """
    heights, widths = (size.astype(np.float32) for size in sizes)
    x, y = x.astype(jnp.float32) * widths - 0.5, y.astype(jnp.float32) * heights - 0.5
    inside = (x > -1) & (x < widths) & (y > -1) & (y < heights)
    # Points far outside would overflow as integers.
    x, y = jnp.where(inside, x, 0), jnp.where(inside, y, 0)
    left, top = jnp.floor(x), jnp.floor(y)
    weight = jnp.where(inside, weights.astype(jnp.float32), 0)
    return _Points(left.astype(jnp.int32), top.astype(jnp.int32), x - left, y - top, weight)


def _per_level(shapes, ndim, axis, pad=0):
    """Heights, widths and first rows of the levels in a table, each [L] at `axis` of `ndim` axes; `pad` enlarges both sides."""
    sizes = np.array(shapes, np.int32)
    starts = np.concatenate([[0], np.cumsum(np.prod(sizes + pad, 1))[:-1]]).astype(np.int32)
    shape = [1] * ndim
    shape[axis] = len(shapes)
    return sizes[:, 0].reshape(shape), sizes[:, 1].reshape(shape), starts.reshape(shape)


def _take(table, index):
    """[..., R, D] rows of [..., S, D] at [..., R], batched over the leading axes (the form that is partitioned without
    communication); every index must be valid."""
    take = lambda rows, i: rows.at[i].get(mode="promise_in_bounds")  # noqa: E731
    for _ in range(index.ndim - 1):
        take = jax.vmap(take)
    return take(table, index)


def _row_points(locations, weights, shapes):
    """Row of each corner of each point in the table of tokens and heads, and its weight: [B, Q, heads, L * P, 4]."""
    height, width, start = _per_level(shapes, 5, 3)
    p = _points(locations[..., 0], locations[..., 1], weights, (height, width))
    indices, corners = [], []
    for dy, dx in _CORNERS:
        x, y = p.x + dx, p.y + dy
        exists = (x >= 0) & (x < width) & (y >= 0) & (y < height)
        corners.append(jnp.where(exists, p.corner(dy, dx), 0))
        indices.append(start + jnp.clip(y, 0, height - 1) * width + jnp.clip(x, 0, width - 1))
    batch, queries, heads, levels, points = weights.shape
    head = np.arange(heads, dtype=np.int32).reshape(1, 1, heads, 1, 1, 1)
    index, shape = jnp.stack(indices, axis=-1) * heads + head, (batch, queries, heads, levels * points, 4)
    return index.reshape(shape), jnp.stack(corners, axis=-1).reshape(shape)


def _weighted_rows(table, index, weights):
    """[B, Q, heads, D]: sums of rows [B, R, D] at [B, Q, heads, K]."""
    taken = _take(table, index.reshape(index.shape[0], -1)).reshape(*index.shape, -1)
    weights = weights.astype(taken.dtype)
    return jnp.einsum("bqhkd,bqhk->bqhd", taken, weights, precision="highest", preferred_element_type=jnp.float32)


def _rows(value, locations, weights, shapes):
    index, corners = _row_points(locations, weights, shapes)
    shape = (*index.shape[:3], -1)
    table = value.reshape(value.shape[0], -1, value.shape[-1])
    return _weighted_rows(table, index.reshape(shape), corners.reshape(shape))


def _rows_scan(value, locations, weights, shapes):
    index, corners = _row_points(locations, weights, shapes)
    table = value.reshape(value.shape[0], -1, value.shape[-1])
    total = jnp.zeros((*index.shape[:3], value.shape[-1]), jnp.float32)
    return _sum_over_points(functools.partial(_weighted_rows, table), total, index, corners, axis=3)


def _sum_over_points(step, total, index, corners, axis):
    """`total` plus `step(index, corners)` of every point, one after the other; the backward pass gathers again."""

    @jax.checkpoint
    def add(total, point):
        return total + step(*point), None

    return jax.lax.scan(add, total, (jnp.moveaxis(index, axis, 0), jnp.moveaxis(corners, axis, 0)))[0]


def _neighbourhoods(value, shapes):
    """[B, S, heads, D] -> [B, heads, S', 4 D]: each row of a (h + 1) x (w + 1) map holds a 2x2 neighbourhood, zero outside."""
    batch, _, heads, dim = value.shape
    tables, start = [], 0
    for h, w in shapes:
        level = value[:, start : start + h * w].reshape(batch, h, w, heads, dim).transpose(0, 3, 1, 2, 4)
        level = jnp.pad(level, ((0, 0), (0, 0), (1, 1), (1, 1), (0, 0)))
        corners = [level[:, :, dy : dy + h + 1, dx : dx + w + 1] for dy, dx in _CORNERS]
        tables.append(jnp.concatenate(corners, axis=-1).reshape(batch, heads, (h + 1) * (w + 1), 4 * dim))
        start += h * w
    return jnp.concatenate(tables, axis=2)


def _packed_points(locations, weights, shapes):
    """Row of each point in the packed table, [B, heads, L * P, Q], and weights of the row's pixels, [B, heads, L * P, Q, 4].

    Queries come last: they fill the lanes of a vector, which a few points would not.
    """
    batch, queries, heads, levels, points = weights.shape
    height, width, start = _per_level(shapes, 5, 2, pad=1)
    x, y = (locations[..., i].transpose(0, 2, 3, 4, 1) for i in (0, 1))
    p = _points(x, y, weights.transpose(0, 2, 3, 4, 1), (height, width))
    index = start + (p.y + 1) * (width + 1) + (p.x + 1)
    corners = jnp.stack([p.corner(dy, dx) for dy, dx in _CORNERS], axis=-1)
    shape = (batch, heads, levels * points, queries)
    return index.reshape(shape), corners.reshape(*shape, 4)


def _spread(corners, dim, dtype):
    """[..., 4] -> [..., 4 D], each weight D times: a product with zeros and ones, which a TPU does beside its vector unit."""
    ones = jnp.asarray(np.kron(np.eye(4), np.ones((1, dim))), dtype)
    return jnp.matmul(corners.astype(dtype), ones, precision="highest")


def _fold(x):
    """[B, heads, Q, 4 D] -> [B, Q, heads, D], the four quarters added up."""
    fold = jnp.asarray(np.kron(np.ones((4, 1)), np.eye(x.shape[-1] // 4)), x.dtype)
    return jnp.einsum("bhqe,ed->bqhd", x, fold, precision="highest")


def _packed(value, locations, weights, shapes):
    index, corners = _packed_points(locations, weights, shapes)
    table = _neighbourhoods(value, shapes)
    # Without the barrier, XLA computes each gathered number where it is used, one by one.
    taken = jax.lax.optimization_barrier(_take(table, index.reshape(*index.shape[:2], -1))).reshape(*index.shape, -1)
    return _fold(jnp.sum(taken * _spread(corners, value.shape[-1], value.dtype), axis=2, dtype=jnp.float32))


def _packed_scan(value, locations, weights, shapes):
    index, corners = _packed_points(locations, weights, shapes)
    table = _neighbourhoods(value, shapes)

    def step(index, corners):
        taken = jax.lax.optimization_barrier(_take(table, index))
        return (taken * _spread(corners, value.shape[-1], value.dtype)).astype(jnp.float32)

    batch, heads, _, queries = index.shape
    total = jnp.zeros((batch, heads, queries, table.shape[-1]), jnp.float32)
    return _fold(_sum_over_points(step, total, index, corners, axis=2))


def _auto(value, locations, weights, shapes):
    # For one image: a batch is split over devices.
    sampled = math.prod(weights.shape[1:]) * 4 * value.shape[-1] * value.dtype.itemsize
    many = sampled > SCAN_BYTES
    choices = {
        "cpu": _rows_scan,
        "tpu": _packed_scan if many else _packed,
        "default": _rows_scan if many else _rows,
    }
    # Decided when a program is lowered, so that one compiled here for another machine has that machine's formulation.
    choices = {name: functools.partial(function, shapes=shapes) for name, function in choices.items()}
    return jax.lax.platform_dependent(value, locations, weights, **choices)


FORMULATIONS = {
    "auto": _auto,
    "rows": _rows,
    "rows_scan": _rows_scan,
    "packed": _packed,
    "packed_scan": _packed_scan,
}
