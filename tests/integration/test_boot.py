"""From pod_start.sh to jobs: with the rehearsal engine in ComfyUI's place, as a child process, through the real SDK."""

from __future__ import annotations

import contextlib
import json
import os
import signal
import socket
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker import boot
from morpheus_worker.deadlines import Deadline
from morpheus_worker.pipeline import run_job
from morpheus_worker.settings import Settings

from .endpoint import POD_START, answers, environment_of, eventually, on_endpoint, pod_start, started
from .jobs import SMOKE_GRAPH, data_uri, failed, files_below, graph_job, png, succeeded

INVERTED = {str(n): {"class_type": "ImageInvert", "inputs": {"image": [str(n - 1), 0]}} for n in range(2, 12)}
LONG_JOB = graph_job(
    {
        "1": SMOKE_GRAPH["1"],
        **INVERTED,
        "12": {"class_type": "SaveImage", "inputs": {"images": ["11", 0], "filename_prefix": "long"}},
    }
)
"""Twelve nodes, half a second each: long enough to be stopped by an SDK that listens for that only now and then."""


@pytest.fixture
def environment(tmp_path: Path) -> dict[str, str]:
    environment = environment_of(tmp_path)
    models = tmp_path / "volume/morpheus_model_cache/upscale_models"
    models.mkdir(parents=True)
    (models / "2x_tiny.pth").write_bytes(b"weights")
    return environment


def test_a_local_test_boots_links_runs_and_leaves_no_process(environment: dict[str, str], tmp_path: Path) -> None:
    params = {"image": data_uri(png()), "upscale_model": "2x_tiny.pth"}
    job = {"id": "up", "input": {"workflow_name": "upscale", "params": params}}
    done = pod_start(environment, "--test_input", json.dumps(job))
    assert done.returncode == 0, done.stderr
    result = json.loads((tmp_path / "volume/job_outputs/up/result.json").read_text())
    assert (result["outputs"][0]["width"], result["outputs"][0]["height"]) == (48, 32)
    link = Path(environment["MORPHEUS_COMFYUI_DIR"]) / "models/upscale_models/2x_tiny.pth"
    assert link.readlink() == tmp_path / "volume/morpheus_model_cache/upscale_models/2x_tiny.pth"
    assert "RealESRGAN_x4plus.pth" in done.stderr, "what the manifest names and nobody has is said"
    assert "'morpheus models sync' fetches them" in done.stderr
    assert not answers(environment["MORPHEUS_COMFYUI_URL"]), "ComfyUI is gone with the worker"


LATE_MANIFEST = """
version: 1
models:
  - id: late
    path: upscale_models/2x_late.pth
    workflows: [upscale]
    sources: [{kind: https, url: "https://host/2x_late.pth"}]
  - {id: later, path: upscale_models/2x_later.pth, also: [latent_upscale_models/2x_later.pth]}
"""


def test_a_model_that_came_onto_the_volume_since_is_used_without_a_restart(
    environment: dict[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morpheus_worker.relinking.LEAST_GAP_S", 0.0)
    monkeypatch.setattr("morpheus_worker.relinking.SHARE", 0.0)
    (tmp_path / "manifest.yaml").write_text(LATE_MANIFEST, encoding="utf-8")
    settings = Settings.from_environment({**environment, "MORPHEUS_MANIFEST": str(tmp_path / "manifest.yaml")})
    folder = tmp_path / "volume/morpheus_model_cache/upscale_models"

    def job(job_id: str, name: str) -> dict[str, Any]:
        params = {"image": data_uri(png()), "upscale_model": name}
        return {"id": job_id, "input": {"workflow_name": "upscale", "params": params}}

    graph = {
        "1": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "2x_later.pth"}},
        "2": SMOKE_GRAPH["1"],
        "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["1", 0], "image": ["2", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "late"}},
    }
    with boot.started(settings, with_sdk=False) as worker:
        early = failed(run_job(job("early", "2x_late.pth"), worker))
        assert early.code == "missing_model"
        assert early.error.endswith("; 'morpheus models sync late' fetches it")
        assert early.details["sync"] == ["late"]
        (folder / "2x_late.pth").write_bytes(b"weights")
        succeeded(run_job(job("late", "2x_late.pth"), worker))
        refused = failed(run_job({"id": "early-graph", "input": graph_job(graph)}, worker))
        assert (refused.code, refused.details.get("sync")) == ("missing_model", None), "it has no source"
        (folder / "2x_later.pth").write_bytes(b"weights")
        succeeded(run_job({"id": "late-graph", "input": graph_job(graph)}, worker))
        assert failed(run_job(job("never", "2x_never.pth"), worker)).details.get("sync") is None


