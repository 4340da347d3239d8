"""Linking anew while a worker runs: when a look is made, who waits for it, and for how long."""

from __future__ import annotations

import threading
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from morpheus_worker.deadlines import Deadline
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.linking import Link, LinkReport, Outcome
from morpheus_worker.relinking import LEAST_GAP_S, PATIENCE_S, SHARE, Relinking


class Clock:
    def __init__(self) -> None:
        self.now_s = 100.0

    def __call__(self) -> float:
        return self.now_s


class Looks:
    """Counts the looks; each does what it is told, and is over when `let_go` says so."""

    def __init__(self, during: Callable[[], None] = lambda: None) -> None:
        self.count = 0
        self.let_go = threading.Event()
        self.let_go.set()
        self.begun = threading.Event()
        self.during = during

    def __call__(self) -> LinkReport:
        self.count += 1
        self.begun.set()
        assert self.let_go.wait(30)
        self.during()
        return LinkReport((Link(Outcome.LINKED, Path("models/loras/new")),) if self.count == 2 else ())


def test_a_look_is_made_at_once_and_the_next_after_a_while() -> None:
    clock, looks = Clock(), Looks()
    relink = Relinking(looks, clock=clock)
    deadline = Deadline.after(60.0, clock=clock)
    assert not relink(deadline), "nothing new is there"
    assert looks.count == 1, "it is over when it is answered"
    clock.now_s += LEAST_GAP_S - 0.1
    assert not relink(deadline)
    assert looks.count == 1
    clock.now_s += 0.2
    assert relink(deadline), "something new is there"
    assert looks.count == 2


def test_after_a_slow_look_the_next_is_made_much_later() -> None:
    clock = Clock()

    def pass_time() -> None:
        clock.now_s += 3.0

    looks = Looks(during=pass_time)
    relink = Relinking(looks, clock=clock)
    deadline = Deadline.after(600.0, clock=clock)
    relink(deadline)
    clock.now_s += 3.0 * SHARE - 0.1
    relink(deadline)
    assert looks.count == 1
    clock.now_s += 0.2
    relink(deadline)
    assert looks.count == 2


def test_jobs_that_ask_at_once_share_a_look() -> None:
    looks = Looks()
    looks.let_go.clear()
    relink = Relinking(looks)
    with ThreadPoolExecutor(4) as pool:
        asked = [pool.submit(relink, Deadline.after(60.0)) for _ in range(4)]
        assert looks.begun.wait(30)
        looks.let_go.set()
        for each in asked:
            each.result(30)
    assert looks.count == 1


def test_nobody_waits_for_a_volume_that_hangs_longer_than_so_long() -> None:
    clock, looks = Clock(), Looks()
    looks.let_go.clear()
    relink = Relinking(looks, clock=clock)
    try:
        relink(Deadline.after(0.0, clock=clock))
        assert looks.begun.wait(30)
        clock.now_s += PATIENCE_S
        relink(Deadline.after(600.0, clock=clock))
        assert looks.count == 1, "the look that hangs is the only one"
    finally:
        looks.let_go.set()


def test_a_volume_that_fails_is_said_and_fails_no_job(caplog: pytest.LogCaptureFixture) -> None:
    def fail() -> None:
        raise MorpheusError(Code.VOLUME_UNAVAILABLE, "the volume has lost its connection")

    clock, looks = Clock(), Looks(during=fail)
    relink = Relinking(looks, clock=clock)
    relink(Deadline.after(60.0, clock=clock))
    assert "the volume has lost its connection" in caplog.text
    clock.now_s += LEAST_GAP_S
    relink(Deadline.after(60.0, clock=clock))
    assert looks.count == 2


def test_a_machine_that_starts_no_thread_fails_no_job_and_is_asked_again(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(_: threading.Thread) -> None:
        raise RuntimeError("can't start new thread")

    looks = Looks()
    relink = Relinking(looks)
    with monkeypatch.context() as limited:
        limited.setattr(threading.Thread, "start", refuse)
        assert not relink(Deadline.after(60.0))
    relink(Deadline.after(60.0))
    assert looks.count == 1
