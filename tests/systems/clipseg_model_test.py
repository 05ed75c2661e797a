"""CLIPSeg as a model: sizes of what was released, work that is not done, and options that must not change a number."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn
from flax.core import unfreeze

from jaxseg import weights
from jaxseg.config import load_config, model_fields
from jaxseg.decoders.film import MaskHead
from jaxseg.encoders.clip.model import Clip
from jaxseg.encoders.clip.variants import VARIANTS
from jaxseg.nn.norms import FrozenBatchNorm, layer_norm
from jaxseg.systems.clipseg.model import ClipSeg
from tests.filling import fill

TOWERS = {
    "embed_dim": 16,
    "image_size": 32,
    "patch_size": 8,
    "vision_width": 32,
    "vision_layers": 4,
    "vision_heads": 2,
    "text_width": 16,
    "text_layers": 2,
    "text_heads": 2,
    "context_length": 77,
    "vocab_size": 50,
}
NUM_BLOCKS_RUN = 3  # of four: the last tap is block 2
DECODER = {"extract_layers": (0, 2), "reduce_dim": 8, "num_heads": 2, "mlp_dim": 16}
# Parameters of the released CLIP models, without batch normalisation's statistics.
RELEASED = {
    "RN50": 102_007_137,
    "RN101": 119_688_033,
    "RN50x4": 178_300_601,
    "RN50x16": 290_979_217,
    "RN50x64": 623_258_305,
    "ViT-B/32": 151_277_313,
    "ViT-B/16": 149_620_737,
    "ViT-L/14": 427_616_513,
    "ViT-L/14@336px": 427_944_193,
}
# The published counts hold a layer `reduce` of 769 D that nothing calls.
DECODERS = {
    "clipseg_rd64": 1_122_369 - 769 * 64,
    "clipseg_rd16": 275_985 - 769 * 16,
    "clipseg_rd64_refined": 1_176_225 - 769 * 64,
}


def build(towers=None, **fields):
    return ClipSeg(clip=TOWERS | (towers or {}), **(DECODER | fields))


def shapes_of(model, size=32):
    image, token_ids = jnp.zeros((1, size, size, 3)), jnp.zeros((1, 77), jnp.int32)
    return unfreeze(jax.eval_shape(model.init, jax.random.key(0), image, token_ids)["params"])


def count(shapes):
    return sum(int(np.prod(leaf.shape)) for leaf in jax.tree.leaves(shapes))


@functools.cache
def params_of(refined=False):
    return fill(shapes_of(build(refined=refined)), scale=0.2)


def image_of(height=32, width=32, batch=1, seed=0):
    return np.random.default_rng(seed).standard_normal((batch, height, width, 3)).astype(np.float32)


def tokens_of(num_prompts=3, length=77):
    """Random texts of one to six tokens, then the largest id, then zeros."""
    rng, ids = np.random.default_rng(1), np.zeros((num_prompts, length), np.int32)
    for i in range(num_prompts):
        ids[i, : 1 + i % 6] = rng.integers(1, 49, 1 + i % 6)
        ids[i, 1 + i % 6] = 49
    return ids


def compiled(model, method=None):
    return jax.jit(lambda params, *inputs: model.apply({"params": params}, *inputs, method=method))


def apply(model, params, *inputs, method=None):
    return compiled(model, method)(params, *inputs)


def assert_close(found, expected, tolerance=2e-5):
    """Within `tolerance` of the largest value, which must not be nothing."""
    found, expected = np.asarray(found, np.float32), np.asarray(expected, np.float32)
    assert found.shape == expected.shape
    scale = np.abs(expected).max()
    assert scale > 1e-6
    assert np.abs(found - expected).max() <= tolerance * scale


@pytest.mark.parametrize("name", RELEASED)
def test_parameters_of_released_towers(name):
    model = Clip(**VARIANTS[name])
    size = model.image_size
    shapes = jax.eval_shape(
        model.init, jax.random.key(0), jnp.zeros((1, size, size, 3)), jnp.zeros((1, 77), jnp.int32)
    )["params"]
    flat = weights.flatten(unfreeze(shapes))
    statistics = count({path: leaf for path, leaf in flat.items() if path.rsplit("/", 1)[1:] in (["mean"], ["var"])})
    assert count(flat) - statistics == RELEASED[name]
    assert statistics == (0 if model.patch_size else 2 * channels_normalised(model))


def channels_normalised(model):
    """Channels under batch normalisation in a ModifiedResNet: stem, blocks, and a shortcut for each stage."""
    width, stages = model.vision_width, model.vision_layers
    blocks = sum(number * 6 * width * 2**stage for stage, number in enumerate(stages))
    return 2 * width + blocks + sum(4 * width * 2**stage for stage in range(len(stages)))


@pytest.mark.parametrize("name", DECODERS)
def test_parameters_of_released_decoders(name):
    model = ClipSeg(**model_fields(load_config(name), ClipSeg))
    shapes = shapes_of(model, 352)
    assert set(shapes) == {"clip", "decoder"}
    assert count(shapes["decoder"]) == DECODERS[name]
    assert count(shapes["clip"]) == RELEASED["ViT-B/16"]


def flops(model, method, *inputs):
    """Of a method's program, at the model's own size of images where parameters depend on it."""
    shapes = shapes_of(model, model.clip["image_size"])
    lowered = jax.jit(lambda p, *x: model.apply({"params": p}, *x, method=method)).lower(shapes, *inputs)
    return lowered.cost_analysis()["flops"]


def test_nothing_after_the_last_tap_runs():
    towers = dict(VARIANTS["ViT-B/16"])
    image = jax.ShapeDtypeStruct((1, 352, 352, 3), jnp.float32)
    model, short = (ClipSeg(clip=towers | {"vision_layers": n}) for n in (12, 10))
    work = flops(model, "encode_image", image)
    assert work == flops(short, "encode_image", image)
    width, tokens = 768, 1 + 22 * 22
    products = 10 * 2 * tokens * (12 * width**2 + 2 * tokens * width) + 2 * (tokens - 1) * width * width
    assert products < work < 1.03 * products  # 3%: norms, softmax, activations, and three layers of width 64
    assert flops(model, "encode_prompt_image", image) > 1.15 * work


def test_blocks_after_the_last_tap_are_not_called():
    """A compiler drops unused work, a model that is not compiled would do it."""
    model, params, called = build(), params_of(), []

    def note(call, args, kwargs, context):
        if context.method_name == "__call__":
            called.append("/".join(context.module.path))
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        model.apply({"params": params}, image_of(), method="encode_image")
    blocks = {path for path in called if re.search(r"block_\d+$", path)}
    assert blocks == {f"clip/visual/block_{i}" for i in range(NUM_BLOCKS_RUN)}
    assert "clip/visual/ln_pre" in called
    assert not {"clip/visual/ln_post", "clip/visual/proj"} & set(called)


def test_a_scan_stops_at_the_last_tap():
    model = build({"scan": True})
    jaxpr = jax.make_jaxpr(lambda p, x: model.apply({"params": p}, x, method="encode_image").tokens)(
        shapes_of(model), image_of()
    )
    lengths = [e.params["length"] for e in jaxpr.jaxpr.eqns if e.primitive.name == "scan"]
    assert lengths == [NUM_BLOCKS_RUN]


@pytest.mark.parametrize("refined", [False, True])
def test_prompts_together_equal_one_by_one(refined):
    model, params = build(refined=refined), params_of(refined)
    images, token_ids = image_of(batch=2), tokens_of(3)
    together = apply(model, params, images, token_ids)
    alone = compiled(model)
    for i in range(2):
        for j in range(3):
            logits = alone(params, images[i : i + 1], token_ids[j : j + 1])
            assert_close(logits[0, 0], together[i, j])
    assert np.abs(together[:, 0] - together[:, 1]).max() > 1e-2 * np.abs(together).max()


def test_each_image_of_a_batch_may_have_its_own_prompts():
    model, params = build(), params_of()
    features = apply(model, params, image_of(batch=2), method="encode_image")
    cond = apply(model, params, tokens_of(4), method="encode_text")
    every = apply(model, params, features, cond, method="decode")
    own = apply(model, params, features, cond.reshape(2, 2, -1), method="decode")
    assert_close(own[0], every[0, :2])
    assert_close(own[1], every[1, 2:])


def test_texts_without_their_padding_have_the_same_embeddings():
    model, params, token_ids = build(), params_of(), tokens_of(6)
    full = apply(model, params, token_ids, method="encode_text")
    assert_close(apply(model, params, token_ids[:, :16], method="encode_text"), full)


def loss_of(model):
    image, token_ids = image_of(batch=2), tokens_of(2)
    factors = np.random.default_rng(2).standard_normal((2, 2, 32, 32)).astype(np.float32)

    def loss(params):
        logits = model.apply({"params": params}, image, token_ids)
        return jnp.mean(factors * logits), logits

    return loss


@functools.cache
def plain():
    """Gradients and logits of the model without options."""
    return jax.jit(jax.grad(loss_of(build()), has_aux=True))(params_of())


@pytest.mark.parametrize(
    "options", [{"scan": True}, {"remat": "full"}, {"scan": True, "remat": "dots"}], ids=lambda o: "-".join(o)
)
def test_scan_and_remat_change_no_number(options):
    model = build(options)
    target = weights.flatten(shapes_of(model))
    params = weights.unflatten(weights.match_layout(weights.flatten(params_of()), target))
    assert {path: leaf.shape for path, leaf in weights.flatten(params).items()} == {
        path: leaf.shape for path, leaf in target.items()
    }
    loss = jax.grad(loss_of(model), has_aux=True)
    program = str(jax.make_jaxpr(loss)(params))
    assert bool(re.search(r"\bscan\[", program)) == ("scan" in options)
    assert bool(re.search(r"\b(checkpoint|remat\w*)\[", program)) == ("remat" in options)
    gradients, logits = jax.jit(loss)(params)
    expected, expected_logits = plain()
    assert_close(logits, expected_logits)
    found = weights.match_layout(weights.flatten(gradients), weights.flatten(expected))
    largest = max(np.abs(leaf).max() for leaf in jax.tree.leaves(expected))
    for path, leaf in weights.flatten(expected).items():
        # The second term is rounding: softmax takes no notice of the keys' bias, whose gradient is nothing else.
        assert np.abs(found[path] - leaf).max() <= 2e-5 * np.abs(leaf).max() + 2e-7 * largest, path
    # Block 3 comes after the last tap.
    assert not np.any(found["clip/visual/block_3/mlp/fc1/kernel"])
    assert np.any(found["clip/visual/block_2/mlp/fc1/kernel"])


def test_bfloat16_is_close_to_float32():
    params, image, token_ids = params_of(), image_of(), tokens_of(2)
    half = build(dtype=jnp.bfloat16)
    assert all(x.dtype == jnp.bfloat16 for x in apply(half, params, image, method="encode_image").tokens)
    products = [
        line for line in compiled(half).lower(params, image, token_ids).as_text().splitlines() if "dot_general" in line
    ]
    assert len(products) > 50 and not any("xf32>" in line.split(" : ")[-1] for line in products)
    found = apply(half, params, image, token_ids)
    expected = apply(build(), params, image, token_ids)
    assert_close(found, expected, 0.05)
    error = np.abs(np.asarray(found, np.float32) - expected)
    assert 0 < error.mean() < 0.01 * np.abs(expected).max()


@pytest.mark.parametrize("height, width, grid", [(24, 40, (3, 5)), (64, 16, (8, 2)), (35, 47, (4, 5)), (8, 8, (1, 1))])
def test_any_size_of_image(height, width, grid):
    logits = apply(build(), params_of(), image_of(height, width, 2), tokens_of(3))
    assert logits.shape == (2, 3, 8 * grid[0], 8 * grid[1])
    assert np.isfinite(logits).all()


def transposed(params, side):
    """Parameters of the same model for transposed images."""
    flat = weights.flatten(params)
    for path in flat:
        if path.endswith("patch_kernel") or ("decoder/head/" in path and path.endswith("kernel")):
            flat[path] = flat[path].swapaxes(0, 1)
    path = "clip/visual/position_embedding"
    first, rest = flat[path][:1], flat[path][1:]
    rest = rest.reshape(side, side, -1).swapaxes(0, 1).reshape(rest.shape)
    return weights.unflatten(flat | {path: np.concatenate([first, rest])})


@pytest.mark.parametrize("refined", [False, True])
def test_rows_are_rows_and_columns_are_columns(refined):
    model, params, image, token_ids = build(refined=refined), params_of(refined), image_of(24, 40), tokens_of(2)
    found = apply(model, transposed(params, 4), image.swapaxes(1, 2), token_ids)
    expected = apply(model, params, image, token_ids)
    assert expected.shape == (1, 2, 24, 40)
    assert_close(found.swapaxes(2, 3), expected)


@pytest.mark.parametrize("patch, pixels", [(8, 8), (16, 16), (32, 64)])
def test_the_refined_head_expands_as_published(patch, pixels):
    tokens = jax.ShapeDtypeStruct((2, 3, 5, 8), jnp.float32)
    logits, params = jax.eval_shape(MaskHead(patch, refined=True).init_with_output, jax.random.key(0), tokens)
    assert logits.shape == (2, 3 * pixels, 5 * pixels)
    assert params["params"]["expand_0"]["kernel"].shape == (patch // 4, patch // 4, 8, 4)


def epsilons(model, *inputs):
    """{(kind, epsilon): modules} of every normalisation that a model calls."""
    found = {}

    def note(call, args, kwargs, context):
        if context.method_name == "__call__" and isinstance(context.module, nn.LayerNorm | FrozenBatchNorm):
            key = type(context.module).__name__, context.module.epsilon
            found.setdefault(key, set()).add(context.module.path)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        jax.eval_shape(model.init, jax.random.key(0), *inputs)
    return {key: len(paths) for key, paths in found.items()}


def test_epsilon_of_every_normalisation():
    """The recorded activations cannot tell 1e-5 from 1e-6, trained weights can."""
    image, token_ids = jnp.zeros((1, 32, 32, 3)), jnp.zeros((1, 77), jnp.int32)
    # Two per block: 4 + 2 of the towers and 2 + 1 of the decoder; ln_pre, ln_post, ln_final.
    assert epsilons(build(extra_blocks=1), image, token_ids) == {("LayerNorm", 1e-5): 2 * 9 + 3}
    resnet = Clip(**(TOWERS | {"patch_size": 0, "vision_layers": (2, 1, 1, 1), "vision_width": 4}))
    # Stem 3; three per block and one per stage's shortcut.
    expected = {("FrozenBatchNorm", 1e-5): 3 + 3 * 5 + 4, ("LayerNorm", 1e-5): 2 * 2 + 1}
    assert epsilons(resnet, image, token_ids) == expected


def test_epsilon_is_added_to_the_variance():
    x = jnp.array([[1e-3, -1e-3]])
    norm = layer_norm("norm")
    np.testing.assert_allclose(norm.apply(norm.init(jax.random.key(0), x), x), x / (1e-6 + 1e-5) ** 0.5, rtol=1e-5)
    statistics = {"scale": jnp.ones(2), "bias": jnp.zeros(2), "mean": jnp.zeros(2), "var": jnp.zeros(2)}
    np.testing.assert_allclose(FrozenBatchNorm().apply({"params": statistics}, x), x * 1e5**0.5, rtol=1e-5)
