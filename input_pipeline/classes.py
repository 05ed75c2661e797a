"""classes.json: which number in a label map is which class."""

import json

import numpy as np

from jaxseg.text.vocabulary import Vocabulary

VOID = (255, 65535)  # void in 8 and 16 bits, unless they are class ids


def read_classes(path):
    """(vocabulary, {stored id: class id}, stored ids that are void) of a classes.json.

    `{"classes": [{"id": 0, "name": "sky"}, ...], "ignore_index": 255}`; a class may have a `color` and `is_thing`, and
    `groups` may name some of them: `{"unseen": ["zebra", ...]}`. A plain list of names will do.

    Raises:
        ValueError: one line naming the entry that is wrong.
    """
    try:
        found = json.loads(path.read_text(encoding="utf-8-sig"))
    except (ValueError, OSError) as error:
        raise ValueError(f"{path}: cannot be read as JSON: {error}") from None
    found = found if isinstance(found, dict) else {"classes": found}
    entries = [{"name": c} if isinstance(c, str) else c for c in found.get("classes") or ()]
    if not entries or not all(isinstance(c, dict) and isinstance(c.get("name"), str) and c["name"].strip() for c in entries):
        raise ValueError(f'{path}: expected {{"classes": [{{"id": 0, "name": "sky"}}, ...]}}, every class with a name')
    ids = [c.get("id", i) for i, c in enumerate(entries)]
    if not all(isinstance(i, int) and i >= 0 for i in ids) or len(set(ids)) != len(ids):
        raise ValueError(f"{path}: class ids are {ids[:10]}, expected integers from 0 on, each once")
    names = tuple(c["name"].strip() for c in entries)
    unknown = [n for members in found.get("groups", {}).values() for n in members if n not in names]
    if unknown:
        raise ValueError(f"{path}: groups name {unknown[0]!r}, which is no class")
    colors = tuple(tuple(c["color"]) for c in entries) if all(len(c.get("color", ())) == 3 for c in entries) else ()
    groups = {group: tuple(names.index(n) for n in members) for group, members in found.get("groups", {}).items()}
    vocabulary = Vocabulary(names, tuple(bool(c.get("is_thing", True)) for c in entries), groups, colors)
    ignored = found.get("ignore_index", [])
    void = {*VOID, *(ignored if isinstance(ignored, list) else [ignored])} - set(ids)
    return vocabulary, {i: k for k, i in enumerate(ids)}, void


def class_ids(stored, class_of, void, name):
    """A label map as class ids.

    Args:
        stored: integers [H, W].
        class_of: {stored id: class id}.
        void: stored ids that say nothing.
        name: of the map, for messages.

    Returns:
        (int32 [H, W] of class ids, -1 = void; the classes that have pixels, by stored id).

    Raises:
        ValueError: a number that is neither a class nor void.
    """
    values, where = np.unique(stored, return_inverse=True)
    unknown = [v for v in values.tolist() if v not in class_of and v not in void]
    if unknown:
        known = sorted(class_of)
        raise ValueError(
            f"{name}: pixel value {unknown[0]} is no class id ({known[0]} to {known[-1]}) and not void "
            f"({', '.join(map(str, sorted(void)))})"
        )
    ids = np.array([class_of.get(v, -1) for v in values.tolist()], np.int32)
    return ids[where].reshape(stored.shape), ids[ids >= 0].tolist()


def segments_of(stored, class_of, void, name):
    """The same as one segment per class, of id class + 1: (segment_map int32 [H, W], 0 = void; segments)."""
    classes, present = class_ids(stored, class_of, void, name)
    return classes + 1, [{"id": c + 1, "class_id": c, "is_crowd": False} for c in present]
