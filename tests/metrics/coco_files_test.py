"""Files of results: what pycocotools and panoptic quality say of them is what they say of the arrays."""

import json

import jax
import numpy as np
import pytest
from PIL import Image
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from jaxseg import coco
from jaxseg.metrics import ap, coco_files
from jaxseg.metrics.pq import Segments, class_quality, index_of, segment_counts

SIZE = (40, 50)
counted = jax.jit(segment_counts, static_argnums=2)
RNG = np.random.default_rng(0)


def blobs(num):
    masks = np.zeros((num, *SIZE), bool)
    for mask in masks:
        y, x = RNG.integers(0, 30, 2)
        mask[y : y + RNG.integers(1, 12), x : x + RNG.integers(1, 16)] = True
        mask[y, x] = RNG.random() < 0.5
    return masks


@pytest.fixture(scope="module")
def truth():
    annotations = []
    for image_id in (4, 9, 11):
        for mask in blobs(5):
            rle = coco.encode_mask(mask)
            row = {"image_id": image_id, "category_id": int(RNG.choice([2, 7])), "iscrowd": int(RNG.random() < 0.2)}
            x0, y0, x1, y1 = (int(v) for v in coco.box_of(mask))
            found = {**row, "segmentation": rle, "area": int(mask.sum()), "bbox": [x0, y0, x1 - x0, y1 - y0]}
            annotations.append({**found, "id": len(annotations) + 1})
    images = [{"id": i, "height": SIZE[0], "width": SIZE[1]} for i in (4, 9, 11)]
    return {"images": images, "categories": [{"id": 2, "name": "a"}, {"id": 7, "name": "b"}], "annotations": annotations}


def detections_of(truth):
    """[(image id, mask, score, category)]: what is true moved by a pixel, rubbish, and an empty mask."""
    from pycocotools import mask as coco

    found = []
    for row in truth["annotations"]:
        mask = np.roll(coco.decode(row["segmentation"]).astype(bool), RNG.integers(0, 2), 1)
        found.append((row["image_id"], mask, float(RNG.choice([0.3, 0.6, 0.9])), row["category_id"]))
    found += [(9, mask, float(RNG.random()), 7) for mask in blobs(4)]
    return [*found, (4, np.zeros(SIZE, bool), 0.95, 2)]


def by_pycocotools(truth, path, kind, tmp_path):
    """The twelve numbers of the files, as a user of pycocotools gets them."""
    annotations = tmp_path / "truth.json"
    annotations.write_text(json.dumps(truth))
    read = COCO(str(annotations))
    run = COCOeval(read, read.loadRes(str(path)), kind)
    run.evaluate()
    run.accumulate()
    run.summarize()
    return run.stats


@pytest.mark.parametrize("kind", ["segm", "bbox"])
def test_instances_are_scored_alike_from_files(truth, tmp_path, kind):
    rows = []
    for image_id, mask, score, category in detections_of(truth):
        if kind == "segm":
            rows += coco_files.mask_rows(image_id, mask[None], [score], [category])
        else:
            rows += coco_files.box_rows(image_id, [coco.box_of(mask)], [score], [category])
    path = tmp_path / "folder" / "results.json"
    coco_files.write_instances(path, rows)
    found = np.array(list(ap.summary(ap.precision_recall(truth, rows, kind)).values()))
    np.testing.assert_array_equal(np.nan_to_num(found, nan=-1), by_pycocotools(truth, path, kind, tmp_path))
    assert 0.1 < found[0] < 0.9 and ("bbox" in rows[0]) == (kind == "bbox")


def test_areas_of_boxes_on_demand(truth, tmp_path):
    rows = [r for d in detections_of(truth) for r in coco_files.mask_rows(d[0], d[1][None], [d[2]], [d[3]])]
    from pycocotools import mask as coco

    both = [{**row, "bbox": coco.toBbox(row["segmentation"]).tolist()} for row in rows]
    path = tmp_path / "both.json"
    path.write_text(json.dumps(both))
    found = np.array(list(ap.summary(ap.precision_recall(truth, both, "segm", box_areas=True)).values()))
    np.testing.assert_array_equal(np.nan_to_num(found, nan=-1), by_pycocotools(truth, path, "segm", tmp_path))


def test_instances_that_cannot_be_written(tmp_path):
    masks, boxes = coco_files.mask_rows(1, blobs(1), [0.5], [2]), coco_files.box_rows(1, [[0, 0, 1, 1]], [0.5], [2])
    with pytest.raises(ValueError, match="with and without a box"):
        coco_files.write_instances(tmp_path / "x.json", masks + boxes)
    with pytest.raises(ValueError, match="found score nan"):
        coco_files.write_instances(tmp_path / "x.json", [{**masks[0], "score": np.nan}])
    coco_files.write_instances(tmp_path / "x.json", [])
    assert json.loads((tmp_path / "x.json").read_text()) == []
    assert coco_files.mask_rows(1, np.zeros((0, *SIZE), bool), [], []) == []


