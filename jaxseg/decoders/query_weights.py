"""Where a released query decoder's tensors go: Mask2Former's names."""

from jaxseg.weights import Rule, conv_rules, count, linear_rules, norm_rules, packed_attention_rules, require


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
        *conv_rules("input_proj.{i}", "input_{i}"),
    ]


def infer_query_decoder(shapes):
    """Fields of `QueryDecoder` that {key: shape} decides: all but heads and `pre_norm`.

    Raises:
        ValueError: where a key that decides a field is missing.
    """
    hidden, mask = "transformer_ffn_layers.0.linear1.weight", "mask_embed.layers.2.weight"
    require(shapes, "the state dict of a query decoder", "query_embed.weight", "class_embed.weight", hidden, mask)
    return {
        "num_outputs": shapes["class_embed.weight"][0],
        "num_queries": shapes["query_embed.weight"][0],
        "hidden_dim": shapes["query_embed.weight"][1],
        "mask_dim": shapes[mask][0],
        "num_layers": count(shapes, r"transformer_ffn_layers\.(\d+)\."),
        "mlp_dim": shapes[hidden][0],
        "project": "input_proj.0.weight" in shapes,
    }
