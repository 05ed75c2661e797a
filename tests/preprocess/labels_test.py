"""Annotations of every quality, as class maps and as prompts with masks."""

import numpy as np
import pytest
from pycocotools import mask as coco

from jaxseg.preprocess import Context, objects, parse
from jaxseg.preprocess.labels import ClassMasks
from jaxseg.text.vocabulary import Vocabulary

VOCABULARY = Vocabulary(("dog", "cat", "sky"), (True, True, False))


def context(seed=0):
    return Context(np.random.default_rng(seed), VOCABULARY)


def with_segments(crowd=False):
    """A dog (left), a cat (top right), void (bottom right)."""
    segment_map = np.zeros((6, 8), np.int32)
    segment_map[:, :4], segment_map[:3, 4:] = 4, 1_000_000
    segments = [{"id": 4, "class_id": 0, "is_crowd": crowd}, {"id": 1_000_000, "class_id": 1}, {"id": 4, "class_id": 2}]
    return {"image": np.zeros((6, 8, 3), np.uint8), "segment_map": segment_map, "segments": segments}


def with_objects(*items):
    return {"image": np.zeros((6, 8, 3), np.uint8), "objects": list(items), "path": "a.jpg"}


def square(x, y, side, class_id=0, **more):
    return {"class_id": class_id, "segmentation": [[x, y, x + side, y, x + side, y + side, x, y + side]], **more}


def test_class_map_of_segments():
    found = parse("decode|label_map")(with_segments(), context())["label_map"]
    assert found.dtype == np.int32
    assert (found[:, :4] == 0).all() and (found[:3, 4:] == 1).all() and (found[3:, 4:] == -1).all()  # the first of a double id
    assert (parse("decode|label_map")(with_segments(crowd=True), context())["label_map"][:, :4] == -1).all()
    small = with_segments()
    small["segment_map"][:3, 4:] = 7  # small ids take another way
    small["segments"][1]["id"] = 7
    np.testing.assert_array_equal(parse("decode|label_map")(small, context())["label_map"], found)


def test_class_ids_beyond_the_vocabulary_are_refused():
    wrong = with_segments() | {"path": "b.png"}
    wrong["segments"][1]["class_id"] = 3
    for text in ("decode|label_map", "decode|phrases(2)"):
        with pytest.raises(ValueError, match=r"b\.png: class id 3, expected 0 to 2"):
            parse(text)(wrong, context())


def test_objects_that_cannot_be_drawn():
    size = (6, 8)
    two_points = {"class_id": 0, "segmentation": [[1, 1, 4, 4]], "box_xyxy": (1, 1, 4, 4)}
    nothing = {"class_id": 0, "segmentation": [], "box_xyxy": (3, 3, 3, 3)}
    outside = square(2, 2, 3, box_xyxy=(-5, -5, 100, 100))
    gone = {"class_id": 1, "segmentation": [], "box_xyxy": (20, 20, 30, 30)}
    kept = objects.checked([two_points, nothing, outside, gone], size, "a")
    assert [o["has_outline"] for o in kept] == [False, True]
    np.testing.assert_array_equal(kept[1]["box_xyxy"], [0, 0, 8, 6])
    np.testing.assert_array_equal(objects.draw(kept, size).sum((1, 2)), [0, 9])


@pytest.mark.parametrize(
    ("segmentation", "message"),
    [
        ({"size": [8, 6], "counts": [48]}, "run-length mask of size [8, 6], the image is [6, 8]"),
        ({"size": [6, 8], "counts": [40, 9]}, "counts do not add up"),
        ({"size": [6, 8], "counts": [50, -2]}, "counts do not add up"),
        ({"size": [6, 8], "counts": "zzzz~~~~"}, "run-length mask cannot be read"),
        ({"size": [6, 8], "counts": b"\x81"}, "run-length mask cannot be read"),
        ({"size": [6, 8]}, "run-length mask cannot be read"),
        ([[0, 0, 1, float("nan"), 2, 2]], "not a finite number"),
    ],
)
def test_broken_outlines_name_the_file_and_the_object(segmentation, message):
    with pytest.raises(ValueError) as error:
        parse("decode")(with_objects(square(0, 0, 2), {"class_id": 0, "segmentation": segmentation}))
    assert "a.jpg: object 1" in str(error.value) and message in str(error.value)


def test_run_lengths_compressed_and_not_are_the_same_mask():
    mask = np.random.default_rng(0).uniform(size=(6, 8)) > 0.6
    packed = coco.encode(np.asfortranarray(mask.astype(np.uint8)))
    flat = mask.T.ravel().astype(int)
    runs = np.diff([0, *(np.flatnonzero(np.diff(flat)) + 1), flat.size]).tolist()
    counts = [0, *runs] if flat[0] else runs
    forms = (packed["counts"], packed["counts"].decode(), counts)
    items = [{"class_id": 0, "segmentation": {"size": [6, 8], "counts": form}} for form in forms]
    for drawn in objects.draw(objects.checked(items, (6, 8), "a"), (6, 8)):
        np.testing.assert_array_equal(drawn, mask)


