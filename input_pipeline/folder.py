"""Images with a label map each; a user's own folder of them, with classes.json, by its path alone."""

import os
from pathlib import Path

from input_pipeline.classes import read_classes, segments_of
from jaxseg.preprocess import reading

IMAGES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".tif", ".tiff", ".gif")
TREE = """expected
  {root}/
    classes.json      {{"classes": [{{"id": 0, "name": "sky"}}, ...], "ignore_index": 255}}
    train.txt         a line per image, "image label": train/a.jpg trainannot/a.png
    val.txt           the same (without a list: every image of {split}/ with the label of its name in {split}annot/)
  labels are PNGs of one channel whose pixels are class ids"""


class MapSource:
    """Images with one label map each.

    Args:
        name: for messages.
        root: folder that the pairs' paths start from.
        pairs: (image, label map) of each example; the image's path is the example's id.
        vocabulary: the class list.
        class_of: {stored id: class id}.
        void: stored ids that say nothing.
        bits: of the label maps, where it matters; see `reading.read_label_map`.
    """

    def __init__(self, name, root, pairs, vocabulary, class_of, void, bits=0):
        self.name, self.vocabulary = name, vocabulary
        self._root, self._pairs, self._class_of, self._void, self._bits = Path(root), pairs, class_of, void, bits

    def __len__(self):
        return len(self._pairs)

    def id(self, index):
        return self._pairs[index][0]

    def load(self, index):
        image, label = (str(self._root / part) for part in self._pairs[index])
        stored = reading.read_label_map(label, bits=self._bits)
        segment_map, segments = segments_of(stored, self._class_of, self._void, label)
        return {"id": self.id(index), "path": image, "segment_map": segment_map, "segments": segments}

    def size(self, index):
        return reading.image_size(self._root / self._pairs[index][0])


class FolderSource(MapSource):
    """A user's folder; classes.py describes classes.json.

    Raises:
        ValueError: the folder, a list, or files that it names are missing, with the tree that is expected; classes.json wrong.
    """

    def __init__(self, name, split):
        self._root = Path(name)
        if not self._root.is_dir():
            raise self._refusal("no such folder", split)
        if not (self._root / "classes.json").is_file():
            raise self._refusal("no classes.json", split)
        vocabulary, class_of, void = read_classes(self._root / "classes.json")
        listing = self._root / f"{split}.txt"
        if listing.is_file():
            pairs = self._listed(listing, split)
        elif (self._root / split).is_dir() and (self._root / f"{split}annot").is_dir():
            pairs = self._matched(split)
        else:
            raise self._refusal(f"no {split}.txt", split)
        if not pairs:
            raise self._refusal(f"split {split!r} has no images", split)
        check_existence(self._root, pairs, lambda what: self._refusal(what, split))
        super().__init__(f"{name}:{split}", name, pairs, vocabulary, class_of, void)

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


def check_existence(root, pairs, refusal):
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
