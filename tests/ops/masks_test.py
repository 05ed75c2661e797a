import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.ops import boxes
from jaxseg.ops import masks as M

MASKS = np.zeros((4, 5, 6), bool)
MASKS[0, 1:3, 2:6] = True  # 8 pixels
MASKS[1, 2, 3] = True  # one pixel, inside of the first
MASKS[2] = True
# the last is empty


BOXES = [[2, 1, 6, 3], [3, 2, 4, 3], [0, 0, 6, 5], [0, 0, 0, 0]]
IOU, BOX_IOU = jax.jit(M.pairwise_iou), jax.jit(boxes.pairwise_iou)


def test_areas_and_boxes():
    areas, boxes = jax.jit(lambda masks: (M.mask_areas(masks), M.mask_boxes(masks)))(MASKS.astype(np.uint8))
    assert areas.tolist() == [8, 1, 30, 0] and boxes.tolist() == BOXES
    assert jax.eval_shape(M.mask_boxes, jnp.zeros((2, 0, 3, 3))).shape == (2, 0, 4)


def test_iou_with_crowds():
    expected = np.array([[1, 1 / 8, 8 / 30, 0], [1 / 8, 1, 1 / 30, 0], [8 / 30, 1 / 30, 1, 0], [0, 0, 0, 0]])
    np.testing.assert_allclose(IOU(MASKS, MASKS), expected, rtol=1e-6)
    crowd = np.array([True, False, True, True])
    with_crowds = [[1, 1 / 8, 1, 0], [1, 1, 1, 0], [8 / 30, 1 / 30, 1, 0], [0, 0, 0, 0]]
    np.testing.assert_allclose(IOU(MASKS[None], MASKS[None], crowd[None])[0], with_crowds, rtol=1e-6)
    around = np.array(BOXES, np.float32)
    np.testing.assert_allclose(BOX_IOU(around, around), expected, rtol=1e-6)
    np.testing.assert_allclose(BOX_IOU(around, around, crowd), with_crowds, rtol=1e-6)
    apart = np.array([[0, 0, 1, 1], [2, 2, 3, 3], [1, 0, 2, 1], [0, 0, 0, 0]], np.float32)
    np.testing.assert_array_equal(BOX_IOU(apart, apart), np.diag([1, 1, 1, 0]))


def test_dice_of_soft_and_empty_masks():
    a = np.array([[1, 0.5, 0, 0], [0, 0, 0, 0]], np.float32)
    dice = jax.jit(M.pairwise_dice, static_argnums=2)
    np.testing.assert_allclose(dice(a, a, 1.0), [[3.5 / 4, 1 / 2.5], [1 / 2.5, 1]])
    np.testing.assert_allclose(dice(a[:1] > 0, a[:1] > 0, 0.0), [[1]])
    shape = jax.eval_shape(M.pairwise_products, jnp.ones((2, 3, 7), jnp.bfloat16), jnp.ones((2, 4, 7), jnp.uint8))
    assert shape.shape == (2, 3, 4) and shape.dtype == jnp.float32
