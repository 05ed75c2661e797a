"""Published layouts: class ids, void, crowds, which images there are, and what is said where something is missing."""

import json

import numpy as np
import pytest
from PIL import Image

from configs import common
from input_pipeline import prepare
from input_pipeline.module import DataModule
from input_pipeline.sources import open_source
from jaxseg.preprocess import Context, parse
from jaxseg.text import class_lists
from tests.input_pipeline import published
from tests.input_pipeline.published import SIZE, halves


def opened(name, root, split="val"):
    return open_source(common.source(name, split, root=str(root)))


def edit(path, change):
    data = json.loads(path.read_text())
    change(data)
    path.write_text(json.dumps(data))


def made(source, index, text="label_map"):
    return parse(f"decode|{text}")(source.load(index), Context(None, source.vocabulary))


def test_coco_panoptic(tmp_path):
    published.coco_panoptic(tmp_path)
    source = opened("coco_panoptic", tmp_path)
    assert len(source) == 2 and source.id(0) == "000000000001" and source.size(1) == SIZE
    assert len(source.vocabulary) == 133 and source.vocabulary.names[119] == "sky-other-merged"
    first = source.load(0)
    assert first["path"].endswith("coco/val2017/000000000001.jpg")
    sky = {"id": 7_000_000, "class_id": 119, "is_crowd": False, "area": 40}
    assert first["segments"] == [sky, {"id": 300, "class_id": 0, "is_crowd": True, "area": 40}]
    np.testing.assert_array_equal(made(source, 0)["label_map"], halves(119, -1, np.int32))
    np.testing.assert_array_equal(made(source, 0, "label_map(crowds=True)")["label_map"], halves(119, 0, np.int32))
    person = np.zeros(SIZE, np.int32)
    person[:2, :2] = -1
    np.testing.assert_array_equal(made(source, 1)["label_map"], person)
    targets = made(source, 1, "target_masks(3)")
    np.testing.assert_array_equal(targets["labels"], [0, 132, 0])
    np.testing.assert_array_equal(targets["valid"], [True, True, False])
    np.testing.assert_array_equal(targets["masks"].sum((1, 2)), [76, 0, 0])  # the PNG lacks the second segment
    table = made(source, 1, "segment_table(2)")
    np.testing.assert_array_equal(table["segment_areas"], [76, 3])  # as the JSON says


def test_a_panoptic_png_and_its_json_may_disagree(tmp_path):
    published.coco_panoptic(tmp_path)
    path = tmp_path / "coco/annotations/panoptic_val2017.json"
    edit(path, lambda d: d["annotations"][0]["segments_info"].pop(0))  # an id of the PNG that the JSON lacks
    source = opened("coco_panoptic", tmp_path)
    assert (made(source, 0)["label_map"] == -1).all()
    assert not made(source, 0, "target_masks(2)")["valid"].any()  # a crowd alone
    Image.fromarray(np.zeros((4, 4, 3), np.uint8)).save(tmp_path / "coco/panoptic_val2017/000000000001.png")
    with pytest.raises(ValueError, match=r"000000000001\.jpg: segment_map is \(4, 4\), the image is \(8, 10\)"):
        made(source, 0)
    edit(path, lambda d: d["annotations"][0]["segments_info"][0].update(category_id=9999))
    with pytest.raises(ValueError, match=r"000000000001\.png: a segment of category 9999, expected one of the 133 categories"):
        opened("coco_panoptic", tmp_path)


def test_a_panoptic_json_of_ones_own(tmp_path):
    published.coco_panoptic(tmp_path, ["val"])
    path = tmp_path / "coco/annotations/panoptic_val2017.json"
    edit(path, lambda d: d.update(categories=[{"id": i, "name": str(i), "isthing": i == 1} for i in (200, 187, 1)]))
    spec = {"kind": "coco_panoptic", "name": str(path), "split": "val", "images": str(tmp_path / "coco/val2017")}
    with pytest.raises(ValueError, match=r"no folder .*annotations/panoptic_val2017"):
        open_source(spec)
    source = open_source({**spec, "segments": str(tmp_path / "coco/panoptic_val2017")})
    assert source.vocabulary.names == ("1", "187", "200") and source.vocabulary.is_thing == (True, False, False)
    assert [s["class_id"] for s in source.load(0)["segments"]] == [1, 0]
    with pytest.raises(ValueError, match=r"source.images: coco_panoptic sources need it; they take name, split, images"):
        open_source({"kind": "coco_panoptic", "name": str(path), "split": "val"})


