"""Multi-head attention: one function for the product, one module for the projections around it."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.typing import Array

IMPLEMENTATIONS = ("auto", "xla")


def attention(
    q: Array, k: Array, v: Array, *, mask=None, multiplier=None, dropout=None, return_weights=False, impl="auto"
):
    """softmax(q k^T / sqrt(D)) v, the softmax in float32.

    Args:
        q: [B, N, heads, D]; k, v: [B, M, heads, D].
        mask: bool, broadcast to [B, heads, N, M]; False is never attended to.
        multiplier: broadcast to [B, heads, N, M]; scales the logits (0 makes a logit 0, which is not a mask).
        dropout: function on the weights [B, heads, N, M].
        return_weights: also return the softmax [B, heads, N, M], before dropout.
        impl: "auto" chooses by backend; "xla" is plain jax.numpy.

    Returns:
        [B, N, heads, D], or that and the weights.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"attention impl: found {impl!r}, expected one of {IMPLEMENTATIONS}")
    logits = jnp.einsum("bnhd,bmhd->bhnm", q * (q.shape[-1] ** -0.5), k).astype(jnp.float32)
    if multiplier is not None:
        logits = logits * multiplier
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1)
    mixing = weights if dropout is None else dropout(weights)
    # Heads lead until the product is done: asked for [B, N, heads, D], XLA on CPU transposes the weights (0.9x encode).
    out = jnp.einsum("bhnm,bmhd->bhnd", mixing.astype(v.dtype), v).swapaxes(1, 2)
    return (out, weights) if return_weights else out


class MultiHeadAttention(nn.Module):
    """Self-attention with separate projections `q`, `k`, `v`, `out`, each with bias.

    Attributes:
        num_heads: heads; the width must be a multiple.
        dropout_rate: on the attention weights, where not deterministic.
        mask_queries: owns a further query projection `mask_q` for leading mask tokens (MasQCLIP).
        impl: of `attention`.
    """

    num_heads: int
    dropout_rate: float = 0.0
    mask_queries: bool = False
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(
        self, x, *, mask=None, multiplier=None, num_mask_tokens=0, value_only=False, deterministic=True
    ) -> Array:
        """x: [B, N, C] -> [B, N, C].

        The first `num_mask_tokens` tokens ask through `mask_q` and are never asked: keys and values are those of the other
        tokens, computed once. `value_only` leaves attention out and gives every token its own value (dense CLIP).
        The weights are sown as `intermediates/weights` where that collection is mutable.
        """
        width = x.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"attention: width {width} is not a multiple of {self.num_heads} heads")

        def heads(name, y):
            y = nn.Dense(width, dtype=self.dtype, name=name)(y)
            return y.reshape(*y.shape[:-1], self.num_heads, width // self.num_heads)

        image = x[:, num_mask_tokens:]
        q, k, v = heads("q", image), heads("k", image), heads("v", image)
        if self.mask_queries:
            asking = heads("mask_q", x[:, :num_mask_tokens])
            q = jnp.concatenate([asking, q], axis=1)
        if value_only:
            y = v
        else:
            sow = self.is_mutable_collection("intermediates")
            dropout = nn.Dropout(self.dropout_rate, deterministic=deterministic) if self.dropout_rate else None
            y = attention(
                q, k, v, mask=mask, multiplier=multiplier, dropout=dropout, return_weights=sow, impl=self.impl
            )
            if sow:
                y, weights = y
                self.sow("intermediates", "weights", weights)
        return nn.Dense(width, dtype=self.dtype, name="out")(y.reshape(*y.shape[:-2], width))
