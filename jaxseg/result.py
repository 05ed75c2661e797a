"""What segmentation returns: masks, boxes, scores and labels at the size of the photograph."""

import dataclasses
import json
import os
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from PIL import Image

from jaxseg import filenames
from jaxseg.coco import as_text, box_of, id_picture, run_lengths, xywh


class Panoptic(NamedTuple):
    """Non-overlapping segments.

    Attributes:
        ids: [H, W] int32; 0 = no segment.
        segments_info: of each segment that is left: `id`, `category_id`, `category`, `score`, `area` (pixels), `bbox`
            (x, y, width, height), `iscrowd`: COCO's fields, and two more.
    """

    ids: np.ndarray
    segments_info: list[dict[str, Any]]

    def to_png(self):
        """COCO's picture of the ids, a `PIL.Image`: id = R + 256 G + 65536 B."""
        return id_picture(self.ids)


class Masks(Sequence):
    """N masks [H, W] bool that are decoded one at a time, when they are asked for."""

    def __init__(self, rles):
        self._rles = rles

    def __len__(self):
        return len(self._rles)

    def __getitem__(self, index):
        if isinstance(index, slice):
            return Masks(self._rles[index])
        from pycocotools import mask as coco

        return np.ascontiguousarray(coco.decode(self._rles[index]), bool)  # COCO's order is by columns


