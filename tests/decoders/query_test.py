"""The query decoder: its released size, what masks let a query see, and options that must not change a number."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxseg import weights
from jaxseg.decoders.query import QueryDecoder, open_empty, predict_masks, visible_pixels
from jaxseg.decoders.query_weights import infer_query_decoder, query_decoder_rules
from jaxseg.nn.cross_attention import CrossAttention
from jaxseg.ops.resize import resize
from tests.filling import fill

FIELDS = {"num_outputs": 4, "num_queries": 5, "hidden_dim": 8, "mask_dim": 6, "num_layers": 4, "num_heads": 2, "mlp_dim": 12}
SIZES = ((2, 3), (4, 6), (8, 12))


def inputs(channels=8, mask_dim=6, batch=2, sizes=SIZES, seed=0):
    """Maps, coarse first, and mask features at twice the size of the last."""
    rng = np.random.default_rng(seed)
    memory = tuple(rng.standard_normal((batch, *size, channels)).astype(np.float32) for size in sizes)
    height, width = sizes[-1]
    return memory, rng.standard_normal((batch, 2 * height, 2 * width, mask_dim)).astype(np.float32)


def shapes_of(model, *arguments):
    return jax.eval_shape(model.init, jax.random.key(0), *(arguments or inputs()))["params"]


@functools.cache
def params_of(**fields):
    return fill(shapes_of(QueryDecoder(**(FIELDS | fields))), scale=0.5)


def test_parameters_of_the_released_decoder():
    """Of MasQCLIP over ResNet-50, in which it is 14.5 of 43.95 million; and one for 133 classes."""
    arguments = inputs(256, 256, 1)
    shapes = weights.flatten(shapes_of(QueryDecoder(num_outputs=2), *arguments))
    assert sum(np.prod(leaf.shape) for leaf in shapes.values()) == 14_459_138
    assert not any(path.startswith("input_") for path in shapes), "maps have the decoder's width already"
    many = weights.flatten(shapes_of(QueryDecoder(num_outputs=134), *arguments))
    assert many["head/class_embed/kernel"].shape == (256, 134)


def test_a_prediction_before_every_layer_and_one_after_all():
    model = QueryDecoder(**FIELDS)
    found = jax.eval_shape(lambda p, *x: model.apply({"params": p}, *x), shapes_of(model), *inputs())
    assert len(found.aux) == 4
    for prediction in (found.final, *found.aux):
        assert prediction.class_logits.shape == (2, 5, 4)
        assert prediction.mask_logits.shape == (2, 5, 16, 24)
    assert found.queries.shape == (2, 5, 8)


@pytest.mark.parametrize("pre_norm", [False, True])
def test_the_first_prediction_is_of_the_queries_alone(pre_norm):
    model, (memory, mask_features) = QueryDecoder(**(FIELDS | {"num_layers": 2}), pre_norm=pre_norm), inputs()
    run = jax.jit(lambda memory: model.apply({"params": params_of(num_layers=2)}, memory, mask_features))
    one, other = run(memory), run(inputs(seed=1)[0])
    np.testing.assert_array_equal(one.aux[0].mask_logits, other.aux[0].mask_logits)
    np.testing.assert_array_equal(one.aux[0].class_logits[0], one.aux[0].class_logits[1])
    assert np.abs(one.aux[1].class_logits - other.aux[1].class_logits).max() > 0.01


def test_what_is_seen_is_the_resized_mask():
    """The published order: masks at full size first, then resized."""
    _, mask_features = inputs()
    embeddings = np.random.default_rng(1).standard_normal((2, 5, 6)).astype(np.float32)
    masks = predict_masks(embeddings, mask_features)
    np.testing.assert_allclose(masks, np.einsum("bqc,bhwc->bqhw", embeddings, mask_features), rtol=1e-5, atol=1e-5)
    for size in (*SIZES, (5, 7)):
        expected = np.asarray(resize(masks, size))
        found = visible_pixels(embeddings, resize(mask_features, size, axes=(1, 2)))
        clear = np.abs(expected) > 1e-5
        np.testing.assert_array_equal(found.reshape(expected.shape)[clear], (expected > 0)[clear])
    # Half likely counts as seen.
    assert visible_pixels(np.zeros((1, 1, 6), np.float32), np.ones((1, 2, 2, 6), np.float32)).all()


def test_who_sees_nothing_sees_everything():
    visible = np.array([[[True, False], [False, False]]])
    np.testing.assert_array_equal(open_empty(visible), [[[True, False], [True, True]]])


def test_hidden_pixels_have_no_influence():
    """A query that talks to no other, one layer, one map."""
    model = QueryDecoder(**(FIELDS | {"num_layers": 1, "num_queries": 1}))
    memory, mask_features = inputs(batch=1, sizes=((4, 4),))
    params = fill(shapes_of(model, memory, mask_features), scale=0.5)
    run = jax.jit(lambda memory, mask_features: model.apply({"params": params}, memory, mask_features))
    before = run(memory, mask_features)
    visible = np.asarray(resize(before.aux[0].mask_logits, (4, 4)) >= 0)[0, 0]
    assert 0 < visible.sum() < 16
    changed = np.where(visible[None, :, :, None], memory[0], 7)
    np.testing.assert_array_equal(run((changed,), mask_features).queries, before.queries)
    changed = np.where(visible[None, :, :, None], 7, memory[0])
    assert np.abs(run((changed,), mask_features).queries - before.queries).max() > 0.01
    # Now its mask is empty everywhere, or full: either way it sees all pixels.
    one, other = (run(memory, c * np.ones_like(mask_features)) for c in (1, -1))
    assert (one.aux[0].mask_logits.max() < 0) != (other.aux[0].mask_logits.max() < 0)
    np.testing.assert_allclose(one.queries, other.queries, rtol=1e-5, atol=1e-6)


def test_remat_changes_no_number():
    fields, results = FIELDS | {"num_layers": 1}, []

    def loss(model):
        def of(params):
            out = model.apply({"params": params}, *inputs())
            return jnp.sum(jnp.sin(out.final.mask_logits)) + sum(jnp.sum(jnp.sin(aux.class_logits)) for aux in out.aux)

        return jax.value_and_grad(of)

    for remat in (False, True):
        of = loss(QueryDecoder(**fields, remat=remat))
        traced = jax.jit(of).trace(params_of(num_layers=1))
        assert bool(re.search(r"\b(checkpoint|remat\w*)\[", str(traced.jaxpr))) == remat
        results.append(traced.lower().compile()(params_of(num_layers=1)))
    (value, gradients), (expected, others) = results
    np.testing.assert_allclose(value, expected, rtol=1e-5)
    jax.tree.map(functools.partial(np.testing.assert_allclose, rtol=1e-3, atol=1e-3), gradients, others)


def test_masks_that_nobody_asks_for_cost_nothing():
    """At inference only the last masks at full size are computed."""
    model, arguments = QueryDecoder(**(FIELDS | {"num_layers": 1})), inputs()
    params = shapes_of(model)

    def flops(take):
        run = jax.jit(lambda p, *x: take(model.apply({"params": p}, *x)))
        return run.lower(params, *arguments).compile().cost_analysis()["flops"]

    masks = 2 * 2 * 5 * 16 * 24 * 6  # of one prediction
    saved = flops(lambda out: (out.final, out.aux)) - flops(lambda out: out.final)
    assert saved >= masks


@pytest.mark.parametrize("project", [False, True])
def test_names_both_ways(project):
    model = QueryDecoder(**FIELDS, project=project)
    params, rules = fill(shapes_of(model)), query_decoder_rules()
    tensors = weights.to_tensors(params, rules)
    jax.tree.map(np.testing.assert_array_equal, weights.to_params(tensors, rules, params), params)
    shapes = {key: value.shape for key, value in tensors.items()}
    assert infer_query_decoder(shapes) == {**{k: v for k, v in FIELDS.items() if k != "num_heads"}, "project": project}
    if project:
        assert shapes["input_proj.2.weight"] == (8, 8, 1, 1)
    assert shapes["transformer_cross_attention_layers.3.multihead_attn.in_proj_weight"] == (24, 8)
    tensors["static_query.weight"] = tensors.pop("query_feat.weight")
    jax.tree.map(np.testing.assert_array_equal, weights.to_params(tensors, rules, params), params)
    with pytest.raises(ValueError, match="query_embed"):
        infer_query_decoder({})


def test_maps_of_other_widths_are_projected():
    memory, mask_features = inputs(channels=7)
    model = QueryDecoder(**FIELDS)
    shapes = weights.flatten(shapes_of(model, memory, mask_features))
    assert [shapes[f"input_{i}/kernel"].shape for i in range(3)] == [(1, 1, 7, 8)] * 3


def test_epsilon_of_every_normalization():
    found = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, nn.LayerNorm) and context.method_name == "__call__":
            found.append(context.module.epsilon)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes_of(QueryDecoder(**FIELDS))
    assert found == [1e-5] * (4 * 3 + 5)


def test_attention_across():
    """Against the definition, and torch's bounds of initial values."""
    rng = np.random.default_rng(0)
    query, key, value = (rng.standard_normal((2, n, 8)).astype(np.float32) for n in (3, 5, 5))
    mask = rng.random((2, 1, 3, 5)) < 0.7
    module = CrossAttention(2)
    params = module.init(jax.random.key(0), query, key, value)["params"]
    projected = {}
    for name, x in (("q", query), ("k", key), ("v", value)):
        assert 0.8 * (6 / 32) ** 0.5 < np.abs(params[name]["kernel"]).max() <= (6 / 32) ** 0.5
        projected[name] = (x @ params[name]["kernel"]).reshape(*x.shape[:2], 2, 4)
    logits = np.einsum("bnhd,bmhd->bhnm", projected["q"], projected["k"]) / 2
    attention = jax.nn.softmax(np.where(mask, logits, -1e9), axis=-1)
    expected = np.einsum("bhnm,bmhd->bnhd", attention, projected["v"]).reshape(2, 3, 8) @ params["out"]["kernel"]
    found = module.apply({"params": params}, query, key, value, mask=mask)
    np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-6)
    with pytest.raises(ValueError, match="multiple of 3 heads"):
        CrossAttention(3).init(jax.random.key(0), query, key, value)


def test_bfloat16():
    model = QueryDecoder(**FIELDS, dtype=jnp.bfloat16)
    shapes = jax.eval_shape(lambda p, *x: model.apply({"params": p}, *x), shapes_of(model), *inputs())
    assert shapes.queries.dtype == jnp.bfloat16 and shapes.final.mask_logits.dtype == jnp.float32
