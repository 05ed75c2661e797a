import json

import numpy as np
import pytest

from jaxseg.coco import encode_mask
from jaxseg.metrics.ap import class_ap, precision_recall, summary
from jaxseg.metrics.coco_files import mask_rows
from jaxseg.metrics.evaluator import make_evaluator
from jaxseg.text.vocabulary import Vocabulary

SIZE = (20, 24)
NAMES = Vocabulary(("cat", "dog", "sky"), (True, True, False))
OPEN = Vocabulary(("cat", "dog", "cow"), (True,) * 3, {"base": (0, 2), "novel": (1,)})


def box_mask(y0, x0, y1, x1, size=SIZE):
    mask = np.zeros(size, bool)
    mask[y0:y1, x0:x1] = True
    return mask


def item(class_id, mask, is_crowd=False, **more):
    y, x = np.nonzero(mask)
    box = (x.min(), y.min(), x.max() + 1, y.max() + 1) if len(x) else (0, 0, 0, 0)
    found = {"class_id": class_id, "is_crowd": is_crowd, "segmentation": mask.astype(np.uint8), "box_xyxy": box}
    return {**found, **more}


def example(items, detections, name="1", size=SIZE, num=4):
    """(outputs, batch, metas) of one image on a canvas; detections are (class, score, mask)."""
    canvas = (size[0] + 3, size[1] + 5)
    outputs = {
        "instance_valid": np.arange(num) < len(detections),
        "instance_scores": np.zeros(num, np.float32),
        "instance_classes": np.zeros(num, np.int32),
        "instance_masks": np.ones((num, *canvas), bool),  # beyond the image there is rubbish
        "instance_boxes": np.zeros((num, 4), np.float32),
    }
    for i, (class_id, score, mask) in enumerate(detections):
        outputs["instance_classes"][i], outputs["instance_scores"][i] = class_id, score
        outputs["instance_masks"][i, : size[0], : size[1]] = mask
        outputs["instance_boxes"][i] = item(class_id, mask)["box_xyxy"]
    meta = {"id": name, "original_size": size, "objects": items}
    return {k: v[None] for k, v in outputs.items()}, {"example_mask": np.ones(1, bool)}, [meta]


def scores(text, *examples, vocabulary=NAMES):
    evaluator = make_evaluator(text, vocabulary)
    return evaluator.compute([record for one in examples for record in evaluator.collect(*one)])


CAT, DOG = box_mask(2, 2, 10, 10), box_mask(12, 3, 18, 9)


@pytest.mark.parametrize("kind", ["mask", "box"])
def test_by_hand(kind):
    shifted = box_mask(2, 3, 10, 11)  # 7 of 9 columns: overlap 7/9, above five of the ten thresholds and .75
    found = scores(f"{kind}_ap", example([item(0, CAT), item(1, DOG)], [(0, 0.9, shifted), (1, 0.8, DOG)]))
    expected = {"ap": (0.6 + 1) / 2, "ap50": 1, "ap75": 1, "ap_small": 0.8, "ar1": 0.8, "ar10": 0.8, "ar100": 0.8}
    assert {name: found[f"{kind}_{name}"] for name in expected} == pytest.approx(expected)
    assert found[f"class_{kind}_ap/cat"] == pytest.approx(0.6) and found[f"class_{kind}_ap50/dog"] == pytest.approx(1)
    assert f"{kind}_ap_large" not in found and f"class_{kind}_ap/sky" not in found


def test_a_wrong_detection_above_a_right_one():
    found = scores("mask_ap", example([item(0, CAT)], [(0, 0.9, DOG), (0, 0.8, CAT)]))
    assert found["mask_ap"] == pytest.approx(0.5)
    found = scores("mask_ap", example([item(0, CAT)], [(0, 0.9, CAT), (0, 0.8, DOG)]))
    assert found["mask_ap"] == pytest.approx(1)


def test_crowds_alone_and_nothing_at_all():
    crowd = example([item(0, CAT, is_crowd=True)], [(0, 0.9, CAT), (0, 0.8, box_mask(2, 2, 4, 4))])
    assert scores("mask_ap", crowd) == {}  # nothing to find, nothing wrong
    with_dog = example([item(0, CAT, is_crowd=True), item(0, DOG)], [(0, 0.9, CAT), (0, 0.8, DOG)])
    assert scores("mask_ap", with_dog)["mask_ap"] == pytest.approx(1)
    assert scores("mask_ap", example([], [])) == {}
    missed = example([item(0, CAT)], [])
    assert scores("mask_ap", missed)["mask_ap"] == 0 and scores("box_ap", missed)["box_ar100"] == 0
    assert scores("mask_ap", example([item(0, CAT)], [(0, 0.9, np.zeros(SIZE, bool))]))["mask_ap"] == 0


