"""Where a released query decoder's tensors go: Mask2Former's names."""

import re

from jaxseg.weights import CONV, Rule, linear_rules, norm_rules, packed_attention_rules


def query_decoder_rules():
    """Rules of a `QueryDecoder`; checkpoints prefix the keys with `sem_seg_head.predictor.`."""
    path = "block_{i}"
    return [
        *packed_attention_rules("transformer_self_attention_layers.{i}.self_attn", f"{path}/self_attn"),
        *norm_rules("transformer_self_attention_layers.{i}.norm", f"{path}/ln_self"),
        *packed_attention_rules("transformer_cross_attention_layers.{i}.multihead_attn", f"{path}/cross_attn"),
        *norm_rules("transformer_cross_attention_layers.{i}.norm", f"{path}/ln_cross"),
        *linear_rules("transformer_ffn_layers.{i}.linear1", f"{path}/mlp/fc1"),
        *linear_rules("transformer_ffn_layers.{i}.linear2", f"{path}/mlp/fc2"),
        *norm_rules("transformer_ffn_layers.{i}.norm", f"{path}/ln_mlp"),
        *norm_rules("decoder_norm", "head/norm"),
        *linear_rules("class_embed", "head/class_embed"),
        *(rule for k in range(3) for rule in linear_rules(f"mask_embed.layers.{k}", f"head/mask_embed/fc{k + 1}")),
        Rule("query_feat.weight", "query_content"),
        Rule("static_query.weight", "query_content"),  # its name in upstream's first files
        Rule("query_embed.weight", "query_position"),
        Rule("level_embed.weight", "level_embedding"),
        Rule("input_proj.{i}.weight", "input_{i}/kernel", CONV),
        Rule("input_proj.{i}.bias", "input_{i}/bias"),
    ]


def infer_query_decoder(shapes):
    """Fields of `QueryDecoder` that {key: shape} decides: all but heads and `pre_norm`.

    Raises:
        ValueError: where a key that decides a field is missing.
    """
    hidden, mask = "transformer_ffn_layers.0.linear1.weight", "mask_embed.layers.2.weight"
    missing = [key for key in ("query_embed.weight", "class_embed.weight", hidden, mask) if key not in shapes]
    if missing:
        raise ValueError(f"not the state dict of a query decoder: it lacks {', '.join(missing)}")
    layers = {match[1] for key in shapes if (match := re.match(r"transformer_ffn_layers\.(\d+)\.", key))}
    return {
        "num_outputs": shapes["class_embed.weight"][0],
        "num_queries": shapes["query_embed.weight"][0],
        "hidden_dim": shapes["query_embed.weight"][1],
        "mask_dim": shapes[mask][0],
        "num_layers": len(layers),
        "mlp_dim": shapes[hidden][0],
        "project": "input_proj.0.weight" in shapes,
    }
