"""detectron2's files of Mask2Former: every key at full size, old names, students without their teacher, ImageNet backbones."""

import functools
import pickle

import jax
import numpy as np
import pytest
from ml_collections import ConfigDict
from safetensors.numpy import load_file

from configs import masqclip_student_base48, masqclip_teacher_base48
from jaxseg import convert, initialize, systems
from jaxseg.checkpoint import load_weights, save_weights
from jaxseg.config import load_config
from jaxseg.encoders.resnet import weights as resnet
from jaxseg.systems.mask2former import weights as layouts
from jaxseg.weights import flatten, ignored, to_params, to_tensors
from tests.filling import fill
from tests.parity import GOLDENS, read_golden
from tests.parity_runners.mask2former_training import recipe
from tests.torch_files import tensor as torch_tensor
from tests.torch_files import write_state_dict, write_zip

TABLE = GOLDENS.parent / "tables" / "names_mask2former_detectron2.txt"
RECORDED = GOLDENS / "masqclip" / "class_agnostic_maskformer__a.npz"
# Trained: 43.95 million; with the constants of the batch normalizations.
TRAINED, STATISTICS = 43_949_954, 106_240


@functools.cache
def golden():
    """(config of the program, state dict) of a recorded teacher."""
    recorded, groups, _, _ = read_golden(RECORDED)
    weights = groups["weights"]
    config = masqclip_teacher_base48.get_config("tiny")
    config.model = recipe(recorded, weights).model
    return config, weights


def contents(folder):
    return {path: np.asarray(x) for path, x in flatten(load_weights(folder)[0]).items()}


def assert_same(found, expected):
    assert found.keys() == expected.keys()
    for key, value in expected.items():
        np.testing.assert_array_equal(found[key], value, err_msg=key)


def write_pickle(path, tensors):
    """As the zoo's `.pkl` are."""
    path.write_bytes(pickle.dumps({"model": dict(tensors), "__author__": "someone"}))
    return path


def write_checkpoint(path, tensors):
    """As detectron2 saves amid training: the optimizer's tensors beside the model's."""
    content = {key: torch_tensor(str(i), x.shape, x.dtype.name) for i, (key, x) in enumerate(tensors.items())}
    moment = torch_tensor("0", next(iter(tensors.values())).shape)
    everything = {"model": content, "optimizer": {"state": {0: {"exp_avg": moment}}}, "iteration": 4999}
    return write_zip(path, everything, {str(i): x.tobytes() for i, x in enumerate(tensors.values())})


def test_every_key_of_the_released_file():
    rows = dict(line.split() for line in TABLE.read_text().splitlines())
    shapes = {key: tuple(map(int, shape.split("x"))) for key, shape in rows.items()}
    assert len(shapes) == 558
    layout, config = layouts.FORMATS[0], load_config("masqclip_teacher_base48")
    assert layout.detect(set(shapes))
    target, _ = jax.eval_shape(systems.make_task(config).init, jax.random.key(0))
    sizes = {path: int(np.prod(leaf.shape)) for path, leaf in flatten(target).items()}
    statistics = sum(n for path, n in sizes.items() if path.startswith("backbone/") and not path.endswith("/kernel"))
    assert (sum(sizes.values()) - statistics, statistics) == (TRAINED, STATISTICS)
    # Bytes instead of floats: 44 million.
    target = jax.tree.map(lambda leaf: jax.ShapeDtypeStruct(leaf.shape, np.int8), target)
    tensors = {key: np.zeros(shape, np.int8) for key, shape in shapes.items()}
    back = to_tensors(to_params(tensors, layout.rules({}), target, layout.ignore), layout.rules({}))
    unused = [key for key in shapes if ignored(key, layout.ignore)]
    assert unused == ["criterion.empty_weight"]
    assert {key: x.shape for key, x in back.items()} == {key: x for key, x in shapes.items() if key not in unused}
    assert layout.infer(shapes)["head"]["query"] == {
        "num_outputs": 2, "num_queries": 100, "hidden_dim": 256, "mask_dim": 256, "num_layers": 9, "mlp_dim": 2048,
        "project": False,
    }  # fmt: skip


def test_a_checkpoint_there_and_back(tmp_path):
    config, tensors = golden()
    certificate = convert.run(config, [write_checkpoint(tmp_path / "model.pth", tensors)], tmp_path / "ours", check=RECORDED)
    assert certificate["format"] == "detectron2"
    assert certificate["check"]["outputs"].keys() == {"pred_logits", "pred_masks"}
    convert.run(config, [], tmp_path / "ours", reverse=True)
    back = load_file(tmp_path / "ours" / "model.safetensors")
    assert_same(back, {key: x for key, x in tensors.items() if key != "criterion.empty_weight"})


