"""Outlines of shapes: [N, 2] float32 points (x right, y down) of closed polygons."""

import functools

import numpy as np

Points = np.ndarray


@functools.cache
def _circle(num: int) -> Points:
    angles = np.linspace(0, 2 * np.pi, num, endpoint=False)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def points(*pairs) -> Points:
    """A polygon from (x, y) pairs."""
    return np.array(pairs, np.float32)


def ellipse(x, y, x_radius, y_radius, angle=0.0, num=28) -> Points:
    """An ellipse about (x, y), turned by `angle` radians (clockwise on the picture)."""
    outline = _circle(num) * np.array([x_radius, y_radius], np.float32)
    if angle:
        outline = outline @ rotation(angle).T
    return outline + np.array([x, y], np.float32)


def arc(x, y, x_radius, y_radius, start, end, num=20) -> Points:
    """A sector's outer line from angle `start` to `end` (radians, clockwise from +x); closed by the chord when filled."""
    angles = np.linspace(start, end, num)
    return np.stack([x + x_radius * np.cos(angles), y + y_radius * np.sin(angles)], axis=1).astype(np.float32)


def box(x0, y0, x1, y1, rounding=0.0) -> Points:
    """A rectangle, its corners rounded with radius `rounding`."""
    if not rounding:
        return points((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    corners = _circle(20) * rounding
    inner = np.array([[x1 - rounding, y1 - rounding], [x0 + rounding, y1 - rounding]], np.float32)
    upper = np.array([[x0 + rounding, y0 + rounding], [x1 - rounding, y0 + rounding]], np.float32)
    return np.concatenate(
        [corners[0:6] + inner[0], corners[5:11] + inner[1], corners[10:16] + upper[0], corners[[*range(15, 20), 0]] + upper[1]]
    )


@functools.cache
def _spline_basis(steps: int) -> Points:
    t = np.linspace(0, 1, steps, endpoint=False)
    # Catmull-Rom: the curve passes through its control points
    return 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1
    ).astype(np.float32)


def blob(*pairs, steps=6) -> Points:
    """A smooth closed curve through (x, y) pairs."""
    p = np.array(pairs, np.float32)
    around = np.stack([np.roll(p, 1, 0), p, np.roll(p, -1, 0), np.roll(p, -2, 0)], axis=1)  # [N, 4, 2]
    return (_spline_basis(steps) @ around).reshape(-1, 2)


def curve(*pairs, steps=6) -> Points:
    """A smooth open line through (x, y) pairs."""
    p = np.array([pairs[0], *pairs, pairs[-1]], np.float32)
    around = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], axis=1)
    return np.concatenate([(_spline_basis(steps) @ around).reshape(-1, 2), p[-1:]])


def limb(x0, y0, x1, y1, width0, width1) -> Points:
    """A limb from (x0, y0) to (x1, y1) with a round far end; widths at both ends."""
    along = np.array([x1 - x0, y1 - y0], np.float32)
    length = float(np.hypot(*along)) or 1.0
    along /= length
    across = np.array([-along[1], along[0]], np.float32)
    start, end = np.array([x0, y0], np.float32), np.array([x1, y1], np.float32)
    turn = np.linspace(np.pi / 2, -np.pi / 2, 8, dtype=np.float32)[:, None]
    cap = end + (np.cos(turn) * along + np.sin(turn) * across) * width1 / 2
    return np.concatenate([cap, [start - across * width0 / 2, start + across * width0 / 2]]).astype(np.float32)


def rotation(angle: float) -> Points:
    """The 2x2 matrix that turns by `angle` radians, clockwise on the picture."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]], np.float32)
