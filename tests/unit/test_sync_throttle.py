"""How many connections a host gets, by how it takes them."""

from __future__ import annotations

from morpheus_worker.sync.engine.throttle import Throttle


def test_a_refusal_halves_the_connections_and_holds_all_of_them_back() -> None:
    throttle = Throttle(16)

    throttle.refused(5.0, now=100.0)

    assert (throttle.allowed, throttle.until) == (8, 105.0)


def test_refusals_that_were_on_their_way_together_count_once() -> None:
    throttle = Throttle(16)

    for at in (100.0, 100.1, 100.2, 104.0):
        throttle.refused(5.0, now=at)
    assert throttle.allowed == 8

    throttle.refused(5.0, now=120.0)
    assert throttle.allowed == 4


def test_a_refusal_that_asks_for_no_wait_holds_nobody_back() -> None:
    throttle = Throttle(4)

    throttle.refused(0.0, now=100.0)
    throttle.refused(0.0, now=100.5)

    assert throttle.allowed == 2
    assert throttle.until <= 100.5


def test_one_connection_is_always_allowed() -> None:
    throttle = Throttle(2)

    for at in (0.0, 10.0, 20.0):
        throttle.refused(0.0, now=at)

    assert throttle.allowed == 1


def test_what_goes_well_brings_them_back_one_by_one() -> None:
    throttle = Throttle(4)
    throttle.refused(0.0, now=0.0)

    allowed = []
    for _ in range(12):
        throttle.went_well()
        allowed.append(throttle.allowed)

    assert allowed == [2, 3, 3, 3, 4, 4, 4, 4, 4, 4, 4, 4]
