"""Region proposals (Ren et al. 2015, Faster R-CNN): at every pixel of a pyramid, boxes that may hold an object."""

from collections.abc import Sequence
from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.ops.boxes import clip_boxes, decode_deltas, has_area
from jaxseg.ops.nms import nms
from jaxseg.typing import Array


class AnchorOutput(NamedTuple):
    """What a proposal network says of each anchor of each level.

    Attributes:
        logits: L of [B, N_l] float32, of holding an object.
        deltas: L of [B, N_l, 4] float32, see `decode_deltas`.
    """

    logits: tuple[Array, ...]
    deltas: tuple[Array, ...]

    def joined(self) -> tuple[Array, Array]:
        """[B, N] and [B, N, 4] of all levels."""
        return jnp.concatenate(self.logits, 1), jnp.concatenate(self.deltas, 1)


class Proposals(NamedTuple):
    """Boxes by falling score.

    Attributes:
        boxes: [B, R, 4] xyxy in pixels of the padded image, inside of the image; zeros where not valid.
        logits: [B, R], without meaning where not valid.
        valid: [B, R] bool, the first ones.
    """

    boxes: Array
    logits: Array
    valid: Array


def anchor_boxes(shapes: Sequence[tuple[int, int]], strides, sizes, ratios=(0.5, 1.0, 2.0)) -> tuple[np.ndarray, ...]:
    """The reference boxes of each level.

    Args:
        shapes: L (h, w) of maps.
        strides: L, pixels of the image between neighbours; the first anchors' centre is the image's corner, as published.
        sizes: L, the side of a square of each level.
        ratios: A, height over width of boxes of the square's area.

    Returns:
        L of [h * w * A, 4] xyxy float32, in pixels of the image; rows first, a pixel's A boxes together.

    Raises:
        ValueError: where the lengths differ.
    """
    if not len(shapes) == len(strides) == len(sizes):
        raise ValueError(f"anchor_sizes: found {len(sizes)}, expected {len(strides)}, one for each level of the pyramid")
    levels = []
    for (h, w), stride, size in zip(shapes, strides, sizes, strict=True):
        widths = size / np.sqrt(np.asarray(ratios, np.float64))
        half = np.stack([widths, widths * ratios], -1) / 2
        y, x = np.meshgrid(np.arange(h) * stride, np.arange(w) * stride, indexing="ij")
        centres = np.stack([x, y], -1).reshape(-1, 1, 2)
        levels.append(np.concatenate([centres - half, centres + half], -1).reshape(-1, 4).astype(np.float32))
    return tuple(levels)


class ProposalHead(nn.Module):
    """Maps of a pyramid -> what becomes of their anchors; one set of weights for all levels.

    Attributes:
        num_anchors: A, of each pixel.
    """

    num_anchors: int = 3
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, maps: Sequence[Array]) -> AnchorOutput:
        """maps: L of [B, h, w, C]."""

        def conv(name, features, kernel):
            init, pad = nn.initializers.normal(0.01), ((kernel // 2, kernel // 2),) * 2
            return nn.Conv(features, (kernel,) * 2, padding=pad, dtype=self.dtype, kernel_init=init, name=name)

        hidden, objects = conv("conv", maps[0].shape[-1], 3), conv("objects", self.num_anchors, 1)
        deltas, logits, shifts = conv("deltas", 4 * self.num_anchors, 1), [], []
        for x in maps:
            x = jax.nn.relu(hidden(x))
            logits.append(objects(x).reshape(len(x), -1).astype(jnp.float32))
            shifts.append(deltas(x).reshape(len(x), -1, 4).astype(jnp.float32))
        return AnchorOutput(tuple(logits), tuple(shifts))


def select_proposals(
    output: AnchorOutput,
    anchors: Sequence[np.ndarray],
    image_size: Array,
    *,
    num_before: int = 1000,
    num_after: int = 1000,
    overlap: float = 0.7,
) -> Proposals:
    """The likeliest boxes, of those that resemble each other on a level the likeliest; no gradient passes.

    Args:
        anchors: L of [N_l, 4].
        image_size: [B, 2] (height, width) of what is no padding, to which boxes are cut.
        num_before: of each level, before suppression.
        num_after: R, of all levels, after it.
        overlap: IoU above which the less likely of two boxes of a level goes.
    """
    output = jax.lax.stop_gradient(output)
    most = min(num_before, max(len(x) for x in anchors))
    levels = []
    for logits, deltas, references in zip(*output, anchors, strict=True):
        # Sorted, since devices that share a batch split a sort among them, and gather the batch for a top_k.
        best = jnp.argsort(-logits, axis=-1)[:, :num_before]
        boxes = decode_deltas(jnp.take_along_axis(deltas, best[..., None], axis=1), jnp.asarray(references)[best])
        boxes = clip_boxes(boxes, image_size)
        missing = most - best.shape[1]
        logits = jnp.pad(jnp.take_along_axis(logits, best, axis=1), ((0, 0), (0, missing)))
        levels.append((jnp.pad(boxes, ((0, 0), (0, missing), (0, 0))), logits))  # padding has no area
    boxes, logits = (jnp.stack(x, 1) for x in zip(*levels, strict=True))
    kept = nms(boxes, logits, has_area(boxes) & jnp.isfinite(logits), overlap)
    boxes = jnp.take_along_axis(boxes, kept.order[..., None], axis=2).reshape(len(boxes), -1, 4)
    logits = jnp.take_along_axis(logits, kept.order, axis=2).reshape(len(boxes), -1)
    keep = kept.keep.reshape(len(boxes), -1)
    order = jnp.argsort(jnp.where(keep, -logits, jnp.inf), axis=-1)[:, :num_after]
    valid = jnp.take_along_axis(keep, order, axis=1)
    boxes = jnp.where(valid[..., None], jnp.take_along_axis(boxes, order[..., None], axis=1), 0)
    return Proposals(boxes, jnp.take_along_axis(logits, order, axis=1), valid)
