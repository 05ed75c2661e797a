"""A head under Hugging Face's names: every key of a saved file, and the published key that it stands for.

`tables/names_mask2former_huggingface.txt` lists the keys and shapes of the file that transformers 5.24 saves for Swin-T and 80
classes, and the detectron2 key of each tensor of the head.
"""

import functools
import math
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import weights
from jaxseg.decoders.mask_former import MaskFormerHead
from jaxseg.decoders.mask_former_huggingface import (
    HUGGINGFACE_IGNORE,
    huggingface_rules,
    huggingface_settings,
    infer_huggingface,
)
from jaxseg.decoders.mask_former_weights import mask_former_rules
from tests.filling import fill

TABLE = Path(__file__).parent.parent / "tables" / "names_mask2former_huggingface.txt"
PIXEL = {"hidden_dim": 32, "mask_dim": 16, "num_layers": 1, "mlp_dim": 24, "num_heads": 2, "num_points": 4}
QUERY = {"num_outputs": 4, "num_queries": 5, "hidden_dim": 32, "mask_dim": 16, "num_layers": 2, "mlp_dim": 48, "num_heads": 2}
RELEASED = {
    "pixel": {"hidden_dim": 256, "mask_dim": 256, "num_layers": 6, "mlp_dim": 1024, "num_heads": 8, "num_points": 4},
    "query": {
        "num_outputs": 81,
        "num_queries": 100,
        "hidden_dim": 256,
        "mask_dim": 256,
        "num_layers": 9,
        "mlp_dim": 2048,
        "num_heads": 8,
        "project": False,
    },
}


def table():
    """{key: (shape, detectron2's key or "-")} of the head's part of a saved file."""
    rows = (line.split() for line in TABLE.read_text().splitlines())
    rows = {key: (tuple(map(int, shape.split("x"))), published) for key, shape, published in rows}
    return {key: row for key, row in rows.items() if not key.startswith("model.pixel_level_module.encoder.")}


def shapes_of(pixel, query, channels=(96, 192, 384, 768)):
    maps = {f"res{i + 2}": jnp.zeros((1, 32 // 2**i, 32 // 2**i, n)) for i, n in enumerate(channels)}
    return jax.eval_shape(MaskFormerHead(pixel=pixel, query=query).init, jax.random.key(0), maps)["params"]


@functools.cache
def tiny(**query):
    return fill(shapes_of(PIXEL, QUERY | query, (4, 6, 8, 10)))


def test_every_key_is_where_the_published_one_is():
    rows = table()
    named = {key: published for key, (_, published) in rows.items() if published != "-"}
    ours = {key: paths for key, (_, paths) in weights.assign(rows, huggingface_rules()).items()}
    theirs = {key: paths for key, (_, paths) in weights.assign(set(named.values()), prefixed_rules()).items()}
    assert len(named) == 292 + 2 * 18 and len(theirs) == 292  # q, k and v of nine layers are apart
    assert set(rows) - set(ours) == {"criterion.empty_weight"}
    for key, published in named.items():
        order = "qkv".index(key.split(".")[-2][0]) if "in_proj" in published and "in_proj" not in key else None
        expected = theirs[published] if order is None else theirs[published][order : order + 1]
        assert ours[key] == expected, key


def prefixed_rules():
    return weights.prefixed(mask_former_rules(), "sem_seg_head.")


def test_every_key_at_full_size():
    rows = table()
    shapes = {key: shape for key, (shape, _) in rows.items()}
    assert infer_huggingface(shapes) == RELEASED
    target = shapes_of(**RELEASED)
    tensors = {key: np.zeros(shape, np.float32) for key, shape in shapes.items()}
    params = weights.to_params(tensors, huggingface_rules(), target, HUGGINGFACE_IGNORE)
    back = weights.to_tensors(params, huggingface_rules())
    assert {key: x.shape for key, x in back.items()} == {k: s for k, s in shapes.items() if k != "criterion.empty_weight"}
    assert sum(x.size for x in back.values()) == sum(math.prod(leaf.shape) for leaf in jax.tree.leaves(target))


@pytest.mark.parametrize("project", [False, True])
def test_names_both_ways(project):
    """Where the query decoder projects its maps as well, as `enforce_input_projection` asks."""
    params = tiny(project=project)
    tensors = weights.to_tensors(params, huggingface_rules())
    assert infer_huggingface({key: x.shape for key, x in tensors.items()}) == {
        "pixel": PIXEL,
        "query": QUERY | {"project": project},
    }
    assert ("model.transformer_module.input_projections.2.bias" in tensors) == project
    jax.tree.map(np.testing.assert_array_equal, weights.to_params(tensors, huggingface_rules(), params), params)


def test_the_same_numbers_under_both_families_of_names():
    params = tiny()
    huggingface, detectron2 = (weights.to_tensors(params, rules) for rules in (huggingface_rules(), mask_former_rules()))
    layer = "model.transformer_module.decoder.layers.1.self_attn"
    packed = np.concatenate([huggingface[f"{layer}.{x}_proj.weight"] for x in "qkv"])
    np.testing.assert_array_equal(packed, detectron2["predictor.transformer_self_attention_layers.1.self_attn.in_proj_weight"])
    assert len(huggingface) == len(detectron2) + 2 * 2 * 2


def test_what_is_missing_is_named():
    with pytest.raises(ValueError, match="Mask2FormerForUniversalSegmentation: it lacks .*class_predictor.weight"):
        infer_huggingface({})
    shapes = {key: x.shape for key, x in weights.to_tensors(tiny(), huggingface_rules()).items()}
    points = "model.pixel_level_module.decoder.encoder.layers.0.self_attn.attention_weights.weight"
    with pytest.raises(ValueError, match="attention_weights: found 25 rows"):
        infer_huggingface(shapes | {points: (25, 32)})


def test_what_a_file_of_settings_decides():
    settings = {"num_attention_heads": 8, "pre_norm": False, "feature_strides": [4, 8, 16, 32], "common_stride": 4}
    expected = {"pixel": {"num_heads": 8}, "query": {"num_heads": 8, "pre_norm": False}}
    assert huggingface_settings(settings | {"activation_function": "relu", "num_queries": 100}) == expected
    assert huggingface_settings({}) == {"pixel": {}, "query": {}}
    with pytest.raises(ValueError, match="activation_function: found 'gelu', expected 'relu'"):
        huggingface_settings({"activation_function": "gelu"})
