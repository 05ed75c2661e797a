"""Checksums of arrays that do not depend on how the arrays are sharded, computed where the arrays are.

Two sums modulo 2^32 over the bit patterns, each mixed with its position: one changed element always changes both sums, and a
sum in any order, over any mesh, is the same number. No array is copied to the host.
"""

from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.typing import Array

_GOLDEN = 0x9E3779B9


def checksums(arrays: Mapping[str, Array]) -> dict[str, str]:
    """{name: 16 hexadecimal digits}; all are dispatched before the first is fetched.

    Raises:
        ValueError: for an array whose elements are not numbers of 1, 2, 4 or 8 bytes, bool or PRNG keys.
    """
    sums = {name: _sums(_words(name, array)) for name, array in arrays.items()}
    return {name: "{:08x}{:08x}".format(*np.asarray(pair)) for name, pair in jax.device_get(sums).items()}


def is_key(leaf) -> bool:
    """Whether an array, or its description, holds typed PRNG keys."""
    return jax.dtypes.issubdtype(leaf.dtype, jax.dtypes.prng_key)


def _words(name, array):
    """The same bits in a dtype that `_sums` takes."""
    if isinstance(array, jax.Array):
        if is_key(array):
            return jax.random.key_data(array)
    else:
        array = np.asarray(array)
    dtype = array.dtype
    number = any(jnp.issubdtype(dtype, kind) for kind in (jnp.bool_, jnp.integer, jnp.floating))
    if not number or dtype.name.startswith(("int4", "uint4", "int2", "uint2", "float4")):  # less than a byte
        raise ValueError(f"{name}: found dtype {dtype.name}, expected floats or integers of whole bytes, bool or PRNG keys")
    if dtype.itemsize == 8 and isinstance(array, np.ndarray):  # JAX would halve it
        return np.ascontiguousarray(array).reshape(*array.shape, 1).view(np.uint32)
    return array


@jax.jit
def _sums(x):
    """uint32 [2]."""
    if x.dtype == bool:
        bits = x.astype(jnp.uint32)
    else:
        unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
        bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        stride = int(np.prod(bits.shape[axis + 1 :], dtype=np.int64)) % 2**32
        position += jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) * np.uint32(stride)
    mixed = _mix(bits ^ _mix(position * np.uint32(_GOLDEN) + np.uint32(1)))
    odd = position * np.uint32(2) + np.uint32(1)
    return jnp.stack([jnp.sum(mixed, dtype=jnp.uint32), jnp.sum(mixed * odd, dtype=jnp.uint32)])


def _mix(x):
    """A bijection of uint32 in which every input bit reaches every output bit (rounds of shift and odd product)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
