"""One job, from what RunPod hands over to what it gets back."""

from __future__ import annotations

import contextlib
import logging
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from morpheus_worker.comfy.client import Finished, Order
from morpheus_worker.comfy.files import RemoteFiles
from morpheus_worker.comfy.history import FileRef, Reported, reported
from morpheus_worker.comfy.isolation import isolate
from morpheus_worker.comfy.unreported import guesses, with_unreported
from morpheus_worker.deadlines import Allowance, Deadline
from morpheus_worker.delivering import Delivered, Delivery, delivery, largest_result, plan_of
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
from morpheus_worker.media import Limits, Sources, Stage, staged
from morpheus_worker.preparing import Prepared, Worker, advised, prepare, timeout_of
from morpheus_worker.publishing import job_folder, refuse_too_large
from morpheus_worker.saving import saves

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
    began_s, trace_id = time.monotonic(), uuid.uuid4().hex
    job_id: str | None = None
    try:
        job_id = checked_job_id(job.get("id"))
        with job_context(job_id, trace_id):
            request = parse_request(job_id, job.get("input"))
            allowance = Allowance(Deadline(began_s + timeout_of(request, worker)), cancelled or threading.Event())
            return _replayed_or_run(_Job(request, trace_id, worker, allowance, on_progress, began_s))
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
    allowance: Allowance
    on_progress: Callable[[Progress], None]
    began_s: float

    @property
    def token(self) -> str:
        return f"morpheus-{self.trace_id[:12]}"

    def new_stage(self) -> Stage:
        settings = self.worker.settings
        sources = Sources(self.worker.private_hosts, settings.media_timeout_s, self.worker.s3)
        limits = Limits(settings.max_input_bytes, settings.max_image_pixels)
        kept = (settings.cache_dir,)
        return Stage(self.token, self.worker.files, settings.volume_root, limits, sources, self.allowance, kept)


def _replayed_or_run(job: _Job) -> dict[str, Any]:
    """The stored result of an earlier delivery; without one, the job runs, and its result is stored."""
    replays = job.worker.replays
    with replays.one_at_a_time(job.request, lambda wait_s: job.allowance.wait(wait_s, "waiting for its twin")):
        if (stored := replays.find(job.request, job.allowance)) is not None:
            refuse_too_large(stored, largest_result(job.request.job_id, job.worker.settings))
            return stored
        result, record = _run(job)
        replays.remember(job.request, record)
        return result


def _run(job: _Job) -> tuple[dict[str, Any], Path]:
    """Runs the job; its result, and where that is recorded."""
    settings, s3 = job.worker.settings, job.worker.s3
    plan = plan_of(job.request, settings, s3)
    with (
        job_folder(settings.volume_root, job.request.job_id, job.allowance) as folder,
        delivery(plan, folder, job.worker.files, s3, largest_result(job.request.job_id, settings)) as delivered_by,
        staged(job.new_stage()) as stage,
        contextlib.ExitStack() as gathered,
    ):
        job.on_progress(Progress(stage="staging"))
        prepared = prepare(job.request, job.worker, stage)
        staged_at_s = time.monotonic()
        graph = isolate(prepared.graph, job.token, job.worker.comfy.habits)
        saved_to = gathered.enter_context(saves(prepared.saves, job.allowance))
        with _discarded(job) as leftovers:
            finished = _execute(job, prepared, graph, leftovers, delivered_by)
            executed_at_s = time.monotonic()
            made = _made(job, graph, finished.entry.outputs)
            leftovers.extend((*made.files, *made.unused))
            if not (made or (job.request.graph and any(finished.entry.outputs.values()))):
                raise _no_output(job.request, unseen=isinstance(job.worker.files, RemoteFiles))
            job.on_progress(Progress(stage="publishing", percent=100.0))
            delivered = delivered_by.deliver(made)
            saved_to.stage(delivered.outputs, made.files, job.worker.files)
        published_at_s = time.monotonic()
        timings = Timings(
            staging_s=round(staged_at_s - job.began_s, 4),
            queued_s=round(finished.queued_s, 4),
            executing_s=round(finished.executing_s, 4),
            publishing_s=round(published_at_s - executed_at_s, 4),
            total_s=round(published_at_s - job.began_s, 4),
        )
        result = _result(job, prepared, delivered, timings, [*finished.warnings, *_notes(made)])
        if prepared.saves:
            refuse_too_large(result, largest_result(job.request.job_id, settings))
        saved_to.commit()
        record = delivered_by.complete(result)
    log.info(
        "done: %d outputs in %.2f s", len(delivered.outputs), timings.total_s, extra={"timings": timings.model_dump()}
    )
    return result, record


