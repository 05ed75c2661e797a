"""Backgrounds: sky, ground and walls laid out as meadows, beaches, streets, rooms, ..."""

import dataclasses

import numpy as np

from input_pipeline.datasets.scenes.canvas import Canvas
from input_pipeline.datasets.scenes.dice import Dice
from input_pipeline.datasets.scenes.pen import shaded
from input_pipeline.datasets.scenes.shapes import blob, box, ellipse, points

# stuff class -> looks of (RGB, pattern, strength)
LOOKS = {
    "sky": (
        ((128, 190, 238), "shade", -0.22),
        ((104, 168, 228), "shade", -0.32),
        ((176, 222, 232), "shade", -0.1),
        ((246, 196, 158), "shade", -0.14),
        ((236, 176, 190), "shade", -0.16),
        ((206, 214, 224), "cloudy", 0.05),
        ((84, 96, 150), "shade", -0.35),
    ),
    "mountain": (
        ((134, 140, 166), "cloudy", 0.1),
        ((112, 142, 128), "cloudy", 0.12),
        ((166, 132, 120), "cloudy", 0.12),
        ((160, 150, 184), "cloudy", 0.08),
    ),
    "grass": (
        ((134, 190, 92), "blades", 0.09),
        ((160, 198, 98), "blades", 0.1),
        ((104, 164, 92), "blades", 0.1),
        ((192, 192, 104), "blades", 0.09),
    ),
    "sand": (
        ((236, 212, 158), "grain", 0.06),
        ((226, 192, 138), "grain", 0.07),
        ((242, 226, 186), "grain", 0.05),
        ((216, 170, 124), "grain", 0.07),
    ),
    "snow": (((238, 243, 249), "cloudy", 0.03), ((222, 232, 245), "cloudy", 0.05), ((244, 240, 246), "cloudy", 0.03)),
    "water": (
        ((84, 158, 206), "waves", 0.16),
        ((78, 178, 186), "waves", 0.16),
        ((70, 120, 178), "waves", 0.2),
        ((124, 196, 208), "waves", 0.13),
    ),
    "road": (
        ((132, 134, 144), "speckle", 0.05),
        ((108, 108, 120), "speckle", 0.06),
        ((158, 152, 150), "speckle", 0.05),
    ),
    "wall": (
        ((240, 224, 204), "plain", 0.0),
        ((200, 218, 212), "dots", 0.04),
        ((222, 196, 206), "bars", 0.04),
        ((192, 204, 228), "diagonal", 0.035),
        ((244, 226, 164), "checks", 0.03),
        ((186, 110, 92), "bricks", 0.18),
        ((206, 190, 170), "bricks", 0.12),
        ((226, 216, 224), "cloudy", 0.04),
    ),
    "floor": (
        ((188, 142, 102), "planks", 0.16),
        ((214, 182, 144), "planks", 0.14),
        ((150, 112, 90), "planks", 0.16),
        ((208, 208, 212), "tiles", 0.1),
        ((196, 214, 208), "tiles", 0.1),
    ),
}
_CREAM = (250, 246, 236)


