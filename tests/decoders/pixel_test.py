"""The pixel decoder: its released size, the variants that its fields make, and options that must not change a number."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxseg import weights
from jaxseg.decoders.deformable_encoder import (
    DeformableEncoder,
    flatten_levels,
    level_positions,
    reference_points,
    split_levels,
)
from jaxseg.decoders.deformable_weights import num_encoder_points
from jaxseg.decoders.pixel import PixelDecoder
from jaxseg.decoders.pixel_weights import infer_pixel_decoder, pixel_decoder_rules
from tests.filling import fill

SIZES = {"res2": (16, 12), "res3": (8, 6), "res4": (4, 3), "res5": (2, 2)}
CHANNELS = {"res2": 4, "res3": 6, "res4": 8, "res5": 12}
FIELDS = {
    "hidden_dim": 16,
    "mask_dim": 10,
    "num_layers": 2,
    "num_heads": 2,
    "num_points": 2,
    "mlp_dim": 24,
    "num_groups": 4,
}
MASK_DINO = {
    "levels": ("res3", "res4", "res5"),
    "num_extra": 1,
    "finest": 0,
    "laterals": ("res3",),
    "num_maps": 4,
    "upsample_masks": True,
}


def features_of(channels=None, batch=1, seed=0):
    rng, channels = np.random.default_rng(seed), channels or CHANNELS
    return {name: rng.standard_normal((batch, *SIZES[name], width)).astype(np.float32) for name, width in channels.items()}


def shapes_of(model, features=None):
    features = features or features_of()
    return jax.eval_shape(model.init, jax.random.key(0), features)["params"]


def sizes_of(maps):
    return [x.shape[1:3] for x in maps]


def test_parameters_of_the_released_decoder():
    """Of Mask2Former over ResNet-50, in which it is 6.0 of 43.95 million."""
    features = features_of({"res2": 256, "res3": 512, "res4": 1024, "res5": 2048})
    shapes = weights.flatten(shapes_of(PixelDecoder(), features))
    assert sum(np.prod(leaf.shape) for leaf in shapes.values()) == 6_035_904
    assert shapes["encoder/block_5/attn/offsets/kernel"].shape == (256, 192)
    assert shapes["encoder/block_5/mlp/fc1/kernel"].shape == (256, 1024)
    assert shapes["pyramid_1/kernel"].shape == (3, 3, 256, 256) and "pyramid_1/bias" not in shapes


def test_maps_are_coarse_first():
    model = PixelDecoder(**FIELDS)
    found = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], features_of(batch=2))
    assert found.mask_features.shape == (2, 16, 12, 10)
    assert sizes_of(found.memory) == [SIZES["res5"], SIZES["res4"], SIZES["res3"]]
    assert all(x.shape[-1] == 16 for x in found.memory)


def test_fewer_encoded_levels_make_a_longer_pyramid():
    """Its parameters count from the finest map, and its maps fill up the three that are returned."""
    model = PixelDecoder(**FIELDS, levels=("res5",), laterals=("res4", "res3", "res2"))
    shapes = weights.flatten(shapes_of(model))
    assert [shapes[f"lateral_{k}/kernel"].shape[2] for k in (1, 2, 3)] == [CHANNELS[f"res{k + 1}"] for k in (1, 2, 3)]
    found = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], features_of())
    assert sizes_of(found.memory) == [SIZES["res5"], SIZES["res4"], SIZES["res3"]]
    assert found.mask_features.shape == (1, 16, 12, 10)


def test_mask_dino_is_a_choice_of_fields():
    model, features = PixelDecoder(**FIELDS, **MASK_DINO), features_of()
    del features["res2"]
    found = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], features)
    assert sizes_of(found.memory) == [SIZES["res3"], SIZES["res4"], SIZES["res5"], (1, 1)]
    assert found.mask_features.shape == (1, 16, 12, 10), "twice the size of res3"
    shapes = weights.flatten(shapes_of(model, features))
    assert shapes["input_3/kernel"].shape == (3, 3, CHANNELS["res5"], 16)
    assert shapes["level_embedding"].shape == (4, 16)


def test_missing_maps_are_named():
    with pytest.raises(ValueError, match="found maps .*expected .*res5"):
        shapes_of(PixelDecoder(**FIELDS), features_of({"res2": 4}))
    with pytest.raises(ValueError, match="found 2 maps, expected num_maps=3"):
        shapes_of(PixelDecoder(**FIELDS, levels=("res5", "res4"), laterals=()))


VARIANTS = {"mask2former": {}, "mask_dino": MASK_DINO, "no_norm": {"pyramid_norm": False}}


@pytest.mark.parametrize("name", VARIANTS)
def test_names_both_ways(name):
    model = PixelDecoder(**FIELDS, **VARIANTS[name])
    params, rules = fill(shapes_of(model)), pixel_decoder_rules(model.upsample_masks)
    tensors = weights.to_tensors(params, rules)
    jax.tree.map(np.testing.assert_array_equal, weights.to_params(tensors, rules, params), params)
    shapes = {key: value.shape for key, value in tensors.items()}
    inferred = infer_pixel_decoder(shapes)
    assert inferred == {key: getattr(model, key) for key in inferred}
    levels = shapes["transformer.level_embed"][0]
    assert num_encoder_points(shapes, 2, levels) == 2
    with pytest.raises(ValueError, match="multiple of 5"):
        num_encoder_points(shapes, 5, levels)
    with pytest.raises(ValueError, match="level_embed"):
        infer_pixel_decoder({})
    assert shapes["transformer.encoder.layers.1.self_attn.sampling_offsets.weight"] == (2 * levels * 2 * 2, 16)
    assert ("adapter_1.bias" in shapes) == (name == "no_norm") != ("adapter_1.norm.weight" in shapes)


@functools.cache
def encoder_case(**options):
    """Value and gradients of a two-layer encoder's loss, parameters as where nothing is scanned."""
    tokens, shapes = flatten_levels([features_of({"res4": 8, "res5": 8})[name] for name in ("res5", "res4")])
    position = np.cos(tokens)
    encoder, plain = (DeformableEncoder(2, 2, 12, num_points=2, **fields) for fields in (options, {}))
    target, params = (
        jax.eval_shape(lambda model=model: model.init(jax.random.key(0), tokens, position, shapes))["params"]
        for model in (encoder, plain)
    )
    target = weights.flatten(target)
    params = weights.unflatten(weights.match_layout(weights.flatten(fill(params, scale=0.3)), target))
    assert set(weights.flatten(params)) == set(target)
    loss = jax.value_and_grad(lambda p: jnp.sum(jnp.sin(encoder.apply({"params": p}, tokens, position, shapes))))
    value, gradients = jax.jit(loss)(params)
    names = (path.replace("blocks/", "block_{}/") for path in target)
    unrolled = {name.format(i) for name in names for i in range(2)}
    return value, weights.match_layout(weights.flatten(gradients), unrolled), str(jax.make_jaxpr(loss)(params))


