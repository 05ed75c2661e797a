"""CLIPSeg's decoder: reduced activations, deepest first, modulated by the condition (FiLM), one transformer block each."""

import math

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import TileConvTranspose, torch_conv_init
from jaxseg.nn.transformer import PostNormBlock, PreNormBlock
from jaxseg.ops.resize import resize
from jaxseg.typing import Array


def _dense(features, fan_in, name, dtype):
    init = torch_conv_init(fan_in)
    return nn.Dense(features, dtype=dtype, kernel_init=init, bias_init=init, name=name)


class MaskHead(nn.Module):
    """Tokens on a grid -> logits: one transposed convolution, or the refined head's 3x3 convolution and two of them.

    [B, h, w, D] -> [B, h * k, w * k] with k = patch. The published refined head expands by patch // 4 twice, which is the patch
    for 16 and twice as much for 32; below 16 (unpublished sizes) the second expansion fills the patch.
    """

    patch_size: int
    refined: bool = False
    prior: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shift = math.log(self.prior / (1 - self.prior))
        if not self.refined:
            return TileConvTranspose(1, self.patch_size, self.dtype, shift, name="expand")(x)[..., 0]
        width, tile = x.shape[-1], self.patch_size // 4
        last_tile = tile if self.patch_size >= 16 else self.patch_size // tile
        init = torch_conv_init(9 * width)
        x = nn.Conv(width, (3, 3), padding="SAME", dtype=self.dtype, kernel_init=init, bias_init=init, name="conv")(x)
        x = TileConvTranspose(width // 2, tile, self.dtype, name="expand_0")(jax.nn.relu(x))
        return TileConvTranspose(1, last_tile, self.dtype, shift, name="expand_1")(jax.nn.relu(x))[..., 0]


class FilmDecoder(nn.Module):
    """Decodes the masks of P prompts from one image's activations.

    Attributes:
        num_steps: activations that are decoded.
        reduce_dim: width D.
        cond_layer: step at which the condition enters; at or beyond `num_steps` it is never used.
        extra_blocks: further blocks, each with an outer residual.
        reduce_cond: width of a frozen projection of the condition (0: none).
        shallow_first: decode activations shallow to deep.
        patch_size: pixels a token covers in the logits.
        norm_first: pre-norm blocks instead of the published post-norm ones, with the same parameters; they start to learn at
            once where nothing is pre-trained. They have no dropout.
        mask_prior: share of foreground that an untrained decoder says (Lin et al. 2017, section 3.3); 0.5 as published.
    """

    num_steps: int
    reduce_dim: int
    patch_size: int
    num_heads: int = 4
    mlp_dim: int = 2048
    cond_layer: int = 0
    extra_blocks: int = 0
    reduce_cond: int = 0
    shallow_first: bool = False
    refined: bool = False
    dropout: float = 0.0
    norm_first: bool = False
    mask_prior: float = 0.5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def reduce(self, activations: list[Array]) -> tuple[Array, ...]:
        """Activations [B, N, C], shallow to deep -> their projections [B, N, D] in the order of decoding.

        They do not depend on the prompt: computed once for an image.
        """
        ordered = activations if self.shallow_first else activations[::-1]
        return tuple(
            _dense(self.reduce_dim, x.shape[-1], f"reduce_{i}", self.dtype)(x.astype(self.dtype)) for i, x in enumerate(ordered)
        )

    @nn.compact
    def __call__(self, reduced: tuple[Array, ...], cond: Array, grid: tuple[int, int], *, deterministic=True) -> Array:
        """Logits [B, P, h * k, w * k].

        Args:
            reduced: of `reduce`: [B, 1 + h * w, D] each, class token first; it takes part and is dropped at the end.
            cond: [B, P, E] or [P, E] conditions, not normalised.
            grid: (h, w).
        """
        batch, num_tokens, width = reduced[0].shape
        if cond.ndim == 2:
            cond = jnp.broadcast_to(cond[None], (batch, *cond.shape))
        prompts, cond = cond.shape[1], cond.astype(self.dtype)
        x = jnp.zeros((batch, 1, 1, width), self.dtype)
        for i, tokens in enumerate(reduced):
            x = x + tokens[:, None]
            if i == self.cond_layer:
                x = self.modulate(x, cond)
            elif i == 0:
                x = jnp.broadcast_to(x, (batch, prompts, num_tokens, width))
            x = self.attend(x.reshape(batch * prompts, num_tokens, width), f"block_{i}", deterministic)
            x = x.reshape(batch, prompts, num_tokens, width)
        x = x.reshape(batch * prompts, num_tokens, width)
        for i in range(self.extra_blocks):
            x = x + self.attend(x, f"extra_block_{i}", deterministic)
        x = x[:, 1:].reshape(batch * prompts, *grid, width)
        logits = MaskHead(self.patch_size, self.refined, self.mask_prior, self.dtype, name="head")(x)
        return logits.reshape(batch, prompts, *logits.shape[1:])

    @nn.compact
    def attend(self, x: Array, name: str, deterministic: bool) -> Array:
        """One transformer block among the tokens of a prompt; [B * P, N, D] -> [B * P, N, D]."""
        if self.norm_first:
            return PreNormBlock(self.num_heads, self.mlp_dim, "relu", dtype=self.dtype, name=name)(x)
        block = PostNormBlock(self.num_heads, self.mlp_dim, dropout_rate=self.dropout, dtype=self.dtype, name=name)
        return block(x, deterministic=deterministic)

    @nn.compact
    def modulate(self, x: Array, cond: Array) -> Array:
        """FiLM without the usual 1 +: film_mul(cond) * x + film_add(cond); [B, 1 or P, N, D], [B, P, E] -> [B, P, N, D]."""
        if self.reduce_cond:
            cond = self.reduce_condition(cond)
        scale = _dense(self.reduce_dim, cond.shape[-1], "film_mul", self.dtype)(cond)
        shift = _dense(self.reduce_dim, cond.shape[-1], "film_add", self.dtype)(cond)
        return scale[:, :, None] * x + shift[:, :, None]

    @nn.compact
    def reduce_condition(self, cond: Array) -> Array:
        return _dense(self.reduce_cond, cond.shape[-1], "reduce_cond", self.dtype)(cond)


def resize_logits(logits: Array, size: tuple[int, int]) -> Array:
    """[B, P, h, w] -> [B, P, *size], bilinear with aligned corners, as after a resized patch kernel."""
    return resize(logits, size, align_corners=True)
