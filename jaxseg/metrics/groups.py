"""Groups of classes that metrics are reported for."""

import math
import re

import numpy as np

# Pairs whose harmonic mean is the headline of generalized zero-shot benchmarks.
HARMONIC = (("seen", "unseen"), ("base", "novel"))


def class_groups(vocabulary):
    """{name: class ids}: things and stuff where there are both, and the vocabulary's own groups, if not empty."""
    groups = {"things": vocabulary.things, "stuff": vocabulary.stuff}
    if not all(len(ids) for ids in groups.values()):
        groups = {}
    groups |= {name: np.asarray(ids, np.int64) for name, ids in vocabulary.groups.items()}
    return {name: ids for name, ids in groups.items() if len(ids)}


def check_names(vocabulary):
    """Number of classes.

    Raises:
        ValueError: for an empty vocabulary.
    """
    if not len(vocabulary):
        raise ValueError("the vocabulary of this split is empty, expected the names of its classes")
    return len(vocabulary)


def by_group(measure, vocabulary, value, *, harmonic=True):
    """`{measure: value(all), measure/group: value(group)}` and harmonic means; values that are not finite are left out.

    Args:
        value: `(class ids) -> float`.
        harmonic: whether the measure is a score that may be averaged so.
    """
    found = {measure: value(np.arange(len(vocabulary)))}
    found |= {f"{measure}/{name}": value(ids) for name, ids in class_groups(vocabulary).items()}
    for pair in HARMONIC if harmonic else ():
        a, b = (found.get(f"{measure}/{name}", math.nan) for name in pair)
        if math.isfinite(a) and math.isfinite(b):
            key = f"{measure}/harmonic" if pair == HARMONIC[0] else f"{measure}/harmonic_{'_'.join(pair)}"
            found[key] = 2 * a * b / (a + b) if a + b > 0 else 0.0
    return finite(found)


def as_baseline(metrics):
    """The same metrics under the names of baselines: `miou/seen` -> `miou_baseline/seen`."""
    return {re.sub(r"^[^/]*", r"\g<0>_baseline", name): value for name, value in metrics.items()}


def finite(metrics):
    """Floats without those that have no value; JSON has none for NaN."""
    return {name: float(value) for name, value in metrics.items() if math.isfinite(value)}


def ratio(a, b):
    """a / b, NaN where b is 0."""
    a, b = np.asarray(a, np.float64), np.asarray(b, np.float64)
    return np.divide(a, b, out=np.full(np.broadcast_shapes(a.shape, b.shape), np.nan), where=b != 0)
