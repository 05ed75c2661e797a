"""Losses of boxes, per coordinate."""

import jax.numpy as jnp

from jaxseg.typing import Array


def smooth_l1(prediction: Array, target: Array, beta: float = 0.0) -> Array:
    """d - beta / 2 of the distance d = |prediction - target|, and d^2 / (2 beta) below `beta`; 0 gives d (Girshick 2015).

    Args:
        prediction, target: of one shape, which the result has.
    """
    distance = jnp.abs(prediction - target)
    if not beta:
        return distance
    return jnp.where(distance < beta, distance**2 / (2 * beta), distance - beta / 2)
