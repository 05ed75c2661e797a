"""Published data sets by name, each in the layout that its papers use, under one root.

`{"kind": "benchmark", "name": "ade20k_847", "root": "/datasets", "split": "val"}`. A name has one or more layouts; the first
whose files are there is read. The command that makes derived files is `python -m input_pipeline.prepare`.
"""

import dataclasses
import difflib
from pathlib import Path

from input_pipeline.coco import CocoSource
from input_pipeline.folder import IMAGES, MapSource, check_existence
from input_pipeline.panoptic import PanopticSource
from jaxseg.text import class_lists

# What ADE20K and those who follow it call the splits.
WORDS = {"train": "training", "val": "validation"}


def _filled(text, split):
    return text.format(split=split, word=WORDS.get(split, split))


@dataclasses.dataclass(frozen=True)
class _Layout:
    """What all layouts have; in paths stands `{split}` for train or val, `{word}` for training or validation.

    Attributes:
        classes: a list of `jaxseg.text.class_lists`.
        images: folder of the photographs.
        command: what `input_pipeline.prepare` calls the making of the derived files, if some are.
        splits: that there are.
    """

    classes: str
    images: str
    command: str = ""
    splits: tuple[str, ...] = ("train", "val")

    def needed(self, split):
        """Paths under the root, folders with a closing slash."""
        return [_filled(path, split) for path in (f"{self.images}/", *self._derived())]

    def missing(self, root, split):
        return [path for path in self.needed(split) if not (root / path).exists()]


@dataclasses.dataclass(frozen=True)
class _Instances(_Layout):
    """A COCO JSON of instances; `keep` says which images are evaluated, training leaves out those without objects."""

    annotations: str = ""
    keep: str = "all"

    def _derived(self):
        return (self.annotations,)

    def open(self, root, split, name):
        del name
        keep = "objects" if split == "train" else self.keep
        images = str(root / _filled(self.images, split))
        return CocoSource(str(root / _filled(self.annotations, split)), "all", images, self.classes, keep)


@dataclasses.dataclass(frozen=True)
class _Panoptic(_Layout):
    """COCO's panoptic JSON and PNGs; `semantic` are maps (class id + `first`) that semantic evaluation reads, or none."""

    annotations: str = ""
    segments: str = ""
    semantic: str = ""
    first: int = 0

    def _derived(self):
        return (self.annotations, f"{self.segments}/", *((f"{self.semantic}/",) if self.semantic else ()))

    def open(self, root, split, name):
        del name
        images, path, segments, *semantic = (str(root / p) for p in self.needed(split))
        maps = semantic[0] if semantic and split != "train" else ""
        return PanopticSource(path, "all", images, segments, self.classes, maps, self.first)


@dataclasses.dataclass(frozen=True)
class _Maps(_Layout):
    """A label map of class id + `first` for each image, of the same name and another ending.

    `listing` names the images of a split, one a line; without it they are all of the folder.
    """

    labels: str = ""
    ending: str = ".png"
    first: int = 0
    void: int = 255
    listing: str = ""

    def _derived(self):
        return (f"{self.labels}/", *((self.listing,) if self.listing else ()))

    def open(self, root, split, name):
        images, labels = _filled(self.images, split), _filled(self.labels, split)
        if self.listing:
            listing = root / _filled(self.listing, split)
            lines = listing.read_text(encoding="utf-8-sig").splitlines()
            files = [f"{line.strip()}.jpg" for line in lines if line.strip()]
        else:
            listing = root / images
            files = sorted(p.name for p in listing.iterdir() if p.suffix.lower() in IMAGES)
        if not files:
            raise ValueError(f"{listing}: {name} has no images of split {split!r} there")
        pairs = [(f"{images}/{file}", f"{labels}/{Path(file).stem}{self.ending}") for file in files]
        check_existence(root, pairs, lambda what: _refusal(root, what, self, split, name))
        vocabulary = class_lists.vocabulary(self.classes)
        class_of = {k + self.first: k for k in range(len(vocabulary))}
        bits = 16 if self.void > 255 else 0
        return MapSource(f"{name}:{split}", root, pairs, vocabulary, class_of, {self.void}, bits)


_OF_65 = "coco/annotations/ov_split_48_17/instances_{split}2017_%s.json"
_ALL_OF_COCO = "coco/annotations/instances_{split}2017.json"
_COCO_IMAGES = "coco/{split}2017"


def _subset(classes, prepared):
    """A part of COCO's classes: of the file that is prepared for it or, which gives the same, of the whole one."""
    whole = _Instances(classes, _COCO_IMAGES, annotations=_ALL_OF_COCO, keep="annotated")
    return (dataclasses.replace(whole, annotations=_OF_65 % prepared, command="coco_splits"), whole)


