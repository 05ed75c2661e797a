"""Multi-scale deformable attention: every formulation, on this CPU against torch's, and compiled for a TPU that is not here.

    python -m benchmarks.deformable [--pairs=10] [--topology=v5e:2x2] [--json=benchmarks/results/deformable.json]

Sizes are those of HIPIE at 1024 x 1024: width 256 in 8 heads, four levels from 128 x 128 to 16 x 16, four points; an encoder
layer asks at each of the 21,760 pixels, a decoder layer from 900 queries. The peer is the formulation that the published
systems fall back to without their CUDA kernel: torch's `grid_sample` per level. It is left out where torch is not installed.
Runs take turns, and ratios are medians over pairs, so that what else the machine does falls on all.

On a TPU, bytes are the compiler's; its estimated cycles leave out gathers and scatters, so that the rows gathered are given
beside them, and so is the number of loops whose length is not known. Nothing of this ran on a TPU.
"""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

# The first two let libtpu describe a TPU that is not here, the others silence complaints about its absence.
os.environ |= {"TPU_SKIP_MDS_QUERY": "1", "ALLOW_MULTIPLE_LIBTPU_LOAD": "1", "JAX_PLATFORMS": "cpu"}
os.environ.setdefault("TPU_ACCELERATOR_TYPE", "v5litepod-8")
os.environ.setdefault("TPU_WORKER_HOSTNAMES", "localhost")

import jax  # noqa: E402  (after the environment is set)
import jax.numpy as jnp  # noqa: E402
import numpy as np  # noqa: E402

from benchmarks import paired  # noqa: E402
from jaxseg import hlo  # noqa: E402
from jaxseg.nn.deformable import FORMULATIONS, ms_deform_attn  # noqa: E402

RESULTS = Path(__file__).parent / "results" / "deformable.json"
THREADS = 2
SHAPES = ((128, 128), (64, 64), (32, 32), (16, 16))
HEADS, DIM, POINTS = 8, 32, 4
TOKENS = sum(h * w for h, w in SHAPES)
CASES = {"encoder": TOKENS, "decoder": 900}  # queries
KINDS = ("forward", "forward and backward")


def inputs(num_queries, seed=0):
    """Value, locations and weights of one image; locations lie around each token's own pixel, or around random places."""
    rng = np.random.default_rng(seed)
    places = rng.random((1, num_queries, 1, 1, 1, 2))
    if num_queries == TOKENS:
        grids = [np.stack(np.meshgrid((np.arange(w) + 0.5) / w, (np.arange(h) + 0.5) / h), axis=-1) for h, w in SHAPES]
        places = np.concatenate([grid.reshape(-1, 2) for grid in grids]).reshape(places.shape)
    pixels = np.array([(w, h) for h, w in SHAPES]).reshape(1, 1, 1, -1, 1, 2)
    grid = (1, num_queries, HEADS, len(SHAPES), POINTS)
    locations = places + 2 * rng.standard_normal((*grid, 2)) / pixels
    weights = rng.random(grid)
    weights /= weights.sum(axis=(3, 4), keepdims=True)
    value = rng.standard_normal((1, TOKENS, HEADS, DIM))
    return tuple(x.astype(np.float32) for x in (value, locations, weights))


def program(impl, kind):
    """What is timed: the output, or gradients of its squares' sum."""

    def forward(value, locations, weights):
        return ms_deform_attn(value, SHAPES, locations, weights, impl=impl)

    def loss(*arrays):
        return jnp.sum(jnp.square(forward(*arrays).astype(jnp.float32)))

    return jax.jit(forward if kind == KINDS[0] else jax.grad(loss, argnums=(0, 1, 2)))


class Peer:
    """torch's eager formulation: one `grid_sample` per level, then the weighted sum."""

    def __init__(self):
        import torch

        torch.set_num_threads(THREADS)
        self.torch = torch

    def sample(self, value, locations, weights):
        """As `ms_deform_attn`."""
        batch, queries, heads, levels, points = weights.shape
        maps = value.split([h * w for h, w in SHAPES], dim=1)
        grids = (2 * locations - 1).permute(3, 0, 2, 1, 4, 5).reshape(levels, batch * heads, queries, points, 2)
        samples = []
        for level, grid, (h, w) in zip(maps, grids, SHAPES, strict=True):
            level = level.permute(0, 2, 3, 1).reshape(batch * heads, -1, h, w)
            samples.append(self.torch.nn.functional.grid_sample(level, grid, align_corners=False))
        weights = weights.permute(0, 2, 1, 3, 4).reshape(batch * heads, 1, queries, levels * points)
        out = (self.torch.cat(samples, dim=-1) * weights).sum(-1)
        return out.reshape(batch, -1, queries).transpose(1, 2)

    def program(self, arrays, kind):
        """A function without arguments that gives numpy arrays."""
        tensors = [self.torch.from_numpy(x) for x in arrays]

        def forward():
            with self.torch.inference_mode():
                return (self.sample(*tensors).numpy(),)

        def backward():
            leaves = [x.clone().requires_grad_() for x in tensors]
            self.sample(*leaves).square().sum().backward()
            return tuple(x.grad.numpy() for x in leaves)

        return forward if kind == KINDS[0] else backward


def find_peer():
    """The peer, or None without torch."""
    try:
        return Peer()
    except ImportError:
        return None


