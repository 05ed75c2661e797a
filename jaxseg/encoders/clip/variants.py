"""Sizes of the CLIP models that OpenAI released, as fields of `jaxseg.encoders.clip.model.Clip`. Plain data."""


def _variant(embed_dim, image_size, vision_width, vision_layers, text_width, patch_size=0):
    return {
        "embed_dim": embed_dim,
        "image_size": image_size,
        "patch_size": patch_size,  # 0: a ModifiedResNet with `vision_layers` blocks per stage
        "vision_width": vision_width,
        "vision_layers": vision_layers,
        "vision_heads": 0,  # 0: width / 64 (ResNet: 32 * width / 64)
        "text_width": text_width,
        "text_layers": 12,
        "text_heads": 0,
        "context_length": 77,
        "vocab_size": 49408,
        "eos_token": -1,  # -1: the largest id, as OpenAI pools
    }


VARIANTS = {
    "RN50": _variant(1024, 224, 64, (3, 4, 6, 3), 512),
    "RN101": _variant(512, 224, 64, (3, 4, 23, 3), 512),
    "RN50x4": _variant(640, 288, 80, (4, 6, 10, 6), 640),
    "RN50x16": _variant(768, 384, 96, (6, 8, 18, 8), 768),
    "RN50x64": _variant(1024, 448, 128, (3, 15, 36, 10), 1024),
    "ViT-B/32": _variant(512, 224, 768, 12, 512, patch_size=32),
    "ViT-B/16": _variant(512, 224, 768, 12, 512, patch_size=16),
    "ViT-L/14": _variant(768, 224, 1024, 24, 768, patch_size=14),
    "ViT-L/14@336px": _variant(768, 336, 1024, 24, 768, patch_size=14),
}
