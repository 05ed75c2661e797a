"""Records of a run: every line is JSON, nothing is torn, nothing makes training wait or fail."""

import json
import logging
import sys
import threading
import time

import jax.numpy as jnp
import ml_dtypes
import numpy as np
import pytest

from jaxseg.writer import Writer, parameter_overview, write_json


def lines_of(folder):
    return [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]


@pytest.fixture
def writer(tmp_path):
    writer = Writer(tmp_path, tensorboard=False)
    yield writer
    writer.close()


def test_scalars_are_lines_of_json(tmp_path, writer):
    writer.write_scalars(1, {"train/loss": jnp.float32(0.5), "größe": np.int64(3)})
    writer.write_scalars(np.int64(2), {"train/loss": float("nan"), "b": float("-inf"), "c": jnp.ones((), jnp.bfloat16)})
    writer.flush()
    assert lines_of(tmp_path) == [
        {"step": 1, "train/loss": 0.5, "größe": 3.0},
        {"step": 2, "train/loss": None, "b": None, "c": 1.0},
    ]


def test_values_are_those_of_the_call(tmp_path, writer):
    values = {"a": 1.0}
    writer.write_scalars(1, values)
    values["a"] = 2.0
    writer.flush()
    assert lines_of(tmp_path)[0]["a"] == 1.0


def test_a_run_goes_on_behind_what_it_wrote(tmp_path):
    for step in (1, 2):
        writer = Writer(tmp_path, tensorboard=False)
        writer.write_scalars(step, {"a": step})
        writer.close()
        with (tmp_path / "metrics.jsonl").open("a") as file:
            file.write('{"step": 9, "a": 0.')  # as a killed process leaves it
    writer = Writer(tmp_path, tensorboard=False)
    writer.close()
    assert [line["step"] for line in lines_of(tmp_path)] == [1, 2]


def test_the_caller_never_waits(tmp_path, writer):
    """Writing is held up; calls return at once, and everything is written in order in the end."""
    gate = threading.Event()

    class Slow:
        def __float__(self):
            gate.wait(30)
            return 1.0

    started = time.monotonic()
    writer.write_scalars(0, {"slow": Slow()})
    for step in range(1, 200):
        writer.write_scalars(step, {"a": step})
    assert time.monotonic() - started < 1
    gate.set()
    writer.flush()
    assert [line["step"] for line in lines_of(tmp_path)] == list(range(200))


def test_a_disk_that_fails_is_reported_once(tmp_path, writer, caplog):
    writer.flush()

    def fail(text):
        raise OSError(28, "No space left on device")

    writer._lines.close()
    writer._lines = type("Full", (), {"write": staticmethod(fail), "flush": print, "close": lambda self: None})()
    for step in range(3):
        writer.write_scalars(step, {"a": 1})
    writer._pool.submit(lambda: None).result()
    warnings = [record.getMessage() for record in caplog.records if record.levelno == logging.WARNING]
    assert warnings == ["records of the run cannot be written: OSError: [Errno 28] No space left on device"]


def test_only_the_first_process_writes(tmp_path, monkeypatch):
    monkeypatch.setattr("jax.process_index", lambda: 1)
    writer = Writer(tmp_path)
    writer.write_scalars(1, {"a": 1.0})
    writer.write_text("parameters.txt", "x")
    writer.flush()
    writer.close()
    write_json(tmp_path / "config.json", {})
    assert list(tmp_path.iterdir()) == []


def test_without_tensorflow_one_line_says_so(tmp_path, monkeypatch, caplog):
    monkeypatch.setitem(sys.modules, "tensorflow", None)
    with caplog.at_level(logging.INFO):
        writer = Writer(tmp_path)
        writer.write_scalars(1, {"a": 1.0})
        writer.write_images(1, {"picture": np.zeros((4, 4, 3), np.uint8)})
        writer.close()
    assert [r.getMessage() for r in caplog.records] == [
        "no TensorBoard files: tensorflow is not installed; metrics.jsonl has the scalars"
    ]
    assert len(lines_of(tmp_path)) == 1


def test_tensorboard_files_hold_scalars_and_pictures(tmp_path):
    pytest.importorskip("tensorflow")
    event_accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    picture = np.full((5, 7, 3), 200, np.uint8)
    writer = Writer(tmp_path)
    for step in (3, 4):
        writer.write_scalars(step, {"train/loss": step / 2})
    writer.write_images(4, {"val/first": picture})
    writer.close()
    events = event_accumulator.EventAccumulator(
        str(tmp_path / "tensorboard"), size_guidance={event_accumulator.TENSORS: 0}
    ).Reload()
    import tensorflow as tf

    losses = [(e.step, float(tf.make_ndarray(e.tensor_proto))) for e in events.Tensors("train/loss")]
    assert losses == [(3, 1.5), (4, 2.0)]
    [event] = events.Tensors("val/first")
    encoded = tf.make_ndarray(event.tensor_proto)[2]
    np.testing.assert_array_equal(tf.io.decode_image(encoded), picture)


def test_json_is_whole_or_not_there(tmp_path, monkeypatch):
    path = tmp_path / "results.json"
    write_json(path, {"val/miou": np.float32(0.5), "bad": float("nan"), "list": (1, 2), "array": np.arange(2)})
    assert json.loads(path.read_text()) == {"val/miou": 0.5, "bad": None, "list": [1, 2], "array": [0, 1]}
    with pytest.raises(TypeError):
        write_json(path, {"x": object()})
    monkeypatch.setattr("os.replace", lambda a, b: (_ for _ in ()).throw(OSError(28, "No space left on device")))
    with pytest.raises(OSError):
        write_json(path, {"val/miou": 1})
    assert json.loads(path.read_text())["val/miou"] == 0.5
    assert [p.name for p in tmp_path.iterdir()] == ["results.json"], "a temporary file was left"


def test_json_text_is_written_as_it_is(tmp_path):
    write_json(tmp_path / "config.json", '{"a": 1}')
    assert (tmp_path / "config.json").read_text() == '{"a": 1}\n'


def test_parameter_overview():
    params = {
        "clip": {"kernel": np.array([[1.0, 3.0], [1.0, 3.0]], np.float32), "scale": jnp.float32(2)},
        "head": {"bias": np.zeros(1000, ml_dtypes.bfloat16), "none": np.zeros((0, 2), np.float32)},
    }
    assert parameter_overview(params, frozen=("^clip/",)).splitlines() == [
        "parameter    shape   dtype     mean  std",
        "clip/kernel  2 x 2   float32   2     1    frozen",
        "clip/scale   scalar  float32   2     0    frozen",
        "head/bias    1000    bfloat16  0     0",
        "head/none    0 x 2   float32   nan   nan",
        "1,005 parameters in 4 arrays, 1,000 trained, 0.0 MB",
    ]
