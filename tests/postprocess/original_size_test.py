import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.ops.padding import inside_canvas
from jaxseg.ops.resize import resize
from jaxseg.postprocess.original_size import crop_and_resize

RNG = np.random.default_rng(0)


def step_by_step(x, padded_size, image_size, original_size):
    """One image after another, one step after another."""
    padded = resize(x, padded_size)
    return resize(padded[..., : image_size[0], : image_size[1]], original_size)


def test_static_sizes_equal_the_steps():
    x = RNG.standard_normal((2, 3, 6, 8)).astype(np.float32)
    sizes = (24, 32), (22, 29), (35, 17)
    found = crop_and_resize(x, *sizes[1:], padded_size=sizes[0])
    np.testing.assert_allclose(found, step_by_step(x, *sizes), atol=1e-6)
    padded = resize(x, sizes[0])
    np.testing.assert_allclose(crop_and_resize(padded, *sizes[1:]), found, atol=1e-6)


@pytest.mark.parametrize("padded_size", [(24, 32), None])
def test_sizes_of_a_batch_may_differ(padded_size):
    x = RNG.standard_normal((3, 2, 6, 8) if padded_size else (3, 2, 24, 32)).astype(np.float32)
    image_sizes, original_sizes = [(24, 32), (20, 31), (1, 7)], [(40, 33), (11, 40), (3, 1)]
    run = jax.jit(crop_and_resize, static_argnames=("canvas", "padded_size"))
    found = run(x, jnp.asarray(image_sizes), jnp.asarray(original_sizes), canvas=(40, 48), padded_size=padded_size)
    inside = np.asarray(inside_canvas(jnp.asarray(original_sizes), (40, 48)))
    for i, (image_size, (height, width)) in enumerate(zip(image_sizes, original_sizes, strict=True)):
        expected = step_by_step(x[i : i + 1], (24, 32), image_size, (height, width))[0]
        np.testing.assert_allclose(found[i, :, :height, :width], expected, atol=1e-5)
        assert inside[i, :height, :width].all() and inside[i].sum() == height * width
    np.testing.assert_array_equal(np.where(inside[:, None], 0, found), 0)
