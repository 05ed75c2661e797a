"""MasQCLIP (Xu et al., ICCV 2023): class-agnostic mask proposals, named by mask class tokens inside a frozen CLIP."""

from collections.abc import Mapping
from typing import Any

import flax.struct
import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.decoders.proposals import make_head, propose
from jaxseg.decoders.query import QueryOutput
from jaxseg.encoders.backbones import make_backbone
from jaxseg.encoders.clip.model import Clip
from jaxseg.ops.padding import normalize, normalize_inside
from jaxseg.ops.resize import resize
from jaxseg.statistics import STATISTICS
from jaxseg.typing import Array

LOGIT_SCALE = 100.0  # of the published classifier, whatever CLIP has learned


@flax.struct.dataclass
class Proposals:
    """What is known of an image before any name is given: enough for any number of vocabularies.

    Attributes:
        object_logits: [B, Q, 2], the first column "object".
        mask_logits: [B, Q, h, w] float32, a quarter of the padded image.
        embeddings: [B, Q, E] unit vectors in CLIP's space.
        image_size: [B, 2] (height, width) of what is no padding.
        padded_size: (H, W) of the array that the image came in.
    """

    object_logits: Array
    mask_logits: Array
    embeddings: Array
    image_size: Array
    padded_size: tuple[int, int] = flax.struct.field(pytree_node=False)


def visible_tokens(mask_logits: Array, image_size: int, patch_size: int) -> Array:
    """Which of CLIP's tokens a mask token sees: the class token, and patches in which a pixel of its mask is positive.

    Args:
        mask_logits: [B, Q, h, w], resized bilinearly to CLIP's square image.

    Returns:
        [B, Q, 1 + side * side] bool, the class token first.
    """
    side = image_size // patch_size
    pixels = resize(mask_logits.astype(jnp.float32), (image_size, image_size))[..., : side * patch_size, : side * patch_size]
    tiles = pixels.reshape(*pixels.shape[:2], side, patch_size, side, patch_size)
    seen = (jnp.max(tiles, (3, 5)) > 0).reshape(*pixels.shape[:2], side * side)
    return jnp.concatenate([jnp.ones((*pixels.shape[:2], 1), bool), seen], -1)


class MasQClip(nn.Module):
    """The model of the third stage; proposals come from a frozen network of one class, a Mask2Former or a Mask R-CNN.

    Attributes:
        backbone: of `make_backbone`.
        head: fields of the head behind it that finds masks.
        proposals: which head that is, see `make_head`.
        clip: fields of `Clip`, a vision transformer; `mask_projections` says what mask tokens have for themselves.
    """

    backbone: Mapping[str, Any]
    head: Mapping[str, Any]
    clip: Mapping[str, Any]
    proposals: str = "mask2former"
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        self.maps = make_backbone(self.backbone, dtype=self.dtype)
        self.queries = make_head(self.proposals, self.head, dtype=self.dtype)
        self.towers = Clip(**self.clip, dtype=self.dtype, name="clip")
        # One vector for all masks, which differ by what they see; training starts at the class token's position.
        self.mask_embedding = self.param("mask_embedding", nn.initializers.zeros, (self.clip["vision_width"],))

    def propose(self, image: Array, image_size: Array) -> QueryOutput:
        """[B, H, W, 3] pixels in 0..255, padded right and below, and [B, 2] sizes -> masks of one class."""
        features = self.maps(normalize_inside(image, image_size))
        return propose(self.queries, features, image_size, image.shape[1:3])

    def clip_input(self, image: Array) -> Array:
        """[B, H, W, 3] pixels in 0..255, padding black -> CLIP's square image, normalised; proportions are not kept."""
        side = self.clip["image_size"]
        square = resize(image.astype(jnp.float32) / 255, (side, side), method="bicubic", axes=(1, 2))
        return normalize(square, STATISTICS["clip"])

    def embed_masks(self, image: Array, mask_logits: Array) -> Array:
        """What CLIP sees in each mask.

        Args:
            image: [B, H, W, 3] as of `propose`.
            mask_logits: [B, Q, h, w] of the padded image.

        Returns:
            [B, Q, E], not normalised.
        """
        visual = self.towers.visual
        visible = visible_tokens(mask_logits, visual.image_size, visual.patch_size)
        token = (self.mask_embedding + visual.class_embedding)[None, None]
        tokens = jnp.broadcast_to(token, (*mask_logits.shape[:2], visual.width))
        output = visual(self.clip_input(image), mask_tokens=tokens, mask_visible=visible)
        return visual.project(output.mask_tokens).astype(jnp.float32)

    def encode(self, image: Array, image_size: Array) -> Proposals:
        """Everything that does not depend on names; image and sizes as of `propose`."""
        found = self.propose(image, image_size).final
        embeddings = self.embed_masks(image, found.mask_logits)
        return Proposals(found.class_logits, found.mask_logits, unit(embeddings), image_size, tuple(image.shape[1:3]))

    def encode_text(self, token_ids: Array) -> Array:
        """[N, T] int32 -> [N, E], not normalised."""
        return self.towers.encode_text(token_ids)

    def __call__(self, image: Array, image_size: Array, token_ids: Array) -> Array:
        """Logits [B, Q, N] of N texts; also creates every parameter."""
        if self.is_initializing():
            self.towers(self.clip_input(image), token_ids)
        return class_logits(self.encode(image, image_size).embeddings, unit(self.encode_text(token_ids)))


def unit(x: Array) -> Array:
    """[..., E] -> [..., E] of length 1, float32."""
    x = x.astype(jnp.float32)
    return x / jnp.linalg.norm(x, axis=-1, keepdims=True)


def class_logits(embeddings: Array, text: Array) -> Array:
    """Unit vectors [B, Q, E] and [K, E] -> [B, Q, K]."""
    return LOGIT_SCALE * jnp.einsum("bqe,ke->bqk", embeddings, text, precision=jax.lax.Precision.HIGHEST)
