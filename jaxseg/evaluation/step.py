"""The compiled part of an evaluation: a batch of images and a vocabulary in, sums over the batch out."""

import math
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg import sharding
from jaxseg.metrics.evaluator import Collected, Counts, naming


class Contexts(NamedTuple):
    """An encoded vocabulary.

    Attributes:
        chunks: what `task.prepare` gives, or, for more names than are decoded at once, that of each chunk, stacked.
        num_chunks: 0 where nothing is stacked.
        num_names: without those that fill up the last chunk.
    """

    chunks: Any
    num_chunks: int
    num_names: int


def encode_names(task, params, vocabulary, chunk_size):
    """Encodes a vocabulary; in equal chunks where the system can decode an image more than once, and names do not compete."""
    names = vocabulary.names
    if task.prepare is None:
        return Contexts({}, 0, len(names))
    if len(names) <= chunk_size or "decode" not in task.capabilities or task.names_compete:
        # A system that needs no names still takes one: text towers do not take none.
        return Contexts(task.prepare(params, tuple(names) or ("",), vocabulary.is_thing or (True,)), 0, len(names))
    num_chunks = math.ceil(len(names) / chunk_size)
    chunk_size = math.ceil(len(names) / num_chunks)
    filled = (*names, *[names[-1]] * (num_chunks * chunk_size - len(names)))
    chunks = [task.prepare(params, filled[i : i + chunk_size]) for i in range(0, len(filled), chunk_size)]
    return Contexts(jax.tree.map(lambda *leaves: jnp.stack(leaves), *chunks), num_chunks, len(names))


def predict_names(task, params, state, contexts, batch, canvas, threshold):
    """Outputs of a system for every name: at original size in a canvas where it can, else those of `predict`.

    Args:
        contexts: of `encode_names`; an image is encoded once for all chunks.
        canvas: static (height, width), or None.
    """
    can = task.capabilities
    if "decode" in can:
        features = can["encode"](params, state, batch)

        def decode(chunk):
            return can["decode"](params, state, features, chunk)

        outputs = jax.lax.map(decode, contexts.chunks) if contexts.num_chunks else decode(contexts.chunks)
        if contexts.num_chunks:
            outputs = jax.tree.map(lambda x: _joined(x)[:, : contexts.num_names], outputs)
    else:
        outputs = task.predict(params, state, contexts.chunks, batch)
    if canvas is None:
        return outputs
    return outputs | can["at_original_size"](outputs, batch["original_size"], threshold, canvas=canvas)


def _joined(x):
    """[chunks, B, P, ...] -> [B, chunks * P, ...]."""
    x = jnp.moveaxis(x, 0, 1)
    return x.reshape(x.shape[0], -1, *x.shape[3:])


def likeliest(outputs, threshold):
    """[B, H, W] int16: the likeliest name, -1 where none is above the threshold; that of its segment where there are some."""
    if "panoptic_map" in outputs:
        classes = jnp.pad(outputs["panoptic_classes"], ((0, 0), (1, 0)), constant_values=-1)
        return jax.vmap(lambda classes, index: classes[index])(classes, outputs["panoptic_map"]).astype(jnp.int16)
    probabilities = outputs["probabilities"]
    best = jnp.argmax(probabilities, 1).astype(jnp.int16)
    return jnp.where(jnp.max(probabilities, 1) > threshold, best, jnp.int16(-1))


def make_step(task, evaluators, split, config, mesh, num_chunks, num_names, canvas):
    """The jitted `(params, state, chunks, batch) -> (sums, collected, prediction)`.

    `sums`: {evaluator: its counts}, on every device; `collected`: the outputs that `Collected` evaluators read, split like
    the batch; `prediction`: {"label_map": [B, H, W]} for pictures, or {}.
    """
    threshold = config.predict.threshold
    wanted = sorted({name for e in evaluators.values() if isinstance(e, Collected) for name in e.outputs})

    def step(params, state, chunks, batch):
        contexts = Contexts(chunks, num_chunks, num_names)
        outputs = predict_names(task, params, state, contexts, batch, canvas, threshold)
        sums = {}
        for text, evaluator in evaluators.items():
            with naming(text, split):
                _check_outputs(evaluator, outputs, task.name)
                if isinstance(evaluator, Counts):
                    sums[text] = evaluator.count(outputs, batch)
        collected = {name: outputs[name] for name in wanted}
        return sums, collected, {"label_map": likeliest(outputs, threshold)} if canvas else {}

    shared, split_like_batch = sharding.replicated(mesh), sharding.batch_sharding(mesh)
    return jax.jit(step, out_shardings=(shared, split_like_batch, split_like_batch))


def _check_outputs(evaluator, outputs, system):
    missing = [name for name in evaluator.outputs if name not in outputs]
    if missing:
        raise ValueError(f"system {system!r} gives no {missing[0]}, only {', '.join(sorted(outputs))}")


def check_fields(evaluators, split, batch):
    """Whether a batch has what its evaluators read.

    Raises:
        ValueError: one line that names evaluator, split and field.
    """
    for text, evaluator in evaluators.items():
        missing = [name for name in evaluator.fields if name not in batch]
        if missing:
            found = f"the batch has no {missing[0]}, only {', '.join(sorted(batch))}"
            raise ValueError(f"evaluator {text} on {split}: {found}; config.data.eval.{split}.preprocess must keep it")


def device_batch(batch, mesh):
    """The numeric fields of this process's part of a batch as global arrays, padded so that every device has as much.

    Padding repeats the last example with `example_mask` False.
    """
    batch = {name: np.asarray(value) for name, value in batch.items()}
    batch = {name: value for name, value in batch.items() if value.dtype.kind in "biuf"}
    shards = max(1, sharding.num_batch_shards(mesh) // jax.process_count())
    missing = -len(batch["example_mask"]) % shards
    if missing:
        batch = {name: np.concatenate([x, np.repeat(x[-1:], missing, 0)]) for name, x in batch.items()}
        batch["example_mask"][-missing:] = False
    return sharding.global_batch(batch, mesh)


def local_rows(arrays, num_rows, mesh):
    """This process's rows of arrays that are split like the batch, as numpy."""
    if jax.process_count() > 1:
        from jax.experimental import multihost_utils

        spec = sharding.batch_sharding(mesh).spec
        arrays = {n: multihost_utils.global_array_to_host_local_array(x, mesh, spec) for n, x in arrays.items()}
    return {name: np.asarray(x)[:num_rows] for name, x in arrays.items()}
