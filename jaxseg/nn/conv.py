"""Convolutions that flax.linen lacks."""

from collections.abc import Callable

import jax.numpy as jnp
from flax import linen as nn

from jaxseg.typing import Array


def torch_conv_init(fan_in):
    """torch's default for convolutions and linear layers: uniform within fan_in ** -0.5, weights and biases alike."""

    def init(key, shape, dtype=jnp.float32):
        bound = fan_in**-0.5
        return nn.initializers.uniform(2 * bound)(key, shape, dtype) - bound

    return init


# detectron2's "c2_xavier", torch's kaiming_uniform with a = 1.
C2_XAVIER = nn.initializers.variance_scaling(1.0, "fan_in", "uniform")
# Its "c2_msra", torch's kaiming_normal of the outputs.
C2_MSRA = nn.initializers.variance_scaling(2.0, "fan_out", "normal")


class TileConvTranspose(nn.Module):
    """Transposed convolution whose stride equals its kernel: each pixel becomes a tile, [B, h, w, C] -> [B, h*k, w*k, F].

    out[y*k + i, x*k + j] = kernel[i, j]^T in[y, x] + bias; tiles do not overlap, so it is one matrix product.

    Attributes:
        bias_shift: added to the initial bias.
        kernel_init: of the kernel, with a bias of `bias_shift` alone; None: both as torch fills them.
    """

    features: int
    kernel_size: int
    dtype: jnp.dtype = jnp.float32
    bias_shift: float = 0.0
    kernel_init: Callable[..., Array] | None = None

    @nn.compact
    def __call__(self, x: Array) -> Array:
        k, channels = self.kernel_size, x.shape[-1]
        # torch takes fan_in of a transposed convolution from its second axis, the output channels.
        init = torch_conv_init(self.features * k * k)
        bias_init = nn.initializers.zeros if self.kernel_init else init
        kernel = self.param("kernel", self.kernel_init or init, (k, k, channels, self.features))
        bias = self.param("bias", lambda *args: bias_init(*args) + self.bias_shift, (self.features,))
        batch, h, w, _ = x.shape
        tiles = jnp.einsum("bhwc,ijcf->bhiwjf", x.astype(self.dtype), kernel.astype(self.dtype))
        return tiles.reshape(batch, h * k, w * k, self.features) + bias.astype(self.dtype)[None, None, None]
