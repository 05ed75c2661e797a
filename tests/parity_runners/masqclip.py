"""MasQCLIP against the recorded activations of the published code, through the conversion rules."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg import weights as W
from jaxseg.encoders.resnet import weights as resnet
from jaxseg.losses.assignment import assign_labels
from jaxseg.losses.classes import class_weights, cross_entropy, weighted_cross_entropy
from jaxseg.nn.attention import MultiHeadAttention
from jaxseg.ops.resize import resize
from jaxseg.postprocess.class_scores import log_product_scores
from jaxseg.postprocess.instance import instances
from jaxseg.postprocess.original_size import crop_and_resize
from jaxseg.postprocess.panoptic import panoptic_segments
from jaxseg.postprocess.semantic import semantic_scores
from jaxseg.systems.masqclip import weights as masqclip_weights
from jaxseg.systems.masqclip.model import MasQClip, class_logits, unit, visible_tokens
from tests.parity_runners.clipseg_models import nchw, nhwc
from tests.parity_runners.mask2former import below, pixel_fields, query_fields, shapes_of
from tests.parity_runners.mask_results import instance_outputs, panoptic_outputs
from tests.parity_runners.registry import runner

TEXT = {"text_width": 16, "text_layers": 1, "text_heads": 2, "context_length": 8, "vocab_size": 32}  # not in the files


def clip_fields(config):
    return {
        "embed_dim": config["output_dim"],
        "image_size": config["input_resolution"],
        "patch_size": config["patch_size"],
        "vision_width": config["width"],
        "vision_layers": config["layers"],
        "vision_heads": config["heads"],
        "mask_projections": "q",
        **TEXT,
    }


def model_of(config, weights):
    pixel = below(weights, "sem_seg_head.pixel_decoder.")
    return MasQClip(
        backbone={"name": "resnet", **resnet.infer_detectron2(shapes_of(below(weights, "backbone.")))},
        head={
            "pixel": pixel_fields(config["pixel_decoder"], pixel),
            "query": query_fields(config["decoder"], below(weights, "sem_seg_head.predictor.")),
        },
        clip=clip_fields(config["clip_visual"]),
    )


TINY_PROPOSALS = {
    "backbone": {"name": "resnet", "num_blocks": (1, 1, 1, 1), "stem_dim": 8, "bottleneck_dim": 8, "res2_dim": 8},
    "head": {
        "pixel": {"hidden_dim": 32, "mask_dim": 32, "num_layers": 1, "num_heads": 2, "mlp_dim": 32},
        "query": {"num_outputs": 2, "num_queries": 2, "hidden_dim": 32, "mask_dim": 32, "num_layers": 1, "num_heads": 2},
    },
}


def load(model, weights, image, whole=True):
    """Parameters from a file without a text tower; of CLIP's image tower alone where the file has nothing else."""
    sizes, token_ids = jnp.full((len(image), 2), 32), jnp.zeros((1, TEXT["context_length"]), jnp.int32)
    target = jax.eval_shape(lambda: model.init(jax.random.key(0), image, sizes, token_ids))["params"]
    del target["clip"]["text"], target["clip"]["logit_scale"]
    if not whole:
        target = {name: target[name] for name in ("clip", "mask_embedding")}
    params = W.to_params(weights, masqclip_weights.released_rules(), target, masqclip_weights.IGNORE)
    params["clip"]["logit_scale"] = np.float32(0)  # the published classifier does not use it
    return params


def gradients(model, params, loss):
    """{published key: gradient} of what the third stage trains."""

    def is_trained(path):
        return path == "mask_embedding" or "/mask_q/" in path

    flat = W.flatten(params)
    trained = {path: x for path, x in flat.items() if is_trained(path)}
    value, grads = jax.jit(jax.value_and_grad(lambda trained: loss(W.unflatten(flat | trained))))(trained)
    return value, W.to_tensors(W.unflatten(grads), masqclip_weights.visual_rules())


