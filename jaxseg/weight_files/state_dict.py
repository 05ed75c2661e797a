"""The state dict in a checkpoint: which of its dicts holds the weights, as {key: array}."""

import dataclasses
from typing import Any

import numpy as np

from jaxseg.weight_files.pickled_tensors import as_array, is_array
from jaxseg.weight_files.restricted_pickle import Bag

# Where training scripts put the weights, best first.
_USUAL = ("state_dict", "model", "model_state_dict", "module", "weights", "network", "net", "model.state_dict")
_OPTIMIZER = ("optim", "scheduler", "scaler", "amp", "trainer", "callbacks")
_MAX_DEPTH = 3
_MAX_MODULES = 100_000


@dataclasses.dataclass(frozen=True)
class StateDict:
    """Weights and what was beside them.

    Attributes:
        tensors: {key: array}.
        inside: the name of the dict in the file that holds them; "" is the file itself.
        choices: other dicts of tensors in the file.
        left_out: {key: why} of what was in the dict and is no tensor.
        prefix: taken from every key.
    """

    tensors: dict[str, np.ndarray]
    inside: str = ""
    choices: tuple[str, ...] = ()
    left_out: dict[str, str] = dataclasses.field(default_factory=dict)
    prefix: str = ""


def state_dict(file, choice="") -> StateDict:
    """The weights of a `jaxseg.weight_files.torch_reader.TorchFile`.

    Args:
        file: what was read.
        choice: the name of the dict to take, such as "model_ema"; by default the usual names are looked for.

    Raises:
        ValueError: no tensors, no such dict, or several and none of a usual name.
    """
    if file.kind == "torchscript":
        return StateDict(_script(file.content, file.members))
    found = dict(_candidates(file.content, "", set()))
    if not found:
        raise ValueError(f"no dict of tensors in it, found {_described(file.content)}")
    name = choice or _chosen(found)
    if name not in found:
        raise ValueError(f"no dict of tensors called {choice!r} in it, found: {', '.join(map(repr, found))}")
    tensors, left_out = {}, {}
    for key, value in found[name].items():
        if is_array(value):
            tensors[str(key)] = as_array(value)
        else:
            left_out[str(key)] = f"no tensor: {_described(value)}"
    prefix = "module." if all(key.startswith("module.") for key in tensors) else ""
    tensors = {key[len(prefix) :]: value for key, value in tensors.items()}
    return StateDict(tensors, name, tuple(other for other in found if other != name), left_out, prefix)


def _chosen(found):
    for name in (*(name for name in _USUAL if name in found), *([""] if "" in found else ())):
        return name
    if len(found) > 1:
        raise ValueError(f"several dicts of tensors in it, choose one by FILE#NAME: {', '.join(map(repr, found))}")
    return next(iter(found))


def _candidates(content, name, seen, depth=0):
    """(name, dict) of every dict that holds tensors directly."""
    content = content.items if isinstance(content, Bag) else content
    if not isinstance(content, dict) or id(content) in seen:
        return
    seen.add(id(content))
    if any(is_array(value) for value in content.values()):
        yield name, content
    if depth < _MAX_DEPTH and len(content) < _MAX_MODULES:
        for key, value in content.items():
            if isinstance(key, str) and isinstance(value, dict | Bag) and not key.lower().startswith(_OPTIMIZER):
                yield from _candidates(value, f"{name}.{key}" if name else key, seen, depth + 1)


def _script(root, members):
    """Parameters and buffers of the modules below one, by the names that a state dict gives them."""
    tensors, todo, seen = {}, [("", root)], 0
    while todo:
        prefix, module = todo.pop()
        seen += 1
        if not isinstance(module, Bag):
            raise ValueError(f"a TorchScript archive that holds {_described(module)}, expected a module")
        if seen > _MAX_MODULES or prefix.count(".") > 64:
            raise ValueError("a TorchScript archive whose modules contain each other")
        names = members.get(module.class_name)
        for name, value in module.attributes.items():
            if isinstance(value, Bag) and value.class_name.startswith("__torch__."):
                todo.append((f"{prefix}{name}.", value))
            elif is_array(value) and (names is None or name in names):
                tensors[prefix + str(name)] = as_array(value)
    return tensors


def _described(value: Any):
    if isinstance(value, dict):
        keys = ", ".join(repr(key)[:60] for key in list(value)[:5])
        return f"a dict of {len(value)} ({keys}{', ...' if len(value) > 5 else ''})"
    if isinstance(value, Bag):
        return f"an object of {value.class_name}"
    return f"a {type(value).__name__}"
