"""Losses on mask logits, each as (sum, count) so that they add up over micro-batches."""

import jax
import jax.numpy as jnp

from jaxseg.typing import Array


def binary_cross_entropy(logits: Array, target: Array, valid: Array) -> tuple[Array, Array]:
    """Binary cross-entropy with logits over valid pixels.

    Args:
        logits: any shape; target: the same shape, in [0, 1]; valid: the same shape, weights (0 leaves a pixel out).

    Returns:
        The weighted sum and the sum of weights; their ratio is torch's mean `BCEWithLogitsLoss`.
    """
    logits, target, valid = (jnp.asarray(x, jnp.float32) for x in (logits, target, valid))
    loss = jax.nn.relu(logits) - logits * target + jnp.log1p(jnp.exp(-jnp.abs(logits)))
    return jnp.sum(loss * valid), jnp.sum(valid)
