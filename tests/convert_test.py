"""Conversion by the program: recorded state dicts in real files -> weights and certificate -> original names again."""

import hashlib
import json

import jax
import ml_dtypes
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file, save_file

from configs import clip_pretrain, clipseg_rd64
from jaxseg import convert, systems
from jaxseg.checkpoint import load_weights
from jaxseg.checksums import checksums
from jaxseg.encoders.clip.weights import infer_openai
from jaxseg.weight_files import reading
from jaxseg.weights import flatten
from tests.parity import GOLDENS, read_golden
from tests.parity_runners.clipseg_models import clip_fields, clipseg_fields
from tests.torch_files import Code, pickled, tensor, write_script, write_state_dict, write_zip


def golden(name):
    """(config of the program, state dicts by group, the recorded file)."""
    path = GOLDENS / "clipseg" / f"{name}.npz"
    recorded, groups, inputs, _ = read_golden(path)
    if "clip" in recorded:
        config, towers = clipseg_rd64.get_config(), clip_fields(recorded["clip"])
        config.model = ConfigDict(clipseg_fields({"model": recorded.get("seg", recorded.get("model"))}, towers))
        config.task.image_size = inputs["image"].shape[-1]
    else:
        config = clip_pretrain.get_config()
        config.model = ConfigDict(infer_openai({key: x.shape for key, x in groups["weights"].items()}))
    return config, groups, path


def hf_folder(folder, tensors, recorded):
    """A Hugging Face folder of a recorded model."""
    folder.mkdir()
    save_file(tensors, folder / "model.safetensors")
    seg, clip = recorded.model, recorded.model.clip
    settings = {
        "extract_layers": list(seg.extract_layers),
        "decoder_num_attention_heads": seg.num_heads,
        "conditional_layer": seg.cond_layer,
        "vision_config": {"hidden_size": clip.vision_width, "num_attention_heads": clip.vision_heads},
        "text_config": {"hidden_size": clip.text_width, "num_attention_heads": clip.text_heads, "eos_token_id": 2},
    }
    (folder / "config.json").write_text(json.dumps(settings))
    return settings


