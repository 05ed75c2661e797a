"""Which examples make which batch: a pure function of (seed, step), so that a run resumes with the batches it would have had.

Nothing is counted while training; how many examples of each source stand before a step has a closed form.
"""

import dataclasses
import functools
import math
from collections.abc import Sequence
from fractions import Fraction
from typing import NamedTuple

import numpy as np


@dataclasses.dataclass(frozen=True)
class Part:
    """One source's part in a mixture.

    Attributes:
        size: number of examples.
        ratio: weight among the sources; the share of examples of each kind, and the share of steps among kinds.
        kind: kind of batch that its examples go to.
    """

    name: str
    size: int
    ratio: float = 1.0
    kind: str = "train"


class Entry(NamedTuple):
    """One place in a batch: example `index` of `source`, the `number`-th that the plan takes from it."""

    source: int
    index: int
    number: int


class Mixture:
    """Splits a sequence among parts by ratio, as evenly as whole numbers allow.

    The first part takes its share, the second its share of what is left, and so on; each cut is a rounded multiple, so that
    after any n the count of a part is known without walking, never falls, and is off from n * share by less than the number of
    parts.
    """

    def __init__(self, ratios: Sequence[float]):
        exact = [Fraction(ratio).limit_denominator(1_000_000) for ratio in ratios]
        left = sum(exact)
        if min(exact, default=0) < 0 or left <= 0:
            raise ValueError(f"ratios: found {list(ratios)}, expected numbers that are not negative and not all 0")
        self._cuts = []
        for ratio in exact:
            self._cuts.append(ratio / left if left else Fraction(0))
            left -= ratio

    def counts(self, n) -> list[int]:
        """How many of the first `n` fall to each part."""
        counts = []
        for cut in self._cuts:
            # Half a period of phase: the first does not wait for a whole one.
            counts.append((2 * n * cut.numerator + cut.denominator) // (2 * cut.denominator))
            n -= counts[-1]
        return counts

    def part(self, n) -> tuple[int, int]:
        """(part, its count before) of position `n`."""
        before, after = self.counts(n), self.counts(n + 1)
        part = next(i for i, (b, a) in enumerate(zip(before, after, strict=True)) if a > b)
        return part, before[part]


class BatchPlan:
    """`batch(step)`: the global batch of any step.

    Every batch is of one kind. Each source is gone through in a new order every epoch, without repeats inside it.

    Args:
        parts: the mixture; kinds take turns by the sum of their parts' ratios.
        batch_size: of the global batch.
        seed: of the orders.

    Raises:
        ValueError: no parts, an empty part, or a batch size that is not positive.
    """

    def __init__(self, parts: Sequence[Part], batch_size: int, seed: int = 0):
        if not parts:
            raise ValueError("config.data.train.sources: found none, expected at least one source")
        for part in parts:
            if part.size < 1:
                raise ValueError(f"source {part.name}: found no examples, expected at least one")
        if batch_size < 1:
            raise ValueError(f"batch size: found {batch_size}, expected a positive integer")
        self.parts, self.batch_size, self.seed = tuple(parts), batch_size, seed
        self.kinds = tuple(dict.fromkeys(part.kind for part in parts))
        self._of_kind = {kind: [i for i, part in enumerate(parts) if part.kind == kind] for kind in self.kinds}
        self._kind_mixture = Mixture([sum(parts[i].ratio for i in self._of_kind[kind]) for kind in self.kinds])
        self._mixtures = {kind: Mixture([parts[i].ratio for i in sources]) for kind, sources in self._of_kind.items()}
        self._order = functools.lru_cache(maxsize=4 * len(parts))(self._permutation)

    def kind(self, step) -> str:
        """The kind of a step's batch."""
        return self.kinds[self._kind_mixture.part(step)[0]]

    def steps_before(self, step) -> dict[str, int]:
        """How many batches of each kind stand before `step`."""
        return dict(zip(self.kinds, self._kind_mixture.counts(step), strict=True))

    def examples_before(self, step) -> dict[str, int]:
        """How many examples of each source stand before `step`."""
        counts = {}
        for kind, steps in self.steps_before(step).items():
            taken = self._mixtures[kind].counts(steps * self.batch_size)
            counts |= {self.parts[i].name: n for i, n in zip(self._of_kind[kind], taken, strict=True)}
        return counts

    def batch(self, step) -> list[Entry]:
        """The global batch of a step."""
        kind = self.kind(step)
        return self.batch_of_kind(kind, self.steps_before(step)[kind])

    def batch_of_kind(self, kind, number) -> list[Entry]:
        """The global batch that is the `number`-th of its kind."""
        return [self.entry(kind, number * self.batch_size + slot) for slot in range(self.batch_size)]

    def entry(self, kind, position) -> Entry:
        """What stands at a position of the sequence of all examples of a kind."""
        part, number = self._mixtures[kind].part(position)
        source = self._of_kind[kind][part]
        return Entry(source, self.index(source, number), number)

    def index(self, source, number) -> int:
        """The example that is the `number`-th taken from a source."""
        epoch, position = divmod(number, self.parts[source].size)
        return int(self._order(source, epoch)[position])

    def replacement(self, entry, attempt) -> Entry:
        """What takes the place of an example that cannot be read: the ones that follow it in its source."""
        return entry._replace(index=self.index(entry.source, entry.number + attempt))

    def _permutation(self, source, epoch):
        size = self.parts[source].size
        order = np.random.default_rng((self.seed, source, epoch)).permutation(size)
        return order.astype(np.int32 if size < 2**31 else np.int64)


def local_slots(batch_size, process_index, process_count, field="batch_size") -> range:
    """The places of a global batch that one process reads; processes stand in order.

    Raises:
        ValueError: a batch that processes cannot share equally.
    """
    if batch_size % process_count:
        raise ValueError(f"{field}: found {batch_size}, expected a multiple of the {process_count} processes")
    share = batch_size // process_count
    return range(process_index * share, (process_index + 1) * share)


def evaluation_batches(num_examples, batch_size) -> list[list[int]]:
    """Indices in order, the last batch padded with -1."""
    count = math.ceil(num_examples / batch_size)
    indices = [i if i < num_examples else -1 for i in range(count * batch_size)]
    return [indices[b * batch_size : (b + 1) * batch_size] for b in range(count)]
