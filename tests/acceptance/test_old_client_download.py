"""A client as they exist today: it knows the result's `_pod_path` keys and the gateway's address, nothing else."""

from __future__ import annotations

import hashlib
import os
import re
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from morpheus_worker.jobs import JobResult, OutputFile, Timings

PICTURE = b"\x89PNG\r\n\x1a\n" + os.urandom(300_000)
JOB_ID = "3f0c2a4e-7d1b-4a6f-9c55-0b8e6f1d2a33-e1"
MORPHEUS = Path(sys.executable).with_name("morpheus")


def as_it_is(pod_path: str) -> str:
    return pod_path.lstrip("/")


def as_a_pod_sees_it(pod_path: str) -> str:
    return pod_path.replace("/runpod-volume", "/workspace")


def old_client(gateway: str, result: dict[str, Any], translated: Callable[[str], str]) -> dict[str, bytes]:
    """Downloads every key of the result that ends in `_pod_path`."""
    downloaded: dict[str, bytes] = {}
    for key, value in result.items():
        if key.endswith("_pod_path"):
            with requests.get(f"{gateway}/download/{translated(value)}", timeout=30) as answer:
                answer.raise_for_status()
                downloaded[key] = answer.content
    return downloaded


@pytest.fixture(scope="module")
def volume(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("volume")


@pytest.fixture(scope="module")
def result(volume: Path) -> dict[str, Any]:
    """What a worker, which has the volume at /runpod-volume, answered, and the file where the gateway has it."""
    filename = "portrait_00001_.png"
    (volume / "job_outputs" / JOB_ID).mkdir(parents=True)
    (volume / "job_outputs" / JOB_ID / filename).write_bytes(PICTURE)
    path = f"/runpod-volume/job_outputs/{JOB_ID}/{filename}"
    output = OutputFile(
        kind="image",
        filename=filename,
        node_id="9",
        media_type="image/png",
        bytes=len(PICTURE),
        sha256=hashlib.sha256(PICTURE).hexdigest(),
        path=path,
        volume_path=path.removeprefix("/runpod-volume/"),
    )
    job = JobResult(job_id=JOB_ID, trace_id="t", outputs=[output], params={}, timings=Timings(), image_pod_path=path)
    return job.wire()


@pytest.fixture(scope="module")
def gateway(volume: Path) -> Iterator[str]:
    """The gateway's address."""
    command = [str(MORPHEUS), "gateway", "--root", str(volume), "--port", "0"]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            address = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert address is not None, said + process.stderr.read()
            yield address[0]
            process.terminate()
            assert process.wait(timeout=30) == 0
        finally:
            process.kill()


@pytest.mark.parametrize("translated", [as_it_is, as_a_pod_sees_it])
def test_an_existing_client_gets_the_picture(
    gateway: str, result: dict[str, Any], translated: Callable[[str], str]
) -> None:
    downloaded = old_client(gateway, result, translated)
    assert list(downloaded) == ["image_pod_path"]
    assert hashlib.sha256(downloaded["image_pod_path"]).hexdigest() == result["outputs"][0]["sha256"]


def test_it_learns_that_a_file_is_gone(gateway: str) -> None:
    with requests.get(f"{gateway}/download/runpod-volume/job_outputs/{JOB_ID}/no.png", timeout=30) as answer:
        assert answer.status_code == 404
        assert answer.json() == {"error": "File not found"}
