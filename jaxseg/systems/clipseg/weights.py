"""Checkpoint layouts of CLIPSeg: the authors' decoder files over a CLIP file, their full models, and Hugging Face's."""

import re

from jaxseg.encoders.clip import weights as clip
from jaxseg.weights import (
    CONV,
    CONV_TRANSPOSE,
    Format,
    Rule,
    below,
    linear_rules,
    norm_rules,
    packed_attention_rules,
    prefixed,
    separate_attention_rules,
)

_UNUSED = (
    (r"reduce\.(weight|bias)", "created and never used by the released model"),
    (r"model\..*", "the image tower again, shared storage with clip_model.visual"),
)


def _film():
    return [*linear_rules("film_mul", "film_mul"), *linear_rules("film_add", "film_add")]


def _head(key, refined, transposed="trans_conv"):
    key = f"{key}{transposed}"
    if not refined:
        return [Rule(f"{key}.weight", "head/expand/kernel", CONV_TRANSPOSE), Rule(f"{key}.bias", "head/expand/bias")]
    return [
        Rule(f"{key}.0.weight", "head/conv/kernel", CONV),
        Rule(f"{key}.0.bias", "head/conv/bias"),
        *(
            rule
            for i, name in ((2, "expand_0"), (4, "expand_1"))
            for rule in (
                Rule(f"{key}.{i}.weight", f"head/{name}/kernel", CONV_TRANSPOSE),
                Rule(f"{key}.{i}.bias", f"head/{name}/bias"),
            )
        ),
    ]


def _timojl_decoder(refined):
    blocks = (("blocks.{i}", "block_{i}"), ("extra_blocks.{i}", "extra_block_{i}"))
    return [
        *_film(),
        *linear_rules("reduce_cond", "reduce_cond"),
        *linear_rules("reduces.{i}", "reduce_{i}"),
        *(
            rule
            for key, path in blocks
            for rule in (
                *packed_attention_rules(f"{key}.self_attn", f"{path}/attn"),
                *linear_rules(f"{key}.linear1", f"{path}/mlp/fc1"),
                *linear_rules(f"{key}.linear2", f"{path}/mlp/fc2"),
                *norm_rules(f"{key}.norm1", f"{path}/ln_1"),
                *norm_rules(f"{key}.norm2", f"{path}/ln_2"),
            )
        ),
        *_head("", refined),
    ]


def timojl_rules(model):
    """The authors' names: `clip_model.*` and the decoder without a prefix."""
    towers = prefixed(clip.openai_rules(model["clip"]["patch_size"]), "clip_model.", "clip/")
    return towers + prefixed(_timojl_decoder(model.get("refined", False)), "", "decoder/")


def timojl_ignore(extract_layers=(1,)):
    """Keys of the authors' files that have no use, with reasons; a tap of block 0 leaves the last step without one."""
    ignore = tuple((r"clip_model\." + pattern, why) for pattern, why in clip.OPENAI_IGNORE) + _UNUSED
    if 0 in extract_layers:
        last = len(extract_layers) - 1
        ignore += ((rf"(reduces|blocks)\.{last}\..*", "block 0 is recorded and never decoded, so the last step is unused"),)
    return ignore


def huggingface_rules(model):
    """transformers' CLIPSegForImageSegmentation: `clip.*` and `decoder.*`."""
    key, path = "layers.{i}", "block_{i}"
    decoder = [
        *_film(),
        *linear_rules("reduces.{i}", "reduce_{i}"),
        *separate_attention_rules(f"{key}.self_attn", f"{path}/attn"),
        *linear_rules(f"{key}.mlp.fc1", f"{path}/mlp/fc1"),
        *linear_rules(f"{key}.mlp.fc2", f"{path}/mlp/fc2"),
        *norm_rules(f"{key}.layer_norm1", f"{path}/ln_1"),
        *norm_rules(f"{key}.layer_norm2", f"{path}/ln_2"),
        *_head("", model.get("refined", False), "transposed_convolution"),
    ]
    return prefixed(clip.huggingface_rules(), "clip.", "clip/") + prefixed(decoder, "decoder.", "decoder/")


def _infer_decoder(shapes, key, head):
    """Fields of `ClipSeg` that the decoder's shapes decide; which blocks are tapped is not among them."""
    blocks = {match[1] for name in shapes if (match := re.match(rf"{key}\.(\d+)\.", name))}
    fields = {
        "reduce_dim": shapes["film_mul.weight"][0],
        "refined": f"{head}.0.weight" in shapes,
        "mlp_dim": shapes[f"{key}.0.linear1.weight" if key == "blocks" else f"{key}.0.mlp.fc1.weight"][0],
    }
    return fields, len(blocks)


def _infer_timojl(shapes):
    fields, _ = _infer_decoder(shapes, "blocks", "trans_conv")
    towers = below(shapes, "clip_model.")
    if not towers:
        raise ValueError("this file holds CLIPSeg's decoder only; give the CLIP file that it was trained over as well")
    return fields | {"clip": clip.infer_openai(towers)}


def _infer_huggingface(shapes):
    fields, _ = _infer_decoder(below(shapes, "decoder."), "layers", "transposed_convolution")
    return fields | {"clip": clip.infer_huggingface(below(shapes, "clip."))}


def _huggingface_settings(settings):
    """Fields of `ClipSeg` that a config.json of transformers decides and shapes do not."""
    names = {"extract_layers": "extract_layers", "decoder_num_attention_heads": "num_heads", "conditional_layer": "cond_layer"}
    fields = {ours: settings[theirs] for theirs, ours in names.items() if theirs in settings}
    return fields | {"clip": clip.huggingface_settings(settings)}


def merge_files(state_dicts):
    """One state dict from several files: the authors' decoder file and the OpenAI CLIP file that it was trained over."""
    merged = {}
    for tensors in state_dicts:
        is_towers = clip.is_openai(tensors)
        merged |= {("clip_model." + key if is_towers else key): value for key, value in tensors.items()}
    return merged


FORMATS = (
    Format(
        "timojl",
        detect=lambda keys: "film_mul.weight" in keys,
        infer=_infer_timojl,
        rules=timojl_rules,
        ignore=timojl_ignore(),
        merge=merge_files,
    ),
    Format(
        "huggingface",
        detect=lambda keys: "decoder.film_mul.weight" in keys,
        infer=_infer_huggingface,
        rules=huggingface_rules,
        ignore=tuple((r"clip\." + pattern, why) for pattern, why in clip.HUGGINGFACE_IGNORE),
        settings=_huggingface_settings,
        free=("extract_layers",),  # the files say (3, 6, 9), and the weights were trained with (3, 7, 9)
    ),
)
