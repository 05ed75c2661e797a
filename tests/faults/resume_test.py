"""Damaged checkpoints, full disks, other device counts and other seeds, through the train loop."""

import contextlib
import logging
import shutil
import subprocess
import sys
from pathlib import Path
from unittest import mock

import jax
import numpy as np
import pytest

from jaxseg import sharding, train
from jaxseg.checkpoint import CheckpointError, Checkpoints
from jaxseg.checkpoint_step import named_leaves
from jaxseg.checksums import checksums
from tests.faults import toy
from tests.faults.processes import Process, steps_of, stored_arrays

STEPS = 6


@pytest.fixture(scope="module", autouse=True)
def without_tensorflow():
    """It takes seconds to import and is not wanted here."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, "tensorflow", None)
        yield


@contextlib.contextmanager
def devices(number):
    """Runs inside see only so many; parameters are split over two of them where there are two."""
    make_mesh = sharding.make_mesh
    sizes = {"data": -1, "fsdp": min(number, 2), "model": 1}
    with mock.patch.object(sharding, "make_mesh", lambda _: make_mesh(sizes, jax.devices()[:number])):
        yield


@pytest.fixture(scope="module")
def whole(tmp_path_factory):
    """An uninterrupted run on eight devices, in a folder with a name like people's."""
    workdir = tmp_path_factory.mktemp("faults") / "my runs" / "größe 猫 🦊"
    with devices(8):
        toy.run(workdir, toy.config_for(steps=STEPS))
    return workdir


def assert_close(found, expected):
    """Losses within 1e-5 and the same batches, at every step of `found`."""
    for step, (loss, ids) in found.items():
        assert ids == expected[step][1], f"step {step} saw other examples"
        np.testing.assert_allclose(float.fromhex(loss), float.fromhex(expected[step][0]), atol=1e-5, err_msg=f"step {step}")


# Other device counts


@pytest.mark.parametrize("counts", [(8, 4, 1), (1, 8)])
def test_resume_on_other_device_counts(whole, tmp_path, counts):
    restored = []

    def spy(*args):
        state = original(*args)
        kernel = state.params["ballast"]["kernel"]
        assert len(kernel.sharding.device_set) == number
        assert kernel.is_fully_replicated == (number == 1)
        restored.append({name: checksums(named_leaves(getattr(state, name))) for name in ("params", "state", "opt", "ema")})
        return state

    original = train._restored
    for i, number in enumerate(counts):
        with devices(number), mock.patch.object(train, "_restored", spy):
            toy.run(tmp_path, toy.config_for(steps=2 * (i + 1)))
        if i:
            stored = stored_arrays(tmp_path, 2 * i)
            assert restored[-1] == {item: {name: entry[2] for name, entry in stored[item].items()} for item in stored}
    assert len(restored) == len(counts) - 1
    found = toy.losses(tmp_path)
    assert sorted(found) == list(range(1, 2 * len(counts) + 1))
    assert_close(found, toy.losses(whole))


# Damage


