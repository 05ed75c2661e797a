"""Mask2Former (Cheng et al., CVPR 2022), and the masks that it teaches a student of its kind (MasQCLIP, section 3.2)."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.decoders.mask_former import MaskFormerHead
from jaxseg.decoders.query import MaskPrediction, QueryOutput
from jaxseg.encoders.backbones import make_backbone
from jaxseg.ops.padding import inside_canvas, normalize_inside
from jaxseg.ops.resize import resize
from jaxseg.postprocess.class_scores import softmax_scores
from jaxseg.postprocess.instance import mask_scores
from jaxseg.typing import Array


@flax.struct.dataclass
class Found:
    """What the last layer says of a batch.

    Attributes:
        class_logits: [B, Q, K + 1], the last column "no object".
        mask_logits: [B, Q, h, w] float32, a quarter of the padded image.
        image_size: [B, 2] (height, width) of what is no padding.
        padded_size: (H, W) of the array that the image came in.
    """

    class_logits: Array
    mask_logits: Array
    image_size: Array
    padded_size: tuple[int, int] = flax.struct.field(pytree_node=False)


class Mask2Former(nn.Module):
    """A backbone, a pixel decoder and a query decoder.

    Attributes:
        backbone: of `make_backbone`.
        head: fields of `MaskFormerHead`; `query.num_outputs` is K + 1, and 2 where masks have no class.
    """

    backbone: Mapping[str, Any]
    head: Mapping[str, Any]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array, image_size: Array, *, deterministic: bool = True) -> QueryOutput:
        """Finds the objects of a batch.

        Args:
            image: [B, H, W, 3] pixels in 0..255, padded right and below.
            image_size: [B, 2] (height, width) of what is no padding.
            deterministic: False in training: a backbone may drop paths, with the random stream "dropout".
        """
        backbone = make_backbone(self.backbone, dtype=self.dtype)
        features = backbone(normalize_inside(image, image_size), deterministic=deterministic)
        return MaskFormerHead(**self.head, dtype=self.dtype, name="head")(features)


def objects_at_input_size(prediction: MaskPrediction, image_size: Array, padded_size) -> tuple[Array, Array]:
    """Every query of a class-agnostic model as an object of the image that the model was given.

    A teacher's objects become targets of the same, augmented image, so they stay at its size; what the published teacher and
    student are evaluated on is this as well. `Task.predict` gives masks of the original size instead.

    Args:
        prediction: `class_logits` [B, Q, 2], the first column "object".
        image_size: [B, 2] (height, width); nothing is an object outside of it.
        padded_size: static (H, W).

    Returns:
        Scores [B, Q], the probability of "object" times the mean probability inside of the mask, and masks [B, Q, H, W] uint8.
    """
    inside = inside_canvas(image_size, padded_size)

    def of_query(mask_logits):
        logits = jnp.where(inside, resize(mask_logits, padded_size), 0)
        return mask_scores(logits), (logits > 0).astype(jnp.uint8)

    # Ten queries at a time: all of them at full size in float32 would be 400 MB for each image of 1024 x 1024.
    quality, masks = jax.lax.map(of_query, jnp.moveaxis(prediction.mask_logits, 1, 0), batch_size=10)
    scores = softmax_scores(prediction.class_logits)[..., 0] * jnp.moveaxis(quality, 0, 1)
    return scores, jnp.moveaxis(masks, 0, 1)
