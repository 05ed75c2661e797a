"""Colours for masks: distinct from one another, also to colour-blind eyes."""

import numpy as np

# Seven of Okabe and Ito ("Color Universal Design", 2008), then the colours farthest from those before them in OKLab, as
# seen by normal, deuteranopic and protanopic eyes (Machado et al. 2009).
_HEX = """
E69F00 0072B2 009E73 D55E00 56B4E9 CC79A7 F0E442 900054 0000FC 30FCE4 906CFC 600CB4 844800 6CCC84 C02490 FC486C
E418D8 C03048 00FC90 FCA8C0 78D8FC 6C3078 FC78CC C0CC54 90486C 9018CC 6078D8 186C3C FC6C3C C078FC 6048FC A848B4
"""
_COLORS = np.array([tuple(bytes.fromhex(code)) for code in _HEX.split()], np.uint8)


def palette(num_colors):
    """uint8 RGB [num_colors, 3]; the first colours are the most distinct, after 32 they come again."""
    return _COLORS[np.arange(num_colors) % len(_COLORS)]


def luminance(color):
    """Relative luminance of an RGB colour (0..255) in [0, 1], as WCAG 2 defines it."""
    c = np.asarray(color, np.float64) / 255
    return float(np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4) @ (0.2126, 0.7152, 0.0722))


def text_color(background):
    """Black or white, whichever is easier to read on a background."""
    return (0, 0, 0) if luminance(background) > 0.179 else (255, 255, 255)