@pytest.mark.parametrize("options", [{"scan": True, "remat": "dots"}, {"remat": "full"}], ids="-".join)
def test_scan_and_remat_change_no_number(options):
    # One point at a time is a checkpointed scan already.
    options = options | {"impl": "rows"}
    value, gradients, program = encoder_case(**options)
    expected, others, _ = encoder_case(impl="rows")
    assert bool(re.search(r"\bscan\[", program)) == ("scan" in options)
    assert re.search(r"\b(checkpoint|remat\w*)\[", program)
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    assert set(gradients) == set(others)
    for path, leaf in others.items():
        np.testing.assert_allclose(gradients[path], leaf, rtol=1e-3, atol=1e-4, err_msg=path)


def test_options_reach_the_encoder():
    stacked = weights.flatten(shapes_of(PixelDecoder(**FIELDS, scan=True, remat="full")))
    assert stacked["encoder/blocks/attn/v/kernel"].shape == (2, 16, 16)


def test_flattening_and_back():
    maps = [np.arange(24.0).reshape(2, 2, 3, 2), np.arange(4.0).reshape(2, 1, 1, 2)]
    tokens, shapes = flatten_levels(maps)
    assert tokens.shape == (2, 7, 2) and shapes == ((2, 3), (1, 1))
    np.testing.assert_array_equal(tokens[1, 4], maps[0][1, 1, 1])
    for one, other in zip(split_levels(tokens, shapes), maps, strict=True):
        np.testing.assert_array_equal(one, other)


