"""Swin Transformer: sizes of what was released, maps of any size, who sees whom, dropped paths, and its names."""

import functools
import math
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxseg import weights
from jaxseg.encoders.backbones import make_backbone
from jaxseg.encoders.swin.model import PatchMerging, Swin, SwinBlock, relative_position_index
from jaxseg.encoders.swin.variants import VARIANTS
from jaxseg.encoders.swin.weights import (
    DETECTRON2_IGNORE,
    HUGGINGFACE_IGNORE,
    detectron2_rules,
    huggingface_rules,
    huggingface_settings,
    infer_detectron2,
    infer_huggingface,
)
from tests.filling import fill

SMALL = {"embed_dim": 8, "depths": (1, 2, 2, 1), "num_heads": (1, 2, 2, 4), "window": 3}
SHALLOW = {"embed_dim": 8, "depths": (2,), "num_heads": (2,), "window": 3, "outputs": ("res2",)}
# Of transformers' SwinBackbone with four outputs, without the norm that no map passes through (2 x the last width).
RELEASED = {"tiny": 27_522_234 - 1536, "small": 48_840_138 - 1536, "base": 86_882_424 - 2048, "large": 195_204_276 - 3072}


def shapes_of(model, height=32, width=32):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, height, width, 3)))["params"]


def flat_shapes(model):
    return {path: tuple(leaf.shape) for path, leaf in weights.flatten(shapes_of(model)).items()}


@functools.cache
def small_params():
    return fill(shapes_of(Swin(**SMALL)), scale=0.3)


def image_of(height, width, batch=2):
    return np.random.default_rng(0).standard_normal((batch, height, width, 3)).astype(np.float32)


@pytest.mark.parametrize("name", VARIANTS)
def test_parameters_of_released_models(name):
    assert sum(map(math.prod, flat_shapes(Swin(**VARIANTS[name])).values())) == RELEASED[name]


