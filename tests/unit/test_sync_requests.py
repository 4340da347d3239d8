"""A request's states: every move that there is, and none besides."""

from __future__ import annotations

import itertools
from dataclasses import dataclass, field, replace

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from morpheus_worker.sync.requests import (
    LONGEST_RETRY_S,
    LONGEST_SENTENCE,
    MOVES,
    Act,
    IllegalMoveError,
    LeaseLostError,
    Request,
    State,
    asked,
    claimable,
    claimed,
    failed,
    given_back,
    missed,
    moved,
    renewed,
    succeeded,
)
from morpheus_worker.sync.terms import SyncCode, SyncError

NOW = 1000.0
LEASE_S = 60.0
PASSING = SyncError(SyncCode.UNREACHABLE, "cannot be reached", passing=True)
FINAL = SyncError(SyncCode.NOT_FOUND, "is not there", "look again")


def queued(**more: object) -> Request:
    return replace(asked(None, Request("m", name="My Model"), NOW), **more)  # type: ignore[arg-type]


def held(**more: object) -> Request:
    row = claimed(queued(), NOW, owner="one", lease_s=LEASE_S)
    return replace(row, **more)  # type: ignore[arg-type]


@pytest.mark.parametrize(("act", "state"), list(itertools.product(Act, State)))
def test_a_move_leads_where_the_table_says_or_is_an_error(act: Act, state: State) -> None:
    row = Request("m", state)
    if (act, state) in MOVES:
        assert moved(row, act, NOW).state == MOVES[act, state]
    else:
        with pytest.raises(IllegalMoveError, match=f"'m' is {state}: there is no way to {act}"):
            moved(row, act, NOW)


@pytest.mark.parametrize("act", Act)
def test_a_state_of_an_app_s_own_is_left_alone(act: Act) -> None:
    with pytest.raises(IllegalMoveError, match="'archived', which is none that a worker knows"):
        moved(Request("m", "archived"), act, NOW)


# --- asking


def test_asking_for_what_is_not_there_makes_a_row() -> None:
    row = asked(None, Request("m", name="My Model", source="civitai:1", state="nonsense", attempt=9), NOW)
    assert row == Request("m", State.QUEUED, name="My Model", source="civitai:1", requested_at=NOW, updated_at=NOW)


def test_asking_after_an_error_begins_anew() -> None:
    row = Request(
        "m", State.ERROR, source="civitai:1", attempt=5, error="no", error_code="unreachable", requested_at=1.0
    )
    assert asked(row, Request("m"), NOW) == Request(
        "m", State.QUEUED, source="civitai:1", requested_at=NOW, updated_at=NOW
    )


@pytest.mark.parametrize("state", [State.QUEUED, State.SYNCING])
@pytest.mark.parametrize("again", [False, True])
def test_asking_for_what_waits_or_runs_changes_nothing(state: State, again: bool) -> None:
    row = held(state=state)
    assert asked(row, Request("m"), NOW + 1, again=again) == row


def test_what_is_synced_is_queued_only_when_asked_for_again() -> None:
    row = succeeded(held(), held(), NOW, uri="/cache/m", size=5)
    assert asked(row, Request("m", name="My Model"), NOW) == row
    assert asked(row, Request("m"), NOW, again=True).state == State.QUEUED


def test_asking_for_something_else_under_the_same_id_takes_it_from_its_worker() -> None:
    row = asked(held(), Request("m", source="civitai:2"), NOW)
    assert (row.state, row.owner, row.lease_until, row.source, row.name) == (
        State.QUEUED, None, None, "civitai:2", "My Model"
    )  # fmt: skip


def test_a_cancelled_request_that_is_asked_for_while_its_worker_has_not_noticed_is_queued() -> None:
    assert asked(held(state=State.NOTSYNCED), Request("m"), NOW).state == State.QUEUED


# --- claiming


