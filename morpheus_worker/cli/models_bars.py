"""A run on a terminal: a bar for each file that is on its way, one for all of them, finished files as lines above."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Iterable, Iterator
from typing import Any, Final

from rich.console import Console, RenderableType
from rich.constrain import Constrain
from rich.progress import (
    BarColumn,
    DownloadColumn,
    Progress,
    ProgressColumn,
    Task,
    TaskID,
    TaskProgressColumn,
    TimeRemainingColumn,
    TransferSpeedColumn,
)
from rich.table import Column, Table
from rich.text import Text

from morpheus_worker.cli.models_printing import duration_text
from morpheus_worker.cli.terminal import log_above
from morpheus_worker.sync.amounts import size_text
from morpheus_worker.sync.terms import Event, SyncCode

REDRAWN_HZ: Final = 5.0
ALL: Final = "all"
SHORTEST_NAME: Final = 8
LONGEST_NAME: Final = 48
"""Columns that an entry's id gets in its row, of a third of the window."""
WIDE: Final = 72
MIDDLING: Final = 50
"""Columns of a window that has room for every part of a row, and for all but the speed."""
ECHOED: Final = "^C "
"""What a terminal writes behind the last row when somebody stops the run. Where there is no room for it the cursor goes
to the next line, and what is drawn anew leaves the first row standing."""
ENDED: Final = ("present", "published", "adopted", "failed")


@contextlib.contextmanager
def bars(*, entries: int | None = None) -> Iterator[Bars]:
    """`entries`: how many there are, where a run is measured by them and not by bytes."""
    console = Console()
    with Rows(console=console, transient=True, refresh_per_second=REDRAWN_HZ) as progress, log_above():
        yield Bars(progress, entries=entries)


class Rows(Progress):
    """Name, bar, share, bytes, speed and time left; in a narrow window without what it has no room for."""

    def __init__(self, *, console: Console, **more: Any) -> None:
        name, bar, share = _Name(console), BarColumn(), TaskProgressColumn(table_column=_one_line())
        amount, left = _Amount(table_column=_one_line()), TimeRemainingColumn(table_column=_one_line())
        self._wide = (name, bar, share, amount, _Speed(table_column=_one_line()), left)
        self._middling = (name, bar, share, amount, left)
        self._narrow = (name, share, amount)
        self._console = console  # Progress draws while it is made, before it has one.
        super().__init__(*self._wide, console=console, **more)

    def get_renderable(self) -> RenderableType:
        return Constrain(super().get_renderable(), max(1, self._console.width - len(ECHOED)))

    def make_tasks_table(self, tasks: Iterable[Task]) -> Table:
        width = self._console.width
        self.columns = self._wide if width >= WIDE else self._middling if width >= MIDDLING else self._narrow
        return super().make_tasks_table(tasks)


class Bars:
    """Folds events into rows. What an event does not say stays as it was."""

    def __init__(self, progress: Progress, *, entries: int | None = None) -> None:
        self._progress, self._entries = progress, entries
        self._rows: dict[str, TaskID] = {}
        self._all: TaskID | None = None
        self._planned: int | None = None
        self._bytes: dict[str, tuple[int, int]] = {}
        self._ended: set[str] = set()
        self._began: dict[str, float] = {}
        self._lock = threading.RLock()

    def __call__(self, event: Event) -> None:
        with self._lock, contextlib.suppress(OSError, ValueError):
            self._count(event)
            if event.id:
                self._show(event)

    def say(self, sentence: str) -> None:
        with contextlib.suppress(OSError, ValueError):
            self._progress.console.print(Text(sentence))

    def _show(self, event: Event) -> None:
        match event.kind:
            case "started" | "progress" | "verifying" | "waiting":
                doing = event.kind if event.kind in ("verifying", "waiting") else None
                row = self._row(event)
                self._progress.update(row, completed=event.bytes_done, total=event.bytes_total, doing=doing)
            case "retrying" | "next_source":
                self._above(event, "yellow")
            case "published" | "adopted":
                self._end(event, "green")
            case "failed":
                self._end(event, "red")
            case _:
                pass

    def _row(self, event: Event) -> TaskID:
        if event.id not in self._rows:
            self._began[event.id] = time.monotonic()
            self._rows[event.id] = self._progress.add_task(
                event.id, total=event.bytes_total, completed=event.bytes_done or 0
            )
        return self._rows[event.id]

    def _end(self, event: Event, colour: str) -> None:
        began = self._began.pop(event.id, None)
        row = self._rows.pop(event.id, None)
        if row is not None:
            self._progress.remove_task(row)
        if event.code != SyncCode.INTERRUPTED:
            self._above(event, colour, time.monotonic() - began if began is not None else None)

    def _above(self, event: Event, colour: str, took_s: float | None = None) -> None:
        said = event.message or event.kind.replace("_", " ")
        if event.kind == "published" and event.bytes_total is not None:
            took = f" in {duration_text(took_s)}" if took_s is not None else ""
            said = f"{size_text(event.bytes_total)}{took}"
        elif event.kind == "next_source" and "next" in event.details:
            said += f"; now from {event.details['next']}"
        self._progress.console.print(Text(f"{event.id}:", f"bold {colour}"), Text(said))

    def _count(self, event: Event) -> None:
        """The overall bar: what is done of all that this run has to move, or of all its entries."""
        if self._entries is not None:
            self._ended |= {event.id} if event.kind in ENDED else set()
            self._update_all(len(self._ended), self._entries)
            return
        if event.kind == "planned":
            self._planned = event.bytes_total or 0
        elif event.bytes_done is not None and event.id:
            self._bytes[event.id] = (event.bytes_done, event.bytes_total or event.bytes_done)
        # Without a plan nobody knows how much "all" is: of a folder that is looked through, of requests to come.
        if self._planned is not None and (self._planned or self._bytes or event.details.get("unknown")):
            done = sum(done for done, _ in self._bytes.values())
            # The sizes of some may not have been known when it was planned.
            total = max(self._planned, sum(total for _, total in self._bytes.values()))
            self._update_all(done, total or None)

    def _update_all(self, done: int, total: int | None) -> None:
        if self._all is None:
            self._all = self._progress.add_task(ALL, total=None, counted=self._entries is not None)
        self._progress.update(self._all, completed=done, total=total)


# The parts of a row.


def _one_line() -> Column:
    return Column(no_wrap=True)


class _Name(ProgressColumn):
    """What is at work, and where it is no transfer what is done."""

    def __init__(self, console: Console) -> None:
        super().__init__(_one_line())
        self._console = console

    def render(self, task: Task) -> Text:
        longest = min(max((self._console.width - len(ECHOED)) // 3, SHORTEST_NAME), LONGEST_NAME)
        doing = task.fields.get("doing")
        return Text(_short(task.description, longest) + (f" {doing}" if doing else ""))


class _Amount(DownloadColumn):
    def render(self, task: Task) -> Text:
        if task.fields.get("counted"):
            return Text(f"{task.completed:.0f}/{task.total or 0:.0f}", "progress.download")
        return super().render(task) if task.total is not None or task.completed else Text()


class _Speed(TransferSpeedColumn):
    def render(self, task: Task) -> Text:
        return Text() if task.fields.get("counted") or not task.speed else super().render(task)


def _short(name: str, longest: int) -> str:
    """Cut in its middle: models of one family differ at their ends."""
    if len(name) <= longest:
        return name
    head = (longest - 1) // 2
    return f"{name[:head]}…{name[head - longest + 1 :]}"
