"""Composes scenes: which objects, in which colours, sizes and poses, and where; then draws and annotates them.

A scene is a pure function of (split, index); its size in pixels changes nothing but the resolution.
"""

import dataclasses
import zlib

import numpy as np

from input_pipeline.datasets.scenes import language
from input_pipeline.datasets.scenes.canvas import Canvas
from input_pipeline.datasets.scenes.dice import Dice
from input_pipeline.datasets.scenes.pen import DrawnPart, Look, Pen
from input_pipeline.datasets.scenes.stuff import draw_background
from input_pipeline.datasets.scenes.things import DRAW
from input_pipeline.datasets.scenes.vocabulary import (
    COLORS,
    HABITS,
    OBJECTS,
    SEEN_OBJECTS,
    UNSEEN_COLORS,
    UNSEEN_OBJECTS,
    UNSEEN_PARTS,
    vocabulary,
)


@dataclasses.dataclass(frozen=True)
class SplitRule:
    """What a split shows.

    Attributes:
        objects: classes that occur.
        combinations: held-out colour x object and object x part pairs: `"never"`, `"free"` or `"always"` (one per image).
        first: classes of which every image has one.
        num_objects: chance of 1, 2, ... objects.
    """

    objects: tuple[str, ...]
    combinations: str = "never"
    first: tuple[str, ...] = ()
    num_objects: tuple[float, ...] = (0.14, 0.28, 0.3, 0.18, 0.1)


SPLITS = {
    "train": SplitRule(SEEN_OBJECTS),
    # like pictures on the web, most of one thing: a caption of many says little about which is which
    "train_captions": SplitRule(tuple(OBJECTS), "free", num_objects=(0.7, 0.2, 0.1)),
    "val": SplitRule(SEEN_OBJECTS),
    "test_unseen_combinations": SplitRule(SEEN_OBJECTS, "always"),
    "test_unseen_objects": SplitRule(tuple(OBJECTS), "never", UNSEEN_OBJECTS),
}

# parts that only some instances have, and how many
OPTIONAL_PARTS = {
    "dog": {"hat": 0.35},
    "bird": {"hat": 0.35},
    "turtle": {"hat": 0.35, "spot": 0.4},
    "robot": {"hat": 0.35},
    "cat": {"hat": 0.35},
    "butterfly": {"spot": 0.65},
    "car": {"flag": 0.35},
    "boat": {"flag": 0.4, "window": 0.4},
    "house": {"flag": 0.3, "chimney": 0.55},
    "tree": {"fruit": 0.45},
    "mushroom": {"spot": 0.65},
}
FLYERS = ("bird", "butterfly", "airplane", "fish", "umbrella", "rocket")
# side of the frame relative to the drawn size: classes that fill it more are drawn smaller, so that area tells little
GIRTH = {
    "butterfly": 0.88,
    "turtle": 1.1,
    "airplane": 1.15,
    "house": 0.84,
    "flower": 1.08,
    "mushroom": 0.9,
    "umbrella": 1.18,
    "cat": 0.96,
    "bus": 0.88,
    "rocket": 1.15,
}
SIDES = {"small": (0.26, 0.34), "": (0.36, 0.44), "large": (0.48, 0.62)}
USUAL_COLOR, USUAL_PATTERN = 0.3, 0.85  # how often an object follows the habit of its class; else any
SURFACES = tuple(sorted({pattern for _, pattern in HABITS.values()}))


@dataclasses.dataclass(frozen=True)
class ObjectPlan:
    """One object before it is drawn; `foot` and `side` in picture sides, `angle` in radians."""

    name: str
    color: str
    size: str
    look: Look
    foot: tuple[float, float]
    side: float
    angle: float
    mirror: bool
    flies: bool

    @property
    def box(self) -> tuple[float, float, float, float]:
        x, y = self.foot
        return x - self.side / 2, y - self.side, x + self.side / 2, y


