"""Mask2Former as a Task: one step, odd batches, the teacher that stays, closed vocabularies."""

import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax import export

from jaxseg import optim, systems
from jaxseg.config import load_config
from jaxseg.decoders.query import MaskPrediction
from jaxseg.step import init_train_state, make_train_step
from jaxseg.systems.mask2former.model import objects_at_input_size
from jaxseg.weights import flatten, unflatten
from tests import tiny

SLOTS, QUERIES, SIZE = 4, 3, 64


def config_of(name="masqclip_student_base48"):
    """A config's `:tiny`, smaller still: three queries, so that four objects are more than there are queries."""
    config = load_config(name, "tiny").copy_and_resolve_references().unlock()
    config.model.backbone.update(stem_dim=8, bottleneck_dim=8, res2_dim=8)
    config.model.head.pixel.update(hidden_dim=32, mask_dim=16, num_heads=2, mlp_dim=32)
    config.model.head.query.update(hidden_dim=32, mask_dim=16, num_heads=2, mlp_dim=32, num_layers=1, num_queries=QUERIES)
    config.task.update(image_size=(SIZE, SIZE), max_targets=SLOTS, num_points=48)
    config.train.batch_size = 2
    if config.task.distill:  # random masks are neither sure nor unlike what is annotated
        config.task.distill = {"score_threshold": 0.4, "dice_threshold": 0.9}
    return config.lock()


class Run:
    """A task with its compiled step, and random parameters; one step is compiled for all tests of a config."""

    def __init__(self, name):
        self.config = config_of(name)
        self.task = systems.make_task(self.config)
        params, state = tiny.params_of(self.task)
        self.params, self.state = self.task.capabilities["begin"](params, state, ["x"] * self.num_names)
        optimizer = optim.make_optimizer(self.config, optim.split(self.params, self.config.optim.freeze)[0])
        self.start = init_train_state(self.params, self.state, optimizer, self.config)
        self.step = jax.jit(make_train_step(self.task, optimizer, self.config, "train"))

    @property
    def num_names(self):
        return self.config.model.head.query.num_outputs - 1


@pytest.fixture(scope="module")
def student():
    return Run("masqclip_student_base48")


@pytest.fixture(scope="module")
def named():
    return Run("mask2former_r50_coco_panoptic")


def batch_of(num_valid=(2, 1), seed=0, labels=1):
    """A batch with so many squares in each image."""
    rng, batch = np.random.default_rng(seed), len(num_valid)
    masks = np.zeros((batch, SLOTS, SIZE, SIZE), np.uint8)
    for i in range(SLOTS):
        masks[:, i, 8 * i : 8 * i + 24, 8 * i : 8 * i + 24] = 1
    return {
        "image": rng.integers(0, 256, (batch, SIZE, SIZE, 3)).astype(np.uint8),
        "image_size": np.array([[SIZE, SIZE], [SIZE - 20, SIZE - 9]], np.int32)[:batch],
        "masks": masks,
        "labels": rng.integers(0, labels, (batch, SLOTS)).astype(np.int32),
        "valid": np.arange(SLOTS)[None] < np.array(num_valid)[:, None],
    }


@pytest.mark.parametrize("num_valid", [(2, 1), (1, 0), (0, 0), (4, 4)], ids=["some", "one", "none", "more than queries"])
@pytest.mark.parametrize("run", ["named", "student"])
def test_a_step_on_any_number_of_objects(run, num_valid, request):
    run = request.getfixturevalue(run)
    state, metrics = run.step(run.start, batch_of(num_valid, labels=run.num_names))
    assert bool(metrics["finite"])
    terms = {name: (float(total), float(count)) for name, (total, count) in metrics["terms"].items()}
    layers = ["final", *(f"aux_{i}" for i in range(run.config.model.head.query.num_layers))]
    assert {f"{layer}/{part}" for layer in layers for part in ("class", "mask", "dice")} <= terms.keys()
    if run.task.name == "mask2former" and "taught" not in terms:
        assert terms["targets"] == (sum(num_valid), 2)
        assert terms["final/mask"][1] == sum(num_valid)
        if not sum(num_valid):
            assert terms["final/mask"][0] == terms["final/dice"][0] == 0
    assert terms["final/class"][0] > 0
    before, after = flatten(run.start.params), flatten(state.params)
    moved = {path for path in before if not np.array_equal(before[path], after[path])}
    assert moved
    assert not any(path.startswith("teacher/") or "norm" in path.split("/")[-2] and "backbone" in path for path in moved)
    parts = {"backbone", "head/query"} | ({"head/pixel"} if sum(num_valid) else set())
    assert parts <= {part for part in parts for path in moved if path.startswith(part)}


