"""Masks of prompts at a threshold: IoU over (image, present name), false positives on absent names."""

import jax
import jax.numpy as jnp

from jaxseg.metrics.evaluator import Counts, register
from jaxseg.metrics.groups import as_baseline, by_group, check_names, ratio
from jaxseg.typing import Array

LARGE = 0.01  # share of an image's labelled pixels above which a false positive is not a speck


@register("prompt_iou")
def prompt_iou(vocabulary, threshold=0.5):
    """Every name of the vocabulary asked of every image, at original size; void pixels are left out.

    A name is present in an image where at least one pixel has its label, absent elsewhere; images without any labelled
    pixel do not count. Metrics (`@0.5`: the threshold), each also per group (`/things`, `/stuff`, `/<group>`):

    - `prompt_iou@0.5`: mean over pairs of an image and a present name of the IoU of mask and truth.
    - `foreground_iou@0.5`: intersections summed over the same pairs, over their summed unions.
    - `false_positive@0.5`: share of the pairs of an image and an absent name with any pixel above the threshold;
      `false_positive_large@0.5`: with more than 1 % of the labelled pixels above it.
    - `present_pairs@0.5`, `absent_pairs@0.5`: how many pairs there were.

    `..._baseline` is the answer "everything is foreground" for the first three.
    """
    check_names(vocabulary)
    if isinstance(threshold, bool) or not isinstance(threshold, int | float) or not 0 <= threshold < 1:
        raise ValueError(f"threshold: found {threshold!r}, expected a number in [0, 1)")

    def count(outputs, batch):
        masks = outputs["probabilities"] > jnp.float32(threshold)
        return pair_counts(masks, batch["label_map"], batch["example_mask"])

    def compute(sums):
        return pair_scores(sums, vocabulary, f"@{threshold:g}")

    return Counts(count, compute, fields=("label_map", "example_mask"), outputs=("probabilities",))


def pair_counts(masks: Array, label_map: Array, example_mask: Array) -> dict[str, Array]:
    """Sums over the images of a batch for each of P names.

    Args:
        masks: [B, P, H, W] bool; label_map: [B, H, W] int, the index of a name, -1 = void or outside the image;
        example_mask: [B] bool, True = counted.

    Returns:
        [P] each: `present`, `intersection`, `union`, `area`, `labelled` int32 and `iou`, `area_iou` float32 over present
        pairs (`area`: true pixels; `labelled`: pixels that are not void; `area_iou`: IoU of "everything"); `absent`,
        `false_positive`, `false_positive_large` int32 over absent pairs.
    """
    valid = (label_map >= 0)[:, None]
    predicted = jnp.sum(masks & valid, (2, 3), dtype=jnp.int32)
    labelled = jnp.sum(valid, (2, 3), dtype=jnp.int32)
    area, intersection = jax.vmap(_hits)(masks, label_map)
    union = predicted + area - intersection
    counted = (example_mask & (labelled[:, 0] > 0))[:, None]
    present, absent = counted & (area > 0), counted & (area == 0)
    labelled = jnp.broadcast_to(labelled, area.shape)

    def over(pairs, values):
        return jnp.sum(jnp.where(pairs, values, jnp.zeros((), values.dtype)), 0, dtype=values.dtype)

    one = jnp.ones_like(area)
    return {
        "present": over(present, one),
        "intersection": over(present, intersection),
        "union": over(present, union),
        "area": over(present, area),
        "labelled": over(present, labelled),
        "iou": over(present, intersection.astype(jnp.float32) / jnp.maximum(union, 1)),
        "area_iou": over(present, area.astype(jnp.float32) / jnp.maximum(labelled, 1)),
        "absent": over(absent, one),
        "false_positive": over(absent & (predicted > 0), one),
        "false_positive_large": over(absent & (predicted > LARGE * labelled.astype(jnp.float32)), one),
    }


def _hits(masks, label_map):
    """[P] pixels that carry each name, and those of them that its mask has, of one image."""
    num_names = len(masks)
    # A pixel has one true name: only that name's mask is looked up, which reads 1/P of what comparing every name would.
    cells = jnp.where((label_map >= 0) & (label_map < num_names), label_map, num_names)
    hit = jnp.take_along_axis(masks, jnp.clip(label_map, 0, num_names - 1)[None], 0)[0].astype(jnp.int32)
    none = jnp.zeros(num_names + 1, jnp.int32)
    return none.at[cells].add(1)[:num_names], none.at[cells].add(hit)[:num_names]


def pair_scores(sums, vocabulary, suffix=""):
    """Metrics of `prompt_iou` from the sums of `pair_counts`."""

    def shares(measure, above, below, harmonic=True):
        def value(ids):
            return ratio(sums[above][ids].sum(), sums[below][ids].sum())

        return by_group(f"{measure}{suffix}", vocabulary, value, harmonic=harmonic)

    def totals(measure, name):
        return by_group(f"{measure}{suffix}", vocabulary, lambda ids: sums[name][ids].sum(), harmonic=False)

    def false_positives(any_pixel, large):
        found = shares("false_positive", any_pixel, "absent", harmonic=False)
        return found | shares("false_positive_large", large, "absent", harmonic=False)

    metrics = shares("prompt_iou", "iou", "present") | shares("foreground_iou", "intersection", "union")
    metrics |= false_positives("false_positive", "false_positive_large")
    trivial = shares("prompt_iou", "area_iou", "present") | shares("foreground_iou", "area", "labelled")
    metrics |= as_baseline(trivial | false_positives("absent", "absent"))
    return metrics | totals("present_pairs", "present") | totals("absent_pairs", "absent")
