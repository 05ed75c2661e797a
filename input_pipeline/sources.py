"""Where examples come from. A source is opened from plain data: `{"kind": "folder", "name": PATH, "split": "train"}`."""

import os
from typing import Any, Protocol

from jaxseg.text.vocabulary import Vocabulary

KINDS = ("tfds", "folder", "coco")


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
        spec: `kind`, `name`, `split`, and options of the kind: `images` (coco); `data_dir`, `labels`, `classes` (tfds).
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
        raise ValueError(f"{where}.name: found {options.get('name')!r}, expected a path or a tfds name")
    if kind == "folder" and os.path.isfile(os.path.join(options["name"], "features.json")):
        kind = "tfds"  # a folder that tfds has prepared
    if kind == "folder":
        from input_pipeline.folder import FolderSource as Kind
    elif kind == "coco":
        from input_pipeline.coco import CocoSource as Kind
    else:
        from input_pipeline.records import RecordSource as Kind
    unknown = sorted(set(options) - set(Kind.OPTIONS))
    if unknown:
        raise ValueError(f"{where}.{unknown[0]}: {kind} sources have no such option; they take {', '.join(Kind.OPTIONS)}")
    return Kind(**options)
