"""Contrastive losses."""

import jax
import jax.numpy as jnp

from jaxseg.typing import Array


def symmetric_cross_entropy(image: Array, text: Array, scale: Array) -> tuple[Array, Array, Array]:
    """CLIP's loss: the mean of the cross-entropies of images against texts and of texts against images.

    Inside one jitted program over a sharded batch the product spans the global batch.

    Args:
        image, text: [B, E], row i of both is a pair; need not be normalised.
        scale: the temperature's inverse.

    Returns:
        Sum of the loss over pairs, number of images whose own text scores highest, number of pairs.
    """
    image, text = (x.astype(jnp.float32) for x in (image, text))
    image = image / jnp.linalg.norm(image, axis=-1, keepdims=True)
    text = text / jnp.linalg.norm(text, axis=-1, keepdims=True)
    logits = scale * image @ text.T
    own = jnp.diagonal(logits)
    loss = 0.5 * (jax.nn.logsumexp(logits, axis=1) + jax.nn.logsumexp(logits, axis=0)) - own
    hits = jnp.sum(jnp.argmax(logits, axis=1) == jnp.arange(len(logits)))
    return jnp.sum(loss), hits, jnp.asarray(len(logits), jnp.float32)