@pytest.mark.parametrize(
    ("name", "train", "val", "classes"),
    [
        # Image 3 has only a class of neither group, image 4 only a crowd.
        ("coco_base48", [1], [1, 4], {1: ["person", "car"], 4: ["person"]}),
        ("coco_novel17", [1, 2], [1, 2], {1: ["cup"], 2: ["cup"]}),
        ("coco_instances65", [1, 2], [1, 2, 4], {1: ["person", "cup", "car"], 2: ["cup"], 4: ["person"]}),
        (
            "coco_instance",
            [1, 2, 3],
            [1, 2, 3, 4],
            {1: ["person", "cup", "car"], 2: ["cup"], 3: ["traffic light"], 4: ["person"]},
        ),
    ],
)
def test_coco_instances_of_a_class_list(tmp_path, name, train, val, classes):
    published.coco_instances(tmp_path)
    assert [opened(name, tmp_path, "train").id(i) for i in range(len(train))] == [str(i) for i in train]
    source = opened(name, tmp_path)
    assert [source.id(i) for i in range(len(source))] == [str(i) for i in val]
    assert source.vocabulary == class_lists.vocabulary(name)
    for index, image in enumerate(val):
        objects = source.load(index)["objects"]
        assert [source.vocabulary.names[o["class_id"]] for o in objects] == classes[image]
    assert source.load(0)["objects"][0]["area"] == 9.5


def test_a_class_list_that_the_file_lacks(tmp_path):
    published.coco_instances(tmp_path, ["val"])
    path = tmp_path / "coco/annotations/instances_val2017.json"
    edit(path, lambda d: d["categories"].pop(4))
    with pytest.raises(ValueError, match=r"no category 5 \(airplane\), which coco_novel17 has"):
        opened("coco_novel17", tmp_path)
    spec = {"kind": "coco", "name": str(path), "split": "val", "images": str(tmp_path / "coco/val2017")}
    with pytest.raises(ValueError, match="keep: found 'some', expected one of all, annotated, objects"):
        open_source({**spec, "keep": "some"})
    edit(path, lambda d: d.update(annotations=[]))
    with pytest.raises(ValueError, match="no image has objects"):
        open_source({**spec, "keep": "objects"})


def test_ade20k_as_released_and_as_shifted(tmp_path):
    published.ade20k(tmp_path)
    source = opened("ade20k_150", tmp_path, "train")
    assert [source.id(i) for i in range(len(source))] == [
        f"ADEChallengeData2016/images/training/ADE_train_0000000{i}.jpg" for i in (1, 2)
    ]
    released = made(source, 0)["label_map"]
    expected = halves(0, 7, np.int32)
    expected[-1] = -1
    np.testing.assert_array_equal(released, expected)
    shifted = np.where(expected < 0, 255, expected).astype(np.uint8)
    for i in (1, 2):
        path = f"ADEChallengeData2016/annotations_detectron2/training/ADE_train_0000000{i}.png"
        published.label_map(tmp_path / path, shifted)
        (tmp_path / path.replace("_detectron2", "")).unlink()
    np.testing.assert_array_equal(made(opened("ade20k_150", tmp_path, "train"), 0)["label_map"], expected)


def test_ade20k_in_a_folder_of_its_own(tmp_path):
    published.ade20k(tmp_path, ["val"], base="ade/ADEChallengeData2016")
    assert len(opened("ade20k_150", tmp_path)) == 2


