import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.metrics.evaluator import add, make_evaluator
from jaxseg.metrics.pq import TABLE, Segments, class_quality, index_of, segment_counts
from jaxseg.preprocess.segment_table import segment_table
from jaxseg.text.vocabulary import Vocabulary

NAMES = Vocabulary(("cat", "dog", "sky"), (True, True, False), {"seen": (0, 2), "unseen": (1,)})
ROWS = 6  # of every table
EVALUATOR = make_evaluator("pq", NAMES)
count = jax.jit(EVALUATOR.count)
counted = jax.jit(segment_counts, static_argnums=2)


def by_definition(predicted, predicted_classes, true_map, segments):
    """panopticapi's rules as loops: {class: [tp, fp, fn, sum of overlaps]} of one image."""
    found = {c: [0, 0, 0, 0.0] for c in range(len(NAMES))}
    matched = set()
    areas = {p: np.sum(predicted == p) for p in predicted_classes}
    for segment in segments:
        hits = 0
        for p, c in predicted_classes.items():
            if segment["is_crowd"] or c != segment["class_id"]:
                continue
            common = np.sum((predicted == p) & (true_map == segment["id"]))
            void = np.sum((predicted == p) & (true_map == 0))
            overlap = common / (areas[p] + segment["area"] - common - void)
            if overlap > 0.5:
                found[c][0] += 1
                found[c][3] += overlap
                matched.add(p)
                hits += 1
        found[segment["class_id"]][2] += not (hits or segment["is_crowd"])
    crowd_of = {s["class_id"]: s["id"] for s in segments if s["is_crowd"]}  # the last of each class
    for p, c in predicted_classes.items():
        if p not in matched:
            ignored = np.sum((predicted == p) & ((true_map == 0) | (true_map == crowd_of.get(c, -1))))
            found[c][1] += not ignored / areas[p] > 0.5
    return found


def random_image(rng, size=(9, 11)):
    """(predicted map, {id: class}, true map, segments) with crowds, void, an id that no table has, and areas of their own."""
    true_map = np.repeat(np.repeat(rng.integers(0, 7, (3, 4)), 3, 0), 3, 1)[: size[0], : size[1]]
    true_map = np.array([0, 900, 17, 65536, 3, 255, 40000])[true_map]
    segments = [
        {"id": i, "class_id": int(rng.integers(3)), "is_crowd": bool(rng.random() < 0.3), "area": int(np.sum(true_map == i))}
        for i in (900, 17, 65536, 3, 255)
        if np.any(true_map == i)
    ]
    for segment in segments[:1]:
        segment["area"] += 2
    predicted = np.zeros(size, int)
    for i in range(1, 5):  # mostly what is true, moved by a pixel
        where = true_map == rng.choice([900, 17, 65536, 3, 255, 0])
        predicted[np.roll(where, rng.integers(2), 1)] = i
    close = {s["id"]: s["class_id"] for s in segments}
    classes = {}
    for i in np.unique(predicted[predicted > 0]).tolist():
        true = np.bincount(np.searchsorted(np.unique(true_map), true_map[predicted == i]))
        classes[i] = close.get(int(np.unique(true_map)[np.argmax(true)]), int(rng.integers(3)))
    return predicted, classes, true_map, segments


def table_of(segments):
    return segment_table(ROWS)({"segments": segments, "segment_map": np.zeros((1, 1), int)}, None)


def outputs_and_batch(images, keep=None):
    tables = [table_of(segments) for _, _, _, segments in images]
    classes = np.full((len(images), ROWS), -1, np.int32)
    for row, (_, of, _, _) in zip(classes, images, strict=True):
        for i, c in of.items():
            row[i - 1] = c
    outputs = {
        "panoptic_map": np.stack([predicted for predicted, *_ in images]).astype(np.int32),
        "panoptic_valid": classes >= 0,
        "panoptic_classes": classes,
    }
    batch = {name: np.stack([table[name] for table in tables]) for name in TABLE}
    batch["segment_map"] = np.stack([true_map for _, _, true_map, _ in images]).astype(np.int32)
    batch["example_mask"] = np.ones(len(images), bool) if keep is None else np.asarray(keep)
    return jax.tree.map(jnp.asarray, (outputs, batch))


