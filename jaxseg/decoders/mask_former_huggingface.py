"""Where the tensors of a mask former's head go that Hugging Face's `Mask2FormerForUniversalSegmentation` has saved."""

from jaxseg.decoders.deformable_weights import deformable_attention_rules, num_encoder_points
from jaxseg.weights import (
    Rule,
    conv_rules,
    count,
    linear_rules,
    norm_rules,
    packed_attention_rules,
    prefixed,
    require,
    separate_attention_rules,
)

PIXEL, QUERY = "model.pixel_level_module.decoder.", "model.transformer_module."
HUGGINGFACE_IGNORE = ((r"criterion\.empty_weight", "class weights of the loss"),)
NUM_POINTS = 4  # of each head in each map, in every model of this layout


def huggingface_rules():
    """Rules of a `MaskFormerHead`; keys are whole, since the layout has no prefix for the head."""
    return [
        *prefixed(_pixel(), PIXEL, "pixel/"),
        *prefixed(_query(), QUERY, "query/"),
        *linear_rules("class_predictor", "query/head/class_embed"),
    ]


def _mlp(norm):
    return [*linear_rules("fc1", "mlp/fc1"), *linear_rules("fc2", "mlp/fc2"), *norm_rules("final_layer_norm", norm)]


def _pixel():
    layer = [*deformable_attention_rules("self_attn", "attn"), *norm_rules("self_attn_layer_norm", "ln_1"), *_mlp("ln_2")]
    rules = [
        *conv_rules("input_projections.{i}.0", "input_{i}"),
        *norm_rules("input_projections.{i}.1", "input_{i}_norm"),
        Rule("level_embed", "level_embedding"),
        *prefixed(layer, "encoder.layers.{i}.", "encoder/block_{i}/"),
        *conv_rules("mask_projection", "mask_features"),
    ]
    for theirs, ours in (("adapter", "lateral"), ("layer", "pyramid")):
        rules += conv_rules(f"{theirs}_{{k}}.0", f"{ours}_{{k}}", bias=False)
        rules += norm_rules(f"{theirs}_{{k}}.1", f"{ours}_{{k}}_norm")
    return rules


def _query():
    layer = [
        *separate_attention_rules("self_attn", "self_attn"),
        *norm_rules("self_attn_layer_norm", "ln_self"),
        *packed_attention_rules("cross_attn", "cross_attn"),
        *norm_rules("cross_attn_layer_norm", "ln_cross"),
        *_mlp("ln_mlp"),
    ]
    embedder = "decoder.mask_predictor.mask_embedder"
    return [
        *prefixed(layer, "decoder.layers.{i}.", "block_{i}/"),
        *norm_rules("decoder.layernorm", "head/norm"),
        *(rule for k in range(3) for rule in linear_rules(f"{embedder}.{k}.0", f"head/mask_embed/fc{k + 1}")),
        Rule("queries_features.weight", "query_content"),
        Rule("queries_embedder.weight", "query_position"),
        Rule("level_embed.weight", "level_embedding"),
        *conv_rules("input_projections.{i}", "input_{i}"),
    ]


def infer_huggingface(shapes):
    """{"pixel": fields, "query": fields} of `MaskFormerHead` that {key: shape} decides, heads too: all attend `NUM_POINTS`.

    Raises:
        ValueError: where a key that decides a field is missing, or no number of heads gives the rows of the weights.
    """
    encoder, decoder = f"{PIXEL}encoder.layers", f"{QUERY}decoder.layers"
    levels, masks, pixel_mlp = f"{PIXEL}level_embed", f"{PIXEL}mask_projection.weight", f"{encoder}.0.fc1.weight"
    points = f"{encoder}.0.self_attn.attention_weights.weight"
    queries, query_mlp = f"{QUERY}queries_embedder.weight", f"{decoder}.0.fc1.weight"
    mask_embed = f"{QUERY}decoder.mask_predictor.mask_embedder.2.0.weight"
    classes = "class_predictor.weight"
    needed = (levels, masks, pixel_mlp, points, queries, query_mlp, mask_embed, classes)
    require(shapes, "the state dict of a Mask2FormerForUniversalSegmentation", *needed)
    # Heads and points enter the shape alike.
    num_heads = num_encoder_points(shapes, NUM_POINTS, shapes[levels][0], layer=f"{encoder}.0.self_attn")
    return {
        "pixel": {
            "hidden_dim": shapes[levels][1],
            "mask_dim": shapes[masks][0],
            "num_layers": count(shapes, encoder.replace(".", r"\.") + r"\.(\d+)\."),
            "mlp_dim": shapes[pixel_mlp][0],
            "num_heads": num_heads,
            "num_points": NUM_POINTS,
        },
        "query": {
            "num_outputs": shapes[classes][0],
            "num_queries": shapes[queries][0],
            "hidden_dim": shapes[queries][1],
            "mask_dim": shapes[mask_embed][0],
            "num_layers": count(shapes, decoder.replace(".", r"\.") + r"\.(\d+)\."),
            "mlp_dim": shapes[query_mlp][0],
            "num_heads": num_heads,
            "project": f"{QUERY}input_projections.0.weight" in shapes,
        },
    }


def huggingface_settings(settings):
    """Fields of `MaskFormerHead` that a config.json of transformers decides.

    Raises:
        ValueError: for a head that `MaskFormerHead` is not.
    """
    fixed = {"activation_function": "relu", "feature_strides": [4, 8, 16, 32], "common_stride": 4}
    for name, expected in fixed.items():
        if settings.get(name, expected) != expected:
            raise ValueError(f"{name}: found {settings[name]!r}, expected {expected!r}")
    heads = {"num_heads": settings["num_attention_heads"]} if "num_attention_heads" in settings else {}
    norm = {"pre_norm": settings["pre_norm"]} if "pre_norm" in settings else {}
    return {"pixel": heads, "query": heads | norm}
