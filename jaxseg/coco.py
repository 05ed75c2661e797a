"""COCO's forms of masks, boxes and segment ids, shared by results and metrics.

Run lengths are dicts of `size` [H, W] and `counts`: bytes as pycocotools makes them, text as JSON holds them.
"""

import numpy as np
from PIL import Image

MAX_ID = 1 << 24  # segment ids of a PNG are colours, id = R + 256 G + 65536 B; 0 = no segment


def run_lengths(masks):
    """[N, H, W] bool (N may be 0) -> N run lengths, counts in bytes."""
    from pycocotools import mask as coco

    masks = np.asarray(masks)
    return coco.encode(np.asfortranarray(masks.astype(np.uint8).transpose(1, 2, 0))) if len(masks) else []


def as_text(rle):
    """The same run lengths, fit for JSON."""
    counts = rle["counts"]
    return {"size": [int(n) for n in rle["size"]], "counts": counts.decode("ascii") if isinstance(counts, bytes) else counts}


def encode_masks(masks):
    """[N, H, W] bool (N may be 0) -> N run lengths, counts as text."""
    return [as_text(rle) for rle in run_lengths(masks)]


def encode_mask(mask):
    """[H, W] bool -> run lengths, counts as text."""
    return encode_masks(np.asarray(mask)[None])[0]


def check_size(rle, size, where):
    """Refuses run lengths of another image size, of which pycocotools would make a wrong number without a word.

    Raises:
        ValueError: one line that says where, what was found and what was expected.
    """
    found = [int(n) for n in rle.get("size", ())]
    if found != [int(n) for n in size]:
        raise ValueError(f"{where}: mask of size {found}, the image is {[int(n) for n in size]} (height, width)")


def box_of(mask):
    """(x0, y0, x1, y1) around a mask [H, W], the last two exclusive; zeros where it is empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return (columns[0], rows[0], columns[-1] + 1, rows[-1] + 1) if len(rows) else (0, 0, 0, 0)


def xywh(box_xyxy):
    """COCO's box: [x, y, width, height] as floats."""
    x0, y0, x1, y1 = (float(v) for v in box_xyxy)
    return [x0, y0, x1 - x0, y1 - y0]


def id_picture(segment_map):
    """[H, W] ids below 2**24 -> the `PIL.Image` that stands for them.

    Raises:
        ValueError: an id that a picture cannot hold.
    """
    ids = np.asarray(segment_map)
    if ids.size and not (ids.min() >= 0 and ids.max() < MAX_ID):
        raise ValueError(f"segment ids: found {ids.min()} to {ids.max()}, expected 0 to {MAX_ID - 1}")
    return Image.fromarray(np.stack([ids >> shift & 255 for shift in (0, 8, 16)], -1).astype(np.uint8))


def read_ids(path):
    """[H, W] int32 of the ids in a PNG.

    Raises:
        ValueError: a picture without three channels.
    """
    rgb = np.asarray(Image.open(path))
    if rgb.ndim != 3 or rgb.shape[2] < 3:
        raise ValueError(f"{path}: found a picture of shape {rgb.shape}, expected three channels of segment ids")
    return ids_of(rgb)


def ids_of(rgb):
    """[H, W, 3] uint8 of a picture of ids -> [H, W] int32."""
    red, green, blue = (rgb[..., channel].astype(np.int32) for channel in range(3))
    return red + 256 * green + 65536 * blue
