"""Where CLIP's released tensors go: OpenAI's names and Hugging Face's, and sizes inferred from shapes alone."""

from jaxseg.weights import (
    CONV,
    LINEAR,
    Rule,
    batch_norm_rules,
    conv_rules,
    count,
    linear_rules,
    norm_rules,
    packed_attention_rules,
    prefixed,
    require,
    separate_attention_rules,
)

# Scalars of the TorchScript archives, and counters of BatchNorm.
OPENAI_IGNORE = (
    (r"(.*\.)?(input_resolution|context_length|vocab_size)", "scalar of the archive, inferred from shapes"),
    (r".*\.num_batches_tracked", "counter of a frozen BatchNorm"),
)
HUGGINGFACE_IGNORE = ((r".*\.position_ids", "integer buffer 0, 1, 2, ..."),)


def _openai_block(key, path):
    return [
        *norm_rules(f"{key}.ln_1", f"{path}/ln_1"),
        *packed_attention_rules(f"{key}.attn", f"{path}/attn"),
        *norm_rules(f"{key}.ln_2", f"{path}/ln_2"),
        *linear_rules(f"{key}.mlp.c_fc", f"{path}/mlp/fc1"),
        *linear_rules(f"{key}.mlp.c_proj", f"{path}/mlp/fc2"),
    ]


def _openai_vit():
    return [
        Rule("class_embedding", "class_embedding"),
        Rule("positional_embedding", "position_embedding"),
        Rule("conv1.weight", "patch_kernel", CONV),
        *norm_rules("ln_pre", "ln_pre"),
        *_openai_block("transformer.resblocks.{i}", "block_{i}"),
        *norm_rules("ln_post", "ln_post"),
        Rule("proj", "proj/kernel"),  # stored (in, out) already
    ]


def _openai_resnet():
    rules = [
        rule
        for i in (1, 2, 3)
        for prefix, path in (("", ""), ("layer{s}.{i}.", "layer{s}_{i}/"))
        for rule in (
            *conv_rules(f"{prefix}conv{i}", f"{path}conv{i}", bias=False),
            *batch_norm_rules(f"{prefix}bn{i}", f"{path}bn{i}"),
        )
    ]
    rules += [
        *conv_rules("layer{s}.{i}.downsample.0", "layer{s}_{i}/downsample_conv", bias=False),
        *batch_norm_rules("layer{s}.{i}.downsample.1", "layer{s}_{i}/downsample_bn"),
        Rule("attnpool.positional_embedding", "attnpool/position_embedding"),
    ]
    for theirs, ours in (("q_proj", "q"), ("k_proj", "k"), ("v_proj", "v"), ("c_proj", "out")):
        rules += linear_rules(f"attnpool.{theirs}", f"attnpool/{ours}")
    return rules


def _openai_text():
    return [
        Rule("token_embedding.weight", "token_embedding"),
        Rule("positional_embedding", "position_embedding"),
        *_openai_block("transformer.resblocks.{i}", "block_{i}"),
        *norm_rules("ln_final", "ln_final"),
        Rule("text_projection", "proj/kernel"),  # stored (in, out) already
    ]


def openai_rules(patch_size):
    """Rules of an OpenAI state dict; `patch_size` 0 is a ModifiedResNet."""
    return [
        Rule("logit_scale", "logit_scale"),
        *prefixed(_openai_vit() if patch_size else _openai_resnet(), "visual.", "visual/"),
        *prefixed(_openai_text(), "", "text/"),
    ]


def _huggingface_tower(embeddings, first_norm, last_norm):
    block, path = "encoder.layers.{i}", "block_{i}"
    return [
        *embeddings,
        *first_norm,
        *norm_rules(f"{block}.layer_norm1", f"{path}/ln_1"),
        *separate_attention_rules(f"{block}.self_attn", f"{path}/attn"),
        *norm_rules(f"{block}.layer_norm2", f"{path}/ln_2"),
        *linear_rules(f"{block}.mlp.fc1", f"{path}/mlp/fc1"),
        *linear_rules(f"{block}.mlp.fc2", f"{path}/mlp/fc2"),
        *last_norm,
    ]


