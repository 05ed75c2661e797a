"""What becomes of a proposed region: classes and boxes (Girshick 2015, Fast R-CNN), masks (He et al. 2017, Mask R-CNN)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.decoders.rpn import Proposals
from jaxseg.nn.conv import C2_MSRA, C2_XAVIER, TileConvTranspose
from jaxseg.ops.boxes import REGION_WEIGHTS, clip_boxes, decode_deltas, has_area
from jaxseg.ops.nms import nms
from jaxseg.typing import Array


class Detections(NamedTuple):
    """Objects by falling score.

    Attributes:
        boxes: [B, N, 4] xyxy in pixels of the padded image, inside of the image; zeros where not valid.
        scores: [B, N] in [0, 1]; 0 where not valid.
        classes: [B, N] int32.
        valid: [B, N] bool.
    """

    boxes: Array
    scores: Array
    classes: Array
    valid: Array


class BoxHead(nn.Module):
    """Regions -> their classes, and a box for each class.

    Attributes:
        num_classes: K.
        dims: widths of the hidden layers.
    """

    num_classes: int
    dims: tuple[int, ...] = (1024, 1024)
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, regions: Array) -> tuple[Array, Array]:
        """[B, R, s, s, C] -> class logits [B, R, K + 1], the last of no object, and deltas [B, R, K, 4], both float32."""
        x, axes = regions.astype(self.dtype), (-3, -2, -1)
        for i, width in enumerate(self.dims, 1):
            # The first reads pixels as they lie, row by row; checkpoints have them channel by channel.
            x = nn.DenseGeneral(width, axis=axes, dtype=self.dtype, kernel_init=C2_XAVIER, name=f"fc{i}")(x)
            x, axes = jax.nn.relu(x), (-1,)

        def dense(name, features, deviation):
            return nn.Dense(features, dtype=self.dtype, kernel_init=nn.initializers.normal(deviation), name=name)(x)

        deltas = dense("deltas", 4 * self.num_classes, 0.001)
        deltas = deltas.reshape(*deltas.shape[:-1], self.num_classes, 4)
        return dense("classes", self.num_classes + 1, 0.01).astype(jnp.float32), deltas.astype(jnp.float32)


class MaskHead(nn.Module):
    """Regions [B, R, s, s, C] -> mask logits [B, R, K, 2s, 2s] of each class, float32.

    Attributes:
        num_classes: K.
        num_layers: of 3x3 convolutions.
    """

    num_classes: int
    num_layers: int = 4
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, regions: Array) -> Array:
        lead, width = regions.shape[:2], regions.shape[-1]
        x = regions.astype(self.dtype).reshape(-1, *regions.shape[2:])
        for i in range(1, self.num_layers + 1):
            x = nn.Conv(width, (3, 3), padding=1, dtype=self.dtype, kernel_init=C2_MSRA, name=f"conv{i}")(x)
            x = jax.nn.relu(x)
        x = jax.nn.relu(TileConvTranspose(width, 2, self.dtype, kernel_init=C2_MSRA, name="upsample")(x))
        init = nn.initializers.normal(0.001)
        x = nn.Conv(self.num_classes, (1, 1), dtype=self.dtype, kernel_init=init, name="masks")(x)
        return jnp.moveaxis(x.reshape(*lead, *x.shape[1:]), -1, 2).astype(jnp.float32)


def of_class(x: Array, classes: Array) -> Array:
    """The part [B, R, ...] of x [B, R, K, ...] that belongs to each region's class [B, R]; classes beyond K count as K - 1."""
    index = jnp.minimum(classes, x.shape[2] - 1).reshape(*classes.shape, *(1,) * (x.ndim - 2))
    return jnp.take_along_axis(x, index, axis=2)[:, :, 0]


def detect(
    class_logits: Array,
    deltas: Array,
    proposals: Proposals,
    image_size: Array,
    *,
    num: int = 100,
    score_threshold: float = 0.05,
    overlap: float = 0.5,
    num_candidates: int = 2000,
) -> Detections:
    """Pairs of region and class that are likely, and do not resemble a likelier one of their class.

    Args:
        class_logits: [B, R, K + 1]; deltas: [B, R, K, 4].
        image_size: [B, 2] (height, width), to which boxes are cut.
        num: N, of each image.
        score_threshold: probability above which a pair counts.
        overlap: IoU above which the less likely of two boxes of a class goes.
        num_candidates: so many likely pairs are compared at most. Published code compares all, which makes a difference
            where more than that are above the threshold and fewer than `num` of the first are left.
    """
    num_classes, batch = deltas.shape[2], len(deltas)
    scores = jax.nn.softmax(class_logits.astype(jnp.float32), -1)[..., :-1]
    scores = jnp.where(proposals.valid[..., None], scores, 0).reshape(batch, -1)
    best = jnp.argsort(-scores, axis=-1)[:, :num_candidates]  # stable
    region, classes = best // num_classes, (best % num_classes).astype(jnp.int32)
    scores = jnp.take_along_axis(scores, best, axis=1)
    references = jnp.take_along_axis(proposals.boxes, region[..., None], axis=1)
    deltas = jnp.take_along_axis(deltas.reshape(batch, -1, 4), best[..., None], axis=1)
    boxes = clip_boxes(decode_deltas(deltas, references, REGION_WEIGHTS), image_size)
    finite = jnp.all(jnp.isfinite(boxes), -1)
    index, valid = nms(boxes, scores, (scores > score_threshold) & finite, overlap, classes).first(num)
    boxes, scores, classes = (
        jnp.take_along_axis(x, index[..., None], axis=1) for x in (boxes, scores[..., None], classes[..., None])
    )
    valid = valid & has_area(boxes)
    return Detections(
        jnp.where(valid[..., None], boxes, 0), jnp.where(valid, scores[..., 0], 0), jnp.where(valid, classes[..., 0], 0), valid
    )
