"""One thread's way from an answer to the part, and the watch over it."""

from __future__ import annotations

import time
from typing import Final

from morpheus_worker.sync.engine.crew import Pen
from morpheus_worker.sync.terms import Body, Pace, SyncCode, SyncError

BLOCK: Final = 1024 * 1024
"""What is read and written at once, in bytes; the memory that a connection takes."""

GRACE_S: Final = 5.0
"""How much later than a host's own connection the watch loses patience, in seconds."""


LEAST_RATE: Final = 256
"""Bytes a second; an answer that brought fewer during all of `stall_s` is as good as one that stalls."""


class Reader:
    """Reads answers into one buffer, for one pen to write. `said` is the address as it may be shown."""

    def __init__(self, pen: Pen, pace: Pace, said: str) -> None:
        self.pen = pen
        self._pace, self._said = pace, said
        self._view = memoryview(bytearray(BLOCK))
        self._since: float | None = None
        self._looked_at, self._came = 0.0, 0

    def begins(self) -> None:
        """Another answer is about to be read."""
        self._looked_at, self._came = time.monotonic(), 0

    def read(self, body: Body, most: int) -> memoryview:
        """Some bytes of the answer, `most` at most, good until the next call; none at its end.

        Raises:
            SyncError: passing, when they come too slowly to wait for.
        """
        self._since = time.monotonic()
        count = body.readinto(self._view[:most])
        self._since = None
        self._came += count
        self._look(time.monotonic())
        return self._view[:count]

    def _look(self, now: float) -> None:
        took = now - self._looked_at
        if took >= self._pace.stall_s:
            if self._came < took * LEAST_RATE:
                what = f"{self._said} sent only {self._came} bytes in {took:.0f} s"
                raise SyncError(SyncCode.UNREACHABLE, what, passing=True)
            self._looked_at, self._came = now, 0

    def close(self) -> None:
        """Gives the buffer back: it is too much to leave to the garbage collector, which counts objects, not bytes."""
        self._view = memoryview(b"")

    def pauses(self) -> None:
        """No answer is being read any more."""
        self._since = None

    def waits_too_long(self) -> bool:
        """Whether it has been waiting for one read longer than any connection should let it."""
        since = self._since
        return since is not None and time.monotonic() - since > self._pace.stall_s + GRACE_S


def cut_short(said: str) -> SyncError:
    """An answer that ended before it was whole."""
    return SyncError(
        SyncCode.UNREACHABLE, f"the connection to {said} was closed before everything had come", passing=True
    )


def silent(said: str, pace: Pace) -> SyncError:
    """A host that sends nothing any more."""
    return SyncError(SyncCode.UNREACHABLE, f"{said} sent nothing for {pace.stall_s:g} s", passing=True)


def another_size(said: str, known: int, total: int) -> SyncError:
    """A host whose file is no longer the one that was resolved."""
    what = f"{said} has {total} bytes now, and {known} were expected"
    return SyncError(SyncCode.CHANGED, what, "resolve it anew")


def given_up(failure: SyncError, tries: int) -> SyncError:
    """What a passing failure is after the last try."""
    what = f"{failure.what}, {tries} times in a row" if tries > 1 else failure.what
    return SyncError(failure.code, what, failure.hint)


def may_pass(failure: SyncError, pace: Pace) -> bool:
    """Whether another try is worth it: a signed address that expired is signed anew by the next one."""
    return (failure.passing or failure.expired) and failure.after_s <= pace.longest_asked_wait_s
