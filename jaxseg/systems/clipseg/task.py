"""CLIPSeg's Task: binary cross-entropy over (image, prompt) pairs (Lueddecke & Ecker 2022).

A prompt is text, an image, or a blend of both.
"""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.config import model_fields
from jaxseg.losses.masks import binary_cross_entropy
from jaxseg.ops.padding import inside_canvas
from jaxseg.ops.resize import resize_to_canvas
from jaxseg.result import Result
from jaxseg.systems.clipseg.model import ClipSeg
from jaxseg.systems.clipseg.replay import replay
from jaxseg.task import Mean, Task
from jaxseg.text import tokenizer


def make_task(config):
    """The Task of a config whose `model` holds the fields of `ClipSeg`.

    A train batch has `image` [B, H, W, 3], `token_ids` [B, P, T] (T is `config.task.prompt_length`, or what the text tower
    reads: what follows the end of a text costs time and changes nothing), `mask` and `mask_valid` [B, P, H, W]; with visual
    prompts also `prompt_image` [B, P, H, W, 3] and `text_weight` [B, P]: the condition is then
    `w * text + (1 - w) * image`, neither of them normalised.
    """
    model = ClipSeg(**model_fields(config, ClipSeg), dtype=jnp.dtype(config.precision.compute))
    size, context_length = config.task.image_size, model.clip["context_length"]
    prompt_length = config.task.get("prompt_length", 0) or context_length
    num_prompts, with_visual = config.task.num_prompts, config.task.with_visual

    def call(params, method, *args, **kwargs):
        return model.apply({"params": params}, *args, method=method, **kwargs)

    def init(rng):
        image, token_ids = jnp.zeros((1, size, size, 3)), jnp.zeros((1, context_length), jnp.int32)
        return model.init(rng, image, token_ids)["params"], {}

    def condition(params, batch):
        """What each prompt of a batch asks for, [B, P, E]: its text, or text and image blended."""
        batch_size, prompts = batch["token_ids"].shape[:2]
        token_ids = batch["token_ids"].reshape(batch_size * prompts, -1)
        text = call(params, "encode_text", token_ids).reshape(batch_size, prompts, -1)
        if "prompt_image" not in batch:
            return text
        image = batch["prompt_image"].reshape(batch_size * prompts, *batch["prompt_image"].shape[2:])
        visual = call(params, "encode_prompt_image", image).reshape(text.shape)
        weight = batch["text_weight"][..., None]
        return weight * text + (1 - weight) * visual

    def loss(params, state, batch, rng, step, *, kind):
        del step, kind
        features = call(params, "encode_image", batch["image"])
        logits = call(params, "decode", features, condition(params, batch), deterministic=False, rngs={"dropout": rng})
        valid = batch["mask_valid"]
        loss_sum, count = binary_cross_entropy(logits, batch["mask"], valid)
        predicted, target = (logits > 0) & (valid > 0), (batch["mask"] > 0.5) & (valid > 0)
        terms = {
            "mask": Mean(loss_sum, count, 1.0),
            "foreground_iou": Mean(jnp.sum(predicted & target), jnp.maximum(jnp.sum(predicted | target), 1)),
        }
        return terms, state

    @jax.jit
    def encode_names(params, token_ids):
        return call(params, "encode_text", token_ids)

    def prepare(params, names, is_thing=None):
        del is_thing
        token_ids = tokenizer.tokenize(names, context_length=context_length, truncate=config.predict.truncate)
        return {"cond": encode_names(params, tokenizer.shorten(token_ids))}

    def encode(params, state, batch):
        del state
        return call(params, "encode_image", batch["image"])

    def decode(params, state, features, ctx):
        del state
        return {"logits": call(params, "decode", features, ctx["cond"])}

    def predict(params, state, ctx, batch):
        return decode(params, state, encode(params, state, batch), ctx)

    def example_batch(batch_size, kind):
        del kind
        pixels, prompts = (size, size), (batch_size, num_prompts)
        batch = {
            "image": _floats(batch_size, *pixels, 3),
            "token_ids": jax.ShapeDtypeStruct((*prompts, prompt_length), jnp.int32),
            "mask": _floats(*prompts, *pixels),
            "mask_valid": _floats(*prompts, *pixels),
        }
        if with_visual:
            batch |= {"prompt_image": _floats(*prompts, *pixels, 3), "text_weight": _floats(*prompts)}
        return batch

    def example_predict(batch_size, num_names):
        ctx = {"cond": _floats(num_names, model.clip["embed_dim"])}
        return ctx, {"image": _floats(batch_size, size, size, 3)}

    return Task(
        name="clipseg",
        init=init,
        loss=loss,
        example_batch=example_batch,
        prepare=prepare,
        predict=predict,
        example_predict=example_predict,
        finalize=finalize,
        capabilities={
            "encode": encode,
            "decode": decode,
            "condition": condition,
            "at_original_size": at_original_size,
            "replay": functools.partial(replay, model),
        },
    )


def _floats(*shape):
    return jax.ShapeDtypeStruct(shape, jnp.float32)


@functools.partial(jax.jit, static_argnames=("canvas",))
def at_original_size(outputs, original_size, threshold, *, canvas):
    """Masks at the size of each image, top-left in a canvas that few sizes share.

    Args:
        outputs: of `predict`: `logits` [B, P, h, w].
        original_size: [B, 2] int32, (height, width).
        threshold: probability above which a pixel is foreground.
        canvas: static (height, width), not smaller than any original size.

    Returns:
        `probabilities` [B, P, H, W] in [0, 1], `masks` [B, P, H, W] bool, and `scores` [B, P]: the mean probability
        inside the mask, 0 where it is empty.
    """
    probabilities = resize_to_canvas(jax.nn.sigmoid(outputs["logits"].astype(jnp.float32)), original_size, canvas)
    inside = inside_canvas(original_size, canvas)[:, None]
    masks = (probabilities > threshold) & inside
    area = jnp.sum(masks, (2, 3))
    scores = jnp.sum(jnp.where(masks, probabilities, 0), (2, 3)) / jnp.maximum(area, 1)
    return {"probabilities": probabilities, "masks": masks, "scores": scores}


def finalize(outputs, metas, names):
    """One `Result` per image from the arrays of `at_original_size`: a row per prompt, of score 0 where it is empty."""
    results = []
    for i, meta in enumerate(metas):
        height, width = meta["original_size"]
        masks = np.asarray(outputs["masks"][i, : len(names), :height, :width])
        scores = np.asarray(outputs["scores"][i, : len(names)])
        known = {"path": meta.get("path", ""), "image": meta.get("image")}
        results.append(Result.from_masks(masks, scores, tuple(names), **known))
    return results
