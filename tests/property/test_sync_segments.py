"""Whatever connections do, in whatever order, the table loses no byte and claims none that is not there."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from morpheus_worker.sync.segments import LEAST_SPLIT, Claim, Table

SEGMENT = 4 * LEAST_SPLIT


class Transfer(RuleBasedStateMachine):
    """Connections that fetch, fail, hang, wake up late, and help each other. In `there`, bytes really written are 1."""

    def __init__(self) -> None:
        super().__init__()
        self.table, self.size, self.there = Table(0, SEGMENT), 0, bytearray()
        self.now = 0.0
        self.held: list[Claim] = []
        self.lost: list[Claim] = []

    @initialize(size=st.integers(0, 4 * SEGMENT), done=st.sets(st.integers(0, 3)))
    def begin(self, size: int, done: set[int]) -> None:
        self.size, self.there = size, bytearray(size)
        done = {segment for segment in done if segment * SEGMENT < size}
        self.table = Table(size, SEGMENT, done)
        for segment in done:
            self._mark(segment * SEGMENT, min((segment + 1) * SEGMENT, size), b"\1")

    def _mark(self, start: int, end: int, value: bytes) -> None:
        self.there[start:end] = value * (end - start)

    def _write(self, claim: Claim, count: int) -> None:
        """What came, and was not taken over meanwhile; no byte is written twice."""
        kept = self.table.reserve(claim, count)
        assert self.there.find(1, claim.at, claim.at + kept) < 0
        self._mark(claim.at, claim.at + kept, b"\1")
        self.table.wrote(claim)

    @rule()
    def take(self) -> None:
        claim = self.table.take()
        if claim is not None:
            claim.begins(self.now)
            self.held.append(claim)

    @precondition(lambda self: self.held)
    @rule(data=st.data(), seconds=st.floats(0.1, 20.0))
    def bring(self, data: st.DataObject, seconds: float) -> None:
        claim = data.draw(st.sampled_from(self.held))
        self.now += seconds
        self._write(claim, data.draw(st.integers(0, claim.left + SEGMENT)))
        if not claim.left:
            self.held.remove(claim)
            self.table.finish(claim)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def fail(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.held))
        self.held.remove(claim)
        claim.breaks()
        self.table.give_back(claim)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def hang(self, data: st.DataObject) -> None:
        claim = data.draw(st.sampled_from(self.held))
        self.held.remove(claim)
        self.table.renew(claim)
        self.lost.append(claim)

    @precondition(lambda self: self.lost)
    @rule(data=st.data())
    def wake(self, data: st.DataObject) -> None:
        """It counts what it can no longer write."""
        claim = data.draw(st.sampled_from(self.lost))
        claim.at += claim.left
        self.table.finish(claim)

    @rule(rate=st.floats(0.0, 1e7), seconds=st.floats(0.0, 20.0))
    def help(self, rate: float, seconds: float) -> None:
        self.now += seconds
        claim = self.table.share(rate, self.now)
        if claim is not None:
            assert claim.left > 0
            claim.begins(self.now)
            self.held.append(claim)

    @rule(data=st.data())
    def reopen(self, data: st.DataObject) -> None:
        whole = -(-self.table.front // SEGMENT)
        if whole:
            segment = data.draw(st.integers(0, whole - 1))
            self.table.reopen(segment)
            self._mark(segment * SEGMENT, min((segment + 1) * SEGMENT, self.size), b"\0")

    @invariant()
    def nothing_is_claimed_that_is_not_there(self) -> None:
        assert self.there.find(0, 0, self.table.front) < 0
        assert self.table.complete == (self.table.front == self.size)
        assert self.table.arrived <= self.there.count(1)

    def teardown(self) -> None:
        """Whoever goes on brings the rest."""
        for claim in self.held:
            self._write(claim, claim.left)
            self.table.finish(claim)
        while (rest := self.table.take()) is not None:
            self._write(rest, rest.left)
            self.table.finish(rest)
        assert self.table.complete
        assert self.table.arrived == self.size == self.there.count(1)


TestTransfer = Transfer.TestCase
TestTransfer.settings = settings(max_examples=60, stateful_step_count=40)
