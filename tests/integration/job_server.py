"""A RunPod job server on loopback: what the SDK's own job loop talks to on an endpoint.

Facts, from the SDK's source (runpod 1.12, serverless/modules/rp_job.py, rp_http.py, rp_scale.py): GET job-take answers
a job or, after a hold, 204; job-stop `{"jobsToStop": [ids]}`; results and progress are POSTed to job-done, with JSON in
a body that calls itself a form.
"""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import Mapping
from types import TracebackType
from typing import Any, Final, Self

from aiohttp import web

HOLD_S: Final = 1.0
"""How long an empty queue is held open. RunPod's own holds for longer; an immediate 204 makes the SDK spin."""


class JobServer:
    """Jobs go in with `submit`, results come out with `result`. Used with `with`; it runs in a thread of its own."""

    def __init__(self) -> None:
        self._loop = asyncio.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="job-server", daemon=True)
        self._waiting: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._stops: asyncio.Queue[str] = asyncio.Queue()
        self._arrived = threading.Condition()
        self.results: dict[str, dict[str, Any]] = {}
        self.progress: dict[str, list[Any]] = {}
        self.port = 0

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
        job = {"id": job_id, "input": dict(job_input)}
        self._loop.call_soon_threadsafe(self._waiting.put_nowait, job)

    def stop(self, job_id: str) -> None:
        """Tells the worker to stop a job, as a cancellation or RunPod's own timeout does."""
        self._loop.call_soon_threadsafe(self._stops.put_nowait, job_id)

    def result(self, job_id: str, timeout_s: float = 60.0) -> dict[str, Any]:
        """What the SDK posted for the job: `output`, and `error` when it failed."""
        with self._arrived:
            if not self._arrived.wait_for(lambda: job_id in self.results, timeout_s):
                raise TimeoutError(f"no result of job {job_id} in {timeout_s} s")
            return self.results[job_id]

    def wait_for_progress(self, job_id: str, timeout_s: float = 60.0) -> Any:
        with self._arrived:
            if not self._arrived.wait_for(lambda: job_id in self.progress, timeout_s):
                raise TimeoutError(f"no progress of job {job_id} in {timeout_s} s")
            return self.progress[job_id][-1]

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
        app = web.Application(client_max_size=64 * 1024**2)
        app.router.add_get("/v2/endpoint/job-take/{worker}", self._take)
        app.router.add_get("/v2/endpoint/job-take-batch/{worker}", self._take_batch)
        app.router.add_get("/v2/endpoint/job-stop/{worker}", self._take_stops)
        app.router.add_post("/v2/endpoint/job-done/{worker}/{job}", self._done)
        app.router.add_get("/v2/endpoint/ping/{worker}", self._ping)
        return app

    async def _take(self, _request: web.Request) -> web.Response:
        try:
            return web.json_response(await asyncio.wait_for(self._waiting.get(), HOLD_S))
        except TimeoutError:
            return web.Response(status=204)

    async def _take_batch(self, request: web.Request) -> web.Response:
        try:
            jobs = [await asyncio.wait_for(self._waiting.get(), HOLD_S)]
        except TimeoutError:
            return web.Response(status=204)
        while len(jobs) < int(request.query["batch_size"]) and not self._waiting.empty():
            jobs.append(self._waiting.get_nowait())
        return web.json_response(jobs)

    async def _take_stops(self, _request: web.Request) -> web.Response:
        try:
            return web.json_response({"jobsToStop": [await asyncio.wait_for(self._stops.get(), HOLD_S)]})
        except TimeoutError:
            return web.Response(status=204)

    async def _done(self, request: web.Request) -> web.Response:
        said = json.loads(await request.read())
        job_id = request.match_info["job"]
        with self._arrived:
            if said.get("status") == "IN_PROGRESS":
                self.progress.setdefault(job_id, []).append(said["output"])
            else:
                self.results[job_id] = said
            self._arrived.notify_all()
        return web.json_response({})

    async def _ping(self, _request: web.Request) -> web.Response:
        return web.json_response({})
