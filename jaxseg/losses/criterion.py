"""The set criterion of DETR's family: predictions of every decoder layer against matched objects.

A criterion is a tuple of parts (classes, masks, boxes), each with its matching costs and its losses, and their weights:
MaskFormer, Mask2Former and MaskDINO differ by these fields. A part is a frozen record with

    costs(outputs, targets, draw) -> {name: [B, Q, T]}
    losses(outputs, targets, pairs, draw) -> {name: (sum, count)}

where outputs hold `class_logits` [B, Q, K + 1] (the last is "no object") and `mask_logits` [B, Q, h, w]; targets hold `labels`
[B, T] int, `masks` [B, T, H, W] in [0, 1] and `valid` [B, T] bool; and `draw(name, shape)` gives uniform numbers. Sums and
counts are over the whole batch, and counts do not depend on predictions, so that both add up over micro-batches.
"""

import dataclasses
from collections.abc import Callable, Mapping
from typing import Any

import jax
import jax.numpy as jnp

from jaxseg.losses.classes import class_weights, cross_entropy, softmax_cost
from jaxseg.losses.masks import Focal, dice_loss, mask_loss, pairwise_dice_cost, pairwise_mask_cost
from jaxseg.ops.masks import flat_pixels
from jaxseg.ops.matching import Pairs, match
from jaxseg.ops.resize import resize
from jaxseg.ops.sampling import Draw, sample_points, uncertain_points
from jaxseg.typing import Array

Arrays = Mapping[str, Array]
Term = tuple[Array, Array]


@dataclasses.dataclass(frozen=True)
class SoftmaxClasses:
    """One class of K for each query, or none: weighted cross-entropy over all queries.

    Attributes:
        no_object_weight: of the last class, against 1 for the others.
    """

    no_object_weight: float = 0.1

    def costs(self, outputs: Arrays, targets: Arrays, draw: Draw) -> Arrays:
        return {"class": softmax_cost(outputs["class_logits"], targets["labels"])}

    def losses(self, outputs: Arrays, targets: Arrays, pairs: Pairs, draw: Draw) -> dict[str, Term]:
        logits = outputs["class_logits"]
        num_queries, num_classes = logits.shape[-2], logits.shape[-1] - 1
        labels = pairs.to_queries(_at(targets["labels"], pairs.targets), num_queries, num_classes)
        weights = class_weights(num_classes, self.no_object_weight)[labels]
        # The sum of weights, written so that it needs no prediction.
        num_matched = jnp.sum(pairs.valid, dtype=jnp.float32)
        count = num_matched + self.no_object_weight * (len(logits) * num_queries - num_matched)
        return {"class": (jnp.sum(weights * cross_entropy(logits, labels)), count)}


@dataclasses.dataclass(frozen=True)
class PointMasks:
    """Masks compared at points (Mask2Former, section 3.3).

    For matching, one set of random points for each image ("matcher" [B, P, 2]); for the losses, points for each pair, most of
    them where its prediction is undecided ("oversample", "random", of the slots of `Pairs`).

    Attributes:
        num_points: P.
        oversample_ratio, importance_ratio: see `uncertain_points`.
        cost_focal, loss_focal: None for cross-entropy, or the focal loss's (alpha, gamma).
    """

    num_points: int = 12544
    oversample_ratio: float = 3.0
    importance_ratio: float = 0.75
    cost_focal: Focal = None
    loss_focal: Focal = None

    def costs(self, outputs: Arrays, targets: Arrays, draw: Draw) -> Arrays:
        points = draw("matcher", (len(outputs["mask_logits"]), self.num_points, 2))
        logits, target = (sample_points(x, points) for x in (outputs["mask_logits"], targets["masks"]))
        return {"mask": pairwise_mask_cost(logits, target, self.cost_focal), "dice": pairwise_dice_cost(logits, target)}

    def losses(self, outputs: Arrays, targets: Arrays, pairs: Pairs, draw: Draw) -> dict[str, Term]:
        logits, target = _at(outputs["mask_logits"], pairs.queries), _at(targets["masks"], pairs.targets)
        ratios = {"oversample_ratio": self.oversample_ratio, "importance_ratio": self.importance_ratio}
        points = uncertain_points(logits, self.num_points, draw, **ratios)
        logits, target = (sample_points(x[:, :, None], points)[:, :, 0] for x in (logits, target))
        return _mask_terms(logits, target, targets, pairs, self.loss_focal)


