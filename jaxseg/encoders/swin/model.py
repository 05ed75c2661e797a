"""Swin Transformer (Liu et al. 2021) as a backbone of maps, for images of any size."""

import functools

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.nn.attention import MultiHeadAttention
from jaxseg.nn.conv import torch_conv_init
from jaxseg.nn.mlp import Mlp
from jaxseg.nn.norms import layer_norm
from jaxseg.nn.transformer import REMAT_POLICIES
from jaxseg.ops.windows import from_windows, neighbours_in_windows, to_windows
from jaxseg.typing import Array

PATCH = 4
INIT = nn.initializers.normal(0.02)  # published: truncated at 100 deviations


@functools.cache
def relative_position_index(window: int) -> np.ndarray:
    """[N, N] int32, N = window * window: the row of the table of (2 window - 1)^2 offsets for each (asking, asked) pixel."""
    y, x = np.divmod(np.arange(window * window, dtype=np.int32), window)
    dy, dx = (axis[:, None] - axis[None, :] + window - 1 for axis in (y, x))
    return dy * (2 * window - 1) + dx


class SwinBlock(nn.Module):
    """x + attention(ln_1(x)) in windows, then x + mlp(ln_2(x)); [B, h, w, C] -> [B, h, w, C].

    Attributes:
        shift: how far windows are moved; opposite sides of the map that meet in a window do not see each other.
        drop_path: probability that an example skips the attention, and that it skips the perceptron, in training.
    """

    num_heads: int
    window: int
    shift: int = 0
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, deterministic: bool = True) -> Array:
        x = nn.with_logical_constraint(x, ("batch", None, None, "embed"))
        size = x.shape[1:3]
        drop = nn.Dropout(self.drop_path, broadcast_dims=(1, 2, 3), deterministic=deterministic)
        # The filling comes after the norm and is seen like the map, as published.
        windows = to_windows(layer_norm("ln_1", self.dtype, self.epsilon)(x), self.window, self.shift)
        visible = neighbours_in_windows(size, self.window, self.shift)[None, :, None] if self.shift else None
        attend = MultiHeadAttention(self.num_heads, kernel_init=INIT, dtype=self.dtype, name="attn")
        windows = attend(windows, mask=visible, bias=self.bias())
        x = x + drop(from_windows(windows, size, self.shift))
        mlp = Mlp(int(self.mlp_ratio * x.shape[-1]), "gelu", kernel_init=INIT, dtype=self.dtype, name="mlp")
        return x + drop(mlp(layer_norm("ln_2", self.dtype, self.epsilon)(x)))

    @nn.compact
    def bias(self):
        """[1, 1, heads, N, N] float32, learned for each offset between two pixels of a window, N = window * window."""
        table = self.param("position_bias", INIT, ((2 * self.window - 1) ** 2, self.num_heads))
        bias = table.astype(jnp.float32)[relative_position_index(self.window)]
        return bias.transpose(2, 0, 1)[None, None]


class Stage(nn.Module):
    """Blocks of one resolution, `block_0`, `block_1`, ...; every second one is shifted by half a window.

    Attributes:
        drop_path: of each block; there are as many blocks.
        remat: of `Swin`.
    """

    num_heads: int
    window: int
    drop_path: tuple[float, ...]
    mlp_ratio: float = 4.0
    epsilon: float = 1e-5
    remat: str = ""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, deterministic: bool = True) -> Array:
        """[B, h, w, C] -> [B, h, w, C]."""
        block_class = SwinBlock
        if self.remat:
            block_class = nn.remat(block_class, policy=REMAT_POLICIES[self.remat], static_argnums=(2,))  # counted with self
        for i, rate in enumerate(self.drop_path):
            shift = self.window // 2 if i % 2 else 0
            fields = (self.num_heads, self.window, shift, self.mlp_ratio, rate, self.epsilon, self.dtype)
            x = block_class(*fields, name=f"block_{i}")(x, deterministic)
        return x


