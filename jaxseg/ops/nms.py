"""Greedy suppression inside of a compiled program: of things that resemble each other, the best stays."""

import functools
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.ops.boxes import pairwise_iou
from jaxseg.typing import Array


class Kept(NamedTuple):
    """What suppression left.

    Attributes:
        order: [..., N] int32: candidates by falling score, equal scores as they came, those that are not valid last.
        keep: [..., N] bool, in that order.
    """

    order: Array
    keep: Array

    def first(self, num: int) -> tuple[Array, Array]:
        """The best `num`: which candidates [..., min(num, N)] int32, and whether each slot holds one."""
        slots = jnp.argsort(~self.keep, axis=-1)[..., :num]  # stable
        return tuple(jnp.take_along_axis(x, slots, axis=-1) for x in self)


def suppress(similar: Array, candidate: Array) -> Array:
    """Each candidate in order stays unless it is similar to an earlier one that stayed.

    A candidate's fate follows from those before it. Starting from all, they are decided anew at once until nothing changes: as
    many rounds as the longest chain of candidates that decide each other, which is short, instead of one for each candidate.

    Args:
        similar: [N, N] bool; only pairs with an earlier column count.
        candidate: [N] bool, best first.

    Returns:
        [N] bool.
    """
    earlier = jnp.tril(similar, -1)

    def decide(state):
        kept, _ = state
        decided = candidate & ~jnp.any(earlier & kept[None], -1)
        return decided, jnp.any(decided != kept)

    return jax.lax.while_loop(lambda state: state[1], decide, (candidate, jnp.any(candidate)))[0]


def nms(boxes: Array, scores: Array, valid: Array, threshold: float, groups: Array | None = None) -> Kept:
    """Non-maximum suppression: a box that overlaps a better one that stayed by an IoU above `threshold` goes.

    The result is torchvision's `nms`, and its `batched_nms` with groups: boxes of different groups are not compared, where
    torchvision moves the groups apart, at the cost of the coordinates' last digits.

    Args:
        boxes: [..., N, 4] xyxy.
        scores: [..., N]; a score that is not a number is not valid.
        valid: [..., N] bool.
        groups: [..., N] integers, such as classes or levels.
    """
    groups = jnp.zeros(scores.shape, jnp.int32) if groups is None else groups
    function = functools.partial(_nms, threshold=threshold)
    for _ in range(scores.ndim - 1):
        function = jax.vmap(function)
    return function(*jax.lax.stop_gradient((boxes, scores, valid, groups)))


def _nms(boxes, scores, valid, groups, threshold):
    valid = valid & ~jnp.isnan(scores)
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf)).astype(jnp.int32)  # stable
    boxes, groups, valid = (x[order] for x in (boxes, groups, valid))
    similar = (pairwise_iou(boxes, boxes) > threshold) & (groups[:, None] == groups[None])
    return Kept(order, suppress(similar, valid))
