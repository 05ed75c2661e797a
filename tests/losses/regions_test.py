"""A detector's targets and losses against loops from the definitions."""

import jax
import numpy as np
import pytest

from jaxseg.losses import boxes as box_losses
from jaxseg.losses import regions as R
from tests.ops.nms_test import iou as iou_of_two
from tests.ops.roi_align_test import reference as roi_align_reference

RNG = np.random.default_rng(0)


def random_boxes(*shape, low=0, high=40):
    corner = RNG.uniform(low, high, (*shape, 2))
    return np.concatenate([corner, corner + RNG.uniform(2, 24, (*shape, 2))], -1).astype(np.float32)


def delta(box, reference, weights=(1, 1, 1, 1)):
    centre, size = (box[:2] + box[2:]) / 2, box[2:] - box[:2]
    own, own_size = (reference[:2] + reference[2:]) / 2, reference[2:] - reference[:2]
    return np.concatenate([(centre - own) / own_size, np.log(size / own_size)]) * np.asarray(weights)


def judged(boxes, targets, valid, low, high, best_of_target):
    """One image: kinds and targets, candidate by candidate."""
    iou = np.array([[iou_of_two(b, t) if v else -1 for t, v in zip(targets, valid, strict=True)] for b in boxes.astype(float)])
    kinds = [0 if best >= high else 1 if best < low else 2 for best in iou.max(1)]
    if best_of_target:
        for t in np.flatnonzero(valid):
            for n in np.flatnonzero((iou[:, t] >= iou[:, t].max() * (1 - 1e-6)) & (iou[:, t] > 0)):
                kinds[n] = 0
    return np.array(kinds), iou.argmax(1)


@pytest.mark.parametrize("best_of_target", [True, False])
def test_who_shows_an_object(best_of_target):
    boxes, targets = random_boxes(1, 60), random_boxes(3, 4)
    boxes[0, :3], boxes[0, 3] = targets[0, :3], boxes[0, 4]  # exact ones, and two equal candidates
    targets[1, 0] = [200, 200, 220, 220]  # which no candidate overlaps
    valid = np.array([[True] * 4, [True, False, True, False], [False] * 4])

    @jax.jit
    def found(boxes, targets, valid):
        return R.judge(R.overlaps(boxes, targets, valid), 0.3, 0.6, best_of_target=best_of_target)

    kind, target = found(boxes, targets, valid)
    for b in range(3):
        expected, nearest = judged(boxes[0], targets[b], valid[b], 0.3, 0.6, best_of_target)
        assert kind[b].tolist() == expected.tolist()
        if valid[b].any():
            shown = expected == R.POSITIVE
            assert np.asarray(target[b])[shown].tolist() == nearest[shown].tolist()
    assert set(kind[0].tolist()) == {0, 1, 2} and set(kind[2].tolist()) == {R.NEGATIVE}


def test_a_sample_is_the_least_of_each_kind():
    """More positives than their share, fewer, none, and fewer candidates than slots; equal numbers as they come."""
    kind = np.array([[0, 0, 1, 0, 1, 1, 2, 1], [0, 1, 1, 1, 1, 1, 2, 1], [1] * 8, [0, 1] + [2] * 6])
    order = np.array([[0.9, 0.1, 0.5, 0.3, 0.2, 0.8, 0.0, 0.5]] * 4, np.float32)
    found = jax.jit(lambda k, o: R.draw_sample(k, o, 4, 0.5))(kind, order)
    slots = [np.asarray(x).tolist() for x in (found.index, found.positive, found.valid)]
    assert slots[0][:3] == [[1, 3, 4, 2], [0, 1, 4, 3], [6, 1, 4, 3]]
    assert slots[1] == [[True, True, False, False], [True, False, False, False], [False] * 4, [True, False, False, False]]
    assert slots[2] == [[True] * 4] * 3 + [[True, True, False, False]] and slots[0][3][:2] == [0, 1]
    few = R.draw_sample(kind[:, :2], order[:, :2], 5, 0.5)
    assert few.index.shape == (4, 5) and int(few.index.max()) < 2
    assert few.valid.sum(-1).tolist() == [2, 2, 2, 2]


ANCHORS, TARGETS, VALID = random_boxes(50), random_boxes(2, 3), np.array([[True, True, False], [False] * 3])
DRAWS = {"anchors": RNG.uniform(size=(2, 50)).astype(np.float32), "regions": RNG.uniform(size=(2, 23)).astype(np.float32)}


def draw(name, shape):
    assert DRAWS[name].shape == shape
    return DRAWS[name]


def sampled(kind, order, num, share):
    by_order = sorted(range(len(kind)), key=lambda n: order[n])
    positive = [n for n in by_order if kind[n] == 0][: int(num * share)]
    return positive, [n for n in by_order if kind[n] == 1][: num - len(positive)]


