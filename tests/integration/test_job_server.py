"""The job server that the tests of the SDK's loop stand on, asked as the SDK asks it."""

from __future__ import annotations

import json
import socket
import time
from collections.abc import Iterator
from typing import Any

import pytest
import requests

from .endpoint import eventually
from .job_server import JobServer


@pytest.fixture
def server() -> Iterator[JobServer]:
    with JobServer(hold_s=0.05) as running:
        yield running


def url_of(server: JobServer, name: str, job_id: str = "") -> str:
    return server.environment()[name].replace("$RUNPOD_POD_ID", "pod").replace("$ID", job_id or "pod")


def ask(server: JobServer, what: str = "job-take", **query: str) -> requests.Response:
    url = url_of(server, "RUNPOD_WEBHOOK_GET_JOB").replace("/job-take/", f"/{what}/")
    return requests.get(url, params=query, timeout=10)


def post(server: JobServer, job_id: str, body: dict[str, Any]) -> int:
    url = url_of(server, "RUNPOD_WEBHOOK_POST_OUTPUT", job_id)
    return requests.post(url, data=json.dumps(body), timeout=10).status_code


def progress(stage: str, **more: Any) -> dict[str, Any]:
    return {"status": "IN_PROGRESS", "output": {"stage": stage, **more}}


def test_jobs_are_handed_out_in_order_one_by_one_or_several_at_once(server: JobServer) -> None:
    assert ask(server).status_code == 204
    for name in "abc":
        server.submit(name, {"workflow_name": name})
    assert ask(server).json() == {"id": "a", "input": {"workflow_name": "a"}}
    assert [job["id"] for job in ask(server, "job-take-batch", batch_size="5").json()] == ["b", "c"]
    assert ask(server, "job-take-batch", batch_size="5").status_code == 204
    assert list(server.taken_at_s) == ["a", "b", "c"]
    assert server.wait_until_taken("a") <= server.wait_until_taken("c") <= time.monotonic()


def test_a_busy_server_says_so_as_often_as_it_was_told(server: JobServer) -> None:
    server.be_busy()
    server.submit("a", {})
    assert [ask(server).status_code, ask(server).status_code] == [429, 200]


def test_a_job_that_is_to_stop_is_named_once(server: JobServer) -> None:
    server.stop("a")
    assert ask(server, "job-stop").json() == {"jobsToStop": ["a"]}
    assert ask(server, "job-stop").status_code == 204


def test_progress_and_result_are_kept_in_the_order_of_their_arrival(server: JobServer) -> None:
    for body in (progress("staging"), progress("executing", percent=1), {"output": 7}, progress("publishing")):
        assert post(server, "a", body) == 200
    assert server.result("a") == {"output": 7}
    assert server.wait_for_progress("a", stage="executing") == {"stage": "executing", "percent": 1}
    assert server.wait_for_progress("a") == {"stage": "publishing"}
    assert [late.body for late in server.after_result("a")] == [progress("publishing")]
    assert server.posts_of("b") == []


def test_a_result_that_is_too_large_is_refused_and_progress_never(server: JobServer) -> None:
    server.max_result_bytes = 50
    assert post(server, "a", progress("executing", node_id="7" * 50)) == 200
    assert post(server, "a", {"output": "7" * 50}) == 400
    assert server.refusal("a").size > 50
    assert "a" not in server.results


def test_a_job_that_was_taken_and_not_answered_can_be_delivered_again(server: JobServer) -> None:
    server.submit("a", {})
    with pytest.raises(ValueError, match="the job a is not one that was taken"):
        server.redeliver("a")
    first = ask(server).json()
    server.redeliver("a")
    assert ask(server).json() == first
    assert server.wait_until_taken("a", times=2) >= server.wait_until_taken("a")
    post(server, "a", {"output": 1})
    with pytest.raises(ValueError, match="the job a is not one that was taken"):
        server.redeliver("a")


def test_a_job_that_is_tried_again_has_no_result_until_it_is_answered_anew(server: JobServer) -> None:
    server.submit("a", {})
    post(server, "a", {"output": 1})
    server.submit("a", {})
    with pytest.raises(TimeoutError, match="no result of job a"):
        server.result("a", timeout_s=0)
    post(server, "a", {"output": 2})
    assert server.result("a") == {"output": 2}


def test_a_job_is_not_lost_to_a_worker_that_hung_up() -> None:
    with JobServer(hold_s=5) as server:
        with socket.create_connection(("127.0.0.1", server.port)) as worker:
            worker.sendall(b"GET /v2/endpoint/job-take/pod?gpu=none HTTP/1.1\r\nHost: here\r\n\r\n")
            eventually(lambda: server.waiting_workers == 1, "the server hears it")
        eventually(lambda: server.waiting_workers == 0, "the server knows that it is gone")
        server.submit("a", {})
        assert ask(server).json()["id"] == "a"
        assert len(server.taken_at_s["a"]) == 1


def test_a_server_that_is_far_away_answers_later() -> None:
    with JobServer(rtt_s=0.1) as server:
        began_s = time.monotonic()
        assert post(server, "a", {"output": 1}) == 200
        assert time.monotonic() - began_s >= 0.1
        assert server.posts[0].at_s - began_s >= 0.05


def test_a_ping_names_the_jobs_in_progress(server: JobServer) -> None:
    for job_ids in ({}, {"job_id": "a,b"}):
        requests.get(url_of(server, "RUNPOD_WEBHOOK_PING"), params=job_ids, timeout=10)
    assert server.pings == [[], ["a", "b"]]
