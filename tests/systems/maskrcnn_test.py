"""Mask R-CNN as a Task: steps on any number of objects, a teacher, learning, masks at original size, detectron2's files."""

import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg import optim, systems
from jaxseg.config import load_config
from jaxseg.decoders.mask_rcnn import FoundObjects
from jaxseg.decoders.roi_heads import Detections
from jaxseg.step import init_train_state, make_train_step
from jaxseg.systems.maskrcnn import weights as layouts
from jaxseg.systems.maskrcnn.model import MaskRcnn, objects_at_input_size
from jaxseg.weights import flatten, ignored, to_params, to_tensors, unflatten
from tests import tiny
from tests.filling import fill

SLOTS, SIZE = 3, 64
TERMS = {"anchors/object", "anchors/box", "regions/class", "regions/box", "regions/mask"}


def config_of(name="maskrcnn_student_base48"):
    """A config's `:tiny`, smaller still."""
    config = load_config(name, "tiny").copy_and_resolve_references().unlock()
    config.model.backbone.update(stem_dim=8, bottleneck_dim=8, res2_dim=8)
    small = {"hidden_dim": 16, "box_dims": (32, 32), "mask_layers": 1, "anchor_sizes": (16, 32, 48, 64, 64)}
    config.model.head.update(**small, num_before=40, num_proposals=30, num_objects=5, num_candidates=60)
    config.task.update(image_size=(SIZE, SIZE), max_targets=SLOTS, num_points=48, num_before=40, num_proposals=30)
    config.task.anchors.num, config.task.regions.num = 32, 24
    config.train.batch_size = 2
    config.optim.learning_rate, config.optim.schedule = 3e-3, {"name": "constant"}
    return config.lock()


class Run:
    """A task with its compiled step, and random parameters; one step is compiled for all tests."""

    def __init__(self, name):
        self.config = config_of(name)
        self.task = systems.make_task(self.config)
        params, state = tiny.params_of(self.task)
        flat = flatten(params)
        for path in flat:  # a detector starts undecided
            if path.endswith(("deltas/kernel", "objects/kernel", "classes/kernel", "masks/kernel")):
                flat[path] = 0.1 * flat[path]
        self.params, self.state = self.task.capabilities["begin"](unflatten(flat), state, ["object"])
        optimizer = optim.make_optimizer(self.config, optim.split(self.params, self.config.optim.freeze)[0])
        self.start = init_train_state(self.params, self.state, optimizer, self.config)
        self.step = jax.jit(make_train_step(self.task, optimizer, self.config, "train"))

    def taught_by(self, bias):
        """The start with a teacher whose class logits are (object, none) = `bias` everywhere."""
        flat = flatten(self.start.params) | {
            "teacher/head/box/classes/bias": np.array(bias, np.float32),
            "teacher/head/mask/masks/bias": np.array([9.0], np.float32),
        }
        return self.start.replace(params=unflatten(flat))


@pytest.fixture(scope="module")
def student():
    return Run("maskrcnn_student_base48")


@functools.cache
def named():
    config = config_of("maskrcnn_r50_coco")
    return systems.make_task(config), tiny.params_of(systems.make_task(config))[0]


def batch_of(num_valid=(2, 1), seed=0):
    """A batch with so many bright squares on dark noise in each image; the second image is smaller than its canvas."""
    rng, batch = np.random.default_rng(seed), len(num_valid)
    image = rng.integers(0, 60, (batch, SIZE, SIZE, 3)).astype(np.uint8)
    masks = np.zeros((batch, SLOTS, SIZE, SIZE), np.uint8)
    for i, (y, x) in enumerate(((4, 6), (30, 24), (2, 36))):
        masks[:, i, y : y + 24, x : x + 20] = 1
        for b in range(batch):
            if i < num_valid[b]:
                image[b][masks[b, i] > 0] += np.uint8(180)
    return {
        "image": image,
        "image_size": np.array([[SIZE, SIZE], [SIZE - 8, SIZE - 4]], np.int32)[:batch],
        "masks": masks,
        "labels": rng.integers(0, 1, (batch, SLOTS)).astype(np.int32),
        "valid": np.arange(SLOTS)[None] < np.array(num_valid)[:, None],
    }


