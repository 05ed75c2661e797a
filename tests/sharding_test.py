"""The sharding table against recorded tables of whole models, and the mesh.

    python -m tests.sharding_test     rewrites tests/tables/sharding_*.txt; read the difference before committing it
"""

import re
from pathlib import Path

import jax
import numpy as np
import pytest
from jax.sharding import AbstractMesh, AxisType

from jaxseg import sharding, systems
from jaxseg.config import load_config
from jaxseg.weights import flatten

TABLES = Path(__file__).parent / "tables"
CONFIGS = ("clipseg_rd64_refined", "clip_pretrain:variant=ViT-L/14", "clip_pretrain:variant=RN50")
MESH = AbstractMesh((2, 4, 2), sharding.AXES, axis_types=(AxisType.Auto,) * 3)


def table(name):
    """Lines `path shape spec`, equal lines of numbered blocks written once."""
    task = systems.make_task(load_config(name))
    params, _ = jax.eval_shape(task.init, jax.random.key(0))
    lines = {}
    for path, leaf in flatten(params).items():
        spec = tuple(sharding.partition_spec(path, leaf.shape, MESH))
        lines[f"{re.sub(r'_[0-9]+/', '_*/', path)}  {list(leaf.shape)}  {spec}"] = None
    return "\n".join(lines) + "\n"


def file_of(name):
    return TABLES / f"sharding_{re.sub(r'[^A-Za-z0-9]+', '_', name)}.txt"


@pytest.mark.parametrize("name", CONFIGS)
def test_tables_are_as_recorded(name):
    assert table(name) == file_of(name).read_text()


def test_an_axis_that_does_not_divide_stays_whole():
    spec = sharding.partition_spec("decoder/block_0/attn/q/kernel", (30, 6), MESH)
    assert tuple(spec) == (None, "model")


def test_stacked_blocks_keep_their_first_axis_whole():
    spec = sharding.partition_spec("text/blocks/mlp/fc1/kernel", (12, 64, 256), MESH)
    assert tuple(spec) == (None, "fsdp", "model")


def test_the_optimizer_follows_its_parameters():
    state = {"opt": [{"mu": {"text": {"block_0": {"mlp": {"fc2": {"kernel": np.zeros((64, 16))}}}}}, "count": np.zeros(())}]}
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "model": 2})
    found = sharding.shardings(state, mesh)["opt"][0]
    assert tuple(found["mu"]["text"]["block_0"]["mlp"]["fc2"]["kernel"].spec) == ("model", "fsdp")
    assert tuple(found["count"].spec) == ()


@pytest.mark.parametrize(
    ("sizes", "expected"),
    [((-1, 1, 1), (8, 1, 1)), ((2, -1, 2), (2, 2, 2)), ((1, 8, 1), (1, 8, 1))],
)
def test_mesh_sizes(sizes, expected):
    mesh = sharding.make_mesh(dict(zip(sharding.AXES, sizes, strict=True)))
    assert tuple(mesh.shape.values()) == expected


@pytest.mark.parametrize("sizes", [(3, -1, 1), (2, 2, 1), (16, 1, 1)])
def test_mesh_sizes_that_do_not_fit(sizes):
    with pytest.raises(ValueError, match="config.mesh: found .* for 8 devices"):
        sharding.make_mesh(dict(zip(sharding.AXES, sizes, strict=True)))


def test_batches_lie_over_data_and_fsdp():
    mesh = sharding.make_mesh({"data": 2, "fsdp": 2, "model": 2})
    batch = sharding.global_batch({"x": np.arange(8)}, mesh)
    assert sharding.num_batch_shards(mesh) == 4
    assert {shard.data.shape for shard in batch["x"].addressable_shards} == {(2,)}


if __name__ == "__main__":
    TABLES.mkdir(exist_ok=True)
    for each in CONFIGS:
        file_of(each).write_text(table(each))