def test_a_volume_that_is_gone_for_a_while_takes_no_links_with_it(
    environment: dict[str, str], tmp_path: Path, caplog: pytest.LogCaptureFixture
) -> None:
    cache, away = tmp_path / "volume/morpheus_model_cache", tmp_path / "away"
    link = Path(environment["MORPHEUS_COMFYUI_DIR"]) / "models/upscale_models/2x_tiny.pth"
    with boot.started(Settings.from_environment(environment), with_sdk=False) as worker:
        cache.rename(away)
        assert not worker.link_anew(Deadline.after(30.0))
        assert f"{cache} any more" in caplog.text
        away.rename(cache)
        assert link.exists()


def test_a_failed_local_test_says_why_and_exits_1(environment: dict[str, str]) -> None:
    done = pod_start(environment, "--test_input", json.dumps({"input": {"workflow_name": "smok"}}))
    assert done.returncode == 1
    assert "did you mean 'smoke'?" in done.stdout + done.stderr
    assert "Traceback" not in done.stderr


@pytest.mark.parametrize(
    ("changes", "arguments", "code", "said"),
    [
        ({}, ["--test_input", "{"], 2, "is not JSON"),
        ({}, ["--test_input", "[]"], 2, "'input'"),
        ({"MORPHEUS_CONCURRENCY": "many"}, [], 2, "MORPHEUS_CONCURRENCY"),
        ({"BUCKET_ENDPOINT_URL": "http://[::1"}, [], 2, "BUCKET_ENDPOINT_URL: is no address"),
        ({"BUCKET_ENDPOINT_URL": "http://minio:99999/b"}, [], 2, "BUCKET_ENDPOINT_URL: is no address"),
        (
            {"BUCKET_ENDPOINT_URL": "http://minio:9000", "MORPHEUS_OUTPUTS": "s3"},
            [],
            2,
            "BUCKET_ENDPOINT_URL: names no bucket for the outputs (set BUCKET_NAME)",
        ),
        ({"MORPHEUS_MEDIA_PRIVATE_HOSTS": "minio:9000"}, [], 2, "MORPHEUS_MEDIA_PRIVATE_HOSTS: neither a host name"),
        ({"MORPHEUS_VOLUME_ROOT": "/nowhere", "MORPHEUS_VOLUME_TIMEOUT_S": "0"}, [], 1, "/nowhere"),
        ({"MORPHEUS_COMFYUI_DIR": "/nowhere"}, [], 1, "There is no ComfyUI at /nowhere"),
        ({"MORPHEUS_COMFYUI_ARGS": "--fault nonsense=1"}, [], 1, "ended while it started"),
    ],
)
def test_what_keeps_a_worker_from_starting_is_one_sentence(
    changes: dict[str, str], arguments: list[str], code: int, said: str, environment: dict[str, str]
) -> None:
    done = pod_start(environment | changes, *(arguments or ["--test_input", '{"input": {"workflow_name": "smoke"}}']))
    assert done.returncode == code, done.stderr
    assert said in done.stderr
    assert "Traceback" not in done.stderr


def test_a_misspelt_setting_is_warned_about(environment: dict[str, str]) -> None:
    done = pod_start(
        environment | {"MORPHEUS_CONCURENCY": "2"}, "--test_input", '{"input": {"workflow_name": "smoke"}}'
    )
    assert done.returncode == 0
    assert "did you mean 'MORPHEUS_CONCURRENCY'?" in done.stderr