@pytest.mark.parametrize("state", [State.QUEUED, State.SYNCING])
def test_an_app_asks_with_a_state_and_no_more(state: State) -> None:
    row = claimed(Request("m", state), NOW, owner="one", lease_s=LEASE_S)
    assert (row.state, row.owner, row.attempt, row.lease_until, row.requested_at) == (
        State.SYNCING, "one", 1, NOW + LEASE_S, NOW
    )  # fmt: skip


def test_nobody_claims_what_somebody_has() -> None:
    row = held()
    assert not claimable(row, NOW + LEASE_S - 1)
    with pytest.raises(IllegalMoveError, match="not free"):
        claimed(row, NOW + LEASE_S - 1, owner="two", lease_s=LEASE_S)


def test_a_lease_that_ended_is_claimed_and_the_attempt_counts() -> None:
    row = claimed(held(bytes_done=7), NOW + LEASE_S, owner="two", lease_s=LEASE_S)
    assert (row.owner, row.attempt, row.bytes_done) == ("two", 2, 7)


def test_a_worker_that_ended_without_a_word_on_the_last_attempt_leaves_an_error() -> None:
    row = claimed(held(attempt=3), NOW + LEASE_S, owner="two", lease_s=LEASE_S, attempts=3)
    assert (row.state, row.error_code, row.owner, row.lease_until) == (State.ERROR, "interrupted", None, None)
    assert row.error == "the worker that had it ended without a word, on attempt 3"


def test_a_request_that_an_app_asks_for_after_an_error_has_all_its_attempts_again() -> None:
    row = failed(held(attempt=5), held(attempt=5), NOW, failure=PASSING)
    assert claimed(replace(row, state="queued"), NOW, owner="two", lease_s=LEASE_S).attempt == 1


@pytest.mark.parametrize("state", [State.NOTSYNCED, State.SYNCED, State.ERROR])
def test_what_nobody_asks_for_is_not_claimed(state: State) -> None:
    assert not claimable(Request("m", state), NOW)
    with pytest.raises(IllegalMoveError):
        claimed(Request("m", state), NOW, owner="one", lease_s=LEASE_S)


# --- holding


def test_a_renewal_prolongs_the_lease_and_tells_how_far_it_is() -> None:
    row = renewed(held(), held(), NOW + 20, lease_s=LEASE_S, bytes_done=3, bytes_total=9)
    assert (row.lease_until, row.bytes_done, row.bytes_total, row.attempt) == (NOW + 80, 3, 9, 1)
    assert renewed(row, held(), NOW + 30, lease_s=LEASE_S).bytes_done == 3


def test_an_app_that_asks_for_what_is_being_done_disturbs_nothing() -> None:
    assert renewed(held(state="queued"), held(), NOW, lease_s=LEASE_S).state == State.SYNCING


@pytest.mark.parametrize(
    "row",
    [held(owner="two"), held(attempt=2), held(owner=None, lease_until=None, state=State.QUEUED)]
    + [held(state=state) for state in (State.NOTSYNCED, State.ERROR, State.SYNCED, "archived")],
    ids=["another's", "another attempt", "asked for anew", "cancelled", "failed", "synced", "unknown"],
)
def test_who_does_not_hold_it_any_more_moves_nothing(row: Request) -> None:
    with pytest.raises(LeaseLostError, match="'m'"):
        renewed(row, held(), NOW, lease_s=LEASE_S)
    with pytest.raises(LeaseLostError, match="'m'"):
        succeeded(row, held(), NOW, uri="/m", size=1)
    with pytest.raises(LeaseLostError, match="'m'"):
        failed(row, held(), NOW, failure=PASSING)


def test_success_tells_where_the_file_is() -> None:
    row = succeeded(held(), held(), NOW, uri="s3://bucket/m", size=9)
    assert (row.state, row.uri, row.bytes_done, row.bytes_total) == (State.SYNCED, "s3://bucket/m", 9, 9)
    assert (row.owner, row.lease_until, row.attempt) == (None, None, 1)


