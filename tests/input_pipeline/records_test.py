"""Data sets of tfds: the built-in scenes, prepared folders, and what is said of those that cannot be read."""

import json

import numpy as np
import pytest
import tensorflow_datasets as tfds

from input_pipeline.datasets.scenes import builder as scenes_builder
from input_pipeline.sources import open_source
from jaxseg.preprocess import parse

NAMES = ("person", "sky")


class Pictures(tfds.core.GeneratorBasedBuilder):
    """Two 5 x 7 pictures; `features_of` decides with which annotations."""

    name = "pictures"
    url_infos = {}  # nothing is downloaded
    VERSION = tfds.core.Version("1.0.0")
    BUILDER_CONFIGS = [tfds.core.BuilderConfig(name=name) for name in ("panoptic", "semantic", "captions", "boxes")]

    def _info(self):
        features = {"image": tfds.features.Image(encoding_format="png")} | {
            "panoptic": {
                "panoptic_image": tfds.features.Image(encoding_format="png"),
                "panoptic_objects": tfds.features.Sequence(
                    {"id": np.int64, "label": tfds.features.ClassLabel(names=NAMES), "is_crowd": np.bool_}
                ),
            },
            "semantic": {"segmentation_mask": tfds.features.Image(shape=(None, None, 1), encoding_format="png")},
            "captions": {"captions": tfds.features.Sequence({"text": tfds.features.Text()})},
            "boxes": {"bbox": tfds.features.BBoxFeature()},
        }[self.builder_config.name]
        return tfds.core.DatasetInfo(builder=self, features=tfds.features.FeaturesDict(features), disable_shuffling=True)

    def _split_generators(self, dl_manager):
        return {"train": self._generate_examples()}

    def _generate_examples(self):
        for i in range(2):
            example = {"image": np.full((5, 7, 3), 40 * i, np.uint8)}
            ids = np.zeros((5, 7, 3), np.uint8)
            ids[:2], ids[2:4] = (7, 1, 2), (0, 0, 1)
            objects = [{"id": 7 + 256 + 2 * 65536, "label": 0, "is_crowd": False}, {"id": 65536, "label": 1, "is_crowd": True}]
            yield i, example | {
                "panoptic": {"panoptic_image": ids, "panoptic_objects": objects},
                "semantic": {"segmentation_mask": np.repeat([[[0]], [[1]], [[1]], [[2]], [[2]]], 7, 1).astype(np.uint8)},
                "captions": {"captions": [{"text": f"picture {i}"}, {"text": "another"}]},
                "boxes": {"bbox": tfds.features.BBox(0.0, 0.0, 1.0, 1.0)},
            }[self.builder_config.name]


def prepared(config, folder, file_format="array_record"):
    tfds.disable_progress_bar()
    builder = Pictures(config=config, data_dir=str(folder), file_format=file_format)
    builder.download_and_prepare()
    return str(builder.data_dir)


def records(name, split="train", **options):
    return open_source({"kind": "tfds", "name": name, "split": split, **options})


def test_scenes_are_drawn_and_read(tmp_path, monkeypatch):
    monkeypatch.setattr(scenes_builder, "num_examples", lambda size: dict.fromkeys(scenes_builder.SPLITS, 2))
    source = records("scenes/64", "val", data_dir=str(tmp_path))
    assert len(source) == 2 and source.id(1) == "val/000001" and source.size(1) == (64, 64)
    example = parse("decode|label_map")(source.load(1))
    assert example["id"] == "val/000001" and example["image"].shape == (64, 64, 3)
    seen = set(np.unique(example["label_map"])) - {-1}
    assert seen == {s["class_id"] for s in example["segments"]} and max(seen) < len(source.vocabulary)
    with pytest.raises(ValueError, match=r"scenes/64: no split 'validation'; it has .*val"):
        records("scenes/64", "validation", data_dir=str(tmp_path))
    with pytest.raises(ValueError, match="expected scenes/<size>, size one of"):
        records("scenes/97")


def test_panoptic_records(tmp_path):
    path = prepared("panoptic", tmp_path)
    source = open_source({"kind": "folder", "name": path, "split": "train"})  # a prepared folder is known by its files
    assert source.vocabulary.names == NAMES and source.size(1) == (5, 7)
    example = parse("decode|label_map")(source.load(1))
    assert (example["image"] == 40).all()
    assert example["segments"][0]["id"] == example["segment_map"][0, 0] == 7 + 256 + 2 * 65536
    np.testing.assert_array_equal(example["label_map"][:, 0], [0, 0, -1, -1, -1])  # crowds and void say nothing


def test_label_map_records_need_class_names(tmp_path):
    path = prepared("semantic", tmp_path)
    with pytest.raises(ValueError, match="tfds does not name the classes of segmentation_mask; set the source's option"):
        records(path)
    classes = tmp_path / "classes.json"
    classes.write_text(json.dumps({"classes": [{"id": 1, "name": "cat"}, {"id": 2, "name": "dog"}], "ignore_index": 0}))
    example = parse("decode|label_map")(records(path, classes=str(classes)).load(0))
    np.testing.assert_array_equal(example["label_map"][:, 0], [-1, 0, 0, 1, 1])


def test_caption_records(tmp_path):
    example = records(prepared("captions", tmp_path), "train[1:]").load(0)
    assert example["caption"] == "picture 1"


def test_records_that_cannot_be_read_say_why(tmp_path):
    with pytest.raises(ValueError, match="features are bbox, image; expected image with a label map or captions"):
        records(prepared("boxes", tmp_path / "a"))
    with pytest.raises(ValueError, match="stored as tfrecord, read at random from array_record"):
        records(prepared("captions", tmp_path / "b", "tfrecord"))
    with pytest.raises(ValueError, match=r"not in .*; `tfds build pictures/panoptic --file_format=array_record` prepares it"):
        records("pictures/panoptic", data_dir=str(tmp_path / "c"))
    with pytest.raises(ValueError, match="no_such_data: tfds does not know it"):
        records("no_such_data")
