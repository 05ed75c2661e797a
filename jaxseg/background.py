"""Work done by threads while the devices compute: bounded on both sides, so that memory stays flat."""

from collections import deque
from concurrent.futures import ThreadPoolExecutor


def read_ahead(read, items, *, threads=2, ahead=4):
    """Yields (item, value or exception) in order; at most `ahead` items are read before they are asked for.

    Only `ValueError` and `OSError` are given back: what else is raised is a fault of the program, and raised here.
    """

    def attempt(item):
        try:
            return read(item)
        except (ValueError, OSError) as error:
            return error

    pool, waiting = ThreadPoolExecutor(threads, thread_name_prefix="read"), deque()
    try:
        for item in items:
            waiting.append((item, pool.submit(attempt, item)))
            if len(waiting) > ahead:
                first, future = waiting.popleft()
                yield first, future.result()
        while waiting:
            first, future = waiting.popleft()
            yield first, future.result()
    finally:
        pool.shutdown(cancel_futures=True)


class Writer:
    """Runs functions in threads; `submit` waits while `behind` of them are unfinished. Use as a context manager.

    Whatever a function raises is raised by a later `submit`, or at the end.
    """

    def __init__(self, threads=2, behind=4):
        self._pool, self._behind = ThreadPoolExecutor(threads, thread_name_prefix="write"), behind
        self._unfinished = deque()

    def __enter__(self):
        return self

    def __exit__(self, kind, error, trace):
        try:
            while kind is None and self._unfinished:
                self._unfinished.popleft().result()
        finally:
            self._pool.shutdown(cancel_futures=True)

    def submit(self, function, *args):
        while len(self._unfinished) >= self._behind or (self._unfinished and self._unfinished[0].done()):
            self._unfinished.popleft().result()
        self._unfinished.append(self._pool.submit(function, *args))