@dataclasses.dataclass(frozen=True)
class DenseMasks:
    """Masks compared at every pixel (MaskFormer): matched at the predictions' size, trained at the targets'.

    Attributes:
        focal: (alpha, gamma), or None for cross-entropy.
    """

    focal: Focal = (0.25, 2.0)

    def costs(self, outputs: Arrays, targets: Arrays, draw: Draw) -> Arrays:
        logits = outputs["mask_logits"]
        logits, target = flat_pixels(logits), flat_pixels(resize(targets["masks"], logits.shape[-2:], method="nearest"))
        return {"mask": pairwise_mask_cost(logits, target, self.focal), "dice": pairwise_dice_cost(logits, target)}

    def losses(self, outputs: Arrays, targets: Arrays, pairs: Pairs, draw: Draw) -> dict[str, Term]:
        logits, target = _at(outputs["mask_logits"], pairs.queries), _at(targets["masks"], pairs.targets)
        logits = resize(logits.astype(jnp.float32), target.shape[-2:])
        return _mask_terms(flat_pixels(logits), flat_pixels(target), targets, pairs, self.focal)


def _mask_terms(logits, target, targets, pairs, focal):
    """Losses of matched masks [B, N, P], over the number of targets in the batch."""
    count = jnp.sum(targets["valid"], dtype=jnp.float32)
    losses = {"mask": mask_loss(logits, target, focal), "dice": dice_loss(logits, target)}
    return {name: (jnp.sum(jnp.where(pairs.valid, loss, 0)), count) for name, loss in losses.items()}


def _at(x, index):
    """[B, M, ...], [B, N] -> [B, N, ...]."""
    return jax.vmap(lambda x, index: x.at[index].get(mode="clip"))(x, index)


@dataclasses.dataclass(frozen=True)
class SetCriterion:
    """Matching and losses of all layers.

    Attributes:
        parts: see the module; their names are distinct.
        cost_weights: {name: weight} of matching costs; a cost without a weight is an error, one of weight 0 is left out.
        loss_weights: {name: weight} of losses, likewise.
    """

    parts: tuple[Any, ...]
    cost_weights: Mapping[str, float]
    loss_weights: Mapping[str, float]

    def costs(self, outputs: Arrays, targets: Arrays, draw: Draw) -> tuple[Array, dict[str, Array]]:
        """The weighted total [B, Q, T] and its parts, unweighted; columns of targets that are not valid have no meaning."""
        outputs = jax.lax.stop_gradient(dict(outputs))
        named = {name: cost for part in self.parts for name, cost in part.costs(outputs, targets, draw).items()}
        weights = _weights("cost_weights", self.cost_weights, named)
        return sum(weights[name] * cost for name, cost in named.items() if weights[name]), named

    def match(self, layers: Mapping[str, Arrays], targets: Arrays, draw: Draw) -> dict[str, Pairs]:
        """The pairs of each layer; all layers have the same number of queries, so that one search serves them."""
        costs = [self.costs(outputs, targets, _below(draw, layer))[0] for layer, outputs in layers.items()]
        valid = jnp.broadcast_to(targets["valid"][None], (len(costs), *targets["valid"].shape))
        pairs = match(jnp.stack(costs), valid)
        return {layer: jax.tree.map(lambda x, i=i: x[i], pairs) for i, layer in enumerate(layers)}

    def losses(self, layers: Mapping[str, Arrays], targets: Arrays, pairs: Mapping[str, Pairs], draw: Draw):
        """{"layer/name": (sum, count, weight)} for pairs that are given, as denoising queries have them."""
        terms = {}
        for layer, outputs in layers.items():
            draw_below = _below(draw, layer)
            named = [part.losses(outputs, targets, pairs[layer], draw_below) for part in self.parts]
            named = {name: term for part in named for name, term in part.items()}
            weights = _weights("loss_weights", self.loss_weights, named)
            terms |= {f"{layer}/{name}": (*term, weights[name]) for name, term in named.items()}
        return terms

    def __call__(self, layers: Mapping[str, Arrays], targets: Arrays, draw: Draw):
        """Matches each layer by itself and compares what was matched.

        Args:
            layers: {"final": outputs, "aux_0": outputs, ...}; draws are named "final/matcher", ...

        Returns:
            {"final/class": (sum, count, weight), ...}, in the order of `task.Mean`, and the pairs of each layer. The term
            `finite_costs`, of weight 0, is the share of matchings whose costs were all finite.
        """
        pairs = self.match(layers, targets, draw)
        finite = jnp.stack([x.finite for x in pairs.values()])
        terms = self.losses(layers, targets, pairs, draw)
        return {**terms, "finite_costs": (jnp.sum(finite, dtype=jnp.float32), jnp.float32(finite.size), 0.0)}, pairs


def _below(draw, layer) -> Callable[[str, tuple[int, ...]], Array]:
    return lambda name, shape: draw(f"{layer}/{name}", shape)


def _weights(field, weights, named):
    missing, unknown = sorted(set(named) - set(weights)), sorted(set(weights) - set(named))
    if missing or unknown:
        raise ValueError(f"{field}: found {sorted(weights)}, expected {sorted(named)}, which the criterion's parts compute")
    return weights
