"""Mask2Former and Swin against recorded numbers of transformers' own models, through the conversion rules."""

import jax.numpy as jnp

from jaxseg.conversion.model_match import merged
from jaxseg.encoders.swin import weights as swin_weights
from jaxseg.encoders.swin.model import Swin
from jaxseg.systems.mask2former import huggingface
from jaxseg.systems.mask2former.model import Mask2Former
from tests.parity_runners.clipseg_models import load, nchw, nhwc, recorded
from tests.parity_runners.mask2former import shapes_of
from tests.parity_runners.registry import runner


@runner("mask2former/swin")
def swin(config, weights, inputs):
    fields = merged(swin_weights.infer_huggingface(shapes_of(weights)), swin_weights.huggingface_settings(config))
    model, out = Swin(**fields, outputs=tuple(f"res{i + 2}" for i in range(len(fields["depths"])))), {}
    ignore = swin_weights.HUGGINGFACE_IGNORE
    for name, image in inputs.items():
        params = load(model, swin_weights.huggingface_rules(), weights, nhwc(image), ignore=ignore)
        maps = model.apply({"params": params}, nhwc(image))
        out |= {f"{key}{name.removeprefix('image')}": nchw(x) for key, x in maps.items()}
    return out


@runner("mask2former/hf_mask2former")
def hf_mask2former(config, weights, inputs):
    layout = huggingface.FORMAT
    model = Mask2Former(**merged(layout.infer(shapes_of(weights)), layout.settings(config)))
    image, sizes = nhwc(inputs["image"]), jnp.asarray(inputs["image_size"], jnp.int32)
    params = load(model, layout.rules({}), weights, image, sizes, ignore=layout.ignore)
    output, seen = recorded(model, params, "__call__", image, sizes)
    features, pixel = seen["backbone"], seen["head/pixel"]
    out = {f"encoder_hidden_states_{i}": nchw(features[name]) for i, name in enumerate(sorted(features))}
    out |= {f"pixel_decoder_hidden_states_{i}": nchw(x) for i, x in enumerate(pixel.memory)}
    out["pixel_decoder_last_hidden_state"] = nchw(pixel.mask_features)
    predictions = {"": output.final} | {f"aux_{i}_": prediction for i, prediction in enumerate(output.aux)}
    for prefix, prediction in predictions.items():
        out[f"{prefix}class_queries_logits"] = prediction.class_logits
        out[f"{prefix}masks_queries_logits"] = prediction.mask_logits
    return out
