"""CLIP and CLIPSeg against the recorded activations of the published code, through the conversion rules."""

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg import weights as W
from jaxseg.encoders.clip import weights as clip_weights
from jaxseg.encoders.clip.model import Clip
from jaxseg.encoders.clip.vit import attention_multiplier
from jaxseg.losses.contrastive import symmetric_cross_entropy
from jaxseg.losses.masks import binary_cross_entropy
from jaxseg.systems.clipseg import weights as clipseg_weights
from jaxseg.systems.clipseg.model import ClipSeg
from jaxseg.text.prompts import blend_weights
from tests.parity_runners.registry import runner


def nhwc(x):
    return jnp.moveaxis(jnp.asarray(x), -3, -1)


def nchw(x):
    return np.moveaxis(np.asarray(x), -1, -3)


def load(model, rules, weights, *inputs, ignore=()):
    """Parameters of a model from a state dict, through `to_params`."""
    target = jax.eval_shape(lambda: model.init(jax.random.key(0), *inputs))["params"]
    return W.to_params(weights, rules, target, ignore)


def clip_fields(config):
    layers = config["vl"]
    return {
        "embed_dim": config["embed_dim"],
        "image_size": config["res"],
        "patch_size": config.get("patch", 0),
        "vision_width": config["vw"],
        "vision_layers": layers if isinstance(layers, int) else tuple(layers),
        "vision_heads": config.get("vh", 0) or config.get("heads", 0),
        "text_width": config["tw"],
        "text_layers": config["tl"],
        "text_heads": config["th"],
        "context_length": config["ctx"],
        "vocab_size": config["vocab"],
        # Old Hugging Face configs say 2 where the largest id is meant.
        "eos_token": config["eos"] if config.get("eos", 2) != 2 else -1,
    }


def recorded(model, params, method, *args, **kwargs):
    """The result of a method, and `{module path: first output}` of every module that it called."""
    outputs = {}

    def note(call, args, kwargs, context):
        result = call(*args, **kwargs)
        outputs["/".join(context.module.path)] = result
        return result

    with nn.intercept_methods(note):
        result = model.apply({"params": params}, *args, method=method, **kwargs)
    return result, outputs


def clip_logits(model, params, image, token_ids):
    logits = model.apply({"params": params}, image, token_ids)
    return {"logits_per_image": logits, "logits_per_text": logits.T}


@runner("clipseg/clip_vit")
def clip_vit(config, weights, inputs):
    image, token_ids = nhwc(inputs["image"]), jnp.asarray(inputs["token_ids"])
    model = Clip(**clip_fields(config))
    params = load(model, clip_weights.openai_rules(1), weights, image, token_ids, ignore=clip_weights.OPENAI_IGNORE)
    return {**clip_activations(model, params, image, token_ids), **clip_logits(model, params, image, token_ids)}


def clip_activations(model, params, image, token_ids):
    image_features, seen = recorded(model, params, "encode_image", image)
    text_features, seen_text = recorded(model, params, "encode_text", token_ids)
    patches, grid = model.apply({"params": params}, image, method=lambda m, x: m.visual.patchify(x))
    out = {
        "patch_conv": nchw(patches.reshape(len(image), *grid, -1)),
        "ln_pre": seen["visual/ln_pre"],
        "ln_final": seen_text["text/ln_final"],
        "image_features": image_features,
        "text_features": text_features,
    }
    visual = params["visual"]
    first = jnp.broadcast_to(visual["class_embedding"], (len(image), 1, patches.shape[-1]))
    positions = model.apply({"params": params}, grid, method=lambda m, g: m.visual.positions(g))
    out["visual_embed"] = jnp.concatenate([first, patches], 1) + positions[None]
    out |= {f"visual_block_{i}": seen[f"visual/block_{i}"] for i in range(model.vision_layers)}
    return out | {f"text_block_{i}": seen_text[f"text/block_{i}"] for i in range(model.text_layers)}


