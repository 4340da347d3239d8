"""Sync as a service: a worker claims what apps ask for, sees to it, and records where it is or why it is not.

The volume or the bucket is the truth, the store a view of it: a request whose file is there already is synced without a
transfer, and one whose file is gone is not synced any more.
"""

from __future__ import annotations

import logging
import os
import secrets
import socket
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import Final, TypeVar

from morpheus_worker.deadlines import backoff_s
from morpheus_worker.sync.requests import DEFAULT_ATTEMPTS, RETRY_S, LeaseLostError, Request, State
from morpheus_worker.sync.store import RequestStore, StoreError
from morpheus_worker.sync.terms import Event, OnEvent, Stop, SyncCode, SyncError
from morpheus_worker.syncing.keeping import Keeper
from morpheus_worker.syncing.outcomes import Outcome
from morpheus_worker.syncing.requested import check_place, noted_as_asked_for, noted_as_gone, wanted_of
from morpheus_worker.syncing.running import sync_one
from morpheus_worker.syncing.stopping import EitherStop
from morpheus_worker.syncing.telling import Teller, unheard
from morpheus_worker.syncing.work import Work

log = logging.getLogger(__name__)

LEASE_S: Final = 60.0
POLL_S: Final = 5.0
RECONCILE_S: Final = 600.0
"""Between two looks at what was synced."""
LOOK_S: Final = 1.0
"""Of such a look, before requests have their turn."""
ONCE_PATIENCE_S: Final = 60.0
"""How long a worker that is to end by itself waits for a store that does not answer."""
FIRST_WAIT_S: Final = 0.5
LONGEST_WAIT_S: Final = 30.0

Answer = TypeVar("Answer")


@dataclass(frozen=True, slots=True)
class Served:
    """How many requests a worker brought to which end. `retried`: left for another try, `returned`: given back."""

    synced: int = 0
    failed: int = 0
    retried: int = 0
    returned: int = 0

    @property
    def ok(self) -> bool:
        return not self.failed and not self.retried


def serve(
    work: Work,
    store: RequestStore,
    *,
    destination: str | None = None,
    once: bool = False,
    stop: Stop | None = None,
    on_event: OnEvent = unheard,
    owner: str | None = None,
    lease_s: float = LEASE_S,
    poll_s: float = POLL_S,
    attempts: int = DEFAULT_ATTEMPTS,
    retry_s: float = RETRY_S,
) -> Served:
    """Claims one request after another and sees to it, until `stop` is set; with `once`, until none is left to claim.

    `destination` is where files go that name none themselves: a bucket and prefix, or None for the volume. When it is
    stopped, the request under way is given back, and what was fetched of it stays for the next worker. A store that
    does not answer is waited for.

    Raises:
        StoreError: the store cannot be used any more; with `once`, it did not answer for a minute.
    """
    worker = _Worker(
        work=work,
        store=store,
        destination=destination,
        once=once,
        stop=stop or threading.Event(),
        on_event=on_event,
        owner=owner or new_owner(),
        lease_s=lease_s,
        attempts=attempts,
        retry_s=retry_s,
    )
    return worker.run(poll_s)


def new_owner() -> str:
    """A name for one worker that no other has: its machine, its process, and a few random digits."""
    return f"{socket.gethostname()}:{os.getpid()}:{secrets.token_hex(4)}"


