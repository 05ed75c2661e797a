"""Mask R-CNN as a Task; class-agnostic, and a student of a frozen teacher, on request."""

import functools

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.config import model_fields
from jaxseg.decoders.mask_rcnn import MaskRcnnHead
from jaxseg.decoders.roi_heads import of_class
from jaxseg.finalize import SEGMENTS, segment_results
from jaxseg.losses.distillation import Distillation
from jaxseg.losses.regions import AnchorLoss, RegionLoss
from jaxseg.ops.boxes import has_area
from jaxseg.ops.masks import mask_boxes
from jaxseg.ops.sampling import uniform_draw
from jaxseg.postprocess.detections import DetectionMerge
from jaxseg.systems.maskrcnn.model import MaskRcnn, objects_at_input_size
from jaxseg.task import Mean, Task, closed_vocabulary, example_masks

MODEL, TEACHER = ("backbone", "head"), "teacher"
_METRICS = ("targets", "taught", "positive")


def make_task(config):
    """The Task of a config whose `model` holds the fields of `MaskRcnn`.

    A train batch has `image` uint8 [B, H, W, 3] and `image_size` [B, 2], padded right and below, and annotated masks: `masks`
    uint8 [B, N, H, W], `labels` int32 [B, N], `valid` bool [B, N]. Boxes are those around the masks; an empty mask is no
    target.

    `config.task.class_agnostic` and `config.task.distill` are as of the system mask2former: one class, "object"; and a teacher
    below `teacher/`, a copy of what training starts from, whose confident masks that no annotation shows are targets too. The
    score of its masks is that of their boxes.
    """
    model = MaskRcnn(**model_fields(config, MaskRcnn), dtype=jnp.dtype(config.precision.compute))
    detector, settings = MaskRcnnHead(**model.head, dtype=model.dtype), config.task
    num_classes, class_agnostic = detector.num_classes, settings.class_agnostic
    _check(config, num_classes)
    anchor_loss, region_loss = AnchorLoss(**settings.anchors), RegionLoss(**settings.regions)
    train_proposals = {"num_before": settings.num_before, "num_after": settings.num_proposals}
    distillation = Distillation(**settings.distill, num_points=settings.num_points) if settings.distill else None
    merge = DetectionMerge(**config.predict.get("merge", {}))

    def call(params, batch):
        own = {name: params[name] for name in MODEL}
        return model.apply({"params": own}, batch["image"], batch["image_size"])

    def part(params, method, *args, **options):
        return detector.apply({"params": params["head"]}, *args, **options, method=method)

    def init(rng):
        image, size = jnp.zeros((1, 64, 64, 3)), jnp.full((1, 2), 64)
        params = model.init(rng, image, size, method="every_part")["params"]
        return params | ({TEACHER: jax.tree.map(jnp.copy, params)} if distillation else {}), {}

    def begin(params, state, names):
        if not class_agnostic and len(names) != num_classes:
            wanted = f"{len(names)}, as many as the training data have"
            raise ValueError(f"config.model.head.num_classes: found {num_classes}, expected {wanted}")
        if distillation:
            params = {**params, TEACHER: jax.tree.map(jnp.copy, {name: params[name] for name in MODEL})}
        return params, state

    def targets_of(params, batch, draw):
        """(targets, how many masks of the teacher there are for each image [B])."""
        targets = {name: batch[name] for name in ("masks", "labels", "valid")}
        if class_agnostic:
            targets["labels"] = jnp.zeros_like(targets["labels"])
        taught = None
        if distillation:
            scores, masks = objects_at_input_size(call(params[TEACHER], batch), batch["image"].shape[1:3])
            distilled = distillation(jax.lax.stop_gradient(scores), masks, targets, draw)
            targets, taught = distilled.targets, jnp.sum(distilled.kept, -1)
        boxes = mask_boxes(targets["masks"])
        return targets | {"boxes": boxes, "valid": targets["valid"] & has_area(boxes)}, taught

    def losses(params, batch, draw, rng=None):
        """Terms of a sample of anchors and of regions that `draw` decides; without `rng` nothing is dropped out."""
        targets, taught = targets_of(params, batch, draw)
        own, training = {name: params[name] for name in MODEL}, {}
        if rng is not None:
            training = {"deterministic": False, "rngs": {"dropout": rng}}
        maps = model.apply({"params": own}, batch["image"], batch["image_size"], method="pyramid", **training)

        output, anchors = part(params, "judge_anchors", maps), part(params, "anchors", maps)
        boxes, joined = targets["boxes"], np.concatenate(anchors)
        terms = anchor_loss(*output.joined(), joined, boxes, targets["valid"], draw)

        proposals = part(params, "propose", output, anchors, batch["image_size"], **train_proposals)
        regions = region_loss.sample(proposals.boxes, proposals.valid, targets, num_classes, draw)
        class_logits, deltas = part(params, "classify", maps, regions.boxes)
        terms |= region_loss.box_terms(class_logits, of_class(deltas, regions.labels), regions, boxes)

        first = jax.tree.map(lambda x: x[:, : region_loss.num_positive], regions)
        mask_logits = of_class(part(params, "draw_masks", maps, first.boxes), first.labels)
        terms |= region_loss.mask_terms(mask_logits, first, targets["masks"])

        batch_size = jnp.float32(len(batch["image"]))
        terms["targets"] = jnp.sum(targets["valid"], dtype=jnp.float32), batch_size
        terms["positive"] = jnp.sum(regions.positive, dtype=jnp.float32), jnp.sum(regions.valid, dtype=jnp.float32)
        if taught is not None:
            terms["taught"] = jnp.sum(taught, dtype=jnp.float32), batch_size
        return {name: Mean(*term, 0.0 if name in _METRICS else 1.0) for name, term in terms.items()}

    def loss(params, state, batch, rng, step, *, kind):
        del step, kind
        samples, paths = jax.random.split(rng)
        return losses(params, batch, uniform_draw(samples), paths), state

    def prepare(params, names, is_thing=None):
        del params
        return {"is_thing": closed_vocabulary(names, is_thing, num_classes, class_agnostic)}

    def encode(params, state, batch):
        del state
        found = call(params, batch)
        arrays = found.detections._asdict() | {"mask_probabilities": found.mask_probabilities}
        return arrays | {"image_size": batch["image_size"]}

    def decode(params, state, features, ctx):
        del params, state
        return {**features, "is_thing": ctx["is_thing"]}

    def predict(params, state, ctx, batch):
        return decode(params, state, encode(params, state, batch), ctx)

    @functools.partial(jax.jit, static_argnames=("canvas",))
    def at_original_size(outputs, original_size, threshold, *, canvas):
        del threshold  # of pixels; that of segments is config.predict.merge.object_threshold
        return merge(**outputs, original_size=original_size, canvas=canvas)

    def example_batch(batch_size, kind):
        del kind
        return example_masks(batch_size, settings.image_size, settings.max_targets)

    def example_predict(batch_size, num_names):
        del num_names  # the classes are the checkpoint's
        batch = example_batch(batch_size, "train")
        ctx = {"is_thing": jax.ShapeDtypeStruct((num_classes,), jnp.bool_)}
        return ctx, {name: batch[name] for name in ("image", "image_size")}

    return Task(
        name="maskrcnn",
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
            "encode": encode,
            "decode": decode,
            "at_original_size": at_original_size,
        },
    )


def _check(config, num_classes):
    """Refuses settings that contradict each other, before anything is compiled."""
    if config.task.class_agnostic and num_classes != 1:
        found = f"found {num_classes}, expected 1 for config.task.class_agnostic"
        raise ValueError(f"config.model.head.num_classes: {found}")
    if config.task.distill and not config.task.class_agnostic:
        raise ValueError("config.task.distill: found without config.task.class_agnostic; a teacher's masks have no class")
