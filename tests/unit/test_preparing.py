"""How long a job may take."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, cast

import pytest

from morpheus_worker.comfy.client import ComfyClient
from morpheus_worker.comfy.files import ComfyFiles
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import parse_request
from morpheus_worker.library import Library
from morpheus_worker.preparing import Worker, timeout_of
from morpheus_worker.replaying import Replays
from morpheus_worker.settings import Settings

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    """Of a worker, only what decides."""
    for name, about in (("quick", {"timeout_s": 30, "aliases": ["fast"]}), ("usual", {})):
        (tmp_path / f"{name}.json").write_text(json.dumps({"_about": about, **GRAPH}))
    return Worker(
        settings=Settings(job_timeout_s=500.0),
        comfy=cast(ComfyClient, None),
        files=cast(ComfyFiles, None),
        library=Library.load(tmp_path),
        replays=Replays(tmp_path),
    )


@pytest.mark.parametrize(
    ("job_input", "timeout_s"),
    [
        ({"workflow_name": "quick"}, 30),
        ({"workflow_name": "fast"}, 30),
        ({"workflow_name": "quick", "timeout_s": 7}, 7),
        ({"workflow_name": "quick", "timeout_s": 700}, 700),
        ({"workflow_name": "usual"}, 500),
        ({"workflow": GRAPH}, 500),
        ({"workflow": GRAPH, "timeout_s": 0.5}, 0.5),
    ],
)
def test_the_jobs_own_wish_then_the_workflows_then_the_settings(
    worker: Worker, job_input: dict[str, Any], timeout_s: float
) -> None:
    assert timeout_of(parse_request("job-1", job_input), worker) == timeout_s


def test_a_workflow_that_nobody_knows_is_said_at_once(worker: Worker) -> None:
    with pytest.raises(MorpheusError) as unknown:
        timeout_of(parse_request("job-1", {"workflow_name": "quik"}), worker)
    assert unknown.value.code == Code.UNKNOWN_WORKFLOW
