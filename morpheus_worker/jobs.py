"""The job on the wire: what comes in, what goes out, as pydantic models. `morpheus schema` prints their JSON Schema.

A caller sees exactly these shapes. Inside the worker a request becomes a `JobRequest`: one meaning, whatever the form
it arrived in.
"""

from __future__ import annotations

import hashlib
import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from pydantic import BaseModel, ConfigDict, Field, SecretStr, ValidationError

from morpheus_worker.errors import Code, MorpheusError, Problem, from_problems

JOB_ID_PATTERN: Final = re.compile(r"[A-Za-z0-9][A-Za-z0-9._-]{0,127}\Z")
"""A job id becomes a folder name, so it must be one: no separators, no leading dot, at most 128 characters."""

MAX_DEPTH: Final = 100
"""Levels of lists and objects in a job's input. A graph has three; Python's own recursion ends near a thousand."""

NOT_ASKED_FOR: Final = frozenset({"timeout_s", "idempotency_key", "comfy_org_api_key"})
"""Keys of a job's input that do not change what it makes."""

LONG_TEXT: Final = 4096
"""Characters from which a text is hashed by itself for the fingerprint."""

_LONE_SURROGATE: Final = re.compile("[\ud800-\udfff]")

MediaKind = Literal["image", "video", "audio", "model3d", "text", "file"]
StoreName = Literal["volume", "s3", "base64"]
Stage = Literal["staging", "queued", "executing", "publishing"]


class InputImage(BaseModel):
    """One picture that comes with a graph: loader nodes name it by `name`."""

    model_config = ConfigDict(extra="ignore")

    name: str = Field(min_length=1, max_length=255)
    image: str = Field(min_length=1, description="a data URI, base64, or a URL")


class JobInput(BaseModel):
    """`job["input"]` in any of its forms. Keys that are not named here are params of the workflow (flat keys)."""

    model_config = ConfigDict(extra="allow", title="Job input")

    workflow_name: str | None = Field(None, description="name or alias of a workflow template")
    workflow: str | dict[str, Any] | None = Field(
        None, description="a ComfyUI graph in API format, or, from older clients, the name of a template"
    )
    params: dict[str, Any] | None = Field(None, description="values for the template's params")
    config_payload: dict[str, Any] | None = Field(None, description="older name of params, which win over it")
    images: list[InputImage] | None = Field(None, description="pictures that a graph's loader nodes name")
    comfy_org_api_key: SecretStr | None = Field(None, description="key for ComfyUI's paid API nodes, never logged")
    timeout_s: float | None = Field(None, gt=0, le=86_400, description="deadline of this job, in seconds")
    outputs: StoreName | None = Field(None, description="where the outputs go; default: MORPHEUS_OUTPUTS")
    idempotency_key: str | None = Field(
        None, min_length=1, max_length=256, description="a job with a key seen before gets the stored result"
    )


class OutputFile(BaseModel):
    """One thing the job made. A file has a `path` on the volume, a `url` in the bucket, or its `data`, by where the
    job's outputs go; text comes inline as `text`."""

    kind: MediaKind
    filename: str
    node_id: str
    media_type: str
    bytes: int = Field(description="size")
    sha256: str
    path: str | None = Field(None, description="as the worker sees it: <volume root>/job_outputs/<job id>/<file>")
    volume_path: str | None = Field(None, description="the same, relative to the volume")
    width: int | None = Field(None, description="in pixels")
    height: int | None = Field(None, description="in pixels")
    duration_s: float | None = Field(None, description="of a video or sound")
    url: str | None = Field(None, description="where it can be downloaded, presigned unless the bucket is public")
    s3_uri: str | None = Field(None, description="s3://<bucket>/<key>; another job takes it as an input")
    data: str | None = Field(None, description="base64")
    text: str | None = None


class ResultImage(BaseModel):
    """A picture in the form that clients of the official ComfyUI worker read."""

    filename: str
    type: Literal["base64", "s3_url"]
    data: str = Field(description="base64, or a URL")


class Timings(BaseModel):
    """Seconds that each part of the job took; `total_s` is the worker's own, from receipt to result."""

    staging_s: float = 0.0
    queued_s: float = 0.0
    executing_s: float = 0.0
    publishing_s: float = 0.0
    total_s: float = 0.0


