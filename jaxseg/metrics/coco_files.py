"""COCO's files of results: instances as JSON, panoptic segments as JSON and PNG, written and read.

A file of masks holds no boxes: where there are some, pycocotools takes small, medium and large from them instead of from the
masks.
"""

import json
from pathlib import Path

import numpy as np

from jaxseg.coco import box_of, encode_mask, encode_masks, id_picture, read_ids, xywh


def mask_rows(image_id, masks, scores, category_ids):
    """Rows of a results file for N masks of an image; empty ones are wrong answers too, and stay.

    Args:
        masks: [N, H, W] bool, or N run lengths.
        scores: [N]; category_ids: [N], as the annotation file counts.
    """
    rles = encode_masks(masks) if isinstance(masks, np.ndarray) else list(masks)
    rows = zip(rles, scores, category_ids, strict=True)
    return [{**_row(image_id, c, s), "segmentation": rle} for rle, s, c in rows]


def box_rows(image_id, boxes_xyxy, scores, category_ids):
    """Rows of a results file for N boxes [N, 4]: x0, y0, x1, y1 in pixels."""
    rows = zip(np.asarray(boxes_xyxy, np.float64), scores, category_ids, strict=True)
    return [{**_row(image_id, c, s), "bbox": xywh(box)} for box, s, c in rows]


def _row(image_id, category_id, score):
    return {"image_id": image_id, "category_id": int(category_id), "score": float(score)}


def write_instances(path, rows):
    """Writes rows of `mask_rows` or of `box_rows`, for pycocotools' `loadRes`.

    Raises:
        ValueError: rows with and without boxes in one file, or a score that is not finite.
    """
    rows = list(rows)
    if len({"bbox" in row for row in rows}) > 1:
        raise ValueError(f"{path}: found rows with and without a box; write masks and boxes to a file each")
    wrong = next((row["score"] for row in rows if not np.isfinite(row["score"])), None)
    if wrong is not None:
        raise ValueError(f"{path}: found score {wrong}, expected finite numbers; are the weights?")
    _write_json(path, rows)


def segments_info(segment_map, class_of, category_ids, score_of=None):
    """COCO's description of every segment that has pixels, by ascending id.

    Args:
        segment_map: [H, W] ids, 0 = none.
        class_of: `{id: class id}`; category_ids: class id -> the annotation file's; score_of: `{id: score}`, or None.

    Raises:
        ValueError: an id that `class_of` lacks.
    """
    found = []
    for segment in np.unique(segment_map).tolist():
        if segment == 0:
            continue
        if segment not in class_of:
            raise ValueError(f"segment {segment} is in the map, but has no class")
        where = segment_map == segment
        info = {
            "id": segment,
            "category_id": int(category_ids[class_of[segment]]),
            "area": int(where.sum()),
            "bbox": [int(v) for v in xywh(box_of(where))],
            "iscrowd": 0,
        }
        found.append(info if score_of is None else {**info, "score": float(score_of[segment])})
    return found


class PanopticWriter:
    """Predictions as COCO has them: a PNG for every image in a folder, written at once, and a JSON at the end.

    `add` may be called by several threads.
    """

    def __init__(self, path, folder, categories=()):
        """categories: of the annotation file, copied into the JSON."""
        self._path, self._folder, self._categories, self._rows = path, Path(folder), list(categories), []
        self._folder.mkdir(parents=True, exist_ok=True)

    def add(self, image_id, stem, segment_map, segments):
        """segment_map: [H, W] ids, 0 = none; segments: dicts as of `segments_info`."""
        file = f"{stem}.png"
        id_picture(segment_map).save(self._folder / file)
        height, width = (int(n) for n in segment_map.shape)
        image = {"id": image_id, "file_name": file, "height": height, "width": width}
        self._rows.append((image, {"image_id": image_id, "file_name": file, "segments_info": list(segments)}))

    def end(self):
        """Writes the JSON, images by their ids."""
        rows = sorted(self._rows, key=lambda row: row[0]["id"])
        content = {"images": [image for image, _ in rows], "annotations": [row for _, row in rows]}
        _write_json(self._path, {**content, "categories": self._categories})


def write_panoptic(path, folder, examples, categories=()):
    """All of a `PanopticWriter`'s work; examples: an iterable of the arguments of its `add`, each written before the next."""
    writer = PanopticWriter(path, folder, categories)
    for example in examples:
        writer.add(*example)
    writer.end()


def read_panoptic(path, folder):
    """`{image id: (segment_map [H, W] int32, segments)}` of a panoptic JSON and its folder of PNGs."""
    data = json.loads(Path(path).read_text(encoding="utf-8"))
    return {a["image_id"]: (read_ids(Path(folder) / a["file_name"]), a["segments_info"]) for a in data["annotations"]}


def check_segments(segment_map, segments, category_ids, where):
    """Refuses a prediction whose map and table disagree, as panopticapi does.

    Raises:
        ValueError: one line: an id of the map that is not in the table, or the reverse, or an unknown category.
    """
    listed, drawn = {s["id"] for s in segments}, set(np.unique(segment_map).tolist()) - {0}
    for ids, what in ((drawn - listed, "in the map and not in the table"), (listed - drawn, "in the table and not in the map")):
        if ids:
            raise ValueError(f"{where}: segment {min(ids)} is {what}")
    unknown = sorted({s["category_id"] for s in segments} - set(category_ids))
    if unknown:
        raise ValueError(f"{where}: category {unknown[0]} is none of the annotation file's {len(category_ids)}")


def semantic_map(segment_map, segments, class_of, void=255):
    """[H, W] uint8 or uint16 of class ids as COCO's `panoptic_semseg` files have them: crowds too, `void` elsewhere.

    Args:
        segments: dicts with `id` and `category_id`; class_of: `{category_id: class id}`.
    """
    found = np.full(segment_map.shape, void, np.uint8 if void < 256 else np.uint16)
    for segment in segments:
        found[segment_map == segment["id"]] = class_of[segment["category_id"]]
    return found


def panoptic_to_instances(annotations, segment_maps):
    """Panoptic annotations as a list of instance annotations: one run-length mask per segment, stuff and crowds too.

    Args:
        annotations: of a panoptic JSON; segment_maps: an id map [H, W] for each.
    """
    found = []
    for annotation, segment_map in zip(annotations, segment_maps, strict=True):
        for segment in annotation["segments_info"]:
            row = {k: segment[k] for k in ("area", "iscrowd", "bbox", "category_id")}
            rle = encode_mask(segment_map == segment["id"])
            found.append({"segmentation": rle, **row, "image_id": annotation["image_id"], "id": len(found)})
    return found


def _write_json(path, content):
    path = Path(path)
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(content), encoding="utf-8")
