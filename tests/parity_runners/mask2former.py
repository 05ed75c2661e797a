"""The Mask2Former core against the recorded activations of the published code, through the conversion rules."""

import re

import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.decoders import deformable_weights, pixel_weights, query_weights
from jaxseg.decoders.pixel import PixelDecoder
from jaxseg.decoders.query import QueryDecoder, visible_pixels
from jaxseg.encoders.resnet import weights as resnet_weights
from jaxseg.encoders.resnet.model import ResNet
from jaxseg.nn.deformable import ms_deform_attn
from jaxseg.nn.embeddings import sine_positions
from jaxseg.ops.resize import resize
from tests.parity_runners.clipseg_models import load, nchw, nhwc, recorded
from tests.parity_runners.registry import runner

STRIDES = {"res2": 4, "res3": 8, "res4": 16, "res5": 32}


def below(weights, prefix):
    """The part of a state dict below a prefix, without it; all of it where no key has the prefix."""
    inside = {key.removeprefix(prefix): value for key, value in weights.items() if key.startswith(prefix)}
    return inside or dict(weights)


def shapes_of(weights):
    return {key: value.shape for key, value in weights.items()}


@runner("masqclip/m2f_resnet50")
def resnet50(config, weights, inputs):
    weights, image = below(weights, "backbone."), nhwc(inputs["image"])
    fields = resnet_weights.infer_detectron2(shapes_of(weights))
    names = ("stem", *(f"res{i + 2}" for i in range(len(fields["num_blocks"]))))
    settings = {"stride_in_1x1": config.get("stride_in_1x1", False), "epsilon": config.get("bn_eps", 1e-5)}
    model = ResNet(**fields, **settings, outputs=names)
    params = load(model, resnet_weights.detectron2_rules(), weights, image, ignore=resnet_weights.DETECTRON2_IGNORE)
    return {name: nchw(x) for name, x in model.apply({"params": params}, image).items()}


@runner("masqclip/m2f_sine_pe")
def sine_pe(config, weights, inputs):
    settings = {name: config[name] for name in ("temperature", "normalize", "scale") if config.get(name) is not None}
    size = tuple(int(n) for n in inputs["hw"])
    return {"pos": nchw(sine_positions(size, config["num_pos_feats"], **settings))}


@runner("masqclip/m2f_msdeformattn_core")
def msdeformattn_core(config, weights, inputs):
    shapes = inputs["spatial_shapes"].tolist()
    arrays = (jnp.asarray(inputs[name]) for name in ("value", "sampling_locations", "attention_weights"))
    value, locations, attention_weights = arrays
    return {"out": ms_deform_attn(value, shapes, locations, attention_weights)}


def pixel_fields(config, weights):
    """Fields of `PixelDecoder` from the published constructor's arguments, sizes from the state dict."""
    levels = config.get("transformer_in_features") or ["res3", "res4", "res5"]
    levels = tuple(sorted(levels, key=STRIDES.get, reverse=True))
    num_laterals = sum(re.fullmatch(r"adapter_\d+\.weight", key) is not None for key in weights)
    shapes = shapes_of(weights)
    heads = config.get("nheads", 8)
    return {
        **pixel_weights.infer_pixel_decoder(shapes),
        "levels": levels,
        "laterals": tuple(f"res{k + 1}" for k in range(num_laterals, 0, -1)),
        "num_heads": heads,
        "num_points": deformable_weights.num_encoder_points(shapes, heads, len(levels)),
        "num_maps": min(3, len(levels) + num_laterals),
        "num_groups": config.get("gn_groups", 32),
    }


@runner("masqclip/m2f_pixel_decoder")
def pixel_decoder(config, weights, inputs):
    weights = below(weights, "sem_seg_head.pixel_decoder.")
    features = {name: nhwc(x) for name, x in inputs.items()}
    model = PixelDecoder(**pixel_fields(config, weights))
    params = load(model, pixel_weights.pixel_decoder_rules(model.upsample_masks), weights, features)
    (mask_features, memory), seen = recorded(model, params, "__call__", features)
    out = {"mask_features": nchw(mask_features)} | {f"multi_scale_{i}": nchw(x) for i, x in enumerate(memory)}
    for i in range(model.num_layers):
        out |= {
            f"encoder_layer_{i}": seen[f"encoder/block_{i}"],
            f"encoder_layer_{i}_self_attn": seen[f"encoder/block_{i}/attn"],
        }
    return out


def query_fields(config, weights):
    """Fields of `QueryDecoder` from the published constructor's arguments, sizes from the state dict."""
    settings = {"num_heads": config.get("heads", 8), "pre_norm": config.get("pre_norm", False)}
    return query_weights.infer_query_decoder(shapes_of(weights)) | settings


@runner("masqclip/m2f_masked_decoder")
def masked_decoder(config, weights, inputs):
    weights = below(weights, "sem_seg_head.predictor.")
    mask_features = nhwc(inputs["mask_features"])
    memory = tuple(nhwc(inputs[f"multi_scale_{i}"]) for i in range(sum(name.startswith("multi_scale") for name in inputs)))
    model = QueryDecoder(**query_fields(config, weights))
    params = load(model, query_weights.query_decoder_rules(), weights, memory, mask_features)
    heads = []

    def note(call, args, kwargs, context):
        result = call(*args, **kwargs)
        if context.module.name == "head" and context.method_name == "__call__":
            heads.append((args[0], result[1]))
        return result

    with nn.intercept_methods(note):
        output = model.apply({"params": params}, memory, mask_features)
    out = {"pred_logits": output.final.class_logits, "pred_masks": output.final.mask_logits}
    for i, prediction in enumerate(output.aux):
        out |= {f"aux_{i}_pred_logits": prediction.class_logits, f"aux_{i}_pred_masks": prediction.mask_logits}
    for i, (queries, embeddings) in enumerate(heads):
        seen = visible_pixels(embeddings, resize(mask_features, memory[i % len(memory)].shape[1:3], axes=(1, 2)))
        out |= {f"queries_{i}": queries, f"attn_mask_{i}": (~np.asarray(seen)).astype(np.uint8)}
    return out
