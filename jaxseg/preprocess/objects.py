"""Objects with their own outlines, as COCO has them: checked when an image is decoded, moved with its pixels, drawn when asked.

After `decode` an object's `segmentation` is a list of polygons (float arrays [n, 2] of x, y) or a mask uint8 [h, w],
`has_outline` says whether it came with either, and `box_xyxy` is a float array inside the image. Polygons stay polygons
while pixels move, so that they are drawn once, at the size that is used.
"""

import numpy as np
from pycocotools import mask as coco

_MIN_SIDE = 1e-5  # pixels; a box of less is empty to detectron2


def checked(objects, size, name):
    """Objects that can be drawn on an image of `size` (height, width).

    Polygons of fewer than three points are dropped, boxes are cut at the border, and an object of which nothing is left is
    dropped.

    Raises:
        ValueError: a run-length encoding of another size than the image, or one that cannot be read.
    """
    kept = []
    for index, item in enumerate(objects):
        segmentation = _segmentation(item.get("segmentation"), size, f"{name}: object {index}")
        box = _box(item, segmentation, size)
        if len(segmentation) or (box is not None and _area(box) > 0):
            kept.append(
                {
                    **item,
                    "segmentation": segmentation,
                    "has_outline": len(segmentation) > 0,
                    "box_xyxy": np.zeros(4, np.float32) if box is None else box,
                }
            )
    return kept