@pytest.mark.parametrize(
    ("name", "images", "labels", "ending", "void", "listing"),
    [
        (
            "ade20k_847",
            "ADE20K_2021_17_01/images_detectron2/validation",
            "ADE20K_2021_17_01/annotations_detectron2/validation",
            ".tif",
            65535,
            "",
        ),
        (
            "pascal_context_459",
            "pascal_context_full/images",
            "pascal_context_full/labels_459",
            ".tif",
            65535,
            "pascal_context_full/val.txt",
        ),
        (
            "pascal_context_59",
            "pascal_context_full/images",
            "pascal_context_full/labels_59",
            ".png",
            255,
            "pascal_context_full/val.txt",
        ),
        (
            "pascal_context_459",
            "pascal_ctx_d2/images/validation",
            "pascal_ctx_d2/annotations_ctx459/validation",
            ".tif",
            65535,
            "",
        ),
        ("pascal_voc_21", "pascal_voc_d2/images/validation", "pascal_voc_d2/annotations_pascal21/validation", ".png", 255, ""),
        (
            "pascal_voc_21",
            "VOCdevkit/VOC2012/JPEGImages",
            "VOCdevkit/VOC2012/SegmentationClass",
            ".png",
            255,
            "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt",
        ),
    ],
)
def test_label_maps_of_published_layouts(tmp_path, name, images, labels, ending, void, listing):
    last = len(class_lists.class_list(name)) - 1
    dtype = np.uint16 if void > 255 else np.uint8
    published.maps(tmp_path, images, labels, halves(last, void, dtype), ending, names=("b", "a", "other"))
    if listing:
        (tmp_path / listing).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / listing).write_text("b\na\n")
    else:
        (tmp_path / images / "other.jpg").unlink()
    source = opened(name, tmp_path)
    assert [source.id(i).rsplit("/", 1)[1] for i in range(len(source))] == (
        ["b.jpg", "a.jpg"] if listing else ["a.jpg", "b.jpg"]
    )
    np.testing.assert_array_equal(made(source, 0)["label_map"], halves(last, -1, np.int32))
    published.label_map(tmp_path / labels / f"a{ending}", halves(0, last + 1, dtype))
    with pytest.raises(ValueError, match=rf"a\{ending}: pixel value {last + 1} is no class id \(0 to {last}\) and not void"):
        source.load(1 if listing else 0)
    if void > 255:
        published.label_map(tmp_path / labels / f"a{ending}", halves(0, 1))
        with pytest.raises(ValueError, match="found a label map of 8 bits, expected 16"):
            source.load(1 if listing else 0)
    (tmp_path / labels / f"b{ending}").unlink()
    with pytest.raises(ValueError, match=rf"1 listed files do not exist, the first is {labels}/b"):
        opened(name, tmp_path)


def test_labels_of_another_size_than_the_photograph(tmp_path):
    folders = ("VOCdevkit/VOC2012/JPEGImages", "VOCdevkit/VOC2012/SegmentationClass")
    published.maps(tmp_path, *folders, np.zeros((3, 4), np.uint8))
    listing = tmp_path / "VOCdevkit/VOC2012/ImageSets/Segmentation/val.txt"
    listing.parent.mkdir(parents=True)
    listing.write_text("a\n")
    with pytest.raises(ValueError, match=r"a\.jpg: segment_map is \(3, 4\), the image is \(8, 10\) \(height, width\)"):
        made(opened("pascal_voc_21", tmp_path), 0)
    listing.write_text("\n")
    with pytest.raises(ValueError, match="pascal_voc_21 has no images of split 'val' there"):
        opened("pascal_voc_21", tmp_path)


