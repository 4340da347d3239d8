"""One job, from what RunPod hands over to what it gets back."""

from __future__ import annotations

import logging
import threading
import time
import uuid
from collections.abc import Callable, Mapping
from typing import Any

from morpheus_worker.comfy.client import Finished, Order
from morpheus_worker.comfy.history import Reported, reported
from morpheus_worker.comfy.isolation import isolate
from morpheus_worker.deadlines import Deadline
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import (
    JobFailure,
    JobRequest,
    JobResult,
    OutputFile,
    Progress,
    Timings,
    checked_job_id,
    parse_request,
)
from morpheus_worker.logs import job_context
from morpheus_worker.media import Limits, Stage, staged
from morpheus_worker.preparing import Prepared, Worker, prepare
from morpheus_worker.publishing import JobFolder, as_output, job_folder

log = logging.getLogger(__name__)

__all__ = ["Worker", "run_job"]


def run_job(
    job: Mapping[str, Any],
    worker: Worker,
    *,
    cancelled: threading.Event | None = None,
    on_progress: Callable[[Progress], None] = lambda _progress: None,
) -> dict[str, Any]:
    """Runs one job and returns its result or its failure, as JSON values. It never raises, whatever the job.

    `cancelled` stops it from another thread; `on_progress` is called from this one.
    """
    trace_id = uuid.uuid4().hex
    job_id: str | None = None
    try:
        job_id = checked_job_id(job.get("id"))
        with job_context(job_id, trace_id):
            request = parse_request(job_id, job.get("input"))
            return _run(request, trace_id, worker, cancelled or threading.Event(), on_progress)
    except MorpheusError as failure:
        with job_context(job_id or "?", trace_id):
            log.warning("failed: %s", failure.message, extra={"code": failure.code})
        return JobFailure.of(failure, job_id=job_id, trace_id=trace_id).wire()
    except Exception:
        with job_context(job_id or "?", trace_id):
            log.exception("failed in a way nobody foresaw")
        surprise = MorpheusError(Code.INTERNAL, f"The worker failed; its log has the reason under trace id {trace_id}")
        return JobFailure.of(surprise, job_id=job_id, trace_id=trace_id).wire()


def _run(
    request: JobRequest,
    trace_id: str,
    worker: Worker,
    cancelled: threading.Event,
    on_progress: Callable[[Progress], None],
) -> dict[str, Any]:
    watch = _StopWatch()
    token = f"morpheus-{trace_id[:12]}"
    settings = worker.settings
    limits = Limits(settings.max_input_bytes, settings.max_image_pixels)
    with (
        job_folder(settings.volume_root, request.job_id) as folder,
        staged(Stage(token, worker.files, settings.volume_root, limits)) as stage,
    ):
        on_progress(Progress(stage="staging"))
        prepared = prepare(request, worker, stage)
        deadline = Deadline.after(request.timeout_s or prepared.timeout_s or settings.job_timeout_s)
        staging_s = watch.lap_s()
        try:
            finished = _execute(prepared, token, request, worker, deadline, cancelled, on_progress)
            watch.lap_s()
            on_progress(Progress(stage="publishing", percent=100.0))
            outputs, warnings = _publish(finished, request, worker, folder)
            _check_cancelled(cancelled)
        finally:
            worker.files.discard(token)
        timings = Timings(
            staging_s=round(staging_s, 4),
            queued_s=round(finished.queued_s, 4),
            executing_s=round(finished.executing_s, 4),
            publishing_s=round(watch.lap_s(), 4),
            total_s=round(watch.total_s(), 4),
        )
        result = _result(request, trace_id, prepared, outputs, timings, [*finished.warnings, *warnings])
        folder.complete(result)
    log.info("done: %d outputs in %.2f s", len(outputs), timings.total_s, extra={"timings": timings.model_dump()})
    return result


def _execute(
    prepared: Prepared,
    token: str,
    request: JobRequest,
    worker: Worker,
    deadline: Deadline,
    cancelled: threading.Event,
    on_progress: Callable[[Progress], None],
) -> Finished:
    key = request.comfy_org_api_key
    return worker.comfy.run(
        Order(
            graph=isolate(prepared.graph, token, worker.comfy.object_info),
            deadline=deadline,
            cancelled=cancelled,
            where=prepared.where,
            on_progress=on_progress,
            extra_data={"api_key_comfy_org": key.get_secret_value()} if key else {},
        )
    )


def _check_cancelled(cancelled: threading.Event) -> None:
    """The last moment at which a cancelled job leaves nothing: with its record, it is complete."""
    if cancelled.is_set():
        raise MorpheusError(Code.CANCELLED, "The job was cancelled")


def _publish(
    finished: Finished, request: JobRequest, worker: Worker, folder: JobFolder
) -> tuple[list[OutputFile], list[str]]:
    made = reported(finished.entry.outputs)
    if not made and request.graph is None:
        said = f"The workflow '{request.workflow_name}' ran, but none of its nodes produced an output"
        raise MorpheusError(Code.NO_OUTPUT, said)
    outputs = folder.publish(made.files, worker.files) + [as_output(text) for text in made.texts]
    return outputs, _notes(made)


def _notes(made: Reported) -> list[str]:
    if made.files and all(ref.folder == "temp" for ref in made.files):
        return ["the workflow saves nothing: its previews were published"]
    return []


def _result(
    request: JobRequest,
    trace_id: str,
    prepared: Prepared,
    outputs: list[OutputFile],
    timings: Timings,
    warnings: list[str],
) -> dict[str, Any]:
    return JobResult(
        status="success" if outputs else "success_no_images",
        job_id=request.job_id,
        trace_id=trace_id,
        workflow_name=prepared.workflow_name,
        outputs=outputs,
        params=dict(prepared.params),
        timings=timings,
        warnings=[*prepared.warnings, *warnings],
        image_pod_path=_first_path(outputs, "image"),
        video_pod_path=_first_path(outputs, "video"),
    ).wire()


def _first_path(outputs: list[OutputFile], kind: str) -> str | None:
    return next((output.path for output in outputs if output.kind == kind and output.path), None)


class _StopWatch:
    def __init__(self) -> None:
        self._begun_s = self._lap_began_s = time.monotonic()

    def lap_s(self) -> float:
        now_s = time.monotonic()
        lap_s, self._lap_began_s = now_s - self._lap_began_s, now_s
        return lap_s

    def total_s(self) -> float:
        return time.monotonic() - self._begun_s
