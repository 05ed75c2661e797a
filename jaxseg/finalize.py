"""From the arrays of a batch to results, on the host, for systems that give the same arrays."""

import numpy as np

from jaxseg.result import Result

SEGMENTS = ("panoptic_map", "panoptic_valid", "panoptic_classes", "panoptic_scores")


def segment_results(outputs, metas, names):
    """One `Result` per image with a row per panoptic segment, likeliest first; masks do not overlap.

    Args:
        outputs: `SEGMENTS`, of `panoptic_segments`, with a leading batch axis; rows beyond the metas are padding.
        metas: dicts with `original_size`, `path` and `image`.
        names: of the classes.
    """
    results = []
    for i, meta in enumerate(metas):
        height, width = meta["original_size"]
        index, valid, classes, scores = (np.asarray(outputs[name][i]) for name in SEGMENTS)
        rows = np.flatnonzero(valid)
        rows = rows[np.argsort(-scores[rows], kind="stable")]
        masks = index[None, :height, :width] == rows[:, None, None] + 1
        labels = tuple(names[c] for c in classes[rows])
        known = {"path": meta.get("path", ""), "image": meta.get("image")}
        results.append(Result.from_masks(masks, scores[rows], labels, **known))
    return results
