"""A reader of pickles that executes nothing: a stack machine over data, with a fixed table of names that stand for something.

Python's own unpickler calls whatever a file names, and allocates what a header claims before it reads it. Here an instruction
stream can only build numbers, strings, containers of these, and what `find` returns for the names that it knows; arguments
are taken by `pickletools`, which never reads beyond the stream.
"""

import pickletools
from collections import OrderedDict
from collections.abc import Callable
from typing import Any


class PickleError(ValueError):
    """A pickle that names something unknown, or is damaged."""


class Bag:
    """An object of a class that is not here: what the file says of it, and no behaviour.

    Attributes:
        class_name: `module.name`.
        args: what it was constructed from.
        attributes: its `__dict__`.
        items: what it holds as a dict.
        elements: what it holds as a list.
    """

    def __init__(self, class_name, args=()):
        self.class_name, self.args = class_name, args
        self.attributes, self.items, self.elements = {}, {}, []

    def set_state(self, state):
        if isinstance(state, tuple) and len(state) == 2 and isinstance(state[1], dict):  # with __slots__
            state = {**(state[0] or {}), **state[1]}
        self.attributes.update(state if isinstance(state, dict) else {"state": state})


class Named:
    """What a name in a pickle stands for. `make` builds the object from its arguments; without it, it cannot be called."""

    def __init__(self, name, make=None, value=None):
        self.name, self.make, self.value = name, make, value


def load(stream, find: Callable[[str], Named | None], persistent: Callable[[Any], Any] | None = None):
    """The object of one pickle; the stream is left behind it.

    Args:
        stream: with `read`, `readline` and `tell`.
        find: `("module.name") -> Named`, or None for what is not known.
        persistent: what a persistent id stands for.

    Raises:
        PickleError: one line: an unknown name, or where the pickle is damaged.
    """
    machine, position = _Machine(find, persistent), stream.tell()
    try:
        for opcode, argument, position in pickletools.genops(stream):  # noqa: B007
            if opcode.name == "STOP":
                return machine.pop()
            machine.run(opcode.name, argument)
    except PickleError:
        raise
    except RecursionError:
        raise PickleError(f"damaged pickle at byte {position}: nested too deeply") from None
    except (ValueError, TypeError, LookupError, AttributeError, OverflowError, ArithmeticError) as error:
        raise PickleError(f"damaged pickle at byte {position}: {' '.join(str(error).split())[:200]}") from None
    raise PickleError("damaged pickle: it has no end")


_CONSTANTS = {"NONE": None, "NEWTRUE": True, "NEWFALSE": False}
_EMPTY = {"EMPTY_TUPLE": tuple, "EMPTY_LIST": list, "EMPTY_DICT": dict, "EMPTY_SET": set}
_LITERALS = {
    *("INT", "BININT", "BININT1", "BININT2", "LONG", "LONG1", "LONG4", "FLOAT", "BINFLOAT"),
    *("STRING", "BINSTRING", "SHORT_BINSTRING", "UNICODE", "BINUNICODE", "SHORT_BINUNICODE", "BINUNICODE8"),
    *("BINBYTES", "SHORT_BINBYTES", "BINBYTES8", "BYTEARRAY8"),
}
_PUTS, _GETS = ("PUT", "BINPUT", "LONG_BINPUT"), ("GET", "BINGET", "LONG_BINGET")
_SCALARS = (str, bytes, int, float, bool, type(None))


def _key(value):
    """A dict's key or a set's element. Nested tuples are refused: hashing shared ones takes exponential time."""
    if isinstance(value, _SCALARS) or (isinstance(value, tuple) and all(isinstance(x, _SCALARS) for x in value)):
        return value
    raise PickleError(f"found a key of type {type(value).__name__}, expected strings and numbers")


