"""The conversion engine: what does not fit is reported key by key, all of it, and nothing else is done."""

import jax
import ml_dtypes
import numpy as np
import pytest

from jaxseg import weights as W
from jaxseg.weights import ConversionError, Rule

RULES = [
    Rule("stem.weight", "stem/kernel", W.CONV),
    *W.packed_attention_rules("blocks.{i}.attn", "block_{i}/attn"),
    *W.norm_rules("norm", "norm"),
    *W.linear_rules("head", "head"),
    Rule("scale", "scale"),
    Rule("up.weight", "up/kernel", W.CONV_TRANSPOSE),
]
IGNORE = ((r"counter\..*", "a counter"),)


def state_dict(layers=2):
    rng = np.random.default_rng(0)
    shapes = {"stem.weight": (4, 3, 2, 2), "norm.weight": (4,), "norm.bias": (4,), "head.weight": (5, 4), "head.bias": (5,)}
    shapes |= {"scale": (), "up.weight": (4, 2, 3, 3)}
    for i in range(layers):
        attention = f"blocks.{i}.attn"
        shapes |= {f"{attention}.in_proj_weight": (12, 4), f"{attention}.in_proj_bias": (12,)}
        shapes |= {f"{attention}.out_proj.weight": (4, 4), f"{attention}.out_proj.bias": (4,)}
    return {key: np.asarray(rng.standard_normal(shape), np.float32) for key, shape in shapes.items()}


def target(layers=2):
    """What a model of these rules declares, as shapes."""
    linear = {"kernel": (4, 4), "bias": (4,)}
    shapes = {
        "stem": {"kernel": (2, 2, 3, 4)},
        "norm": {"scale": (4,), "bias": (4,)},
        "head": {"kernel": (4, 5), "bias": (5,)},
        "scale": (),
        "up": {"kernel": (3, 3, 4, 2)},
    } | {f"block_{i}": {"attn": dict.fromkeys(("q", "k", "v", "out"), linear)} for i in range(layers)}
    return jax.tree.map(lambda s: jax.ShapeDtypeStruct(s, np.float32), shapes, is_leaf=lambda x: isinstance(x, tuple))


def report(tensors, **options):
    """The lines of the error, without its head."""
    with pytest.raises(ConversionError) as error:
        W.to_params(tensors, RULES, target(), **options)
    head, *lines = str(error.value).split("\n  ")
    assert head == f"{len(lines)} keys do not fit:"
    return lines


def test_values_go_where_they_belong():
    tensors = state_dict()
    params = W.to_params(tensors, RULES, target(), IGNORE)
    np.testing.assert_array_equal(params["stem"]["kernel"][1, 0, 2, 3], tensors["stem.weight"][3, 2, 1, 0])
    np.testing.assert_array_equal(params["head"]["kernel"], tensors["head.weight"].T)
    np.testing.assert_array_equal(params["block_1"]["attn"]["k"]["kernel"], tensors["blocks.1.attn.in_proj_weight"][4:8].T)
    np.testing.assert_array_equal(params["block_1"]["attn"]["v"]["bias"], tensors["blocks.1.attn.in_proj_bias"][8:])
    np.testing.assert_array_equal(params["up"]["kernel"][2, 1, 3, 0], tensors["up.weight"][3, 0, 2, 1])


def test_the_way_back_is_exact():
    tensors = state_dict()
    back = W.to_tensors(W.to_params(tensors, RULES, target()), RULES)
    assert back.keys() == tensors.keys()
    for key, value in tensors.items():
        assert back[key].shape == value.shape and back[key].dtype == value.dtype and back[key].flags.c_contiguous
        np.testing.assert_array_equal(back[key], value)


