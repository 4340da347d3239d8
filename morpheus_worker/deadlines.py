"""Time as a value: deadlines, what a job is allowed, and backoff, with the clock handed in."""

from __future__ import annotations

import random
import threading
import time
from collections.abc import Callable, Collection, Iterator
from concurrent.futures import Future, wait
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.errors import Code, MorpheusError

Clock = Callable[[], float]
"""Seconds that never go back, from any origin."""


POLL_S: Final = 0.05
"""How late a cancel may be noticed by who waits for the work of other threads."""


@dataclass(frozen=True, slots=True)
class Deadline:
    """A moment on a monotonic clock by which something must have ended.

    >>> Deadline.after(5.0, clock=lambda: 100.0).remaining_s
    5.0
    """

    at_s: float
    clock: Clock = time.monotonic

    @classmethod
    def after(cls, seconds: float, *, clock: Clock = time.monotonic) -> Deadline:
        return cls(clock() + seconds, clock)

    @property
    def remaining_s(self) -> float:
        """Seconds left, never below zero."""
        return max(0.0, self.at_s - self.clock())

    @property
    def passed(self) -> bool:
        return self.clock() >= self.at_s


@dataclass(frozen=True, slots=True)
class Allowance:
    """How long a job may go on: until its deadline, and while nobody has cancelled it."""

    deadline: Deadline
    cancelled: threading.Event

    @classmethod
    def of(cls, seconds: float) -> Allowance:
        """One that nobody cancels."""
        return cls(Deadline.after(seconds), threading.Event())

    def within(self, seconds: float) -> Allowance:
        """This one, or less: for a part of the work that has a limit of its own."""
        sooner_s = min(self.deadline.at_s, self.deadline.clock() + seconds)
        return Allowance(Deadline(sooner_s, self.deadline.clock), self.cancelled)

    def check(self, doing: str) -> None:
        """Called at every turn of a long piece of work; `doing` says which: "fetching its media".

        Raises:
            MorpheusError: `cancelled` or `timeout`, once there is a reason to stop.
        """
        if self.cancelled.is_set():
            raise MorpheusError(Code.CANCELLED, "The job was cancelled")
        if self.deadline.passed:
            raise MorpheusError(Code.TIMEOUT, f"The job's deadline passed while {doing}")

    def wait(self, seconds: float, doing: str) -> None:
        """Sleeps that long, unless the job has to stop meanwhile.

        Raises:
            MorpheusError: as `check` does.
        """
        self.cancelled.wait(min(seconds, self.deadline.remaining_s))
        self.check(doing)


def awaited(futures: Collection[Future[Any]], check: Callable[[], None]) -> None:
    """Waits until all are done, or until `check` raises: what other threads do on a store or a volume that hangs ends
    long after a cancel, if ever."""
    while wait(futures, timeout=POLL_S).not_done:
        check()


def backoff_s(first_s: float, ceiling_s: float, *, factor: float = 2.0, jitter: float = 0.25) -> Iterator[float]:
    """Endless waits in seconds, growing from `first_s` to `ceiling_s`, each varied by ± `jitter` of itself.

    The jitter keeps many workers that lost the same server from coming back at the same instant.
    """
    wait_s = first_s
    while True:
        yield wait_s * random.uniform(1.0 - jitter, 1.0 + jitter)
        wait_s = min(wait_s * factor, ceiling_s)