def test_reference_points_are_centres():
    found = reference_points(((2, 3), (1, 1)))
    assert found.shape == (1, 7, 1, 2)
    np.testing.assert_allclose(found[0, 5, 0], [2.5 / 3, 1.5 / 2], rtol=1e-6)
    ratios = np.array([[[0.5, 1.0], [1.0, 0.5]]], np.float32)
    found = reference_points(((2, 3), (1, 1)), ratios)
    np.testing.assert_allclose(found[0, 5], [[2.5 / 3, 0.75], [5 / 3, 0.375]], rtol=1e-6)


def test_a_padded_image_is_encoded_as_alone():
    """With masks and ratios, as where images of several sizes share a batch."""
    rng = np.random.default_rng(0)
    sizes, padded = ((4, 6), (2, 3)), ((6, 8), (3, 4))
    maps = [rng.standard_normal((1, *size, 8)).astype(np.float32) for size in sizes]
    full = [rng.standard_normal((1, *size, 8)).astype(np.float32) for size in padded]
    valid = [np.zeros((1, *size), bool) for size in padded]
    for x, y, mask, (h, w) in zip(full, maps, valid, sizes, strict=True):
        x[:, :h, :w], mask[:, :h, :w] = y, True
    level_embedding = rng.standard_normal((2, 8)).astype(np.float32)
    encoder = DeformableEncoder(num_layers=2, num_heads=2, mlp_dim=12, num_points=2)

    def encode(maps, **padding):
        tokens, shapes = flatten_levels(maps)
        masks = padding.pop("masks", None)
        position = level_positions(shapes, level_embedding, valid=masks)
        shaped = jax.eval_shape(lambda: encoder.init(jax.random.key(0), tokens, position, shapes))
        params = fill(shaped, scale=0.3)
        return split_levels(jax.jit(lambda p, x: encoder.apply(p, x, position, shapes, **padding))(params, tokens), shapes)

    alone = encode(maps)
    tokens_valid = np.concatenate([mask.reshape(1, -1) for mask in valid], axis=1)
    ratios = np.array([[(w / W, h / H) for (h, w), (H, W) in zip(sizes, padded, strict=True)]], np.float32)
    together = encode(full, masks=valid, valid=tokens_valid, valid_ratios=ratios)
    for x, y, (h, w) in zip(together, alone, sizes, strict=True):
        np.testing.assert_allclose(x[:, :h, :w], y, rtol=1e-4, atol=1e-5)


def test_epsilon_of_every_normalization():
    found = {}

    def note(call, args, kwargs, context):
        if context.method_name == "__call__" and isinstance(context.module, nn.LayerNorm | nn.GroupNorm):
            key = type(context.module).__name__, context.module.epsilon
            found[key] = found.get(key, 0) + 1
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes_of(PixelDecoder(**FIELDS, **MASK_DINO))
    assert found == {("LayerNorm", 1e-5): 2 * 2, ("GroupNorm", 1e-5): 4 + 2 + 1}


def test_initial_values():
    """Uniform within sqrt(6 / (in + out)) before the encoder, sqrt(3 / in) after it."""
    model = PixelDecoder(**FIELDS | {"num_layers": 0}, levels=("res5",), num_maps=1)
    params = weights.flatten(model.lazy_init(jax.random.key(0), jax.eval_shape(features_of))["params"])
    for path, bound in (("input_0/kernel", (6 / 28) ** 0.5), ("pyramid_1/kernel", (3 / 144) ** 0.5)):
        assert 0.8 * bound < np.abs(params[path]).max() <= bound, path
    assert not any(np.any(leaf) for path, leaf in params.items() if path.endswith("bias"))
