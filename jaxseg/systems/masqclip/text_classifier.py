"""MasQCLIP's text classifier: bare class names, one embedding per class, "background" last (Xu et al. 2023, released code)."""

from typing import NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from jaxseg.text import class_lists, tokenizer
from jaxseg.text.synonyms import words_of
from jaxseg.typing import Array

BACKGROUND = "background"
# The published code finds its vocabulary by the first of these that occurs in a data set's name; it has none for novel17.
_DATASETS = (
    ("coco_2017", "coco_panoptic", "coco"),
    ("ade20k_full", "ade20k_847", "commas"),
    ("ade20k", "ade20k_150", "commas"),
    ("pascal_context_59", "pascal_context_59", "none"),
    ("pascal_context_459", "pascal_context_459", "none"),
    ("instances65", "coco_instances65", "none"),
    ("base48", "coco_base48", "none"),
    ("novel17", "coco_novel17", "none"),
)


class Words(NamedTuple):
    """The words of K classes and of the background behind them, in order.

    Attributes:
        token_ids: [N, T] int32, a row per word, cut to the longest.
        per_class: [K + 1] int, how many rows each class has.
    """

    token_ids: np.ndarray
    per_class: np.ndarray


def dataset_words(dataset):
    """The words of each class of a data set by its published name, such as `"coco_2017_train_panoptic"`, without background.

    Raises:
        ValueError: a name that says no class list.
    """
    for part, name, rule in _DATASETS:
        if part in dataset:
            return words_of([entry.name for entry in class_lists.class_list(name)], rule)
    known = ", ".join(part for part, _, _ in _DATASETS)
    raise ValueError(f"data set {dataset!r}: its name holds none of {known}")


def tokenized(words, context_length=77, truncate=False) -> Words:
    """The `Words` of K classes, each a tuple of words, with the background behind them; errors as of `tokenize`."""
    words = [*words, (BACKGROUND,)]
    token_ids = tokenizer.tokenize([word for group in words for word in group], context_length, truncate)
    return Words(tokenizer.shorten(token_ids, 1), np.array([len(group) for group in words]))


def class_embeddings(word_features: Array, per_class: np.ndarray) -> Array:
    """[N, E] features of words, not normalised -> [K + 1, E] unit vectors: the mean of each class's words, normalised."""
    num_classes = len(per_class)
    of_word = np.repeat(np.arange(num_classes), per_class)
    total = jax.ops.segment_sum(word_features.astype(jnp.float32), of_word, num_classes)
    mean = total / jnp.asarray(per_class, jnp.float32)[:, None]
    return mean / jnp.linalg.norm(mean, axis=-1, keepdims=True)
