"""Holding a request while it is worked on: its lease is renewed and how far it is noted, beside the transfer."""

from __future__ import annotations

import logging
import threading
import time
from types import TracebackType
from typing import Final, Self

from morpheus_worker.sync.requests import LeaseLostError, Request
from morpheus_worker.sync.store import RequestStore, StoreError
from morpheus_worker.sync.terms import Event

log = logging.getLogger(__name__)

NOTE_S: Final = 2.0
"""Between two notes of how far a transfer is, in seconds."""
RENEWALS: Final = 3
"""Within one lease: two may fail."""


class Keeper:
    """Within its block the request is this worker's, until `lost` is set: then somebody else may have it.

    A store that does not answer costs nothing before the lease ends, by this machine's own clock, which said `since`
    (`time.monotonic()`; now where it is left out) when the request was claimed.
    """

    def __init__(self, store: RequestStore, held: Request, *, lease_s: float, since: float | None = None) -> None:
        self.lost = threading.Event()
        self.why = ""
        self._store, self._held, self._lease_s = store, held, lease_s
        self._note_s = min(NOTE_S, lease_s / RENEWALS)
        self._ended = threading.Event()
        self._ends_at = (time.monotonic() if since is None else since) + lease_s
        self._heard: tuple[int | None, int | None] = (None, None)
        named = (("renew", self._renew), ("watch", self._watch))
        self._threads = [threading.Thread(target=run, name=f"request-{name}", daemon=True) for name, run in named]

    def hear(self, event: Event) -> None:
        """Takes how far the transfer is from what is told of it."""
        if event.bytes_done is not None or event.bytes_total is not None:
            self._heard = (event.bytes_done, event.bytes_total)

    def __enter__(self) -> Self:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._ended.set()
        for thread in self._threads:
            thread.join()

    def _renew(self) -> None:
        noted, due_at = self._heard, time.monotonic()
        while not self._ended.wait(self._note_s) and not self.lost.is_set():
            heard, began = self._heard, time.monotonic()
            if heard == noted and began < due_at:
                continue
            try:
                self._store.renew(self._held, lease_s=self._lease_s, bytes_done=heard[0], bytes_total=heard[1])
            except LeaseLostError as failure:
                self._lose(str(failure))
            except StoreError as failure:
                log.warning("How far '%s' is cannot be noted: %s", self._held.id, failure)
            else:
                self._ends_at = began + self._lease_s
                noted, due_at = heard, began + self._lease_s / RENEWALS

    def _watch(self) -> None:
        while not self._ended.wait(max(0.0, self._ends_at - time.monotonic())) and not self.lost.is_set():
            if time.monotonic() >= self._ends_at:
                self._lose(f"its lease of {self._lease_s:g} s could not be renewed")

    def _lose(self, why: str) -> None:
        self.why = why
        self.lost.set()
