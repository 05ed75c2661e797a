"""Which function recomputes which golden case."""

import dataclasses
from collections.abc import Callable, Mapping


@dataclasses.dataclass(frozen=True)
class Runner:
    """`function(config, weights, inputs) -> {output name: array}`.

    Attributes:
        groups: weights come as {"weights": {...}, "weights_hf": {...}}, for files that hold several state dicts.
        skip: {output name: reason} of outputs that are not produced.
        questions: `(recorded outputs) -> further inputs`, for files that keep the question beside the answer.
    """

    function: Callable
    groups: bool = False
    skip: Mapping[str, str] = dataclasses.field(default_factory=dict)
    questions: Callable | None = None


RUNNERS: dict[str, Runner] = {}


def runner(*cases, groups=False, skip=None, questions=None):
    """Registers a function for cases such as `"clipseg/clip_vit"`."""

    def register(function):
        for case in cases:
            if case in RUNNERS:
                raise ValueError(f"{case} has two runners")
            RUNNERS[case] = Runner(function, groups, skip or {}, questions)
        return function

    return register
