"""kill -9 at random moments of saves: a run goes on from its last complete step, as if nothing had happened."""

import re
import signal
import time

import numpy as np

from tests.faults import toy
from tests.faults.processes import Process, steps_of, stored_arrays

STEPS = 10
# Large enough that a save takes long; slow enough that steps go by while it lasts.
OPTIONS = {"train": {"steps": STEPS, "checkpoint_every": 2}, "toy": {"ballast": 2_000_000, "step_seconds": 0.05}}


def leftovers(workdir):
    return list((workdir / "checkpoints").glob("*tmp*"))


def wait_until(condition):
    """Seconds until it holds."""
    started = time.monotonic()
    while not condition():
        assert time.monotonic() - started < 60, "nothing was saved"
        time.sleep(0.002)
    return time.monotonic() - started


def test_killed_saves_leave_a_run_that_equals_an_uninterrupted_one(tmp_path):
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    process = Process(whole, OPTIONS)
    process.wait_for("saving 2")
    wait_until(lambda: leftovers(whole))
    duration = wait_until(lambda: steps_of(whole))  # of writing
    assert process.finish() == 0, process.errors()

    rng, interrupted = np.random.default_rng(), 0
    for fraction in (None, 0.0, *rng.uniform(0.1, 1.0, 2)):
        before = steps_of(killed)
        process = Process(killed, OPTIONS)
        process.wait_for("saving")
        if fraction is not None:
            old = set(before)
            wait_until(lambda: leftovers(killed) or set(steps_of(killed)) - old)  # noqa: B023
            time.sleep(fraction * duration)
        assert process.kill() == -signal.SIGKILL
        interrupted += bool(leftovers(killed))
        resumed = re.findall(r"resumed from step (\d+)", process.errors())
        assert resumed == ([str(before[-1])] if before else []), process.errors()
    assert interrupted, f"no save was cut off in {duration:.2f} s"

    last = steps_of(killed)
    process = Process(killed, OPTIONS)
    assert process.finish() == 0, process.errors()
    assert not last or f"resumed from step {last[-1]}\n" in process.errors()
    assert "damaged" not in process.errors()
    assert not leftovers(killed)
    assert toy.losses(killed) == toy.losses(whole)  # bit for bit, whatever was done twice too
    assert sorted(toy.losses(whole)) == list(range(1, STEPS + 1))
    assert stored_arrays(killed, STEPS) == stored_arrays(whole, STEPS)
    assert (killed / "results.json").read_text() == (whole / "results.json").read_text()
