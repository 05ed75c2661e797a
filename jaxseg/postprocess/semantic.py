"""Semantic segmentation from queries: each pixel's classes, as its queries say (Cheng et al. 2021, MaskFormer).

There are two published orders: the sum over queries at the original size, and, where nothing but semantic segmentation is
asked for, the sum at the padded size with the scores resized afterwards (`original_size.crop_and_resize`): cheaper, and not
equal, since the sigmoid comes before the resize.
"""

import jax.numpy as jnp

from jaxseg.typing import Array


def semantic_scores(class_scores: Array, mask_probabilities: Array) -> Array:
    """The sum over queries of class score times mask probability.

    Args:
        class_scores: [..., Q, K] without "no object".
        mask_probabilities: [..., Q, H, W] in [0, 1].

    Returns:
        [..., K, H, W] float32; several queries may add up to more than 1, the class of a pixel is the largest.
    """
    scores, masks = class_scores.astype(jnp.float32), mask_probabilities.astype(jnp.float32)
    return jnp.einsum("...qk,...qhw->...khw", scores, masks, precision="highest")
