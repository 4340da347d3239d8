"""The table of segments: what is next, what is there, who is helped."""

from __future__ import annotations

from morpheus_worker.sync.segments import LEAST_PROGRESS, LEAST_SPLIT, Claim, Table

MIB = 1024 * 1024


def taken(table: Table) -> Claim:
    claim = table.take()
    assert claim is not None
    return claim


def brought(table: Table, claim: Claim) -> int | None:
    claim.at = claim.end
    return table.finish(claim)


def test_segments_are_handed_out_from_the_front() -> None:
    table = Table(25, 10)

    claims = [taken(table) for _ in range(3)]

    assert [(claim.at, claim.end) for claim in claims] == [(0, 10), (10, 20), (20, 25)]
    assert table.take() is None


def test_what_is_there_is_not_handed_out() -> None:
    table = Table(25, 10, done=[0, 2])

    assert (table.front, table.arrived) == (10, 15)
    assert brought(table, taken(table)) == 1
    assert table.complete
    assert table.front == 25


def test_the_front_stops_at_the_first_gap() -> None:
    table = Table(30, 10)
    first, second = taken(table), taken(table)

    brought(table, second)
    assert table.front == 0

    brought(table, first)
    assert table.front == 20


def test_an_empty_file_is_complete() -> None:
    table = Table(0, 10)

    assert table.complete
    assert (table.front, table.arrived, table.take()) == (0, 0, None)


def test_what_is_given_back_goes_on_where_it_stopped() -> None:
    table = Table(30, 10)
    first = taken(table)
    taken(table)
    first.at = 7

    table.give_back(first)
    assert table.arrived == 7

    again = taken(table)
    assert (again.at, again.end) == (7, 10)
    assert brought(table, again) == 0


def test_a_lost_holder_can_no_longer_touch_what_is_left() -> None:
    table = Table(10, 10)
    lost = taken(table)
    lost.at = 4

    table.renew(lost)
    lost.at = 9

    again = taken(table)
    assert (again.at, again.end) == (4, 10)
    assert table.finish(lost) is None
    assert not table.complete


def test_tries_count_until_one_brings_something() -> None:
    claim = taken(Table(8 * MIB, 8 * MIB))

    assert [claim.breaks(), claim.breaks()] == [1, 2]

    claim.begins(0.0)
    claim.at += 1
    assert claim.breaks() == 3

    claim.begins(0.0)
    claim.at += LEAST_PROGRESS
    assert claim.breaks() == 1


def test_two_claims_of_one_place_can_wait_together() -> None:
    table = Table(8 * MIB, 8 * MIB)
    slow = taken(table)
    slow.begins(0.0)
    slow.at = 2 * MIB
    helper = table.share(1.0 * MIB, now=2.0)
    assert helper is not None
    slow.at = slow.end

    table.give_back(slow)
    table.give_back(helper)

    assert {taken(table), taken(table)} == {slow, helper}


def test_what_came_of_a_claim_after_it_was_shared_is_its_helpers() -> None:
    table = Table(8 * MIB, 8 * MIB)
    slow = taken(table)
    slow.begins(0.0)
    slow.at = 2 * MIB

    helper = table.share(1.0 * MIB, now=2.0)

    assert helper is not None
    assert table.reserve(slow, 8 * MIB) == helper.at - 2 * MIB
    table.wrote(slow)
    assert (slow.at, slow.left) == (helper.at, 0)


def test_what_came_of_a_claim_after_it_was_taken_over_is_nobodys() -> None:
    table = Table(8 * MIB, 8 * MIB)
    slow = taken(table)
    slow.begins(0.0)
    table.share(1.0 * MIB, now=2.0)

    assert table.reserve(slow, MIB) == 0


def test_what_is_being_written_is_not_taken_over() -> None:
    table = Table(8 * MIB, 8 * MIB)
    slow = taken(table)
    slow.begins(0.0)
    table.reserve(slow, MIB)

    helper = table.share(1.0 * MIB, now=5.0)

    assert helper is not None
    assert (slow.end, helper.at) == (MIB, MIB)
    table.wrote(slow)
    assert table.finish(slow) is None
    assert brought(table, helper) == 0


def test_a_claim_goes_from_hand_to_hand_ever_more_slowly() -> None:
    """Else none would ever wait long enough to find that its host brings nothing."""
    table = Table(LEAST_SPLIT, LEAST_SPLIT)
    taken(table).begins(0.0)
    now, waits = 0.0, []
    for _ in range(4):
        begun = now
        while (claim := table.share(1.0, now)) is None:
            now += 0.25
        claim.begins(now)
        waits.append(now - begun)

    assert waits == [1, 2, 4, 8]


def test_nobody_helps_a_claim_that_is_nearly_done() -> None:
    table = Table(8 * MIB, 8 * MIB)
    claim = taken(table)
    claim.begins(0.0)
    claim.at = 6 * MIB

    assert table.share(1.0 * MIB, now=3.0) is None


def test_nobody_helps_a_claim_that_has_only_begun() -> None:
    table = Table(8 * MIB, 8 * MIB)
    taken(table).begins(0.0)

    assert table.share(1.0 * MIB, now=0.5) is None


def test_a_slow_claim_is_shared_by_what_each_can_bring() -> None:
    table = Table(8 * MIB, 8 * MIB)
    slow = taken(table)
    slow.begins(0.0)
    slow.at = 2 * MIB

    helper = table.share(3.0 * MIB, now=2.0)

    assert helper is not None
    assert slow.end == helper.at == 2 * MIB + 6 * MIB // 4
    assert helper.end == 8 * MIB
    assert brought(table, helper) is None
    assert brought(table, slow) == 0


def test_a_claim_that_gets_nothing_any_more_is_taken_over() -> None:
    table = Table(8 * MIB, 8 * MIB)
    slow = taken(table)
    slow.fails = 2
    slow.begins(0.0)

    helper = table.share(1.0 * MIB, now=5.0)

    assert helper is not None
    assert (helper.at, helper.end, helper.fails) == (0, 8 * MIB, 2)
    assert not table.holds(slow)
    assert slow.left == 0
    assert brought(table, helper) == 0


def test_a_claim_is_not_split_into_crumbs() -> None:
    table = Table(8 * MIB, 8 * MIB)
    slow = taken(table)
    slow.begins(0.0)
    slow.at = 8 * MIB - LEAST_SPLIT

    helper = table.share(1.0, now=100_000.0)

    assert helper is not None
    assert helper.at == slow.at
    assert not table.holds(slow)


def test_the_claim_that_needs_longest_is_helped() -> None:
    table = Table(16 * MIB, 8 * MIB)
    quick, slow = taken(table), taken(table)
    quick.begins(0.0)
    slow.begins(0.0)
    quick.at, slow.at = 2 * MIB, 9 * MIB

    helper = table.share(1.0 * MIB, now=2.0)

    assert helper is not None
    assert helper.segment == slow.segment


def test_a_segment_that_is_not_there_is_handed_out_again() -> None:
    table = Table(30, 10, done=[0, 1, 2])
    assert table.front == 30

    table.reopen(1)

    assert (table.front, table.arrived, table.complete) == (10, 20, False)
    assert brought(table, taken(table)) == 1
    assert table.complete