def test_equals_the_loops():
    rng, total, expected = np.random.default_rng(0), {}, np.zeros((3, 4))
    for _ in range(25):
        images = [random_image(rng) for _ in range(2)]
        total = add(total, count(*outputs_and_batch(images)))
        for image in images:
            found = by_definition(*image)
            expected += np.array([found[c] for c in range(3)])
    scores = class_quality(total)
    found = np.stack([scores[name] for name in ("tp", "fp", "fn", "overlap")], -1)
    np.testing.assert_array_equal(found[:, :3], expected[:, :3])
    np.testing.assert_allclose(found[:, 3], expected[:, 3], rtol=0, atol=1e-12)
    assert (expected > 3).all()  # the examples tell something
    metrics = EVALUATOR.compute(total)
    quality = expected[:, 3] / (expected[:, 0] + expected[:, 1:3].sum(1) / 2)
    assert metrics["pq"] == pytest.approx(quality.mean()) and metrics["pq/things"] == pytest.approx(quality[:2].mean())
    assert metrics["pq/unseen"] == pytest.approx(quality[1]) and metrics["class_pq/sky"] == pytest.approx(quality[2])
    a, b = metrics["pq/seen"], metrics["pq/unseen"]
    assert metrics["pq/harmonic"] == pytest.approx(2 * a * b / (a + b))
    assert metrics["class_tp/cat"] == expected[0, 0] and metrics["class_fn/dog"] == expected[1, 2]


def test_batches_padding_and_canvas_do_not_matter():
    rng = np.random.default_rng(1)
    images = [random_image(rng) for _ in range(4)]
    whole = add({}, count(*outputs_and_batch(images)))
    parts = add({}, count(*outputs_and_batch(images[:3], [True, True, False])))
    parts = add(parts, count(*outputs_and_batch(images[2:])))
    outputs, batch = outputs_and_batch(images)
    grown = {name: jnp.pad(x, ((0, 0), (0, 3), (0, 5))) if x.ndim == 3 else x for name, x in (outputs | batch).items()}
    canvas = add({}, count(grown, grown))
    for other in (parts, canvas):
        assert other.keys() == whole.keys()
        for name, value in whole.items():
            np.testing.assert_array_equal(other[name], value)


def one(predicted, classes, truth, segments):
    """(tp, fp, fn, overlap) of class 0 from rows of pixels."""
    predicted, truth = np.array([predicted]), np.array([truth])
    outputs, batch = outputs_and_batch([(predicted, classes, truth, segments)])
    scores = class_quality(add({}, count(outputs, batch)))
    return [scores[name][0] for name in ("tp", "fp", "fn", "overlap")]


def segment(id, area, class_id=0, is_crowd=False):
    return {"id": id, "class_id": class_id, "is_crowd": is_crowd, "area": area}


def test_half_is_no_match():
    assert one([1, 1, 0, 0], {1: 0}, [7, 7, 7, 7], [segment(7, 4)]) == [0, 1, 1, 0]
    assert one([1, 1, 1, 0], {1: 0}, [7, 7, 7, 7], [segment(7, 4)]) == [1, 0, 0, 0.75]
    assert one([1, 1, 1, 1], {1: 0}, [7, 7, 7, 7], [segment(7, 4)]) == [1, 0, 0, 1]
    assert one([1, 1, 1, 1], {1: 1}, [7, 7, 7, 7], [segment(7, 4)]) == [0, 0, 1, 0]


def test_void_is_neither_right_nor_wrong():
    # Union: 4 + 2 - 2 - 2 void.
    assert one([1, 1, 1, 1], {1: 0}, [7, 7, 0, 0], [segment(7, 2)]) == [1, 0, 0, 1]
    assert one([1, 1, 1, 0], {1: 0}, [0, 0, 5, 5], [segment(5, 2, 1)]) == [0, 0, 0, 0]  # two thirds are void
    assert one([1, 1, 0, 0], {1: 0}, [0, 5, 5, 5], [segment(5, 3, 1)]) == [0, 1, 0, 0]  # one half is not more than half
    # Void alone; and what no table has is neither void nor a segment.
    assert one([1, 1, 0, 0], {1: 0}, [0, 0, 0, 0], []) == [0, 0, 0, 0]
    assert one([1, 1, 0, 0], {1: 0}, [9, 9, 9, 9], []) == [0, 1, 0, 0]


