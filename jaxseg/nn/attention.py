"""Multi-head attention: one function for the product, one module for the projections around it."""

from collections.abc import Callable

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.typing import Array

IMPLEMENTATIONS = ("auto", "xla")


def attention(
    q: Array, k: Array, v: Array, *, mask=None, multiplier=None, bias=None, dropout=None, return_weights=False, impl="auto"
):
    """softmax(q k^T / sqrt(D)) v, the softmax in float32.

    Args:
        q: [B, N, heads, D]; k, v: [B, M, heads, D]; more leading axes may stand behind B, then in what follows too.
        mask: bool, broadcast to [B, heads, N, M]; False is never attended to.
        multiplier: broadcast to [B, heads, N, M]; scales the logits (0 makes a logit 0, which is not a mask).
        bias: broadcast to [B, heads, N, M]; added to the logits.
        dropout: function on the weights [B, heads, N, M].
        return_weights: also return the softmax [B, heads, N, M], before dropout.
        impl: "auto" chooses by backend; "xla" is plain jax.numpy.

    Returns:
        [B, N, heads, D], or that and the weights.
    """
    if impl not in IMPLEMENTATIONS:
        raise ValueError(f"attention impl: found {impl!r}, expected one of {IMPLEMENTATIONS}")
    logits = jnp.einsum("...nhd,...mhd->...hnm", q * (q.shape[-1] ** -0.5), k).astype(jnp.float32)
    if multiplier is not None:
        logits = logits * multiplier
    if bias is not None:
        logits = logits + bias
    if mask is not None:
        logits = jnp.where(mask, logits, jnp.finfo(jnp.float32).min)
    weights = jax.nn.softmax(logits, axis=-1)
    mixing = weights if dropout is None else dropout(weights)
    # Heads lead until the product is done: asked for [B, N, heads, D], XLA on CPU transposes the weights (0.9x encode).
    out = jnp.einsum("...hnm,...mhd->...hnd", mixing.astype(v.dtype), v).swapaxes(-3, -2)
    return (out, weights) if return_weights else out


class MultiHeadAttention(nn.Module):
    """Self-attention with separate projections `q`, `k`, `v`, `out`, each with bias.

    Attributes:
        num_heads: heads; the width must be a multiple.
        dropout_rate: on the attention weights, where not deterministic.
        mask_projections: which of "q", "k" and "v" asking tokens have for themselves, as `mask_q`, `mask_k`, `mask_v`; the
            others, and `out`, they share.
        impl: of `attention`.
        kernel_init: of every projection.
    """

    num_heads: int
    dropout_rate: float = 0.0
    mask_projections: str = ""
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32
    kernel_init: Callable = nn.linear.default_kernel_init

    @nn.compact
    def __call__(
        self, x, *, mask=None, multiplier=None, bias=None, asking=None, visible=None, value_only=False, deterministic=True
    ) -> Array | tuple[Array, Array]:
        """x: [B, N, C] -> [B, N, C], or that and what the asking tokens got, [B, M, C]. More axes may stand behind B.

        Tokens `asking` [B, M, C] look at those of x that are `visible` [B, M, N] and are never looked at themselves (mask class
        tokens, MasQCLIP), so that x does not depend on them, in value or in gradient. `mask`, `multiplier` and `bias` belong
        to x.
        `value_only` leaves attention out and gives every token its own value (dense CLIP).
        The weights are sown as `intermediates/weights` where that collection is mutable.
        """
        width = x.shape[-1]
        if width % self.num_heads:
            raise ValueError(f"attention: width {width} is not a multiple of {self.num_heads} heads")
        names = ("q", "k", "v", *(f"mask_{name}" for name in self.mask_projections if asking is not None))
        options = {"dtype": self.dtype, "kernel_init": self.kernel_init}
        projections = {name: nn.Dense(width, **options, name=name) for name in names}

        def heads(name, y):
            return projections[name](y).reshape(*y.shape[:-1], self.num_heads, width // self.num_heads)

        q, k, v = heads("q", x), heads("k", x), heads("v", x)
        if value_only:
            y = v
        else:
            sow = self.is_mutable_collection("intermediates")
            dropout = nn.Dropout(self.dropout_rate, deterministic=deterministic) if self.dropout_rate else None
            how = {"dropout": dropout, "return_weights": sow, "impl": self.impl}
            y = attention(q, k, v, mask=mask, multiplier=multiplier, bias=bias, **how)
            if sow:
                y, weights = y
                self.sow("intermediates", "weights", weights)
        out = nn.Dense(width, **options, name="out")
        y = out(y.reshape(x.shape))
        if asking is None:
            return y
        own = {name: f"mask_{name}" for name in self.mask_projections}
        asked = [heads(own[name], x) if name in own else shared for name, shared in (("k", k), ("v", v))]
        answer = attention(heads(own.get("q", "q"), asking), *asked, mask=visible[:, None], impl=self.impl)
        return y, out(answer.reshape(asking.shape))
