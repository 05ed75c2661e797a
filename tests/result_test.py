"""Results: run lengths, boxes and the formats that they are written in."""

import json

import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as coco

from jaxseg.result import Masks, Result


def make(size=(5, 7), image=None):
    """Three masks: a rectangle, one that overlaps it, and an empty one."""
    masks = np.zeros((3, *size), bool)
    masks[0, 1:4, 2:6] = True
    masks[1, 3:, :3] = True
    return masks, Result.from_masks(masks, [0.5, 0.75, 0.0], ("a cat", "a mat", "a bat"), image=image)


def test_masks_come_back_as_they_were():
    masks, result = make()
    np.testing.assert_array_equal(result.masks, masks)
    np.testing.assert_array_equal(result.mask("a mat"), masks[1])
    np.testing.assert_array_equal(result.mask(-3), masks[0])
    np.testing.assert_array_equal(result.areas, masks.sum((1, 2)))
    np.testing.assert_array_equal(result.boxes, [[2, 1, 6, 4], [0, 3, 3, 5], [0, 0, 0, 0]])
    assert result.size == (5, 7) and result.boxes.dtype == np.float32 and len(result) == 3
    assert "a cat 0.50" in repr(result) and "2 of 3" in repr(result) and "bat" not in repr(result)


def test_no_masks():
    result = Result.from_masks(np.zeros((0, 4, 6), bool), [], ())
    assert result.masks.shape == (0, 4, 6) and result.boxes.shape == (0, 4) and result.areas.shape == (0,)
    assert result.to_coco() == [] and result.to_panoptic().segments_info == []
    assert not result.to_panoptic().ids.any()


@pytest.mark.parametrize(
    "masks, scores, labels, message",
    [
        (np.zeros((1, 4, 4)), [1.0], ("a",), "expected bool"),
        (np.zeros((4, 4), bool), [1.0], ("a",), r"\(4, 4\)"),
        (np.zeros((1, 4, 4), bool), [1.0, 0.0], ("a",), "2 scores"),
        (np.zeros((1, 4, 4), bool), [1.0], ("a", "b"), "2 labels"),
        (np.zeros((1, 4, 4), bool), [np.nan], ("a",), "finite"),
    ],
)
def test_what_does_not_fit_is_refused(masks, scores, labels, message):
    with pytest.raises(ValueError, match=message):
        Result.from_masks(masks, scores, labels)


def test_an_image_of_another_size_is_refused():
    with pytest.raises(ValueError, match=r"\(5, 7\).*\(7, 5\)"):
        make(image=np.zeros((7, 5, 3), np.uint8))


def test_join_equals_all_at_once():
    masks, whole = make()
    parts = [Result.from_masks(masks[i : i + 2], whole.scores[i : i + 2], whole.labels[i : i + 2]) for i in (0, 2)]
    joined = Result.join(parts)
    np.testing.assert_array_equal(joined.masks, masks)
    np.testing.assert_array_equal(joined.boxes, whole.boxes)
    assert joined.labels == whole.labels and joined.scores.tolist() == whole.scores.tolist()


def test_coco_rows_are_read_by_pycocotools(tmp_path):
    masks, result = make()
    rows = json.loads(json.dumps(result.to_coco(17)))
    assert [row["category"] for row in rows] == ["a cat", "a mat"]  # the empty one is left out
    for row, mask in zip(rows, masks, strict=False):
        np.testing.assert_array_equal(coco.decode(row["segmentation"]).astype(bool), mask)
        assert coco.area(row["segmentation"]) == mask.sum()
        np.testing.assert_array_equal(coco.toBbox(row["segmentation"]), row["bbox"])
        assert row["image_id"] == 17
    assert [row["category_id"] for row in rows] == [1, 2]
    ids = [row["category_id"] for row in result.to_coco(category_ids={"a cat": 17, "a mat": 3, "a bat": 5})]
    assert ids == [17, 3]
    with pytest.raises(ValueError, match="a bat"):
        result.to_coco(category_ids={"a cat": 1, "a mat": 2})


def test_coco_rows_are_loaded_as_results(tmp_path):
    from pycocotools.coco import COCO

    _, result = make()
    annotations = COCO()
    annotations.dataset = {"images": [{"id": 17}], "categories": [{"id": 1}, {"id": 2}], "annotations": []}
    annotations.createIndex()
    loaded = annotations.loadRes(result.to_coco(17))
    assert [a["area"] for a in loaded.loadAnns(loaded.getAnnIds(17))] == result.areas[:2].tolist()


