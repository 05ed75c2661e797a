"""The class list of a data set: names, kinds, groups and colours."""

import dataclasses
from collections.abc import Mapping

import numpy as np


@dataclasses.dataclass(frozen=True)
class Part:
    """One entry of a part vocabulary: a part of an object class, or a sub-part of such a part.

    Attributes:
        object: the class id of the whole.
        name: the part's own word, e.g. `"head"`; `Vocabulary.part_names` says `"dog's head"`.
        parent: index in `Vocabulary.parts` of the enclosing part (an eye's head), or -1 where that is the object.
    """

    object: int
    name: str
    parent: int = -1


@dataclasses.dataclass(frozen=True)
class Vocabulary:
    """K class names with what evaluation needs to know of them.

    Attributes:
        names: K names, index = contiguous class id.
        is_thing: K booleans; things are countable, stuff is not.
        groups: named sub-lists of class ids, e.g. `{"seen": (0, 2), "unseen": (1,)}` of metrics.
        colors: K RGB triples (0..255) for pictures, or empty: pictures then use a fixed palette.
        parts: P parts, index = contiguous part id; every parent stands before its sub-parts.
        part_groups: named sub-lists of part ids, as `groups`.

    Raises:
        ValueError: lengths differ, a name or a part occurs twice, or a part's object or parent does not exist.
    """

    names: tuple[str, ...]
    is_thing: tuple[bool, ...]
    groups: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)
    colors: tuple[tuple[int, int, int], ...] = ()
    parts: tuple[Part, ...] = ()
    part_groups: Mapping[str, tuple[int, ...]] = dataclasses.field(default_factory=dict)

    def __post_init__(self):
        if len(self.is_thing) != len(self.names):
            raise ValueError(f"vocabulary: {len(self.names)} names but {len(self.is_thing)} entries in is_thing")
        duplicates = sorted({n for n in self.names if self.names.count(n) > 1})
        if duplicates:
            raise ValueError(f"vocabulary: names occur twice: {duplicates[:5]}")
        for index, part in enumerate(self.parts):
            if not 0 <= part.object < len(self.names):
                raise ValueError(
                    f"vocabulary: part {index} ({part.name}) has object {part.object}, not one of {len(self)} classes"
                )
            if part.parent != -1 and not (0 <= part.parent < index and self.parts[part.parent].object == part.object):
                raise ValueError(
                    f"vocabulary: part {index} ({part.name}) has parent {part.parent}, not -1 or an earlier part of "
                    f"{self.names[part.object]!r}"
                )
        if len(set(self.parts)) != len(self.parts):
            twice = next(p for p in self.parts if self.parts.count(p) > 1)
            raise ValueError(f"vocabulary: part occurs twice: {self.names[twice.object]}'s {twice.name}")

    def __len__(self):
        return len(self.names)

    @property
    def things(self) -> np.ndarray:
        return np.flatnonzero(self.is_thing)

    @property
    def stuff(self) -> np.ndarray:
        return np.flatnonzero(~np.asarray(self.is_thing, bool))

    @property
    def part_names(self) -> tuple[str, ...]:
        """P full names, `"<object>'s <part>"`."""
        return tuple(f"{self.names[part.object]}'s {part.name}" for part in self.parts)

    def parts_of(self, class_id: int) -> tuple[int, ...]:
        """Part ids of one object class, sub-parts included."""
        return tuple(i for i, part in enumerate(self.parts) if part.object == class_id)

    def subparts_of(self, part_id: int) -> tuple[int, ...]:
        """Ids of all parts inside one part, at any depth."""
        inside = [part_id]
        for i, part in enumerate(self.parts):  # parents stand before their sub-parts
            if part.parent in inside:
                inside.append(i)
        return tuple(inside[1:])
