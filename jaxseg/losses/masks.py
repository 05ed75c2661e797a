"""Losses and matching costs of mask logits, per pixel, per mask and between all masks of two sets.

`focal`: None for cross-entropy, or (alpha, gamma) of the focal loss (Lin et al. 2017); everything is computed in float32.
"""

import jax
import jax.numpy as jnp

from jaxseg.ops.masks import pairwise_dice, pairwise_products
from jaxseg.typing import Array

Focal = tuple[float, float] | None


def binary_cross_entropy(logits: Array, target: Array, valid: Array) -> tuple[Array, Array]:
    """Binary cross-entropy with logits over valid pixels, as (sum, count) so that it adds up over micro-batches.

    Args:
        logits: any shape; target: the same shape, in [0, 1]; valid: the same shape, weights (0 leaves a pixel out).

    Returns:
        The weighted sum and the sum of weights; their ratio is torch's mean `BCEWithLogitsLoss`.
    """
    valid = jnp.asarray(valid, jnp.float32)
    return jnp.sum(sigmoid_loss(logits, target) * valid), jnp.sum(valid)


def sigmoid_loss(logits: Array, target: Array, focal: Focal = None) -> Array:
    """Cross-entropy or focal loss of each logit against a target in [0, 1], of the same shape."""
    logits, target = (jnp.asarray(x, jnp.float32) for x in (logits, target))
    # Both terms keep their digits at large logits, and the derivative at a logit of exactly 0 is p - target there too.
    loss = target * jax.nn.softplus(-logits) + (1 - target) * jax.nn.softplus(logits)
    if focal is None:
        return loss
    alpha, gamma = focal
    p = jax.nn.sigmoid(logits)
    missed = p * (1 - target) + (1 - p) * target
    return loss * missed**gamma * (alpha * target + (1 - alpha) * (1 - target))


def mask_loss(logits: Array, target: Array, focal: Focal = None) -> Array:
    """[..., P], [..., P] -> [...]: the mean of `sigmoid_loss` over the points of each mask."""
    return jnp.mean(sigmoid_loss(logits, target, focal), -1)


def dice_loss(logits: Array, target: Array) -> Array:
    """[..., P], [..., P] -> [...]: 1 - (2 sum st + 1) / (sum s + sum t + 1), s the sigmoid (V-Net, as in MaskFormer)."""
    s, target = jax.nn.sigmoid(jnp.asarray(logits, jnp.float32)), jnp.asarray(target, jnp.float32)
    return 1 - (2 * jnp.sum(s * target, -1) + 1) / (jnp.sum(s, -1) + jnp.sum(target, -1) + 1)


def pairwise_mask_cost(logits: Array, target: Array, focal: Focal = None) -> Array:
    """[..., Q, P], [..., T, P] -> [..., Q, T]: a fractional target weights the losses against 1 and against 0."""
    logits, target = (jnp.asarray(x, jnp.float32) for x in (logits, target))
    of_one, of_zero = (sigmoid_loss(logits, jnp.full_like(logits, value), focal) for value in (1, 0))
    return (pairwise_products(of_one, target) + pairwise_products(of_zero, 1 - target)) / logits.shape[-1]


def pairwise_dice_cost(logits: Array, target: Array) -> Array:
    """[..., Q, P], [..., T, P] -> [..., Q, T]: `dice_loss` of every query against every target."""
    return 1 - pairwise_dice(jax.nn.sigmoid(jnp.asarray(logits, jnp.float32)), jnp.asarray(target, jnp.float32))
