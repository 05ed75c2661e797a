import math

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.ops import boxes as B

RNG = np.random.default_rng(0)


def random_boxes(*shape):
    low = RNG.uniform(-20, 60, (*shape, 2))
    return np.concatenate([low, low + RNG.uniform(1, 50, (*shape, 2))], -1).astype(np.float32)


def giou_of_two(a, b):
    """From the definition, for one pair, with Python's numbers."""
    (ax0, ay0, ax1, ay1), (bx0, by0, bx1, by1) = a.tolist(), b.tolist()
    inside = max(min(ax1, bx1) - max(ax0, bx0), 0) * max(min(ay1, by1) - max(ay0, by0), 0)
    union = (ax1 - ax0) * (ay1 - ay0) + (bx1 - bx0) * (by1 - by0) - inside
    hull = (max(ax1, bx1) - min(ax0, bx0)) * (max(ay1, by1) - min(ay0, by0))
    return inside / union, inside / union - (hull - union) / hull


def test_formats_and_areas():
    found = jax.jit(lambda x: (B.to_cxcywh(x), B.to_xyxy(B.to_cxcywh(x)), B.box_areas(x)))(np.array([[[2, 1, 6, 4.0]]]))
    assert [x.tolist() for x in found] == [[[[4, 2.5, 4, 3]]], [[[2, 1, 6, 4]]], [[12]]]
    empty = np.array([[0, 0, 0, 5], [3, 3, 2, 9], [0, 0, 1, np.nan], [0, 0, 1e-3, 1]])
    assert B.has_area(empty).tolist() == [False, False, False, True]


def test_overlaps():
    """Two images of 5 and 7 boxes, some far apart."""
    a, b = random_boxes(2, 5), random_boxes(2, 7)
    b[:, 0] = a[:, 0]
    iou, giou, own = jax.jit(lambda a, b: (B.pairwise_iou(a, b), B.pairwise_giou(a, b), B.giou(a, b[:, :5])))(a, b)
    expected = np.array([[[giou_of_two(x, y) for y in ys] for x in xs] for xs, ys in zip(a, b, strict=True)])
    np.testing.assert_allclose(iou, expected[..., 0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(giou, expected[..., 1], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(own, np.diagonal(expected[..., 1], axis1=1, axis2=2), rtol=1e-5, atol=1e-6)
    assert expected[..., 1].min() < -0.3  # apart
    point = jnp.array([[1.0, 2, 1, 2]])
    value, gradient = jax.value_and_grad(lambda x: jnp.sum(B.giou(x, point)))(point)
    assert float(value) == 0 and np.isfinite(gradient).all()


def test_clipping_goes_by_image():
    boxes = np.array([[[-3, -2, 50, 60.0], [4, 5, 6, 7]], [[-1, 20, 9, 40], [100, 100, 120, 120]]])
    found = B.clip_boxes(boxes, np.array([[30, 40], [25, 8]]))
    assert found.tolist() == [[[0, 0, 40, 30], [4, 5, 6, 7]], [[0, 20, 8, 25], [8, 25, 8, 25]]]


def test_deltas_by_hand():
    """A box of 10 x 20 moves by a tenth of its size and doubles; the logarithm of growth is cut at log(1000 / 16)."""
    reference, weights = np.array([[10, 20, 20, 40.0]]), (10.0, 10.0, 5.0, 5.0)
    deltas = np.array([[0.1 * 10, 0.1 * 10, math.log(2) * 5, math.log(2) * 5]])
    np.testing.assert_allclose(B.decode_deltas(deltas, reference, weights), [[6, 12, 26, 52]], rtol=1e-6)
    np.testing.assert_allclose(B.encode_deltas(np.array([[6, 12, 26, 52.0]]), reference, weights), deltas, rtol=1e-5)
    grown = B.decode_deltas(np.array([[0, 0, 9.0, 0]]), reference)
    np.testing.assert_allclose(grown, [[15 - 312.5, 20, 15 + 312.5, 40]], rtol=1e-5)


def test_deltas_are_inverse_and_finite():
    boxes, references = random_boxes(3, 6), random_boxes(3, 6)
    weights = (10.0, 10.0, 5.0, 5.0)
    there = jax.jit(lambda a, b: B.encode_deltas(a, b, weights))(boxes, references)
    back = jax.jit(lambda a, b: B.decode_deltas(a, b, weights))(there, references)
    np.testing.assert_allclose(back, boxes, rtol=1e-4, atol=1e-3)
    nothing = np.zeros((1, 4), np.float32)
    for pair in ((nothing, references[0, :1]), (references[0, :1], nothing), (nothing, nothing)):
        assert np.isfinite(B.encode_deltas(*pair)).all()
