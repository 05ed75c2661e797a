"""Parses the command line of `main.py`, and says in one line what is wrong with it."""

import difflib
import sys

from absl import flags
from ml_collections import ConfigDict

from jaxseg.config import load_config, validate


def parse(argv):
    """`flags.FLAGS(argv)` with the config loaded and its ranges checked: for `absl.app.run(flags_parser=...)`.

    A mistake ends the process with one line on stderr and exit code 2, before JAX or TensorFlow is imported.
    """
    try:
        rest = flags.FLAGS(argv)
        if flags.FLAGS.config:
            validate(flags.FLAGS.config)
        return rest
    except flags.ValidationError as error:  # a required flag is missing, which is not the config's fault
        message = str(error)
    except (flags.Error, ValueError, AttributeError, KeyError, TypeError, OSError) as error:
        message = explain(argv, error)
    print(f"main.py: {message}", file=sys.stderr)
    sys.exit(2)


def explain(argv, error) -> str:
    """What is wrong: the config's name or options, the first override that does not fit it, or what absl says."""
    given = dict(arg.lstrip("-").split("=", 1) for arg in argv[1:] if arg.startswith("-") and "=" in arg)
    try:
        if given.get("config"):
            config = load_config(given["config"])
            for name, value in given.items():
                if name.startswith("config."):
                    check_override(config, name, value)
    except ValueError as found:
        return str(found)
    return next((line.strip() for line in str(error).splitlines() if line.strip()), type(error).__name__)


def check_override(config: ConfigDict, name: str, value: str) -> None:
    """Checks `config.a.b=value` against the fields and types of a config.

    Raises:
        ValueError: no such field (with the nearest), or a value of another type than the field's.
    """
    fields, node = name.split(".")[1:], config
    for depth, field in enumerate(fields):
        if not isinstance(node, ConfigDict):
            break  # an index into a sequence or a plain dict: ml_collections knows
        if field not in node:
            near = difflib.get_close_matches(field, list(node), 3, 0.5) or sorted(node)
            raise ValueError(f"{'.'.join(['config', *fields[: depth + 1]])}: no such field; did you mean {', '.join(near)}?")
        node = node[field]
    kind = type(node)
    if kind is bool and value.lower() not in ("true", "false", "1", "0"):
        raise ValueError(f"{name}: found {value!r}, expected true or false")
    if kind in (int, float):
        try:
            kind(value)
        except ValueError:
            raise ValueError(f"{name}: found {value!r}, expected {kind.__name__}") from None
