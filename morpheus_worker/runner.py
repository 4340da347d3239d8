"""Runs jobs for the RunPod SDK: asynchronous towards it, one thread a job underneath.

A synchronous handler would block the SDK's event loop, and with it cancellation and the fetching of the next job. A
cancelled or timed-out job arrives here as `asyncio.CancelledError`; the thread is told, cleans up, and only then is the
cancellation passed on.
"""

from __future__ import annotations

import asyncio
import contextlib
import contextvars
import logging
import threading
from collections.abc import AsyncIterator, Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Self

from morpheus_worker.jobs import Progress
from morpheus_worker.pipeline import Worker, run_job
from morpheus_worker.reporting import Line, Reporter

log = logging.getLogger(__name__)


class JobRunner:
    """The handler. Leaving its block cancels what still runs and waits for it.

    `progress_line` is the way to tell progress, where there is a job server to tell it to.

    The SDK's job loop hands over `concurrency` jobs at most. Its local API (`--rp_serve_api`) hands over all that come;
    those beyond `concurrency` wait here as they would in RunPod's queue: a job's deadline counts from when it begins.
    """

    def __init__(self, worker: Worker, *, concurrency: int, progress_line: Line | None = None) -> None:
        self._worker = worker
        self._progress_line = progress_line
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="job")
        self._running: set[threading.Event] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for cancelled in tuple(self._running):
            cancelled.set()
        self._threads.shutdown(wait=True, cancel_futures=True)

    async def handle(self, job: dict[str, Any]) -> dict[str, Any]:
        """Runs one job to its result, or its failure, as the SDK takes it. No progress of it is sent afterwards.

        Raises:
            asyncio.CancelledError: after a cancelled job has stopped at ComfyUI and cleaned up.
        """
        async with self._reporting(job) as tell:
            answer = await self._run(job, tell)
        return self._asking_for_another_worker(answer)

    @contextlib.asynccontextmanager
    async def _reporting(self, job: Mapping[str, Any]) -> AsyncIterator[Callable[[Progress], None]]:
        if self._progress_line is None:
            yield lambda _progress: None
            return
        async with Reporter(self._progress_line, job) as reporter:
            yield reporter.tell

    async def _run(self, job: dict[str, Any], tell: Callable[[Progress], None]) -> dict[str, Any]:
        cancelled = threading.Event()
        self._running.add(cancelled)
        context = contextvars.copy_context()
        begun = self._threads.submit(context.run, run_job, job, self._worker, cancelled=cancelled, on_progress=tell)
        ended = asyncio.wrap_future(begun)
        try:
            return await asyncio.shield(ended)
        except asyncio.CancelledError:
            cancelled.set()
            if not begun.cancel():
                await _outlast(ended)
            raise
        finally:
            self._running.discard(cancelled)

    def _asking_for_another_worker(self, answer: dict[str, Any]) -> dict[str, Any]:
        """A worker whose ComfyUI is gone, or stuck, would take every job and fail it; RunPod is told to replace it."""
        if (trouble := self._worker.comfy.trouble()) is None:
            return answer
        log.error("ComfyUI cannot go on (%s): asking RunPod for another worker", trouble)
        return answer | {"refresh_worker": True}


async def _outlast(ended: asyncio.Future[Any]) -> None:
    """Waits for a job that was told to stop, even when its task is cancelled once more meanwhile."""
    while not ended.done():
        with contextlib.suppress(asyncio.CancelledError):
            await asyncio.wait([ended])
