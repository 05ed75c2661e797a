"""Recomputes recorded activations of a CLIP, to check converted weights."""

import jax.numpy as jnp


def replay(model, params, state, inputs):
    """Outputs by the names of the published code.

    Args:
        model: a `Clip`.
        inputs: `image` [B, 3, H, W] and `token_ids` [K, T].

    Returns:
        `image_features` [B, E], `text_features` [K, E], `logits_per_image` [B, K], `logits_per_text` [K, B].
    """
    del state
    image, token_ids = jnp.moveaxis(jnp.asarray(inputs["image"]), 1, -1), jnp.asarray(inputs["token_ids"])
    outputs = {
        "image_features": model.apply({"params": params}, image, method="encode_image"),
        "text_features": model.apply({"params": params}, token_ids, method="encode_text"),
        "logits_per_image": model.apply({"params": params}, image, token_ids),
    }
    outputs["logits_per_text"] = outputs["logits_per_image"].T
    return outputs
