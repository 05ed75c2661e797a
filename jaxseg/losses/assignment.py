"""Labels of predicted masks from the annotated ones that they cover, many to one (MasQCLIP, section 3.3: MasQ-tuning)."""

from collections.abc import Mapping
from typing import NamedTuple

import jax.numpy as jnp

from jaxseg.ops.masks import flat_pixels, pairwise_dice
from jaxseg.ops.resize import resize
from jaxseg.typing import Array


class Assignment(NamedTuple):
    """What each query shows.

    Attributes:
        labels: [B, Q] int32: the class of its target, or the background's.
        targets: [B, Q] int32: its target, 0 where it has none.
        assigned: [B, Q] bool: whether it has one.
        costs: [B, Q, T] float32: dice losses, infinite for targets that are not valid.
    """

    labels: Array
    targets: Array
    assigned: Array
    costs: Array


def assign_labels(
    mask_logits: Array, targets: Mapping[str, Array], *, size: tuple[int, int], threshold: float, background: int
) -> Assignment:
    """Gives each query the annotated mask of least dice loss, the first of equal ones, if that is below a threshold.

    Args:
        mask_logits: [B, Q, h, w]; compared where positive, resized bilinearly.
        targets: `masks` [B, T, H, W], 0 or 1, resized to nearest pixels; `labels` [B, T]; `valid` [B, T] bool.
        size: (height, width) at which masks are compared.
        threshold: of 1 - (2 sum ab + 1) / (sum a + sum b + 1).
        background: label of queries without a target.
    """
    found = flat_pixels(resize(mask_logits.astype(jnp.float32), size) > 0)
    truth = flat_pixels(resize(targets["masks"], size, method="nearest"))
    costs = jnp.where(targets["valid"][:, None], 1 - pairwise_dice(found, truth), jnp.inf)
    if not costs.shape[-1]:
        none = jnp.zeros(costs.shape[:2], jnp.int32)
        return Assignment(jnp.full_like(none, background), none, none.astype(bool), costs)
    assigned = jnp.min(costs, -1) < threshold
    chosen = jnp.where(assigned, jnp.argmin(costs, -1), 0).astype(jnp.int32)
    labels = jnp.where(assigned, jnp.take_along_axis(targets["labels"], chosen, axis=-1), background)
    return Assignment(labels.astype(jnp.int32), chosen, assigned, costs)