@runner("clipseg/clip_vit_inferred")
def clip_vit_inferred(config, weights, inputs):
    image, token_ids = nhwc(inputs["image"]), jnp.asarray(inputs["token_ids"])
    fields = clip_weights.infer_openai({k: v.shape for k, v in weights.items()})
    expected = config["inferred"]
    found = {
        "vision_layers": fields["vision_layers"],
        "text_layers": fields["text_layers"],
        "patch": fields["patch_size"],
        "input_resolution": fields["image_size"],
        "embed_dim": fields["embed_dim"],
        "context_length": fields["context_length"],
        "vocab_size": fields["vocab_size"],
        "vision_heads": fields["vision_width"] // 64,
        "text_heads": fields["text_width"] // 64,
    }
    assert found == expected, f"inferred {found}, recorded {expected}"
    model = Clip(**fields)
    rules = clip_weights.openai_rules(fields["patch_size"])
    params = load(model, rules, weights, image, token_ids, ignore=clip_weights.OPENAI_IGNORE)
    return {**clip_activations(model, params, image, token_ids), **clip_logits(model, params, image, token_ids)}


@runner("clipseg/clip_resnet")
def clip_resnet(config, weights, inputs):
    image, token_ids = nhwc(inputs["image"]), jnp.asarray(inputs["token_ids"])
    model = Clip(**clip_fields(config))
    params = load(model, clip_weights.openai_rules(0), weights, image, token_ids, ignore=clip_weights.OPENAI_IGNORE)
    features, pooled = model.apply({"params": params}, image, method=lambda m, x: m.visual(x))
    out = {name: nchw(x) for name, x in features.items()} | {"attnpool": pooled}
    out["image_features"] = model.apply({"params": params}, image, method="encode_image")
    out["text_features"] = model.apply({"params": params}, token_ids, method="encode_text")
    return out | clip_logits(model, params, image, token_ids)


def clipseg_fields(config, towers):
    """Fields of `ClipSeg` from the published constructor's arguments."""
    model = config["model"]
    # A published tap of block 0 is recorded, split off and never decoded.
    taps = tuple(sorted(i for i in model["extract_layers"] if i > 0))
    return {
        "clip": towers,
        "extract_layers": taps,
        "reduce_dim": model["reduce_dim"],
        "num_heads": model.get("n_heads", 4),
        "mlp_dim": model["ff"],
        "cond_layer": model.get("cond_layer", 0),
        "extra_blocks": model.get("extra_blocks", 0),
        "reduce_cond": model.get("reduce_cond") or 0,
        "shallow_first": model.get("rev_activations", False),
        "refined": model.get("complex_trans_conv", False),
        "num_tokens": model.get("n_tokens") or 0,
        "head_patch": model.get("trans_conv") or 0,
    }


def timojl(config, weights, image, token_ids):
    """The model and its parameters from the authors' names."""
    model = ClipSeg(**clipseg_fields(config, clip_fields(config["clip"])))
    fields = {"clip": model.clip, "refined": model.refined}
    ignore = clipseg_weights.timojl_ignore(config["model"]["extract_layers"])
    return model, load(model, clipseg_weights.timojl_rules(fields), weights, image, token_ids, ignore=ignore)


def published_taps(model, params, image, taps):
    """Activations as recorded: (tokens, batch, width), block 0 first, and the projected class token."""

    def run(module, x):
        return module.towers.visual(x, taps=taps, num_tokens=model.num_tokens)

    return model.apply({"params": params}, image, method=run)


