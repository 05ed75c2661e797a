"""Where arrays live: the mesh, one table for parameters, one for activations.

The batch is split over `data` and `fsdp`; parameters, their moments and averages over `fsdp` (gathered when used) and `model`
(tensor parallelism: heads and hidden units stay apart until the projection that follows).
"""

import contextlib
import math
import re

import jax
import numpy as np
from flax import linen as nn
from jax.experimental import mesh_utils
from jax.sharding import AxisType, Mesh, NamedSharding
from jax.sharding import PartitionSpec as P

AXES = ("data", "fsdp", "model")
BATCH_AXES = ("data", "fsdp")

# (regex searched in the parameter's path, how its last axes are split); the first that matches wins, leading axes (stacked
# blocks) stay whole, and so does an axis whose size the mesh does not divide.
RULES = (
    (r"attn(pool)?/(q|k|v|mask_q)/kernel$", P("fsdp", "model")),
    (r"attn(pool)?/(q|k|v|mask_q)/bias$", P("model")),
    (r"attn(pool)?/out/kernel$", P("model", "fsdp")),
    (r"mlp/fc1/kernel$", P("fsdp", "model")),
    (r"mlp/fc1/bias$", P("model")),
    (r"mlp/fc2/kernel$", P("model", "fsdp")),
    (r"token_embedding$", P("model", "fsdp")),
    (r"(^|/)(bias|scale|mean|var)$", P()),
    (r"position_embedding$", P()),
    (r"patch_kernel$", P("fsdp")),
    (r"kernel$", P("fsdp", None)),  # input channels; the transposed convolutions' output stays whole
)

# Logical axis of an activation -> mesh axes; what is not named stays whole.
ACTIVATION_RULES = (("batch", BATCH_AXES), ("tokens", None), ("embed", None))


def make_mesh(sizes, devices=None):
    """The mesh of a config.

    Args:
        sizes: {"data": n, "fsdp": n, "model": n}; one may be -1, the rest.
        devices: all by default; may be those of a topology that is only planned for.

    Raises:
        ValueError: where the sizes do not multiply to the number of devices.
    """
    devices = jax.devices() if devices is None else devices
    shape = mesh_shape(sizes, len(devices))
    grid = mesh_utils.create_device_mesh(shape, devices, allow_split_physical_axes=True)
    return Mesh(grid, AXES, axis_types=(AxisType.Auto,) * len(AXES))


def mesh_shape(sizes, device_count):
    """(data, fsdp, model) with -1 resolved."""
    shape = [sizes[axis] for axis in AXES]
    known = math.prod(n for n in shape if n != -1)
    if device_count % known or (-1 not in shape and known != device_count):
        found = ", ".join(f"{axis}={sizes[axis]}" for axis in AXES)
        raise ValueError(f"config.mesh: found {found} for {device_count} devices, expected sizes that multiply to them")
    return tuple(device_count // known if n == -1 else n for n in shape)


def path_name(path):
    """`params/clip/visual/proj/kernel` of a key path."""
    return "/".join(str(getattr(key, "key", getattr(key, "name", getattr(key, "idx", key)))) for key in path)


def partition_spec(path, shape, mesh):
    """The PartitionSpec of one array by `RULES`.

    Args:
        path: its name, as of `path_name`.
        mesh: only its axis sizes matter.
    """
    spec = next((spec for pattern, spec in RULES if re.search(pattern, path)), P())
    axes = [None] * (len(shape) - len(spec)) + list(spec)[-len(shape) :] if shape else []
    return P(*(axis if axis and size % mesh.shape[axis] == 0 else None for axis, size in zip(axes, shape, strict=True)))


def shardings(tree, mesh):
    """NamedShardings of a tree of anything with a shape: parameters, or a whole train state."""

    def of_leaf(path, leaf):
        return NamedSharding(mesh, partition_spec(path_name(path), np.shape(leaf), mesh))

    return jax.tree_util.tree_map_with_path(of_leaf, tree)


def batch_sharding(mesh):
    """The first axis over every device that does not share a model."""
    return NamedSharding(mesh, P(BATCH_AXES))


def replicated(mesh):
    return NamedSharding(mesh, P())


def num_batch_shards(mesh):
    return math.prod(mesh.shape[axis] for axis in BATCH_AXES)


def global_batch(batch, mesh):
    """Device arrays of the global batch from each process's part of it."""
    sharding = batch_sharding(mesh)
    return jax.tree.map(lambda x: jax.make_array_from_process_local_data(sharding, np.asarray(x)), batch)


@contextlib.contextmanager
def using(mesh):
    """Inside, models may constrain activations by logical names, and jitted functions run on this mesh."""
    with jax.set_mesh(mesh), nn.logical_axis_rules(ACTIVATION_RULES):
        yield
