"""Names of output files: from prompts and from photographs, safe on every file system and unique in their folder."""

import re
import unicodedata
from collections import Counter
from pathlib import Path

_MAX_BYTES = 120  # file systems take 255 bytes; suffixes and folders of masks must fit as well
_RESERVED = {"con", "prn", "aux", "nul", *(f"{port}{i}" for port in ("com", "lpt") for i in range(10))}  # Windows'


def slug(text):
    """`"A cat's paw, left"` -> `"a_cat_s_paw_left"`: letters and digits of any script, <= 120 bytes, never empty."""
    words = re.findall(r"[^\W_]+", unicodedata.normalize("NFKC", str(text)).lower())
    name = _cut("_".join(words)).strip("_") or "prompt"
    return f"{name}_" if name in _RESERVED else name


def unique(names):
    """The names, with `_2`, `_3`, ... behind those that occurred before; upper and lower case count as the same."""
    taken, result = {}, []
    for name in names:
        candidate = name
        while candidate.casefold() in taken:
            taken[name.casefold()] += 1
            candidate = f"{name}_{taken[name.casefold()]}"
        taken.setdefault(candidate.casefold(), 1)
        result.append(candidate)
    return result


def stems(paths):
    """One unique stem per path, as short as it can be: `street/1.jpg`, `park/1.jpg` -> `street_1`, `park_1`.

    Stems that differ already are kept as they are, with their spaces and letters of any script.
    """
    paths = [Path(path) for path in paths]
    clashes = Counter(path.stem.casefold() for path in paths)
    names = []
    for path in paths:
        name = path.stem
        if clashes[name.casefold()] > 1 and path.parent.name:
            name = f"{path.parent.name}_{name}"
        names.append(_cut(name) or "image")
    return unique(names)


def _cut(name):
    return name.encode("utf-8", "ignore")[:_MAX_BYTES].decode("utf-8", "ignore")
