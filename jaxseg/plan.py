"""`--mode=plan`: compiles the train step and `predict` ahead of time for machines that are not here.

A TPU topology (`v5p:4x4x4`) needs libtpu, no TPU; `cpu:8` compiles for eight simulated devices.
"""

import contextlib
import dataclasses
import json
import logging
import os
import time
from pathlib import Path

GIB = 2**30


@dataclasses.dataclass(frozen=True)
class Chip:
    """Published limits of one chip: memory [bytes], bf16 peak [FLOP/s], clock [Hz]."""

    memory: float
    peak: float
    clock: float


CHIPS = {
    "v4": Chip(32 * GIB, 275e12, 1.05e9),
    "v5e": Chip(16 * GIB, 197e12, 1.503e9),
    "v5p": Chip(95 * GIB, 459e12, 1.75e9),
    "v6e": Chip(32 * GIB, 918e12, 1.75e9),
}
NUM_NAMES = 16  # vocabulary of the planned `predict`


def plan(config, topology, json_file=""):
    """Prints the plan of a config and returns it as a dict; one entry per program.

    Args:
        topology: `<chip>:<shape>`, e.g. `v5e:2x4`, or `cpu:<devices>`. It must be set before JAX uses a device.

    Raises:
        ValueError: for an unknown topology, without libtpu, or for a config that does not fit the devices.
    """
    chip, devices = _devices(topology)
    import jax

    from jaxseg import runtime, sharding, systems
    from jaxseg.config import validate

    runtime.start_logging()
    jax.config.update("jax_default_matmul_precision", config.precision.matmul)
    validate(config, device_count=len(devices))
    mesh = sharding.make_mesh(config.mesh, devices)
    task = systems.make_task(config)
    programs = {}
    with sharding.using(mesh):
        for name, lower in _programs(task, config, mesh):
            logging.info("compiling %s for %s ...", name, topology)
            programs[name] = _measure(lower, chip, len(devices))
    report = {
        "system": config.system,
        "topology": topology,
        "mesh": dict(mesh.shape),
        "global_batch": config.train.batch_size,
        "precision": config.precision.to_dict(),
        "versions": {"jax": jax.__version__, **_libtpu_version(chip)},
        "programs": programs,
    }
    print(describe(report))
    if json_file:
        Path(json_file).write_text(json.dumps(report, indent=1, sort_keys=True) + "\n")
    return report


def _devices(topology):
    kind, _, shape = topology.partition(":")
    if kind == "cpu" and shape.isdigit() and int(shape):
        os.environ["JAX_PLATFORMS"] = "cpu"
        import jax

        if jax.config.jax_num_cpu_devices != int(shape):
            with contextlib.suppress(RuntimeError):  # devices are in use: take of them what is asked for
                jax.config.update("jax_num_cpu_devices", int(shape))
        devices = jax.devices("cpu")
        if len(devices) < int(shape):
            raise ValueError(f"--topology: found {topology} in a process that has {len(devices)} devices")
        return None, devices[: int(shape)]
    if kind not in CHIPS or not shape or not all(n.isdigit() for n in shape.split("x")):
        raise ValueError(
            f"--topology: found {topology!r}, expected cpu:N or {', '.join(CHIPS)} with a shape, such as v5e:2x4 or v5p:4x4x4"
        )
    # The first lets libtpu start without a TPU machine around it, the second beside another process.
    os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu"}
    # Silences complaints about the machine that is not there.
    os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
    os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")
    try:
        import libtpu  # noqa: F401
    except ImportError:
        raise ValueError("--topology: planning for a TPU needs libtpu: pip install 'jaxseg[plan]'") from None
    from jax.experimental import topologies

    options = {"chip_config_name": "megacore"} if kind == "v4" else {}
    try:
        described = topologies.get_topology_desc(platform="tpu", topology_name=topology, **options)
    except Exception as error:  # libtpu raises its own types
        raise ValueError(f"--topology: libtpu does not know {topology} ({str(error).splitlines()[0]})") from None
    return CHIPS[kind], described.devices


def _libtpu_version(chip):
    if chip is None:
        return {}
    from importlib.metadata import version

    return {"libtpu": version("libtpu")}


