"""Mask R-CNN with a feature pyramid (He et al. 2017), and the masks that it teaches a student of its kind."""

from collections.abc import Mapping
from typing import Any

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.decoders.mask_rcnn import FoundObjects, MaskRcnnHead
from jaxseg.encoders.backbones import make_backbone
from jaxseg.ops.padding import normalize_inside
from jaxseg.ops.roi_masks import paste_masks
from jaxseg.statistics import CAFFE2_BGR, DETECTRON2
from jaxseg.typing import Array

PIXELS = {"rgb": DETECTRON2, "bgr": CAFFE2_BGR}


class MaskRcnn(nn.Module):
    """A backbone and a detector.

    Attributes:
        backbone: of `make_backbone`.
        head: fields of `MaskRcnnHead`.
        pixels: "rgb", with ImageNet's statistics, or "bgr", blue first and less the mean alone, which models need that began
            with Caffe2's ImageNet weights, as all of detectron2's zoo.
    """

    backbone: Mapping[str, Any]
    head: Mapping[str, Any]
    pixels: str = "rgb"
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        if self.pixels not in PIXELS:
            raise ValueError(f"config.model.pixels: found {self.pixels!r}, expected one of {', '.join(PIXELS)}")
        self.maps = make_backbone(self.backbone, dtype=self.dtype)
        self.detector = MaskRcnnHead(**self.head, dtype=self.dtype, name="head")

    def features(self, image: Array, image_size: Array, deterministic: bool = True) -> dict[str, Array]:
        """The backbone's maps of [B, H, W, 3] pixels in 0..255, padded right and below, and [B, 2] sizes without padding."""
        image = image[..., ::-1] if self.pixels == "bgr" else image
        return self.maps(normalize_inside(image, image_size, PIXELS[self.pixels]), deterministic=deterministic)

    def pyramid(self, image: Array, image_size: Array, deterministic: bool = True) -> tuple[Array, ...]:
        """What the detector's parts look at; not `deterministic`, a backbone drops paths by the random stream "dropout"."""
        return self.detector.pyramid(self.features(image, image_size, deterministic))

    def every_part(self, image: Array, image_size: Array):
        """Creates every parameter, without what is expensive to compile."""
        maps = self.pyramid(image, image_size)
        boxes = jnp.zeros((len(image), 1, 4))
        detector = self.detector
        return detector.judge_anchors(maps), detector.classify(maps, boxes), detector.draw_masks(maps, boxes)

    def __call__(self, image: Array, image_size: Array) -> FoundObjects:
        """The objects of a batch; arguments as of `features`."""
        return self.detector(self.features(image, image_size), image_size)


def objects_at_input_size(found: FoundObjects, padded_size: tuple[int, int]) -> tuple[Array, Array]:
    """Every object of a teacher, of the image that it was given; slots without one have score 0 and no pixels.

    Args:
        padded_size: static (H, W).

    Returns:
        Scores [B, N] and masks [B, N, H, W] uint8.
    """
    detections = found.detections

    def of_object(x):
        mask, box, valid = x
        return ((paste_masks(mask, box, padded_size) >= 0.5) & valid[:, None, None]).astype(jnp.uint8)

    # Ten at a time: all of them at full size in float32 would be 400 MB for each image of 1024 x 1024.
    rows = jax.tree.map(lambda x: jnp.moveaxis(x, 1, 0), (found.mask_probabilities, detections.boxes, detections.valid))
    masks = jax.lax.map(of_object, rows, batch_size=10)
    return jnp.where(detections.valid, detections.scores, 0), jnp.moveaxis(masks, 0, 1)
