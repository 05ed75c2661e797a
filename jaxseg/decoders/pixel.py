"""The pixel decoder of Mask2Former: a deformable encoder over coarse maps, a feature pyramid down to the finest."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.decoders.deformable_encoder import DeformableEncoder, flatten_levels, level_positions, split_levels
from jaxseg.nn.conv import C2_XAVIER, TileConvTranspose
from jaxseg.ops.resize import resize
from jaxseg.typing import Array


class PixelOutput(NamedTuple):
    """What the pixel decoder gives.

    Attributes:
        mask_features: [B, h, w, M]; a mask is the product of an embedding with each pixel.
        memory: [B, h_i, w_i, C] of the first `num_maps` maps: encoded ones, then those of the pyramid.
    """

    mask_features: Array
    memory: tuple[Array, ...]


def _conv(features, kernel, name, dtype, stride=1, bias=True, init=C2_XAVIER):
    pad = kernel // 2
    padding = ((pad, pad), (pad, pad))
    return nn.Conv(features, (kernel, kernel), stride, padding, use_bias=bias, dtype=dtype, kernel_init=init, name=name)


def _group_norm(groups, name, dtype):
    return nn.GroupNorm(groups, epsilon=1e-5, dtype=dtype, use_fast_variance=False, name=name)


class PixelDecoder(nn.Module):
    """Backbone maps -> mask features and encoded maps. Padding is not masked, as published.

    MaskDINO's decoder differs by fields: `levels=("res3", "res4", "res5"), num_extra=1, finest=0, laterals=("res3",),
    num_maps=4, upsample_masks=True`.

    Attributes:
        levels: names of the maps that are encoded, in the order of their tokens (Mask2Former: coarse first).
        num_extra: further levels, each of half the size: a 3x3 convolution with stride 2 of the coarsest map, then of the
            one before.
        finest: index of the encoded map from which the pyramid starts.
        laterals: names of the maps of the pyramid, coarse to fine. Their parameters count from the finest, 1.
        hidden_dim: C; mask_dim: M.
        num_maps: length of `memory`.
        num_groups: of every group norm.
        pyramid_norm: whether the pyramid's convolutions have a norm; without one they have a bias.
        upsample_masks: mask features at twice the size of the finest map (a 2x2 transposed convolution comes first).
        scan, remat, impl: of `DeformableEncoder`.
        dtype: published weights are run in float32 even where the rest is not.
    """

    levels: tuple[str, ...] = ("res5", "res4", "res3")
    num_extra: int = 0
    finest: int = -1
    laterals: tuple[str, ...] = ("res2",)
    hidden_dim: int = 256
    mask_dim: int = 256
    num_layers: int = 6
    num_heads: int = 8
    num_points: int = 4
    mlp_dim: int = 1024
    num_maps: int = 3
    num_groups: int = 32
    pyramid_norm: bool = True
    upsample_masks: bool = False
    scan: bool = False
    remat: str = ""
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Array]) -> PixelOutput:
        """features: {name: [B, h, w, C']}.

        Raises:
            ValueError: for a map that is missing, or fewer maps than `num_maps`.
        """
        needed = {*self.levels, *self.laterals}
        if not needed <= set(features):
            raise ValueError(f"pixel decoder: found maps {sorted(features)}, expected {sorted(needed)}")
        maps = self.encode({name: features[name].astype(self.dtype) for name in needed})
        y = maps[self.finest]
        for k, name in zip(range(len(self.laterals), 0, -1), self.laterals, strict=True):
            lateral = self.normalized(features[name], 1, f"lateral_{k}")
            y = lateral + resize(y, lateral.shape[1:3], axes=(1, 2))
            y = jax.nn.relu(self.normalized(y, 3, f"pyramid_{k}"))
            maps.append(y)
        if len(maps) < self.num_maps:
            raise ValueError(f"pixel decoder: found {len(maps)} maps, expected num_maps={self.num_maps} or more")
        return PixelOutput(self.head(y), tuple(maps[: self.num_maps]))

    @nn.compact
    def encode(self, features):
        """Encoded maps [B, h, w, C], in the order of `levels`, then the extra ones."""
        xavier = nn.initializers.xavier_uniform()

        def project(i, x, kernel, stride):
            x = _conv(self.hidden_dim, kernel, f"input_{i}", self.dtype, stride, init=xavier)(x)
            return _group_norm(self.num_groups, f"input_{i}_norm", self.dtype)(x)

        maps = [project(i, features[name], 1, 1) for i, name in enumerate(self.levels)]
        extra = features[max(self.levels)]  # res5: names count up with the stride
        for i in range(len(maps), len(maps) + self.num_extra):
            extra = project(i, extra, 3, 2)
            maps.append(extra)
        tokens, shapes = flatten_levels(maps)
        level_embedding = self.param("level_embedding", nn.initializers.normal(1.0), (len(maps), self.hidden_dim))
        encoder = DeformableEncoder(
            self.num_layers,
            self.num_heads,
            self.mlp_dim,
            self.num_points,
            self.scan,
            self.remat,
            self.impl,
            self.dtype,
            name="encoder",
        )
        return split_levels(encoder(tokens, level_positions(shapes, level_embedding), shapes), shapes)

    @nn.compact
    def normalized(self, x, kernel, name):
        """A convolution of the pyramid, [B, h, w, C'] -> [B, h, w, C]."""
        x = _conv(self.hidden_dim, kernel, name, self.dtype, bias=not self.pyramid_norm)(x)
        return _group_norm(self.num_groups, f"{name}_norm", self.dtype)(x) if self.pyramid_norm else x

    @nn.compact
    def head(self, x):
        """[B, h, w, C] -> [B, h, w, M], or twice the size."""
        if self.upsample_masks:
            x = TileConvTranspose(self.hidden_dim, 2, self.dtype, name="mask_upsample")(x)
            x = jax.nn.relu(_group_norm(self.num_groups, "mask_upsample_norm", self.dtype)(x))
        return _conv(self.mask_dim, 1, "mask_features", self.dtype)(x)
