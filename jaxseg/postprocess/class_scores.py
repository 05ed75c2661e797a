"""How likely each query is of each class: what the merges multiply with masks."""

import jax
import jax.numpy as jnp

from jaxseg.typing import Array


def softmax_scores(class_logits: Array) -> Array:
    """[..., Q, K + 1] logits, the last column "no object" -> [..., Q, K] probabilities (MaskFormer, Mask2Former)."""
    return jax.nn.softmax(class_logits.astype(jnp.float32), -1)[..., :-1]


def log_product_scores(class_logits: Array, object_logits: Array | None = None) -> Array:
    """Logarithms of the probability of each class, times that of being an object (Xu et al. 2023, MasQCLIP).

    Args:
        class_logits: [..., Q, K + 1] of an open-vocabulary classifier, the last column "background".
        object_logits: [..., Q, 2], the first column "object"; None leaves the class probabilities as they are.

    Returns:
        [..., Q, K]; their exponentials do not add up to 1.
    """
    log_scores = jax.nn.log_softmax(class_logits.astype(jnp.float32), -1)[..., :-1]
    if object_logits is None:
        return log_scores
    return log_scores + jax.nn.log_softmax(object_logits.astype(jnp.float32), -1)[..., :1]
