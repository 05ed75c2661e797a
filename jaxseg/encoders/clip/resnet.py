"""CLIP's ModifiedResNet: three-convolution stem, anti-aliased strides, attention pooling."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.attention import attention
from jaxseg.nn.norms import FrozenBatchNorm
from jaxseg.ops.resize import resize
from jaxseg.typing import Array


def _conv(features, kernel, name, dtype, stride=1):
    pad = (kernel - 1) // 2
    return nn.Conv(
        features, (kernel, kernel), strides=stride, padding=((pad, pad), (pad, pad)), use_bias=False, dtype=dtype, name=name
    )


def _pool(x, stride):
    """Average pooling with stride = window, odd borders dropped."""
    return nn.avg_pool(x, (stride, stride), (stride, stride)) if stride > 1 else x


class Bottleneck(nn.Module):
    """1x1, 3x3, average pooling instead of a stride, 1x1; the shortcut is pooled before its 1x1."""

    planes: int
    stride: int = 1
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def norm(name):
            return FrozenBatchNorm(dtype=self.dtype, name=name)

        y = jax.nn.relu(norm("bn1")(_conv(self.planes, 1, "conv1", self.dtype)(x)))
        y = jax.nn.relu(norm("bn2")(_conv(self.planes, 3, "conv2", self.dtype)(y)))
        y = norm("bn3")(_conv(4 * self.planes, 1, "conv3", self.dtype)(_pool(y, self.stride)))
        if self.stride > 1 or x.shape[-1] != 4 * self.planes:
            x = _conv(4 * self.planes, 1, "downsample_conv", self.dtype)(_pool(x, self.stride))
            x = norm("downsample_bn")(x)
        return jax.nn.relu(x + y)


class AttentionPool(nn.Module):
    """One attention whose only query is the mean token; [B, h, w, C] -> [B, E]."""

    grid: int
    num_heads: int
    embed_dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        batch, h, w, width = x.shape
        init = nn.initializers.normal(width**-0.5)
        position = self.param("position_embedding", init, (1 + self.grid**2, width))
        if (h, w) != (self.grid, self.grid):
            rest = resize(position[1:].reshape(self.grid, self.grid, width), (h, w), method="bicubic", axes=(0, 1))
            position = jnp.concatenate([position[:1], rest.reshape(h * w, width)])
        x = x.reshape(batch, h * w, width)
        x = jnp.concatenate([x.mean(1, keepdims=True), x], axis=1) + position.astype(self.dtype)[None]

        def heads(name, y):
            y = nn.Dense(width, dtype=self.dtype, kernel_init=init, name=name)(y)
            return y.reshape(*y.shape[:2], self.num_heads, -1)

        pooled = attention(heads("q", x[:, :1]), heads("k", x), heads("v", x)).reshape(batch, width)
        return nn.Dense(self.embed_dim, dtype=self.dtype, kernel_init=init, name="out")(pooled)


class ModifiedResNet(nn.Module):
    """[B, H, W, 3] -> feature maps by name and the pooled embedding.

    Attributes:
        num_blocks: blocks in each of the four stages.
        width: of the stem; the last stage has 32 times as many channels.
        image_size: native side; other sizes resize the pooling's positions.
    """

    num_blocks: tuple[int, ...]
    width: int
    num_heads: int
    embed_dim: int
    image_size: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array, *, embedding: bool = True) -> tuple[dict[str, Array], Array | None]:
        """Returns {"stem", "layer1" .. "layer4": [B, h, w, C]} at strides 4, 4, 8, 16, 32, and [B, E] or None."""
        x = image.astype(self.dtype)
        for i, (features, stride) in enumerate(((self.width // 2, 2), (self.width // 2, 1), (self.width, 1)), start=1):
            x = _conv(features, 3, f"conv{i}", self.dtype, stride)(x)
            x = jax.nn.relu(FrozenBatchNorm(dtype=self.dtype, name=f"bn{i}")(x))
        x = _pool(x, 2)
        features = {"stem": x}
        for stage, num_blocks in enumerate(self.num_blocks):
            for i in range(num_blocks):
                stride = 2 if stage and not i else 1
                x = Bottleneck(self.width * 2**stage, stride, self.dtype, name=f"layer{stage + 1}_{i}")(x)
            features[f"layer{stage + 1}"] = x
        pooled = None
        if embedding or self.is_initializing():
            pool = AttentionPool(self.image_size // 32, self.num_heads, self.embed_dim, self.dtype, name="attnpool")
            pooled = pool(x)
        return features, pooled
