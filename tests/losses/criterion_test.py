import functools

import jax
import jax.numpy as jnp
import numpy as np
import pytest

from jaxseg.losses.criterion import DenseMasks, PointMasks, SetCriterion, SoftmaxClasses
from jaxseg.losses.masks import dice_loss, mask_loss
from jaxseg.ops.resize import resize

WEIGHTS = {"class": 2.0, "mask": 5.0, "dice": 5.0}
POINTS = SetCriterion((SoftmaxClasses(0.1), PointMasks(8)), WEIGHTS, WEIGHTS)
B, Q, K, T = 4, 5, 3, 4


def draw(name, shape):
    """The same numbers for an image wherever it stands in a batch."""
    return jnp.broadcast_to(jax.random.uniform(jax.random.key(len(name)), shape[1:])[None], shape)


def layers_of(rng, names=("final", "aux_0")):
    def outputs():
        return {
            "class_logits": rng.normal(size=(B, Q, K + 1)).astype(np.float32),
            "mask_logits": (3 * rng.normal(size=(B, Q, 4, 6))).astype(np.float32),
        }

    return {name: outputs() for name in names}


def targets_of(rng, counts):
    valid = np.arange(T) < np.array(counts)[:, None]
    return {
        "labels": np.where(valid, rng.integers(0, K, (B, T)), 0),
        "masks": (rng.uniform(size=(B, T, 8, 12)) < 0.4).astype(np.uint8),
        "valid": valid,
    }


@functools.partial(jax.jit, static_argnums=0)
def run(criterion, layers, targets):
    """Loss, gradients, terms and pairs, as the train step divides."""

    def loss(layers):
        terms, pairs = criterion(layers, targets, draw)
        return sum(weight * total / jnp.maximum(count, 1e-12) for total, count, weight in terms.values()), (terms, pairs)

    (value, (terms, pairs)), gradients = jax.value_and_grad(loss, has_aux=True)(layers)
    return value, gradients, terms, pairs


class Hashable(SetCriterion):
    __hash__ = object.__hash__


CRITERION = Hashable(POINTS.parts, WEIGHTS, WEIGHTS)


def test_empty_images_and_micro_batches():
    """Counts, sums of halves, and what padding holds; the first image has no object, the last has all slots filled."""
    rng = np.random.default_rng(0)
    layers, targets = layers_of(rng), targets_of(rng, [0, 2, 1, 4])
    value, gradients, terms, pairs = run(CRITERION, layers, targets)
    assert set(terms) == {f"{layer}/{name}" for layer in layers for name in WEIGHTS} | {"finite_costs"}
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    assert not gradients["final"]["mask_logits"][0].any() and gradients["final"]["class_logits"][0].any()
    for layer in layers:
        assert terms[f"{layer}/mask"][1] == terms[f"{layer}/dice"][1] == 7
        np.testing.assert_allclose(terms[f"{layer}/class"][1], 7 + 0.1 * (B * Q - 7), rtol=1e-6)
        np.testing.assert_array_equal(np.asarray(pairs[layer].valid).sum(1), [0, 2, 1, 4])
    assert terms["finite_costs"][:2] == (2 * B, 2 * B) and terms["finite_costs"][2] == 0

    def half(tree, part):  # twice, so that the same program runs
        return jax.tree.map(lambda x: np.concatenate([x[2 * part : 2 * part + 2]] * 2), tree)

    halves = [run(CRITERION, half(layers, i), half(targets, i))[2] for i in (0, 1)]
    for name, (total, count, _) in terms.items():
        np.testing.assert_allclose(sum(x[name][0] for x in halves) / 2, total, rtol=1e-4)
        np.testing.assert_allclose(sum(x[name][1] for x in halves) / 2, count, rtol=1e-6)

    other = {**targets, "masks": np.where(targets["valid"][:, :, None, None], targets["masks"], 1)}
    np.testing.assert_allclose(run(CRITERION, layers, other)[0], value, rtol=1e-6)


def test_no_object_in_the_batch():
    rng = np.random.default_rng(1)
    value, gradients, terms, _ = run(CRITERION, layers_of(rng), targets_of(rng, [0] * B))
    assert np.isfinite(value) and all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))
    assert terms["final/mask"][:2] == (0, 0) and not np.any(gradients["final"]["mask_logits"])
    np.testing.assert_allclose(terms["final/class"][1], 0.1 * B * Q, rtol=1e-6)


