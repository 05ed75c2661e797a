"""BatchPlan: exact mixtures, epochs without repeats, resuming, sharing among processes."""

import numpy as np
import pytest

from input_pipeline.plan import BatchPlan, Mixture, Part, evaluation_batches, local_slots

PARTS = (Part("a", 11, 3.0), Part("b", 7, 1.0), Part("c", 5, 2.0, "grounding"))


def flat(plan, steps):
    return [entry for step in range(steps) for entry in plan.batch(step)]


@pytest.mark.parametrize("ratios", [(1,), (1, 1), (3, 1, 1), (0.7, 0.1, 5, 2.2), (1, 0, 2), (1e-3, 1)])
def test_mixture_counts_are_exact_at_every_length(ratios):
    mixture = Mixture(ratios)
    counts = [0] * len(ratios)
    for n in range(2000):
        assert mixture.counts(n) == counts
        part, before = mixture.part(n)
        assert before == counts[part]
        counts[part] += 1
        shares = np.array(ratios) / sum(ratios) * (n + 1)
        assert np.abs(shares - counts).max() < len(ratios)
    assert all(count == 0 for count, ratio in zip(counts, ratios, strict=True) if ratio == 0)


def test_mixture_far_along_needs_no_walk():
    assert Mixture((3, 1, 1)).counts(5 * 10**15) == [3 * 10**15, 10**15, 10**15]


@pytest.mark.parametrize("ratios", [(), (0, 0), (1, -1)])
def test_wrong_ratios(ratios):
    with pytest.raises(ValueError, match="not negative and not all 0"):
        Mixture(ratios)


def test_a_resumed_plan_goes_on_as_the_uninterrupted_one():
    whole = [BatchPlan(PARTS, 4, seed=3).batch(step) for step in range(40)]
    for start in (0, 1, 17, 39):
        assert [BatchPlan(PARTS, 4, seed=3).batch(step) for step in range(start, 40)] == whole[start:]
    assert BatchPlan(PARTS, 4, seed=4).batch(0) != whole[0]


def test_no_example_twice_in_an_epoch_and_orders_differ():
    plan = BatchPlan(PARTS, 4, seed=0)
    taken = flat(plan, 60)
    for source, part in enumerate(PARTS):
        indices = [e.index for e in taken if e.source == source]
        epochs = [indices[i : i + part.size] for i in range(0, len(indices) - part.size + 1, part.size)]
        assert len(epochs) > 2
        assert all(sorted(epoch) == list(range(part.size)) for epoch in epochs)
        assert epochs[0] != epochs[1]
        assert [e.number for e in taken if e.source == source] == list(range(len(indices)))


def test_examples_before_a_step_equal_a_count():
    plan = BatchPlan(PARTS, 6, seed=1)
    for step in (0, 1, 2, 13, 50):
        taken = flat(plan, step)
        counted = {part.name: sum(e.source == i for e in taken) for i, part in enumerate(PARTS)}
        assert plan.examples_before(step) == counted
    assert plan.examples_before(300) == {"a": 900, "b": 300, "c": 600}  # kinds 4 : 2, sources 3 : 1


def test_every_batch_is_of_one_kind():
    plan = BatchPlan(PARTS, 4)
    kinds = [plan.kind(step) for step in range(30)]
    assert kinds.count("grounding") == 10
    for step, kind in enumerate(kinds):
        assert {PARTS[e.source].kind for e in plan.batch(step)} == {kind}
    numbers = dict.fromkeys(plan.kinds, 0)
    for step, kind in enumerate(kinds):
        assert plan.batch_of_kind(kind, numbers[kind]) == plan.batch(step)
        numbers[kind] += 1


@pytest.mark.parametrize("count", [1, 2, 4])
def test_processes_share_the_global_batch_in_order(count):
    slots = [slot for process in range(count) for slot in local_slots(8, process, count)]
    assert slots == list(range(8))


def test_a_batch_that_processes_cannot_share():
    with pytest.raises(ValueError, match=r"config.train.batch_size: found 8, expected a multiple of the 3 processes"):
        local_slots(8, 0, 3, "config.train.batch_size")


def test_replacements_follow_in_the_order_of_the_source():
    plan = BatchPlan(PARTS, 4, seed=3)
    entry = plan.batch(0)[0]
    following = [plan.index(entry.source, entry.number + i) for i in range(4)]
    assert [plan.replacement(entry, i).index for i in range(4)] == following
    assert plan.replacement(entry, 0) == entry


def test_evaluation_takes_every_example_once_and_pads():
    batches = evaluation_batches(7, 3)
    assert batches == [[0, 1, 2], [3, 4, 5], [6, -1, -1]]
    assert evaluation_batches(6, 3) == [[0, 1, 2], [3, 4, 5]]


def test_empty_sources_are_refused():
    with pytest.raises(ValueError, match="source a: found no examples"):
        BatchPlan([Part("a", 0)], 4)
    with pytest.raises(ValueError, match="found none, expected at least one source"):
        BatchPlan([], 4)
