"""How derived files are made: in parallel, whole or not at all, again only where they are missing."""

import collections
import dataclasses
import io
import json
import os
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import numpy as np
from PIL import Image

from jaxseg.preprocess import reading

_EVERY = 5.0  # seconds between lines of progress


@dataclasses.dataclass
class Run:
    """One call of the program.

    Attributes:
        check: compare files that are there with what would be written, instead of leaving them out.
        workers: threads.
        say: where lines go.
    """

    check: bool = False
    workers: int = 0
    say: object = print

    def missing(self, paths):
        """Those that are to be made: all when checking."""
        return [path for path in paths if self.check or not path.exists()]

    def each(self, what, items, function):
        """[function(item)] in order, with a line of progress now and then.

        Raises:
            ValueError: one line with the number of items that failed and the first failure, after all others are done.
        """
        items, results, failed = list(items), [], []
        said = time.monotonic()
        with ThreadPoolExecutor(self.workers or os.cpu_count()) as pool:
            for number, (result, error) in enumerate(_in_order(pool, lambda item: _attempt(function, item), items), 1):
                results.append(result)
                failed += [error] if error else []
                if time.monotonic() - said > _EVERY:
                    said = time.monotonic()
                    print(f"{what}: {number} of {len(items)}", file=sys.stderr, flush=True)
        if failed:
            raise ValueError(f"{what}: {len(failed)} of {len(items)} files cannot be made; the first: {failed[0]}")
        return results

    def write(self, path, content):
        """Writes bytes, unless the file is there."""
        if not path.exists():
            _replace(path, content)

    def write_map(self, path, numbers):
        """Writes a label map [H, W] (uint8, uint16) or a picture of ids [H, W, 3], or compares it with the one that is there.

        Raises:
            ValueError: when checking: the pixel that differs.
        """
        if not path.exists():
            _replace(path, _encoded(numbers, path.suffix))
        elif self.check:
            _compare(path, numbers)

    def write_json(self, path, data, key):
        """Writes JSON, or compares what `key(data)` gives with that of the file that is there.

        Raises:
            ValueError: when checking: the file differs.
        """
        if not path.exists():
            _replace(path, json.dumps(data).encode())
        elif self.check and key(json.loads(path.read_text(encoding="utf-8"))) != key(data):
            raise ValueError(f"{path}: differs from what is derived; move it away to make it anew")

    def expect(self, what, found, published):
        """Says so where there are not as many as were published."""
        if found != published:
            self.say(f"{what}: {found}; the published data have {published}")


def _in_order(pool, function, items):
    """Like `pool.map` with a bounded number of results that wait."""
    waiting, rest = collections.deque(), iter(items)
    for item in rest:
        waiting.append(pool.submit(function, item))
        if len(waiting) >= 64:
            yield waiting.popleft().result()
    while waiting:
        yield waiting.popleft().result()


def _attempt(function, item):
    try:
        return function(item), None
    except (ValueError, OSError) as error:
        return None, " ".join(str(error).split())


def _replace(path, content):
    """The file appears with its whole content or not at all."""
    path.parent.mkdir(parents=True, exist_ok=True)
    partial = path.with_name(f".{path.name}.{os.getpid()}.partial")
    try:
        partial.write_bytes(content)
        partial.replace(path)
    finally:
        partial.unlink(missing_ok=True)


def _encoded(numbers, ending):
    content = io.BytesIO()
    if ending == ".tif":
        Image.fromarray(numbers).save(content, "TIFF", compression="tiff_lzw")
    else:
        Image.fromarray(numbers).save(content, "PNG")
    return content.getvalue()


def _compare(path, numbers):
    found = np.asarray(Image.open(path)) if numbers.ndim == 3 else reading.read_label_map(path)
    if found.shape != numbers.shape:
        raise ValueError(f"{path}: found {found.shape}, expected {numbers.shape}")
    if not np.array_equal(found, numbers):
        where = tuple(int(i) for i in np.argwhere(found != numbers)[0])
        raise ValueError(f"{path}: pixel {where[:2]} (row, column) is {found[where]}, expected {numbers[where]}")


def folder(root, *candidates):
    """The first of several folders that is there.

    Raises:
        ValueError: one line that names them.
    """
    for candidate in candidates:
        if (Path(root) / candidate).is_dir():
            return Path(root) / candidate
    raise ValueError(f"{root}: no folder {' or '.join(candidates)}")


def files(where, pattern):
    """Files of a folder, sorted.

    Raises:
        ValueError: none.
    """
    found = sorted(where.glob(pattern)) if where.is_dir() else []
    if not found:
        raise ValueError(f"{where}: no files {pattern}")
    return found
