import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.losses.distillation import Distillation

# Columns of a 1 x 8 picture; points are the pixels' centres.
POINTS = jnp.asarray([[(i + 0.5) / 8, 0.5] for i in range(8)])


def draw(name, shape):
    return jnp.broadcast_to(POINTS[None], shape)


def masks(*columns):
    out = np.zeros((len(columns), 1, 8), np.uint8)
    for mask, found in zip(out, columns, strict=True):
        mask[0, list(found)] = 1
    return out


TEACHER = masks([0, 1, 2], [5, 6, 7], [5, 6], [3, 4], [])
SCORES = np.array([0.95, 0.9, 0.99, 0.5, 0.81], np.float32)
ANNOTATED = masks([0, 1], [2, 3, 4, 5, 6])  # the second slot is padding in the first image, all are in the second


def distil(max_targets=None, valid=((True, False), (False, False))):
    targets = {"masks": np.stack([ANNOTATED] * 2), "valid": np.array(valid)}
    distillation = Distillation(0.8, 0.3, 8, max_targets)
    return jax.jit(lambda *x: distillation(*x, draw))(np.stack([SCORES] * 2), np.stack([TEACHER] * 2), targets)


def rows(found, image):
    valid = np.asarray(found.targets["valid"][image])
    assert not np.asarray(found.targets["labels"]).any()
    return np.asarray(found.targets["masks"][image])[valid].tolist()


def test_confident_new_and_distinct_masks_join():
    found = distil()
    # 0 resembles the annotation, 3 is not confident, 4 is empty: its dice with [0, 1] is 1/3. 1 loses against 2.
    assert np.asarray(found.candidate).tolist() == [[False, True, True, False, False], [True, True, True, False, True]]
    assert np.asarray(found.kept[0]).tolist() == [False, False, True, False, False]
    assert rows(found, 0) == [*ANNOTATED[:1].tolist(), TEACHER[2].tolist()]
    np.testing.assert_allclose(found.dice[0, :, 0], [5 / 6, 1 / 6, 1 / 5, 1 / 5, 1 / 3])
    # Without annotations all confident ones are candidates; the empty mask resembles [5, 6] (1/3).
    assert rows(found, 1) == [TEACHER[2].tolist(), TEACHER[0].tolist()]
    assert found.targets["masks"].shape == (2, 7, 1, 8)


def test_the_worst_of_the_teacher_is_left_out_first():
    found = distil(max_targets=1)
    assert rows(found, 0) == ANNOTATED[:1].tolist() and rows(found, 1) == [TEACHER[2].tolist()]
    behind_padding = distil(max_targets=2, valid=((False, True), (True, True)))
    assert rows(behind_padding, 0) == [*ANNOTATED[1:].tolist(), TEACHER[4].tolist()]  # of the others each resembles it
    assert rows(behind_padding, 1) == ANNOTATED.tolist()


def test_without_slots_for_annotations():
    targets = {"masks": np.zeros((2, 0, 1, 8), np.uint8), "valid": np.zeros((2, 0), bool)}
    found = jax.jit(lambda *x: Distillation(0.8, 0.3, 8)(*x, draw))(np.stack([SCORES] * 2), np.stack([TEACHER] * 2), targets)
    assert rows(found, 0) == [TEACHER[2].tolist(), TEACHER[0].tolist()]
