"""A job's progress on its way to RunPod: in order, one at a time, at most once a second, and none after the result.

The SDK's own `progress_update` starts a thread with an event loop and a session for every call (runpod 1.12,
rp_progress.py), and nothing orders those threads: a late one arrives after the result. Here one task of the SDK's own
event loop sends all progress of a job, and has ended when the job's result is handed over.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections import deque
from collections.abc import AsyncIterator, Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager
from dataclasses import dataclass
from types import TracebackType
from typing import Any, Final, Self

from morpheus_worker.jobs import Progress

log = logging.getLogger(__name__)

FIRST_AFTER_S: Final = 0.25
"""A job that is over sooner reports nothing: its result would only have to wait for it."""
EVERY_S: Final = 1.0
GIVE_UP_S: Final = 5.0
"""One progress is given up after this long: the SDK tries thrice with growing waits, and the next one says more."""
LAST_WAIT_S: Final = 1.0
"""How long the result waits for progress that is under way when the job ends. A request that was cut off instead may
still be read by the server, after the result."""

Send = Callable[[Progress], Awaitable[None]]
Line = Callable[[Mapping[str, Any]], AbstractAsyncContextManager[Send]]
"""Opens the way on which the progress of a job is sent."""


@dataclass(frozen=True, slots=True)
class Pace:
    """When progress is sent, and how long anything waits for it, in seconds."""

    first_after_s: float = FIRST_AFTER_S
    every_s: float = EVERY_S
    give_up_s: float = GIVE_UP_S
    last_wait_s: float = LAST_WAIT_S


@contextlib.asynccontextmanager
async def to_runpod(job: Mapping[str, Any]) -> AsyncIterator[Send]:
    """Posts as the SDK's `progress_update` does, over one session for the whole job. The SDK logs what is refused."""
    from runpod.http_client import AsyncClientSession
    from runpod.serverless.modules.rp_http import send_result

    async with AsyncClientSession() as session:

        async def send(progress: Progress) -> None:
            await send_result(session, {"status": "IN_PROGRESS", "output": progress.wire()}, job)

        yield send


class Reporter:
    """Sends a job's progress while its block lasts. What comes faster than it may go out is replaced by the newest;
    the last before a pause is sent when the second is over. Once the block is left nothing is sent any more.

    Progress that cannot be sent is given up; it never fails the job. That of the last stage, `publishing`, waits for a
    whole second first: most jobs are over by then, and their results need not wait for it.
    """

    def __init__(self, line: Line, job: Mapping[str, Any], *, pace: Pace | None = None) -> None:
        self._line = line
        self._job = job
        self._job_id = {"job_id": job.get("id")}
        self._pace = pace or Pace()
        self._loop = asyncio.get_running_loop()
        self._next_s = self._loop.time() + self._pace.first_after_s
        self._newest = deque[Progress](maxlen=1)
        self._news = asyncio.Event()
        self._publishing = False
        self._under_way = False
        self._closed = False

    def tell(self, progress: Progress) -> None:
        """Takes note of how far the job is. May be called from any thread, and returns at once."""
        self._newest.append(progress)
        if not self._news.is_set():
            # The loop may have ended before the job's thread has: the worker is going down.
            with contextlib.suppress(RuntimeError):
                self._loop.call_soon_threadsafe(self._news.set)

    async def __aenter__(self) -> Self:
        self._sending = asyncio.create_task(self._send_all())
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._closed = True
        try:
            if self._under_way:
                await asyncio.wait([self._sending], timeout=self._pace.last_wait_s)
        finally:
            self._sending.cancel()
            await asyncio.wait([self._sending])
            self._say_why_it_ended()

    async def _send_all(self) -> None:
        progress = await self._due()
        async with self._line(self._job) as send:
            while True:
                await self._send_one(send, progress)
                if self._closed:
                    return
                progress = await self._due()

    async def _due(self) -> Progress:
        """Waits until there is progress and it may be sent; then takes the newest."""
        while True:
            await self._news.wait()
            await asyncio.sleep(self._next_s - self._loop.time())
            if self._holds_back():
                continue
            self._news.clear()
            if self._newest:
                return self._newest.pop()

    def _holds_back(self) -> bool:
        """Whether the job has just begun to publish: then nothing is sent for a while."""
        if self._publishing or not self._newest or self._newest[0].stage != "publishing":
            return False
        self._publishing = True
        self._next_s = self._loop.time() + self._pace.every_s
        return True

    async def _send_one(self, send: Send, progress: Progress) -> None:
        self._next_s = self._loop.time() + self._pace.every_s
        self._under_way = True
        try:
            async with asyncio.timeout(self._pace.give_up_s):
                await send(progress)
        except (OSError, RuntimeError, ValueError) as failure:
            log.warning("progress was not sent: %s", str(failure) or "no answer in time", extra=self._job_id)
        finally:
            self._under_way = False

    def _say_why_it_ended(self) -> None:
        if not self._sending.cancelled() and (failure := self._sending.exception()) is not None:
            log.warning("progress could not be sent", exc_info=failure, extra=self._job_id)