def huggingface_rules():
    """Rules of transformers' CLIPModel (vision transformers; there is no ModifiedResNet)."""
    vision = _huggingface_tower(
        [
            Rule("embeddings.class_embedding", "class_embedding"),
            Rule("embeddings.position_embedding.weight", "position_embedding"),
            Rule("embeddings.patch_embedding.weight", "patch_kernel", CONV),
        ],
        norm_rules("pre_layrnorm", "ln_pre"),  # spelled so in the files
        norm_rules("post_layernorm", "ln_post"),
    )
    text = _huggingface_tower(
        [
            Rule("embeddings.token_embedding.weight", "token_embedding"),
            Rule("embeddings.position_embedding.weight", "position_embedding"),
        ],
        [],
        norm_rules("final_layer_norm", "ln_final"),
    )
    return [
        Rule("logit_scale", "logit_scale"),
        *prefixed(vision, "vision_model.", "visual/"),
        Rule("visual_projection.weight", "visual/proj/kernel", LINEAR),
        *prefixed(text, "text_model.", "text/"),
        Rule("text_projection.weight", "text/proj/kernel", LINEAR),
    ]


def is_openai(keys):
    """Whether these are the keys of an OpenAI CLIP state dict, without a prefix."""
    return "text_projection" in keys and "token_embedding.weight" in keys


def infer_openai(shapes):
    """Fields of `Clip` from the shapes of an OpenAI state dict.

    Args:
        shapes: {key: shape}. Heads are not in the shapes: 64 channels each, as in every released model.

    Raises:
        ValueError: where a key that decides a field is missing.
    """
    require(shapes, "a CLIP state dict", "text_projection", "positional_embedding", "token_embedding.weight", "ln_final.weight")
    fields = {
        "embed_dim": shapes["text_projection"][1],
        "text_width": shapes["ln_final.weight"][0],
        "text_layers": count(shapes, r"transformer\.resblocks\.(\d+)\."),
        "context_length": shapes["positional_embedding"][0],
        "vocab_size": shapes["token_embedding.weight"][0],
    }
    if "visual.proj" in shapes:
        patch = shapes["visual.conv1.weight"][-1]
        grid = round((shapes["visual.positional_embedding"][0] - 1) ** 0.5)
        layers = count(shapes, r"visual\.transformer\.resblocks\.(\d+)\.")
        width = shapes["visual.conv1.weight"][0]
        return fields | {
            "patch_size": patch,
            "image_size": patch * grid,
            "vision_width": width,
            "vision_layers": layers,
        }
    require(shapes, "a CLIP state dict", "visual.attnpool.positional_embedding", "visual.layer1.0.conv1.weight")
    return fields | {
        "patch_size": 0,
        "image_size": 32 * round((shapes["visual.attnpool.positional_embedding"][0] - 1) ** 0.5),
        "vision_width": shapes["visual.layer1.0.conv1.weight"][0],
        "vision_layers": tuple(count(shapes, rf"visual\.layer{stage}\.(\d+)\.") for stage in (1, 2, 3, 4)),
    }


def infer_huggingface(shapes):
    """Fields of `Clip` from the shapes of a transformers CLIPModel; see `infer_openai`."""
    vision, text = "vision_model.embeddings", "text_model.embeddings"
    require(
        shapes,
        "a CLIP state dict",
        f"{vision}.patch_embedding.weight",
        f"{text}.token_embedding.weight",
        "text_projection.weight",
    )
    patch = shapes[f"{vision}.patch_embedding.weight"][-1]
    grid = round((shapes[f"{vision}.position_embedding.weight"][0] - 1) ** 0.5)
    return {
        "embed_dim": shapes["text_projection.weight"][0],
        "image_size": patch * grid,
        "patch_size": patch,
        "vision_width": shapes[f"{vision}.patch_embedding.weight"][0],
        "vision_layers": count(shapes, r"vision_model\.encoder\.layers\.(\d+)\."),
        "text_width": shapes[f"{text}.token_embedding.weight"][1],
        "text_layers": count(shapes, r"text_model\.encoder\.layers\.(\d+)\."),
        "context_length": shapes[f"{text}.position_embedding.weight"][0],
        "vocab_size": shapes[f"{text}.token_embedding.weight"][0],
    }


def huggingface_settings(settings):
    """Fields of `Clip` that a config.json of transformers decides and shapes do not."""
    vision, text = settings.get("vision_config") or {}, settings.get("text_config") or {}
    fields = {}
    for name, part in (("vision_heads", vision), ("text_heads", text)):
        if {"hidden_size", "num_attention_heads"} <= part.keys():
            heads = part["num_attention_heads"]
            fields[name] = 0 if 64 * heads == part["hidden_size"] else heads
    if "eos_token_id" in text:  # old files say 2 where the largest id is meant
        largest = text.get("vocab_size", 49408) - 1
        fields["eos_token"] = -1 if text["eos_token_id"] in (2, largest) else text["eos_token_id"]
    return fields
