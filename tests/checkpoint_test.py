"""Checkpoints: what comes back is bit for bit what was saved, to any mesh, or one line says what is wrong."""

import logging
import re
import shutil
from pathlib import Path

import jax
import jax.numpy as jnp
import ml_dtypes
import numpy as np
import optax
import pytest
from jax.sharding import Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

from jaxseg.checkpoint import CheckpointError, Checkpoints, load_weights, save_weights, weights_meta
from jaxseg.checksums import _sums_by_device, checksums


def make_mesh(num_devices):
    return Mesh(np.array(jax.devices()[:num_devices]), ("data",))


def make_items(seed=0, put=jnp.asarray):
    rng = np.random.default_rng(seed)
    params = {
        "tower": {"0": put(rng.standard_normal((8, 4)).astype(np.float32)), "half": put(np.ones((16,), ml_dtypes.bfloat16))},
        # Large enough for files of its own: smaller arrays lie in the files of the index.
        "large": put(rng.standard_normal((64, 256)).astype(np.float32)),
        "head": {"kernel": put(rng.standard_normal((4, 3)).astype(np.float32)), "none": put(np.zeros((0, 3), np.float32))},
    }
    opt = optax.adamw(1e-3).init(params)
    return {"params": params, "state": {}, "opt": opt, "ema": None}


def templates_of(items, sharding=None):
    return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=sharding), items)


def assert_same(a, b):
    assert jax.tree.structure(a) == jax.tree.structure(b)
    for x, y in zip(jax.tree.leaves(a), jax.tree.leaves(b), strict=True):
        assert x.dtype == y.dtype
        assert np.asarray(x).tobytes() == np.asarray(y).tobytes()


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    """A folder with steps 10 and 20, which tests copy before they damage it."""
    folder = tmp_path_factory.mktemp("run") / "checkpoints"
    checkpoints = Checkpoints(folder, keep=2)
    for step in (5, 10, 20):
        checkpoints.save(step, make_items(step), {"config": {"seed": 1, "sizes": (1, 2)}})
    checkpoints.close()
    return folder


@pytest.fixture
def copied(saved, tmp_path):
    return Path(shutil.copytree(saved, tmp_path / "run" / "checkpoints"))


# Checksums


def test_checksums_do_not_depend_on_the_mesh():
    x = np.random.default_rng(0).standard_normal((8, 6, 4)).astype(np.float32)
    arrays = {"numpy": x, "one": jnp.asarray(x)}
    arrays["eight"] = jax.device_put(x, NamedSharding(make_mesh(8), P("data")))
    arrays["four"] = jax.device_put(x, NamedSharding(make_mesh(4), P(None, None, "data")))
    cube = Mesh(np.array(jax.devices()).reshape(2, 2, 2), ("data", "fsdp", "model"))
    for spec in (P(), P("fsdp"), P(("fsdp", "data"), None, "model"), P(None, "model", ("data", "fsdp"))):
        arrays[str(spec)] = jax.device_put(x, NamedSharding(cube, spec))
    assert len(set(checksums(arrays).values())) == 1


def test_checksums_are_one_program_per_layout_without_collectives():
    """Collectives of many small programs may meet in different orders on different devices."""
    sharding = NamedSharding(make_mesh(8), P("data"))
    x = jax.device_put(np.ones((16, 3), np.float32), sharding)
    text = _sums_by_device.lower(x, sharding).compile().as_text()
    assert "multiply" in text and not re.search("all-|collective-|reduce-scatter", text)


def test_checksums_notice_every_bit_and_every_position():
    x = np.arange(24, dtype=np.float32).reshape(4, 6)
    variants = {"same": x, "swapped": x[::-1].copy(), "transposed_order": x.T.reshape(4, 6).copy()}
    for bit in range(32):
        words = x.copy().view(np.uint32)
        words[2, 3] ^= np.uint32(1 << bit)
        variants[f"bit {bit}"] = words.view(np.float32)
    variants["minus zero"] = np.where(x == 0, np.float32(-0.0), x)
    assert len(set(checksums(variants).values())) == len(variants)


