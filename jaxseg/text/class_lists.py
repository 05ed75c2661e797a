"""The class lists of data sets, read from `vocab/`: a tab-separated line per class, `id`, `thing` or `stuff`, name."""

import functools
from importlib import resources
from typing import NamedTuple

from jaxseg.text.vocabulary import Vocabulary

# The 48 and 17 classes of COCO in generalized zero-shot detection (Bansal et al. 2018), by category id.
COCO_BASE = (
    1, 2, 3, 4, 7, 8, 9, 15, 16, 19, 20, 23, 24, 25, 27, 31, 33, 34, 35, 38, 42, 44, 48, 50, 51, 52, 53, 54, 55, 56, 57, 59,
    60, 62, 65, 70, 72, 73, 74, 75, 78, 79, 80, 82, 84, 85, 86, 90,
)  # fmt: skip
COCO_NOVEL = (5, 6, 17, 18, 21, 22, 28, 32, 36, 41, 47, 49, 61, 63, 76, 81, 87)
_FILES = ("coco_panoptic", "ade20k_150", "ade20k_847", "pascal_context_59", "pascal_context_459", "pascal_voc_21")
_OF_COCO = {
    "coco_instance": range(1, 91),  # the 80 things; stuff is numbered from 92
    "coco_base48": COCO_BASE,
    "coco_novel17": COCO_NOVEL,
    "coco_instances65": COCO_BASE + COCO_NOVEL,
}
NAMES = (*_FILES, *_OF_COCO, "ade20k_instance")


class Entry(NamedTuple):
    """A class: the id that its data set gives it, its name (several may be separated by ", "), whether it is countable."""

    id: int
    name: str
    is_thing: bool


def class_list(name) -> tuple[Entry, ...]:
    """The classes of a list by contiguous class id.

    Raises:
        ValueError: an unknown list.
    """
    if name in _OF_COCO:
        return tuple(entry for entry in _read("coco_panoptic") if entry.id in _OF_COCO[name])
    if name == "ade20k_instance":
        return tuple(entry for entry in _read("ade20k_150") if entry.is_thing)
    if name not in _FILES:
        raise ValueError(f"class list: found {name!r}, expected one of {', '.join(NAMES)}")
    return _read(name)


def vocabulary(name) -> Vocabulary:
    """The list as a `Vocabulary`; that of COCO's 65 classes has the groups `base` and `novel`. Errors as of `class_list`."""
    entries = class_list(name)
    groups = {}
    if name == "coco_instances65":
        parts = (("base", COCO_BASE), ("novel", COCO_NOVEL))
        groups = {group: tuple(i for i, entry in enumerate(entries) if entry.id in ids) for group, ids in parts}
    return Vocabulary(tuple(entry.name for entry in entries), tuple(entry.is_thing for entry in entries), groups)


@functools.cache
def _read(name):
    text = resources.files("jaxseg.text").joinpath("vocab", f"{name}.txt").read_text(encoding="utf-8")
    rows = (line.split("\t") for line in text.splitlines() if line and not line.startswith("#"))
    return tuple(Entry(int(number), words, kind == "thing") for number, kind, words in rows)
