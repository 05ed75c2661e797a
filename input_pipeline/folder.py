"""A folder of images and label-map PNGs with classes.json: a user's own data by its path alone."""

import json
import os
from pathlib import Path

import numpy as np

from jaxseg.preprocess import reading
from jaxseg.text.vocabulary import Vocabulary

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
VOID = (255, 65535)  # void in 8 and 16 bits, unless they are class ids
TREE = """expected
  {root}/
    classes.json      {{"classes": [{{"id": 0, "name": "sky"}}, ...], "ignore_index": 255}}
    train.txt         a line per image, "image label": train/a.jpg trainannot/a.png
    val.txt           the same (without a list: every image of {split}/ with the label of its name in {split}annot/)
  labels are PNGs of one channel whose pixels are class ids"""


class FolderSource:
    """Images with one label map each.

    classes.json may also give each class a `color` and `is_thing`, and `groups`: {"unseen": ["zebra", ...]}.

    Raises:
        ValueError: the folder, a list, or files that it names are missing, with the tree that is expected; classes.json wrong.
    """

    OPTIONS = ("name", "split")

    def __init__(self, name, split):
        self._root = Path(name)
        self.name = f"{name}:{split}"
        if not self._root.is_dir():
            raise self._refusal("no such folder", split)
        if not (self._root / "classes.json").is_file():
            raise self._refusal("no classes.json", split)
        self.vocabulary, self._class_of, self._void = read_classes(self._root / "classes.json")
        listing = self._root / f"{split}.txt"
        if listing.is_file():
            self._pairs = self._listed(listing, split)
        elif (self._root / split).is_dir() and (self._root / f"{split}annot").is_dir():
            self._pairs = self._matched(split)
        else:
            raise self._refusal(f"no {split}.txt", split)
        if not self._pairs:
            raise self._refusal(f"split {split!r} has no images", split)
        _check_existence(self._root, self._pairs, lambda what: self._refusal(what, split))

    def __len__(self):
        return len(self._pairs)

    def id(self, index):
        return self._pairs[index][0]

    def load(self, index):
        image, label = (str(self._root / part) for part in self._pairs[index])
        stored = reading.read_label_map(label)
        segment_map, segments = self._segments(stored, label)
        return {"id": self.id(index), "path": image, "segment_map": segment_map, "segments": segments}

    def size(self, index):
        return reading.image_size(self._root / self._pairs[index][0])

    def _segments(self, stored, label):
        """One segment per class, of id class + 1; 0 = void."""
        values, where = np.unique(stored, return_inverse=True)
        ids = np.zeros(len(values), np.int32)
        segments = []
        for i, value in enumerate(values.tolist()):
            if value in self._class_of:
                ids[i] = self._class_of[value] + 1
                segments.append({"id": int(ids[i]), "class_id": self._class_of[value], "is_crowd": False})
            elif value not in self._void:
                known = sorted(self._class_of)
                raise ValueError(
                    f"{label}: pixel value {value} is no class id ({known[0]} to {known[-1]}) and not void "
                    f"({', '.join(map(str, sorted(self._void)))}); see classes.json"
                )
        return ids[where].reshape(stored.shape), segments

    def _listed(self, listing, split):
        pairs = []
        for number, line in enumerate(listing.read_text(encoding="utf-8-sig").splitlines(), 1):
            if line.strip():
                pair = self._split_line(line.strip())
                if pair is None:
                    found = f"{listing.name} line {number}: found {line.strip()[:80]!r}, expected 'image label'"
                    raise self._refusal(found, split)
                pairs.append(pair)
        return pairs

    def _split_line(self, line):
        words = line.split("\t") if "\t" in line else line.split()
        if len(words) == 2:
            return tuple(words)
        # Names with spaces: the cut at which both files exist.
        for i, character in enumerate(line):
            if character == " " and all((self._root / part.strip()).is_file() for part in (line[:i], line[i:])):
                return line[:i].strip(), line[i:].strip()
        return None

    def _matched(self, split):
        labels = {p.stem: p.name for p in sorted((self._root / f"{split}annot").iterdir()) if p.suffix.lower() in IMAGES}
        images = sorted(p for p in (self._root / split).iterdir() if p.suffix.lower() in IMAGES)
        alone = [p.name for p in images if p.stem not in labels]
        if alone:
            found = f"{len(alone)} images of {split}/ have no label in {split}annot/, the first is {alone[0]}"
            raise self._refusal(found, split)
        return [(f"{split}/{p.name}", f"{split}annot/{labels[p.stem]}") for p in images]

    def _refusal(self, what, split):
        return ValueError(f"{self._root}: {what}; " + TREE.format(root=self._root, split=split))


def _check_existence(root, pairs, refusal):
    """Looks for every file, a folder at a time."""
    listings, missing = {}, []
    for part in (part for pair in pairs for part in pair):
        folder, name = os.path.split(part)
        if folder not in listings:
            path = root / folder
            listings[folder] = set(os.listdir(path)) if path.is_dir() else set()
        if name not in listings[folder]:
            missing.append(part)
    if missing:
        raise refusal(f"{len(missing)} listed files do not exist, the first is {missing[0]}")


def read_classes(path):
    """(vocabulary, {stored id: class id}, stored ids that are void) of a classes.json.

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
