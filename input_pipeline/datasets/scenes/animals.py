"""Dogs, cats, birds, fish, butterflies, turtles and robots, drawn with a `Pen`."""

from math import cos, pi, sin

import numpy as np

from input_pipeline.datasets.scenes.pen import INK, PAPER, Pen, shaded
from input_pipeline.datasets.scenes.shapes import arc, blob, box, curve, ellipse, limb, points


def dog(pen: Pen) -> None:
    """From the side: four legs, a long snout, hanging ears, a raised tail."""
    main = pen.look.main
    far, wag, nod = shaded(main, 0.72), pen.between(-0.15, 0.2), pen.between(-0.08, 0.08)
    stride, width = pen.between(0.0, 0.18), pen.between(0.2, 0.26)
    pen.tail_line((-0.62, 0.0), (-0.84, -0.14 + wag), (-0.93 - 0.2 * wag, -0.5 + wag), width=0.15)
    for x, step in ((-0.42, -stride), (0.42, stride)):
        pen.fill(pen.part("leg"), limb(x, 0.2, x + step, 0.88, width + 0.04, width), far)
    for x, step in ((-0.5, stride), (0.34, -stride)):
        pen.fill(pen.part("leg"), limb(x, 0.2, x + step, 0.9, width + 0.06, width))
    body = pen.part("body")
    outline = blob(
        (-0.7, 0.05), (-0.55, -0.22), (0, -0.18), (0.4, -0.4), (0.62, -0.1), (0.5, 0.34), (0, 0.38),
        (-0.5, 0.42),
    )
    pen.fill(body, outline)
    pen.stroke(body, curve((0.26, -0.34), (0.44, -0.12), (0.66, -0.1)), 0.1, pen.look.trim)
    head, y = pen.part("head"), -0.5 + nod
    pen.fill(head, ellipse(0.52, y, 0.31, 0.29))
    pen.fill(head, ellipse(0.8, y + 0.11, 0.22, 0.15), shaded(main, 1.3))
    pen.fill(pen.part("nose", head), ellipse(0.98, y + 0.04, 0.08, 0.07), INK)
    pen.eye(head, 0.64, y - 0.08, 0.085)
    ear = [(0.4, y - 0.28), (0.52, y - 0.12), (0.44, y + 0.3), (0.28, y + 0.36), (0.22, y)]
    pen.fill(pen.part("ear", head), blob(*ear), shaded(main, 0.6))
    if pen.wants("hat"):
        pen.hat(0.54, y - 0.26, 0.44, 0.12)


def cat(pen: Pen) -> None:
    """Sitting, from the front: pointed ears, whiskers, a tail curling up beside the body."""
    main = pen.look.main
    tilt, fat = pen.between(-0.08, 0.08), pen.between(0.44, 0.54)
    pen.tail_line((0.3, 0.86), (0.72, 0.82), (0.86, 0.4), (0.7, 0.06), (0.84, -0.1), width=0.15)
    outline = blob(
        (0, -0.2), (0.3, 0), (fat, 0.6), (0.4, 0.98), (0, 1.0), (-0.4, 0.98), (-fat, 0.6), (-0.3, 0),
    )
    pen.fill(pen.part("body"), outline)
    for side in (-1, 1):
        pen.fill(pen.part("leg"), limb(side * 0.17, 0.3, side * 0.17, 0.9, 0.2, 0.22), shaded(main, 1.25))
    head = pen.part("head")
    for side in (-1, 1):
        ear = pen.part("ear", head)
        pen.fill(ear, points((side * 0.46 + tilt, -0.42), (side * 0.44 + tilt, -0.98), (side * 0.05 + tilt, -0.66)))
        inside = points((side * 0.38 + tilt, -0.56), (side * 0.38 + tilt, -0.84), (side * 0.18 + tilt, -0.66))
        pen.fill(ear, inside, (238, 160, 170))
    pen.fill(head, ellipse(tilt, -0.38, 0.5, 0.4))
    pen.fill(head, ellipse(tilt, -0.22, 0.22, 0.14), shaded(main, 1.3))
    for side in (-1, 1):
        pen.eye(head, side * 0.21 + tilt, -0.44, 0.1, gaze=0.0)
        for spread in (-0.08, 0.06):
            pen.stroke(head, points((side * 0.2 + tilt, -0.22), (side * 0.62 + tilt, -0.24 + spread)), 0.025, shaded(main, 0.4))
    pen.fill(pen.part("nose", head), points((tilt - 0.07, -0.3), (tilt + 0.07, -0.3), (tilt, -0.2)), (214, 106, 120))
    if pen.wants("hat"):
        pen.hat(tilt, -0.74, 0.5)


