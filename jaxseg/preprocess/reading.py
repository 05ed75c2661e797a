"""Files to pixels: photographs as 8-bit RGB the way they are meant to be looked at, label maps as integers."""

import io
import struct
from pathlib import Path

import numpy as np
from PIL import Image, UnidentifiedImageError

MAX_PIXELS = 89_478_485  # PIL's own limit: beyond it, a small file may be a bomb that fills the memory
_ORIENTATION = 0x0112
_UPRIGHT = {
    2: Image.Transpose.FLIP_LEFT_RIGHT,
    3: Image.Transpose.ROTATE_180,
    4: Image.Transpose.FLIP_TOP_BOTTOM,
    5: Image.Transpose.TRANSPOSE,
    6: Image.Transpose.ROTATE_270,
    7: Image.Transpose.TRANSVERSE,
    8: Image.Transpose.ROTATE_90,
}
_SIXTEEN_BIT = ("I;16", "I;16L", "I;16B", "I;16N")
# What PIL raises on damaged files, beside OSError.
_DAMAGED = (OSError, SyntaxError, ValueError, EOFError, struct.error, IndexError, TypeError, Image.DecompressionBombError)


def read_image(file, *, name="", max_pixels=MAX_PIXELS, convert=True, sixteen_bit="scale") -> np.ndarray:
    """A photograph, upright, the first frame if it moves.

    Args:
        file: content (bytes), path, or an opened PIL image.
        name: what errors call it; the path by default.
        max_pixels: larger images are refused before they are decoded.
        convert: to RGB as PIL converts; else gray stays [H, W] and transparency [H, W, 4], as CLIP resizes them.
        sixteen_bit: gray of 16 bits "scale": keeps the high byte; "clip": cut at 255, as PIL's conversion does.

    Returns:
        uint8 [H, W, 3].

    Raises:
        ValueError: one line with the name: no such file, not an image, damaged, or too large.
    """
    name = name or (str(file) if isinstance(file, str | Path) else "image")
    with _open(file, name) as image:
        width, height = image.size
        if width * height > max_pixels:
            raise ValueError(f"{name}: {width} x {height} pixels, at most {max_pixels} are read")
        try:
            image.load()
            return np.array(_converted(_upright(image), convert, sixteen_bit))
        except _DAMAGED as error:
            raise ValueError(f"{name}: damaged image: {_line(error)}") from None


def image_size(file, *, name="") -> tuple[int, int]:
    """(height, width) of the upright photograph, from the head of the file alone."""
    with _open(file, name or str(file)) as image:
        width, height = image.size
        return (width, height) if _orientation(image) >= 5 else (height, width)


def read_label_map(file, *, name="", bits=0) -> np.ndarray:
    """A label map of one channel: gray of 8, 16 or 32 bits, or palette indices; PNG or TIFF.

    Args:
        file, name: as of `read_image`.
        bits: 16 refuses maps of 8 bits, which ids beyond 255 do not go into; 0 takes any.

    Returns:
        int32 [H, W], the stored numbers.

    Raises:
        ValueError: one line with the name: no such file, damaged, or colours instead of numbers.
    """
    name = name or (str(file) if isinstance(file, str | Path) else "label map")
    with _open(file, name) as image:
        if image.mode not in ("1", "L", "P", "I", *_SIXTEEN_BIT):
            raise ValueError(f"{name}: found a label map of mode {image.mode}, expected one channel of class ids")
        if bits == 16 and image.mode in ("1", "L", "P"):
            raise ValueError(f"{name}: found a label map of 8 bits, expected 16: ids beyond 255 are lost")
        if image.size[0] * image.size[1] > MAX_PIXELS:
            raise ValueError(f"{name}: {image.size[0]} x {image.size[1]} pixels, at most {MAX_PIXELS} are read")
        try:
            return np.array(image).astype(np.int32)
        except _DAMAGED as error:
            raise ValueError(f"{name}: damaged label map: {_line(error)}") from None


def _open(file, name):
    if isinstance(file, Image.Image):
        return file.copy()
    try:
        if isinstance(file, str | Path):
            file = Path(file).read_bytes()  # closed at once: the pixels are read later
        if not len(file):
            raise ValueError(f"{name}: the file is empty")
        return Image.open(io.BytesIO(file))
    except FileNotFoundError:
        raise ValueError(f"{name}: no such file") from None
    except UnidentifiedImageError:
        raise ValueError(f"{name}: not an image that can be read") from None
    except Image.DecompressionBombError:
        raise ValueError(f"{name}: more pixels than are read ({MAX_PIXELS})") from None
    except (OSError, SyntaxError, struct.error) as error:
        raise ValueError(f"{name}: cannot be read: {_line(error)}") from None


def _line(error):
    return " ".join(str(error).split()) or type(error).__name__


def _orientation(image):
    try:
        return int(image.getexif().get(_ORIENTATION, 1))
    except Exception:  # damaged EXIF: the pixels are still good
        return 1


def _upright(image):
    turn = _UPRIGHT.get(_orientation(image))
    return image if turn is None else image.transpose(turn)


def _converted(image, convert, sixteen_bit):
    if sixteen_bit == "scale" and image.mode in (*_SIXTEEN_BIT, "I"):
        wide = np.asarray(image).astype(np.int64)
        image = Image.fromarray((wide >> (8 if image.mode != "I" or wide.max() > 255 else 0)).clip(0, 255).astype(np.uint8))
    if convert:
        return image.convert("RGB")
    if image.mode in ("LA", "PA", "RGBa") or "transparency" in image.info:
        return image.convert("RGBA")
    return image if image.mode in ("L", "RGB", "RGBA") else image.convert("RGB")
