"""Examples kept in memory between epochs, up to a limit."""

import threading

import numpy as np

_PLAIN = 4096  # bytes assumed for what is no array: ids, segments, words


class ExampleCache:
    """What is put in stays until the limit is reached; then nothing more is taken. Used from several threads.

    Args:
        limit: bytes of all examples together; 0 keeps nothing.
    """

    def __init__(self, limit):
        self._left, self._kept, self._lock = limit, {}, threading.Lock()

    def get(self, key):
        """The example, or None. Its arrays are shared: ops make new ones instead of writing into them."""
        return self._kept.get(key)

    def put(self, key, example):
        # A view would keep all of what it is a part of.
        example = {k: v.copy() if isinstance(v, np.ndarray) and v.base is not None else v for k, v in example.items()}
        size = sum(v.nbytes if isinstance(v, np.ndarray) else _bytes(v) + _PLAIN if v else 0 for v in example.values())
        with self._lock:
            if size <= self._left and key not in self._kept:
                self._left -= size
                self._kept[key] = example


def _bytes(value):
    """Of all arrays in a value: masks and outlines of objects."""
    if isinstance(value, np.ndarray):
        return value.nbytes
    if isinstance(value, dict):
        return sum(map(_bytes, value.values()))
    return sum(map(_bytes, value)) if isinstance(value, list | tuple) else 0
