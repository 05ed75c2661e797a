"""MasQCLIP's third stage as a Task: mask class tokens learn to name the masks of a frozen proposal network."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.config import model_fields
from jaxseg.finalize import SEGMENTS, segment_results
from jaxseg.losses.assignment import assign_labels
from jaxseg.losses.classes import class_weights, weighted_cross_entropy
from jaxseg.postprocess.class_scores import log_product_scores
from jaxseg.postprocess.queries import QueryMerge
from jaxseg.systems.masqclip.model import MasQClip, class_logits
from jaxseg.systems.masqclip.text_classifier import class_embeddings, tokenized
from jaxseg.task import Mean, Task, example_masks
from jaxseg.text.synonyms import words_of
from jaxseg.weights import flatten, unflatten


def make_task(config):
    """The Task of a config whose `model` holds the fields of `MasQClip`.

    A train batch has `image` uint8 [B, H, W, 3] and `image_size` [B, 2], padded right and below, and annotated masks: `masks`
    uint8 [B, N, H, W], `labels` int32 [B, N] below `config.task.num_classes`, `valid` bool [B, N].

    The vocabulary of training is encoded once, into `state["text"]`; that of prediction by `prepare`, with `config.task.words`
    (see `words_of`), and may be any list of names.
    """
    model = MasQClip(**model_fields(config, MasQClip), dtype=jnp.dtype(config.precision.compute))
    settings = config.task
    num_classes, side, context = settings.num_classes, model.clip["image_size"], model.clip["context_length"]
    embed_dim, merge = model.clip["embed_dim"], QueryMerge(**config.predict.get("merge", {}))

    def call(params, method, *args):
        return model.apply({"params": params}, *args, method=method)

    def init(rng):
        image, size, token_ids = jnp.zeros((1, 64, 64, 3)), jnp.full((1, 2), 64), jnp.zeros((1, context), jnp.int32)
        return model.init(rng, image, size, token_ids)["params"], {"text": jnp.zeros((num_classes + 1, embed_dim))}

    def begin(params, state, names):
        if len(names) != num_classes:
            raise ValueError(f"config.task.num_classes: found {num_classes}, expected {len(names)}, as the training data have")
        flat = flatten(params)
        # A mask token starts as the class token, and, if asked to, asks what that one asks.
        flat["mask_embedding"] = flat["clip/visual/position_embedding"][0]
        if settings.projections_from_clip:
            for path in [path for path in flat if "/attn/mask_" in path]:
                flat[path] = flat[path.replace("/attn/mask_", "/attn/")]
        params = unflatten(flat)
        return params, {**state, "text": prepare(params, names)["text"]}

    def loss(params, state, batch, rng, step, *, kind):
        del rng, step, kind
        found = call(params, "encode", batch["image"], batch["image_size"])
        targets = {name: batch[name] for name in ("masks", "labels", "valid")}
        assignment = assign_labels(
            found.mask_logits, targets, size=(side, side), threshold=settings.assign_threshold, background=num_classes
        )
        logits = class_logits(found.embeddings, state["text"])
        weights = class_weights(num_classes, settings.background_weight)
        assigned, right = assignment.assigned, jnp.argmax(logits, -1) == assignment.labels
        terms = {
            "class": Mean(*weighted_cross_entropy(logits, assignment.labels, weights), settings.class_weight),
            "assigned": Mean(jnp.sum(assigned, dtype=jnp.float32), jnp.float32(assigned.size)),
            "accuracy": Mean(jnp.sum(right & assigned, dtype=jnp.float32), jnp.sum(assigned, dtype=jnp.float32)),
        }
        return terms, state

    @jax.jit
    def encode_words(params, token_ids):
        return call(params, "encode_text", token_ids)

    def prepare(params, names, is_thing=None):
        words = tokenized(words_of(names, settings.words), context, config.predict.truncate)
        features = encode_words(params, _filled(words.token_ids))[: len(words.token_ids)]
        things = np.ones(len(names), bool) if is_thing is None else np.asarray(is_thing, bool)
        return {"text": class_embeddings(features, words.per_class), "is_thing": jnp.asarray(things)}

    def encode(params, state, batch):
        del state
        return call(params, "encode", batch["image"], batch["image_size"])

    def decode(params, state, features, ctx):
        del params, state
        logits = class_logits(features.embeddings, ctx["text"])
        objects = features.object_logits if settings.object_scores else None
        scores = jnp.exp(log_product_scores(logits, objects))
        return {"features": features, "class_scores": scores, "is_thing": ctx["is_thing"]}

    def predict(params, state, ctx, batch):
        found = decode(params, state, encode(params, state, batch), ctx)
        features = found.pop("features")
        return found | {"mask_logits": features.mask_logits, "embeddings": features.embeddings}

    @functools.partial(jax.jit, static_argnames=("canvas",))
    def at_original_size(outputs, original_size, threshold, *, canvas):
        del threshold  # of pixels; that of segments is config.predict.merge.object_threshold
        features = outputs["features"]
        sizes = features.image_size, original_size
        shapes = {"padded_size": features.padded_size, "canvas": canvas}
        return merge(outputs["class_scores"], features.mask_logits, outputs["is_thing"], *sizes, **shapes)

    def example_batch(batch_size, kind):
        del kind
        return example_masks(batch_size, settings.image_size, settings.max_targets)

    def example_predict(batch_size, num_names):
        text = jax.ShapeDtypeStruct((num_names + 1, embed_dim), jnp.float32)
        ctx = {"text": text, "is_thing": jax.ShapeDtypeStruct((num_names,), jnp.bool_)}
        batch = example_batch(batch_size, "train")
        return ctx, {name: batch[name] for name in ("image", "image_size")}

    return Task(
        name="masqclip",
        init=init,
        loss=loss,
        example_batch=example_batch,
        prepare=prepare,
        predict=predict,
        example_predict=example_predict,
        finalize=segment_results,
        reads=SEGMENTS,
        names_compete=True,
        capabilities={"begin": begin, "encode": encode, "decode": decode, "at_original_size": at_original_size},
    )


def _filled(token_ids, multiple=64):
    """Rows repeated up to a multiple, so that vocabularies of many lengths share a program."""
    return np.concatenate([token_ids, np.repeat(token_ids[-1:], -len(token_ids) % multiple, 0)])
