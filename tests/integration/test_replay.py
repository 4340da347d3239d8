"""A job that was done before: through the pipeline, and through the SDK's own loop in workers that share a volume."""

from __future__ import annotations

import signal
import sys
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
import requests

from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.launch import folders_of
from morpheus_worker.jobs import Progress
from morpheus_worker.pipeline import Worker, run_job
from morpheus_worker.rehearsal import Faults, RehearsalEngine
from tests.commands import own_environment

from .conftest import assembled
from .endpoint import eventually, on_endpoint
from .jobs import INVERT_GRAPH, SMOKE_GRAPH, check_files, data_uri, failed, files_below, graph_job, png, succeeded

SMOKE: dict[str, Any] = {"workflow_name": "smoke"}
WIDER: dict[str, Any] = {"workflow_name": "smoke", "params": {"width": 48}}
WAIT_S = 60.0


def prompts(engine: RehearsalEngine) -> int:
    """How many prompts the engine has executed, whether they succeeded or not."""
    return len(requests.get(f"{engine.url}/history", timeout=10).json())


def replay_of(first: dict[str, Any]) -> dict[str, Any]:
    return {**first, "replayed": True}


def names(volume: Path, job_id: str) -> list[str]:
    return files_below(volume / "job_outputs" / job_id)


# --- through the pipeline


