import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.metrics.boundary import boundary_labels, boundary_width, published_boundary


def test_width_is_two_percent_of_the_diagonal():
    sizes = [(3, 4), (15, 20), (45, 60), (75, 100), (105, 140), (480, 640), (1024, 2048), (7, 333)]
    expected = [1, 1, 2, 2, 4, 16, 46, 7]  # ties at diagonals of 25, 75, 125 and 175 go to the even number
    assert [boundary_width(size) for size in sizes] == expected
    np.testing.assert_array_equal(boundary_width(jnp.asarray(sizes)), expected)


def by_definition(labels, width):
    height, columns = labels.shape
    found = np.full(labels.shape, -1)
    for y in range(height):
        for x in range(columns):
            inside = width <= y < height - width and width <= x < columns - width
            window = labels[max(y - width, 0) : y + width + 1, max(x - width, 0) : x + width + 1]
            if not inside or (window != labels[y, x]).any():
                found[y, x] = labels[y, x]
    return found


def test_boundaries_follow_the_definition_at_each_size_in_a_canvas():
    rng = np.random.default_rng(0)
    sizes = [(60, 80), (20, 30)]  # widths 2 and 1
    labels = np.full((2, 64, 80), -1)
    for i, (height, width) in enumerate(sizes):
        labels[i, :height, :width] = np.repeat(np.repeat(rng.integers(-1, 4, (4, 5)), 15, 0), 16, 1)[:height, :width]
    rubbish = np.where(np.arange(80) < 30, labels, 3)  # beyond the image nothing may matter
    rubbish[0] = labels[0]
    found = np.asarray(jax.jit(boundary_labels)(jnp.asarray(rubbish), jnp.asarray(sizes)))
    for i, (height, width) in enumerate(sizes):
        expected = by_definition(labels[i, :height, :width], boundary_width(sizes[i]))
        np.testing.assert_array_equal(found[i, :height, :width], expected)
    assert (found[1, 20:] == -1).all() and (found[1, :, 30:] == -1).all()


def test_published_boundary_subtracts_the_lowest_label():
    labels = jnp.asarray([[[5, 5, 5, 5], [5, 5, 5, 5], [5, 5, 5, 2], [5, 5, 5, 5]]])
    expected = [[5, 5, 5, 5], [5, 0, 3, 5], [5, 0, 3, 2], [5, 5, 5, 5]]
    np.testing.assert_array_equal(jax.jit(published_boundary)(labels, jnp.asarray([[4, 4]]))[0], expected)
