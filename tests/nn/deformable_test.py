"""Deformable attention: all formulations against hat functions, values and gradients, and what each machine gets."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxseg import hlo, sharding
from jaxseg.nn import deformable, deformable_sampling
from jaxseg.nn.deformable import FORMULATIONS, MSDeformAttn, ms_deform_attn, star_directions
from tests.filling import fill

SHAPES = ((4, 5), (2, 3), (1, 1), (1, 4))
HEADS, DIM, POINTS = 2, 3, 2


def sample(value, shapes, locations, weights):
    """The definition: every pixel's weight is a product of two hats around the point. [B, Q, heads * D]."""
    total, start = 0.0, 0
    for level, (h, w) in enumerate(shapes):
        x, y = (locations[:, :, :, level, :, i] * size - 0.5 for i, size in ((0, w), (1, h)))
        hats_x, hats_y = (
            jnp.maximum(0, 1 - jnp.abs(c[..., None] - jnp.arange(size, dtype=c.dtype).reshape(1, 1, 1, 1, -1)))
            for c, size in ((x, w), (y, h))
        )
        pixels = value[:, start : start + h * w].reshape(len(value), h, w, *value.shape[2:])
        total += jnp.einsum("bqhp,bqhpy,bqhpx,byxhd->bqhd", weights[:, :, :, level], hats_y, hats_x, pixels)
        start += h * w
    return total.reshape(*total.shape[:2], -1)


def inputs(queries=7, batch=2, spread=1.0, shapes=SHAPES, seed=0):
    rng = np.random.default_rng(seed)
    value = rng.standard_normal((batch, sum(h * w for h, w in shapes), HEADS, DIM))
    locations = 0.5 + spread * rng.standard_normal((batch, queries, HEADS, len(shapes), POINTS, 2))
    weights = rng.random((batch, queries, HEADS, len(shapes), POINTS))
    return tuple(x.astype(np.float32) for x in (value, locations, weights))


def values_and_gradients(function, arrays, shapes=SHAPES):
    """Output, and gradients of a random projection of it."""

    def loss(value, locations, weights):
        out = function(value, shapes, locations, weights).astype(jnp.float32)
        return jnp.sum(out * jnp.cos(jnp.arange(out.size, dtype=jnp.float32)).reshape(out.shape)), out

    gradients, out = jax.jit(jax.grad(loss, argnums=(0, 1, 2), has_aux=True))(*arrays)
    return out, *gradients


def assert_close(found, expected, tolerance):
    for one, other in zip(found, expected, strict=True):
        one, other = np.asarray(one, np.float32), np.asarray(other, np.float32)
        assert np.abs(one - other).max() <= tolerance * max(1, np.abs(other).max())


@pytest.mark.parametrize("impl", FORMULATIONS)
def test_values_and_gradients(impl):
    """Half of the points lie outside of the maps."""
    arrays = inputs()
    outside = np.mean((arrays[1] < 0) | (arrays[1] > 1))
    assert 0.4 < outside < 0.8
    found = values_and_gradients(functools.partial(ms_deform_attn, impl=impl), arrays)
    assert_close(found, values_and_gradients(sample, arrays), 5e-6)


@pytest.mark.parametrize("impl", FORMULATIONS)
def test_bfloat16_values(impl):
    value, *rest = inputs(spread=0.3)
    value = jnp.asarray(value, jnp.bfloat16)
    found = values_and_gradients(functools.partial(ms_deform_attn, impl=impl), (value, *rest))
    assert found[1].dtype == jnp.bfloat16
    expected = values_and_gradients(sample, (value.astype(jnp.float32), *rest))
    assert_close(found, expected, 0.02)
    assert ms_deform_attn(value, SHAPES, *rest, impl=impl).dtype == jnp.bfloat16


