"""Files that torch wrote, read without it; and files that nobody should trust."""

import os
import pickle
import struct
import sys
import zipfile
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest

from jaxseg.weight_files import reading, torch_reader
from jaxseg.weight_files.pickled_tensors import as_array
from tests.torch_files import Code, Reference, legacy, named, pickled, tensor, write_script, write_state_dict, write_zip

FIXTURES = Path(__file__).parent.parent / "fixtures" / "torch"
BASE = np.arange(24, dtype=np.float32) / np.float32(7)
NUMBERS = [0, 1, 2, 3, 100]
EXPECTED = {
    "shared_all": BASE,
    "shared_part": BASE[6:18].reshape(3, 4),
    "transposed": BASE[:6].reshape(2, 3).T,
    "strided": BASE.reshape(4, 6)[::2, 1::2],
    "scalar": np.float32(2.5),
    "empty": np.zeros((0, 3), np.float32),
    "parameter": np.array([1.5, -2.5], np.float32),
    "bfloat16": np.array(NUMBERS, ml_dtypes.bfloat16),
    "bool": np.array(NUMBERS, bool),
    "float8_e4m3fn": np.array([0, 1, 2, 3, 96], ml_dtypes.float8_e4m3fn),  # 100 is not a float8
} | {
    name: np.array(NUMBERS, name)
    for name in ("float64", "float16", "int64", "int32", "int16", "int8", "uint8", "complex64", "uint16")
}


def assert_equal(found, expected):
    found, expected = np.asarray(found), np.asarray(expected)
    assert (found.dtype, found.shape) == (expected.dtype, expected.shape)
    np.testing.assert_array_equal(found, expected)


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_every_dtype_and_view_of_torch_save(name):
    file = reading.read_weights(FIXTURES / name)
    assert file.inside == "state_dict" and not file.left_out
    assert list(file.tensors) == list(torch_reader.read(FIXTURES / name).content["state_dict"])
    assert file.tensors.keys() == EXPECTED.keys()
    for key, expected in EXPECTED.items():
        assert_equal(file.tensors[key], expected)
        assert not file.tensors[key].flags.writeable or not file.tensors[key].size


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth"])
def test_what_stands_beside_weights_is_inert(name):
    content = torch_reader.read(FIXTURES / name).content
    assert content["args"].class_name == "argparse.Namespace"
    assert content["args"].attributes | {"where": None} == {
        "arch": "tiny", "lr": 1e-3, "names": ["a"], "size": (2, 3), "where": None
    }
    assert content["args"].attributes["where"].args == ("x",)  # a path
    assert (content["epoch"], content["best"], content["device"]) == (3, 0.5, "cpu")


def test_torchscript_gives_parameters_and_buffers_only():
    script = reading.read_weights(FIXTURES / "script.pt")
    assert script.kind == "torchscript"
    assert script.tensors.keys() == {"weight"}  # not the attribute `mask`
    trace = reading.read_weights(FIXTURES / "trace.pt").tensors
    assert trace.keys() == {"gain", "input_resolution", "blocks.0.weight", "blocks.1.weight"}
    assert_equal(trace["gain"], np.array([0.5, -0.5], np.float16))
    assert_equal(trace["input_resolution"], np.int64(224))
    assert_equal(trace["blocks.1.weight"], np.arange(4, dtype=np.float32).reshape(2, 2))


@pytest.mark.parametrize("name", ["numpy2.pkl", "numpy4.pkl"])
def test_pickles_of_numpy(name):
    file = reading.read_weights(FIXTURES / name)
    assert (file.kind, file.inside) == ("pickle", "model")
    assert_equal(file.tensors["w"], np.arange(6, dtype=np.float32).reshape(2, 3))
    assert_equal(file.tensors["fortran"], np.arange(6.0).reshape(2, 3))
    assert_equal(file.tensors["big_endian"], np.arange(3, dtype=np.int32))


def test_tensors_in_a_plain_pickle():
    tensors = reading.read_weights(FIXTURES / "plain.pkl").tensors
    assert_equal(tensors["w"], np.arange(4, dtype=np.float32))
    assert_equal(tensors["v"], np.array([1, 2], np.float32))


