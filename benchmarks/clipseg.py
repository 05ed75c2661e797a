"""CLIPSeg against `transformers` (torch, eager): ViT-B/16, decoder width 64, 352 x 352, float32, on CPU.

    python -m benchmarks.clipseg [--pairs=20] [--json=benchmarks/results/clipseg_cpu.json]

Both hold the same random weights, and their logits are compared first. Both are called as users call them: `transformers` with
the image repeated for each prompt and prompts padded to the longest; this library with the image encoded once, prompts
decoded `config.predict.prompts_per_chunk` at a time, and prompts cut by `tokenizer.shorten`. Calls go from pixels and token
ids to logits; `cached` ones find the prompts' embeddings there, as for every image after a vocabulary's first.
Runs take turns, and ratios are medians over pairs, so that what else the machine does falls on both.
"""

import argparse
import json
import os
import platform
from importlib.metadata import version
from pathlib import Path

import jax
import jax.numpy as jnp
import numpy as np

from benchmarks import paired
from jaxseg import weights
from jaxseg.config import load_config, model_fields
from jaxseg.systems.clipseg.model import ClipSeg
from jaxseg.systems.clipseg.weights import FORMATS
from jaxseg.text import tokenizer

RESULTS = Path(__file__).parent / "results" / "clipseg_cpu.json"
INSTALL = "benchmarks.clipseg compares with torch: pip install torch==2.13.0"
THREADS = 2
SIZE = 352
PROMPTS = (
    "a cat",
    "a remote control",
    "a blanket",
    "a wooden table",
    "the sky",
    "a person on a bicycle",
    "a red car",
    "grass",
    "a traffic light",
    "a dog lying on the floor",
    "the left window",
    "a cup of coffee",
    "a tree",
    "a building",
    "something to sit on",
    "a shelf of books",
)
CASES = (1, 4, 16)  # prompts


class Peer:
    """`transformers`' model with random weights."""

    def __init__(self):
        try:
            import torch
            from transformers import CLIPSegConfig, CLIPSegForImageSegmentation
        except ImportError:
            raise SystemExit(INSTALL) from None
        torch.set_num_threads(THREADS)
        torch.manual_seed(0)
        config = CLIPSegConfig(reduce_dim=64, extract_layers=[3, 6, 9], vision_config={"patch_size": 16})
        self.torch, self.model = torch, CLIPSegForImageSegmentation(config).eval()
        self.attention = self.model.config._attn_implementation

    def state_dict(self):
        return {name: tensor.numpy() for name, tensor in self.model.state_dict().items()}

    def inputs(self, image, token_ids):
        """What its processor gives for one image and P prompts, padded with the end token to the longest."""
        ends = token_ids.argmax(1)[:, None]
        seen = np.arange(1 + ends.max())[None] <= ends
        token_ids = np.where(seen, token_ids[:, : seen.shape[1]], tokenizer.END)
        pixels = np.repeat(np.moveaxis(image, 3, 1), len(token_ids), 0)
        values = {"pixel_values": pixels, "input_ids": token_ids.astype(np.int64), "attention_mask": seen.astype(np.int64)}
        return {name: self.torch.from_numpy(np.ascontiguousarray(value)) for name, value in values.items()}

    def segment(self, inputs):
        """Logits [P, H, W]."""
        with self.torch.inference_mode():
            return self.model(**inputs).logits.reshape(-1, SIZE, SIZE)

    def encode_image(self, inputs):
        """The whole image tower on one image; activations of its blocks [1, N, C]."""
        with self.torch.inference_mode():
            vision = self.model.clip.vision_model
            return vision(inputs["pixel_values"][:1], interpolate_pos_encoding=True, output_hidden_states=True).hidden_states

    def encode_text(self, inputs):
        """Conditions [P, E]."""
        with self.torch.inference_mode():
            text = {"input_ids": inputs["input_ids"], "attention_mask": inputs["attention_mask"]}
            return self.model.clip.get_text_features(**text).pooler_output

    def decode(self, activations, cond):
        """Logits [P, H, W] from activations [P, N, C] and conditions [P, E]."""
        with self.torch.inference_mode():
            return self.model.decoder(activations, cond).logits.reshape(-1, SIZE, SIZE)


class Ours:
    """This library's model with the weights of another, three compiled functions."""

    def __init__(self, state_dict):
        config = load_config("clipseg_rd64")
        self.model, self.chunk = ClipSeg(**model_fields(config, ClipSeg)), config.predict.prompts_per_chunk
        image, token_ids = jnp.zeros((1, SIZE, SIZE, 3)), jnp.zeros((1, 77), jnp.int32)
        target = jax.eval_shape(self.model.init, jax.random.key(0), image, token_ids)["params"]
        layout = next(layout for layout in FORMATS if layout.name == "huggingface")
        rules = layout.rules(config.model.to_dict())
        self.params = jax.device_put(weights.to_params(state_dict, rules, target, layout.ignore))
        self._encode_image, self._encode_text, self._decode = map(self._compiled, ("encode_image", "encode_text", "decode"))

    def _compiled(self, method):
        return jax.jit(lambda params, *inputs: self.model.apply({"params": params}, *inputs, method=method))

    def encode_image(self, image):
        return jax.block_until_ready(self._encode_image(self.params, image))

    def encode_text(self, token_ids):
        return jax.block_until_ready(self._encode_text(self.params, token_ids))

    def decode(self, features, cond):
        """Logits [P, H, W]."""
        chunks = [cond[i : i + self.chunk] for i in range(0, len(cond), self.chunk)]
        return np.concatenate([self._decode(self.params, features, chunk)[0] for chunk in chunks])

    def segment(self, image, token_ids):
        return self.decode(self._encode_image(self.params, image), self._encode_text(self.params, token_ids))

    def segment_cached(self, image, cond):
        return self.decode(self._encode_image(self.params, image), cond)


