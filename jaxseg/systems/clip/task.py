"""CLIP contrastive training and zero-shot retrieval (Radford et al. 2021)."""

import functools

import jax
import jax.numpy as jnp

from jaxseg.config import model_fields
from jaxseg.encoders.clip.model import Clip
from jaxseg.losses.contrastive import symmetric_cross_entropy
from jaxseg.systems.clip.replay import replay
from jaxseg.task import Mean, Task
from jaxseg.text import tokenizer


def make_task(config):
    """The Task of a config whose `model` holds the fields of `Clip`.

    A batch has `image` [B, H, W, 3] and `token_ids` [B, T]; row i of both is a pair. The loss compares all pairs of the
    global batch, so it does not add up over micro-batches.
    """
    model = Clip(**model_fields(config, Clip), dtype=jnp.dtype(config.precision.compute))
    image_shape = (model.image_size, model.image_size, 3)
    max_scale = config.task.max_logit_scale

    def init(rng):
        variables = model.init(rng, jnp.zeros((1, *image_shape)), jnp.zeros((1, model.context_length), jnp.int32))
        return variables["params"], {}

    def loss(params, state, batch, rng, step, *, kind):
        del rng, step, kind
        image = model.apply({"params": params}, batch["image"], method="encode_image")
        text = model.apply({"params": params}, batch["token_ids"], method="encode_text")
        scale = jnp.minimum(jnp.exp(params["logit_scale"]), max_scale)
        loss_sum, hits, count = symmetric_cross_entropy(image, text, scale)
        terms = {
            "contrastive": Mean(loss_sum, count, 1.0),
            "matched_in_batch": Mean(hits, count),
            "logit_scale": Mean(scale, jnp.ones(())),
        }
        return terms, state

    def prepare(params, names, is_thing=None):
        del is_thing
        token_ids = tokenizer.tokenize(names, context_length=model.context_length)
        return {"text_embeddings": _encode_text(params, tokenizer.shorten(token_ids))}

    @jax.jit
    def _encode_text(params, token_ids):
        return unit(model.apply({"params": params}, token_ids, method="encode_text"))

    def predict(params, state, ctx, batch):
        del state
        image = unit(model.apply({"params": params}, batch["image"], method="encode_image"))
        logits = jnp.exp(params["logit_scale"]) * image @ ctx["text_embeddings"].T
        outputs = {"image_embeddings": image, "logits": logits}
        if "token_ids" in batch:
            outputs["text_embeddings"] = _encode_text(params, batch["token_ids"])
        return outputs

    def example_batch(batch_size, kind):
        del kind
        return {
            "image": jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32),
            "token_ids": jax.ShapeDtypeStruct((batch_size, model.context_length), jnp.int32),
        }

    def example_predict(batch_size, num_names):
        ctx = {"text_embeddings": jax.ShapeDtypeStruct((num_names, model.embed_dim), jnp.float32)}
        return ctx, {"image": jax.ShapeDtypeStruct((batch_size, *image_shape), jnp.float32)}

    return Task(
        name="clip",
        init=init,
        loss=loss,
        example_batch=example_batch,
        accumulates=False,
        prepare=prepare,
        predict=predict,
        example_predict=example_predict,
        capabilities={"replay": functools.partial(replay, model)},
    )


def unit(x):
    """Vectors of length one, in float32."""
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)
