"""Where released tensors of deformable attention and its encoder go: Deformable DETR's names, kept by its heirs."""

from jaxseg.weights import linear_rules, norm_rules, prefixed


def deformable_attention_rules(key, path):
    """`sampling_offsets`, `attention_weights`, `value_proj`, `output_proj`."""
    names = (("sampling_offsets", "offsets"), ("attention_weights", "weights"), ("value_proj", "v"), ("output_proj", "out"))
    return [rule for theirs, ours in names for rule in linear_rules(f"{key}.{theirs}", f"{path}/{ours}")]


def deformable_encoder_rules(key, path):
    """`layers.{i}.{self_attn,norm1,linear1,linear2,norm2}` below `key`."""
    layer = [
        *deformable_attention_rules("self_attn", "attn"),
        *norm_rules("norm1", "ln_1"),
        *linear_rules("linear1", "mlp/fc1"),
        *linear_rules("linear2", "mlp/fc2"),
        *norm_rules("norm2", "ln_2"),
    ]
    return prefixed(layer, f"{key}.layers.{{i}}.", f"{path}/block_{{i}}/")


def num_encoder_points(shapes, num_heads, num_levels, layer="transformer.encoder.layers.0.self_attn"):
    """Points of each head in each level, which the shapes decide once heads and levels are known.

    Raises:
        ValueError: where the rows of the weights are not a multiple.
    """
    rows = shapes[f"{layer}.attention_weights.weight"][0]
    if rows % (num_heads * num_levels):
        raise ValueError(f"{layer}.attention_weights: found {rows} rows, expected a multiple of {num_heads} x {num_levels}")
    return rows // (num_heads * num_levels)
