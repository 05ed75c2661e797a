"""Attention from one set of tokens to another, with the initializers of torch's MultiheadAttention."""

import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.attention import attention
from jaxseg.typing import Array


class CrossAttention(nn.Module):
    """Multi-head attention whose queries, keys and values are given apart; projections `q`, `k`, `v`, `out` with bias.

    Self-attention of tokens with positions is `attend(x + p, x + p, x)` (DETR).
    """

    num_heads: int
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, query: Array, key: Array, value: Array, *, mask: Array | None = None) -> Array:
        """query: [B, N, C]; key, value: [B, M, ...]; mask: bool, broadcast to [B, heads, N, M]. Returns [B, N, C]."""
        width = query.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"attention: width {width} is not a multiple of {self.num_heads} heads")
        # torch fills q, k and v as one matrix of 3 C rows, which halves the variance of each.
        packed = nn.initializers.variance_scaling(0.5, "fan_avg", "uniform")

        def heads(name, x):
            x = nn.Dense(width, dtype=self.dtype, kernel_init=packed, name=name)(x)
            return x.reshape(*x.shape[:-1], self.num_heads, width // self.num_heads)

        q, k, v = heads("q", query), heads("k", key), heads("v", value)
        y = attention(q, k, v, mask=mask, impl=self.impl).reshape(query.shape)
        return nn.Dense(width, dtype=self.dtype, kernel_init=nn.initializers.xavier_uniform(), name="out")(y)
