"""The contract between a system and the programs: a `Task` is a frozen record of pure functions.

One train loop, one evaluation loop, one predictor, one planner and one exporter serve every system through this
record; they never ask which system it is. What only some systems can do is a *capability*, looked up by name.
"""

import dataclasses
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.typing import Array, Batch, Params, PyTree, State


class Mean(NamedTuple):
    """One term of a loss, or a metric of a train step, as a ratio that adds up over micro-batches.

    The train step minimises the sum over terms of `weight * sum / count`; terms of weight 0 are only reported. The
    count of a weighted term must not depend on parameters, so that accumulation can divide by the batch's.
    """

    sum: Array
    count: Array
    weight: float = 0.0


@dataclasses.dataclass(frozen=True)
class Task:
    """What a system gives to the programs.

    Attributes:
        name: the system's name.
        init: `(rng) -> (params, state)`; pure, so that it can be traced for shapes.
        loss: `(params, state, batch, rng, step, *, kind) -> (terms, state)`; terms: a dict of `Mean`; `kind` is static.
        example_batch: `(batch_size, kind) -> batch` of `jax.ShapeDtypeStruct`, the exact shapes of a train batch.
        kinds: the static kinds of train batch; one jitted step each.
        accumulates: whether the loss is a sum over examples (not where examples interact, as in contrastive training).
        prepare: `(params, names, is_thing=None) -> ctx`: the vocabulary, encoded once; `is_thing` [K] says which names are
            countable (None: all).
        predict: `(params, state, ctx, batch) -> outputs`, jittable: padded arrays and their validity.
        example_predict: `(batch_size, num_names) -> (ctx, batch)` of `jax.ShapeDtypeStruct`, the inputs of `predict`.
        finalize: `(outputs, metas, names) -> [Result]`, on the host: ragged, at original size.
        reads: the outputs of `at_original_size` that `finalize` reads.
        names_compete: whether a name's outputs depend on the other names (a softmax over them): a vocabulary is then never cut
            into chunks or filled up.
        capabilities: further functions by name, for programs and benchmarks that ask for them. `replay`: `(params, state,
            inputs) -> outputs` recomputes recorded activations of the published code by its names, for conversion. `begin`:
            `(params, state, names) -> (params, state)` completes what training starts from, once, after `init_from`.
            `released`: `(params) -> params` leaves out what only training needs, for files of the original layout.
    """

    name: str
    init: Callable[[Array], tuple[Params, State]]
    loss: Callable[..., tuple[dict[str, Mean], State]]
    example_batch: Callable[[int, str], Batch]
    kinds: tuple[str, ...] = ("train",)
    accumulates: bool = True
    prepare: Callable[[Params, Sequence[str]], PyTree] | None = None
    predict: Callable[[Params, State, PyTree, Batch], dict[str, Array]] | None = None
    example_predict: Callable[[int, int], tuple[PyTree, Batch]] | None = None
    finalize: Callable[..., list[Any]] | None = None
    reads: tuple[str, ...] = ("masks", "scores")
    names_compete: bool = False
    capabilities: Mapping[str, Callable[..., Any]] = dataclasses.field(default_factory=dict)


def closed_vocabulary(names, is_thing, num_classes, class_agnostic=False) -> Array:
    """What `Task.prepare` makes of names where the classes are the checkpoint's: [num_classes] bool, which are things.

    Args:
        names: of the classes, in the checkpoint's order.
        is_thing: [num_classes] bool, or None: all are.
        class_agnostic: there is one class, an object. A data set comes with what is a thing, and all of its classes are
            objects then; a person, who does not say it, asks for the one.

    Raises:
        ValueError: another number of names than there are classes.
    """
    if class_agnostic:
        if is_thing is None and len(names) != 1:
            raise ValueError(f"names: found {len(names)}, expected one, such as 'object': this model knows no classes")
        return jnp.ones(1, bool)
    if len(names) != num_classes:
        raise ValueError(f"names: found {len(names)}, expected the {num_classes} of this checkpoint's classes")
    return jnp.ones(num_classes, bool) if is_thing is None else jnp.asarray(is_thing, bool)


def example_masks(batch_size, image_size, num_masks) -> Batch:
    """What `Task.example_batch` gives where images come with annotated masks, as the op `target_masks` makes them."""
    slots = (batch_size, num_masks)
    return {
        "image": jax.ShapeDtypeStruct((batch_size, *image_size, 3), jnp.uint8),
        "image_size": jax.ShapeDtypeStruct((batch_size, 2), jnp.int32),
        "masks": jax.ShapeDtypeStruct((*slots, *image_size), jnp.uint8),
        "labels": jax.ShapeDtypeStruct(slots, jnp.int32),
        "valid": jax.ShapeDtypeStruct(slots, jnp.bool_),
    }