def test_the_weights_are_chosen_among_several():
    file = reading.read_weights(FIXTURES / "several.pth")
    assert (file.inside, file.choices) == ("model", ("model_ema",))
    assert_equal(file.tensors["w"], np.ones(2, np.float32))
    chosen = reading.read_weights(f"{FIXTURES / 'several.pth'}#model_ema")
    assert_equal(chosen.tensors["w"], np.zeros(2, np.float32))
    with pytest.raises(ValueError, match="no dict of tensors called 'x' in it, found: 'model', 'model_ema'"):
        reading.read_weights(f"{FIXTURES / 'several.pth'}#x")


def test_several_without_a_usual_name(tmp_path):
    content = {"teacher": {"w": tensor("0", (2,))}, "student": {"w": tensor("0", (2,))}}
    path = write_zip(tmp_path / "x.pth", content, {"0": bytes(8)})
    with pytest.raises(ValueError, match="several dicts of tensors in it, choose one by FILE#NAME: 'teacher', 'student'"):
        reading.read_weights(path)


def test_the_prefix_of_data_parallel_is_taken_off():
    file = reading.read_weights(FIXTURES / "parallel.pth")
    assert file.prefix == "module." and file.tensors.keys() == {"scalar", "parameter"}


def test_no_tensors(tmp_path):
    (tmp_path / "x.pkl").write_bytes(pickle.dumps({"a": 1, "b": [2]}))
    with pytest.raises(ValueError, match=r"no dict of tensors in it, found a dict of 2 \('a', 'b'\)"):
        reading.read_weights(tmp_path / "x.pkl")


def test_big_endian(tmp_path):
    values = np.array([1.5, -2.0], ">f4")
    path = write_zip(tmp_path / "zip.pth", {"w": tensor("0", (2,))}, {"0": values.tobytes()}, order=b"big")
    assert_equal(reading.read_weights(path).tensors["w"], np.array([1.5, -2.0], np.float32))
    bits = np.array([1.5, -2.0], ml_dtypes.bfloat16).view(np.uint16).astype(">u2")
    path = write_zip(tmp_path / "bf.pth", {"w": tensor("0", (2,), "bfloat16")}, {"0": bits.tobytes()}, order=b"big")
    assert_equal(reading.read_weights(path).tensors["w"], np.array([1.5, -2.0], ml_dtypes.bfloat16))
    (tmp_path / "old.pth").write_bytes(legacy(_legacy_content(2), {"0": (2, values.tobytes())}, little=False))
    assert_equal(reading.read_weights(tmp_path / "old.pth").tensors["w"], np.array([1.5, -2.0], np.float32))


def _legacy_content(size, view=None, shape=None):
    """A pickle whose storage reference has the sixth part."""
    identity = ("storage", named("torch.FloatStorage"), "0", "cpu", size, view)
    rebuilt = Code("torch._utils._rebuild_tensor", Reference(*identity), 0, shape or (size,), (1,))
    return pickled({"w": rebuilt})


def test_legacy_views_of_a_storage(tmp_path):
    path = tmp_path / "old.pth"
    path.write_bytes(legacy(_legacy_content(4, ("v", 1, 2), (2,)), {"0": (4, np.arange(4, dtype=np.float32).tobytes())}))
    assert_equal(reading.read_weights(path).tensors["w"], np.array([1, 2], np.float32))


def test_handmade_files_are_what_torch_would_read_back(tmp_path):
    tensors = {"a.b.w": np.arange(6, dtype=np.float32).reshape(2, 3), "a.n": np.array(3), "h": np.ones(2, np.float16)}
    for write in (write_state_dict, write_script):
        found = reading.read_weights(write(tmp_path / "x.pt", tensors)).tensors
        assert found.keys() == tensors.keys()
        for key in tensors:
            assert_equal(found[key], tensors[key])


# What nobody should trust


class _Touch:
    def __init__(self, path):
        self.path = path

    def __reduce__(self):
        return os.system, (f"touch {self.path}",)


@pytest.mark.parametrize("protocol", range(6))
@pytest.mark.parametrize("wrap", ["plain", "zip", "legacy"])
def test_code_is_refused_by_name_and_not_run(tmp_path, protocol, wrap):
    path, mark = tmp_path / "evil.pth", tmp_path / "ran"
    evil = pickle.dumps({"w": _Touch(mark)}, protocol)
    if wrap == "zip":
        with zipfile.ZipFile(path, "w") as file:
            file.writestr("x/data.pkl", evil)
    elif wrap == "legacy":
        path.write_bytes(legacy(evil, {}))
    else:
        path.write_bytes(evil)
    with pytest.raises(ValueError, match=r"evil.pth: names '(posix|os|nt)\.system'.*not run") as error:
        torch_reader.read(path)
    assert "\n" not in str(error.value) and not mark.exists()


