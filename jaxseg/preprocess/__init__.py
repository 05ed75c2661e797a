"""Preprocessing as text: `parse("decode|resize(352)|normalize(imagenet)")` gives a function of (example, context)."""

from jaxseg.preprocess import geometry, image, labels, phrases, segment_table, targets, words  # noqa: F401  (ops register)
from jaxseg.preprocess.registry import Context, Pipeline, known_ops, parse, register

__all__ = ["Context", "Pipeline", "known_ops", "parse", "register"]