def test_panoptic_gives_overlaps_to_the_higher_score():
    masks, result = make()
    ids, segments = result.to_panoptic()
    expected = np.where(masks[1], 2, np.where(masks[0], 1, 0))
    np.testing.assert_array_equal(ids, expected)
    assert [s["area"] for s in segments] == [(expected == 1).sum(), (expected == 2).sum()]
    assert segments[1]["bbox"] == [0, 3, 3, 2] and segments[0]["category"] == "a cat"


def test_panoptic_equal_scores_go_to_the_first_and_hidden_segments_go():
    masks = np.ones((2, 3, 3), bool)
    ids, segments = Result.from_masks(masks, [0.5, 0.5], ("first", "second")).to_panoptic()
    assert (ids == 1).all() and [s["category"] for s in segments] == ["first"]


def test_panoptic_png_holds_ids_beyond_a_byte(tmp_path):
    masks = np.zeros((300, 1, 300), bool)
    masks[np.arange(300), 0, np.arange(300)] = True
    panoptic = Result.from_masks(masks, np.ones(300), [f"{i}" for i in range(300)]).to_panoptic()
    panoptic.to_png().save(tmp_path / "p.png")
    rgb = np.asarray(Image.open(tmp_path / "p.png")).astype(int)
    np.testing.assert_array_equal(rgb @ [1, 256, 65536], panoptic.ids)
    assert panoptic.ids.max() == 300
    large = panoptic._replace(ids=np.array([[65536 * 3 + 256 * 2 + 1]], np.int32)).to_png()
    assert large.getpixel((0, 0)) == (1, 2, 3)


def test_picture_needs_the_photograph(tmp_path):
    _, result = make()
    with pytest.raises(ValueError, match="not known"):
        result.picture()
    image = np.full((5, 7, 3), 100, np.uint8)
    Image.fromarray(image).save(tmp_path / "été.png")
    masks, held = make(image=image)
    read = Result.from_masks(masks, held.scores, held.labels, path=str(tmp_path / "été.png"))
    np.testing.assert_array_equal(np.asarray(read.picture()), np.asarray(held.picture()))


def test_show_returns_a_picture_where_there_is_no_screen(monkeypatch):
    for name in ("DISPLAY", "WAYLAND_DISPLAY"):
        monkeypatch.delenv(name, raising=False)
    _, result = make(image=np.zeros((5, 7, 3), np.uint8))
    monkeypatch.setattr("sys.platform", "linux")
    assert isinstance(result.show(), Image.Image)


def test_save_writes_what_can_be_read_again(tmp_path):
    masks = make()[0]
    image = np.zeros((5, 7, 3), np.uint8)
    labels = ("a cat", "A Cat!", "日本/../x\0")
    result = Result.from_masks(masks, [0.5, 0.75, 0.0], labels, path="somewhere.jpg", image=image)
    folder = tmp_path / "out here"
    content = json.loads(result.save(folder, "my photo").read_text())
    assert content["path"] == "somewhere.jpg" and content["size"] == [5, 7] and content["prompts"] == list(labels)
    assert Image.open(folder / content["picture"]).size[0] >= 7
    files = [row["file"] for row in content["masks"]]
    assert len(set(files)) == 3 and all(file.startswith("my photo_masks/") for file in files)
    for row, mask in zip(content["masks"], masks, strict=True):
        written = np.asarray(Image.open(folder / row["file"]))
        np.testing.assert_array_equal(written, np.where(mask, 255, 0))
        np.testing.assert_array_equal(coco.decode(row["rle"]).astype(bool), mask)
        assert row["area"] == mask.sum()
    assert content["masks"][0]["box_xyxy"] == [2, 1, 6, 4]
    assert sorted(p.name for p in folder.iterdir()) == ["my photo.json", "my photo.png", "my photo_masks"]


def test_masks_are_decoded_one_at_a_time():
    masks, result = make()
    lazy = Masks(result.rles)
    assert len(lazy) == 3 and len(lazy[1:]) == 2
    np.testing.assert_array_equal(lazy[1:][0], masks[1])
    assert len(list(lazy)) == 3
