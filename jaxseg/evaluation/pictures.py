"""Pictures of an evaluation: photograph, truth and prediction of the first examples of a split."""

import os

import jax
import numpy as np
from PIL import Image

from jaxseg.filenames import slug

_TITLES = ("image", "truth", "prediction")


class Gallery:
    """Collects examples until it is full, draws them at the end.

    Args:
        workdir: `<workdir>/pictures/<split>/` gets the files; None: no pictures.
        size: number of examples.
    """

    def __init__(self, split, vocabulary, workdir, size):
        self._split, self._vocabulary, self._workdir = split, vocabulary, workdir
        self._size = size if workdir and len(vocabulary) and jax.process_index() == 0 else 0
        self._examples = []

    @property
    def is_open(self):
        """Whether it takes more examples."""
        return len(self._examples) < self._size

    def add(self, predictions, batch, metas):
        """Takes what fits of a batch.

        Args:
            predictions: [B, Hc, Wc] class ids, -1 = none.
            batch: its `label_map` [B, Hc, Wc] and `example_mask` [B].
            metas: with `id`, `original_size` and `image`, the original pixels.
        """
        for i in range(len(metas)):
            if self.is_open and batch["example_mask"][i] and "image" in metas[i]:
                height, width = metas[i]["original_size"]
                window = (i, slice(height), slice(width))
                maps = batch["label_map"][window].copy(), predictions[window].copy()
                self._examples.append((str(metas[i]["id"]), metas[i]["image"], *maps))

    def write(self, step=0, writer=None):
        """Draws and writes the files; gives them to the writer too."""
        from jaxseg.visualize import draw_label_map, grid

        pictures = {}
        for number, (name, image, *maps) in enumerate(self._examples):
            nothing = np.full(image.shape[:2], -1)
            row = [draw_label_map(image, label_map, self._vocabulary) for label_map in (nothing, *maps)]
            pictures[f"{self._split}/{number:02d}_{slug(name)}"] = grid([_as_high(row)], _TITLES)
        for name, picture in pictures.items():
            path = os.path.join(self._workdir, "pictures", f"{name}.png")
            os.makedirs(os.path.dirname(path), exist_ok=True)
            Image.fromarray(picture).save(path)
        if writer is not None and pictures:
            writer.write_images(step, pictures)
        self._examples = []


def _as_high(pictures):
    """Pictures with white below, since their legends differ in length."""
    height = max(len(picture) for picture in pictures)
    return [np.pad(p, ((0, height - len(p)), (0, 0), (0, 0)), constant_values=255) for p in pictures]
