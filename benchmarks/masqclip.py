"""What mask class tokens cost: CLIP's ViT-L/14@336px with 100 of them against the plain encoder, on CPU in float32.

    python -m benchmarks.masqclip [--pairs=10] [--json=benchmarks/results/masqclip_cpu.json]

Mask tokens are never looked at, so the image's queries, keys and values are computed once and the image's own stream is the
plain encoder's, bit by bit; `gradient` is the cost of training what belongs to mask tokens alone, through which the image's
stream is not differentiated. Operations are the compiler's count. Runs take turns; ratios are medians over pairs.
"""

import argparse
import json
import os
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp

from benchmarks import paired
from jaxseg.encoders.clip.variants import VARIANTS
from jaxseg.encoders.clip.vit import VisionTransformer
from jaxseg.optim import join, split
from tests.filling import fill

RESULTS = Path(__file__).parent / "results" / "masqclip_cpu.json"
NUM_MASKS = 100


def programs():
    """{name: compiled program of no arguments}, and {name: GFLOP}."""
    sizes = VARIANTS["ViT-L/14@336px"]
    size, patch, width = sizes["image_size"], sizes["patch_size"], sizes["vision_width"]
    model = VisionTransformer(
        size, patch, width, sizes["vision_layers"], width // 64, sizes["embed_dim"], mask_projections="q"
    )
    image = jax.random.normal(jax.random.key(0), (1, size, size, 3))
    params = fill(jax.eval_shape(lambda: model.init(jax.random.key(0), image))["params"])
    params = jax.device_put(params)
    tokens = jax.random.normal(jax.random.key(1), (1, NUM_MASKS, width))
    visible = jax.random.bernoulli(jax.random.key(2), 0.3, (1, NUM_MASKS, 1 + (size // patch) ** 2)).at[..., 0].set(True)
    own, frozen = split(params, ("^(?!.*/mask_)",))

    def plain(params, image):
        return model.apply({"params": params}, image).embedding

    def with_masks(params, image):
        return model.apply({"params": params}, image, mask_tokens=tokens, mask_visible=visible).mask_tokens

    def gradient(params, image):
        del params
        return jax.grad(lambda own: jnp.sum(jnp.square(with_masks(join(own, frozen), image))))(own)

    compiled, operations = {}, {}
    for name, function in {"plain": plain, "with_masks": with_masks, "gradient": gradient}.items():
        program = jax.jit(function).lower(params, image).compile()
        compiled[name] = lambda program=program: jax.block_until_ready(program(params, image))
        operations[name] = round(program.cost_analysis()["flops"] / 1e9, 1)
    return compiled, operations


def run(pairs):
    """Times and counts, and what they were measured on."""
    compiled, operations = programs()
    seconds = paired.interleave(compiled, pairs)
    results = {
        "machine": {"processor": paired.processor(), "cores": os.cpu_count(), "load": paired.load(), "jax": version("jax")},
        "num_masks": NUM_MASKS,
        "gflop": operations,
        "gflop_over_plain": {name: round(value / operations["plain"], 3) for name, value in operations.items()},
    }
    for name in ("with_masks", "gradient"):
        found = paired.ratio(seconds[name], seconds["plain"])
        results[f"{name}_over_plain"] = found
        print(f"{name}: {found['ratio']} x plain (quartiles {found['quartiles']}), {operations[name]} GFLOP")
    return results


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--pairs", type=int, default=10)
    parser.add_argument("--json", default=str(RESULTS))
    arguments = parser.parse_args()
    results = run(arguments.pairs)
    Path(arguments.json).write_text(json.dumps(results, indent=2) + "\n")


if __name__ == "__main__":
    main()
