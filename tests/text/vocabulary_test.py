"""Parts of a vocabulary: names, enclosing parts, and what is refused."""

import pytest

from jaxseg.text.vocabulary import Part, Vocabulary

HEAD, EYE, PUPIL = Part(0, "head"), Part(0, "eye", 0), Part(0, "pupil", 1)
TAIL, WHEEL = Part(0, "tail"), Part(1, "wheel")


def make(parts):
    return Vocabulary(("dog", "car"), (True, True), parts=parts)


def test_part_names_and_containment():
    vocabulary = make((HEAD, EYE, PUPIL, TAIL, WHEEL))
    assert vocabulary.part_names == ("dog's head", "dog's eye", "dog's pupil", "dog's tail", "car's wheel")
    assert vocabulary.parts_of(0) == (0, 1, 2, 3)
    assert vocabulary.subparts_of(0) == (1, 2)
    assert vocabulary.subparts_of(4) == ()


@pytest.mark.parametrize(
    ("parts", "message"),
    [
        ((Part(2, "head"),), "object 2"),
        ((EYE, HEAD), "parent 0"),
        ((HEAD, Part(1, "hub", 0)), "parent 0.*'car'"),
        ((HEAD, TAIL, HEAD), "twice: dog's head"),
    ],
)
def test_impossible_parts_are_refused(parts, message):
    with pytest.raises(ValueError, match=message):
        make(parts)
