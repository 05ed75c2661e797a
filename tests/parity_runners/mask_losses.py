"""Resampling, matching, mask losses and their targets against what the published code computed."""

import json

import jax
import jax.numpy as jnp
import numpy as np
from flax import linen as nn

from jaxseg.losses.assignment import assign_labels
from jaxseg.losses.classes import class_weights, weighted_cross_entropy
from jaxseg.losses.criterion import PointMasks, SetCriterion, SoftmaxClasses
from jaxseg.losses.distillation import Distillation
from jaxseg.ops import boxes
from jaxseg.ops import masks as M
from jaxseg.ops.resize import resize
from jaxseg.ops.sampling import sample_points, uncertain_points
from jaxseg.preprocess import objects
from jaxseg.result import Result
from tests.parity_runners.registry import runner


def padded_targets(inputs, num_images, labels="labels_{}", masks="masks_{}"):
    """Annotated masks of all images with the slots of the fullest, and one more: padding must not matter."""
    found = [(inputs[labels.format(i)], inputs[masks.format(i)]) for i in range(num_images)]
    slots, height, width = np.max([x.shape for _, x in found], 0) + [1, 0, 0]
    out = {"labels": [], "masks": [], "valid": []}
    for names, pixels in found:
        # Pictures are padded right and below with 0; what unused slots hold must not matter.
        canvas = np.ones((slots, height, width), pixels.dtype)
        canvas[: len(pixels)] = 0
        canvas[: len(pixels), : pixels.shape[1], : pixels.shape[2]] = pixels
        out["labels"].append(np.pad(names, (0, slots - len(names))).astype(np.int32))
        out["masks"].append(canvas)
        out["valid"].append(np.arange(slots) < len(names))
    return {name: jnp.asarray(np.stack(x)) for name, x in out.items()}


def recorded(inputs, name, shape):
    """Recorded points of one picture; none were drawn where there was nothing to compare."""
    return jnp.asarray(inputs.get(name, np.zeros(shape, np.float32))).reshape(shape)


def replay(inputs, targets, num_queries, names):
    """A draw that repeats recorded points; those of matched masks were drawn for all images in one go.

    `names`: {"layer/": prefix of the recorded names}.
    """
    counts = np.minimum(np.asarray(targets["valid"]).sum(1), num_queries)

    def draw(name, shape):
        layer, _, kind = name.rpartition("/")
        prefix = names[layer]
        if kind == "matcher":
            return jnp.stack([recorded(inputs, f"{prefix}{kind}_{i}", shape[1:]) for i in range(shape[0])])
        out, start = np.zeros(shape, np.float32), 0
        for i, count in enumerate(counts):
            out[i, :count] = inputs[f"{prefix}{kind}"][start : start + count] if count else 0
            start += count
        return jnp.asarray(out)

    return draw


def pair_outputs(pairs, name):
    """The matched queries and targets of each image."""
    out = {}
    for i, valid in enumerate(np.asarray(pairs.valid)):
        out[name.format("src", i)] = np.asarray(pairs.queries)[i][valid]
        out[name.format("tgt", i)] = np.asarray(pairs.targets)[i][valid]
    return out


def outputs_of(inputs, prefix=""):
    return {ours: jnp.asarray(inputs[f"{prefix}pred_{theirs}"]) for ours, theirs in OUTPUTS.items()}


OUTPUTS = {"class_logits": "logits", "mask_logits": "masks"}
LOSSES = {"class": "ce", "mask": "mask", "dice": "dice"}


@runner("masqclip/torch_resampling")
def torch_resampling(config, weights, inputs):
    x, out = jnp.asarray(inputs["x"]), {}
    for size in config["sizes"]:
        for method in ("bilinear", "bicubic", "nearest"):
            out[f"{method}_{size[0]}x{size[1]}"] = resize(x, size, method=method)
    pooled = nn.max_pool(jnp.moveaxis(x, 1, -1), (3, 3), (2, 2), ((1, 1), (1, 1)))
    points = uncertain_points(
        jnp.asarray(inputs["mask_logits"])[:, 0],
        config["num_points"],
        lambda name, shape: jnp.asarray(inputs[f"{name}_points"]).reshape(shape),
        oversample_ratio=config["oversample_ratio"],
        importance_ratio=config["importance_sample_ratio"],
    )
    return out | {
        "maxpool_3s2p1": jnp.moveaxis(pooled, -1, 1),
        "point_sample": sample_points(x, jnp.asarray(inputs["points"])),
        "uncertain_points": points,
    }


