"""Data sets of tfds at random access: by name, or by the folder of one that is prepared.

Understood are the features of `scenes` (segment_map, segments, ...), of COCO's panoptic data (panoptic_image,
panoptic_objects), one integer label map, and captions. Images stay as they were encoded until preprocessing decodes them.
"""

import os
from pathlib import Path

import tensorflow_datasets as tfds

from input_pipeline.classes import read_classes, segments_of
from input_pipeline.datasets import scenes
from jaxseg.coco import ids_of
from jaxseg.preprocess import reading
from jaxseg.text.vocabulary import Vocabulary

LABEL_MAPS = ("segmentation_label", "segmentation_mask", "segmentation", "semantic", "label_map", "annotation")


class RecordSource:
    """A split of a tfds data set in `array_record` files; `scenes/<size>` is drawn where it is not there yet.

    Args:
        name: of tfds, such as "coco/2017_panoptic", or the folder of a prepared version.
        data_dir: where tfds keeps data, if not where it does by default.
        labels: the feature that is the label map, where it has another name than those that are known.
        classes: a classes.json (see folder.py) for a label map whose classes tfds does not name.

    Raises:
        ValueError: one line: no such data set or split, not prepared, another file format, or features without labels or words.
    """

    def __init__(self, name, split, data_dir=None, labels="", classes=""):
        self.name, self._split = f"{name}:{split}", split
        builder = scenes.prepare(name, data_dir) if name.startswith("scenes/") else _prepared(name, data_dir)
        if split.split("[")[0] not in builder.info.splits:
            raise ValueError(f"{name}: no split {split!r}; it has {', '.join(sorted(builder.info.splits)) or 'none'}")
        if name.startswith("scenes/"):
            self._records, self._example = builder.as_data_source(split), scenes.to_example
            self.vocabulary = scenes.vocabulary()
            return
        self._records = _data_source(builder, name, split)
        form = _Form(dict(builder.info.features), name, labels, classes)
        self.vocabulary, self._example = form.vocabulary, form.example

    def __len__(self):
        return len(self._records)

    def id(self, index):
        return f"{self._split}/{index:06d}"

    def load(self, index):
        return {"path": f"{self.name}/{index}", **self._example(self._records[index]), "id": self.id(index)}

    def size(self, index):
        image = self._records[index]["image"]
        return reading.image_size(image) if isinstance(image, bytes) else image.shape[:2]


def _prepared(name, data_dir):
    if os.path.isfile(os.path.join(name, "features.json")):
        return tfds.builder_from_directory(name)
    try:
        builder = tfds.builder(name, data_dir=data_dir, try_gcs=False)
    except (tfds.core.DatasetNotFoundError, ValueError) as error:
        raise ValueError(f"{name}: tfds does not know it: {str(error).splitlines()[0]}") from None
    if not builder.is_prepared():
        raise ValueError(f"{name}: not in {builder.data_dir}; `tfds build {name} --file_format=array_record` prepares it")
    return builder


def _data_source(builder, name, split):
    undecoded = {"image": tfds.decode.SkipDecoding()} if "image" in builder.info.features else None
    try:
        return builder.as_data_source(split, decoders=undecoded)
    except NotImplementedError:
        found = builder.info.file_format.value
        how = "`tfds convert_format` or `tfds build --file_format=array_record`"
        raise ValueError(f"{name}: stored as {found}, read at random from array_record; {how} makes that") from None


class _Form:
    """How the features of a data set become an example."""

    def __init__(self, features, name, labels, classes):
        self._labels = labels or next((f for f in LABEL_MAPS if f in features), "")
        self._panoptic = "panoptic_image" in features and "panoptic_objects" in features
        self._caption = "caption" in features or "captions" in features
        self._class_of = self._void = None
        if "image" not in features or not (self._panoptic or self._labels in features or self._caption):
            raise ValueError(f"{name}: features are {', '.join(sorted(features))}; expected image with a label map or captions")
        if self._panoptic:
            self.vocabulary = _panoptic_vocabulary(features["panoptic_objects"])
        elif self._labels in features:
            if not classes:
                raise ValueError(f"{name}: tfds does not name the classes of {self._labels}; set the source's option 'classes'")
            self.vocabulary, self._class_of, self._void = read_classes(Path(classes))
        else:
            self.vocabulary = Vocabulary((), ())

    def example(self, raw):
        example = {"encoded": raw["image"]}
        if self._panoptic:
            example["segment_map"] = ids_of(raw["panoptic_image"])
            rows = zip(*(raw["panoptic_objects"][k] for k in ("id", "label", "is_crowd")), strict=True)
            segments = [{"id": int(i), "class_id": int(label), "is_crowd": bool(crowd)} for i, label, crowd in rows]
            example["segments"] = segments
        elif self._class_of:
            stored = raw[self._labels]
            stored = stored[..., 0] if stored.ndim == 3 else stored
            example["segment_map"], example["segments"] = segments_of(stored, self._class_of, self._void, self._labels)
        if self._caption:
            example["caption"] = _first_caption(raw)
        return example


def _panoptic_vocabulary(objects):
    """Class ids as COCO orders its 133: things first."""
    names = tuple(objects["label"].names)
    things = 80 if len(names) == 133 else len(names)
    return Vocabulary(names, tuple(i < things for i in range(len(names))))


def _first_caption(raw):
    found = raw["caption"] if "caption" in raw else raw["captions"]
    found = found["text"] if isinstance(found, dict) else found
    found = found if isinstance(found, bytes | str) else found[0]
    return found.decode() if isinstance(found, bytes) else str(found)
