"""Windows of a map: which pixels are in them, shifted or not, and the way back."""

import jax
import numpy as np
import pytest

from jaxseg.ops.windows import from_windows, neighbours_in_windows, to_windows, window_grid

CASES = [((8, 12), 4, 2), ((7, 9), 4, 2), ((3, 5), 7, 3), ((6, 6), 3, 1), ((1, 1), 2, 1)]


def numbered(size, batch=2):
    """A map whose pixels hold their own number, from 1."""
    x = np.arange(1, 1 + size[0] * size[1], dtype=np.float32).reshape(1, *size, 1)
    return np.concatenate([x * 10**i for i in range(batch)])


@pytest.mark.parametrize("size, window, shift", CASES)
def test_there_and_back(size, window, shift):
    x = numbered(size)
    rows, columns = window_grid(size, window)
    for moved in (0, shift):
        windows = jax.jit(to_windows, static_argnums=(1, 2))(x, window, moved)
        assert windows.shape == (2, rows * columns, window * window, 1)
        np.testing.assert_array_equal(np.sum(windows > 0, (1, 2, 3)), size[0] * size[1])
        np.testing.assert_array_equal(jax.jit(from_windows, static_argnums=(1, 2))(windows, size, moved), x)


def test_windows_are_row_by_row():
    windows = np.asarray(to_windows(numbered((4, 6)), 2))
    np.testing.assert_array_equal(windows[0, 1, :, 0], [3, 4, 9, 10])
    np.testing.assert_array_equal(windows[0, 3, :, 0], [13, 14, 19, 20])
    np.testing.assert_array_equal(np.asarray(to_windows(numbered((4, 6)), 2, 1))[0, 0, :, 0], [8, 9, 14, 15])
    np.testing.assert_array_equal(np.asarray(to_windows(numbered((4, 5)), 2, 1))[0, -1, :, 0], [0, 16, 0, 1])


@pytest.mark.parametrize("size, window, shift", CASES)
def test_neighbours(size, window, shift):
    """Those that a grid of windows, moved down and right over the map without a wrap, holds together."""
    pixels = to_windows(numbered(size, 1), window, shift)[0, ..., 0]
    visible = np.asarray(jax.jit(neighbours_in_windows, static_argnums=(0, 1, 2))(size, window, shift))
    assert visible.shape == (len(pixels), window**2, window**2) and visible.dtype == bool
    y, x = np.divmod(np.asarray(pixels, int) - 1, size[1])
    place = np.stack([(y - shift) // window, (x - shift) // window])
    together = (place[:, :, :, None] == place[:, :, None, :]).all(0)
    real = pixels > 0
    both = np.asarray(real[:, :, None] & real[:, None, :])
    np.testing.assert_array_equal(visible[both], together[both])
    assert visible[:, range(window**2), range(window**2)].all()
