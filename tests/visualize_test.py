"""Pictures: sizes, what is painted and what is not, and labels that stay readable."""

import numpy as np
import pytest

from jaxseg import visualize
from jaxseg.drawing.lettering import Labels, Place, font_size, one_line
from jaxseg.drawing.palette import luminance, palette, text_color
from jaxseg.text.vocabulary import Vocabulary

LARGE = (480, 640)  # not enlarged


def gray(size=LARGE, value=120):
    return np.full((*size, 3), value, np.uint8)


def disk(size, x, y, radius):
    rows, columns = np.ogrid[: size[0], : size[1]]
    return (rows - y) ** 2 + (columns - x) ** 2 <= radius**2


def test_a_mask_is_tinted_and_outlined_and_the_rest_is_left_alone():
    mask = disk(LARGE, 320, 240, 150)
    picture = visualize.draw_masks(gray(), [mask], ["disk"], [0.9], colors=[(255, 0, 0)])
    assert picture.shape == (*LARGE, 3) and picture.dtype == np.uint8
    assert (picture[~mask] == 120).all()
    inside = picture[150, 320].astype(int)
    assert inside[0] > 150 and inside[1] < 100 and inside[2] < 100
    assert (picture[90, 320] == (255, 0, 0)).all()  # the edge's topmost pixel, opaque
    changed = picture[mask].astype(int)
    assert (abs(changed - inside).max(1) > 0).mean() < 0.15  # tint, but for outline and label


def test_the_input_is_not_written_to():
    image, mask = gray((40, 40)), np.ones((40, 40), bool)
    image.flags.writeable = mask.flags.writeable = False
    visualize.draw_masks(image, [mask], ["x"])
    large = gray()
    visualize.draw_masks(large, [np.ones(LARGE, bool)], ["x"])
    assert (large == 120).all()


@pytest.mark.parametrize("size", [(1, 1), (64, 64), (10, 90), (2, 900), (900, 2), (479, 479), (480, 640)])
def test_small_images_are_enlarged_by_a_whole_factor(size):
    picture = visualize.draw_masks(gray(size), [np.ones(size, bool)], ["all of it"], [1.0])
    factor = visualize.enlargement(*size)
    assert max(size) * factor >= 480 and (factor == 1 or max(size) < 480)
    assert picture.shape[0] >= factor * size[0] and picture.shape[1] >= factor * size[1]
    if min(size) * factor > 100:
        assert picture.shape[:2] == (factor * size[0], factor * size[1])


def test_single_pixels_survive_enlarging():
    mask = np.zeros((64, 64), bool)
    mask[20, 30] = True
    picture = visualize.draw_masks(gray((64, 64)), [mask], ["dot"], colors=[(255, 0, 0)]).astype(int)
    red = (picture[..., 0] > 160) & (picture[..., 1] < 90)
    factor = visualize.enlargement(64, 64)
    near = red[20 * factor : 21 * factor, 30 * factor : 31 * factor]
    assert near.any()


