"""Perceptrons: layers and initial values."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.nn.perceptron import Perceptron


@pytest.mark.parametrize("init, bounds", [("torch", (0.5, 0.25)), ("xavier", ((6 / 20) ** 0.5, (6 / 18) ** 0.5))])
def test_layers_and_initial_values(init, bounds):
    x = np.random.default_rng(0).standard_normal((3, 4)).astype(np.float32)
    module = Perceptron((16, 2), init)
    params = jax.tree.map(np.asarray, module.init(jax.random.key(0), x)["params"])
    for name, bound, bias_bound in (("fc1", bounds[0], 4**-0.5), ("fc2", bounds[1], 16**-0.5)):
        assert 0.8 * bound < np.abs(params[name]["kernel"]).max() <= bound
        assert 0 < np.abs(params[name]["bias"]).max() <= bias_bound
    hidden = np.maximum(0, x @ params["fc1"]["kernel"] + params["fc1"]["bias"])
    expected = hidden @ params["fc2"]["kernel"] + params["fc2"]["bias"]
    np.testing.assert_allclose(module.apply({"params": params}, x), expected, rtol=1e-5, atol=1e-6)


def test_an_unknown_initializer_is_named():
    with pytest.raises(ValueError, match="found 'he'"):
        jax.eval_shape(Perceptron((2,), "he").init, jax.random.key(0), jnp.zeros((1, 2)))
