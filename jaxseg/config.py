"""Loading, checking and storing configs (`ml_collections.ConfigDict`; configs/common.py describes the fields)."""

import difflib
import importlib.util
import inspect
import json
import math
import re
from pathlib import Path

from ml_collections import ConfigDict

MODES = ("train", "eval", "predict", "convert", "plan", "export")


def load_config(name, arg=""):
    """A locked config from a file or a released model's name.

    Args:
        name: `"configs/clipseg_rd64.py"`, the same with `":args"` behind, or a bare name: `"clipseg_rd64_refined"`.
        arg: the options of the config's `get_config`, e.g. `"tiny"`.

    Raises:
        ValueError: no such config (with the nearest names), or an unknown option.
    """
    name, _, behind = str(name).partition(":")
    path = Path(name)
    if not path.suffix:
        path = configs_folder() / f"{name}.py"
    if not path.is_file():
        names = sorted(p.stem for p in path.parent.glob("*.py") if p.stem not in ("__init__", "common"))
        near = difflib.get_close_matches(path.stem, names, 3, 0.4) or names
        raise ValueError(f"config {name!r}: no file {path}; did you mean {', '.join(near) or 'another folder'}?")
    return _module(path).get_config(arg or behind).lock()


def _module(path):
    spec = importlib.util.spec_from_file_location(f"configs.{path.stem}", path)
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def configs_folder():
    """Where the released configs lie: beside the package, in a checkout as in an installation."""
    return Path(__file__).resolve().parent.parent / "configs"


def to_json(config):
    return json.dumps(config.to_dict(), indent=2, sort_keys=True, default=list)


def from_json(text):
    """The config that `to_json` wrote. Sequences come back as tuples, as configs hold them."""

    def tuples(value):
        if isinstance(value, dict):
            return {k: tuples(v) for k, v in value.items()}
        return tuple(tuples(v) for v in value) if isinstance(value, list) else value

    return ConfigDict(tuples(json.loads(text) if isinstance(text, str) else text)).lock()


def complete(config):
    """A stored config with the fields that were added since it was stored, as new configs have them."""

    def filled(stored, defaults):
        for field, value in defaults.items():
            if field not in stored:
                stored[field] = value
            elif isinstance(value, dict):
                filled(stored[field], value)
        return stored

    defaults = _module(configs_folder() / "common.py").default()
    return ConfigDict(filled(config.to_dict(), defaults.to_dict())).lock()


def model_fields(config, module):
    """`config.model` as keyword arguments of a Flax module, checked against the fields that it has.

    Raises:
        ValueError: for a field that the module does not have, with the nearest one that it has.
    """
    known = [p for p in inspect.signature(module).parameters if p not in ("parent", "name")]
    for field in config.model:
        if field not in known:
            near = difflib.get_close_matches(field, known, 1, 0.0)[0]
            raise ValueError(f"config.model.{field}: {module.__name__} has no such field; did you mean {near!r}?")
    return {k: _plain(v) for k, v in config.model.items()}


def _plain(value):
    """Hashable plain data, since Flax modules are hashed when they are jitted."""
    if isinstance(value, ConfigDict | dict):
        return ConfigDict(value).to_dict()
    return tuple(_plain(v) for v in value) if isinstance(value, list | tuple) else value


