"""Images as files hold them: every mode, turned, animated, damaged, too large."""

import io

import cv2
import numpy as np
import pytest
from PIL import Image

from jaxseg.preprocess import parse
from jaxseg.preprocess.reading import image_size, read_image, read_label_map


def picture(height=6, width=9, seed=0):
    return np.random.default_rng(seed).integers(0, 256, (height, width, 3), np.uint8)


def encoded(image, kind="PNG", **options):
    content = io.BytesIO()
    image.save(content, kind, **options)
    return content.getvalue()


@pytest.mark.parametrize("mode", ["1", "L", "P", "RGB", "RGBA", "LA", "CMYK", "I;16"])
def test_every_mode_becomes_rgb_of_its_size(mode):
    image = Image.fromarray(picture())
    image = Image.fromarray(np.full((6, 9), 0x8001, np.uint16)) if mode == "I;16" else image.convert(mode)
    read = read_image(encoded(image, "TIFF" if mode == "CMYK" else "PNG"))
    assert read.shape == (6, 9, 3) and read.dtype == np.uint8
    expected = np.full((6, 9, 3), 0x80) if mode == "I;16" else np.asarray(image.convert("RGB"))
    np.testing.assert_array_equal(read, expected)


@pytest.mark.parametrize("orientation", range(1, 9))
def test_photographs_are_turned_upright(orientation):
    upright = picture()
    # How a camera stores the upright picture under each orientation.
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: np.rot90(upright),
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: np.rot90(upright, -1),
    }
    exif = Image.Exif()
    exif[0x0112] = orientation
    content = encoded(Image.fromarray(np.ascontiguousarray(stored[orientation])), exif=exif)
    np.testing.assert_array_equal(read_image(content), upright)
    assert image_size(content) == (6, 9)


def test_of_an_animation_the_first_frame_is_read():
    frames = [Image.fromarray(np.full((5, 7, 3), level, np.uint8)) for level in (10, 200)]
    content = encoded(frames[0], "GIF", save_all=True, append_images=frames[1:], duration=50)
    np.testing.assert_array_equal(read_image(content), np.full((5, 7, 3), 10))


def test_damage_is_one_line_with_the_path(tmp_path):
    whole = encoded(Image.fromarray(picture(64, 64)), "JPEG")
    png = encoded(Image.fromarray(picture(64, 64)))
    damaged = {
        "empty.jpg": b"", "cut.jpg": whole[: len(whole) // 2], "cut.png": png[: len(png) // 2], "text.jpg": b"not an image",
        "head.jpg": whole[:20],
    }  # fmt: skip
    for name, content in damaged.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(ValueError) as error:
            read_image(tmp_path / name)
        assert str(tmp_path / name) in str(error.value)
        assert "\n" not in str(error.value)
    with pytest.raises(ValueError, match="none.jpg: no such file"):
        read_image(tmp_path / "none.jpg")


def test_bombs_are_refused_before_they_are_decoded():
    bomb = encoded(Image.new("1", (20_000, 20_000)))
    assert len(bomb) < 1_000_000
    with pytest.raises(ValueError, match=r"a\.png: (20000 x 20000|more) pixels"):
        read_image(bomb, name="a.png")
    strip = encoded(Image.new("L", (20_000, 1), 7))
    assert read_image(strip).shape == (1, 20_000, 3)
    with pytest.raises(ValueError, match="20000 x 1 pixels, at most 100 are read"):
        parse("decode(max_pixels=100)")({"encoded": strip})


def test_label_maps_are_numbers_not_colours():
    numbers = np.array([[0, 300], [65535, 1]], np.uint16)
    np.testing.assert_array_equal(read_label_map(encoded(Image.fromarray(numbers))), numbers)
    indexed = Image.fromarray(np.array([[0, 1], [2, 255]], np.uint8))
    indexed.putpalette([7] * 768)
    np.testing.assert_array_equal(read_label_map(encoded(indexed)), [[0, 1], [2, 255]])
    with pytest.raises(ValueError, match=r"l\.png: found a label map of mode RGB, expected one channel"):
        read_label_map(encoded(Image.fromarray(picture())), name="l.png")


def test_labels_of_another_size_than_the_image_are_refused():
    for labels in ({"segment_map": np.zeros((9, 6), np.int32)}, {"annotated_size": (9, 6), "objects": []}):
        with pytest.raises(ValueError, match=r"a\.png: .*\(9, 6\), the image is \(6, 9\)"):
            parse("decode")({"image": picture(), "path": "a.png", **labels})


def test_one_pixel_goes_through():
    example = parse("decode|resize(8)|normalize(imagenet)")({"image": np.full((1, 1, 3), 255, np.uint8)})
    np.testing.assert_allclose(example["image"][3, 3], (1 - np.array([0.485, 0.456, 0.406])) / [0.229, 0.224, 0.225], rtol=1e-5)


@pytest.mark.parametrize(("ending", "dtype"), [(".png", np.uint16), (".tif", np.uint16), (".tif", ">u2"), (".tif", np.int32)])
def test_label_maps_of_many_classes_are_exact(tmp_path, ending, dtype):
    numbers = np.array([[0, 1, 255, 256], [458, 846, 32768, 65535]], dtype)
    path = tmp_path / f"map{ending}"
    Image.fromarray(numbers).save(path)
    read = read_label_map(path, bits=16)
    assert read.dtype == np.int32
    np.testing.assert_array_equal(read, numbers)
    if dtype is np.uint16:  # as OpenCV writes them, compressed
        cv2.imwrite(str(path), numbers)
        np.testing.assert_array_equal(read_label_map(path), numbers)


def test_eight_bits_where_sixteen_are_needed(tmp_path):
    path = tmp_path / "map.tif"
    Image.fromarray(np.zeros((2, 3), np.uint8)).save(path)
    assert read_label_map(path).shape == (2, 3)
    with pytest.raises(ValueError, match=r"map\.tif: found a label map of 8 bits, expected 16: ids beyond 255 are lost"):
        read_label_map(path, bits=16)
