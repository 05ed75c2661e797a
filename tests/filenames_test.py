"""Names of output files: safe, unique, and unchanged where they can be."""

import pytest

from jaxseg import filenames

ODD = ["", "a/b\\c", "..", "nul", "COM1", "con", "x\0y", "a b\nc", "\U0001f600", "شجرة", "日本", "a" * 9999, "é" * 300]


@pytest.mark.parametrize("text", ODD)
def test_a_slug_is_a_file_name(tmp_path, text):
    name = filenames.slug(text)
    assert 0 < len(name.encode()) <= 121
    assert not set(name) & set('/\\:*?"<>|\0\n .')
    assert name.lower() not in ("con", "nul", "com1")
    (tmp_path / f"{name}.png").write_bytes(b"x")


def test_slugs_keep_words_of_any_script():
    assert filenames.slug("A cat's paw, left") == "a_cat_s_paw_left"
    assert filenames.slug("日本 の 木") == "日本_の_木"


def test_unique_names_stay_unique_without_case_and_beside_names_that_look_numbered():
    names = filenames.unique(["cat", "cat_2", "Cat", "cat", "dog"])
    assert len({name.lower() for name in names}) == 5
    assert names[0] == "cat" and names[1] == "cat_2" and names[-1] == "dog"


def test_many_equal_names_take_linear_time():
    assert filenames.unique(["x"] * 20_000)[-1] == "x_20000"


def test_stems_are_kept_where_they_differ_and_told_apart_by_folder_where_not():
    paths = ["my photos/été 1.jpg", "street/1.jpg", "park/1.jpg", "street/2.jpg", "street/2.png", "1.jpeg"]
    assert filenames.stems(paths) == ["été 1", "street_1", "park_1", "street_2", "street_2_2", "1"]
