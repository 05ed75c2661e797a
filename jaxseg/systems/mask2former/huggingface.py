"""Mask2Former as Hugging Face's `Mask2FormerForUniversalSegmentation` saves it; its backbone is a Swin Transformer."""

from jaxseg.decoders import mask_former_huggingface as head
from jaxseg.encoders.swin import weights as swin
from jaxseg.weights import Format, prefixed

BACKBONE = "model.pixel_level_module.encoder."
IGNORE = (
    *head.HUGGINGFACE_IGNORE,
    *((BACKBONE.replace(".", r"\.") + pattern, why) for pattern, why in swin.HUGGINGFACE_IGNORE),
)


def rules(model=None):
    """`model.pixel_level_module.{encoder,decoder}.*`, `model.transformer_module.*` and `class_predictor.*`."""
    del model
    return [*prefixed(swin.huggingface_rules(), BACKBONE, "backbone/"), *prefixed(head.huggingface_rules(), "", "head/")]


def _infer(shapes):
    backbone = {key.removeprefix(BACKBONE): shape for key, shape in shapes.items() if key.startswith(BACKBONE)}
    return {"backbone": {"name": "swin", **swin.infer_huggingface(backbone)}, "head": head.infer_huggingface(shapes)}


def settings(config):
    """Fields of `Mask2Former` that a config.json of transformers decides; class names in it have no place in a checkpoint."""
    return {"backbone": swin.huggingface_settings(config.get("backbone_config", {})), "head": head.huggingface_settings(config)}


FORMAT = Format(
    "huggingface",
    detect=lambda keys: "model.transformer_module.queries_embedder.weight" in keys,
    infer=_infer,
    rules=rules,
    ignore=IGNORE,
    settings=settings,
)