def _segmentation(found, size, name):
    if not found:
        return []
    if isinstance(found, dict):
        expected = [int(n) for n in size]
        if [int(n) for n in found.get("size", ())] != expected:
            raise ValueError(f"{name}: run-length mask of size {found.get('size')}, the image is {expected} (height, width)")
        return _decoded(found, size, name)
    polygons = []
    for polygon in found:
        points = np.asarray(polygon, np.float64).ravel()
        if not np.isfinite(points).all():
            raise ValueError(f"{name}: a polygon has a coordinate that is not a finite number")
        if len(points) >= 6:
            polygons.append(points[: len(points) // 2 * 2].reshape(-1, 2))
    return polygons


def _decoded(found, size, name):
    """The mask of a run-length encoding; its counts are added first, since pycocotools trusts them with its memory."""
    try:
        if isinstance(found["counts"], list):
            counts = [int(n) for n in found["counts"]]
            if min(counts, default=0) < 0 or sum(counts) != size[0] * size[1]:
                raise ValueError("its counts do not add up to the image")
            found = coco.frPyObjects({"size": list(size), "counts": counts}, *map(int, size))
        else:
            text = found["counts"]
            text = text.encode() if isinstance(text, str) else bytes(text)
            if sum(_counts(text)) != size[0] * size[1]:
                raise ValueError("its counts do not add up to the image")
            found = {"size": list(size), "counts": text}
        return coco.decode(found)
    except (KeyError, TypeError, ValueError, IndexError) as error:
        raise ValueError(f"{name}: run-length mask cannot be read: {error}") from None


def _counts(text):
    """The run lengths of a compressed string: groups of 5 bits, differences to the run two before, as in maskApi."""
    counts, position = [], 0
    while position < len(text):
        value, shift, more = 0, 0, True
        while more:
            group = text[position] - 48
            if not 0 <= group < 64:
                raise ValueError("a character is none of the encoding's")
            value |= (group & 0x1F) << shift
            more, shift, position = bool(group & 0x20), shift + 5, position + 1
            if not more and group & 0x10:
                value -= 1 << shift
        value += counts[-2] if len(counts) > 2 else 0
        if value < 0:
            raise ValueError("a run is negative")
        counts.append(value)
    return counts


def _box(item, segmentation, size):
    if item.get("box_xyxy") is not None:
        box = np.asarray(item["box_xyxy"], np.float64)
    elif isinstance(segmentation, list) and segmentation:
        points = np.concatenate(segmentation)
        box = np.concatenate([points.min(0), points.max(0)])
    elif len(segmentation):
        ys, xs = np.nonzero(segmentation)
        if not len(ys):
            return None
        box = np.array([xs.min(), ys.min(), xs.max() + 1, ys.max() + 1])
    else:
        return None
    return clipped_box(np.nan_to_num(box), size)


def clipped_box(box, size):
    limit = np.array([size[1], size[0], size[1], size[0]], np.float64)
    return np.clip(box, 0, limit).astype(np.float32)


def _area(box):
    return float(max(box[2] - box[0], 0) * max(box[3] - box[1], 0))


def resized(objects, before, after, nearest):
    """Objects on an image that went from size `before` to `after`; `nearest(out_size, in_size)` gives the indices for masks."""
    factor = np.array([after[1] / before[1], after[0] / before[0]])

    def points(polygon):
        return polygon * factor

    rows, columns = nearest(after[0], before[0]), nearest(after[1], before[1])
    return [_moved(o, points, lambda m: m[rows][:, columns], after) for o in objects]


def flipped(objects, size):
    width = size[1]

    def points(polygon):
        return np.stack([width - polygon[:, 0], polygon[:, 1]], 1)[::-1]

    return [_moved(o, points, lambda m: m[:, ::-1], size) for o in objects]


def cropped(objects, y, x, size):
    """Objects in the window of `size` (height, width) whose top-left corner is (y, x)."""

    def points(polygon):
        return polygon - np.array([x, y], np.float64)

    return [_moved(o, points, lambda m: m[y : y + size[0], x : x + size[1]], size, clip=True) for o in objects]


def padded(objects, size):
    """Objects on an image that has grown right and down to `size`."""

    def mask(m):
        return np.pad(m, ((0, size[0] - m.shape[0]), (0, size[1] - m.shape[1])))

    return [_moved(o, lambda p: p, mask, size) for o in objects]


def _moved(item, points, mask, size, clip=False):
    segmentation = item["segmentation"]
    if isinstance(segmentation, np.ndarray):
        segmentation = mask(segmentation)
    else:
        moved = [points(p) for p in segmentation]
        segmentation = [piece for p in moved for piece in _clipped_polygon(p, size)] if clip else moved
    corners = points(np.array(item["box_xyxy"], np.float64).reshape(2, 2))
    box = clipped_box(np.concatenate([corners.min(0), corners.max(0)]), size)
    return {**item, "segmentation": segmentation, "box_xyxy": box}


def _clipped_polygon(points, size):
    """The pieces [n, 2] of a polygon inside [0, w] x [0, h], their outer rings alone.

    A polygon that crosses itself is repaired first, as detectron2's augmentation does it.
    """
    import shapely  # only cropping needs it

    inside = shapely.intersection(shapely.buffer(shapely.Polygon(points), 0), shapely.box(0, 0, size[1], size[0]))
    polygons = [piece for piece in shapely.get_parts(inside) if piece.geom_type == "Polygon" and not piece.is_empty]
    return [shapely.get_coordinates(piece.exterior)[:-1] for piece in polygons]


def has_extent(item):
    """Whether something is left of an object's outline: pixels of a mask, or polygons that span a box.

    A polygon too small to be drawn has extent: its mask is empty.
    """
    segmentation = item["segmentation"]
    if isinstance(segmentation, np.ndarray):
        return bool(segmentation.any())
    return bool(segmentation) and bool((np.ptp(np.concatenate(segmentation), 0) > _MIN_SIDE).all())


def draw(objects, size) -> np.ndarray:
    """uint8 [N, H, W] of the objects' masks, empty where an object has no outline.

    A pixel belongs to a polygon by pycocotools' rule; the polygons of one object are united.
    """
    height, width = (int(n) for n in size)
    masks = np.zeros((len(objects), height, width), np.uint8)
    for mask, item in zip(masks, objects, strict=True):
        segmentation = item["segmentation"]
        if isinstance(segmentation, np.ndarray):
            mask[:] = segmentation
        elif segmentation:
            outlines = coco.frPyObjects([p.ravel().tolist() for p in segmentation], height, width)
            mask[:] = coco.decode(coco.merge(outlines))
    return masks
