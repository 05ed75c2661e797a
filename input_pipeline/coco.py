"""COCO JSON of instances: polygons or run-length masks, with crowds."""

import json
import logging
from pathlib import Path

from jaxseg.preprocess import reading
from jaxseg.text.vocabulary import Vocabulary

_SPLITS = """expected a JSON per split: write "{{split}}" in place of the split's word (instances_{{split}}.json), or set the \
source's split to "all" to use all of {path}"""


class CocoSource:
    """The images of a COCO JSON with their annotations as `objects`.

    Args:
        name: the JSON; `{split}` in it stands for the split. Without it, the file of another split is found by its name:
            instances_train2017.json -> instances_val2017.json.
        split: "all" for every image of the file whatever its name.
        images: folder of the images; by default the JSON's folder, its `images`, and those named after the split beside it.

    Raises:
        ValueError: no such file, not a COCO JSON, no file for the split, or images that are not where they are looked for.
    """

    OPTIONS = ("name", "split", "images")

    def __init__(self, name, split, images=""):
        path = split_file(name, split)
        self.name = f"{path}:{split}"
        self._path = path
        data = _read(path)
        self.vocabulary, class_of = _categories(data["categories"], path)
        self._images = _unique(data["images"], path)
        self._root = self._find_images(images, split)
        self._annotations = self._by_image(data["annotations"], class_of)

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

    def _by_image(self, annotations, class_of):
        known, found, left_out = {image["id"] for image in self._images}, {}, 0
        for annotation in annotations:
            class_id = class_of.get(annotation.get("category_id"))
            if class_id is None or annotation.get("image_id") not in known:
                left_out += 1
            else:
                found.setdefault(annotation["image_id"], []).append((annotation, class_id))
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


def _read(path):
    try:
        data = json.loads(path.read_text(encoding="utf-8-sig"))
    except FileNotFoundError:
        raise ValueError(f"{path}: no such file; expected a COCO JSON of instances") from None
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    data = data if isinstance(data, dict) else {}
    missing = [k for k in ("images", "annotations", "categories") if not isinstance(data.get(k), list)]
    if missing:
        raise ValueError(f"{path}: no list {missing[0]!r}; expected a COCO JSON with images, annotations and categories")
    if not data["images"] or not all(isinstance(i, dict) and "id" in i and "file_name" in i for i in data["images"]):
        raise ValueError(f"{path}: expected at least one image, and every image with id and file_name")
    return data


def _categories(categories, path):
    if not categories or not all(isinstance(c, dict) and "id" in c and "name" in c for c in categories):
        raise ValueError(f"{path}: expected at least one category, and every category with id and name")
    ordered = sorted(categories, key=lambda c: c["id"])
    ids = [c["id"] for c in ordered]
    if len(set(ids)) != len(ids):
        raise ValueError(f"{path}: category ids occur twice: {sorted({i for i in ids if ids.count(i) > 1})[:5]}")
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


def _object(annotation, class_id):
    is_crowd, segmentation = bool(annotation.get("iscrowd", 0)), annotation.get("segmentation")
    found = {"class_id": class_id, "is_crowd": is_crowd, "segmentation": segmentation}
    if annotation.get("bbox"):
        x, y, width, height = annotation["bbox"]
        found["box_xyxy"] = (x, y, x + width, y + height)
    if annotation.get("area") is not None:
        found["area"] = annotation["area"]
    return found
