"""`morpheus models request`, `requests` and `worker`: the sync service that apps ask for models."""

from __future__ import annotations

import argparse
import contextlib
import logging
from collections.abc import Iterator
from dataclasses import asdict
from typing import Final

from morpheus_worker import entry
from morpheus_worker.cli.models_failing import AskedWronglyError, answering, named
from morpheus_worker.cli.models_printing import (
    counted,
    is_terminal,
    print_json,
    print_rows,
    remark,
    tell_failures,
)
from morpheus_worker.cli.models_progress import running
from morpheus_worker.errors import Problem
from morpheus_worker.settings import Settings
from morpheus_worker.sync.amounts import size_text
from morpheus_worker.sync.requests import IllegalMoveError, Request, State
from morpheus_worker.sync.store import RequestStore, StoreError, open_store
from morpheus_worker.sync.terms import Event, SyncCode, SyncError
from morpheus_worker.syncing.work import Work

STORE_HINT: Final = "MORPHEUS_SYNC_STORE says where it is"
SOURCE_HINT: Final = "--source names where it is, for what no manifest lists"
WORDS: Final = {
    State.NOTSYNCED: "not asked for",
    State.QUEUED: "queued",
    State.SYNCING: "syncing",
    State.SYNCED: "synced",
    State.ERROR: "failed",
}


@answering
def request(asked: argparse.Namespace, settings: Settings) -> int:
    """Asks for a model. What is asked for already is left alone; what no worker could ever do is refused."""
    from morpheus_worker.syncing.requested import request as requested

    wish = Request(asked.id, name=asked.name, source=asked.source, path=asked.path, destination=asked.to)
    with Work.of(settings) as work, _store(settings) as store:
        try:
            row = requested(work, store, wish, force=asked.again)
        except IllegalMoveError as failure:
            raise AskedWronglyError(Problem("", str(failure))) from None
        except SyncError as failure:
            raise named(asked.id, failure, None if asked.source else SOURCE_HINT) from failure
    if asked.json:
        print_json(asdict(row))
    else:
        remark(f"{row.id}: {_state(row)}" + (f", at {row.uri}" if row.uri else ""), asked)
    return entry.EXIT_OK


@answering
def requests(asked: argparse.Namespace, settings: Settings) -> int:
    """What was asked for, the first first."""
    with _store(settings) as store:
        rows = store.list()
    if asked.json:
        print_json({"requests": [asdict(row) for row in rows]})
        return entry.EXIT_OK
    print_rows(("request", "state", "bytes", "attempt", "where, or why not"), [_row(row) for row in rows])
    remark(counted(len(rows), "request"), asked)
    return entry.EXIT_OK


def _row(row: Request) -> tuple[str, ...]:
    counts = (row.bytes_done if row.bytes_done or row.bytes_total else None, row.bytes_total)
    amounts = [size_text(count) for count in counts if count is not None]
    attempt = str(row.attempt) if row.attempt else ""
    return row.id, _state(row), " of ".join(dict.fromkeys(amounts)), attempt, row.uri or row.error or ""


def _state(row: Request) -> str:
    return WORDS[State(row.state)] if row.known else row.state


@answering
def worker(asked: argparse.Namespace, settings: Settings) -> int:
    """Sees to one request after another, until it is asked to end. 1 when `--once` left one that failed."""
    from morpheus_worker.syncing.foreseeing import destined
    from morpheus_worker.syncing.service import serve

    destined(asked.to)
    failed = Failed()
    with Work.of(settings) as work, _store(settings) as store, running(asked) as (display, stopping):

        def on_event(event: Event) -> None:
            failed.hear(event)
            display(event)

        with _told_once(asked):
            served = serve(work, store, destination=asked.to, once=asked.once, on_event=on_event, stop=stopping.stop)
        display.summary({"event": "summary", "ok": served.ok, **asdict(served)})
    if not asked.quiet:
        counts = {"synced": served.synced, "failed": served.failed, "to be tried again": served.retried}
        counts |= {"given back": served.returned}
        remark(
            ", ".join(f"{count} {what}" for what, count in counts.items() if count) or "there was nothing to do", asked
        )
    tell_failures(failed.problems)
    return stopping.exit_code(entry.EXIT_OK if served.ok else entry.EXIT_FAILED)


class Failed:
    """The requests that failed the last time they were tried, and why."""

    def __init__(self) -> None:
        self._problems: dict[str, Problem] = {}

    def hear(self, event: Event) -> None:
        if event.kind == "failed" and event.code != SyncCode.INTERRUPTED:
            self._problems[event.id] = Problem(event.id, event.message, event.details.get("hint"))
        elif event.kind in ("published", "present", "adopted"):
            self._problems.pop(event.id, None)

    @property
    def problems(self) -> list[Problem]:
        return list(self._problems.values())


@contextlib.contextmanager
def _told_once(asked: argparse.Namespace) -> Iterator[None]:
    """A person is told by the bars what becomes of each request, and needs no log of it."""
    from morpheus_worker.syncing.service import serve

    service = logging.getLogger(serve.__module__)

    def is_news(record: logging.LogRecord) -> bool:
        return not hasattr(record, "request")

    if asked.quiet or (is_terminal() and not asked.json):
        service.addFilter(is_news)
    try:
        yield
    finally:
        service.removeFilter(is_news)


@contextlib.contextmanager
def _store(settings: Settings) -> Iterator[RequestStore]:
    """
    Raises:
        SyncError: `store`, whatever the store refuses with.
    """
    try:
        with open_store(settings.sync_store.get_secret_value() if settings.sync_store else None) as store:
            yield store
    except StoreError as failure:
        hint = f"{failure.hint}; {STORE_HINT}" if failure.hint else STORE_HINT
        raise named("the request store", SyncError(SyncCode.STORE, failure.what, hint)) from failure