def cut(path):
    path.write_bytes(path.read_bytes()[: path.stat().st_size // 2])


def flip(path):
    data = bytearray(path.read_bytes())
    data[len(data) // 2] ^= 0x55
    path.write_bytes(data)


@pytest.fixture(scope="module")
def halfway(tmp_path_factory):
    """A run on one device with checkpoints of steps 2 and 4."""
    workdir = tmp_path_factory.mktemp("halfway") / "run"
    with devices(1):
        toy.run(workdir, toy.config_for(steps=4), toy.Toy(ballast=4096))
    assert steps_of(workdir) == [2, 4]
    return workdir


def damaged_copy(halfway, tmp_path, damage, pattern):
    """A copy of the run in which a file of step 4 is damaged; the largest that fits the pattern."""
    workdir = Path(shutil.copytree(halfway, tmp_path / "run"))
    damage(max((workdir / "checkpoints" / "4").glob(pattern), key=lambda path: path.stat().st_size))
    return workdir


@pytest.mark.parametrize(
    ("damage", "pattern", "reason"),
    [
        (Path.unlink, "meta/metadata", "meta/metadata is missing"),
        (flip, "meta/metadata", "meta/metadata is damaged"),
        (cut, "params/_METADATA", "params/_METADATA is damaged"),
        (cut, "opt/manifest.ocdbt", "opt/manifest.ocdbt is damaged"),
        (Path.unlink, "ema/d/*", "ema/d/{name} is missing"),
        (flip, "params/ocdbt.process_0/d/*", "params/ballast/kernel: values were changed, checksum"),
        (cut, "ema/ocdbt.process_0/d/*", "ema/ballast/kernel is cut short"),
        (shutil.rmtree, "state", "state is missing"),
    ],
)
def test_a_damaged_checkpoint_is_named_and_the_one_before_is_used(halfway, tmp_path, caplog, damage, pattern, reason):
    workdir = damaged_copy(halfway, tmp_path, damage, pattern)
    with devices(1), caplog.at_level(logging.WARNING):
        toy.run(workdir, toy.config_for(steps=STEPS), toy.Toy(ballast=4096))
    [warning] = [r.getMessage() for r in caplog.records if r.getMessage().startswith("damaged checkpoint")]
    assert warning.startswith(f"damaged checkpoint: {workdir}/checkpoints/4: {reason.split('{')[0]}"), warning
    assert reason.split("}")[-1] in warning
    assert "; step 2 is used instead" in warning
    assert "\n" not in warning
    assert steps_of(workdir) == [4, 6]
    assert (workdir / "checkpoints" / "damaged-4").is_dir()
    assert sorted(toy.losses(workdir)) == list(range(1, STEPS + 1))  # those of steps 3 and 4 twice, and the same


def test_strict_resume_ends_with_an_error(halfway, tmp_path):
    workdir = damaged_copy(halfway, tmp_path, flip, "params/ocdbt.process_0/d/*")
    process = Process(workdir, {"train": {"steps": STEPS}, "toy": {"ballast": 4096}, "strict_resume": True})
    assert process.finish() == 2
    lines = process.errors().splitlines()
    expected = f"main.py: {workdir}/checkpoints/4: params/ballast/kernel: values were changed, checksum "
    assert lines[-1].startswith(expected), process.errors()
    assert "Traceback" not in process.errors()
    assert steps_of(workdir) == [2, 4]
    assert sorted(toy.losses(workdir)) == [1, 2, 3, 4]


def test_no_intact_checkpoint_is_an_error(halfway, tmp_path):
    workdir = damaged_copy(halfway, tmp_path, flip, "meta/metadata")
    (workdir / "checkpoints" / "2" / "meta" / "metadata").unlink()
    with devices(1), pytest.raises(CheckpointError) as error:
        toy.run(workdir, toy.config_for(steps=STEPS), toy.Toy(ballast=4096))
    lines = str(error.value).splitlines()
    assert lines[1:] == [
        f"  {workdir}/checkpoints/4: meta/metadata is damaged",
        f"  {workdir}/checkpoints/2: meta/metadata is missing",
    ]
    assert steps_of(workdir) == [2, 4], "nothing may be thrown away"


# Full disks


def assert_step_2_is_intact(workdir):
    assert steps_of(workdir) == [2]
    arrays = stored_arrays(workdir, 2)
    templates = {
        item: {name: jax.ShapeDtypeStruct(shape, dtype) for name, (shape, dtype, _) in entries.items()}
        for item, entries in arrays.items()
    }
    templates = {item: train.optim.unflatten(entries) for item, entries in templates.items()}
    step, _, _ = Checkpoints(workdir / "checkpoints", read_only=True).restore(templates, strict=True)
    assert step == 2


def test_file_size_limit(tmp_path):
    """Any user's way to a write that fails: no file may grow beyond a limit from the second save on."""
    process = Process(tmp_path, {"toy": {"ballast": 100_000, "file_limit": 100_000}})
    assert process.finish() == 2
    expected = (
        f"main.py: {tmp_path}/checkpoints: step 4 could not be saved: no space left on the disk; "
        "the checkpoint of step 2 is intact"
    )
    assert process.errors().splitlines()[-1] == expected, process.errors()
    assert "Traceback" not in process.errors()
    assert_step_2_is_intact(tmp_path)


def test_full_disk(tmp_path):
    """A file system that has room for one checkpoint and a half."""
    disk = tmp_path / "disk"
    disk.mkdir()
    mounted = subprocess.run(["mount", "-t", "tmpfs", "-o", "size=12m", "tmpfs", str(disk)], capture_output=True, text=True)
    if mounted.returncode:
        pytest.skip(f"mounting needs root: {mounted.stderr.strip()}")
    try:
        workdir = disk / "run"
        with devices(1), pytest.raises(CheckpointError) as error:
            toy.run(workdir, toy.config_for(), toy.Toy(ballast=500_000))
        expected = "checkpoints: step 4 could not be saved: no space left on the disk; the checkpoint of step 2 is intact"
        assert str(error.value) == f"{workdir}/{expected}"
        assert_step_2_is_intact(workdir)
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True)


# Seeds


def test_one_seed_gives_one_run(whole, tmp_path):
    with devices(8):
        toy.run(tmp_path / "again", toy.config_for(steps=STEPS))
        toy.run(tmp_path / "other", toy.config_for(steps=STEPS, seed=1))
    assert toy.losses(tmp_path / "again") == toy.losses(whole)
    assert (tmp_path / "again" / "results.json").read_bytes() == (whole / "results.json").read_bytes()
    assert stored_arrays(tmp_path / "again", STEPS) == stored_arrays(whole, STEPS)
    other = toy.losses(tmp_path / "other")
    assert all(other[step] != record for step, record in toy.losses(whole).items())


def test_a_resumed_run_with_muon_equals_an_uninterrupted_one(tmp_path):
    """Its state has holes, where a parameter is another optimizer's."""

    def config(steps):
        made = toy.config_for(steps=steps).copy_and_resolve_references().unlock()
        made.optim.name = "muon"
        return made.lock()

    with devices(1):
        toy.run(tmp_path / "whole", config(4))
        toy.run(tmp_path / "cut", config(2))
        toy.run(tmp_path / "cut", config(4))
    assert toy.losses(tmp_path / "cut") == toy.losses(tmp_path / "whole")
    assert stored_arrays(tmp_path / "cut", 4) == stored_arrays(tmp_path / "whole", 4)


def test_a_finished_run_is_only_evaluated_again(whole, tmp_path):
    workdir = Path(shutil.copytree(whole, tmp_path / "run"))
    results = (workdir / "results.json").read_bytes()
    (workdir / "results.json").unlink()
    with devices(8):
        toy.run(workdir, toy.config_for(steps=STEPS))
    assert (workdir / "results.json").read_bytes() == results
    assert (workdir / toy.LOSSES).read_bytes() == (whole / toy.LOSSES).read_bytes()


def test_a_run_goes_on_without_what_it_started_from(whole, tmp_path):
    """Starting from weights is checked before anything else; going on needs them no more."""
    config = toy.config_for(steps=2, log_every=2).copy_and_resolve_references()
    config.init_from = ({"path": str(tmp_path / "start")},)
    workdir = tmp_path / "run"
    with devices(8), pytest.raises(ValueError, match="start: no such folder"):
        toy.run(workdir, config)
    assert not (workdir / "config.json").exists()
    shutil.copytree(whole / "checkpoints", tmp_path / "start")
    with devices(8):
        toy.run(workdir, config)
        shutil.rmtree(tmp_path / "start")
        config.train.steps = 4
        toy.run(workdir, config)
    assert toy.losses(workdir)[1] != toy.losses(whole)[1], "the weights were not used"
    assert sorted(toy.losses(workdir)) == [1, 2, 3, 4]


def test_a_workdir_in_use_is_refused_before_anything_else(tmp_path):
    from jaxseg import workdir as workdirs

    def make_data(config):
        raise AssertionError("data were made")

    with workdirs.claim(tmp_path), pytest.raises(ValueError, match="is in use by process"):
        train.run(toy.config_for(), str(tmp_path), make_data, task=toy.make_task(toy.Toy()))
