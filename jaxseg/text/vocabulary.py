"""The class list of a data set: names, kinds, groups and colours."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """K class names with what evaluation needs to know of them.

    Attributes:
        names: K names, index = contiguous class id.
        is_thing: K booleans; things are countable, stuff is not.
        groups: named sub-lists of class ids, e.g. `{"seen": (0, 2), "unseen": (1,)}`; metrics are also reported per group.
        colors: K RGB triples (0..255) for pictures, or empty: `color(k)` then draws a fixed palette.
    """

    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    groups: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    colors: tuple[tuple[int, int, int], ...] = ()

    def __post_init__(self):
        if len(self.is_thing) != len(self.names):
            raise ValueError(f"vocabulary: {len(self.names)} names but {len(self.is_thing)} entries in is_thing")
        duplicates = sorted({n for n in self.names if self.names.count(n) > 1})
        if duplicates:
            raise ValueError(f"vocabulary: names occur twice: {duplicates[:5]}")

    def __len__(self):
        return len(self.names)

    @property
    def things(self) -> np.ndarray:
        return np.flatnonzero(self.is_thing)

    @property
    def stuff(self) -> np.ndarray:
        return np.flatnonzero(~np.asarray(self.is_thing, bool))
