"""Draws one object: shapes in the object's own frame, each belonging to a named part of it."""

import dataclasses

import numpy as np

from input_pipeline.datasets.scenes.canvas import Canvas
from input_pipeline.datasets.scenes.shapes import arc, box, curve, ellipse, points, rotation
from input_pipeline.datasets.scenes.vocabulary import part_ids

INK = (40, 38, 46)
PAPER = (250, 250, 248)
# materials come in several tones, so that a patch of glass or wood does not name the object
GLASS = ((188, 222, 238), (214, 232, 216), (236, 226, 186), (150, 176, 206), (96, 112, 140))
TYRE = ((66, 64, 74), (96, 88, 86), (44, 52, 84), (132, 128, 134))
METAL = ((176, 182, 192), (206, 196, 170), (134, 140, 156), (228, 228, 232))
WOOD = ((150, 108, 72), (120, 84, 60), (134, 122, 116), (186, 150, 104), (98, 76, 84))
LEAF = ((98, 158, 84), (62, 116, 84), (150, 172, 80), (116, 150, 136))
HORN = ((240, 164, 52), (236, 120, 84), (250, 210, 90), (110, 104, 112))


@dataclasses.dataclass(frozen=True)
class DrawnPart:
    """A part instance: `id` in the part map, class id in the part vocabulary, `parent_id` of the enclosing part or 0."""

    id: int
    class_id: int
    segment_id: int
    parent_id: int


@dataclasses.dataclass(frozen=True)
class Look:
    """How an object is painted: main colour and two accents (RGB), the main colour's pattern, optional parts to draw."""

    main: tuple[int, int, int]
    accent: tuple[int, int, int]
    trim: tuple[int, int, int]
    pattern: str = "plain"
    strength: float = 0.0
    offset: tuple[float, float] = (0.0, 0.0)
    options: frozenset[str] = frozenset()


def shaded(color, gain: float) -> tuple[float, ...]:
    """A darker (gain < 1) or lighter (gain > 1: towards white) tone."""
    if gain <= 1:
        return tuple(c * gain for c in color)
    return tuple(c + (255 - c) * (gain - 1) for c in color)


