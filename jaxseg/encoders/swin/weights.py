"""Where a Swin Transformer's released tensors go: its authors' names, Hugging Face's, and sizes inferred from shapes."""

import math
import re

import numpy as np

from jaxseg.weights import Rule, conv_rules, count, linear_rules, norm_rules, require, split_bias, split_linear

NUM_STAGES = 4
PATCHES = "patch_embed.proj.weight"  # of its authors' names; no other backbone has it
_BLOCK, _PATH = "layers.{i}.blocks.{j}", "stage_{i}/block_{j}"

DETECTRON2_IGNORE = (
    (r"layers\.\d+\.blocks\.\d+\.attn\.relative_position_index", "follows from the window"),
    (r"layers\.\d+\.blocks\.\d+\.attn_mask", "follows from the size of a map"),
    (r"(norm|head)\.(weight|bias)", "ImageNet classifier"),
)
HUGGINGFACE_IGNORE = (
    (r"(swin\.)?encoder\.layers\.\d+\.blocks\.\d+\.attention\..*relative_position_index", "follows from the window"),
    (r"(swin\.)?layernorm\.(weight|bias)", "of a classifier's features, no map passes through it"),
)


def _merge_rules(layer):
    return [
        *norm_rules(f"{layer}.downsample.norm", "merge_{i}/norm"),
        *linear_rules(f"{layer}.downsample.reduction", "merge_{i}/reduction", bias=False),
    ]


def detectron2_rules():
    """`patch_embed.*`, `layers.{0..3}.{blocks.{j},downsample}.*`, `norm{0..3}.*`; checkpoints prefix them with `backbone.`."""
    q_k_v = [f"{_PATH}/attn/{x}" for x in "qkv"]
    return [
        *conv_rules("patch_embed.proj", "patch_embed"),
        *norm_rules("patch_embed.norm", "patch_norm"),
        *norm_rules(f"{_BLOCK}.norm1", f"{_PATH}/ln_1"),
        Rule(f"{_BLOCK}.attn.relative_position_bias_table", f"{_PATH}/position_bias"),
        Rule(f"{_BLOCK}.attn.qkv.weight", tuple(f"{p}/kernel" for p in q_k_v), split_linear(3)),
        Rule(f"{_BLOCK}.attn.qkv.bias", tuple(f"{p}/bias" for p in q_k_v), split_bias(3)),
        *linear_rules(f"{_BLOCK}.attn.proj", f"{_PATH}/attn/out"),
        *norm_rules(f"{_BLOCK}.norm2", f"{_PATH}/ln_2"),
        *linear_rules(f"{_BLOCK}.mlp.fc1", f"{_PATH}/mlp/fc1"),
        *linear_rules(f"{_BLOCK}.mlp.fc2", f"{_PATH}/mlp/fc2"),
        *_merge_rules("layers.{i}"),
        *norm_rules("norm{i}", "norm_{i}"),
    ]


def merge_files(state_dicts):
    """The union of files; an ImageNet classifier, which has no norms of maps, gets them as training starts with them."""
    tensors = {key: value for part in state_dicts for key, value in part.items()}
    if PATCHES in tensors and "norm0.weight" not in tensors:
        width = tensors[PATCHES].shape[0]
        for i in range(count(tensors, r"layers\.(\d+)\.")):
            tensors |= {f"norm{i}.weight": np.ones(width << i, np.float32), f"norm{i}.bias": np.zeros(width << i, np.float32)}
    return tensors


# Names of a block's parts in files, and as transformers 5 has them in memory, below `swin.`.
_FILE = {
    "attention.self.query": "attn/q",
    "attention.self.key": "attn/k",
    "attention.self.value": "attn/v",
    "attention.output.dense": "attn/out",
    "intermediate.dense": "mlp/fc1",
    "output.dense": "mlp/fc2",
}
_MEMORY = {
    **{f"attention.{x}_proj": f"attn/{x}" for x in "qkv"},
    "attention.o_proj": "attn/out",
    "mlp.fc1": "mlp/fc1",
    "mlp.fc2": "mlp/fc2",
}
_TABLES = {"": "attention.self", "swin.": "attention.relative_position_bias"}