def _ade20k():
    """{name: layouts} of what stands in ADEChallengeData2016, itself in the root or in its folder `ade`."""
    found = {"ade20k_150": [], "ade20k_panoptic": [], "ade20k_instance": []}
    for base in ("ADEChallengeData2016", "ade/ADEChallengeData2016"):
        images = f"{base}/images/{{word}}"
        shifted, stored = f"{base}/annotations_detectron2/{{word}}", f"{base}/annotations/{{word}}"
        found["ade20k_150"] += [
            _Maps("ade20k_150", images, "ade20k_semantic", labels=shifted),
            _Maps("ade20k_150", images, labels=stored, first=1, void=0),
        ]
        name = f"{base}/ade20k_panoptic_{{split}}"
        panoptic = _Panoptic("ade20k_150", images, "ade20k_panoptic", annotations=f"{name}.json", segments=name)
        found["ade20k_panoptic"] += [
            dataclasses.replace(panoptic, semantic=shifted),
            dataclasses.replace(panoptic, semantic=stored, first=1),
        ]
        annotations = f"{base}/ade20k_instance_{{split}}.json"
        found["ade20k_instance"].append(_Instances("ade20k_instance", images, "ade20k_instance", annotations=annotations))
    return found


def _ade20k_full(base):
    images, labels = (f"{base}ADE20K_2021_17_01/{kind}_detectron2/{{word}}" for kind in ("images", "annotations"))
    return _Maps("ade20k_847", images, "ade20k_847", labels=labels, ending=".tif", void=65535)


def _pascal_context(classes, ending, void):
    """MasQCLIP's layout, which has the images of val alone, and HIPIE's."""
    name = f"pascal_context_{classes}"
    maps = {"ending": ending, "void": void}
    full = "pascal_context_full"
    ours = _Maps(name, f"{full}/images", name, ("val",), labels=f"{full}/labels_{classes}", listing=f"{full}/val.txt", **maps)
    labels = f"pascal_ctx_d2/annotations_ctx{classes}/{{word}}"
    return (ours, _Maps(name, "pascal_ctx_d2/images/{word}", labels=labels, **maps))


_VOC = "VOCdevkit/VOC2012"
LAYOUTS = {
    "coco_panoptic": (
        _Panoptic(
            "coco_panoptic",
            _COCO_IMAGES,
            annotations="coco/annotations/panoptic_{split}2017.json",
            segments="coco/panoptic_{split}2017",
        ),
    ),
    "coco_instance": (_Instances("coco_instance", _COCO_IMAGES, annotations=_ALL_OF_COCO),),
    "coco_base48": _subset("coco_base48", "seen48"),
    "coco_novel17": _subset("coco_novel17", "unseen17"),
    "coco_instances65": _subset("coco_instances65", "instances65"),
    **_ade20k(),
    "ade20k_847": (_ade20k_full(""), _ade20k_full("ade/")),
    "pascal_context_59": _pascal_context(59, ".png", 255),
    "pascal_context_459": _pascal_context(459, ".tif", 65535),
    "pascal_voc_21": (
        _Maps(
            "pascal_voc_21",
            f"{_VOC}/JPEGImages",
            labels=f"{_VOC}/SegmentationClass",
            listing=f"{_VOC}/ImageSets/Segmentation/{{split}}.txt",
        ),
        _Maps("pascal_voc_21", "pascal_voc_d2/images/{word}", labels="pascal_voc_d2/annotations_pascal21/{word}"),
    ),
}


def open_benchmark(name, split, root):
    """The source of a published data set.

    Args:
        name: a key of `LAYOUTS`.
        split: train or val.
        root: folder that holds the layouts.

    Raises:
        ValueError: an unknown name or split, or files that are not there, with the tree that is expected and the command that
            makes what is derived.
    """
    if name not in LAYOUTS:
        near = difflib.get_close_matches(str(name), LAYOUTS, 1)
        hint = f"did you mean {near[0]!r}?" if near else f"expected one of {', '.join(LAYOUTS)}"
        raise ValueError(f"benchmark: found {name!r}, {hint}")
    root = Path(root)
    layouts = [layout for layout in LAYOUTS[name] if split in layout.splits]
    if not layouts:
        known = sorted({s for layout in LAYOUTS[name] for s in layout.splits})
        raise ValueError(f"{name}: found split {split!r}, expected {' or '.join(known)}")
    found = next((layout for layout in layouts if not layout.missing(root, split)), None)
    if found is None:
        # The layout that most is there of: what is missing of it is the user's next step.
        nearest = min(layouts, key=lambda layout: len(layout.missing(root, split)))
        what = f"no {nearest.missing(root, split)[0]}" if root.is_dir() else "no such folder"
        raise _refusal(root, what, nearest, split, name)
    return found.open(root, split, name)


def _refusal(root, what, layout, split, name):
    lines = [f"{root}: {what}; {name} expects", f"  {root}/", *(f"    {path}" for path in layout.needed(split))]
    if layout.command:
        lines.append(f"  `python -m input_pipeline.prepare {layout.command} --root={root}` makes what is derived")
    return ValueError("\n".join(lines))
