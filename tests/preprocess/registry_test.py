"""The mini-language: what it reads, and what it says about what it cannot."""

import numpy as np
import pytest

from jaxseg.preprocess import Context, parse
from jaxseg.preprocess.registry import random


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("decode|resiz(96)", "op 2 'resiz' is unknown, in 'decode|resiz(96)'; did you mean 'resize'?"),
        ("decode|zzz", "op 2 'zzz' is unknown, in 'decode|zzz'; known are"),
        ("decode|resize(siz=3)", "op 2 resize: argument 'siz' is unknown; did you mean 'size'?"),
        ("decode|resize()", "op 2 resize: argument 'size' is missing; it takes size, method, labels"),
        ("decode|resize(1, bilinear, True, 4)", "op 2 resize: found 4 arguments; it takes size, method, labels"),
        ("decode|resize(3, size=4)", "op 2 resize: argument 'size' is given twice"),
        ("decode|resize(0)", "op 2 resize: size: found 0, expected a positive integer"),
        ("decode|resize((1, 2, 3))", "op 2 resize: size: found (1, 2, 3), expected one integer or (height, width)"),
        ("decode|resize(x + 1)", "op 2 resize: argument 'x + 1' is neither a literal nor a word"),
        ("normalize(imagnet)", "op 1 normalize: statistics: found 'imagnet', expected one of imagenet, clip"),
        ("phrases(2, templates=odd)", "op 1 phrases: templates: found 'odd', expected one of 'plain', 'fixed'"),
        ("phrases(2, negatives=1.5)", "op 1 phrases: negatives: found 1.5, expected a number in [0, 1]"),
        ("keep(image)|decode", "op 2 decode: nothing may follow keep"),
        ("decode|keep()", "op 2 keep: found {}, expected names of fields"),
        ("decode||keep(image)", "cannot be read at column 8"),
        ("decode|3", "op 2 is '3', expected name or name(arguments)"),
        ("", "found '', expected ops such as"),
    ],
)
def test_errors_name_the_op_its_position_and_what_is_nearest(text, message):
    with pytest.raises(ValueError) as error:
        parse(text)
    assert message in str(error.value)
    assert "\n" not in str(error.value)


def test_words_literals_and_tuples_are_arguments():
    image = np.arange(4 * 6 * 3, dtype=np.uint8).reshape(4, 6, 3)
    pipeline = parse("decode | resize((2, 3), method=nearest) | keep(image, original_size)")
    example = pipeline({"image": image, "caption": "left alone"})
    assert sorted(example) == ["image", "original_size"]
    assert example["original_size"] == (4, 6)
    np.testing.assert_array_equal(example["image"], image[1::2, 1::2])


def test_a_kept_field_that_no_op_makes_is_named():
    with pytest.raises(ValueError, match=r"op 2 keep: no field 'mask'; the example has id, image, label_size"):
        parse("decode|keep(image, mask)")({"image": np.zeros((2, 2, 3), np.uint8), "id": "a"})


def test_the_given_example_stays_as_it_was():
    example = {"image": np.zeros((2, 2, 3), np.uint8)}
    parse("decode|normalize(clip)|keep(image)")(example)
    assert list(example) == ["image"]
    assert example["image"].dtype == np.uint8


def test_ops_that_draw_end_the_fixed_part_and_need_a_generator():
    assert parse("decode|resize(4)|flip_lr|normalize(clip)").num_fixed == 2
    assert parse("decode|resize(4)|normalize(clip)|keep(image)").num_fixed == 3
    with pytest.raises(ValueError, match="flip_lr draws at random, but there is no generator"):
        random(Context(), "flip_lr")
