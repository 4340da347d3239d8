"""Wherever a job is stopped, and whatever its volume or its bucket does then: its code, and nothing of it anywhere."""

from __future__ import annotations

import contextlib
import json
import random
import subprocess
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from morpheus_worker.comfy.files import LocalFiles, Origin
from morpheus_worker.comfy.history import FileRef
from morpheus_worker.comfy.launch import folders_of
from morpheus_worker.jobs import Progress
from morpheus_worker.pipeline import Worker, run_job
from morpheus_worker.rehearsal import Faults, RehearsalEngine

from .conftest import assembled
from .jobs import SMOKE_GRAPH, check_files, failed, files_below, graph_job, png, succeeded
from .media_server import MediaServer, Play, content, dribble, never, stalled
from .s3_server import ACCESS_KEY, SECRET_KEY, Answer, Bucket, new_bucket, raw_store

POOLS = ("publish", "encode")
"""Threads of these names belong to the process, not to a job."""

STORES: list[str | None] = ["volume", "s3", "base64", None]


@dataclass(frozen=True)
class Place:
    """A worker with a bucket, and everywhere that a job of it may leave something."""

    worker: Worker
    engine: RehearsalEngine
    bucket: Bucket
    volume: Path
    media: MediaServer

    def run(self, job_input: dict[str, Any], job_id: str = "job", **more: Any) -> dict[str, Any]:
        return run_job({"id": job_id, "input": job_input}, self.worker, **more)

    def left(self) -> list[str]:
        folders = [self.engine.base_directory / name for name in ("input", "output", "temp")]
        return files_below(*folders, self.volume) + self.bucket.keys() + self.bucket.unfinished()


@pytest.fixture(scope="module")
def media() -> Iterator[MediaServer]:
    with MediaServer() as server:
        server.serve("/in.png", content(png()))
        yield server


@pytest.fixture
def place(engine: RehearsalEngine, volume: Path, media: MediaServer) -> Iterator[Place]:
    bucket = new_bucket()
    environment = {**_in_bucket(bucket.url, bucket.name), "MORPHEUS_MEDIA_PRIVATE_HOSTS": "127.0.0.1"}
    with assembled(engine.url, volume, LocalFiles(folders_of(engine.base_directory, [])), **environment) as worker:
        yield Place(worker, engine, bucket, volume, media)


def _in_bucket(url: str, name: str) -> dict[str, str]:
    return {
        "BUCKET_ENDPOINT_URL": url,
        "BUCKET_NAME": name,
        "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
        "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
    }


def job(url: str, pictures: int = 3, prefix: str = "out", **more: Any) -> dict[str, Any]:
    """A picture by URL, several that are saved, and a preview of them."""
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": url}},
        "2": {"class_type": "RepeatImageBatch", "inputs": {"image": ["1", 0], "amount": pictures}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": prefix}},
        "4": {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}},
    }
    return graph_job(graph, **{key: value for key, value in more.items() if value is not None})


def stopping(at: str, stop: Callable[[], object]) -> Callable[[Progress], None]:
    """Does it once, at the first progress of that stage."""
    stopped = threading.Event()

    def look(progress: Progress) -> None:
        if progress.stage == at and not stopped.is_set():
            stopped.set()
            stop()

    return look


def threads_of_jobs() -> set[threading.Thread]:
    return {thread for thread in threading.enumerate() if not thread.name.startswith((*POOLS, "media server"))}


@pytest.mark.parametrize("outputs", STORES)
@pytest.mark.parametrize("stage", ["staging", "queued", "executing", "publishing"])
def test_a_cancel_at_any_stage(stage: str, outputs: str | None, place: Place) -> None:
    before = threads_of_jobs()
    cancelled = threading.Event()
    wanted = job(place.media.serve("/in.png", content(png())), outputs=outputs)
    answer = place.run(wanted, cancelled=cancelled, on_progress=stopping(stage, cancelled.set))
    assert failed(answer).code == "cancelled"
    assert place.left() == []
    place.media.wait_until_left()
    assert not [thread for thread in threads_of_jobs() - before if not thread.daemon and "server" not in thread.name]
    succeeded(place.run(wanted))


@pytest.mark.parametrize("play", [never, stalled, dribble(0.05)], ids=["never", "stalled", "dribble"])
@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_what_is_being_fetched_is_let_go(how: str, play: Play, place: Place) -> None:
    cancelled = threading.Event()

    def played(exchange: Any) -> None:
        if how == "cancel":
            cancelled.set()
        play(exchange)

    timeout_s = 0.3 if how == "deadline" else 60.0
    answer = place.run(job(place.media.serve("/bad.png", played), timeout_s=timeout_s), cancelled=cancelled)
    assert failed(answer).code == ("timeout" if how == "deadline" else "cancelled")
    place.media.wait_until_left()
    assert place.left() == []


