"""Vehicles, a house, plants and an umbrella, drawn with a `Pen`; `DRAW` has every class's drawing function."""

from math import cos, pi, sin

import numpy as np

from input_pipeline.datasets.scenes import animals
from input_pipeline.datasets.scenes.pen import INK, PAPER, Pen, shaded
from input_pipeline.datasets.scenes.shapes import arc, blob, box, curve, ellipse, limb, points

CREAM = ((246, 232, 206), (232, 214, 196), (250, 246, 238), (214, 196, 176))


def car(pen: Pen) -> None:
    """From the side: a cabin with two windows on a long body, two wheels."""
    main, roof = pen.look.main, pen.between(-0.3, -0.2)
    back = pen.between(-0.72, -0.6)
    if pen.wants("flag"):
        pen.flag(-0.56, 0.1, 1.0)
    outline = blob(
        (-0.94, 0.3), (back - 0.06, 0.2), (-0.44, roof), (0.26, roof), (0.56, 0.18), (0.92, 0.3), (0.96, 0.66),
        (0.6, 0.76), (-0.6, 0.76), (-0.96, 0.66), steps=5,
    )
    pen.fill(None, outline)
    pen.fill(None, box(-0.94, 0.56, 0.94, 0.76, 0.08), shaded(main, 0.72))
    pen.window(points((-0.56, 0.2), (-0.4, roof + 0.12), (-0.1, roof + 0.12), (-0.1, 0.2)))
    pen.window(points((0.0, 0.2), (0.0, roof + 0.12), (0.22, roof + 0.12), (0.42, 0.2)))
    door = pen.part("door")
    pen.fill(door, box(-0.08, 0.26, 0.36, 0.68, 0.04), shaded(main, 0.9))
    pen.fill(pen.part("handle", door), box(-0.02, 0.32, 0.12, 0.39), INK)
    pen.fill(pen.part("light"), ellipse(0.86, 0.44, 0.09, 0.1), (252, 238, 160))
    for x in (-0.52, 0.54):
        pen.wheel(x, 0.74, 0.25)


def bus(pen: Pen) -> None:
    """From the side: a high box, a row of windows, a tall door, two wheels."""
    main, top = pen.look.main, pen.between(-0.5, -0.36)
    pen.fill(None, box(-0.98, top, 0.98, 0.78, 0.12))
    pen.fill(None, box(-0.98, 0.34, 0.98, 0.46), pen.look.accent)
    for x in (-0.88, -0.5, -0.12):
        pen.window(box(x, top + 0.16, x + 0.3, 0.18, 0.04))
    pen.window(box(0.66, top + 0.16, 0.97, 0.24, 0.05))
    door = pen.part("door")
    pen.fill(door, box(0.26, top + 0.14, 0.58, 0.74, 0.03), shaded(main, 0.6))
    pen.fill(door, box(0.3, top + 0.2, 0.4, 0.62), pen.glass)
    pen.fill(door, box(0.44, top + 0.2, 0.54, 0.62), pen.glass)
    pen.fill(pen.part("light"), ellipse(0.92, 0.58, 0.07, 0.08), (252, 238, 160))
    for x in (-0.56, 0.7):
        pen.wheel(x, 0.78, 0.21)


def boat(pen: Pen) -> None:
    """From the side: a hull, a mast, one or two sails."""
    sail, height = shaded(pen.look.accent, 1.6), pen.between(-0.96, -0.8)  # pale: the hull is what gives a boat its colour
    pen.stroke(pen.part("mast"), points((-0.04, 0.5), (-0.04, height)), 0.08, pen.wood)
    belly = pen.between(0.0, 0.14)
    outline = blob(
        (0.04, height + 0.1), (0.42 + belly, -0.1), (0.76, 0.36), (0.04, 0.36), steps=4,
    )
    pen.fill(pen.part("sail"), outline, sail)
    if pen.chance(0.7):
        pen.fill(pen.part("sail"), points((-0.12, height + 0.24), (-0.12, 0.36), (-0.62, 0.36)), shaded(sail, 0.92))
    if pen.wants("flag"):
        pen.flag(-0.04, height + 0.3, 0.52)
    hull = pen.part("hull")
    pen.fill(hull, points((-0.98, 0.44), (1.0, 0.44), (0.8, 0.84), (0.6, 0.98), (-0.56, 0.98), (-0.78, 0.84)))
    pen.fill(hull, points((-0.98, 0.44), (1.0, 0.44), (0.95, 0.56), (-0.93, 0.56)), shaded(pen.look.main, 1.4))
    if pen.wants("window"):
        for x in (-0.46, 0.0, 0.46):
            pen.window(ellipse(x, 0.73, 0.12, 0.12))