def test_checksums_of_every_kind():
    arrays = {
        "bool": np.array([True, False]),
        "scalar": 3,
        "float64": np.float64(1 / 3),
        "uint8": np.arange(5, dtype=np.uint8),
        "bfloat16": np.arange(5).astype(ml_dtypes.bfloat16),
        "empty": np.zeros((0, 2), np.float32),
        "key": jax.random.key(1),
    }
    first, second = checksums(arrays), checksums(arrays)
    assert first == second
    assert len(set(first.values())) == len(arrays)
    nearby = checksums({"float64": np.nextafter(np.float64(1 / 3), 1), "key": jax.random.key(2)})
    assert all(nearby[name] != first[name] for name in nearby)
    with pytest.raises(ValueError, match=r"x: found dtype complex64, expected floats"):
        checksums({"x": np.zeros(2, np.complex64)})


# Saving and restoring


def test_everything_comes_back(saved):
    checkpoints = Checkpoints(saved, read_only=True)
    assert checkpoints.latest_step() == 20
    items = make_items(20)
    step, found, meta = checkpoints.restore(templates_of(items))
    assert step == 20
    assert_same(items, found)
    assert isinstance(found["opt"], tuple)
    assert meta["step"] == 20
    assert meta["config"] == {"seed": 1, "sizes": [1, 2]}
    assert meta["arrays"]["params"]["tower/half"][:2] == [[16], "bfloat16"]
    assert meta["versions"]["jax"] == jax.__version__


def test_old_steps_are_removed(saved):
    assert sorted(path.name for path in saved.iterdir()) == ["10", "20"]


def test_to_other_meshes(tmp_path):
    def put(x):
        spec = P("data") if x.ndim and x.shape[0] % 8 == 0 else P()
        return jax.device_put(x, NamedSharding(make_mesh(8), spec))

    items = make_items(3, put)
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, items, {})
    checkpoints.wait()
    for num_devices in (4, 1, 8):
        mesh = make_mesh(num_devices)

        def template(x, mesh=mesh):
            spec = P("data") if x.ndim and x.shape[0] % num_devices == 0 else P()  # noqa: B023
            return jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=NamedSharding(mesh, spec))

        templates = jax.tree.map(template, items)
        _, found, _ = checkpoints.restore(templates)
        assert_same(items, found)
        kernel = found["params"]["tower"]["0"]
        assert kernel.sharding == templates["params"]["tower"]["0"].sharding
    checkpoints.close()


def test_donated_buffers_are_not_saved(tmp_path):
    """What is saved is the state at the call, although its buffers are reused while files are written."""
    update = jax.jit(lambda x: jax.tree.map(lambda y: y + 1, x), donate_argnums=0)
    state = {"a": jnp.zeros((512, 512)), "b": jnp.zeros((64,))}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"params": state}, {})
    for _ in range(20):
        state = update(state)
    checkpoints.wait()
    _, items, _ = checkpoints.restore({"params": templates_of(state)})
    assert all(not np.any(leaf) for leaf in jax.tree.leaves(items))
    checkpoints.close()


def test_keys_and_numbers_come_back(tmp_path):
    state = {"key": jax.random.key(7), "keys": jax.random.split(jax.random.key(1, impl="rbg"), 3), "count": np.int64(2**40)}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"params": {"x": jnp.ones(2)}, "state": state}, {})
    checkpoints.close()
    _, items, _ = checkpoints.restore({"state": state})
    found = items["state"]
    assert found["count"] == 2**40
    for name in ("key", "keys"):
        assert found[name].dtype == state[name].dtype
        np.testing.assert_array_equal(jax.random.key_data(found[name]), jax.random.key_data(state[name]))


def test_params_alone_do_not_read_the_rest(copied):
    shutil.rmtree(copied / "20" / "opt")
    items = make_items(20)
    step, found, _ = Checkpoints(copied, read_only=True).restore({"params": templates_of(items["params"])})
    assert step == 20
    assert_same(items["params"], found["params"])


def test_a_step_that_exists_is_left_as_it_is(copied):
    checkpoints = Checkpoints(copied)
    checkpoints.save(20, make_items(99), {})
    checkpoints.close()
    _, found, _ = checkpoints.restore(templates_of(make_items(20)))
    assert_same(make_items(20), found)


def test_what_does_not_fit_is_listed_and_nothing_else_is_tried(copied, caplog):
    templates = templates_of(make_items(20))
    params = templates["params"]
    params["tower"]["half"] = jax.ShapeDtypeStruct((16,), jnp.float32)
    params["head"]["kernel"] = jax.ShapeDtypeStruct((4, 5), jnp.float32)
    params["new"] = params["tower"].pop("0")
    with pytest.raises(CheckpointError) as error:
        Checkpoints(copied).restore(templates)
    assert str(error.value).splitlines()[1:] == [
        "  params/head/kernel: stored with shape [4, 3], expected [4, 5]",
        "  params/new: not stored, but this run has it",
        "  params/tower/0: stored, but this run has no such array",
        "  params/tower/half: stored as bfloat16, expected float32; a cast must be asked for",
    ]
    assert (copied / "20").is_dir()


