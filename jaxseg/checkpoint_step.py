"""One step of a checkpoint on disk: items of arrays (params, state, opt, ema) and the JSON item `meta`.

    <step>/params, state, opt, ema   Orbax StandardSave; nested names, so that params are what a model takes
    <step>/meta/metadata             JSON: "step", "config", "versions", "digest" (of this file),
                                     "arrays" {item: {path: [shape, dtype, checksum]}}

Orbax writes neither empty trees nor arrays without elements nor typed PRNG keys: `arrays` lists all, and reading rebuilds them.
TensorStore notices neither flipped bytes in every file nor a wrong dtype: what is read is compared with `arrays`.
"""

import hashlib
import importlib.metadata
import json
import logging
import re

import jax
import jax.numpy as jnp
import numpy as np
import orbax.checkpoint as ocp

from jaxseg import orbax_noise
from jaxseg.checksums import checksums, is_key
from jaxseg.sharding import path_name
from jaxseg.weights import unflatten

META = "meta"
EVERYTHING = object()  # as a template: whatever is stored
_PACKAGES = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")


class CheckpointError(ValueError):
    """A checkpoint that is missing, does not fit what was asked for, or could not be written."""


class DamagedError(CheckpointError):
    """A step whose files are incomplete or changed."""


def named_leaves(tree) -> dict:
    """{"a/0/b": leaf} of any pytree; `None` and empty nodes give nothing."""
    leaves = jax.tree_util.tree_flatten_with_path(tree)[0]
    named = {path_name(path) or "value": leaf for path, leaf in leaves}
    if len(named) != len(leaves):
        names = [path_name(path) for path, _ in leaves]
        twice = next(name for name in names if names.count(name) > 1)
        raise ValueError(f"checkpoint: two arrays are called {twice!r}")
    return named


# Writing


def save_args(step, items, meta):
    """What `CheckpointManager.save` takes, checksums included.

    Args:
        items: {"params": tree, ...}; any pytrees of arrays, typed PRNG keys and Python numbers; None and `{}` are empty.
        meta: plain data for the JSON item; "step", "arrays", "versions" and "digest" are added.
    """
    named = {item: named_leaves(tree) for item, tree in items.items()}
    every = {f"{item}/{name}": leaf for item, leaves in named.items() for name, leaf in leaves.items()}
    sums = checksums(every)
    arrays = {
        item: {name: [list(np.shape(leaf)), _dtype_name(leaf), sums[f"{item}/{name}"]] for name, leaf in leaves.items()}
        for item, leaves in named.items()
    }
    meta = dict(meta) | {"step": step, "arrays": arrays, "versions": _versions()}
    meta = json.loads(json.dumps(meta, default=_plain))
    args = {META: ocp.args.JsonSave(meta | {"digest": _digest(meta)})}
    for item, leaves in named.items():
        stored = {name: _stored(leaf) for name, leaf in leaves.items() if np.size(leaf)}
        if stored:
            args[item] = ocp.args.StandardSave(unflatten(stored))
    return ocp.args.Composite(**args)


def _stored(leaf):
    if isinstance(leaf, jax.Array):
        return jax.random.key_data(leaf) if is_key(leaf) else leaf
    return np.asarray(leaf)


def _dtype_name(leaf):
    if not hasattr(leaf, "dtype"):
        leaf = np.asarray(leaf)
    if not is_key(leaf):
        return str(leaf.dtype)
    names = []  # what kind of key a description holds is known to tracers only
    jax.eval_shape(lambda key: names.append(jax.random.key_impl(key)), jax.ShapeDtypeStruct((), leaf.dtype))
    return f"key<{names[0]}>"


def _plain(value):
    if isinstance(value, np.generic | np.ndarray):
        return value.tolist()
    if isinstance(value, set | frozenset):
        return sorted(value)
    raise TypeError(f"checkpoint meta: {value!r} is not plain data")


