"""The folder of a run: made, checked and locked before anything expensive."""

import contextlib
import errno
import fcntl
import json
import os
import socket
import tempfile
import time
from pathlib import Path

import jax
import numpy as np
from jax.experimental import multihost_utils

LOCK = ".lock"
_NO_LOCKS_HERE = (errno.ENOLCK, errno.ENOTSUP, errno.ENOSYS, errno.EINVAL)


@contextlib.contextmanager
def claim(workdir):
    """The folder is this run's while the context lasts; the processes of one distributed run share it.

    The lock ends with its process, however that ends. Where a file system knows no locks, the process that the lock file names
    is looked for.

    Yields:
        the folder as a `Path`.

    Raises:
        ValueError: one line: it cannot be made, cannot be written, or another run works in it.
    """
    lock, problem = None, None
    if jax.process_index() == 0:
        try:
            lock = _open(workdir)
        except ValueError as error:
            problem = error
    if jax.process_count() > 1:
        refused = multihost_utils.broadcast_one_to_all(np.int32(problem is not None))
        if refused and problem is None:
            problem = ValueError(f"workdir {workdir}: the first process could not claim it")
    if problem is not None:
        raise problem
    try:
        yield Path(workdir)
    finally:
        if lock is not None:
            lock.truncate(0)
            lock.close()


def _open(workdir):
    """The open, locked lock file."""
    if not str(workdir) or "://" in str(workdir):
        raise ValueError(f"workdir: found {str(workdir)!r}, expected a folder of this machine or one that is mounted")
    folder = Path(workdir)
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder) as probe:
            probe.write(b"x")
    except OSError as error:
        why = "is a file" if isinstance(error, FileExistsError | NotADirectoryError) else error.strerror.lower()
        raise ValueError(f"workdir {folder}: cannot be written: {why}") from None
    lock = (folder / LOCK).open("a+")
    lock.seek(0)
    owner = _owner(lock.read())
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        held = False
    except OSError as error:
        held = error.errno not in _NO_LOCKS_HERE or _may_live(owner)
    if held:
        lock.close()
        who = "process {pid} on {host}, since {since}".format(**owner) if owner else "another process"
        raise ValueError(f"workdir {folder}: is in use by {who}; expected another workdir, or that this process has ended")
    lock.truncate(0)
    since = time.strftime("%Y-%m-%d %H:%M:%S")
    json.dump({"pid": os.getpid(), "host": socket.gethostname(), "since": since}, lock)
    lock.flush()
    return lock


def _owner(text):
    try:
        owner = json.loads(text)
        return owner if {"pid", "host", "since"} <= owner.keys() else None
    except (ValueError, AttributeError):
        return None


def _may_live(owner):
    """Whether the process that a lock file names may still run; of another machine nothing is known."""
    if owner is None:
        return False
    if owner["host"] != socket.gethostname():
        return True
    try:
        os.kill(owner["pid"], 0)
    except ProcessLookupError:
        return False
    except PermissionError:
        pass
    return True


def read_results(workdir, prefix=""):
    """The entries of results.json whose names start so; `{}` where there is no such file."""
    try:
        results = json.loads((Path(workdir) / "results.json").read_text())
    except (OSError, ValueError):
        return {}
    return {name: value for name, value in results.items() if name.startswith(prefix)}
