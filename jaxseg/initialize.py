"""`config.init_from`: what training starts from besides random numbers, other runs and converted weights.

An entry {"path", "map", "leave_out", "recipe"} loads one set of weights into a part of the parameters:

    path       a folder of `load_weights`; "{workdir}" stands for the run's own
    map        ((regex, replacement), ...) on the paths of the loaded arrays; the first that matches is used
    leave_out  regexes of loaded arrays that are not used, and of parameters that keep their initial values
    recipe     a config that is trained first where `path` is not there yet (jaxseg/train.py)

Arrays must fit: every loaded array is used or left out, and within each top-level folder that gets any, every parameter is
loaded or left out. Blocks may be stacked on one side and unrolled on the other; position embeddings on a square grid are
resized (bicubic, class position kept), as the image towers do it for other image sizes.
"""

import json
import logging
import math
import re
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.checkpoint import Checkpoints, load_weights, weights_meta
from jaxseg.ops.resize import resize
from jaxseg.weights import flatten, match_layout, unflatten

_POSITIONS = re.compile(r"(^|/)(position_embedding|pos_embed)$")
_TEXT = re.compile(r"(^|/)text")


def init_from(config, params, workdir):
    """The parameters with `config.init_from` laid over them, entry by entry.

    Args:
        params: nested dict of arrays; their shardings and dtypes are kept.
        workdir: what "{workdir}" stands for.

    Raises:
        ValueError: nothing at the path, or everything that does not fit in one message.
    """
    for index, entry in enumerate(config.init_from):
        path = resolve(entry["path"], workdir)
        loaded, _, _ = load_weights(path)
        targets = flatten(params)
        placed = _placed(f"config.init_from[{index}]: {path}", flatten(loaded), targets, entry)
        kept = [name for name in targets if name not in placed]
        fresh = f"; {len(kept)} keep their initial values ({', '.join(_folders(kept))})" if kept else ""
        logging.info("%s: %d parameters loaded%s", path, len(placed), fresh)
        params = unflatten({name: _like(placed[name], x) if name in placed else x for name, x in targets.items()})
    return params


def check(config, shapes, workdir):
    """Raises what `init_from` would, without reading arrays; entries whose recipe has not been trained yet are not looked at.

    Args:
        shapes: the parameters, as anything with shape and dtype.
    """
    for index, entry in enumerate(config.init_from):
        path = resolve(entry["path"], workdir)
        if entry.get("recipe") and not is_finished(path):
            continue
        table = weights_meta(path)["arrays"]["params"]
        loaded = {name: np.broadcast_to(np.zeros((), bool), shape) for name, (shape, _, _) in table.items()}
        _placed(f"config.init_from[{index}]: {path}", loaded, flatten(shapes), entry)


def resolve(path, workdir):
    """The folder that an entry's path means."""
    if not path:
        raise ValueError("config.init_from: found an entry without path, expected a folder of weights")
    return Path(str(path).replace("{workdir}", str(workdir))).expanduser()


def is_finished(folder):
    """Whether the folder holds converted weights, or a run that came to its last step."""
    folder = Path(folder)
    if (folder / "weights").is_dir() or (folder / "meta").is_dir():
        return True
    for place in (folder / "checkpoints", folder):
        latest = Checkpoints(place, read_only=True).latest_step()
        if latest is not None:
            config = folder / "config.json"
            return not config.is_file() or latest >= json.loads(config.read_text())["train"]["steps"]
    return False


def _placed(where, loaded, targets, entry):
    """{parameter: array of its shape} for everything of `loaded` that the entry uses."""
    maps, leave_out = [tuple(pair) for pair in entry.get("map", ())], tuple(entry.get("leave_out", ()))

    def is_left_out(name):
        return any(re.search(pattern, name) for pattern in leave_out)

    origin = {_mapped(name, maps): name for name in loaded if not is_left_out(name)}
    used = [name for name in loaded if not is_left_out(name)]
    wrong = [f"twice    {_mapped(n, maps)}: both {origin[_mapped(n, maps)]} and {n}" for n in used if n not in origin.values()]
    flat = match_layout({name: loaded[source] for name, source in origin.items()}, targets)
    placed = {}
    for name, array in flat.items():
        if name not in targets:
            wrong.append(f"unused   {origin[name]} {list(array.shape)}: there is no parameter {name}")
            continue
        if is_left_out(name):
            continue
        fitted = _fitted(name, array, tuple(targets[name].shape))
        if fitted is None:
            wrong.append(f"misshapen {name}: found {list(array.shape)}, expected {list(targets[name].shape)}")
        else:
            placed[name] = fitted
    touched = {name.split("/")[0] for name in flat}
    for name, leaf in targets.items():
        if name.split("/")[0] in touched and name not in flat and not is_left_out(name):
            wrong.append(f"missing  {name} {list(leaf.shape)}")
    if wrong:
        lines = "\n  ".join(sorted(wrong))
        raise ValueError(f"{where}: {len(wrong)} arrays do not fit; map or leave_out must name them:\n  {lines}")
    return placed


def _mapped(name, maps):
    for pattern, replacement in maps:
        if re.search(pattern, name):
            return re.sub(pattern, replacement, name, count=1)
    return name


def _fitted(name, array, shape):
    """The array in the parameter's shape, or None."""
    if array.shape == shape:
        return array
    if not _POSITIONS.search(name) or _TEXT.search(name) or len(shape) != 2 or array.ndim != 2 or array.shape[1] != shape[1]:
        return None
    for num_special in (1, 0):  # with and without a class position
        sides = [math.isqrt(n - num_special) for n in (array.shape[0], shape[0])]
        if [side * side + num_special for side in sides] == [array.shape[0], shape[0]]:
            return _resized(array, num_special, *sides)
    return None


def _resized(array, num_special, old_side, new_side):
    """[special + old^2, C] -> [special + new^2, C]: the special rows as they are, the grid bicubic."""
    if array.dtype == bool:  # a stand-in of `check`
        return np.broadcast_to(np.zeros((), bool), (num_special + new_side**2, array.shape[1]))
    grid = jnp.asarray(array[num_special:], jnp.float32).reshape(old_side, old_side, -1)
    grid = resize(grid, (new_side, new_side), method="bicubic", axes=(0, 1)).reshape(new_side**2, -1)
    return np.concatenate([array[:num_special], np.asarray(grid, array.dtype)])


def _like(array, leaf):
    """On the devices of the parameter that it replaces, in its dtype."""
    array = np.asarray(array).astype(leaf.dtype)
    if not isinstance(leaf, jax.Array):
        return array
    return jax.make_array_from_callback(array.shape, leaf.sharding, lambda index: array[index])


def _folders(names):
    return sorted({name.split("/")[0] for name in names})
