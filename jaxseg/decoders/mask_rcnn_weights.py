"""Where a released Mask R-CNN's tensors go: detectron2's names."""

import math

from jaxseg.weights import CONV_TRANSPOSE, Rule, Transform, conv_rules, count, linear_rules, require

FPN, RPN, HEADS = "backbone.fpn_", "proposal_generator.rpn_head.", "roi_heads."
IGNORE = (
    (r"proposal_generator\.anchor_generator\.cell_anchors\.\d+", "boxes that follow from the sizes of anchors"),
    ("pixel_(mean|std)", "statistics of pixels, constants here"),
)


def _of_regions(size):
    """A linear layer over regions (out, C * size * size), channel by channel <-> (size, size, C, out), row by row."""

    def to_jax(x):
        return (x.reshape(len(x), -1, size, size).transpose(2, 3, 1, 0),)

    def to_torch(arrays):
        (x,) = arrays
        return x.transpose(3, 2, 0, 1).reshape(x.shape[-1], -1)

    return Transform(to_jax, to_torch)


def mask_rcnn_rules(box_size=7):
    """Rules of a `MaskRcnnHead`.

    Args:
        box_size: the field of that name, which decides how the first hidden layer's weights lie.
    """
    box, mask = f"{HEADS}box_head.", f"{HEADS}mask_head."
    return [
        *conv_rules(f"{FPN}lateral{{i}}", "fpn/lateral_{i}"),
        *conv_rules(f"{FPN}output{{i}}", "fpn/output_{i}"),
        *conv_rules(f"{RPN}conv", "rpn/conv"),
        *conv_rules(f"{RPN}objectness_logits", "rpn/objects"),
        *conv_rules(f"{RPN}anchor_deltas", "rpn/deltas"),
        Rule(f"{box}fc1.weight", "box/fc1/kernel", _of_regions(box_size)),
        Rule(f"{box}fc1.bias", "box/fc1/bias"),
        *linear_rules(f"{box}fc{{i}}", "box/fc{i}"),
        *linear_rules(f"{HEADS}box_predictor.cls_score", "box/classes"),
        *linear_rules(f"{HEADS}box_predictor.bbox_pred", "box/deltas"),
        *conv_rules(f"{mask}mask_fcn{{i}}", "mask/conv{i}"),
        Rule(f"{mask}deconv.weight", "mask/upsample/kernel", CONV_TRANSPOSE),
        Rule(f"{mask}deconv.bias", "mask/upsample/bias"),
        *conv_rules(f"{mask}predictor", "mask/masks"),
    ]


def infer_mask_rcnn(shapes):
    """Fields of `MaskRcnnHead` that {key: shape} decides: neither which anchors there are, nor how objects are chosen.

    Raises:
        ValueError: where a key that decides a field is missing, or boxes or masks are not predicted for each class.
    """
    scores, deltas = f"{HEADS}box_predictor.cls_score.weight", f"{HEADS}box_predictor.bbox_pred.weight"
    first, masks, conv = f"{HEADS}box_head.fc1.weight", f"{HEADS}mask_head.predictor.weight", f"{RPN}conv.weight"
    require(shapes, "the state dict of a Mask R-CNN with a feature pyramid", scores, deltas, first, masks, conv)
    num_classes, hidden_dim = shapes[scores][0] - 1, shapes[conv][0]
    for key, expected in ((deltas, 4 * num_classes), (masks, num_classes)):
        if shapes[key][0] != expected:
            raise ValueError(f"{key}: found {shapes[key][0]} rows, expected {expected} for {num_classes} classes")
    layers = range(1, count(shapes, r"roi_heads\.box_head\.fc(\d+)\.") + 1)
    return {
        "num_classes": num_classes,
        "hidden_dim": hidden_dim,
        "box_dims": tuple(shapes[f"{HEADS}box_head.fc{i}.weight"][0] for i in layers),
        "box_size": math.isqrt(shapes[first][1] // hidden_dim),
        "mask_layers": count(shapes, r"roi_heads\.mask_head\.mask_fcn(\d+)\."),
    }
