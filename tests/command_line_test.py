"""FAULTS 12: a wrong command line ends with one line that names the field, what was found and what was expected."""

import subprocess
import sys
from pathlib import Path

import pytest

from jaxseg.command_line import check_override
from jaxseg.config import load_config

ROOT = Path(__file__).parent.parent
TINY = "--config=configs/clipseg_rd64.py:tiny"

WRONG = {
    "field": ((TINY, "--config.train.stepz=3"), ("config.train.stepz", "steps")),
    "field of a field": ((TINY, "--config.modl.patch=3"), ("config.modl", "model")),
    "type": ((TINY, "--config.train.steps=abc"), ("config.train.steps", "'abc'", "int")),
    "range": ((TINY, "--config.train.batch_size=-3"), ("config.train.batch_size", "-3", "positive")),
    "option": (("--config=configs/clipseg_rd64.py:tny",), ("tny", "tiny")),
    "value of an option": (("--config=configs/clipseg_rd64.py:steps=x",), ("steps", "'x'", "int")),
    "config": (("--config=configs/clipseg_rd6.py",), ("configs/clipseg_rd6.py", "clipseg_rd64")),
    "no config": ((), ("--config",)),
    "flag": ((TINY, "--weigths=x"), ("weigths", "weights")),
    "mode": ((TINY, "--mode=tran"), ("tran", "train")),
    "data": (("--config=configs/clipseg_rd64.py:tiny,data=/nowhere/at_all",), ("/nowhere/at_all", "folder")),
    "batch and devices": ((TINY, "--config.mesh.fsdp=3", "--config.mesh.data=1"), ("mesh",)),
}


@pytest.mark.parametrize("arguments, named", WRONG.values(), ids=WRONG)
def test_one_line_names_the_mistake(arguments, named, tmp_path):
    command = [sys.executable, "main.py", *arguments, f"--workdir={tmp_path / 'run'}"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("main.py: ")]
    assert done.returncode == 2, done.stderr
    assert len(lines) == 1 and done.stderr.rstrip().endswith(lines[0]), done.stderr
    assert all(word in lines[0] for word in named), lines[0]
    assert "Traceback" not in done.stderr
    assert not (tmp_path / "run").exists()  # nothing was started


def test_overrides_that_fit_pass():
    config = load_config("clipseg_rd64", "tiny")
    for name, value in (("train.steps", "3"), ("optim.learning_rate", "1e-3"), ("train.untrained_baseline", "false")):
        check_override(config, f"config.{name}", value)
