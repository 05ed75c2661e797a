"""Mask2Former as a Task: the set criterion over all layers; class-agnostic, and a student of a frozen teacher, on request."""

import functools

import jax
import jax.numpy as jnp

from jaxseg.config import model_fields
from jaxseg.finalize import SEGMENTS, segment_results
from jaxseg.losses.criterion import PointMasks, SetCriterion, SoftmaxClasses
from jaxseg.losses.distillation import Distillation
from jaxseg.ops.sampling import uniform_draw
from jaxseg.postprocess.queries import QueryMerge
from jaxseg.systems.mask2former.model import Found, Mask2Former, objects_at_input_size
from jaxseg.task import Mean, Task, closed_vocabulary, example_masks

MODEL, TEACHER = ("backbone", "head"), "teacher"


def make_task(config):
    """The Task of a config whose `model` holds the fields of `Mask2Former`.

    A train batch has `image` uint8 [B, H, W, 3] and `image_size` [B, 2], padded right and below, and annotated masks: `masks`
    uint8 [B, N, H, W], `labels` int32 [B, N], `valid` bool [B, N].

    `config.task.class_agnostic`: one class, "object", whatever the labels. `config.task.distill`, fields of `Distillation`:
    the parameters hold a further model under `teacher/`, which training starts as a copy of what `init_from` has loaded and
    `config.optim.freeze` keeps; its confident masks that no annotation shows are targets too. Several rounds are several runs,
    each from the weights of the last.
    """
    model = Mask2Former(**model_fields(config, Mask2Former), dtype=jnp.dtype(config.precision.compute))
    settings = config.task
    num_classes, class_agnostic = model.head["query"]["num_outputs"] - 1, settings.class_agnostic
    _check(config, num_classes)
    masks = PointMasks(settings.num_points, settings.oversample_ratio, settings.importance_ratio)
    weights = settings.weights.to_dict()
    criterion = SetCriterion((SoftmaxClasses(settings.no_object_weight), masks), weights, weights)
    distillation = Distillation(**settings.distill, num_points=settings.num_points) if settings.distill else None
    merge = QueryMerge(**config.predict.get("merge", {}))

    def call(params, batch, rng=None):
        params, training = {name: params[name] for name in MODEL}, {}
        if rng is not None:
            training = {"deterministic": False, "rngs": {"dropout": rng}}
        return model.apply({"params": params}, batch["image"], batch["image_size"], **training)

    def init(rng):
        params = model.init(rng, jnp.zeros((1, 64, 64, 3)), jnp.full((1, 2), 64))["params"]
        return params | ({TEACHER: jax.tree.map(jnp.copy, params)} if distillation else {}), {}

    def begin(params, state, names):
        if not class_agnostic and len(names) != num_classes:
            wanted = f"{len(names) + 1}: the training data have {len(names)} classes, and one output is for no object"
            raise ValueError(f"config.model.head.query.num_outputs: found {num_classes + 1}, expected {wanted}")
        if distillation:
            params = {**params, TEACHER: jax.tree.map(jnp.copy, {name: params[name] for name in MODEL})}
        return params, state

    def targets_of(params, batch, draw):
        """(targets, how many masks of the teacher there are for each image [B])."""
        targets = {name: batch[name] for name in ("masks", "labels", "valid")}
        if class_agnostic:
            targets["labels"] = jnp.zeros_like(targets["labels"])
        if not distillation:
            return targets, None
        taught = jax.lax.stop_gradient(call(params[TEACHER], batch).final)
        scores, masks = objects_at_input_size(taught, batch["image_size"], batch["image"].shape[1:3])
        distilled = distillation(scores, masks, targets, draw)
        return distilled.targets, jnp.sum(distilled.kept, -1)

    def losses(params, batch, draw, rng=None):
        """(terms, pairs of each layer) at the points of `draw`; without `rng` nothing is dropped out."""
        targets, taught = targets_of(params, batch, draw)
        output = call(params, batch, rng)
        layers = {"final": output.final._asdict()}
        layers |= {f"aux_{i}": aux._asdict() for i, aux in enumerate(output.aux)}
        terms, pairs = criterion(layers, targets, draw)
        terms = {name: Mean(*term) for name, term in terms.items()}
        batch_size = jnp.float32(len(batch["image"]))
        terms["targets"] = Mean(jnp.sum(targets["valid"], dtype=jnp.float32), batch_size)
        if taught is not None:
            terms["taught"] = Mean(jnp.sum(taught, dtype=jnp.float32), batch_size)
        return terms, pairs

    def loss(params, state, batch, rng, step, *, kind):
        del step, kind
        points, paths = jax.random.split(rng)
        return losses(params, batch, uniform_draw(points), paths)[0], state

    def prepare(params, names, is_thing=None):
        del params
        return {"is_thing": closed_vocabulary(names, is_thing, num_classes, class_agnostic)}

    def encode(params, state, batch):
        del state
        final = call(params, batch).final
        return Found(final.class_logits, final.mask_logits, batch["image_size"], tuple(batch["image"].shape[1:3]))

    def decode(params, state, features, ctx):
        del params, state
        return {"features": features, "is_thing": ctx["is_thing"]}

    def predict(params, state, ctx, batch):
        found = encode(params, state, batch)
        arrays = {"class_logits": found.class_logits, "mask_logits": found.mask_logits, "image_size": found.image_size}
        return arrays | {"is_thing": ctx["is_thing"]}

    @functools.partial(jax.jit, static_argnames=("canvas",))
    def at_original_size(outputs, original_size, threshold, *, canvas):
        del threshold  # of pixels; that of segments is config.predict.merge.object_threshold
        found = outputs["features"]
        scores = jax.nn.softmax(found.class_logits.astype(jnp.float32), -1)
        return merge(
            scores[..., :-1],
            found.mask_logits,
            outputs["is_thing"],
            found.image_size,
            original_size,
            padded_size=found.padded_size,
            canvas=canvas,
            no_object=scores[..., -1],
        )

    def replay(params, state, inputs):
        """`pred_logits` and `pred_masks` of `image` [3, H, W] or [B, 3, H, W], pixels in 0..255 without padding."""
        image = jnp.asarray(inputs["image"])
        image = jnp.moveaxis(image[None] if image.ndim == 3 else image, 1, -1)
        sizes = jnp.broadcast_to(jnp.array([image.shape[1:3]]), (len(image), 2))
        found = encode(params, state, {"image": image, "image_size": sizes})
        return {"pred_logits": found.class_logits, "pred_masks": found.mask_logits}

    def example_batch(batch_size, kind):
        del kind
        return example_masks(batch_size, settings.image_size, settings.max_targets)

    def example_predict(batch_size, num_names):
        del num_names  # the classes are the checkpoint's
        batch = example_batch(batch_size, "train")
        ctx = {"is_thing": jax.ShapeDtypeStruct((num_classes,), jnp.bool_)}
        return ctx, {name: batch[name] for name in ("image", "image_size")}

    return Task(
        name="mask2former",
        init=init,
        loss=loss,
        example_batch=example_batch,
        prepare=prepare,
        predict=predict,
        example_predict=example_predict,
        finalize=segment_results,
        reads=SEGMENTS,
        names_compete=True,
        capabilities={
            "begin": begin,
            "losses": losses,
            "released": lambda params: {name: params[name] for name in MODEL if name in params},
            "replay": replay,
            "encode": encode,
            "decode": decode,
            "at_original_size": at_original_size,
        },
    )


def _check(config, num_classes):
    """Refuses settings that contradict each other, before anything is compiled."""
    if config.task.class_agnostic and num_classes != 1:
        raise ValueError(
            f"config.model.head.query.num_outputs: found {num_classes + 1}, expected 2 (object, no object) for "
            "config.task.class_agnostic"
        )
    if config.task.distill and not config.task.class_agnostic:
        raise ValueError("config.task.distill: found without config.task.class_agnostic; a teacher's masks have no class")
