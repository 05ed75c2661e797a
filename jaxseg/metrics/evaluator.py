"""What an evaluator is, and how one is found by its name in a config: `"miou"`, `"prompt_iou(0.5)"`.

An evaluator is a record of two pure functions, a fold and what is computed from its result. Metrics are named
`measure` or `measure/part` (a group of classes, or one class); `measure_baseline` is what a trivial answer reaches.
"""

import ast
import contextlib
import dataclasses
import difflib
import importlib
import inspect
import pkgutil
from collections.abc import Callable, Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Counts:
    """Sums over the examples of a data set, counted inside the compiled evaluation step.

    Attributes:
        count: `(outputs, batch) -> {name: array}`, traced: int32 or float32 sums over the examples of the global batch
            that `example_mask` [B] keeps. Counts of pixels stay exact below 2**31 per batch and entry.
        compute: `({name: sum}) -> {metric: float}` on int64 and float64 numpy sums over all batches; leaves out what
            has no example.
        fields: of the batch that `count` reads.
        outputs: of the model that `count` reads.
    """

    count: Callable[[Mapping, Mapping], dict]
    compute: Callable[[Mapping], dict[str, float]]
    fields: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


@dataclasses.dataclass(frozen=True)
class Collected:
    """Records of single examples, collected on each host and gathered at the end.

    Attributes:
        collect: `(outputs, batch, metas) -> list` on numpy: this host's examples, without those of padding.
        compute: `(list) -> {metric: float}`, whatever the order of the list.
        fields: of the batch that `collect` reads.
        outputs: of the model that `collect` reads; nothing else is copied to the host.
    """

    collect: Callable[[Mapping, Mapping, list], list]
    compute: Callable[[list], dict[str, float]]
    fields: tuple[str, ...] = ()
    outputs: tuple[str, ...] = ()


FACTORIES: dict[str, Callable] = {}


def register(name):
    """Makes a factory `(vocabulary, names, **arguments) -> Counts | Collected` known by a name."""

    def decorate(factory):
        if name in FACTORIES:
            raise ValueError(f"evaluator {name!r} is registered twice")
        FACTORIES[name] = factory
        return factory

    return decorate


def make_evaluator(text, vocabulary):
    """The evaluator that a config names.

    Args:
        text: `"name"` or `"name(arguments)"`; arguments are Python literals.
        vocabulary: a `Vocabulary`; outputs of the model are in the order of its names.

    Raises:
        ValueError: unknown name (with the nearest), wrong arguments, or a vocabulary that it cannot work with.
    """
    name, args, kwargs = parse(text)
    _import_metrics()
    if name not in FACTORIES:
        near = difflib.get_close_matches(name, FACTORIES, 1, 0.0)[0]
        raise ValueError(f"evaluator {name!r} is unknown; did you mean {near!r}? known: {', '.join(sorted(FACTORIES))}")
    factory = FACTORIES[name]
    signature = inspect.signature(factory)
    try:
        signature.bind(vocabulary, *args, **kwargs)
    except TypeError as error:
        takes = ", ".join(str(p) for p in list(signature.parameters.values())[1:]) or "no arguments"
        raise ValueError(f"evaluator {text}: {error}; {name} takes {takes}") from None
    try:
        return factory(vocabulary, *args, **kwargs)
    except ValueError as error:
        raise ValueError(f"evaluator {text}: {error}") from None


def parse(text):
    """`"prompt_iou(0.5)"` -> ("prompt_iou", [0.5], {})."""
    try:
        node = ast.parse(text.strip(), mode="eval").body
        if isinstance(node, ast.Name):
            return node.id, [], {}
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            if any(k.arg is None for k in node.keywords):
                raise ValueError
            kwargs = {k.arg: ast.literal_eval(k.value) for k in node.keywords}
            return node.func.id, [ast.literal_eval(a) for a in node.args], kwargs
    except (SyntaxError, ValueError, TypeError):
        pass
    raise ValueError(f"evaluator {text!r}: expected a name, or a name with literal arguments: 'prompt_iou(0.5)'")


def _import_metrics():
    package = importlib.import_module("jaxseg.metrics")
    for module in pkgutil.iter_modules(package.__path__):
        importlib.import_module(f"jaxseg.metrics.{module.name}")


@contextlib.contextmanager
def naming(evaluator, split):
    """Errors raised inside say which evaluator and split they belong to."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"evaluator {evaluator} on {split}: {error}") from error
    except Exception as error:
        error.add_note(f"in evaluator {evaluator} on {split}")
        raise


def add(total, counts):
    """`total + counts` in int64 and float64; an empty total is zero."""
    wide = {}
    for name, value in counts.items():
        value = np.asarray(value)
        value = value.astype(np.float64 if value.dtype.kind == "f" else np.int64)
        wide[name] = total[name] + value if name in total else value
    return wide
