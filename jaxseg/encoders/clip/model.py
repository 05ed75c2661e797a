"""CLIP: an image tower, a text tower and a temperature (Radford et al. 2021)."""

import math

import jax.numpy as jnp
from flax import linen as nn

from jaxseg.encoders.clip.resnet import ModifiedResNet
from jaxseg.encoders.clip.text import TextTransformer
from jaxseg.encoders.clip.vit import VisionTransformer
from jaxseg.typing import Array


class Clip(nn.Module):
    """Both towers; the fields are those of `variants.VARIANTS`.

    Attributes:
        patch_size: of the vision transformer; 0 makes the image tower a ModifiedResNet with `vision_layers` blocks per stage.
        vision_heads, text_heads: 0 derives them from the width, 64 channels a head.
        mask_projections: which projections the vision transformer has for mask tokens alone (MasQCLIP).
        scan, remat, impl: see `jaxseg.nn.transformer.BlockStack` and `jaxseg.nn.attention.attention`.
    """

    embed_dim: int
    image_size: int
    patch_size: int
    vision_width: int
    vision_layers: int | tuple[int, ...]
    text_width: int
    text_layers: int
    vision_heads: int = 0
    text_heads: int = 0
    context_length: int = 77
    vocab_size: int = 49408
    eos_token: int = -1
    mask_projections: str = ""
    scan: bool = False
    remat: str = ""
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        blocks = {"scan": self.scan, "remat": self.remat, "dtype": self.dtype}
        if self.patch_size:
            self.visual = VisionTransformer(
                self.image_size,
                self.patch_size,
                self.vision_width,
                self.vision_layers,
                self.num_vision_heads,
                self.embed_dim,
                mask_projections=self.mask_projections,
                impl=self.impl,
                **blocks,
            )
        else:
            self.visual = ModifiedResNet(
                tuple(self.vision_layers),
                self.vision_width,
                self.num_vision_heads,
                self.embed_dim,
                self.image_size,
                self.dtype,
            )
        self.text = TextTransformer(
            self.context_length,
            self.vocab_size,
            self.text_width,
            self.text_layers,
            self.text_heads or self.text_width // 64,
            self.embed_dim,
            self.eos_token,
            **blocks,
        )
        self.logit_scale = self.param("logit_scale", nn.initializers.constant(math.log(1 / 0.07)), ())

    @property
    def num_vision_heads(self) -> int:
        channels = self.vision_width if self.patch_size else 32 * self.vision_width
        return self.vision_heads or channels // 64

    def encode_image(self, image: Array) -> Array:
        """[B, H, W, 3], normalised pixels -> [B, E], not normalised."""
        return self.visual(image).embedding if self.patch_size else self.visual(image)[1]

    def encode_text(self, token_ids: Array) -> Array:
        """[B, T] int32 -> [B, E], not normalised."""
        return self.text(token_ids)

    def __call__(self, image: Array, token_ids: Array) -> Array:
        """[B, H, W, 3], [K, T] -> logits per image [B, K]: exp(logit_scale) times cosines."""
        image, text = self.encode_image(image), self.encode_text(token_ids)
        image = image / jnp.linalg.norm(image, axis=-1, keepdims=True)
        text = text / jnp.linalg.norm(text, axis=-1, keepdims=True)
        return jnp.exp(self.logit_scale) * image @ text.T
