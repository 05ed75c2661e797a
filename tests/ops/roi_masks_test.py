import jax
import numpy as np

from jaxseg.ops.roi_masks import crop_masks, paste_masks
from tests.ops.roi_align_test import reference


def test_crops_are_means_over_bins():
    """Boxes inside, beyond the image, and of less than a pixel; each with its own mask."""
    rng = np.random.default_rng(0)
    masks = np.repeat(np.repeat(rng.integers(0, 2, (2, 3, 5, 7)), 4, 2), 4, 3).astype(np.uint8)  # 20 x 28
    boxes = np.array([[3.3, 2.1, 21.7, 17.9], [-5, -4, 22, 15.5], [8.2, 9.1, 8.9, 9.4]], np.float32)
    boxes, index = np.stack([boxes, boxes[::-1]]), np.array([[0, 2, 1], [1, 1, 0]])
    found = jax.jit(crop_masks, static_argnums=3)(masks, index, boxes, 4)
    assert found.dtype == bool and found.shape == (2, 3, 4, 4)
    for b, r in np.ndindex(2, 3):
        share = reference(masks[b, index[b, r]][..., None].astype(float), boxes[b, r], 1, 4, 0)[..., 0]
        undecided = np.abs(share - 0.5) < 1e-4
        np.testing.assert_array_equal(np.asarray(found[b, r])[~undecided], (share >= 0.5)[~undecided])
        assert undecided.mean() < 0.3
    assert 0 < np.mean(found) < 1


def value(small, place_y, place_x):
    """Bilinear with zeros around the mask."""
    total = 0.0
    for i, j in np.ndindex(small.shape):
        total += small[i, j] * max(0, 1 - abs(place_y - i)) * max(0, 1 - abs(place_x - j))
    return total


def test_pasted_masks_are_bilinear_over_their_boxes():
    rng = np.random.default_rng(1)
    small = rng.uniform(size=(1, 3, 4, 4)).astype(np.float32)
    boxes = np.array([[[2.5, 1.25, 9.0, 6.5], [-3, -2, 20, 5.5], [4, 4, 4, 9]]], np.float32)
    found = jax.jit(paste_masks, static_argnums=2)(small, boxes, (8, 11))
    assert found.shape == (1, 3, 8, 11)
    for n in range(2):
        x0, y0, x1, y1 = boxes[0, n]
        for y, x in np.ndindex(8, 11):
            place = ((y + 0.5 - y0) / (y1 - y0) * 4 - 0.5, (x + 0.5 - x0) / (x1 - x0) * 4 - 0.5)
            np.testing.assert_allclose(found[0, n, y, x], value(small[0, n], *place), atol=1e-5)
    assert not np.asarray(found[0, 2]).any()


def test_a_mask_comes_back():
    """A disc, cropped to 28 x 28 over its box and pasted again, is the disc but for its border."""
    y, x = np.mgrid[:60, :80] + 0.5
    disc = (y - 31) ** 2 / 20**2 + (x - 40) ** 2 / 30**2 <= 1
    box = np.array([[10, 11, 70, 51]], np.float32)

    @jax.jit
    def there_and_back(mask):
        return paste_masks(crop_masks(mask[None], np.zeros(1, np.int32), box, 28).astype(float), box, (60, 80))[0] >= 0.5

    found = np.asarray(there_and_back(disc))
    assert (found & disc).sum() / (found | disc).sum() > 0.95