def bird(pen: Pen) -> None:
    """From the side: a round breast, a beak, a wing folded or raised, two thin legs."""
    main, accent = pen.look.main, pen.look.accent
    raised, beak = pen.chance(0.4), pen.horn
    for x in (-0.06, 0.16):
        leg = pen.part("leg")
        pen.stroke(leg, points((x, 0.5), (x, 0.95), (x + 0.16, 0.97)), 0.07, beak)
        pen.stroke(leg, points((x, 0.95), (x - 0.08, 0.97)), 0.07, beak)
    spread = pen.between(0.05, 0.2)
    outline = points(
        (-0.42, 0.0), (-1.0, -0.08 - spread), (-0.98, 0.08), (-1.0, 0.2 + spread), (-0.4, 0.3),
    )
    pen.fill(pen.part("tail"), outline, accent)
    body = pen.part("body")
    outline = blob(
        (-0.56, 0.16), (-0.3, -0.2), (0.12, -0.36), (0.52, -0.3), (0.62, 0.1), (0.34, 0.54), (-0.1, 0.6),
        (-0.42, 0.42),
    )
    pen.fill(body, outline)
    pen.fill(body, blob((0.2, 0.04), (0.5, -0.02), (0.54, 0.16), (0.3, 0.48), (0.04, 0.5)), shaded(main, 1.45))
    head = pen.part("head")
    pen.fill(head, ellipse(0.46, -0.44, 0.34, 0.32))
    drop = pen.between(0.04, 0.12)
    pen.fill(pen.part("beak", head), points((0.72, -0.56), (1.06, -0.44 + drop), (0.74, -0.32)), beak)
    pen.eye(head, 0.54, -0.5, 0.1)
    wing = pen.part("wing")
    if raised:
        outline = blob(
            (0.16, 0.14), (-0.3, 0.06), (-0.66, -0.5), (-0.72, -0.98), (-0.36, -0.76), (0.06, -0.26),
        )
        pen.fill(wing, outline, accent)
    else:
        lift = pen.between(-0.1, 0.1)
        outline = blob(
            (0.2, -0.12), (0.26, 0.1), (-0.08, 0.34), (-0.68, 0.36 + lift), (-0.5, 0.14), (-0.2, -0.14),
        )
        pen.fill(wing, outline, accent)
    if pen.wants("hat"):
        pen.hat(0.42, -0.72, 0.46, -0.1)


def fish(pen: Pen) -> None:
    """From the side: an oval body, a forked tail, fins above and below."""
    main, accent = pen.look.main, pen.look.accent
    tall, fork = pen.between(0.42, 0.56), pen.between(0.35, 0.5)
    pen.fill(pen.part("tail"), blob((-0.5, 0.0), (-0.94, -fork), (-0.84, 0), (-0.94, fork), steps=4), accent)
    outline = blob(
        (-0.34, -tall * 0.7), (-0.2, -tall - 0.26), (0.1, -tall - 0.3), (0.26, -tall * 0.8),
    )
    pen.fill(pen.part("fin"), outline, accent)
    outline = blob(
        (-0.26, tall * 0.7), (-0.2, tall + 0.2), (0.02, tall + 0.22), (0.14, tall * 0.8),
    )
    pen.fill(pen.part("fin"), outline, accent)
    body = pen.part("body")
    outline = blob(
        (-0.66, 0), (-0.3, -tall * 0.84), (0.2, -tall), (0.7, -tall * 0.66), (0.96, 0.02), (0.7, tall * 0.66),
        (0.2, tall), (-0.3, tall * 0.84),
    )
    pen.fill(body, outline)
    if pen.chance(0.5):
        for x, size in ((-0.36, 0.66), (-0.06, 0.9)):
            outline = blob(
                (x, -tall * size), (x + 0.14, -tall * size), (x + 0.2, 0), (x + 0.14, tall * size),
                (x, tall * size), (x + 0.06, 0),
            )
            pen.fill(body, outline, shaded(accent, 1.2))
    head = pen.part("head")
    outline = blob(
        (0.32, -tall * 0.9), (0.66, -tall * 0.66), (0.95, 0.02), (0.66, tall * 0.66), (0.32, tall * 0.9),
        (0.44, 0),
    )
    pen.fill(head, outline, shaded(main, 0.82))
    pen.eye(head, 0.62, -0.12, 0.12)
    pen.stroke(pen.part("mouth", head), curve((0.93, 0.14), (0.82, 0.2), (0.72, 0.17)), 0.07, INK)
    swing = pen.between(-0.1, 0.14)
    pen.fill(pen.part("fin"), blob((0.2, 0.06), (-0.06, 0.04 + swing), (-0.24, 0.26 + swing), (0.1, 0.26)), accent)


