"""A teacher's masks as further targets of a student (MasQCLIP, section 3.2: progressive distillation)."""

import dataclasses
from collections.abc import Mapping
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.ops.masks import pairwise_dice
from jaxseg.ops.nms import suppress
from jaxseg.ops.sampling import Draw, sample_points
from jaxseg.typing import Array


class DistilledTargets(NamedTuple):
    """What the student learns, and how it came about.

    Attributes:
        targets: `masks` [B, M, H, W], `labels` [B, M], `valid` [B, M]: annotated ones, then the teacher's by falling score.
        dice: [B, Q, T] of the teacher's masks with the annotated ones, where both are used.
        candidate: [B, Q] bool: confident, and unlike every annotated mask.
        kept: [B, Q] bool: candidates that suppression left.
        order: [B, Q] the teacher's masks by falling score, equal scores as they came.
    """

    targets: dict[str, Array]
    dice: Array
    candidate: Array
    kept: Array
    order: Array


@dataclasses.dataclass(frozen=True)
class Distillation:
    """Which of a teacher's masks become targets.

    Attributes:
        score_threshold: below or at it a mask is dropped.
        dice_threshold: from this dice on with an annotated mask, or with a better one of the teacher, it is dropped.
        num_points: at which masks are compared.
        max_targets: slots for targets; None: one for each annotation and each query.
    """

    score_threshold: float = 0.8
    dice_threshold: float = 0.1
    num_points: int = 12544
    max_targets: int | None = None

    def __call__(self, scores: Array, masks: Array, targets: Mapping[str, Array], draw: Draw) -> DistilledTargets:
        """Targets of one class, 0, whose padding is marked in `valid`.

        Draws "gt_filter" and "nms", [B, P, 2] each.

        Args:
            scores: [B, Q] of the teacher.
            masks: [B, Q, H, W], 0 or 1.
            targets: `masks` [B, T, H, W], 0 or 1, and `valid` [B, T]. Where there are more than `max_targets` in all, the
                last of the teacher's are left out first.
        """
        shape = (len(scores), self.num_points, 2)
        filter_points, nms_points = draw("gt_filter", shape), draw("nms", shape)
        dice = pairwise_dice(sample_points(masks, filter_points), sample_points(targets["masks"], filter_points))
        known = jnp.max(jnp.where(targets["valid"][:, None], dice, 0), -1, initial=0)
        candidate = (scores > self.score_threshold) & (known < self.dice_threshold)
        order = jnp.argsort(-scores, axis=-1)
        samples = sample_points(masks, nms_points)
        kept = jax.vmap(self._suppress)(order, candidate, pairwise_dice(samples, samples))
        return DistilledTargets(self._join(masks, targets, order, kept), dice, candidate, kept, order)

    def _suppress(self, order, candidate, dice):
        """[Q] bool: each candidate in order stays unless it resembles one that stayed."""
        kept = suppress(dice[order][:, order] >= self.dice_threshold, candidate[order])
        return jnp.zeros_like(candidate).at[order].set(kept)

    def _join(self, masks, targets, order, kept):
        valid = jnp.concatenate([targets["valid"], jnp.take_along_axis(kept, order, axis=-1)], axis=-1)
        num_targets = targets["valid"].shape[-1]
        annotated = jnp.broadcast_to(jnp.arange(num_targets)[None], targets["valid"].shape)
        index = jnp.concatenate([annotated, num_targets + order], axis=-1)
        first = jnp.argsort(~valid, axis=-1)[:, : self.max_targets]  # stable: as they were, valid ones first
        valid, index = (jnp.take_along_axis(x, first, axis=-1) for x in (valid, index))
        both = jnp.concatenate([targets["masks"], masks.astype(targets["masks"].dtype)], axis=1)
        masks = jax.vmap(lambda masks, index: masks.at[index].get(mode="clip"))(both, index)
        return {"masks": masks, "labels": jnp.zeros(valid.shape, jnp.int32), "valid": valid}
