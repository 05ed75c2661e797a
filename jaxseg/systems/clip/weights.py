"""Checkpoint layouts of plain CLIP."""

from jaxseg.encoders.clip import weights as clip
from jaxseg.weights import Format

FORMATS = (
    Format(
        "openai",
        detect=clip.is_openai,
        infer=clip.infer_openai,
        rules=lambda model: clip.openai_rules(model["patch_size"]),
        ignore=clip.OPENAI_IGNORE,
    ),
    Format(
        "huggingface",
        detect=lambda keys: "text_projection.weight" in keys and "vision_model.embeddings.class_embedding" in keys,
        infer=clip.infer_huggingface,
        rules=lambda model: clip.huggingface_rules(),
        ignore=clip.HUGGINGFACE_IGNORE,
        settings=clip.huggingface_settings,
    ),
)