@pytest.mark.parametrize("num_valid", [(2, 1), (1, 0), (0, 0), (3, 3)], ids=["some", "one", "none", "all"])
def test_a_step_on_any_number_of_objects(student, num_valid):
    state, metrics = student.step(student.taught_by([-50.0, 50.0]), batch_of(num_valid))
    assert bool(metrics["finite"])
    terms = {name: (float(total), float(count)) for name, (total, count) in metrics["terms"].items()}
    assert terms.keys() == TERMS | {"targets", "positive", "taught"}
    assert terms["targets"] == (sum(num_valid), 2) and terms["taught"] == (0, 2)
    assert terms["anchors/object"][0] > 0 and terms["anchors/object"][1] == 2 * 32
    # A target's own box is among the regions, so that each is learnt from.
    assert terms["regions/mask"][1] >= sum(num_valid)
    if not sum(num_valid):
        assert terms["anchors/box"][0] == terms["regions/box"][0] == 0 and terms["regions/mask"] == (0, 0)
    expected = sum(total / count for name, (total, count) in terms.items() if name in TERMS and count)
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    before, after = flatten(student.start.params), flatten(state.params)
    moved = {path for path in before if "teacher/" not in path and not np.array_equal(before[path], after[path])}
    assert moved and not any("norm" in path for path in moved)
    parts = {"backbone/res2_0", "head/fpn", "head/rpn", "head/box"} | ({"head/mask"} if sum(num_valid) else set())
    assert {part for part in parts if not any(path.startswith(part) for path in moved)} == set()


def test_an_empty_mask_is_no_target_and_labels_do_not_matter(student):
    batch, start = batch_of((2, 2)), student.taught_by([-50.0, 50.0])
    _, metrics = student.step(start, batch | {"labels": batch["labels"] + 7})
    masks = batch["masks"].copy()
    masks[0, 2] = 0  # a third target, of which cropping has left nothing
    _, other = student.step(start, batch | {"masks": masks, "valid": np.array([[True, True, True], [True, True, False]])})
    assert float(metrics["loss"]) == float(other["loss"])
    assert float(other["terms"]["targets"][0]) == 4


def test_what_the_teacher_finds_is_a_target(student):
    """Its boxes are somewhere, its masks fill them, and annotated ones are too unlike them to be known."""
    terms = student.step(student.taught_by([50.0, -50.0]), batch_of((0, 0)))[1]["terms"]
    taken, targets = float(terms["taught"][0]), float(terms["targets"][0])
    assert 0 < taken <= 2 * 5 and targets == taken
    assert float(terms["regions/mask"][1]) >= targets


def test_a_few_steps_learn_a_picture(student):
    """Steps on two images: the loss falls to a third, and the squares are found."""
    state, batch = student.taught_by([-50.0, 50.0]), batch_of()
    losses = []
    for _ in range(60):
        state, metrics = student.step(state, batch)
        losses.append(float(metrics["loss"]))
    assert np.mean(losses[-5:]) < 0.34 * np.mean(losses[:3]), losses
    inputs = {name: batch[name] for name in ("image", "image_size")}
    ctx = student.task.prepare(state.params, ("object",))
    outputs = jax.jit(student.task.predict)(state.params, {}, ctx, inputs)
    found = student.task.capabilities["at_original_size"](outputs, batch["image_size"], 0.5, canvas=(SIZE, SIZE))
    overlaps = []
    for b, n in ((0, 2), (1, 1)):
        masks = np.asarray(found["instance_masks"][b])
        for truth in batch["masks"][b, :n] > 0:
            overlaps.append(max((mask & truth).sum() / (mask | truth).sum() for mask in masks))
    assert min(overlaps) > 0.5, overlaps


def test_objects_of_a_teacher_at_the_size_of_its_image():
    boxes = np.array([[[8, 4, 24, 20], [0, 0, 30, 30]]], np.float32)
    detections = Detections(boxes, np.array([[0.75, 0.5]]), np.zeros((1, 2), int), np.array([[True, False]]))
    find = jax.jit(objects_at_input_size, static_argnums=1)
    scores, masks = find(FoundObjects(detections, np.full((1, 2, 16, 16), 0.9, np.float32)), (32, 40))
    assert scores.tolist() == [[0.75, 0]] and masks.dtype == jnp.uint8
    expected = np.zeros((32, 40), np.uint8)
    expected[4:20, 8:24] = 1
    np.testing.assert_array_equal(masks[0], [expected, 0 * expected])


