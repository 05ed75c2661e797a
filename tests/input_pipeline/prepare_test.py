"""Derived files: made from tiny releases, read back through the published layouts."""

import json

import cv2
import numpy as np
import pytest
from PIL import Image
from scipy.io import savemat

from configs import common
from input_pipeline import prepare
from input_pipeline.preparation.run import Run
from input_pipeline.sources import open_source
from jaxseg.coco import read_ids
from jaxseg.preprocess import parse
from jaxseg.preprocess.reading import read_label_map
from jaxseg.text import class_lists
from tests.input_pipeline import published
from tests.input_pipeline.published import SIZE, halves


def run(what, root, *more):
    return prepare.main([what, f"--root={root}", "--workers=2", *more])


def opened(name, root, split="val"):
    return open_source(common.source(name, split, root=str(root)))


def content(folder):
    return {p.relative_to(folder): p.read_bytes() for p in sorted(folder.rglob("*")) if p.is_file()}


def test_coco_splits_are_what_the_whole_file_gives(tmp_path, capsys):
    published.coco_instances(tmp_path)
    names = ("coco_base48", "coco_novel17", "coco_instances65")
    before = {(name, split): opened(name, tmp_path, split) for name in names for split in ("train", "val")}
    assert run("coco_splits", tmp_path) == 0
    said = capsys.readouterr().out
    assert "images in instances_train2017.json: 4; the published data have 118287" in said
    assert "instances_val2017_seen48.json: 2 images, 3 annotations, 48 categories" in said
    folder = tmp_path / "coco/annotations/ov_split_48_17"
    assert len(list(folder.iterdir())) == 6
    seen = json.loads((folder / "instances_val2017_seen48.json").read_text())
    assert [i["id"] for i in seen["images"]] == [1, 4] and seen["info"] == {"year": 2017}
    assert [c["id"] for c in seen["categories"]] == [e.id for e in class_lists.class_list("coco_base48")]
    (tmp_path / "coco/annotations/instances_train2017.json").unlink()
    for (name, split), whole in before.items():
        part = opened(name, tmp_path, split)
        assert "ov_split_48_17" in part.name
        for index in range(len(whole)):
            one, other = whole.load(index), part.load(index)
            assert repr(one) == repr(other)


def test_coco_splits_of_another_file_are_refused(tmp_path, capsys):
    published.coco_instances(tmp_path, ["val"])
    path = tmp_path / "coco/annotations/instances_val2017.json"
    data = json.loads(path.read_text())
    data["categories"][1]["name"] = "bike"
    path.write_text(json.dumps(data))
    assert run("coco_splits", tmp_path, "--splits=val") == 1
    assert "category 2 is 'bike', expected 'bicycle'" in capsys.readouterr().err
    assert not (tmp_path / "coco/annotations/ov_split_48_17").exists()
    assert run("coco_splits", tmp_path, "--splits=train") == 1
    assert "instances_train2017.json: no such file" in capsys.readouterr().err


def test_coco_semantic_maps_paint_crowds(tmp_path):
    published.coco_panoptic(tmp_path)
    assert run("coco_semantic", tmp_path, "--splits=val") == 0
    folder = tmp_path / "coco/panoptic_semseg_val2017"
    np.testing.assert_array_equal(read_label_map(folder / "000000000001.png"), halves(119, 0))
    second = np.zeros(SIZE, int)
    second[:2, :2] = 255
    np.testing.assert_array_equal(read_label_map(folder / "000000000002.png"), second)
    source = opened("coco_panoptic", tmp_path)
    for index, file in enumerate(sorted(folder.iterdir())):  # what the op makes without these files
        made = parse("decode|label_map(crowds=True)")(source.load(index))["label_map"]
        np.testing.assert_array_equal(np.where(made < 0, 255, made), read_label_map(file))


