"""Surface patterns: brightness fields that make grass, brick, water, stripes or dots of a flat colour.

A bank holds every pattern as one uint8 field of levels 0 (darkest) .. 62 (lightest), 31 = the colour itself. The fields
scale with the picture, so a scene has the same look at every size; each use reads its field at an offset of its own.
"""

import functools

import cv2
import numpy as np

NUM_LEVELS = 63
NAMES = (
    "plain",
    "shade",  # darker downwards over the whole picture
    "stripes",
    "bars",
    "diagonal",
    "dots",
    "checks",
    "speckle",
    "cloudy",
    "waves",
    "blades",
    "planks",
    "bricks",
    "grain",
    "tiles",
)
INDEX = {name: i for i, name in enumerate(NAMES)}
SPAN = 1.3  # side of a field, in picture sides


def _noise(seed: int, n: int, cells_y: int, cells_x: int) -> np.ndarray:
    """Smooth noise in about [-1, 1] of `cells` bumps per field."""
    grid = np.random.default_rng(seed).uniform(-1, 1, (cells_y, cells_x)).astype(np.float32)
    return cv2.resize(grid, (n, n), interpolation=cv2.INTER_CUBIC)


def _stripes(phase: np.ndarray, duty: float = 0.5) -> np.ndarray:
    return np.where(phase % 1.0 < duty, 1.0, -1.0)


def _fields(n: int):
    y, x = np.mgrid[0:n, 0:n].astype(np.float32) * (SPAN / n)  # in picture sides
    yield np.zeros((n, n), np.float32)
    yield np.clip(1 - 2 * y, -1, 1)
    yield _stripes(y * 18)
    yield _stripes(x * 18)
    yield _stripes((x + y) * 14)
    dots_y, dots_x = (y * 16) % 1 - 0.5, (x * 16 + 0.5 * (np.floor(y * 16) % 2)) % 1 - 0.5
    yield np.where(dots_x**2 + dots_y**2 < 0.085, 1.0, -0.6)
    yield _stripes(x * 11) * _stripes(y * 11)
    yield np.clip(1.6 * _noise(1, n, 90, 90), -1, 1)
    yield np.clip(_noise(2, n, 9, 6) + 0.5 * _noise(3, n, 20, 14), -1, 1)
    crest = np.sin(2 * np.pi * (y * 22 + 0.35 * np.sin(2 * np.pi * x * 7) + 0.6 * _noise(4, n, 8, 8)))
    yield np.where(crest > 0.75, 1.0, 0.25 * crest)
    blades = _noise(5, n, 30, 150)
    yield np.clip(np.where(blades > 0.55, 1.0, np.where(blades < -0.55, -1.0, 0.0)) + 0.4 * _noise(6, n, 5, 5), -1, 1)
    rows = np.floor(y * 14)
    joints = (x * 2.6 + 0.37 * rows) % 1
    plank = np.random.default_rng(7).uniform(-0.45, 0.45, 1 + int(14 * SPAN))[rows.astype(int)]
    yield np.where(((y * 14) % 1 < 0.09) | (joints < 0.014), -1.0, plank + 0.25 * _noise(8, n, 130, 14))
    rows = np.floor(y * 15)
    columns = x * 7.5 + 0.5 * (rows % 2)
    tone = np.random.default_rng(9).uniform(-0.35, 0.35, (2 + int(15 * SPAN), 3 + int(7.5 * SPAN)))
    mortar = ((y * 15) % 1 < 0.14) | (columns % 1 < 0.07)
    yield np.where(mortar, 1.0, tone[rows.astype(int), columns.astype(int)] - 0.1)
    yield np.clip(1.2 * _noise(10, n, 140, 140) + 0.5 * _noise(11, n, 7, 5), -1, 1)
    seams = ((y * 8) % 1 < 0.05) | ((x * 8) % 1 < 0.05)
    yield np.where(seams, -1.0, 0.25 * _stripes(x * 4) * _stripes(y * 4))


@functools.lru_cache(maxsize=2)
def bank(side: int) -> tuple[np.ndarray, int]:
    """All patterns for a canvas of `side` pixels: (uint8 levels [len(NAMES) * n * n], n = the side of a field)."""
    n = int(np.ceil(side * SPAN))
    levels = np.empty((len(NAMES), n, n), np.uint8)
    for i, field in enumerate(_fields(n)):
        levels[i] = np.rint((field + 1) * ((NUM_LEVELS - 1) / 2))
    return levels.reshape(-1), n
