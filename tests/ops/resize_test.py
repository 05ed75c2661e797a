import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.ops.resize import resize, resize_to_canvas


def test_nearest_moves_values_as_they_are():
    x = jnp.asarray([[1, 2, 3], [4, 5, 6]], jnp.uint8)
    found = resize(x, (4, 2), method="nearest")
    assert found.dtype == jnp.uint8 and found.tolist() == [[1, 2], [1, 2], [4, 5], [4, 5]]
    assert resize(x > 3, (1, 3), method="nearest").tolist() == [[False] * 3]
    with_nan = resize(jnp.asarray([[jnp.nan, 1.0]]), (1, 4), method="nearest")
    np.testing.assert_array_equal(with_nan, [[np.nan, np.nan, 1, 1]])


def test_integers_are_not_interpolated():
    with pytest.raises(ValueError, match="method: found 'bilinear' for int32"):
        resize(jnp.ones((2, 2), jnp.int32), (4, 4))


def test_positions_round_as_in_torch():
    """Of a ramp, bilinear values are the positions: a float32 factor and one rounding to float32."""
    ramp = np.arange(31, dtype=np.float32)[None]
    found, corners = jax.jit(lambda x: [resize(x, (1, 40), align_corners=corners) for corners in (False, True)])(ramp)
    expected = ((np.arange(40) + 0.5) * float(np.float32(31 / 40)) - 0.5).astype(np.float32)
    np.testing.assert_allclose(found[0], np.clip(expected, 0, 30), rtol=0, atol=4e-6)
    np.testing.assert_allclose(corners[0], np.linspace(0, 30, 40), rtol=1e-6)


def test_canvas_equals_static_sizes():
    x, sizes = np.random.default_rng(0).normal(size=(2, 3, 4, 5)).astype(np.float32), ((7, 6), (3, 9))

    @jax.jit
    def both(x):
        return resize_to_canvas(x, jnp.asarray(sizes), (8, 9)), [resize(x[i], size) for i, size in enumerate(sizes)]

    found, expected = both(x)
    for canvas, image in zip(np.asarray(found), expected, strict=True):
        _, height, width = image.shape
        np.testing.assert_allclose(canvas[:, :height, :width], image, atol=1e-5)
        assert not canvas[:, height:].any() and not canvas[:, :, width:].any()
