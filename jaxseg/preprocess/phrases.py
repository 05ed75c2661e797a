"""The op that turns labels into prompts with masks."""

import numpy as np

from jaxseg.preprocess.arguments import positive, share
from jaxseg.preprocess.labels import VOID, ClassMasks, check_ids
from jaxseg.preprocess.registry import random, register
from jaxseg.text import templates as prompt_templates


@register(draws=True)
def phrases(num, negatives=0.0, templates="plain", expressions=0.0, things=None):
    """Draws `num` prompts with their masks: `phrases`, `mask` and `mask_valid` float32 [num, H, W] at the labels' size.

    Args:
        num: prompts per example; names repeat only where an image has fewer.
        negatives: share of prompts that name what is absent, with an empty mask.
        templates: set of sentences, one drawn per prompt (text/templates.py).
        expressions: share of the present prompts that are the example's own referring expressions.
        things: share of the other prompts that name things, where there are things and stuff to choose from; None: as they
            occur. Stuff covers most of an image, so that a loss over pixels alone hardly asks for things.

    `mask_valid` is 0 on pixels that do not say whether they belong to the prompt: void, crowds, boxes without an outline. An
    image in which nothing is seen gets absent names only.
    """
    positive(num, "num")
    sentences = prompt_templates.templates(templates)
    share(negatives, "negatives")
    share(expressions, "expressions")
    if things is not None:
        share(things, "things")

    def apply(example, context):
        rng = random(context, "phrases")
        if context.vocabulary is None:
            raise ValueError("preprocess: phrases: the source has no vocabulary to draw names from")
        names = context.vocabulary.names
        labels = ClassMasks(example)
        check_ids(labels.seen, example, context)
        is_thing = context.vocabulary.is_thing

        def deck(classes):
            return _Deck(rng, classes) if things is None else _MixedDeck(rng, classes, is_thing, things)

        present, absent = deck(labels.seen), deck([c for c in range(len(names)) if c not in labels.seen])
        referred = _Deck(rng, [e for e in example.get("expressions", ()) if "segment_map" in example])
        empty = np.zeros(labels.size, bool)

        def named(class_id):
            return prompt_templates.fill(sentences[rng.integers(len(sentences))], names[class_id])

        made = []
        for _ in range(num):
            is_absent, is_referred = rng.uniform(size=2) < (negatives, expressions)
            if absent and (is_absent or not present):
                class_id = next(absent)
                made.append((named(class_id), empty, labels.known(class_id)))
            elif referred and is_referred:
                expression = next(referred)
                made.append((expression["text"], example["segment_map"] == expression["segment_id"], labels.known(VOID)))
            else:
                class_id = next(present)
                made.append((named(class_id), labels.mask(class_id), labels.known(class_id)))
        texts, masks, valid = zip(*made, strict=True)
        fields = {"mask": np.stack(masks).astype(np.float32), "mask_valid": np.stack(valid).astype(np.float32)}
        return {**example, "phrases": texts, **fields}

    return apply


class _MixedDeck:
    """Things and stuff by a share, each without replacement."""

    def __init__(self, rng, classes, is_thing, things):
        self._rng, self._things = rng, things
        self._decks = {kind: _Deck(rng, [c for c in classes if bool(is_thing[c]) == kind]) for kind in (True, False)}

    def __bool__(self):
        return any(self._decks.values())

    def __next__(self):
        kind = bool(self._rng.uniform() < self._things)
        return next(self._decks[kind] or self._decks[not kind])


class _Deck:
    """Draws without replacement, and shuffles again when it is used up; false if there is nothing to draw."""

    def __init__(self, rng, items):
        self._rng, self._items, self._left = rng, items, []

    def __bool__(self):
        return bool(self._items)

    def __next__(self):
        if not self._left:
            self._left = list(self._rng.permutation(len(self._items)))
        return self._items[self._left.pop()]