@pytest.mark.parametrize("impl", FORMULATIONS)
def test_borders_and_far_away(impl):
    """Centres of pixels give the pixel, corners of the map a quarter of it, one pixel beyond nothing."""
    shapes = ((2, 4),)
    value = np.arange(1, 9, dtype=np.float32).reshape(1, 8, 1, 1)
    points = [(0.125, 0.25), (0.875, 0.75), (0, 0), (1, 1), (-0.125, 0.25), (1.125, 0.75), (1e12, -1e12), (0.5, -1e30)]
    locations = np.array(points, np.float32).reshape(1, -1, 1, 1, 1, 2)
    out = ms_deform_attn(value, shapes, locations, np.ones(locations.shape[:-1], np.float32), impl=impl)
    np.testing.assert_allclose(out[0, :, 0], [1, 8, 0.25, 2, 0, 0, 0, 0], atol=1e-6)


@pytest.mark.parametrize("impl", FORMULATIONS)
def test_a_split_batch_needs_no_communication(impl):
    mesh = sharding.make_mesh({"data": 8, "fsdp": 1, "model": 1})
    where = NamedSharding(mesh, P("data"))
    arrays = [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where) for x in inputs(batch=8)]

    def loss(value, locations, weights):
        out = ms_deform_attn(value, SHAPES, locations, weights, impl=impl)
        return jnp.sum(out * out, axis=(1, 2)), out

    def step(*arrays):
        per_image, pull, out = jax.vjp(loss, *arrays, has_aux=True)
        return out, pull(jnp.ones_like(per_image))

    compiled = jax.jit(step, out_shardings=where).lower(*arrays).compile()
    assert hlo.totals(compiled.as_text()).collectives == {}


def lowered(platform, queries):
    arrays = inputs(queries)
    traced = jax.jit(lambda *x: ms_deform_attn(x[0], SHAPES, x[1], x[2])).trace(*arrays)
    text = traced.lower(lowering_platforms=(platform,)).as_text()
    gathered = re.findall(r'"stablehlo.gather".* -> tensor<[\dx]*x(\d+)xf32>', text)
    assert len(gathered) == 1
    return int(gathered[0]) == 4 * DIM, "stablehlo.while" in text


def test_each_platform_gets_its_formulation(monkeypatch):
    """Decided when a program is lowered: this machine has neither a TPU nor a GPU."""
    packed, scanned = [True, False], [False, True]
    # One point of a query samples HEADS * 4 * DIM numbers in each of the levels.
    monkeypatch.setattr(deformable_sampling, "SCAN_BYTES", 100 * len(SHAPES) * POINTS * HEADS * 4 * DIM * 4)
    deformable._run.clear_cache()
    for platform, queries, is_packed, is_scanned in (
        ("tpu", 100, *packed),
        ("tpu", 101, True, True),
        ("cpu", 5, *scanned),
        ("cpu", 101, *scanned),
        ("cuda", 100, False, False),
        ("cuda", 101, *scanned),
    ):
        assert lowered(platform, queries) == (is_packed, is_scanned), (platform, queries)


def test_wrong_arguments_are_named():
    value, locations, weights = inputs()
    with pytest.raises(ValueError, match="impl: found 'fast'"):
        ms_deform_attn(value, SHAPES, locations, weights, impl="fast")
    with pytest.raises(ValueError, match=r"expected \[B, 20, heads, D\]"):
        ms_deform_attn(value, SHAPES[:1], locations, weights)
    with pytest.raises(ValueError, match="width 7"):
        filled(MSDeformAttn(2), np.ones((1, 2, 7)), value, np.ones((1, 2, 1, 2)))
    with pytest.raises(ValueError, match="references of 3"):
        filled(MSDeformAttn(2), np.ones((1, 2, 6)), value, np.ones((1, 2, 1, 3)))


def test_heads_start_in_their_own_directions():
    star = star_directions(8, 2, 3)
    assert star.shape == (8, 2, 3, 2)
    np.testing.assert_allclose(star[:3, 0, 0], [[1, 0], [1, 1], [0, 1]], atol=1e-6)
    np.testing.assert_allclose(star[4, 1], [[-1, 0], [-2, 0], [-3, 0]], atol=1e-6)
    # All eight lie on a square around the pixel.
    np.testing.assert_allclose(np.abs(star[:, 0, 1]).max(-1), 2, atol=1e-6)


def module_arguments(queries=5, width=HEADS * DIM, reference_dim=2, seed=1):
    rng = np.random.default_rng(seed)
    query = rng.standard_normal((2, queries, width))
    value = rng.standard_normal((2, sum(h * w for h, w in SHAPES), width))
    reference = rng.random((2, queries, len(SHAPES), reference_dim))
    return tuple(x.astype(np.float32) for x in (query, value, reference))


