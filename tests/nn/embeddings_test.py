"""Sine positions: order of the features, and what padding does to them."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn.embeddings import sine_features, sine_positions


def test_pairs_share_a_period():
    x = np.array([0.3, 2.0], np.float32)
    found = sine_features(x, 6, temperature=100.0)
    for j in range(3):
        period = 100.0 ** (2 * j / 6)
        np.testing.assert_allclose(found[:, 2 * j], np.sin(x / period), rtol=1e-6)
        np.testing.assert_allclose(found[:, 2 * j + 1], np.cos(x / period), rtol=1e-6)
    with pytest.raises(ValueError, match="found 5"):
        sine_features(x, 5)


def test_rows_come_before_columns():
    found = sine_positions((3, 4), 8)
    assert found.shape == (1, 3, 4, 16)
    y, x = np.arange(1, 4) / (3 + 1e-6) * 2 * np.pi, np.arange(1, 5) / (4 + 1e-6) * 2 * np.pi
    np.testing.assert_allclose(found[0, :, 2, 0], np.sin(y), atol=1e-6)
    np.testing.assert_allclose(found[0, 1, :, 8 + 3], np.cos(x / 10), atol=1e-6)
    np.testing.assert_array_equal(sine_positions((3, 4), 8, valid=np.ones((1, 3, 4), bool)), found)


def test_counts_without_normalization():
    found = sine_positions((2, 5), 4, normalize=False)
    np.testing.assert_allclose(found[0, 0, :, 4], np.sin(np.arange(1, 6)), atol=1e-6)


@pytest.mark.parametrize("offset", [0.0, -0.5])
def test_the_valid_part_has_the_positions_of_a_map_of_its_size(offset):
    valid = np.zeros((2, 6, 7), bool)
    valid[0, :4, :5] = valid[1] = True
    found = sine_positions((6, 7), 8, valid=valid, offset=offset)
    np.testing.assert_allclose(found[0, :4, :5], sine_positions((4, 5), 8, offset=offset)[0], atol=1e-6)
    np.testing.assert_allclose(found[1], sine_positions((6, 7), 8, offset=offset)[0], atol=1e-6)
    with pytest.raises(ValueError, match="expected"):
        sine_positions((7, 6), 8, valid=valid)


def test_division_is_exact_in_a_compiled_program():
    """A column of nothing but padding has angles of millions, whose last digit published weights have seen."""
    valid = np.zeros((2, 6, 7), bool)
    valid[:, :4, :5] = True
    found = jax.jit(lambda valid: sine_positions((6, 7), 16, valid=valid, offset=-0.5))(valid)
    angle = np.float32(-0.5) / np.float32(1e-6) * np.float32(2 * np.pi)
    periods = np.power(np.float32(10000), np.arange(0, 16, 2, dtype=np.float32) / 16)
    expected = np.sin((angle / periods).astype(np.float64))
    np.testing.assert_allclose(found[0, 0, 6, 0:16:2], expected, atol=1e-6)  # column 6, rows' features


def test_gradients_pass_to_coordinates():
    gradient = jax.grad(lambda x: sine_features(x, 4)[..., 0].sum())(jnp.array([0.3, 0.7]))
    np.testing.assert_allclose(gradient, np.cos([0.3, 0.7]), rtol=1e-6)
