"""A RunPod job server on loopback: what the SDK's own job loop talks to on an endpoint.

    with JobServer() as server:
        ...  # start a worker with `os.environ | server.environment()`
        server.submit("job-1", {"workflow_name": "smoke"})
        print(server.result("job-1")["output"])

What a worker sees of RunPod, from the SDK's source (runpod 1.12, serverless/modules/):

- GET job-take answers one job, job-take-batch up to `batch_size` in a list, both 204 when a while has passed without
  one (rp_job.py `get_job`). An immediate 204 makes the SDK spin; 429 makes it wait for 5 s (rp_scale.py `get_jobs`).
- GET job-stop answers `{"jobsToStop": [ids]}`, or 204 (rp_job.py `get_stop_signals`). After a 204 the SDK does not
  listen for a second. A job that was stopped is not answered.
- Results and progress are POSTed to job-done, JSON in a body that calls itself a form; progress says
  `"status": "IN_PROGRESS"` (rp_http.py, rp_progress.py). A result that is answered 400 is logged and lost (rp_http.py
  `_handle_result`); one that is answered 5xx is sent again.
- GET ping names the jobs in progress (rp_ping.py).

RunPod's documentation has the limits of a payload, 10 MB for /run and 20 MB for /runsync
(docs.runpod.io/serverless/endpoints/send-requests), and a job that is tried again keeps its id and loses its result
(the same, `/retry`).
"""

from __future__ import annotations

import asyncio
import json
import threading
import time
from collections.abc import Awaitable, Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self, TypeVar

from aiohttp import web

T = TypeVar("T")

HOLD_S: Final = 1.0
"""How long a question without an answer is held open. RunPod holds for longer."""
RUN_LIMIT: Final = 10_000_000
RUNSYNC_LIMIT: Final = 20_000_000
"""Bytes that RunPod takes for a result."""


@dataclass(frozen=True, slots=True)
class Post:
    """Something that a worker posted about a job: progress, or its result. `at_s` is on the clock of `time.monotonic`;
    `refused` was answered 400."""

    job_id: str
    at_s: float
    body: dict[str, Any]
    size: int
    refused: bool

    @property
    def is_progress(self) -> bool:
        return self.body.get("status") == "IN_PROGRESS"


