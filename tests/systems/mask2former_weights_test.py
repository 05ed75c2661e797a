"""Mask2Former's layouts of Hugging Face and with Swin: whole files, a folder through the program, ImageNet classifiers."""

import functools
import json

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from configs import mask2former_r50_coco_panoptic
from jaxseg import convert, weights
from jaxseg.checkpoint import load_weights
from jaxseg.conversion.model_match import merged
from jaxseg.encoders.swin.variants import VARIANTS
from jaxseg.systems.mask2former import huggingface
from jaxseg.systems.mask2former.model import Mask2Former
from jaxseg.systems.mask2former.weights import FORMATS
from tests.decoders.mask_former_huggingface_test import TABLE
from tests.filling import fill
from tests.parity import GOLDENS, read_golden

LAYOUTS = {layout.name: layout for layout in FORMATS}


def shapes_of(model):
    arguments = jnp.zeros((1, 64, 64, 3)), jnp.full((1, 2), 64)
    return jax.eval_shape(lambda: model.init(jax.random.key(0), *arguments))["params"]


@functools.cache
def golden():
    """(config of the program, state dict, config.json) of a recorded model."""
    settings, groups, _, _ = read_golden(GOLDENS / "mask2former" / "hf_mask2former__prenorm.npz")
    tensors, layout = groups["weights"], huggingface.FORMAT
    config = mask2former_r50_coco_panoptic.get_config("tiny")
    fields = merged(layout.infer({key: x.shape for key, x in tensors.items()}), layout.settings(settings))
    config.model = ConfigDict(fields)
    return config, tensors, settings


def test_every_key_of_a_file_at_full_size():
    """Swin-T, 80 classes: one-to-one, but for what has no use."""
    rows = dict(line.split()[:2] for line in TABLE.read_text().splitlines())
    shapes = {key: tuple(map(int, shape.split("x"))) for key, shape in rows.items()}
    layout = huggingface.FORMAT
    assert layout.detect(set(shapes))
    fields = layout.infer(shapes)
    assert fields["backbone"] == {"name": "swin", **VARIANTS["tiny"], "mlp_ratio": 4.0}
    assert fields["head"]["query"]["num_outputs"] == 81
    # Bytes instead of floats: 47 million.
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.int8), shapes_of(Mask2Former(**fields)))
    tensors = {key: np.zeros(shape, np.int8) for key, shape in shapes.items()}
    params = weights.to_params(tensors, layout.rules(fields), target, layout.ignore)
    back = weights.to_tensors(params, layout.rules(fields))
    unused = {key for key in shapes if weights.ignored(key, layout.ignore)}
    assert unused == {"criterion.empty_weight", *(f"{huggingface.BACKBONE}swin.layernorm.{x}" for x in ("weight", "bias"))}
    assert {key: x.shape for key, x in back.items()} == {key: shape for key, shape in shapes.items() if key not in unused}


def test_keys_of_older_files_are_known():
    """They also hold what follows from the window."""
    index = f"{huggingface.BACKBONE}encoder.layers.2.blocks.5.attention.self.relative_position_index"
    assert weights.ignored(index, huggingface.IGNORE) == "follows from the window"
    assert weights.ignored(index.replace("_index", "_bias_table"), huggingface.IGNORE) is None


def test_a_folder_there_and_back(tmp_path):
    config, tensors, settings = golden()
    (tmp_path / "hf").mkdir()
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(settings))
    certificate = convert.run(config, [str(tmp_path / "hf")], tmp_path / "ours")
    assert certificate["format"] == "huggingface" and len(certificate["ignored"]) == 3
    assert certificate["model"]["backbone"]["window"] == 7 and certificate["model"]["head"]["query"]["pre_norm"]
    params, _, _ = load_weights(tmp_path / "ours")
    expected = fill(shapes_of(Mask2Former(**config.model.to_dict())))
    expected = weights.to_params(tensors, huggingface.rules(), expected, huggingface.IGNORE)
    jax.tree.map(np.testing.assert_array_equal, params, expected)
    convert.run(config, [], tmp_path / "theirs", reverse=True, weights=tmp_path / "ours")
    back = load_file(tmp_path / "theirs" / "model.safetensors")
    assert set(tensors) - set(back) == set(certificate["ignored"])
    for key, value in back.items():
        np.testing.assert_array_equal(value, tensors[key], err_msg=key)


def test_a_config_of_another_model_is_refused(tmp_path):
    config, tensors, settings = golden()
    config = config.copy_and_resolve_references()
    config.model.backbone.window, config.model.head.query.pre_norm = 12, False
    (tmp_path / "hf").mkdir()
    save_file(tensors, tmp_path / "hf" / "model.safetensors")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(settings))
    with pytest.raises(ValueError, match="backbone.window: found 12, the file has 7.*pre_norm: found False, the file has True"):
        convert.run(config, [str(tmp_path / "hf")], tmp_path / "ours")
    (tmp_path / "hf" / "config.json").write_text(json.dumps(settings | {"backbone_config": {"model_type": "resnet"}}))
    with pytest.raises(ValueError, match="backbone_config.model_type: found 'resnet', expected 'swin'"):
        convert.run(config, [str(tmp_path / "hf")], tmp_path / "ours")


def test_the_published_layout_with_a_swin():
    fields, layout = golden()[0].model.to_dict(), LAYOUTS["detectron2"]
    params = fill(shapes_of(Mask2Former(**fields)))
    tensors = weights.to_tensors(params, layout.rules(fields))
    assert layout.detect(set(tensors)) and not huggingface.FORMAT.detect(set(tensors))
    assert "backbone.layers.2.blocks.1.attn.qkv.weight" in tensors and "backbone.norm3.bias" in tensors
    found = layout.infer({key: x.shape for key, x in tensors.items()})["backbone"]
    assert found == {name: fields["backbone"][name] for name in found}
    tensors["backbone.layers.0.blocks.0.attn.relative_position_index"] = np.zeros((49, 49), np.int64)
    jax.tree.map(np.testing.assert_array_equal, weights.to_params(tensors, layout.rules(fields), params, layout.ignore), params)


def test_an_imagenet_classifier_starts_the_backbone():
    """It has no norms of maps; they start as the identity."""
    fields, layout = golden()[0].model.to_dict(), LAYOUTS["swin_imagenet"]
    params = {"backbone": fill(shapes_of(Mask2Former(**fields)))["backbone"]}
    tensors = weights.to_tensors(params, layout.rules(fields))
    own = {key: x for key, x in tensors.items() if not key.startswith("norm")}
    extra = {f"{name}.{kind}": np.ones(3, np.float32) for name in ("norm", "head") for kind in ("weight", "bias")}
    extra["layers.0.blocks.1.attn_mask"] = np.zeros((4, 49, 49), np.float32)
    files = layout.merge([own | extra])
    assert [name for name, other in LAYOUTS.items() if other.detect(set(files))] == ["swin_imagenet"]
    found = weights.to_params(files, layout.rules(fields), params, layout.ignore)["backbone"]
    for i in range(4):
        assert (found[f"norm_{i}"]["scale"] == 1).all() and not found[f"norm_{i}"]["bias"].any()
        found[f"norm_{i}"] = params["backbone"][f"norm_{i}"]
    jax.tree.map(np.testing.assert_array_equal, found, params["backbone"])
    assert layout.merge([tensors]).keys() == tensors.keys()
    np.testing.assert_array_equal(layout.merge([tensors])["norm2.bias"], tensors["norm2.bias"])
