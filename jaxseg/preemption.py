"""SIGTERM: the step that runs is finished, its checkpoint saved, and the process ends with `EXIT_CODE`.

On one process this is a handler. The processes of a distributed run agree on a step through JAX's coordination service, which
hears SIGTERM on any of them.
"""

import contextlib
import logging
import signal
import threading

import jax
from jax.experimental import multihost_utils

# As after a run that came to its end: nothing is lost, and starting it again goes on. Anything else tells a scheduler to worry.
EXIT_CODE = 0


class Preempted(SystemExit):
    """Ends the process after SIGTERM with `EXIT_CODE`; raised when the checkpoint of `step` is on disk."""

    def __init__(self, step):
        super().__init__(EXIT_CODE)
        self.step = step
        logging.warning("ended by SIGTERM; the checkpoint of step %d is saved, the same command goes on from it", step)


class _Interrupted(BaseException):  # noqa: N818  (not an error, and not to be caught as one)
    """Leaves what `interruptible` calls."""


_asked = threading.Event()
_interruption = []  # what the handler raises, innermost context last


@contextlib.contextmanager
def watch():
    """SIGTERM is noted while the context lasts. Outside of the main thread, and in distributed runs, no handler is set."""
    if threading.current_thread() is not threading.main_thread() or jax.process_count() > 1:
        yield
        return
    previous = signal.signal(signal.SIGTERM, _note)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, previous)
        if previous is not _note:
            _asked.clear()


def _note(signum, frame):
    del signum, frame
    if not _asked.is_set():
        _asked.set()
        logging.warning("SIGTERM: saving a checkpoint and ending")
    if _interruption:
        raise _interruption[-1]()


def requested(step):
    """Whether to save and end after this step. On several processes each must ask once per step, and all get one answer."""
    if jax.process_count() > 1:
        return multihost_utils.reached_preemption_sync_point(step)
    return _asked.is_set()


def interruptible(function):
    """Calls a function that SIGTERM may leave at any point, such as an evaluation that takes longer than a scheduler waits.

    Several processes go through it, since all must do the same.

    Returns:
        whether it came to its end and no SIGTERM was noted.
    """
    depth = len(_interruption)
    try:
        _interruption.append(_Interrupted)
        if not _asked.is_set():
            function()
    except _Interrupted:
        pass
    finally:
        del _interruption[depth:]
    return not _asked.is_set()


@contextlib.contextmanager
def saved_at(step):
    """SIGTERM ends the process at once, `Preempted(step)`: whatever matters is on disk already (one process only)."""
    depth = len(_interruption)
    _interruption.append(lambda: Preempted(step))
    try:
        if _asked.is_set():
            raise Preempted(step)
        yield
    finally:
        del _interruption[depth:]
