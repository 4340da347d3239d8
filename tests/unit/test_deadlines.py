"""Deadlines and backoff, on a clock that the test turns."""

from __future__ import annotations

import itertools

import pytest

from morpheus_worker.deadlines import Deadline, backoff_s


class Hand:
    """A clock's hand."""

    def __init__(self, now_s: float) -> None:
        self.now_s = now_s

    def __call__(self) -> float:
        return self.now_s


def test_a_deadline_counts_down_and_stops_at_zero() -> None:
    hand = Hand(100.0)
    deadline = Deadline.after(5.0, clock=hand)
    seen = []
    for hand.now_s in (100.0, 103.0, 104.999, 105.0, 200.0):
        seen.append((round(deadline.remaining_s, 3), deadline.passed))
    assert seen == [(5.0, False), (2.0, False), (0.001, False), (0.0, True), (0.0, True)]


@pytest.mark.parametrize("seconds", [0.0, -1.0])
def test_a_deadline_without_time_has_passed_at_once(seconds: float) -> None:
    deadline = Deadline.after(seconds, clock=Hand(100.0))
    assert deadline.passed
    assert deadline.remaining_s == 0.0


def test_the_real_clock_is_the_default() -> None:
    deadline = Deadline.after(3600.0)
    assert not deadline.passed
    assert 3590.0 < deadline.remaining_s <= 3600.0


def test_waits_grow_to_the_ceiling_and_never_end() -> None:
    waits = list(itertools.islice(backoff_s(0.1, 2.0, jitter=0.0), 8))
    assert waits == pytest.approx([0.1, 0.2, 0.4, 0.8, 1.6, 2.0, 2.0, 2.0])


def test_waits_vary_by_no_more_than_the_jitter() -> None:
    waits = list(itertools.islice(backoff_s(1.0, 1.0, jitter=0.25), 500))
    assert all(0.75 <= wait <= 1.25 for wait in waits)
    assert len(set(waits)) > 400


def test_the_factor_is_the_callers() -> None:
    assert list(itertools.islice(backoff_s(1.0, 100.0, factor=3.0, jitter=0.0), 4)) == [1.0, 3.0, 9.0, 27.0]
