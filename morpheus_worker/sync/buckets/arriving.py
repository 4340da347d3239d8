"""A file that arrives a part at a time, in memory alone: hashed in its order, looked at before any of it goes on.

Parts are handed out from the front, and a part is given away only when all before it were hashed, so no more of a file
is held than there are buffers.
"""

from __future__ import annotations

import contextlib
import hashlib
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final, Protocol

from morpheus_worker.deadlines import backoff_s
from morpheus_worker.sync.terms import Body, Feed, Pace, SyncCode, SyncError

READ_BYTES: Final = 1024 * 1024
CLOSING_S: Final = 0.1

Judge = Callable[[bytes, int], None]
"""Looks at the beginning of a file and its whole size in bytes; raises `SyncError` when it is not what it should be."""


class UnrangedError(Exception):
    """The host sends everything whatever is asked for."""


class StartOverError(Exception):
    """It broke off where it cannot be gone on with. `failure` says how."""

    def __init__(self, failure: SyncError) -> None:
        super().__init__(str(failure))
        self.failure = failure


class HaltedError(Exception):
    """Another thread has failed, or somebody asked to stop."""


@dataclass(frozen=True, slots=True)
class Part:
    """`number` begins at 1; `whole` says that there is no other."""

    number: int
    size: int
    whole: bool = False


class Arrival(Protocol):
    """The parts of one file. Several threads may take at once, each into a buffer of its own."""

    def take(self, buffer: memoryview) -> Part | None:
        """Fills the buffer with the next part, as far as there is one; None after the last.

        Raises:
            SyncError: as the feed does, and as the judge does.
        """


class Tally:
    """What is known of the bytes so far, and whether to go on. Shared by the threads of one file."""

    def __init__(self, *, size: int | None, hashing: bool, judge: Judge | None) -> None:
        self.size = size
        self.received = 0
        self.halted = threading.Event()
        self._hash: Any = hashlib.sha256() if hashing else None
        self._judge = judge
        self._unjudged: bytes | None = None
        self._settled_bytes = 0
        self._settled_parts = 0
        self._turn = threading.Condition()

    def halt(self) -> None:
        """Ends what all threads are doing, as soon as they look."""
        with self._turn:
            self.halted.set()
            self._turn.notify_all()

    def check(self) -> None:
        """
        Raises:
            HaltedError: when another thread has failed, or somebody asked to stop.
        """
        if self.halted.is_set():
            raise HaltedError

    def wait(self, seconds: float) -> None:
        self.halted.wait(seconds)
        self.check()

    def arrived(self, count: int) -> None:
        with self._turn:
            self.received += count

    def settle(self, index: int, content: memoryview) -> None:
        """Hashes the part, after all that come before it. The first is judged."""
        with self._turn:
            self._turn.wait_for(lambda: self._settled_parts == index or self.halted.is_set())
        self.check()
        if index == 0:
            self._look_at(content)
        if self._hash is not None:
            self._hash.update(content)
        with self._turn:
            self._settled_bytes += len(content)
            self._settled_parts += 1
            self._turn.notify_all()

    def end(self) -> tuple[int, str | None]:
        """The size and the hash of all that was settled, once it is all.

        Raises:
            SyncError: as the judge does, where the size was not known before.
        """
        if self._judge is not None and self._unjudged is not None:
            self._judge(self._unjudged, self._settled_bytes)
        return self._settled_bytes, None if self._hash is None else self._hash.hexdigest()

    def _look_at(self, content: memoryview) -> None:
        if self._judge is None:
            return
        if self.size is None:
            self._unjudged = bytes(content)
        else:
            self._judge(bytes(content), self.size)


class Tries:
    """How often, and after which waits, one stretch of a file is asked for again."""

    def __init__(self, pace: Pace, wait: Callable[[float], None]) -> None:
        self._pace = pace
        self._wait = wait
        self._failed = 0
        self._waits: Iterator[float] = iter(())

    def failed(self, failure: SyncError, *, progressed: bool) -> None:
        """Returns when it may be tried again.

        Raises:
            SyncError: `failure`, when it would fail again, or was met too often without a byte of progress.
        """
        if progressed or not self._failed:
            self._waits = backoff_s(self._pace.first_wait_s, self._pace.longest_wait_s)
        self._failed = 0 if progressed else self._failed + 1
        too_long = failure.after_s > self._pace.longest_asked_wait_s
        if not failure.passing or too_long or self._failed >= self._pace.tries:
            raise failure
        self._wait(max(failure.after_s, next(self._waits)))


