import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.ops.sampling import grid_sample, sample_points, uncertain_points, uniform_draw


def by_hand(image, x, y, padding):
    """One bilinear value at a position in pixels."""
    height, width = image.shape
    if padding == "border":
        x, y = np.clip(x, 0, width - 1), np.clip(y, 0, height - 1)
    total = 0.0
    for row in (int(np.floor(y)), int(np.floor(y)) + 1):
        for column in (int(np.floor(x)), int(np.floor(x)) + 1):
            if 0 <= row < height and 0 <= column < width:
                total += image[row, column] * (1 - abs(y - row)) * (1 - abs(x - column))
    return total


@pytest.mark.parametrize("padding", ["zeros", "border"])
@pytest.mark.parametrize("align_corners", [False, True])
def test_grid_sample_by_definition(padding, align_corners):
    rng = np.random.default_rng(0)
    maps = rng.normal(size=(2, 3, 4, 5)).astype(np.float32)
    grid = rng.uniform(-1.6, 1.6, size=(2, 40, 2)).astype(np.float32)
    grid[0, :5] = [[-1, -1], [1, 1], [0, 0], [1, -1], [-1, 1]]
    found = jax.jit(lambda maps, grid: grid_sample(maps, grid, padding=padding, align_corners=align_corners))(maps, grid)
    found = np.asarray(found)
    scale = (lambda g, n: (g + 1) / 2 * (n - 1)) if align_corners else (lambda g, n: ((g + 1) * n - 1) / 2)
    for b, c, p in np.ndindex(2, 3, 40):
        x, y = scale(grid[b, p, 0].astype(float), 5), scale(grid[b, p, 1].astype(float), 4)
        assert found[b, c, p] == pytest.approx(by_hand(maps[b, c], x, y, padding), abs=2e-5)


def test_far_points_and_types():
    maps = np.arange(6, dtype=np.uint8).reshape(1, 2, 3)
    points = np.array([[0.5, 0.25], [1e30, 0.5], [-np.inf, 0.5], [1 / 6, 0.75], [0.0, 0.25], [np.nan, 0.5]], np.float32)

    @jax.jit
    def sample(maps, points):
        gradient = jax.grad(lambda points: jnp.sum(sample_points(maps, points)))(points)
        return sample_points(maps, points), sample_points(maps > 2, points), gradient

    values, of_booleans, gradient = sample(maps, points)
    assert values.dtype == jnp.float32
    np.testing.assert_allclose(values, [[1, 0, 0, 3, 0, 0]], atol=1e-6)
    np.testing.assert_allclose(of_booleans, [[0, 0, 0, 1, 0, 0]], atol=1e-6)
    assert np.isfinite(gradient[:5]).all() and (gradient[1:3] == 0).all()
    with pytest.raises(ValueError, match="padding"):
        grid_sample(maps, points, padding="reflection")


def test_gradient_reaches_the_four_pixels():
    points = np.full((2, 1, 2), 0.5, np.float32)
    gradient = jax.jit(jax.grad(lambda maps: jnp.sum(sample_points(maps, points))))(np.zeros((2, 1, 2, 4), np.float32))
    np.testing.assert_allclose(gradient, [[[[0, 0.25, 0.25, 0]] * 2]] * 2)
    one = jax.jit(sample_points)(np.ones((2, 1, 1, 1), np.float32), points)  # a map of one pixel
    np.testing.assert_allclose(one, np.ones((2, 1, 1)))


def test_uncertain_points():
    """Logits grow from left to right through 0 at x = 0.5; the nearest points stay, and the random ones follow."""
    logits = np.broadcast_to(np.arange(8, dtype=np.float32) - 3.5, (2, 3, 8, 8))
    seen = {}

    def draw(name, shape):
        # Half a pixel from the border the zeros outside make every logit small.
        seen[name] = np.random.default_rng(len(seen)).uniform(0.1, 0.9, size=shape).astype(np.float32)
        return jnp.asarray(seen[name])

    points = jax.jit(lambda x: uncertain_points(x, 10, draw))(logits)
    assert points.shape == (2, 3, 10, 2)
    assert {name: x.shape for name, x in seen.items()} == {"oversample": (2, 3, 30, 2), "random": (2, 3, 3, 2)}
    distance = np.sort(abs(seen["oversample"][..., 0] - 0.5))
    np.testing.assert_allclose(np.sort(abs(np.asarray(points)[..., :7, 0] - 0.5)), distance[..., :7], atol=1e-6)
    np.testing.assert_array_equal(points[..., 7:, :], seen["random"])
    with pytest.raises(ValueError, match="importance_ratio"):
        uncertain_points(logits, 10, draw, oversample_ratio=0.5)


@pytest.mark.parametrize("importance_ratio", [0.0, 1.0])
def test_all_points_of_one_kind(importance_ratio):
    def points(logits):
        return uncertain_points(logits, 4, uniform_draw(jax.random.key(1)), importance_ratio=importance_ratio)

    assert jax.eval_shape(points, jnp.zeros((2, 0, 3, 3))).shape == (2, 0, 4, 2)


def test_draws_differ_by_name():
    draw = uniform_draw(jax.random.key(0))
    assert not np.allclose(draw("a", (4,)), draw("b", (4,)))
    np.testing.assert_array_equal(draw("a", (4,)), draw("a", (4,)))
