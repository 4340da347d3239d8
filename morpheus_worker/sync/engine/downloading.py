"""One file, from a feed into a part: resumed, in parallel, hashed alongside, and believed only when it is right."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import Final, Protocol

from morpheus_worker.deadlines import backoff_s
from morpheus_worker.sync.engine.crew import Crew
from morpheus_worker.sync.engine.follower import Follower
from morpheus_worker.sync.engine.partfile import PartFile, needs_crc
from morpheus_worker.sync.engine.ranged import RangedTransfer, RangesIgnoredError
from morpheus_worker.sync.engine.reading import given_up, may_pass
from morpheus_worker.sync.engine.whole import WholeTransfer
from morpheus_worker.sync.terms import PROGRESS_S, Downloaded, Feed, Pace, Stop, SyncCode, SyncError, stopped

POLL_S: Final = 0.1
"""How late a stop may be noticed, in seconds."""

SHOWN_DIGITS: Final = 12

OnBytes = Callable[[int], None]
"""Hears how many of the file's bytes are there, from one thread; fewer than before when it has to begin anew."""


def download(
    feed: Feed,
    part: PartFile,
    *,
    pace: Pace,
    hashing: bool = True,
    on_bytes: OnBytes = lambda _: None,
    stop: Stop,
) -> Downloaded:
    """Brings the whole file into `part`, going on with what is there, and verifies its size and its SHA-256.

    The hash is always of what is on the disk, bytes of earlier runs included. Without `hashing` nothing is compared.
    When this returns or raises, nothing writes to the part any more. It stays open, and its journal stays, so that the
    caller may publish it and a run after this one may go on with it.

    Raises:
        SyncError: `rejected` when what arrived is not the file: its journal is gone then, no run goes on with it.
            `unreachable` after every try; `changed`, `no_space`, `volume`; `interrupted` within about a second of
            `stop`; whatever else the feed raises.
    """
    return _Download(feed, part, pace, hashing, on_bytes, stop).run()


class _Transfer(Protocol):
    def start(self) -> None: ...

    def watch(self) -> None: ...


class _Download:
    def __init__(self, feed: Feed, part: PartFile, pace: Pace, hashing: bool, on_bytes: OnBytes, stop: Stop) -> None:
        self._feed, self._part, self._pace, self._hashing, self._stop = feed, part, pace, hashing, stop
        self._on_bytes = on_bytes
        self._told_at = 0.0
        self._received = 0

    def run(self) -> Downloaded:
        size, sha256 = self._arrived()
        self._verify(size, sha256)
        self._on_bytes(size)
        return Downloaded(size, sha256, self._received)

    def _arrived(self) -> tuple[int, str | None]:
        size = self._part.size
        if size is not None and self._feed.ranges:
            try:
                return size, self._in_ranges(size)
            except RangesIgnoredError:
                pass
        return self._whole()

    def _in_ranges(self, size: int) -> str | None:
        part, crew = self._part, Crew()
        with_crc = self._hashing and needs_crc(part.resolved)
        transfer = RangedTransfer(self._feed, part, crew, size=size, pace=self._pace, with_crc=with_crc)
        follower = None
        if self._hashing:
            claimed = {segment: crc for segment, crc in part.held.segments.items() if crc is not None}
            follower = Follower(crew, part, lambda: transfer.table.front, claimed=claimed, wrong=transfer.wrong)
        self._watched(
            crew,
            transfer,
            follower,
            arrived=lambda: transfer.table.arrived,
            done=lambda: transfer.table.complete and (follower is None or follower.at == size),
        )
        return follower.sha256 if follower is not None else None

    def _whole(self) -> tuple[int, str | None]:
        """As often as it takes: each time all of it, since nothing but the end tells that it came whole."""
        self._part.forget()
        waits = backoff_s(self._pace.first_wait_s, self._pace.longest_wait_s)
        tries = 1
        while True:
            try:
                return self._once()
            except SyncError as failure:
                if not may_pass(failure, self._pace):
                    raise
                if tries >= self._pace.tries:
                    raise given_up(failure, tries) from failure
                self._rest(max(failure.after_s, next(waits)))
                tries += 1

    def _once(self) -> tuple[int, str | None]:
        crew = Crew()
        transfer = WholeTransfer(self._feed, self._part, crew, pace=self._pace)
        follower = Follower(crew, self._part, lambda: transfer.at) if self._hashing else None
        self._watched(
            crew,
            transfer,
            follower,
            arrived=lambda: transfer.at,
            done=lambda: transfer.size is not None and (follower is None or follower.at == transfer.size),
        )
        self._part.cut(transfer.at)
        return transfer.at, follower.sha256 if follower is not None else None

    def _watched(
        self,
        crew: Crew,
        transfer: _Transfer,
        follower: Follower | None,
        *,
        arrived: Callable[[], int],
        done: Callable[[], bool],
    ) -> None:
        """Runs the threads until all is done, something failed, or somebody asked to stop."""
        try:
            transfer.start()
            if follower is not None:
                crew.start("sync-hash", follower.run)
            while not self._over(crew, done):
                with crew.changed:
                    if not done() and crew.failure is None:
                        crew.changed.wait(POLL_S)
                    count = arrived()
                self._tell(count)
                transfer.watch()
        finally:
            crew.end()
            self._received += crew.received

    def _over(self, crew: Crew, done: Callable[[], bool]) -> bool:
        with crew.changed:
            if crew.failure is not None:
                raise crew.failure
            if done():
                return True
        if self._stop.is_set():
            raise stopped()
        return False

    def _tell(self, count: int) -> None:
        now = time.monotonic()
        if now - self._told_at >= PROGRESS_S:
            self._told_at = now
            self._on_bytes(count)

    def _rest(self, seconds: float) -> None:
        end = time.monotonic() + seconds
        while (left := end - time.monotonic()) > 0:
            if self._stop.is_set():
                raise stopped()
            time.sleep(min(left, POLL_S))

    def _verify(self, size: int, sha256: str | None) -> None:
        wanted, there = self._part.resolved, self._part.bytes_on_disk()
        if there != size or wanted.size not in (None, size):
            self._reject(f"has {there} bytes, and {wanted.size or size} were expected")
        if sha256 is not None and wanted.sha256 not in (None, sha256):
            expected = (wanted.sha256 or "")[:SHOWN_DIGITS]
            self._reject(f"has the SHA-256 {sha256[:SHOWN_DIGITS]}…, and {expected}… was expected")

    def _reject(self, what: str) -> None:
        self._part.forget()
        raise SyncError(SyncCode.REJECTED, what, "it is not published; look at where it came from")
