"""Which bytes of a file are there, which are being fetched, and which are next: a table, no clocks, files or threads.

A file is cut into segments of one size. What is missing of one is fetched in claims; a claim never leaves its segment.
Whoever holds a claim advances its `at`; everything else is done under a lock of the caller's.
"""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import Final

LEAST_SPLIT: Final = 256 * 1024
"""Bytes; who would keep fewer of a claim keeps none: asking costs as much as waiting."""

LEAST_WAIT_S: Final = 1.0
"""How long a claim must still take, and must have taken, before another connection is put on it, in seconds: twice as
long each time that it changes hands."""

LEAST_PROGRESS: Final = 16 * 1024
"""Bytes; a try that brings fewer brought nothing: else a host that hangs up after each byte is asked for ever."""


@dataclass(slots=True, eq=False)
class Claim:
    """The bytes from `at` to `end` of the file, for one connection to fetch.

    `crc` is of the segment's bytes before `at`; it says nothing once the claim was `shared`. `flowing` is the moment
    since when bytes arrive, None while none do; `start` is where it stood then. The `writing` bytes from `at` on came,
    and are being written.
    """

    segment: int
    at: int
    end: int
    fails: int = 0
    """Tries in a row that brought nothing."""
    hands: int = 0
    """How often another connection took all of it over."""
    writing: int = 0
    crc: int = 0
    shared: bool = False
    start: int = 0
    flowing: float | None = None

    @property
    def left(self) -> int:
        return max(0, self.end - self.at)

    def begins(self, now: float) -> None:
        """Bytes are about to arrive."""
        self.start, self.flowing = self.at, now

    def breaks(self) -> int:
        """No more bytes arrive: how many tries in a row, this one included, brought nothing worth a try."""
        moved = self.flowing is not None and self.at - self.start >= LEAST_PROGRESS
        self.fails = 1 if moved else self.fails + 1
        self.flowing = None
        return self.fails

    def rate(self, now: float) -> float:
        """Bytes a second since they began to flow."""
        return (self.at - self.start) / max(now - self.flowing, 1e-6) if self.flowing is not None else 0.0


class Table:
    """All segments of a file of `size` bytes; those in `done` are there already.

    >>> table = Table(20, 8, done=[0])
    >>> claim = table.take()
    >>> (claim.segment, claim.at, claim.end)
    (1, 8, 16)
    """

    def __init__(self, size: int, segment_bytes: int, done: Iterable[int] = ()) -> None:
        self.size, self.segment_bytes = size, segment_bytes
        self.count = -(-size // segment_bytes)
        self._done = bytearray(self.count)
        for segment in done:
            self._done[segment] = 1
        self._there = sum(self._length(segment) for segment in range(self.count) if self._done[segment])
        self._first_missing = 0
        # In the order in which they were taken: of two that are as slow, which is helped must not depend on addresses.
        self._out: dict[Claim, None] = {}
        self._numbers = itertools.count()
        self._free = [
            (claim.at, next(self._numbers), claim)
            for claim in map(self._whole, range(self.count))
            if not self._done[claim.segment]
        ]
        self._waiting = self.size - self._there
        self._pieces = {claim.segment: 1 for *_, claim in self._free}

    @property
    def complete(self) -> bool:
        return self._there == self.size

    @property
    def front(self) -> int:
        """Every byte before it is there."""
        while self._first_missing < self.count and self._done[self._first_missing]:
            self._first_missing += 1
        return min(self._first_missing * self.segment_bytes, self.size)

    @property
    def arrived(self) -> int:
        """How many bytes are there, those of unfinished segments included."""
        return self.size - self._waiting - sum(claim.left for claim in self._out)

    @property
    def free(self) -> int:
        """How many claims wait for somebody."""
        return len(self._free)

    def take(self) -> Claim | None:
        """The missing bytes nearest to the front that nobody fetches."""
        if not self._free:
            return None
        *_, claim = heapq.heappop(self._free)
        self._out[claim] = None
        self._waiting -= claim.left
        return claim

    def holds(self, claim: Claim) -> bool:
        """Whether it is still its holder's."""
        return claim in self._out

    def reserve(self, claim: Claim, count: int) -> int:
        """How many of `count` bytes that came for the claim are still its holder's to write. Nobody takes those over
        before they are `wrote`: bytes that were hashed are never written again."""
        claim.writing = min(count, claim.left) if claim in self._out else 0
        return claim.writing

    def wrote(self, claim: Claim) -> None:
        """What was reserved is there."""
        claim.at += claim.writing
        claim.writing = 0

    def give_back(self, claim: Claim) -> None:
        """What is left of it is for somebody else. Nothing happens when somebody else has it already."""
        if claim in self._out:
            del self._out[claim]
            claim.flowing = None
            self._put(claim)

    def renew(self, claim: Claim) -> None:
        """Its holder is lost and may still touch the claim: what is left is for somebody else, as another claim."""
        if claim in self._out:
            del self._out[claim]
            self._put(Claim(claim.segment, claim.at, claim.end, claim.fails, shared=True, start=claim.at))

    def finish(self, claim: Claim) -> int | None:
        """The claim's bytes are all there. Returns its segment where that is now whole."""
        if claim not in self._out:
            return None
        del self._out[claim]
        self._pieces[claim.segment] -= 1
        if self._pieces[claim.segment]:
            return None
        del self._pieces[claim.segment]
        self._done[claim.segment] = 1
        self._there += self._length(claim.segment)
        return claim.segment

    def share(self, rate: float, now: float) -> Claim | None:
        """The end of the claim that would be the last to be done, for a connection that makes `rate` bytes a second.

        Each holder gets as much as it can fetch in the same time: one that gets nothing any more loses all of it.
        None when nothing would be gained.
        """
        slow = max((each for each in self._out if _is_slow(each, now)), key=_needs_s(now), default=None)
        if slow is None:
            return None
        its_rate, left = slow.rate(now), slow.left - slow.writing
        keeps = int(left * its_rate / (its_rate + (rate or its_rate))) if its_rate else 0
        keeps = keeps if keeps >= LEAST_SPLIT else 0
        middle = slow.end - left + keeps
        hands = slow.hands if keeps else slow.hands + 1
        taken = Claim(slow.segment, middle, slow.end, slow.fails, hands, shared=True, start=middle)
        slow.end, slow.shared = middle, True
        self._out[taken] = None
        if slow.left:
            self._pieces[slow.segment] += 1
        else:
            del self._out[slow]
        return taken

    def reopen(self, segment: int) -> None:
        """A segment that was believed to be there is not."""
        self._done[segment] = 0
        self._there -= self._length(segment)
        self._first_missing = min(self._first_missing, segment)
        self._pieces[segment] = 1
        self._put(self._whole(segment))

    def _put(self, claim: Claim) -> None:
        heapq.heappush(self._free, (claim.at, next(self._numbers), claim))
        self._waiting += claim.left

    def _whole(self, segment: int) -> Claim:
        start = segment * self.segment_bytes
        return Claim(segment, start, start + self._length(segment), start=start)

    def _length(self, segment: int) -> int:
        start = segment * self.segment_bytes
        return min(self.segment_bytes, self.size - start)


def _is_slow(claim: Claim, now: float) -> bool:
    if claim.flowing is None or now - claim.flowing < LEAST_WAIT_S * 2**claim.hands:
        return False
    return claim.left - claim.writing > claim.rate(now) * LEAST_WAIT_S


def _needs_s(now: float) -> Callable[[Claim], float]:
    return lambda claim: claim.left / max(claim.rate(now), 1e-6)