@runner("masqclip/masq_visual")
def masq_visual(config, weights, inputs):
    image, masks, text = nhwc(inputs["image"]), jnp.asarray(inputs["masks"]), jnp.asarray(inputs["text_embeddings"])
    model = MasQClip(**TINY_PROPOSALS, clip=clip_fields(config))
    params = load(model, weights, image, whole=False)
    seen = {}

    def note(call, args, kwargs, context):
        result, module = call(*args, **kwargs), context.module
        name = "/".join(module.path)
        if isinstance(module, MultiHeadAttention) or module.name == "ln_pre" or (module.name or "").startswith("block_"):
            seen.setdefault(name, []).append(result)
        return result

    with nn.intercept_methods(note):
        embeddings = model.apply({"params": params}, image, masks, method="embed_masks")

    def joined(name):
        tokens, asking = seen[name][-1]
        return jnp.concatenate([asking, tokens], 1)

    visible = visible_tokens(masks, config["input_resolution"], config["patch_size"])
    ln_pre = seen["clip/visual/ln_pre"]
    tokens_of_image = ln_pre if ln_pre[0].shape[1] > ln_pre[1].shape[1] else ln_pre[::-1]
    out = {
        "pred_logits": class_logits(unit(embeddings), text),
        "mask_embedding_unnormalised": embeddings,
        "attn_mask_blocked": (~np.asarray(visible)).astype(np.uint8),
        "pooled_mask_logits": pooled(masks, config),
        "cls_embedding": model.apply({"params": params}, image, method=lambda m, x: m.towers.visual(m.clip_input(x)).embedding)[
            :, None
        ],
        "preprocessed_image": nchw(model.apply({"params": params}, image, method="clip_input")),
        "tokens_after_ln_pre": jnp.concatenate(tokens_of_image[::-1], 1),
        "block_0_attn_out": joined("clip/visual/block_0/attn"),
    }
    out |= {f"tokens_after_block_{i}": joined(f"clip/visual/block_{i}") for i in range(config["layers"])}

    def loss(params):
        logits = class_logits(unit(model.apply({"params": params}, image, masks, method="embed_masks")), text)
        return jnp.mean(cross_entropy(logits, jnp.zeros(logits.shape[:2], jnp.int32)))

    value, grads = gradients(model, params, loss)
    return out | {"loss_nll_class0": value} | {f"grad/{key.removeprefix('masqclip.')}": x for key, x in grads.items()}


def pooled(masks, config):
    """The largest logit of each patch, as the published code thresholds it."""
    side, patch = config["input_resolution"], config["patch_size"]
    pixels = jnp.moveaxis(resize(masks, (side, side)), 1, -1)
    return jnp.moveaxis(nn.max_pool(pixels, (patch, patch), (patch, patch)), -1, 1)


@runner("masqclip/masqclip_full")
def masqclip_full(config, weights, inputs):
    """Image by image, as the published code runs: padding to the multiple of a batch of one."""
    model, text = model_of(config, weights), unit(jnp.asarray(inputs["text_embeddings"]))
    multiple, out = config["size_divisibility"], {}
    for i, out_size in enumerate(config["out_sizes"]):
        image = nhwc(inputs[f"image_{i}"])
        size = image.shape[:2]
        grown = [(0, -side % multiple) for side in size]
        image, sizes = jnp.pad(image, (*grown, (0, 0)))[None], jnp.asarray([size])
        params = load(model, weights, image)
        found = model.apply({"params": params}, image, sizes, method="encode")
        logits = class_logits(found.embeddings, text)
        shapes = {"image_size": size, "original_size": tuple(out_size), "padded_size": image.shape[1:3]}
        out |= predictions(config, found, logits, shapes, i)
        out |= {
            "head_pred_logits": found.object_logits,
            "head_pred_masks": found.mask_logits,
            "clip_logits": logits,
            "padded_image": nchw(image),
        }
        out |= training(config, model, params, inputs, image, sizes, text, i)
    return out


def predictions(config, found, logits, shapes, i):
    image_size, original_size, padded_size = shapes["image_size"], shapes["original_size"], shapes["padded_size"]
    masks = crop_and_resize(found.mask_logits, image_size, original_size, padded_size=padded_size)[0]
    scores = jnp.exp(log_product_scores(logits, found.object_logits))[0]
    things = jnp.asarray(np.isin(np.arange(config["num_classes"]), config["things"]))
    limits = {"object_threshold": config["object_mask_threshold"], "overlap_threshold": config["overlap_threshold"]}
    panoptic = panoptic_segments(scores, jax.nn.sigmoid(masks), things, **limits)
    only = things if config.get("things") else None
    return {
        f"sem_seg_{i}": semantic_scores(scores, jax.nn.sigmoid(masks)),
        **panoptic_outputs(f"panoptic_{i}", panoptic),
        **instance_outputs(f"instances_{i}", instances(scores, masks, config["topk"], is_thing=only)),
    }


def training(config, model, params, inputs, image, sizes, text, i):
    """Labels, loss and gradients of one annotated image."""
    if f"gt_masks_{i}" not in inputs:
        return {}
    side, background = config["train_match_size"], config["num_classes"]
    names, masks = inputs[f"gt_classes_{i}"], inputs[f"gt_masks_{i}"]
    targets = {"labels": jnp.asarray(names, jnp.int32)[None], "masks": jnp.asarray(masks)[None]}
    targets["valid"] = jnp.ones(targets["labels"].shape, bool)
    proposals = model.apply({"params": params}, image, sizes, method="propose").final.mask_logits
    assignment = assign_labels(proposals, targets, size=(side, side), threshold=0.4, background=background)

    def loss(params):
        embeddings = model.apply({"params": params}, image, proposals, method="embed_masks")
        weights = class_weights(background, config["eos_coef"])
        total, count = weighted_cross_entropy(class_logits(unit(embeddings), text), assignment.labels, weights)
        return config["class_weight"] * total / count

    value, grads = gradients(model, params, loss)
    queries = np.flatnonzero(assignment.assigned[0])
    return {
        "train_loss_ce_weighted": value,
        f"train_src_{i}": queries,
        f"train_tgt_{i}": np.asarray(assignment.targets)[0][queries],
        **{f"train_grad/{key}": x for key, x in grads.items()},
    }