def test_the_loss_is_the_published_sum_over_layers(named):
    batch = batch_of(labels=named.num_names)
    _, metrics = named.step(named.start, batch)
    weights = {"class": 2.0, "mask": 5.0, "dice": 5.0}
    expected = sum(
        weights[name.split("/")[1]] * total / count for name, (total, count) in metrics["terms"].items() if "/" in name
    )
    np.testing.assert_allclose(metrics["loss"], expected, rtol=1e-5)
    assert {name for name in metrics["terms"] if "/" not in name} == {"finite_costs", "targets"}


def test_class_agnostic_training_does_not_see_labels(student):
    """Class 5 does not exist in a model of one class."""
    batch = batch_of()
    other = {**batch, "labels": batch["labels"] + 5}
    losses = [student.step(student.start, x)[1]["loss"] for x in (batch, other)]
    assert float(losses[0]) == float(losses[1])


def test_what_the_teacher_finds_is_a_target(student):
    """A teacher that is sure of everything teaches what the annotation does not show."""

    def taught(bias):
        flat = flatten(student.params) | {"teacher/head/query/head/class_embed/bias": np.array(bias, np.float32)}
        state = student.start.replace(params=unflatten(flat))
        terms = student.step(state, batch_of((1, 1)))[1]["terms"]
        return float(terms["taught"][0]), float(terms["targets"][0]), float(terms["final/mask"][1])

    taken, targets, count = taught([50.0, -50.0])
    assert 0 < taken <= 2 * QUERIES and targets == count == 2 + taken
    assert taught([-50.0, 50.0]) == (0, 2, 2)


def test_training_begins_with_the_student_as_the_teacher(student):
    params, state = tiny.params_of(student.task, seed=1)
    begun, _ = student.task.capabilities["begin"](params, state, ["object"])
    flat = flatten(begun)
    for path in flat:
        if path.startswith("teacher/"):
            np.testing.assert_array_equal(flat[path], flat[path.removeprefix("teacher/")])
    assert flatten(student.task.capabilities["released"](begun)).keys() == {p for p in flat if not p.startswith("teacher/")}
    trained = flatten(optim.split(begun, student.config.optim.freeze)[0])
    assert not any(path.startswith("teacher/") or "/mean" in path for path in trained)


def test_objects_of_a_teacher_are_inside_of_the_image():
    logits = jnp.stack([jnp.full((2, 8, 8), 4.0), jnp.full((2, 8, 8), -1.0), jnp.zeros((2, 8, 8))], 1)
    prediction = MaskPrediction(jnp.tile(jnp.array([2.0, 0.0]), (2, 3, 1)), logits)
    scores, masks = objects_at_input_size(prediction, jnp.array([[32, 32], [20, 9]]), (32, 32))
    np.testing.assert_array_equal(masks.sum((2, 3)), [[32 * 32, 0, 0], [20 * 9, 0, 0]])
    expected = jax.nn.sigmoid(2.0) * jax.nn.sigmoid(4.0)
    np.testing.assert_allclose(scores, [[expected, 0, 0]] * 2, rtol=1e-5)


NAMES = tuple(f"class {i}" for i in range(26))