def test_many_masks_get_a_legend_and_numbers():
    masks = [disk(LARGE, 40 + 60 * (i % 10), 80 + 150 * (i // 10), 25) for i in range(30)]
    picture = visualize.draw_masks(gray(), masks, [f"thing {i}" for i in range(30)], np.linspace(0, 1, 30))
    assert picture.shape[1] == 640 and 480 < picture.shape[0] < 1200
    legend = picture[480:]
    for color in palette(30):
        assert (legend == color).all(-1).sum() > 50


def test_hundreds_of_masks_show_the_best_and_say_how_many_are_not_shown():
    masks, scores = np.zeros((300, 60, 80), bool), np.arange(300) / 300
    for i in range(300):
        masks[i, i % 60, :3] = True
    few = visualize.draw_masks(gray((60, 80)), masks[-41:], [f"{i}" for i in range(41)], scores[-41:])
    all_of_them = visualize.draw_masks(gray((60, 80)), masks, [f"{i}" for i in range(300)], scores)
    assert abs(all_of_them.shape[0] - few.shape[0]) < 100


def test_empty_masks_are_named_and_paint_nothing():
    masks = np.zeros((2, *LARGE), bool)
    picture = visualize.draw_masks(gray(), masks, ["a cat", "a dog"], [0, 0])
    assert (picture[:300] == 120).all() and (picture != 120).any()
    assert (visualize.draw_masks(gray(), np.zeros((0, *LARGE), bool), []) == 120).all()
    everything = visualize.draw_masks(gray(), np.zeros((100, *LARGE), bool), [f"{i}" for i in range(100)])
    assert everything.shape[0] > LARGE[0]


def test_equal_labels_have_one_color():
    masks = [disk(LARGE, 150, 240, 60), disk(LARGE, 450, 240, 60)]
    picture = visualize.draw_masks(gray(), masks, ["car", "car"])
    assert (picture[190, 150] == picture[190, 450]).all()


def test_gray_and_rgba_images():
    mask = disk(LARGE, 300, 200, 80)
    expected = visualize.draw_masks(gray(), [mask], ["x"])
    for image in (gray()[..., 0], gray()[..., :1], np.concatenate([gray(), gray()[..., :1]], -1)):
        np.testing.assert_array_equal(visualize.draw_masks(image, [mask], ["x"]), expected)


@pytest.mark.parametrize(
    "label", ["", "\0", "a\nb\tc", "\U0001f600 grin", "كلب", "日本", "a" * 100_000, "\ud800 lone", "<|endoftext|>"]
)
def test_any_text_can_be_drawn(label):
    assert len(one_line(label)) <= 40 and one_line(label).isprintable()
    visualize.draw_masks(gray(), [disk(LARGE, 300, 200, 80)], [label], [0.5])


def test_labels_stay_inside_and_clear_of_each_other():
    rng = np.random.default_rng(0)
    board = Labels(gray(), font_size(*LARGE))
    for _ in range(12):
        board.add("a remote control 0.87", Place(int(rng.integers(0, 640)), int(rng.integers(0, 480))), (0, 0, 255))
    boxes = board._taken
    assert all(b[0] >= 0 and b[1] >= 0 and b[2] <= 640 and b[3] <= 480 for b in boxes)
    for i, a in enumerate(boxes):
        for b in boxes[:i]:
            assert a[2] <= b[0] or b[2] <= a[0] or a[3] <= b[1] or b[3] <= a[1]


def test_a_label_does_not_hide_a_small_thing():
    board = Labels(gray(), 18)
    board.add("a tiny car", Place(300, 200, (290, 192, 310, 208)), (0, 0, 255))
    box = board._taken[0]
    assert box[3] <= 192 or box[1] >= 208


def test_wrong_sizes_are_refused():
    with pytest.raises(ValueError, match=r"\(5, 5\).*\(480, 640\)"):
        visualize.draw_masks(gray(), [np.ones((5, 5), bool)], ["x"])
    with pytest.raises(ValueError, match="1 masks, 2 labels"):
        visualize.draw_masks(gray(), [np.ones(LARGE, bool)], ["x", "y"])
    with pytest.raises(ValueError, match="float32"):
        visualize.draw_masks(gray().astype(np.float32), [], [])


def test_label_map_paints_classes_and_leaves_void_alone():
    names, things = ("sky", "road", "car"), (False, False, True)
    vocabulary = Vocabulary(names, things, colors=((255, 0, 0), (0, 255, 0), (0, 0, 255)))
    label_map = np.full(LARGE, -1)
    label_map[:100], label_map[300:] = 0, 1
    picture = visualize.draw_label_map(gray(), label_map, vocabulary)
    assert (picture[200] == 120).all() and picture[50, 320].argmax() == 0 and picture[400, 320].argmax() == 1
    legend = picture[480:]
    assert (legend == (255, 0, 0)).all(-1).any() and (legend == (0, 255, 0)).all(-1).any()
    assert not (legend == (0, 0, 255)).all(-1).any()  # no car in this image
    plain = Vocabulary(names, things)
    assert visualize.draw_label_map(gray(), label_map, plain).shape == picture.shape
    assert (visualize.draw_label_map(gray(), np.full(LARGE, -1), plain) == 120).all()
    with pytest.raises(ValueError, match="ids up to 3"):
        visualize.draw_label_map(gray(), label_map + 2, plain)


def test_heat_map_is_brighter_where_it_is_likelier():
    ramp = np.tile(np.linspace(0, 1, 640, dtype=np.float32), (480, 1))
    picture = visualize.draw_probabilities(gray(), ramp, "a cat", threshold=0.5)
    columns = picture[:480].astype(float).sum((0, 2))
    assert columns[600] > columns[400] > columns[100]
    assert picture.shape[0] > 480
    with pytest.raises(ValueError, match="expected"):
        visualize.draw_probabilities(gray(), ramp[:, :5])


def test_grid_holds_ragged_rows_of_different_sizes():
    a, b, c = gray((100, 150), 10), gray((200, 100), 20), gray((60, 60), 30)
    sheet = visualize.grid([[a, b], [c]], ["first", "second"])
    assert sheet.shape[0] > 160 and sheet.shape[1] >= 200
    for value, area in ((10, 100 * 150), (20, 100 * 50), (30, 60 * 60)):
        assert (sheet == value).all(-1).sum() >= area
    with pytest.raises(ValueError, match="no pictures"):
        visualize.grid([[]])


def linear_light(colors):
    c = colors / 255
    return np.where(c <= 0.04045, c / 12.92, ((c + 0.055) / 1.055) ** 2.4)


def test_colors_are_distinct_to_colour_blind_eyes():
    """The first eight, to deuteranopic and protanopic eyes, in linear light (Machado et al. 2009)."""
    colors = linear_light(palette(8).astype(float))
    deuteranopic = np.array([[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]])
    protanopic = np.array([[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]])
    for view in (np.eye(3), deuteranopic, protanopic):
        seen = colors @ view.T
        distance = np.linalg.norm(seen[:, None] - seen[None], axis=-1) + 9 * np.eye(8)
        assert distance.min() > 0.08
    assert len({tuple(c) for c in palette(32)}) == 32 and (palette(33)[32] == palette(1)[0]).all()


def test_text_is_readable_on_every_color():
    for color in palette(32):
        light, dark = sorted((luminance(color), luminance(text_color(color))), reverse=True)
        assert (light + 0.05) / (dark + 0.05) > 4.5
