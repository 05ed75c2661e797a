import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.ops.roi_align import assign_levels, roi_align

STRIDES = (4, 8)
SHAPES = ((9, 12), (5, 6))  # the second is smaller than half: maps of padded images need not divide
BOXES = np.array(
    [
        [3.0, 5.0, 30.5, 21.0],
        [-9.0, -7.0, 20.0, 60.0],  # beyond the image on three sides
        [40.0, 30.0, 47.9, 35.9],  # the last pixels
        [10.0, 10.0, 10.0, 14.0],  # no area
        [0.0, 0.0, 47.0, 6.0],  # wide
    ],
    np.float32,
)
LEVELS = np.array([0, 0, 1, 0, 1], np.int32)


def bilinear(map_, y, x):
    """One value, from four pixels; one pixel beyond the border the outermost goes on."""
    height, width = map_.shape[:2]
    if not (-1 <= y <= height and -1 <= x <= width):
        return np.zeros(map_.shape[2])
    y, x = min(max(y, 0), height - 1), min(max(x, 0), width - 1)
    y0, x0 = int(y), int(x)
    y1, x1 = min(y0 + 1, height - 1), min(x0 + 1, width - 1)
    top = map_[y0, x0] * (1 - (x - x0)) + map_[y0, x1] * (x - x0)
    bottom = map_[y1, x0] * (1 - (x - x0)) + map_[y1, x1] * (x - x0)
    return top * (1 - (y - y0)) + bottom * (y - y0)


def reference(map_, box, stride, size, samples):
    """[size, size, C], bin by bin; samples 0: as many as a bin has pixels."""
    x0, y0, x1, y1 = box / stride - 0.5
    bin_h, bin_w = (y1 - y0) / size, (x1 - x0) / size
    rows, columns = (samples or int(np.ceil(extent)) for extent in (bin_h, bin_w))
    out = np.zeros((size, size, map_.shape[2]))
    for i, j in np.ndindex(size, size):
        for u, v in np.ndindex(rows, columns):
            out[i, j] += bilinear(map_, y0 + (i + (u + 0.5) / rows) * bin_h, x0 + (j + (v + 0.5) / columns) * bin_w)
    return out / max(rows * columns, 1)


def maps(seed=0):
    rng = np.random.default_rng(seed)
    return tuple(rng.normal(size=(2, *shape, 3)).astype(np.float32) for shape in SHAPES)


@pytest.mark.parametrize("samples", [2, 0])
def test_values(samples):
    """Two images of two maps; bins of up to 7 pixels, with a fixed number of samples and with one for each pixel."""
    pyramid, boxes, levels = maps(), np.stack([BOXES, BOXES[::-1]]), np.stack([LEVELS, LEVELS[::-1]])
    options = {"num_samples": samples or 7, "adaptive": not samples}
    found = jax.jit(lambda m, b, i: roi_align(m, STRIDES, b, i, 3, **options))(pyramid, boxes, levels)
    for b, r in np.ndindex(2, len(BOXES)):
        level = levels[b, r]
        expected = reference(pyramid[level][b].astype(float), boxes[b, r], STRIDES[level], 3, samples)
        np.testing.assert_allclose(found[b, r], expected, rtol=1e-4, atol=2e-5)


def test_gradient_is_the_transpose():
    """Regions are linear in the maps: the gradient of a weighted sum is its change when a pixel changes by one."""
    pyramid = tuple(x[0, :4, :5, :1] for x in maps())
    boxes, levels = BOXES[:3] / 3, LEVELS[:3]
    weights = np.random.default_rng(1).normal(size=(3, 2, 2, 1))

    @jax.jit
    def total(pyramid):
        return jnp.sum(weights * roi_align(pyramid, STRIDES, boxes, levels, 2, num_samples=4, adaptive=True))

    gradients = jax.jit(jax.grad(total))(pyramid)
    for level, gradient in enumerate(gradients):
        for pixel in np.ndindex(gradient.shape):
            unit = np.zeros(gradient.shape)
            unit[pixel] = 1
            regions = [
                np.sum(weights[r] * reference(unit, boxes[r], STRIDES[level], 2, 0)) for r in range(3) if levels[r] == level
            ]
            np.testing.assert_allclose(gradient[pixel], sum(regions), rtol=1e-4, atol=1e-5)


def test_half_precision_is_summed_in_full():
    pyramid = tuple(x.astype(jnp.bfloat16) for x in maps())
    align = jax.jit(lambda m: roi_align(m, STRIDES, np.stack([BOXES] * 2), np.stack([LEVELS] * 2), 2))
    found = align(pyramid)
    assert found.dtype == jnp.bfloat16
    expected = reference(np.asarray(pyramid[0][0], float), BOXES[0], 4, 2, 2)
    np.testing.assert_allclose(np.asarray(found[0, 0], float), expected, rtol=4e-3, atol=4e-3)


def test_levels_by_area():
    sides = np.array([0, 1, 111, 112, 223, 225, 447, 449, 5000, np.nan])
    boxes = np.stack([np.zeros_like(sides), np.zeros_like(sides), sides * 2, sides / 2], -1)
    assert assign_levels(boxes, 4).tolist()[:-1] == [0, 0, 0, 1, 1, 2, 2, 3, 3]
    assert assign_levels(boxes, 4)[-1] in (0, 1, 2, 3)
