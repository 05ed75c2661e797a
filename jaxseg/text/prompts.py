"""How a prompt becomes a condition: blending of text and image prompts."""

import numpy as np


def blend_weights(text_weight, visual_is_valid) -> np.ndarray:
    """Weight of the text where text and image prompts are blended; 1 where there is no image prompt.

    Args:
        text_weight: [B] in [0, 1].
        visual_is_valid: [B], 0 where an example has no support image.
    """
    return np.maximum(np.asarray(text_weight, np.float32), 1 - np.asarray(visual_is_valid, np.float32))