@dataclasses.dataclass
class Background:
    """Draws stuff: one look per class, one segment per class, in the order of first use.

    Attributes:
        segments: stuff class -> segment id.
        horizon: y above which nothing stands, in picture sides.
    """

    canvas: Canvas
    dice: Dice
    segments: dict[str, int] = dataclasses.field(default_factory=dict)
    horizon: float = 0.4

    def __post_init__(self):
        self._codes, self._colors = {}, {}
        self.between, self.chance = self.dice.between, self.dice.chance

    def area(self, name: str, outline) -> None:
        """Fills a polygon with a stuff class."""
        if name not in self._codes:
            self.segments[name] = len(self.segments) + 1
            color, pattern, strength = self.dice.pick(LOOKS[name])
            color = self.dice.varied(color, 0.015 if name == "snow" else 0.05)
            offset = (0.0, 0.0) if pattern == "shade" else (self.between(0, 0.25), self.between(0, 0.25))
            self._colors[name] = color
            self._codes[name] = self.canvas.paint(color, self.segments[name], 0, 0, pattern, strength, offset)
        self.canvas.fill(outline, self._codes[name])

    def detail(self, name: str, outlines, color=None, gain=1.0) -> None:
        """Marks of another colour within a stuff class that is already there."""
        color = shaded(self._colors[name] if color is None else color, gain)
        code = self.canvas.paint(color, self.segments[name])
        for outline in outlines:
            self.canvas.fill(outline, code)

    def below(self, y: float, height: float = 0.0, waves: float = 1.0):
        """The polygon below a wavy line at `y`."""
        if not height:
            return box(-0.01, y, 1.01, 1.01)
        x, turn = np.linspace(-0.01, 1.01, 25), 2 * np.pi
        long, short = turn * (waves * x + self.between(0, 1)), turn * (2.5 * waves * x + self.between(0, 1))
        line = np.stack([x, y + height * (0.7 * np.sin(long) + 0.3 * np.sin(short))], axis=1)
        return np.concatenate([line, [[1.01, 1.01], [-0.01, 1.01]]]).astype(np.float32)

    # pieces of layouts

    def sky(self) -> None:
        self.area("sky", box(-0.01, -0.01, 1.01, 1.01))
        if self.chance(0.35):
            x, y, radius = self.between(0.1, 0.9), self.between(0.06, 0.2), self.between(0.05, 0.08)
            self.detail("sky", [ellipse(x, y, radius, radius)], (252, 236, 170))
        clouds = []
        for _ in range(self.dice.below(4)):
            x, y, w = self.between(0, 1), self.between(0.03, 0.3), self.between(0.07, 0.14)
            clouds.append(ellipse(x, y, w, w * 0.34))
            clouds.append(ellipse(x - w * 0.35, y - w * 0.18, w * 0.42, w * 0.34))
            clouds.append(ellipse(x + w * 0.25, y - w * 0.28, w * 0.46, w * 0.4))
        if clouds:
            self.detail("sky", clouds, gain=1.65)

    def mountains(self, foot: float) -> None:
        peaks, caps = [], []
        for _ in range(2 + self.dice.below(2)):
            x, y, half = self.between(0, 1), foot - self.between(0.16, 0.3), self.between(0.22, 0.36)
            peaks.append(points((x - half, foot + 0.2), (x, y), (x + half, foot + 0.2)))
            edge, cut = y + 0.22 * (foot + 0.2 - y), 0.22 * half
            zigzag = ((x + 0.5 * cut, edge - 0.012), (x + 0.2 * cut, edge + 0.01), (x - 0.4 * cut, edge - 0.016))
            caps.append(points((x - cut, edge), (x, y), (x + cut, edge), *zigzag))
        for peak in peaks:
            self.area("mountain", peak)
        if self.chance(0.6):
            self.detail("mountain", caps, (246, 248, 252))

    def hills(self, y: float) -> None:
        self.area("mountain", self.below(y - 0.08, self.between(0.03, 0.07), self.between(0.8, 1.6)))

    def road_across(self, y: float) -> None:
        height = self.between(0.16, 0.24)
        self.area("road", box(-0.01, y, 1.01, y + height))
        middle, start = y + height / 2, self.between(0, 0.1)
        dashes = [box(x, middle - 0.008, x + 0.09, middle + 0.008) for x in np.arange(start - 0.1, 1, 0.2)]
        self.detail("road", dashes, _CREAM)

    def road_away(self, y: float) -> None:
        x, foot = self.between(0.35, 0.65), self.between(0.25, 0.75)
        wide = self.between(0.16, 0.26)
        self.area("road", points((x - 0.025, y), (x + 0.025, y), (foot + wide, 1.01), (foot - wide, 1.01)))
        marks = []
        for near in (0.12, 0.3, 0.52, 0.78):
            far = near + 0.08 + near * 0.1
            near_x, far_x = x + (foot - x) * near, x + (foot - x) * far
            near_y, far_y = y + (1 - y) * near, y + (1 - y) * far
            w, v = 0.004 + 0.014 * near, 0.005 + 0.018 * near
            marks.append(points((near_x - w, near_y), (near_x + w, near_y), (far_x + v, far_y), (far_x - v, far_y)))
        self.detail("road", marks, _CREAM)