def test_anchors():
    """The second image has no object: all of its anchors are negative, whatever slots hold that are not valid."""
    logits, deltas = RNG.normal(size=(2, 50)), RNG.normal(size=(2, 50, 4))
    targets = np.where(VALID[..., None], TARGETS, np.nan)
    loss = R.AnchorLoss(num=16, low=0.2, high=0.6)

    def total(x):
        terms = loss(*x, ANCHORS, targets, VALID, draw)
        return sum(x for x, _ in terms.values()), terms

    predicted = logits.astype(np.float32), deltas.astype(np.float32)
    (_, terms), gradients = jax.jit(jax.value_and_grad(total, has_aux=True))(predicted)
    objects = shifts = 0.0
    for b in range(2):
        kind, nearest = judged(ANCHORS, TARGETS[b], VALID[b], 0.2, 0.6, True)
        positive, negative = sampled(kind, DRAWS["anchors"][b], 16, 0.5)
        objects += sum(np.logaddexp(0, -logits[b, n]) for n in positive) + sum(np.logaddexp(0, logits[b, n]) for n in negative)
        shifts += sum(np.abs(deltas[b, n] - delta(TARGETS[b, nearest[n]], ANCHORS[n])).sum() for n in positive)
        assert bool(positive) == (b == 0)
    np.testing.assert_allclose(terms["anchors/object"], (objects, 32), rtol=1e-5)
    np.testing.assert_allclose(terms["anchors/box"], (shifts, 32), rtol=1e-5)
    assert all(np.isfinite(x).all() for x in gradients)


def test_regions():
    """Twenty proposals, the last of them padding, and three slots of targets behind them."""
    proposals = np.concatenate(
        [random_boxes(2, 12), np.repeat(TARGETS, 2, 1) + RNG.uniform(-1, 1, (2, 6, 4)), random_boxes(2, 2)], 1
    )
    proposals, there = proposals.astype(np.float32), np.arange(20) < 18
    labels = np.array([[4, 2, 0], [1, 1, 1]])
    masks = RNG.integers(0, 2, (2, 3, 60, 60)).astype(np.uint8)
    loss = R.RegionLoss(num=12, positive_share=0.5)
    class_logits, deltas = RNG.normal(size=(2, 12, 6)), RNG.normal(size=(2, 12, 4))
    mask_logits = RNG.normal(size=(2, 6, 5, 5))

    @jax.jit
    def found(class_logits, deltas, mask_logits):
        targets = {"boxes": TARGETS, "labels": labels, "valid": VALID}
        regions = loss.sample(proposals, np.stack([there] * 2), targets, 5, draw)
        return regions, loss.box_terms(class_logits, deltas, regions, TARGETS) | loss.mask_terms(mask_logits, regions, masks)

    regions, terms = found(class_logits, deltas, mask_logits)
    classes = shifts = pixels = count = num_positive = 0
    for b in range(2):
        candidates = np.concatenate([proposals[b], TARGETS[b]])
        kind, nearest = judged(candidates, TARGETS[b], VALID[b], 0.5, 0.5, False)
        kind[18:20], kind[20:] = 2, np.where(VALID[b], kind[20:], 2)
        positive, negative = sampled(kind, DRAWS["regions"][b], 12, 0.5)
        chosen = positive + negative
        assert np.asarray(regions.boxes[b])[: len(chosen)].tolist() == candidates[chosen].tolist()
        wanted = [labels[b, nearest[n]] for n in positive] + [5] * len(negative)
        assert np.asarray(regions.labels[b])[: len(chosen)].tolist() == wanted
        log_p = class_logits[b] - np.log(np.exp(class_logits[b]).sum(-1, keepdims=True))
        classes -= sum(log_p[i, label] for i, label in enumerate(wanted))
        for i, n in enumerate(positive):
            shifts += np.abs(deltas[b, i] - delta(TARGETS[b, nearest[n]], candidates[n], (10, 10, 5, 5))).sum()
            share = roi_align_reference(masks[b, nearest[n]][..., None].astype(float), candidates[n], 1, 5, 0)[..., 0]
            pixels += np.mean(np.logaddexp(0, np.where(share >= 0.5, -1, 1) * mask_logits[b, i]))
        count, num_positive = count + len(chosen), num_positive + len(positive)
    assert num_positive > 3 and count > 18
    np.testing.assert_allclose(terms["regions/class"], (classes, count), rtol=1e-5)
    np.testing.assert_allclose(terms["regions/box"], (shifts, count), rtol=1e-4)
    np.testing.assert_allclose(terms["regions/mask"], (pixels, num_positive), rtol=1e-3)


def test_smooth_l1():
    x = np.array([[0.0, 0.25, -0.5, 2.0]], np.float32)
    np.testing.assert_allclose(box_losses.smooth_l1(x, np.zeros_like(x)), np.abs(x))
    np.testing.assert_allclose(box_losses.smooth_l1(x, np.zeros_like(x), 0.5), [[0, 0.0625, 0.25, 1.75]])
