"""A file in ranges, over several connections at once."""

from __future__ import annotations

import itertools
import os
import time
import zlib
from typing import Final

from morpheus_worker.deadlines import backoff_s
from morpheus_worker.sync.engine.crew import Crew, Pen, SentHomeError
from morpheus_worker.sync.engine.disk import disk_error
from morpheus_worker.sync.engine.partfile import PartFile
from morpheus_worker.sync.engine.reading import Reader, another_size, cut_short, given_up, may_pass, silent
from morpheus_worker.sync.engine.throttle import Throttle
from morpheus_worker.sync.segments import Claim, Table
from morpheus_worker.sync.terms import Body, Feed, Pace, SyncCode, SyncError

SYNC_BYTES: Final = 256 * 1024 * 1024
"""How much a machine's crash may cost, about, beyond what was on its way."""

IDLE_S: Final = 0.2
"""How often a connection without work looks whether another one became slow, in seconds."""


class RangesIgnoredError(SyncError):
    """The host sends the whole file, whatever part of it is asked for."""


class RangedTransfer:
    """Fetches what the part lacks. Its table says how far it is; everything in it is touched under the crew's lock.

    `with_crc`: each segment is noted with the CRC-32 of its bytes.
    """

    def __init__(self, feed: Feed, part: PartFile, crew: Crew, *, size: int, pace: Pace, with_crc: bool) -> None:
        self.table = Table(size, part.segment_bytes, part.held.segments)
        self._feed, self._part, self._crew, self._pace = feed, part, crew, pace
        self._with_crc = with_crc
        self._pen = crew.pen(part)
        self._throttle = Throttle(pace.connections)
        self._active: set[Pen] = set()
        """Of the connections that have a claim."""
        self._connections: list[_Connection] = []
        self._syncer = _Syncer(crew, part) if size > SYNC_BYTES else None

    def start(self) -> None:
        # One at least, even when all seems to be there: a segment may turn out not to be.
        for _ in range(max(1, min(self._pace.connections, self.table.free))):
            self._connect()
        if self._syncer is not None:
            self._crew.start("sync-disk", self._syncer.run)

    def watch(self) -> None:
        """Puts another connection in the place of each one that hangs."""
        for each in [each for each in self._connections if each.reader.waits_too_long()]:
            each.reader.pen.take_away()
            self._connections.remove(each)
            with self._crew.changed:
                self._active.discard(each.reader.pen)
                self._lost(each)
                # It may have finished its segment just now, without a chance to tell.
                self._crew.changed.notify_all()
            self._connect()

    def wrong(self, segment: int) -> None:
        """The segment is not what was noted of it: it is fetched again."""
        self._pen.wrong(segment)
        with self._crew.changed:
            self.table.reopen(segment)
            self._crew.changed.notify_all()

    def _connect(self) -> None:
        connection = _Connection(self, Reader(self._crew.pen(self._part), self._pace, self._feed.shown))
        self._connections.append(connection)
        self._crew.start("sync-range", connection.run)

    def _lost(self, connection: _Connection) -> None:
        claim = connection.claim
        if claim is not None and self.table.holds(claim):
            if claim.breaks() >= self._pace.tries:
                raise given_up(silent(self._feed.shown, self._pace), claim.fails)
            self.table.renew(claim)

    # What a connection does with the others in mind.

    def next(self, rate: float, pen: Pen) -> Claim:
        """Waits for something to fetch.

        Raises:
            SentHomeError: at the end.
        """
        with self._crew.changed:
            while True:
                self._crew.check()
                pen.check()
                now = time.monotonic()
                if len(self._active) < self._throttle.allowed and now >= self._throttle.until:
                    claim = self.table.take() or self.table.share(rate, now)
                    if claim is not None:
                        self._active.add(pen)
                        return claim
                self._crew.changed.wait(IDLE_S)

    def fetch(self, claim: Claim, reader: Reader) -> None:
        """Brings all of the claim, in as many tries as it takes; or gives it back, when the host bears fewer."""
        while claim.left:
            try:
                self._receive(claim, reader)
            except SyncError as failure:
                reader.pauses()
                reader.pen.check()
                self._crew.rest(self._wait_after(failure, claim))
                if not self._goes_on(claim, reader.pen):
                    return
        with self._crew.changed:
            reader.pen.check()
            self._active.discard(reader.pen)
            self._throttle.went_well()
            segment = self.table.finish(claim)
        if segment is not None:
            self._whole(segment, claim, reader.pen)

    def _receive(self, claim: Claim, reader: Reader) -> None:
        with self._feed.opened(claim.at, claim.end) as body:
            self._judge(body, claim)
            claim.begins(time.monotonic())
            reader.begins()
            while left := claim.left:
                block = reader.read(body, left)
                if not block:
                    raise cut_short(self._feed.shown)
                self._write(block, claim, reader.pen)

    def _write(self, block: memoryview, claim: Claim, pen: Pen) -> None:
        with self._crew.changed:
            pen.check()
            block = block[: self.table.reserve(claim, len(block))]
        pen.write_at(block, claim.at)
        if self._with_crc:
            claim.crc = zlib.crc32(block, claim.crc)
        with self._crew.changed:
            pen.check()
            self.table.wrote(claim)

    def _judge(self, body: Body, claim: Claim) -> None:
        size, said = self.table.size, self._feed.shown
        if body.total not in (None, size):
            raise another_size(said, size, body.total or 0)
        if not body.ranged and (claim.at, claim.end) != (0, size):
            raise RangesIgnoredError(SyncCode.UNREACHABLE, f"{said} sends no part of a file alone")
        if body.start != claim.at:
            raise SyncError(SyncCode.UNREACHABLE, f"{said} sent another part than it was asked for", passing=True)

    def _wait_after(self, failure: SyncError, claim: Claim) -> float:
        """How long to wait until the next try.

        Raises:
            SyncError: when there is none.
        """
        with self._crew.changed:
            at_the_door = claim.flowing is None
            fails = claim.breaks()
            if not self.table.holds(claim) and may_pass(failure, self._pace):
                return 0.0
            if not may_pass(failure, self._pace):
                raise failure
            if fails >= self._pace.tries:
                raise given_up(failure, fails)
            if at_the_door:
                self._throttle.refused(failure.after_s, time.monotonic())
        waits = backoff_s(self._pace.first_wait_s, self._pace.longest_wait_s)
        return max(failure.after_s, next(itertools.islice(waits, fails - 1, None)))

    def _goes_on(self, claim: Claim, pen: Pen) -> bool:
        """Whether the connection may ask again; else the claim is somebody else's."""
        with self._crew.changed:
            while (pause := self._throttle.until - time.monotonic()) > 0:
                self._crew.check()
                self._crew.changed.wait(pause)
            self._crew.check()
            if len(self._active) <= self._throttle.allowed and self.table.holds(claim):
                return True
            self._active.discard(pen)
            self.table.give_back(claim)
            self._crew.changed.notify_all()
            return False

    def _whole(self, segment: int, claim: Claim, pen: Pen) -> None:
        if self.table.count > 1:
            pen.written(segment, claim.crc if self._with_crc and not claim.shared else None)
        with self._crew.changed:
            if self._syncer is not None:
                self._syncer.written.append(segment)
            self._crew.changed.notify_all()