def test_what_is_missing_is_named_with_the_tree(tmp_path):
    with pytest.raises(ValueError) as error:
        opened("ade20k_panoptic", tmp_path / "none")
    assert str(error.value).splitlines()[0] == f"{tmp_path}/none: no such folder; ade20k_panoptic expects"
    published.ade20k(tmp_path, ["val"])
    with pytest.raises(ValueError) as error:
        opened("ade20k_panoptic", tmp_path)
    assert str(error.value).splitlines() == [
        f"{tmp_path}: no ADEChallengeData2016/ade20k_panoptic_val.json; ade20k_panoptic expects",
        f"  {tmp_path}/",
        "    ADEChallengeData2016/images/validation/",
        "    ADEChallengeData2016/ade20k_panoptic_val.json",
        "    ADEChallengeData2016/ade20k_panoptic_val/",
        "    ADEChallengeData2016/annotations/validation/",
        f"  `python -m input_pipeline.prepare ade20k_panoptic --root={tmp_path}` makes what is derived",
    ]
    with pytest.raises(ValueError, match="benchmark: found 'ade20k_874', did you mean 'ade20k_847'?"):
        opened("ade20k_874", tmp_path)
    with pytest.raises(ValueError, match="pascal_voc_21: found split 'test', expected train or val"):
        opened("pascal_voc_21", tmp_path, "test")


def module(root, train, evaluate, bad=0.0):
    config = common.default()
    config.train.batch_size = 2
    config.data.max_bad_share = bad
    ops = "decode|flip_lr|resize_scale_crop(16)|target_masks(3)|keep(image, image_size, masks, labels, valid)"
    config.data.train.update(sources=(common.source(train, "train", root=str(root)),), preprocess=ops, workers=2)
    inputs = "decode|resize_short(12, 20, labels=False)|pad_to_multiple(8)|label_map|keep(image, image_size, label_map)"
    source = common.source(evaluate, "val", root=str(root))
    config.data.eval = {"val": {"source": source, "preprocess": inputs, "evaluators": (), "batch_size": 1}}
    config.predict.canvas = 16
    return DataModule.from_config(config, 0, 1)


@pytest.mark.parametrize("name", ["coco_base48", "coco_panoptic", "ade20k_instance"])
def test_batches_of_mask_transformers(tmp_path, name):
    published.coco_instances(tmp_path)
    published.coco_panoptic(tmp_path)
    published.ade20k(tmp_path)
    prepare.main(["ade20k_instance", f"--root={tmp_path}"])
    data = module(tmp_path, name, name)
    batches = data.train()
    for _ in range(3):
        kind, batch = next(batches)
        shapes = {"image": (2, 16, 16, 3), "image_size": (2, 2), "masks": (2, 3, 16, 16), "labels": (2, 3), "valid": (2, 3)}
        assert kind == "train" and {field: array.shape for field, array in batch.items()} == shapes
        assert (batch["image_size"] == 16).all() and not batch["masks"][~batch["valid"]].any()
    batches.close()
    evaluation = list(data.eval("val").batches())
    assert [batch["example_mask"].all() for batch, _ in evaluation] == [True] * data.eval("val").num_examples
    batch, (meta,) = evaluation[0]
    assert batch["image"].shape == (1, 16, 16, 3) and batch["image_size"].tolist() == [[12, 15]]
    assert meta["original_size"] == SIZE and batch["label_map"].shape == (1, 16, 16)
    for item in meta.get("objects", ()):  # masks are handed over as run lengths
        assert isinstance(item["segmentation"], list) or item["segmentation"]["size"] == list(SIZE)


def test_a_photograph_that_is_not_there_is_counted(tmp_path):
    published.coco_panoptic(tmp_path)
    (tmp_path / "coco/train2017/000000000001.jpg").unlink()
    data = module(tmp_path, "coco_panoptic", "coco_panoptic", bad=0.5)
    batches = data.train()
    assert next(batches)[1]["valid"].any(1).all()  # the other image, in both places
    batches.close()
    assert [path.rsplit("/", 1)[1] for path in data.report()["paths"]] == ["000000000001.jpg"]
    (tmp_path / "coco/train2017/000000000002.jpg").unlink()
    with pytest.raises(ValueError, match=r"none of its images is in .*train2017, the first is 000000000001\.jpg"):
        module(tmp_path, "coco_panoptic", "coco_panoptic")