def butterfly(pen: Pen) -> None:
    """From above: four wings about a slim body, two antennae."""
    accent, spread = pen.look.accent, pen.between(0.86, 1.06)
    lower = blob((0.04, 0.06), (0.4, 0.08), (0.72, 0.2), (0.72, 0.62), (0.44, 0.9), (0.18, 0.58))
    upper = blob((0.04, -0.06), (0.28, -0.72), (0.76, -0.94), (0.96, -0.6), (0.78, -0.06), (0.34, 0.12))
    for side in (-spread, spread):
        for outline, x, y, radius in ((lower, 0.48, 0.48, 0.16), (upper, 0.66, -0.54, 0.19)):
            wing = pen.part("wing")
            pen.fill(wing, outline * np.array([side, 1], np.float32))
            if pen.wants("spot"):
                pen.fill(pen.part("spot", wing), ellipse(x * side, y, radius, radius), accent)
    for side in (-1, 1):
        pen.stroke(pen.part("antenna"), curve((0, -0.5), (side * 0.12, -0.84), (side * 0.32, -0.96)), 0.05, INK)
    pen.fill(pen.part("body"), ellipse(0, 0.08, 0.1, 0.52), shaded(pen.wood, 0.7))
    head = pen.part("head")
    pen.fill(head, ellipse(0, -0.48, 0.15, 0.15), shaded(pen.wood, 0.7))
    for side in (-1, 1):
        pen.eye(head, side * 0.08, -0.52, 0.055, gaze=0.0)


def turtle(pen: Pen) -> None:
    """From the side: a high shell on short legs, the head stretched out in front."""
    main, skin = pen.look.main, shaded(pen.look.accent, 1.15)
    reach, high = pen.between(-0.1, 0.16), pen.between(0.76, 0.9)
    pen.fill(pen.part("tail"), points((-0.66, 0.48), (-0.98, 0.72), (-0.6, 0.7)), skin)
    for x in (-0.46, 0.36):
        pen.fill(pen.part("leg"), limb(x, 0.5, x + pen.between(-0.08, 0.08), 0.86, 0.3, 0.28), shaded(skin, 0.85))
    head, y = pen.part("head"), 0.06 - reach
    pen.fill(head, limb(0.4, 0.56, 0.74, y + 0.1, 0.28, 0.26), skin)
    pen.fill(head, ellipse(0.78, y, 0.24, 0.22), skin)
    pen.eye(head, 0.85, y - 0.06, 0.08)
    pen.stroke(pen.part("mouth", head), curve((0.98, y + 0.08), (0.9, y + 0.12), (0.82, y + 0.1)), 0.05, INK)
    shell = pen.part("shell")
    pen.fill(shell, arc(-0.12, 0.56, 0.68, high, pi, 2 * pi, num=24))
    if pen.wants("spot"):
        for x, y_spot, radius in ((-0.46, 0.3, 0.11), (-0.12, 0.05, 0.16), (0.22, 0.3, 0.12)):
            pen.fill(pen.part("spot", shell), ellipse(x, y_spot, radius, radius * 0.9), pen.look.trim)
    pen.fill(shell, box(-0.84, 0.5, 0.6, 0.68, 0.09), shaded(main, 0.7))
    if pen.wants("hat"):
        pen.hat(0.76, y - 0.18, 0.42, 0.05)


def robot(pen: Pen) -> None:
    """From the front: a box for a head with an antenna, a box for a body, jointed arms and legs."""
    main, accent = pen.look.main, pen.look.accent
    for side in (-1, 1):
        leg = pen.part("leg")
        pen.fill(leg, box(side * 0.26 - 0.11, 0.5, side * 0.26 + 0.11, 0.88), pen.metal)
        pen.fill(leg, box(side * 0.3 - 0.19, 0.82, side * 0.3 + 0.19, 1.0, 0.07), accent)
    for side in (-1, 1):
        arm, angle = pen.part("arm"), pen.between(-0.9, 1.1)
        x, y = side * (0.52 + 0.42 * cos(angle)), 0.0 + 0.42 * sin(angle)
        pen.stroke(arm, points((side * 0.5, 0.0), (x, y)), 0.15, pen.metal)
        pen.fill(arm, ellipse(x, y, 0.14, 0.14), accent)
    body, wide = pen.part("body"), pen.between(0.46, 0.54)
    pen.fill(body, box(-wide, -0.16, wide, 0.6, 0.1))
    pen.fill(body, box(-0.26, 0.02, 0.26, 0.36, 0.04), shaded(main, 0.7))
    for i in range(3):
        pen.fill(body, ellipse(-0.14 + 0.14 * i, 0.19, 0.05, 0.05), pen.look.trim)
    head, wide = pen.part("head"), pen.between(0.38, 0.46)
    if not pen.wants("hat"):
        antenna = pen.part("antenna", head)
        pen.stroke(antenna, points((0, -0.7), (0, -0.92)), 0.06, pen.metal)
        pen.fill(antenna, ellipse(0, -0.93, 0.08, 0.08), pen.look.trim)
    pen.fill(head, box(-0.12, -0.26, 0.12, -0.1), pen.metal)
    pen.fill(head, box(-wide, -0.74, wide, -0.22, 0.1))
    for side in (-1, 1):
        pen.eye(head, side * 0.19, -0.54, 0.11, gaze=0.0)
    mouth = pen.part("mouth", head)
    pen.fill(mouth, box(-0.2, -0.37, 0.2, -0.29), INK)
    for x in (-0.08, 0.06):
        pen.fill(mouth, box(x, -0.37, x + 0.03, -0.29), PAPER)
    if pen.wants("hat"):
        pen.hat(0, -0.72, 0.5)
