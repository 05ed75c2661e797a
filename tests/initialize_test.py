"""What training starts from: weights under other names, sizes and layouts, or one message with all that does not fit."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P
from ml_collections import ConfigDict

from jaxseg import initialize
from jaxseg.checkpoint import Checkpoints, save_weights
from jaxseg.ops.resize import resize
from jaxseg.writer import write_json


def tower(rng, grid=4, width=6, scanned=False, special=1):
    def array(*shape):
        return rng.standard_normal(shape).astype(np.float32)

    visual = {"position_embedding": array(special + grid * grid, width), "proj": {"kernel": array(width, 3)}}
    if scanned:
        visual["blocks"] = {"mlp": {"kernel": array(2, width, width)}}
    else:
        visual |= {f"block_{i}": {"mlp": {"kernel": array(width, width)}} for i in range(2)}
    return {"visual": visual, "text": {"position_embedding": array(5, width)}, "logit_scale": array()}


@pytest.fixture
def source(tmp_path):
    params = tower(np.random.default_rng(0))
    save_weights(tmp_path / "towers", params, {}, {"config": {}})
    return params


def config_of(*entries):
    return ConfigDict({"init_from": entries})


def load(tmp_path, params, path="{workdir}/towers", **entry):
    config = config_of({"path": path, **entry})
    shapes = jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype), params)
    try:
        initialize.check(config, shapes, tmp_path)
        checked = None
    except ValueError as error:
        checked = str(error)
    try:
        result = initialize.init_from(config, params, tmp_path)
    except ValueError as error:
        assert checked == str(error), "the check before compiling says something else than the load"
        raise
    assert checked is None
    return result


def test_under_a_prefix_the_rest_stays(tmp_path, source, caplog):
    rng = np.random.default_rng(1)
    params = {"clip": tower(rng), "decoder": {"kernel": rng.standard_normal((2, 2))}}
    with caplog.at_level("INFO"):
        found = load(tmp_path, params, map=(("^", "clip/"),))
    jax.tree.map(np.testing.assert_array_equal, found["clip"], source)
    np.testing.assert_array_equal(found["decoder"]["kernel"], params["decoder"]["kernel"])
    assert f"{tmp_path}/towers: 6 parameters loaded; 1 keep their initial values (decoder)" in caplog.text


def test_the_first_map_that_matches_is_used(tmp_path, source):
    params = {"backbone": tower(np.random.default_rng(1))["visual"], "words": tower(np.random.default_rng(1))["text"]}
    maps = (("^visual/", "backbone/"), ("^text", "words"), ("^backbone", "nowhere"))
    found = load(tmp_path, params, map=maps, leave_out=("^logit_scale$",))
    np.testing.assert_array_equal(found["backbone"]["proj"]["kernel"], source["visual"]["proj"]["kernel"])
    np.testing.assert_array_equal(found["words"]["position_embedding"], source["text"]["position_embedding"])


@pytest.mark.parametrize("scanned", [False, True])
def test_stacked_and_unrolled_blocks(tmp_path, scanned):
    """Either way round."""
    rng = np.random.default_rng(0)
    theirs, ours = tower(rng, scanned=not scanned), tower(rng, scanned=scanned)
    save_weights(tmp_path / "towers", theirs, {}, {})
    found = load(tmp_path, ours)["visual"]
    kernels = theirs["visual"]["blocks"]["mlp"]["kernel"] if not scanned else None
    if scanned:
        kernels = [theirs["visual"][f"block_{i}"]["mlp"]["kernel"] for i in range(2)]
        np.testing.assert_array_equal(found["blocks"]["mlp"]["kernel"], np.stack(kernels))
    else:
        for i in range(2):
            np.testing.assert_array_equal(found[f"block_{i}"]["mlp"]["kernel"], kernels[i])


@pytest.mark.parametrize("special", [1, 0])
def test_positions_of_another_grid_are_resized(tmp_path, special):
    rng = np.random.default_rng(0)
    theirs, ours = tower(rng, grid=4, special=special), tower(rng, grid=7, special=special)
    save_weights(tmp_path / "towers", theirs, {}, {})
    found = load(tmp_path, ours)["visual"]["position_embedding"]
    old = theirs["visual"]["position_embedding"]
    expected = resize(jnp.asarray(old[special:].reshape(4, 4, 6)), (7, 7), method="bicubic", axes=(0, 1))
    np.testing.assert_array_equal(found[:special], old[:special])
    np.testing.assert_allclose(found[special:], np.asarray(expected).reshape(49, 6), rtol=1e-6)


def test_everything_that_does_not_fit_is_in_one_message(tmp_path, source):
    params = {"clip": tower(np.random.default_rng(1))}
    visual = params["clip"]["visual"]
    visual["proj"]["kernel"] = np.zeros((6, 4), np.float32)
    visual["block_2"] = {"mlp": {"kernel": np.zeros((6, 6), np.float32)}}
    params["clip"]["text"]["position_embedding"] = np.zeros((10, 6), np.float32)  # 1 + 9: no grid all the same
    del params["clip"]["logit_scale"]
    with pytest.raises(ValueError) as error:
        load(tmp_path, params, map=(("^", "clip/"),))
    assert str(error.value).splitlines() == [
        f"config.init_from[0]: {tmp_path}/towers: 4 arrays do not fit; map or leave_out must name them:",
        "  misshapen clip/text/position_embedding: found [5, 6], expected [10, 6]",
        "  misshapen clip/visual/proj/kernel: found [6, 3], expected [6, 4]",
        "  missing  clip/visual/block_2/mlp/kernel [6, 6]",
        "  unused   logit_scale []: there is no parameter clip/logit_scale",
    ]
    leave_out = ("text/", "proj/kernel", "block_2/", "logit_scale")
    found = load(tmp_path, params, map=(("^", "clip/"),), leave_out=leave_out)
    np.testing.assert_array_equal(found["clip"]["visual"]["proj"]["kernel"], visual["proj"]["kernel"])
    kernel = found["clip"]["visual"]["block_1"]["mlp"]["kernel"]
    np.testing.assert_array_equal(kernel, source["visual"]["block_1"]["mlp"]["kernel"])


def test_two_arrays_with_one_target(tmp_path, source):
    with pytest.raises(ValueError, match=r"twice    block/mlp/kernel: both visual/block_\d/mlp/kernel and visual/block_\d"):
        load(tmp_path, tower(np.random.default_rng(1)), map=((r"^visual/block_\d", "block"),))


def test_dtypes_and_shardings_are_the_parameters(tmp_path, source):
    sharding = NamedSharding(Mesh(np.array(jax.devices()[:2]), ("data",)), P("data"))
    params = tower(np.random.default_rng(1))
    params["visual"]["proj"]["kernel"] = jax.device_put(np.zeros((6, 3), np.float32), sharding).astype(jnp.bfloat16)
    kernel = load(tmp_path, params)["visual"]["proj"]["kernel"]
    assert kernel.dtype == jnp.bfloat16
    assert kernel.sharding.is_equivalent_to(sharding, 2)
    np.testing.assert_array_equal(kernel, source["visual"]["proj"]["kernel"].astype(jnp.bfloat16))


def test_averages_of_a_run_are_loaded(tmp_path):
    params = {"a": jnp.ones(3)}
    checkpoints = Checkpoints(tmp_path / "run" / "checkpoints")
    checkpoints.save(1, {"params": params, "state": {}, "opt": {}, "ema": {"a": jnp.full(3, 7.0)}}, {})
    checkpoints.close()
    found = load(tmp_path, {"a": jnp.zeros(3)}, path=str(tmp_path / "run"))
    np.testing.assert_array_equal(found["a"], np.full(3, 7.0))


def test_a_path_that_is_not_there(tmp_path):
    with pytest.raises(ValueError, match="nothing: no such folder"):
        load(tmp_path, {"a": jnp.zeros(3)}, path="{workdir}/nothing")
    with pytest.raises(ValueError, match="found an entry without path"):
        load(tmp_path, {"a": jnp.zeros(3)}, path="")


def test_what_counts_as_finished(tmp_path, source):
    assert initialize.is_finished(tmp_path / "towers")
    assert not initialize.is_finished(tmp_path / "nothing")
    run = tmp_path / "run"
    write_json(run / "config.json", {"train": {"steps": 5}})
    assert not initialize.is_finished(run)
    checkpoints = Checkpoints(run / "checkpoints")
    checkpoints.save(4, {"params": {"a": jnp.zeros(1)}}, {})
    checkpoints.wait()
    assert not initialize.is_finished(run)
    checkpoints.save(5, {"params": {"a": jnp.zeros(1)}}, {})
    checkpoints.close()
    assert initialize.is_finished(run)


def test_an_entry_whose_recipe_is_still_to_be_trained_is_not_checked(tmp_path):
    config = config_of({"path": "{workdir}/clip", "recipe": "configs/clip_pretrain.py:tiny"})
    initialize.check(config, {"a": jax.ShapeDtypeStruct((3,), np.float32)}, tmp_path)
