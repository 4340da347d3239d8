"""The threads of one download, what they tell each other, and how they are sent home.

A thread that waits for a host cannot be called back: it notices the end when its wait is over, which may be long after
the download returned. So none writes but through a `Pen`, and the end takes every pen away: a pen's lock is held while
it writes, and is taken once more to take it away. From then on that thread cannot write a byte, whenever it wakes; and
none uses a descriptor that another thread closes.
"""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from typing import Final

from morpheus_worker.sync.engine.partfile import PartFile
from morpheus_worker.sync.terms import SyncCode, SyncError

FAREWELL_S: Final = 0.3
"""How long the end waits for threads that wait for a host. They can do no harm."""


class SentHomeError(Exception):
    """The download is over, or goes on without this thread."""


class Crew:
    """Daemon threads around one lock. What is shared is read and changed under `changed`, which tells of it."""

    def __init__(self) -> None:
        self.changed = threading.Condition()
        self.over = False
        self.failure: SyncError | None = None
        self._pens: list[Pen] = []
        self._threads: list[threading.Thread] = []

    @property
    def received(self) -> int:
        """Bytes that its threads wrote."""
        return sum(pen.received for pen in self._pens)

    def start(self, name: str, work: Callable[[], None]) -> None:
        """Runs `work` in a thread. Whatever it raises ends the download; a SyncError is what the download raises.

        Raises:
            SyncError: `internal`, when the machine has no thread left.
        """
        thread = threading.Thread(target=self._run, args=(work,), name=name, daemon=True)
        try:
            thread.start()
        except RuntimeError as failure:
            hint = "raise its limit of processes, or let fewer files come at once, over fewer connections"
            raise SyncError(SyncCode.INTERNAL, "this machine starts no more threads", hint) from failure
        self._threads.append(thread)

    def pen(self, part: PartFile) -> Pen:
        pen = Pen(part)
        with self.changed:
            self._pens.append(pen)
        return pen

    @contextmanager
    def descriptor(self, part: PartFile) -> Iterator[int]:
        """One of its own for a thread, which may outlive the part.

        Raises:
            SentHomeError: when it is over: the part may be closed then.
        """
        with self.changed:
            self.check()
            fd = part.another_fd()
        try:
            yield fd
        finally:
            os.close(fd)

    def check(self) -> None:
        """
        Raises:
            SentHomeError: when it is over.
        """
        if self.over:
            raise SentHomeError

    def rest(self, seconds: float) -> None:
        """Waits that long.

        Raises:
            SentHomeError: as soon as it is over.
        """
        end = time.monotonic() + seconds
        with self.changed:
            while not self.over and (left := end - time.monotonic()) > 0:
                self.changed.wait(left)
        self.check()

    def fail(self, failure: SyncError) -> None:
        """Ends the download; the first failure is the one that is told."""
        with self.changed:
            self.failure = self.failure or failure
            self.changed.notify_all()

    def end(self) -> None:
        """No thread writes any more when this returns, and nearly always none is left."""
        with self.changed:
            self.over = True
            self.changed.notify_all()
            pens, threads = list(self._pens), list(self._threads)
        for pen in pens:
            pen.take_away()
        end = time.monotonic() + FAREWELL_S
        for thread in threads:
            thread.join(max(0.0, end - time.monotonic()))

    def _run(self, work: Callable[[], None]) -> None:
        with self._answered_for():
            work()

    @contextmanager
    def _answered_for(self) -> Iterator[None]:
        failure: SyncError | None = SyncError(SyncCode.INTERNAL, "broke off by a mistake in this program")
        try:
            yield
            failure = None
        except SentHomeError:
            failure = None
        except SyncError as told:
            failure = told
        finally:
            if failure is not None:
                self.fail(failure)


class Pen:
    """One thread's right to write into the part and its journal.

    Every method raises SentHomeError once it was taken away, and SyncError when the disk refuses.
    """

    def __init__(self, part: PartFile) -> None:
        self._part = part
        self._lock = threading.Lock()
        self._taken = False
        self.received = 0
        """Bytes that were written with it."""

    def write_at(self, data: memoryview, at: int) -> None:
        with self._lock:
            self.check()
            self._part.write_at(data, at)
            self.received += len(data)

    def written(self, segment: int, crc: int | None) -> None:
        with self._lock:
            self.check()
            self._part.written(segment, crc)

    def synced(self, segments: list[int]) -> None:
        with self._lock:
            self.check()
            self._part.synced(segments)

    def wrong(self, segment: int) -> None:
        with self._lock:
            self.check()
            self._part.wrong(segment)

    def check(self) -> None:
        if self._taken:
            raise SentHomeError

    def take_away(self) -> None:
        """Returns once nothing is being written with it."""
        with self._lock:
            self._taken = True