def test_files_of_the_zoo_and_old_names(tmp_path):
    config, tensors = golden()
    convert.run(config, [write_pickle(tmp_path / "new.pkl", tensors)], tmp_path / "new")
    old = {
        key.replace("sem_seg_head.pixel_decoder.", "sem_seg_head.").replace("query_feat", "static_query"): x
        for key, x in tensors.items()
    }
    assert len(old.keys() - tensors.keys()) > 10
    convert.run(config, [write_pickle(tmp_path / "old.pkl", old)], tmp_path / "old")
    assert_same(contents(tmp_path / "old"), contents(tmp_path / "new"))


def test_a_wrong_config_is_named(tmp_path):
    _, tensors = golden()
    config = load_config("masqclip_teacher_base48")
    with pytest.raises(ValueError, match="stem_dim: found 64, the file has 8; .*no released config fits"):
        convert.run(config, [write_state_dict(tmp_path / "m.pth", tensors)], tmp_path / "out")
    missing = {key: x for key, x in tensors.items() if key != "sem_seg_head.predictor.level_embed.weight"}
    with pytest.raises(ValueError, match="missing  head/query/level_embedding"):
        convert.run(golden()[0], [write_state_dict(tmp_path / "n.pth", missing)], tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_students_file_has_no_teacher(tmp_path):
    config, tensors = golden()
    teacher = systems.make_task(config)
    shapes, _ = jax.eval_shape(teacher.init, jax.random.key(0))
    params = to_params(tensors, layouts.detectron2_rules(), shapes, layouts.IGNORE)
    student = masqclip_student_base48.get_config("tiny")
    student.model = config.model
    both, _ = systems.make_task(student).capabilities["begin"](params, {}, ["object"])
    save_weights(tmp_path / "run", both, {}, {"config": {}})
    convert.run(student, [], tmp_path / "out", reverse=True, weights=str(tmp_path / "run"), format="detectron2")
    back = load_file(tmp_path / "out" / "model.safetensors")
    assert_same(back, {key: x for key, x in tensors.items() if key != "criterion.empty_weight"})


def test_training_starts_from_an_imagenet_backbone(tmp_path, capsys):
    """In either layout; the head stays as it was drawn."""
    config, tensors = golden()
    backbone = {key.removeprefix("backbone."): x for key, x in tensors.items() if key.startswith("backbone.")}
    leftover = {"stem.fc.weight": np.zeros((10, 4), np.float32), "stem.fc.bias": np.zeros(10, np.float32)}
    first = convert.run(config, [write_pickle(tmp_path / "R-50.pkl", backbone | leftover)], tmp_path / "a")
    assert first["format"] == "detectron2_imagenet" and first["ignored"].keys() == leftover.keys()
    assert "parameters below backbone/ alone" in capsys.readouterr().out
    params = to_params(backbone, resnet.detectron2_rules(), backbone_shapes(config))
    theirs = to_tensors(params, resnet.torchvision_rules()) | {"fc.bias": np.zeros(10, np.float32)}
    theirs["bn1.num_batches_tracked"] = np.array(7)
    second = convert.run(config, [write_state_dict(tmp_path / "resnet.pth", theirs)], tmp_path / "b")
    assert second["format"] == "torchvision"
    assert_same(contents(tmp_path / "b"), contents(tmp_path / "a"))
    # From there into training.
    shapes, _ = jax.eval_shape(systems.make_task(config).init, jax.random.key(0))
    start = fill(shapes)
    entry = ConfigDict({"init_from": masqclip_teacher_base48.get_config(f"backbone={tmp_path / 'a'}").init_from})
    initialize.check(entry, shapes, tmp_path)
    flat, before = flatten(initialize.init_from(entry, start, tmp_path)), flatten(start)
    loaded = contents(tmp_path / "a")
    assert_same(flat, before | loaded)
    assert all(path.startswith("backbone/") for path in loaded)
    # And back.
    convert.run(config, [], tmp_path / "a", reverse=True)
    assert_same(load_file(tmp_path / "a" / "model.safetensors"), backbone)
    convert.run(config, [], tmp_path / "c", reverse=True, weights=str(tmp_path / "b"), format="detectron2_imagenet")
    assert_same(load_file(tmp_path / "c" / "model.safetensors"), backbone)


def backbone_shapes(config):
    shapes, _ = jax.eval_shape(systems.make_task(config).init, jax.random.key(0))
    return shapes["backbone"]


def test_a_whole_model_as_a_backbone(tmp_path):
    """`--format=torchvision` of a trained model gives its backbone."""
    config, tensors = golden()
    convert.run(config, [write_state_dict(tmp_path / "m.pth", tensors)], tmp_path / "ours")
    convert.run(config, [], tmp_path / "out", reverse=True, weights=str(tmp_path / "ours"), format="torchvision")
    found = load_file(tmp_path / "out" / "model.safetensors")
    np.testing.assert_array_equal(found["conv1.weight"], tensors["backbone.stem.conv1.weight"])
    assert not any(key.startswith(("sem_seg_head", "backbone")) for key in found)