@runner("masqclip/m2f_matcher")
def m2f_matcher(config, weights, inputs):
    outputs = outputs_of(inputs)
    num_images, num_queries, _ = outputs["class_logits"].shape
    targets = padded_targets(inputs, num_images)
    cost_weights = {name: config[f"cost_{name}"] for name in LOSSES}
    criterion = SetCriterion((SoftmaxClasses(), PointMasks(config["num_points"])), cost_weights, dict.fromkeys(LOSSES, 1.0))
    renamed = {name.replace("points_", "matcher_"): x for name, x in inputs.items()}
    draw = replay(renamed, targets, num_queries, {"": "", "final": ""})
    total, named = criterion.costs(outputs, targets, draw)
    pairs = jax.jit(lambda outputs: criterion.match({"final": outputs}, targets, draw))(outputs)["final"]
    out = pair_outputs(pairs, "{}_{}")
    for i, valid in enumerate(np.asarray(targets["valid"])):
        costs = {"cost": total, **{f"cost_{name}": cost for name, cost in named.items()}}
        out |= {f"{name}_{i}": np.asarray(cost)[i][:, valid] for name, cost in costs.items()}
    return out


@runner("masqclip/m2f_criterion")
def m2f_criterion(config, weights, inputs):
    prefixes = {"final": "", **{f"aux_{i}": f"aux_{i}_" for i in range(config["num_aux"])}}
    layers = {layer: outputs_of(inputs, prefix) for layer, prefix in prefixes.items()}
    num_images, num_queries, _ = layers["final"]["class_logits"].shape
    targets = padded_targets(inputs, num_images)
    draw = replay(inputs, targets, num_queries, {layer: f"points_{layer}_" for layer in layers})
    loss_weights = {name: config["weights"][f"loss_{theirs}"] for name, theirs in LOSSES.items()}
    masks = PointMasks(config["num_points"], config["oversample_ratio"], config["importance_sample_ratio"])
    criterion = SetCriterion((SoftmaxClasses(config["eos_coef"]), masks), loss_weights, loss_weights)

    def loss(layers):
        terms, pairs = criterion(layers, targets, draw)
        means = {name: total / jnp.maximum(count, 1e-12) for name, (total, count, _) in terms.items()}
        return sum(weight * means[name] for name, (*_, weight) in terms.items()), (means, pairs)

    (total, (means, pairs)), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(layers)
    out = {"total_weighted": total}
    for layer, prefix in prefixes.items():
        suffix = prefix.removeprefix("aux").removesuffix("_")
        out |= {f"loss_{theirs}{suffix}": means[f"{layer}/{name}"] for name, theirs in LOSSES.items()}
        out |= {f"grad_{prefix}pred_{theirs}": grads[layer][ours] for ours, theirs in OUTPUTS.items()}
        out |= pair_outputs(pairs[layer], f"{layer}_{{}}_{{}}")
    return out


@runner("masqclip/distill_targets")
def distill_targets(config, weights, inputs):
    targets = padded_targets({"labels_0": inputs["gt_classes"], "masks_0": inputs["gt_masks"]}, 1)
    distillation = Distillation(config["score_threshold"], config["dice_threshold"], config["num_points"])
    scores, masks = inputs["pred_scores"], inputs["pred_masks"]
    found = jax.jit(distillation, static_argnums=3)(
        jnp.asarray(scores)[None],
        jnp.asarray(masks)[None],
        targets,
        lambda name, shape: recorded(inputs, f"points_{name}", shape),
    )
    first = np.array([next(i for i, other in enumerate(masks) if np.array_equal(mask, other)) for mask in masks], int)
    order, valid = np.asarray(found.order[0]), np.asarray(found.targets["valid"][0])
    num_annotated = len(inputs["gt_masks"])
    return {
        "kept_before_nms": first[np.asarray(found.candidate[0])],
        "kept_pred_indices": first[order[np.asarray(found.kept[0])[order]]],
        "gt_classes": np.asarray(found.targets["labels"][0])[valid].astype(np.int64),
        "gt_masks": np.asarray(found.targets["masks"][0])[valid],
        "dice_with_gt": np.asarray(found.dice[0])[scores > config["score_threshold"], :num_annotated],
    }


