"""The smallest CLIPSeg that has every part of a real one, for tests of the programs around models."""

import jax
import numpy as np

from configs import clipseg_rd64
from tests.filling import fill


def clipseg_config(**model):
    """A float32 config with two-layer towers at 32 pixels and two prompts per image."""
    config = clipseg_rd64.get_config("tiny,data=scenes/64")
    config.model.clip.update(
        image_size=32, patch_size=8, embed_dim=16, vision_width=32, vision_heads=2, text_width=16, text_heads=2
    )
    published = {"norm_first": False, "mask_prior": 0.5}
    config.model.update(reduce_dim=8, mlp_dim=16, num_heads=2, dropout=0.0, **(published | model))
    config.task.update(image_size=32, num_prompts=2)
    config.train.update(steps=3, batch_size=8)
    # The released recipe; `:tiny` trains its towers along.
    config.optim.update(name="adamw", freeze=("^clip/",), multipliers=())
    config.init_from = ()
    return config


def params_of(task, seed=0):
    """Random parameters of a task, and its empty state."""
    params, state = jax.eval_shape(task.init, jax.random.key(0))
    return fill(params, seed), fill(state, seed)


def batch_of(task, size, seed=0, kind="train"):
    """A random train batch of the task's shapes."""
    rng = np.random.default_rng(seed)

    def leaf(path, spec):
        if np.issubdtype(spec.dtype, np.integer):
            return rng.integers(0, 100, spec.shape).astype(spec.dtype)
        name = path[0].key
        if name in ("mask", "mask_valid"):
            return (rng.random(spec.shape) < 0.7).astype(np.float32)
        return rng.standard_normal(spec.shape).astype(spec.dtype)

    return jax.tree_util.tree_map_with_path(leaf, task.example_batch(size, kind))
