"""Masks that training compares with, from annotations of every quality."""

import numpy as np
import pytest

from jaxseg.preprocess import Context, geometry, objects, parse
from jaxseg.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(("dog", "cat", "sky"), (True, True, False))
SIZE = (6, 8)


def made(text, example, vocabulary=VOCABULARY, seed=0):
    return parse(f"decode|{text}")(example, Context(np.random.default_rng(seed), vocabulary))


def with_objects(*items):
    return {"image": np.zeros((*SIZE, 3), np.uint8), "objects": list(items), "path": "a.jpg"}


def rectangle(x, y, width, height, class_id=0, **more):
    outline = [x, y, x + width, y, x + width, y + height, x, y + height]
    return {"class_id": class_id, "segmentation": [outline], **more}


def with_segments(**more):
    """A dog on the left, a crowd of cats at the top right, sky below; segment 9 of the table is nowhere in the map."""
    segment_map = np.full(SIZE, 70_000, np.int32)
    segment_map[:, :4], segment_map[:3, 4:] = 4, 300
    rows = [(70_000, 2, False), (300, 1, True), (4, 0, False), (9, 1, False)]
    segments = [{"id": i, "class_id": c, "is_crowd": crowd} for i, c, crowd in rows]
    return {"image": np.zeros((*SIZE, 3), np.uint8), "segment_map": segment_map, "segments": segments, **more}


def test_segments_in_their_order_without_crowds():
    found = made("target_masks(5)", with_segments())
    assert found["masks"].dtype == np.uint8 and found["labels"].dtype == np.int32 and found["valid"].dtype == bool
    np.testing.assert_array_equal(found["valid"], [True, True, True, False, False])
    np.testing.assert_array_equal(found["labels"], [2, 0, 1, 0, 0])
    np.testing.assert_array_equal(found["masks"].sum((1, 2)), [12, 24, 0, 0, 0])  # what the map lacks is an empty mask
    assert found["masks"][0, 3:, 4:].all() and found["masks"][1, :, :4].all()
    np.testing.assert_array_equal(found["image_size"], SIZE)
    assert found["image_size"].dtype == np.int32


def test_options():
    np.testing.assert_array_equal(made("target_masks(3, things_only=True)", with_segments())["labels"], [0, 1, 0])
    agnostic = made("target_masks(3, class_agnostic=True)", with_segments())
    assert not agnostic["labels"].any() and agnostic["valid"].all()
    drawn = made("target_masks(3, min_pixels=1)", with_segments())
    np.testing.assert_array_equal(drawn["valid"], [True, True, False])
    np.testing.assert_array_equal(drawn["labels"], [2, 0, 0])
    with pytest.raises(ValueError, match="things_only needs a source whose classes say which are things"):
        made("target_masks(3, things_only=True)", with_segments(), vocabulary=None)
    for wrong, message in (("0", "num: found 0"), ("3, min_pixels=-1", "min_pixels: found -1")):
        with pytest.raises(ValueError, match=message):
            parse(f"target_masks({wrong})")


def test_of_too_many_the_largest_stay(caplog):
    items = [
        rectangle(0, 0, 2, 2),
        rectangle(0, 0, 4, 4, 1),
        rectangle(4, 0, 2, 2, 2),
        rectangle(0, 0, 3, 3),
        rectangle(0, 0, 1, 1),
    ]
    op = parse("decode|target_masks(3)")
    for _ in range(2):
        found = op(with_objects(*items), Context(None, VOCABULARY))
        np.testing.assert_array_equal(found["masks"].sum((1, 2)), [4, 16, 9])
        np.testing.assert_array_equal(found["labels"], [0, 1, 0])  # the first of the two of four pixels, in the file's order
    assert caplog.text.count("a.jpg: 5 masks, target_masks keeps the 3 largest (said once)") == 1


@pytest.mark.parametrize(
    "items",
    [
        (),
        (rectangle(0, 0, 4, 4, is_crowd=True),),
        ({"class_id": 0, "segmentation": {"size": [6, 8], "counts": [8, 10, 30]}, "is_crowd": True},),
        ({"class_id": 0, "segmentation": [[1, 1, 4, 4]], "box_xyxy": (1, 1, 4, 4)},),  # a polygon of two points: a box alone
        ({"class_id": 0, "segmentation": {"size": [6, 8], "counts": [48]}},),  # an empty mask
        (rectangle(20, 20, 4, 4),),
    ],
)
def test_an_image_without_a_usable_object(items):
    found = made("flip_lr|resize_scale_crop(8)|target_masks(2)", with_objects(*items))
    assert found["masks"].shape == (2, 8, 8) and not found["masks"].any() and not found["valid"].any()