class PatchMerging(nn.Module):
    """Four neighbours become one pixel of twice the channels, [B, h, w, C] -> [B, ceil(h / 2), ceil(w / 2), 2 C]."""

    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, height, width, channels = x.shape
        x = jnp.pad(x, ((0, 0), (0, height % 2), (0, width % 2), (0, 0)))
        h, w = -(-height // 2), -(-width // 2)
        # Published order of the four: upper left, lower left, upper right, lower right.
        x = x.reshape(batch, h, 2, w, 2, channels).transpose(0, 1, 3, 4, 2, 5).reshape(batch, h, w, 4 * channels)
        x = layer_norm("norm", self.dtype, self.epsilon)(x)
        return nn.Dense(2 * channels, use_bias=False, dtype=self.dtype, kernel_init=INIT, name="reduction")(x)


class Swin(nn.Module):
    """[B, H, W, 3] normalized -> feature maps by name, each with a norm of its own.

    Attributes:
        embed_dim: channels of the first stage; each further stage doubles them.
        depths, num_heads: of each stage; every second block is shifted by half a window.
        window: side of the windows, in pixels of each map.
        drop_path: probability of the last block's `SwinBlock.drop_path`; it rises linearly from 0 at the first.
        outputs: names of the maps to return; stages after the last one do not exist.
        epsilon: of every norm.
        remat: "" or a key of `REMAT_POLICIES`: recompute each block's activations in the backward pass.
    """

    embed_dim: int = 96
    depths: tuple[int, ...] = (2, 2, 6, 2)
    num_heads: tuple[int, ...] = (3, 6, 12, 24)
    window: int = 7
    mlp_ratio: float = 4.0
    drop_path: float = 0.0
    outputs: tuple[str, ...] = ("res2", "res3", "res4", "res5")
    epsilon: float = 1e-5
    remat: str = ""
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array, *, deterministic: bool = True) -> dict[str, Array]:
        """Returns {name: [B, ceil(H / stride), ceil(W / stride), C]} for `outputs`, strides 4, 8, 16, 32.

        Paths are dropped where not deterministic, by the rng "dropout".

        Raises:
            ValueError: for an output that no stage gives, or heads that do not belong to the depths.
        """
        names = tuple(f"res{i + 2}" for i in range(len(self.depths)))
        if set(self.outputs) - set(names) or not self.outputs:
            raise ValueError(f"swin outputs: found {self.outputs}, expected some of {names}")
        if len(self.num_heads) != len(self.depths):
            raise ValueError(f"swin num_heads: found {self.num_heads}, expected one for each of depths {self.depths}")
        x = self.embed(image.astype(self.dtype))
        rates = np.split(np.linspace(0, self.drop_path, sum(self.depths)), np.cumsum(self.depths)[:-1])
        features = {}
        for i in range(max(map(names.index, self.outputs)) + 1):
            x = PatchMerging(self.epsilon, self.dtype, name=f"merge_{i - 1}")(x) if i else x
            fields = (self.num_heads[i], self.window, tuple(rates[i].tolist()))
            stage = Stage(*fields, self.mlp_ratio, self.epsilon, self.remat, self.dtype, name=f"stage_{i}")
            x = stage(x, deterministic)
            if names[i] in self.outputs:
                features[names[i]] = layer_norm(f"norm_{i}", self.dtype, self.epsilon)(x)
        return {name: features[name] for name in self.outputs}

    @nn.compact
    def embed(self, image):
        """[B, H, W, 3] -> normalized patches [B, ceil(H / 4), ceil(W / 4), C]; the last ones are filled with zeros."""
        height, width = image.shape[1:3]
        image = jnp.pad(image, ((0, 0), (0, -height % PATCH), (0, -width % PATCH), (0, 0)))
        init = torch_conv_init(PATCH * PATCH * image.shape[-1])
        kernel, options = (PATCH, PATCH), {"kernel_init": init, "bias_init": init, "dtype": self.dtype}
        x = nn.Conv(self.embed_dim, kernel, PATCH, "VALID", **options, name="patch_embed")(image)
        return layer_norm("patch_norm", self.dtype, self.epsilon)(x)