def huggingface_rules():
    """`embeddings.*`, `encoder.layers.*` and `hidden_states_norms.stage{1..4}.*`, or the first two below `swin.`.

    The latter are the names of `state_dict()` in transformers 5; what it saves, and files of older versions, have the former.
    """
    norms = [rule for i in range(NUM_STAGES) for rule in norm_rules(f"hidden_states_norms.stage{i + 1}", f"norm_{i}")]
    return norms + _huggingface("", _FILE) + _huggingface("swin.", _MEMORY)


def _huggingface(prefix, parts):
    block = f"{prefix}encoder.{_BLOCK}"
    return [
        *conv_rules(f"{prefix}embeddings.patch_embeddings.projection", "patch_embed"),
        *norm_rules(f"{prefix}embeddings.norm", "patch_norm"),
        *norm_rules(f"{block}.layernorm_before", f"{_PATH}/ln_1"),
        Rule(f"{block}.{_TABLES[prefix]}.relative_position_bias_table", f"{_PATH}/position_bias"),
        *(rule for theirs, ours in parts.items() for rule in linear_rules(f"{block}.{theirs}", f"{_PATH}/{ours}")),
        *norm_rules(f"{block}.layernorm_after", f"{_PATH}/ln_2"),
        *_merge_rules(f"{prefix}encoder.layers.{{i}}"),
    ]


def infer_detectron2(shapes):
    """Fields of `Swin` from {key: shape} under its authors' names.

    Raises:
        ValueError: where a key that decides a field is missing, or has a shape that no window gives.
    """
    return _infer(shapes, PATCHES, "", "attn", "mlp.fc1")


def infer_huggingface(shapes):
    """The same under Hugging Face's names, in files or in memory."""
    prefix = "swin." if "swin.embeddings.patch_embeddings.projection.weight" in shapes else ""
    hidden = "mlp.fc1" if prefix else "intermediate.dense"
    projection = f"{prefix}embeddings.patch_embeddings.projection.weight"
    return _infer(shapes, projection, f"{prefix}encoder.", _TABLES[prefix], hidden)


def _infer(shapes, projection, prefix, attention, hidden):
    stages = [f"{prefix}layers.{i}" for i in range(NUM_STAGES) if f"{prefix}layers.{i}.blocks.0.{hidden}.weight" in shapes]
    first, table = f"{prefix}layers.0.blocks.0", f"{attention}.relative_position_bias_table"
    tables = [f"{stage}.blocks.0.{table}" for stage in stages]
    require(shapes, "the state dict of a Swin Transformer", projection, f"{first}.{hidden}.weight", f"{first}.{table}", *tables)
    offsets, embed_dim = shapes[tables[0]][0], shapes[projection][0]
    side = math.isqrt(offsets)
    if side**2 != offsets or side % 2 == 0:
        raise ValueError(f"{tables[0]}: found {offsets} rows, expected the square of an odd number, 2 window - 1")
    return {
        "embed_dim": embed_dim,
        "depths": tuple(count(shapes, rf"{re.escape(stage)}\.blocks\.(\d+)\.") for stage in stages),
        "num_heads": tuple(shapes[key][1] for key in tables),
        "window": (side + 1) // 2,
        "mlp_ratio": shapes[f"{first}.{hidden}.weight"][0] / embed_dim,
    }


def huggingface_settings(settings):
    """Fields of `Swin` that a `backbone_config` of transformers decides and shapes do not.

    Raises:
        ValueError: for an encoder that `Swin` is not.
    """
    fixed = {"model_type": "swin", "hidden_act": "gelu", "qkv_bias": True, "use_absolute_embeddings": False, "patch_size": 4}
    for name, expected in fixed.items():
        if settings.get(name, expected) != expected:
            raise ValueError(f"backbone_config.{name}: found {settings[name]!r}, expected {expected!r}")
    names = {"layer_norm_eps": "epsilon", "window_size": "window"}
    return {ours: settings[theirs] for theirs, ours in names.items() if theirs in settings}
