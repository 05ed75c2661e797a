import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.ops.nms import nms, suppress

NMS = jax.jit(nms, static_argnums=3)


def iou(a, b):
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    inside = max(width, 0) * max(height, 0)
    return inside / ((a[2] - a[0]) * (a[3] - a[1]) + (b[2] - b[0]) * (b[3] - b[1]) - inside)


def reference(boxes, scores, valid, threshold, groups):
    """Indices that stay, best first: one after the other against all that stayed."""
    kept = []
    for i in sorted(np.flatnonzero(valid), key=lambda i: (-scores[i], i)):
        if all(groups[i] != groups[j] or iou(boxes[i], boxes[j]) <= threshold for j in kept):
            kept.append(i)
    return kept


def crowd(seed, batch=(4,), num=40):
    """Crowded boxes on a grid of eighths, so that overlaps are the same in every precision, with many equal scores."""
    rng = np.random.default_rng(seed)
    low = rng.integers(0, 24, (*batch, num, 2)) / 8
    boxes = np.concatenate([low, low + rng.integers(4, 16, (*batch, num, 2)) / 8], -1).astype(np.float32)
    scores = rng.integers(0, 12, (*batch, num)).astype(np.float32) / 8
    valid = rng.uniform(size=(*batch, num)) < 0.8
    valid[0] = False
    return boxes, scores, valid, rng.integers(0, 3, (*batch, num))


def test_what_stays_is_the_references():
    boxes, scores, valid, groups = crowd(0)
    boxes[~valid] = np.nan
    alone = np.zeros_like(groups)
    for grouped, found in (
        (alone, NMS(boxes, scores, valid, 0.4)),
        (groups, NMS(boxes, scores, valid, 0.4, groups)),
    ):
        for b in range(len(boxes)):
            expected = reference(boxes[b].astype(float), scores[b], valid[b], 0.4, grouped[b])
            assert np.asarray(found.order[b])[np.asarray(found.keep[b])].tolist() == expected
            assert sorted(found.order[b].tolist()) == list(range(boxes.shape[1]))
    index, kept = jax.jit(lambda x: x.first(6))(found)
    for b in range(len(boxes)):
        expected = reference(boxes[b].astype(float), scores[b], valid[b], 0.4, groups[b])[:6]
        assert np.asarray(index[b])[np.asarray(kept[b])].tolist() == expected
    assert not kept[0].any() and kept[1].any()


def test_equal_scores_stay_in_their_order_and_the_threshold_is_not_reached():
    boxes = np.array([[0, 0, 2, 1], [1, 0, 3, 1], [0, 0, 2, 1], [0, 0, 4, 1]], np.float32)  # IoU 1/3, 1, 1/2 with the first
    found = NMS(boxes, np.ones(4, np.float32), np.ones(4, bool), 0.5)
    assert found.order.tolist() == [0, 1, 2, 3] and found.keep.tolist() == [True, True, False, True]
    scores = np.array([1, np.nan, 2, 1], np.float32)
    found = NMS(boxes, scores, np.ones(4, bool), 0.5)
    assert found.order.tolist() == [2, 0, 3, 1] and found.keep.tolist() == [True, False, True, False]


def test_a_long_chain_of_decisions():
    """Each box resembles the next one only: every other one stays, which the last knows after as many rounds."""
    num = 33
    similar = jnp.abs(jnp.arange(num)[:, None] - jnp.arange(num)[None]) == 1
    candidates = np.array([[True] * num, [False] + [True] * (num - 1), [False] * num])
    kept = jax.jit(jax.vmap(suppress, (None, 0)))(similar, candidates)
    assert kept[0].tolist() == [i % 2 == 0 for i in range(num)]
    assert kept[1].tolist() == [i % 2 == 1 for i in range(num)] and not kept[2].any()