def measure_cpu(pairs, peer):
    """{case, kind: {formulation: seconds and ratios}}, once all agree."""
    results = {}
    for case, num_queries in CASES.items():
        arrays = inputs(num_queries)
        for kind in KINDS:
            programs, temp = {}, {}
            if peer:
                programs["torch"] = peer.program(arrays, kind)
            for impl in FORMULATIONS:
                compiled = program(impl, kind).lower(*arrays).compile()
                temp[impl] = compiled.memory_analysis().temp_size_in_bytes
                programs[impl] = lambda compiled=compiled, arrays=arrays: jax.block_until_ready(compiled(*arrays))
            compare(programs)
            seconds = paired.interleave(programs, pairs)
            first = next(iter(programs))
            results[f"{case}, {kind}"] = {
                name: paired.ratio(seconds[first], times) | {"temp_mib": round(temp.get(name, 0) / 2**20)}
                for name, times in seconds.items()
                if name != first
            }
    return results


def compare(programs):
    """Runs each program once.

    Raises:
        SystemExit: where one differs from the first by more than rounding, on average: of millions of points a few lie so near
            to the middle of a pixel that rounding decides from which side the derivative by the location is taken.
    """
    expected = None
    for name, run in programs.items():
        found = [np.asarray(x) for x in jax.tree.leaves(run())]
        expected = expected or found
        for one, other in zip(found, expected, strict=True):
            error = np.abs(one - other).mean() / np.abs(other).mean()
            if not error < 1e-4:
                raise SystemExit(f"{name} disagrees with {next(iter(programs))}: off by {error:.2g} on average")


def measure_tpu(topology, dtype=jnp.bfloat16):
    """{case, kind: {formulation: estimated cycles, temporary MiB, rows}} per image, values in bfloat16.

    Rows are those of the forward pass; the backward pass scatters as many, and a scan gathers them once more.
    """
    from jax.experimental import topologies
    from jax.sharding import SingleDeviceSharding

    device = topologies.get_topology_desc(platform="tpu", topology_name=topology).devices[0]
    where, results = SingleDeviceSharding(device), {}
    for case, num_queries in CASES.items():
        value, *rest = inputs(num_queries)
        arrays = [jax.ShapeDtypeStruct(value.shape, dtype, sharding=where)]
        arrays += [jax.ShapeDtypeStruct(x.shape, x.dtype, sharding=where) for x in rest]
        points = num_queries * HEADS * len(SHAPES) * POINTS
        for kind in KINDS:
            found = results[f"{case}, {kind}"] = {}
            for impl in sorted(set(FORMULATIONS) - {"auto"}):
                compiled = program(impl, kind).lower(*arrays).compile()
                packed, counted = "packed" in impl, hlo.totals(compiled.as_text())
                found[impl] = {
                    "estimated_mcycles_without_gathers": round((counted.cycles or 0) / 1e6, 2),
                    "loops_counted_once": counted.unknown_loops,
                    "temp_mib": round(compiled.memory_analysis().temp_size_in_bytes / 2**20),
                    "rows_in_millions": round((1 if packed else 4) * points / 1e6, 2),
                    "lanes_of_a_row": (4 if packed else 1) * DIM,
                }
    return results


def describe(results):
    """Lines of text."""
    for name, case in results.get("cpu", {}).items():
        yield f"CPU, {name}; times faster than {results['cpu_machine']['ratios_to']}:"
        for impl, found in case.items():
            low, high = found["quartiles"]
            yield (
                f"  {impl:12s} {found['ours_ms']:8.1f} ms of {found['theirs_ms']:8.1f}: {found['ratio']:5.2f}x "
                f"({low:.2f}-{high:.2f}; minima {found['of_minima']:.2f}x), {found['temp_mib']} MiB"
            )
    for name, case in results.get("tpu", {}).items():
        yield f"{results['tpu_machine']['topology']}, {name}:"
        for impl, found in case.items():
            bound = " or more" if found["loops_counted_once"] else ""
            yield (
                f"  {impl:12s} {found['estimated_mcycles_without_gathers']:7.2f} M cycles estimated{bound} and "
                f"{found['rows_in_millions']:6.2f} M rows of {found['lanes_of_a_row']} lanes, {found['temp_mib']} MiB"
            )


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=10, help="timed runs of each program; 0 times nothing")
    parser.add_argument("--topology", default="v5e:2x2", help="TPU to compile for; empty compiles for none")
    parser.add_argument("--json", default=str(RESULTS), help="the results' file; what is not measured again stays")
    args = parser.parse_args()
    path = Path(args.json)
    results = json.loads(path.read_text()) if path.is_file() else {"versions": {}}
    results |= {"shapes": SHAPES, "heads": HEADS, "channels_of_a_head": DIM, "points": POINTS, "queries": CASES}
    packages = ["jax", "jaxlib"]
    if args.pairs:
        before = paired.load()
        peer = find_peer()
        results["cpu"] = measure_cpu(args.pairs, peer)
        results["cpu_machine"] = {
            "ratios_to": "torch" if peer else next(iter(FORMULATIONS)),
            "processor": paired.processor(),
            "cores": os.cpu_count(),
            "torch_threads": THREADS,
            "load_before_and_after": [before, paired.load()],
        }
        packages += ["torch"] if peer else []
    if args.topology:
        results["tpu"] = measure_tpu(args.topology)
        results["tpu_machine"] = {"topology": args.topology, "value_dtype": "bfloat16"}
        packages += ["libtpu"]
    results["versions"] |= {name: version(name) for name in packages} | {"python": platform.python_version()}
    print("\n".join(describe(results)))
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