def test_crowds_are_no_misses_and_excuse_their_class():
    crowd = segment(7, 4, is_crowd=True)
    assert one([1, 1, 1, 0], {1: 0}, [7, 7, 7, 7], [crowd]) == [0, 0, 0, 0]
    assert one([1, 1, 1, 0], {1: 0}, [7, 7, 7, 7], [segment(7, 4, 1, True)]) == [0, 1, 0, 0]
    # Of two crowds of a class only the later one excuses.
    truth, both = [7, 7, 7, 8], [crowd, segment(8, 1, is_crowd=True)]
    assert one([1, 1, 1, 0], {1: 0}, truth, both) == [0, 1, 0, 0]
    assert one([1, 1, 1, 0], {1: 0}, truth, both[::-1]) == [0, 0, 0, 0]


def test_nothing_predicted_and_nothing_true():
    assert one([0, 0, 0, 0], {}, [7, 7, 0, 0], [segment(7, 2)]) == [0, 0, 1, 0]
    assert one([0, 0, 0, 0], {}, [0, 0, 0, 0], []) == [0, 0, 0, 0]
    # A segment of the annotation without a pixel is missed all the same.
    assert one([0, 0], {}, [0, 0], [segment(7, 5)]) == [0, 0, 1, 0]
    nothing = add({}, count(*outputs_and_batch([(np.zeros((2, 2), int), {}, np.zeros((2, 2), int), [])])))
    assert EVALUATOR.compute(nothing) == {}


def test_areas_are_the_annotations():
    assert one([1, 1, 1, 0], {1: 0}, [7, 7, 7, 0], [segment(7, 6)]) == [0, 1, 1, 0]
    assert one([1, 1, 1, 0], {1: 0}, [7, 7, 7, 0], [segment(7, 5)]) == [1, 0, 0, pytest.approx(0.6, abs=1e-14)]


def test_one_pixel():
    assert one([0, 1, 0, 0], {1: 0}, [5, 7, 5, 5], [segment(7, 1), segment(5, 3, 1)]) == [1, 0, 0, 1]


def test_overlaps_are_exact():
    # 2/3 of many segments: float32 sums would be off by 1e-5 or so.
    ids = np.repeat(np.arange(1, 201), 3)[None]
    predicted = np.where(np.arange(600) % 3 < 2, ids, 0)
    rows, valid = jnp.zeros(200, jnp.int32), jnp.ones(200, bool)
    sides = (
        Segments(jnp.asarray(predicted), valid, rows),
        Segments(index_of(jnp.asarray(ids), jnp.arange(1, 201)), valid, rows, ~valid, rows + 3),
    )
    total = {}
    for _ in range(50):
        total = add(total, counted(*sides, 1))
    assert class_quality(total)["overlap"][0] == pytest.approx(10000 * 2 / 3, abs=1e-9)
    big = 2**25 - 1
    whole = Segments(jnp.ones((1, 1), jnp.int32), valid[:1], rows[:1], ~valid[:1], rows[:1] + big)
    assert counted(whole, whole, 1)["tp"].tolist() == [0]


def test_rows_of_ids():
    ids = jnp.asarray([70000, 5, 0, 12, 0])
    segment_map = jnp.asarray([[0, 5, 12], [70000, 6, 2**24 - 1]])
    np.testing.assert_array_equal(jax.jit(index_of)(segment_map, ids), [[0, 2, 4], [1, 6, 6]])


def test_table_of_segments():
    example = {"segment_map": np.array([[3, 3], [0, 9]]), "path": "a.png"}
    segments = [{"id": 9, "class_id": 2}, {"id": 3, "class_id": 1, "is_crowd": True}]
    found = segment_table(3)({**example, "segments": segments}, None)
    assert found["segment_ids"].tolist() == [9, 3, 0] and found["segment_classes"].tolist() == [2, 1, -1]
    assert found["segment_areas"].tolist() == [1, 2, 0] and found["segment_is_crowd"].tolist() == [False, True, False]
    with pytest.raises(ValueError, match="a.png: found 2 segments, segment_table holds 1"):
        segment_table(1)({**example, "segments": segments}, None)
    with pytest.raises(ValueError, match="num: found 0"):
        segment_table(0)