class JobResult(BaseModel):
    """A job that succeeded."""

    status: Literal["success", "success_no_images"] = "success"
    job_id: str
    trace_id: str
    workflow_name: str | None = None
    outputs: list[OutputFile]
    params: dict[str, Any] = Field(description="as used: defaults filled in, the drawn seed included")
    timings: Timings
    warnings: list[str] = []
    images: list[ResultImage] | None = Field(None, description="of a graph, for clients of the official worker")
    errors: list[str] | None = Field(None, description="of a graph: the outputs that could not be delivered")
    replayed: Literal[True] | None = Field(
        None, description="set when this is the stored result of an earlier delivery"
    )
    image_pod_path: str | None = Field(None, description="the first picture's path again, for older clients")
    video_pod_path: str | None = Field(None, description="the first video's path again, for older clients")

    def wire(self) -> dict[str, Any]:
        """As JSON values, without the keys that do not apply."""
        return self.model_dump(mode="json", exclude_none=True)


class JobFailure(BaseModel):
    """A job that failed. RunPod marks a job FAILED by the key `error`."""

    error: str = Field(description="one human sentence")
    code: Code
    retryable: bool = Field(description="whether the same job, unchanged, may succeed when sent again")
    refundable: bool = Field(description="whether a charge for it should go back")
    details: dict[str, Any] = {}
    job_id: str | None = None
    trace_id: str

    @classmethod
    def of(cls, failure: MorpheusError, *, job_id: str | None, trace_id: str) -> JobFailure:
        return cls(
            error=failure.message,
            code=failure.code,
            retryable=failure.retryable,
            refundable=failure.refundable,
            details=failure.details,
            job_id=job_id,
            trace_id=trace_id,
        )

    def wire(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)


class Progress(BaseModel):
    """How far a job is. `percent` runs over the whole graph, 0 to 100, and never back."""

    stage: Stage
    percent: float = Field(0.0, ge=0, le=100)
    node_id: str | None = None
    class_type: str | None = None
    step: int | None = None
    steps: int | None = None

    def wire(self) -> dict[str, Any]:
        return self.model_dump(mode="json", exclude_none=True)


@dataclass(frozen=True, slots=True)
class JobRequest:
    """What a job asks for, independent of the form it came in.

    Exactly one of `workflow_name` and `graph` is set. `strict_keys` are those of `params` that the caller placed there
    on purpose: an unknown one is an error. Flat keys may belong to the caller's own bookkeeping, so an unknown one of
    those only warns. `ignored_keys` are flat keys beside a graph, which has no params. `fingerprint` is the same for
    two inputs that ask for the same thing.
    """

    job_id: str
    workflow_name: str | None = None
    graph: Mapping[str, Any] | None = None
    params: Mapping[str, Any] = field(default_factory=dict)
    strict_keys: frozenset[str] = frozenset()
    images: tuple[InputImage, ...] = ()
    ignored_keys: tuple[str, ...] = ()
    timeout_s: float | None = None
    outputs: StoreName | None = None
    idempotency_key: str | None = None
    fingerprint: str = ""
    comfy_org_api_key: SecretStr | None = None


def checked_job_id(job_id: object) -> str:
    """The job id, once it is known to be a plain folder name.

    Raises:
        MorpheusError: `invalid_input`.
    """
    if isinstance(job_id, str) and JOB_ID_PATTERN.match(job_id):
        return job_id
    shown = repr(job_id) if len(repr(job_id)) <= 80 else f"{repr(job_id)[:77]}..."
    problem = Problem("id", f"{shown} cannot name a folder", "use letters, digits, '.', '_' and '-', at most 128")
    raise from_problems(Code.INVALID_INPUT, "The job's id is refused", [problem])


def parse_request(job_id: str, job_input: object) -> JobRequest:
    """Reads `job["input"]` in any of its forms.

    Raises:
        MorpheusError: `invalid_input`, with every problem found.
    """
    fields = _as_object(job_input)
    problems = list(_unsound(fields))
    try:
        parsed = JobInput.model_validate(fields)
    except ValidationError as failure:
        raise _refused(problems + [_as_problem(error) for error in failure.errors()]) from None
    problems += _shape_problems(parsed)
    if problems:
        raise _refused(problems)
    return _as_request(job_id, parsed, fingerprint_of(fields))


def fingerprint_of(fields: Mapping[str, Any]) -> str:
    """The same for two inputs that ask for the same thing: SHA-256, in hex, over the input as JSON, its keys in order.

    How long it may take, the key it is known by, and who pays for it do not belong to what is asked for.
    """
    absent = {key for key in JobInput.model_fields if fields.get(key) is None}
    asked = {key: _digested(value) for key, value in fields.items() if key not in NOT_ASKED_FOR | absent}
    text = json.dumps(asked, sort_keys=True, separators=(",", ":"), ensure_ascii=False)
    return hashlib.sha256(text.encode()).hexdigest()


def _digested(value: Any) -> Any:
    """The value with its long texts hashed: writing megabytes of base64 as JSON takes many times as long."""
    if isinstance(value, str) and (len(value) > LONG_TEXT or value.startswith("\0")):
        return f"\0{hashlib.sha256(value.encode()).hexdigest()}"
    if isinstance(value, dict):
        return {key: _digested(inner) for key, inner in value.items()}
    return [_digested(inner) for inner in value] if isinstance(value, list) else value


