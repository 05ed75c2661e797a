"""Collectives and cycles are read from program text as they are, loops multiplied."""

import jax
import jax.numpy as jnp
from jax.sharding import NamedSharding
from jax.sharding import PartitionSpec as P

from jaxseg import hlo, sharding

TPU_TEXT = """HloModule step

%fused (p: f32[8]) -> f32[8] {
  %p = f32[8]{0} parameter(0)
  ROOT %n = f32[8]{0} negate(%p), backend_config={"estimated_cycles":"7"}
}

%body (c: (s32[], bf16[4,128])) -> (s32[], bf16[4,128]) {
  %c = (s32[], bf16[4,128]) parameter(0)
  %ag = (bf16[1,128]{1,0}, bf16[4,128]{1,0:T(8,128)}) all-gather-start(%x), replica_groups=[1,4]<=[4], dimensions={0}
  %d = bf16[4,128]{1,0} all-gather-done(%ag)
  %f = bf16[4,128]{1,0} fusion(%d), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"100"}
  ROOT %t = (s32[], bf16[4,128]) tuple(%i, %f)
}

%condition (c: (s32[], bf16[4,128])) -> pred[] {
  ROOT %lt = pred[] compare(%i, %n), direction=LT
}

ENTRY %main (a: f32[16]) -> f32[4] {
  %w = (s32[], bf16[4,128]) while(%start), condition=%condition, body=%body, backend_config={"known_trip_count":{"n":"3"}}
  %k = f32[16]{0} fusion(%a), kind=kLoop, calls=%fused, backend_config={"estimated_cycles":"50"}
  ROOT %rs = f32[4]{0} reduce-scatter(%k), replica_groups={{0,1,2,3}}, dimensions={0}, to_apply=%add
}
"""


def test_loops_and_fusions_are_counted():
    found = hlo.totals(TPU_TEXT)
    assert found.cycles == 3 * 100 + 50, "a fusion's inside is covered by its own estimate"
    assert found.collectives == {"all-gather": [3, 3 * 4 * 128 * 2], "reduce-scatter": [1, 16 * 4]}
    assert found.unknown_loops == 0


def test_trips_that_are_not_stated_are_those_of_the_condition():
    silent = TPU_TEXT.replace(', backend_config={"known_trip_count":{"n":"3"}}', "")
    assert silent != TPU_TEXT
    assert hlo.totals(silent).unknown_loops == 1
    counted = silent.replace("  ROOT %lt = pred[] compare", "  %n = s32[]{:T(128)} constant(5)\n  ROOT %lt = pred[] compare")
    found = hlo.totals(counted)
    assert found.cycles == 5 * 100 + 50
    assert found.unknown_loops == 0


def test_a_compiled_program_of_this_machine():
    """A matrix product with a split contraction is summed over the devices, ten times in a loop."""
    mesh = sharding.make_mesh({"data": 1, "fsdp": 1, "model": 8})
    x = jax.ShapeDtypeStruct((16, 64), jnp.float32, sharding=NamedSharding(mesh, P(None, "model")))
    w = jax.ShapeDtypeStruct((64, 64), jnp.float32, sharding=NamedSharding(mesh, P("model", None)))

    def f(x, w):
        def body(y, _):
            return jax.lax.with_sharding_constraint(y @ w, NamedSharding(mesh, P(None, "model"))), None

        return jax.lax.scan(body, x, None, length=10)[0]

    found = hlo.totals(jax.jit(f).lower(x, w).compile().as_text())
    counts = {kind: n for kind, (n, _) in found.collectives.items()}
    assert sum(counts.values()) >= 10, found
    assert found.cycles is None