@pytest.mark.parametrize("height, width", [(64, 96), (65, 97), (33, 31), (1, 2)])
def test_maps_are_rounded_up(height, width):
    """Where windows are larger than the map as well."""
    model = make_backbone({"name": "swin", **SMALL}, dtype=jnp.bfloat16)
    image = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    found = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    size, expected = (-(-height // 4), -(-width // 4)), {}
    for i in range(4):
        expected[f"res{i + 2}"] = (2, *size, 8 * 2**i)
        size = tuple(-(-side // 2) for side in size)
    assert {name: x.shape for name, x in found.items()} == expected
    assert all(x.dtype == jnp.bfloat16 for x in found.values())


def test_stages_after_the_last_output_do_not_exist():
    paths = flat_shapes(Swin(**SMALL, outputs=("res3",)))
    assert {path.split("/")[0] for path in paths} == {"patch_embed", "patch_norm", "stage_0", "merge_0", "stage_1", "norm_1"}
    with pytest.raises(ValueError, match="res9"):
        flat_shapes(Swin(**SMALL, outputs=("res9",)))
    with pytest.raises(ValueError, match="num_heads"):
        flat_shapes(Swin(**(SMALL | {"num_heads": (1, 2)})))


def test_relative_positions():
    """One row of the table for each offset; the middle one is a pixel to itself."""
    index = relative_position_index(3)
    assert index.shape == (9, 9) and np.unique(index).size == 25
    assert (np.diag(index) == 12).all()
    assert index[0, 1] == 11 and index[1, 0] == 13  # asked from its left, from its right
    assert index[0, 3] == 7 and index[3, 0] == 17  # from above, from below
    assert index[0, 8] == 0 and index[8, 0] == 24


def block_output(size, window, shift, changed=None):
    """A block's output on one map [h, w, C], in which one pixel may be changed."""
    x = np.random.default_rng(1).standard_normal((1, *size, 8)).astype(np.float32)
    if changed:
        x[0, *changed] += np.arange(8)
    block = SwinBlock(2, window, shift)
    params = fill(jax.eval_shape(block.init, jax.random.key(0), x), scale=0.5)
    return np.asarray(jax.jit(block.apply)(params, x))[0]


@pytest.mark.parametrize("size, window, shift", [((7, 9), 4, 2), ((7, 9), 4, 0), ((3, 5), 7, 3)])
def test_who_sees_a_pixel(size, window, shift):
    """Those of its window; not those of the opposite side, which the roll brings next to it."""
    changed = (0, size[1] - 1)
    differs = np.any(block_output(size, window, shift, changed) != block_output(size, window, shift), axis=-1)
    y, x = (np.arange(side) for side in size)
    rows, columns = ((axis - shift) // window == (at - shift) // window for axis, at in zip((y, x), changed, strict=True))
    np.testing.assert_array_equal(differs, rows[:, None] & columns[None, :])


def test_every_second_block_is_shifted():
    found = {}

    def note(call, args, kwargs, context):
        if isinstance(context.module, SwinBlock) and context.method_name == "__call__":
            found["/".join(context.module.path)] = context.module.shift, round(context.module.drop_path, 6)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes_of(Swin(**SMALL, drop_path=0.5))
    assert found == {
        "stage_0/block_0": (0, 0.0),
        "stage_1/block_0": (0, 0.1),
        "stage_1/block_1": (1, 0.2),
        "stage_2/block_0": (0, 0.3),
        "stage_2/block_1": (1, 0.4),
        "stage_3/block_0": (0, 0.5),
    }
    assert np.abs(block_output((6, 6), 3, 1) - block_output((6, 6), 3, 0)).max() > 0.1


def test_merging_takes_four_neighbours():
    """Upper left, lower left, upper right, lower right, and zeros beyond the border."""
    x = np.arange(1.0, 16.0, dtype=np.float32).reshape(1, 3, 5, 1)
    seen = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.LayerNorm):
            seen.append(np.asarray(args[0]))
        return call(*args, **kwargs)

    merging = PatchMerging()
    params = fill(jax.eval_shape(merging.init, jax.random.key(0), x))
    with nn.intercept_methods(note):
        found = merging.apply(params, x)
    assert found.shape == (1, 2, 3, 2)
    np.testing.assert_array_equal(seen[-1][0, 0, 0], [1, 6, 2, 7])
    np.testing.assert_array_equal(seen[-1][0, 1, 2], [15, 0, 0, 0])


def test_dropped_paths():
    """An example skips a path as a whole; what is left is scaled by the chance to stay, and nothing is random by default."""
    x = np.tile(np.random.default_rng(0).standard_normal((1, 2, 3, 8)).astype(np.float32), (64, 1, 1, 1))
    plain, block = SwinBlock(2, 3), SwinBlock(2, 3, drop_path=0.5)
    params = fill(jax.eval_shape(plain.init, jax.random.key(0), x), scale=0.5)
    np.testing.assert_array_equal(block.apply(params, x), plain.apply(params, x))
    found = np.asarray(block.apply(params, x, deterministic=False, rngs={"dropout": jax.random.key(0)}))
    kinds, counts = np.unique(found.reshape(64, -1).round(4), axis=0, return_counts=True)
    assert len(kinds) == 4 and counts.min() >= 8, counts
    assert any(np.allclose(kind, x[0].reshape(-1), atol=1e-4) for kind in kinds), "both paths skipped"
    np.testing.assert_array_equal(
        SwinBlock(2, 3, drop_path=1.0).apply(params, x, deterministic=False, rngs={"dropout": jax.random.key(0)}), x
    )


def test_dropped_paths_in_the_whole():
    model, image = Swin(**SHALLOW, drop_path=0.5), image_of(16, 20)
    run = jax.jit(lambda image, key: model.apply({"params": params}, image, deterministic=False, rngs={"dropout": key})["res2"])
    params = fill(shapes_of(model), scale=0.3)
    one, other, again = (run(image, jax.random.key(i)) for i in (0, 1, 0))
    assert np.abs(one - other).max() > 0.01
    np.testing.assert_array_equal(one, again)


def test_remat_changes_no_number():
    image = image_of(20, 28, 1)
    params = fill(shapes_of(Swin(**SHALLOW)), scale=0.3)

    def case(**options):
        model = Swin(**SHALLOW, **options)
        return jax.value_and_grad(lambda p: jnp.sum(jnp.sin(model.apply({"params": p}, image)["res2"])))

    value, grads = jax.jit(case(remat="full"))(params)
    expected, others = jax.jit(case())(params)
    assert re.search(r"\b(checkpoint|remat\w*)\[", str(jax.make_jaxpr(case(remat="full"))(params)))
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4), grads, others)
    assert all(np.any(leaf) for leaf in jax.tree.leaves(grads)), "every parameter has a gradient, the bias of positions too"


def test_bfloat16_is_near():
    image = image_of(36, 52)
    params = fill(shapes_of(Swin(**SHALLOW)), scale=0.3)
    exact, rounded = (
        jax.jit(Swin(**SHALLOW, dtype=dtype).apply)({"params": params}, image)["res2"] for dtype in (jnp.float32, jnp.bfloat16)
    )
    difference = np.abs(np.asarray(rounded, np.float32) - exact)
    assert 0 < difference.mean() < 0.02 * np.abs(exact).max() and difference.max() < 0.15 * np.abs(exact).max()


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_epsilon_of_every_normalization(epsilon):
    found = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.LayerNorm):
            found.append(context.module.epsilon)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes_of(Swin(**SMALL, epsilon=epsilon))
    assert found == [epsilon] * (1 + 2 * 6 + 3 + 4)
    assert Swin().epsilon == 1e-5


def test_initial_values():
    x = jnp.zeros((1, 2, 2, 64))
    params = weights.flatten(SwinBlock(2, 2).init(jax.random.key(0), x)["params"])
    for path in ("attn/q/kernel", "attn/out/kernel", "mlp/fc1/kernel", "mlp/fc2/kernel", "position_bias"):
        assert 0.01 < np.std(params[path]) < 0.03, path
    assert not any(np.any(leaf) for path, leaf in params.items() if path.endswith("/bias"))


FAMILIES = {
    "detectron2": (
        detectron2_rules,
        infer_detectron2,
        DETECTRON2_IGNORE,
        (
            "layers.0.blocks.0.attn.relative_position_index",
            "layers.1.blocks.1.attn_mask",
            "norm.weight",
            "norm.bias",
            "head.weight",
            "head.bias",
        ),
    ),
    "huggingface": (
        huggingface_rules,
        infer_huggingface,
        HUGGINGFACE_IGNORE,
        ("encoder.layers.0.blocks.0.attention.self.relative_position_index", "swin.layernorm.weight", "layernorm.bias"),
    ),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_names_both_ways(family):
    rules, infer, ignore, unused = FAMILIES[family]
    params = small_params()
    tensors = weights.to_tensors(params, rules())
    assert infer({key: value.shape for key, value in tensors.items()}) == SMALL | {"mlp_ratio": 4.0}
    tensors |= {key: np.zeros(3, np.float32) for key in unused}
    found = weights.to_params(tensors, rules(), params, ignore)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    with pytest.raises(ValueError, match=r"patch_embed.*proj"):
        infer({})
    table = next(key for key in tensors if key.endswith("relative_position_bias_table"))
    with pytest.raises(ValueError, match="24 rows"):
        infer({key: value.shape for key, value in tensors.items()} | {table: (24, 1)})


@pytest.mark.parametrize("family", FAMILIES)
def test_names_at_full_size(family):
    """Bytes instead of floats: 87 million."""
    rules, infer, ignore, _ = FAMILIES[family]
    shapes = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.int8), shapes_of(Swin(**VARIANTS["base"])))
    zeros = jax.tree.map(lambda leaf: np.broadcast_to(np.int8(0), leaf.shape), shapes)
    tensors = weights.to_tensors(zeros, rules())
    assert infer({key: value.shape for key, value in tensors.items()}) == VARIANTS["base"] | {"mlp_ratio": 4.0}
    found = weights.flatten(weights.to_params(tensors, rules(), shapes, ignore))
    assert {path: leaf.shape for path, leaf in found.items()} == flat_shapes(Swin(**VARIANTS["base"]))
    assert sum(x.size for x in tensors.values()) == RELEASED["base"]