@runner("clipseg/densepred")
def densepred(config, weights, inputs):
    image, token_ids = nhwc(inputs["image"]), jnp.asarray(inputs["token_ids"])
    model, params = timojl(config, weights, image, token_ids)
    taps = (0, *model.extract_layers)
    vision = published_taps(model, params, image, taps)
    cond = model.apply({"params": params}, token_ids, method="encode_text")
    cond = jnp.broadcast_to(cond, (len(image), cond.shape[-1]))
    features = model.apply({"params": params}, image, method="encode_image")
    blocks = {}

    def note(call, args, kwargs, context):
        result = call(*args, **kwargs)
        name = context.module.name or ""
        if context.method_name == "__call__" and name.startswith(("block_", "extra_block_")):
            index = int(name.rsplit("_", 1)[1]) + (model_steps if name.startswith("extra") else 0)
            blocks[f"block_{index}_in"], blocks[f"block_{index}_out"] = args[0], result
        return result

    model_steps = len(model.extract_layers)
    with nn.intercept_methods(note):
        logits = model.apply({"params": params}, features, cond[:, None], method="decode")
    positions = model.apply({"params": params}, vision.grid, method=lambda m, g: m.towers.visual.positions(g))
    after = cond
    if model.reduce_cond and model.cond_layer < model_steps:
        after = model.apply({"params": params}, cond, method=lambda m, c: m.decoder.reduce_condition(c))
    out = {
        "logits": logits,
        "visual_q": vision.embedding,
        "cond": cond,
        "cond_after": after,
        "pos_emb_rescaled": positions,
    }
    out |= {f"activation_{n}": vision.activations[i].swapaxes(0, 1) for n, i in enumerate(taps)}
    return out | {name: x.swapaxes(0, 1) for name, x in blocks.items()}


@runner("clipseg/visual_mix")
def visual_mix(config, weights, inputs):
    image, token_ids = nhwc(inputs["image"]), jnp.asarray(inputs["token_ids"])
    prompt = nhwc(inputs["prompt_image"])
    model, params = timojl(config, weights, image, token_ids)
    text = model.apply({"params": params}, token_ids, method="encode_text")
    visual = model.apply({"params": params}, prompt, method="encode_prompt_image")
    weight = blend_weights(inputs["text_weight"], inputs["visual_is_valid"])[:, None]
    mix = weight * text + (1 - weight) * visual
    features = model.apply({"params": params}, image, method="encode_image")

    def logits(cond):
        return model.apply({"params": params}, features, cond[:, None], method="decode")

    return {
        "cond_text": text,
        "cond_visual": visual,
        "cond_visual_direct": visual,
        "text_weights_after_validity": weight,
        "cond_mix": mix,
        "logits_visual": logits(visual),
        "logits_mix": logits(mix),
    }


