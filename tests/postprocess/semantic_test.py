import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.postprocess.class_scores import log_product_scores, softmax_scores
from jaxseg.postprocess.original_size import crop_and_resize
from jaxseg.postprocess.semantic import semantic_scores

RNG = np.random.default_rng(0)


def test_sum_over_queries():
    scores, masks = RNG.random((2, 3, 4)).astype(np.float32), RNG.random((2, 3, 5, 6)).astype(np.float32)
    found = semantic_scores(scores, masks)
    expected = sum(scores[:, q, :, None, None] * masks[:, q, None] for q in range(3))
    np.testing.assert_allclose(found, expected, rtol=1e-6)
    assert found.shape == (2, 4, 5, 6)


def test_the_two_orders_differ():
    scores = softmax_scores(RNG.standard_normal((1, 3, 4)).astype(np.float32))
    logits = 5 * RNG.standard_normal((1, 3, 16, 16)).astype(np.float32)
    late = crop_and_resize(semantic_scores(scores, jax.nn.sigmoid(logits)), (14, 16), (30, 25))
    early = semantic_scores(scores, jax.nn.sigmoid(crop_and_resize(logits, (14, 16), (30, 25))))
    assert late.shape == early.shape == (1, 3, 30, 25)
    assert 1e-3 < np.abs(late - early).max() < 1


def test_class_scores():
    logits, objects = jnp.asarray([[1.0, 2.0, 3.0]]), jnp.asarray([[0.5, -0.5]])
    parts = np.exp([1, 2, 3]) / np.exp([1, 2, 3]).sum()
    np.testing.assert_allclose(softmax_scores(logits), [parts[:2]], rtol=1e-6)
    np.testing.assert_allclose(jnp.exp(log_product_scores(logits)), [parts[:2]], rtol=1e-6)
    found = jnp.exp(log_product_scores(logits, objects))
    np.testing.assert_allclose(found, [parts[:2] * np.exp(0.5) / (np.exp(0.5) + np.exp(-0.5))], rtol=1e-6)
    assert softmax_scores(logits.astype(jnp.bfloat16)).dtype == jnp.float32
