"""`morpheus run`: one job from a terminal, through the same pipeline as on RunPod."""

from __future__ import annotations

import argparse
import base64
import contextlib
import json
import mimetypes
import sys
import tempfile
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from rich.console import Console
from rich.progress import BarColumn, Progress, TextColumn, TimeElapsedColumn

from morpheus_worker import boot, entry, jobs
from morpheus_worker.cli.terminal import log_above
from morpheus_worker.errors import Code, MorpheusError, Problem, from_problems
from morpheus_worker.jobs import checked_job_id, parse_request
from morpheus_worker.pipeline import run_job
from morpheus_worker.settings import Settings
from morpheus_worker.templates.scan import is_template

ASKED_WRONGLY: Final = frozenset(
    {Code.INVALID_INPUT, Code.INVALID_PARAMS, Code.INVALID_WORKFLOW, Code.UNKNOWN_WORKFLOW}
)


def run(asked: argparse.Namespace, settings: Settings) -> int:
    """Runs the job and prints its result, or its failure, as JSON on standard output."""
    try:
        with _template_in(asked.workflow, settings) as (workflow, settings):
            asked.workflow = workflow
            job_id = checked_job_id(asked.id or f"cli-{uuid.uuid4().hex[:12]}")
            job = {"id": job_id, "input": job_input(asked)}
            parse_request(job_id, job["input"])
            with boot.started(settings, with_sdk=False) as worker, _shown(quiet=asked.quiet) as on_progress:
                answer = run_job(job, worker, on_progress=on_progress)
    except MorpheusError as failure:
        answer = jobs.JobFailure.of(failure, job_id=None, trace_id=uuid.uuid4().hex).wire()
    print(_as_json(answer))
    if "error" not in answer:
        return entry.EXIT_OK
    return entry.EXIT_USAGE if answer["code"] in ASKED_WRONGLY else entry.EXIT_FAILED


@contextlib.contextmanager
def _template_in(workflow: str, settings: Settings) -> Iterator[tuple[str, Settings]]:
    """What to ask for: where `workflow` is a file with a template, the name of that, and settings that know it."""
    path = Path(workflow)
    text = ""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        text = path.read_text(encoding="utf-8-sig") if workflow.endswith(".json") else ""
    if not is_template(text):
        yield workflow, settings
        return
    with tempfile.TemporaryDirectory(prefix="morpheus-template-") as folder:
        Path(folder, path.name).write_text(text, encoding="utf-8")
        yield path.stem, settings.model_copy(update={"workflows_dir": Path(folder)})


def _as_json(answer: dict[str, Any]) -> str:
    """Indented, in plain letters as far as standard output can carry them: an argument may hold bytes that are no
    text."""
    text = json.dumps(answer, indent=2, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(answer, indent=2)
    return text


def job_input(asked: argparse.Namespace) -> dict[str, Any]:
    """The job that the arguments describe.

    Raises:
        MorpheusError: `invalid_input`, with every argument that cannot be used.
    """
    problems: list[Problem] = []
    params = dict(_pairs("--param", asked.param, _value, problems))
    pictures = dict(_pairs("--image", asked.image, _picture, problems))
    graph = _graph(asked.workflow, problems)
    if problems:
        raise from_problems(Code.INVALID_INPUT, "The command cannot be run", problems)
    wishes = {"timeout_s": asked.timeout, "outputs": asked.outputs}
    options = {key: wish for key, wish in wishes.items() if wish is not None}
    if graph is None:
        return {"workflow_name": asked.workflow, "params": params | pictures} | options
    images = [{"name": name, "image": picture} for name, picture in pictures.items()]
    return {"workflow": graph, "images": images} | ({"params": params} if params else {}) | options


def _pairs(
    option: str, given: list[str], read: Callable[[str], Any], problems: list[Problem]
) -> Iterator[tuple[str, Any]]:
    for pair in given:
        key, equals, text = pair.partition("=")
        if not equals or not key:
            problems.append(Problem(f"{option} {pair}", "is not of the form KEY=VALUE"))
            continue
        try:
            yield key, read(text)
        except OSError as failure:
            problems.append(Problem(f"{option} {pair}", f"cannot be read: {failure.strerror}"))


def _value(text: str) -> Any:
    """Lists, objects, null and quoted text are read as JSON; the rest stays text, which a param's type then reads."""
    if text[:1] in ('"', "[", "{") or text == "null":
        with contextlib.suppress(ValueError, RecursionError):
            return json.loads(text)
    return text


def _picture(text: str) -> str:
    media_type = mimetypes.guess_type(text)[0] or "application/octet-stream"
    return f"data:{media_type};base64,{base64.b64encode(Path(text).read_bytes()).decode()}"


def _graph(workflow: str, problems: list[Problem]) -> Any:
    """The graph in the file that `workflow` names, or None when it is the name of a template."""
    if not workflow.endswith(".json"):
        return None
    try:
        return json.loads(Path(workflow).read_text(encoding="utf-8"))
    except OSError as failure:
        problems.append(Problem(workflow, f"cannot be read: {failure.strerror}"))
    except (ValueError, RecursionError) as failure:
        problems.append(Problem(workflow, f"is not JSON: {failure}"))
    return None


@contextlib.contextmanager
def _shown(*, quiet: bool) -> Iterator[Callable[[jobs.Progress], None]]:
    """A progress bar on standard error while that is a terminal, nothing elsewhere."""
    console = Console(stderr=True)
    if quiet or not console.is_terminal:
        yield lambda _progress: None
        return
    columns = (TextColumn("{task.description:<32}"), BarColumn(), TextColumn("{task.percentage:>3.0f}%"))
    with Progress(*columns, TimeElapsedColumn(), console=console, transient=True) as bar, log_above():
        task = bar.add_task("staging", total=100.0)

        def show(progress: jobs.Progress) -> None:
            bar.update(task, completed=progress.percent, description=_described(progress))

        yield show


def _described(progress: jobs.Progress) -> str:
    if progress.class_type is None:
        return progress.stage
    steps = f" {progress.step}/{progress.steps}" if progress.steps else ""
    return f"{progress.class_type}{steps}"
