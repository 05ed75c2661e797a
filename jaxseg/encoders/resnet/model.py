"""ResNet with bottlenecks and frozen batch normalization, as detectron2 and torchvision define it."""

import jax
import jax.numpy as jnp
from flax import linen as nn

from jaxseg.nn.conv import C2_MSRA
from jaxseg.nn.norms import FrozenBatchNorm
from jaxseg.typing import Array

NUM_BLOCKS = {50: (3, 4, 6, 3), 101: (3, 4, 23, 3), 152: (3, 8, 36, 3)}
STRIDES = {"stem": 4, "res2": 4, "res3": 8, "res4": 16, "res5": 32}


def _conv(features, kernel, stride, name, dtype):
    pad = kernel // 2
    return nn.Conv(
        features,
        (kernel, kernel),
        strides=stride,
        padding=((pad, pad), (pad, pad)),
        use_bias=False,
        dtype=dtype,
        kernel_init=C2_MSRA,
        name=name,
    )


class Bottleneck(nn.Module):
    """1x1, 3x3, 1x1 around a shortcut, which is a projection where the channels change; [B, h, w, C] -> [B, h', w', features].

    Attributes:
        stride_in_1x1: the stride is that of the first convolution (the original paper, Caffe2's weights) instead of the 3x3.
    """

    features: int
    bottleneck_dim: int
    stride: int = 1
    stride_in_1x1: bool = False
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, x: Array) -> Array:
        def normalized(name, norm_name, x, features, kernel, stride=1):
            x = _conv(features, kernel, stride, name, self.dtype)(x)
            return FrozenBatchNorm(self.epsilon, self.dtype, name=norm_name)(x)

        first, second = (self.stride, 1) if self.stride_in_1x1 else (1, self.stride)
        y = jax.nn.relu(normalized("conv1", "norm1", x, self.bottleneck_dim, 1, first))
        y = jax.nn.relu(normalized("conv2", "norm2", y, self.bottleneck_dim, 3, second))
        y = normalized("conv3", "norm3", y, self.features, 1)
        if x.shape[-1] != self.features:
            x = normalized("shortcut", "shortcut_norm", x, self.features, 1, self.stride)
        return jax.nn.relu(x + y)


class ResNet(nn.Module):
    """[B, H, W, 3] normalized -> feature maps by name.

    Attributes:
        num_blocks: of each stage; see `NUM_BLOCKS`.
        stem_dim: channels of the 7x7 convolution.
        bottleneck_dim: inner channels of the first stage; each further stage doubles them.
        res2_dim: outer channels of the first stage; likewise.
        outputs: names of `STRIDES` to return; stages after the last one do not exist.
        epsilon: of the batch normalizations.
    """

    num_blocks: tuple[int, ...] = NUM_BLOCKS[50]
    stem_dim: int = 64
    bottleneck_dim: int = 64
    res2_dim: int = 256
    stride_in_1x1: bool = False
    outputs: tuple[str, ...] = ("res2", "res3", "res4", "res5")
    epsilon: float = 1e-5
    dtype: jnp.dtype = jnp.float32

    @nn.compact
    def __call__(self, image: Array, *, deterministic: bool = True) -> dict[str, Array]:
        """Returns {name: [B, ceil(H / stride), ceil(W / stride), C]} for `outputs`.

        `deterministic` has no effect: backbones are called alike, and nothing is random in this one.

        Raises:
            ValueError: for an output that no stage gives.
        """
        del deterministic
        names = ("stem", *(f"res{i + 2}" for i in range(len(self.num_blocks))))
        unknown = set(self.outputs) - set(names)
        if unknown or not self.outputs:
            raise ValueError(f"resnet outputs: found {self.outputs}, expected some of {names}")
        x = _conv(self.stem_dim, 7, 2, "stem_conv", self.dtype)(image.astype(self.dtype))
        x = jax.nn.relu(FrozenBatchNorm(self.epsilon, self.dtype, name="stem_norm")(x))
        x = nn.max_pool(x, (3, 3), (2, 2), ((1, 1), (1, 1)))
        features = {"stem": x}
        for stage in range(max(map(names.index, self.outputs))):
            for i in range(self.num_blocks[stage]):
                x = Bottleneck(
                    self.res2_dim * 2**stage,
                    self.bottleneck_dim * 2**stage,
                    2 if stage and not i else 1,
                    self.stride_in_1x1,
                    self.epsilon,
                    self.dtype,
                    name=f"res{stage + 2}_{i}",
                )(x)
            features[f"res{stage + 2}"] = x
        return {name: features[name] for name in self.outputs}
