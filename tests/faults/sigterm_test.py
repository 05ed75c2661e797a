"""SIGTERM at any moment: the step that runs is saved, the exit status is `preemption.EXIT_CODE`, and the run goes on later."""

import json
import signal
import time

import numpy as np
import pytest

from jaxseg import preemption
from tests.faults import toy
from tests.faults.processes import Process, cluster, steps_of

STEPS = 6


def options(steps=STEPS, **faults):
    return {"train": {"steps": steps, "checkpoint_every": 1000, "eval_every": 4}, "toy": faults}


def strike(workdir, moment, **faults):
    """SIGTERM at a moment of a run; returns the process that has ended and how long that took."""
    process = Process(workdir, options(**faults))
    process.wait_for(moment)
    process.send(signal.SIGTERM)
    struck = time.monotonic()
    assert process.finish() == preemption.EXIT_CODE, process.errors()
    assert "SIGTERM: saving a checkpoint and ending" in process.errors()
    return process, time.monotonic() - struck


def test_one_process(tmp_path):
    """In the first compile, in a step, in an evaluation, in the last evaluation; then to the end."""
    workdir = tmp_path / "run"
    process, _ = strike(workdir, "compiling", compile_seconds=1.0)
    assert steps_of(workdir) == [1]
    assert "the checkpoint of step 1 is saved, the same command goes on from it" in process.errors()

    process, _ = strike(workdir, "step 3", step_seconds=0.3)
    assert "resumed from step 1" in process.errors()
    assert steps_of(workdir) == [1, 3]

    # Evaluations that would take minutes.
    process, seconds = strike(workdir, "evaluating", evaluation_seconds=100)
    assert process.last_step() == 4
    assert steps_of(workdir) == [3, 4]
    assert seconds < 60

    # While it evaluates, nobody else may work here.
    process = Process(workdir, options(evaluation_seconds=100))
    process.wait_for(f"saving {STEPS}")
    process.wait_for("evaluating")
    second = Process(workdir, options())
    assert second.finish() == 2
    assert f"main.py: workdir {workdir}: is in use by process " in second.errors()
    assert second.lines == [], "the second run did something before it refused"
    struck = time.monotonic()
    process.send(signal.SIGTERM)
    assert process.finish() == preemption.EXIT_CODE, process.errors()
    assert time.monotonic() - struck < 60
    assert f"the checkpoint of step {STEPS} is saved" in process.errors()
    assert not (workdir / "results.json").exists()

    process = Process(workdir, options())
    assert process.finish() == 0, process.errors()
    assert not any(line.startswith("saving") for line in process.lines)
    whole = tmp_path / "whole"
    assert Process(whole, options()).finish() == 0
    assert toy.losses(workdir) == toy.losses(whole)
    assert json.loads((workdir / "results.json").read_text()) == json.loads((whole / "results.json").read_text())


def test_two_processes(tmp_path):
    """One of them gets SIGTERM, in the first compile, in an evaluation; both save one step, each its half of the parameters."""
    workdir, saved, split = tmp_path / "two", [], {"mesh": {"data": 1, "fsdp": 2}}
    endless = options(100_000, compile_seconds=0.5, step_seconds=0.05, evaluation_seconds=0.1) | split
    for victim, moment in ((0, "compiling"), (1, "evaluating")):
        processes = cluster(workdir, endless)
        processes[victim].wait_for(moment)
        processes[victim].send(signal.SIGTERM)
        statuses = [process.finish() for process in processes]
        assert statuses == [preemption.EXIT_CODE] * 2, "\n".join(process.errors() for process in processes)
        [step] = {process.last_step() for process in processes}
        saved.append(step)
        assert steps_of(workdir) == saved, "not the step at which they ended"
        assert all(f"the checkpoint of step {step} is saved" in process.errors() for process in processes)

    last = saved[-1] + 2
    processes = cluster(workdir, options(last) | split)
    assert [process.finish() for process in processes] == [0, 0], processes[0].errors()
    assert f"resumed from step {saved[-1]}" in processes[0].errors()
    parts = workdir / "checkpoints" / str(last) / "params"
    assert (parts / "ocdbt.process_0").is_dir() and (parts / "ocdbt.process_1").is_dir()
    one, last = tmp_path / "one", last + 1
    toy.run(one, toy.config_for(steps=last))
    toy.run(workdir, toy.config_for(steps=last))  # one process goes on from what two have saved
    alone, together = toy.losses(one), toy.losses(workdir)
    assert sorted(together) == list(range(1, last + 1))
    for step, (loss, ids) in alone.items():
        assert together[step][1] == ids
        np.testing.assert_allclose(float.fromhex(together[step][0]), float.fromhex(loss), atol=1e-5)


def test_requests_inside_of_one_program(monkeypatch):
    """What the handler does, without processes."""
    before = signal.getsignal(signal.SIGTERM)
    with preemption.watch():
        assert not preemption.requested(1)
        assert preemption.interruptible(lambda: None)
        reached = []
        with preemption.watch():

            def body():
                signal.raise_signal(signal.SIGTERM)
                reached.append("behind")

            assert not preemption.interruptible(body)
        assert not reached
        assert preemption.requested(2), "an inner run's SIGTERM is the outer run's too"
        assert not preemption.interruptible(lambda: reached.append("started"))
        assert not reached
        signal.raise_signal(signal.SIGTERM)  # again: still saving
        with pytest.raises(SystemExit) as ended, preemption.saved_at(7):
            reached.append("evaluated")
        assert (ended.value.step, ended.value.code, reached) == (7, preemption.EXIT_CODE, [])
    assert signal.getsignal(signal.SIGTERM) == before
    assert not preemption.requested(1), "the next run is not asked to end"