def test_stacked_blocks_hold_the_same():
    tensors = state_dict()
    unrolled = W.to_params(tensors, RULES, target())
    flat = W.flatten(target())
    stacked = {k: v for k, v in flat.items() if not k.startswith("block_")}
    for path, leaf in W.flatten(target()["block_0"]).items():
        stacked[f"blocks/{path}"] = jax.ShapeDtypeStruct((2, *leaf.shape), leaf.dtype)
    params = W.to_params(tensors, RULES, W.unflatten(stacked))
    for i in range(2):
        jax.tree.map(lambda a, b, i=i: np.testing.assert_array_equal(a[i], b), params["blocks"], unrolled[f"block_{i}"])
    back = W.to_tensors(params, RULES)
    assert all(np.array_equal(back[key], tensors[key]) for key in tensors)


def test_other_dtypes_become_the_models():
    tensors = state_dict() | {"scale": np.array(3), "norm.bias": np.ones(4, ml_dtypes.bfloat16)}
    params = W.to_params(tensors, RULES, target())
    assert params["scale"].dtype == params["norm"]["bias"].dtype == np.float32 and params["scale"] == 3


def test_every_fault_is_reported_at_once():
    """Transposed, missing, extra, NaN, infinite, of words; in one message."""
    tensors = state_dict()
    tensors["head.weight"] = tensors["head.weight"].T
    tensors["blocks.0.attn.in_proj_weight"] = np.zeros((13, 4), np.float32)
    tensors["blocks.1.attn.in_proj_weight"] = np.zeros((9, 4), np.float32)
    del tensors["norm.bias"], tensors["scale"]
    tensors["blocks.2.attn.out_proj.bias"] = np.zeros(4, np.float32)
    tensors["head.weigth"] = np.zeros(1, np.float32)
    tensors["norm.weight"] = np.array([0, np.nan, 0, 0], np.float32)
    tensors["head.bias"] = np.array([np.inf] * 5, np.float16)
    tensors["blocks.1.attn.out_proj.bias"] = np.array([np.nan] * 4, ml_dtypes.bfloat16)
    tensors["stem.weight"] = np.array("text")
    tensors["counter.x"] = np.zeros(3)
    assert report(tensors, ignore=IGNORE) == sorted(
        [
            "misshapen head.weight: found [4, 5], expected [5, 4]",
            "misshapen blocks.0.attn.in_proj_weight: found [13, 4], which cannot become "
            "block_0/attn/q/kernel, block_0/attn/k/kernel, block_0/attn/v/kernel",
            "misshapen blocks.1.attn.in_proj_weight: found [9, 4], expected [12, 4]",
            "missing  norm/bias [4]: no key of the checkpoint gives it",
            "missing  scale []: no key of the checkpoint gives it",
            "unused   blocks.2.attn.out_proj.bias [4]: this model has no block_2/attn/out/bias",
            "unused   head.weigth [1]: no rule knows it (nearest: head.weight)",
            "not finite norm.weight [4]: holds NaN or infinity",
            "not finite head.bias [5]: holds NaN or infinity",
            "not finite blocks.1.attn.out_proj.bias [4]: holds NaN or infinity",
            "no numbers stem.weight []: holds <U4",
        ]
    )


def test_two_keys_for_one_parameter():
    rules = [*RULES, Rule("also.weight", "norm/scale")]
    with pytest.raises(ConversionError, match="duplicate also.weight: norm/scale is also given by norm.weight"):
        W.to_params(state_dict() | {"also.weight": np.ones(4, np.float32)}, rules, target())


def test_a_placeholder_that_occurs_twice_has_one_value():
    rule = Rule("a.{i}.b.{i}", "p_{i}")
    assert W.assign(["a.1.b.1", "a.1.b.2", "a.x.b.x"], [rule]) == {"a.1.b.1": (rule, ("p_1",))}


def test_parameters_without_a_name():
    with pytest.raises(ConversionError, match="1 parameters have no name in this format:\n  extra"):
        W.to_tensors(W.to_params(state_dict(), RULES, target()) | {"extra": np.ones(1)}, RULES)
