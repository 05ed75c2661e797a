"""Checkpoint layouts of Mask2Former: detectron2's, Hugging Face's, and ImageNet classifiers to start its backbone from."""

from jaxseg.decoders.mask_former_weights import infer_mask_former, mask_former_rules
from jaxseg.encoders.resnet import weights as resnet
from jaxseg.encoders.swin import weights as swin
from jaxseg.systems.mask2former import huggingface
from jaxseg.weights import Format, below, prefixed

BACKBONE, HEAD = "backbone.", "sem_seg_head."
_PARTS = (f"{HEAD}predictor.", f"{HEAD}pixel_decoder.")
IGNORE = (
    ("criterion.empty_weight", "class weights of the loss, of a size that the config decides"),
    ("pixel_(mean|std)", "statistics of pixels, constants here"),
    *((r"backbone\." + pattern, why) for pattern, why in (*resnet.DETECTRON2_IGNORE, *swin.DETECTRON2_IGNORE)),
)


def detectron2_rules(model=None):
    """`backbone.*` and `sem_seg_head.*`; no two backbones share a name."""
    del model
    return [
        *prefixed([*resnet.detectron2_rules(), *swin.detectron2_rules()], BACKBONE, "backbone/"),
        *prefixed(mask_former_rules(), HEAD, "head/"),
    ]


def merge_files(state_dicts):
    """The union of files under today's names: the first heads were saved without the `pixel_decoder.` of their keys."""
    tensors = {}
    for part in state_dicts:
        tensors |= {_today(key): value for key, value in part.items()}
    return tensors


def _today(key):
    if not key.startswith(HEAD) or key.startswith(_PARTS):
        return key
    return f"{HEAD}pixel_decoder.{key.removeprefix(HEAD)}"


def _infer(shapes):
    backbone = below(shapes, BACKBONE)
    name, infer = ("swin", swin.infer_detectron2) if swin.PATCHES in backbone else ("resnet", resnet.infer_detectron2)
    return {"backbone": {"name": name, **infer(backbone)}, "head": infer_mask_former(below(shapes, HEAD))}


FORMATS = (
    Format(
        "detectron2",
        detect=lambda keys: f"{HEAD}predictor.query_embed.weight" in keys,
        infer=_infer,
        rules=detectron2_rules,
        ignore=IGNORE,
        merge=merge_files,
    ),
    huggingface.FORMAT,
    *resnet.BACKBONE_FORMATS,
    Format(
        "swin_imagenet",
        detect=lambda keys: swin.PATCHES in keys,
        infer=lambda shapes: {"backbone": {"name": "swin", **swin.infer_detectron2(shapes)}},
        rules=lambda model: prefixed(swin.detectron2_rules(), "", "backbone/"),
        ignore=swin.DETECTRON2_IGNORE,
        merge=swin.merge_files,
        part="backbone",
    ),
)
