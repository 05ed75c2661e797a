"""Examples that cannot be read: counted, logged once with their path, and the end of a run where there are too many."""

import logging
import math
import threading


class TooManyBadExamples(ValueError):
    """More examples cannot be read than config.data.max_bad_share allows."""


class Faults:
    """Counts the bad examples of one sequence of examples; used from several threads.

    Args:
        total: number of examples that there are.
        max_share: share of them that may be bad; a share that is not 0 allows at least one.
        what: names the examples in messages.
    """

    def __init__(self, total, max_share, what):
        self._allowed = math.ceil(max_share * total)
        self._total, self._max_share, self._what = total, max_share, what
        self._paths, self._lock = {}, threading.Lock()

    def add(self, key, path, error):
        """Notes one bad example.

        Raises:
            TooManyBadExamples: one line, where more are bad than allowed.
        """
        line = " ".join(str(error).split()) or type(error).__name__
        line = line if path and path in line else f"{path}: {line}"
        with self._lock:
            if key in self._paths:
                return
            self._paths[key] = path
            count = len(self._paths)
        logging.warning("bad example, %d so far in %s: %s", count, self._what, line)
        if count > self._allowed:
            raise TooManyBadExamples(
                f"{self._what}: {count} of {self._total} examples cannot be read, more than config.data.max_bad_share "
                f"({self._max_share:g}) allows; the last: {line}"
            )

    @property
    def paths(self):
        with self._lock:
            return list(self._paths.values())
