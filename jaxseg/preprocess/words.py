"""Words: left and right when an image is mirrored, and ops that turn text into token ids."""

import functools
import re

import numpy as np

from jaxseg.preprocess.registry import register

_SIDE = re.compile(r"\b(left|right)((?:most|side|hand|wards?)?)\b", re.IGNORECASE)
_OTHER = {"left": "right", "right": "left"}


def swap_sides(text) -> str:
    """Swaps the words "left" and "right" ("leftmost", "right-hand" too); "bright" and "upright" stay."""

    def other(match):
        word = match[1]
        swapped = _OTHER[word.lower()]
        swapped = swapped.upper() if word.isupper() else swapped.capitalize() if word[0].isupper() else swapped
        return swapped + match[2]

    return _SIDE.sub(other, text)


def mirrored(example):
    """The example with left and right swapped in caption, expressions and phrases."""
    moved = {}
    if "caption" in example:
        moved["caption"] = swap_sides(example["caption"])
    if "expressions" in example:
        moved["expressions"] = [{**e, "text": swap_sides(e["text"])} for e in example["expressions"]]
    if "phrases" in example:
        moved["phrases"] = tuple(map(swap_sides, example["phrases"]))
    return {**example, **moved}


@register
def tokenize(context_length=77):
    """Makes `token_ids` int32 [P, T] from `phrases`; what does not fit is cut."""
    return lambda example, context: {**example, "token_ids": _tokens(example, "phrases", context_length)}


@register
def caption(context_length=77):
    """Makes `token_ids` int32 [T] from `caption`; what does not fit is cut."""
    return lambda example, context: {**example, "token_ids": _tokens(example, "caption", context_length)[0]}


def _tokens(example, field, context_length):
    if field not in example:
        made_by = " (phrases makes them)" if field == "phrases" else ""
        raise ValueError(f"preprocess: {example.get('path', 'the example')} has no {field} to tokenize{made_by}")
    texts = [example[field]] if isinstance(example[field], str) else list(example[field])
    return np.stack([_token_row(text, context_length) for text in texts])


@functools.lru_cache(maxsize=1 << 14)
def _token_row(text, context_length):
    """int32 [T]; names and sentences come again and again."""
    from jaxseg.text import tokenizer  # its vocabulary is read when it is first used

    return tokenizer.tokenize([text], context_length=context_length, truncate=True)[0]
