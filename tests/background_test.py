"""Threads that read ahead and write behind, within bounds."""

import threading
import time

import pytest

from jaxseg.background import Writer, read_ahead


def test_values_come_in_order_whatever_the_threads_do():
    def read(i):
        time.sleep(0.002 * (i % 3))
        return i * i

    assert list(read_ahead(read, range(30), threads=4, ahead=5)) == [(i, i * i) for i in range(30)]
    assert list(read_ahead(read, [])) == []


def test_no_more_is_read_than_was_allowed():
    started = []
    values = read_ahead(lambda i: started.append(i) or i, iter(range(1000)), threads=2, ahead=3)
    for used in range(20):
        next(values)
        assert len(started) <= used + 1 + 3
    values.close()
    assert len(started) < 30


def test_bad_items_are_given_back_and_faults_of_the_program_are_raised():
    def read(i):
        if i == 1:
            raise ValueError("bad")
        if i == 2:
            raise OSError("worse")
        if i == 4:
            raise KeyError("a bug")
        return i

    values = read_ahead(read, range(6))
    assert next(values) == (0, 0)
    assert [type(next(values)[1]) for _ in range(2)] == [ValueError, OSError]
    assert next(values) == (3, 3)
    with pytest.raises(KeyError, match="a bug"):
        next(values)


def test_writer_waits_for_everything_and_bounds_what_waits():
    lock, waiting, most, written = threading.Lock(), [0], [0], []

    def write(i):
        time.sleep(0.002)
        with lock:
            waiting[0] -= 1
            written.append(i)

    with Writer(threads=2, behind=3) as writer:
        for i in range(20):
            with lock:
                waiting[0] += 1
                most[0] = max(most[0], waiting[0])
            writer.submit(write, i)
    assert sorted(written) == list(range(20)) and most[0] <= 4


def test_what_a_write_raises_is_raised():
    def fail():
        raise ValueError("disk")

    with pytest.raises(ValueError, match="disk"), Writer() as writer:  # noqa: PT012
        writer.submit(fail)
    with pytest.raises(KeyError), Writer() as writer:  # noqa: PT012
        writer.submit(time.sleep, 0)
        raise KeyError("the caller's own error is not hidden")
