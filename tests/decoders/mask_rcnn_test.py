"""The parts of a two-stage detector against loops from the definitions."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.decoders.fpn import FeaturePyramid
from jaxseg.decoders.mask_former import MaskFormerHead
from jaxseg.decoders.mask_rcnn import FoundObjects, MaskRcnnHead, as_queries
from jaxseg.decoders.proposals import make_head, propose
from jaxseg.decoders.roi_heads import BoxHead, Detections, detect, of_class
from jaxseg.decoders.rpn import AnchorOutput, ProposalHead, Proposals, anchor_boxes, select_proposals
from tests.filling import fill
from tests.ops.nms_test import reference as kept_by_nms

RNG = np.random.default_rng(0)


def decoded(delta, box, size, weights=(1, 1, 1, 1)):
    """A box from its delta, cut to (height, width)."""
    dx, dy, dw, dh = np.asarray(delta, float) / weights
    width, height = box[2] - box[0], box[3] - box[1]
    x, y = (box[0] + box[2]) / 2 + dx * width, (box[1] + box[3]) / 2 + dy * height
    width, height = width * np.exp(min(dw, np.log(62.5))), height * np.exp(min(dh, np.log(62.5)))
    corners = np.array([x - width / 2, y - height / 2, x + width / 2, y + height / 2])
    return np.clip(corners, 0, [size[1], size[0], size[1], size[0]])


def test_pyramid():
    """Each map is the 3x3 convolution of its lateral and of twice the coarser sum; the last is every other pixel."""
    shapes = {"res2": (2, 7, 8, 3), "res3": (2, 4, 4, 5), "res4": (2, 2, 2, 6), "res5": (2, 1, 1, 4)}
    features = {name: RNG.normal(size=shape).astype(np.float32) for name, shape in shapes.items()}
    module = FeaturePyramid(hidden_dim=4)
    assert module.strides == (4, 8, 16, 32, 64)
    params = fill(jax.eval_shape(module.init, jax.random.key(0), features))
    maps = jax.jit(module.apply)(params, features)
    above = None
    for level, found in zip((5, 4, 3, 2), maps[3::-1], strict=True):
        weights = params["params"][f"lateral_{level}"]
        lateral = features[f"res{level}"] @ weights["kernel"][0, 0] + weights["bias"]
        if above is not None:
            rows, columns = (np.arange(n) // 2 for n in lateral.shape[1:3])
            lateral = lateral + above[:, rows][:, :, columns]
        above = lateral
        padded = np.pad(lateral, ((0, 0), (1, 1), (1, 1), (0, 0)))
        weights, (h, w) = params["params"][f"output_{level}"], lateral.shape[1:3]
        expected = sum(padded[:, i : i + h, j : j + w] @ weights["kernel"][i, j] for i in range(3) for j in range(3))
        np.testing.assert_allclose(found, expected + weights["bias"], rtol=1e-4, atol=1e-5)
    np.testing.assert_array_equal(maps[4], maps[3][:, ::2, ::2])
    with pytest.raises(ValueError, match=r"feature pyramid: found maps \['res2'\], expected"):
        module.apply(params, {"res2": features["res2"]})


def test_anchors_are_the_published_ones():
    levels = anchor_boxes([(2, 3), (1, 1)], (4, 8), (32, 64))
    assert [x.shape for x in levels] == [(18, 4), (3, 4)]
    of_pixel = [
        [-22.627417, -11.313708, 22.627417, 11.313708],
        [-16, -16, 16, 16],
        [-11.313708, -22.627417, 11.313708, 22.627417],
    ]
    np.testing.assert_allclose(levels[0][:3], of_pixel, rtol=1e-6)
    np.testing.assert_allclose(levels[0][3 * 5 : 3 * 6], np.array(of_pixel) + [8, 4, 8, 4], rtol=1e-6)  # row 1, column 2
    np.testing.assert_allclose(levels[1], np.array(of_pixel) * 2, rtol=1e-6)
    with pytest.raises(ValueError, match="anchor_sizes: found 1, expected 2"):
        anchor_boxes([(2, 3), (1, 1)], (4, 8), (32,))


def test_an_anchor_is_judged_by_its_own_channels():
    maps = tuple(RNG.normal(size=(2, *shape, 4)).astype(np.float32) for shape in ((3, 2), (1, 2)))
    module = ProposalHead(3)
    params = fill(jax.eval_shape(module.init, jax.random.key(0), maps))
    found = jax.jit(module.apply)(params, maps)
    assert [x.shape for x in found.logits] == [(2, 18), (2, 6)] and [x.shape for x in found.deltas] == [(2, 18, 4), (2, 6, 4)]
    conv = {name: params["params"][name] for name in ("conv", "objects", "deltas")}
    padded = np.pad(maps[0][1], ((1, 1), (1, 1), (0, 0)))
    hidden = sum(padded[2 + i, 1 + j] @ conv["conv"]["kernel"][i, j] for i in range(3) for j in range(3))
    hidden = np.maximum(hidden + conv["conv"]["bias"], 0)  # of row 2, column 1
    logits = hidden @ conv["objects"]["kernel"][0, 0] + conv["objects"]["bias"]
    deltas = hidden @ conv["deltas"]["kernel"][0, 0] + conv["deltas"]["bias"]
    np.testing.assert_allclose(found.logits[0][1, 15:18], logits, rtol=1e-4, atol=1e-6)
    np.testing.assert_allclose(found.deltas[0][1, 15:18], deltas.reshape(3, 4), rtol=1e-4, atol=1e-6)


def test_proposals():
    """Two levels, the second with fewer anchors than are taken; cut to each image; suppressed on each level."""
    anchors, sizes = anchor_boxes([(4, 5), (2, 2)], (8, 16), (12, 24)), np.array([[32, 40], [20, 25]])
    logits = tuple(RNG.integers(-8, 8, (2, len(x))).astype(np.float32) / 4 for x in anchors)  # with many equal ones
    deltas = tuple((0.3 * RNG.normal(size=(2, len(x), 4))).astype(np.float32) for x in anchors)
    deltas[0][0, 0] = [-90, 0, 0, 0]  # leaves the image
    options = {"num_before": 20, "num_after": 14, "overlap": 0.4}
    select = jax.jit(functools.partial(select_proposals, anchors=anchors, **options))
    found = select(AnchorOutput(logits, deltas), image_size=sizes)
    assert found.boxes.shape == (2, 14, 4)
    for b in range(2):
        rows = []
        for level in range(2):
            best = sorted(range(len(anchors[level])), key=lambda n: (-logits[level][b, n], n))[:20]
            boxes = np.array([decoded(deltas[level][b, n], anchors[level][n].astype(float), sizes[b]) for n in best])
            scores = logits[level][b, best]
            valid = np.all(boxes[:, 2:] > boxes[:, :2], 1)
            rows += [(scores[n], boxes[n]) for n in kept_by_nms(boxes, scores, valid, 0.4, np.zeros(len(best)))]
        rows = sorted(rows, key=lambda row: -row[0])[:14]  # stable
        kept = np.asarray(found.valid[b])
        assert kept.sum() == len(rows) and kept[: len(rows)].all()
        np.testing.assert_allclose(np.asarray(found.boxes[b])[kept], [box for _, box in rows], rtol=1e-4, atol=1e-4)
        np.testing.assert_allclose(np.asarray(found.logits[b])[kept], [score for score, _ in rows])
        assert not np.asarray(found.boxes[b])[~kept].any()


def test_detections():
    """Three classes; a region may be an object of two; the last region is padding."""
    corner = RNG.uniform(0, 30, (2, 9, 2))
    regions = np.concatenate([corner, corner + RNG.uniform(5, 20, (2, 9, 2))], -1).astype(np.float32)
    regions[:, 4] = regions[:, 3] + 0.5
    logits, deltas = 2 * RNG.normal(size=(2, 9, 4)), RNG.normal(size=(2, 9, 3, 4))
    logits[:, 4] = logits[:, 3] + RNG.normal(size=(2, 4)) / 10
    valid = np.arange(9) < 8
    proposals, sizes = Proposals(regions, np.zeros((2, 9)), np.stack([valid] * 2)), np.array([[40, 50], [30, 30]])
    find = jax.jit(functools.partial(detect, num=7, score_threshold=0.1, overlap=0.3))
    found = find(logits, deltas, proposals, sizes)
    scores = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    for b in range(2):
        pairs = [(r, k) for r in range(8) for k in range(3) if scores[b, r, k] > 0.1]
        boxes = np.array([decoded(deltas[b, r, k], regions[b, r].astype(float), sizes[b], (10, 10, 5, 5)) for r, k in pairs])
        of_pair, classes = np.array([scores[b, r, k] for r, k in pairs]), np.array([k for _, k in pairs])
        kept = kept_by_nms(boxes, of_pair, np.ones(len(pairs), bool), 0.3, classes)[:7]
        there = np.asarray(found.valid[b])
        assert there.sum() == len(kept) and len(kept) < len(pairs)
        assert np.asarray(found.classes[b])[there].tolist() == classes[kept].tolist()
        np.testing.assert_allclose(np.asarray(found.scores[b])[there], of_pair[kept], rtol=1e-4)
        np.testing.assert_allclose(np.asarray(found.boxes[b])[there], boxes[kept], rtol=1e-4, atol=1e-4)
    few = jax.jit(functools.partial(detect, num_candidates=1))(logits, deltas, proposals, sizes)
    np.testing.assert_allclose(few.scores[:, 0], scores[:, :8, :3].max((1, 2)), rtol=1e-4)
    assert few.scores.shape == (2, 1)


def test_box_head_reads_rows_and_gives_a_box_for_each_class():
    regions = RNG.normal(size=(2, 5, 3, 3, 4)).astype(np.float32)
    module = BoxHead(6, dims=(8, 7))
    params = fill(jax.eval_shape(module.init, jax.random.key(0), regions), scale=0.3)
    classes, deltas = jax.jit(module.apply)(params, regions)
    weights = params["params"]
    x = np.maximum(regions.reshape(2, 5, -1) @ weights["fc1"]["kernel"].reshape(36, 8) + weights["fc1"]["bias"], 0)
    x = np.maximum(x @ weights["fc2"]["kernel"] + weights["fc2"]["bias"], 0)
    np.testing.assert_allclose(classes, x @ weights["classes"]["kernel"] + weights["classes"]["bias"], rtol=1e-4, atol=1e-5)
    expected = (x @ weights["deltas"]["kernel"] + weights["deltas"]["bias"]).reshape(2, 5, 6, 4)
    np.testing.assert_allclose(deltas, expected, rtol=1e-4, atol=1e-5)
    picked = of_class(deltas, np.array([[0, 5, 6, 2, 1]] * 2))  # 6: no object
    np.testing.assert_array_equal(picked[1], deltas[1, np.arange(5), [0, 5, 5, 2, 1]])


def test_objects_as_queries():
    """Positive inside of the mask, far below 0 outside of its box; a slot without an object is none."""
    boxes = np.array([[[8, 4, 24, 20], [0, 0, 0, 0]]], np.float32)
    detections = Detections(boxes, np.array([[0.75, 0.0]], np.float32), np.zeros((1, 2), int), np.array([[True, False]]))
    masks = np.full((1, 2, 4, 4), 0.9, np.float32)
    found = jax.jit(as_queries, static_argnums=1)(FoundObjects(detections, masks), (32, 40)).final
    np.testing.assert_allclose(jax.nn.softmax(found.class_logits), [[[0.75, 0.25], [1e-4, 0.9999]]], rtol=1e-3)
    inside = np.zeros((8, 10), bool)
    inside[1:5, 2:6] = True
    assert found.mask_logits.shape == (1, 2, 8, 10)
    np.testing.assert_array_equal(found.mask_logits[0, 0] > 0, inside)
    np.testing.assert_allclose(found.mask_logits[0, 0][2:4, 3:5], np.log(9), rtol=1e-4)
    np.testing.assert_allclose(found.mask_logits[0, 0][~inside], np.log(1e-4), rtol=1e-3)
    np.testing.assert_allclose(found.mask_logits[0, 1], np.log(1e-4), rtol=1e-3)


TINY = {"num_classes": 1, "hidden_dim": 8, "anchor_sizes": (8, 16, 32, 64, 96), "box_dims": (16, 16), "mask_layers": 1}
TINY |= {"num_before": 30, "num_proposals": 20, "num_objects": 6, "roi_samples": 2, "canonical_size": 32}


def test_either_kind_of_head_gives_proposals():
    """One at an odd size: 16 pixels of image in a canvas of 64 x 96."""
    features = {f"res{i}": RNG.normal(size=(2, 64 >> i, 96 >> i, 2 << i)).astype(np.float32) for i in (2, 3, 4, 5)}
    sizes = np.array([[64, 90], [16, 16]])
    head = make_head("maskrcnn", TINY)
    assert isinstance(head, MaskRcnnHead) and head.name == "head"

    def run(params, features):
        return head.apply(params, features, sizes, method=lambda head, *x: propose(head, *x, (64, 96)))

    params = fill(jax.eval_shape(lambda: head.init(jax.random.key(0), features, sizes)))
    found = jax.jit(run)(params, features).final
    assert found.class_logits.shape == (2, 6, 2) and found.mask_logits.shape == (2, 6, 16, 24)
    assert bool(jnp.isfinite(found.mask_logits).all()) and float(found.mask_logits.max()) > 0
    outside = np.ones((16, 24), bool)
    outside[:4, :4] = False
    assert float(found.mask_logits[1][:, outside].max()) < 0
    assert isinstance(make_head("mask2former", {"pixel": {}, "query": {"num_outputs": 2}}), MaskFormerHead)
    with pytest.raises(ValueError, match="config.model.proposals: found 'sam', expected one of mask2former, maskrcnn"):
        make_head("sam", {})