@dataclasses.dataclass(frozen=True)
class Segment:
    """A segment of the panoptic map. `box_xyxy` in pixels, right and bottom exclusive; colour and size words of things."""

    id: int
    class_id: int
    box_xyxy: tuple[int, int, int, int]
    area: int
    color: str = ""
    size: str = ""


@dataclasses.dataclass(frozen=True)
class Scene:
    """A picture with all its annotation. `main_object`: id of the largest thing."""

    image: np.ndarray
    segment_map: np.ndarray
    segments: tuple[Segment, ...]
    part_map: np.ndarray
    parts: tuple[DrawnPart, ...]
    expressions: tuple[tuple[str, int], ...]
    caption: str
    main_object: int


def draw_scene(split: str, index: int, size: int) -> Scene:
    """Draws one scene, `size` x `size` pixels; the same for the same arguments in every process.

    Raises:
        ValueError: no such split.
    """
    if split not in SPLITS:
        raise ValueError(f"scenes: split {split!r} is not one of {', '.join(SPLITS)}")
    dice = Dice((zlib.crc32(split.encode()), index))
    canvas = Canvas(size)
    background = draw_background(canvas, dice)
    plans = _plan_objects(SPLITS[split], background.horizon, dice)
    parts, first_id, part_id, layer = [], len(background.segments) + 1, 1, 0
    for segment_id, plan in enumerate(plans, first_id):
        if not plan.flies:
            canvas.shadow(plan.foot[0], plan.foot[1] - 0.01, plan.side * 0.45, plan.side * 0.07)
        pen = Pen(
            canvas, plan.name, segment_id, plan.foot, plan.side, plan.angle, plan.mirror, plan.look, dice, part_id, layer
        )
        DRAW[plan.name](pen)
        parts, part_id, layer = parts + pen.parts, part_id + len(pen.parts), pen.next_layer
    light = dice.varied((1.0, 1.0, 1.0), 0.03, 0.05)
    picture = canvas.finish(light, (dice.between(-0.12, 0.12), dice.between(-0.12, 0.12)))
    words = {background.segments[name]: (name, "", "") for name in background.segments}
    words |= {i: (plan.name, plan.color, plan.size) for i, plan in enumerate(plans, first_id)}
    segments = _segments(picture.segment_map, words)
    parts = _visible_parts(picture.part_map, parts)
    things = [s for s in segments if s.id >= first_id]
    return Scene(
        image=picture.image,
        segment_map=picture.segment_map,
        segments=segments,
        part_map=picture.part_map,
        parts=parts,
        expressions=language.expressions(things, dice, size),
        caption=language.caption(segments, parts, dice),
        main_object=max(things, key=lambda s: s.area).id,
    )


def _plan_objects(rule: SplitRule, horizon: float, dice: Dice) -> list[ObjectPlan]:
    """Objects of one scene, the farthest first."""
    num = dice.pick(range(1, 1 + len(rule.num_objects)), rule.num_objects)
    names = [dice.pick(rule.objects) for _ in range(num)]
    if rule.first:
        names[0] = dice.pick(rule.first)
    if num > 1 and dice.chance(0.45):
        names[1] = names[0]  # several of a class, which expressions tell apart
    plans = []
    for i, name in enumerate(names):
        size = "large" if num == 1 or (i == 0 and dice.chance(0.5)) else dice.pick(tuple(SIDES))
        must = rule.combinations == "always" and (i == 0 or dice.chance(0.5))
        color, options = _combination(rule, name, dice, must)
        look = _look(name, color, options, dice)
        for _ in range(12):
            plan = _place(name, color, size, look, horizon, dice)
            if all(_overlap(plan.box, other.box) < 0.3 for other in plans):
                plans.append(plan)
                break
    return sorted(plans, key=lambda plan: plan.foot[1])


