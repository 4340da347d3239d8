"""Whose turn it is: several entries at once, and none waited for while another can be worked on."""

from __future__ import annotations

import threading
import time
from collections import deque
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Final, Protocol

from morpheus_worker.sync.terms import Stop

PATIENCE_S: Final = 1.0
"""How long the threads have to notice a stop by themselves."""
POLL_S: Final = 0.2


class HeldElsewhereError(Exception):
    """Another machine works on this entry, and there is other work meanwhile."""


class PutOff(Protocol):
    """Asked before waiting for somebody else."""

    def __call__(self) -> None:
        """
        Raises:
            HeldElsewhereError: when the entry shall be left for later.
        """


@dataclass(frozen=True, slots=True)
class Turn:
    """One entry's work. `run` is called again later when it raised HeldElsewhereError."""

    id: str
    run: Callable[[PutOff], None]


class Turns:
    """The entries of one kind, in their order; those that were put off come last."""

    def __init__(self, turns: Iterable[Turn]) -> None:
        self._guard = threading.Lock()
        self._fresh, self._later = deque(turns), deque[Turn]()

    def work(self, stop: Stop) -> None:
        """Takes one turn after another until none is left; for each of several threads."""
        while not stop.is_set() and (turn := self._next()) is not None:
            try:
                turn.run(self.put_off)
            except HeldElsewhereError:
                with self._guard:
                    self._later.append(turn)

    def put_off(self) -> None:
        with self._guard:
            if self._fresh:
                raise HeldElsewhereError

    def _next(self) -> Turn | None:
        with self._guard:
            waiting = self._fresh or self._later
            return waiting.popleft() if waiting else None


def work_through(
    kinds: Sequence[tuple[Sequence[Turn], int]], stop: Stop, interrupt: Callable[[], None] = lambda: None
) -> None:
    """Works on every kind's turns, with so many threads each, until all are done or `stop` is set and noticed. Who has
    not noticed it after `PATIENCE_S` is waiting for somebody: `interrupt` is called, to end that."""
    works = [turns.work for listed, count in kinds for turns in [Turns(listed)] for _ in range(min(count, len(listed)))]
    running = [_Running(work, stop, f"sync-{number}") for number, work in enumerate(works)]
    try:
        for each in running:
            each.start()
        _wait(running, stop, interrupt)
    except BaseException:
        # Nothing of a run outlives it, whatever ends it. What begins only now sees the stop, and does nothing.
        stop.set()
        _wait([each for each in running if each.begun.is_set()], stop, interrupt)
        raise


class _Running:
    """A thread at work, that says itself whether it is: a join that was interrupted takes it for ended."""

    def __init__(self, work: Callable[[Stop], None], stop: Stop, name: str) -> None:
        self.begun, self.ended = threading.Event(), threading.Event()
        self._work, self._stop = work, stop
        self.start = threading.Thread(target=self._run, name=name).start

    def _run(self) -> None:
        self.begun.set()
        try:
            self._work(self._stop)
        finally:
            self.ended.set()


def _wait(running: Sequence[_Running], stop: Stop, interrupt: Callable[[], None]) -> None:
    for each in running:
        while not each.ended.wait(POLL_S) and not stop.is_set():
            pass
    until = time.monotonic() + PATIENCE_S
    for each in running:
        each.ended.wait(max(0.0, until - time.monotonic()))
    if not all(each.ended.is_set() for each in running):
        interrupt()
    for each in running:
        each.ended.wait()
