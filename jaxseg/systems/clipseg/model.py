"""CLIPSeg (Lueddecke & Ecker, CVPR 2022): a frozen CLIP, taps of its image tower, a small decoder conditioned on a prompt."""

import jax.numpy as jnp
from flax import linen as nn
from flax import struct

from jaxseg.decoders.film import FilmDecoder, resize_logits
from jaxseg.encoders.clip.model import Clip
from jaxseg.typing import Array


@struct.dataclass
class Features:
    """An encoded image, enough to decode any number of prompts.

    Attributes:
        tokens: a tuple of [B, 1 + h * w, D] in the order of decoding.
        grid: (h, w).
        image_size: (H, W) of the image that was encoded.
    """

    tokens: tuple[Array, ...]
    grid: tuple[int, int] = struct.field(pytree_node=False)
    image_size: tuple[int, int] = struct.field(pytree_node=False)


class ClipSeg(nn.Module):
    """The model; image and prompts are encoded apart, so that neither is computed twice.

    Attributes:
        clip: fields of `Clip` (a vision transformer).
        extract_layers: blocks whose output is decoded, shallow to deep.
        num_tokens: resize the patch kernel so that this many tokens fit a side (0: no); logits are then resized to the image.
        head_patch: pixels per token of the plain head, where it differs from the patch (0: the patch).
        The others are those of `FilmDecoder`.
    """

    clip: dict
    extract_layers: tuple[int, ...] = (3, 6, 9)
    reduce_dim: int = 64
    num_heads: int = 4
    mlp_dim: int = 2048
    cond_layer: int = 0
    extra_blocks: int = 0
    reduce_cond: int = 0
    shallow_first: bool = False
    refined: bool = False
    num_tokens: int = 0
    head_patch: int = 0
    dropout: float = 0.0
    norm_first: bool = False
    mask_prior: float = 0.5
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        if tuple(sorted(set(self.extract_layers))) != tuple(self.extract_layers):
            raise ValueError(f"extract_layers: found {self.extract_layers}, expected ascending block indices")
        if not 0 < self.mask_prior < 1:
            raise ValueError(f"mask_prior: found {self.mask_prior}, expected a share between 0 and 1")
        if self.norm_first and self.dropout:
            raise ValueError(f"dropout: found {self.dropout} with norm_first, expected 0")
        self.towers = Clip(**self.clip, dtype=self.dtype, name="clip")
        self.decoder = FilmDecoder(
            len(self.extract_layers),
            self.reduce_dim,
            self.head_patch or self.towers.patch_size,
            num_heads=self.num_heads,
            mlp_dim=self.mlp_dim,
            cond_layer=self.cond_layer,
            extra_blocks=self.extra_blocks,
            reduce_cond=self.reduce_cond,
            shallow_first=self.shallow_first,
            refined=self.refined,
            dropout=self.dropout,
            norm_first=self.norm_first,
            mask_prior=self.mask_prior,
            dtype=self.dtype,
        )

    def encode_image(self, image: Array) -> Features:
        """[B, H, W, 3], normalised with ImageNet's statistics -> features. Blocks after the last tap are not run."""
        out = self.towers.visual(image, taps=tuple(self.extract_layers), embedding=False, num_tokens=self.num_tokens)
        reduced = self.decoder.reduce([out.activations[i] for i in self.extract_layers])
        return Features(reduced, out.grid, tuple(image.shape[1:3]))

    def encode_text(self, token_ids: Array) -> Array:
        """[P, T] int32 -> conditions [P, E]."""
        return self.towers.encode_text(token_ids)

    def encode_prompt_image(self, image: Array) -> Array:
        """[P, H, W, 3], an image (engineered or not) as a prompt -> conditions [P, E]."""
        return self.towers.visual(image, num_tokens=self.num_tokens).embedding

    def decode(self, features: Features, cond: Array, *, deterministic: bool = True) -> Array:
        """Features and conditions [P, E] or [B, P, E] -> logits [B, P, H, W]."""
        logits = self.decoder(features.tokens, cond, features.grid, deterministic=deterministic)
        return resize_logits(logits, features.image_size) if self.num_tokens else logits

    def __call__(self, image: Array, token_ids: Array) -> Array:
        """[B, H, W, 3], [P, T] -> logits [B, P, H, W]; also creates every parameter."""
        if self.is_initializing():
            self.towers(image, token_ids)
        return self.decode(self.encode_image(image), self.encode_text(token_ids))
