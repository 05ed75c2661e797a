"""Mask proposals of one class from either kind of network, for systems that classify masks."""

import jax.numpy as jnp
from flax import linen as nn

from jaxseg.decoders.mask_former import MaskFormerHead
from jaxseg.decoders.mask_rcnn import MaskRcnnHead, as_queries
from jaxseg.decoders.query import QueryOutput
from jaxseg.typing import Array

HEADS = {"mask2former": MaskFormerHead, "maskrcnn": MaskRcnnHead}


def make_head(kind: str, fields, *, dtype=jnp.float32, name="head") -> nn.Module:
    """What stands behind the backbone, from its name and fields.

    Raises:
        ValueError: an unknown name.
    """
    if kind not in HEADS:
        raise ValueError(f"config.model.proposals: found {kind!r}, expected one of {', '.join(HEADS)}")
    return HEADS[kind](**fields, dtype=dtype, name=name)


def propose(head: nn.Module, features: dict[str, Array], image_size: Array, padded_size: tuple[int, int]) -> QueryOutput:
    """Masks of one class, whichever head of `make_head` finds them, at a quarter of the padded image.

    Args:
        features: a backbone's maps {name: [B, h, w, C]}.
        image_size: [B, 2] (height, width) of what is no padding.
        padded_size: static (H, W).
    """
    if isinstance(head, MaskRcnnHead):
        return as_queries(head(features, image_size), padded_size)
    return head(features)
