"""When a job's progress is sent, and that no job fails of it, in a time that passes in sleeps alone."""

from __future__ import annotations

import asyncio
import contextlib
import selectors
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Mapping
from typing import Any

import pytest

from morpheus_worker.jobs import Progress
from morpheus_worker.reporting import EVERY_S, FIRST_AFTER_S, GIVE_UP_S, LAST_WAIT_S, Reporter, Send

JOB = {"id": "one", "input": {}}


class Leaping(selectors.DefaultSelector):
    """Instead of waiting, moves the clock."""

    def __init__(self) -> None:
        super().__init__()
        self.now_s = 1000.0

    def select(self, timeout: float | None = None) -> list[tuple[selectors.SelectorKey, int]]:
        # Without a timer only another thread can bring news, and that takes real time.
        ready: list[tuple[selectors.SelectorKey, int]] = super().select(None if timeout is None else 0)
        if not ready:
            self.now_s += timeout or 0.0
        return ready


class LeapingLoop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self.leaping = Leaping()
        super().__init__(self.leaping)

    def time(self) -> float:
        return self.leaping.now_s


class Wire:
    """A way to RunPod that writes down what was sent, and when it was done, in seconds from the beginning."""

    def __init__(self, send: Callable[[Progress], Coroutine[Any, Any, None]] | None = None) -> None:
        self._send = send
        self.began_s = asyncio.get_running_loop().time()
        self.sent: list[tuple[float, float]] = []
        self.arrived: list[float] = []
        self.opened = self.closed = 0

    def elapsed_s(self) -> float:
        return round(asyncio.get_running_loop().time() - self.began_s, 3)

    @contextlib.asynccontextmanager
    async def line(self, job: Mapping[str, Any]) -> AsyncIterator[Send]:
        assert job == JOB
        self.opened += 1
        try:
            yield self._record
        finally:
            self.closed += 1

    async def _record(self, progress: Progress) -> None:
        self.sent.append((self.elapsed_s(), progress.percent))
        if self._send is not None:
            await self._send(progress)
        self.arrived.append(progress.percent)


def run(story: Callable[[], Coroutine[Any, Any, None]]) -> None:
    with asyncio.Runner(loop_factory=LeapingLoop) as runner:
        runner.run(story())


def executing(percent: float) -> Progress:
    return Progress(stage="executing", percent=percent)


PUBLISHING = Progress(stage="publishing", percent=100)


def test_the_newest_goes_out_once_a_second_and_the_last_one_is_not_lost() -> None:
    async def story() -> None:
        wire = Wire()
        async with Reporter(wire.line, JOB) as reporter:
            for percent in range(25):
                reporter.tell(executing(percent))
                await asyncio.sleep(0.1)
            await asyncio.sleep(10)
        times_s = [FIRST_AFTER_S, FIRST_AFTER_S + EVERY_S, FIRST_AFTER_S + 2 * EVERY_S, FIRST_AFTER_S + 3 * EVERY_S]
        assert wire.sent == list(zip(times_s, [2, 12, 22, 24], strict=True))
        assert (wire.opened, wire.closed) == (1, 1)

    run(story)


def test_after_a_pause_progress_goes_out_at_once() -> None:
    async def story() -> None:
        wire = Wire()
        async with Reporter(wire.line, JOB) as reporter:
            reporter.tell(executing(1))
            await asyncio.sleep(30)
            reporter.tell(executing(2))
            await asyncio.sleep(0)
            await asyncio.sleep(0.001)
        assert wire.sent == [(FIRST_AFTER_S, 1), (30, 2)]

    run(story)


def test_a_short_job_sends_nothing_and_does_not_wait() -> None:
    async def story() -> None:
        wire = Wire()
        async with Reporter(wire.line, JOB) as reporter:
            reporter.tell(Progress(stage="staging"))
            await asyncio.sleep(FIRST_AFTER_S - 0.01)
            reporter.tell(PUBLISHING)
        assert (wire.sent, wire.opened, wire.elapsed_s()) == ([], 0, round(FIRST_AFTER_S - 0.01, 3))

    run(story)


def test_progress_that_waits_when_the_job_ends_is_dropped() -> None:
    async def story() -> None:
        wire = Wire()
        async with Reporter(wire.line, JOB) as reporter:
            reporter.tell(executing(1))
            await asyncio.sleep(0.5)
            reporter.tell(executing(2))
        reporter.tell(executing(3))
        await asyncio.sleep(10)
        assert wire.sent == [(FIRST_AFTER_S, 1)]

    run(story)


@pytest.mark.parametrize(("publishing_s", "sent"), [(0.9, [50]), (5.0, [50, 100])])
def test_publishing_is_told_only_when_it_takes_long(publishing_s: float, sent: list[float]) -> None:
    async def story() -> None:
        wire = Wire()
        async with Reporter(wire.line, JOB) as reporter:
            reporter.tell(executing(50))
            await asyncio.sleep(3)
            reporter.tell(executing(99))
            reporter.tell(PUBLISHING)
            await asyncio.sleep(publishing_s)
        assert [percent for _, percent in wire.sent] == sent
        assert wire.elapsed_s() == 3 + publishing_s

    run(story)


