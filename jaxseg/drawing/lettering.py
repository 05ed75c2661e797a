"""Text on pictures: labels in boxes that keep clear of one another, and legends."""

import functools
from typing import NamedTuple

import numpy as np
from PIL import Image, ImageDraw, ImageFont

from jaxseg.drawing.palette import text_color

_MAX_LETTERS = 40
_INK, _PALE, _PAPER = (30, 30, 30), (150, 150, 150), (255, 255, 255)


@functools.lru_cache(maxsize=64)
def font(size):
    return ImageFont.load_default(size)


def font_size(height, width):
    """Readable on a picture of this size, and not larger than that."""
    return int(np.clip(round((height * width) ** 0.5 / 32), 13, 120))


def one_line(text):
    """What can be drawn of any text: without line breaks and control characters, cut at 40 letters."""
    text = str(text)[: 4 * _MAX_LETTERS].encode("utf-8", "replace").decode()
    text = " ".join("".join(c if c.isprintable() else " " for c in text).split())
    return text if len(text) <= _MAX_LETTERS else text[: _MAX_LETTERS - 1] + "\u2026"


def text_size(text, size):
    """(width, height) in pixels of a line; the height is that of the font, so that boxes line up."""
    ascent, descent = font(size).getmetrics()
    return int(np.ceil(font(size).getlength(text))), ascent + descent


class Place(NamedTuple):
    """The point (x, y) that a label belongs to, and the box (x0, y0, x1, y1) of what it names."""

    x: int
    y: int
    box: tuple[int, int, int, int] | None = None


class Labels:
    """Places labels on a picture [H, W, 3] uint8 one after another; they do not leave it, nor cover each other."""

    def __init__(self, picture, size):
        self._image = Image.fromarray(picture)
        self._draw = ImageDraw.Draw(self._image)
        self._size, self._pad = size, max(2, size // 4)
        self._taken = []

    def box_size(self, text):
        width, height = text_size(text, self._size)
        return max(width + 2 * self._pad, height), height + 2 * (self._pad // 2)

    def fits(self, texts):
        """Whether each text fits into the picture, and together they leave most of it free."""
        sizes = [self.box_size(text) for text in texts]
        (width, height), area = self._image.size, sum(w * h for w, h in sizes)
        return all(w <= width and h <= height for w, h in sizes) and area <= 0.2 * width * height

    def add(self, text, place, color):
        """Writes `text` in a box of the given colour on its place; above it or below where it would hide the thing."""
        width, height = self.box_size(text)
        x, y = place[:2]
        if place.box is not None:
            x0, top, x1, bottom = place.box
            if min((x1 - x0) / width, (bottom - top) / height) < 2.2:
                y = top - 0.6 * height if top >= 1.2 * height else bottom + 0.6 * height
        box = self._free_box((x, y), width, height)
        self._taken.append(box)
        x, y = box[:2]
        self._draw.rounded_rectangle(
            (x, y, x + width - 1, y + height - 1), self._pad, fill=tuple(color), outline=_PAPER, width=self._size // 12
        )
        self._draw.text(
            (x + width / 2, y + height / 2), text, fill=text_color(color), font=font(self._size), anchor="mm"
        )

    def _free_box(self, anchor, width, height):
        """The box nearest to the anchor that covers no other, else the one that covers least."""
        step, (right, bottom) = height + 2, self._image.size
        shifts = sorted(
            ((i * width / 2, j * step) for i in range(-3, 4) for j in range(-6, 7)), key=lambda s: np.hypot(*s)
        )
        best = None
        for dx, dy in shifts:
            x = int(np.clip(anchor[0] + dx - width / 2, 0, max(right - width, 0)))
            y = int(np.clip(anchor[1] + dy - height / 2, 0, max(bottom - height, 0)))
            box = (x, y, x + width, y + height)
            covered = sum(_common_area(box, other) for other in self._taken)
            if best is None or covered < best[0]:
                best = (covered, box)
            if not covered:
                break
        return best[1]

    def picture(self):
        return np.asarray(self._image)


def _common_area(a, b):
    return max(0, min(a[2], b[2]) - max(a[0], b[0])) * max(0, min(a[3], b[3]) - max(a[1], b[1]))


def add_legend(picture, entries, size):
    """The picture with a legend below it, in as many columns as fit.

    Args:
        picture: uint8 [H, W, 3].
        entries: of (text, color or None, tag): the tag is written on the colour; without a colour the line is pale.
        size: of the font.
    """
    tag_width = max([text_size(tag, size)[0] for _, _, tag in entries] + [size]) + size // 2
    text_width, line = max(text_size(text, size)[0] for text, _, _ in entries), round(1.6 * size)
    column, margin = tag_width + text_width + round(1.6 * size), size // 2
    width = max(picture.shape[1], column + margin)
    columns = min(len(entries), max(1, (width - margin) // column))
    rows = -(-len(entries) // columns)
    image = Image.new("RGB", (width, picture.shape[0] + rows * line + 2 * margin), _PAPER)
    image.paste(Image.fromarray(picture), ((width - picture.shape[1]) // 2, 0))
    draw = ImageDraw.Draw(image)
    column = (width - margin) // columns
    for i, (text, color, tag) in enumerate(entries):
        x = margin + i // rows * column
        y = picture.shape[0] + margin + i % rows * line + line // 2
        if color is not None:
            box = (x, y - 0.62 * size, x + tag_width - 1, y + 0.62 * size)
            draw.rounded_rectangle(box, size // 5, fill=tuple(color))
            draw.text((x + tag_width / 2, y), tag, fill=text_color(color), font=font(size), anchor="mm")
        ink = _PALE if color is None else _INK
        draw.text((x + tag_width + size // 2, y), text, fill=ink, font=font(size), anchor="lm")
    return np.asarray(image)