class RangedArrival:
    """Several parts at once, each by ranges of its own. What breaks off goes on at its byte."""

    def __init__(self, feed: Feed, tally: Tally, pace: Pace, *, size: int, part_bytes: int) -> None:
        self._feed = feed
        self._tally = tally
        self._pace = pace
        self._size = size
        self._step = part_bytes
        self._next = 0
        self._lock = threading.Lock()

    def take(self, buffer: memoryview) -> Part | None:
        with self._lock:
            index, start = self._next, self._next * self._step
            if start >= self._size:
                return None
            self._next += 1
        content = buffer[: min(self._step, self._size - start)]
        self._fill(start, content)
        self._tally.settle(index, content)
        return Part(index + 1, len(content))

    def _fill(self, start: int, content: memoryview) -> None:
        tries, at = Tries(self._pace, self._tally.wait), 0
        while at < len(content):
            before = at
            try:
                for count in self._read(start, content, at):
                    at += count
                    self._tally.arrived(count)
            except SyncError as failure:
                tries.failed(failure, progressed=at > before)

    def _read(self, start: int, content: memoryview, at: int) -> Iterator[int]:
        with self._feed.opened(start + at, start + len(content)) as body:
            if not body.ranged or body.start != start + at:
                raise UnrangedError
            _check_total(body.total, self._size)
            while at < len(content):
                self._tally.check()
                count = body.readinto(content[at : at + READ_BYTES])
                if not count:
                    raise _broken_off(self._feed)
                at += count
                yield count


class StreamedArrival:
    """One part after another from a single answer, for a host without ranges, a file of unknown size, or a small one.

    `close` it. Where the host names a version and honours ranges after all, a broken answer goes on at its byte.
    """

    def __init__(self, feed: Feed, tally: Tally, pace: Pace, *, part_bytes: int) -> None:
        self._feed = feed
        self._tally = tally
        self._step = part_bytes
        self._tries = Tries(pace, tally.wait)
        self._opened = contextlib.ExitStack()
        self._body: Body | None = None
        self._at = 0
        self._parts = 0
        self._ended = False
        self._is_closing = False
        self._lock = threading.Lock()

    def take(self, buffer: memoryview) -> Part | None:
        with self._lock:
            try:
                return self._taken(buffer)
            finally:
                if self._is_closing:
                    self._opened.close()

    def close(self) -> None:
        """Ends the answer; one that a thread waits for is ended by that thread."""
        self._is_closing = True
        if self._lock.acquire(timeout=CLOSING_S):
            try:
                self._opened.close()
            finally:
                self._lock.release()

    def _taken(self, buffer: memoryview) -> Part | None:
        self._tally.check()
        size = self._fill(buffer[: self._step])
        if not size and self._parts:
            return None
        self._tally.settle(self._parts, buffer[:size])
        self._parts += 1
        return Part(self._parts, size, whole=self._ended and self._parts == 1)

    def _fill(self, content: memoryview) -> int:
        at = 0
        while not self._ended and at < len(content):
            before = at
            try:
                while at < len(content) and (count := self._read(content[at : at + READ_BYTES])):
                    at += count
            except SyncError as failure:
                self._opened.close()
                self._body = None
                self._tries.failed(failure, progressed=at > before)
        return at

    def _read(self, content: memoryview) -> int:
        """Some bytes; 0 at the file's end."""
        self._tally.check()
        body = self._body = self._body or self._open()
        count = 0 if self._at == body.total else body.readinto(content)
        expected = body.total if body.total is not None else self._tally.size
        if not count and expected is not None and self._at < expected:
            raise _broken_off(self._feed)
        self._at += count
        if self._tally.size is not None and self._at > self._tally.size:
            raise _of_another_size(self._at, self._tally.size)
        self._ended = not count or self._at == body.total
        self._tally.arrived(count)
        return count

    def _open(self) -> Body:
        body = self._opened.enter_context(self._feed.opened(self._at, None))
        if self._at and (not body.ranged or body.start != self._at or self._feed.resolved.version is None):
            raise StartOverError(_broken_off(self._feed))
        _check_total(body.total, self._tally.size)
        self._tally.size = body.total if self._tally.size is None else self._tally.size
        return body


def _check_total(said: int | None, wanted: int | None) -> None:
    if said is not None and wanted is not None and said != wanted:
        raise _of_another_size(said, wanted)


def _of_another_size(size: int, wanted: int) -> SyncError:
    return SyncError(SyncCode.REJECTED, f"has another size than the {wanted} bytes that are wanted ({size} were found)")


def _broken_off(feed: Feed) -> SyncError:
    return SyncError(SyncCode.UNREACHABLE, f"broke off amid {feed.shown}", "try again", passing=True)
