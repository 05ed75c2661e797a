"""CLIP's tokenizer against recorded ids."""

import numpy as np

from jaxseg.text import tokenizer
from tests.parity_runners.registry import runner


def _raises(text, context_length):
    try:
        tokenizer.tokenize([text], context_length)
    except ValueError:
        return 1
    return 0


@runner("clipseg/tokenizer")
def tokenize(config, weights, inputs):
    del weights
    texts, long_texts = [str(t) for t in inputs["texts"]], [str(t) for t in inputs["long_texts"]]
    everything, context = texts + long_texts, config["context_length"]
    assert (config["sot"], config["eot"]) == (tokenizer.START, tokenizer.END)
    ids = tokenizer.tokenize(texts, context)
    return {
        "ids": ids,
        "ids_truncated": tokenizer.tokenize(long_texts, context, truncate=True),
        "ids_short_context": tokenizer.tokenize(everything, config["short_context"], truncate=True),
        "raises_without_truncate": np.array([_raises(t, context) for t in long_texts]),
        "n_bpe": np.array([len(tokenizer.encode(t)) for t in everything]),
        "decoded": np.array([tokenizer.decode(row[row != 0]) for row in ids]),
    }
