"""Where a ResNet's released tensors go: detectron2's names and torchvision's, and sizes inferred from shapes."""

import re

from jaxseg.weights import CONV, Rule

DETECTRON2_IGNORE = ((r"stem\.fc\.(weight|bias)", "ImageNet classifier"),)
TORCHVISION_IGNORE = (
    (r"fc\.(weight|bias)", "ImageNet classifier"),
    (r"(.*\.)?num_batches_tracked", "counter of a frozen BatchNorm"),
)
STAGES = (2, 3, 4, 5)


def _conv(key, path):
    return Rule(f"{key}.weight", f"{path}/kernel", CONV)


def _batch_norm(key, path):
    names = (("weight", "scale"), ("bias", "bias"), ("running_mean", "mean"), ("running_var", "var"))
    return [Rule(f"{key}.{theirs}", f"{path}/{ours}") for theirs, ours in names]


def detectron2_rules():
    """`stem.conv1.*`, `res{2..5}.{i}.{conv1,conv2,conv3,shortcut}.*`; checkpoints of systems prefix them with `backbone.`."""
    rules = [_conv("stem.conv1", "stem_conv"), *_batch_norm("stem.conv1.norm", "stem_norm")]
    key, path = "res{s}.{i}", "res{s}_{i}"
    for k in (1, 2, 3):
        rules += [_conv(f"{key}.conv{k}", f"{path}/conv{k}"), *_batch_norm(f"{key}.conv{k}.norm", f"{path}/norm{k}")]
    shortcut = f"{key}.shortcut"
    return [*rules, _conv(shortcut, f"{path}/shortcut"), *_batch_norm(f"{shortcut}.norm", f"{path}/shortcut_norm")]


def torchvision_rules():
    """`conv1`, `bn1`, `layer{1..4}.{i}.{conv*,bn*,downsample}.*`."""
    rules = [_conv("conv1", "stem_conv"), *_batch_norm("bn1", "stem_norm")]
    for stage in STAGES:
        key, path = f"layer{stage - 1}.{{i}}", f"res{stage}_{{i}}"
        for k in (1, 2, 3):
            rules += [_conv(f"{key}.conv{k}", f"{path}/conv{k}"), *_batch_norm(f"{key}.bn{k}", f"{path}/norm{k}")]
        rules += [
            _conv(f"{key}.downsample.0", f"{path}/shortcut"),
            *_batch_norm(f"{key}.downsample.1", f"{path}/shortcut_norm"),
        ]
    return rules


def infer_detectron2(shapes):
    """Fields of `ResNet` from {key: shape} under detectron2's names.

    Raises:
        ValueError: where a key that decides a field is missing.
    """
    return _infer(shapes, "stem.conv1.weight", "res2", [rf"res{stage}\.(\d+)\." for stage in STAGES])


def infer_torchvision(shapes):
    """The same under torchvision's names."""
    return _infer(shapes, "conv1.weight", "layer1", [rf"layer{stage - 1}\.(\d+)\." for stage in STAGES])


def _infer(shapes, stem, first_stage, patterns):
    conv1, conv3 = f"{first_stage}.0.conv1.weight", f"{first_stage}.0.conv3.weight"
    missing = [key for key in (stem, conv1, conv3) if key not in shapes]
    if missing:
        raise ValueError(f"not the state dict of a ResNet with bottlenecks: it lacks {', '.join(missing)}")
    counts = (len({match[1] for key in shapes if (match := re.match(pattern, key))}) for pattern in patterns)
    return {
        "num_blocks": tuple(count for count in counts if count),
        "stem_dim": shapes[stem][0],
        "bottleneck_dim": shapes[conv1][0],
        "res2_dim": shapes[conv3][0],
    }