def _programs(task, config, mesh):
    """[(name, function that lowers it)]: one train step per kind, and predict."""
    import jax

    from jaxseg import optim, sharding
    from jaxseg.step import make_train_step
    from jaxseg.train import init_shapes, state_templates

    params = init_shapes(task)[0]
    optimizer = optim.make_optimizer(config, optim.split(params, config.optim.freeze)[0])
    templates = state_templates(task, optimizer, config, mesh)
    batch_sharding, whole = sharding.batch_sharding(mesh), sharding.replicated(mesh)

    def placed(tree, where):
        return jax.tree.map(lambda x: jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where), tree)

    layout = jax.tree.map(lambda x: x.sharding, templates)
    for kind in task.kinds:
        step = jax.jit(
            make_train_step(task, optimizer, config, kind), donate_argnums=0, out_shardings=(layout, whole)
        )
        batch = placed(task.example_batch(config.train.batch_size, kind), batch_sharding)
        name = "train" if len(task.kinds) == 1 else f"train/{kind}"
        yield name, lambda step=step, batch=batch: step.lower(templates, batch)
    if task.predict:
        size = sharding.num_batch_shards(mesh) * config.predict.batch_size
        ctx, batch = task.example_predict(size, NUM_NAMES)
        arguments = (templates.params, templates.state, placed(ctx, whole), placed(batch, batch_sharding))
        yield "predict", lambda: jax.jit(task.predict).lower(*arguments)


def _measure(lower, chip, num_devices):
    """Sizes and estimates of one program, per chip."""
    from jaxseg import hlo

    started = time.monotonic()
    compiled = lower().compile()
    seconds = time.monotonic() - started
    memory, cost = compiled.memory_analysis(), compiled.cost_analysis() or {}
    result = {
        "compile_seconds": round(seconds, 1),
        "argument_bytes": memory.argument_size_in_bytes,
        "output_bytes": memory.output_size_in_bytes,
        "aliased_bytes": memory.alias_size_in_bytes,
        "temp_bytes": memory.temp_size_in_bytes,
        "flops": cost.get("flops"),
    }
    try:
        text = compiled.as_text() or ""
    except Exception:  # some TPU generations' programs do not print
        text = ""
    found = hlo.totals(text)
    result["collectives"] = {kind: {"count": n, "bytes": size} for kind, (n, size) in sorted(found.collectives.items())}
    result["collectives_known"] = bool(text)
    needed = result["argument_bytes"] + result["output_bytes"] - result["aliased_bytes"] + result["temp_bytes"]
    result["total_bytes"] = needed
    if chip:
        result |= {"memory_bytes": chip.memory, "fits": needed <= chip.memory}
        if found.cycles:
            step = found.cycles / chip.clock
            result |= {"estimated_cycles": found.cycles, "estimated_seconds": step}
            if result["flops"]:
                result["estimated_mfu"] = result["flops"] / step / chip.peak
    return result


def describe(report):
    """The plan in words and columns."""
    mesh = " x ".join(f"{axis}={n}" for axis, n in report["mesh"].items())
    lines = [f"{report['system']} on {report['topology']} ({mesh}), global batch {report['global_batch']}; per chip:"]
    for name, p in report["programs"].items():
        memory = f"{_gib(p['argument_bytes'])} arguments + {_gib(p['temp_bytes'])} temporary"
        output = _gib(p["output_bytes"] - p["aliased_bytes"])
        lines.append(f"  {name}: {memory} + {output} new output = {_gib(p['total_bytes'])}")
        if "fits" in p:
            lines[-1] += f" of {_gib(p['memory_bytes'])}: {'fits' if p['fits'] else 'DOES NOT FIT'}"
        lines.append(f"    {(p['flops'] or 0) / 1e9:,.1f} GFLOP by the compiler's count; compiled in {p['compile_seconds']} s")
        for kind, c in p["collectives"].items():
            lines.append(f"    {kind}: {c['count']} x, {c['bytes'] / 2**20:,.1f} MiB in all")
        if not p["collectives_known"]:
            lines.append("    collectives: this chip's program does not print")
        if "estimated_seconds" in p:
            lines.append(
                f"    estimated {p['estimated_cycles'] / 1e6:,.1f} M cycles = {1e3 * p['estimated_seconds']:.2f} ms, "
                f"MFU {100 * p.get('estimated_mfu', 0):.1f} % (gathers, collectives and custom kernels not counted)"
            )
    return "\n".join(lines)


def _gib(size):
    return f"{size / GIB:.2f} GiB"