@runner("masqclip/masq_label_assign_loss")
def masq_label_assign_loss(config, weights, inputs):
    logits, masks = jnp.asarray(inputs["clip_logits"]), jnp.asarray(inputs["pred_masks"])
    size = (config["target_size"],) * 2
    # Each picture's own masks, which are not padded first; resizing them again changes nothing.
    resized = {f"masks_{i}": np.asarray(resize(inputs[f"masks_{i}"], size, method="nearest")) for i in range(len(logits))}
    targets = padded_targets(inputs | resized, len(logits))
    found = assign_labels(masks, targets, size=size, threshold=config["dice_cost_threshold"], background=config["num_classes"])

    def loss(logits):
        class_weight = class_weights(config["num_classes"], config["eos_coef"])
        total, count = weighted_cross_entropy(logits, found.labels, class_weight)
        return config["class_weight"] * total / count, total / count

    (weighted, plain), grad = jax.jit(jax.value_and_grad(loss, has_aux=True))(logits)
    out = {"loss_ce": plain, "loss_weighted": weighted, "grad_clip_logits": grad, "pred_masks_resized": resize(masks, size)}
    for i, valid in enumerate(np.asarray(targets["valid"])):
        assigned = np.asarray(found.assigned)[i]
        out[f"resized_gt_{i}"] = resized[f"masks_{i}"].astype(np.uint8)
        out[f"src_{i}"], out[f"tgt_{i}"] = np.flatnonzero(assigned), np.asarray(found.targets)[i, assigned]
        out[f"dice_cost_{i}"] = np.asarray(found.costs)[i][:, valid]
    return out


@runner("dataeval/mask_ops")
def mask_ops(config, weights, inputs):
    size = tuple(int(n) for n in inputs["size"])
    polygons = json.loads(str(inputs["polygons"]))
    annotations = [{"segmentation": [np.reshape(p, (-1, 2)) for p in parts]} for parts in polygons]
    masks = objects.draw(annotations, size)
    rles = Result.from_masks(masks.astype(bool), np.ones(len(masks)), [""] * len(masks)).rles
    split = len(masks) - len(inputs["iscrowd"])
    crowd = jnp.asarray(inputs["iscrowd"], bool)
    with jax.enable_x64(True):
        xyxy = M.mask_boxes(jnp.asarray(masks))
        out = {
            "area": M.mask_areas(jnp.asarray(masks)),
            "bbox_xywh": jnp.concatenate([xyxy[:, :2], xyxy[:, 2:] - xyxy[:, :2]], -1),
            "iou_mask": M.pairwise_iou(jnp.asarray(masks[:split]), jnp.asarray(masks[split:]), crowd),
            "iou_box": boxes.pairwise_iou(xyxy[:split], xyxy[split:], crowd),
        }
    return out | {
        "area": np.asarray(out["area"]).astype(np.int64),
        "masks": masks,
        "merge_union3": masks[:3].any(0).astype(np.uint8),
        "merge_intersect3": masks[:3].all(0).astype(np.uint8),
        "rle_counts_string": json.dumps([rle["counts"].decode() for rle in rles]),
        "rle_counts_list": json.dumps([run_lengths(mask) for mask in masks]),
    }


def run_lengths(mask):
    """Lengths of runs of 0 and 1 by columns, beginning with 0."""
    pixels = np.concatenate([[0], mask.ravel("F"), [2]])
    changes = np.flatnonzero(np.diff(pixels))
    return np.diff(changes, prepend=0).tolist()