def test_the_sdks_own_loop_runs_jobs_reports_progress_and_drains(environment: dict[str, str], tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    environment["MORPHEUS_COMFYUI_ARGS"] = "--fault slow_node=0.5"
    with on_endpoint(environment, tmp_path / "log") as (server, process):
        server.submit("good-1", {"workflow_name": "smoke"})
        server.submit("bad-1", {"workflow_name": "smok"})
        server.submit("stopped-1", LONG_JOB)
        done = server.result("good-1")
        assert done["output"]["outputs"][0]["path"] == str(volume / "job_outputs/good-1/smoke_00001_.png")
        assert server.result("bad-1")["error"].startswith("The workflow is unknown")
        assert server.result("bad-1")["output"]["code"] == "unknown_workflow"
        server.wait_for_progress("stopped-1")
        server.stop("stopped-1")
        server.submit("last-1", {"workflow_name": "smoke"})
        server.wait_for_progress("last-1")
        process.send_signal(signal.SIGTERM)
        assert server.result("last-1")["output"]["status"] == "success", "SIGTERM lets the job in flight finish"
        assert process.wait(timeout=60) == 0
        assert "stopped-1" not in server.results
        assert server.progress["good-1"][0]["stage"] in ("queued", "executing")
        for job_id in ("good-1", "bad-1", "last-1"):
            assert server.after_result(job_id) == []
    assert not (volume / "job_outputs/stopped-1").exists()
    assert not answers(environment["MORPHEUS_COMFYUI_URL"])
    assert files_below(Path(environment["MORPHEUS_COMFYUI_DIR"]) / "output") == []


def test_sigterm_during_the_boot_ends_comfyui_too(environment: dict[str, str], tmp_path: Path) -> None:
    main = Path(environment["MORPHEUS_COMFYUI_DIR"]) / "main.py"
    pid = tmp_path / "pid"
    main.write_text(
        f"import os, pathlib, time\npathlib.Path({str(pid)!r}).write_text(str(os.getpid()))\ntime.sleep(60)\n"
    )
    with started(environment, tmp_path / "log", POD_START) as process:
        eventually(lambda: pid.exists() and pid.read_text(), "ComfyUI is started")
        process.terminate()
        assert process.wait(timeout=30) == 128 + signal.SIGTERM
        with pytest.raises(ProcessLookupError):
            os.kill(int(pid.read_text()), 0)


def test_a_sigterm_that_somebodys_except_has_swallowed_is_not_forgotten() -> None:
    with boot._ended_by_sigterm() as check:
        check()
        with contextlib.suppress(BaseException):
            signal.raise_signal(signal.SIGTERM)
        with pytest.raises(SystemExit) as ended:
            check()
    assert ended.value.code == 128 + signal.SIGTERM


def test_a_comfyui_that_dies_makes_the_worker_ask_for_another(environment: dict[str, str], tmp_path: Path) -> None:
    environment["MORPHEUS_COMFYUI_ARGS"] = "--fault crash=SaveImage"
    with on_endpoint(environment, tmp_path / "log") as (server, _process):
        server.submit("fatal-1", {"workflow_name": "smoke"})
        answer = server.result("fatal-1")
        assert answer["output"]["code"] == "comfyui_crashed"
        assert "exit code 70" in answer["error"]
        assert answer["stopPod"] is True
        server.submit("next-1", {"workflow_name": "smoke"})
        assert server.result("next-1")["stopPod"] is True
    assert files_below(tmp_path / "volume/job_outputs") == []


def test_a_stranger_at_comfyuis_address_is_not_taken_for_it(environment: dict[str, str]) -> None:
    with socket.socket() as stranger:
        stranger.bind(("127.0.0.1", 0))
        stranger.listen()
        url = f"http://127.0.0.1:{stranger.getsockname()[1]}"
        job = '{"input": {"workflow_name": "smoke"}}'
        done = pod_start(environment | {"MORPHEUS_COMFYUI_URL": url}, "--test_input", job)
    assert done.returncode == 1
    assert f"already listens at {url}" in done.stderr


def test_a_worker_that_is_killed_takes_comfyui_with_it(environment: dict[str, str], tmp_path: Path) -> None:
    """Though the SDK has forked a process for its heartbeat, which inherits whatever the worker holds open."""
    with on_endpoint(environment, tmp_path / "log") as (server, process):
        server.submit("one-1", {"workflow_name": "smoke"})
        server.result("one-1")
        process.kill()
        process.wait()
        eventually(lambda: not answers(environment["MORPHEUS_COMFYUI_URL"]), "ComfyUI has ended too")