def _versions():
    found = {}
    for package in ("jaxseg", *_PACKAGES):
        try:
            found[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            found[package] = "not installed"  # jaxseg, run from a checkout
    return found


def _digest(meta):
    text = json.dumps({k: v for k, v in meta.items() if k != "digest"}, sort_keys=True)
    return hashlib.sha256(text.encode()).hexdigest()


# Reading


def read_meta(folder):
    """The JSON item of a step's folder (an `epath.Path`).

    Raises:
        DamagedError: where it is missing, cut or changed.
    """
    path = folder / META / "metadata"
    if not path.exists():
        raise DamagedError(f"{folder}: {META}/metadata is missing")
    try:
        meta = json.loads(path.read_text())
        intact = meta["digest"] == _digest(meta)
    except (ValueError, KeyError, TypeError):
        intact = False
    if not intact:
        raise DamagedError(f"{folder}: {META}/metadata is damaged")
    return meta


def read_item(folder, meta, item, template=EVERYTHING, *, cast=False):
    """One item's tree, verified.

    Args:
        template: tree of what is wanted; leaves with a sharding give arrays in it, others numpy. By default everything, as
            nested dicts of numpy.
        cast: whether dtypes may differ from the template's; the values are then converted to it.

    Raises:
        DamagedError: where files are missing, cut or changed.
        CheckpointError: where the item is not what the template asks for: every array in one message.
    """
    table = meta["arrays"].get(item)
    if table is None:
        raise CheckpointError(f"{folder}: holds no {item}, only {', '.join(meta['arrays'])}")
    if template is EVERYTHING:
        wanted = dict.fromkeys(table)
    else:
        wanted = named_leaves(template)
        _check_fits(folder, item, table, wanted, cast)
    targets = {name: _target(leaf, *table[name][:2]) for name, leaf in wanted.items()}
    found = _read_arrays(folder, item, {name: t for name, t in targets.items() if np.size(t)})
    found |= {name: _without_elements(t) for name, t in targets.items() if not np.size(t)}
    _check_sums(folder, item, table, found)
    found = {name: _finished(found[name], leaf, table[name][1]) for name, leaf in wanted.items()}
    return unflatten(found) if template is EVERYTHING else jax.tree.unflatten(jax.tree.structure(template), found.values())


def _target(leaf, shape, dtype):
    """What Orbax is to fill: the stored shape and dtype, in the template's sharding or as numpy."""
    sharding = getattr(leaf, "sharding", None)
    if dtype.startswith("key<"):
        data = jax.eval_shape(lambda: jax.random.key_data(jax.random.key(0, impl=dtype[4:-1])))
        shape, dtype = (*shape, *data.shape), data.dtype
    shape, dtype = tuple(shape), jnp.dtype(dtype)
    if sharding is not None:
        return jax.ShapeDtypeStruct(shape, dtype, sharding=sharding)
    return np.broadcast_to(np.zeros((), dtype), shape)  # takes no memory


def _without_elements(target):
    if isinstance(target, np.ndarray):
        return np.zeros(target.shape, target.dtype)
    return jax.device_put(np.zeros(target.shape, target.dtype), target.sharding)


def _finished(array, leaf, stored_dtype):
    """The array as the template has it: keys are keys again, a cast that was asked for is done."""
    if stored_dtype.startswith("key<"):
        return jax.random.wrap_key_data(array, impl=stored_dtype[4:-1])
    if leaf is None or _dtype_name(leaf) == stored_dtype:
        return array
    return array.astype(_dtype_name(leaf))


def _check_fits(folder, item, table, wanted, cast):
    wrong = []
    for name in sorted(table.keys() | wanted.keys()):
        if name not in wanted:
            wrong.append(f"{item}/{name}: stored, but this run has no such array")
        elif name not in table:
            wrong.append(f"{item}/{name}: not stored, but this run has it")
        else:
            shape, dtype, _ = table[name]
            leaf_shape, leaf_dtype = list(np.shape(wanted[name])), _dtype_name(wanted[name])
            if shape != leaf_shape:
                wrong.append(f"{item}/{name}: stored with shape {shape}, expected {leaf_shape}")
            elif dtype != leaf_dtype and (not cast or "key<" in dtype + leaf_dtype):
                wrong.append(f"{item}/{name}: stored as {dtype}, expected {leaf_dtype}; a cast must be asked for")
    if wrong:
        more = [f"... and {len(wrong) - 20} more"] if len(wrong) > 20 else []
        lines = "\n  ".join(wrong[:20] + more)
        raise CheckpointError(f"{folder} does not fit this run:\n  {lines}")


def _read_arrays(folder, item, targets):
    if not targets:
        return {}
    if not (folder / item).is_dir():
        raise DamagedError(f"{folder}: {item} is missing")
    orbax_noise.silence()
    try:
        with ocp.Checkpointer(ocp.StandardCheckpointHandler()) as checkpointer:
            return named_leaves(checkpointer.restore(folder / item, args=ocp.args.StandardRestore(unflatten(targets))))
    except MemoryError:
        raise
    except Exception as error:  # Orbax and TensorStore raise whatever they like
        if "RESOURCE_EXHAUSTED" in str(error):  # a device without memory says nothing about the files
            raise
        logging.debug("", exc_info=True)
        raise DamagedError(f"{folder}: {item}{_reason(folder / item, error)}") from None


def _check_sums(folder, item, table, found):
    sums = checksums(found)
    changed = [name for name, value in sums.items() if value != table[name][2]]
    if changed:
        first, more = changed[0], f" and {len(changed) - 1} more arrays" if len(changed) > 1 else ""
        raise DamagedError(
            f"{folder}: {item}/{first}{more}: values were changed, "
            f"checksum {sums[first]} differs from the stored {table[first][2]}"
        )


# TensorStore's words -> ours; the first that occurs counts. A missing data file reads as an empty compressed stream.
_REASONS = (
    (r"truncated zstd", "is missing or cut short"),
    (r"out_of_range|not valid for value of size", "is cut short"),
    (r"data_loss|checksum|decod|corrupt|invalid|delimiter|expecting|unterminated", "is damaged"),
    (r"not_found|does not exist|no such file|missing", "is missing"),
)


def _reason(folder, error):
    """Hundreds of lines of TensorStore as `/<file or array> is damaged`."""
    while error.__cause__ is not None:  # Orbax wraps some errors in the description of an array
        error = error.__cause__
    text = str(error).split("[tensorstore_spec")[0].strip()
    if isinstance(error, json.JSONDecodeError | KeyError):
        return "/_METADATA is damaged"
    what = next((words for pattern, words in _REASONS if re.search(pattern, text, re.IGNORECASE)), None)
    if what is None:
        what = f"cannot be read ({next(iter(text.splitlines()), type(error).__name__)[:120]})"
    files = re.findall(re.escape(str(folder)) + r"/([^\s\"']+)", text)
    chunks = re.findall(r'"([^\s"]+?)/(?:\d+(?:\.\d+)*|\.zarray)"', text)
    if files:
        return f"/{files[-1]} {what}"
    return f"/{chunks[-1].replace('.', '/')} {what}" if chunks else f" {what}"
