"""Runs in turns and their ratios, and what a benchmark says where torch is missing."""

import subprocess
import sys

import numpy as np

from benchmarks import paired


def test_programs_take_turns():
    calls = []
    programs = {name: lambda name=name: calls.append(name) for name in "abc"}
    seconds = paired.interleave(programs, 4)
    assert {name: times.shape for name, times in seconds.items()} == dict.fromkeys("abc", (4,))
    rounds = [calls[i : i + 3] for i in range(0, len(calls), 3)]
    assert len(rounds) == 6 and all(sorted(turn) == ["a", "b", "c"] for turn in rounds)
    assert {turn[0] for turn in rounds[:3]} == set("abc")


def test_ratios_are_of_pairs():
    # Load that falls on both programs of a round leaves its ratio alone.
    load = np.array([1.0, 5.0, 2.0, 9.0, 1.0])
    found = paired.ratio(0.3 * load, 0.1 * load)
    assert (found["ratio"], found["quartiles"], found["of_minima"], found["pairs"]) == (3.0, [3.0, 3.0], 3.0, 5)
    assert (found["theirs_ms"], found["ours_ms"], found["minima_ms"]) == (600.0, 200.0, [300.0, 100.0])


def test_a_ratio_below_one_is_slower():
    found = paired.ratio(np.array([1.0, 1.0, 1.0]), np.array([1.0, 2.0, 4.0]))
    assert (found["ratio"], found["quartiles"], found["of_minima"]) == (0.5, [0.38, 0.75], 1.0)


def test_what_to_install_without_torch():
    code = "import sys; sys.modules['torch'] = None; from benchmarks import clipseg; clipseg.Peer()"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert done.returncode == 1
    assert done.stderr == "benchmarks.clipseg compares with torch: pip install torch==2.13.0\n"