def airplane(pen: Pen) -> None:
    """From the side, in flight: a long body, wings swept back with engines, a tail fin, a row of windows."""
    accent = pen.look.accent
    outline = points(
        (0.12, -0.08), (-0.3, -0.56), (-0.46, -0.56), (-0.22, -0.02),
    )
    pen.fill(pen.part("wing"), outline, shaded(accent, 0.75))
    tail = pen.part("tail")
    pen.fill(tail, points((-0.5, -0.1), (-0.82, -0.64), (-1.0, -0.64), (-0.9, 0.0)), accent)
    body, fat = pen.part("body"), pen.between(0.22, 0.28)
    outline = blob(
        (-0.96, -0.1), (-0.5, -fat), (0.4, -fat), (0.8, -0.17), (1.0, 0.06), (0.76, 0.2), (0.2, fat),
        (-0.4, 0.2),
    )
    pen.fill(body, outline)
    pen.fill(body, blob((0.68, -0.15), (0.84, -0.06), (0.7, -0.02), (0.62, -0.04), steps=4), INK)
    pen.fill(tail, points((-0.6, 0.0), (-0.98, 0.12), (-0.86, 0.2), (-0.5, 0.08)), shaded(accent, 0.75))
    for x in (-0.4, -0.14, 0.12, 0.38):
        pen.window(ellipse(x, -0.08, 0.07, 0.085))
    wing, sweep = pen.part("wing"), pen.between(-0.1, 0.06)
    for x in (-0.14, 0.1):
        pen.fill(pen.part("engine", wing), box(x - 0.12 + sweep * 0.4, 0.42, x + 0.18 + sweep * 0.4, 0.6, 0.08), pen.metal)
    pen.fill(wing, points((0.3, 0.08), (-0.18 + sweep, 0.84), (-0.44 + sweep, 0.84), (-0.2, 0.08)), accent)


def house(pen: Pen) -> None:
    """From the front: a gabled or hipped roof, a door, one or two windows, a chimney."""
    accent = pen.look.accent
    ridge, wide = pen.between(-0.96, -0.8), pen.between(0.66, 0.78)
    if pen.wants("chimney"):
        pen.fill(pen.part("chimney"), box(0.32, -0.92, 0.54, -0.3), shaded(pen.look.trim, 0.85))
    if pen.wants("flag"):
        pen.flag(-0.2, -0.4, 0.6)
    pen.fill(None, box(-wide, -0.24, wide, 1.0))
    hip = pen.between(0.0, 0.4) if pen.chance(0.6) else 0.0
    pen.fill(pen.part("roof"), points((-0.96, -0.16), (-hip, ridge), (hip, ridge), (0.96, -0.16)), accent)
    left = pen.chance(0.5)
    x = (-wide + 0.14) if left else -0.19
    door = pen.part("door")
    pen.fill(door, box(x, 0.36, x + 0.38, 1.0), shaded(pen.wood, 0.85))
    pen.fill(pen.part("handle", door), ellipse(x + 0.3, 0.7, 0.055, 0.055), (250, 214, 90))
    panes = ((x + 0.5, x + 0.9),) if left else ((-wide + 0.08, -0.29), (0.27, wide - 0.08))
    for x0, x1 in panes:
        window = pen.part("window")
        pen.fill(window, box(x0, 0.1, x1, 0.52), pen.glass)
        middle = (x0 + x1) / 2
        pen.stroke(window, points((middle, 0.12), (middle, 0.5)), 0.05, PAPER)
        pen.stroke(window, points((x0, 0.31), (x1, 0.31)), 0.05, PAPER)