@pytest.mark.parametrize(
    "job_input",
    [
        SMOKE,
        graph_job(SMOKE_GRAPH),
        graph_job(INVERT_GRAPH, images=[{"name": "input_image.png", "image": data_uri(png())}]),
        {"workflow_name": "smoke", "outputs": "base64"},
        graph_job({"1": SMOKE_GRAPH["1"], "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}),
    ],
    ids=["template", "graph", "graph with a picture", "base64", "preview"],
)
def test_a_second_delivery_is_answered_with_the_result_of_the_first(
    job_input: dict[str, Any], worker: Worker, engine: RehearsalEngine, volume: Path
) -> None:
    first = run_job({"id": "job-1", "input": job_input}, worker)
    succeeded(first)
    made = files_below(volume / "job_outputs")
    for _ in range(2):
        assert run_job({"id": "job-1", "input": job_input}, worker) == replay_of(first)
    assert prompts(engine) == 1
    assert files_below(volume / "job_outputs") == made


def test_the_same_id_with_another_input_runs_beside_the_first(
    worker: Worker, engine: RehearsalEngine, volume: Path
) -> None:
    answers = [run_job({"id": "job-1", "input": job_input}, worker) for job_input in (SMOKE, WIDER)]
    for answer in answers:
        check_files(succeeded(answer), volume)
    assert names(volume, "job-1") == ["result-2.json", "result.json", "smoke_00001_-2.png", "smoke_00001_.png"]
    for job_input, answer in ((SMOKE, answers[0]), (WIDER, answers[1])):
        assert run_job({"id": "job-1", "input": job_input}, worker) == replay_of(answer)
    assert prompts(engine) == 2


def test_a_failure_runs_again_and_a_success_does_not(worker: Worker, engine: RehearsalEngine) -> None:
    job = {"id": "job-1", "input": SMOKE}
    engine.set_faults(Faults(node_error="SaveImage"))
    for _ in range(2):
        assert failed(run_job(job, worker)).code == "execution_failed"
    engine.set_faults(Faults())
    first = run_job(job, worker)
    succeeded(first)
    assert run_job(job, worker) == replay_of(first)
    assert prompts(engine) == 3


def test_a_cancelled_job_runs_when_it_comes_again(worker: Worker, engine: RehearsalEngine) -> None:
    cancelled = threading.Event()
    cancelled.set()
    assert failed(run_job({"id": "job-1", "input": SMOKE}, worker, cancelled=cancelled)).code == "cancelled"
    assert succeeded(run_job({"id": "job-1", "input": SMOKE}, worker)).replayed is None


def test_an_idempotency_key_is_another_name_of_the_job(worker: Worker, engine: RehearsalEngine) -> None:
    first = run_job({"id": "job-1", "input": {**SMOKE, "idempotency_key": "order 17"}}, worker)
    succeeded(first)
    again = {**SMOKE, "idempotency_key": "order 17", "timeout_s": 30}
    assert run_job({"id": "job-2", "input": again}, worker) == replay_of(first)
    assert prompts(engine) == 1
    assert (
        succeeded(run_job({"id": "job-3", "input": {**WIDER, "idempotency_key": "order 17"}}, worker)).job_id == "job-3"
    )
    assert prompts(engine) == 2


def test_a_seed_that_was_drawn_is_not_drawn_again(worker: Worker) -> None:
    params = {"prompt": "x", "steps": 1, "width": 64, "height": 64, "seed": -1}
    job = {"id": "job-1", "input": {"workflow_name": "sdxl_txt2img", "params": params}}
    assert len({succeeded(run_job(job, worker)).params["seed"] for _ in range(3)}) == 1


@pytest.mark.parametrize("doomed", ["the file", "its content", "the record", "the job's folder", "the index"])
def test_what_was_removed_is_made_anew(doomed: str, worker: Worker, engine: RehearsalEngine, volume: Path) -> None:
    """Without the index it is as after a kill between the record and the entry."""
    job = {"id": "job-1", "input": SMOKE}
    (path,) = check_files(succeeded(run_job(job, worker)), volume)
    if doomed == "the file":
        path.unlink()
    elif doomed == "its content":
        path.write_bytes(b"")
    elif doomed == "the record":
        (path.parent / "result.json").unlink()
    else:
        folder = path.parent if doomed == "the job's folder" else volume / "job_index"
        folder.rename(volume / "removed")
    second = run_job(job, worker)
    assert succeeded(second).replayed is None
    check_files(succeeded(second), volume)
    assert run_job(job, worker) == replay_of(second)
    assert prompts(engine) == 2


def test_a_local_test_always_runs(worker: Worker, engine: RehearsalEngine, volume: Path) -> None:
    job = {"id": "local_test", "input": {**SMOKE, "idempotency_key": "order 17"}}
    for _ in range(2):
        assert succeeded(run_job(job, worker)).replayed is None
    assert prompts(engine) == 2
    assert not (volume / "job_index").exists()


def test_a_job_whose_result_cannot_be_remembered_succeeds(
    worker: Worker, engine: RehearsalEngine, volume: Path
) -> None:
    (volume / "job_index").touch()
    for _ in range(2):
        check_files(succeeded(run_job({"id": "job-1", "input": SMOKE}, worker)), volume)
    assert prompts(engine) == 2


# --- at the same moment


@pytest.fixture
def first_under_way(worker: Worker, engine: RehearsalEngine) -> Iterator[Callable[[], dict[str, Any]]]:
    """The first delivery of `job-1` is executing; what is yielded waits for its answer."""
    engine.set_faults(Faults(slow_node=0.5))
    executing = threading.Event()

    def note(progress: Progress) -> None:
        if progress.stage == "executing":
            executing.set()

    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(run_job, {"id": "job-1", "input": SMOKE}, worker, on_progress=note)
        assert executing.wait(WAIT_S)
        yield lambda: running.result(WAIT_S)


def test_a_second_delivery_waits_for_the_first_and_runs_nothing(
    first_under_way: Callable[[], dict[str, Any]], worker: Worker, engine: RehearsalEngine
) -> None:
    second = run_job({"id": "job-1", "input": SMOKE}, worker)
    assert second == replay_of(first_under_way())
    assert prompts(engine) == 1


def test_a_second_delivery_that_is_stopped_while_it_waits_leaves_the_first_alone(
    first_under_way: Callable[[], dict[str, Any]], worker: Worker, engine: RehearsalEngine, volume: Path
) -> None:
    cancelled = threading.Event()
    cancelled.set()
    assert failed(run_job({"id": "job-1", "input": SMOKE}, worker, cancelled=cancelled)).code == "cancelled"
    impatient = {"id": "job-1", "input": {**SMOKE, "timeout_s": 0.1}}
    assert failed(run_job(impatient, worker)).code == "timeout"
    check_files(succeeded(first_under_way()), volume)
    assert prompts(engine) == 1


def test_two_workers_that_run_it_at_once_both_succeed_beside_one_another(
    first_under_way: Callable[[], dict[str, Any]], worker: Worker, engine: RehearsalEngine, volume: Path
) -> None:
    with assembled(engine.url, volume, LocalFiles(folders_of(engine.base_directory, []))) as other:
        second = run_job({"id": "job-1", "input": SMOKE}, other)
        first = first_under_way()
        paths = [path for answer in (first, second) for path in check_files(succeeded(answer), volume)]
        assert len(set(paths)) == 2
        assert names(volume, "job-1") == sorted(["result.json", "result-2.json", *(path.name for path in paths)])
        third = run_job({"id": "job-1", "input": SMOKE}, other)
        assert third in (replay_of(first), replay_of(second))
        assert run_job({"id": "job-1", "input": SMOKE}, worker) == third
    assert prompts(engine) == 2


# --- through the SDK's own loop, in processes of their own


@pytest.fixture
def environment(engine: RehearsalEngine, volume: Path) -> dict[str, str]:
    """Workers that share the volume, and an engine that outlives them."""
    return own_environment() | {
        "MORPHEUS_PYTHON": sys.executable,
        "MORPHEUS_VOLUME_ROOT": str(volume),
        "MORPHEUS_COMFYUI_URL": engine.url,
        "MORPHEUS_LOG_FORMAT": "json",
    }


def test_a_worker_that_was_killed_has_left_its_results_to_the_next_one(
    environment: dict[str, str], engine: RehearsalEngine, volume: Path, tmp_path: Path
) -> None:
    keyed = {**SMOKE, "idempotency_key": "order 17"}
    with on_endpoint(environment, tmp_path / "log-1") as (server, process):
        server.submit("job-1", keyed)
        first = server.result("job-1")["output"]
        engine.set_faults(Faults(slow_node=0.3))
        server.submit("job-2", WIDER)
        eventually(lambda: requests.get(f"{engine.url}/queue", timeout=10).json()["queue_running"], "job-2 runs")
        process.send_signal(signal.SIGKILL)
        process.wait()
    engine.set_faults(Faults())
    eventually(lambda: prompts(engine) == 2, "the prompt of the killed worker ends")
    with on_endpoint(environment | {"MORPHEUS_CONCURRENCY": "2"}, tmp_path / "log-2") as (server, _process):
        deliveries = {"job-1": keyed, "job-3": keyed, "job-2": WIDER}
        for job_id, job_input in deliveries.items():
            server.submit(job_id, job_input)
        answers = {job_id: server.result(job_id)["output"] for job_id in deliveries}
        assert answers["job-1"] == replay_of(first)
        assert answers["job-3"] == replay_of(first), "the same order under another id"
        assert "replayed" not in answers["job-2"], "what was killed while it ran has no result"
        check_files(succeeded(answers["job-2"]), volume)
        assert prompts(engine) == 3


def test_two_deliveries_that_one_worker_holds_at_once_run_once(
    environment: dict[str, str], engine: RehearsalEngine, volume: Path, tmp_path: Path
) -> None:
    engine.set_faults(Faults(slow_node=0.3))
    with on_endpoint(environment | {"MORPHEUS_CONCURRENCY": "2"}, tmp_path / "log") as (server, _process):

        def posted() -> list[dict[str, Any]] | None:
            results = [post.body["output"] for post in server.posts if not post.is_progress]
            return results if len(results) == 2 else None

        server.submit("job-1", SMOKE)
        server.submit("job-1", SMOKE)
        first, second = server.wait_for(posted, "two results", WAIT_S)
    assert second == replay_of(first)
    assert prompts(engine) == 1
    assert names(volume, "job-1") == ["result.json", "smoke_00001_.png"]