def test_names_as_released():
    params = small_params()
    detectron2, huggingface = (weights.to_tensors(params, rules()) for rules in (detectron2_rules, huggingface_rules))
    for theirs, other in (
        ("patch_embed.proj.weight", "embeddings.patch_embeddings.projection.weight"),
        ("patch_embed.norm.bias", "embeddings.norm.bias"),
        ("layers.1.blocks.1.norm1.weight", "encoder.layers.1.blocks.1.layernorm_before.weight"),
        ("layers.1.blocks.1.norm2.weight", "encoder.layers.1.blocks.1.layernorm_after.weight"),
        (
            "layers.2.blocks.0.attn.relative_position_bias_table",
            "encoder.layers.2.blocks.0.attention.self.relative_position_bias_table",
        ),
        ("layers.2.blocks.0.attn.proj.weight", "encoder.layers.2.blocks.0.attention.output.dense.weight"),
        ("layers.2.blocks.0.mlp.fc1.bias", "encoder.layers.2.blocks.0.intermediate.dense.bias"),
        ("layers.2.blocks.0.mlp.fc2.weight", "encoder.layers.2.blocks.0.output.dense.weight"),
        ("layers.0.downsample.reduction.weight", "encoder.layers.0.downsample.reduction.weight"),
        ("layers.2.downsample.norm.bias", "encoder.layers.2.downsample.norm.bias"),
        ("norm0.weight", "hidden_states_norms.stage1.weight"),
        ("norm3.bias", "hidden_states_norms.stage4.bias"),
    ):
        np.testing.assert_array_equal(detectron2[theirs], huggingface[other])
    for kind in ("weight", "bias"):
        parts = [huggingface[f"encoder.layers.0.blocks.0.attention.self.{x}.{kind}"] for x in ("query", "key", "value")]
        np.testing.assert_array_equal(detectron2[f"layers.0.blocks.0.attn.qkv.{kind}"], np.concatenate(parts))
    assert detectron2["patch_embed.proj.weight"].shape == (8, 3, 4, 4)
    assert len(detectron2) == 4 + 6 * 13 + 3 * 3 + 4 * 2
    assert len(huggingface) == 4 + 6 * 17 + 3 * 3 + 4 * 2