def test_masks_of_one_pixel_and_of_none():
    """An outline too small to hit a pixel is an object all the same; run lengths without a pixel are none."""
    pixel = {"class_id": 1, "segmentation": {"size": [6, 8], "counts": [13, 1, 34]}}
    tiny = rectangle(2.1, 2.1, 0.1, 0.1, 2)
    found = made("target_masks(3)", with_objects(pixel, tiny))
    np.testing.assert_array_equal(found["valid"], [True, True, False])
    np.testing.assert_array_equal(found["masks"].sum((1, 2)), [1, 0, 0])
    assert found["masks"][0, 1, 2] == 1  # column by column
    shrunk = made("resize(3)|target_masks(3)", with_objects(pixel, rectangle(0, 0, 8, 6, 2)))  # without the pixel's column
    np.testing.assert_array_equal(shrunk["labels"], [2, 0, 0])
    np.testing.assert_array_equal(shrunk["valid"], [True, False, False])


def test_a_class_that_the_vocabulary_lacks_is_refused():
    for example in (with_objects(rectangle(0, 0, 2, 2, 3)), with_segments(path="a.jpg")):
        if "segments" in example:
            example["segments"][0]["class_id"] = 3
        with pytest.raises(ValueError, match=r"a\.jpg: class id 3, expected 0 to 2"):
            made("target_masks(2)", example)
    with pytest.raises(ValueError, match="the example has no objects and no segment_map"):
        made("target_masks(2)", {"image": np.zeros((*SIZE, 3), np.uint8)})


def test_labels_of_another_size_than_the_image_are_refused():
    with pytest.raises(ValueError, match=r"segment_map is \(6, 8\), the image is \(6, 9\)"):
        made("target_masks(2)", with_segments(image=np.zeros((6, 9, 3), np.uint8)))
    with pytest.raises(ValueError, match=r"the annotations are of \(7, 8\), the image is \(6, 8\)"):
        made("target_masks(2)", {**with_objects(), "annotated_size": (7, 8)})


def _cropped(outline, y, x, size, canvas=(40, 40)):
    """The pieces of a polygon in a window, and whether the object counts there."""
    item = {"class_id": 0, "segmentation": [outline]}
    (moved,) = objects.cropped(objects.checked([item], canvas, "a"), y, x, size)
    return moved["segmentation"], objects.has_extent(moved)


def test_cropping_cuts_outlines_into_pieces():
    comb = [0, 0, 30, 0, 30, 20, 20, 20, 20, 10, 10, 10, 10, 20, 0, 20]  # two teeth that hang down
    pieces, counts = _cropped(comb, 12, 0, (20, 40))
    assert counts and sorted(p[:, 0].min() for p in pieces) == [0, 20] and all(len(p) == 4 for p in pieces)
    whole, _ = _cropped(comb, 5, 5, (35, 35))
    assert len(whole) == 1 and whole[0].min() == 0
    around = [0, 0, 30, 0, 30, 5, 5, 5, 5, 30, 0, 30]  # around a corner of the window, outside; then along its border only
    assert _cropped(around, 8, 8, (20, 20)) == ([], False)
    assert _cropped(around, 5, 5, (20, 20)) == ([], False)


def test_an_object_that_the_crop_leaves_out_is_no_target():
    class Draws:
        def __init__(self, *values):
            self._values = iter(values)

        def uniform(self, *_):
            return next(self._values)

    items = [rectangle(0, 0, 1, 1), rectangle(6, 4, 2, 2, 1)]
    corner = parse("decode|crop((3, 4))|target_masks(2)")(with_objects(*items), Context(Draws(1.0, 1.0), VOCABULARY))
    np.testing.assert_array_equal(corner["labels"], [1, 0])
    np.testing.assert_array_equal(corner["valid"], [True, False])
    np.testing.assert_array_equal(corner["masks"].sum((1, 2)), [4, 0])


def test_padding_to_multiples_remembers_the_size():
    given = {**with_segments(), "image": np.full((*SIZE, 3), 7, np.uint8)}
    found = made("label_map|pad_to_multiple(5)|target_masks(3)", given)
    assert found["image"].shape == (10, 10, 3) and found["image"].sum() == 7 * 3 * 48
    np.testing.assert_array_equal(found["image_size"], SIZE)
    assert found["masks"].shape[1:] == found["label_map"].shape == SIZE  # as evaluation compares
    together = made("label_map|pad_to_multiple(5, labels=True)|target_masks(3)", given)
    assert together["masks"].shape[1:] == together["label_map"].shape == (10, 10)
    assert (together["label_map"][6:] == -1).all() and not together["masks"][:, 6:].any()
    np.testing.assert_array_equal(together["image_size"], SIZE)
    exact = made("pad_to_multiple(2)", given)
    np.testing.assert_array_equal(exact["image"], given["image"])
    floats = made("normalize(imagenet)|pad_to_multiple(32)", given)["image"]
    assert floats.dtype == np.float32 and floats.shape == (32, 32, 3) and not floats[6:].any()


def test_masks_move_with_their_pixels():
    found = made("target_masks(1)", with_objects(rectangle(0, 0, 3, 2)))
    np.testing.assert_array_equal(geometry.flipped(found)["masks"], found["masks"][..., ::-1])
