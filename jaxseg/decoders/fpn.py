"""The feature pyramid of detectors (Lin et al. 2017): coarse maps are added to finer ones, each with as many channels."""

import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import C2_XAVIER
from jaxseg.typing import Array


def doubled(x: Array, size: tuple[int, int]) -> Array:
    """[B, h, w, C] -> [B, *size, C]: each pixel twice along both axes, cut to `size`, which is at most the double."""
    batch, h, w, channels = x.shape
    tiles = jnp.broadcast_to(x[:, :, None, :, None], (batch, h, 2, w, 2, channels))
    return tiles.reshape(batch, 2 * h, 2 * w, channels)[:, : size[0], : size[1]]


class FeaturePyramid(nn.Module):
    """A backbone's maps -> maps of equal width, fine to coarse.

    Attributes:
        levels: names of the backbone's maps, fine to coarse, each of half the size of the one before; the digit in a name is
            its level, whose stride is 2**level.
        hidden_dim: C.
        num_pooled: further levels behind the coarsest, every other pixel of the one before.
    """

    levels: tuple[str, ...] = ("res2", "res3", "res4", "res5")
    hidden_dim: int = 256
    num_pooled: int = 1
    dtype: jnp.dtype = jnp.float32

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image for each of a map, of every map that comes out."""
        first = int(self.levels[0][-1])
        return tuple(2 ** (first + i) for i in range(len(self.levels) + self.num_pooled))

    @nn.compact
    def __call__(self, features: dict[str, Array]) -> tuple[Array, ...]:
        """features: {name: [B, h, w, C']}.

        Raises:
            ValueError: for a map that is missing.
        """
        if not set(self.levels) <= set(features):
            raise ValueError(f"feature pyramid: found maps {sorted(features)}, expected {sorted(self.levels)}")
        outputs, above = [], None
        for name in reversed(self.levels):
            lateral = self.conv(f"lateral_{name[-1]}", features[name].astype(self.dtype), 1)
            above = lateral if above is None else lateral + doubled(above, lateral.shape[1:3])
            outputs.insert(0, self.conv(f"output_{name[-1]}", above, 3))
        for _ in range(self.num_pooled):
            outputs.append(outputs[-1][:, ::2, ::2])
        return tuple(outputs)

    @nn.compact
    def conv(self, name, x, kernel):
        """A convolution with bias, [B, h, w, C'] -> [B, h, w, C]."""
        pad = ((kernel // 2, kernel // 2),) * 2
        return nn.Conv(self.hidden_dim, (kernel,) * 2, padding=pad, dtype=self.dtype, kernel_init=C2_XAVIER, name=name)(x)