@contextlib.contextmanager
def _discarded(job: _Job) -> Iterator[list[FileRef]]:
    """However the block ends, nothing that the prompt made stays at ComfyUI: its folder, and the files listed."""
    leftovers: list[FileRef] = []
    try:
        yield leftovers
    finally:
        job.worker.files.discard(job.token, leftovers)


def _made(job: _Job, graph: Mapping[str, Any], outputs: Mapping[str, Any]) -> Reported:
    """Everything that the prompt has to show, also what its nodes saved without a word."""
    found = job.worker.files.made(job.token, guesses(graph, outputs))
    return with_unreported(reported(_in_order(outputs, graph)), graph, outputs, found)


def _execute(
    job: _Job, prepared: Prepared, graph: Mapping[str, Any], leftovers: list[FileRef], delivered_by: Delivery
) -> Finished:
    """Runs the prompt. What its nodes report is added to `leftovers` at once: a prompt that fails has no other list."""
    comfy, key = job.worker.comfy, job.request.comfy_org_api_key or job.worker.settings.comfy_org_api_key
    outputs: dict[str, Mapping[str, Any]] = {}

    def note(node_id: str, output: Mapping[str, Any]) -> None:
        outputs[node_id] = output
        made = reported({node_id: output})
        leftovers.extend((*made.files, *made.unused))

    order = Order(
        graph=graph,
        deadline=job.allowance.deadline,
        cancelled=job.allowance.cancelled,
        where=prepared.where,
        on_progress=job.on_progress,
        on_output=note,
        on_outputs=lambda: delivered_by.begin(reported(_in_order(outputs, graph))),
        fails_on=prepared.fails_on,
        extra_data={"api_key_comfy_org": key.get_secret_value()} if key else {},
    )
    try:
        return comfy.run(order)
    except MorpheusError as failure:
        raise advised(failure, prepared.graph, job.worker) from None


def _in_order(outputs: Mapping[str, Any], graph: Mapping[str, Any]) -> dict[str, Any]:
    """The outputs in the order of the graph's nodes; ComfyUI keeps them in none. Those of nodes that a node made of
    itself come last."""
    known = [node_id for node_id in graph if node_id in outputs]
    return {node_id: outputs[node_id] for node_id in dict.fromkeys([*known, *outputs])}


def _no_output(request: JobRequest, *, unseen: bool) -> MorpheusError:
    name = f"The workflow '{request.workflow_name}'" if request.graph is None else "The workflow"
    said = f"{name} ran, but none of its nodes produced an output"
    if unseen:
        said += "; ComfyUI's disk cannot be seen from here, so files that nodes save without reporting them are lost"
    return MorpheusError(Code.NO_OUTPUT, said)


def _notes(made: Reported) -> list[str]:
    if made.files and all(ref.folder == "temp" for ref in made.files):
        return ["the workflow saves nothing: its previews were published"]
    return []


def _result(
    job: _Job, prepared: Prepared, delivered: Delivered, timings: Timings, warnings: list[str]
) -> dict[str, Any]:
    outputs = delivered.outputs
    shown = outputs if delivered.images is None else delivered.images
    return JobResult(
        status="success" if shown else "success_no_images",
        job_id=job.request.job_id,
        trace_id=job.trace_id,
        workflow_name=prepared.workflow_name,
        outputs=outputs,
        params=dict(prepared.params),
        timings=timings,
        warnings=[*prepared.warnings, *warnings],
        images=delivered.images,
        errors=delivered.errors or None,
        image_pod_path=_first_path(outputs, "image"),
        video_pod_path=_first_path(outputs, "video"),
    ).wire()


def _first_path(outputs: list[OutputFile], kind: str) -> str | None:
    return next((output.path for output in outputs if output.kind == kind and output.path), None)
