"""CLIP's vision transformer, with what segmentation systems ask of it as arguments (one encoder, no forks)."""

from typing import NamedTuple

import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.norms import layer_norm
from jaxseg.nn.transformer import BlockStack
from jaxseg.ops.resize import resize
from jaxseg.typing import Array


class VisionOutput(NamedTuple):
    """What the image tower gives.

    Attributes:
        tokens: [B, 1 + h * w, C]: class token, patches in row-major order, after the last block that was run.
        activations: {block index: such tokens} for the taps; residual stream, not normalised.
        grid: (h, w).
        embedding: [B, E], the projected class token, or None where blocks were left out.
        mask_tokens: [B, M, C] after that block, or None.
    """

    tokens: Array
    activations: dict[int, Array]
    grid: tuple[int, int]
    embedding: Array | None
    mask_tokens: Array | None = None


class VisionTransformer(nn.Module):
    """Patches, class token, positions, `ln_pre`, pre-norm blocks with QuickGELU, `ln_post` and a projection without bias.

    Attributes:
        image_size: native side; other sizes and shapes resize the positions (bicubic, class position untouched).
        mask_projections: of `MultiHeadAttention`: which projections mask tokens have for themselves (MasQCLIP: "q").
    """

    image_size: int
    patch_size: int
    width: int
    num_layers: int
    num_heads: int
    embed_dim: int
    mask_projections: str = ""
    scan: bool = False
    remat: str = ""
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        deviation = self.width**-0.5
        normal = nn.initializers.normal(deviation)
        side = self.image_size // self.patch_size
        self.patch_kernel = self.param(
            "patch_kernel", nn.initializers.lecun_normal(), (self.patch_size, self.patch_size, 3, self.width)
        )
        self.class_embedding = self.param("class_embedding", normal, (self.width,))
        self.position_embedding = self.param("position_embedding", normal, (1 + side * side, self.width))
        self.pre_norm = layer_norm("ln_pre", self.dtype)
        self.stack = BlockStack(
            self.num_layers,
            {
                "num_heads": self.num_heads,
                "mlp_dim": 4 * self.width,
                "mask_projections": self.mask_projections,
                "impl": self.impl,
                "dtype": self.dtype,
            },
            scan=self.scan,
            remat=self.remat,
        )
        nn.share_scope(self, self.stack)
        self.post_norm = layer_norm("ln_post", self.dtype)
        self.projection = nn.Dense(self.embed_dim, use_bias=False, dtype=self.dtype, kernel_init=normal, name="proj")

    def patchify(self, image: Array, num_tokens: int = 0) -> tuple[Array, tuple[int, int]]:
        """Patch embeddings [B, h * w, C] and the grid (h, w); pixels that do not fill a patch are dropped.

        With `num_tokens` the kernel is resized to H // num_tokens (bilinear, align_corners, not rescaled), as CLIPSeg does.
        """
        kernel = self.patch_kernel
        if num_tokens:
            side = image.shape[1] // num_tokens
            kernel = resize(kernel, (side, side), align_corners=True, axes=(0, 1))
        patch = kernel.shape[0]
        batch, height, width, channels = image.shape
        h, w = height // patch, width // patch
        if not h or not w:
            raise ValueError(f"image: found {height} x {width} pixels, expected at least one patch of {patch}")
        # Stride equals kernel size, so the convolution is one matrix product over flattened patches.
        patches = image[:, : h * patch, : w * patch].reshape(batch, h, patch, w, patch, channels)
        patches = patches.transpose(0, 1, 3, 2, 4, 5).reshape(batch, h * w, patch * patch * channels)
        return patches.astype(self.dtype) @ kernel.reshape(-1, self.width).astype(self.dtype), (h, w)

    def positions(self, grid: tuple[int, int]) -> Array:
        """Position embeddings [1 + h * w, C] for a grid: torch's bicubic without antialias off the native grid."""
        side = self.image_size // self.patch_size
        if grid == (side, side):
            return self.position_embedding
        first, rest = self.position_embedding[:1], self.position_embedding[1:]
        rest = resize(rest.reshape(side, side, -1), grid, method="bicubic", axes=(0, 1))
        return jnp.concatenate([first, rest.reshape(grid[0] * grid[1], -1)])

    def embed(self, image: Array, num_tokens: int = 0) -> tuple[Array, tuple[int, int]]:
        """Tokens [B, 1 + h * w, C] that enter the first block, and the grid."""
        patches, grid = self.patchify(image, num_tokens)
        first = jnp.broadcast_to(self.class_embedding.astype(self.dtype), (image.shape[0], 1, self.width))
        tokens = jnp.concatenate([first, patches], axis=1)
        return self.pre_norm(tokens + self.positions(grid).astype(self.dtype)[None]), grid

    def __call__(
        self,
        image: Array,
        *,
        taps: tuple[int, ...] = (),
        embedding: bool = True,
        num_tokens: int = 0,
        multiplier=None,
        mask_tokens: Array | None = None,
        mask_visible: Array | None = None,
        value_only_last: bool = False,
    ) -> VisionOutput:
        """Encodes images.

        Args:
            image: [B, H, W, 3], normalised.
            taps: blocks whose output is returned in `activations`.
            embedding: whether the projected class token is wanted; if not, nothing after the last tap is run.
            num_tokens: resize the patch kernel so that this many patches fit a side (0: the native kernel).
            multiplier: factor on the attention logits, for every block or `{block: array}`; see `attention_multiplier`.
            mask_tokens: [B, M, C] tokens that ask and are never asked; they enter before `ln_pre`.
            mask_visible: [B, M, 1 + h * w] bool: what each mask token sees (class token first).
            value_only_last: the last block gives each token its own value instead of attending (dense CLIP).
        """
        tokens, grid = self.embed(image, num_tokens)
        if mask_tokens is None and self.mask_projections and self.is_initializing():
            mask_tokens = jnp.zeros((len(image), 0, self.width))  # none, but their projections exist
            mask_visible = jnp.zeros((len(image), 0, tokens.shape[1]), bool)
        asking = None if mask_tokens is None else self.pre_norm(mask_tokens.astype(self.dtype))
        stop = self.num_layers if embedding or not taps else max(taps) + 1
        tokens, asking, activations = self.stack(
            tokens,
            stop=None if self.is_initializing() else stop,
            taps=taps,
            multiplier=multiplier,
            asking=asking,
            visible=mask_visible,
            value_only_last=value_only_last,
        )
        pooled = self.project(tokens[:, 0]) if embedding or self.is_initializing() else None
        return VisionOutput(tokens, activations, grid, pooled, asking)

    def project(self, tokens: Array) -> Array:
        """[..., C] -> [..., E]: `ln_post` and the projection, as for the class token; not normalised."""
        return self.projection(self.post_norm(tokens))


def attention_multiplier(mask: Array, grid, num_heads: int, *, kind: str, published_tiling: bool = False) -> Array:
    """CLIPSeg's attention mask: factors [B, heads, N, N] on the logits of N = 1 + h * w tokens.

    Args:
        mask: [B, H, W]; resized to the grid with torch's nearest rule. Zero makes a logit 0, it does not forbid attention.
        kind: "cls_token": how the class token sees patches; "all": how patches see patches.
        published_tiling: repeats the released code's order, in which (image, head) number r gets the mask of image r mod B, so
            that images of a batch use each other's masks.
    """
    if kind not in ("cls_token", "all"):
        raise ValueError(f"attention mask kind: found {kind!r}, expected 'cls_token' or 'all'")
    batch = len(mask)
    factors = resize(mask, grid, method="nearest").reshape(batch, 1, -1)
    num_tokens = 1 + factors.shape[2]
    rows = slice(0, 1) if kind == "cls_token" else slice(1, None)
    full = jnp.ones((batch, num_tokens, num_tokens), factors.dtype).at[:, rows, 1:].set(factors)
    image_of = jnp.arange(batch * num_heads).reshape(batch, num_heads)
    return full[image_of % batch if published_tiling else image_of // num_heads]
