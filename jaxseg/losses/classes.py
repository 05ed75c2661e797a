"""Losses and matching costs of class logits, in float32."""

import jax
import jax.numpy as jnp

from jaxseg.losses.masks import sigmoid_loss
from jaxseg.ops.masks import pairwise_products
from jaxseg.typing import Array


def cross_entropy(logits: Array, labels: Array) -> Array:
    """Softmax cross-entropy, [..., K], integer [...] in [0, K) -> [...]."""
    log_p = jax.nn.log_softmax(jnp.asarray(logits, jnp.float32))
    return -jnp.take_along_axis(log_p, labels[..., None], axis=-1)[..., 0]


def class_weights(num_classes: int, last: float) -> Array:
    """[K + 1] float32: 1 for each class, `last` for the no-object (or background) class behind them."""
    return jnp.ones(num_classes + 1, jnp.float32).at[num_classes].set(last)


def weighted_cross_entropy(logits: Array, labels: Array, weights: Array) -> tuple[Array, Array]:
    """Cross-entropy with a weight for each class, as (sum, sum of weights); their ratio is torch's weighted mean.

    Args:
        logits: [..., K]; labels: integer [...]; weights: [K].
    """
    weights = weights[labels]
    return jnp.sum(weights * cross_entropy(logits, labels)), jnp.sum(weights)


def softmax_cost(logits: Array, labels: Array) -> Array:
    """[..., Q, K], integer [..., T] -> [..., Q, T]: minus the probability of the target's class."""
    p = jax.nn.softmax(jnp.asarray(logits, jnp.float32))
    return -jnp.take_along_axis(p, labels[..., None, :], axis=-1)


def token_focal_loss(logits: Array, positives: Array, valid: Array, focal=(0.25, 2.0)) -> Array:
    """Focal loss of queries against text tokens, summed over valid entries.

    Args:
        logits: [..., Q, N]; positives: [..., Q, N] in [0, 1], the tokens of each query's target; valid: [..., Q, N] bool.
    """
    return jnp.sum(jnp.where(valid, sigmoid_loss(logits, positives, focal), 0))


def token_focal_cost(logits: Array, positives: Array, focal=(0.25, 2.0)) -> Array:
    """[..., Q, N], [..., T, N] bool -> [..., Q, T]: the loss saved by a positive token, averaged over the target's tokens.

    Of one logit with probability p: alpha (1 - p)^gamma (-log p) - (1 - alpha) p^gamma (-log(1 - p)), with the 1e-8 inside of
    the logarithms that Deformable DETR has.
    """
    alpha, gamma = focal
    p = jax.nn.sigmoid(jnp.asarray(logits, jnp.float32))
    q = jnp.maximum(1 - p, 0)  # the compiler would turn 1 - p + 1e-8 into 1 - p
    saved = alpha * q**gamma * -jnp.log(p + 1e-8) - (1 - alpha) * p**gamma * -jnp.log(q + 1e-8)
    positives = jnp.asarray(positives, jnp.float32)
    return pairwise_products(saved, positives / jnp.maximum(jnp.sum(positives, -1, keepdims=True), 1))