def test_training_begins_with_the_student_as_the_teacher(student):
    flat = flatten(student.task.capabilities["begin"](student.params, {}, ["object"])[0])
    for path in flat:
        if path.startswith("teacher/"):
            np.testing.assert_array_equal(flat[path], flat[path.removeprefix("teacher/")])
    released = flatten(student.task.capabilities["released"](student.params))
    assert released.keys() == {path for path in flat if not path.startswith("teacher/")}
    trained = flatten(optim.split(student.params, student.config.optim.freeze)[0])
    assert not any(path.startswith("teacher/") or "/mean" in path for path in trained)


NAMES = tuple(f"class {i}" for i in range(26))


def test_objects_at_the_original_size():
    """Boxes are scaled by image, masks are drawn at once, segments do not overlap, and stuff is no instance."""
    task, params = named()
    ctx = task.prepare(params, NAMES, [i != 3 for i in range(26)])
    masks = np.full((2, 3, 16, 16), 0.9, np.float32)
    outputs = {
        "boxes": np.array([[[8, 4, 24, 20.0], [8, 4, 24, 12], [0, 0, 4, 4]], [[0, 0, 60, 60], [40, 2, 60, 60], [0] * 4]]),
        "scores": np.array([[0.9, 0.8, 0.7], [0.9, 0.8, 0.6]]),
        "classes": np.array([[5, 5, 3], [1, 2, 0]]),
        "valid": np.array([[True, True, True], [True, True, False]]),
        "mask_probabilities": masks,
        "image_size": np.array([[64, 48], [56, 60]]),
        "is_thing": ctx["is_thing"],
    }
    sizes = np.array([[32, 96], [56, 60]])  # half as high and twice as wide; as it was
    found = task.capabilities["at_original_size"](outputs, sizes, 0.5, canvas=(64, 96))
    assert found["probabilities"].shape == (2, 26, 64, 96)
    assert found["instance_valid"].tolist() == [[True, True, False], [True, True, False]]
    assert found["instance_boxes"][:, 0].tolist() == [[16, 2, 48, 10], [0, 0, 60, 56]]
    expected = np.zeros((64, 96), bool)
    expected[2:10, 16:48] = True
    np.testing.assert_array_equal(found["instance_masks"][0, 0], expected)
    assert not np.asarray(found["instance_masks"])[1, :, 56:].any()
    # The second object lies inside of the first, which is likelier: it holds none of its own pixels.
    assert np.asarray(found["panoptic_classes"])[0][np.asarray(found["panoptic_valid"][0])].tolist() == [5, 3]
    metas = [{"original_size": tuple(s)} for s in sizes.tolist()]
    results = task.finalize({name: np.asarray(found[name]) for name in task.reads}, metas, NAMES)
    assert [result.size for result in results] == [(32, 96), (56, 60)]
    assert [result.labels for result in results] == [("class 5", "class 3"), ("class 1",)]


def test_wrong_names_and_settings():
    task, params = named()
    with pytest.raises(ValueError, match="names: found 5, expected the 26 of this checkpoint's classes"):
        task.prepare(params, NAMES[:5])
    with pytest.raises(ValueError, match="num_classes: found 26, expected 5, as many as the training data have"):
        task.capabilities["begin"](params, {}, NAMES[:5])
    config = config_of().unlock()
    config.model.head.num_classes = 4
    with pytest.raises(ValueError, match="num_classes: found 4, expected 1 for config.task.class_agnostic"):
        systems.make_task(config)
    config.task.class_agnostic = False
    with pytest.raises(ValueError, match="config.task.distill: found without config.task.class_agnostic"):
        systems.make_task(config)
    with pytest.raises(ValueError, match="config.model.pixels: found 'gbr', expected one of rgb, bgr"):
        jax.eval_shape(
            MaskRcnn({"name": "resnet"}, {"num_classes": 1}, "gbr").init, jax.random.key(0), jnp.zeros((1, 64, 64, 3)), 0
        )


