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
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxseg.typing import Array

_GOLDEN = 0x9E3779B9


def checksums(arrays: Mapping[str, Array]) -> dict[str, str]:
    """{name: 16 hexadecimal digits}; on several processes each must call this with the same names.

    Each device adds up the part that it holds; processes meet once, at the end. (One collective for each array would be
    hundreds of small programs in flight, whose order over devices nothing fixes.)

    Raises:
        ValueError: for an array whose elements are not numbers of 1, 2, 4 or 8 bytes, bool or PRNG keys.
    """
    sums = jax.device_get([_parts(_words(name, array)) for name, array in arrays.items()])
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


def _parts(array):
    """[uint32 [2], ...]: the sums of the parts that this process answers for: one copy of each that its devices hold."""
    sharding = getattr(array, "sharding", None)
    if not isinstance(sharding, NamedSharding):  # of one device, or numpy: every process has it
        return [_sums(array)] if jax.process_index() == 0 else []
    with jax.set_mesh(sharding.mesh):
        sums = _sums_by_device(array, sharding)
    first_copies = {shard.device for shard in array.addressable_shards if shard.replica_id == 0}
    return [shard.data for shard in sums.addressable_shards if shard.device in first_copies]


@functools.partial(jax.jit, static_argnums=1)
def _sums_by_device(x, sharding):
    """uint32 [devices, 2], each row on its device."""
    mesh, shape = sharding.mesh, x.shape

    def of_part(part):
        starts = [0] * len(shape)
        for axis, names in enumerate(sharding.spec):
            if names:  # row-major over the axes of the mesh that split this axis
                starts[axis] = jax.lax.axis_index(names).astype(jnp.uint32) * np.uint32(part.shape[axis])
        return _sums_of_part(part, shape, starts)[None]

    return jax.shard_map(of_part, mesh=mesh, in_specs=sharding.spec, out_specs=P(mesh.axis_names), check_vma=False)(x)


@jax.jit
def _sums(x):
    """uint32 [2] of a whole array."""
    return _sums_of_part(x, x.shape, [0] * x.ndim)


def _sums_of_part(x, shape, starts):
    """uint32 [2] of a part that begins at `starts` of an array of `shape`."""
    if x.dtype == bool:
        bits = x.astype(jnp.uint32)
    else:
        unsigned = {1: jnp.uint8, 2: jnp.uint16}.get(x.dtype.itemsize, jnp.uint32)
        bits = jax.lax.bitcast_convert_type(x, unsigned).astype(jnp.uint32)
    if bits.ndim > len(shape):  # the halves of 8-byte elements
        shape, starts = (*shape, 2), [*starts, 0]
    position = jnp.zeros(bits.shape, jnp.uint32)
    for axis, start in enumerate(starts):
        stride = np.uint32(np.prod(shape[axis + 1 :], dtype=np.int64) % 2**32)
        position += (jax.lax.broadcasted_iota(jnp.uint32, bits.shape, axis) + jnp.uint32(start)) * stride
    mixed = _mix(bits ^ _mix(position * np.uint32(_GOLDEN) + np.uint32(1)))
    odd = position * np.uint32(2) + np.uint32(1)
    return jnp.stack([jnp.sum(mixed, dtype=jnp.uint32), jnp.sum(mixed * odd, dtype=jnp.uint32)])


def _mix(x):
    """A bijection of uint32 in which every input bit reaches every output bit (rounds of shift and odd product)."""
    x = (x ^ (x >> 16)) * np.uint32(0x7FEB352D)
    x = (x ^ (x >> 15)) * np.uint32(0x846CA68B)
    return x ^ (x >> 16)
