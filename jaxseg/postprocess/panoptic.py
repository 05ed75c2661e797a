"""Panoptic segmentation from queries: each pixel to one segment (Cheng et al. 2022, Mask2Former's `panoptic_inference`).

The published loop over queries is a handful of reductions here: a query's fate depends on earlier ones only where stuff of
the same class is merged, and that is the first valid query of its class.
"""

import dataclasses

import jax.numpy as jnp

from jaxseg.typing import Array

_HALF = 0.5  # probability from which a pixel belongs to a mask


@dataclasses.dataclass(frozen=True)
class SegmentThresholds:
    """What makes a segment; of `config.predict.merge`.

    Attributes:
        object_threshold: class score from which an object is a segment.
        overlap_threshold: share of its own mask that a segment must hold.
    """

    object_threshold: float = 0.8
    overlap_threshold: float = 0.8

    def __post_init__(self):
        for name in ("object_threshold", "overlap_threshold"):
            value = getattr(self, name)
            if not 0 <= value <= 1:
                raise ValueError(f"config.predict.merge.{name}: found {value}, expected 0 to 1")


def panoptic_segments(
    class_scores: Array,
    mask_probabilities: Array,
    is_thing: Array,
    *,
    object_threshold: float,
    overlap_threshold: float,
    query_valid: Array | None = None,
    inside: Array | None = None,
) -> dict[str, Array]:
    """Segments of one image; `jax.vmap` it over a batch.

    A query is kept where its best class scores above `object_threshold` and is not "no object". Every pixel goes to the kept
    query of largest score times probability (the first of equals), and stays with it where that probability is at least 0.5. A
    kept query is a segment where it has pixels and holds at least `overlap_threshold` of its own mask; stuff of one class is
    one segment.

    Args:
        class_scores: [Q, K], or [Q, K + 1] with "no object" as the last column.
        mask_probabilities: [Q, H, W] in [0, 1].
        is_thing: [K] bool.
        query_valid: [Q] bool, False for queries that others have suppressed, or that are padding.
        inside: [H, W] bool, False outside of the image in a larger canvas.

    Returns:
        `panoptic_map` [H, W] int32: 0 = no segment, i + 1 = row i of the table, whose rows are in the order of queries:
        `panoptic_valid` [Q] bool, `panoptic_classes` [Q] int32 (-1 where not valid), `panoptic_is_thing` [Q] bool,
        `panoptic_scores` [Q] float32 of the segment's first query, `panoptic_areas` [Q] int32 pixels.
    """
    num_queries, num_classes = len(class_scores), len(is_thing)
    probabilities = mask_probabilities.astype(jnp.float32)
    scores, labels = jnp.max(class_scores, -1).astype(jnp.float32), jnp.argmax(class_scores, -1).astype(jnp.int32)
    kept = (scores > object_threshold) & (labels < num_classes)
    kept = kept if query_valid is None else kept & query_valid
    labels = jnp.minimum(labels, num_classes - 1)

    winner = jnp.argmax(jnp.where(kept[:, None, None], scores[:, None, None] * probabilities, -1.0), 0)
    taken = kept[winner] if inside is None else kept[winner] & inside
    masks = probabilities >= _HALF
    masks = masks if inside is None else masks & inside[None]
    won = (winner[None] == jnp.arange(num_queries)[:, None, None]) & taken[None]
    area, original, final = (jnp.sum(x, (1, 2), dtype=jnp.int32) for x in (won, masks, won & masks))
    share = area.astype(jnp.float32) / jnp.maximum(original, 1)
    valid = (area > 0) & (original > 0) & (final > 0) & (share >= overlap_threshold)

    thing = jnp.asarray(is_thing)[labels]
    segment, starts = _numbered(labels, valid, thing)
    hit = taken & (jnp.take_along_axis(probabilities, winner[None], 0)[0] >= _HALF)
    rows = jnp.where(starts, segment - 1, num_queries)  # beyond the table: dropped
    table = {
        "panoptic_valid": jnp.zeros(num_queries, bool).at[rows].set(starts, mode="drop"),
        "panoptic_classes": jnp.full(num_queries, -1, jnp.int32).at[rows].set(labels, mode="drop"),
        "panoptic_is_thing": jnp.zeros(num_queries, bool).at[rows].set(thing, mode="drop"),
        "panoptic_scores": jnp.zeros(num_queries).at[rows].set(scores, mode="drop"),
        "panoptic_areas": jnp.zeros(num_queries + 1, jnp.int32).at[segment].add(jnp.where(valid, final, 0))[1:],
    }
    return {"panoptic_map": jnp.where(hit, segment[winner], 0), **table}


def _numbered(labels, valid, thing):
    """[Q] the segment of each query, 0 = none, and [Q] bool, whether it is the first of its segment."""
    index = jnp.arange(len(labels))
    alike = (labels[:, None] == labels[None]) & valid[None] & ~thing[:, None]
    first = jnp.where(thing, index, jnp.argmax(alike, -1))
    starts = valid & (first == index)
    segment = jnp.cumsum(starts, dtype=jnp.int32)[first]
    return jnp.where(valid, segment, 0), starts