class _Connection:
    """One thread that asks for one range after the other."""

    def __init__(self, transfer: RangedTransfer, reader: Reader) -> None:
        self.reader = reader
        self.claim: Claim | None = None
        self._transfer = transfer
        self._rate = 0.0

    def run(self) -> None:
        try:
            while True:
                self._fetch_next()
        finally:
            self.reader.close()

    def _fetch_next(self) -> None:
        self.claim = None
        claim = self.claim = self._transfer.next(self._rate, self.reader.pen)
        begun, at = time.monotonic(), claim.at
        self._transfer.fetch(claim, self.reader)
        self._rate = (claim.at - at) / max(time.monotonic() - begun, 1e-6)


class _Syncer:
    """Sees to it that what was written gets to the disk now and then, and notes it."""

    def __init__(self, crew: Crew, part: PartFile) -> None:
        self.written: list[int] = []
        """Segments whose bytes were written and not synced; touched under the crew's lock."""
        self._crew, self._pen = crew, crew.pen(part)
        self._enough = max(1, SYNC_BYTES // part.segment_bytes)
        self._part = part

    def run(self) -> None:
        with self._crew.descriptor(self._part) as fd:
            while True:
                segments = self._awaited()
                try:
                    os.fdatasync(fd)
                except OSError as failure:
                    raise disk_error(failure, "syncing the part") from failure
                self._pen.synced(segments)

    def _awaited(self) -> list[int]:
        with self._crew.changed:
            while not self._crew.over and len(self.written) < self._enough:
                self._crew.changed.wait()
            if self._crew.over:
                raise SentHomeError
            segments, self.written = self.written, []
            return segments
