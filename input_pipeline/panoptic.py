"""COCO's panoptic annotations: a JSON of segments and a folder of PNGs whose colours are their ids."""

import logging
from pathlib import Path

import numpy as np

from input_pipeline.classes import class_ids
from input_pipeline.coco import categories_of, read_json, split_file
from jaxseg import coco
from jaxseg.preprocess import reading

_COLUMNS = ("id", "class_id", "is_crowd", "area")  # -1: the file does not say


class PanopticSource:
    """The annotated images of a panoptic JSON; stuff and things are `segments` of a `segment_map`, crowds among them.

    An id of a PNG that its table lacks is void; a segment whose id the PNG lacks has no pixels. Photographs are JPEGs with
    the PNGs' names.

    Args:
        name: the JSON; `{split}` in it stands for the split, as in `CocoSource`.
        split: see `CocoSource`.
        images: folder of the photographs.
        segments: folder of the PNGs; by default the JSON's name without its ending, as COCO has it.
        classes: a list of `jaxseg.text.class_lists`; by default the file's categories.
        semantic: a folder of label maps of the same names (class id + `first`, 255 or 0 below it void), where semantic
            evaluation has maps of its own; they become `label_map`.
        first: number that stands for class 0 in those maps.

    Raises:
        ValueError: no such file or folder, not a panoptic JSON, or a segment of a category that is not listed.
    """

    def __init__(self, name, split, images, segments="", classes="", semantic="", first=0):
        path = split_file(name, split)
        self.name = f"{path}:{split}"
        data = read_json(path, "panoptic segments")
        self.vocabulary, class_of = categories_of(data["categories"], path, classes)
        self._images, self._segments = Path(images), Path(segments or path.with_suffix(""))
        self._semantic = Path(semantic) if semantic else None
        self._stored = {k + first: k for k in range(len(self.vocabulary))}
        for folder in (self._images, self._segments, self._semantic):
            if folder is not None and not folder.is_dir():
                raise ValueError(f"{path}: no folder {folder}")
        self._files, self._tables = [], []
        for annotation in data["annotations"]:
            self._add(annotation, class_of, path)
        _check_files(self._images, [self._photograph(file) for file in self._files], path)

    def __len__(self):
        return len(self._files)

    def id(self, index):
        return Path(self._files[index]).stem

    def load(self, index):
        file = self._files[index]
        segments = [_segment(row) for row in self._tables[index].tolist()]
        example = {
            "id": self.id(index),
            "path": str(self._images / self._photograph(file)),
            "segment_map": coco.read_ids(self._segments / file),
            "segments": segments,
        }
        if self._semantic:
            path = self._semantic / file
            void = {0, 255} - set(self._stored)
            example["label_map"], _ = class_ids(reading.read_label_map(path), self._stored, void, path)
        return example

    def size(self, index):
        return reading.image_size(self._images / self._photograph(self._files[index]))

    def _add(self, annotation, class_of, path):
        file, rows = annotation.get("file_name"), annotation.get("segments_info")
        if not isinstance(file, str) or not isinstance(rows, list):
            raise ValueError(f"{path}: expected every annotation with file_name and segments_info; is it a panoptic JSON?")
        unknown = next((row.get("category_id") for row in rows if row.get("category_id") not in class_of), None)
        if unknown is not None or any("id" not in row for row in rows):
            found = "a segment without id" if unknown is None else f"a segment of category {unknown}"
            raise ValueError(f"{path}: {file}: {found}, expected one of the {len(class_of)} categories and an id")
        table = [(r["id"], class_of[r["category_id"]], r.get("iscrowd", 0), r.get("area", -1)) for r in rows]
        self._files.append(file)
        self._tables.append(np.array(table, np.int32).reshape(-1, len(_COLUMNS)))

    @staticmethod
    def _photograph(file):
        return f"{Path(file).stem}.jpg"


def _segment(row):
    segment = dict(zip(_COLUMNS, row, strict=True))
    segment["is_crowd"] = bool(segment["is_crowd"])
    if segment["area"] < 0:
        del segment["area"]
    return segment


def _check_files(folder, names, path):
    listed = {entry.name for entry in folder.iterdir()}
    missing = [name for name in names if name not in listed]
    if len(missing) == len(names):
        raise ValueError(f"{path}: none of its images is in {folder}, the first is {names[0] if names else 'not listed'}")
    if missing:
        found = (path, len(missing), len(names), folder, missing[0])
        logging.warning("%s: %d of %d images are not in %s, the first is %s", *found)