def test_pixels_of_caffe2_are_blue_first_less_the_mean():
    config = config_of("maskrcnn_r50_coco")
    fields = config.model.to_dict() | {"pixels": "bgr"}
    image, sizes = batch_of((1,))["image"].astype(np.float32), np.array([[SIZE, SIZE]])
    _, params = named()
    # With the colours of the stem turned around and scaled, the same picture is read by the other kind of model.
    flat = flatten(params)
    flat["backbone/stem_conv/kernel"] = flat["backbone/stem_conv/kernel"][:, :, ::-1] * np.array(
        [58.395, 57.12, 57.375]
    ).reshape(3, 1)
    maps = [
        jax.jit(functools.partial(MaskRcnn(**model).apply, method="pyramid"))({"params": values}, image, sizes)
        for model, values in ((config.model.to_dict(), unflatten(flat)), (fields, params))
    ]
    np.testing.assert_allclose(maps[0][0], maps[1][0], rtol=1e-3, atol=1e-3)


# detectron2's model of 80 classes: what it trains, and four vectors of each batch normalization.
PARTS = {"backbone": 23_454_912, "head/fpn": 3_344_384, "head/rpn": 593_935, "head/box": 14_306_705, "head/mask": 2_643_280}
STATISTICS = 106_240


def released_shapes():
    """{key: shape} of detectron2's `mask_rcnn_R_50_FPN`, written down from its definition."""
    shapes = {"backbone.bottom_up.stem.conv1.weight": (64, 3, 7, 7)}
    norms = {"backbone.bottom_up.stem.conv1.norm": 64}
    inputs = 64
    for stage, (blocks, width) in enumerate(((3, 64), (4, 128), (6, 256), (3, 512)), 2):
        for i in range(blocks):
            key = f"backbone.bottom_up.res{stage}.{i}"
            convs = {"conv1": (width, inputs, 1), "conv2": (width, width, 3), "conv3": (4 * width, width, 1)}
            convs |= {} if i else {"shortcut": (4 * width, inputs, 1)}
            for name, (out, channels, kernel) in convs.items():
                shapes[f"{key}.{name}.weight"], norms[f"{key}.{name}.norm"] = (out, channels, kernel, kernel), out
            inputs = 4 * width
        shapes |= {f"backbone.fpn_lateral{stage}.weight": (256, inputs, 1, 1), f"backbone.fpn_lateral{stage}.bias": (256,)}
        shapes |= {f"backbone.fpn_output{stage}.weight": (256, 256, 3, 3), f"backbone.fpn_output{stage}.bias": (256,)}
    for name, width in norms.items():
        shapes |= {f"{name}.{part}": (width,) for part in ("weight", "bias", "running_mean", "running_var")}
    layers = {
        "proposal_generator.rpn_head.conv": (256, 256, 3, 3),
        "proposal_generator.rpn_head.objectness_logits": (3, 256, 1, 1),
        "proposal_generator.rpn_head.anchor_deltas": (12, 256, 1, 1),
        "roi_heads.box_head.fc1": (1024, 256 * 7 * 7),
        "roi_heads.box_head.fc2": (1024, 1024),
        "roi_heads.box_predictor.cls_score": (81, 1024),
        "roi_heads.box_predictor.bbox_pred": (320, 1024),
        **{f"roi_heads.mask_head.mask_fcn{i}": (256, 256, 3, 3) for i in (1, 2, 3, 4)},
        "roi_heads.mask_head.deconv": (256, 256, 2, 2),
        "roi_heads.mask_head.predictor": (80, 256, 1, 1),
    }
    for key, shape in layers.items():
        shapes |= {f"{key}.weight": shape, f"{key}.bias": (shape[0],)}
    # Older files hold the anchors, too.
    return (
        shapes | {f"proposal_generator.anchor_generator.cell_anchors.{i}": (3, 4) for i in range(5)} | {"pixel_mean": (3, 1, 1)}
    )


