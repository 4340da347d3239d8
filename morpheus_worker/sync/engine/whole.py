"""A file in one piece, over one connection: of a host that sends no ranges, or that does not say how much there is."""

from __future__ import annotations

from morpheus_worker.sync.engine.crew import Crew
from morpheus_worker.sync.engine.partfile import PartFile
from morpheus_worker.sync.engine.reading import Reader, another_size, cut_short, silent
from morpheus_worker.sync.terms import Body, Feed, Pace, SyncCode, SyncError

TELL_BYTES = 8 * 1024 * 1024
"""How often the hash hears of more."""


class WholeTransfer:
    """One try, from the file's first byte to its last. `at`: everything before it was written."""

    def __init__(self, feed: Feed, part: PartFile, crew: Crew, *, pace: Pace) -> None:
        self.at = 0
        self.size: int | None = None
        """The file's, once all of it was written."""
        self._feed, self._part, self._crew, self._pace = feed, part, crew, pace
        self._reader = Reader(crew.pen(part), pace, feed.shown)

    def start(self) -> None:
        self._crew.start("sync-whole", self._run)

    def watch(self) -> None:
        """
        Raises:
            SyncError: passing, when the connection hangs.
        """
        if self._reader.waits_too_long():
            raise silent(self._feed.shown, self._pace)

    def _run(self) -> None:
        with self._feed.opened(0, None) as body:
            total = self._total(body)
            told = 0
            self._reader.begins()
            while block := self._reader.read(body, self._most(total)):
                self._reader.pen.write_at(block, self.at)
                self.at += len(block)
                if self.at - told >= TELL_BYTES:
                    told = self.at
                    self._tell()
                if self.at == total:
                    break
        if total not in (None, self.at):
            raise cut_short(self._feed.shown)
        with self._crew.changed:
            self.size = self.at
            self._crew.changed.notify_all()

    def _tell(self) -> None:
        with self._crew.changed:
            self._crew.changed.notify_all()

    def _total(self, body: Body) -> int | None:
        known, said = self._part.size, self._feed.shown
        if body.start != 0:
            raise SyncError(SyncCode.UNREACHABLE, f"{said} sent another part than it was asked for", passing=True)
        if known is not None and body.total not in (None, known):
            raise another_size(said, known, body.total or 0)
        return body.total if known is None else known

    def _most(self, total: int | None) -> int:
        return total - self.at if total is not None else 1 << 62
