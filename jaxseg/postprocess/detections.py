"""From a detector's boxes and small masks to objects and segments at original size."""

import dataclasses

import jax
import jax.numpy as jnp

from jaxseg.ops.boxes import clip_boxes, has_area
from jaxseg.ops.padding import inside_canvas
from jaxseg.ops.roi_masks import paste_masks
from jaxseg.postprocess.panoptic import SegmentThresholds, panoptic_segments
from jaxseg.postprocess.semantic import semantic_scores
from jaxseg.typing import Array


@dataclasses.dataclass(frozen=True)
class DetectionMerge(SegmentThresholds):
    """How objects become segments that do not overlap; the fields of `config.predict.merge`."""

    object_threshold: float = 0.5
    overlap_threshold: float = 0.5

    def __call__(
        self,
        boxes: Array,
        scores: Array,
        classes: Array,
        valid: Array,
        mask_probabilities: Array,
        is_thing: Array,
        image_size: Array,
        original_size: Array,
        *,
        canvas: tuple[int, int],
    ) -> dict[str, Array]:
        """Objects of a batch at original size; what the caller does not use, the compiler leaves out.

        Args:
            boxes: [B, N, 4] xyxy in pixels of the input; scores, classes, valid: [B, N], likeliest first.
            mask_probabilities: [B, N, m, m] over each box, see `paste_masks`: they are drawn at the original size at once.
            is_thing: [K] bool; instances are things only.
            image_size, original_size: [B, 2] (height, width) of the input without padding, and of the result.
            canvas: static (Hc, Wc), at least every original size.

        Returns:
            `probabilities` [B, K, Hc, Wc], sums over objects that may exceed 1; the outputs of `panoptic_segments`; and those
            of `instances` but for `instance_queries`, where boxes are the detector's, not those around the masks.
        """
        num_classes, inside = len(is_thing), inside_canvas(original_size, canvas)
        factor = original_size.astype(jnp.float32) / image_size.astype(jnp.float32)
        boxes = clip_boxes(boxes * jnp.tile(factor[:, None, ::-1], (1, 1, 2)), original_size)
        valid = valid & has_area(boxes)
        is_thing = jnp.asarray(is_thing)

        def of_image(boxes, scores, classes, valid, mask_probabilities, inside):
            probabilities = jnp.where(inside[None], paste_masks(mask_probabilities, boxes, canvas), 0)
            class_scores = jnp.where(valid, scores, 0)[:, None] * jax.nn.one_hot(classes, num_classes)
            thresholds = {"object_threshold": self.object_threshold, "overlap_threshold": self.overlap_threshold}
            segments = panoptic_segments(class_scores, probabilities, is_thing, **thresholds, query_valid=valid, inside=inside)
            counted = valid & is_thing[classes]
            return {
                "probabilities": semantic_scores(class_scores, probabilities),
                **segments,
                "instance_valid": counted,
                "instance_scores": jnp.where(counted, scores, 0),
                "instance_classes": classes,
                "instance_masks": (probabilities >= 0.5) & counted[:, None, None],
                "instance_boxes": jnp.where(counted[:, None], boxes, 0),
            }

        return jax.vmap(of_image)(boxes, scores, classes, valid, mask_probabilities, inside)
