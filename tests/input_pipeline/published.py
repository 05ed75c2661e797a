"""Published data sets in their layouts, with two tiny images a split."""

import json

import numpy as np
from PIL import Image

from jaxseg.coco import id_picture
from jaxseg.text import class_lists

SIZE = (8, 10)
WORDS = {"train": "training", "val": "validation"}


def photograph(path, size=SIZE, seed=0):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(np.random.default_rng(seed).integers(0, 256, (*size, 3), np.uint8)).save(path)


def label_map(path, array):
    path.parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(array).save(path)


def write_json(path, data):
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(data))


def halves(left, right, dtype=np.uint8):
    """A map whose left half is one number and whose right half another."""
    array = np.full(SIZE, right, dtype)
    array[:, : SIZE[1] // 2] = left
    return array


def categories(name):
    return [
        {"id": e.id, "name": e.name, "isthing": int(e.is_thing), "supercategory": "any"} for e in class_lists.class_list(name)
    ]


def coco_instances(root, splits=("train", "val")):
    """Image 1: a person (base), a cup (novel), a crowd of cars; 2: a cup; 3: a traffic light; 4: a crowd of persons."""

    def annotation(i, image, category, crowd=0):
        outline = [[i, 0, i + 3, 0, i + 3, 3, i, 3]]
        crowded = {"size": list(SIZE), "counts": [0, 16, 64]}
        row = {"id": i, "image_id": image, "category_id": category, "iscrowd": crowd, "area": 9.5, "bbox": [i, 0, 3, 3]}
        return {**row, "segmentation": crowded if crowd else outline}

    for split in splits:
        images = [{"id": i, "file_name": f"{i:012d}.jpg", "height": SIZE[0], "width": SIZE[1]} for i in (1, 2, 3, 4)]
        rows = [(1, 1, 1), (2, 1, 47), (3, 1, 3, 1), (4, 2, 47), (5, 3, 10), (6, 4, 1, 1)]
        data = {"info": {"year": 2017}, "images": images, "annotations": [annotation(*row) for row in rows]}
        write_json(root / f"coco/annotations/instances_{split}2017.json", {**data, "categories": categories("coco_instance")})
        for image in images:
            photograph(root / f"coco/{split}2017" / image["file_name"])


def coco_panoptic(root, splits=("train", "val")):
    """Image 1: sky on the left, a crowd of persons on the right; 2: a person, a void corner, a segment without pixels."""
    first = np.full(SIZE, 7_000_000, np.int32)
    first[:, SIZE[1] // 2 :] = 300
    second = np.full(SIZE, 65_536, np.int32)
    second[:2, :2] = 0
    rows = {
        1: (first, [(7_000_000, 187, 0, 40), (300, 1, 1, 40)]),
        2: (second, [(65_536, 1, 0, 76), (5, 200, 0, 3)]),
    }
    for split in splits:
        images, annotations = [], []
        for image_id, (segment_map, segments) in rows.items():
            stem = f"{image_id:012d}"
            photograph(root / f"coco/{split}2017/{stem}.jpg", seed=image_id)
            folder = root / f"coco/panoptic_{split}2017"
            folder.mkdir(parents=True, exist_ok=True)
            id_picture(segment_map).save(folder / f"{stem}.png")
            images.append({"id": image_id, "file_name": f"{stem}.jpg", "height": SIZE[0], "width": SIZE[1]})
            infos = [
                {"id": i, "category_id": c, "iscrowd": crowd, "area": a, "bbox": [0, 0, 1, 1]} for i, c, crowd, a in segments
            ]
            annotations.append({"image_id": image_id, "file_name": f"{stem}.png", "segments_info": infos})
        data = {"images": images, "annotations": annotations, "categories": categories("coco_panoptic")}
        write_json(root / f"coco/annotations/panoptic_{split}2017.json", data)


def ade20k(root, splits=("train", "val"), base="ADEChallengeData2016"):
    """As released: wall (stored 1) on the left, bed (8) on the right; two beds, one of which covers a piece of wall."""
    stored = halves(1, 8)
    stored[-1] = 0
    instances = np.zeros((*SIZE, 3), np.uint8)
    instances[:4, 5:] = (1, 1, 0)
    instances[4:7, 3:] = (1, 2, 0)
    for split in splits:
        for i in (1, 2):
            stem = f"ADE_{split}_{i:08d}"
            photograph(root / base / "images" / WORDS[split] / f"{stem}.jpg", seed=i)
            label_map(root / base / "annotations" / WORDS[split] / f"{stem}.png", stored)
            label_map(root / base / "annotations_instance" / WORDS[split] / f"{stem}.png", instances)


def maps(root, images, labels, array, ending=".png", names=("a", "b")):
    """Photographs and label maps in two folders."""
    for name in names:
        photograph(root / images / f"{name}.jpg")
        label_map(root / labels / f"{name}{ending}", array)
