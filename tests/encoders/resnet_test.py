"""ResNet: sizes of what was released, strides, and the two families of names."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import linen as nn

from jaxseg import weights
from jaxseg.encoders.resnet.model import NUM_BLOCKS, STRIDES, Bottleneck, ResNet
from jaxseg.encoders.resnet.weights import (
    DETECTRON2_IGNORE,
    TORCHVISION_IGNORE,
    detectron2_rules,
    infer_detectron2,
    infer_torchvision,
    torchvision_rules,
)
from jaxseg.nn.norms import FrozenBatchNorm
from tests.filling import fill

SMALL = {"num_blocks": (1, 2, 1, 1), "stem_dim": 8, "bottleneck_dim": 4, "res2_dim": 16}
# torchvision's counts without the classifier (2,049,000), which do not hold the running statistics.
RELEASED = {50: 25_557_032 - 2_049_000, 101: 44_549_160 - 2_049_000, 152: 60_192_808 - 2_049_000}


def shapes_of(model, height=32, width=32):
    return jax.eval_shape(model.init, jax.random.key(0), jnp.zeros((1, height, width, 3)))["params"]


def flat_shapes(model):
    return {path: tuple(leaf.shape) for path, leaf in weights.flatten(shapes_of(model)).items()}


@pytest.mark.parametrize("depth", RELEASED)
def test_parameters_of_released_models(depth):
    shapes = flat_shapes(ResNet(num_blocks=NUM_BLOCKS[depth]))
    statistics = sum(np.prod(s) for path, s in shapes.items() if path.endswith(("/mean", "/var")))
    assert sum(np.prod(s) for s in shapes.values()) - statistics == RELEASED[depth]
    assert {path.split("/")[0] for path in shapes if path.startswith("res4")} == {
        f"res4_{i}" for i in range(NUM_BLOCKS[depth][2])
    }


@pytest.mark.parametrize("height, width", [(64, 96), (65, 97), (33, 31), (1, 2)])
def test_maps_are_rounded_up(height, width):
    model = ResNet(**SMALL, outputs=tuple(STRIDES))
    image = jax.ShapeDtypeStruct((2, height, width, 3), jnp.float32)
    found = jax.eval_shape(lambda x: model.init_with_output(jax.random.key(0), x)[0], image)
    channels = {"stem": 8, "res2": 16, "res3": 32, "res4": 64, "res5": 128}
    expected = {name: (2, -(-height // s), -(-width // s), channels[name]) for name, s in STRIDES.items()}
    assert {name: x.shape for name, x in found.items()} == expected


def test_stages_after_the_last_output_do_not_exist():
    paths = flat_shapes(ResNet(**SMALL, outputs=("res3",)))
    assert {path.split("/")[0] for path in paths} == {"stem_conv", "stem_norm", "res2_0", "res3_0", "res3_1"}
    with pytest.raises(ValueError, match="res9"):
        flat_shapes(ResNet(**SMALL, outputs=("res9",)))


def test_where_the_stride_is():
    """In the 1x1 a block sees every second pixel; in the 3x3 every second pixel of its output is kept."""
    x = np.random.default_rng(0).standard_normal((1, 9, 8, 6)).astype(np.float32)
    plain, in_1x1, in_3x3 = Bottleneck(12, 4), Bottleneck(12, 4, 2, stride_in_1x1=True), Bottleneck(12, 4, 2)
    params = fill(jax.eval_shape(plain.init, jax.random.key(0), x), scale=0.5)
    np.testing.assert_allclose(in_1x1.apply(params, x), plain.apply(params, x[:, ::2, ::2]), rtol=1e-5, atol=1e-5)
    np.testing.assert_allclose(in_3x3.apply(params, x), plain.apply(params, x)[:, ::2, ::2], rtol=1e-5, atol=1e-5)
    assert np.abs(in_1x1.apply(params, x) - in_3x3.apply(params, x)).max() > 0.1


def test_a_shortcut_is_a_projection_only_where_channels_change():
    paths = flat_shapes(ResNet(**SMALL))
    projections = {path.split("/")[0] for path in paths if "shortcut/" in path}
    assert projections == {"res2_0", "res3_0", "res4_0", "res5_0"}
    assert "res2_0/shortcut/kernel" not in flat_shapes(ResNet(**(SMALL | {"stem_dim": 16})))


FAMILIES = {
    "detectron2": (detectron2_rules, infer_detectron2, DETECTRON2_IGNORE, ("stem.fc.weight",)),
    "torchvision": (torchvision_rules, infer_torchvision, TORCHVISION_IGNORE, ("fc.bias", "bn1.num_batches_tracked")),
}


@pytest.mark.parametrize("family", FAMILIES)
def test_names_both_ways(family):
    rules, infer, ignore, unused = FAMILIES[family]
    params = fill(shapes_of(ResNet(**SMALL)))
    tensors = weights.to_tensors(params, rules())
    assert infer({key: value.shape for key, value in tensors.items()}) == SMALL
    tensors |= {key: np.zeros(3, np.float32) for key in unused}
    found = weights.to_params(tensors, rules(), params, ignore)
    jax.tree.map(np.testing.assert_array_equal, found, params)
    with pytest.raises(ValueError, match="conv1"):
        infer({})


def test_names_as_released():
    params = fill(shapes_of(ResNet(**SMALL)))
    detectron2 = weights.to_tensors(params, detectron2_rules())
    torchvision = weights.to_tensors(params, torchvision_rules())
    for theirs, other in (
        ("stem.conv1.norm.running_var", "bn1.running_var"),
        ("res3.1.conv2.weight", "layer2.1.conv2.weight"),
        ("res5.0.shortcut.norm.bias", "layer4.0.downsample.1.bias"),
        ("res2.0.shortcut.weight", "layer1.0.downsample.0.weight"),
    ):
        np.testing.assert_array_equal(detectron2[theirs], torchvision[other])
    assert detectron2["stem.conv1.weight"].shape == (8, 3, 7, 7)
    assert len(detectron2) == len(torchvision) == 5 * (1 + 3 * 5 + 4)


@pytest.mark.parametrize("epsilon", [1e-5, 1e-3])
def test_epsilon_of_every_normalization(epsilon):
    found = []

    def note(call, args, kwargs, context):
        if isinstance(context.module, FrozenBatchNorm):
            found.append(context.module.epsilon)
        return call(*args, **kwargs)

    with nn.intercept_methods(note):
        shapes_of(ResNet(**SMALL, epsilon=epsilon))
    assert found == [epsilon] * (1 + 3 * 5 + 4)
    assert ResNet().epsilon == 1e-5