class _Machine:
    def __init__(self, find, persistent):
        self._find, self._persistent = find, persistent
        self._stack, self._below, self._memo = [], [], {}

    def run(self, name, argument):
        if name in _LITERALS:
            self._stack.append(argument)
        elif name in _CONSTANTS:
            self._stack.append(_CONSTANTS[name])
        elif name in _EMPTY:
            self._stack.append(_EMPTY[name]())
        elif name in _PUTS:
            self._memo[argument] = self._stack[-1]
        elif name in _GETS:
            self._stack.append(self._memo[argument])
        elif name not in ("PROTO", "FRAME"):
            operation = getattr(self, "_" + name.lower(), None)
            if operation is None:
                raise PickleError(f"uses {name}, which no checkpoint needs")
            operation(argument)

    def pop(self):
        return self._stack.pop()

    def _pop_to_mark(self):
        items, self._stack = self._stack, self._below.pop()
        return items

    def _mark(self, _):
        self._below.append(self._stack)
        self._stack = []

    def _pop(self, _):
        if self._stack:
            self._stack.pop()
        else:
            self._pop_to_mark()

    def _pop_mark(self, _):
        self._pop_to_mark()

    def _dup(self, _):
        self._stack.append(self._stack[-1])

    def _memoize(self, _):
        self._memo[len(self._memo)] = self._stack[-1]

    def _tuple(self, _):
        self._push_marked(tuple)

    def _list(self, _):
        self._push_marked(list)

    def _frozenset(self, _):
        self._push_marked(lambda items: frozenset(map(_key, items)))

    def _dict(self, _):
        self._push_marked(lambda items: {_key(k): v for k, v in zip(items[::2], items[1::2], strict=True)})

    def _push_marked(self, make):
        items = self._pop_to_mark()
        self._stack.append(make(items))

    def _tuple1(self, _):
        self._push_last(1)

    def _tuple2(self, _):
        self._push_last(2)

    def _tuple3(self, _):
        self._push_last(3)

    def _push_last(self, count):
        if len(self._stack) < count:
            raise IndexError("the stack is empty")
        items = tuple(self._stack[-count:])
        self._stack[-count:] = [items]

    def _append(self, _):
        value = self.pop()
        self._extend([value])

    def _appends(self, _):
        self._extend(self._pop_to_mark())

    def _extend(self, values):
        target = self._stack[-1]
        target = target.elements if isinstance(target, Bag) else target
        if not isinstance(target, list):
            raise TypeError(f"elements for a {type(target).__name__}")
        target.extend(values)

    def _additems(self, _):
        values = self._pop_to_mark()
        if not isinstance(self._stack[-1], set):
            raise TypeError(f"elements for a {type(self._stack[-1]).__name__}")
        self._stack[-1].update(map(_key, values))

    def _setitem(self, _):
        value, key = self.pop(), self.pop()
        self._update([key, value])

    def _setitems(self, _):
        self._update(self._pop_to_mark())

    def _update(self, items):
        target = self._stack[-1]
        target = target.items if isinstance(target, Bag) else target
        if not isinstance(target, dict):
            raise TypeError(f"items for a {type(target).__name__}")
        for key, value in zip(items[::2], items[1::2], strict=True):
            target[_key(key)] = value

    def _global(self, argument):
        self._stack.append(self._named(argument.replace(" ", ".", 1)))

    def _stack_global(self, _):
        name, module = self.pop(), self.pop()
        if not isinstance(name, str) or not isinstance(module, str):
            raise TypeError("a name that is no string")
        self._stack.append(self._named(f"{module}.{name}"))

    def _named(self, name):
        found = self._find(name)
        if found is None:
            raise PickleError(f"names {name[:100]!r}, which is not a part of weights; it is not run, and the file is not read")
        return found if found.value is None else found.value

    def _reduce(self, _):
        args, function = self.pop(), self.pop()
        self._stack.append(_made(function, args))

    _newobj = _reduce

    def _newobj_ex(self, _):
        kwargs, args, function = self.pop(), self.pop(), self.pop()
        if kwargs:
            raise PickleError("constructs an object with keyword arguments, which no checkpoint needs")
        self._stack.append(_made(function, args))

    def _inst(self, argument):
        function = self._named(argument.replace(" ", ".", 1))
        self._push_marked(lambda items: _made(function, tuple(items)))

    def _obj(self, _):
        self._push_marked(lambda items: _made(items[0], tuple(items[1:])))

    def _build(self, _):
        state = self.pop()
        target = self._stack[-1]
        if hasattr(target, "set_state"):
            target.set_state(state)
        elif not isinstance(target, OrderedDict):  # whose attributes (`_metadata`) do not matter
            raise TypeError(f"a state for a {type(target).__name__}")

    def _persid(self, argument):
        self._stack.append(self._persistent_load(argument))

    def _binpersid(self, _):
        self._stack.append(self._persistent_load(self.pop()))

    def _persistent_load(self, identity):
        if self._persistent is None:
            raise PickleError("refers to tensors outside of the pickle")
        return self._persistent(identity)


def _made(function, args):
    if not isinstance(function, Named) or function.make is None or not isinstance(args, tuple):
        raise PickleError(f"calls {getattr(function, 'name', type(function).__name__)!r}, which no checkpoint needs")
    return function.make(*args)
