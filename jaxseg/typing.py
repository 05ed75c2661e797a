"""Shared type names, and the legend of shape letters used in every docstring.

Legend:
    B batch        P prompts (CLIPSeg) or points     Q queries        K classes
    T text tokens  N image tokens                    S segments       L levels or layers
    C channels     E embedding width shared by image and text         H, W height and width

Masks are `True` = valid or foreground; logits are unnormalised; boxes name their format (`boxes_xyxy`, `boxes_cxcywh`).
"""

from collections.abc import Mapping
from typing import Any

import jax
import numpy as np

Array = jax.Array | np.ndarray
PyTree = Any
Params = Mapping[str, Any]
State = Mapping[str, Any]
Batch = Mapping[str, Array]
