"""What a two-stage detector learns (Ren et al. 2015; He et al. 2017): a sample of its anchors, and a sample of its proposals.

Sums and counts are over the whole batch. How many regions are sampled follows from where proposals lie, which depends on
parameters, if not by a gradient: micro-batches are still divided by the batch's counts, which the model runs once more for.
"""

import dataclasses
from typing import NamedTuple

import jax
import jax.numpy as jnp

from jaxseg.losses.boxes import smooth_l1
from jaxseg.losses.classes import cross_entropy
from jaxseg.losses.masks import sigmoid_loss
from jaxseg.ops.boxes import REGION_WEIGHTS, encode_deltas, pairwise_iou
from jaxseg.ops.roi_masks import crop_masks
from jaxseg.ops.sampling import Draw
from jaxseg.typing import Array

Term = tuple[Array, Array]
POSITIVE, NEGATIVE, LEFT_OUT = 0, 1, 2


class Sample(NamedTuple):
    """Candidates drawn for a loss, positive ones first.

    Attributes:
        index: [..., S] int32 of the candidates, in range also where not valid.
        positive: [..., S] bool.
        valid: [..., S] bool: slots that hold a candidate, positive or negative.
    """

    index: Array
    positive: Array
    valid: Array


def overlaps(boxes: Array, targets: Array, valid: Array) -> Array:
    """IoU [B, N, T] of boxes [B, N, 4] with targets [B, T, 4]; -1 for targets that are not valid [B, T]."""
    return jnp.where(valid[:, None], pairwise_iou(boxes, targets), -1)


def judge(iou: Array, low: float, high: float, *, best_of_target: bool) -> tuple[Array, Array]:
    """Which candidates show an object.

    Args:
        iou: [B, N, T] of `overlaps`.
        low, high: below `low` with every target a candidate is negative, from `high` on positive; between them it is left out.
        best_of_target: whether the candidates that overlap a target most are positive too, however little that is.

    Returns:
        [B, N] int32, POSITIVE, NEGATIVE or LEFT_OUT, and [B, N] int32, the target that each overlaps most, the first of equals.
    """
    best = jnp.max(iou, -1, initial=-1)
    kind = jnp.where(best >= high, POSITIVE, jnp.where(best < low, NEGATIVE, LEFT_OUT))
    if best_of_target:
        # Equal up to rounding: a program may compute the same overlap twice, and anchors come in equal pairs.
        most = jnp.max(iou, -2, keepdims=True) * (1 - 1e-6)
        kind = jnp.where(jnp.any((iou >= most) & (iou > 0), -1), POSITIVE, kind)
    return kind.astype(jnp.int32), jnp.argmax(iou, -1).astype(jnp.int32)


def draw_sample(kind: Array, order: Array, num: int, positive_share: float) -> Sample:
    """At most `num` candidates of each image, of which at most that share is positive; negative ones fill up.

    Args:
        kind: [..., N] of `judge`.
        order: [..., N] random numbers; the least are taken.
    """
    _, _, index = jax.lax.sort((kind, order, jax.lax.broadcasted_iota(jnp.int32, kind.shape, kind.ndim - 1)), num_keys=2)
    there, rest = (jnp.sum(kind == which, -1, keepdims=True, dtype=jnp.int32) for which in (POSITIVE, NEGATIVE))
    num_positive = jnp.minimum(there, int(num * positive_share))
    num_negative = jnp.minimum(rest, num - num_positive)
    slot = jnp.arange(num).reshape((1,) * (kind.ndim - 1) + (num,))
    positive, valid = slot < num_positive, slot < num_positive + num_negative
    place = jnp.where(positive, slot, there + slot - num_positive)
    index = jnp.take_along_axis(index, jnp.minimum(place, kind.shape[-1] - 1), axis=-1)
    return Sample(index, positive, valid)


@dataclasses.dataclass(frozen=True)
class AnchorLoss:
    """Whether anchors hold an object, and where it is.

    Attributes:
        num, positive_share: of each image's sample.
        low, high: see `judge`.
    """

    num: int = 256
    positive_share: float = 0.5
    low: float = 0.3
    high: float = 0.7

    def __call__(self, logits: Array, deltas: Array, anchors: Array, boxes: Array, valid: Array, draw: Draw) -> dict[str, Term]:
        """`anchors/object` and `anchors/box`, (sum, count), both over `num` anchors of each image, as published.

        Draws "anchors" [B, N].

        Args:
            logits: [B, N]; deltas: [B, N, 4]; anchors: [N, 4] xyxy, all of them, also beyond the image.
            boxes: [B, T, 4] xyxy of the targets; valid: [B, T].
        """
        iou = overlaps(anchors[None], boxes, valid)
        kind, target = judge(iou, self.low, self.high, best_of_target=True)
        sample = draw_sample(kind, draw("anchors", kind.shape), self.num, self.positive_share)
        logits, target = (jnp.take_along_axis(x, sample.index, axis=1) for x in (logits, target))
        deltas = jnp.take_along_axis(deltas, sample.index[..., None], axis=1)
        wanted = encode_deltas(jnp.take_along_axis(boxes, target[..., None], axis=1), jnp.asarray(anchors)[sample.index])
        count = jnp.float32(len(logits) * self.num)
        objects = jnp.where(sample.valid, sigmoid_loss(logits, sample.positive), 0)
        shifts = jnp.where(sample.positive[..., None], smooth_l1(deltas, wanted), 0)
        return {"anchors/object": (jnp.sum(objects), count), "anchors/box": (jnp.sum(shifts), count)}


