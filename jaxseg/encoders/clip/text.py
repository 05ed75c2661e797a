"""CLIP's text transformer."""

import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.norms import layer_norm
from jaxseg.nn.transformer import BlockStack
from jaxseg.typing import Array


class TextTransformer(nn.Module):
    """Causal pre-norm transformer over token ids, pooled at the end-of-text token and projected without bias.

    Attributes:
        eos_token: the id to pool at (its first position); negative: the position of the largest id, OpenAI's rule.
    """

    context_length: int
    vocab_size: int
    width: int
    num_layers: int
    num_heads: int
    embed_dim: int
    eos_token: int = -1
    scan: bool = False
    remat: str = ""
    dtype: jnp.dtype = jnp.float32

    def setup(self):
        normal = nn.initializers.normal
        self.token_embedding = self.param("token_embedding", normal(0.02), (self.vocab_size, self.width))
        self.position_embedding = self.param("position_embedding", normal(0.01), (self.context_length, self.width))
        self.stack = BlockStack(
            self.num_layers,
            {"num_heads": self.num_heads, "mlp_dim": 4 * self.width, "dtype": self.dtype},
            scan=self.scan,
            remat=self.remat,
        )
        nn.share_scope(self, self.stack)
        self.final_norm = layer_norm("ln_final", self.dtype)
        self.projection = nn.Dense(
            self.embed_dim, use_bias=False, dtype=self.dtype, kernel_init=normal(self.width**-0.5), name="proj"
        )

    def embed(self, token_ids: Array) -> Array:
        """[B, T] -> [B, T, C]: token and position embeddings."""
        # Gathered whole before it is looked up: a lookup in a split table moves every token between devices instead.
        table = nn.with_logical_constraint(self.token_embedding.astype(self.dtype), (None, None))
        return table[token_ids] + self.position_embedding[None, : token_ids.shape[1]].astype(self.dtype)

    def __call__(self, token_ids: Array) -> Array:
        """[B, T] int32, T at most the context -> [B, E], not normalised. What follows the end of text has no influence."""
        return self.pool(self.encode(self.embed(token_ids))[0], token_ids)

    def encode(self, tokens: Array, taps: tuple[int, ...] = ()) -> tuple[Array, dict[int, Array]]:
        """[B, T, C] embeddings -> normalised tokens [B, T, C] and the blocks' outputs for `taps`."""
        length = tokens.shape[1]
        causal = jnp.tril(jnp.ones((length, length), bool))[None, None]
        tokens, _, activations = self.stack(tokens, taps=taps, mask=causal)
        return self.final_norm(tokens), activations

    def pool(self, tokens: Array, token_ids: Array) -> Array:
        """[B, T, C], [B, T] -> [B, E]: the projected token at the end of text."""
        ends = token_ids if self.eos_token < 0 else (token_ids == self.eos_token)
        end = jnp.argmax(ends, axis=1)
        return self.projection(jnp.take_along_axis(tokens, end[:, None, None], axis=1)[:, 0])