def test_a_passing_failure_waits_longer_each_time() -> None:
    rows = [
        failed(held(attempt=n), held(attempt=n), NOW, failure=PASSING, retry_s=10.0, attempts=99) for n in (1, 2, 3, 60)
    ]
    assert [row.state for row in rows] == [State.QUEUED] * 4
    assert [row.lease_until for row in rows] == [NOW + 10, NOW + 20, NOW + 40, NOW + LONGEST_RETRY_S]
    assert rows[0].error == "cannot be reached"
    assert not claimable(rows[0], NOW + 9)


def test_a_host_that_asks_to_be_left_alone_is() -> None:
    failure = SyncError(SyncCode.UNREACHABLE, "is busy", passing=True, after_s=100.0)
    assert failed(held(), held(), NOW, failure=failure, retry_s=10.0).lease_until == NOW + 100


def test_the_last_attempt_ends_in_an_error_with_the_reason() -> None:
    row = failed(held(attempt=5), held(attempt=5), NOW, failure=PASSING, attempts=5)
    assert (row.state, row.error_code, row.error) == (State.ERROR, "unreachable", "cannot be reached")
    assert (row.owner, row.lease_until, row.attempt) == (None, None, 5)


def test_a_failure_for_good_ends_at_once() -> None:
    row = failed(held(), held(), NOW, failure=FINAL)
    assert (row.state, row.error_code, row.error) == (State.ERROR, "not_found", "is not there (look again)")


def test_a_full_volume_is_tried_again_though_not_at_once() -> None:
    assert failed(held(), held(), NOW, failure=SyncError(SyncCode.NO_SPACE, "is full")).state == State.QUEUED


def test_an_endless_sentence_is_cut() -> None:
    row = failed(held(), held(), NOW, failure=SyncError(SyncCode.REJECTED, "x" * 9999))
    assert row.error is not None
    assert len(row.error) == LONGEST_SENTENCE


def test_what_is_given_back_is_free_at_once_and_costs_no_attempt() -> None:
    row = given_back(held(), held(), NOW)
    assert (row.state, row.owner, row.attempt, row.lease_until) == (State.QUEUED, None, 0, None)
    again = given_back(held(attempt=3), held(attempt=3), NOW)
    assert claimed(again, NOW, owner="two", lease_s=LEASE_S).attempt == 3


def test_a_cancelled_request_that_is_given_back_stays_cancelled() -> None:
    row = given_back(held(state=State.NOTSYNCED, attempt=3), held(attempt=3), NOW)
    assert (row.state, row.owner, row.lease_until) == (State.NOTSYNCED, None, None)


def test_a_file_that_is_gone_makes_its_request_not_synced() -> None:
    row = missed(succeeded(held(), held(), NOW, uri="/m", size=9), NOW)
    assert (row.state, row.uri, row.bytes_done) == (State.NOTSYNCED, None, 0)
    with pytest.raises(IllegalMoveError):
        missed(held(), NOW)


# --- whatever happens in whatever order

WORKERS = ("one", "two")
ATTEMPTS = 3


@dataclass
class Claims:
    """What each worker believes to hold, and how often the request was begun since it was asked for."""

    believed: dict[str, Request] = field(default_factory=dict)
    begun: int = 0