@runner("clipseg/densepred_masked")
def densepred_masked(config, weights, inputs):
    image, token_ids = nhwc(inputs["image"]), jnp.asarray(inputs["token_ids"])
    prompt, mask = nhwc(inputs["prompt_image"]), jnp.asarray(inputs["prompt_mask"])
    model, params = timojl(config, weights, image, token_ids)
    last, heads, num_layers = config["last_layer"], model.clip["vision_heads"], model.clip["vision_layers"]
    taps = tuple(model.extract_layers)

    def attend(prompt, mask, layers, kind, published=True):
        grid = tuple(side // model.clip["patch_size"] for side in prompt.shape[1:3])
        factors = attention_multiplier(mask, grid, heads, kind=kind, published_tiling=published)

        def run(module, x):
            return module.towers.visual(x, taps=taps, multiplier=dict.fromkeys(layers, factors))

        return model.apply({"params": params}, prompt, method=run, mutable=["intermediates"])

    out = {}
    kinds = {
        "all_cls": (range(num_layers), "cls_token"),
        "last_cls": ((last,), "cls_token"),
        "all_all": (range(num_layers), "all"),
        "mid_all": ((1,), "all"),
    }
    for name, (layers, kind) in kinds.items():
        vision, sown = attend(prompt, mask, layers, kind)
        weights_0 = sown["intermediates"]["clip"]["visual"]["block_0"]["attn"]["weights"][0]
        out[f"feat_{name}"] = vision.embedding
        out[f"act_last_{name}"] = vision.activations[taps[-1]].swapaxes(0, 1)
        out[f"attn0_{name}"] = weights_0.reshape(-1, *weights_0.shape[2:])
    one_by_one = [attend(prompt[i : i + 1], mask[i : i + 1], range(num_layers), "cls_token") for i in range(len(prompt))]
    out["feat_all_cls_one_by_one"] = jnp.concatenate([vision.embedding for vision, _ in one_by_one])
    features = model.apply({"params": params}, image, method="encode_image")
    text = model.apply({"params": params}, token_ids, method="encode_text")
    out["cond"] = out["feat_all_cls"]
    for name, cond in (("logits", out["cond"]), ("logits_text", text)):
        out[name] = model.apply({"params": params}, features, cond[:, None], method="decode")
    repaired, _ = attend(prompt, mask, range(num_layers), "cls_token", published=False)
    np.testing.assert_allclose(repaired.embedding, out["feat_all_cls_one_by_one"], rtol=1e-4, atol=1e-5)
    return out


@runner("clipseg/hf_clipseg")
def hf_clipseg(config, weights, inputs):
    image, token_ids = nhwc(inputs["image"]), jnp.asarray(inputs["token_ids"])
    model = ClipSeg(**clipseg_fields({"model": config["seg"]}, clip_fields(config["clip"])))
    fields = {"clip": model.clip, "refined": model.refined}
    ignore = clipseg_weights.FORMATS[1].ignore
    params = load(model, clipseg_weights.huggingface_rules(fields), weights, image, token_ids, ignore=ignore)

    def run(method, *args):
        return model.apply({"params": params}, *args, method=method)

    text, visual = run("encode_text", token_ids), run("encode_prompt_image", nhwc(inputs["prompt_image"]))
    features = run("encode_image", image)

    def logits(cond):
        return run("decode", features, cond[:, None])[:, 0]

    vision = published_taps(model, params, image, tuple(range(model.clip["vision_layers"])))
    loss_sum, count = binary_cross_entropy(logits(text), inputs["labels"], jnp.ones_like(inputs["labels"]))
    clip = Clip(**model.clip)
    pairs = clip.apply({"params": params["clip"]}, image, token_ids)
    image_unit = vision.embedding / jnp.linalg.norm(vision.embedding, axis=-1, keepdims=True)
    text_unit = text / jnp.linalg.norm(text, axis=-1, keepdims=True)
    scale = jnp.exp(params["clip"]["logit_scale"])
    contrastive_sum, _, pair_count = symmetric_cross_entropy(vision.embedding, text, scale)
    return {
        "logits": logits(text),
        "logits_no_attention_mask": logits(text),
        "logits_visual": logits(visual),
        "logits_flipped_cond": logits(text[::-1]),
        "cond_text": text,
        "cond_visual": visual,
        "pooled": vision.embedding,
        "loss": loss_sum / count,
        "image_features_nonsquare": run("encode_prompt_image", nhwc(inputs["image_nonsquare"])),
        "clip_logits_per_image": pairs,
        "clip_contrastive_loss": contrastive_sum / pair_count,
        "clip_image_embeds": image_unit,
        "clip_text_embeds": text_unit,
        "hidden_first": run(lambda m, x: m.towers.visual.embed(x)[0], image),
        "hidden_last": vision.tokens,
    }


@runner("clipseg/three_formats", groups=True)
def three_formats(config, groups, inputs):
    image, token_ids = nhwc(inputs["image"]), jnp.asarray(inputs["token_ids"])
    merged = clipseg_weights.merge_files([groups["weights"], groups["weights_openai"]])
    model, params = timojl(config, merged, image, token_ids)
    fields = {"clip": model.clip, "refined": model.refined}
    ignore = clipseg_weights.FORMATS[1].ignore
    theirs = load(model, clipseg_weights.huggingface_rules(fields), groups["weights_hf"], image, token_ids, ignore=ignore)
    jax.tree.map(np.testing.assert_array_equal, params, theirs)
    cond = model.apply({"params": params}, token_ids, method="encode_text")
    features = model.apply({"params": params}, image, method="encode_image")
    logits = model.apply({"params": params}, features, cond[:, None], method="decode")
    from_hf = model.apply({"params": theirs}, features, cond[:, None], method="decode")
    return {"logits": logits, "logits_hf": from_hf[:, 0]}
