"""Planning: for simulated devices in this process, for a TPU without one, and refusals."""

import json
import re

import pytest

from jaxseg.plan import plan
from tests.tiny import clipseg_config


def test_plan_for_simulated_devices(tmp_path, capsys):
    config = clipseg_config()
    config.mesh = {"data": 2, "fsdp": 2, "model": 2}
    report = plan(config, "cpu:8", tmp_path / "plan.json")
    assert json.loads((tmp_path / "plan.json").read_text()) == report
    train, predict = report["programs"]["train"], report["programs"]["predict"]
    assert train["flops"] > predict["flops"] > 0
    assert train["total_bytes"] > train["argument_bytes"] > 0
    assert train["collectives"]["all-reduce"]["count"] > 0, "gradients of a split batch are summed"
    assert re.search(r"train: .* GiB arguments", capsys.readouterr().out)


def test_plan_for_a_tpu_without_one():
    pytest.importorskip("libtpu", reason="planning for TPUs needs libtpu (requirements-dev.txt)")
    config = clipseg_config()
    config.mesh = {"data": 2, "fsdp": 2, "model": 1}
    report = plan(config, "v5e:2x2")
    for program in report["programs"].values():
        assert program["fits"]
        assert program["estimated_cycles"] > 0
        assert 0 < program["estimated_mfu"] < 1
    assert report["programs"]["train"]["collectives"], "gradients of a split batch are summed"


@pytest.mark.parametrize("topology", ["v5e", "v7:2x2", "cpu:0", "gpu:8", "v5e:2x"])
def test_unknown_topologies(topology):
    with pytest.raises(ValueError, match="--topology: found"):
        plan(clipseg_config(), topology)


def test_a_mesh_that_does_not_fit_is_refused_before_compiling():
    config = clipseg_config()
    config.mesh = {"data": 3, "fsdp": 1, "model": 1}
    with pytest.raises(ValueError, match=r"config\.mesh"):
        plan(config, "cpu:8")