# (field, what it must be, its check). Checked before any compile: `lr=nan` in a locked config is otherwise accepted.
_RANGES = (
    ("seed", "a non-negative integer", lambda x: _integer(x, 0)),
    ("train.steps", "a positive integer", lambda x: _integer(x, 1)),
    ("train.batch_size", "a positive integer", lambda x: _integer(x, 1)),
    ("train.accumulate", "a positive integer", lambda x: _integer(x, 1)),
    ("train.log_every", "a positive integer", lambda x: _integer(x, 1)),
    ("train.eval_every", "a non-negative integer", lambda x: _integer(x, 0)),
    ("train.checkpoint_every", "a positive integer", lambda x: _integer(x, 1)),
    ("train.keep", "a positive integer", lambda x: _integer(x, 1)),
    ("train.ema_decay", "in [0, 1)", lambda x: _number(x, 0) and x < 1),
    ("train.nan_policy", "'stop' or 'skip'", lambda x: x in ("stop", "skip")),
    ("optim.learning_rate", "a positive number", lambda x: _number(x, 0) and x > 0),
    ("optim.weight_decay", "a non-negative number", lambda x: _number(x, 0)),
    ("optim.clip_norm", "a non-negative number", lambda x: _number(x, 0)),
    ("optim.eps", "a positive number", lambda x: _number(x, 0) and x > 0),
    ("optim.betas", "two numbers in [0, 1)", lambda x: len(x) == 2 and all(_number(b, 0) and b < 1 for b in x)),
    ("data.max_bad_share", "in [0, 1]", lambda x: _number(x, 0) and x <= 1),
    ("data.train.workers", "a non-negative integer", lambda x: _integer(x, 0)),
    ("data.train.prefetch", "a positive integer", lambda x: _integer(x, 1)),
    ("data.train.cache_gb", "a non-negative number", lambda x: _number(x, 0)),
    ("predict.batch_size", "a positive integer", lambda x: _integer(x, 1)),
    ("predict.prompts_per_chunk", "a positive integer", lambda x: _integer(x, 1)),
    ("predict.canvas", "a positive integer", lambda x: _integer(x, 1)),
    ("predict.threshold", "in [0, 1]", lambda x: _number(x, 0) and x <= 1),
    ("predict.compute", "'float32' or 'bfloat16'", lambda x: x in ("float32", "bfloat16")),
    ("predict.truncate", "True or False", lambda x: isinstance(x, bool)),
    ("precision.compute", "'float32' or 'bfloat16'", lambda x: x in ("float32", "bfloat16")),
    ("precision.params", "'float32' or 'bfloat16'", lambda x: x in ("float32", "bfloat16")),
    ("precision.matmul", "'default', 'high' or 'highest'", lambda x: x in ("default", "high", "highest")),
)


def _integer(x, low):
    return isinstance(x, int) and not isinstance(x, bool) and x >= low


def _number(x, low):
    return isinstance(x, int | float) and not isinstance(x, bool) and math.isfinite(x) and x >= low


def validate(config, *, device_count=None):
    """Checks ranges, regexes, mesh and batch size; everything that can be wrong before anything is compiled.

    Raises:
        ValueError: one line per wrong field: the field, what was found, what was expected.
    """
    wrong = []
    for field, expected, check in _RANGES:
        value = _lookup(config, field)
        if not check(value):
            wrong.append(f"config.{field}: found {value!r}, expected {expected}")
    if not wrong:
        wrong += _wrong_regexes(config) + _wrong_mesh(config, device_count)
    if not config.system or not (Path(__file__).parent / "systems" / config.system / "task.py").is_file():
        known = sorted(p.parent.name for p in Path(__file__).parent.glob("systems/*/task.py"))
        wrong.append(f"config.system: found {config.system!r}, expected one of {', '.join(known)}")
    if wrong:
        raise ValueError("\n".join(wrong))


def _lookup(config, field):
    for name in field.split("."):
        config = config[name]
    return config


def _wrong_regexes(config):
    wrong = []
    for field in ("no_decay", "freeze", "multipliers"):
        for i, entry in enumerate(config.optim[field]):
            pattern = entry if isinstance(entry, str) else entry[0]
            try:
                re.compile(pattern)
            except re.error as error:
                wrong.append(f"config.optim.{field}[{i}]: {pattern!r} is not a regular expression: {error}")
            if not isinstance(entry, str) and not _number(entry[1], 0):
                wrong.append(f"config.optim.{field}[{i}]: found factor {entry[1]!r}, expected a non-negative number")
    return wrong


def _wrong_mesh(config, device_count):
    sizes = [config.mesh[axis] for axis in ("data", "fsdp", "model")]
    if any(not (_integer(n, 1) or n == -1) for n in sizes) or sizes.count(-1) > 1:
        return [f"config.mesh: found {config.mesh.to_dict()}, expected positive sizes and at most one -1 (the rest)"]
    if device_count is None:
        return []
    known = math.prod(n for n in sizes if n != -1)
    if device_count % known or (-1 not in sizes and known != device_count):
        found = f"{config.mesh.to_dict()} for {device_count} devices"
        return [f"config.mesh: found {found}, expected sizes that multiply to them"]
    batch_axes = device_count // (sizes[2] if sizes[2] != -1 else device_count // known)
    parts = batch_axes * config.train.accumulate
    if config.train.batch_size % parts:
        return [
            f"config.train.batch_size: found {config.train.batch_size}, expected a multiple of {parts} "
            f"({batch_axes} devices along data and fsdp, {config.train.accumulate} micro-batches)"
        ]
    return []