def test_names_in_memory():
    """transformers 5 names its modules otherwise than its files do."""
    params, pairs = (
        small_params(),
        (
            ("attention.self.relative_position_bias_table", "attention.relative_position_bias.relative_position_bias_table"),
            ("attention.self.query", "attention.q_proj"),
            ("attention.self.key", "attention.k_proj"),
            ("attention.self.value", "attention.v_proj"),
            ("attention.output.dense", "attention.o_proj"),
            ("intermediate.dense", "mlp.fc1"),
            ("output.dense", "mlp.fc2"),
        ),
    )
    tensors = {}
    for key, value in weights.to_tensors(params, huggingface_rules()).items():
        for theirs, other in pairs:
            key = key.replace(theirs, other)
        tensors[key if key.startswith("hidden") else f"swin.{key}"] = value
    assert infer_huggingface({key: value.shape for key, value in tensors.items()}) == SMALL | {"mlp_ratio": 4.0}
    jax.tree.map(np.testing.assert_array_equal, weights.to_params(tensors, huggingface_rules(), params), params)


def test_what_a_file_of_settings_decides():
    settings = {"model_type": "swin", "window_size": 7, "layer_norm_eps": 1e-5, "drop_path_rate": 0.3, "qkv_bias": True}
    assert huggingface_settings(settings) == {"window": 7, "epsilon": 1e-5}
    with pytest.raises(ValueError, match="backbone_config.model_type: found 'resnet', expected 'swin'"):
        huggingface_settings({"model_type": "resnet"})
