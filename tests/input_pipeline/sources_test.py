"""Folders and COCO files as users have them, and what is said where something is missing."""

import json

import numpy as np
import pytest
from PIL import Image

from input_pipeline.sources import open_source
from jaxseg.preprocess import parse
from tests.input_pipeline.folders import coco_json, write_folder


def folder(path, split="train"):
    return open_source({"kind": "folder", "name": str(path), "split": split})


def coco(path, split="all", **options):
    return open_source({"kind": "coco", "name": str(path), "split": split, **options})


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def test_a_folder_is_read_by_its_path(tmp_path):
    source = folder(write_folder(tmp_path / "my data ü", 3))
    assert len(source) == 3 and source.id(1) == "train/1.jpg"
    assert source.vocabulary.names == ("sky", "road", "car")
    assert source.vocabulary.is_thing == (False, True, True)
    assert source.vocabulary.groups == {"unseen": (2,)}
    assert source.vocabulary.colors == ()
    example = parse("decode|label_map")(source.load(1))
    assert source.size(1) == example["original_size"] == example["label_map"].shape == (20, 30)
    # Stored 10, 20, 30 and void 0: see folders.py.
    np.testing.assert_array_equal(example["label_map"][:, ::10], np.tile([-1, 0, 2], (20, 1)))


def test_without_a_list_images_and_labels_meet_by_name(tmp_path):
    root = write_folder(tmp_path, 2)
    (root / "train.txt").unlink()
    source = folder(root)
    assert [source.id(i) for i in range(2)] == ["train/0.jpg", "train/1.jpg"]
    (root / "trainannot" / "1.png").unlink()
    with pytest.raises(ValueError, match="1 images of train/ have no label in trainannot/, the first is 1.jpg"):
        folder(root)


def test_names_with_spaces(tmp_path):
    root = write_folder(tmp_path, 2)
    for kind, new in (("train/0.jpg", "train/a b.jpg"), ("trainannot/0.png", "trainannot/a b.png")):
        (root / kind).rename(root / new)
    (root / "train.txt").write_text("train/a b.jpg trainannot/a b.png\ntrain/1.jpg\ttrainannot/1.png\n\n", encoding="utf-8-sig")
    source = folder(root)
    assert [source.id(0), source.id(1)] == ["train/a b.jpg", "train/1.jpg"]
    assert source.load(0)["segments"]


@pytest.mark.parametrize(
    ("break_it", "message"),
    [
        (lambda r: (r / "classes.json").unlink(), "no classes.json; expected"),
        (lambda r: [(r / "train.txt").unlink(), (r / "train").rename(r / "other")], "no train.txt; expected"),
        (lambda r: (r / "train.txt").write_text("a.jpg"), "train.txt line 1: found 'a.jpg', expected 'image label'"),
        (lambda r: (r / "train.txt").write_text("\n"), "split 'train' has no images"),
        (lambda r: (r / "train" / "1.jpg").unlink(), "1 listed files do not exist, the first is train/1.jpg"),
    ],
)
def test_a_folder_that_lacks_something_says_what_is_expected(tmp_path, break_it, message):
    root = write_folder(tmp_path / "data", 2)
    break_it(root)
    with pytest.raises(ValueError) as error:
        folder(root)
    assert message in str(error.value)
    assert f"expected\n  {root}/\n    classes.json" in str(error.value)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("{", "cannot be read as JSON"),
        ('{"classes": []}', 'expected {"classes": '),
        ('{"classes": [{"id": 0}]}', "every class with a name"),
        ('{"classes": [{"id": 0, "name": "a"}, {"id": 0, "name": "b"}]}', "class ids are [0, 0], expected integers from 0 on"),
        ('{"classes": ["a", "a"]}', "names occur twice"),
        ('{"classes": ["a"], "groups": {"unseen": ["b"]}}', "groups name 'b', which is no class"),
    ],
)
def test_a_wrong_classes_json_is_one_line(tmp_path, text, message):
    root = write_folder(tmp_path, 1)
    (root / "classes.json").write_text(text)
    with pytest.raises(ValueError) as error:
        folder(root)
    assert message in str(error.value) and "\n" not in str(error.value)


