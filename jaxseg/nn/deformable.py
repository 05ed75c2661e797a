"""Multi-scale deformable attention (Deformable DETR): each query samples a few points of several maps.

One function in the formulations that are fastest somewhere, equal in value and gradient. Which one wins depends on how a
machine gathers rows of a table:

    rows         rows in the order of the tokens, four for each point                        GPU (not measured)
    rows_scan    the same, one point of each query at a time: what is taken stays in cache   CPU
    packed       a table whose row holds a 2x2 neighbourhood: a quarter of the rows, each    TPU, few queries
                 four times as wide, which fills a TPU's 128 lanes at 32 channels
    packed_scan  the same, one point at a time: a seventh of the memory                      TPU, many queries

Nothing mixes examples, so that a split batch needs no communication. `benchmarks/deformable.py` measures them.
"""

import functools
import math

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.nn.deformable_sampling import FORMULATIONS
from jaxseg.typing import Array


@functools.partial(jax.jit, static_argnames=("shapes", "impl"))  # traced once for all layers of a stack
def _run(value, locations, weights, shapes, impl):
    out = FORMULATIONS[impl](value, locations, weights, shapes)
    return out.astype(value.dtype).reshape(*out.shape[:2], -1)


def ms_deform_attn(value: Array, shapes, locations: Array, weights: Array, *, impl: str = "auto") -> Array:
    """Weighted sums of bilinear samples; what lies outside of a map is zero (`grid_sample`, align_corners=False).

    Args:
        value: [B, S, heads, D], the maps flattened in row-major order, one after the other; sums are in float32.
        shapes: ((h, w), ...) of the L maps, static; S is the sum of h * w.
        locations: [B, Q, heads, L, P, 2], (x, y) as fractions of the map: 0 and 1 are its borders, beyond is allowed.
        weights: [B, Q, heads, L, P].
        impl: "auto" by backend and size, or a key of `FORMULATIONS`.

    Returns:
        [B, Q, heads * D] in the dtype of `value`.

    Raises:
        ValueError: for shapes that do not belong together, or an unknown `impl`.
    """
    shapes = tuple((int(h), int(w)) for h, w in shapes)
    if impl not in FORMULATIONS:
        raise ValueError(f"deformable attention impl: found {impl!r}, expected one of {tuple(FORMULATIONS)}")
    batch, _, heads, _ = value.shape
    tokens = sum(h * w for h, w in shapes)
    expected = (batch, weights.shape[1], heads, len(shapes), weights.shape[-1])
    if value.shape[1] != tokens or weights.shape != expected or locations.shape != (*expected, 2):
        raise ValueError(
            f"deformable attention: found value {value.shape}, locations {locations.shape}, weights {weights.shape}; "
            f"expected [B, {tokens}, heads, D], [B, Q, heads, {len(shapes)}, P, 2] and [B, Q, heads, {len(shapes)}, P]"
        )
    return _run(value, locations, weights, shapes, impl)


def star_directions(heads: int, levels: int, points: int) -> np.ndarray:
    """Initial offsets [heads, L, P, 2] in pixels: each head looks in its own direction, point p at p + 1 steps on a square."""
    angles = 2 * np.pi * np.arange(heads) / heads
    directions = np.stack([np.cos(angles), np.sin(angles)], axis=-1)
    directions /= np.abs(directions).max(axis=-1, keepdims=True)
    steps = np.arange(1, points + 1).reshape(1, 1, points, 1)
    return np.broadcast_to(directions[:, None, None] * steps, (heads, levels, points, 2)).astype(np.float32)


class MSDeformAttn(nn.Module):
    """Multi-scale deformable attention with projections `v`, `offsets`, `weights` and `out`.

    `v` and `out` are named as in other attentions, so that they are split over devices alike.

    Attributes:
        num_points: P, of each head in each level.
        impl: of `ms_deform_attn`.
    """

    num_heads: int
    num_points: int = 4
    impl: str = "auto"
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, query: Array, value: Array, shapes, reference: Array, *, valid: Array | None = None) -> Array:
        """Samples around reference points.

        Args:
            query: [B, Q, C]; decides where to look and how much.
            value: [B, S, C], levels one after the other.
            shapes: ((h, w), ...), static.
            reference: [B or 1, Q, L or 1, 2] points (x, y), from which offsets count in pixels of a level; or
                [..., 4] boxes (cx, cy, w, h), from which P steps reach the border. All as fractions of the map.
            valid: [B, S] bool; the values of other tokens are zero.

        Returns:
            [B, Q, C].
        """
        width, levels = query.shape[-1], len(shapes)
        if width % self.num_heads or reference.shape[-1] not in (2, 4):
            raise ValueError(
                f"deformable attention: found width {width}, {self.num_heads} heads, references of {reference.shape[-1]}; "
                "expected a multiple of the heads, and references of 2 or 4"
            )
        grid = (self.num_heads, levels, self.num_points)
        xavier, zeros = nn.initializers.xavier_uniform(), nn.initializers.zeros

        def star(key, shape, dtype=jnp.float32):
            return jnp.asarray(star_directions(*grid), dtype).reshape(shape)

        v = nn.Dense(width, dtype=self.dtype, kernel_init=xavier, name="v")(value)
        if valid is not None:
            v = jnp.where(valid[..., None], v, 0)
        offsets = nn.Dense(2 * math.prod(grid), dtype=self.dtype, kernel_init=zeros, bias_init=star, name="offsets")(query)
        weights = nn.Dense(math.prod(grid), dtype=self.dtype, kernel_init=zeros, name="weights")(query)
        # Locations and softmax need more digits than bfloat16 has, on maps of hundreds of pixels.
        offsets = offsets.astype(jnp.float32).reshape(*query.shape[:2], *grid, 2)
        weights = jax.nn.softmax(weights.astype(jnp.float32).reshape(*query.shape[:2], self.num_heads, -1), axis=-1)
        locations = _locations(offsets, reference.astype(jnp.float32), shapes)
        v = v.reshape(*v.shape[:2], self.num_heads, width // self.num_heads)
        sampled = ms_deform_attn(v, shapes, locations, weights.reshape(*query.shape[:2], *grid), impl=self.impl)
        return nn.Dense(width, dtype=self.dtype, kernel_init=xavier, name="out")(sampled)


def _locations(offsets, reference, shapes):
    """[B, Q, heads, L, P, 2] of offsets of that shape and references [B or 1, Q, L or 1, 2 or 4]."""
    reference = reference[:, :, None, :, None]
    if reference.shape[-1] == 4:
        return reference[..., :2] + offsets / offsets.shape[4] * reference[..., 2:] * 0.5
    pixels = np.array([(w, h) for h, w in shapes], np.float32).reshape(1, 1, 1, -1, 1, 2)
    return reference + offsets / pixels
