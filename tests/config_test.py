"""Configs: every one loads, has a small form, and is checked before anything is compiled."""

import json
import math
from pathlib import Path

import jax
import pytest

from jaxseg import systems
from jaxseg.config import from_json, load_config, to_json, validate

ROOT = Path(__file__).parent.parent
NAMES = sorted(path.stem for path in (ROOT / "configs").glob("*.py") if path.stem not in ("__init__", "common"))


TRACED = set()  # models that a config has been traced with: recipes and data sets of one model are traced once


@pytest.mark.parametrize("name", [*NAMES, *(f"{name}:tiny" for name in NAMES)])
def test_every_config_gives_a_train_step_and_a_prediction(name):
    """Shapes of initialisation, loss and predict, without computing any of them."""
    config = load_config(name)
    validate(config)
    task = systems.make_task(config)
    model = json.dumps([config[part].to_dict() for part in ("model", "task", "precision")] + [config.system], default=list)
    if model in TRACED:
        return
    params, state = jax.eval_shape(lambda: task.init(jax.random.key(0)))
    for kind in task.kinds:
        batch = task.example_batch(2, kind)
        weights = []

        def loss(params, state, batch, kind=kind, weights=weights):
            terms, state = task.loss(params, state, batch, jax.random.key(0), 0, kind=kind)
            weights += [term.weight for term in terms.values()]
            return terms, state

        terms, _ = jax.eval_shape(loss, params, state, batch)
        assert max(weights) > 0
        assert all(term.sum.shape == term.count.shape == () for term in terms.values())
    ctx, batch = task.example_predict(2, 3)
    outputs = jax.eval_shape(task.predict, params, state, ctx, batch)
    assert jax.tree.leaves(outputs)
    TRACED.add(model)


def test_json_round_trip():
    config = load_config("clipseg_rd64_refined")
    assert from_json(to_json(config)).to_dict() == config.to_dict()


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("optim.learning_rate", math.nan),
        ("optim.learning_rate", -1.0),
        ("train.batch_size", -8),
        ("train.steps", 0),
        ("train.nan_policy", "ignore"),
        ("train.ema_decay", 1.0),
        ("predict.threshold", 1.5),
        ("optim.freeze", ("^clip/(",)),
        ("mesh.data", 0),
        ("precision.compute", "float16"),
        ("system", "clipsegg"),
    ],
)
def test_values_out_of_range(field, value):
    config = load_config("clipseg_rd64").copy_and_resolve_references()
    with config.unlocked():
        config.update_from_flattened_dict({field: value})
    first = field.rsplit(".", 1)[0] if field.startswith("mesh") else field
    with pytest.raises(ValueError, match=rf"config\.{first}.*found|config\.{first}.*not a regular expression"):
        validate(config)


def test_all_that_is_wrong_is_said_at_once():
    config = load_config("clipseg_rd64").copy_and_resolve_references()
    config.train.steps, config.optim.eps = 0, 0.0
    with pytest.raises(ValueError, match=r"config\.train\.steps.*\n.*config\.optim\.eps"):
        validate(config)


@pytest.mark.parametrize(
    ("mesh", "batch_size", "message"),
    [
        ({"data": 3, "fsdp": 1, "model": 1}, 8, "config.mesh: found .* for 8 devices"),
        ({"data": -1, "fsdp": 1, "model": 1}, 12, "config.train.batch_size: found 12, expected a multiple of 8"),
        ({"data": -1, "fsdp": 1, "model": 4}, 3, "expected a multiple of 2"),
    ],
)
def test_mesh_and_batch_must_fit_the_devices(mesh, batch_size, message):
    config = load_config("clipseg_rd64").copy_and_resolve_references()
    config.mesh, config.train.batch_size = mesh, batch_size
    with pytest.raises(ValueError, match=message):
        validate(config, device_count=8)


@pytest.mark.parametrize(
    ("name", "message"),
    [
        ("clipseg_rd46", "did you mean clipseg_rd64"),
        ("configs/clip_seg.py", "no file configs/clip_seg.py; did you mean"),
        ("clipseg_rd64:tinny", "config option 'tinny' is unknown; this config takes: .*tiny"),
        ("clipseg_rd64:steps=many", "config option steps: found 'many', expected int"),
        ("clipseg_rd64:data=/nowhere/at/all", "config option data: found '/nowhere/at/all', expected a folder"),
    ],
)
def test_names_and_options(name, message):
    with pytest.raises(ValueError, match=message):
        load_config(name)


def test_a_field_that_a_model_does_not_have():
    config = load_config("clipseg_rd64").copy_and_resolve_references()
    with config.unlocked():
        config.model.reduce_dims = 3
    with pytest.raises(ValueError, match=r"config\.model\.reduce_dims: ClipSeg has no such field; did you mean 'reduce_dim'"):
        systems.make_task(config)
