"""The two-layer perceptron of transformer blocks."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.typing import Array


def quick_gelu(x: Array) -> Array:
    """x * sigmoid(1.702 x), OpenAI CLIP's approximation of GELU."""
    return x * jax.nn.sigmoid(1.702 * x)


ACTIVATIONS = {
    "quick_gelu": quick_gelu,
    "gelu": lambda x: jax.nn.gelu(x, approximate=False),
    "relu": jax.nn.relu,
}


class Mlp(nn.Module):
    """`fc2(activation(fc1(x)))`, [..., C] -> [..., C]."""

    hidden_dim: int
    activation: str = "gelu"
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32
    kernel_init: Callable = nn.linear.default_kernel_init

    @nn.compact
    def __call__(self, x, *, deterministic=True) -> Array:
        hidden = nn.Dense(self.hidden_dim, dtype=self.dtype, kernel_init=self.kernel_init, name="fc1")(x)
        hidden = ACTIVATIONS[self.activation](hidden)
        if self.dropout_rate:
            hidden = nn.Dropout(self.dropout_rate, deterministic=deterministic)(hidden)
        return nn.Dense(x.shape[-1], dtype=self.dtype, kernel_init=self.kernel_init, name="fc2")(hidden)
