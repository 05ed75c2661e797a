"""Where examples come from. A source is opened from plain data: `{"kind": "folder", "name": PATH, "split": "train"}`."""

import importlib
import inspect
import os
from typing import Any, Protocol

from jaxseg.text.vocabulary import Vocabulary

# Kind -> what opens it; a source's options are its arguments.
KINDS = {
    "tfds": "input_pipeline.records.RecordSource",
    "folder": "input_pipeline.folder.FolderSource",
    "coco": "input_pipeline.coco.CocoSource",
    "coco_panoptic": "input_pipeline.panoptic.PanopticSource",
    "benchmark": "input_pipeline.benchmarks.open_benchmark",
}


class Source(Protocol):
    """Examples by index, read when asked and from several threads at once.

    Attributes:
        name: for messages.
        vocabulary: the class list that class ids refer to.
    """

    name: str
    vocabulary: Vocabulary

    def __len__(self) -> int: ...

    def id(self, index: int) -> str:
        """Unique in the source; known without reading."""

    def load(self, index: int) -> dict[str, Any]:
        """One example: `id`, `path`, pixels (`encoded`, `image`, or the file at `path`) and annotations; see preprocess."""

    def size(self, index: int) -> tuple[int, int]:
        """(height, width) of the upright image, without decoding it where that is possible."""


def open_source(spec, where="source") -> Source:
    """The source that plain data describe; what it needs is looked for, not read.

    Args:
        spec: `kind`, `name`, `split`, and options of the kind, which are the arguments of its class in `KINDS`.
        where: the config field, for messages.

    Raises:
        ValueError: unknown kind or option, or data that are not there, with what was expected.
    """
    options = dict(spec)
    kind = options.pop("kind", None)
    for plan_option in ("ratio", "batch_kind", "preprocess"):
        options.pop(plan_option, None)
    if kind not in KINDS:
        raise ValueError(f"{where}.kind: found {kind!r}, expected one of {', '.join(KINDS)}")
    if not options.get("name"):
        raise ValueError(f"{where}.name: found {options.get('name')!r}, expected a path or a name")
    if kind == "folder" and os.path.isfile(os.path.join(options["name"], "features.json")):
        kind = "tfds"  # a folder that tfds has prepared
    module, name = KINDS[kind].rsplit(".", 1)
    opener = getattr(importlib.import_module(module), name)
    parameters = inspect.signature(opener).parameters
    known = list(parameters)
    unknown = sorted(set(options) - set(known))
    if unknown:
        raise ValueError(f"{where}.{unknown[0]}: {kind} sources have no such option; they take {', '.join(known)}")
    missing = [n for n, p in parameters.items() if p.default is p.empty and n not in options]
    if missing:
        raise ValueError(f"{where}.{missing[0]}: {kind} sources need it; they take {', '.join(known)}")
    return opener(**options)
