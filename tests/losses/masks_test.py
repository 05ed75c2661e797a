import jax
import numpy as np
import pytest

from jaxseg.losses import masks as L

RNG = np.random.default_rng(0)
LOGITS = (3 * RNG.normal(size=(2, 3, 5))).astype(np.float32)
TARGET = RNG.uniform(size=(2, 4, 5)).astype(np.float32)


def by_definition(x, t, focal=None):
    p = 1 / (1 + np.exp(-x.astype(float)))
    loss = -(t * np.log(p) + (1 - t) * np.log(1 - p))
    if focal is None:
        return loss
    alpha, gamma = focal
    p_t = p * t + (1 - p) * (1 - t)
    return loss * (1 - p_t) ** gamma * (alpha * t + (1 - alpha) * (1 - t))


@pytest.mark.parametrize("focal", [None, (0.25, 2.0)])
def test_losses_and_costs_by_definition(focal):
    @jax.jit
    def losses(logits, target):
        own = L.mask_loss(logits, target[:, :3], focal), L.dice_loss(logits, target[:, :3])
        return own, (L.pairwise_mask_cost(logits, target, focal), L.pairwise_dice_cost(logits, target))

    (mask, dice), (mask_cost, dice_cost) = losses(LOGITS, TARGET)
    np.testing.assert_allclose(mask, by_definition(LOGITS, TARGET[:, :3], focal).mean(-1), rtol=1e-5)
    of_one, of_zero = (by_definition(LOGITS, np.full_like(LOGITS, t), focal)[:, :, None] for t in (1, 0))
    target = TARGET[:, None]
    np.testing.assert_allclose(mask_cost, (of_one * target + of_zero * (1 - target)).mean(-1), rtol=1e-5)
    s = 1 / (1 + np.exp(-LOGITS[:, :, None]))
    expected = 1 - (2 * (s * target).sum(-1) + 1) / (s.sum(-1) + target.sum(-1) + 1)
    np.testing.assert_allclose(dice_cost, expected, rtol=1e-5)
    np.testing.assert_allclose(dice, expected[:, np.arange(3), np.arange(3)], rtol=1e-5)


def test_extreme_logits_have_finite_losses_and_gradients():
    logits, target = np.array([1e4, -1e4, 0, 1e4], np.float32), np.array([1, 1, 0.5, 0], np.float32)

    @jax.jit
    def both(x):
        def loss(x, focal):
            return L.sigmoid_loss(x, target, focal).sum()

        return [jax.value_and_grad(loss)(x, focal) for focal in (None, (0.25, 2.0))]

    (plain, gradient), (focal, focal_gradient) = both(logits)
    assert plain == pytest.approx(2e4, rel=1e-4) and focal == pytest.approx(1e4, rel=1e-3)
    np.testing.assert_allclose(gradient, [0, -1, 0, 1], atol=1e-6)
    assert np.isfinite(focal_gradient).all()
