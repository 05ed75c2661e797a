"""The segments of an image as arrays of one length, for evaluation inside a compiled step."""

import numpy as np

from jaxseg.preprocess.arguments import positive
from jaxseg.preprocess.registry import register


@register
def segment_table(num):
    """Makes `segment_ids`, `segment_classes`, `segment_areas` int32 [num] and `segment_is_crowd` bool [num] of `segments`.

    In the order of the annotation; rows of id 0 are padding. Areas are the annotation's, or else those of `segment_map`.

    Raises:
        ValueError: more segments than `num`.
    """
    positive(num, "num")

    def apply(example, context):
        del context
        segments, segment_map = example.get("segments", ()), example["segment_map"]
        if len(segments) > num:
            name = example.get("path", "example")
            raise ValueError(f"{name}: found {len(segments)} segments, segment_table holds {num}")
        table = {
            "segment_ids": np.zeros(num, np.int32),
            "segment_classes": np.full(num, -1, np.int32),
            "segment_areas": np.zeros(num, np.int32),
            "segment_is_crowd": np.zeros(num, bool),
        }
        pixels = {} if all("area" in segment for segment in segments) else _pixels(segment_map)
        for i, segment in enumerate(segments):
            table["segment_ids"][i] = segment["id"]
            table["segment_classes"][i] = segment["class_id"]
            table["segment_areas"][i] = segment.get("area", pixels.get(segment["id"], 0))
            table["segment_is_crowd"][i] = bool(segment.get("is_crowd", False))
        return {**example, **table}

    return apply


def _pixels(segment_map):
    """{id: pixels}"""
    known, counts = np.unique(segment_map, return_counts=True)
    return dict(zip(known.tolist(), counts.tolist(), strict=True))
