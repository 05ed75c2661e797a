import functools

import jax
import numpy as np

from jaxseg.losses.assignment import assign_labels

ASSIGN = jax.jit(functools.partial(assign_labels, size=(2, 2), threshold=0.39, background=9))


def test_many_queries_may_show_one_object():
    truth = np.zeros((2, 3, 4, 4), np.uint8)
    truth[:, 0, :2] = truth[:, 1, :2] = truth[:, 2, :, :2] = 1  # 0 and 1 are equal
    targets = {"masks": truth, "labels": np.array([[5, 6, 7]] * 2), "valid": np.array([[True] * 3, [False, True, False]])}
    logits = np.full((2, 4, 2, 2), -1, np.float32)
    logits[:, :2, 0] = 1  # the upper half, twice
    logits[:, 2, :, 0] = 1  # the left half
    logits[:, 3, 0, 0] = 1  # one pixel: dice 3/4, loss 1/4
    found = jax.tree.map(np.asarray, ASSIGN(logits, targets))
    assert found.labels.tolist() == [[5, 5, 7, 5], [6, 6, 9, 6]]
    assert found.targets.tolist() == [[0, 0, 2, 0], [1, 1, 0, 1]]
    assert found.assigned.tolist() == [[True] * 4, [True, True, False, True]]
    np.testing.assert_allclose(found.costs[0, :, 0], [0, 0, 0.4, 0.25], atol=1e-6)
    assert np.isinf(found.costs[1][:, [0, 2]]).all()


def test_without_objects_everything_is_background():
    targets = {"masks": np.zeros((2, 3, 4, 4), np.uint8), "labels": np.zeros((2, 3), int), "valid": np.zeros((2, 3), bool)}
    assert (np.asarray(ASSIGN(np.ones((2, 4, 2, 2), np.float32), targets).labels) == 9).all()
    none = {name: x[:, :0] for name, x in targets.items()}
    found = ASSIGN(np.ones((2, 4, 2, 2), np.float32), none)
    assert (np.asarray(found.labels) == 9).all() and not np.asarray(found.assigned).any() and found.costs.shape == (2, 4, 0)
