"""Sizes of the Swin Transformers below released mask transformers, as fields of `Swin`. Plain data."""


def _variant(embed_dim, depths, num_heads, window):
    return {"embed_dim": embed_dim, "depths": depths, "num_heads": num_heads, "window": window}


# Windows of 7 come from ImageNet at 224 pixels, those of 12 at 384.
VARIANTS = {
    "tiny": _variant(96, (2, 2, 6, 2), (3, 6, 12, 24), 7),
    "small": _variant(96, (2, 2, 18, 2), (3, 6, 12, 24), 7),
    "base": _variant(128, (2, 2, 18, 2), (4, 8, 16, 32), 12),
    "large": _variant(192, (2, 2, 18, 2), (6, 12, 24, 48), 12),
}
