"""Checksums of arrays that do not depend on how the arrays are sharded, computed where the arrays are.

Two sums modulo 2^32 over the bit patterns, each mixed with its position: one changed element always changes both sums, and a
sum in any order, over any mesh, is the same number. No array is copied to the host.
"""

import functools
from collections.abc import Mapping

import jax
import jax.numpy as jnp
import numpy as np
from jax.experimental import multihost_utils
from jax.sharding import AxisType, Mesh

from jaxseg.typing import Array

_GOLDEN = 0x9E3779B9


def checksums(arrays: Mapping[str, Array]) -> dict[str, str]:
    """{name: 16 hexadecimal digits}; on several processes each must call this with the same names.

    Each device adds up the shards that it holds; processes meet once, at the end. (One collective for each array would be
    hundreds of small programs in flight, whose order over devices nothing fixes.)

    Raises:
        ValueError: for an array whose elements are not numbers of 1, 2, 4 or 8 bytes, bool or PRNG keys.
    """
    sums = jax.device_get([_shard_sums(_words(name, array)) for name, array in arrays.items()])
    local = [np.sum(np.asarray(parts, np.uint32).reshape(-1, 2), 0, dtype=np.uint32) for parts in sums]
    total = np.asarray(local, np.uint32).reshape(-1, 2)
    if jax.process_count() > 1:
        total = np.sum(multihost_utils.process_allgather(total), 0, dtype=np.uint32)
    return {name: "{:08x}{:08x}".format(*pair) for name, pair in zip(arrays, total, strict=True)}


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


def _shard_sums(array):
    """[uint32 [2], ...]: the sums of the parts that this process answers for."""
    strides = np.array([np.prod(array.shape[axis + 1 :], dtype=np.int64) % 2**32 for axis in range(array.ndim)], np.uint32)
    if not isinstance(array, jax.Array):
        return [_sums(array, np.zeros(array.ndim, np.uint32), strides)] if jax.process_index() == 0 else []
    sums = []
    for shard in array.addressable_shards:
        if shard.replica_id == 0:
            starts = np.array([part.start or 0 for part in shard.index], np.uint32)
            with jax.set_mesh(_alone(shard.device)):  # the mesh of a run has more devices than this part
                sums.append(_sums(shard.data, starts, strides))
    return sums


@functools.cache
def _alone(device):
    return Mesh(np.array([device]), ("one",), axis_types=(AxisType.Auto,))


@jax.jit
def _sums(x, starts, strides):
    """uint32 [2] of a part of an array that begins at `starts`, in an array of row-major `strides`."""
    if x.dtype == bool:
        bits = x.astype(jnp.uint32)
    else:
        unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
        bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis in range(bits.ndim):
        position += (jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) + starts[axis]) * strides[axis]
    mixed = _mix(bits ^ _mix(position * np.uint32(_GOLDEN) + np.uint32(1)))
    odd = position * np.uint32(2) + np.uint32(1)
    return jnp.stack([jnp.sum(mixed, dtype=jnp.uint32), jnp.sum(mixed * odd, dtype=jnp.uint32)])


def _mix(x):
    """A bijection of uint32 in which every input bit reaches every output bit (rounds of shift and odd product)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
