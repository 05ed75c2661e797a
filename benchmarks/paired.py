"""Comparing programs on a machine that others use too: runs in turns, ratios within a turn, medians and quartiles."""

import os
import platform
import time
from collections.abc import Callable, Mapping
from pathlib import Path

import numpy as np


def interleave(programs: Mapping[str, Callable[[], object]], rounds: int) -> dict[str, np.ndarray]:
    """Wall seconds [rounds] of each program. Each runs once per round, in turning order; two rounds before are not timed."""
    seconds = {name: [] for name in programs}
    names = list(programs)
    for turn in range(-2, rounds):
        shift = turn % len(names)
        for name in names[shift:] + names[:shift]:
            start = time.perf_counter()
            programs[name]()
            if turn >= 0:
                seconds[name].append(time.perf_counter() - start)
    return {name: np.array(values) for name, values in seconds.items()}


def ratio(theirs: np.ndarray, ours: np.ndarray) -> dict[str, float | int | list[float]]:
    """How many times faster `ours` is, of seconds of the same rounds: the median of the rounds' ratios and its quartiles.

    `of_minima` divides the fastest runs: a machine without other load, as far as it had moments without.
    """
    low, median, high = np.percentile(theirs / ours, (25, 50, 75))
    return {
        "pairs": len(ours),
        "theirs_ms": _ms(np.median(theirs)),
        "ours_ms": _ms(np.median(ours)),
        "ratio": round(float(median), 2),
        "quartiles": [round(float(low), 2), round(float(high), 2)],
        "of_minima": round(float(theirs.min() / ours.min()), 2),
        "minima_ms": [_ms(theirs.min()), _ms(ours.min())],
    }


def _ms(seconds):
    return round(1e3 * float(seconds), 1)


def processor() -> str:
    """The processor's name."""
    try:
        lines = Path("/proc/cpuinfo").read_text().splitlines()
        return next(line.partition(":")[2].strip() for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor()


def load() -> float:
    """Programs that want to run, averaged over the last minute: above the number of cores, times say little."""
    return round(os.getloadavg()[0], 1)
