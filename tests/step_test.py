"""The train step: many devices and micro-batches give what one gives; frozen parameters stay out; NaN does no harm."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import optim, sharding, systems
from jaxseg.step import init_train_state, make_train_step
from jaxseg.weights import flatten
from tests.tiny import batch_of, clipseg_config, params_of


@pytest.fixture(scope="module")
def setup():
    config = clipseg_config()
    config.optim.clip_norm = 1.0
    config.train.ema_decay = 0.9
    task = systems.make_task(config)
    return config, task, params_of(task)


def run(config, task, initial, batches, mesh_sizes, num_devices):
    """Losses and the final state of a run on a mesh."""
    mesh = sharding.make_mesh(mesh_sizes, jax.devices()[:num_devices])
    with sharding.using(mesh):
        trained, _ = optim.split(initial[0], config.optim.freeze)
        optimizer = optim.make_optimizer(config, trained)
        state = init_train_state(*initial, optimizer, config)
        layout = sharding.shardings(state, mesh)
        state = jax.device_put(state, layout)
        step = jax.jit(
            make_train_step(task, optimizer, config, "train"),
            donate_argnums=0,
            in_shardings=(layout, sharding.batch_sharding(mesh)),
            out_shardings=(layout, sharding.replicated(mesh)),
        )
        losses = []
        for batch in batches:
            state, metrics = step(state, sharding.global_batch(batch, mesh))
            losses.append(float(metrics["loss"]))
    return losses, state, metrics


def test_eight_devices_equal_one(setup):
    config, task, initial = setup
    batches = [batch_of(task, 8, seed) for seed in range(3)]
    one, state_one, _ = run(config, task, initial, batches, {"data": 1, "fsdp": 1, "model": 1}, 1)
    eight, state_eight, _ = run(config, task, initial, batches, {"data": 2, "fsdp": 2, "model": 2}, 8)
    np.testing.assert_allclose(one, eight, atol=1e-5)
    assert one[0] != one[1]
    q = state_eight.params["clip"]["visual"]["block_0"]["attn"]["q"]["kernel"]
    assert q.sharding.spec == jax.sharding.PartitionSpec("fsdp", "model"), "the state left its shardings"
    np.testing.assert_allclose(
        state_one.ema["decoder"]["film_mul"]["kernel"], state_eight.ema["decoder"]["film_mul"]["kernel"], atol=1e-5
    )


def test_micro_batches_equal_the_batch(setup):
    """The mean over pixels is taken over the whole batch, although micro-batches have different numbers of valid pixels."""
    config, task, initial = setup
    batch = batch_of(task, 8)
    batch["mask_valid"][:3] = 0
    sizes = {"data": 1, "fsdp": 1, "model": 1}
    whole, whole_state, _ = run(config, task, initial, [batch], sizes, 1)
    config = config.copy_and_resolve_references()
    config.train.accumulate = 4
    parts, parts_state, _ = run(config, task, initial, [batch], sizes, 1)
    np.testing.assert_allclose(whole, parts, rtol=1e-6)
    for path, expected in flatten(whole_state.opt[1].mu).items():
        np.testing.assert_allclose(expected, flatten(parts_state.opt[1].mu)[path], rtol=1e-4, atol=1e-6, err_msg=path)


def test_frozen_parameters_are_outside_of_everything(setup):
    config, task, initial = setup
    _, state, metrics = run(config, task, initial, [batch_of(task, 8)], {"data": 1, "fsdp": 1, "model": 1}, 1)
    before, after = flatten(initial[0]), flatten(state.params)
    for path in before:
        same = np.array_equal(before[path], after[path])
        assert same == path.startswith("clip/"), path
    assert all(path.startswith("decoder/") for path in flatten(state.ema))
    moments = sum(leaf.size for leaf in jax.tree.leaves(state.opt))
    assert moments < 2.1 * sum(leaf.size for leaf in jax.tree.leaves(initial[0]["decoder"]))
    assert np.isfinite(metrics["grad_norm"])


def test_a_step_that_is_not_finite_changes_nothing_but_the_count(setup):
    config, task, initial = setup
    good, bad = batch_of(task, 8), batch_of(task, 8)
    bad["image"][2, 3, 4] = np.nan
    sizes = {"data": 1, "fsdp": 1, "model": 1}
    _, clean, _ = run(config, task, initial, [good], sizes, 1)
    _, state, metrics = run(config, task, initial, [good, bad], sizes, 1)
    assert not metrics["finite"]
    assert not np.isfinite(metrics["terms"]["mask"][0])
    assert int(state.step) == 2
    jax.tree.map(np.testing.assert_array_equal, (clean.params, clean.opt, clean.ema), (state.params, state.opt, state.ema))


def test_losses_that_compare_examples_refuse_micro_batches(setup):
    config, task, _ = setup
    import dataclasses

    config = config.copy_and_resolve_references()
    config.train.accumulate = 2
    contrastive = dataclasses.replace(task, accumulates=False)
    with pytest.raises(ValueError, match=r"config\.train\.accumulate: found 2, expected 1"):
        make_train_step(contrastive, None, config, "train")


def test_counting_does_not_run_the_model(setup):
    """The pass that counts before micro-batches is dropped by the compiler but for the counts."""
    config, task, initial = setup
    config = config.copy_and_resolve_references()
    flops = {}
    for accumulate in (1, 2):
        config.train.accumulate = accumulate
        optimizer = optim.make_optimizer(config, optim.split(initial[0], config.optim.freeze)[0])
        state = init_train_state(*initial, optimizer, config)
        step = jax.jit(make_train_step(task, optimizer, config, "train"))
        text = step.lower(state, jax.tree.map(jnp.asarray, batch_of(task, 8))).compile().as_text()
        flops[accumulate] = text.count(" dot(") + text.count("custom_call_target=\"__onednn$matmul")
    assert flops[1] > 10
    assert flops[2] <= 1.2 * flops[1], flops