class Pen:
    """The object's frame: x, y in [-1, 1], y down, facing right, standing on (0, 1).

    Args:
        canvas: what is drawn on.
        name: object class.
        segment_id: of the object in the segment map.
        foot: (x, y) of the frame's (0, 1) on the canvas, in picture sides.
        side: the frame's side, in picture sides.
        angle: turn about the foot, radians clockwise. `mirror` flips the object first.
        look: colours and options. `dice`: pose and proportions.
        first_part_id, first_layer: where this object's numbering starts.
    """

    def __init__(
        self, canvas: Canvas, name, segment_id, foot, side, angle, mirror, look: Look, dice, first_part_id, first_layer
    ):
        self._canvas, self._name, self._segment_id = canvas, name, segment_id
        matrix = (rotation(angle) * np.array([-1 if mirror else 1, 1], np.float32) * (side / 2)).T
        self._frame = canvas.frame(matrix, np.array(foot, np.float32) - matrix[1])
        self._side = side
        self._codes, self._current = {}, None
        self._first_part_id, self._layer = first_part_id, first_layer
        self.look = look
        self.between, self.chance = dice.between, dice.chance
        self.glass, self.tyre, self.metal, self.wood, self.leaf, self.horn = (
            dice.pick(tones) for tones in (GLASS, TYRE, METAL, WOOD, LEAF, HORN)
        )
        self.parts: list[DrawnPart] = []

    @property
    def next_layer(self) -> int:
        return self._layer + 1

    def wants(self, option: str) -> bool:
        """Whether the optional part is drawn."""
        return option in self.look.options

    def part(self, name: str, parent: DrawnPart | None = None) -> DrawnPart:
        """A new instance of a part (or of a sub-part, with its parent)."""
        class_id = part_ids()[self._name, name]
        drawn = DrawnPart(self._first_part_id + len(self.parts), class_id, self._segment_id, parent.id if parent else 0)
        self.parts.append(drawn)
        return drawn

    def fill(self, part: DrawnPart | None, outline, color=None) -> None:
        """Fills a polygon of the object's frame; the main colour comes with its pattern."""
        self._canvas.fill(outline, self._code(part, color), self._frame)

    def stroke(self, part: DrawnPart | None, line, width: float, color=None) -> None:
        """Draws a line `width` wide, both in the object's frame."""
        self._canvas.stroke(line, width * self._side / 2, self._code(part, color), self._frame)

    def _code(self, part, color) -> int:
        part_id = part.id if part else 0
        if part_id != self._current:
            self._current = part_id
            self._layer += 1
        key = (part_id, color, self._layer)
        if key not in self._codes:
            look = self.look
            texture = (look.pattern, look.strength, look.offset) if color is None else ()
            color = look.main if color is None else color
            self._codes[key] = self._canvas.paint(color, self._segment_id, part_id, self._layer, *texture)
        return self._codes[key]

    # what several classes have

    def eye(self, head: DrawnPart, x, y, radius, gaze=0.25) -> None:
        eye = self.part("eye", head)
        self.fill(eye, ellipse(x, y, radius, radius * 1.1), PAPER)
        self.fill(eye, ellipse(x + gaze * radius, y, radius * 0.6, radius * 0.7), INK)

    def hat(self, x, y, width, lean=0.0) -> None:
        """A hat whose brim is centred at (x, y)."""
        hat, turn, base = self.part("hat"), rotation(lean), np.array([x, y], np.float32)
        band = shaded(self.look.trim, 0.6)
        if self.chance(0.5):  # a top hat
            crown = box(-0.3 * width, -0.62 * width, 0.3 * width, 0.04 * width, 0.04 * width)
            self.fill(hat, crown @ turn.T + base, self.look.trim)
            self.fill(hat, box(-0.3 * width, -0.2 * width, 0.3 * width, -0.04 * width) @ turn.T + base, band)
            self.fill(hat, ellipse(0, 0, 0.56 * width, 0.1 * width) @ turn.T + base, self.look.trim)
        else:  # a party hat
            cone = points((-0.36 * width, 0.04 * width), (0, -0.8 * width), (0.36 * width, 0.04 * width))
            self.fill(hat, cone @ turn.T + base, self.look.trim)
            stripe = points((-0.25, -0.2), (-0.17, -0.38), (0.25, -0.1), (0.3, 0.04)) * width
            self.fill(hat, stripe @ turn.T + base, band)
            self.fill(hat, ellipse(0, -0.8 * width, 0.12 * width, 0.12 * width) @ turn.T + base, PAPER)

    def flag(self, x, y, height) -> None:
        """A flag on a pole that stands at (x, y)."""
        flag, size = self.part("flag"), height * 0.5
        self.stroke(flag, points((x, y), (x, y - height)), 0.05, self.metal)
        cloth = points((0, 1), (-0.5, 0.92), (-1, 1), (-1, 0.52), (-0.5, 0.44), (0, 0.52))
        cloth = cloth * np.array([size, -height], np.float32) + np.array([x, y], np.float32)
        self.fill(flag, cloth, self.look.trim)

    def wheel(self, x, y, radius) -> None:
        wheel = self.part("wheel")
        self.fill(wheel, ellipse(x, y, radius, radius), self.tyre)
        self.fill(self.part("hub", wheel), ellipse(x, y, radius * 0.5, radius * 0.5), self.metal)

    def window(self, outline) -> None:
        self.fill(self.part("window"), outline, self.glass)

    def tail_line(self, *pairs, width) -> None:
        """A tail as a smooth line through (x, y) pairs."""
        self.stroke(self.part("tail"), curve(*pairs), width)

    def smile(self, head: DrawnPart, x, y, width) -> None:
        line = arc(x, y - width * 0.5, width, width * 0.7, np.pi * 0.2, np.pi * 0.8, num=9)
        self.stroke(self.part("mouth", head), line, 0.07, INK)
