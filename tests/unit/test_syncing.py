"""The small parts that the stories of a sync are made of."""

from __future__ import annotations

import signal
import threading

import pytest

from morpheus_worker.sync.terms import PROGRESS_S, Event, SyncCode, SyncError
from morpheus_worker.syncing.foreseeing import destined
from morpheus_worker.syncing.stopping import EitherStop
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.turns import PutOff, Turn, work_through


def test_progress_is_told_no_more_often_than_anybody_can_look() -> None:
    now, told = [0.0], list[Event]()
    tell = Teller(told.append, "model", "loras/model", clock=lambda: now[0])
    tell.count(100)
    for done in range(10):
        tell.at(done)
    now[0] += PROGRESS_S
    tell.at(50)
    tell.at(30)
    assert [(event.kind, event.bytes_done, event.bytes_total) for event in told] == [
        ("progress", 0, 100),
        ("progress", 50, 100),
    ]
    tell.count(100, kind="verifying")
    tell.at(7)
    assert (told[-1].kind, told[-1].bytes_done) == ("verifying", 7)


def test_a_failure_is_told_with_its_code_and_hint() -> None:
    told: list[Event] = []
    Teller(told.append, "model", "loras/model").failed(SyncError(SyncCode.CHANGED, "is another", "lock it"))
    assert told[0].as_dict() == {
        "event": "failed", "id": "model", "path": "loras/model", "message": "is another", "code": "changed",
        "details": {"hint": "lock it"},
    }  # fmt: skip


def test_either_reason_stops() -> None:
    one, other = threading.Event(), threading.Event()
    either = EitherStop(one, other)
    assert not either.is_set()
    assert not either.wait(0)
    other.set()
    assert either.is_set()
    assert either.wait()


def test_who_waits_hears_of_either_reason() -> None:
    reason = threading.Event()
    heard: list[bool] = []
    thread = threading.Thread(target=lambda: heard.append(EitherStop(threading.Event(), reason).wait(10)))
    thread.start()
    reason.set()
    thread.join()
    assert heard == [True]


def test_what_is_put_off_comes_again_when_nothing_else_is_left() -> None:
    ran: list[str] = []

    def turn(name: str, held: bool) -> Turn:
        def run(put_off: PutOff) -> None:
            if held:
                put_off()
            ran.append(name)

        return Turn(name, run)

    turns = [turn("held", True), turn("one", False), turn("two", False)]
    work_through([(turns, 1)], threading.Event())
    assert ran == ["one", "two", "held"]


def test_after_a_stop_no_turn_begins() -> None:
    stop, ran = threading.Event(), list[str]()

    def run(_: PutOff) -> None:
        ran.append("one")
        stop.set()

    work_through([([Turn("one", run), Turn("two", run)], 1)], stop)
    assert ran == ["one"]


def test_who_does_not_notice_a_stop_is_interrupted() -> None:
    stop, freed = threading.Event(), threading.Event()

    def run(_: PutOff) -> None:
        stop.set()
        assert freed.wait(10)

    work_through([([Turn("deaf", run)], 1)], stop, freed.set)
    assert freed.is_set()


def test_nothing_of_a_run_outlives_it() -> None:
    stop, ended = threading.Event(), threading.Event()

    def run(_: PutOff) -> None:
        signal.raise_signal(signal.SIGINT)
        assert stop.wait(10)
        ended.set()

    with pytest.raises(KeyboardInterrupt):
        work_through([([Turn("long", run)], 1)], stop)
    assert ended.is_set()


@pytest.mark.parametrize(("given", "prefix"), [(None, None), ("s3://b/p/", "s3://b/p"), ("gs://b", "gs://b")])
def test_a_destination_is_a_bucket_or_the_volume(given: str | None, prefix: str | None) -> None:
    assert destined(given) == prefix


@pytest.mark.parametrize("given", ["", "/data", "https://host/x", "s3://"])
def test_anything_else_is_none(given: str) -> None:
    with pytest.raises(SyncError) as caught:
        destined(given)
    assert caught.value.code is SyncCode.INVALID