def test_ade20k(tmp_path, capsys):
    published.ade20k(tmp_path)
    for what in ("ade20k_semantic", "ade20k_panoptic", "ade20k_instance"):
        assert run(what, tmp_path) == 0
        assert run(what, tmp_path, "--check") == 0
    base = tmp_path / "ADEChallengeData2016"
    semantic = halves(0, 7)
    semantic[-1] = 255
    np.testing.assert_array_equal(read_label_map(base / "annotations_detectron2/training/ADE_train_00000001.png"), semantic)

    source = opened("ade20k_panoptic", tmp_path)
    assert source.id(0) == "ADE_val_00000001" and len(source.vocabulary) == 150
    example = source.load(0)
    expected = halves(1, 0, np.int32)  # wall is stuff; bed is a thing, of which only the instances count
    expected[-1] = 0
    expected[:4, 5:], expected[4:7, 3:] = 256 * 8 + 1, 256 * 8 + 2
    np.testing.assert_array_equal(example["segment_map"], expected)
    rows = [(s["class_id"], s["area"], s["is_crowd"]) for s in example["segments"]]
    assert rows == [(0, 35, False), (7, 20, False), (7, 21, False)]  # wall's area is that before a bed covers six pixels
    np.testing.assert_array_equal(example["label_map"], np.where(semantic == 255, -1, semantic.astype(np.int32)))
    boxes = [s["bbox"] for s in json.loads((base / "ade20k_panoptic_val.json").read_text())["annotations"][0]["segments_info"]]
    assert boxes == [[0, 0, 5, 7], [5, 0, 5, 4], [3, 4, 7, 3]]

    things = opened("ade20k_instance", tmp_path, "train")
    assert len(things.vocabulary) == 100 and things.id(1) == "ADE_train_00000002"
    drawn = parse("decode|object_masks|target_masks(2)")(things.load(0))
    np.testing.assert_array_equal(drawn["object_masks"].sum((1, 2)), [20, 21])
    assert drawn["labels"].tolist() == [0, 0] and things.vocabulary.names[0] == "bed"
    assert "label maps of train: 2; the published data have 20210" in capsys.readouterr().out


def test_ade20k_that_is_not_as_released(tmp_path, capsys):
    published.ade20k(tmp_path, ["val"])
    folder = tmp_path / "ADEChallengeData2016"
    published.label_map(folder / "annotations/validation/ADE_val_00000001.png", halves(151, 1))
    assert run("ade20k_semantic", tmp_path, "--splits=val") == 1
    found = capsys.readouterr().err
    assert "1 of 2 files cannot be made; the first: " in found and "pixel value 151, expected 0 to 150" in found
    assert (folder / "annotations_detectron2/validation/ADE_val_00000002.png").exists()  # the others are made all the same
    wrong = np.zeros((*SIZE, 3), np.uint8)
    wrong[0, 0] = (101, 1, 0)
    published.label_map(folder / "annotations_instance/validation/ADE_val_00000002.png", wrong)
    assert run("ade20k_instance", tmp_path, "--splits=val") == 1
    assert "instance class 101, expected 1 to 100" in capsys.readouterr().err
    assert not (folder / "ade20k_instance_val.json").exists()
    assert run("ade20k_semantic", tmp_path) == 1
    assert "annotations/training: no files *.png" in capsys.readouterr().err
    assert run("ade20k_847", tmp_path / "none") == 1
    assert "no folder ADE20K_2021_17_01 or ade/ADE20K_2021_17_01" in capsys.readouterr().err


