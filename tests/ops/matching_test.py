import jax
import jax.numpy as jnp
import numpy as np
import pytest
from scipy.optimize import linear_sum_assignment

from jaxseg.ops.matching import match

MATCH = jax.jit(match)


def check(costs, valid, pairs):
    """Against scipy, image by image; costs are distinct, so the optimum is unique."""
    for b in np.ndindex(valid.shape[:-1]):
        columns = np.flatnonzero(valid[b])
        queries, targets = linear_sum_assignment(costs[b][:, columns])
        kept = np.asarray(pairs.valid[b])
        assert kept.sum() == len(queries) and kept[: len(queries)].all()
        np.testing.assert_array_equal(np.asarray(pairs.queries[b])[kept], queries)
        np.testing.assert_array_equal(np.asarray(pairs.targets[b])[kept], columns[targets])
        assert len(set(np.asarray(pairs.queries[b]).tolist())) == len(kept)  # distinct, padding too


@pytest.mark.parametrize(("num_queries", "num_targets"), [(7, 5), (4, 7)])
def test_optimum_is_scipys(num_queries, num_targets):
    """Images with none, some and all targets valid, in any order; more targets than queries in the second case."""
    rng = np.random.default_rng(0)
    shape = (3, 16, num_queries, num_targets)  # batch axes: layers and images
    costs = rng.normal(size=shape).astype(np.float32) * np.array([1, 100, 1], np.float32)[:, None, None, None]
    costs[2] += 10 * rng.normal(size=(16, num_queries, 1))  # all targets want the same query
    valid = rng.uniform(size=(3, 16, num_targets)) < 0.6
    valid[:, 0], valid[:, 1] = False, True
    costs = np.where(valid[:, :, None], costs, np.nan)  # what padding holds does not matter
    pairs = MATCH(jnp.asarray(costs), jnp.asarray(valid))
    assert np.asarray(pairs.finite).all()
    check(costs, valid, pairs)


def test_costs_that_are_not_finite_are_the_worst_and_are_reported():
    costs = np.random.default_rng(1).uniform(size=(16, 7, 5)).astype(np.float32)
    costs[0, 2, 3], costs[1, :, 0], costs[2], costs[3, 1] = np.nan, np.inf, np.nan, -np.inf
    costs[4, 0, 0], costs[5, 0, 0] = 3e38, -3e38  # finite: fine
    valid = np.ones((16, 5), bool)
    pairs = MATCH(jnp.asarray(np.stack([costs] * 3)), jnp.asarray(np.stack([valid] * 3)))
    pairs = jax.tree.map(lambda x: np.asarray(x[0]), pairs)
    np.testing.assert_array_equal(pairs.finite, [i not in (0, 1, 2, 3) for i in range(16)])
    assert pairs.valid.all()
    worst = np.where(np.isfinite(costs), costs, np.nan_to_num(costs, nan=9, posinf=9, neginf=9))
    for b in (0, 3, 5, 6):
        np.testing.assert_array_equal(np.sort(pairs.targets[b]), np.arange(5))
        found = worst[b, pairs.queries[b], pairs.targets[b]].sum()
        assert found == pytest.approx(worst[b][linear_sum_assignment(worst[b])].sum())


def test_few_targets_and_values_at_their_queries():
    """Images: different wishes, one target that is not valid, equal costs."""
    costs = np.array([[[5, 1], [1, 5], [9, 9]]] * 2 + [[[1, 1]] * 3], np.float32)
    valid = np.array([[True, True], [False, True], [True, True]])

    @jax.jit
    def values(costs, valid):
        pairs = match(costs, valid)
        labels = jnp.take_along_axis(jnp.asarray([[3, 4]] * 3), pairs.targets, axis=1)
        gradient = jax.grad(lambda costs: jnp.sum(costs * match(costs, valid).queries[:, :1, None]))(costs)
        return pairs.to_queries(labels, 3, 9), gradient

    labels, gradient = values(costs, valid)
    assert labels[:2].tolist() == [[4, 3, 9], [4, 9, 9]] and sorted(labels[2].tolist()) == [3, 4, 9]
    np.testing.assert_array_equal(gradient[:2], np.zeros((2, 3, 2)))  # of the product alone: none through the matching


def test_no_slots_for_targets():
    empty = match(jnp.ones((2, 4, 0)), jnp.ones((2, 0), bool))
    assert empty.queries.shape == (2, 0) and np.asarray(empty.finite).all()
    assert np.asarray(empty.to_queries(jnp.zeros((2, 0)), 4, 7.0)).tolist() == [[7.0] * 4] * 2
