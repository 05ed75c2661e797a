"""A canvas that draws the picture and its annotation together.

Every shape is filled once, with a code, on a supersampled map; a code stands for (colour, pattern, segment, part). The
picture is the codes' colours averaged down, the maps are the codes' ids at pixel centres: they cannot disagree.
"""

import dataclasses

import cv2
import numpy as np

from input_pipeline.datasets.scenes import patterns

_SHIFT = 4  # fillPoly takes fixed-point coordinates with this many fractional bits
_OUTLINE = patterns.NUM_LEVELS  # the palette's last column
_GAINS = np.linspace(-1, 1, patterns.NUM_LEVELS, dtype=np.float32)
_OUTLINE_WIDTH = 0.009  # in picture sides


def supersampling(size: int) -> int:
    """Canvas pixels per picture pixel."""
    return 4 if size < 96 else 3 if size <= 192 else 2


@dataclasses.dataclass(frozen=True)
class Picture:
    """`image` uint8 [S, S, 3]; `segment_map`, `part_map` int32 [S, S]."""

    image: np.ndarray
    segment_map: np.ndarray
    part_map: np.ndarray


class Canvas:
    """Draws in picture sides: (0, 0) is the top left corner, (1, 1) the bottom right one."""

    def __init__(self, size: int):
        self.size = size
        self.scale = supersampling(size)
        self.side = size * self.scale
        self._codes = np.zeros((self.side, self.side), np.uint16)
        self._bank, self._field_side = patterns.bank(self.side)
        self._colors, self._strengths, self._bases = [], [], []
        self._segments, self._parts, self._layers = [], [], []
        self._shadows = []
        self._whole = self.frame(np.eye(2, dtype=np.float32), np.zeros(2, np.float32))

    def paint(self, color, segment, part=0, layer=0, pattern="plain", strength=0.0, offset=(0.0, 0.0)) -> int:
        """A new code. `layer` > 0: a rim is drawn where it covers a lower layer; `offset` (0..0.25) moves the pattern."""
        self._colors.append(color)
        self._strengths.append(strength)
        shift = int(offset[0] * self.side) * self._field_side + int(offset[1] * self.side)
        self._bases.append(patterns.INDEX[pattern] * self._field_side**2 + shift)
        self._segments.append(segment)
        self._parts.append(part)
        self._layers.append(layer)
        return len(self._colors) - 1

    def frame(self, matrix: np.ndarray, offset: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
        """A coordinate frame to draw in: (x, y) @ matrix + offset, in picture sides."""
        scale = np.float32(self.side << _SHIFT)
        return matrix * scale, offset * scale - np.float32((1 << _SHIFT) / 2 - 0.5)

    def fill(self, outline: np.ndarray, code: int, frame=None) -> None:
        """Fills a polygon [N, 2], given in picture sides or in a frame."""
        matrix, offset = frame or self._whole
        cv2.fillPoly(self._codes, [(outline @ matrix + offset).astype(np.int32)], code, shift=_SHIFT)

    def stroke(self, line: np.ndarray, width: float, code: int, frame=None) -> None:
        """Draws an open line [N, 2] with round ends; `width` in picture sides."""
        matrix, offset = frame or self._whole
        fixed = (line @ matrix + offset).astype(np.int32)
        cv2.polylines(self._codes, [fixed], False, code, max(1, round(width * self.side)), shift=_SHIFT)

    def shadow(self, x, y, x_radius, y_radius) -> None:
        """Darkens the stuff under an object: a soft ellipse."""
        self._shadows.append((x, y, x_radius, y_radius))

    def finish(self, light=(1.0, 1.0, 1.0), slope=(0.0, 0.0)) -> Picture:
        """The picture and its maps. `light`: gain per RGB channel; `slope`: change of brightness along x and y."""
        codes = self._codes
        centers = codes[self.scale // 2 :: self.scale, self.scale // 2 :: self.scale]
        segment_map = np.array(self._segments, np.int32)[centers]
        image = cv2.resize(self._colored(codes), (self.size, self.size), interpolation=cv2.INTER_AREA)[:, :, :3]
        field = self._light(segment_map, slope)[:, :, None] * np.array(light, np.float32)
        image = np.clip(image * field + 0.5, 0, 255).astype(np.uint8)
        return Picture(image, segment_map, np.array(self._parts, np.int32)[centers])

    def _colored(self, codes: np.ndarray) -> np.ndarray:
        """uint8 [side, side, 4]."""
        codes = codes.astype(np.intp)
        layers = np.array(self._layers, np.uint16).take(codes, mode="clip")
        width = 2 * max(1, round(_OUTLINE_WIDTH * self.side / 2)) + 1
        kernel = cv2.getStructuringElement(cv2.MORPH_ELLIPSE, (width, width))
        rim = cv2.erode(layers, kernel, borderValue=2**16 - 1) < layers
        rows = np.arange(self.side)
        index = np.array(self._bases).take(codes, mode="clip")
        index += (rows * self._field_side)[:, None]
        index += rows
        levels = self._bank.take(index, mode="clip")
        levels |= rim.view(np.uint8) * np.uint8(_OUTLINE)  # all bits set: higher than any level
        codes *= _OUTLINE + 1
        codes += levels
        return self._palette().take(codes, mode="clip").view(np.uint8).reshape(self.side, self.side, 4)

    def _palette(self) -> np.ndarray:
        """Packed RGBx of (code, level), uint32 [num_codes * 64]."""
        colors = np.array(self._colors, np.float32)[:, None, :]
        gain = 1 + np.array(self._strengths, np.float32)[:, None] * _GAINS
        palette = np.zeros((len(colors), _OUTLINE + 1, 4), np.uint8)
        palette[:, :_OUTLINE, :3] = np.clip(colors * gain[:, :, None] + 0.5, 0, 255)
        palette[:, _OUTLINE, :3] = colors[:, 0] * 0.55
        return palette.view(np.uint32).reshape(-1)

    def _light(self, segment_map: np.ndarray, slope) -> np.ndarray:
        """Brightness gain float32 [size, size]: a slope over the picture, and shadows on what has no layer."""
        axis = np.linspace(-0.5, 0.5, self.size, dtype=np.float32)
        field = 1 + slope[0] * axis[None, :] + slope[1] * axis[:, None]
        if self._shadows:
            dark = np.zeros((self.size, self.size), np.uint8)
            fine = 1 << _SHIFT
            for x, y, x_radius, y_radius in self._shadows:
                center = (round((x * self.size - 0.5) * fine), round((y * self.size - 0.5) * fine))
                radii = (round(x_radius * self.size * fine), max(fine, round(y_radius * self.size * fine)))
                cv2.ellipse(dark, center, radii, 0, 0, 360, 90, -1, shift=_SHIFT)
            blur = 2 * (self.size // 64) + 1
            dark = cv2.GaussianBlur(dark, (blur, blur), 0)
            flat = np.zeros(1 + max(self._segments), np.float32)
            flat[[s for s, layer in zip(self._segments, self._layers, strict=True) if layer == 0]] = 1 / 255
            field = field * (1 - dark * flat[segment_map])
        return field