def _combination(rule: SplitRule, name: str, dice: Dice, must: bool) -> tuple[str, frozenset[str]]:
    """Colour word and optional parts of one object, held-out ones as the rule says."""
    held_color, held_part = UNSEEN_COLORS.get(name), UNSEEN_PARTS.get(name)
    usual, _ = HABITS[name]
    allowed = [c for c in COLORS if rule.combinations == "free" or c != held_color]
    color = dice.pick(usual if dice.chance(USUAL_COLOR) else allowed)
    options = {part for part, chance in OPTIONAL_PARTS.get(name, {}).items() if dice.chance(chance)}
    if rule.combinations != "free":
        options.discard(held_part)
    if must:
        if held_part and dice.chance(0.5):
            options.add(held_part)
        else:
            color = held_color
    return color, frozenset(options)


def _look(name: str, color: str, options: frozenset[str], dice: Dice) -> Look:
    """Paint for a colour word: the main colour varied a little, two accents of other colours, a pattern or none."""
    accent = dice.pick([c for c in COLORS if c != color])
    trim = dice.pick([c for c in COLORS if c not in (color, accent)])
    main = dice.varied(COLORS[color], 0.015 if color == "white" else 0.06, 0.05)
    _, pattern = HABITS[name]
    if not dice.chance(USUAL_PATTERN):
        pattern = dice.pick(SURFACES)
    strength = dice.between(0.25, 0.4) * (2 if color == "black" else 1)
    offset = dice.between(0, 0.25), dice.between(0, 0.25)
    return Look(main, COLORS[accent], COLORS[trim], pattern, strength, offset, options)


def _place(name: str, color: str, size: str, look: Look, horizon: float, dice: Dice) -> ObjectPlan:
    side = dice.between(*SIDES[size]) * GIRTH.get(name, 1.0)
    x = dice.between(side * 0.36, 1 - side * 0.36)
    flies = name in FLYERS and dice.chance(0.5)
    if flies:
        y, angle = dice.between(side * 0.95, max(side, 0.78)), dice.between(-0.35, 0.35)
    else:
        y, angle = dice.between(max(horizon + 0.1, side * 0.96), 1.0), dice.between(-0.08, 0.08)
    return ObjectPlan(name, color, size, look, (x, y), side, angle, dice.chance(0.5), flies)


def _overlap(a, b) -> float:
    """Intersection of two boxes over the smaller one's area."""
    width, height = min(a[2], b[2]) - max(a[0], b[0]), min(a[3], b[3]) - max(a[1], b[1])
    if width <= 0 or height <= 0:
        return 0.0
    return width * height / min((a[2] - a[0]) * (a[3] - a[1]), (b[2] - b[0]) * (b[3] - b[1]))


def _segments(segment_map: np.ndarray, words: dict) -> tuple[Segment, ...]:
    """Segments that have a pixel, by id."""
    names = vocabulary().names
    areas = np.bincount(segment_map.reshape(-1), minlength=max(words) + 1)
    segments = []
    for segment_id, (name, color, size) in words.items():
        if areas[segment_id]:
            mask = segment_map == segment_id
            columns, rows = np.flatnonzero(mask.any(axis=0)), np.flatnonzero(mask.any(axis=1))
            box = (int(columns[0]), int(rows[0]), int(columns[-1]) + 1, int(rows[-1]) + 1)
            segments.append(Segment(segment_id, names.index(name), box, int(areas[segment_id]), color, size))
    return tuple(segments)


def _visible_parts(part_map: np.ndarray, parts: list[DrawnPart]) -> tuple[DrawnPart, ...]:
    """Parts that have a pixel, and those that enclose one."""
    areas = np.bincount(part_map.reshape(-1), minlength=len(parts) + 1)
    kept = {part.id for part in parts if areas[part.id]}
    kept |= {part.parent_id for part in parts if part.id in kept and part.parent_id}
    return tuple(part for part in parts if part.id in kept)
