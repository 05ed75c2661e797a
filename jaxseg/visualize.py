"""Pictures of what was segmented: masks, label maps and probabilities over photographs, and sheets of pictures.

Every function takes and returns uint8 arrays [H, W, 3]. Small images are enlarged by a whole factor, so that
their labels can be read; `enlargement` tells by how much.
"""

import cv2
import numpy as np
from PIL import Image, ImageDraw

from jaxseg.drawing.lettering import Labels, Place, add_legend, font, font_size, one_line, text_size
from jaxseg.drawing.palette import palette

_SMALL, _LARGE_ENOUGH = 480, 640  # pixels of the longer side: below the first, an image is enlarged to the second
_MAX_LABELS = 8  # more than these are numbered, with a legend
_MAX_MASKS = 40  # more than these cannot be told apart: the ones of highest score are drawn
_PAPER, _INK = (255, 255, 255), (30, 30, 30)


def enlargement(height, width):
    """The whole factor by which an image of this size is enlarged before anything is drawn on it."""
    side = max(height, width)
    return -(-_LARGE_ENOUGH // side) if side < _SMALL else 1


def draw_masks(image, masks, labels, scores=None, colors=None):
    """Transparent masks with outlines and names.

    Up to eight names stand on their masks; more are numbered, with a legend below. Empty masks are named in grey.

    Args:
        image: uint8 [H, W], [H, W, 3] or [H, W, 4].
        masks: N masks [H, W] bool: an array, or a sequence that makes them one at a time.
        labels: N names.
        scores: N numbers, written behind the names.
        colors: N RGB triples; by default a label has one colour, those of the palette in turn.

    Raises:
        ValueError: where lengths or sizes do not fit.
    """
    picture = _rgb(image)
    colors = _colors(labels, colors)
    if not len(masks) == len(labels) == len(colors) or (scores is not None and len(scores) != len(labels)):
        raise ValueError(f"draw_masks: found {len(masks)} masks, {len(labels)} labels, {len(colors)} colors and scores")
    areas = np.array([_checked(mask, picture).sum() for mask in masks], np.int64)
    drawn = np.flatnonzero(areas)
    if len(drawn) > _MAX_MASKS:
        order = drawn[np.argsort(-np.asarray(scores if scores is not None else areas)[drawn], kind="stable")]
        drawn = np.sort(order[:_MAX_MASKS])
    factor = enlargement(*picture.shape[:2])
    picture = _enlarge(picture, factor)
    places = {}
    for i in drawn[np.argsort(-areas[drawn], kind="stable")]:  # small masks above large ones
        mask = _enlarge_mask(masks[i], factor)
        places[i] = _place(mask)
        _paint(picture, mask, colors[i])
    texts = [one_line(name) if scores is None else f"{one_line(name)} {s:.2f}" for name, s in _pairs(labels, scores)]
    absent = [one_line(labels[i]) for i in np.flatnonzero(areas == 0)]
    hidden = len(labels) - len(drawn) - len(absent)
    return _letter(picture, [(texts[i], colors[i], places[i]) for i in drawn], absent, hidden)


def _letter(picture, found, absent, hidden):
    size = font_size(*picture.shape[:2])
    board = Labels(picture, size)
    missing = [f"{name}: none" for name in absent]
    if len(found) + len(absent) <= _MAX_LABELS and board.fits([text for text, _, _ in found] + missing):
        for text, color, place in found:
            board.add(text, place, color)
        for text in missing:
            board.add(text, Place(0, picture.shape[0]), (110, 110, 110))
        return board.picture()
    size = max(13, round(0.85 * size))
    board = Labels(picture, size)
    tags = [str(i + 1) for i in range(len(found))]
    for tag, (_, color, place) in zip(tags, found, strict=True):
        if board.fits([tag]):
            board.add(tag, place, color)
    entries = [(text, color, tag) for tag, (text, color, _) in zip(tags, found, strict=True)]
    entries += [(text, None, "") for text in missing[:_MAX_MASKS]]
    hidden += len(missing[_MAX_MASKS:])
    if hidden:
        entries.append((f"and {hidden} more", None, ""))
    return add_legend(board.picture(), entries, size)


def draw_label_map(image, label_map, vocabulary):
    """The class of every pixel as a colour, with a legend of the classes that occur.

    Args:
        image: uint8 [H, W], [H, W, 3] or [H, W, 4].
        label_map: [H, W] integers, index in `vocabulary.names`; -1 = no class.
        vocabulary: a `jaxseg.text.vocabulary.Vocabulary`: its names and, where it has them, its colours.
    """
    picture, label_map = _rgb(image), np.asarray(label_map)
    names, colors = vocabulary.names, np.asarray(vocabulary.colors or palette(len(vocabulary.names)), np.uint8)
    if label_map.shape != picture.shape[:2] or label_map.max(initial=-1) >= len(names):
        found = f"{label_map.shape} with ids up to {label_map.max(initial=-1)}"
        raise ValueError(f"label_map: found {found}, expected {picture.shape[:2]} with ids below {len(names)}")
    factor = enlargement(*picture.shape[:2])
    picture, label_map = _enlarge(picture, factor), label_map.repeat(factor, 0).repeat(factor, 1)
    counts = np.bincount(label_map[label_map >= 0], minlength=len(names))
    tint = colors[np.maximum(label_map, 0)]
    picture = np.where((label_map >= 0)[..., None], _mix(picture, tint, 0.6), picture)
    picture[_borders(label_map, _line_width(picture))] = _PAPER
    order = np.argsort(-counts, kind="stable")[: np.count_nonzero(counts)]
    entries = [(one_line(names[i]), colors[i], "") for i in order]
    return add_legend(picture, entries, font_size(*picture.shape[:2])) if entries else picture


def draw_probabilities(image, probabilities, label="", threshold=None):
    """A heat map over the grey photograph, from dark (0) to bright yellow (1), with its scale below.

    Args:
        image: uint8 [H, W], [H, W, 3] or [H, W, 4].
        probabilities: float [H, W] in [0, 1].
        label: a name to write under the picture.
        threshold: draws the outline of what lies above it.
    """
    picture, probabilities = _rgb(image), np.asarray(probabilities, np.float32)
    if probabilities.shape != picture.shape[:2]:
        raise ValueError(f"probabilities: found {probabilities.shape}, expected {picture.shape[:2]}")
    factor = enlargement(*picture.shape[:2])
    picture = _enlarge(picture, factor)
    height, width = picture.shape[:2]
    probabilities = cv2.resize(probabilities, (width, height), interpolation=cv2.INTER_LINEAR)
    grey = cv2.cvtColor(cv2.cvtColor(picture, cv2.COLOR_RGB2GRAY), cv2.COLOR_GRAY2RGB)
    picture = _mix(grey, _heat(probabilities), 0.4 + 0.4 * probabilities[..., None])
    if threshold is not None:
        picture[_edge(probabilities > threshold, _line_width(picture))] = _PAPER
    return _with_scale(picture, one_line(label))


def _with_scale(picture, label):
    height, width = picture.shape[:2]
    size = font_size(height, width)
    text_width, bar = text_size(label, size)[0], np.linspace(0, 1, max(8 * size, 64), dtype=np.float32)
    canvas = np.full((height + 2 * size, max(width, text_width + len(bar) + 6 * size), 3), _PAPER, np.uint8)
    left = (canvas.shape[1] - width) // 2
    canvas[:height, left : left + width] = picture
    end, middle = canvas.shape[1] - 2 * size, height + size
    canvas[middle - size // 3 : middle + size // 3, end - len(bar) : end] = _heat(bar[None])
    image = Image.fromarray(canvas)
    draw = ImageDraw.Draw(image)
    ends = (("0", end - len(bar) - size // 3, "rm"), ("1", end + size // 3, "lm"))
    for text, x, anchor in ((label, size // 2, "lm"), *ends):
        draw.text((x, middle), text, fill=_INK, font=font(size), anchor=anchor)
    return np.asarray(image)


def grid(rows, titles=()):
    """A sheet of pictures.

    Args:
        rows: lists of pictures (uint8 [H, W, 3]); those of a row are scaled to its lowest height.
        titles: one per column, written above it.
    """
    rows = [[_rgb(picture) for picture in row] for row in rows if len(row)]
    if not rows:
        raise ValueError("grid: found no pictures")
    gap = max(4, min(p.shape[0] for row in rows for p in row) // 60)
    rows = [[_to_height(p, min(q.shape[0] for q in row)) for p in row] for row in rows]
    columns = max(map(len, rows))
    widths = [max(row[i].shape[1] for row in rows if i < len(row)) for i in range(columns)]
    size = font_size(min(row[0].shape[0] for row in rows), max(widths))
    top = round(1.8 * size) if any(titles) else 0
    height = top + sum(row[0].shape[0] + gap for row in rows) + gap
    sheet = Image.new("RGB", (sum(widths) + gap * (columns + 1), height), _PAPER)
    draw, lefts = ImageDraw.Draw(sheet), np.cumsum([gap] + [width + gap for width in widths])
    for title, left, width in zip(titles, lefts, widths, strict=False):
        fitting = size
        while fitting > 9 and text_size(one_line(title), fitting)[0] > width:
            fitting -= 1
        draw.text((left + width / 2, top / 2 + gap / 2), one_line(title), fill=_INK, font=font(fitting), anchor="mm")
    y = top + gap
    for row in rows:
        for picture, left, width in zip(row, lefts, widths, strict=False):
            sheet.paste(Image.fromarray(picture), (int(left) + (width - picture.shape[1]) // 2, y))
        y += row[0].shape[0] + gap
    return np.asarray(sheet)


def _pairs(labels, scores):
    return zip(labels, scores if scores is not None else labels, strict=True)


def _colors(labels, colors):
    if colors is not None:
        return [tuple(int(v) for v in color) for color in colors]
    names = list(dict.fromkeys(labels))
    by_name = dict(zip(names, palette(len(names)).tolist(), strict=True))
    return [tuple(by_name[label]) for label in labels]


def _rgb(image):
    image = np.asarray(image)
    if image.dtype != np.uint8 or image.ndim not in (2, 3) or (image.ndim == 3 and image.shape[2] not in (1, 3, 4)):
        raise ValueError(f"image: found {image.dtype} {image.shape}, expected uint8 [H, W], [H, W, 3] or [H, W, 4]")
    if image.ndim == 2 or image.shape[2] == 1:
        return np.repeat(image.reshape(*image.shape[:2], 1), 3, 2)
    return image[..., :3]


def _checked(mask, picture):
    mask = np.asarray(mask, bool)
    if mask.shape != picture.shape[:2]:
        raise ValueError(f"masks: found one of {mask.shape} pixels, expected {picture.shape[:2]}, as the image")
    return mask


def _enlarge(picture, factor):
    if factor == 1:
        return picture.copy()
    return cv2.resize(picture, None, fx=factor, fy=factor, interpolation=cv2.INTER_CUBIC)


def _enlarge_mask(mask, factor):
    if factor == 1:
        return np.asarray(mask, bool)
    mask = cv2.resize(np.asarray(mask, np.float32), None, fx=factor, fy=factor, interpolation=cv2.INTER_LINEAR)
    return cv2.GaussianBlur(mask, (0, 0), 0.25 * factor) > 0.5  # steps of single pixels would be all one sees


def _to_height(picture, height):
    if picture.shape[0] == height:
        return picture
    width = max(1, round(picture.shape[1] * height / picture.shape[0]))
    return cv2.resize(picture, (width, height), interpolation=cv2.INTER_AREA)


def _line_width(picture):
    return max(1, round((picture.shape[0] * picture.shape[1]) ** 0.5 / 300))


def _mix(below, above, opacity):
    opacity = np.asarray(opacity, np.float32)
    return np.round(below * (1 - opacity) + np.asarray(above, np.float32) * opacity).astype(np.uint8)


def _paint(picture, mask, color):
    """Fills a mask transparently and draws its outline, in place."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):
        return
    window = (slice(rows[0], rows[-1] + 1), slice(columns[0], columns[-1] + 1))
    part, inside = picture[window], mask[window]
    levels = np.arange(256, dtype=np.float32)[:, None]
    tinted = cv2.LUT(part, _mix(levels, np.asarray(color), 0.42)[None])
    np.copyto(part, tinted, where=inside[..., None])
    part[_edge(mask, _line_width(picture))[window]] = color


def _edge(mask, width):
    """The outermost pixels of a mask; where it leaves the picture it has no edge."""
    return mask & (cv2.distanceTransform(mask.view(np.uint8), cv2.DIST_L2, 5) < width + 0.5)


def _borders(label_map, width):
    different = np.zeros(label_map.shape, bool)
    different[1:] |= label_map[1:] != label_map[:-1]
    different[:, 1:] |= label_map[:, 1:] != label_map[:, :-1]
    return cv2.dilate(different.view(np.uint8), np.ones((width, width), np.uint8)).view(bool)


def _place(mask):
    """Where a label of this mask stands best: on the pixel farthest from its edge."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    if not len(rows):  # enlarging smoothed it away
        return Place(mask.shape[1] // 2, mask.shape[0] // 2)
    shrink = max(1, max(mask.shape) // 512)
    distance = cv2.distanceTransform(np.pad(mask[::shrink, ::shrink], 1).astype(np.uint8), cv2.DIST_L2, 3)
    y, x = (int(i - 1) * shrink for i in np.unravel_index(distance.argmax(), distance.shape))
    if not distance.any():  # nothing is left of a very thin mask
        y, x = (int(i) for i in np.argwhere(mask)[0])
    return Place(x, y, (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1))


def _heat(values):
    levels = np.round(np.clip(values, 0, 1) * 255).astype(np.uint8)
    return cv2.cvtColor(cv2.applyColorMap(levels, cv2.COLORMAP_INFERNO), cv2.COLOR_BGR2RGB)