@pytest.mark.parametrize(
    "name",
    [
        *("builtins.eval", "builtins.exec", "builtins.getattr", "builtins.__import__", "os.popen", "subprocess.Popen"),
        *("torch.load", "torch.hub.load", "torch.serialization.load", "numpy.load", "numpy.testing._private.utils.runstring"),
        *("functools.partial", "operator.attrgetter", "pickle.loads", "_codecs.decode", "__main__.Net", "torch.nn.Linear"),
        *("collections.OrderedDict.fromkeys", "torch._utils._rebuild_tensor_v2.__globals__"),
    ],
)
def test_no_other_name_is_known(tmp_path, name):
    path = tmp_path / "x.pth"
    path.write_bytes(pickled({"w": Code(name, "x")}))
    with pytest.raises(ValueError, match=rf"names '{name}'"):
        torch_reader.read(path)


def test_what_is_known_cannot_be_misused(tmp_path):
    path = tmp_path / "x.pth"
    for content, message in (
        (Code("torch.FloatStorage", 5), "calls 'float32'"),
        (Code("torch.Tensor", 5), "calls 'torch.Tensor'"),
        (Code("_codecs.encode", "x", "zlib"), "encodes text as 'zlib'"),
        (Code("numpy.dtype", "O8"), "dtype 'O8'"),
        (Code("numpy.dtype", "f4,O"), "dtype 'f4,O'"),
        (Code("numpy.core.multiarray.scalar", Code("numpy.dtype", "f4"), b"abc"), "found 3 bytes"),
        (Code("torch._tensor._rebuild_from_type_v2", named("argparse.Namespace"), 1, (), None), "rebuilt by something unknown"),
        ({Code("argparse.Namespace"): 1}, "found a key of type Bag"),
        (Code("torch._utils._rebuild_tensor_v2", 1, 2), "damaged pickle at byte"),
    ):
        path.write_bytes(pickled(content))
        with pytest.raises(ValueError, match=message) as error:
            torch_reader.read(path)
        assert "\n" not in str(error.value)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"shape": (2**40,)}, "storage 0: needs 4398046511104 bytes, 'x/data/0' has 16"),
        ({"shape": (4,), "size": 2**62}, "storage 0: needs"),
        ({"shape": (5,), "size": 4}, "reaches element 4, its storage has 4"),
        ({"shape": (2,), "size": 4, "offset": 3}, "reaches element 4"),
        ({"shape": (2,), "size": 4, "offset": -1}, "tensor of offset"),
        ({"shape": (2, 2), "size": 4, "strides": (-1, 1)}, "tensor of strides"),
        ({"shape": (2, 2), "size": 4, "strides": (2**62, 1)}, "reaches element"),
        ({"shape": (2, 2), "size": 4, "strides": (1,)}, "with strides"),
        ({"shape": (2**20, 2**20), "size": 4, "strides": (0, 0)}, "takes 4398046511104 bytes, the file has"),
        ({"shape": (-1,), "size": 4, "strides": (1,)}, "tensor of shape"),
        ({"shape": (2.5,), "size": 4, "strides": (1,)}, "tensor of shape"),
        ({"shape": (True,), "size": 4, "strides": (1,)}, "tensor of shape"),
        ({"shape": (4,), "size": -4}, "without dtype or size"),
        ({"shape": (4,), "storage": "QInt8Storage"}, "names 'torch.QInt8Storage'"),
    ],
)
def test_sizes_are_checked_before_anything_is_allocated(tmp_path, arguments, message):
    path = write_zip(tmp_path / "x.pth", {"w": tensor("0", **arguments)}, {"0": bytes(16)})
    with pytest.raises(ValueError, match=message):
        reading.read_weights(path)


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (legacy(_legacy_content(4), {"0": (4, bytes(8))}), "claims 16 bytes, the file has 8 left"),
        (legacy(_legacy_content(4), {"0": (4, bytes(16))}, sizes={"0": 2**60}), "claims 4611686018427387904 bytes"),
        (legacy(_legacy_content(4), {"0": (4, bytes(16))}, sizes={"0": -1}), "holds -1 elements, its tensors need 4"),
        (legacy(_legacy_content(4), {"0": (2, bytes(8))}), "holds 2 elements, its tensors need 4"),
        (legacy(_legacy_content(4), {"1": (4, bytes(16))}), "the list of storages"),
        (legacy(_legacy_content(4), {"0": (4, b"")})[:-8], "the file ends before it"),
        (legacy(_legacy_content(4, ("v", 3, 2), (2,)), {"0": (4, bytes(16))}), "a view of elements 3 to 5, it has 4"),
        (legacy(_legacy_content(4), {"0": (4, bytes(16))}, protocol=1002), "protocol 1002"),
    ],
)
def test_the_old_stream_is_checked(tmp_path, stream, message):
    (tmp_path / "x.pth").write_bytes(stream)
    with pytest.raises(ValueError, match=message):
        torch_reader.read(tmp_path / "x.pth")


