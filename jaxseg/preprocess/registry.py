"""The mini-language of preprocessing: `"decode|resize(96)|normalize(imagenet)|keep(image)"`.

An op is registered as a function from its arguments to `apply(example, context) -> example`; arguments are checked when the
text is parsed, before any file is read. They are Python literals, or bare words, which are strings.
"""

import ast
import dataclasses
import difflib
import functools
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np

Example = dict[str, Any]
_OPS: dict[str, Callable] = {}
_DRAWING: set[str] = set()


@dataclasses.dataclass(frozen=True)
class Context:
    """What ops may use beside the example.

    Attributes:
        rng: a `numpy.random.Generator` for ops that draw; one per example.
        vocabulary: the source's `Vocabulary`, for ops that need names.
    """

    rng: np.random.Generator | None = None
    vocabulary: Any = None


def register(factory=None, *, draws=False):
    """Registers `factory(*arguments) -> apply(example, context)` under its own name.

    Args:
        draws: whether `apply` uses the context's generator; examples may be kept in memory before the first op that does.
    """
    if factory is None:
        return functools.partial(register, draws=draws)
    name = factory.__name__
    if name in _OPS:
        raise ValueError(f"preprocess: op {name!r} is registered twice")
    _OPS[name] = factory
    if draws:
        _DRAWING.add(name)
    return factory


@dataclasses.dataclass(frozen=True)
class Pipeline:
    """A parsed text: `pipeline(example, context) -> example`.

    Attributes:
        text: what was parsed.
        ops: (name, apply) in order, without the closing `keep`.
        kept: the fields that the closing `keep` names; empty if there is none: everything is kept.
    """

    text: str
    ops: tuple[tuple[str, Callable], ...]
    kept: tuple[str, ...] = ()

    def __call__(self, example, context=Context()):  # noqa: B008  (frozen)
        return self.keep(self.transform(example, context))

    @property
    def num_fixed(self):
        """How many ops come before the first one that draws: their result is the same every time."""
        return next((i for i, (name, _) in enumerate(self.ops) if name in _DRAWING), len(self.ops))

    def transform(self, example, context=Context(), first=0, last=None):  # noqa: B008
        """Ops `first` to `last` (all by default) without the closing `keep`; the example that was given is not changed."""
        example = dict(example)
        for _, apply in self.ops[first:last]:
            example = apply(example, context)
        return example

    def keep(self, example):
        """The kept fields alone.

        Raises:
            ValueError: a field that no op has made.
        """
        missing = [name for name in self.kept if name not in example]
        if missing:
            have = ", ".join(sorted(example))
            raise ValueError(f"preprocess: op {len(self.ops) + 1} keep: no field {missing[0]!r}; the example has {have}")
        return {name: example[name] for name in self.kept} if self.kept else example


def parse(text) -> Pipeline:
    """The pipeline that a text describes.

    Raises:
        ValueError: one line that names the op, its position, and the nearest known op or argument.
    """
    ops, kept = [], ()
    for position, node in enumerate(_stages(text), 1):
        name, args, kwargs = _call(node, position, text)
        where = f"preprocess: op {position} {name}"
        if kept:
            raise ValueError(f"{where}: nothing may follow keep, in {text!r}")
        if name == "keep":
            kept = _fields(args, kwargs, where)
            continue
        if name not in _OPS:
            near = difflib.get_close_matches(name, [*_OPS, "keep"], 1, 0.5)
            hint = f"did you mean {near[0]!r}?" if near else f"known are {', '.join(sorted([*_OPS, 'keep']))}"
            raise ValueError(f"preprocess: op {position} {name!r} is unknown, in {text!r}; {hint}")
        _check_arguments(_OPS[name], args, kwargs, where)
        try:
            ops.append((name, _OPS[name](*args, **kwargs)))
        except (TypeError, ValueError) as error:
            raise ValueError(f"{where}: {error}") from None
    return Pipeline(str(text), tuple(ops), kept)


def _stages(text):
    """One syntax node per op."""
    if not isinstance(text, str) or not text.strip():
        raise ValueError(f"preprocess: found {text!r}, expected ops such as 'decode|resize(352)|normalize(imagenet)'")
    try:
        node = ast.parse(text.strip(), mode="eval").body
    except SyntaxError as error:
        column = error.offset or 1
        at = text.strip()[max(column - 1, 0) :][:20] or "its end"
        raise ValueError(f"preprocess: {text!r} cannot be read at column {column} ({at}): {error.msg}") from None
    stages = []
    while isinstance(node, ast.BinOp) and isinstance(node.op, ast.BitOr):
        stages.append(node.right)
        node = node.left
    return [node, *reversed(stages)]


def _call(node, position, text):
    """(name, arguments, named arguments) of one op."""
    if isinstance(node, ast.Name):
        return node.id, [], {}
    if not isinstance(node, ast.Call) or not isinstance(node.func, ast.Name):
        raise ValueError(f"preprocess: op {position} is {ast.unparse(node)!r}, expected name or name(arguments), in {text!r}")
    name = node.func.id
    where = f"preprocess: op {position} {name}"
    args = [_value(argument, where) for argument in node.args]
    return name, args, {k.arg or "**": _value(k.value, where) for k in node.keywords}


def _value(node, where):
    if isinstance(node, ast.Name):
        return node.id
    try:
        return ast.literal_eval(node)
    except (ValueError, TypeError, SyntaxError):
        raise ValueError(f"{where}: argument {ast.unparse(node)!r} is neither a literal nor a word") from None


def _fields(args, kwargs, where):
    if kwargs or not args or not all(isinstance(a, str) for a in args):
        raise ValueError(f"{where}: found {args or kwargs}, expected names of fields, such as keep(image, label_map)")
    return tuple(args)


def _check_arguments(factory, args, kwargs, where):
    parameters = inspect.signature(factory).parameters
    takes = f"it takes {', '.join(parameters) or 'no arguments'}"
    for name in kwargs:
        if name not in parameters:
            near = difflib.get_close_matches(name, list(parameters), 1, 0.4)
            raise ValueError(f"{where}: argument {name!r} is unknown; " + (f"did you mean {near[0]!r}?" if near else takes))
    if len(args) > len(parameters):
        raise ValueError(f"{where}: found {len(args)} arguments; {takes}")
    given = list(parameters)[: len(args)]
    for name in given:
        if name in kwargs:
            raise ValueError(f"{where}: argument {name!r} is given twice")
    for name, parameter in parameters.items():
        if parameter.default is parameter.empty and name not in given and name not in kwargs:
            raise ValueError(f"{where}: argument {name!r} is missing; {takes}")


def known_ops():
    """{name: factory} of every registered op."""
    return dict(_OPS)


def random(context, op) -> np.random.Generator:
    """The context's generator, for an op that draws.

    Raises:
        ValueError: the context has none (prediction and evaluation draw nothing).
    """
    if context.rng is None:
        raise ValueError(f"preprocess: {op} draws at random, but there is no generator: it belongs in training only")
    return context.rng
