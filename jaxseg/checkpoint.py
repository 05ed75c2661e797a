"""Checkpoints of a run and weights to start from: asynchronous, verified, to any mesh.

`Checkpoints` is what training saves and resumes from; `save_weights` and `load_weights` are one set of weights, converted or
trained. checkpoint_step.py describes the files.
"""

import logging
import os

import jax
import numpy as np
import orbax.checkpoint as ocp
from etils import epath
from jax.experimental import multihost_utils

from jaxseg import orbax_noise
from jaxseg.checkpoint_step import (
    EVERYTHING,
    META,
    CheckpointError,
    DamagedError,
    named_leaves,
    read_item,
    read_meta,
    save_args,
)
from jaxseg.weights import unflatten

__all__ = ["CheckpointError", "Checkpoints", "load_weights", "save_weights", "weights_meta"]
_WEIGHTS = "weights"
_DISK_FULL = ("no space left", "enospc", "resource_exhausted", "file too large", "quota")


class Checkpoints:
    """The checkpoints of one run: a folder with a folder per step.

    A step appears whole or not at all (a temporary folder is renamed); what a killed save left is removed at the next start.
    The data of a run are a pure function of (seed, step), so the step is also the data's position.

    Use as a context manager, or `close` it.

    Args:
        folder: is made if needed; local, or any URL that Orbax takes.
        keep: number of newest steps kept. With one there is nothing to fall back to.
        read_only: for a run that another process may be writing: nothing is removed or set aside.
    """

    def __init__(self, folder, keep=2, *, read_only=False):
        self.folder, self._read_only = _absolute(folder), read_only
        self._saving, self._closed = None, False
        orbax_noise.silence()
        options = ocp.CheckpointManagerOptions(max_to_keep=keep, cleanup_tmp_directories=True, enable_async_checkpointing=True)
        self._manager = None if read_only else ocp.CheckpointManager(self.folder, options=options)

    def latest_step(self):
        """The newest complete step, damaged or not; None without any."""
        steps = _steps(self.folder)
        return steps[-1] if steps else None

    def save(self, step, items, meta):
        """Starts saving; returns when the arrays are copied, so that they may be donated. A step that exists is left as it is.

        Args:
            items: {"params", "state", "opt", "ema"}: trees of arrays; None and `{}` are empty.
            meta: plain data: "config" and whatever else belongs to the weights.

        Raises:
            CheckpointError: where this or the previous save failed; older checkpoints are intact.
        """
        self.wait()
        if step in self._manager.all_steps():
            return
        args = save_args(step, items, meta)
        self._saving = step
        try:
            self._manager.save(step, args=args, force=True)
        except Exception as error:
            logging.debug("", exc_info=True)
            raise self._failed(error) from None

    def wait(self):
        """Waits until the last save is on disk.

        Raises:
            CheckpointError: where it failed.
        """
        if self._saving is None:
            return
        try:
            self._manager.wait_until_finished()
        except Exception as error:
            logging.debug("", exc_info=True)
            raise self._failed(error) from None
        self._saving = None

    def close(self):
        """Waits, and ends background threads. The folder can still be read."""
        try:
            self.wait()
        finally:
            if self._manager is not None and not self._closed:
                self._closed = True
                self._manager.close()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        """Finishes the save that is under way, whatever ends the run; its own failure does not hide another."""
        try:
            self.close()
        except CheckpointError as failed:
            if error is None:
                raise
            logging.warning("%s", failed)

    def restore(self, templates, step=None, strict=False, *, cast=False):
        """The newest step that is intact, or one step.

        Args:
            templates: {"params": tree, ...} of `jax.ShapeDtypeStruct` with shardings (arrays come in them, whatever mesh they
                were saved from) or without (numpy). Items that are not asked for are not read.
            step: only this one.
            strict: a damaged step is an error; by default the one before is used, with a warning, and the damaged one is
                renamed, so that it can be looked at and its step saved again.
            cast: whether stored dtypes may differ from the templates'.

        Returns:
            (step, items, meta).

        Raises:
            CheckpointError: no step, no intact one (with the reason for each), or one that does not fit the templates.
        """
        steps = _steps(self.folder) if step is None else [step]
        if not steps:
            raise CheckpointError(f"{self.folder}: no checkpoint here")
        damaged = {}
        for candidate in reversed(steps):
            try:
                items, meta = _read_step(self.folder / str(candidate), templates, cast)
            except DamagedError as error:
                if strict or step is not None:
                    raise
                damaged[candidate] = str(error)
                continue
            for bad, reason in damaged.items():
                logging.warning("damaged checkpoint: %s; step %d is used instead%s", reason, candidate, self._set_aside(bad))
            return candidate, items, meta
        reasons = "\n  ".join(damaged.values())
        raise CheckpointError(f"{self.folder}: no checkpoint is intact:\n  {reasons}")

    def _set_aside(self, step):
        if self._read_only:
            return ""
        aside = self.folder / f"damaged-{step}"
        if jax.process_index() == 0:
            if aside.exists():
                aside.rmtree()
            (self.folder / str(step)).rename(aside)
        _barrier("damaged checkpoint set aside")
        self._manager.reload()
        return f" (the damaged one is now {aside.name})"

    def _failed(self, error):
        step, self._saving = self._saving, None
        text = " ".join(str(error).split())
        full = any(words in text.lower() for words in _DISK_FULL)
        why = "no space left on the disk" if full else f"{type(error).__name__}: {text[:200]}"
        steps = [s for s in _steps(self.folder) if s != step]
        kept = f"the checkpoint of step {steps[-1]} is intact" if steps else "there is no older checkpoint"
        return CheckpointError(f"{self.folder}: step {step} could not be saved: {why}; {kept}")