def tree(pen: Pen) -> None:
    """A trunk under a round crown or a fir's tiers."""
    main, lean = pen.look.main, pen.between(-0.08, 0.08)
    pen.fill(pen.part("trunk"), points((-0.2, 1.0), (-0.12 + lean, 0.1), (0.12 + lean, 0.1), (0.2, 1.0)), pen.wood)
    crown = pen.part("crown")
    if pen.chance(0.65):  # round, of leafy lobes
        lobes, turn = 8 + int(pen.between(0, 3)), pen.between(0, 2 * pi)
        pen.fill(crown, ellipse(0, -0.3, 0.66, 0.46))
        for i in range(lobes):
            angle, radius = turn + 2 * pi * i / lobes, pen.between(0.22, 0.28)
            pen.fill(crown, ellipse(0.64 * cos(angle), -0.3 + 0.42 * sin(angle), radius, radius * 0.9, num=14))
        for x, y in ((-0.36, -0.5), (0.12, -0.62), (0.44, -0.28), (-0.5, -0.1), (0.0, -0.16)):
            pen.stroke(crown, arc(x, y, 0.13, 0.1, pi, 2 * pi, num=7), 0.06, shaded(main, 0.8))
        spots = ((-0.5, 0.0), (-0.05, -0.28), (0.42, 0.02), (0.5, -0.46), (-0.06, 0.14))
    else:
        for y, wide in ((0.42, 0.76), (0.02, 0.6), (-0.4, 0.44)):
            pen.fill(crown, points((-wide, y), (0, y - 0.62), (wide, y)), shaded(main, 0.88 + 0.3 * (0.42 - y)))
        spots = ((-0.4, 0.28), (0.2, 0.2), (-0.12, -0.08), (0.22, -0.16), (0.0, -0.52))
    if pen.wants("fruit"):
        for x, y in spots:
            pen.fill(pen.part("fruit", crown), ellipse(x, y, 0.115, 0.115), pen.look.trim)


def flower(pen: Pen) -> None:
    """A blossom of five to eight petals about a center, on a stem with two leaves."""
    bend, green = pen.between(-0.12, 0.12), shaded(pen.leaf, pen.between(0.8, 1.1))
    pen.stroke(pen.part("stem"), curve((0, 0.98), (bend, 0.5), (0, -0.1)), 0.11, green)
    for side, y in ((-1, 0.72), (1, 0.58)):
        rise = pen.between(0.16, 0.3)
        outline = blob((0, y), (side * 0.28, y - rise - 0.06), (side * 0.58, y - rise - 0.04), (side * 0.34, y + 0.02))
        pen.fill(pen.part("leaf"), outline, shaded(green, 0.85))
    blossom, num = pen.part("blossom"), 5 + int(pen.between(0, 4))
    turn, width = pen.between(0, 2 * pi), 0.9 / num + 0.08
    for i in range(num):
        angle = turn + 2 * pi * i / num
        petal = pen.part("petal", blossom)
        pen.fill(petal, ellipse(0.4 * cos(angle), -0.4 + 0.4 * sin(angle), 0.27, width, angle))
    pen.fill(pen.part("center", blossom), ellipse(0, -0.4, 0.2, 0.2), pen.look.accent)


