"""Sine and cosine of positions: on a map, inside the valid part of a padded map, and of any coordinates."""

import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.typing import Array

EPSILON = 1e-6


def sine_features(x: Array, num_features: int, temperature: float = 10000.0) -> Array:
    """[...] angles -> [..., N]: sin(x / f_0), cos(x / f_0), sin(x / f_1), ... with f_j = temperature ** (2 j / N).

    Raises:
        ValueError: where `num_features` is odd: a sine without its cosine.
    """
    if num_features % 2:
        raise ValueError(f"sine features: found {num_features}, expected an even number")
    exponents = np.arange(0, num_features, 2, dtype=np.float32) / np.float32(num_features)
    periods = jnp.asarray(temperature ** exponents.astype(np.float64), jnp.float32)
    # XLA multiplies by the inverse of what it sees being broadcast. Published weights meet angles of millions where a whole
    # column is padding, and there the last digit of a true division decides the sine.
    periods = jax.lax.optimization_barrier(jnp.broadcast_to(periods, (*x.shape, num_features // 2)))
    angles = x.astype(jnp.float32)[..., None] / periods
    pairs = jnp.stack([jnp.sin(angles), jnp.cos(angles)], axis=-1)
    return pairs.reshape(*x.shape, num_features)


def sine_positions(
    size: tuple[int, int],
    num_features: int,
    *,
    valid: Array | None = None,
    temperature: float = 10000.0,
    normalize: bool = True,
    scale: float = 2 * math.pi,
    offset: float = 0.0,
) -> Array:
    """Position embedding of a map (DETR): features of y, then of x.

    Rows and columns count from 1 within the valid part; normalized, the last one is at `scale`.

    Args:
        size: (h, w).
        num_features: N, of one axis; even.
        valid: [B, h, w] bool; without it the whole map counts.
        offset: added to the counts where normalized; HIPIE's thing branch takes -0.5, pixel centres.

    Returns:
        [B, h, w, 2 N] float32, B = 1 without `valid`.
    """
    if valid is None:
        counts = (jnp.arange(1, size[axis] + 1, dtype=jnp.float32).reshape(1, *_along(axis)) for axis in (0, 1))
    else:
        if valid.shape[1:] != tuple(size):
            raise ValueError(f"positions: found a mask {valid.shape}, expected [B, {size[0]}, {size[1]}]")
        counts = (jnp.cumsum(valid, axis=1 + axis, dtype=jnp.float32) for axis in (0, 1))
    features = []
    for axis, count in enumerate(counts):
        if normalize:
            last = count[:, -1:] if axis == 0 else count[:, :, -1:]
            count = (count + offset) / (last + EPSILON) * scale
        encoded = sine_features(count, num_features, temperature)
        features.append(jnp.broadcast_to(encoded, (len(count), *size, num_features)))
    return jnp.concatenate(features, axis=-1)


def _along(axis):
    return (-1, 1) if axis == 0 else (1, -1)
