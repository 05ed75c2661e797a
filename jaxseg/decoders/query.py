"""The query decoder of Mask2Former: learned queries look at one map after the other, each only inside of its last mask."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import C2_XAVIER, torch_conv_init
from jaxseg.nn.cross_attention import CrossAttention
from jaxseg.nn.embeddings import sine_positions
from jaxseg.nn.norms import layer_norm
from jaxseg.nn.perceptron import Perceptron
from jaxseg.ops.resize import resize
from jaxseg.typing import Array


class MaskPrediction(NamedTuple):
    """class_logits: [B, Q, K], the last class is "no object"; mask_logits: [B, Q, h, w], at the size of the mask features."""

    class_logits: Array
    mask_logits: Array


class QueryOutput(NamedTuple):
    """What the query decoder gives.

    Attributes:
        final: prediction after the last layer.
        aux: those before each layer, the first from the learned queries alone.
        queries: [B, Q, C] after the last layer, not normalized.
    """

    final: MaskPrediction
    aux: tuple[MaskPrediction, ...]
    queries: Array


def predict_masks(embeddings: Array, mask_features: Array) -> Array:
    """Embeddings [B, Q, M] and features [B, h, w, M] -> mask logits [B, Q, h, w], float32."""
    return jnp.einsum("bqc,bhwc->bqhw", embeddings, mask_features, preferred_element_type=jnp.float32)


def visible_pixels(embeddings: Array, mask_features: Array) -> Array:
    """Which pixels [B, Q, h * w] a query may look at, at least half likely in its mask; no gradient passes.

    Args:
        mask_features: [B, h, w, M], resized to the map that is looked at. Resizing is linear, so this is the resized mask,
            without the masks at full size.
    """
    logits = jax.lax.stop_gradient(predict_masks(embeddings, mask_features))
    return (jax.nn.sigmoid(logits) >= 0.5).reshape(*logits.shape[:2], -1)


def open_empty(visible: Array) -> Array:
    """Queries that see nothing see everything; [..., N] bool."""
    return visible | ~visible.any(axis=-1, keepdims=True)


class PredictionHead(nn.Module):
    """Queries [B, Q, C] -> class logits [B, Q, K] and mask embeddings [B, Q, M], from normalized queries."""

    num_outputs: int
    mask_dim: int
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, queries: Array) -> tuple[Array, Array]:
        width = queries.shape[-1]
        queries, init = layer_norm("norm", self.dtype)(queries), torch_conv_init(width)
        classify = nn.Dense(self.num_outputs, dtype=self.dtype, kernel_init=init, bias_init=init, name="class_embed")
        embed = Perceptron((width, width, self.mask_dim), dtype=self.dtype, name="mask_embed")
        return classify(queries), embed(queries)


class QueryLayer(nn.Module):
    """Masked cross-attention, self-attention, perceptron, each with a residual and a norm; [B, Q, C] -> [B, Q, C].

    Attributes:
        pre_norm: the norm is on each part's input (queries only, not what is looked at) instead of on its sum.
    """

    num_heads: int
    mlp_dim: int
    pre_norm: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array, position: Array, keys: Array, values: Array, visible: Array) -> Array:
        """Decodes one layer.

        Args:
            x: [B, Q, C]; position: [1, Q, C].
            keys, values: [B, N, C], the map's tokens with and without positions.
            visible: [B, Q, N] bool.
        """
        look = CrossAttention(self.num_heads, dtype=self.dtype, name="cross_attn")
        talk = CrossAttention(self.num_heads, dtype=self.dtype, name="self_attn")
        mlp = Perceptron((self.mlp_dim, x.shape[-1]), "xavier", self.dtype, name="mlp")
        x = self.residual("ln_cross", x, lambda y: look(y + position, keys, values, mask=visible[:, None]))
        x = self.residual("ln_self", x, lambda y: talk(y + position, y + position, y))
        return self.residual("ln_mlp", x, mlp)

    @nn.compact
    def residual(self, name, x, function):
        norm = layer_norm(name, self.dtype)
        return x + function(norm(x)) if self.pre_norm else norm(x + function(x))


class QueryDecoder(nn.Module):
    """Maps and mask features -> predictions of Q queries, one after each layer and one before all.

    Attributes:
        num_outputs: K, "no object" included; a class-agnostic head has two.
        mask_dim: M, of the mask features.
        num_layers: layer i looks at map i mod L.
        project: a 1x1 convolution of the maps even where they have C channels; where they do not, there always is one.
        remat: recompute each layer's activations in the backward pass.
    """

    num_outputs: int
    num_queries: int = 100
    hidden_dim: int = 256
    mask_dim: int = 256
    num_layers: int = 9
    num_heads: int = 8
    mlp_dim: int = 2048
    pre_norm: bool = False
    project: bool = False
    remat: bool = False
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, memory: tuple[Array, ...], mask_features: Array) -> QueryOutput:
        """memory: L maps [B, h_i, w_i, C'], the first is looked at first (coarse); mask_features: [B, h, w, M]."""
        mask_features = mask_features.astype(self.dtype)
        keys, values = self.look_at([x.astype(self.dtype) for x in memory])
        inside = [resize(mask_features, x.shape[1:3], axes=(1, 2)) for x in memory]
        x, position = self.learned(mask_features.shape[0])
        head = PredictionHead(self.num_outputs, self.mask_dim, self.dtype, name="head")
        layer_class = nn.remat(QueryLayer) if self.remat else QueryLayer
        predictions = []
        for i in range(self.num_layers):
            class_logits, embeddings = head(x)
            predictions.append(MaskPrediction(class_logits, predict_masks(embeddings, mask_features)))
            level = i % len(memory)
            visible = open_empty(visible_pixels(embeddings, inside[level]))
            layer = layer_class(self.num_heads, self.mlp_dim, self.pre_norm, self.dtype, name=f"block_{i}")
            x = layer(x, position, keys[level], values[level], visible)
        class_logits, embeddings = head(x)
        final = MaskPrediction(class_logits, predict_masks(embeddings, mask_features))
        return QueryOutput(final, tuple(predictions), x)

    @nn.compact
    def look_at(self, memory):
        """Keys and values [B, h * w, C] of each map; its level's embedding is part of both, its positions of the keys."""
        level_embedding = self.param("level_embedding", nn.initializers.normal(1.0), (len(memory), self.hidden_dim))
        keys, values = [], []
        for i, x in enumerate(memory):
            size = x.shape[1:3]
            if self.project or x.shape[-1] != self.hidden_dim:
                x = nn.Conv(self.hidden_dim, (1, 1), dtype=self.dtype, kernel_init=C2_XAVIER, name=f"input_{i}")(x)
            x = x.reshape(x.shape[0], -1, self.hidden_dim)
            x = x + level_embedding[i].astype(self.dtype).reshape(1, 1, -1)
            position = sine_positions(size, self.hidden_dim // 2).reshape(1, -1, self.hidden_dim)
            keys.append(x + position.astype(self.dtype))
            values.append(x)
        return keys, values

    @nn.compact
    def learned(self, batch):
        """Content [B, Q, C] and positions [1, Q, C] of the queries."""
        content, position = (
            self.param(name, nn.initializers.normal(1.0), (self.num_queries, self.hidden_dim)).astype(self.dtype)[None]
            for name in ("query_content", "query_position")
        )
        return jnp.broadcast_to(content, (batch, *content.shape[1:])), position
