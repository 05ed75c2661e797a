import numpy as np
import pytest

from jaxseg.systems.masqclip.text_classifier import class_embeddings, dataset_words, tokenized
from jaxseg.text import class_lists
from jaxseg.text.synonyms import COCO_WORDS, words_of


@pytest.mark.parametrize(
    ("name", "size", "things", "first", "last"),
    [
        ("coco_panoptic", 133, 80, "person", "rug-merged"),
        ("coco_instance", 80, 80, "person", "toothbrush"),
        ("coco_base48", 48, 48, "person", "toothbrush"),
        ("coco_novel17", 17, 17, "airplane", "scissors"),
        ("coco_instances65", 65, 65, "person", "toothbrush"),
        ("ade20k_150", 150, 100, "wall", "flag"),
        ("ade20k_847", 847, 0, "wall", "adding machine, totalizer, totaliser"),
        ("pascal_context_59", 59, 0, "aeroplane", "wood"),
        ("pascal_context_459", 459, 0, "accordion", "wool"),
        ("pascal_voc_21", 21, 0, "background", "tvmonitor"),
        ("ade20k_instance", 100, 100, "bed", "flag"),
    ],
)
def test_lists(name, size, things, first, last):
    vocabulary = class_lists.vocabulary(name)
    assert (len(vocabulary), len(vocabulary.things)) == (size, things)
    ids = [entry.id for entry in class_lists.class_list(name)]
    assert len(set(ids)) == size and vocabulary.names[0] == first
    assert all(n == n.strip() for n in vocabulary.names)
    assert vocabulary.names[-1] == last


def test_orders():
    assert [e.id for e in class_lists.class_list("coco_panoptic")][78:82] == [89, 90, 92, 93]
    groups = class_lists.vocabulary("coco_instances65").groups
    assert len(groups["base"]) == 48 and len(groups["novel"]) == 17 and set(groups["base"]).isdisjoint(groups["novel"])
    numbers = {e.name: e.id for e in class_lists.class_list("pascal_context_59")}
    of_459 = {e.id: e.name for e in class_lists.class_list("pascal_context_459")}
    # Both lists count alike, and one class has two names.
    assert [name for name, i in numbers.items() if of_459[i] != name] == ["diningtable"] and of_459[397] == "table"
    assert list(numbers)[49] == "diningtable"
    with pytest.raises(ValueError, match="class list: found 'lvis', expected one of coco_panoptic"):
        class_lists.class_list("lvis")


def test_words():
    assert words_of(("road, route", "sky"), "commas") == (("road", "route"), ("sky",))
    assert words_of(("rug-merged", "person"), "coco") == (("mat", "rug", "carpet"), ("person",))
    assert words_of(("road, route",)) == (("road, route",),)
    assert set(COCO_WORDS) < set(class_lists.vocabulary("coco_panoptic").names) and len(COCO_WORDS) == 27
    with pytest.raises(ValueError, match="synonyms: found 'all'"):
        words_of((), "all")


def test_words_of_published_names():
    sizes = {
        "coco_2017_train_panoptic": 133,
        "ade20k_full_sem_seg_train": 847,
        "ade20k_panoptic_train": 150,
        "pascal_context_59_sem_seg_val": 59,
        "pascal_context_459_sem_seg_val": 459,
        "coco_instance_train_instances65": 65,
        "coco_instance_train_base48": 48,
        "coco_instance_train_novel17": 17,
    }
    assert {name: len(dataset_words(name)) for name in sizes} == sizes
    with pytest.raises(ValueError, match="'cityscapes'.*coco_2017"):
        dataset_words("cityscapes")


def test_embeddings_of_classes():
    words = tokenized((("a", "dog"), ("cat",)))
    assert words.per_class.tolist() == [2, 1, 1] and words.token_ids.shape == (4, 3)
    features = np.array([[1.0, 0], [3, 4], [0, 5], [2, 2]], np.float32)
    found = class_embeddings(features, words.per_class)
    expected = np.array([[2, 2], [0, 5], [2, 2]], np.float32)
    np.testing.assert_allclose(found, expected / np.linalg.norm(expected, axis=-1, keepdims=True), rtol=1e-6)
