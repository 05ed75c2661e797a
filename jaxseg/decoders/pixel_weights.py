"""Where a released pixel decoder's tensors go: Mask2Former's names, and MaskDINO's where they differ."""

from jaxseg.decoders.deformable_weights import deformable_encoder_rules
from jaxseg.weights import CONV_TRANSPOSE, Rule, conv_rules, count, norm_rules, require


def pixel_decoder_rules(upsample_masks=False):
    """Rules of a `PixelDecoder`; checkpoints prefix the keys with `sem_seg_head.pixel_decoder.`.

    Args:
        upsample_masks: the field of that name, which moves the keys of the last convolution.
    """
    rules = [
        *conv_rules("input_proj.{i}.0", "input_{i}"),
        *norm_rules("input_proj.{i}.1", "input_{i}_norm"),
        Rule("transformer.level_embed", "level_embedding"),
        *deformable_encoder_rules("transformer.encoder", "encoder"),
    ]
    for theirs, ours in (("adapter", "lateral"), ("layer", "pyramid")):
        rules += [*conv_rules(f"{theirs}_{{k}}", f"{ours}_{{k}}"), *norm_rules(f"{theirs}_{{k}}.norm", f"{ours}_{{k}}_norm")]
    if not upsample_masks:
        return rules + conv_rules("mask_features", "mask_features")
    return [
        *rules,
        Rule("mask_features.0.weight", "mask_upsample/kernel", CONV_TRANSPOSE),
        Rule("mask_features.0.bias", "mask_upsample/bias"),
        *norm_rules("mask_features.1", "mask_upsample_norm"),
        *conv_rules("mask_features.3", "mask_features"),
    ]


def infer_pixel_decoder(shapes):
    """Fields of `PixelDecoder` that {key: shape} decides: neither heads and points, nor which maps are encoded.

    Raises:
        ValueError: where a key that decides a field is missing.
    """
    layer, upsample = "transformer.encoder.layers.0.linear1.weight", "mask_features.3.weight" in shapes
    masks = "mask_features.3.weight" if upsample else "mask_features.weight"
    require(shapes, "the state dict of a pixel decoder", "transformer.level_embed", layer, masks)
    return {
        "hidden_dim": shapes["transformer.level_embed"][1],
        "mask_dim": shapes[masks][0],
        "num_layers": count(shapes, r"transformer\.encoder\.layers\.(\d+)\."),
        "mlp_dim": shapes[layer][0],
        "pyramid_norm": "adapter_1.bias" not in shapes,
        "upsample_masks": upsample,
    }