def test_a_deadline_between_two_nodes(place: Place) -> None:
    place.engine.set_faults(Faults(slow_node=0.4))
    answer = place.run(job(place.media.serve("/in.png", content(png())), timeout_s=0.6))
    assert failed(answer).code == "timeout"
    assert place.left() == []


@pytest.mark.parametrize("how", ["cancel", "deadline"])
def test_a_bucket_that_hangs_while_it_publishes(
    how: str, engine: RehearsalEngine, volume: Path, media: MediaServer
) -> None:
    cancelled = threading.Event()
    files = LocalFiles(folders_of(engine.base_directory, []))
    environment = {"MORPHEUS_MEDIA_PRIVATE_HOSTS": "127.0.0.1"}
    with raw_store() as store:
        store.answer = lambda request: Answer(404) if request.method == "HEAD" else Answer(headers={"ETag": '"1"'})

        def hold(method: str) -> bool:
            if method == "PUT" and how == "cancel":
                cancelled.set()
            return method == "PUT"

        store.hold = hold
        with assembled(engine.url, volume, files, **environment, **_in_bucket(store.url, "bucket")) as worker:
            timeout_s = 1.0 if how == "deadline" else 60.0
            wanted = job(media.serve("/in.png", content(png())), outputs="s3", timeout_s=timeout_s)
            assert worker.s3 is not None
            worker.s3.prepare()
            answer = run_job({"id": "job", "input": wanted}, worker, cancelled=cancelled)
            assert failed(answer).code == ("timeout" if how == "deadline" else "cancelled")
            assert files_below(volume, *(engine.base_directory / name for name in ("input", "output", "temp"))) == []
            store.release.set()


def test_jobs_that_are_stopped_at_any_moment_leave_nothing_and_disturb_no_other(place: Place) -> None:
    url = place.media.serve("/in.png", content(png()))

    def one(number: int) -> None:
        chance = random.Random(number)
        cancelled = threading.Event()
        timer = threading.Timer(chance.random() * 0.1, cancelled.set)
        if chance.random() < 0.7:
            timer.start()
        job_id = f"job-{number}"
        wanted = job(url, chance.randint(1, 4), f"out{number}", outputs=chance.choice(STORES))
        answer = place.run(wanted, job_id, cancelled=cancelled)
        timer.cancel()
        if "error" in answer:
            assert failed(answer).code == "cancelled", answer
            assert not (place.volume / "job_outputs" / job_id).exists()
            assert not any(key.startswith(f"{job_id}/") for key in place.bucket.keys())  # noqa: SIM118
        else:
            check_files(succeeded(answer), place.volume)
            assert not [name for name in files_below(place.volume / "job_outputs" / job_id) if ".part" in name]

    with ThreadPoolExecutor(3) as pool:
        list(pool.map(one, range(36)))
    assert files_below(*(place.engine.base_directory / name for name in ("input", "output", "temp"))) == []