def test_a_cast_can_be_asked_for(saved):
    templates = templates_of({"params": make_items()["params"]})
    templates["params"]["head"]["kernel"] = jax.ShapeDtypeStruct((4, 3), jnp.bfloat16)
    _, found, _ = Checkpoints(saved, read_only=True).restore(templates, cast=True)
    expected = make_items(20)["params"]["head"]["kernel"].astype(jnp.bfloat16)
    np.testing.assert_array_equal(found["params"]["head"]["kernel"], expected)


# Damage


def files_of(step):
    return sorted(path for path in step.rglob("*") if path.is_file())


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


def test_every_damage_is_noticed_or_harmless(saved, tmp_path, caplog):
    """Each file cut, changed and deleted: the values are those of step 20, or a warning names it and step 10 is used."""
    items, used = templates_of(make_items()), {}
    for index, file in enumerate(files_of(saved / "20")):
        for damage in (cut, flip, Path.unlink):
            folder = Path(shutil.copytree(saved, tmp_path / f"{index}-{damage.__name__}"))
            damage(folder / "20" / file.relative_to(saved / "20"))
            caplog.clear()
            step, found, _ = Checkpoints(folder, read_only=True).restore(items)
            assert_same(make_items(step), found)
            if step == 10:
                [record] = [r for r in caplog.records if "damaged checkpoint" in r.getMessage()]
                line = record.getMessage()
                assert str(folder / "20") in line
                assert "\n" not in line and len(line) < 400, line
                used.setdefault(str(file.relative_to(saved / "20")), []).append(line)
            shutil.rmtree(folder)
    # Files that hold arrays, or say where they lie, are noticed whatever happens to them.
    always = [name for name, lines in used.items() if len(lines) == 3]
    assert {"meta/metadata", "params/manifest.ocdbt", "opt/manifest.ocdbt"} <= set(always)
    holding_data = [name for name in always if re.match(r"(params|opt)/(ocdbt.process_0/)?d/", name)]
    assert len(holding_data) >= 3, used.keys()
    text = "\n".join(line for lines in used.values() for line in lines)
    for what in ("params/large: values were changed", "/20: params/large is cut short", "/20: params/head/kernel is missing"):
        assert what in text, text


def test_fallback_sets_the_damaged_step_aside(copied, caplog):
    flip(copied / "20" / "meta" / "metadata")
    checkpoints = Checkpoints(copied)
    with caplog.at_level(logging.WARNING):
        step, _, _ = checkpoints.restore(templates_of(make_items()))
    assert step == 10
    assert f"{copied / '20'}: meta/metadata is damaged; step 10 is used instead" in caplog.text
    checkpoints.save(20, make_items(21), {})
    checkpoints.close()
    assert sorted(path.name for path in copied.iterdir()) == ["10", "20", "damaged-20"]
    _, found, _ = checkpoints.restore(templates_of(make_items()))
    assert_same(make_items(21), found)


def test_strict_and_single_steps_do_not_fall_back(copied):
    (copied / "20" / "meta" / "metadata").unlink()
    checkpoints = Checkpoints(copied, read_only=True)
    for options in ({"strict": True}, {"step": 20}):
        with pytest.raises(CheckpointError, match=r"checkpoints/20: meta/metadata is missing$"):
            checkpoints.restore(templates_of(make_items()), **options)
    step, _, _ = checkpoints.restore(templates_of(make_items()), step=10, strict=True)
    assert step == 10


def test_no_intact_step_lists_every_reason(copied):
    cut(copied / "20" / "meta" / "metadata")
    shutil.rmtree(copied / "10" / "params")
    with pytest.raises(CheckpointError) as error:
        Checkpoints(copied, read_only=True).restore(templates_of(make_items()))
    assert str(error.value).splitlines() == [
        f"{copied}: no checkpoint is intact:",
        f"  {copied}/20: meta/metadata is damaged",
        f"  {copied}/10: params is missing",
    ]
    with pytest.raises(CheckpointError, match=r"elsewhere: no checkpoint here$"):
        Checkpoints(copied / "elsewhere", read_only=True).restore({})