def test_masks_at_the_original_size_with_the_checkpoints_classes(named):
    task, batch = named.task, batch_of(labels=26)
    inputs = {name: batch[name] for name in ("image", "image_size")}
    ctx = task.prepare(named.params, NAMES, [i < 17 for i in range(26)])
    predicted = jax.eval_shape(task.predict, named.params, {}, ctx, inputs)
    assert predicted["class_logits"].shape == (2, QUERIES, 27)
    assert predicted["mask_logits"].shape == (2, QUERIES, SIZE // 4, SIZE // 4)
    features = jax.jit(task.capabilities["encode"])(named.params, {}, inputs)
    outputs = task.capabilities["decode"](named.params, {}, features, ctx)
    sizes = jnp.array([[50, 40], [96, 64]])
    found = task.capabilities["at_original_size"](outputs, sizes, 0.5, canvas=(96, 64))
    assert found["probabilities"].shape == (2, 26, 96, 64)
    assert found["instance_masks"].shape == (2, QUERIES * 26, 96, 64)
    assert not np.asarray(found["instance_masks"])[0, :, 50:].any()
    results = task.finalize(
        {name: np.asarray(found[name]) for name in task.reads}, [{"original_size": tuple(s)} for s in sizes.tolist()], NAMES
    )
    assert [result.size for result in results] == [(50, 40), (96, 64)]


def test_exports_for_any_number_of_images(named):
    """Only lowered: the compiler is tests/export_test.py's."""
    task = named.task
    batch_size, num_names = export.symbolic_shape("batch, names")
    shapes = jax.eval_shape(task.init, jax.random.key(0))
    program = export.export(jax.jit(task.predict), platforms=("cpu", "tpu"))(
        *shapes, *task.example_predict(batch_size, num_names)
    )
    found = {f"{x.dtype}[{', '.join(map(str, x.shape))}]" for x in program.out_avals}
    masks = f"float32[batch, {QUERIES}, {SIZE // 4}, {SIZE // 4}]"
    assert found == {f"float32[batch, {QUERIES}, 27]", masks, "int32[batch, 2]", "bool[26]"}


def test_a_closed_vocabulary_says_so(named, student):
    with pytest.raises(ValueError, match="names: found 5, expected the 26 of this checkpoint's classes"):
        named.task.prepare(named.params, NAMES[:5])
    with pytest.raises(ValueError, match="num_outputs: found 27, expected 6: the training data have 5 classes"):
        named.task.capabilities["begin"](named.params, {}, NAMES[:5])
    with pytest.raises(ValueError, match="names: found 2, expected one, such as 'object'"):
        student.task.prepare(student.params, ("cat", "dog"))
    for ctx in (student.task.prepare(student.params, ("object",)), student.task.prepare(student.params, NAMES, [True] * 26)):
        assert ctx["is_thing"].tolist() == [True]


def test_settings_that_contradict_each_other():
    config = config_of().unlock()
    config.model.head.query.num_outputs = 5
    with pytest.raises(ValueError, match=r"num_outputs: found 5, expected 2"):
        systems.make_task(config)
    config.task.class_agnostic = False
    with pytest.raises(ValueError, match="config.task.distill: found without config.task.class_agnostic"):
        systems.make_task(config)


PUBLISHED = {
    "mask2former_r50_coco_panoptic": (368_750, 16, 1e-4, 134),
    "mask2former_r50_coco_instance": (368_750, 16, 1e-4, 81),
    "mask2former_r50_ade20k": (160_000, 16, 1e-4, 151),
    "masqclip_teacher_base48": (100_000, 16, 1e-4, 2),
    "masqclip_teacher_coco": (200_000, 16, 1e-4, 2),
    "masqclip_student_base48": (30_000, 4, 1e-4, 2),
    "masqclip_student_coco": (30_000, 4, 1e-5, 2),
}


@pytest.mark.parametrize("name", PUBLISHED)
def test_recipes(name):
    config = load_config(name)
    optimizer = config.optim
    found = (config.train.steps, config.train.batch_size, optimizer.learning_rate, config.model.head.query.num_outputs)
    assert found == PUBLISHED[name]
    assert (optimizer.weight_decay, optimizer.clip_norm, optimizer.betas, optimizer.eps) == (0.05, 0.01, (0.9, 0.999), 1e-8)
    assert optimizer.multipliers == (("^backbone/", 0.1),) and config.precision.compute == "bfloat16"
    task = config.task
    assert (task.weights.to_dict(), task.no_object_weight) == ({"class": 2.0, "mask": 5.0, "dice": 5.0}, 0.1)
    assert (task.num_points, task.oversample_ratio, task.importance_ratio) == (12544, 3.0, 0.75)
    student = "student" in name
    assert bool(task.distill) == student and task.class_agnostic == ("masqclip" in name)
    if student:
        assert task.distill.to_dict() == {"score_threshold": 0.8, "dice_threshold": 0.1}
    if name.startswith("mask2former_r50_coco"):
        schedule = optim.make_schedule(optimizer, config.train.steps)
        rates = [float(schedule(i)) for i in (0, 327_777, 327_778, 355_091, 355_092)]
        np.testing.assert_allclose(rates, [1e-4, 1e-4, 1e-5, 1e-5, 1e-6], rtol=1e-5)
    if name.startswith("masqclip"):
        np.testing.assert_allclose(float(optim.make_schedule(optimizer, config.train.steps)(config.train.steps - 1)), found[2])


@pytest.mark.parametrize("name", ["masqclip_student_base48"])
def test_what_decays_and_what_is_trained(name):
    """Neither norms nor the query decoder's tables decay; the pixel decoder's level embedding and every bias do."""
    config = load_config(name)
    shapes, _ = jax.eval_shape(systems.make_task(config).init, jax.random.key(0))
    trained = flatten(optim.split(shapes, config.optim.freeze)[0])
    free = {path for path in trained if any(re.search(p, path) for p in config.optim.no_decay)}
    tables = {f"head/query/{name}" for name in ("query_content", "query_position", "level_embedding")}
    norms = {path for path, x in trained.items() if len(x.shape) == 1 and path.endswith("/scale")}
    assert norms and free == tables | norms | {path.replace("/scale", "/bias") for path in norms}
    assert "head/pixel/level_embedding" in trained and "backbone/stem_conv/kernel" in trained
    assert len(trained) == 417 and not any(path.startswith(("teacher/", "backbone/stem_norm")) for path in trained)