def test_no_slots_for_objects():
    rng = np.random.default_rng(2)
    targets = {name: x[:, :0] for name, x in targets_of(rng, [0] * B).items()}
    value, gradients, terms, _ = run(CRITERION, layers_of(rng, ("final",)), targets)
    assert np.isfinite(value) and terms["final/dice"][:2] == (0, 0)
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_more_objects_than_queries():
    rng = np.random.default_rng(3)
    layers = jax.tree.map(lambda x: x[:, :2], layers_of(rng, ("final",)))
    _, gradients, terms, pairs = run(CRITERION, layers, targets_of(rng, [4, 3, 1, 0]))
    np.testing.assert_array_equal(np.asarray(pairs["final"].valid).sum(1), [2, 2, 1, 0])
    np.testing.assert_allclose(terms["final/class"][1], 5 + 0.1 * 3, rtol=1e-6)
    assert terms["final/mask"][1] == 8  # all objects count, as in the reference
    assert all(np.isfinite(x).all() for x in jax.tree.leaves(gradients))


def test_predictions_that_are_not_numbers_are_reported():
    rng = np.random.default_rng(0)
    layers, targets = layers_of(rng), targets_of(rng, [0, 2, 1, 4])
    layers["final"]["mask_logits"][1:3, 0] = np.nan
    layers["aux_0"]["mask_logits"][0] = np.inf  # of an image without objects: no cost is asked for
    _, _, terms, pairs = run(CRITERION, layers, targets)
    assert terms["finite_costs"][:2] == (2 * B - 2, 2 * B)
    assert np.asarray(pairs["final"].finite).tolist() == [True, False, False, True]
    # The broken query is the worst choice, so that a loss may be finite: the term tells.
    assert 0 not in np.asarray(pairs["final"].queries)[[1, 2]][np.asarray(pairs["final"].valid)[[1, 2]]]


def test_matched_loss_is_least_for_the_right_pair():
    """A query that predicts one object exactly is matched with it, and pushed no further."""
    rng = np.random.default_rng(5)
    layers, targets = layers_of(rng), targets_of(rng, [1] * B)
    exact = np.where(targets["masks"][:, 0, ::2, ::2], 20.0, -20.0).astype(np.float32)
    targets["masks"][:, 0] = np.repeat(np.repeat(exact > 0, 2, 1), 2, 2)
    layers["final"]["mask_logits"][:, 3] = exact
    _, _, _, pairs = run(CRITERION, layers, targets)
    assert np.asarray(pairs["final"].queries)[:, 0].tolist() == [3] * B


def test_dense_masks():
    """MaskFormer: one object in the first image, against the definition."""
    rng = np.random.default_rng(6)
    layers, targets = layers_of(rng, ("final",)), targets_of(rng, [1, 0, 0, 0])
    weights = {"class": 1.0, "mask": 20.0, "dice": 1.0}
    _, _, terms, pairs = run(Hashable((SoftmaxClasses(), DenseMasks()), weights, weights), layers, targets)
    query = int(pairs["final"].queries[0, 0])
    logits = resize(layers["final"]["mask_logits"][0, query], (8, 12)).ravel()
    target = targets["masks"][0, 0].ravel()
    np.testing.assert_allclose(terms["final/mask"][0], mask_loss(logits, target, (0.25, 2.0)), rtol=1e-5)
    np.testing.assert_allclose(terms["final/dice"][0], dice_loss(logits, target), rtol=1e-5)
    assert terms["final/mask"][1] == 1 and terms["final/mask"][2] == 20


def test_weights_fit_the_parts():
    rng = np.random.default_rng(7)
    criterion = SetCriterion(POINTS.parts, {"class": 1.0, "mask": 1.0}, WEIGHTS)
    with pytest.raises(ValueError, match=r"cost_weights: found \['class', 'mask'\], expected \['class', 'dice', 'mask'\]"):
        jax.eval_shape(lambda x: criterion(x, targets_of(rng, [0] * B), draw)[0], layers_of(rng))