def test_long_runs_are_added_up_as_pycocotools_reads_them():
    """Differences beyond five bits, negative ones, and every count after the second relative to the one two before."""
    mask = np.zeros((300, 400), np.uint8)
    mask[7:290, 3:390] = 1
    mask[100:103, 50:300] = 0
    packed = coco.encode(np.asfortranarray(mask))["counts"]
    item = objects.checked([{"class_id": 0, "segmentation": {"size": [300, 400], "counts": packed}}], mask.shape, "a")[0]
    np.testing.assert_array_equal(item["segmentation"], mask)


def test_phrases_name_what_their_masks_show():
    given = with_segments()
    for seed in range(20):
        made = parse("decode|phrases(4, negatives=0.5, templates='shuffle+')")(given, context(seed))
        assert made["mask"].shape == made["mask_valid"].shape == (4, 6, 8)
        assert made["mask"].dtype == made["mask_valid"].dtype == np.float32
        for phrase, mask, valid in zip(made["phrases"], made["mask"], made["mask_valid"], strict=True):
            (name,) = [n for n in VOCABULARY.names if n in phrase]
            expected = np.zeros((6, 8))
            if name == "dog":
                expected[:, :4] = 1
            if name == "cat":
                expected[:3, 4:] = 1
            np.testing.assert_array_equal(mask, expected)
            assert not valid[3:, 4:].any() and valid[:3].all() and valid[:, :4].all()


def test_the_share_of_absent_names():
    drawn = [parse("decode|phrases(1, negatives=0.2)")(with_segments(), context(s))["phrases"][0] for s in range(500)]
    assert 0.14 < drawn.count("sky") / 500 < 0.26
    assert abs(drawn.count("dog") - drawn.count("cat")) < 80
    both = parse("decode|phrases(2)")(with_segments(), context())["phrases"]
    assert sorted(both) == ["cat", "dog"]  # no name twice while there are others


def test_the_share_of_things():
    """With a dog and sky in view; and where there are only things, whatever the share."""
    view = with_objects(square(0, 0, 3), square(4, 0, 3, class_id=2))
    drawn = [parse("decode|phrases(1, things=0.8)")(view, context(s))["phrases"][0] for s in range(500)]
    assert 0.74 < drawn.count("dog") / 500 < 0.86
    assert drawn.count("dog") + drawn.count("sky") == 500
    assert sorted(parse("decode|phrases(2, things=0.0)")(with_segments(), context())["phrases"]) == ["cat", "dog"]
    with pytest.raises(ValueError, match="things"):
        parse("decode|phrases(2, things=1.5)")


@pytest.mark.parametrize("items", [(), ({"class_id": 0, "segmentation": [[1, 1, 2, 2]], "box_xyxy": (0, 0, 4, 6)},)])
def test_an_image_without_objects_gets_absent_names(items):
    made = parse("decode|phrases(3)")(with_objects(*items), context())
    assert not made["mask"].any()
    for phrase, valid in zip(made["phrases"], made["mask_valid"], strict=True):
        boxed = bool(items) and phrase == "dog"
        assert valid[:, 4:].all() and bool(valid[:, :4].all()) is not boxed and bool(valid[:, :4].any()) is not boxed


def test_everything_present_leaves_nothing_absent_to_name():
    every = with_objects(*(square(2 * c, 0, 2, class_id=c) for c in range(3)))
    made = parse("decode|phrases(6, negatives=1.0)")(every, context())
    assert all(mask.sum() == 4 for mask in made["mask"])
    assert sorted(made["phrases"][:3]) == ["cat", "dog", "sky"]


def test_crowds_say_nothing_of_their_class_only():
    crowd = {"class_id": 0, "is_crowd": True, "segmentation": [[0, 0, 4, 0, 4, 6, 0, 6]]}
    given = parse("decode")(with_objects(crowd, square(3, 0, 3, class_id=0), square(5, 0, 3, class_id=1)))
    masks = ClassMasks(given)
    assert sorted(masks.seen) == [0, 1]
    assert not masks.known(0)[:, :3].any() and masks.known(0)[:3, 3:].all() and masks.known(1).all() and masks.known(2).all()
    assert (masks.mask(0) & masks.mask(1)).sum() == 3  # objects may overlap
    for text, left in (("label_map", -1), ("label_map(crowds=True)", 0)):
        assert (parse(f"decode|{text}")(with_objects(crowd), context())["label_map"][:, :4] == left).all()
    only_crowd = parse("decode|phrases(2)")(with_objects(crowd), context())
    assert not only_crowd["mask"].any()


def test_expressions_bring_their_own_segment():
    given = with_segments() | {"expressions": [{"text": "the left dog", "segment_id": 4}]}
    made = parse("decode|phrases(1, expressions=1.0)")(given, context())
    assert made["phrases"] == ("the left dog",)
    np.testing.assert_array_equal(made["mask"][0], given["segment_map"] == 4)


def test_tokens_of_phrases_and_captions():
    made = parse("decode|phrases(2)|tokenize(context_length=8)")(with_segments(), context())
    assert made["token_ids"].shape == (2, 8) and made["token_ids"].dtype == np.int32
    long = parse("caption(context_length=5)")({"caption": "a dog and a cat and a bird"})["token_ids"]
    assert long.shape == (5,) and long[0] == 49406 and long[-1] == 49407
    with pytest.raises(ValueError, match=r"no phrases to tokenize \(phrases makes them\)"):
        parse("tokenize")({})
