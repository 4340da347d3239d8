"""The SDK's ways to run the worker without RunPod: one test job, and its local API."""

from __future__ import annotations

import contextlib
import json
import re
import signal
import subprocess
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from tests.commands import free_port

from .endpoint import DEADLINE_S, HANDLER, REPOSITORY, answers, ended, environment_of, eventually, started
from .jobs import SMOKE_GRAPH, check_files, files_below, graph_job, succeeded

TEST_ID = re.compile(r"test-[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}")
SMOKE = {"workflow_name": "smoke"}


def left_in_comfyui(folder: Path) -> list[str]:
    return files_below(folder / "ComfyUI/input", folder / "ComfyUI/output")


def test_the_test_input_file_that_comes_with_the_project_runs(tmp_path: Path) -> None:
    done = ended(environment_of(tmp_path), *HANDLER, cwd=REPOSITORY)
    assert done.returncode == 0, done.stderr
    said = next(line for line in done.stdout.splitlines() if "Job result: " in line)
    record = json.loads((tmp_path / "volume/job_outputs/local_test/result.json").read_text())
    assert repr(record["outputs"]) in said
    assert len(check_files(succeeded(record), tmp_path / "volume")) == 1
    assert left_in_comfyui(tmp_path) == []


def test_a_test_job_that_fails_says_why_and_exits_1(tmp_path: Path) -> None:
    (tmp_path / "test_input.json").write_text(json.dumps({"id": "typo", "input": {"workflow_name": "smok"}}))
    done = ended(environment_of(tmp_path), *HANDLER, cwd=tmp_path)
    assert done.returncode == 1
    assert "typo failed with error: The workflow is unknown" in done.stdout
    assert "did you mean 'smoke'?" in done.stdout
    assert "Traceback" not in done.stdout + done.stderr
    assert files_below(tmp_path / "volume") == []


def test_a_test_job_that_is_told_to_end_leaves_nothing(tmp_path: Path) -> None:
    environment = environment_of(tmp_path, MORPHEUS_COMFYUI_ARGS="--fault slow_node=30")
    job = json.dumps({"id": "slow", "input": SMOKE})
    with started(environment, tmp_path / "log", *HANDLER, "--test_input", job) as process:
        url = environment["MORPHEUS_COMFYUI_URL"]
        eventually(lambda: answers(url) and requests.get(f"{url}/queue", timeout=5).json()["queue_running"], "it runs")
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=DEADLINE_S) == 128 + signal.SIGTERM
    assert not answers(url), "ComfyUI is gone with the worker"
    assert left_in_comfyui(tmp_path) == []
    assert files_below(tmp_path / "volume") == []


@dataclass(frozen=True)
class Api:
    """The SDK's local API, and the process that serves it."""

    url: str
    process: subprocess.Popen[bytes]

    def post(self, path: str, body: Any = None) -> Any:
        response = requests.post(f"{self.url}{path}", json=body, timeout=DEADLINE_S)
        response.raise_for_status()
        return response.json()

    def runsync(self, job_input: dict[str, Any]) -> Any:
        return self.post("/runsync", {"input": job_input})


@contextlib.contextmanager
def local_api(environment: dict[str, str], log: Path) -> Iterator[Api]:
    port = str(free_port())
    arguments = ("--rp_serve_api", "--rp_api_host", "127.0.0.1", "--rp_api_port", port)
    with started(environment, log, *HANDLER, *arguments) as process:
        url = f"http://127.0.0.1:{port}"
        eventually(lambda: answers(url) or process.poll() is not None, "the API answers")
        assert process.poll() is None, log.read_text()
        yield Api(url, process)


def picture(color: int) -> dict[str, Any]:
    """A job whose nodes ComfyUI has not run before."""
    return graph_job(
        {
            **SMOKE_GRAPH,
            "1": {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": color}},
        }
    )


@pytest.mark.parametrize("concurrency", [1, 2])
def test_the_local_api_runs_jobs_and_ends_when_it_is_told_to(concurrency: int, tmp_path: Path) -> None:
    environment = environment_of(
        tmp_path, MORPHEUS_CONCURRENCY=str(concurrency), MORPHEUS_COMFYUI_ARGS="--fault slow_node=0.2"
    )
    with local_api(environment, tmp_path / "log") as api, ThreadPoolExecutor() as callers:
        done = api.runsync(SMOKE)
        assert (done["status"], bool(TEST_ID.fullmatch(done["id"]))) == ("COMPLETED", True)
        assert done["output"]["job_id"] == done["id"]
        check_files(succeeded(done["output"]), tmp_path / "volume")

        failed = api.runsync({"workflow_name": "smok"})
        assert (failed["status"], "output" in failed) == ("FAILED", False)
        assert "did you mean 'smoke'?" in failed["error"]

        stored = api.post("/run", {"input": SMOKE})
        assert stored["status"] == "IN_PROGRESS"
        assert not (tmp_path / "volume/job_outputs" / stored["id"]).exists(), "it runs when its status is asked for"
        assert api.post(f"/status/{stored['id']}")["output"]["status"] == "success"
        assert api.post(f"/status/{stored['id']}")["error"] == "Job ID not found"

        at_once = list(callers.map(api.runsync, [picture(1), picture(2), picture(3)]))
        assert [answer["status"] for answer in at_once] == ["COMPLETED"] * 3
        assert len({answer["output"]["outputs"][0]["sha256"] for answer in at_once}) == 3

        last = callers.submit(api.runsync, picture(4))
        folders = tmp_path / "volume/job_outputs"
        eventually(lambda: len(list(folders.iterdir())) == 6, "the last job has begun")
        api.process.send_signal(signal.SIGTERM)
        assert last.result()["status"] == "COMPLETED", "SIGTERM lets the job in flight finish"
        assert api.process.wait(timeout=DEADLINE_S) == 128 + signal.SIGTERM
    assert not answers(environment["MORPHEUS_COMFYUI_URL"]), "ComfyUI is gone with the worker"
    assert left_in_comfyui(tmp_path) == []
    assert "Traceback" not in (tmp_path / "log").read_text()