def full_release(root, stem, ids, size):
    """A photograph with a picture of classes as the release codes them."""
    folder = root / "ADE20K_2021_17_01/images/ADE/any/place"
    published.photograph(folder / f"{stem}.jpg", size)
    numbers = np.resize(np.repeat(ids, size[1] // len(ids)), size)
    rgb = np.stack([numbers // 256 * 10 + 3, numbers % 256, np.zeros(size, int)], -1).astype(np.uint8)
    Image.fromarray(rgb).save(folder / f"{stem}_seg.png")
    return folder


def test_ade20k_of_847_classes(tmp_path):
    entries = class_lists.class_list("ade20k_847")
    wall, last = entries[0].id, entries[846].id
    other = next(i for i in range(1, 4000) if i not in {e.id for e in entries})
    folder = full_release(tmp_path, "ADE_val_00000001", [wall, last, 0], (20, 30))
    full_release(tmp_path, "ADE_train_00000001", [last, wall], (600, 700))
    full_release(tmp_path, "ADE_train_00000002", [other, wall], (10, 20))
    assert run("ade20k_847", tmp_path) == 0
    small = opened("ade20k_847", tmp_path)
    example = parse("decode|label_map")(small.load(0))
    np.testing.assert_array_equal(example["label_map"][:, ::10], np.tile([0, 846, -1], (20, 1)))
    base = tmp_path / "ADE20K_2021_17_01"
    copy = base / "images_detectron2/validation/ADE_val_00000001.jpg"
    assert copy.read_bytes() == (folder / "ADE_val_00000001.jpg").read_bytes()
    large = opened("ade20k_847", tmp_path, "train").load(0)
    assert parse("decode")(large)["image"].shape[:2] == large["segment_map"].shape == (512, 597)
    stored = np.resize(np.repeat(np.array([846, 0], np.uint16), 350), (600, 700))
    resized = cv2.resize(stored, (597, 512), interpolation=cv2.INTER_NEAREST)
    np.testing.assert_array_equal(large["segment_map"] - 1, resized)
    unknown = read_label_map(base / "annotations_detectron2/training/ADE_train_00000002.tif", bits=16)
    assert set(np.unique(unknown)) == {0, 65535}


def pascal_context(root, stems=("a", "b")):
    """Numbers of the release, 1-based: table (397), aeroplane (2), accordion (1), wool (459), in stripes."""
    folder = root / "pascal_context_full"
    (folder / "trainval").mkdir(parents=True)
    stored = np.tile(np.array([397, 2, 1, 459, 2], np.uint16), (4, 1))
    for stem in stems:
        published.photograph(folder / "images" / f"{stem}.jpg", stored.shape)
        savemat(folder / "trainval" / f"{stem}.mat", {"LabelMap": stored})
    (folder / "val.txt").write_text("b\n")
    return folder


def test_pascal_context(tmp_path, capsys):
    folder = pascal_context(tmp_path)
    assert run("pascal_context_459", tmp_path) == run("pascal_context_59", tmp_path) == 0
    for classes, expected in ((459, [396, 1, 0, 458, 1]), (59, [49, 0, -1, -1, 0])):
        source = opened(f"pascal_context_{classes}", tmp_path)
        assert len(source) == 1 and source.id(0).endswith("images/b.jpg")
        np.testing.assert_array_equal(parse("decode|label_map")(source.load(0))["label_map"], np.tile(expected, (4, 1)))
    assert class_lists.class_list("pascal_context_59")[49].name == "diningtable"
    assert run("pascal_context_59", tmp_path, "--check") == 0
    # Maps of someone else, in alphabetical order of all names.
    other = read_label_map(folder / "labels_59/a.png")
    published.label_map(folder / "labels_59/a.png", np.where(other == 49, 19, other).astype(np.uint8))
    capsys.readouterr()
    assert run("pascal_context_59", tmp_path) == 0  # what is there is left
    assert run("pascal_context_59", tmp_path, "--check") == 1
    assert "labels_59/a.png: pixel (0, 0) (row, column) is 19, expected 49" in capsys.readouterr().err


def test_damaged_pascal_context(tmp_path, capsys):
    folder = pascal_context(tmp_path)
    (folder / "trainval/a.mat").write_bytes(b"nothing")
    savemat(folder / "trainval/b.mat", {"LabelMap": np.full((2, 2), 460)})
    (folder / "val.txt").unlink()
    assert run("pascal_context_459", tmp_path) == 1
    found = capsys.readouterr().err
    assert "2 of 2 files cannot be made" in found and "a.mat: cannot be read as a .mat file with LabelMap" in found
    (folder / "trainval/a.mat").unlink()
    assert run("pascal_context_459", tmp_path) == 1
    assert "LabelMap is (2, 2), 460 to 460; expected [H, W] of 0 to 459" in capsys.readouterr().err


def test_a_stopped_call_goes_on_where_it_was(tmp_path):
    published.ade20k(tmp_path)
    assert run("ade20k_panoptic", tmp_path) == 0
    folder = tmp_path / "ADEChallengeData2016"
    whole = content(folder)
    gone = [folder / "ade20k_panoptic_val.json", folder / "ade20k_panoptic_val/ADE_val_00000002.png"]
    for path in gone:
        path.unlink()
    times = {p: p.stat().st_mtime_ns for p in folder.rglob("*.png")}
    assert run("ade20k_panoptic", tmp_path) == 0
    assert content(folder) == whole
    assert all(p.stat().st_mtime_ns == t for p, t in times.items())


def test_a_file_appears_whole_or_not_at_all(tmp_path, monkeypatch):
    def fails(self, target):
        raise OSError("disk full")

    monkeypatch.setattr("pathlib.Path.replace", fails)
    with pytest.raises(ValueError, match="maps: 1 of 1 files cannot be made; the first: disk full"):
        Run().each("maps", [tmp_path / "a.png"], lambda path: Run().write_map(path, halves(1, 2)))
    assert not list(tmp_path.iterdir())


def test_pictures_of_ids_are_compared_too(tmp_path):
    published.ade20k(tmp_path, ["val"])
    assert run("ade20k_panoptic", tmp_path, "--splits=val") == 0
    path = tmp_path / "ADEChallengeData2016/ade20k_panoptic_val/ADE_val_00000001.png"
    ids = read_ids(path)
    Image.fromarray(np.zeros((*ids.shape, 3), np.uint8)).save(path)
    assert run("ade20k_panoptic", tmp_path, "--splits=val", "--check") == 1


def test_the_command_line(capsys):
    for arguments, message in (
        (["coco"], "invalid choice: 'coco'"),
        (["coco_splits", "--root=/x", "--splits=test"], "found 'test'"),
    ):
        with pytest.raises(SystemExit):
            prepare.main(arguments)
        assert message in capsys.readouterr().err
    with pytest.raises(SystemExit):
        prepare.main(["--help"])
    assert "ade20k_847" in capsys.readouterr().out
