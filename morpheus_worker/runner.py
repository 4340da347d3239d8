"""Runs jobs for the RunPod SDK: asynchronous towards it, one thread a job underneath.

A synchronous handler would block the SDK's event loop, and with it cancellation and the fetching of the next job. A
cancelled or timed-out job arrives here as `asyncio.CancelledError`; the thread is told, cleans up, and only then is the
cancellation passed on.
"""

from __future__ import annotations

import asyncio
import contextvars
import logging
import threading
import time
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from types import TracebackType
from typing import Any, Final, Self

from morpheus_worker.deadlines import Clock
from morpheus_worker.jobs import Progress
from morpheus_worker.pipeline import Worker, run_job

log = logging.getLogger(__name__)

PROGRESS_EVERY_S: Final = 1.0
"""The SDK opens a thread and a session for each progress update."""


class JobRunner:
    """The handler. Leaving its block cancels what still runs and waits for it.

    `sends_progress` only where the SDK has a job server to send it to: elsewhere it would log a failed request each.
    """

    def __init__(self, worker: Worker, *, concurrency: int, sends_progress: bool) -> None:
        self._worker = worker
        self._sends_progress = sends_progress
        self._threads = ThreadPoolExecutor(concurrency, thread_name_prefix="job")
        self._running: set[threading.Event] = set()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, traceback: TracebackType | None
    ) -> None:
        for cancelled in tuple(self._running):
            cancelled.set()
        self._threads.shutdown(wait=True)

    async def handle(self, job: dict[str, Any]) -> dict[str, Any]:
        """Runs one job to its result, or its failure, as the SDK takes it.

        Raises:
            asyncio.CancelledError: after a cancelled job has stopped at ComfyUI and cleaned up.
        """
        cancelled = threading.Event()
        self._running.add(cancelled)
        report = Throttled(_reporter(job)) if self._sends_progress else lambda _progress: None
        context = contextvars.copy_context()
        running = asyncio.get_running_loop().run_in_executor(
            self._threads, lambda: context.run(run_job, job, self._worker, cancelled=cancelled, on_progress=report)
        )
        try:
            return self._asking_for_another_worker(await asyncio.shield(running))
        except asyncio.CancelledError:
            cancelled.set()
            await asyncio.wait([running])
            raise
        finally:
            self._running.discard(cancelled)

    def _asking_for_another_worker(self, answer: dict[str, Any]) -> dict[str, Any]:
        """A worker whose ComfyUI is gone, or stuck, would take every job and fail it; RunPod is told to replace it."""
        if (trouble := self._worker.comfy.trouble()) is None:
            return answer
        log.error("ComfyUI cannot go on (%s): asking RunPod for another worker", trouble)
        return answer | {"refresh_worker": True}


class Throttled:
    """Passes on the latest progress at most once in `every_s` seconds, and none of the last stage, which is short."""

    def __init__(
        self, send: Callable[[Progress], None], *, every_s: float = PROGRESS_EVERY_S, clock: Clock = time.monotonic
    ) -> None:
        self._send = send
        self._every_s = every_s
        self._clock = clock
        self._next_s = clock()

    def __call__(self, progress: Progress) -> None:
        now_s = self._clock()
        if now_s < self._next_s or progress.stage == "publishing":
            return
        self._next_s = now_s + self._every_s
        try:
            self._send(progress)
        except (RuntimeError, OSError) as failure:
            # The SDK opens a thread for each; a job must not fail because its progress cannot be told.
            log.warning("progress was not sent: %s", failure)


def _reporter(job: Mapping[str, Any]) -> Callable[[Progress], None]:
    import runpod

    return lambda progress: runpod.serverless.progress_update(job, progress.wire())
