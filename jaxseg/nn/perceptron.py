"""Perceptrons of any depth with the initializers of the published detection heads."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import torch_conv_init
from jaxseg.typing import Array

INITIALIZERS = ("torch", "xavier")


class Perceptron(nn.Module):
    """Linear layers `fc1`, `fc2`, ... with ReLU between them, [..., C] -> [..., features[-1]].

    Attributes:
        features: outputs of each layer.
        initializer: of the matrices: "torch", its default for linear layers, or "xavier", uniform. Biases are torch's in both.
    """

    features: tuple[int, ...]
    initializer: str = "torch"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        if self.initializer not in INITIALIZERS:
            raise ValueError(f"perceptron initializer: found {self.initializer!r}, expected one of {INITIALIZERS}")
        for i, features in enumerate(self.features):
            default = torch_conv_init(x.shape[-1])
            kernel_init = default if self.initializer == "torch" else nn.initializers.xavier_uniform()
            x = jax.nn.relu(x) if i else x
            x = nn.Dense(features, dtype=self.dtype, kernel_init=kernel_init, bias_init=default, name=f"fc{i + 1}")(x)
        return x
