"""The encoder of Deformable DETR: tokens of several maps look at a few points of all of them."""

import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.deformable import MSDeformAttn
from jaxseg.nn.embeddings import sine_positions
from jaxseg.nn.norms import layer_norm
from jaxseg.nn.perceptron import Perceptron
from jaxseg.nn.transformer import REMAT_POLICIES
from jaxseg.typing import Array


def flatten_levels(maps: list[Array]) -> tuple[Array, tuple[tuple[int, int], ...]]:
    """Maps [B, h, w, C] -> tokens [B, S, C], row-major, one map after the other, and ((h, w), ...)."""
    shapes = tuple(tuple(x.shape[1:3]) for x in maps)
    return jnp.concatenate([x.reshape(x.shape[0], -1, x.shape[-1]) for x in maps], axis=1), shapes


def split_levels(tokens: Array, shapes) -> list[Array]:
    """The inverse of `flatten_levels`."""
    maps, start = [], 0
    for h, w in shapes:
        maps.append(tokens[:, start : start + h * w].reshape(tokens.shape[0], h, w, tokens.shape[-1]))
        start += h * w
    return maps


def level_positions(shapes, level_embedding: Array, valid=None, offset: float = 0.0) -> Array:
    """Sine positions of each map with its level's embedding added: [B, S, C], B = 1 without `valid`.

    Args:
        level_embedding: [L, C].
        valid: [B, h, w] bool of each map.
        offset: of `sine_positions`.
    """
    width, parts = level_embedding.shape[1], []
    for i, size in enumerate(shapes):
        position = sine_positions(size, width // 2, valid=None if valid is None else valid[i], offset=offset)
        parts.append(position.reshape(position.shape[0], -1, width) + level_embedding[i].reshape(1, 1, width))
    return jnp.concatenate(parts, axis=1)


def reference_points(shapes, valid_ratios: Array | None = None) -> Array:
    """Centre of each token's pixel as a fraction (x, y) of the valid part of its map, in the scale of every map.

    Args:
        valid_ratios: [B, L, 2] valid part of each map's width and height, for padded batches.

    Returns:
        [1, S, 1, 2], the same in all maps; with ratios [B, S, L, 2], in which points of the padding exceed the ratio.
    """
    centres = []
    for i, (h, w) in enumerate(shapes):
        y, x = jnp.meshgrid((jnp.arange(h) + 0.5) / h, (jnp.arange(w) + 0.5) / w, indexing="ij")
        centre = jnp.stack([x, y], axis=-1).reshape(1, h * w, 1, 2)
        centres.append(centre if valid_ratios is None else centre / valid_ratios[:, i].reshape(-1, 1, 1, 2))
    centres = jnp.concatenate(centres, axis=1)
    return centres if valid_ratios is None else centres * valid_ratios[:, None]


class DeformableLayer(nn.Module):
    """ln_1(x + attention(x + position)), then ln_2(x + mlp(x)); [B, S, C] -> [B, S, C]."""

    num_heads: int
    mlp_dim: int
    num_points: int = 4
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, position: Array, shapes, reference: Array, valid: Array | None = None) -> Array:
        """Arguments as in `DeformableEncoder`."""
        x = nn.with_logical_constraint(x, ("batch", "tokens", "embed"))
        attend = MSDeformAttn(self.num_heads, self.num_points, self.impl, self.dtype, name="attn")
        x = layer_norm("ln_1", self.dtype)(x + attend(x + position, x, shapes, reference, valid=valid))
        mlp = Perceptron((self.mlp_dim, x.shape[-1]), "xavier", self.dtype, name="mlp")
        return layer_norm("ln_2", self.dtype)(x + mlp(x))


class DeformableEncoder(nn.Module):
    """Layers `block_0`, `block_1`, ... or, scanned, `blocks` with a leading axis; post-norm, no norm at the end.

    Attributes:
        mlp_dim: hidden units of each layer's perceptron.
        num_points: points of each head in each map.
        scan: stack the parameters and compile one layer.
        remat: "" or a key of `REMAT_POLICIES`: recompute activations in the backward pass.
        impl: of `ms_deform_attn`.
    """

    num_layers: int
    num_heads: int
    mlp_dim: int
    num_points: int = 4
    scan: bool = False
    remat: str = ""
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x: Array, position: Array, shapes, *, valid: Array | None = None, valid_ratios: Array | None = None
    ) -> Array:
        """Encodes tokens.

        Args:
            x: [B, S, C], as of `flatten_levels`.
            position: [B or 1, S, C], added to what asks, not to what is looked at.
            shapes: ((h, w), ...), static.
            valid: [B, S] bool; other tokens look but are seen as zero.
            valid_ratios: [B, L, 2], see `reference_points`.

        Returns:
            [B, S, C].
        """
        x, position = x.astype(self.dtype), position.astype(self.dtype)
        reference = reference_points(shapes, valid_ratios)
        layer_class = DeformableLayer
        if self.remat:
            layer_class = nn.remat(layer_class, policy=REMAT_POLICIES[self.remat], static_argnums=(3,))  # shapes, after self
        fields = (self.num_heads, self.mlp_dim, self.num_points, self.impl, self.dtype)
        if not self.scan:
            for i in range(self.num_layers):
                x = layer_class(*fields, name=f"block_{i}")(x, position, shapes, reference, valid)
            return x

        def body(layer, x, _):
            return layer(x, position, shapes, reference, valid), None

        scan = nn.scan(body, variable_axes={"params": 0}, split_rngs={"params": True}, length=self.num_layers)
        return scan(layer_class(*fields, name="blocks"), x, None)[0]
