"""Images as users have them: paths, bytes, `PIL.Image`s, arrays of many kinds."""

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import NamedTuple

import numpy as np
from PIL import Image


class Photograph(NamedTuple):
    """An image that was read and is ready to be encoded; made on the host, by any thread.

    Attributes:
        pixels: uint8 [H, W, 3], the original.
        inputs: arrays of the model's batch, without its batch axis.
        path: where it came from, or "".
    """

    pixels: np.ndarray
    inputs: dict[str, np.ndarray]
    path: str

    @property
    def size(self):
        return self.pixels.shape[:2]


def is_many(image):
    """Whether it is a list of images, or an array with a batch axis."""
    if isinstance(image, str | bytes | Path | Image.Image):
        return False
    if isinstance(image, Sequence):
        return True
    if isinstance(image, Iterable) and not hasattr(image, "shape"):
        raise ValueError(f"image: found {type(image).__name__}, expected one image or a list of images")
    return getattr(image, "ndim", 0) == 4


def example_of(image):
    """The example that preprocessing starts from: its `decode` reads files and turns photographs upright.

    Raises:
        ValueError: an address, or an array that is no picture: what was found and what was expected.
    """
    if isinstance(image, str | Path):
        if str(image).startswith(("http://", "https://")):
            raise ValueError(f"image: found the address {str(image)[:80]!r}, expected a file; download it first")
        return {"path": str(image)}
    if isinstance(image, Image.Image):
        return {"image": image, "path": getattr(image, "filename", "")}
    if isinstance(image, bytes):
        return {"encoded": image}
    return {"image": _as_uint8(np.asarray(image))}


def _as_uint8(array):
    """uint8 of an array of any kind of grey levels."""
    if array.ndim not in (2, 3) or (array.ndim == 3 and array.shape[2] not in (1, 3, 4)):
        channels_first = array.ndim == 3 and array.shape[0] in (1, 3, 4)
        hint = "; move the channels to the end" if channels_first else ""
        raise ValueError(f"image: found an array {array.shape}, expected [H, W], [H, W, 3] or [H, W, 4]{hint}")
    if array.dtype == np.uint8:
        return array
    if array.dtype == bool:
        return array.astype(np.uint8) * 255
    if array.dtype == np.uint16:
        return (array >> 8).astype(np.uint8)
    if array.dtype.kind != "f":
        raise ValueError(f"image: found an array of {array.dtype}, expected uint8, uint16, bool or floats in [0, 1]")
    low, high = (float(f(array)) for f in (np.min, np.max)) if array.size else (0.0, 0.0)
    if not (low >= 0 and high <= 1):  # false for NaN too
        raise ValueError(f"image: found floats from {low:g} to {high:g}, expected [0, 1] (or uint8 for 0 to 255)")
    return np.round(array.astype(np.float32) * 255).astype(np.uint8)
