"""Random parameters for tests without running an initializer (a jitted init compiles for longer than most tests run)."""

import jax
import numpy as np


def fill(shapes, seed=0, scale=0.1):
    """Numpy arrays of the shapes and dtypes of a tree: floats are normal, `scale` and `var` leaves are near 1."""
    rng = np.random.default_rng(seed)

    def leaf(path, shape):
        name = str(getattr(path[-1], "key", path[-1])) if path else ""
        if not np.issubdtype(shape.dtype, np.floating):
            return np.zeros(shape.shape, shape.dtype)
        values = rng.standard_normal(shape.shape) * scale
        if name in ("scale", "var"):
            values = 1 + 0.5 * np.abs(values)
        return np.asarray(values, shape.dtype)

    return jax.tree_util.tree_map_with_path(leaf, shapes)
