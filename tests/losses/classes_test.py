import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.losses import classes as L

RNG = np.random.default_rng(0)


def test_weighted_cross_entropy():
    logits, labels = RNG.normal(size=(2, 3, 4)).astype(np.float32), np.array([[0, 3, 3], [2, 3, 1]])
    total, count = jax.jit(lambda *x: L.weighted_cross_entropy(*x, L.class_weights(3, 0.1)))(logits, labels)
    log_p = logits - np.log(np.exp(logits).sum(-1, keepdims=True))
    weights = np.where(labels == 3, 0.1, 1)
    np.testing.assert_allclose(total, -(weights * np.take_along_axis(log_p, labels[..., None], -1)[..., 0]).sum(), rtol=1e-5)
    np.testing.assert_allclose(count, weights.sum(), rtol=1e-6)


def test_softmax_cost():
    logits, labels = RNG.normal(size=(2, 3, 4)).astype(np.float32), np.array([[0, 2, 2, 1, 0], [1, 1, 0, 2, 2]])
    p = np.exp(logits) / np.exp(logits).sum(-1, keepdims=True)
    expected = -np.stack([p[b][:, labels[b]] for b in range(2)])
    np.testing.assert_allclose(jax.jit(L.softmax_cost)(logits, labels), expected, rtol=1e-5)


def test_token_focal():
    logits = (3 * RNG.normal(size=(3, 4))).astype(np.float32)
    positives = np.array([[1, 1, 0, 0], [0, 0, 0, 1], [0, 0, 0, 0]], np.float32)
    valid = np.broadcast_to(np.array([True, True, False, True]), (3, 4))
    p = 1 / (1 + np.exp(-logits.astype(float)))
    one, zero = 0.25 * (1 - p) ** 2 * -np.log(p), 0.75 * p**2 * -np.log(1 - p)
    loss, cost = jax.jit(lambda *x: (L.token_focal_loss(*x), L.token_focal_cost(*x[:2])))(logits, positives, valid)
    np.testing.assert_allclose(loss, np.where(valid, np.where(positives > 0, one, zero), 0).sum(), rtol=1e-5)
    saved = one - zero
    expected = np.stack([saved[:, :2].mean(1), saved[:, 3], np.zeros(3)], 1)
    np.testing.assert_allclose(cost, expected, rtol=1e-4, atol=1e-5)
    at_the_ends = jax.jit(lambda x: L.token_focal_cost(x, jnp.ones((1, 2))))(np.array([[200, -200]], np.float32))
    assert np.isfinite(at_the_ends).all()
