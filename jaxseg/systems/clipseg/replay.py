"""Recomputes recorded activations of a CLIPSeg, to check converted weights."""

import jax.numpy as jnp


def replay(model, params, state, inputs):
    """Outputs by the names and in the layouts of the published code.

    Args:
        model: a `ClipSeg`.
        inputs: `image` [B, 3, H, W]; `token_ids` [B, T], or [1, T] for all images; `prompt_image` [B, 3, h, w].

    Returns:
        `logits`, `logits_hf` [B, 1, H, W] and `cond`, `cond_text` [B, E] of the text prompts, `logits_visual` and
        `cond_visual` of the image prompts, `visual_q` and `pooled` [B, E]: the embeddings of the images.
    """
    del state

    def call(method, *args):
        return model.apply({"params": params}, *args, method=method)

    image = jnp.moveaxis(jnp.asarray(inputs["image"]), 1, -1)
    features, pooled = call("encode_image", image), call("encode_prompt_image", image)
    outputs = {"visual_q": pooled, "pooled": pooled}
    if "token_ids" in inputs:
        cond = call("encode_text", jnp.asarray(inputs["token_ids"]))
        cond = jnp.broadcast_to(cond, (len(image), cond.shape[-1]))
        logits = call("decode", features, cond[:, None])
        outputs |= {"cond": cond, "cond_text": cond, "logits": logits, "logits_hf": logits}
    if "prompt_image" in inputs:
        cond = call("encode_prompt_image", jnp.moveaxis(jnp.asarray(inputs["prompt_image"]), 1, -1))
        outputs |= {"cond_visual": cond, "logits_visual": call("decode", features, cond[:, None])}
    return outputs
