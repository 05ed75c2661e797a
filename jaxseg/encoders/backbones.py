"""Image backbones by name: what gives a mask transformer its maps `res2` to `res5`."""

from jaxseg.encoders.resnet.model import ResNet
from jaxseg.encoders.swin.model import Swin

BACKBONES = {"resnet": ResNet, "swin": Swin}


def make_backbone(fields, *, dtype, name="backbone"):
    """A backbone from plain data: `{"name": "resnet", ...}`, the other entries are fields of its module.

    It is called as `backbone(image, deterministic=True)`; Swin drops paths where it is False.

    Raises:
        ValueError: an unknown name.
    """
    fields = dict(fields)
    kind = fields.pop("name", None)
    if kind not in BACKBONES:
        raise ValueError(f"config.model.backbone.name: found {kind!r}, expected one of {', '.join(sorted(BACKBONES))}")
    return BACKBONES[kind](**fields, dtype=dtype, name=name)