def filled(module, query, value, reference, scale=0.1):
    """Random parameters of a module."""
    return fill(jax.eval_shape(lambda: module.init(jax.random.key(0), query, value, SHAPES, reference)), scale=scale)


def test_initial_attention_is_a_star_of_equal_weights():
    query, value, reference = module_arguments()
    module = MSDeformAttn(HEADS, POINTS)
    variables = module.init(jax.random.key(0), query, value, SHAPES, reference)
    assert not np.any(variables["params"]["offsets"]["kernel"]) and not np.any(variables["params"]["weights"]["kernel"])
    star = star_directions(HEADS, len(SHAPES), POINTS)
    np.testing.assert_array_equal(variables["params"]["offsets"]["bias"], star.ravel())
    v = value @ variables["params"]["v"]["kernel"]
    sizes = np.array([(w, h) for h, w in SHAPES], np.float32).reshape(1, 1, 1, -1, 1, 2)
    locations = reference[:, :, None, :, None] + star[None, None] / sizes
    weights = np.full(locations.shape[:-1], 1 / (len(SHAPES) * POINTS), np.float32)
    sampled = sample(v.reshape(2, -1, HEADS, DIM), SHAPES, locations, weights)
    found = module.apply(variables, query, value, SHAPES, reference)
    np.testing.assert_allclose(found, sampled @ variables["params"]["out"]["kernel"], rtol=1e-4, atol=1e-5)


def test_boxes_as_references():
    """P steps of an offset of one reach the border of the box."""
    query, value, boxes = module_arguments(reference_dim=4)
    module = MSDeformAttn(HEADS, POINTS)
    params = filled(module, query, value, boxes)["params"]
    grid = (HEADS, len(SHAPES), POINTS, 2)
    params["offsets"] = {
        "kernel": np.zeros_like(params["offsets"]["kernel"]),
        "bias": np.full(grid, POINTS, np.float32).ravel(),
    }
    corners = boxes[..., :2] + boxes[..., 2:] / 2
    found = module.apply({"params": params}, query, value, SHAPES, boxes)
    params["offsets"]["bias"] = np.zeros_like(params["offsets"]["bias"])
    np.testing.assert_allclose(found, module.apply({"params": params}, query, value, SHAPES, corners), rtol=1e-4, atol=1e-6)


def test_values_of_padding_are_zero():
    query, value, reference = module_arguments()
    module = MSDeformAttn(HEADS, POINTS)
    params = filled(module, query, value, reference, scale=0.5)
    valid = np.random.default_rng(2).random(value.shape[:2]) < 0.5
    found = module.apply(params, query, value, SHAPES, reference, valid=valid)
    changed = np.where(valid[..., None], value, 100)
    np.testing.assert_array_equal(found, module.apply(params, query, changed, SHAPES, reference, valid=valid))
    assert np.abs(found - module.apply(params, query, value, SHAPES, reference)).max() > 0.01


def test_bfloat16_modules_keep_places_in_float32():
    """A bfloat16 fraction of a wide map is off by pixels."""
    shapes = ((1, 512),)
    value = np.arange(512, dtype=np.float32).reshape(1, 512, 1)
    reference = (np.arange(512, dtype=np.float32).reshape(1, 512, 1, 1) + 0.5) / 512
    reference = np.concatenate([reference, np.full_like(reference, 0.5)], axis=-1)
    module = MSDeformAttn(1, 1, dtype=jnp.bfloat16)
    params = {
        name: {"kernel": np.zeros((1, n), np.float32), "bias": np.zeros(n, np.float32)}
        for name, n in (("offsets", 2), ("weights", 1))
    }
    params |= {name: {"kernel": np.ones((1, 1), np.float32), "bias": np.zeros(1, np.float32)} for name in ("v", "out")}
    found = module.apply({"params": params}, np.zeros((1, 512, 1), np.float32), value, shapes, reference)
    expected = np.asarray(jnp.asarray(value, jnp.bfloat16), np.float32)
    np.testing.assert_allclose(np.asarray(found, np.float32), expected, rtol=0.01)