@dataclass(slots=True)
class _Worker:
    work: Work
    store: RequestStore
    destination: str | None
    once: bool
    stop: Stop
    on_event: OnEvent
    owner: str
    lease_s: float
    attempts: int
    retry_s: float
    counts: dict[str, int] = field(default_factory=dict)
    strange: set[tuple[str, str]] = field(default_factory=set)
    looked_at: float | None = None
    to_look_at: Iterator[Request] | None = None

    def run(self, poll_s: float) -> Served:
        try:
            while not self.stop.is_set():
                looked_at_all = self._look_after_what_is_synced()
                since, held = self._patiently(self._claimed)
                if held is not None:
                    self._see_to(held, since)
                elif not looked_at_all:
                    continue
                elif self.once:
                    break
                else:
                    self.stop.wait(poll_s)
        except StoreError as failure:
            if not self.stop.is_set():
                raise
            log.warning("Stopped while the request store did not answer: %s", failure)
        return Served(**self.counts)

    def _claimed(self) -> tuple[float, Request | None]:
        """When it was claimed, by this machine's own clock, and what."""
        return time.monotonic(), self.store.claim(self.owner, lease_s=self.lease_s, attempts=self.attempts)

    def _look_after_what_is_synced(self) -> bool:
        """Goes on with the look for a moment, so that it keeps no request waiting; whether it is over."""
        began = time.monotonic()
        if self.to_look_at is None:
            if self.looked_at is not None and began < self.looked_at + RECONCILE_S:
                return True
            self.looked_at, self.to_look_at = began, iter(self._patiently(self.store.list))
        for row in self.to_look_at:
            self._look_at(row)
            if self.stop.is_set() or time.monotonic() >= began + LOOK_S:
                return False
        self.to_look_at = None
        return True

    def _look_at(self, row: Request) -> None:
        self._patiently(lambda: noted_as_gone(self.work, self.store, row))
        if not row.known and (row.id, row.state) not in self.strange:
            self.strange.add((row.id, row.state))
            log.warning("'%s' is in state '%s', which no worker knows; it is left alone", row.id, row.state)

    def _see_to(self, held: Request, since: float) -> None:
        log.info("Syncing '%s', attempt %d", held.id, held.attempt, extra={"request": held.id})
        with Keeper(self.store, held, lease_s=self.lease_s, since=since) as keeper:
            outcome = self._synced(held, keeper)
        try:
            if isinstance(outcome, Outcome):
                self._record(held, outcome)
            elif keeper.lost.is_set() or (outcome.code is SyncCode.INTERRUPTED and self.stop.is_set()):
                self._give_back(held, keeper.why or "the worker was asked to stop")
            else:
                self._record_failure(held, outcome)
        except LeaseLostError as failure:
            self._give_back(held, str(failure))

    def _synced(self, held: Request, keeper: Keeper) -> Outcome | SyncError:
        def hear(event: Event) -> None:
            keeper.hear(event)
            self.on_event(event)

        stop = EitherStop(self.stop, keeper.lost)
        destination = held.destination or self.destination
        # Only a place that an app chose can be another request's.
        others = self._patiently(self.store.list) if held.path is not None else ()
        try:
            wanted = wanted_of(self.work, held, destination=destination, stop=stop)
            check_place(self.work, others, held, wanted, destination=destination)
            outcome = sync_one(
                self.work,
                wanted,
                destination=destination,
                key=str(wanted.entry.path),
                on_event=hear,
                stop=stop,
            )
            noted_as_asked_for(self.work, outcome, destination)
        except SyncError as failure:
            return failure
        except Exception:
            # The last line of defence: one request's surprise must not end the worker.
            log.exception("'%s' failed in a way nobody foresaw", held.id)
            said = "failed in a way nobody foresaw"
            return SyncError(SyncCode.INTERNAL, said, f"the log of {self.owner} has the reason", passing=True)
        return outcome.error or outcome

    def _record(self, held: Request, outcome: Outcome) -> None:
        size = outcome.receipt.size if outcome.receipt is not None else None
        self._patiently(lambda: self.store.succeed(held, uri=outcome.uri, size=size))
        self._count("synced")
        log.info("'%s' is synced: %s", held.id, outcome.uri, extra={"request": held.id, "uri": outcome.uri})

    def _record_failure(self, held: Request, failure: SyncError) -> None:
        Teller(self.on_event, held.id, held.path or "").failed(failure)
        row = self._patiently(lambda: self.store.fail(held, failure, attempts=self.attempts, retry_s=self.retry_s))
        again = row.state == State.QUEUED
        self._count("retried" if again else "failed")
        then = "is tried again later" if again else "is given up"
        log.warning("'%s' %s: %s", held.id, then, failure, extra={"request": held.id, "code": str(failure.code)})

    def _give_back(self, held: Request, why: str) -> None:
        log.info("'%s' is given back: %s", held.id, why, extra={"request": held.id})
        self._count("returned")
        try:
            self._patiently(lambda: self.store.give_back(held))
        except StoreError as failure:
            log.warning("'%s' is free once its lease ends: %s", held.id, failure)

    def _count(self, what: str) -> None:
        self.counts[what] = self.counts.get(what, 0) + 1

    def _patiently(self, ask: Callable[[], Answer]) -> Answer:
        """What the store says, asked again while it does not answer and nobody stops the worker."""
        began_s = time.monotonic()
        for wait_s in backoff_s(FIRST_WAIT_S, LONGEST_WAIT_S):
            try:
                return ask()
            except StoreError as failure:
                waited_s = time.monotonic() - began_s
                if not failure.passing or self.stop.is_set() or (self.once and waited_s > ONCE_PATIENCE_S):
                    raise
                log.warning("The request store does not answer, and is asked again: %s", failure)
            self.stop.wait(wait_s)
        raise AssertionError("backoff never ends")
