"""Mask2Former's head, detectron2's `sem_seg_head`: a pixel decoder and the query decoder that looks at its maps."""

from collections.abc import Mapping
from typing import Any

import jax.numpy as jnp
from flax import linen as nn

from jaxseg.decoders.pixel import PixelDecoder
from jaxseg.decoders.query import QueryDecoder, QueryOutput
from jaxseg.typing import Array


class MaskFormerHead(nn.Module):
    """A backbone's maps -> predictions of Q queries; any backbone with maps of these names serves.

    Attributes:
        pixel: fields of `PixelDecoder`; its `dtype` is float32 unless it is named here, as the published code runs it.
        query: fields of `QueryDecoder`.
        dtype: of the query decoder.
    """

    pixel: Mapping[str, Any]
    query: Mapping[str, Any]
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, features: dict[str, Array]) -> QueryOutput:
        """features: {name: [B, h, w, C']}; masks come out at the size of the finest map that the pixel decoder uses."""
        mask_features, memory = PixelDecoder(**self.pixel, name="pixel")(features)
        return QueryDecoder(**self.query, dtype=self.dtype, name="query")(memory, mask_features)
