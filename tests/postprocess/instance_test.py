import functools

import jax
import numpy as np

from jaxseg.postprocess.instance import instances, likeliest_pairs, mask_scores


def run(scores, logits, num, **kwargs):
    scores, logits = np.asarray(scores, np.float32), np.asarray(logits, np.float32)
    return jax.tree.map(np.asarray, jax.jit(functools.partial(instances, num=num, **kwargs))(scores, logits))


def logits_of(*boxes, size=(4, 5), value=2.0):
    logits = np.full((len(boxes), *size), -1.0, np.float32)
    for one, (y0, x0, y1, x1) in zip(logits, boxes, strict=True):
        one[y0:y1, x0:x1] = value
    return logits


QUALITY = 1 / (1 + np.exp(-2.0))
SCORES = [[0.1, 0.9], [0.8, 0.7], [0.6, 0.2]]


def test_pairs_by_hand():
    logits = logits_of((0, 0, 2, 3), (1, 1, 4, 5), (0, 0, 0, 0))
    found = run(SCORES, logits, 4)
    assert found["instance_valid"].all()
    # The mask of query 2 is empty: its quality is zero, and it comes last.
    assert found["instance_queries"].tolist() == [0, 1, 1, 2] and found["instance_classes"].tolist() == [1, 0, 1, 0]
    np.testing.assert_allclose(found["instance_scores"], [0.9 * QUALITY, 0.8 * QUALITY, 0.7 * QUALITY, 0], rtol=1e-5)
    np.testing.assert_array_equal(found["instance_masks"], (logits > 0)[[0, 1, 1, 2]])
    np.testing.assert_array_equal(found["instance_boxes"], [[0, 0, 3, 2], [1, 1, 5, 4], [1, 1, 5, 4], [0, 0, 0, 0]])


def test_mask_quality_changes_the_order_and_can_be_left_out():
    logits = logits_of((0, 0, 2, 3), (1, 1, 4, 5), (0, 0, 1, 1))
    logits[0] = np.where(logits[0] > 0, 0.1, -1)
    found = run(SCORES, logits, 2)
    assert found["instance_queries"].tolist() == [1, 0]
    found = run(SCORES, logits, 2, mask_quality=False)
    assert found["instance_queries"].tolist() == [0, 1]
    np.testing.assert_allclose(found["instance_scores"], [0.9, 0.8])


def test_things_alone_are_chosen_among_the_likeliest():
    logits = logits_of(*[(0, 0, 2, 3)] * 3)
    found = run(SCORES, logits, 3, is_thing=np.array([False, True]))
    # 0.9 (thing), 0.8 (stuff) and 0.7 (thing) are the likeliest three; nothing comes in for the second.
    assert found["instance_valid"].tolist() == [True, True, False]
    assert found["instance_classes"].tolist()[:2] == [1, 1] and found["instance_queries"].tolist()[:2] == [0, 1]
    assert found["instance_scores"][2] == 0 and not found["instance_masks"][2].any() and not found["instance_boxes"][2].any()


def test_suppressed_queries_and_more_places_than_pairs():
    logits = logits_of(*[(0, 0, 2, 3)] * 3)
    found = run(SCORES, logits, 100, query_valid=np.array([True, False, True]))
    assert found["instance_valid"].tolist() == [True] * 4 + [False] * 2
    assert set(found["instance_queries"][:4].tolist()) == {0, 2}
    nothing = run(SCORES, logits, 2, query_valid=np.zeros(3, bool))
    assert not nothing["instance_valid"].any() and np.isfinite(nothing["instance_scores"]).all()


def test_equal_scores_keep_the_order_of_queries():
    values, queries, classes, valid = likeliest_pairs(np.full((3, 2), 0.5, np.float32), 5)
    assert queries.tolist() == [0, 0, 1, 1, 2] and classes.tolist() == [0, 1, 0, 1, 0] and valid.all()
    found = run(np.full((3, 2), 0.5), logits_of(*[(0, 0, 2, 3)] * 3), 6)
    assert found["instance_queries"].tolist() == [0, 0, 1, 1, 2, 2]


def test_one_pixel_and_one_class():
    found = run([[0.5]], logits_of((2, 3, 3, 4)), 100)
    np.testing.assert_array_equal(found["instance_boxes"], [[3, 2, 4, 3]])
    assert found["instance_classes"].tolist() == [0] and found["instance_masks"].sum() == 1


def test_a_batch_equals_its_images():
    rng = np.random.default_rng(0)
    scores, logits = rng.random((2, 5, 3)).astype(np.float32), rng.standard_normal((2, 5, 4, 6)).astype(np.float32)
    found = jax.jit(jax.vmap(functools.partial(instances, num=7)))(scores, logits)
    for i in range(2):
        for name, value in run(scores[i], logits[i], 7).items():
            np.testing.assert_array_equal(found[name][i], value)
    np.testing.assert_allclose(mask_scores(np.zeros((2, 3, 3))), 0)
