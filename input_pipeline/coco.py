"""COCO JSON of instances: polygons or run-length masks, with crowds."""

import json
import logging
from pathlib import Path

import numpy as np

from jaxseg.preprocess import reading
from jaxseg.text import class_lists
from jaxseg.text.vocabulary import Vocabulary

# Which images a source has: all; those with an annotation; those with an object that is no crowd, as published training has.
KEEP = ("all", "annotated", "objects")

_SPLITS = """expected a JSON per split: write "{{split}}" in place of the split's word (instances_{{split}}.json), or set the \
source's split to "all" to use all of {path}"""


class CocoSource:
    """The images of a COCO JSON with their annotations as `objects`.

    Args:
        name: the JSON; `{split}` in it stands for the split. Without it, the file of another split is found by its name:
            instances_train2017.json -> instances_val2017.json.
        split: "all" for every image of the file whatever its name.
        images: folder of the images; by default the JSON's folder, its `images`, and those named after the split beside it.
        classes: a list of `jaxseg.text.class_lists`: the file's other categories do not exist; all of the file's by default.
        keep: "all" images, the "annotated" ones, or those with "objects" that are no crowds.

    Raises:
        ValueError: no such file, not a COCO JSON, no file for the split, a category that the file lacks, or images that are not
            where they are looked for.
    """

    def __init__(self, name, split, images="", classes="", keep="all"):
        if keep not in KEEP:
            raise ValueError(f"keep: found {keep!r}, expected one of {', '.join(KEEP)}")
        path = split_file(name, split)
        self.name = f"{path}:{split}"
        self._path = path
        data = read_json(path)
        self.vocabulary, class_of = categories_of(data["categories"], path, classes)
        self._images = _unique(data["images"], path)
        self._root = self._find_images(images, split)
        absent = {c["id"] for c in data["categories"]} - set(class_of)
        self._annotations = self._by_image(data["annotations"], class_of, absent)
        self._images = [image for image in self._images if self._is_kept(image["id"], keep)]
        if not self._images:
            raise ValueError(f"{path}: no image has {'an annotation' if keep == 'annotated' else 'objects'}")

    def __len__(self):
        return len(self._images)

    def id(self, index):
        return str(self._images[index]["id"])

    def load(self, index):
        image = self._images[index]
        objects = [_object(a, class_id) for a, class_id in self._annotations.get(image["id"], ())]
        example = {"id": self.id(index), "path": str(self._root / image["file_name"]), "objects": objects}
        if image.get("height") and image.get("width"):
            example["annotated_size"] = (int(image["height"]), int(image["width"]))
        return example

    def size(self, index):
        return reading.image_size(self._root / self._images[index]["file_name"])

    def _find_images(self, folder, split):
        base = self._path.parent
        tried = [Path(folder)] if folder else [base, base / "images"]
        if not folder:
            words = {split, f"{split}2017", f"{split}2014", self._path.stem.rsplit("_", 1)[-1]}
            tried += [parent / word for parent in (base, base.parent) for word in sorted(words)] + [base.parent / "images"]
        first = self._images[0]["file_name"]
        for root in tried:
            if (root / first).is_file():
                return root
        places = ", ".join(map(str, tried))
        raise ValueError(f"{self._path}: image {first} is in none of {places}; set the source's option 'images' to its folder")

    def _is_kept(self, image_id, keep):
        found = self._annotations.get(image_id, ())
        return keep == "all" or (bool(found) if keep == "annotated" else any(not a.get("iscrowd") for a, _ in found))

    def _by_image(self, annotations, class_of, absent):
        """{image id: [(annotation, class id)]}; those of categories `absent` are left out without a word."""
        known, found, left_out = {image["id"] for image in self._images}, {}, 0
        for annotation in annotations:
            category = annotation.get("category_id")
            if category in absent:
                continue
            if category not in class_of or annotation.get("image_id") not in known:
                left_out += 1
            else:
                found.setdefault(annotation["image_id"], []).append((_compact(annotation), class_of[category]))
        if left_out:
            logging.warning("%s: left out %d annotations of images or categories that it does not list", self._path, left_out)
        return found


def split_file(name, split):
    """The JSON of a split."""
    if "{split}" in str(name):
        return Path(str(name).replace("{split}", split))
    path = Path(name)
    if split in ("", "all") or not path.is_file() or split in path.stem:
        return path
    for other in ("train", "val", "test"):
        sibling = path.with_name(path.name.replace(other, split))
        if other in path.stem and sibling.is_file():
            return sibling
    raise ValueError(f"{path}: which images are of split {split!r}? " + _SPLITS.format(path=path.name))


def read_json(path, what="instances"):
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected a COCO JSON of {what}") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    data = data if isinstance(data, dict) else {}
    missing = [k for k in ("images", "annotations", "categories") if not isinstance(data.get(k), list)]
    if missing:
        raise ValueError(f"{path}: no list {missing[0]!r}; expected a COCO JSON with images, annotations and categories")
    if not data["images"] or not all(isinstance(i, dict) and "id" in i and "file_name" in i for i in data["images"]):
        raise ValueError(f"{path}: expected at least one image, and every image with id and file_name")
    return data


def categories_of(categories, path, classes=""):
    """(vocabulary, {category id: class id}); of a class list, or of the file."""
    if not categories or not all(isinstance(c, dict) and "id" in c and "name" in c for c in categories):
        raise ValueError(f"{path}: expected at least one category, and every category with id and name")
    ordered = sorted(categories, key=lambda c: c["id"])
    ids = [c["id"] for c in ordered]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{path}: category ids occur twice: {sorted({i for i in ids if ids.count(i) > 1})[:5]}")
    if classes:
        entries = class_lists.class_list(classes)
        missing = [entry for entry in entries if entry.id not in ids]
        if missing:
            raise ValueError(f"{path}: no category {missing[0].id} ({missing[0].name}), which {classes} has")
        return class_lists.vocabulary(classes), {entry.id: k for k, entry in enumerate(entries)}
    names = tuple(str(c["name"]).strip() for c in ordered)
    vocabulary = Vocabulary(names, tuple(bool(c.get("isthing", 1)) for c in ordered))
    return vocabulary, {i: k for k, i in enumerate(ids)}


def _unique(images, path):
    """The images, the first of each id."""
    kept = {}
    for image in images:
        kept.setdefault(image["id"], image)
    if len(kept) < len(images):
        logging.warning("%s: %d images have the id of an earlier one; left out", path, len(images) - len(kept))
    return list(kept.values())


def _compact(annotation):
    """The annotation in a quarter of the memory: polygons as arrays. What is no number is refused when it is loaded."""
    try:
        if isinstance(annotation.get("segmentation"), list):
            annotation["segmentation"] = [np.asarray(polygon, np.float64) for polygon in annotation["segmentation"]]
    except (TypeError, ValueError):
        pass
    return annotation


def _object(annotation, class_id):
    is_crowd, segmentation = bool(annotation.get("iscrowd", 0)), annotation.get("segmentation")
    found = {"class_id": class_id, "is_crowd": is_crowd, "segmentation": segmentation}
    if annotation.get("bbox"):
        x, y, width, height = annotation["bbox"]
        found["box_xyxy"] = (x, y, x + width, y + height)
    if annotation.get("area") is not None:
        found["area"] = annotation["area"]
    return found
