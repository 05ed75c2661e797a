"""Normalization layers with the conventions of released weights."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.typing import Array


def layer_norm(name, dtype=jnp.float32, epsilon=1e-5):
    """LayerNorm over the last axis: statistics in float32 with the two-pass variance, result in `dtype`."""
    return nn.LayerNorm(epsilon=epsilon, dtype=dtype, use_fast_variance=False, name=name)


class FrozenBatchNorm(nn.Module):
    """BatchNorm with fixed statistics, all four tensors parameters: (x - mean) / sqrt(var + eps) * scale + bias."""

    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        shape, ones, zeros = (x.shape[-1],), nn.initializers.ones, nn.initializers.zeros
        scale, bias = self.param("scale", ones, shape), self.param("bias", zeros, shape)
        mean, var = self.param("mean", zeros, shape), self.param("var", ones, shape)
        factor = scale * jax.lax.rsqrt(var + self.epsilon)
        factor, offset = factor.astype(self.dtype), (bias - mean * factor).astype(self.dtype)
        axes = tuple(range(x.ndim - 1))
        return x.astype(self.dtype) * jnp.expand_dims(factor, axes) + jnp.expand_dims(offset, axes)
