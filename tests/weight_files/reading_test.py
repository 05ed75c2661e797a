"""Safetensors files, Hugging Face folders and hub ids: right ones, and headers and indices that lie."""

import json
import struct
import sys
import types

import ml_dtypes
import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from jaxseg.weight_files import reading, safetensors_file
from tests.torch_files import write_state_dict

DTYPES = ("float64", "float32", "float16", "int64", "int32", "int16", "int8", "uint8", "bool")


def tensors():
    return {
        **{name: np.arange(4).astype(name).reshape(2, 2) for name in DTYPES},
        "bfloat16": np.arange(3).astype(ml_dtypes.bfloat16),
        "scalar": np.array(2.5, np.float32),
        "empty": np.zeros((0, 3), np.float32),
    }


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        assert (found[key].dtype, found[key].shape) == (value.dtype, value.shape), key
        np.testing.assert_array_equal(found[key], value)


def test_safetensors_as_others_write_and_read_them(tmp_path):
    save_file(tensors(), tmp_path / "x.safetensors", {"format": "pt"})
    found = reading.read_weights(tmp_path / "x.safetensors")
    assert found.kind == "safetensors"
    assert_same(found.tensors, tensors())
    transposed = {"t": np.arange(6, dtype=np.float32).reshape(2, 3).T, "scalar": np.array(1.5)}
    safetensors_file.write(tmp_path / "y.safetensors", transposed)
    assert_same(load_file(tmp_path / "y.safetensors"), transposed)
    assert not (tmp_path / "y.safetensors.part").exists()
    (tmp_path / "plain").touch()
    assert (tmp_path / "y.safetensors").stat().st_mode == (tmp_path / "plain").stat().st_mode


def raw(header, data=b"", size=None):
    text = header if isinstance(header, bytes) else json.dumps(header).encode()
    return struct.pack("<Q", len(text) if size is None else size) + text + data


def entry(shape, begin, end, dtype="F32"):
    return {"dtype": dtype, "shape": shape, "data_offsets": [begin, end]}


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (b"abc", "found 3 bytes, expected a safetensors file"),
        (raw({}, size=2**60), "its header claims 1152921504606846976 of 2 bytes"),
        (raw(b"{"), "damaged safetensors header"),
        (raw(b"[" * 100_000), "damaged safetensors header"),
        (raw(b"[1]"), "damaged safetensors header: the header is no table"),
        (raw(b'{"w": 1, "w": 2}'), "a name occurs twice"),
        (raw({"w": 5}), "w: an entry without dtype, shape and data_offsets"),
        (raw({"w": entry([4], 0, 16)}, bytes(8)), "w: claims bytes 0 to 16, the file has 8"),
        (raw({"w": entry([2**40], 0, 2**42)}, bytes(8)), "w: claims bytes 0 to 4398046511104, the file has 8"),
        (raw({"w": entry([2**40], 0, 8)}, bytes(8)), r"w: F32 of shape \[1099511627776\] needs 4398046511104 bytes, found 8"),
        (raw({"w": entry([-2], 0, 8)}, bytes(8)), "expected non-negative integers"),
        (raw({"w": entry([2], 8, 0)}, bytes(8)), "needs 8 bytes, found -8"),
        (raw({"w": entry([2], 0, 8, "X9")}, bytes(8)), "w: found dtype 'X9'"),
        (raw({"a": entry([2], 0, 8), "b": entry([2], 4, 12)}, bytes(12)), "b begins at byte 4, expected 8: tensors overlap"),
        (raw({"a": entry([2], 0, 8)}, bytes(12)), "the tensors end at byte 8, the file at 12"),
    ],
)
def test_headers_that_lie(tmp_path, content, message):
    path = tmp_path / "x.safetensors"
    path.write_bytes(content)
    with pytest.raises(ValueError, match=message) as error:
        safetensors_file.read(path)
    assert str(error.value).startswith(str(path)) and "\n" not in str(error.value)


def test_folders_prefer_safetensors_and_read_settings(tmp_path):
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    write_state_dict(tmp_path / "pytorch_model.bin", {"w": np.zeros(2, np.float32)})
    (tmp_path / "config.json").write_text('{"model_type": "clip"}')
    found = reading.read_weights(tmp_path)
    assert found.tensors["w"][0] == 1 and found.settings == {"model_type": "clip"}
    (tmp_path / "model.safetensors").unlink()
    assert reading.read_weights(tmp_path).tensors["w"][0] == 0
    (tmp_path / "config.json").write_text("{")
    with pytest.raises(ValueError, match="config.json: not JSON"):
        reading.read_weights(tmp_path)


def test_an_empty_folder(tmp_path):
    with pytest.raises(ValueError, match="no weights here; looked for model.safetensors, pytorch_model.bin"):
        reading.read_weights(tmp_path)


@pytest.mark.parametrize(
    ("weight_map", "message"),
    [
        ({"w": "../outside.safetensors"}, "found file '../outside.safetensors', expected files of this folder"),
        ({"w": "/etc/passwd"}, "expected files of this folder"),
        ({"w": "absent.safetensors"}, "absent.safetensors: no such file, model.safetensors.index.json names it"),
        ({"w": "a.safetensors", "x": "a.safetensors"}, "1 keys are in none of its files: x"),
        ({"w": "a.safetensors", "v": "b.safetensors"}, "b.safetensors: w is in another shard too"),
        (None, "found no weight_map"),
        ({"w": ["a"]}, "found no weight_map"),
    ],
)
def test_indices_that_lie(tmp_path, weight_map, message):
    folder = tmp_path / "folder"
    folder.mkdir()
    for name in ("a", "b"):
        save_file({"w": np.ones(2, np.float32)}, folder / f"{name}.safetensors")
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "outside.safetensors")
    (folder / "model.safetensors.index.json").write_text(json.dumps({"weight_map": weight_map}))
    with pytest.raises((ValueError, FileNotFoundError), match=message) as error:
        reading.read_weights(folder)
    assert "\n" not in str(error.value)


def test_hub_ids_need_a_commit():
    with pytest.raises(ValueError, match="CIDAS/clipseg-rd64: .* a commit is needed: CIDAS/clipseg-rd64@<commit>"):
        reading.read_weights("CIDAS/clipseg-rd64")
    with pytest.raises(ValueError, match="found 'main', expected a commit"):
        reading.read_weights("CIDAS/clipseg-rd64@main")
    with pytest.raises(FileNotFoundError, match="runs/model.pth: no such file or folder"):
        reading.read_weights("runs/model.pth")


def test_the_hub_is_asked_for_what_is_needed(tmp_path, monkeypatch):
    save_file({"w": np.ones(2, np.float32)}, tmp_path / "model.safetensors")
    asked = []

    def snapshot_download(repository, revision, allow_patterns):
        asked.append((repository, revision, allow_patterns))
        return str(tmp_path)

    names = ["config.json", "flax_model.msgpack", "model.safetensors", "pytorch_model.bin"]
    hub = types.SimpleNamespace(list_repo_files=lambda *a, **k: names, snapshot_download=snapshot_download)
    monkeypatch.setitem(sys.modules, "huggingface_hub", hub)
    found = reading.read_weights("a/b@0123abcd")
    assert asked == [("a/b", "0123abcd", ["config.json", "model.safetensors"])] and found.tensors.keys() == {"w"}

    def offline(*_, **__):
        raise OSError("no network\nat all")

    monkeypatch.setattr(hub, "list_repo_files", offline)
    with pytest.raises(ValueError, match="^a/b@0123abcd: no network at all$"):
        reading.read_weights("a/b@0123abcd")