def mushroom(pen: Pen) -> None:
    """A broad cap, often spotted, on a thick pale stem."""
    high, fat = pen.between(-0.9, -0.7), pen.between(0.22, 0.3)
    stem = pen.part("stem")
    outline = blob(
        (-fat, 0.1), (-fat, 0.6), (-fat - 0.12, 0.96), (fat + 0.12, 0.96), (fat, 0.6), (fat, 0.1), steps=5,
    )
    pen.fill(stem, outline, CREAM[int(pen.between(0, len(CREAM)))])
    cap = pen.part("cap")
    outline = blob(
        (-0.96, 0.14), (-0.8, -0.34), (-0.36, high + 0.1), (0, high), (0.36, high + 0.1), (0.8, -0.34),
        (0.96, 0.14), (0.5, 0.28), (0, 0.32), (-0.5, 0.28),
    )
    pen.fill(cap, outline)
    if pen.wants("spot"):
        for x, y, radius in ((-0.56, -0.1, 0.14), (-0.1, -0.44, 0.17), (0.2, 0.0, 0.13), (0.6, -0.2, 0.14)):
            pen.fill(pen.part("spot", cap), ellipse(x, y, radius, radius * 0.85), shaded(pen.look.accent, 1.3))


def umbrella(pen: Pen) -> None:
    """Open: a scalloped canopy in panels, a hooked handle, a tip."""
    main, accent = pen.look.main, pen.look.accent
    pen.stroke(pen.part("handle"), curve((0, -0.2), (0, 0.4), (0, 0.78), (0.14, 0.95), (0.3, 0.78)), 0.09, pen.wood)
    pen.fill(pen.part("tip"), limb(0, -0.7, 0, -0.92, 0.12, 0.08), pen.metal)
    canopy, arch = pen.part("canopy"), 0.12
    dome = arc(0, -0.02, 0.98, 0.76, 0, -pi)
    edges = (-0.98, -0.36, 0.36, 0.98)
    spans = zip(edges, edges[1:], strict=False)
    scallops = [arc((a + b) / 2, -0.02, (b - a) / 2, arch, pi, 2 * pi, num=7) for a, b in spans]
    pen.fill(canopy, np.concatenate([dome, *scallops]))
    if pen.chance(0.6):
        panel = np.concatenate([points((0, -0.78)), scallops[1]])
        pen.fill(canopy, panel, shaded(main, 1.35) if pen.chance(0.5) else accent)


def rocket(pen: Pen) -> None:
    """Pointing up: a slim body, a pointed nose, fins, a flame."""
    main, accent = pen.look.main, pen.look.accent
    burn = pen.between(0.84, 1.0)
    flame = pen.part("flame")
    pen.fill(flame, blob((-0.22, 0.56), (-0.12, 0.84), (0, burn), (0.12, 0.84), (0.22, 0.56), steps=4), (248, 150, 50))
    pen.fill(flame, blob((-0.1, 0.56), (0, burn - 0.16), (0.1, 0.56), steps=4), (252, 224, 110))
    for side in (-1, 1):
        outline = points(
            (side * 0.28, 0.1), (side * 0.64, 0.5), (side * 0.64, 0.76), (side * 0.26, 0.56),
        )
        pen.fill(pen.part("fin"), outline, accent)
    body = pen.part("body")
    outline = blob(
        (0, -0.94), (0.24, -0.6), (0.36, -0.1), (0.34, 0.3), (0.24, 0.6), (-0.24, 0.6), (-0.34, 0.3),
        (-0.36, -0.1), (-0.24, -0.6),
    )
    pen.fill(body, outline)
    outline = blob(
        (0, -0.97), (0.12, -0.8), (0.25, -0.54), (0, -0.5), (-0.25, -0.54), (-0.12, -0.8),
    )
    pen.fill(pen.part("nose"), outline, accent)
    for y in (-0.24, 0.16)[: 1 + int(pen.chance(0.5))]:
        pen.window(ellipse(0, y, 0.15, 0.15))
    pen.fill(body, box(-0.28, 0.46, 0.28, 0.58), shaded(main, 0.7))


DRAW = {
    "dog": animals.dog,
    "bird": animals.bird,
    "fish": animals.fish,
    "butterfly": animals.butterfly,
    "turtle": animals.turtle,
    "robot": animals.robot,
    "car": car,
    "boat": boat,
    "airplane": airplane,
    "house": house,
    "tree": tree,
    "flower": flower,
    "mushroom": mushroom,
    "umbrella": umbrella,
    "cat": animals.cat,
    "bus": bus,
    "rocket": rocket,
}
