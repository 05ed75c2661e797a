"""Mask2Former's Task and optimizer against recorded training: the functions and configs that `--mode=train` uses."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import optax
from ml_collections import ConfigDict

from configs import masqclip_teacher_base48
from jaxseg import optim, systems
from jaxseg import weights as W
from jaxseg.encoders.resnet import weights as resnet
from jaxseg.systems.mask2former import weights as mask2former_weights
from jaxseg.systems.mask2former.model import objects_at_input_size
from tests.parity_runners.clipseg_models import nhwc
from tests.parity_runners.mask2former import below, pixel_fields, query_fields, shapes_of
from tests.parity_runners.mask_losses import LOSSES, padded_targets, replay
from tests.parity_runners.registry import runner

FULL_SIZE = ConfigDict({"tiny": False, "steps": 0})


def recipe(config, weights):
    """`configs/masqclip_teacher_base48.py` at the size of a recorded case."""
    ours = masqclip_teacher_base48.build(FULL_SIZE)
    ours.model = {
        "backbone": {"name": "resnet", **resnet.infer_detectron2(shapes_of(below(weights, "backbone.")))},
        "head": {
            "pixel": pixel_fields(config["pixel_decoder"], below(weights, "sem_seg_head.pixel_decoder.")),
            "query": query_fields(config["decoder"], below(weights, "sem_seg_head.predictor.")),
        },
    }
    ours.task.update(
        weights={name: config["weights"][f"loss_{theirs}"] for name, theirs in LOSSES.items()},
        no_object_weight=config["eos_coef"],
        num_points=config["num_points"],
        oversample_ratio=config["oversample_ratio"],
        importance_ratio=config["importance_sample_ratio"],
    )
    ours.precision.compute = "float32"
    return ours


@runner("masqclip/class_agnostic_maskformer")
def class_agnostic_maskformer(config, weights, inputs):
    """One image, padded to the multiple of a batch of one; its targets have further slots, which must not matter."""
    ours = recipe(config, weights)
    task, multiple = systems.make_task(ours), config["size_divisibility"]
    shapes, _ = jax.eval_shape(task.init, jax.random.key(0))
    params = W.to_params(weights, mask2former_weights.detectron2_rules(), shapes, mask2former_weights.IGNORE)
    image = nhwc(inputs["image"])
    size, grown = image.shape[:2], [(0, -side % multiple) for side in image.shape[:2]]
    targets = padded_targets({"labels_0": inputs["gt_classes"], "masks_0": inputs["gt_masks"]}, 1)
    targets["masks"] = jnp.pad(targets["masks"], ((0, 0), (0, 0), *grown))
    batch = {"image": jnp.pad(image, (*grown, (0, 0)))[None], "image_size": jnp.asarray([size]), **targets}
    layers = ("final", *(f"aux_{i}" for i in range(ours.model.head.query.num_layers)))
    names = {layer: f"points_{layer}_" for layer in layers}
    draw = replay(inputs, targets, ours.model.head.query.num_queries, names)
    trained, frozen = optim.split(params, ours.optim.freeze)

    def loss(trained):
        terms, _ = task.capabilities["losses"](optim.join(trained, frozen), batch, draw)
        weighted = {name: term.weight * term.sum / jnp.maximum(term.count, 1e-12) for name, term in terms.items()}
        return sum(weighted.values()), weighted

    (total, weighted), grads = jax.jit(jax.value_and_grad(loss, has_aux=True))(trained)
    out = {"total": total}
    for layer in layers:
        suffix = layer.removeprefix("final").removeprefix("aux")
        out |= {f"loss_weighted/loss_{theirs}{suffix}": weighted[f"{layer}/{name}"] for name, theirs in LOSSES.items()}
    grads = W.to_tensors(optim.join(grads, frozen), mask2former_weights.detectron2_rules())
    grads = {key: x for key, x in grads.items() if not key.startswith("backbone.") or ".norm." not in key}
    out |= {f"grad_norm/{key}": np.linalg.norm(x) for key, x in grads.items()}
    out |= {f"grad/{key}": x for key, x in grads.items()}
    return out | inference(task, params, batch, size)


def inference(task, params, batch, size):
    """Predictions, and instances at the size of the input."""
    features = task.capabilities["encode"](params, {}, batch)
    scores, masks = objects_at_input_size(features, features.image_size, features.padded_size)
    order = np.argsort(-np.asarray(scores[0]), kind="stable")
    return {
        "pred_logits": features.class_logits,
        "pred_masks": features.mask_logits,
        "instances_scores": np.asarray(scores[0])[order],
        "instances_masks": np.asarray(masks[0])[order, : size[0], : size[1]],
        "instances_classes": np.zeros(len(order), np.int64),
    }


EMBEDDINGS = {"query_embed": "query_position", "query_feat": "query_content", "level_embed": "level_embedding"}


def path_of(key):
    """The path of a recorded parameter; tables of embeddings are the query decoder's, other names say what a module is."""
    parent, _, leaf = key.rpartition(".")
    owner, _, name = parent.rpartition(".")
    if leaf == "weight" and name in EMBEDDINGS:
        return f"{owner}/query/{EMBEDDINGS[name]}"
    return key.replace(".", "/")


@runner("masqclip/optimizer")
def optimizer(config, weights, inputs):
    """Recorded gradients through the recipe's groups: which parameters decay, and at which rate they learn."""
    ours = masqclip_teacher_base48.build(FULL_SIZE)
    trained = {path_of(key): jnp.asarray(x) for key, x in weights.items() if f"grad_0/{key}" in inputs}
    multipliers = tuple((pattern, config["backbone_multiplier"]) for pattern, _ in ours.optim.multipliers)
    ours.optim.update(
        learning_rate=config["base_lr"],
        schedule={"name": "step", "milestones": tuple(config["steps"]), "factor": config["gamma"]},
        clip_norm=config["clip_norm"],
        betas=tuple(config["betas"]),
        eps=config["eps"],
        weight_decay=config["weight_decay"],
        multipliers=multipliers,
        no_decay=tuple(p for p in ours.optim.no_decay if any(re.search(p, path) for path in trained)),
    )
    transform, schedule = optim.make_optimizer(ours, W.unflatten(trained)), optim.make_schedule(ours.optim, 1)
    params = W.unflatten(trained)
    state, out = transform.init(params), {}
    for i in range(sum(name.endswith(f"/{config['group_order'][0]}") for name in inputs)):
        grads = {path_of(key): jnp.asarray(inputs[f"grad_{i}/{key}"]) for key in config["group_order"]}
        updates, state = transform.update(W.unflatten(grads), state, params)
        params = optax.apply_updates(params, updates)
        flat = W.flatten(params)
        out |= {f"param_{i}/{key}": flat[path_of(key)] for key in config["group_order"]}
        factors = [dict(multipliers)["^backbone/"] if key.startswith("backbone.") else 1.0 for key in config["group_order"]]
        out[f"lr_{i}"] = np.array(factors) * float(schedule(i))
    return out
