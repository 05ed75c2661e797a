"""From queries to everything that is asked of them, at original size: classes of pixels, panoptic segments, instances.

One home for the systems whose queries have class scores and masks; they differ in how the scores come about.
"""

import dataclasses

import jax
import jax.numpy as jnp

from jaxseg.ops.padding import inside_canvas
from jaxseg.ops.resize import resize
from jaxseg.postprocess.instance import instances
from jaxseg.postprocess.original_size import crop_and_resize
from jaxseg.postprocess.panoptic import SegmentThresholds, panoptic_segments
from jaxseg.postprocess.semantic import semantic_scores
from jaxseg.typing import Array


@dataclasses.dataclass(frozen=True)
class QueryMerge(SegmentThresholds):
    """How queries are merged; the fields of `config.predict.merge`.

    Attributes:
        num_instances: at most.
        mask_quality: whether instances' scores are multiplied with the mean probability inside of the mask.
        semantic_first: whether the classes of pixels are summed at the padded size and resized then, as released semantic
            configs do; the default resizes the masks.
    """

    num_instances: int = 100
    mask_quality: bool = True
    semantic_first: bool = False

    def __call__(
        self,
        class_scores: Array,
        mask_logits: Array,
        is_thing: Array,
        image_size: Array,
        original_size: Array,
        *,
        padded_size: tuple[int, int],
        canvas: tuple[int, int],
        no_object: Array | None = None,
        query_valid: Array | None = None,
    ) -> dict[str, Array]:
        """Merges a batch; what the caller does not use, the compiler leaves out.

        Args:
            class_scores: [B, Q, K] in [0, 1], without "no object".
            mask_logits: [B, Q, h, w] of the padded input.
            is_thing: [K] bool.
            image_size, original_size: [B, 2] (height, width), see `crop_and_resize`.
            padded_size, canvas: static, likewise.
            no_object: [B, Q] scores of "no object"; a query that is likeliest that is no segment.
            query_valid: [B, Q] bool, False for queries that do not count.

        Returns:
            `probabilities` [B, K, Hc, Wc], sums over queries that may exceed 1, and the outputs of `panoptic_segments` and
            `instances` (things only), with a leading batch axis.
        """

        def resized(x):
            return crop_and_resize(x, image_size, original_size, canvas=canvas, padded_size=padded_size)

        class_scores, mask_logits = class_scores.astype(jnp.float32), mask_logits.astype(jnp.float32)
        inside = inside_canvas(original_size, canvas)
        logits = resized(mask_logits)
        probabilities = jnp.where(inside[:, None], jax.nn.sigmoid(logits), 0)
        if query_valid is not None:
            class_scores = jnp.where(query_valid[..., None], class_scores, 0)
        if self.semantic_first:
            padded = semantic_scores(class_scores, jax.nn.sigmoid(resize(mask_logits, padded_size)))
            semantic = crop_and_resize(padded, image_size, original_size, canvas=canvas)
        else:
            semantic = semantic_scores(class_scores, probabilities)

        def of_image(class_scores, no_object, logits, probabilities, inside, query_valid):
            with_no_object = class_scores
            if no_object is not None:
                with_no_object = jnp.concatenate([class_scores, no_object[:, None]], -1)
            thresholds = {"object_threshold": self.object_threshold, "overlap_threshold": self.overlap_threshold}
            segments = panoptic_segments(
                with_no_object, probabilities, is_thing, **thresholds, query_valid=query_valid, inside=inside
            )
            found = instances(
                class_scores,
                logits,
                self.num_instances,
                is_thing=is_thing,
                query_valid=query_valid,
                mask_quality=self.mask_quality,
            )
            return segments | found

        merged = jax.vmap(of_image)(class_scores, no_object, logits, probabilities, inside, query_valid)
        return {"probabilities": semantic, **merged}
