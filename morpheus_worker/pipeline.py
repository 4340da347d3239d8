"""One job, from what RunPod hands over to what it gets back."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from morpheus_worker.comfy.client import Finished, Order
from morpheus_worker.comfy.history import FileRef, Reported, reported
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
from morpheus_worker.publishing import JobFolder, job_folder

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
            return _run(_Job(request, trace_id, worker, cancelled or threading.Event(), on_progress))
    except MorpheusError as failure:
        with job_context(job_id or "?", trace_id):
            log.warning("failed: %s", failure.message, extra={"code": failure.code})
        return JobFailure.of(failure, job_id=job_id, trace_id=trace_id).wire()
    except Exception:
        # The last line of defence: one job's surprise must not reach the next.
        with job_context(job_id or "?", trace_id):
            log.exception("failed in a way nobody foresaw")
        surprise = MorpheusError(Code.INTERNAL, f"The worker failed; its log has the reason under trace id {trace_id}")
        return JobFailure.of(surprise, job_id=job_id, trace_id=trace_id).wire()


@dataclass(frozen=True, slots=True)
class _Job:
    """One job under way. `token` begins the name of everything that it places at ComfyUI."""

    request: JobRequest
    trace_id: str
    worker: Worker
    cancelled: threading.Event
    on_progress: Callable[[Progress], None]
    began_s: float = field(default_factory=time.monotonic)

    @property
    def token(self) -> str:
        return f"morpheus-{self.trace_id[:12]}"

    def deadline(self, prepared: Prepared) -> Deadline:
        """From the job's receipt, by its own wish, else the workflow's, else the worker's."""
        asked_s = self.request.timeout_s or prepared.timeout_s or self.worker.settings.job_timeout_s
        return Deadline(self.began_s + asked_s)


def _run(job: _Job) -> dict[str, Any]:
    settings = job.worker.settings
    limits = Limits(settings.max_input_bytes, settings.max_image_pixels)
    with (
        job_folder(settings.volume_root, job.request.job_id) as folder,
        staged(Stage(job.token, job.worker.files, settings.volume_root, limits)) as stage,
    ):
        job.on_progress(Progress(stage="staging"))
        prepared = prepare(job.request, job.worker, stage)
        staged_at_s = time.monotonic()
        with _discarded(job) as leftovers:
            finished = _execute(job, prepared, leftovers)
            executed_at_s = time.monotonic()
            made = reported(finished.entry.outputs)
            leftovers.extend((*made.files, *made.unused))
            outputs = _publish(job, made, folder)
        published_at_s = time.monotonic()
        timings = Timings(
            staging_s=round(staged_at_s - job.began_s, 4),
            queued_s=round(finished.queued_s, 4),
            executing_s=round(finished.executing_s, 4),
            publishing_s=round(published_at_s - executed_at_s, 4),
            total_s=round(published_at_s - job.began_s, 4),
        )
        result = _result(job, prepared, outputs, timings, [*finished.warnings, *_notes(made)])
        folder.complete(result)
    log.info("done: %d outputs in %.2f s", len(outputs), timings.total_s, extra={"timings": timings.model_dump()})
    return result


@contextlib.contextmanager
def _discarded(job: _Job) -> Iterator[list[FileRef]]:
    """However the block ends, nothing that the prompt made stays at ComfyUI: its folder, and the files listed."""
    leftovers: list[FileRef] = []
    try:
        yield leftovers
    finally:
        job.worker.files.discard(job.token, leftovers)


def _execute(job: _Job, prepared: Prepared, leftovers: list[FileRef]) -> Finished:
    """Runs the prompt. What its nodes report is added to `leftovers` at once: a prompt that fails has no other list."""
    comfy, key = job.worker.comfy, job.request.comfy_org_api_key

    def note(node_id: str, output: Mapping[str, Any]) -> None:
        made = reported({node_id: output})
        leftovers.extend((*made.files, *made.unused))

    return comfy.run(
        Order(
            graph=isolate(prepared.graph, job.token, comfy.object_info),
            deadline=job.deadline(prepared),
            cancelled=job.cancelled,
            where=prepared.where,
            on_progress=job.on_progress,
            on_output=note,
            extra_data={"api_key_comfy_org": key.get_secret_value()} if key else {},
        )
    )


def _publish(job: _Job, made: Reported, folder: JobFolder) -> list[OutputFile]:
    """Publishes what was made. After this a cancellation comes too late: with its record, the job is complete."""
    if not made and job.request.graph is None:
        said = f"The workflow '{job.request.workflow_name}' ran, but none of its nodes produced an output"
        raise MorpheusError(Code.NO_OUTPUT, said)
    job.on_progress(Progress(stage="publishing", percent=100.0))
    outputs = folder.publish(made.files, job.worker.files) + [folder.publish_text(text) for text in made.texts]
    if job.cancelled.is_set():
        raise MorpheusError(Code.CANCELLED, "The job was cancelled")
    return outputs


def _notes(made: Reported) -> list[str]:
    if made.files and all(ref.folder == "temp" for ref in made.files):
        return ["the workflow saves nothing: its previews were published"]
    return []


def _result(
    job: _Job, prepared: Prepared, outputs: list[OutputFile], timings: Timings, warnings: list[str]
) -> dict[str, Any]:
    return JobResult(
        status="success" if outputs else "success_no_images",
        job_id=job.request.job_id,
        trace_id=job.trace_id,
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
