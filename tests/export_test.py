"""The exported program equals the live model, for any batch size and any number of names."""

import json

import jax
import numpy as np
import pytest
import safetensors.flax

from jaxseg import api, export, systems
from jaxseg.checkpoint import save_weights
from tests.api_test import photo, small_config, task_of
from tests.tiny import params_of

NAMES = ("a cat", "a remote control", "grass")


@pytest.fixture(scope="module")
def artefact(tmp_path_factory):
    """(folder, task, params) of one export through the program, names included."""
    folder = tmp_path_factory.mktemp("exported model")
    params, state = params_of(task_of())
    save_weights(folder / "weights", params, state, {"config": small_config().to_dict()})
    exported = export.run(small_config(), folder / "work dir", str(folder / "weights"), text="; ".join(NAMES))
    return exported, task_of(), params


def images(batch_size, seed=0):
    return np.random.default_rng(seed).standard_normal((batch_size, 32, 32, 3)).astype(np.float32)


@pytest.mark.parametrize("batch_size, num_names", [(1, 3), (3, 5)])
def test_the_program_equals_the_model(artefact, batch_size, num_names):
    folder, task, params = artefact
    names = tuple(f"thing {i}" for i in range(num_names))
    ctx, batch = task.prepare(params, names), {"image": images(batch_size)}
    expected = jax.jit(task.predict)(params, {}, ctx, batch)
    found = export.load(folder)(ctx, batch)
    assert found.keys() == expected.keys() and found["logits"].shape[:2] == (batch_size, num_names)
    np.testing.assert_allclose(found["logits"], expected["logits"], rtol=1e-4, atol=1e-5)


def test_names_that_were_exported_need_no_text_tower(artefact):
    folder, task, params = artefact
    program, batch = export.load(folder), {"image": images(2)}
    assert program.description["names"] == list(NAMES)
    expected = jax.jit(task.predict)(params, {}, task.prepare(params, NAMES), batch)
    np.testing.assert_allclose(program(program.vocabulary, batch)["logits"], expected["logits"], rtol=1e-4, atol=1e-5)


def test_the_description_says_what_goes_in_and_out(artefact):
    folder, _, _ = artefact
    description = json.loads((folder / "export.json").read_text())
    assert description["platforms"] == ["cpu", "cuda", "tpu"] and description["system"] == "clipseg"
    assert description["inputs"] == {
        "ctx": {"cond": {"shape": ["names", 16], "dtype": "float32"}},
        "batch": {"image": {"shape": ["batch", 32, 32, 3], "dtype": "float32"}},
    }
    assert description["outputs"] == {"logits": {"shape": ["batch", "names", 32, 32], "dtype": "float32"}}
    assert description["preprocess"] == small_config().predict.preprocess and description["threshold"] == 0.5


def test_preprocessing_of_the_description_gives_the_masks_of_the_library(artefact):
    """What a user of the artefact does, from pixels to probabilities."""
    from jaxseg import preprocess

    folder, task, params = artefact
    program, image = export.load(folder), photo(32, 32)
    inputs = preprocess.parse(program.description["preprocess"])({"image": image})["image"]
    logits = program(program.vocabulary, {"image": inputs[None]})["logits"]
    seg = api.Segmenter(task, params, {}, api.predict_config(small_config()))
    np.testing.assert_allclose(jax.nn.sigmoid(logits)[0], seg.set_image(image).probabilities(NAMES), atol=1e-5)


def test_weights_are_inputs_that_can_be_replaced(artefact, tmp_path):
    folder, task, _ = artefact
    assert (folder / "predict.stablehlo").stat().st_size < 0.2 * (folder / "weights.safetensors").stat().st_size
    others, _ = params_of(task, seed=7)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    weights = safetensors.flax.load_file(folder / "weights.safetensors")
    from jaxseg.weights import flatten

    replaced = {f"params/{path}": np.asarray(x) for path, x in flatten(others).items()}
    assert replaced.keys() == weights.keys()
    safetensors.flax.save_file(replaced, tmp_path / "weights.safetensors")
    batch, ctx = {"image": images(1)}, task.prepare(others, NAMES)
    expected = jax.jit(task.predict)(others, {}, ctx, batch)["logits"]
    np.testing.assert_allclose(export.load(tmp_path)(ctx, batch)["logits"], expected, rtol=1e-4, atol=1e-5)


def test_bfloat16_and_no_names(tmp_path):
    config = api.predict_config(small_config(), compute="bfloat16")
    task = systems.make_task(config)
    params, state = params_of(task)
    params = jax.tree.map(lambda x: x.astype(jax.numpy.bfloat16), params)
    program = export.load(export.save(tmp_path / "out", task, params, state, config))
    assert program.vocabulary is None and program.description["names"] == []
    ctx, batch = {"cond": np.ones((2, 16), np.float32)}, {"image": images(1)}
    expected = jax.jit(task.predict)(params, {}, ctx, batch)["logits"]
    np.testing.assert_allclose(program(ctx, batch)["logits"], expected, rtol=0.05, atol=0.05)


def test_what_is_missing_or_damaged_is_named(artefact, tmp_path):
    folder, _, _ = artefact
    with pytest.raises(ValueError, match="no export.json"):
        export.load(tmp_path)
    for file in folder.iterdir():
        (tmp_path / file.name).write_bytes(file.read_bytes())
    for name in ("predict.stablehlo", "weights.safetensors", "export.json", "vocabulary.safetensors"):
        content = (tmp_path / name).read_bytes()
        (tmp_path / name).write_bytes(content[: len(content) // 2])
        with pytest.raises(ValueError, match=f"{name} is damaged"):
            export.load(tmp_path)
        (tmp_path / name).write_bytes(content)
    export.load(tmp_path)


def test_wrong_inputs_are_refused(artefact):
    program = export.load(artefact[0])
    for ctx, batch, message in (
        ({"cond": np.ones((2, 8), np.float32)}, {"image": images(1)}, r"ctx/cond: found float32 \[2, 8\].*\[names, 16\]"),
        (program.vocabulary, {"image": images(1)[..., :2]}, r"batch/image.*\[batch, 32, 32, 3\]"),
        (program.vocabulary, {"image": images(1).astype(np.int32)}, "int32"),
        (program.vocabulary, {"picture": images(1)}, "batch/image: found nothing"),
    ):
        with pytest.raises(ValueError, match=message):
            program(ctx, batch)


def test_a_system_without_prediction_is_refused(tmp_path):
    import dataclasses

    task = dataclasses.replace(task_of(), predict=None)
    with pytest.raises(ValueError, match="'clipseg' has no prediction"):
        export.save(tmp_path, task, {}, {}, small_config())
