"""Square windows of a map, shifted or not, as one more batch axis; a window that meets the border is filled with zeros."""

import jax.numpy as jnp

from jaxseg.typing import Array


def window_grid(size: tuple[int, int], window: int) -> tuple[int, int]:
    """How many windows cover a map of `size` (h, w): (rows, columns)."""
    return tuple(-(-side // window) for side in size)


def to_windows(x: Array, window: int, shift: int = 0) -> Array:
    """A map -> its windows, row by row.

    Args:
        x: [B, h, w, C].
        shift: the filled map is rolled up and left by so many pixels first; what leaves comes back on the other side.

    Returns:
        [B, n, window * window, C].
    """
    batch, height, width, channels = x.shape
    rows, columns = window_grid((height, width), window)
    x = jnp.pad(x, ((0, 0), (0, rows * window - height), (0, columns * window - width), (0, 0)))
    if shift:
        x = jnp.roll(x, (-shift, -shift), axis=(1, 2))
    x = x.reshape(batch, rows, window, columns, window, channels).swapaxes(2, 3)
    return x.reshape(batch, rows * columns, window * window, channels)


def from_windows(windows: Array, size: tuple[int, int], shift: int = 0) -> Array:
    """The inverse of `to_windows`, without the filling: [B, n, window * window, C] -> [B, h, w, C], size (h, w)."""
    batch, _, pixels, channels = windows.shape
    window = round(pixels**0.5)
    rows, columns = window_grid(size, window)
    x = windows.reshape(batch, rows, columns, window, window, channels).swapaxes(2, 3)
    x = x.reshape(batch, rows * window, columns * window, channels)
    if shift:
        x = jnp.roll(x, (shift, shift), axis=(1, 2))
    return x[:, : size[0], : size[1]]


def neighbours_in_windows(size: tuple[int, int], window: int, shift: int) -> Array:
    """Which pixels of a shifted window were neighbours before the roll, [n, N, N] bool, N = window * window.

    The last row and column of windows join opposite sides of the map; pixels see their own side only. Filling counts as map.
    """

    def sides(windows):
        # From iotas, so that no table of all windows becomes a constant of the program.
        position = jnp.arange(windows * window)
        side = (position >= (windows - 1) * window).astype(jnp.int32) + (position >= windows * window - shift)
        return side.reshape(windows, window)

    rows, columns = (sides(n) for n in window_grid(size, window))
    region = 3 * rows[:, None, :, None] + columns[None, :, None, :]
    region = region.reshape(-1, window * window)
    return region[:, :, None] == region[:, None, :]
