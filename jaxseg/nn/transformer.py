"""Transformer blocks and stacks of equal blocks, unrolled or scanned."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.attention import MultiHeadAttention
from jaxseg.nn.mlp import Mlp
from jaxseg.nn.norms import layer_norm
from jaxseg.typing import Array

REMAT_POLICIES = {
    "full": None,  # save block inputs only
    "dots": jax.checkpoint_policies.dots_with_no_batch_dims_saveable,
}


class PreNormBlock(nn.Module):
    """x + attention(ln_1(x)), then x + mlp(ln_2(x)) (CLIP, ViT); [B, N, C] -> [B, N, C]."""

    num_heads: int
    mlp_dim: int
    activation: str = "quick_gelu"
    epsilon: float = 1e-5
    mask_queries: bool = False
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, mask=None, multiplier=None, num_mask_tokens=0, value_only=False) -> Array:
        """Arguments as in `MultiHeadAttention`."""
        x = nn.with_logical_constraint(x, ("batch", "tokens", "embed"))
        y = layer_norm("ln_1", self.dtype, self.epsilon)(x)
        attend = MultiHeadAttention(
            self.num_heads, mask_queries=self.mask_queries, impl=self.impl, dtype=self.dtype, name="attn"
        )
        x = x + attend(
            y, mask=mask, multiplier=multiplier, num_mask_tokens=num_mask_tokens, value_only=value_only
        )
        y = layer_norm("ln_2", self.dtype, self.epsilon)(x)
        return x + Mlp(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")(y)


class PostNormBlock(nn.Module):
    """ln_1(x + attention(x)), then ln_2(x + mlp(x)): torch's `TransformerEncoderLayer`; [B, N, C] -> [B, N, C]."""

    num_heads: int
    mlp_dim: int
    activation: str = "relu"
    epsilon: float = 1e-5
    dropout_rate: float = 0.0
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, *, deterministic=True) -> Array:
        drop = nn.Dropout(self.dropout_rate, deterministic=deterministic)
        attend = MultiHeadAttention(self.num_heads, dropout_rate=self.dropout_rate, dtype=self.dtype, name="attn")
        x = layer_norm("ln_1", self.dtype, self.epsilon)(x + drop(attend(x, deterministic=deterministic)))
        mlp = Mlp(self.mlp_dim, self.activation, self.dropout_rate, dtype=self.dtype, name="mlp")
        return layer_norm("ln_2", self.dtype, self.epsilon)(x + drop(mlp(x, deterministic=deterministic)))


class BlockStack(nn.Module):
    """`num_layers` equal pre-norm blocks: `block_0`, `block_1`, ... or, scanned, `blocks` with a leading axis.

    Scanning compiles one block however many there are. Give its parent its scope with `nn.share_scope`, so that no level is
    added to parameter paths.

    Attributes:
        block: keyword arguments of `PreNormBlock`.
        scan: stack the parameters and scan.
        remat: "" or a key of `REMAT_POLICIES`: recompute activations in the backward pass.
    """

    num_layers: int
    block: dict
    scan: bool = False
    remat: str = ""

    @nn.compact
    def __call__(self, x, *, stop=None, taps=(), mask=None, multiplier=None, num_mask_tokens=0, value_only_last=False):
        """Runs blocks 0 .. stop-1 (all by default).

        Args:
            x: [B, N, C].
            stop: number of blocks to run; the others exist but cost nothing.
            taps: indices of the blocks whose output is returned.
            multiplier: an array for every block, or `{index: array}`.
            value_only_last: whether block `num_layers - 1` is run without attention.

        Returns:
            [B, N, C] and `{index: [B, N, C]}` for the taps.
        """
        stop = self.num_layers if stop is None else stop
        if not all(0 <= tap < stop for tap in taps):
            raise ValueError(f"taps: found {tuple(taps)}, expected block indices below {stop}")
        block_class = PreNormBlock
        if self.remat:
            # 4 and 5 are num_mask_tokens and value_only, counted with self.
            block_class = nn.remat(block_class, policy=REMAT_POLICIES[self.remat], static_argnums=(4, 5))
        if self.scan:
            if value_only_last or isinstance(multiplier, dict):
                raise ValueError("scan: blocks that differ (value_only_last, multiplier per block) need scan=False")
            return self._scanned(block_class, x, stop, taps, (mask, multiplier, num_mask_tokens, False))
        activations = {}
        for i in range(stop):
            factor = multiplier.get(i) if isinstance(multiplier, dict) else multiplier
            value_only = value_only_last and i == self.num_layers - 1
            block = block_class(**self.block, name=f"block_{i}")
            x = block(x, mask, factor, num_mask_tokens, value_only)
            if i in taps:
                activations[i] = x
        return x, activations

    def _scanned(self, block_class, x, stop, taps, arguments):
        def body(block, carry, index):
            del index
            carry = block(carry, *arguments)
            return carry, (carry if taps else None)

        def first(variables):
            return jax.tree.map(lambda stacked: stacked[:stop], variables)

        scan = nn.scan(
            body, variable_axes={"params": 0, "intermediates": 0}, split_rngs={"params": True, "dropout": True}, length=stop
        )
        if stop < self.num_layers:
            scan = nn.map_variables(scan, "params", trans_in_fn=first)
        x, outputs = scan(block_class(**self.block, name="blocks"), x, jnp.arange(stop))
        return x, {tap: outputs[tap] for tap in taps}
