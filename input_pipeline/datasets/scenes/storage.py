"""Scenes as the features that the builder stores, and back."""

import io

import cv2
import numpy as np

from input_pipeline.datasets.scenes.composition import Scene


def _png(array: np.ndarray) -> io.BytesIO:
    if array.ndim == 3:
        array = array[:, :, ::-1]
    return io.BytesIO(cv2.imencode(".png", array, (cv2.IMWRITE_PNG_COMPRESSION, 1))[1].tobytes())


def to_features(scene: Scene, example_id: str) -> dict:
    """A scene as the builder's features; pictures are encoded."""
    classes = {segment.id: segment.class_id for segment in scene.segments}
    segments, parts = scene.segments, scene.parts
    return {
        "id": example_id,
        "image": _png(scene.image),
        "segment_map": _png(scene.segment_map.astype(np.uint16)),
        "segments": {
            "id": _ints([s.id for s in segments]),
            "class_id": _ints([s.class_id for s in segments]),
            "is_crowd": np.zeros(len(segments), bool),
            "box_xyxy": _ints([s.box_xyxy for s in segments]),
            "color": [s.color for s in segments],
            "size": [s.size for s in segments],
        },
        "part_map": _png(scene.part_map.astype(np.uint16)),
        "parts": {
            "id": _ints([p.id for p in parts]),
            "class_id": _ints([p.class_id for p in parts]),
            "segment_id": _ints([p.segment_id for p in parts]),
            "parent_id": _ints([p.parent_id for p in parts]),
        },
        "expressions": {
            "text": [text for text, _ in scene.expressions],
            "segment_id": _ints([segment_id for _, segment_id in scene.expressions]),
        },
        "caption": scene.caption,
        "label": classes[scene.main_object],
    }


def _ints(values) -> np.ndarray:
    return np.array(values, np.int32)


def to_example(raw: dict) -> dict:
    """One element of `builder.as_data_source(split)` in the terms of `jaxseg.preprocess`.

    Returns:
        id, path str; image uint8 [H, W, 3]; segment_map, part_map int32 [H, W]; segments, parts, expressions: lists of
        dicts; caption str; label int, class id of the largest object.
    """
    example_id = raw["id"].decode()
    return {
        "id": example_id,
        "path": f"scenes/{example_id}",
        "image": raw["image"],
        "segment_map": raw["segment_map"][:, :, 0].astype(np.int32),
        "segments": _rows(raw["segments"]),
        "part_map": raw["part_map"][:, :, 0].astype(np.int32),
        "parts": _rows(raw["parts"]),
        "expressions": _rows(raw["expressions"]),
        "caption": raw["caption"].decode(),
        "label": int(raw["label"]),
    }


def _rows(columns: dict) -> list[dict]:
    lists = [_values(column) for column in columns.values()]
    return [dict(zip(columns, row, strict=True)) for row in zip(*lists, strict=True)]


def _values(column: np.ndarray) -> list:
    values = column.tolist()
    return [v.decode() for v in values] if column.dtype == object else values
