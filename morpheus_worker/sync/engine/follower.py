"""SHA-256 of a part, read back from the page cache while the rest of it still arrives."""

from __future__ import annotations

import hashlib
import os
import zlib
from collections.abc import Callable, Mapping
from typing import Final

from morpheus_worker.sync.engine.crew import Crew
from morpheus_worker.sync.engine.disk import disk_error
from morpheus_worker.sync.engine.partfile import PartFile
from morpheus_worker.sync.terms import SyncCode, SyncError

BLOCK: Final = 1024 * 1024
"""What is read back and hashed at once, in bytes."""


class Follower:
    """Hashes what lies before the front, in order, from the disk: what was there before included.

    `front` is called under the crew's lock. `claimed` are CRC-32s of whole segments, as an earlier run noted them; a
    segment that does not have its own is handed to `wrong`, and hashed once the front has passed it again.
    """

    def __init__(
        self,
        crew: Crew,
        part: PartFile,
        front: Callable[[], int],
        *,
        claimed: Mapping[int, int] | None = None,
        wrong: Callable[[int], None] | None = None,
    ) -> None:
        self.at = 0
        """Everything before it is hashed."""
        self._crew, self._front = crew, front
        self._claimed, self._wrong = dict(claimed or {}), wrong
        self._segment_bytes = part.segment_bytes
        self._part, self._fd = part, -1
        self._digest = hashlib.sha256()
        self._view = memoryview(bytearray(BLOCK))

    @property
    def sha256(self) -> str:
        return self._digest.hexdigest()

    def run(self) -> None:
        """
        Raises:
            SentHomeError: at the end.
            SyncError: `volume`.
        """
        with self._crew.descriptor(self._part) as self._fd:
            while True:
                front = self._awaited()
                self._segment(min(front, (self.at // self._segment_bytes + 1) * self._segment_bytes))
                if self.at >= front:
                    with self._crew.changed:
                        self._crew.changed.notify_all()

    def _awaited(self) -> int:
        with self._crew.changed:
            while not self._crew.over and self._front() <= self.at:
                self._crew.changed.wait()
            self._crew.check()
            return self._front()

    def _segment(self, end: int) -> None:
        """Hashes as far as `end`, which lies in the same segment."""
        segment, at = self.at // self._segment_bytes, self.at
        expected = self._claimed.pop(segment, None)
        before = self._digest.copy() if expected is not None else self._digest
        crc = 0
        while at < end:
            self._crew.check()
            block = self._view[: self._read(end - at, at)]
            self._digest.update(block)
            crc = zlib.crc32(block, crc) if expected is not None else 0
            at += len(block)
        if expected is not None and crc != expected and self._wrong is not None:
            self._digest = before
            self._wrong(segment)
        else:
            self.at = at

    def _read(self, most: int, at: int) -> int:
        try:
            count = os.preadv(self._fd, [self._view[:most]], at)
        except OSError as failure:
            raise disk_error(failure, "reading the part") from failure
        if count == 0:
            raise SyncError(SyncCode.VOLUME, "the part was cut short by somebody else")
        return count