def test_every_key_of_the_released_file():
    shapes, config = released_shapes(), load_config("maskrcnn_r50_coco")
    layout = layouts.FORMATS[0]
    assert layout.detect(set(shapes))
    target, _ = jax.eval_shape(systems.make_task(config).init, jax.random.key(0))
    sizes = {path: int(np.prod(leaf.shape)) for path, leaf in flatten(target).items()}
    norms = {path for path in sizes if path.startswith("backbone/") and not path.endswith("/kernel")}
    assert sum(sizes[path] for path in norms) == STATISTICS
    assert {p: sum(n for path, n in sizes.items() if path.startswith(f"{p}/") and path not in norms) for p in PARTS} == PARTS
    assert sum(PARTS.values()) == 44_343_216
    # Bytes instead of floats: 44 million.
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.int8), target)
    tensors, rules = {key: np.zeros(shape, np.int8) for key, shape in shapes.items()}, layout.rules(config.model.to_dict())
    back = to_tensors(to_params(tensors, rules, target, layout.ignore), rules)
    assert {key: x.shape for key, x in back.items()} == {k: x for k, x in shapes.items() if not ignored(k, layout.ignore)}
    assert len(shapes) - len(back) == 6
    decided = layout.infer(shapes)
    for part in ("backbone", "head"):
        assert {name: config.model[part][name] for name in decided[part]} == decided[part]
    agnostic = shapes | {"roi_heads.box_predictor.bbox_pred.weight": (4, 1024)}
    with pytest.raises(ValueError, match="bbox_pred.weight: found 4 rows, expected 320 for 80 classes"):
        layout.infer(agnostic)


def test_a_file_there_and_back():
    """Values too: the first hidden layer of boxes reads channels by channels there, and rows by rows here."""
    config, layout = config_of("maskrcnn_r50_coco"), layouts.FORMATS[0]
    params, rules = (
        fill(jax.eval_shape(systems.make_task(config).init, jax.random.key(0))[0]),
        layout.rules(config.model.to_dict()),
    )
    tensors = to_tensors(params, rules)
    assert layout.infer({key: x.shape for key, x in tensors.items()})["head"] == {
        "num_classes": 26, "hidden_dim": 16, "box_dims": (32, 32), "box_size": 7, "mask_layers": 1,
    }  # fmt: skip
    back = flatten(to_params(tensors, rules, params, layout.ignore))
    for path, x in flatten(params).items():
        np.testing.assert_array_equal(back[path], x)
    region = np.random.default_rng(0).normal(size=(7, 7, 16))
    kernel = params["head"]["box"]["fc1"]["kernel"].reshape(7, 7, 16, 32)
    theirs = tensors["roi_heads.box_head.fc1.weight"] @ region.transpose(2, 0, 1).ravel()
    np.testing.assert_allclose(theirs, np.einsum("ijc,ijcf->f", region, kernel), rtol=1e-5, atol=1e-6)


PUBLISHED = {
    "maskrcnn_r50_coco": (90_000, (60_000, 80_000), 80),
    "maskrcnn_r50_coco:times=3": (270_000, (210_000, 250_000), 80),
    "maskrcnn_teacher_base48": (90_000, (60_000, 80_000), 1),
    "maskrcnn_student_base48": (10_000, (6667, 8889), 1),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes(name):
    config = load_config(name)
    steps, milestones, num_classes = PUBLISHED[name]
    optimizer, task = config.optim, config.task
    assert (config.train.steps, config.train.batch_size, config.model.head.num_classes) == (steps, 16, num_classes)
    assert (optimizer.name, optimizer.learning_rate, optimizer.betas[0], optimizer.weight_decay) == ("sgd", 0.02, 0.9, 1e-4)
    rates = [optim.make_schedule(optimizer, steps)(i) for i in (0, 500, 1000, milestones[0] + 1, milestones[1] + 1)]
    np.testing.assert_allclose(rates, [2e-5, 0.01001, 0.02, 0.002, 0.0002], rtol=1e-4)
    assert task.anchors.to_dict() == {"num": 256, "positive_share": 0.5, "low": 0.3, "high": 0.7}
    assert task.regions.to_dict() == {"num": 512, "positive_share": 0.25, "overlap": 0.5}
    assert (task.num_before, task.num_proposals) == (2000, 1000)
    assert task.class_agnostic == (num_classes == 1) and bool(task.distill) == ("student" in name)
    zoo = num_classes == 80
    assert (config.model.get("pixels", "rgb"), config.model.backbone.get("stride_in_1x1", False)) == (("rgb", "bgr")[zoo], zoo)
    shapes, _ = jax.eval_shape(systems.make_task(config).init, jax.random.key(0))
    trained = flatten(optim.split(shapes, optimizer.freeze)[0])
    assert not any(path.startswith(("teacher/", "backbone/stem", "backbone/res2")) or "norm" in path for path in trained)
    assert "backbone/res3_0/conv1/kernel" in trained and "head/fpn/lateral_2/bias" in trained