@dataclasses.dataclass(frozen=True, eq=False, repr=False)
class Result:
    """N masks of one image. Masks are held as COCO run lengths: a result of 1,000 prompts is small.

    Attributes:
        size: (H, W) of the image.
        rles: N dicts of COCO: `size` and `counts` (bytes).
        boxes: [N, 4] float32, (x0, y0, x1, y1) in pixels, x1 and y1 exclusive; zeros where the mask is empty.
        scores: [N] float32.
        labels: N names.
        path: where the image came from, or "".
        image: uint8 [H, W, 3], or None where it is not known.
    """

    size: tuple[int, int]
    rles: tuple[dict[str, Any], ...]
    boxes: np.ndarray
    scores: np.ndarray
    labels: tuple[str, ...]
    path: str = ""
    image: np.ndarray | None = None

    @classmethod
    def from_masks(cls, masks, scores, labels, path="", image=None):
        """A result of masks [N, H, W] bool (N may be 0), scores [N] and N labels.

        Raises:
            ValueError: where these do not fit together, or a score is not finite.
        """
        masks, scores = np.asarray(masks), np.asarray(scores, np.float32).reshape(-1)
        if masks.ndim != 3 or masks.dtype != bool:
            raise ValueError(f"masks: found {masks.dtype} {masks.shape}, expected bool [N, H, W]")
        if not len(masks) == len(scores) == len(labels):
            raise ValueError(f"result: found {len(masks)} masks, {len(scores)} scores and {len(labels)} labels")
        if not np.isfinite(scores).all():
            raise ValueError(f"scores: found {scores.tolist()}, expected finite numbers; are the weights?")
        if image is not None and image.shape[:2] != masks.shape[1:]:
            raise ValueError(f"result: masks of {masks.shape[1:]} pixels for an image of {image.shape[:2]}")
        boxes = np.array([box_of(mask) for mask in masks], np.float32).reshape(-1, 4)
        rles = tuple(run_lengths(mask[None])[0] for mask in masks)  # one by one: a copy of each, not of all
        return cls(tuple(masks.shape[1:]), rles, boxes, scores, tuple(labels), path, image)

    @classmethod
    def join(cls, parts):
        """The results of one image for several lists of names, as one."""
        first = parts[0]
        return dataclasses.replace(
            first,
            rles=tuple(rle for part in parts for rle in part.rles),
            boxes=np.concatenate([part.boxes for part in parts]),
            scores=np.concatenate([part.scores for part in parts]),
            labels=tuple(label for part in parts for label in part.labels),
        )

    def __len__(self):
        return len(self.labels)

    def __repr__(self):
        rows = zip(self.labels, self.scores, self.areas, strict=True)
        found = [f"{label} {score:.2f}" for label, score, area in rows if area]
        more = ", ..." if len(found) > 8 else ""
        return f"Result({self.size[0]}x{self.size[1]}, {len(found)} of {len(self)} found: {', '.join(found[:8])}{more})"

    @property
    def masks(self):
        """[N, H, W] bool, all at once; `mask(i)` gives one."""
        out = np.zeros((len(self), *self.size), bool)
        for i, mask in enumerate(Masks(self.rles)):
            out[i] = mask
        return out

    def mask(self, index):
        """[H, W] bool by position or by label (the first of that name)."""
        if isinstance(index, str):
            if index not in self.labels:
                raise ValueError(f"mask: found {index!r}, expected one of {', '.join(self.labels[:10])}")
            index = self.labels.index(index)
        return Masks(self.rles)[index]

    @property
    def areas(self):
        """[N] int64, pixels of each mask."""
        from pycocotools import mask as coco

        return coco.area(list(self.rles)).astype(np.int64) if self.rles else np.zeros(0, np.int64)

    def picture(self):
        """The photograph with masks, outlines and names on it: a `PIL.Image`.

        Raises:
            ValueError: where the photograph is neither held nor readable at `path`.
        """
        from jaxseg.preprocess.reading import read_image
        from jaxseg.visualize import draw_masks

        image = self.image
        if image is None:
            if not os.path.isfile(self.path):
                raise ValueError(f"picture: the image is not known; found path {self.path!r}, expected a readable file")
            image = read_image(self.path)
        return Image.fromarray(draw_masks(image, Masks(self.rles), self.labels, self.scores))

    def show(self):
        """Opens the picture in a window where there is a screen, and returns it (a notebook displays it)."""
        picture = self.picture()
        screen = sys.platform in ("darwin", "win32") or any(map(os.environ.get, ("DISPLAY", "WAYLAND_DISPLAY")))
        if screen and "IPython" not in sys.modules:
            picture.show()
        return picture

    def to_coco(self, image_id=0, category_ids: Mapping[str, int] | None = None):
        """A list in the format of COCO's results files, without the empty masks.

        Args:
            image_id: of this image in the annotation file.
            category_ids: label -> id; by default labels are counted from 1 in the order of their first use.
        """
        ids = self._category_ids(category_ids)
        return [
            {
                "image_id": image_id,
                "category_id": ids[label],
                "category": label,
                "segmentation": as_text(rle),
                "bbox": xywh(box),
                "score": float(score),
            }
            for label, rle, box, score in zip(self.labels, self.rles, self.boxes, self.scores, strict=True)
            if box[2] > box[0]
        ]

    def to_panoptic(self, category_ids: Mapping[str, int] | None = None):
        """A `Panoptic`: where masks overlap, the pixel belongs to that of higher score (of equals, to the first)."""
        ids = np.zeros(self.size, np.int32)
        for i in np.argsort(-self.scores, kind="stable")[::-1]:
            ids[Masks(self.rles)[i]] = i + 1
        areas, category_ids = np.bincount(ids.ravel(), minlength=len(self) + 1), self._category_ids(category_ids)
        segments = [
            {
                "id": i + 1,
                "category_id": category_ids[label],
                "category": label,
                "score": float(self.scores[i]),
                "area": int(areas[i + 1]),
                "bbox": xywh(box_of(ids == i + 1)),
                "iscrowd": 0,
            }
            for i, label in enumerate(self.labels)
            if areas[i + 1]
        ]
        return Panoptic(ids, segments)

    def save(self, folder, stem):
        """Writes `<stem>_masks/<label>.png` (0 and 255), the picture `<stem>.png`, and last `<stem>.json`.

        Returns:
            The path of the JSON: `path`, `size`, `prompts`, `picture`, and of every mask its `label`, `score`,
            `box_xyxy`, `area`, `rle` (COCO) and `file`, relative to the JSON.
        """
        folder = Path(folder)
        masks = folder / f"{stem}_masks"
        masks.mkdir(parents=True, exist_ok=True)
        files = [f"{masks.name}/{name}.png" for name in filenames.unique(map(filenames.slug, self.labels))]
        for file, mask in zip(files, Masks(self.rles), strict=True):
            Image.fromarray(mask.view(np.uint8) * 255).save(folder / file, compress_level=1)
        picture = f"{stem}.png" if self.image is not None or os.path.isfile(self.path) else ""
        if picture:
            self.picture().save(folder / picture, compress_level=1)
        rows = zip(self.labels, self.scores, self.boxes, self.areas, self.rles, files, strict=True)
        content = {
            "path": self.path,
            "size": list(self.size),
            "prompts": list(self.labels),
            "picture": picture,
            "masks": [
                {
                    "label": label,
                    "score": float(score),
                    "box_xyxy": box.tolist(),
                    "area": int(area),
                    "rle": as_text(rle),
                    "file": file,
                }
                for label, score, box, area, rle, file in rows
            ],
        }
        file = folder / f"{stem}.json"
        file.write_text(json.dumps(content, indent=1), encoding="utf-8")
        return file

    def _category_ids(self, given):
        labels = list(dict.fromkeys(self.labels))
        if given is None:
            return {label: i + 1 for i, label in enumerate(labels)}
        missing = [label for label in labels if label not in given]
        if missing:
            raise ValueError(f"category_ids: found none for {missing[:5]}, expected one for every label")
        return given
