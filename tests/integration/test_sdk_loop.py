"""Two jobs at once through the SDK's own loop, against a job server that is 100 ms away."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
import requests

from .endpoint import environment_of, eventually, on_endpoint
from .job_server import JobServer, Post
from .jobs import check_files, data_uri, files_below, graph_job, png, succeeded

SLOW_NODE_S = 0.2


@dataclass(frozen=True)
class Endpoint:
    """A worker that takes two jobs at once, and its ComfyUI, whose nodes take a while."""

    server: JobServer
    folder: Path
    comfyui_url: str

    def queue(self) -> tuple[list[str], list[str]]:
        """The ids of the jobs that ComfyUI executes, and of those that wait."""
        said = requests.get(f"{self.comfyui_url}/queue", timeout=10).json()
        running, pending = ([job_of(item[2]) for item in said[name]] for name in ("queue_running", "queue_pending"))
        return running, pending

    def wait_for_queue(self, running: list[str], pending: list[str]) -> None:
        eventually(lambda: self.queue() == (running, pending), f"ComfyUI executes {running} and {pending} wait")

    @property
    def staged(self) -> list[str]:
        return files_below(self.folder / "ComfyUI/input")

    def published(self, job_id: str) -> Path:
        return self.folder / "volume/job_outputs" / job_id


def job_of(graph: dict[str, Any]) -> str:
    """The job whose graph it is: the last part of the name that it saves under."""
    prefixes = [node["inputs"]["filename_prefix"] for node in graph.values() if node["class_type"] == "SaveImage"]
    return str(prefixes[0]).rpartition("/")[2]


def slow_job(job_id: str, nodes: int, **more: Any) -> dict[str, Any]:
    """A picture that is sent along, inverted by that many nodes, none of which ComfyUI has run before."""
    color = (sum(job_id.encode()) % 256, nodes, len(job_id))
    inverting = {
        str(n): {"class_type": "ImageInvert", "inputs": {"image": [str(n - 1), 0]}} for n in range(2, nodes + 2)
    }
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
        **inverting,
        "save": {"class_type": "SaveImage", "inputs": {"images": [str(nodes + 1), 0], "filename_prefix": job_id}},
    }
    return graph_job(graph, images=[{"name": "in.png", "image": data_uri(png(color))}], **more)


def check_progress(posts: list[Post]) -> None:
    """It goes forward, at most once a second, and ends with the result."""
    *progress, result = posts
    assert not result.is_progress
    percents = [post.body["output"]["percent"] for post in progress]
    assert percents == sorted(percents)
    assert 2 <= len(progress) <= 2 + result.at_s - progress[0].at_s


@pytest.fixture(scope="module")
def endpoint(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Endpoint]:
    folder = tmp_path_factory.mktemp("endpoint")
    environment = environment_of(
        folder, MORPHEUS_CONCURRENCY="2", MORPHEUS_COMFYUI_ARGS=f"--fault slow_node={SLOW_NODE_S}"
    )
    with on_endpoint(environment, folder / "log", JobServer(rtt_s=0.1)) as (server, _process):
        server.submit("boot", {"workflow_name": "smoke"})
        server.result("boot")
        yield Endpoint(server, folder, environment["MORPHEUS_COMFYUI_URL"])


@pytest.fixture(autouse=True)
def tidy(endpoint: Endpoint) -> Iterator[None]:
    """However the jobs of a test ended, ComfyUI keeps nothing of them, nothing was said after a result, and the worker
    takes the next job."""
    yield
    eventually(lambda: endpoint.queue() == ([], []), "ComfyUI's queue is empty")
    eventually(lambda: not files_below(endpoint.folder / "ComfyUI/input", endpoint.folder / "ComfyUI/output"), "tidy")
    number = len(endpoint.server.taken_at_s)
    endpoint.server.submit(f"next-{number}", {"workflow_name": "smoke", "seed": number})
    assert endpoint.server.result(f"next-{number}")["output"]["status"] == "success"
    for job_id in endpoint.server.taken_at_s:
        assert endpoint.server.after_result(job_id) == []


def test_the_next_job_is_staged_and_queued_while_one_executes(endpoint: Endpoint) -> None:
    server = endpoint.server
    server.submit("first", slow_job("first", nodes=10))
    endpoint.wait_for_queue(["first"], [])
    server.submit("second", slow_job("second", nodes=5))
    endpoint.wait_for_queue(["first"], ["second"])
    assert len(endpoint.staged) == 2
    first = succeeded(server.result("first")["output"])
    assert endpoint.queue() == (["second"], []), "the first one's result is there while the second one executes"
    second = succeeded(server.result("second")["output"])
    assert check_files(first, endpoint.folder / "volume") != check_files(second, endpoint.folder / "volume")
    check_progress(server.posts_of("first"))
    check_progress(server.posts_of("second"))


def test_a_queued_job_can_be_cancelled_while_another_executes(endpoint: Endpoint) -> None:
    server = endpoint.server
    server.submit("goes-on", slow_job("goes-on", nodes=16))
    endpoint.wait_for_queue(["goes-on"], [])
    server.submit("unwanted", slow_job("unwanted", nodes=4))
    endpoint.wait_for_queue(["goes-on"], ["unwanted"])
    server.stop("unwanted")
    endpoint.wait_for_queue(["goes-on"], [])
    assert succeeded(server.result("goes-on")["output"]).job_id == "goes-on"
    assert "unwanted" not in server.results
    assert not endpoint.published("unwanted").exists()


def test_a_queued_job_times_out_from_its_receipt_and_a_cancel_lets_the_next_one_start(endpoint: Endpoint) -> None:
    server = endpoint.server
    server.submit("endless", slow_job("endless", nodes=200))
    endpoint.wait_for_queue(["endless"], [])
    server.submit("impatient", slow_job("impatient", nodes=2, timeout_s=1))
    server.wait_for_progress("impatient", stage="queued")
    assert server.result("impatient")["output"]["code"] == "timeout"
    assert endpoint.queue() == (["endless"], [])

    server.submit("behind", slow_job("behind", nodes=2))
    endpoint.wait_for_queue(["endless"], ["behind"])
    server.stop("endless")
    assert succeeded(server.result("behind")["output"]).job_id == "behind"
    assert "endless" not in server.results
    assert not endpoint.published("endless").exists()
    assert not endpoint.published("impatient").exists()


def test_a_result_that_the_server_refuses_does_not_hurt_the_next_job(endpoint: Endpoint) -> None:
    server = endpoint.server
    server.max_result_bytes = 100
    server.submit("too-large", {"workflow_name": "smoke"})
    assert server.refusal("too-large").body["output"]["status"] == "success"
    server.max_result_bytes = 10_000
    server.submit("fits", {"workflow_name": "smoke"})
    assert server.result("fits")["output"]["status"] == "success"
    assert "too-large" not in server.results
