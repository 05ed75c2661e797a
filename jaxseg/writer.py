"""Records of a run: metrics.jsonl, TensorBoard, and the files of a workdir, written without making the train loop wait."""

import json
import logging
import math
import os
import re
import tempfile
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.weights import flatten


class Writer:
    """Writes in one background thread, in order; only the first process of a run writes.

    metrics.jsonl has one JSON object per line, {"step": n, name: value, ...}, not finite values as null. A run that goes on
    from a checkpoint may write a step again: the later line counts. TensorBoard event files (`<workdir>/tensorboard`) are
    written through clu where TensorFlow is installed. A disk that fails is reported once and does not stop a run.

    Args:
        workdir: an existing folder.
        tensorboard: whether to write event files too.
    """

    def __init__(self, workdir, tensorboard=True):
        self._workdir, self._tensorboard, self._failed = Path(workdir), tensorboard, False
        self._active = jax.process_index() == 0
        if not self._active:
            return
        self._pool = ThreadPoolExecutor(1, thread_name_prefix="writer")
        self._lines, self._events = None, None
        self._submit(self._open)

    def write_scalars(self, step, values):
        """`values`: {name: number}; arrays of devices are fetched in the background."""
        self._submit(self._write_scalars, int(step), dict(values))

    def write_images(self, step, images):
        """`images`: {name: uint8 [H, W, 3]}, to TensorBoard."""
        self._submit(self._write_images, int(step), dict(images))

    def write_text(self, name, text):
        """Writes a text file of the workdir."""
        self._submit(_write_atomically, self._workdir / name, text)

    def flush(self):
        """Waits until everything is written."""
        if self._active:
            self._submit(lambda: [sink.flush() for sink in (self._lines, self._events) if sink])
            self._pool.submit(lambda: None).result()

    def close(self):
        if self._active:
            self._submit(lambda: [sink.close() for sink in (self._lines, self._events) if sink])
            self._pool.shutdown()
            self._active = False

    def _submit(self, function, *args):
        if self._active:
            self._pool.submit(self._attempt, function, *args)

    def _attempt(self, function, *args):
        try:
            function(*args)
        except Exception as error:  # a record that cannot be written is no reason to lose a run
            logging.debug("", exc_info=True)
            if not self._failed:
                logging.warning("records of the run cannot be written: %s: %s", type(error).__name__, error)
            self._failed = True

    def _open(self):
        path = self._workdir / "metrics.jsonl"
        _drop_torn_line(path)
        self._lines = path.open("a", encoding="utf-8")
        if self._tensorboard:
            self._events = _event_writer(self._workdir / "tensorboard")

    def _write_scalars(self, step, values):
        values = {name: float(value) for name, value in values.items()}
        self._lines.write(_json({"step": step, **values}) + "\n")
        self._lines.flush()
        if self._events:
            self._events.write_scalars(step, values)

    def _write_images(self, step, images):
        if self._events:
            self._events.write_images(step, {name: np.asarray(image)[None] for name, image in images.items()})


def _event_writer(folder):
    """clu's writer of TensorBoard files, or None. TensorFlow takes seconds to import: only here, in the background."""
    try:
        import tensorflow  # noqa: F401
        from clu.metric_writers import SummaryWriter
    except ImportError as error:
        logging.info("no TensorBoard files: %s is not installed; metrics.jsonl has the scalars", error.name or "TensorFlow")
        return None
    return SummaryWriter(str(folder))


def _drop_torn_line(path):
    """Removes what a killed run left behind the last line break."""
    if path.exists():
        with path.open("rb+") as file:
            content = file.read()
            file.truncate(content.rfind(b"\n") + 1)


def write_json(path, content):
    """Writes JSON whole or not at all; only the first process of a run writes.

    Args:
        content: plain data (not finite numbers become null), or JSON text.
    """
    if jax.process_index() == 0:
        text = content if isinstance(content, str) else _json(content, indent=2)
        _write_atomically(Path(path), text + "\n")


def _json(content, **options):
    return json.dumps(_finite(content), ensure_ascii=False, **options)


def _finite(value):
    if isinstance(value, dict):
        return {str(k): _finite(v) for k, v in value.items()}
    if isinstance(value, list | tuple):
        return [_finite(v) for v in value]
    if isinstance(value, np.ndarray | np.generic | jax.Array):
        return _finite(np.asarray(value).tolist())
    return None if isinstance(value, float) and not math.isfinite(value) else value


def _write_atomically(path, text):
    path.parent.mkdir(parents=True, exist_ok=True)
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=f".{path.name}.")
    try:
        with os.fdopen(handle, "w", encoding="utf-8") as file:
            file.write(text)
        umask = os.umask(0)
        os.umask(umask)
        os.chmod(temporary, 0o666 & ~umask)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise


def parameter_overview(params, frozen=()):
    """A table of parameters: path, shape, dtype, mean, standard deviation; the last line has the totals.

    Args:
        params: nested dict of arrays; on several processes each must call this.
        frozen: regexes searched in the paths; what matches is marked.
    """
    rows, total, trained, num_bytes = [("parameter", "shape", "dtype", "mean", "std", "")], 0, 0, 0
    for path, array in flatten(params).items():
        is_frozen = any(re.search(pattern, path) for pattern in frozen)
        mean, std = _moments(array)
        shape = " x ".join(map(str, array.shape)) or "scalar"
        rows.append((path, shape, str(array.dtype), f"{mean:.3g}", f"{std:.3g}", "frozen" if is_frozen else ""))
        total += array.size
        trained += 0 if is_frozen else array.size
        num_bytes += array.size * array.dtype.itemsize
    widths = [max(len(row[i]) for row in rows) for i in range(len(rows[0]))]
    lines = ["  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip() for row in rows]
    arrays = f"{len(rows) - 1} arrays"
    return "\n".join([*lines, f"{total:,} parameters in {arrays}, {trained:,} trained, {num_bytes / 1e6:,.1f} MB"])


def _moments(array):
    """(mean, standard deviation) as floats; NaN where there is no element."""
    if not array.size:
        return math.nan, math.nan
    if isinstance(array, jax.Array) and not array.is_fully_addressable:
        return tuple(float(x) for x in _device_moments(array))
    values = np.asarray(array).astype(np.float32)
    return float(np.mean(values, dtype=np.float64)), float(np.std(values, dtype=np.float64))


@jax.jit
def _device_moments(x):
    x = x.astype(jnp.float32)
    return jnp.mean(x), jnp.std(x)
