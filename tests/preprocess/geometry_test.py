"""What moves pixels moves everything that lies on them."""

import numpy as np
import pytest
from PIL import Image

from jaxseg.preprocess import Context, geometry, objects, parse
from jaxseg.resampling import pil_nearest


def example(height=12, width=18, seed=0):
    """Every kind of label of one red rectangle, rows 2 to 6 and columns 3 to 9, on noise without red."""
    image = np.random.default_rng(seed).integers(1, 200, (height, width, 3), np.uint8)
    image[..., 0] = 0
    region = np.zeros((height, width), bool)
    region[2:6, 3:9] = True
    image[region] = (255, 0, 0)
    outline = [3, 2, 9, 2, 9, 6, 3, 6]
    items = [
        {"class_id": 0, "segmentation": [outline], "box_xyxy": (3, 2, 9, 6)},
        {"class_id": 0, "segmentation": run_lengths(region)},
    ]
    return {
        "image": image,
        "segment_map": region.astype(np.int32) * 70_000,
        "part_map": region.astype(np.int32),
        "label_map": np.where(region, 0, -1).astype(np.int32),
        "objects": objects.checked(items, (height, width), "example"),
        "label_size": (height, width),
    }


def run_lengths(mask):
    """Uncompressed run lengths, column by column."""
    flat = mask.T.ravel().astype(int)
    changes = np.flatnonzero(np.diff(flat)) + 1
    counts = np.diff([0, *changes, flat.size]).tolist()
    return {"size": list(mask.shape), "counts": [0, *counts] if flat[0] else counts}


def regions(moved):
    """The rectangle as every label says it."""
    masks = objects.draw(moved["objects"], geometry.label_size(moved)) > 0
    found = {"polygon": masks[0], "rle": masks[1], "segment_map": moved["segment_map"] == 70_000}
    return found | {"part_map": moved["part_map"] == 1, "label_map": moved["label_map"] == 0}


def box_of(region):
    ys, xs = np.nonzero(region)
    return [xs.min(), ys.min(), xs.max() + 1, ys.max() + 1]


@pytest.mark.parametrize(
    "text",
    [
        "flip_lr(1.0)", "resize((24, 36), nearest)", "crop((9, 13))", "pad((20, 25), fill=9)", "resize_short(24)",
        "flip_lr(1.0)|crop((9, 14))|pad(20)", "resize_scale_crop(16, 1.0, 1.5)",
    ],
)  # fmt: skip
def test_labels_outlines_and_boxes_stay_on_their_pixels(text):
    for seed in range(3):
        moved = parse(text)(example(), Context(np.random.default_rng(seed)))
        red = moved["image"][..., 0] > (127 if "scale" in text or "short" in text else 254)
        assert red.any()
        size = moved["image"].shape[:2]
        padding = (moved["image"] == (9 if "fill=9" in text else 128)).all(-1)  # the noise has no red
        for name, region in regions(moved).items():
            assert region.shape == size, name
            differ = (region != red) & ~padding
            # Antialiased borders may go either way.
            allowed = 2 * sum(size) if "scale" in text or "short" in text else 0
            assert differ.sum() <= allowed, (name, seed)
            assert not region[padding].any(), name
        for item, name in zip(moved["objects"], ("polygon", "rle"), strict=True):
            np.testing.assert_allclose(item["box_xyxy"], box_of(regions(moved)[name]), atol=1.01 if "scale" in text else 0.51)


def test_flip_swaps_words_of_sides():
    flipped = geometry.flipped(
        {
            **example(),
            "caption": "A Left hand, the LEFT-most bus, a bright light upright on the right side",
            "expressions": [{"text": "leftmost dog", "segment_id": 3}],
            "phrases": ("a rightside door",),
        }
    )
    assert flipped["caption"] == "A Right hand, the RIGHT-most bus, a bright light upright on the left side"
    assert flipped["expressions"] == [{"text": "rightmost dog", "segment_id": 3}]
    assert flipped["phrases"] == ("a leftside door",)


def test_flip_draws_with_its_probability():
    rng = np.random.default_rng(0)
    flip, before = parse("flip_lr"), example()
    flips = sum(not np.array_equal(flip(before, Context(rng))["image"], before["image"]) for _ in range(400))
    assert 160 < flips < 240


def test_nearest_is_pils_for_any_size():
    rng = np.random.default_rng(0)
    for in_size, out_size in rng.integers(1, 700, (200, 2)).tolist() + [[200, 256], [256, 200], [100, 78]]:
        line = np.arange(in_size, dtype=np.int32)[None]
        expected = np.asarray(Image.fromarray(line).resize((out_size, 1), Image.Resampling.NEAREST))[0]
        np.testing.assert_array_equal(pil_nearest(out_size, in_size), expected)


def test_resized_labels_keep_their_numbers():
    labels = np.random.default_rng(0).choice([0, 5, 70_000, 16_000_000], (37, 53)).astype(np.int32)
    resized = geometry.resize_nearest(labels, (90, 21))
    assert resized.dtype == np.int32
    assert set(np.unique(resized)) <= {0, 5, 70_000, 16_000_000}
    stack = geometry.resize_nearest(np.stack([labels, labels + 1]), (90, 21))
    np.testing.assert_array_equal(stack[1], resized + 1)


def test_labels_stay_at_original_size_when_asked():
    given = example()
    moved = parse("resize(7, labels=False)|normalize(clip)")(given)
    assert moved["image"].shape == (7, 7, 3)
    np.testing.assert_array_equal(moved["label_map"], given["label_map"])
    assert geometry.label_size(moved) == (12, 18)
    with pytest.raises(ValueError, match=r"crop: the labels are \(12, 18\), the image is \(7, 7\)"):
        parse("resize(7, labels=False)|crop(5)")(given, Context(np.random.default_rng(0)))


def test_short_side_and_scaled_sizes():
    assert geometry.short_side_size(480, 640, 800, 1333) == (800, 1067)
    assert geometry.short_side_size(100, 400, 800, 1333) == (333, 1333)
    assert geometry.short_side_size(640, 480, 800, 0) == (1067, 800)
    assert geometry.scaled_size(480, 640, 0.5, (1024, 1024)) == (384, 512)
    line = {"image": np.zeros((1, 900, 3), np.uint8)}
    tiny = parse("resize_scale_crop(8, 0.1, 0.1)")(line, Context(np.random.default_rng(0)))
    assert tiny["image"].shape == (8, 8, 3)  # one line at least is left


def test_clip_preprocess_cuts_labels_with_the_image():
    moved = parse("clip_preprocess(12)")(example())
    assert moved["image"].shape == (12, 12, 3)
    red = moved["image"][..., 0] > 254
    np.testing.assert_array_equal(red, moved["segment_map"] == 70_000)
    np.testing.assert_array_equal(red, objects.draw(moved["objects"], (12, 12))[0] > 0)


def test_float_images_are_not_given_to_pil():
    with pytest.raises(ValueError, match="found an image of float32; after normalize use resize_float"):
        parse("normalize(clip)|resize(4)")(example())