def test_a_number_that_is_no_class_names_the_map(tmp_path):
    root = write_folder(tmp_path, 1)
    Image.fromarray(np.full((20, 30), 57, np.uint8)).save(root / "trainannot" / "0.png")
    with pytest.raises(ValueError, match=r"0\.png: pixel value 57 is no class id \(10 to 30\) and not void \(0, 255, 65535\)"):
        folder(root).load(0)


@pytest.mark.parametrize(
    ("spec", "message"),
    [
        ({"kind": "foldr", "name": "x"}, "source.kind: found 'foldr', expected one of tfds, folder, coco"),
        ({"kind": "folder", "name": ""}, "source.name: found '', expected a path"),
        ({"kind": "folder", "name": "x", "imags": "y"}, "source.imags: folder sources have no such option; they take name"),
        ({"kind": "folder", "name": "/no/such", "split": "train"}, "/no/such: no such folder; expected"),
        ({"kind": "coco", "name": "/no/such.json", "split": "train"}, "/no/such.json: no such file; expected a COCO JSON"),
    ],
)
def test_wrong_descriptions(spec, message):
    with pytest.raises(ValueError) as error:
        open_source(spec)
    assert message in str(error.value)


def test_coco_instances(tmp_path):
    source = coco(coco_json(tmp_path))
    assert source.vocabulary.names == ("dog", "cat")  # by category id, 3 and 17
    assert [source.id(i) for i in range(len(source))] == ["7", "9"]
    example = parse("decode|label_map|object_masks")(source.load(0))
    assert [o["class_id"] for o in example["objects"]] == [1, 0]
    np.testing.assert_array_equal(example["object_masks"].sum((1, 2)), [16, 8])
    assert (example["label_map"][:4, :4] == 1).all() and example["label_map"][0, 4] == -1
    assert not source.load(1)["objects"]  # an image without any
    assert source.size(0) == (10, 12)


def test_coco_annotations_of_nothing_are_left_out(tmp_path, caplog):
    path = coco_json(tmp_path)

    def change(data):
        data["annotations"] += [{**data["annotations"][0], "image_id": 99}, {**data["annotations"][0], "category_id": 99}]
        data["images"].append({**data["images"][0], "file_name": "other.jpg"})

    edit(path, change)
    source = coco(path)
    assert len(source) == 2 and len(source.load(0)["objects"]) == 2
    assert source.load(0)["path"].endswith("a.jpg")
    assert "left out 2 annotations" in caplog.text and "1 images have the id of an earlier one" in caplog.text


def test_coco_splits_are_files(tmp_path):
    train = coco_json(tmp_path, "instances_train2017.json")
    assert len(coco(train, "train")) == 2
    with pytest.raises(ValueError, match=r"which images are of split 'val'\? expected a JSON per split"):
        coco(train, "val")
    assert len(coco(train, "all")) == 2
    coco_json(tmp_path, "instances_val2017.json", images=1)
    assert len(coco(train, "val")) == len(coco(tmp_path / "instances_{split}2017.json", "val")) == 1


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (lambda d: d.pop("categories"), "no list 'categories'"),
        (lambda d: d.update(images=[]), "at least one image"),
        (lambda d: d["categories"].append({"id": 3, "name": "bird"}), "category ids occur twice: [3]"),
        (lambda d: d["images"][0].pop("file_name"), "every image with id and file_name"),
        (lambda d: d["images"][0].update(file_name="gone.jpg"), "image gone.jpg is in none of"),
    ],
)
def test_a_wrong_coco_json_is_one_line(tmp_path, change, message):
    path = coco_json(tmp_path)
    edit(path, change)
    with pytest.raises(ValueError) as error:
        coco(path)
    assert message in str(error.value) and "\n" not in str(error.value)