def meadow(bg: Background) -> None:
    bg.sky()
    if bg.chance(0.4):
        (bg.mountains if bg.chance(0.6) else bg.hills)(bg.horizon)
    bg.area("grass", bg.below(bg.horizon, bg.between(0.0, 0.03)))
    if bg.chance(0.3):
        bg.road_away(bg.horizon + 0.03)
    elif bg.chance(0.3):
        x, y, wide = bg.between(0.2, 0.8), bg.between(bg.horizon + 0.2, 0.9), bg.between(0.2, 0.34)
        pond = ((-1, 0), (-0.4, -0.08), (0.5, -0.06), (1, 0.02), (0, 0.09))
        bg.area("water", blob(*((x + wide * dx, y + dy) for dx, dy in pond)))


def street(bg: Background) -> None:
    if bg.chance(0.5):
        bg.sky()
        if bg.chance(0.4):
            bg.hills(bg.horizon)
        bg.area("grass", bg.below(bg.horizon, 0.01))
    else:
        bg.area("wall", box(-0.01, -0.01, 1.01, 1.01))
        if bg.chance(0.5):
            bg.area("grass", bg.below(bg.horizon))
        else:
            bg.area("floor", bg.below(bg.horizon))
    bg.road_across(bg.between(bg.horizon + 0.1, 0.7))


def beach(bg: Background) -> None:
    bg.sky()
    if bg.chance(0.3):
        bg.hills(bg.horizon)
    bg.area("water", bg.below(bg.horizon))
    bg.area("sand", bg.below(bg.between(bg.horizon + 0.14, 0.75), bg.between(0.01, 0.04)))


def lake(bg: Background) -> None:
    bg.sky()
    if bg.chance(0.6):
        bg.mountains(bg.horizon)
    bg.area("grass", bg.below(bg.horizon, 0.015))
    bg.area("water", bg.below(bg.between(bg.horizon + 0.1, 0.65), bg.between(0.0, 0.02)))


def winter(bg: Background) -> None:
    bg.sky()
    if bg.chance(0.6):
        bg.mountains(bg.horizon)
    bg.area("snow", bg.below(bg.horizon, bg.between(0.01, 0.04)))
    if bg.chance(0.3):
        (bg.road_away if bg.chance(0.5) else bg.road_across)(bg.horizon + 0.1)


def desert(bg: Background) -> None:
    bg.sky()
    if bg.chance(0.5):
        bg.mountains(bg.horizon)
    bg.area("sand", bg.below(bg.horizon, bg.between(0.01, 0.05)))
    if bg.chance(0.25):
        bg.road_away(bg.horizon + 0.06)


def room(bg: Background) -> None:
    bg.area("wall", box(-0.01, -0.01, 1.01, 1.01))
    bg.area("floor", bg.below(bg.horizon + 0.12))
    bg.detail("wall", [box(-0.01, bg.horizon + 0.095, 1.01, bg.horizon + 0.12)], gain=0.8)


def terrace(bg: Background) -> None:
    bg.sky()
    top = bg.horizon - bg.between(0.0, 0.14)
    bg.area("wall", box(-0.01, top, 1.01, 1.01))
    bg.detail("wall", [box(-0.01, top - 0.025, 1.01, top)], gain=0.85)
    bg.area(bg.dice.pick(("floor", "grass", "sand", "snow")), bg.below(bg.horizon + 0.1))


LAYOUTS = (meadow, street, beach, lake, winter, desert, room, terrace)


def draw_background(canvas: Canvas, dice: Dice) -> Background:
    """Fills the whole canvas with stuff."""
    background = Background(canvas, dice)
    background.horizon = dice.between(0.34, 0.52)
    dice.pick(LAYOUTS)(background)
    return background
