"""What a run says while it works: rates, time left, and the metrics of steps that the devices have finished."""

import collections
import logging
import time

import jax
import numpy as np

BAD_STEPS_IN_A_ROW = 3


class DivergedError(ValueError):
    """A loss or gradient was not finite and the config says to stop, or several steps in a row were bad."""


def duration(seconds):
    """`1:02:03` or `2:03`."""
    minutes, seconds = divmod(int(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02}:{seconds:02}" if hours else f"{minutes}:{seconds:02}"


class Rate:
    """Items per second since the last reading, and the time left."""

    def __init__(self, clock=time.monotonic):
        self._clock = clock
        self._since, self._items = clock(), 0

    def add(self, items):
        self._items += items

    def read(self):
        """Items per second since the last call; 0 at first."""
        now = self._clock()
        rate = self._items / max(now - self._since, 1e-9)
        self._since, self._items = now, 0
        return rate


class Meter:
    """Metrics of train steps, read only when a device has them ready, so that dispatch never waits for them.

    Args:
        nan_policy: "stop" or "skip", what to do about a step whose update was left out because it was not finite.
        max_in_flight: steps that may be dispatched ahead; beyond them the oldest is waited for, so that memory stays bounded.
    """

    def __init__(self, nan_policy, max_in_flight=16):
        self._nan_policy, self._max_in_flight = nan_policy, max_in_flight
        self._pending = collections.deque()
        self._sums, self._last, self._bad_in_a_row, self.skipped = {}, {}, 0, 0

    def add(self, step, metrics):
        """Takes the metrics of a dispatched step (device arrays)."""
        self._pending.append((step, metrics))
        while len(self._pending) > self._max_in_flight or (self._pending and _is_ready(self._pending[0][1])):
            self._take()

    def finish(self):
        """Waits for every step that was dispatched."""
        while self._pending:
            self._take()

    def read(self):
        """{name: value}: terms as ratios of sums since the last call, the rest of the newest step that is known."""
        terms = {name: float(s / max(c, 1e-12)) for name, (s, c) in self._sums.items()}
        self._sums = {}
        return terms | self._last

    def _take(self):
        step, metrics = self._pending.popleft()
        metrics = jax.tree.map(np.asarray, jax.device_get(metrics))
        if not metrics["finite"]:
            return self._bad(step, metrics)
        self._bad_in_a_row = 0
        for name, (term_sum, count) in metrics["terms"].items():
            before = self._sums.get(name, (0.0, 0.0))
            self._sums[name] = before[0] + float(term_sum), before[1] + float(count)
        self._last = {name: float(metrics[name]) for name in ("loss", "grad_norm", "learning_rate")}
        return None

    def _bad(self, step, metrics):
        self.skipped += 1
        self._bad_in_a_row += 1
        terms = [name for name, (term_sum, count) in metrics["terms"].items() if not np.isfinite(term_sum / count)]
        what = f"step {step}: {', '.join(terms) or 'the gradient'} is not finite"
        if self._nan_policy == "stop":
            raise DivergedError(f"{what}; its update was left out (config.train.nan_policy=skip goes on)")
        if self._bad_in_a_row >= BAD_STEPS_IN_A_ROW:
            raise DivergedError(f"{what}, {self._bad_in_a_row} steps in a row; the last good step is kept")
        logging.warning("%s; its update is left out", what)


def _is_ready(metrics):
    return all(leaf.is_ready() for leaf in jax.tree.leaves(metrics) if isinstance(leaf, jax.Array))
