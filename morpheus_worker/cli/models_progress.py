"""How the events of a run are shown: bars on a terminal, one JSON line each elsewhere.

`shown` chooses. Whatever it yields is called from several threads and never fails: a reader that went away, or a full
disk under a log, does not end a sync that somebody may have waited hours for.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import sys
import threading
import time
from collections.abc import Callable, Iterator, Mapping
from typing import IO, TYPE_CHECKING, Any, Final, Protocol

from morpheus_worker.cli.models_printing import is_terminal
from morpheus_worker.cli.models_stopping import Stopping
from morpheus_worker.sync.terms import Event

if TYPE_CHECKING:
    from morpheus_worker.cli.models_bars import Bars

PROGRESS_LINES_S: Final = 1.0
"""Least time between two JSON lines that only say how far an entry is, in seconds."""
COUNTING: Final = ("progress", "verifying")


class Display(Protocol):
    """Shows what happens."""

    def __call__(self, event: Event) -> None: ...

    def say(self, sentence: str) -> None:
        """A sentence for the person who waits."""

    def summary(self, summary: Mapping[str, Any]) -> None:
        """The last line for a program; a person is told elsewhere."""


@contextlib.contextmanager
def shown(*, as_json: bool, quiet: bool, entries: int | None = None) -> Iterator[Display]:
    """Bars where a person looks, JSON lines where none does or `as_json` asks for them; `quiet` leaves the last one.

    `entries`: how many a run is about that moves no bytes.
    """
    if is_terminal() and not as_json and not quiet:
        with contextlib.ExitStack() as drawn:
            yield BarsWhenNeeded(drawn, entries=entries)
    else:
        yield Lines(sys.stdout, quiet=quiet, with_summary=as_json or not quiet)


@contextlib.contextmanager
def running(asked: argparse.Namespace, *, entries: int | None = None) -> Iterator[tuple[Display, Stopping]]:
    """A verb that runs for long: what shows its events, and what ends it when somebody asks."""
    displayed = shown(as_json=asked.json, quiet=asked.quiet, entries=entries)
    with displayed as display, Stopping(display.say) as stopping:
        yield display, stopping


class BarsWhenNeeded:
    """Bars from when there is something to draw: loading what draws them takes longer than a run with nothing to do."""

    def __init__(self, drawn: contextlib.ExitStack, *, entries: int | None = None) -> None:
        self._drawn, self._entries = drawn, entries
        self._bars: Bars | None = None
        self._planned: Event | None = None
        self._guard = threading.Lock()

    def __call__(self, event: Event) -> None:
        with self._guard:
            if self._bars is None:
                self._planned = event if event.kind == "planned" else self._planned
                if self._entries is None and _is_nothing_to_see(event):
                    return
                with contextlib.suppress(OSError, ValueError):
                    self._bars = self._begun()
            drawn = self._bars
        if drawn is not None:
            drawn(event)

    def _begun(self) -> Bars:
        from morpheus_worker.cli.models_bars import bars

        begun = self._drawn.enter_context(bars(entries=self._entries))
        if self._planned is not None:
            begun(self._planned)
        return begun

    def say(self, sentence: str) -> None:
        if self._bars is not None:
            self._bars.say(sentence)
        else:
            _say_aside(sentence)

    def summary(self, summary: Mapping[str, Any]) -> None:
        """A person is told by the verb itself."""


def _is_nothing_to_see(event: Event) -> bool:
    idle = event.kind == "planned" and not event.bytes_total and not event.details.get("unknown")
    return idle or event.kind in ("present", "finished")


def _say_aside(sentence: str) -> None:
    with contextlib.suppress(OSError, ValueError):
        print(f"morpheus: {sentence}", file=sys.stderr, flush=True)


class Lines:
    """One JSON object a line. Lines are whole whatever thread they come from."""

    def __init__(
        self,
        stream: IO[str] | None,
        *,
        quiet: bool = False,
        with_summary: bool = True,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._stream, self._quiet, self._with_summary, self._clock = stream, quiet, with_summary, clock
        self._lock = threading.Lock()
        self._said_at: dict[tuple[str, str], float] = {}

    def __call__(self, event: Event) -> None:
        if not self._quiet and not self._is_too_soon(event):
            self._write(event.as_dict())

    def say(self, sentence: str) -> None:
        _say_aside(sentence)

    def summary(self, summary: Mapping[str, Any]) -> None:
        if self._with_summary:
            self._write(summary)

    def _is_too_soon(self, event: Event) -> bool:
        if event.kind not in COUNTING:
            return False
        with self._lock:
            now, before = self._clock(), self._said_at.get((event.kind, event.id))
            if before is not None and now - before < PROGRESS_LINES_S:
                return True
            self._said_at[event.kind, event.id] = now
            return False

    def _write(self, said: Mapping[str, Any]) -> None:
        line = json.dumps(said, ensure_ascii=False, default=str) + "\n"
        with self._lock:
            if self._stream is None:
                return
            try:
                self._stream.write(line)
                self._stream.flush()
            except (OSError, ValueError):
                self._stream = None