# --- the volume


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 1 MiB, as only root can make one."""
    root = tmp_path / "mounted"
    root.mkdir()
    made = _mount("-t", "tmpfs", "-o", "size=1m", "tmpfs", str(root))
    if made.returncode != 0:
        pytest.skip(f"needs to mount a small file system, which takes root: {made.stderr.strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=False, capture_output=True)


def _mount(*arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["mount", *arguments], capture_output=True, text=True, check=False)


def _fill(root: Path) -> None:
    with contextlib.suppress(OSError), (root / "ballast").open("wb", buffering=0) as stream:
        while True:
            stream.write(b"x" * 4096)


def _take_away(root: Path) -> None:
    subprocess.run(["umount", "-l", str(root)], check=True)


def _make_read_only(root: Path) -> None:
    assert _mount("-o", "remount,ro", str(root)).returncode == 0


@pytest.mark.parametrize("outputs", ["volume", "base64", None])
@pytest.mark.parametrize(
    ("happen", "code"),
    [(_fill, "volume_full"), (_make_read_only, "volume_unavailable"), (_take_away, "volume_unavailable")],
    ids=["full", "read-only", "gone"],
)
def test_a_volume_that_fails_while_the_prompt_runs(
    happen: Callable[[Path], None],
    code: str,
    outputs: str | None,
    mounted: Path,
    engine: RehearsalEngine,
    media: MediaServer,
) -> None:
    files = LocalFiles(folders_of(engine.base_directory, []))
    with assembled(engine.url, mounted, files, MORPHEUS_MEDIA_PRIVATE_HOSTS="127.0.0.1") as worker:
        wanted = job(media.serve("/in.png", content(png())), outputs=outputs)
        watch = stopping("queued", lambda: happen(mounted))
        failure = failed(run_job({"id": "job", "input": wanted}, worker, on_progress=watch))
    assert (failure.code, failure.retryable) == (code, True)
    assert [name for name in files_below(mounted) if name != "ballast"] == []
    assert files_below(*(engine.base_directory / name for name in ("input", "output", "temp"))) == []


# --- what ends late, and what must not


def test_a_graph_that_asks_for_base64_is_replayed(worker: Worker, volume: Path) -> None:
    job = {"id": "job", "input": graph_job(SMOKE_GRAPH, outputs="base64")}
    first, second = (succeeded(run_job(job, worker)) for _ in range(2))
    assert second.replayed
    assert second.images == first.images
    assert files_below(volume / "job_outputs") == ["job/result.json"]


def test_a_node_that_is_blocked_does_not_leave_its_prompt_running(
    worker: Worker, engine: RehearsalEngine, volume: Path
) -> None:
    """ComfyUI 0.3.64 sends `execution_error` for an ExecutionBlocker with a message, and goes on."""
    engine.set_faults(Faults(slow_node=0.7))

    def block(progress: Progress) -> None:
        queue = requests.get(f"{engine.url}/queue", timeout=5).json()["queue_running"]
        if progress.stage == "executing" and queue:
            data = {
                "prompt_id": queue[0][1],
                "node_id": "2",
                "node_type": "SaveImage",
                "executed": [],
                "exception_message": "Execution Blocked: no",
                "exception_type": "ExecutionBlocked",
                "traceback": [],
                "current_inputs": [],
                "current_outputs": [],
            }
            worker.comfy.events._deliver(json.dumps({"type": "execution_error", "data": data}).encode(), is_text=True)

    once = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.stage == "executing" and not once.is_set():
            once.set()
            block(progress)

    answer = run_job({"id": "job", "input": graph_job(SMOKE_GRAPH, outputs="volume")}, worker, on_progress=watch)
    running = requests.get(f"{engine.url}/queue", timeout=5).json()["queue_running"]
    assert "error" not in answer or running == [], "a job that has ended has no prompt running"
    threading.Event().wait(2.0)
    assert files_below(engine.base_directory / "output") == []


def test_a_store_that_hangs_does_not_hold_a_second_delivery_beyond_its_deadline(
    engine: RehearsalEngine, volume: Path
) -> None:
    files = LocalFiles(folders_of(engine.base_directory, []))
    with raw_store() as store:
        store.answer = lambda request: Answer(404) if request.method == "HEAD" else Answer(headers={"ETag": '"1"'})
        environment = {
            "BUCKET_ENDPOINT_URL": store.url,
            "BUCKET_NAME": "bucket",
            "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
            "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
        }
        with assembled(engine.url, volume, files, **environment) as worker:
            job = {"id": "job", "input": {"workflow_name": "smoke", "outputs": "s3", "timeout_s": 2}}
            succeeded(run_job(job, worker))
            cancelled = threading.Event()

            def hold(method: str) -> bool:
                cancelled.set()
                return method == "HEAD"

            store.hold = hold
            ended = threading.Event()
            answers: list[Any] = []

            def deliver() -> None:
                answers.append(run_job(job, worker, cancelled=cancelled))
                ended.set()

            thread = threading.Thread(target=deliver)
            thread.start()
            in_time = ended.wait(4.0)
            store.release.set()
            thread.join()
    assert in_time, "it waited for the store"
    assert failed(answers[0]).code == "cancelled"


def test_a_cancelled_job_does_not_wait_for_the_files_of_another(engine: RehearsalEngine, volume: Path) -> None:
    go_on, begun = threading.Event(), threading.Semaphore(0)

    class Held(LocalFiles):
        @contextlib.contextmanager
        def origin(self, ref: FileRef) -> Iterator[Origin]:
            with super().origin(ref) as path:
                if ref.filename.startswith("held"):

                    def chunks() -> Iterator[bytes]:
                        begun.release()
                        go_on.wait(10)
                        yield b"x"

                    yield chunks()
                else:
                    yield path

    def graph(prefix: str, count: int) -> dict[str, Any]:
        inputs = {**SMOKE_GRAPH["1"]["inputs"], "batch_size": count}
        saving = {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}}
        return graph_job({"1": {**SMOKE_GRAPH["1"], "inputs": inputs}, "2": saving}, outputs="volume")

    with assembled(engine.url, volume, Held(folders_of(engine.base_directory, []))) as worker:
        other = threading.Thread(target=run_job, args=({"id": "a", "input": graph("held", 4)}, worker))
        other.start()
        for _ in range(4):
            begun.acquire(timeout=10)
        cancelled, ended = threading.Event(), threading.Event()

        def deliver() -> None:
            run_job(
                {"id": "b", "input": graph("quick", 1)},
                worker,
                cancelled=cancelled,
                on_progress=lambda progress: cancelled.set() if progress.stage == "publishing" else None,
            )
            ended.set()

        mine = threading.Thread(target=deliver)
        mine.start()
        in_time = ended.wait(4.0)
        go_on.set()
        mine.join()
        other.join()
    assert in_time, "it waited for another job's files"
