"""Examples to batches: equal shapes are stacked, label maps at original size are padded to a canvas."""

import math

import numpy as np

# Label maps and their value where there is no image.
PADDING = {"label_map": -1, "segment_map": 0, "part_map": 0}
_NO_IMAGE = {"id": "", "path": "", "original_size": (1, 1), "segments": []}


def canvas_size(sizes, multiple):
    """The (height, width) that holds all sizes, in multiples, so that few shapes are compiled."""
    return tuple(max(math.ceil(side / multiple), 1) * multiple for side in np.max(np.asarray(sizes).reshape(-1, 2), 0))


def stack(examples):
    """{field: [B, ...]} of examples with equal fields.

    Raises:
        ValueError: a field whose shape differs between examples.
    """
    batch = {}
    for name in examples[0]:
        shapes = {example[name].shape for example in examples}
        if len(shapes) > 1:
            raise ValueError(shape_problem(name, *sorted(shapes)[:2]))
        batch[name] = np.stack([example[name] for example in examples])
    return batch


def shape_problem(name, one, other):
    return f"preprocess: {name} has shape {one} in one example and {other} in another; a batch needs one: add a resize or crop"


def evaluation_batch(examples, canvas, like):
    """(batch, metas) of one evaluation batch.

    Args:
        examples: per place a pair (fields, meta), or None where there is no example to count.
        canvas: (height, width) for label maps, at least the largest original size.
        like: the fields of any example, for the shapes of places without one.

    Returns:
        The stacked fields, with `original_size` [B, 2] int32 and `example_mask` [B] bool; label maps [B, Hc, Wc] are padded
        with void. Fields of a size of their own per example, such as `object_masks` [N, H, W], stand in the metas instead.
    """
    fields, metas = [], []
    for example in examples:
        given, meta = example if example is not None else _nothing_like(like)
        kept = {}
        for name, array in given.items():
            if name in PADDING:
                kept[name] = _padded(array, canvas, PADDING[name])
            elif name == "object_masks":
                meta = {**meta, name: array}
            else:
                kept[name] = array
        fields.append(kept)
        metas.append(meta)
    batch = stack(fields)
    batch["original_size"] = np.array([m["original_size"] for m in metas], np.int32)
    batch["example_mask"] = np.array([e is not None for e in examples])
    return batch, metas


def _nothing_like(fields):
    empty = {k: np.full((1, 1), PADDING[k], v.dtype) if k in PADDING else np.zeros_like(v) for k, v in fields.items()}
    return empty, {**_NO_IMAGE, "image": np.zeros((1, 1, 3), np.uint8)}


def _padded(array, canvas, value):
    rows, columns = canvas[0] - array.shape[0], canvas[1] - array.shape[1]
    return np.pad(array, ((0, rows), (0, columns)), constant_values=value)