@pytest.mark.parametrize(
    ("stream", "message"),
    [
        (b"\x80\x04\x8e" + struct.pack("<Q", 2**45) + b"abc.", "damaged pickle at byte 0: expected 35184372088832 bytes"),
        (b"\x80\x02N r" + b"\xff\xff\xff\x7f.", "damaged pickle"),
        (b"\x80\x02Nr\xff\xff\xff\x7f.", "no dict of tensors"),  # a memo index of two billion costs nothing
        (b"\x80\x02.", "damaged pickle"),
        (b"\x80\x02\x82\x01.", "uses EXT1"),
        (b"\x80\x02}", "damaged pickle"),
        (b"<!DOCTYPE html>", "neither a zip archive nor a pickle"),
        (b"version https://git-lfs.github.com/spec/v1\n", "pointer of a Git LFS file"),
        (b"", "the file is empty"),
        (b"PK\x03\x04 nothing", "damaged zip archive"),
    ],
)
def test_damaged_files(tmp_path, stream, message):
    (tmp_path / "x.pth").write_bytes(stream)
    with pytest.raises(ValueError, match=message) as error:
        reading.read_weights(tmp_path / "x.pth")
    assert str(tmp_path / "x.pth") in str(error.value) and "\n" not in str(error.value)


def test_hashing_nested_tuples_takes_no_time(tmp_path):
    doubled = b"\x80\x02)" + b"2\x86" * 60  # 2^60 leaves
    (tmp_path / "x.pth").write_bytes(b"\x80\x02}" + doubled[2:] + b"Ns.")
    with pytest.raises(ValueError, match="found a key of type tuple"):
        torch_reader.read(tmp_path / "x.pth")


def test_damaged_archives(tmp_path):
    content, data = {"w": tensor("0", (4,))}, {"0": bytes(16)}
    path = write_zip(tmp_path / "x.pth", content, {})
    with pytest.raises(ValueError, match="the archive has no 'x/data/0'"):
        torch_reader.read(path)
    path = write_zip(tmp_path / "x.pth", content, data, compress=True)
    with pytest.raises(ValueError, match="is compressed or encrypted"):
        torch_reader.read(path)
    path = write_zip(tmp_path / "x.pth", content, data, order=b"middle")
    with pytest.raises(ValueError, match="byte order b'middle'"):
        torch_reader.read(path)
    with zipfile.ZipFile(tmp_path / "x.pth", "w") as file:
        file.writestr("x/other", b"")
    with pytest.raises(ValueError, match="without data.pkl"):
        torch_reader.read(path)
    with pytest.warns(UserWarning, match="Duplicate"):
        write_zip(path, content, data, extra=(("data.pkl", pickled({"w": Code("os.system", "true")})),))
    with pytest.raises(ValueError, match="is in it twice"):
        torch_reader.read(path)


@pytest.mark.parametrize("name", ["zip.pth", "legacy.pth", "trace.pt", "numpy4.pkl", "plain.pkl"])
def test_damage_anywhere_is_an_error_or_other_numbers(tmp_path, name):
    """Cut at many places, and bytes changed at many places: one line or a state dict, nothing else."""
    whole, path, rng = (FIXTURES / name).read_bytes(), tmp_path / "x.pth", np.random.default_rng(0)
    failed = 0
    for i in range(150):
        data = bytearray(whole)
        if i % 3 == 0:
            data = data[: rng.integers(len(data))]
        else:
            data[rng.integers(len(data))] = rng.integers(256)
        path.write_bytes(data)
        try:
            reading.read_weights(path)
        except ValueError as error:
            failed += 1
            assert str(error).startswith(str(path)) and "\n" not in str(error)
    assert failed >= 50


def test_reading_needs_no_torch():
    assert "torch" not in sys.modules


def test_as_array_of_something_else():
    assert as_array("text") is None
