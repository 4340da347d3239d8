"""Jobs as the RunPod SDK hands them over: several at once, cancelled, and left behind when the worker ends."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from contextlib import ExitStack, asynccontextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.client import ComfyClient
from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.http import ComfyHttp
from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.comfy.socket import EventStream
from morpheus_worker.jobs import Progress
from morpheus_worker.library import Library
from morpheus_worker.pipeline import Worker
from morpheus_worker.replaying import Replays
from morpheus_worker.reporting import Send
from morpheus_worker.runner import JobRunner
from morpheus_worker.settings import Settings
from tests.integration.peer import INFO, WAIT_S, Peer, graph


@dataclass
class Place:
    """A peer, a volume, and a worker between them."""

    peer: Peer
    volume: Path
    worker: Worker

    def left_behind(self) -> list[str]:
        """Every file and folder of a job on the volume."""
        outputs = self.volume / "job_outputs"
        return sorted(str(path.relative_to(outputs)) for path in outputs.rglob("*")) if outputs.exists() else []


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Place]:
    volume, comfy = tmp_path / "volume", tmp_path / "comfy"
    for folder in (volume, *(comfy / name for name in ComfyFolders.__slots__)):
        folder.mkdir(parents=True)
    with ExitStack() as stack:
        peer = stack.enter_context(Peer())
        peer.output_dir = comfy / "output"
        http, events = ComfyHttp(peer.url), EventStream(peer.url)
        stack.callback(http.close)
        stack.callback(events.close)
        stack.callback(peer.release_all)
        events.start()
        settings = Settings.from_environment({"MORPHEUS_VOLUME_ROOT": str(volume), "MORPHEUS_COMFYUI_URL": peer.url})
        files = LocalFiles(ComfyFolders(**{name: comfy / name for name in ComfyFolders.__slots__}))
        client = ComfyClient(http, events, INFO)
        yield Place(peer, volume, Worker(settings, client, files, Library(), Replays(volume)))


def job(job_id: str, part: str = "success") -> dict[str, Any]:
    return {"id": job_id, "input": {"workflow": graph(part, name=job_id, steps=2, model="a.safetensors")}}


async def until(condition: Callable[[], object]) -> None:
    async with asyncio.timeout(WAIT_S):
        while not condition():
            await asyncio.sleep(0.01)


def test_a_job_runs_to_its_result(place: Place) -> None:
    with JobRunner(place.worker, concurrency=1) as runner:
        result = asyncio.run(runner.handle(job("one")))
    assert result["status"] == "success"
    assert [output["filename"] for output in result["outputs"]] == ["one.png"]
    assert place.left_behind() == ["one", "one/one.png", "one/result.json"]


def test_the_loop_stays_free_and_one_failure_touches_no_other_job(place: Place) -> None:
    async def run(runner: JobRunner) -> list[Any]:
        held = asyncio.create_task(runner.handle(job("held", "hold")))
        await until(lambda: place.peer.running == "hold")
        rest = [asyncio.create_task(runner.handle(job(part, part))) for part in ("error", "success")]
        await until(lambda: len(place.peer.submitted) == 3)
        assert not held.done()
        place.peer.release(place.peer.submitted[0])
        answers: list[Any] = await asyncio.gather(held, *rest)
        return answers

    with JobRunner(place.worker, concurrency=3) as runner:
        held, failed, fine = asyncio.run(run(runner))
    assert held["status"] == fine["status"] == "success"
    assert (held["job_id"], fine["job_id"]) == ("held", "success")
    assert failed["code"] == "execution_failed"
    assert "error" in failed


@pytest.mark.parametrize("bad", [{}, {"id": "../x", "input": {}}, {"id": "x"}, {"id": "x", "input": 7}])
def test_a_job_that_is_none_is_a_failure_and_the_next_one_runs(place: Place, bad: dict[str, Any]) -> None:
    with JobRunner(place.worker, concurrency=1) as runner:
        assert asyncio.run(runner.handle(bad))["code"] == "invalid_input"
        assert asyncio.run(runner.handle(job("next")))["status"] == "success"


def test_a_cancelled_job_has_stopped_and_left_nothing_when_the_cancellation_is_passed_on(place: Place) -> None:
    async def run(runner: JobRunner) -> None:
        held = asyncio.create_task(runner.handle(job("held", "hold")))
        await until(lambda: place.peer.running == "hold")
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert place.peer.idle
        assert place.left_behind() == []

    with JobRunner(place.worker, concurrency=1) as runner:
        asyncio.run(run(runner))
        assert asyncio.run(runner.handle(job("next")))["status"] == "success"


def test_a_cancelled_job_leaves_the_others_alone(place: Place) -> None:
    async def run(runner: JobRunner) -> dict[str, Any]:
        first = asyncio.create_task(runner.handle(job("first", "hold")))
        await until(lambda: place.peer.running == "hold")
        second = asyncio.create_task(runner.handle(job("second", "hold")))
        await until(lambda: len(place.peer.submitted) == 2)
        second.cancel()
        with pytest.raises(asyncio.CancelledError):
            await second
        assert place.peer.running == "hold"
        place.peer.release(place.peer.submitted[0])
        return await first

    with JobRunner(place.worker, concurrency=2) as runner:
        assert asyncio.run(run(runner))["status"] == "success"
    assert place.left_behind() == ["first", "first/first.png", "first/result.json"]


def test_what_still_runs_when_the_worker_ends_is_cancelled(place: Place) -> None:
    async def run() -> dict[str, Any]:
        with JobRunner(place.worker, concurrency=1) as runner:
            held = asyncio.create_task(runner.handle(job("held", "hold")))
            await until(lambda: place.peer.running == "hold")
        return await held

    assert asyncio.run(run())["code"] == "cancelled"
    assert place.peer.idle
    assert place.left_behind() == []


def test_a_job_that_is_cancelled_twice_has_stopped_all_the_same(place: Place) -> None:
    async def run(runner: JobRunner) -> None:
        held = asyncio.create_task(runner.handle(job("held", "hold")))
        await until(lambda: place.peer.running == "hold")
        held.cancel()
        await asyncio.sleep(0)
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert place.peer.idle
        assert place.left_behind() == []

    with JobRunner(place.worker, concurrency=1) as runner:
        asyncio.run(run(runner))


def test_jobs_beyond_the_concurrency_wait_and_can_be_cancelled_meanwhile(place: Place) -> None:
    async def run(runner: JobRunner) -> list[Any]:
        held = asyncio.create_task(runner.handle(job("held", "hold")))
        await until(lambda: place.peer.running == "hold")
        waiting = [asyncio.create_task(runner.handle(job(name))) for name in ("given-up", "second", "third")]
        await asyncio.sleep(0)
        waiting[0].cancel()
        async with asyncio.timeout(WAIT_S):
            with pytest.raises(asyncio.CancelledError):
                await waiting[0]
        assert len(place.peer.submitted) == 1, "the others have not begun"
        place.peer.release(place.peer.submitted[0])
        answers: list[Any] = await asyncio.gather(held, *waiting[1:])
        return answers

    with JobRunner(place.worker, concurrency=1) as runner:
        assert [answer["status"] for answer in asyncio.run(run(runner))] == ["success"] * 3
    assert "given-up" not in place.left_behind()


def test_what_waits_when_the_worker_ends_never_begins(place: Place) -> None:
    async def run() -> dict[str, Any]:
        with JobRunner(place.worker, concurrency=1) as runner:
            held = asyncio.create_task(runner.handle(job("held", "hold")))
            await until(lambda: place.peer.running == "hold")
            waiting = asyncio.create_task(runner.handle(job("waiting")))
            await asyncio.sleep(0)
        with pytest.raises(asyncio.CancelledError):
            await waiting
        return await held

    assert asyncio.run(run())["code"] == "cancelled"
    assert len(place.peer.submitted) == 1
    assert place.left_behind() == []


class Wire:
    """A way to RunPod that writes down what was sent of which job; `answers` where that is how a send ends."""

    def __init__(self, *, answers: bool = True) -> None:
        self.sent: list[tuple[str, str]] = []
        self.closed: list[str] = []
        self._answers = answers

    @asynccontextmanager
    async def line(self, job: Mapping[str, Any]) -> AsyncIterator[Send]:
        async def send(progress: Progress) -> None:
            self.sent.append((job["id"], progress.stage))
            if not self._answers:
                await asyncio.Event().wait()

        try:
            yield send
        finally:
            self.closed.append(job["id"])


@pytest.mark.parametrize("answers", [True, False])
def test_progress_is_told_while_the_job_runs_and_a_line_that_hangs_fails_no_job(place: Place, answers: bool) -> None:
    wire = Wire(answers=answers)

    async def run(runner: JobRunner) -> dict[str, Any]:
        held = asyncio.create_task(runner.handle(job("held", "hold")))
        await until(lambda: wire.sent)
        place.peer.release(place.peer.submitted[0])
        return await held

    with JobRunner(place.worker, concurrency=1, progress_line=wire.line) as runner:
        assert asyncio.run(run(runner))["status"] == "success"
    assert wire.sent[0] in [("held", "queued"), ("held", "executing")]
    assert wire.closed == ["held"]


def test_a_cancelled_job_tells_no_more_progress(place: Place) -> None:
    wire = Wire()

    async def run(runner: JobRunner) -> None:
        held = asyncio.create_task(runner.handle(job("held", "hold")))
        await until(lambda: wire.sent)
        held.cancel()
        with pytest.raises(asyncio.CancelledError):
            await held
        assert wire.closed == ["held"]

    with JobRunner(place.worker, concurrency=1, progress_line=wire.line) as runner:
        asyncio.run(run(runner))
