"""Eight devices give what one gives, in the stages of MasQCLIP: losses, and gradients by what a plain descent makes of them."""

import jax
import numpy as np
import pytest

from jaxseg import systems
from jaxseg.weights import flatten
from tests import tiny
from tests.step_test import run
from tests.systems import mask2former_test, masqclip_test

ONE, EIGHT = {"data": 1, "fsdp": 1, "model": 1}, {"data": 2, "fsdp": 2, "model": 2}


def stage(name):
    """(config, task, first parameters and state, a batch of eight)."""
    rng = np.random.default_rng(0)
    if name == "masqclip":
        config = masqclip_test.small()
    else:
        config = mask2former_test.config_of(name)
    config = config.copy_and_resolve_references().unlock()
    config.optim.update(name="sgd", betas=(0.0, 0.0), learning_rate=1.0, clip_norm=0.0, weight_decay=0.0)
    config.optim.schedule = {"name": "constant"}
    config.train.batch_size = 8
    task = systems.make_task(config.lock())
    params, state = tiny.params_of(task)
    names = masqclip_test.NAMES if name == "masqclip" else ("object",)
    params, state = jax.device_get(task.capabilities["begin"](params, state, names))  # what is donated must not be needed again
    batch = tiny.batch_of(task, 8)
    size = batch["image"].shape[1:3]
    masks = np.zeros(batch["masks"].shape, np.uint8)
    for i, j in np.ndindex(masks.shape[:2]):
        y, x = rng.integers(0, size[0] // 2, 2)
        masks[i, j, y : y + size[0] // 2, x : x + size[1] // 2] = 1
    valid = np.arange(masks.shape[1])[None] < rng.integers(0, masks.shape[1] + 1, 8)[:, None]
    return config, task, (params, state), batch | {
        "image": rng.integers(0, 256, batch["image"].shape).astype(np.uint8),
        "image_size": np.full((8, 2), size[0], np.int32),
        "masks": masks,
        "labels": batch["labels"] % len(names),
        "valid": valid,
    }


@pytest.mark.parametrize("name", ["masqclip_student_base48", "masqclip"])
def test_eight_devices_equal_one(name):
    config, task, initial, batch = stage(name)
    one, state_one, _ = run(config, task, initial, [batch], ONE, 1)
    eight, state_eight, _ = run(config, task, initial, [batch], EIGHT, 8)
    np.testing.assert_allclose(eight, one, rtol=1e-5)
    before, after_one, after_eight = (flatten(jax.device_get(x)) for x in (initial[0], state_one.params, state_eight.params))
    steps = {path: [np.asarray(after[path]) - old for after in (after_one, after_eight)] for path, old in before.items()}
    sizes = {path: np.abs(step).max() for path, (step, _) in steps.items()}
    # A gradient that is exactly zero (a bias before a norm) is rounding of what cancels in it.
    noise = 1e-6 * max(sizes.values())
    for path, (expected, found) in steps.items():
        np.testing.assert_allclose(found, expected, rtol=2e-3, atol=2e-4 * sizes[path] + noise, err_msg=path)
    assert sum(size > noise for size in sizes.values()) > 3
