"""Where MasQCLIP's released tensors go: detectron2's names of the proposals, OpenAI's of CLIP with one more projection."""

from jaxseg.decoders.mask_former_weights import infer_mask_former, mask_former_rules
from jaxseg.encoders.clip import weights as clip
from jaxseg.encoders.resnet import weights as resnet
from jaxseg.weights import Format, Rule, below, linear_rules, prefixed

PREFIX = "masqclip."
IGNORE = (
    ("criterion.empty_weight", "class weights of the loss, of a size that the config decides"),
    *((r"backbone\." + pattern, why) for pattern, why in resnet.DETECTRON2_IGNORE),
    *((r"clip_model\." + pattern, why) for pattern, why in clip.OPENAI_IGNORE),
    (r"clip_model\.visual\..*", "the image tower is in MasQCLIP's own file"),
)


def visual_rules():
    """`masqclip.visual.*` and `masqclip.mask_embeddings`; text is not in the file."""
    tower = [rule for rule in clip.openai_rules(1) if rule.key.startswith("visual.")]
    own = linear_rules("visual.transformer.resblocks.{i}.attn.new_q_proj", "visual/block_{i}/attn/mask_q")
    return [Rule(f"{PREFIX}mask_embeddings", "mask_embedding"), *prefixed([*own, *tower], PREFIX, "clip/")]


def released_rules(model=None):
    """MaskFormer's keys, `masqclip.*`, and below `clip_model.` the text tower of the CLIP file that it was trained over."""
    del model
    proposals = [
        *prefixed(resnet.detectron2_rules(), "backbone.", "backbone/"),
        *prefixed(mask_former_rules(), "sem_seg_head.", "head/"),
    ]
    text = [rule for rule in clip.openai_rules(1) if not rule.key.startswith("visual.")]
    return [*proposals, *visual_rules(), *prefixed(text, "clip_model.", "clip/")]


def merge_files(state_dicts):
    """One state dict from MasQCLIP's file and the OpenAI CLIP file whose text tower it uses."""
    merged = {}
    for tensors in state_dicts:
        prefix = "clip_model." if clip.is_openai(tensors) else ""
        merged |= {prefix + key: value for key, value in tensors.items()}
    return merged


def _infer(shapes):
    text = below(shapes, "clip_model.")
    if not text:
        raise ValueError("MasQCLIP's file holds no text tower; give the CLIP file that it was trained over as well")
    visual = {f"visual.{key}": shape for key, shape in below(shapes, f"{PREFIX}visual.").items()}
    towers = {key: shape for key, shape in text.items() if not key.startswith("visual.")} | visual
    return {
        "backbone": {"name": "resnet", **resnet.infer_detectron2(below(shapes, "backbone."))},
        "head": infer_mask_former(below(shapes, "sem_seg_head.")),
        "clip": clip.infer_openai(towers) | {"mask_projections": "q"},
    }


FORMATS = (
    Format(
        "masqclip",
        detect=lambda keys: f"{PREFIX}mask_embeddings" in keys,
        infer=_infer,
        rules=released_rules,
        ignore=IGNORE,
        merge=merge_files,
    ),
)