def test_a_changed_value_is_named(copied):
    """Files that are whole and hold other values, as bytes give them that were flipped where no file format notices."""
    shutil.rmtree(copied / "20" / "params")
    shutil.copytree(copied / "10" / "params", copied / "20" / "params")
    with pytest.raises(CheckpointError) as error:
        Checkpoints(copied, read_only=True).restore(templates_of(make_items()), strict=True)
    pattern = r".*/20: params/.* and 2 more arrays: values were changed, checksum \w{16} differs from the stored \w{16}"
    assert re.fullmatch(pattern, str(error.value)), error.value


def test_leftovers_of_a_killed_save_are_removed(copied):
    leftover = copied / "30.orbax-checkpoint-tmp"
    (leftover / "params").mkdir(parents=True)
    assert Checkpoints(copied, read_only=True).latest_step() == 20
    assert leftover.exists(), "another process may be writing it"
    checkpoints = Checkpoints(copied)
    assert checkpoints.latest_step() == 20
    checkpoints.save(30, make_items(30), {})
    checkpoints.close()
    assert sorted(path.name for path in copied.iterdir()) == ["20", "30"]


# Weights


def test_weights_from_every_kind_of_folder(copied, tmp_path):
    params = make_items(20)["params"]
    for path in (copied.parent, copied, copied / "20"):
        found, state, meta = load_weights(path)
        assert_same(jax.tree.map(np.asarray, params), found)
        assert state == {}
        assert meta["config"]["seed"] == 1
    found, _, _ = load_weights(copied / "10")
    assert_same(jax.tree.map(np.asarray, make_items(10)["params"]), found)
    save_weights(tmp_path / "converted", params, {"count": np.int32(3)}, {"config": {"system": "clip"}})
    for path in (tmp_path / "converted", tmp_path / "converted" / "weights"):
        found, state, meta = load_weights(str(path))
        assert_same(jax.tree.map(np.asarray, params), found)
        assert state["count"] == 3
        assert meta["config"] == {"system": "clip"}
    assert weights_meta(tmp_path / "converted")["arrays"]["params"]["head/kernel"][0] == [4, 3]
    with pytest.raises(ValueError, match=r"converted/weights: weights are already here"):
        save_weights(tmp_path / "converted", params, {}, {})


def test_weights_in_a_templates_sharding(saved):
    sharding = NamedSharding(make_mesh(8), P())
    template = templates_of((make_items()["params"], {}), sharding)
    found, _, _ = load_weights(saved, template)
    assert found["tower"]["0"].sharding == sharding
    assert_same(make_items(20)["params"], found)


def test_averages_are_preferred(tmp_path):
    params = {"frozen": {"x": jnp.ones(3)}, "head": {"y": jnp.ones(2)}}
    checkpoints = Checkpoints(tmp_path / "checkpoints")
    checkpoints.save(1, {"params": params, "state": {}, "opt": {}, "ema": {"head": {"y": jnp.full(2, 5.0)}}}, {})
    checkpoints.save(2, {"params": params, "state": {}, "opt": {}, "ema": jax.tree.map(lambda x: x + 8, params)}, {})
    checkpoints.close()
    for template in (None, templates_of((params, {}))):
        found, _, _ = load_weights(tmp_path / "checkpoints" / "1", template)
        assert (found["frozen"]["x"][0], found["head"]["y"][0]) == (1, 5)
        found, _, _ = load_weights(tmp_path, template)
        assert (found["frozen"]["x"][0], found["head"]["y"][0]) == (9, 9)


def test_weights_that_are_not_there(tmp_path, copied, caplog):
    with pytest.raises(CheckpointError, match="nowhere: no such folder$"):
        load_weights(tmp_path / "nowhere")
    (tmp_path / "empty").mkdir()
    with pytest.raises(CheckpointError, match="empty: no weights here; looked for a workdir"):
        load_weights(tmp_path / "empty")
    (copied / "20" / "meta" / "metadata").unlink()
    with pytest.raises(CheckpointError, match="20: .*metadata is missing|no weights here"):
        load_weights(copied / "20")
    found, _, _ = load_weights(copied.parent)
    assert_same(jax.tree.map(np.asarray, make_items(10)["params"]), found)
    assert "checkpoints/10 is used instead" in caplog.text