def contents(tree):
    return {path: np.asarray(x) for path, x in flatten(tree).items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert found[key].dtype == value.dtype, key
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def three_files(folder):
    """The recorded network of `three_formats` in the files in which it is released."""
    config, groups, path = golden("three_formats__a")
    write_state_dict(folder / "rd.pth", groups["weights"])
    write_script(folder / "clip.pt", groups["weights_openai"])
    hf_folder(folder / "hf", groups["weights_hf"], config)
    return config, groups, path


def test_three_formats_give_one_network(tmp_path, capsys):
    config, groups, path = three_files(tmp_path)
    ours = convert.run(config, [tmp_path / "rd.pth", tmp_path / "clip.pt"], tmp_path / "a", check=path)
    theirs = convert.run(config, [tmp_path / "hf"], tmp_path / "b", check=path)
    assert (ours["format"], theirs["format"]) == ("timojl", "huggingface")
    assert ours["parameters"] == theirs["parameters"]
    for certificate in (ours, theirs):
        errors = certificate["check"]["outputs"]["logits"]
        assert errors["max_abs_error"] < 1e-4 * errors["max_abs"]
    said = capsys.readouterr().out
    assert "rd.pth: torch zip, 54 tensors" in said and "clip.pt: torchscript" in said and "check logits: max error" in said


def test_the_certificate_says_what_was_used(tmp_path):
    config, groups, _ = three_files(tmp_path)
    convert.run(config, [tmp_path / "rd.pth", tmp_path / "clip.pt"], tmp_path / "out")
    certificate = json.loads((tmp_path / "out" / "certificate.json").read_text())
    files = certificate["files"]
    assert [file["kind"] for file in files] == ["torch zip", "torchscript"]
    for file, name in zip(files, ("rd.pth", "clip.pt"), strict=True):
        assert file["sha256"] == hashlib.sha256((tmp_path / name).read_bytes()).hexdigest()
    keys = set(groups["weights"]) | {f"clip_model.{key}" for key in groups["weights_openai"]}
    assert certificate["used"].keys() | certificate["ignored"].keys() == keys
    assert {"reduce.weight", "reduce.bias"} <= certificate["ignored"].keys()
    assert "never used" in certificate["ignored"]["reduce.weight"]
    params, _, meta = load_weights(tmp_path / "out")
    assert {path: entry[2] for path, entry in certificate["parameters"].items()} == checksums(contents(params))
    given = {path for entry in certificate["used"].values() for path in entry["parameters"]}
    assert given == set(contents(params))
    assert meta["config"]["model"]["refined"] is True and certificate["versions"]["jaxseg"]


@pytest.mark.parametrize("name", ["densepred__layer3_addcalib", "visual_mix__a"])
def test_recorded_models_through_files(tmp_path, name):
    config, groups, path = golden(name)
    write_state_dict(tmp_path / "full.pth", groups["weights"])
    certificate = convert.run(config, [tmp_path / "full.pth"], tmp_path / "out", check=path)
    assert certificate["check"]["outputs"]


def test_hugging_face_of_any_kind_and_its_settings(tmp_path, capsys):
    config, groups, path = golden("hf_clipseg__refined")
    settings = hf_folder(tmp_path / "hf", groups["weights"], config)
    convert.run(config, [tmp_path / "hf"], tmp_path / "a", check=path)
    # In shards, as .bin, with other taps.
    folder, keys = tmp_path / "shards", sorted(groups["weights"])
    folder.mkdir()
    parts = {"pytorch_model-1.bin": keys[::2], "pytorch_model-2.bin": keys[1::2]}
    for name, part in parts.items():
        write_state_dict(folder / name, {key: groups["weights"][key] for key in part})
    index = {"weight_map": {key: name for name, part in parts.items() for key in part}}
    (folder / "pytorch_model.bin.index.json").write_text(json.dumps(index))
    (folder / "config.json").write_text(json.dumps(settings | {"extract_layers": [1, 2]}))
    certificate = convert.run(config, [folder], tmp_path / "b")
    assert_same(contents(load_weights(tmp_path / "b")[0]), contents(load_weights(tmp_path / "a")[0]))
    assert "extract_layers" in certificate["notes"][0] and "note: config.model.extract_layers" in capsys.readouterr().out
    names = {file["file"].rpartition("/")[2] for file in certificate["files"]}
    assert names == {*parts, "config.json", "pytorch_model.bin.index.json"}
    # Heads are not in the shapes.
    (folder / "config.json").write_text(json.dumps(settings | {"decoder_num_attention_heads": 2}))
    with pytest.raises(ValueError, match="config.model.num_heads: found 4, the file has 2"):
        convert.run(config, [folder], tmp_path / "c")
    assert not (tmp_path / "c").exists()


def test_clip_from_a_script_archive_and_back(tmp_path):
    config, groups, path = golden("clip_vit_inferred__a")
    halves = {k: x.astype(np.float16) if x.ndim == 2 else x for k, x in groups["weights"].items()}
    write_script(tmp_path / "clip.pt", halves)
    certificate = convert.run(config, [tmp_path / "clip.pt"], tmp_path / "out")
    assert certificate["format"] == "openai" and certificate["files"][0]["kind"] == "torchscript"
    convert.run(config, [], tmp_path / "out", reverse=True)
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert_same(back, {key: halves[key] for key in certificate["used"]})
    write_script(tmp_path / "exact.pt", groups["weights"])
    errors = convert.run(config, [tmp_path / "exact.pt"], tmp_path / "exact", check=path)["check"]["outputs"]
    assert errors.keys() == {"image_features", "text_features", "logits_per_image", "logits_per_text"}


@pytest.mark.parametrize("scan", [False, True])
def test_the_way_back_is_exact_in_every_format(tmp_path, scan):
    config, groups, _ = three_files(tmp_path)
    config.model.clip.scan = scan
    convert.run(config, [tmp_path / "hf"], tmp_path / "out")
    certificate = convert.run(config, [], tmp_path / "hf_again", reverse=True, weights=tmp_path / "out")
    assert certificate["format"] == "huggingface"
    back = load_file(tmp_path / "hf_again" / "model.safetensors")
    assert_same(back, {key: groups["weights_hf"][key] for key in back})
    assert set(groups["weights_hf"]) - set(back) <= {k for k in groups["weights_hf"] if k.endswith("position_ids")}
    convert.run(config, [], tmp_path / "timojl", reverse=True, weights=tmp_path / "out", format="timojl")
    back = load_file(tmp_path / "timojl" / "model.safetensors")
    expected = groups["weights"] | {f"clip_model.{key}": x for key, x in groups["weights_openai"].items()}
    assert_same(back, {key: expected[key] for key in back})
    convert.run(config, [tmp_path / "timojl" / "model.safetensors"], tmp_path / "again")
    assert_same(contents(load_weights(tmp_path / "again")[0]), contents(load_weights(tmp_path / "out")[0]))


def test_changed_values_are_not_rounded_to_the_original_dtype():
    x = np.array([1.0, 1 + 2**-20], np.float32)
    assert convert._as_before(x, "float16").dtype == np.float32
    assert convert._as_before(x[:1], "bfloat16").dtype == ml_dtypes.bfloat16
    assert convert._as_before(np.float32([1e30]), "float16").dtype == np.float32


def test_a_refined_file_and_a_plain_config(tmp_path):
    config, groups, _ = three_files(tmp_path)
    config.model.refined = False
    message = "config.model.refined: found False, the file has True; no released config fits"
    with pytest.raises(ValueError, match=message) as error:
        convert.run(config, [tmp_path / "hf"], tmp_path / "out")
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_the_config_that_fits_is_named():
    from jaxseg.conversion import model_match

    config = clipseg_rd64.get_config()
    decided = {"refined": True, "reduce_dim": 64, "clip": {"patch_size": 16, "vision_layers": 12}}
    with pytest.raises(ValueError, match=r"the config that fits: configs/clipseg_rd64_refined.py$"):
        model_match.check_model(config, decided)
    decided["refined"] = False
    assert model_match.check_model(config, decided) == []
    assert model_match.fitting_configs("clipseg", decided | {"reduce_dim": 16}) == ["configs/clipseg_rd16.py"]


@pytest.mark.parametrize(
    ("files", "options", "message"),
    [
        ([], {}, "--torch: found no file"),
        (["rd.pth"], {}, r"rd.pth \(timojl\): .* decoder only; give the CLIP file"),
        (["clip.pt"], {}, r"clip.pt: \d+ keys \(.*, \.\.\.\), expected the layout timojl, huggingface"),
        (["hf"], {"format": "openai"}, "--format: found 'openai', expected one of timojl, huggingface"),
        (["hf"], {"format": "timojl"}, "expected the layout timojl"),
        (["nothing.pth"], {}, "nothing.pth: no such file or folder"),
        (["hf"], {"check": "rd.pth"}, "--check: .*rd.pth"),
        (["hf"], {"weights": "x"}, "--weights: found together"),
        (["hf"], {"reverse": True}, "--reverse: found --torch"),
    ],
)
def test_wrong_calls_are_one_line(tmp_path, files, options, message):
    config, _, _ = three_files(tmp_path)
    options = {k: str(tmp_path / v) if k == "check" else v for k, v in options.items()}
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        convert.run(config, [str(tmp_path / f) for f in files], tmp_path / "out", **options)
    assert "\n" not in str(error.value) and not (tmp_path / "out").exists()


def test_a_check_that_fails_writes_nothing(tmp_path):
    config, groups, path = three_files(tmp_path)
    wrong = dict(groups["weights_hf"])
    key = "decoder.film_mul.weight"
    wrong[key] = wrong[key][::-1].copy()
    hf_folder(tmp_path / "wrong", wrong, config)
    with pytest.raises(ValueError, match="do not give what was recorded: logits: max error"):
        convert.run(config, [tmp_path / "wrong"], tmp_path / "out", check=path)
    assert not (tmp_path / "out").exists()


def test_nothing_is_overwritten(tmp_path):
    config, _, _ = three_files(tmp_path)
    convert.run(config, [tmp_path / "hf"], tmp_path / "out")
    with pytest.raises(ValueError, match="weights are already here"):
        convert.run(config, [tmp_path / "hf"], tmp_path / "out")
    convert.run(config, [], tmp_path / "out", reverse=True)
    with pytest.raises(ValueError, match="model.safetensors: is already here"):
        convert.run(config, [], tmp_path / "out", reverse=True)


def test_trained_weights_need_a_format(tmp_path):
    from jaxseg.checkpoint import save_weights
    from tests.filling import fill

    config, _, _ = three_files(tmp_path)
    params, state = jax.eval_shape(systems.make_task(config).init, jax.random.key(0))
    save_weights(tmp_path / "trained", fill(params), state, {"config": config.to_dict()})
    with pytest.raises(ValueError, match="were not converted from a file, expected one of timojl, huggingface"):
        convert.run(config, [], tmp_path / "out", reverse=True, weights=tmp_path / "trained")
    convert.run(config, [], tmp_path / "out", reverse=True, weights=tmp_path / "trained", format="huggingface")
    assert reading.read_weights(tmp_path / "out" / "model.safetensors").tensors


def test_a_missing_key_that_decides_sizes_is_reported_as_any_other(tmp_path):
    config, groups, _ = three_files(tmp_path)
    tensors = {k: x for k, x in groups["weights"].items() if not k.startswith("blocks.0.linear1")}
    write_state_dict(tmp_path / "cut.pth", tensors)
    with pytest.raises(ValueError, match=r"2 keys do not fit:\n  missing  decoder/block_0/mlp/fc1/bias.*\n.*fc1/kernel"):
        convert.run(config, [tmp_path / "cut.pth", tmp_path / "clip.pt"], tmp_path / "out")
    assert not (tmp_path / "out").exists()


@pytest.mark.parametrize("fault", ["code", "claims", "values"])
def test_bad_files_are_refused_and_nothing_is_written(tmp_path, fault):
    config, groups, _ = three_files(tmp_path)
    tensors = dict(groups["weights"])
    tensors["film_mul.bias"] = np.full_like(tensors["film_mul.bias"], np.nan)
    tensors["film_mul.extra"] = tensors.pop("film_add.bias")
    tensors["reduces.0.weight"] = tensors["reduces.0.weight"].T.copy()
    write_state_dict(tmp_path / "values.pth", tensors)
    write_zip(tmp_path / "claims.pth", {"film_mul.weight": tensor("0", (2**40,))}, {"0": bytes(8)})
    (tmp_path / "code.pth").write_bytes(pickled({"film_mul.weight": Code("os.system", f"touch {tmp_path / 'ran'}")}))
    with pytest.raises(ValueError) as error:
        convert.run(config, [tmp_path / f"{fault}.pth", tmp_path / "clip.pt"], tmp_path / "out")
    expected = {
        "code": ["code.pth: names 'os.system'"],
        "claims": ["claims.pth: storage 0: needs 4398046511104 bytes, 'x/data/0' has 8"],
        "values": [
            "clip.pt (timojl): 4 keys do not fit",
            "not finite film_mul.bias",
            "unused   film_mul.extra",
            "missing  decoder/film_add/bias",
            "misshapen reduces.0.weight: found",
        ],
    }
    assert all(text in str(error.value) for text in expected[fault])
    assert not (tmp_path / "out").exists() and not (tmp_path / "ran").exists()