def test_stuff_is_not_counted_beside_things():
    sky = box_mask(0, 0, 1, 24)
    found = scores("mask_ap", example([item(0, CAT), item(2, sky)], [(0, 0.9, CAT), (2, 0.8, DOG)]))
    assert found["mask_ap"] == pytest.approx(1) and "class_mask_ap/sky" not in found


def test_groups():
    cow = box_mask(12, 12, 18, 20)
    items = [item(0, CAT), item(1, DOG), item(2, cow)]
    found = scores("mask_ap", example(items, [(0, 0.9, CAT), (2, 0.8, CAT), (1, 0.7, DOG)]), vocabulary=OPEN)
    expected = {"mask_ap50": 2 / 3, "mask_ap50/base": 0.5, "mask_ap50/novel": 1, "mask_ap50/harmonic_base_novel": 2 / 3}
    assert {name: found[name] for name in expected} == pytest.approx(expected)


def test_class_agnostic():
    items = [item(0, CAT), item(1, DOG)]
    one = example(items, [(2, 0.9, CAT), (0, 0.8, box_mask(0, 12, 4, 20))])
    found = scores("mask_ap(class_agnostic=True)", one, vocabulary=OPEN)
    assert found["agnostic_mask_ar100"] == pytest.approx(0.5)
    assert found["agnostic_mask_ar100/base"] == pytest.approx(1) and found["agnostic_mask_ar100/novel"] == 0


def test_one_pixel_and_polygons():
    pixel = box_mask(5, 6, 6, 7)
    assert scores("mask_ap", example([item(0, pixel)], [(0, 0.5, pixel)]))["mask_ap"] == pytest.approx(1)
    polygon = [np.array([[2.0, 2], [10, 2], [10, 10], [2, 10]])]
    counts = [2 * 20 + 2, *[8, 12] * 7, 8]  # by columns: background, object, background, ...
    counts.append(SIZE[0] * SIZE[1] - sum(counts))
    for outline in (polygon, encode_mask(CAT), {"size": list(SIZE), "counts": counts}):
        items = [{**item(0, CAT), "segmentation": outline}]
        assert scores("mask_ap", example(items, [(0, 0.5, CAT)]))["mask_ap"] == pytest.approx(1)


def test_areas_are_the_annotations():
    found = scores("mask_ap", example([item(0, CAT, area=2000.0)], [(0, 0.5, CAT)]))
    assert "mask_ap_medium" in found and "mask_ap_small" not in found


def test_order_of_the_list_does_not_matter_and_ties_follow_the_images():
    # Two images and equal scores: which is first decides, and 9 comes before 10.
    right, wrong = example([item(0, CAT)], [(0, 0.5, CAT)], "9"), example([item(0, CAT)], [(0, 0.5, DOG)], "10")
    found = scores("mask_ap", right, wrong)
    assert found == scores("mask_ap", wrong, right) and found["mask_ap"] == pytest.approx(51 / 101)
    late = example([item(0, CAT)], [(0, 0.5, DOG)], "8")
    assert scores("mask_ap", right, late)["mask_ap"] == pytest.approx(51 / 101 / 2)
    text = [example([item(0, CAT)], [(0, 0.5, m)], name) for m, name in ((CAT, "b"), (DOG, "a"))]
    assert scores("mask_ap", *text)["mask_ap"] == pytest.approx(51 / 101 / 2)


def test_examples_of_padding_are_left_out():
    outputs, batch, metas = example([item(0, CAT)], [(0, 0.9, DOG)])
    assert make_evaluator("mask_ap", NAMES).collect(outputs, {"example_mask": np.zeros(1, bool)}, metas) == []


