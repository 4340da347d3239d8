"""Events of one entry, with progress told no more often than anybody can look."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from pathlib import PurePosixPath
from typing import Any

from morpheus_worker.sync.terms import PROGRESS_S, Event, EventKind, OnEvent, SyncError


class Teller:
    """Tells of one entry. Its methods may be called from any thread."""

    def __init__(
        self,
        on_event: OnEvent,
        entry_id: str,
        path: PurePosixPath | str,
        *,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._on_event, self.id, self.path, self._clock = on_event, entry_id, str(path), clock
        self._guard = threading.Lock()
        self._told_at: float | None = None
        self.total: int | None = None
        self.done = 0
        self._kind: EventKind = "progress"

    def say(self, kind: EventKind, message: str = "", *, code: str = "", **details: Any) -> None:
        self._on_event(Event(kind, self.id, self.path, self._shown_done(kind), self.total, message, code, details))

    def _shown_done(self, kind: EventKind) -> int | None:
        return self.done if kind in ("started", "progress", "verifying", "published", "adopted") else None

    def count(self, total: int | None, *, done: int = 0, kind: EventKind = "progress") -> None:
        """Begins to count anew; `kind` is what `at` says from now on: `progress`, or `verifying` while hashing."""
        with self._guard:
            self.total, self.done, self._kind, self._told_at = total, done, kind, None

    def at(self, done: int) -> None:
        """So many bytes of the entry are done; told at most every `PROGRESS_S` seconds."""
        with self._guard:
            self.done = done
            kind = self._due()
        if kind is not None:
            self.say(kind)

    def more(self, count: int) -> None:
        """So many bytes more; fewer when bytes turned out to be no good and are fetched again."""
        with self._guard:
            self.done += count
            kind = self._due()
        if kind is not None:
            self.say(kind)

    def _due(self) -> EventKind | None:
        """What is to be told now, or None where it was a moment ago."""
        now = self._clock()
        if self._told_at is not None and now - self._told_at < PROGRESS_S:
            return None
        self._told_at = now
        return self._kind

    def failed(self, failure: SyncError) -> None:
        more = {"hint": failure.hint} if failure.hint else {}
        self.say("failed", failure.what, code=str(failure.code), **more)


def unheard(event: Event) -> None:
    """For who wants to hear nothing."""
