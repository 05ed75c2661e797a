"""Annotated objects in COCO's form, from what an example, or an annotation file, holds of them.

An annotation here is a dict of `category_id` (a class id of the vocabulary), `iscrowd`, `area` in pixels, `bbox` (x, y, width,
height) and `segmentation` (run lengths).
"""

import json
from pathlib import Path

import numpy as np

from jaxseg.coco import as_text, box_of, check_size, encode_mask, xywh


def from_objects(objects, size, where):
    """Annotations of the `objects` of an example at its original size (height, width).

    Args:
        objects: dicts with `class_id`, `is_crowd`, `segmentation` (polygons [n, 2], a mask [H, W] or run lengths), `box_xyxy`,
            and, where the annotation file has it, `area`. Objects without an outline have an empty mask and no box in it.
        where: for messages.

    Raises:
        ValueError: a mask of another size than the image.
    """
    return [
        annotation(
            item["class_id"],
            outline(item.get("segmentation"), size, f"{where}: object {index}"),
            item.get("is_crowd", False),
            area=item.get("area"),
            box_xyxy=item.get("box_xyxy"),
        )
        for index, item in enumerate(objects)
    ]


def from_segments(segment_map, segments):
    """Annotations of panoptic segments: a map [H, W] of ids, and dicts with `id`, `class_id`, `is_crowd` and perhaps `area`."""
    found = []
    for segment in segments:
        mask = segment_map == segment["id"]
        if mask.any():
            found.append(
                annotation(
                    segment["class_id"],
                    encode_mask(mask),
                    segment.get("is_crowd", False),
                    area=segment.get("area"),
                    box_xyxy=box_of(mask),
                )
            )
    return found


def annotation(class_id, rle, is_crowd=False, *, area=None, box_xyxy=None):
    """One annotation; by default its area is that of the mask, its box the one around it."""
    from pycocotools import mask as coco

    return {
        "category_id": int(class_id),
        "iscrowd": int(bool(is_crowd)),
        "area": float(coco.area(rle) if area is None else area),
        "bbox": coco.toBbox(rle).tolist() if box_xyxy is None else xywh(box_xyxy),
        "segmentation": rle,
    }


def outline(segmentation, size, where):
    """Run lengths of polygons (united), of a mask or of other run lengths; empty where there is nothing.

    Raises:
        ValueError: a mask of another size than the image.
    """
    from pycocotools import mask as coco

    height, width = (int(n) for n in size)
    if isinstance(segmentation, dict):
        check_size(segmentation, size, where)
        if isinstance(segmentation["counts"], list):
            segmentation = coco.frPyObjects(segmentation, height, width)
        return as_text(segmentation)
    if isinstance(segmentation, np.ndarray):
        check_size({"size": segmentation.shape}, size, where)
        return encode_mask(segmentation > 0)
    polygons = [np.asarray(p, np.float64).ravel().tolist() for p in segmentation if np.size(p) >= 6] if segmentation else []
    if not polygons:
        return encode_mask(np.zeros((height, width), bool))
    return as_text(coco.merge(coco.frPyObjects(polygons, height, width)))


def read_annotations(path, names):
    """`{str(image id): ((height, width), annotations)}` of a COCO JSON of instances.

    Args:
        names: of the vocabulary; the file's categories are found among them by name.

    Raises:
        ValueError: no such file, not a COCO JSON, a category that the vocabulary lacks, or a mask of another size.
    """
    data = _read(path)
    class_of = {}
    for category in data["categories"]:
        name = str(category["name"]).strip()
        if name not in names:
            raise ValueError(f"{path}: category {category['name']!r} is none of the vocabulary's {len(names)} names")
        class_of[category["id"]] = names.index(name)
    sizes = {image["id"]: (image["height"], image["width"]) for image in data["images"]}
    found = {image_id: [] for image_id in sizes}
    for row in data["annotations"]:
        size, (x, y, width, height) = sizes[row["image_id"]], row["bbox"]
        rle = outline(row.get("segmentation"), size, f"{path}: annotation {row.get('id')}")
        kept = annotation(class_of[row["category_id"]], rle, row.get("iscrowd", 0), area=row["area"])
        found[row["image_id"]].append({**kept, "bbox": [x, y, width, height]})
    return {str(image_id): (sizes[image_id], rows) for image_id, rows in found.items()}


def _read(path):
    try:
        data = json.loads(Path(path).read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected a COCO JSON of instances") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    missing = [k for k in ("images", "annotations", "categories") if not isinstance(data, dict) or k not in data]
    if missing:
        raise ValueError(f"{path}: no list {missing[0]!r}; expected a COCO JSON with images, annotations and categories")
    return data
