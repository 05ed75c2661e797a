"""Outlines of shapes: [N, 2] float32 points (x right, y down) of closed polygons."""

import functools
import math

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


@functools.cache
def _arc(start: float, end: float, num: int) -> Points:
    angles = np.linspace(start, end, num)
    return np.stack([np.cos(angles), np.sin(angles)], axis=1).astype(np.float32)


def arc(x, y, x_radius, y_radius, start, end, num=20) -> Points:
    """A sector's outer line from angle `start` to `end` (radians, clockwise from +x); closed by the chord when filled."""
    return _arc(start, end, num) * np.array([x_radius, y_radius], np.float32) + np.array([x, y], np.float32)


def box(x0, y0, x1, y1, rounding=0.0) -> Points:
    """A rectangle, its corners rounded with radius `rounding`."""
    if not rounding:
        return points((x0, y0), (x1, y0), (x1, y1), (x0, y1))
    corners = _circle(20) * rounding
    inner = np.array([[x1 - rounding, y1 - rounding], [x0 + rounding, y1 - rounding]], np.float32)
    upper = np.array([[x0 + rounding, y0 + rounding], [x1 - rounding, y0 + rounding]], np.float32)
    right, left = corners[[*range(15, 20), 0]], corners[10:16]
    return np.concatenate([corners[0:6] + inner[0], corners[5:11] + inner[1], left + upper[0], right + upper[1]])


@functools.cache
def _spline_basis(steps: int) -> Points:
    t = np.linspace(0, 1, steps, endpoint=False)
    # Catmull-Rom: the curve passes through its control points
    return 0.5 * np.stack(
        [-t + 2 * t**2 - t**3, 2 - 5 * t**2 + 3 * t**3, t + 4 * t**2 - 3 * t**3, -(t**2) + t**3], axis=1
    ).astype(np.float32)


@functools.cache
def _neighbours(num: int) -> np.ndarray:
    """[N, 4] indices of a closed line's points: the one before, the point, the two after."""
    return (np.arange(num)[:, None] + np.arange(-1, 3)) % num


def blob(*pairs, steps=6) -> Points:
    """A smooth closed curve through (x, y) pairs."""
    p = np.array(pairs, np.float32)
    return (_spline_basis(steps) @ p[_neighbours(len(pairs))]).reshape(-1, 2)


def curve(*pairs, steps=6) -> Points:
    """A smooth open line through (x, y) pairs."""
    p = np.array([pairs[0], *pairs, pairs[-1]], np.float32)
    around = np.stack([p[:-3], p[1:-2], p[2:-1], p[3:]], axis=1)
    return np.concatenate([(_spline_basis(steps) @ around).reshape(-1, 2), p[-1:]])


def limb(x0, y0, x1, y1, width0, width1) -> Points:
    """A limb from (x0, y0) to (x1, y1) with a round far end; widths at both ends."""
    length = math.hypot(x1 - x0, y1 - y0)
    along_x, along_y = (x1 - x0) / length, (y1 - y0) / length
    frame = np.array([[along_x, along_y], [-along_y, along_x]], np.float32)  # rows: along, across
    cap = _arc(np.pi / 2, -np.pi / 2, 8) @ frame * (width1 / 2) + np.array([x1, y1], np.float32)
    half_x, half_y = -along_y * width0 / 2, along_x * width0 / 2
    return np.concatenate([cap, points((x0 - half_x, y0 - half_y), (x0 + half_x, y0 + half_y))])


def rotation(angle: float) -> Points:
    """The 2x2 matrix that turns by `angle` radians, clockwise on the picture."""
    c, s = np.cos(angle), np.sin(angle)
    return np.array([[c, -s], [s, c]], np.float32)