def run(pairs):
    """All cases, and what they were measured on."""
    peer = Peer()
    ours = Ours(peer.state_dict())
    image = np.random.default_rng(0).standard_normal((1, SIZE, SIZE, 3)).astype(np.float32)
    cases, error, before = {}, 0.0, paired.load()
    for num_prompts in CASES:
        token_ids = tokenizer.shorten(tokenizer.tokenize(PROMPTS[:num_prompts]))
        inputs = peer.inputs(image, token_ids)
        error = max(error, disagreement(peer.segment(inputs).numpy(), ours.segment(image, token_ids)))
        cond = ours.encode_text(token_ids)
        programs = {
            "theirs": lambda inputs=inputs: peer.segment(inputs),
            "ours": lambda token_ids=token_ids: ours.segment(image, token_ids),
            "cached": lambda cond=cond: ours.segment_cached(image, cond),
        }
        # 16 prompts take `transformers` 16 encodes: fewer pairs there.
        seconds = paired.interleave(programs, pairs if num_prompts < 16 else max(5, pairs // 2))
        name = f"1 image x {num_prompts} prompts"
        cases[name] = paired.ratio(seconds["theirs"], seconds["ours"])
        cases[f"{name}, cached"] = paired.ratio(seconds["theirs"], seconds["cached"])
    cases |= parts(peer, ours, image, pairs)
    return {
        "model": "CLIPSeg rd64, CLIP ViT-B/16, random weights",
        "image": [SIZE, SIZE],
        "dtype": "float32",
        "theirs": f"transformers, torch eager, {peer.attention} attention, {THREADS} threads",
        "largest_difference": float(f"{error:.2g}"),
        "cases": cases,
        "cores": os.cpu_count(),
        "load_before_and_after": [before, paired.load()],
        "processor": paired.processor(),
        "python": platform.python_version(),
        "versions": {name: version(name) for name in ("jax", "jaxlib", "flax", "torch", "transformers")},
    }


def parts(peer, ours, image, pairs, num_prompts=4):
    """One image encoded, prompts encoded, prompts decoded."""
    token_ids = tokenizer.shorten(tokenizer.tokenize(PROMPTS[:num_prompts]))
    inputs = peer.inputs(image, token_ids)
    features, cond = ours.encode_image(image), ours.encode_text(token_ids)
    # Index 0 is what enters the first block.
    tapped = [peer.encode_image(inputs)[i + 1].repeat(num_prompts, 1, 1) for i in peer.model.extract_layers]
    their_cond = peer.encode_text(inputs)
    programs = {
        "one image encoded": (lambda: peer.encode_image(inputs), lambda: ours.encode_image(image)),
        f"{num_prompts} prompts encoded": (lambda: peer.encode_text(inputs), lambda: ours.encode_text(token_ids)),
        f"{num_prompts} prompts decoded": (lambda: peer.decode(tapped, their_cond), lambda: ours.decode(features, cond)),
    }
    cases = {}
    for name, (theirs, mine) in programs.items():
        seconds = paired.interleave({"theirs": theirs, "ours": mine}, pairs)
        cases[name] = paired.ratio(seconds["theirs"], seconds["ours"])
    return cases


def disagreement(theirs, ours):
    """The largest difference of two models' logits, relative to the largest logit.

    Raises:
        SystemExit: if it is above 1e-4: what disagrees is not worth timing.
    """
    error = float(np.abs(theirs - ours).max() / np.abs(theirs).max())
    if not error < 1e-4:
        raise SystemExit(f"the two models disagree: logits differ by {error:.2g} of the largest, expected below 1e-4")
    return error


def main():
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pairs", type=int, default=20, help="timed runs of each program")
    parser.add_argument("--json", default=str(RESULTS), help="the results' file")
    args = parser.parse_args()
    jax.config.update("jax_platforms", "cpu")
    results = run(args.pairs)
    for name, case in results["cases"].items():
        low, high = case["quartiles"]
        print(
            f"{name:30s} transformers {case['theirs_ms']:8.1f} ms, jaxseg {case['ours_ms']:8.1f} ms: "
            f"{case['ratio']:5.2f}x ({low:.2f}-{high:.2f}, {case['pairs']} pairs; minima {case['of_minima']:.2f}x)"
        )
    Path(args.json).write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