def test_truth_from_segments_and_from_a_file(tmp_path):
    outputs, batch, metas = example([], [(0, 0.9, CAT), (1, 0.8, DOG)], name="42")
    segment_map = np.zeros((1, SIZE[0] + 3, SIZE[1] + 5), np.int32)
    segment_map[0, :20, :24] = 500 * CAT + 70000 * DOG
    segments = [{"id": 500, "class_id": 0}, {"id": 70000, "class_id": 1}, {"id": 3, "class_id": 1}]
    batch["segment_map"], metas[0]["segments"] = segment_map, segments
    found = scores("mask_ap(truth='segments')", (outputs, batch, metas))
    assert found["mask_ap"] == pytest.approx(1)
    annotation = {"image_id": 42, "iscrowd": 0, "area": 64.0, "bbox": [2, 2, 8, 8], "category_id": 7, "id": 0}
    content = {
        "images": [{"id": 42, "height": 20, "width": 24}, {"id": 43, "height": 5, "width": 5}],
        "categories": [{"id": 7, "name": "cat"}],
        "annotations": [{**annotation, "segmentation": [[2, 2, 10, 2, 10, 10, 2, 10]]}],
    }
    path = tmp_path / "instances.json"
    path.write_text(json.dumps(content))
    for kind in ("mask", "box"):
        assert scores(f"{kind}_ap({str(path)!r})", (outputs, batch, metas))[f"{kind}_ap"] == pytest.approx(1)
    with pytest.raises(ValueError, match="instances.json: no image with id 41"):
        scores(f"mask_ap({str(path)!r})", example([], [], name="41"))
    with pytest.raises(ValueError, match=r"image 43: mask of size \[5, 5\], the image is \[20, 24\]"):
        scores(f"mask_ap({str(path)!r})", example([], [], name="43"))
    path.write_text(json.dumps({**content, "categories": [{"id": 7, "name": "gnu"}]}))
    with pytest.raises(ValueError, match="category 'gnu' is none of the vocabulary's 3 names"):
        make_evaluator(f"mask_ap({str(path)!r})", NAMES)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("mask_ap('coco')", "truth: found 'coco', expected one of objects, segments, or the path of a COCO JSON"),
        ("box_ap('nowhere.json')", "nowhere.json: no such file"),
    ],
)
def test_wrong_arguments_are_one_line(text, message):
    with pytest.raises(ValueError, match=message) as error:
        make_evaluator(text, NAMES)
    assert "\n" not in str(error.value)


def test_what_does_not_fit_is_one_line():
    truth = {"images": [{"id": 1, "height": 20, "width": 24}], "categories": [{"id": 3}], "annotations": []}
    rows = mask_rows(1, np.zeros((1, 24, 20), bool), [0.5], [3])
    with pytest.raises(ValueError, match=r"^image 1: detection 1: mask of size \[24, 20\], the image is \[20, 24\]"):
        precision_recall(truth, rows, "segm")
    rows = mask_rows(2, CAT[None], [0.5], [3])
    with pytest.raises(ValueError, match="image 2: detection 1: no such image"):
        precision_recall(truth, rows, "segm")
    rows = mask_rows(1, CAT[None], [np.nan], [3])
    with pytest.raises(ValueError, match="score nan, expected a finite number"):
        precision_recall(truth, rows, "segm")
    wrong = {"id": 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 1, "segmentation": encode_mask(CAT.T)}
    with pytest.raises(ValueError, match="image 1: annotation 1: mask of size"):
        precision_recall({**truth, "annotations": [wrong]}, [], "segm")
    outside = [{**item(0, CAT), "segmentation": encode_mask(CAT.T)}]
    with pytest.raises(ValueError, match=r"^7: object 0: mask of size \[24, 20\]"):
        scores("mask_ap", example(outside, [], name="7"))
    outputs, batch, metas = example([], [])
    del metas[0]["objects"]
    with pytest.raises(ValueError, match="1: the example has no objects"):
        scores("mask_ap", (outputs, batch, metas))


def test_other_thresholds_and_numbers_of_detections():
    truth = {"images": [{"id": 1, "height": 20, "width": 24}], "categories": [{"id": 3}, {"id": 5}]}
    rows = [{"id": i + 1, "image_id": 1, "category_id": 3, "iscrowd": 0, "area": 64.0, "segmentation": encode_mask(m)}
            for i, m in enumerate((CAT, DOG))]  # fmt: skip
    detections = mask_rows(1, np.stack([CAT, DOG]), [0.9, 0.8], [3, 3])
    options = {"iou_thresholds": [0.5, 0.6], "max_detections": (1,)}
    curves = precision_recall({**truth, "annotations": rows}, detections, "segm", **options)
    found = summary(curves)
    assert found["ap"] == pytest.approx(51 / 101) and found["ar1"] == 0.5 and np.isnan(found["ap75"])
    np.testing.assert_allclose(class_ap(curves), [51 / 101, np.nan])
    assert curves.category_ids == (3, 5)