class JobServer:
    """Jobs go in with `submit`, results come out with `result`. Used with `with`; it runs in a thread of its own, and
    its methods may be called from any other.

    `rtt_s` is how far away it is: half of it passes before a request is seen, half before the answer leaves. `hold_s`
    is how long it holds a question that it has no answer to. A result of more than `max_result_bytes` is refused. All
    three may be changed at any time.
    """

    def __init__(self, *, rtt_s: float = 0.0, hold_s: float = HOLD_S, max_result_bytes: int = RUNSYNC_LIMIT) -> None:
        self.rtt_s = rtt_s
        self.hold_s = hold_s
        self.max_result_bytes = max_result_bytes
        self.port = 0
        self.posts: list[Post] = []
        """Everything that was posted, in the order of its arrival."""
        self.taken_at_s: dict[str, list[float]] = {}
        """When each job was handed to a worker, each time, on the clock of `time.monotonic`."""
        self.results: dict[str, dict[str, Any]] = {}
        self.progress: dict[str, list[Any]] = {}
        self.pings: list[list[str]] = []
        """The ids of the jobs in progress, ping by ping."""
        self._jobs: dict[str, dict[str, Any]] = {}
        self._held: dict[int, web.Request] = {}
        self._busy = 0
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="job-server", daemon=True)
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._stops: asyncio.Queue[str] = asyncio.Queue()
        self._changed = threading.Condition()

    def environment(self) -> dict[str, str]:
        """What RunPod sets in a worker's environment, pointing here. The `$` words are the SDK's to replace."""
        base = f"http://127.0.0.1:{self.port}/v2/endpoint"
        return {
            "RUNPOD_WEBHOOK_GET_JOB": f"{base}/job-take/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_OUTPUT": f"{base}/job-done/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_POST_STREAM": f"{base}/job-stream/$RUNPOD_POD_ID/$ID?gpu=none",
            "RUNPOD_WEBHOOK_PING": f"{base}/ping/$RUNPOD_POD_ID",
            "RUNPOD_POD_ID": "pod",
            "RUNPOD_ENDPOINT_ID": "endpoint",
            "RUNPOD_AI_API_KEY": "key",
            "RUNPOD_SKIP_AUTO_SYSTEM_CHECKS": "true",
            "RUNPOD_SKIP_GPU_CHECK": "true",
        }

    def submit(self, job_id: str, job_input: Mapping[str, Any]) -> None:
        """Queues a job. An id that was used before is tried again: its result is forgotten, as RunPod does."""
        job = {"id": job_id, "input": dict(job_input)}
        with self._changed:
            self._jobs[job_id] = job
            self.results.pop(job_id, None)
        self._loop.call_soon_threadsafe(self._waiting.put_nowait, job)

    def redeliver(self, job_id: str) -> None:
        """Hands out once more a job that was taken and not answered, as if the worker that took it were gone.

        Raises:
            ValueError: when it was not taken, or has been answered.
        """
        with self._changed:
            if job_id not in self.taken_at_s or job_id in self.results:
                raise ValueError(f"the job {job_id} is not one that was taken and never answered")
            job = self._jobs[job_id]
        self._loop.call_soon_threadsafe(self._waiting.put_nowait, job)

    def stop(self, job_id: str) -> None:
        """Tells the worker to stop a job, as a cancellation or RunPod's own timeout does."""
        self._loop.call_soon_threadsafe(self._stops.put_nowait, job_id)

    def be_busy(self, times: int = 1) -> None:
        """Answers 429 to that many questions for a job."""
        self._busy = times

    def result(self, job_id: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """What the SDK posted for the job: `output`, and `error` when it failed."""
        return self.wait_for(lambda: self.results.get(job_id), f"result of job {job_id}", timeout_s)

    def refusal(self, job_id: str, timeout_s: float = 60.0) -> Post:
        """The job's result that was refused."""
        return self.wait_for(
            lambda: next((post for post in self.posts_of(job_id) if post.refused), None),
            f"refused result of job {job_id}",
            timeout_s,
        )

    def wait_for_progress(self, job_id: str, timeout_s: float = 60.0, *, stage: str | None = None) -> Any:
        """The job's latest progress, of the given stage or of any, once there is one."""

        def latest() -> Any:
            said = [one for one in self.progress.get(job_id, []) if stage in (None, one["stage"])]
            return said[-1] if said else None

        return self.wait_for(latest, f"progress of job {job_id} ({stage or 'any stage'})", timeout_s)

    def wait_until_taken(self, job_id: str, times: int = 1, timeout_s: float = 60.0) -> float:
        """When the job was handed to a worker, the first time or a later one."""

        def taken() -> float | None:
            at_s = self.taken_at_s.get(job_id, [])
            return at_s[times - 1] if len(at_s) >= times else None

        return self.wait_for(taken, f"taker of job {job_id}", timeout_s)

    def wait_for(self, look: Callable[[], T | None], what: str, timeout_s: float = 60.0) -> T:
        """What `look` returns once that is not None. It is called whenever something has arrived or left.

        Raises:
            TimeoutError: which names `what`.
        """
        until_s = time.monotonic() + timeout_s
        with self._changed:
            while (found := look()) is None:
                if not self._changed.wait(max(0.0, until_s - time.monotonic())) and look() is None:
                    raise TimeoutError(f"no {what} in {timeout_s} s")
        return found

    def posts_of(self, job_id: str) -> list[Post]:
        """What was posted about the job, in the order of its arrival."""
        with self._changed:
            return [post for post in self.posts if post.job_id == job_id]

    def after_result(self, job_id: str) -> list[Post]:
        """What was posted about the job after its first result: nothing should be."""
        posts = self.posts_of(job_id)
        first = next((place for place, post in enumerate(posts) if not post.is_progress), len(posts))
        return posts[first + 1 :]

    @property
    def waiting_workers(self) -> int:
        """How many questions for a job are held open."""
        return sum(not _hung_up(request) for request in tuple(self._held.values()))

    def __enter__(self) -> Self:
        self._thread.start()
        self._runner = web.AppRunner(self._app(), access_log=None, shutdown_timeout=0.1)
        asyncio.run_coroutine_threadsafe(self._start(), self._loop).result(10)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        asyncio.run_coroutine_threadsafe(self._end(), self._loop).result(10)
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join()
        self._loop.close()

    async def _start(self) -> None:
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0)
        await site.start()
        self.port = self._runner.addresses[0][1]

    async def _end(self) -> None:
        await self._runner.cleanup()
        left = asyncio.all_tasks() - {asyncio.current_task()}
        for task in left:
            task.cancel()
        await asyncio.gather(*left, return_exceptions=True)

    def _app(self) -> web.Application:
        app = web.Application(client_max_size=2 * RUNSYNC_LIMIT, middlewares=[self._at_a_distance])
        app.router.add_get("/v2/endpoint/job-take/{worker}", self._take)
        app.router.add_get("/v2/endpoint/job-take-batch/{worker}", self._take_batch)
        app.router.add_get("/v2/endpoint/job-stop/{worker}", self._take_stops)
        app.router.add_post("/v2/endpoint/job-done/{worker}/{job}", self._done)
        app.router.add_get("/v2/endpoint/ping/{worker}", self._ping)
        return app

    @web.middleware
    async def _at_a_distance(
        self, request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]
    ) -> web.StreamResponse:
        await asyncio.sleep(self.rtt_s / 2)
        response = await handler(request)
        await asyncio.sleep(self.rtt_s / 2)
        return response

    async def _take(self, request: web.Request) -> web.Response:
        if self._turns_away():
            return web.Response(status=429)
        jobs = await self._jobs_for(request, 1)
        return web.json_response(jobs[0]) if jobs else web.Response(status=204)

    async def _take_batch(self, request: web.Request) -> web.Response:
        if self._turns_away():
            return web.Response(status=429)
        jobs = await self._jobs_for(request, int(request.query["batch_size"]))
        return web.json_response(jobs) if jobs else web.Response(status=204)

    def _turns_away(self) -> bool:
        if self._busy <= 0:
            return False
        self._busy -= 1
        return True

    async def _jobs_for(self, request: web.Request, most: int) -> list[dict[str, Any]]:
        """Jobs for the worker that asks; those of a worker that hung up meanwhile wait for another."""
        self._held[id(request)] = request
        try:
            jobs = [await asyncio.wait_for(self._waiting.get(), self.hold_s)]
        except TimeoutError:
            return []
        finally:
            del self._held[id(request)]
        while len(jobs) < most and not self._waiting.empty():
            jobs.append(self._waiting.get_nowait())
        if _hung_up(request):
            for job in jobs:
                self._waiting.put_nowait(job)
            return []
        with self._changed:
            for job in jobs:
                self.taken_at_s.setdefault(job["id"], []).append(time.monotonic())
            self._changed.notify_all()
        return jobs

    async def _take_stops(self, _request: web.Request) -> web.Response:
        try:
            return web.json_response({"jobsToStop": [await asyncio.wait_for(self._stops.get(), self.hold_s)]})
        except TimeoutError:
            return web.Response(status=204)

    async def _done(self, request: web.Request) -> web.Response:
        text = await request.read()
        said, job_id = json.loads(text), request.match_info["job"]
        refused = len(text) > self.max_result_bytes and said.get("status") != "IN_PROGRESS"
        post = Post(job_id, time.monotonic(), said, len(text), refused)
        with self._changed:
            self.posts.append(post)
            if post.is_progress:
                self.progress.setdefault(job_id, []).append(said["output"])
            elif not refused:
                self.results[job_id] = said
            self._changed.notify_all()
        return web.json_response({}, status=400 if refused else 200)

    async def _ping(self, request: web.Request) -> web.Response:
        with self._changed:
            self.pings.append([job_id for job_id in request.query.get("job_id", "").split(",") if job_id])
            self._changed.notify_all()
        return web.json_response({})


def _hung_up(request: web.Request) -> bool:
    return request.transport is None or request.transport.is_closing()
