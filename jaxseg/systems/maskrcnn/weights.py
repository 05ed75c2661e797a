"""Checkpoint layouts of Mask R-CNN: detectron2's, and ImageNet classifiers to start its backbone from."""

from jaxseg.decoders import mask_rcnn_weights as head
from jaxseg.encoders.resnet import weights as resnet
from jaxseg.weights import Format, prefixed

BACKBONE = "backbone.bottom_up."
IGNORE = (
    *head.IGNORE,
    *((BACKBONE.replace(".", r"\.") + pattern, why) for pattern, why in resnet.DETECTRON2_IGNORE),
)


def detectron2_rules(model=None):
    """`backbone.bottom_up.*`, and the rest, the feature pyramid included, below `head/`."""
    fields = (model or {}).get("head", {})
    size = {name: fields[name] for name in ("box_size",) if name in fields}
    return [
        *prefixed(resnet.detectron2_rules(), BACKBONE, "backbone/"),
        *prefixed(head.mask_rcnn_rules(**size), "", "head/"),
    ]


def _infer(shapes):
    backbone = {key.removeprefix(BACKBONE): shape for key, shape in shapes.items() if key.startswith(BACKBONE)}
    return {"backbone": {"name": "resnet", **resnet.infer_detectron2(backbone)}, "head": head.infer_mask_rcnn(shapes)}


FORMATS = (
    Format(
        "detectron2",
        detect=lambda keys: "proposal_generator.rpn_head.conv.weight" in keys,
        infer=_infer,
        rules=detectron2_rules,
        ignore=IGNORE,
    ),
    *resnet.BACKBONE_FORMATS,
)
