"""The detector of Mask R-CNN (He et al. 2017) with a feature pyramid, over any backbone's maps.

Its parts are methods, since training chooses the regions that the heads see by what is annotated.
"""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.decoders.fpn import FeaturePyramid
from jaxseg.decoders.query import MaskPrediction, QueryOutput
from jaxseg.decoders.roi_heads import BoxHead, Detections, MaskHead, detect, of_class
from jaxseg.decoders.rpn import AnchorOutput, ProposalHead, Proposals, anchor_boxes, select_proposals
from jaxseg.ops.roi_align import assign_levels, roi_align
from jaxseg.ops.roi_masks import paste_masks
from jaxseg.typing import Array

_LEAST = 1e-4  # probability of pixels outside of a box and of slots without an object, whose logits so are finite: -9.2


class FoundObjects(NamedTuple):
    """The `Detections` of a batch, and a mask over the box of each.

    Attributes:
        mask_probabilities: [B, N, m, m] float32, see `paste_masks`.
    """

    detections: Detections
    mask_probabilities: Array


class MaskRcnnHead(nn.Module):
    """Everything behind the backbone.

    Attributes:
        num_classes: K.
        levels, hidden_dim: of `FeaturePyramid`.
        anchor_sizes: of each level of the pyramid, with the one that is pooled.
        anchor_ratios: of `anchor_boxes`.
        canonical_size: of `assign_levels`.
        box_dims, box_size: hidden widths of the box head, and the size of its regions.
        mask_layers, mask_size: convolutions of the mask head, and the size of its regions, half of its masks'.
        roi_samples, roi_adaptive: `num_samples` and `adaptive` of `roi_align`. Published models take as many samples as a bin
            has pixels; on the level of its area, a square region has at most 4 of them below a side of 896.
        num_before, num_proposals, proposal_overlap: of `select_proposals` in prediction.
        num_objects, score_threshold, overlap, num_candidates: of `detect`.
    """

    num_classes: int
    levels: tuple[str, ...] = ("res2", "res3", "res4", "res5")
    hidden_dim: int = 256
    anchor_sizes: tuple[float, ...] = (32, 64, 128, 256, 512)
    anchor_ratios: tuple[float, ...] = (0.5, 1.0, 2.0)
    canonical_size: float = 224.0
    box_dims: tuple[int, ...] = (1024, 1024)
    box_size: int = 7
    mask_layers: int = 4
    mask_size: int = 14
    roi_samples: int = 4
    roi_adaptive: bool = True
    num_before: int = 1000
    num_proposals: int = 1000
    proposal_overlap: float = 0.7
    num_objects: int = 100
    score_threshold: float = 0.05
    overlap: float = 0.5
    num_candidates: int = 2000
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.fpn = FeaturePyramid(self.levels, self.hidden_dim, dtype=self.dtype, name="fpn")
        self.rpn = ProposalHead(len(self.anchor_ratios), self.dtype, name="rpn")
        self.box = BoxHead(self.num_classes, self.box_dims, self.dtype, name="box")
        self.mask = MaskHead(self.num_classes, self.mask_layers, self.dtype, name="mask")

    def pyramid(self, features: dict[str, Array]) -> tuple[Array, ...]:
        """A backbone's maps {name: [B, h, w, C']} -> maps of the levels, fine to coarse, and a pooled one."""
        return self.fpn(features)

    def anchors(self, maps: Sequence[Array]) -> tuple:
        """Of each level, [N_l, 4] numpy; see `anchor_boxes`."""
        shapes = [x.shape[1:3] for x in maps]
        return anchor_boxes(shapes, self.fpn.strides, self.anchor_sizes, self.anchor_ratios)

    def judge_anchors(self, maps: Sequence[Array]) -> AnchorOutput:
        return self.rpn(maps)

    def classify(self, maps: Sequence[Array], boxes: Array) -> tuple[Array, Array]:
        """Boxes [B, R, 4] -> class logits [B, R, K + 1] and deltas [B, R, K, 4]."""
        return self.box(self._regions(maps, boxes, self.box_size))

    def draw_masks(self, maps: Sequence[Array], boxes: Array) -> Array:
        """Boxes [B, R, 4] -> mask logits [B, R, K, m, m] of each class."""
        return self.mask(self._regions(maps, boxes, self.mask_size))

    def propose(self, output: AnchorOutput, anchors, image_size: Array, **options) -> Proposals:
        """`select_proposals` with the fields' numbers, or those of `options`."""
        fields = {"num_before": self.num_before, "num_after": self.num_proposals, "overlap": self.proposal_overlap}
        return select_proposals(output, anchors, image_size, **(fields | options))

    def __call__(self, features: dict[str, Array], image_size: Array) -> FoundObjects:
        """The objects of a batch; `image_size` [B, 2] (height, width) of what is no padding."""
        maps = self.pyramid(features)
        proposals = self.propose(self.judge_anchors(maps), self.anchors(maps), image_size)
        detections = detect(
            *self.classify(maps, proposals.boxes),
            proposals,
            image_size,
            num=self.num_objects,
            score_threshold=self.score_threshold,
            overlap=self.overlap,
            num_candidates=self.num_candidates,
        )
        mask_logits = of_class(self.draw_masks(maps, detections.boxes), detections.classes)
        return FoundObjects(detections, jax.nn.sigmoid(mask_logits))

    def _regions(self, maps, boxes, size):
        num_levels = len(self.levels)
        finest = self.fpn.strides[0].bit_length() - 1
        levels = assign_levels(boxes, num_levels, finest=finest, canonical_size=self.canonical_size)
        samples = {"num_samples": self.roi_samples, "adaptive": self.roi_adaptive}
        return roi_align(maps[:num_levels], self.fpn.strides[:num_levels], boxes, levels, size, **samples)


def as_queries(found: FoundObjects, padded_size: tuple[int, int], stride: int = 4) -> QueryOutput:
    """Objects in the form in which a query decoder gives its masks: as proposals for what classifies masks.

    Args:
        padded_size: static (H, W) of the image.
        stride: of the masks' pixels.

    Returns:
        `final.class_logits` [B, N, 2], the logarithms of an object's score and of the rest; `final.mask_logits` [B, N,
        H / stride, W / stride], log odds, positive where a mask is and far below 0 outside of its box. A slot without an
        object is likely none, and has an empty mask. `queries` is empty, [B, N, 0].
    """
    detections = found.detections
    scores = jnp.where(detections.valid, detections.scores, _LEAST)
    scores = jnp.clip(scores, _LEAST, 1 - _LEAST)
    class_logits = jnp.log(jnp.stack([scores, 1 - scores], -1))
    size = padded_size[0] // stride, padded_size[1] // stride
    pasted = paste_masks(found.mask_probabilities, detections.boxes / stride, size)
    pasted = jnp.clip(jnp.where(detections.valid[..., None, None], pasted, 0), _LEAST, 1 - _LEAST)
    mask_logits = jnp.log(pasted) - jnp.log1p(-pasted)
    return QueryOutput(MaskPrediction(class_logits, mask_logits), (), jnp.zeros((*scores.shape, 0)))
