import functools

import jax
import numpy as np
import pytest

from jaxseg.postprocess.panoptic import panoptic_segments

THINGS = np.array([True, False, True, False])
merge = jax.jit(panoptic_segments)


def segments(scores, masks, object_threshold=0.5, overlap_threshold=0.6, **kwargs):
    scores, masks = np.asarray(scores, np.float32), np.asarray(masks, np.float32)
    thresholds = {"object_threshold": object_threshold, "overlap_threshold": overlap_threshold}
    return jax.tree.map(np.asarray, merge(scores, masks, THINGS, **thresholds, **kwargs))


def one_after_another(class_scores, masks, object_threshold, overlap_threshold):
    """The rule as a loop over queries: (map, rows of id, class, thing, score, area)."""
    scores, labels = class_scores.max(-1), class_scores.argmax(-1)
    kept = [q for q in range(len(scores)) if labels[q] < len(THINGS) and scores[q] > object_threshold]
    found, rows, of_stuff = np.zeros(masks.shape[1:], int), [], {}
    if not kept:
        return found, rows
    winner = np.argmax(np.stack([scores[q] * masks[q] for q in kept]), 0)
    for place, q in enumerate(kept):
        won, own = winner == place, masks[q] >= 0.5
        if not (won.any() and own.any() and (won & own).any()) or won.sum() / own.sum() < overlap_threshold:
            continue
        thing = bool(THINGS[labels[q]])
        if not thing and labels[q] in of_stuff:
            row = rows[of_stuff[labels[q]] - 1]
            row[-1] += (won & own).sum()
        else:
            row = [len(rows) + 1, labels[q], thing, scores[q], (won & own).sum()]
            rows.append(row)
            of_stuff[labels[q]] = row[0]
        found[won & own] = row[0]
    return found, rows


@pytest.mark.parametrize("levels", [4, 1000])
def test_equals_the_loop(levels):
    rng, num_segments = np.random.default_rng(levels), []
    for _ in range(40):
        scores = (rng.integers(0, levels, (7, 5)) / levels).astype(np.float32)
        # Masks of a few levels: ties of scores and of pixels, probabilities of exactly one half.
        masks = (rng.integers(0, levels + 1, (7, 4, 5)) / levels).astype(np.float32)
        found = segments(scores, masks, 0.5, 0.5)
        expected, rows = one_after_another(scores, masks, 0.5, 0.5)
        np.testing.assert_array_equal(found["panoptic_map"], expected)
        num = len(rows)
        assert found["panoptic_valid"].tolist() == [True] * num + [False] * (7 - num)
        names = ("classes", "is_thing", "scores", "areas")
        for name, column in zip(names, list(zip(*rows, strict=True))[1:] if rows else (), strict=False):
            np.testing.assert_array_equal(found[f"panoptic_{name}"][:num], column)
        assert (found["panoptic_classes"][num:] == -1).all() and (found["panoptic_areas"][num:] == 0).all()
        num_segments.append(num)
    assert max(num_segments) > 2 and len(set(num_segments)) > 2  # the examples tell something


def rectangles(*boxes, size=(6, 8)):
    masks = np.full((len(boxes), *size), 0.1, np.float32)
    for mask, (y0, x0, y1, x1) in zip(masks, boxes, strict=True):
        mask[y0:y1, x0:x1] = 0.9
    return masks


def test_stuff_is_merged_and_things_are_not():
    masks = rectangles((0, 0, 2, 8), (2, 0, 4, 8), (4, 0, 5, 8), (5, 0, 6, 8))
    scores = np.zeros((4, 5))
    scores[[0, 1, 2, 3], [1, 2, 1, 2]] = 0.9, 0.8, 0.7, 0.6
    found = segments(scores, masks)
    np.testing.assert_array_equal(found["panoptic_map"][:, 0], [1, 1, 2, 2, 1, 3])
    assert found["panoptic_classes"].tolist() == [1, 2, 2, -1] and found["panoptic_areas"].tolist() == [24, 16, 8, 0]
    np.testing.assert_allclose(found["panoptic_scores"], [0.9, 0.8, 0.6, 0])
    assert found["panoptic_is_thing"].tolist() == [False, True, True, False]


def test_what_is_mostly_covered_is_left_out():
    masks = rectangles((0, 0, 6, 8), (0, 0, 5, 8))
    scores = np.zeros((2, 4))
    scores[[0, 1], [0, 2]] = 0.9, 0.8
    found = segments(scores, masks)  # the second has none of its own 40 pixels
    assert found["panoptic_valid"].tolist() == [True, False] and (found["panoptic_map"] == 1).all()
    scores[1, 2] = 0.95
    assert segments(scores, masks)["panoptic_map"][:, 0].tolist() == [1, 1, 1, 1, 1, 0]  # the first keeps 8 of 48
    assert segments(scores, masks, overlap_threshold=0.1)["panoptic_map"][:, 0].tolist() == [2, 2, 2, 2, 2, 1]


def test_no_object_low_scores_and_suppressed_queries_are_no_segments():
    masks, scores = rectangles((0, 0, 6, 8)), np.zeros((1, 5))
    for column, value, valid in ((4, 0.9, True), (0, 0.5, True), (0, 0.9, False)):
        scores[:] = 0
        scores[0, column] = value
        found = segments(scores, masks, query_valid=np.array([valid]))
        assert not found["panoptic_valid"].any() and not found["panoptic_map"].any()
    assert segments(scores, masks, query_valid=np.array([True]))["panoptic_map"].all()


def test_one_pixel():
    found = segments([[0.9, 0, 0, 0]], rectangles((2, 3, 3, 4)), overlap_threshold=1.0)
    # The only query wins every pixel, and holds one of them.
    assert found["panoptic_map"].sum() == found["panoptic_map"][2, 3] == found["panoptic_areas"][0] == 1


def test_a_batch_on_a_canvas_equals_its_images():
    rng = np.random.default_rng(3)
    scores, masks = rng.random((2, 6, 4)).astype(np.float32), rng.random((2, 6, 5, 7)).astype(np.float32)
    canvas = np.full((2, 6, 8, 9), 0.5, np.float32)  # what a logit of zero becomes
    canvas[:, :, :5, :7] = masks
    inside = np.zeros((2, 8, 9), bool)
    inside[:, :5, :7] = True
    run = functools.partial(panoptic_segments, is_thing=THINGS, object_threshold=0.5, overlap_threshold=0.3)
    found = jax.jit(jax.vmap(lambda s, m, i: run(s, m, inside=i)))(scores, canvas, inside)
    for i in range(2):
        alone = segments(scores[i], masks[i], 0.5, 0.3)
        np.testing.assert_array_equal(found["panoptic_map"][i, :5, :7], alone["panoptic_map"])
        assert found["panoptic_map"][i].sum() == alone["panoptic_map"].sum() > 0
        for name in ("valid", "classes", "areas", "scores"):
            np.testing.assert_array_equal(found[f"panoptic_{name}"][i], alone[f"panoptic_{name}"])