class Regions(NamedTuple):
    """Boxes that the heads are trained on, those that show an object first.

    Attributes:
        boxes: [B, S, 4] xyxy.
        targets: [B, S] int32, what each overlaps most.
        labels: [B, S] int32, K where it shows no object.
        positive: [B, S] bool; valid: [B, S] bool.
    """

    boxes: Array
    targets: Array
    labels: Array
    positive: Array
    valid: Array


@dataclasses.dataclass(frozen=True)
class RegionLoss:
    """The class of a region, its box, and its mask.

    Attributes:
        num, positive_share: of each image's sample.
        overlap: IoU with a target from which a region shows it.
    """

    num: int = 512
    positive_share: float = 0.25
    overlap: float = 0.5

    @property
    def num_positive(self) -> int:
        """Slots, the first ones of `Regions`, that may be positive."""
        return int(self.num * self.positive_share)

    def sample(self, proposals: Array, proposal_valid: Array, targets, num_classes: int, draw: Draw) -> Regions:
        """Draws "regions" [B, R + T]: of the proposals, and of the targets' own boxes behind them.

        Args:
            proposals: [B, R, 4] xyxy; proposal_valid: [B, R].
            targets: `boxes` [B, T, 4] xyxy, `labels` [B, T], `valid` [B, T].
        """
        boxes, there = targets["boxes"], targets["valid"]
        candidates = jnp.concatenate([proposals, boxes], 1)
        kind, target = judge(overlaps(candidates, boxes, there), self.overlap, self.overlap, best_of_target=False)
        kind = jnp.where(jnp.concatenate([proposal_valid, there], 1), kind, LEFT_OUT)
        sample = draw_sample(kind, draw("regions", kind.shape), self.num, self.positive_share)
        target = jnp.take_along_axis(target, sample.index, axis=1)
        labels = jnp.where(sample.positive, jnp.take_along_axis(targets["labels"], target, axis=1), num_classes)
        chosen = jnp.take_along_axis(candidates, sample.index[..., None], axis=1)
        return Regions(jax.lax.stop_gradient(chosen), target, labels.astype(jnp.int32), sample.positive, sample.valid)

    def box_terms(self, class_logits: Array, deltas: Array, regions: Regions, boxes: Array) -> dict[str, Term]:
        """`regions/class` and `regions/box`, (sum, count), both over all sampled regions, as published.

        Args:
            class_logits: [B, S, K + 1]; deltas: [B, S, 4] of each region's own class.
            boxes: [B, T, 4] xyxy of the targets.
        """
        count = jnp.sum(regions.valid, dtype=jnp.float32)
        classes = jnp.where(regions.valid, cross_entropy(class_logits, regions.labels), 0)
        wanted = encode_deltas(jnp.take_along_axis(boxes, regions.targets[..., None], axis=1), regions.boxes, REGION_WEIGHTS)
        shifts = jnp.where(regions.positive[..., None], smooth_l1(deltas, wanted), 0)
        return {"regions/class": (jnp.sum(classes), count), "regions/box": (jnp.sum(shifts), count)}

    def mask_terms(self, mask_logits: Array, regions: Regions, masks: Array) -> dict[str, Term]:
        """`regions/mask`, (sum, count): cross-entropy per pixel, over the regions that show an object.

        Args:
            mask_logits: [B, P, m, m] of each region's own class, of the first P = `num_positive` regions.
            masks: [B, T, H, W], 0 or 1, of the targets.
        """
        num = mask_logits.shape[1]
        wanted = crop_masks(masks, regions.targets[:, :num], regions.boxes[:, :num], mask_logits.shape[-1])
        positive = regions.positive[:, :num]
        losses = jnp.mean(sigmoid_loss(mask_logits, wanted), (-2, -1))
        return {"regions/mask": (jnp.sum(jnp.where(positive, losses, 0)), jnp.sum(positive, dtype=jnp.float32))}
