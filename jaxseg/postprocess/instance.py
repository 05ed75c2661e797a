"""Instances from queries: the likeliest pairs of query and class (Cheng et al. 2022, Mask2Former's `instance_inference`)."""

import jax
import jax.numpy as jnp

from jaxseg.ops.masks import mask_boxes
from jaxseg.typing import Array


def instances(
    class_scores: Array,
    mask_logits: Array,
    num: int,
    *,
    is_thing: Array | None = None,
    query_valid: Array | None = None,
    mask_quality: bool = True,
) -> dict[str, Array]:
    """Instances of one image; `jax.vmap` it over a batch.

    Args:
        class_scores: [Q, K] without "no object".
        mask_logits: [Q, H, W] at the size of the result; zero, as outside of an image in its canvas, is background.
        num: N, instances at most; fewer where there are fewer pairs.
        is_thing: [K] bool: of the N likeliest pairs only things are kept (where panoptic segmentation is asked for too).
        query_valid: [Q] bool, False for queries that others have suppressed, or that are padding.
        mask_quality: whether the class score is multiplied with the mean probability inside the mask.

    Returns:
        By falling score, what is not valid last: `instance_valid` [N] bool, `instance_scores` [N] float32,
        `instance_classes` [N] and `instance_queries` [N] int32, `instance_masks` [N, H, W] bool, `instance_boxes` [N, 4]
        float32 around the masks (x0, y0, x1, y1 in pixels, x1 and y1 exclusive; zeros where a mask is empty).
    """
    scores, queries, classes, valid = likeliest_pairs(class_scores, num, query_valid)
    if is_thing is not None:
        valid = valid & jnp.asarray(is_thing)[classes]
    masks = mask_logits > 0
    if mask_quality:
        scores = scores * mask_scores(mask_logits)[queries]
    scores = jnp.where(valid, scores, 0)
    order = jnp.argsort(jnp.where(valid, -scores, jnp.inf))  # stable
    scores, queries, classes, valid = (x[order] for x in (scores, queries, classes, valid))
    masks = masks[queries] & valid[:, None, None]
    return {
        "instance_valid": valid,
        "instance_scores": scores,
        "instance_classes": classes,
        "instance_queries": queries,
        "instance_masks": masks,
        "instance_boxes": mask_boxes(masks).astype(jnp.float32),
    }


def likeliest_pairs(class_scores, num, query_valid=None):
    """(scores, queries, classes, valid), [N] each, of the pairs of largest score by falling score, the first of equals first.

    Arguments as of `instances`; a query may occur with several classes.
    """
    scores = class_scores.astype(jnp.float32)
    if query_valid is not None:
        scores = jnp.where(query_valid[:, None], scores, -jnp.inf)
    values, index = jax.lax.top_k(scores.reshape(-1), min(num, scores.size))
    index, num_classes = index.astype(jnp.int32), scores.shape[1]
    return values, index // num_classes, index % num_classes, values > -jnp.inf


def mask_scores(mask_logits: Array) -> Array:
    """[..., H, W] -> [...] the mean probability inside the mask (logit > 0), 0 where it is empty."""
    logits = mask_logits.astype(jnp.float32)
    inside = logits > 0
    total = jnp.sum(jnp.where(inside, jax.nn.sigmoid(logits), 0), (-2, -1))
    return total / (jnp.sum(inside, (-2, -1)) + 1e-6)