def _as_object(job_input: object) -> dict[str, Any]:
    if isinstance(job_input, str):
        try:
            job_input = json.loads(job_input)
        except (ValueError, RecursionError) as failure:
            raise _refused([Problem("input", f"is text, but not JSON: {failure}")]) from None
    if not isinstance(job_input, dict):
        raise _refused([Problem("input", f"must be a JSON object, got {_json_type(job_input)}")])
    return job_input


def _shape_problems(parsed: JobInput) -> list[Problem]:
    problems = []
    if parsed.workflow_name is None and parsed.workflow is None:
        problems.append(Problem("input", "names no workflow", "set 'workflow_name', or 'workflow' to a graph"))
    if parsed.workflow_name is not None and parsed.workflow is not None:
        problems.append(Problem("input", "has both 'workflow' and 'workflow_name'", "send one of them"))
    if isinstance(parsed.workflow, dict) and (parsed.params or parsed.config_payload):
        hint = "a graph carries its own values; params belong to a template named by 'workflow_name'"
        problems.append(Problem("input.params", "comes with a graph", hint))
    if isinstance(parsed.workflow, str) and parsed.workflow.lstrip().startswith("{"):
        problems.append(Problem("input.workflow", "is a graph as text", "send it as a JSON object"))
    names = [image.name for image in parsed.images or []]
    problems += [Problem("input.images", f"names '{name}' twice") for name in sorted(_repeated(names))]
    return problems


def _as_request(job_id: str, parsed: JobInput, fingerprint: str) -> JobRequest:
    graph = parsed.workflow if isinstance(parsed.workflow, dict) else None
    name = parsed.workflow if isinstance(parsed.workflow, str) else parsed.workflow_name
    placed = {**(parsed.config_payload or {}), **(parsed.params or {})}
    flat = dict(parsed.model_extra or {})
    return JobRequest(
        job_id=job_id,
        workflow_name=name,
        graph=graph,
        params={**flat, **placed} if graph is None else {},
        strict_keys=frozenset(placed),
        images=tuple(parsed.images or ()),
        ignored_keys=() if graph is None else tuple(flat),
        timeout_s=parsed.timeout_s,
        outputs=parsed.outputs,
        idempotency_key=parsed.idempotency_key,
        fingerprint=fingerprint,
        comfy_org_api_key=parsed.comfy_org_api_key,
    )


def _refused(problems: list[Problem]) -> MorpheusError:
    return from_problems(Code.INVALID_INPUT, "The job's input is refused", problems)


def _as_problem(error: Any) -> Problem:
    # A union's branch ("str", "dict[str,any]") appears in pydantic's location; the caller's path does not have it.
    steps = [str(step) for step in error["loc"] if step not in ("str", "dict[str,any]")]
    return Problem(".".join(["input", *steps]), str(error["msg"]))


def _unsound(fields: dict[str, Any]) -> Iterator[Problem]:
    """What Python's JSON reader lets through and nothing after it can carry: NaN and infinities, half of a surrogate
    pair (a text cut in the middle of an emoji), and nesting without end."""
    rest: list[tuple[object, str, int]] = [(fields, "input", 0)]
    while rest:
        value, at, depth = rest.pop()
        if depth > MAX_DEPTH:
            yield Problem(at, f"is nested more than {MAX_DEPTH} levels deep")
        elif isinstance(value, float) and not math.isfinite(value):
            yield Problem(at, "is not a finite number; JSON has no NaN or infinity")
        elif isinstance(value, str) and not value.isascii() and _LONE_SURROGATE.search(value):
            yield Problem(at, "is not valid text: it holds half of a surrogate pair")
        elif isinstance(value, dict):
            rest.extend((key, f"{at}.{_shown(key)} (the key)", depth) for key in value)
            rest.extend((inner, f"{at}.{_shown(key)}", depth + 1) for key, inner in value.items())
        elif isinstance(value, list):
            rest.extend((inner, f"{at}[{index}]", depth + 1) for index, inner in enumerate(value))


def _shown(key: object) -> str:
    return str(key).encode("utf-8", "backslashreplace").decode()


def _repeated(names: list[str]) -> set[str]:
    return {name for name in names if names.count(name) > 1}


def _json_type(value: object) -> str:
    names = {type(None): "null", bool: "a boolean", int: "a number", float: "a number", list: "a list"}
    return names.get(type(value), type(value).__name__)


WIRE_MODELS: Final[tuple[type[BaseModel], ...]] = (JobInput, JobResult, JobFailure, Progress)
"""What `morpheus schema` prints."""
