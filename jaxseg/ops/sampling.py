"""Values of maps between their pixels, and where to take them: torch's `grid_sample` and PointRend's points."""

import zlib
from collections.abc import Callable

import jax
import jax.numpy as jnp

from jaxseg.typing import Array

Draw = Callable[[str, tuple[int, ...]], Array]


def uniform_draw(rng: Array) -> Draw:
    """`draw(name, shape)`: uniform in [0, 1), independent for each name. Tests replay recorded draws in its place."""
    return lambda name, shape: jax.random.uniform(jax.random.fold_in(rng, zlib.crc32(name.encode())), shape)


def grid_sample(maps: Array, grid: Array, *, padding="zeros", align_corners=False) -> Array:
    """Bilinear values of maps at points, as torch's `grid_sample` computes them.

    Args:
        maps: [..., C, H, W] of any type; integers and booleans are read as they are and weighted in the grid's type.
        grid: [..., P, 2] float, (x, y); -1 and 1 are the borders of the map, or the centres of its outer pixels with
            `align_corners`. The leading axes are those of the maps.
        padding: "zeros": each of the four pixels that lies outside counts as 0; "border": points outside move to the border.

    Returns:
        [..., C, P].
    """
    if padding not in ("zeros", "border"):
        raise ValueError(f"padding: found {padding!r}, expected 'zeros' or 'border'")

    def function(maps, grid):
        return _sample(maps, grid, padding, align_corners)

    for _ in range(grid.ndim - 2):
        function = jax.vmap(function)
    return function(maps, grid)


def _sample(maps, grid, padding, align_corners):
    height, width = maps.shape[-2:]
    flat = maps.reshape(-1, height * width)
    x, y = (_pixel(grid[:, axis], size, padding, align_corners) for axis, size in ((0, width), (1, height)))
    total = 0
    for row, row_weight in _neighbours(y, height):
        for column, column_weight in _neighbours(x, width):
            values = flat.at[:, row * width + column].get(mode="promise_in_bounds")
            total += values * (row_weight * column_weight)[None]
    return total


def _pixel(position, size, padding, align_corners):
    """Pixel coordinate (0 = centre of the first) of a position in [-1, 1]."""
    pixel = (position + 1) / 2 * (size - 1) if align_corners else ((position + 1) * size - 1) / 2
    # Beyond the first pixel outside nothing is seen: cut there, so that far positions have finite weights.
    return jnp.clip(pixel, 0, size - 1) if padding == "border" else jnp.clip(pixel, -1, size)


def _neighbours(pixel, size):
    """(index in range, weight) of the pixel before and of the one after; outside of the map the weight is 0."""
    first = jnp.floor(pixel)
    for index, weight in ((first, first + 1 - pixel), (first + 1, pixel - first)):
        inside = (index >= 0) & (index < size)
        yield jnp.clip(index.astype(jnp.int32), 0, size - 1), jnp.where(inside, weight, 0)


def sample_points(maps: Array, points: Array) -> Array:
    """Bilinear values at points in [0, 1] x [0, 1], zeros outside: PointRend's point sampling.

    Args:
        maps: [..., C, H, W]; points: [..., P, 2], (x, y), 0 and 1 the borders; shared by the C maps.

    Returns:
        [..., C, P].
    """
    return grid_sample(maps, 2 * points - 1)


def uncertain_points(logits: Array, num_points: int, draw: Draw, *, oversample_ratio=3.0, importance_ratio=0.75) -> Array:
    """Points where masks are undecided, and some anywhere (PointRend, section 3.1); without gradient.

    Draws "oversample" [..., int(oversample_ratio * P), 2], of which the int(importance_ratio * P) with the least |logit| stay,
    and "random" for the rest.

    Args:
        logits: [..., H, W] of masks, each with its own points.
        num_points: P.

    Returns:
        [..., P, 2], (x, y) in [0, 1]: the uncertain ones first.

    Raises:
        ValueError: where more points are to stay than are drawn.
    """
    num_drawn, num_kept = int(oversample_ratio * num_points), int(importance_ratio * num_points)
    if not 0 <= num_kept <= min(num_drawn, num_points):
        raise ValueError(
            f"importance_ratio: found {importance_ratio}, which keeps {num_kept} of {num_drawn} drawn points;"
            f" expected at most oversample_ratio ({oversample_ratio}) and 1"
        )
    logits, lead, parts = jax.lax.stop_gradient(logits), logits.shape[:-2], []
    if num_kept:
        points = draw("oversample", (*lead, num_drawn, 2))
        values = sample_points(logits[..., None, :, :], points)[..., 0, :]
        # A sort is split over the batch; for a top_k, every device gathers the whole batch (seen on CPU devices, not on TPU).
        _, *kept = jax.lax.sort((jnp.abs(values), points[..., 0], points[..., 1]), num_keys=1)
        parts.append(jnp.stack(kept, -1)[..., :num_kept, :])
    if num_kept < num_points:
        parts.append(draw("random", (*lead, num_points - num_kept, 2)))
    return jnp.concatenate(parts, axis=-2)
