"""Optimizers and schedules from configs."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from configs import common
from jaxseg import optim

PARAMS = {"head": {"kernel": jnp.ones((2, 2)), "bias": jnp.ones(2)}, "tower": {"kernel": jnp.ones((2, 2))}}


def config(**fields):
    made = common.default()
    made.train.steps = 10
    made.optim.update(learning_rate=0.1, **fields)
    return made


def first_update(config, params=PARAMS, grads=None):
    trained, _ = optim.split(params, config.optim.freeze)
    optimizer = optim.make_optimizer(config, trained)
    head = {"kernel": jnp.full((2, 2), 3.0), "bias": jnp.full(2, 4.0)}
    grads = grads or {"head": head, "tower": {"kernel": jnp.ones((2, 2))}}
    grads, _ = optim.split(grads, config.optim.freeze)
    return optimizer.update(grads, optimizer.init(trained), trained)[0]


def test_split_and_join_are_inverse():
    trained, frozen = optim.split(PARAMS, ("^tower/",))
    assert set(trained) == {"head"}
    assert set(frozen) == {"tower"}
    assert optim.join(trained, frozen) == PARAMS


def test_decay_and_multipliers_go_by_path():
    found = first_update(config(weight_decay=0.5, no_decay=("bias$",), multipliers=(("^head/", 0.1), ("bias$", 0.0))))
    np.testing.assert_allclose(found["tower"]["kernel"], -0.1 * (1 + 0.5), rtol=1e-5)
    np.testing.assert_allclose(found["head"]["kernel"], -0.01 * (1 + 0.5), rtol=1e-5)
    np.testing.assert_allclose(found["head"]["bias"], 0)


def test_sgd_sums_decayed_gradients():
    """torch's: v = 0.9 v + g + decay * w, w -= rate * v; two steps at a weight of 1."""
    made = config(name="sgd", betas=(0.9, 0.0), weight_decay=0.5, no_decay=("bias$",))
    optimizer = optim.make_optimizer(made, PARAMS)
    grads, state, params = jax.tree.map(lambda x: jnp.full_like(x, 2.0), PARAMS), optimizer.init(PARAMS), PARAMS
    for _ in range(2):
        updates, state = optimizer.update(grads, state, params)
        params = jax.tree.map(jnp.add, params, updates)
    first = 1 - 0.1 * 2.5
    np.testing.assert_allclose(params["head"]["kernel"], first - 0.1 * (0.9 * 2.5 + 2 + 0.5 * first), rtol=1e-6)
    np.testing.assert_allclose(params["head"]["bias"], 1 - 0.1 * 2 - 0.1 * (0.9 * 2 + 2), rtol=1e-6)


def test_muon_orthogonalizes_matrices_and_leaves_the_rest_to_adam():
    """All singular directions of a matrix get about the same step, blocks by themselves; a bias gets Adam's."""
    rng = np.random.default_rng(0)
    grads = {
        "head": {"kernel": np.diag([10.0, 1.0, 0.1]) @ rng.normal(size=(3, 5)), "bias": np.array([4.0, -2.0])},
        "blocks": {"fc": {"kernel": rng.normal(size=(2, 4, 4)) * [[[1.0]], [[50.0]]]}},
        "token_embedding": rng.normal(size=(7, 3)),
    }
    found = first_update(config(name="muon"), dict(grads), grads)
    size = 0.1 * 0.2 * 5**0.5  # rate, the size of Adam's updates, the larger side
    values = [np.linalg.svd(found["head"]["kernel"])[1], *np.linalg.svd(found["blocks"]["fc"]["kernel"])[1]]
    for expected, got in zip((size, 0.1 * 0.2 * 2, 0.1 * 0.2 * 2), values, strict=True):
        assert np.all((got > 0.5 * expected) & (got < 1.5 * expected)), got
    assert np.sum(found["head"]["kernel"] * grads["head"]["kernel"]) < 0
    np.testing.assert_allclose(found["head"]["bias"], [-0.1, 0.1], rtol=1e-5)
    np.testing.assert_allclose(found["token_embedding"], -0.1 * np.sign(grads["token_embedding"]), rtol=1e-3)


def test_clipping_measures_trained_parameters_only():
    """A norm of 10 over the head alone; the frozen tower's gradient would add to it."""
    found = first_update(config(name="sgd", betas=(0.0, 0.0), clip_norm=1.0, freeze=("^tower/",)))
    norm = np.sqrt(4 * 9 + 2 * 16)
    np.testing.assert_allclose(found["head"]["kernel"], -0.1 * 3 / norm, rtol=1e-5)
    assert "tower" not in found


@pytest.mark.parametrize(
    ("schedule", "expected"),
    [
        ({"name": "constant"}, {0: 0.1, 10: 0.1}),
        ({"name": "cosine", "end_value": 0.01}, {0: 0.1, 5: 0.055, 10: 0.01}),
        ({"name": "warmup_cosine", "warmup_steps": 4}, {0: 0.02, 3: 0.08, 4: 0.1, 10: 0.0}),
        ({"name": "poly", "power": 1.0}, {0: 0.1, 5: 0.05}),
        ({"name": "step", "milestones": (3,), "factor": 0.1}, {2: 0.1, 4: 0.01}),
        (
            {"name": "step", "milestones": (8,), "warmup_steps": 4, "warmup_factor": 0.2},
            {0: 0.02, 1: 0.04, 3: 0.08, 4: 0.1, 7: 0.1, 9: 0.01},
        ),
    ],
)
def test_schedules(schedule, expected):
    made = config()
    made.optim.schedule = schedule
    rate = optim.make_schedule(made.optim, made.train.steps)
    for step, value in expected.items():
        np.testing.assert_allclose(rate(step), value, atol=1e-7)


@pytest.mark.parametrize(
    ("fields", "message"),
    [
        ({"name": "adam2"}, "config.optim.name: found 'adam2', expected one of adamw"),
        ({"no_decay": ("nothing",)}, "config.optim.no_decay: 'nothing' matches no trained parameter"),
        ({"multipliers": (("^tower/", 0.1),), "freeze": ("^tower/",)}, "config.optim.multipliers: .* matches no trained"),
        ({"schedule": {"name": "linear"}}, "config.optim.schedule.name: found 'linear'"),
        ({"schedule": {"name": "cosine", "gamma": 1}}, "cosine does not take these fields"),
    ],
)
def test_mistakes(fields, message):
    schedule = fields.pop("schedule", {"name": "constant"})
    made = config(**fields)
    made.optim.schedule = schedule
    with pytest.raises(ValueError, match=message):
        optim.make_optimizer(made, optim.split(PARAMS, made.optim.freeze)[0])