class Life(RuleBasedStateMachine):
    """One request, two workers that may stop anywhere, and an app that writes states."""

    def __init__(self) -> None:
        super().__init__()
        self.row = asked(None, Request("m"), NOW)
        self.now = NOW
        self.claims = Claims()

    @rule(seconds=st.floats(0.5, 100))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds

    @rule(again=st.booleans())
    def is_asked_for(self, again: bool) -> None:
        before, self.row = self.row, asked(self.row, Request("m"), self.now, again=again)
        if self.row != before:
            assert self.row.attempt == 0
            self.claims.begun = 0

    @rule(state=st.sampled_from([State.QUEUED, State.SYNCING, State.NOTSYNCED]))
    def an_app_writes(self, state: State) -> None:
        if self.row.lease_until is None:
            self.claims.begun = 0
        self.row = replace(self.row, state=state)

    @precondition(lambda self: claimable(self.row, self.now))
    @rule(owner=st.sampled_from(WORKERS))
    def is_claimed(self, owner: str) -> None:
        self.row = claimed(self.row, self.now, owner=owner, lease_s=LEASE_S, attempts=ATTEMPTS)
        if self.row.state == State.SYNCING:
            self.claims.believed[owner] = self.row
            self.claims.begun += 1

    @precondition(lambda self: self.claims.believed)
    @rule(data=st.data(), act=st.sampled_from(["renew", "succeed", "fail", "refuse", "give back"]))
    def a_worker_goes_on(self, data: st.DataObject, act: str) -> None:
        owner = data.draw(st.sampled_from(sorted(self.claims.believed)))
        mine = self.claims.believed[owner]
        holds = (self.row.owner, self.row.attempt) == (owner, mine.attempt)
        try:
            self.row = self._moved(act, mine)
        except LeaseLostError:
            assert not holds or self.row.state not in (State.QUEUED, State.SYNCING)
        else:
            assert holds
            if act == "give back":
                self.claims.begun -= 1
        if act != "renew":
            del self.claims.believed[owner]

    def _moved(self, act: str, mine: Request) -> Request:
        match act:
            case "renew":
                return renewed(self.row, mine, self.now, lease_s=LEASE_S)
            case "succeed":
                return succeeded(self.row, mine, self.now, uri="/m", size=1)
            case "give back":
                return given_back(self.row, mine, self.now)
            case _:
                failure = PASSING if act == "fail" else FINAL
                return failed(self.row, mine, self.now, failure=failure, attempts=ATTEMPTS)

    @invariant()
    def attempts_are_bounded(self) -> None:
        assert 0 <= self.row.attempt <= ATTEMPTS
        assert self.claims.begun <= ATTEMPTS

    @invariant()
    def what_ended_well_or_badly_is_nobody_s(self) -> None:
        if self.row.state in (State.SYNCED, State.ERROR):
            assert (self.row.owner, self.row.lease_until) == (None, None)

    @invariant()
    def one_at_most_holds_it(self) -> None:
        holders = [
            owner
            for owner, mine in self.claims.believed.items()
            if (self.row.owner, self.row.attempt) == (owner, mine.attempt)
        ]
        assert len(holders) <= 1


TestLife = Life.TestCase


# --- what changes while a worker has it


@pytest.mark.parametrize("wish", [{"source": "civitai:2"}, {"path": "vae/x"}, {"destination": "s3://b"}, {"name": "n"}])
def test_a_request_that_asks_for_something_else_is_not_ended_by_what_was_fetched(wish: dict[str, str]) -> None:
    mine = held()
    row = replace(mine, state=State.QUEUED, **wish)  # type: ignore[arg-type]
    with pytest.raises(LeaseLostError, match="asks for something else"):
        succeeded(row, mine, NOW, uri="/m", size=1)
    with pytest.raises(LeaseLostError):
        renewed(row, mine, NOW, lease_s=LEASE_S)
    with pytest.raises(LeaseLostError):
        failed(row, mine, NOW, failure=FINAL)
    free = given_back(replace(row, attempt=3), replace(mine, attempt=3), NOW)
    assert (free.state, free.owner, free.attempt, free.lease_until) == (State.QUEUED, None, 0, None)


def test_a_new_request_has_no_size_of_the_one_before() -> None:
    row = claimed(queued(bytes_done=5, bytes_total=5), NOW, owner="one", lease_s=LEASE_S)
    assert (row.bytes_done, row.bytes_total) == (0, None)


def test_an_interruption_that_nobody_asked_for_counts_as_an_attempt() -> None:
    interrupted = SyncError(SyncCode.INTERRUPTED, "was interrupted")
    assert failed(held(), held(), NOW, failure=interrupted).state == State.QUEUED
    assert failed(held(), held(), NOW, failure=interrupted, attempts=1).state == State.ERROR