def _absolute(folder):
    text = os.fspath(folder)
    return epath.Path(text if "://" in text else os.path.abspath(os.path.expanduser(text)))


def _steps(folder):
    """Complete steps, oldest first."""
    if not folder.is_dir():
        return []
    return sorted(int(path.name) for path in folder.iterdir() if path.name.isdecimal() and path.is_dir())


def _read_step(folder, templates, cast=False):
    """(items, meta); on several processes all succeed or all fail."""
    error, items, meta = None, {}, None
    try:
        meta = read_meta(folder)
        items = {item: read_item(folder, meta, item, template, cast=cast) for item, template in templates.items()}
    except CheckpointError as found:
        error = found
    if jax.process_count() > 1 and multihost_utils.process_allgather(np.int32(error is not None)).any():
        raise error or DamagedError(f"{folder}: another process could not read it")
    if error is not None:
        raise error
    return items, meta


def _barrier(name):
    if jax.process_count() > 1:
        multihost_utils.sync_global_devices(name)


def save_weights(folder, params, state, meta):
    """Writes one set of weights, whole or not at all, to `<folder>/weights`; the folder may hold other files.

    Args:
        meta: plain data; meta["config"] is the config as a plain dict.

    Raises:
        ValueError: where the folder already holds weights.
    """
    target = _absolute(folder) / _WEIGHTS
    if target.exists():
        raise ValueError(f"{target}: weights are already here, expected another folder or that this one is removed")
    target.parent.mkdir(parents=True, exist_ok=True)
    with ocp.Checkpointer(ocp.CompositeCheckpointHandler()) as checkpointer:
        checkpointer.save(target, args=save_args(0, {"params": params, "state": state}, meta))


def load_weights(path, template=None, *, cast=False):
    """One set of weights, whatever kind of folder holds it; exponential averages where there are any.

    Args:
        path: a workdir, its checkpoints folder, one step's folder, or a folder of converted weights.
        template: (params, state), as `task.init` gives, of arrays or shapes: leaves with a sharding give arrays in it. By
            default nested dicts of numpy.
        cast: whether stored dtypes may differ from the template's.

    Returns:
        (params, state, meta).

    Raises:
        CheckpointError: where nothing is found, nothing is intact, or it does not fit the template.
    """
    root, damaged = _absolute(path), []
    for folder in _candidates(root):
        try:
            result = _load(folder, template, cast)
        except DamagedError as error:
            damaged.append(str(error))
            continue
        for reason in damaged:
            logging.warning("damaged checkpoint: %s; %s is used instead", reason, folder)
        return result
    reasons = "\n  ".join(damaged)
    raise CheckpointError(f"{root}: no checkpoint is intact:\n  {reasons}" if len(damaged) > 1 else reasons)


def weights_meta(path):
    """The meta of what `load_weights` would read, without reading arrays; meta["arrays"] lists them."""
    return read_meta(_candidates(_absolute(path))[0])


def _candidates(root):
    """Folders that hold weights, best first."""
    if not root.exists():
        raise CheckpointError(f"{root}: no such folder")
    if (root / META).is_dir():
        return [root]
    for folder in (root / "checkpoints", root):
        if steps := _steps(folder):
            return [folder / str(step) for step in reversed(steps)]
    if (root / _WEIGHTS).is_dir():
        return [root / _WEIGHTS]
    wanted = "a workdir (checkpoints/<step>), a checkpoints folder (<step>), a step (params, meta), converted weights (weights)"
    raise CheckpointError(f"{root}: no weights here; looked for {wanted}")


def _load(folder, template, cast):
    params_template, state_template = (EVERYTHING, EVERYTHING) if template is None else template
    meta = read_meta(folder)
    averaged, table = meta["arrays"].get("ema", {}), meta["arrays"]["params"]
    state = read_item(folder, meta, "state", state_template, cast=cast)
    if averaged.keys() == table.keys():
        return read_item(folder, meta, "ema", params_template, cast=cast), state, meta
    params = read_item(folder, meta, "params", params_template, cast=cast)
    if averaged:  # of the trained parameters only; the others are what they were
        wanted = named_leaves(params)
        targets = EVERYTHING
        if template is not None:
            leaves = named_leaves(params_template)
            targets = unflatten({name: leaves[name] for name in averaged})
        ema = read_item(folder, meta, "ema", targets, cast=cast)
        params = jax.tree.unflatten(jax.tree.structure(params), (wanted | named_leaves(ema)).values())
    return params, state, meta
