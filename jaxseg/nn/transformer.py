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
    mask_projections: str = ""
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x, mask=None, multiplier=None, asking=None, visible=None, value_only=False):
        """Arguments as in `MultiHeadAttention`; with asking tokens it returns both."""
        x = nn.with_logical_constraint(x, ("batch", "tokens", "embed"))
        ln_1, ln_2 = (layer_norm(name, self.dtype, self.epsilon) for name in ("ln_1", "ln_2"))
        attend = MultiHeadAttention(
            self.num_heads, mask_projections=self.mask_projections, impl=self.impl, dtype=self.dtype, name="attn"
        )
        mlp = Mlp(self.mlp_dim, self.activation, dtype=self.dtype, name="mlp")
        if asking is None:
            x = x + attend(ln_1(x), mask=mask, multiplier=multiplier, value_only=value_only)
            return x + mlp(ln_2(x))
        y, answer = attend(
            ln_1(x), mask=mask, multiplier=multiplier, asking=ln_1(asking), visible=visible, value_only=value_only
        )
        x, asking = x + y, asking + answer
        return x + mlp(ln_2(x)), asking + mlp(ln_2(asking))


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
    def __call__(self, x, *, stop=None, taps=(), mask=None, multiplier=None, asking=None, visible=None, value_only_last=False):
        """Runs blocks 0 .. stop-1 (all by default).

        Args:
            x: [B, N, C].
            stop: number of blocks to run; the others exist but cost nothing.
            taps: indices of the blocks whose output is returned.
            multiplier: an array for every block, or `{index: array}`.
            asking, visible: of `MultiHeadAttention`, for all blocks.
            value_only_last: whether block `num_layers - 1` is run without attention.

        Returns:
            [B, N, C], `asking` after the last block or None, and `{index: [B, N, C]}` for the taps.
        """
        stop = self.num_layers if stop is None else stop
        if not all(0 <= tap < stop for tap in taps):
            raise ValueError(f"taps: found {tuple(taps)}, expected block indices below {stop}")
        block_class = PreNormBlock
        if self.remat:
            # 6 is value_only, counted with self.
            block_class = nn.remat(block_class, policy=REMAT_POLICIES[self.remat], static_argnums=(6,))
        if self.scan:
            if value_only_last or isinstance(multiplier, dict):
                raise ValueError("scan: blocks that differ (value_only_last, multiplier per block) need scan=False")
            return self._scanned(block_class, (x, asking), stop, taps, mask, multiplier, visible)
        activations = {}
        for i in range(stop):
            factor = multiplier.get(i) if isinstance(multiplier, dict) else multiplier
            value_only = value_only_last and i == self.num_layers - 1
            block = block_class(**self.block, name=f"block_{i}")
            x, asking = _pair(block(x, mask, factor, asking, visible, value_only))
            if i in taps:
                activations[i] = x
        return x, asking, activations

    def _scanned(self, block_class, carry, stop, taps, mask, multiplier, visible):
        def body(block, carry, index):
            del index
            x, asking = carry
            carry = _pair(block(x, mask, multiplier, asking, visible, False))
            return carry, (carry[0] if taps else None)

        def first(variables):
            return jax.tree.map(lambda stacked: stacked[:stop], variables)

        scan = nn.scan(
            body, variable_axes={"params": 0, "intermediates": 0}, split_rngs={"params": True, "dropout": True}, length=stop
        )
        if stop < self.num_layers:
            scan = nn.map_variables(scan, "params", trans_in_fn=first)
        (x, asking), outputs = scan(block_class(**self.block, name="blocks"), carry, jnp.arange(stop))
        return x, asking, {tap: outputs[tap] for tap in taps}


def _pair(output):
    """What a block returns, as (x, asking or None)."""
    return output if isinstance(output, tuple) else (output, None)