def test_one_at_a_time_and_in_order_however_slow_the_server() -> None:
    at_once = 0

    async def slowly(progress: Progress) -> None:
        nonlocal at_once
        at_once += 1
        assert at_once == 1
        await asyncio.sleep(2.5)
        at_once -= 1

    async def story() -> None:
        wire = Wire(slowly)
        async with Reporter(wire.line, JOB) as reporter:
            for percent in range(100):
                reporter.tell(executing(percent))
                await asyncio.sleep(0.1)
        assert [at_s for at_s, _ in wire.sent] == [0.25, 2.75, 5.25, 7.75]
        assert wire.arrived == sorted(wire.arrived)

    run(story)


@pytest.mark.parametrize(("takes_s", "arrives", "waited_s"), [(0.7, [1], 0.5), (60, [], LAST_WAIT_S)])
def test_what_is_under_way_when_the_job_ends_is_waited_for_briefly(
    takes_s: float, arrives: list[float], waited_s: float
) -> None:
    async def story() -> None:
        wire = Wire(lambda _progress: asyncio.sleep(takes_s))
        async with Reporter(wire.line, JOB) as reporter:
            reporter.tell(executing(1))
            await asyncio.sleep(FIRST_AFTER_S + 0.2)
            reporter.tell(executing(2))
            ended_s = wire.elapsed_s()
        assert round(wire.elapsed_s() - ended_s, 3) == waited_s
        await asyncio.sleep(100)
        assert (len(wire.sent), wire.arrived, wire.closed) == (1, arrives, 1)

    run(story)


def test_a_server_that_never_answers_is_given_up_and_the_next_progress_tried(caplog: pytest.LogCaptureFixture) -> None:
    async def first_never(progress: Progress) -> None:
        if progress.percent == 1:
            await asyncio.Event().wait()

    async def story() -> None:
        wire = Wire(first_never)
        async with Reporter(wire.line, JOB) as reporter:
            reporter.tell(executing(1))
            await asyncio.sleep(1)
            reporter.tell(executing(2))
            await asyncio.sleep(20)
        assert wire.sent == [(FIRST_AFTER_S, 1), (FIRST_AFTER_S + GIVE_UP_S, 2)]
        assert wire.arrived == [2]

    run(story)
    assert [record.getMessage() for record in caplog.records] == ["progress was not sent: no answer in time"]
    assert vars(caplog.records[0])["job_id"] == "one"


@pytest.mark.parametrize("failure", [OSError("refused"), RuntimeError("closed"), ValueError("no URL")])
def test_a_progress_that_fails_does_not_keep_the_next_one(failure: Exception, caplog: pytest.LogCaptureFixture) -> None:
    async def fails(progress: Progress) -> None:
        if progress.percent == 1:
            raise failure

    async def story() -> None:
        wire = Wire(fails)
        async with Reporter(wire.line, JOB) as reporter:
            for percent in (1, 2):
                reporter.tell(executing(percent))
                await asyncio.sleep(3)
        assert wire.arrived == [2]

    run(story)
    assert [record.getMessage() for record in caplog.records] == [f"progress was not sent: {failure}"]


def test_a_line_that_cannot_be_opened_fails_no_job(caplog: pytest.LogCaptureFixture) -> None:
    def broken(job: Mapping[str, Any]) -> contextlib.AbstractAsyncContextManager[Send]:
        raise LookupError("nobody foresaw this")

    async def story() -> None:
        async with Reporter(broken, JOB) as reporter:
            reporter.tell(executing(1))
            await asyncio.sleep(3)
            reporter.tell(executing(2))

    run(story)
    assert [record.getMessage() for record in caplog.records] == ["progress could not be sent"]


def test_a_cancellation_while_the_last_one_is_under_way_is_passed_on_and_ends_it() -> None:
    async def story() -> None:
        wire = Wire(lambda _progress: asyncio.sleep(60))

        async def reported() -> None:
            async with Reporter(wire.line, JOB) as reporter:
                reporter.tell(executing(1))
                await asyncio.sleep(0.5)

        task = asyncio.create_task(reported())
        await asyncio.sleep(0.6)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        assert (wire.elapsed_s(), wire.arrived, wire.closed) == (0.6, [], 1)
        assert asyncio.all_tasks() == {asyncio.current_task()}

    run(story)


def test_progress_comes_from_another_thread_and_may_come_when_the_loop_has_ended() -> None:
    told: list[Reporter] = []

    async def story() -> None:
        wire = Wire()
        async with Reporter(wire.line, JOB) as reporter:
            told.append(reporter)
            thread = threading.Thread(target=reporter.tell, args=(executing(7),))
            thread.start()
            await asyncio.to_thread(thread.join)
            await asyncio.sleep(2)
        assert [percent for _, percent in wire.sent] == [7]

    run(story)
    told[0].tell(executing(8))
