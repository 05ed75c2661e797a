"""Where a ResNet's released tensors go: detectron2's names and torchvision's, and sizes inferred from shapes."""

from jaxseg.weights import Format, batch_norm_rules, conv_rules, count, prefixed, require

DETECTRON2_IGNORE = ((r"stem\.fc\.(weight|bias)", "ImageNet classifier"),)
TORCHVISION_IGNORE = (
    (r"fc\.(weight|bias)", "ImageNet classifier"),
    (r"(.*\.)?num_batches_tracked", "counter of a frozen BatchNorm"),
)
STAGES = (2, 3, 4, 5)


def detectron2_rules():
    """`stem.conv1.*`, `res{2..5}.{i}.{conv1,conv2,conv3,shortcut}.*`; checkpoints of systems prefix them with `backbone.`."""
    rules = [*conv_rules("stem.conv1", "stem_conv", bias=False), *batch_norm_rules("stem.conv1.norm", "stem_norm")]
    key, path = "res{s}.{i}", "res{s}_{i}"
    for k in (1, 2, 3):
        rules += [
            *conv_rules(f"{key}.conv{k}", f"{path}/conv{k}", bias=False),
            *batch_norm_rules(f"{key}.conv{k}.norm", f"{path}/norm{k}"),
        ]
    shortcut = f"{key}.shortcut"
    return [
        *rules,
        *conv_rules(shortcut, f"{path}/shortcut", bias=False),
        *batch_norm_rules(f"{shortcut}.norm", f"{path}/shortcut_norm"),
    ]


def torchvision_rules():
    """`conv1`, `bn1`, `layer{1..4}.{i}.{conv*,bn*,downsample}.*`."""
    rules = [*conv_rules("conv1", "stem_conv", bias=False), *batch_norm_rules("bn1", "stem_norm")]
    for stage in STAGES:
        key, path = f"layer{stage - 1}.{{i}}", f"res{stage}_{{i}}"
        for k in (1, 2, 3):
            rules += [
                *conv_rules(f"{key}.conv{k}", f"{path}/conv{k}", bias=False),
                *batch_norm_rules(f"{key}.bn{k}", f"{path}/norm{k}"),
            ]
        rules += [
            *conv_rules(f"{key}.downsample.0", f"{path}/shortcut", bias=False),
            *batch_norm_rules(f"{key}.downsample.1", f"{path}/shortcut_norm"),
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
    require(shapes, "the state dict of a ResNet with bottlenecks", stem, conv1, conv3)
    counts = (count(shapes, pattern) for pattern in patterns)
    return {
        "num_blocks": tuple(n for n in counts if n),
        "stem_dim": shapes[stem][0],
        "bottleneck_dim": shapes[conv1][0],
        "res2_dim": shapes[conv3][0],
    }


def _backbone(name, detect, infer, rules, ignore):
    return Format(
        name,
        detect=lambda keys: detect in keys,
        infer=lambda shapes: {"backbone": {"name": "resnet", **infer(shapes)}},
        rules=lambda model: prefixed(rules(), "", "backbone/"),
        ignore=ignore,
        part="backbone",
    )


# Files that hold nothing but a ResNet, for systems whose parameters have it below `backbone/`.
BACKBONE_FORMATS = (
    _backbone("detectron2_imagenet", "stem.conv1.weight", infer_detectron2, detectron2_rules, DETECTRON2_IGNORE),
    _backbone("torchvision", "layer1.0.conv1.weight", infer_torchvision, torchvision_rules, TORCHVISION_IGNORE),
)
