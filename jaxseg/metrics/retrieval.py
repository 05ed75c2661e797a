"""Zero-shot retrieval between images and their captions (Radford et al. 2021, table 13)."""

import numpy as np

from jaxseg.metrics.evaluator import Collected, register
from jaxseg.metrics.groups import as_baseline

RANKS = (1, 5, 10)
_ROWS = 1024  # queries compared at a time, so that memory stays flat


@register("retrieval")
def retrieval(vocabulary, *ranks):
    """Recall at k over all images and captions of a split, from unit embeddings of both.

    Captions of equal tokens are one text: an image finds its caption whichever example it came from, and a text that
    several images share is asked once and found at any of them. Metrics: `image_to_text@k`, `text_to_image@k`, and
    `..._baseline` of answers in random order.

    Args:
        ranks: the k, 1, 5 and 10 by default.
    """
    del vocabulary
    ranks = ranks or RANKS
    if any(not isinstance(k, int) or k < 1 for k in ranks):
        raise ValueError(f"ranks: found {ranks}, expected positive integers")

    def collect(outputs, batch, metas):
        keep = np.flatnonzero(batch["example_mask"])
        images, texts = (np.asarray(outputs[f"{name}_embeddings"], np.float32) for name in ("image", "text"))
        token_ids = np.asarray(batch["token_ids"])
        return [(metas[i]["id"], images[i], texts[i], token_ids[i]) for i in keep]

    def compute(examples):
        if not examples:
            return {}
        examples = sorted(examples, key=lambda example: str(example[0]))
        _, images, texts, token_ids = zip(*examples, strict=True)
        _, first, caption_of = np.unique(np.stack(token_ids), axis=0, return_index=True, return_inverse=True)
        return recalls(np.stack(images), np.stack(texts)[first], caption_of.reshape(-1), ranks)

    fields, outputs = ("token_ids", "example_mask"), ("image_embeddings", "text_embeddings")
    return Collected(collect, compute, fields=fields, outputs=outputs)


def recalls(images, texts, caption_of, ranks=RANKS):
    """`{"image_to_text@k", "text_to_image@k", and their baselines}` in [0, 1].

    Args:
        images: [N, E] unit vectors; texts: [M, E] unit vectors of different captions; caption_of: [N], the text of each
            image. Every text belongs to at least one image.
    """
    images, texts, caption_of = np.asarray(images), np.asarray(texts), np.asarray(caption_of)
    of_images = best_ranks(images, texts, lambda rows: caption_of[rows, None] == np.arange(len(texts)))
    of_texts = best_ranks(texts, images, lambda rows: rows[:, None] == caption_of)
    num_correct = np.bincount(caption_of, minlength=len(texts))
    metrics, chance = {}, {}
    for k in ranks:
        metrics[f"image_to_text@{k}"] = float(np.mean(of_images < k))
        metrics[f"text_to_image@{k}"] = float(np.mean(of_texts < k))
        chance[f"image_to_text@{k}"] = min(1.0, k / len(texts))
        chance[f"text_to_image@{k}"] = float(np.mean([_chance(n, len(images), k) for n in num_correct]))
    return metrics | as_baseline(chance)


def best_ranks(queries, candidates, correct):
    """[N]: how many wrong candidates are as similar to a query as its most similar correct one, or more.

    Ties count against the query, so that embeddings which are all equal find nothing.

    Args:
        correct: `(query indices [n]) -> [n, M] bool`.
    """
    ranks = []
    for start in range(0, len(queries), _ROWS):
        rows = np.arange(start, min(start + _ROWS, len(queries)))
        similarity, right = queries[rows] @ candidates.T, correct(rows)
        best = np.max(np.where(right, similarity, -np.inf), 1, keepdims=True)
        ranks.append(np.sum(~right & ~(similarity < best), 1))
    return np.concatenate(ranks)


def _chance(num_correct, num_candidates, k):
    """That one of `num_correct` is among the first k of a random order."""
    missed = [(num_candidates - num_correct - i) / (num_candidates - i) for i in range(min(k, num_candidates))]
    return 1 - float(np.prod(np.maximum(missed, 0)))