def quality(segment_map, segments, other_map, others):
    """Panoptic quality of class 0 and 1 from maps and COCO tables of categories 2 and 7."""
    sides = []
    for ids, rows in ((segment_map, segments), (other_map, others)):
        numbers = np.array([row["id"] for row in rows], np.int32)
        classes = np.array([{2: 0, 7: 1}[row["category_id"]] for row in rows], np.int32)
        crowd, areas = np.array([bool(r["iscrowd"]) for r in rows]), np.array([r["area"] for r in rows], np.int32)
        sides.append(Segments(index_of(ids, numbers), numbers > 0, classes, crowd, areas))
    sums = counted(*sides, 2)
    return class_quality({name: np.asarray(value) for name, value in sums.items()})


def test_panoptic_files_are_scored_alike(tmp_path):
    class_of = {1: 0, 300: 1, 70000: 1, 2**24 - 1: 0}
    ids = np.zeros((2, *SIZE), np.int32)
    for segment_map in ids:
        for mask, segment in zip(blobs(4), class_of, strict=True):
            segment_map[mask] = segment
    ids[1, 5, 5] = 300
    score_of = dict.fromkeys(class_of, 0.5)
    examples = [(f"im{i}", f"im{i}", m, coco_files.segments_info(m, class_of, [2, 7], score_of)) for i, m in enumerate(ids)]
    categories = [{"id": 2, "name": "a", "isthing": 1}, {"id": 7, "name": "b", "isthing": 0}]
    coco_files.write_panoptic(tmp_path / "panoptic.json", tmp_path / "panoptic", iter(examples), categories)
    read = coco_files.read_panoptic(tmp_path / "panoptic.json", tmp_path / "panoptic")
    assert list(read) == ["im0", "im1"]
    for image_id, _, segment_map, segments in examples:
        found, rows = read[image_id]
        np.testing.assert_array_equal(found, segment_map)
        assert rows == segments and sum(row["area"] for row in rows) == np.sum(segment_map > 0)
        coco_files.check_segments(found, rows, [2, 7], "file")
        written, drawn = quality(found, rows, ids[1], examples[1][3]), quality(segment_map, segments, ids[1], examples[1][3])
        for name, value in drawn.items():
            np.testing.assert_array_equal(written[name], value)
        if image_id == "im1":
            assert (written["pq"][written["n"] > 0] == 1).all()
    content = json.loads((tmp_path / "panoptic.json").read_text())
    assert content["images"][0] == {"id": "im0", "file_name": "im0.png", "height": 40, "width": 50}
    assert content["categories"] == categories


def test_segments_and_maps_that_disagree():
    segment_map = np.array([[0, 1], [1, 2]])
    rows = [{"id": 1, "category_id": 2}, {"id": 2, "category_id": 7}]
    coco_files.check_segments(segment_map, rows, [2, 7], "a")
    for segments, message in (
        (rows[:1], "^a: segment 2 is in the map and not in the table$"),
        ([*rows, {"id": 5, "category_id": 2}], "^a: segment 5 is in the table and not in the map$"),
        ([rows[0], {"id": 2, "category_id": 9}], "^a: category 9 is none of"),
    ):
        with pytest.raises(ValueError, match=message):
            coco_files.check_segments(segment_map, segments, [2, 7], "a")
    with pytest.raises(ValueError, match="segment 2 is in the map, but has no class"):
        coco_files.segments_info(segment_map, {1: 0}, [2])


def test_pictures_of_ids(tmp_path):
    ids = np.array([[0, 255], [256, 2**24 - 1]])
    coco.id_picture(ids).save(tmp_path / "ids.png")
    np.testing.assert_array_equal(coco.read_ids(tmp_path / "ids.png"), ids)
    with pytest.raises(ValueError, match="found 0 to 16777216, expected 0 to 16777215"):
        coco.id_picture(ids + np.array([[0, 0], [0, 1]]))
    Image.fromarray(np.zeros((2, 2), np.uint8)).save(tmp_path / "grey.png")
    with pytest.raises(ValueError, match="expected three channels"):
        coco.read_ids(tmp_path / "grey.png")


def test_semantic_maps_have_crowds():
    segment_map = np.array([[0, 7], [9, 4]])
    segments = [{"id": 7, "category_id": 40, "iscrowd": 1}, {"id": 9, "category_id": 2}]
    found = coco_files.semantic_map(segment_map, segments, {40: 1, 2: 0})
    np.testing.assert_array_equal(found, [[255, 1], [0, 255]])
    assert found.dtype == np.uint8
    assert coco_files.semantic_map(segment_map, [], {}, void=65535).dtype == np.uint16
