"""Random draws of one scene."""

from collections.abc import Sequence

import numpy as np


class Dice:
    """Draws from a stream that depends on `seed` alone.

    Numbers are taken from blocks: a scene needs some hundred, and a call of numpy's generator per number would take longer
    than its drawing.
    """

    def __init__(self, seed: Sequence[int]):
        self._rng = np.random.default_rng(list(seed))
        self._block: list[float] = []

    def random(self) -> float:
        """Uniform in [0, 1)."""
        if not self._block:
            self._block = self._rng.random(256).tolist()
        return self._block.pop()

    def between(self, low: float, high: float) -> float:
        return low + (high - low) * self.random()

    def chance(self, probability: float) -> bool:
        return self.random() < probability

    def below(self, bound: int) -> int:
        """A whole number of 0 .. bound - 1."""
        return int(self.random() * bound)

    def pick(self, items: Sequence, weights: Sequence[float] | None = None):
        """One item; by weights that sum to 1 where given."""
        if weights is None:
            return items[self.below(len(items))]
        at = self.random()
        for item, weight in zip(items, weights, strict=True):
            at -= weight
            if at < 0:
                return item
        return items[-1]

    def shuffled(self, items: Sequence) -> list:
        """All items in random order."""
        items = list(items)
        for i in range(len(items) - 1, 0, -1):
            j = self.below(i + 1)
            items[i], items[j] = items[j], items[i]
        return items

    def varied(self, color: Sequence[float], channels: float, all_channels: float = 0.0) -> tuple[float, float, float]:
        """An RGB colour with relative changes of each channel, and of all alike, up to the given ones."""
        gain = 1 + self.between(-all_channels, all_channels)
        return tuple(min(255.0, c * gain * (1 + self.between(-channels, channels))) for c in color)
