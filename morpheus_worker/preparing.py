"""From a request to a graph that ComfyUI can run: the template filled or the caller's own graph, its media in place."""

from __future__ import annotations

import contextlib
import logging
import re
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, cast

from morpheus_worker.addresses import PrivateHosts
from morpheus_worker.comfy.client import ComfyClient
from morpheus_worker.comfy.faults import Where
from morpheus_worker.comfy.files import ComfyFiles
from morpheus_worker.comfy.folders import INPUT_FOLDER, folder_listed
from morpheus_worker.comfy.graphs import check_graph_shape
from morpheus_worker.comfy.judging import refusal
from morpheus_worker.comfy.objectinfo import InputInfo, ObjectInfo
from morpheus_worker.comfy.recorded import pack_of
from morpheus_worker.deadlines import Deadline
from morpheus_worker.errors import Code, MorpheusError, from_problems
from morpheus_worker.jobs import InputImage, JobRequest
from morpheus_worker.library import Library
from morpheus_worker.manifest import Manifest
from morpheus_worker.media import InputKind, Stage, Wanted
from morpheus_worker.replaying import Replays
from morpheus_worker.saving import Save
from morpheus_worker.settings import Settings
from morpheus_worker.sync.advice import entry_for, fetchable, hint_for
from morpheus_worker.templates.bind import MediaSlot, OutputPath, Resolved, fill, resolve
from morpheus_worker.templates.template import Template, choosing_classes
from morpheus_worker.templates.values import as_text

if TYPE_CHECKING:
    from morpheus_worker.s3 import S3Store

log = logging.getLogger(__name__)

_ON_VOLUME: Final = ("/", "runpod-volume/", "workspace/", "job_outputs/")
"""How a caller's graph may name a file on the volume where a loader node wants a file name."""

_FROM_ELSEWHERE: Final = re.compile(r"data:|[a-z][a-z0-9+.-]*://", re.IGNORECASE)
"""How it may bring one inline, or by URL."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a job needs of the process it runs in.

    `link_anew` links what came onto the volume since, by the deadline at the latest; whether there was something. It
    never raises.
    `manifest` is the one that fills the volume; without a ComfyUI of its own, a worker has none.
    """

    settings: Settings
    comfy: ComfyClient
    files: ComfyFiles
    library: Library
    replays: Replays
    s3: S3Store | None = None
    private_hosts: PrivateHosts = field(default_factory=PrivateHosts)
    link_anew: Callable[[Deadline], bool] = lambda _deadline: False
    manifest: Manifest = field(default_factory=lambda: Manifest(""))


@dataclass(frozen=True, slots=True)
class Prepared:
    """A graph ready for ComfyUI, with what the result will say about it.

    `where` names a node's input as the caller knows it: the param that fills it, for a template. `saves` are places on
    the volume where the files of nodes are to be put as well; `fails_on` lines of ComfyUI's log that mean a
    failure.
    """

    graph: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    workflow_name: str | None = None
    warnings: tuple[str, ...] = ()
    where: Where = lambda _node_id, _input_name: None
    saves: tuple[Save, ...] = ()
    fails_on: Mapping[str, Code] = field(default_factory=dict)


def timeout_of(request: JobRequest, worker: Worker) -> float:
    """How long the job may take, in seconds: by its own wish, else the workflow's, else the settings'.

    Raises:
        MorpheusError: `unknown_workflow`, `invalid_workflow`.
    """
    if request.timeout_s is not None:
        return request.timeout_s
    template = worker.library.get(request.workflow_name or "") if request.graph is None else None
    asked_s = template.about.timeout_s if template is not None else None
    return asked_s if asked_s is not None else worker.settings.job_timeout_s


def prepare(request: JobRequest, worker: Worker, stage: Stage) -> Prepared:
    """The request's graph, bound and with its media staged.

    Raises:
        MorpheusError: `unknown_workflow`, `invalid_params`, `missing_model`, `invalid_workflow`, `input_unreachable`,
            `input_rejected`; `cancelled` or `timeout` while media are fetched.
    """
    if request.graph is not None:
        return _prepare_graph(request, request.graph, worker, stage)
    return _prepare_template(request, worker, stage)


def _check(
    graph: Mapping[str, Any], worker: Worker, stage: Stage, where: Where, pending: Iterable[tuple[str, str]]
) -> None:
    """Refuses what ComfyUI certainly would, before anything is fetched or queued. `pending` are the inputs whose media
    are not there yet. The object info is the boot's; a refusal that rests on it alone is judged by one of now. For a
    model that it does not know, the volume is looked at anew."""

    def fresh(class_types: Collection[str]) -> ObjectInfo:
        _refreshed(class_types, worker, stage.allowance.deadline)
        return worker.comfy.object_info

    refused = refusal(graph, worker.comfy.object_info, where, pack_of=pack_of, pending=frozenset(pending), fresh=fresh)
    if refused is not None:
        raise advised(refused, graph, worker)
    # Of some loaders ComfyUI (0.3.64) checks the name only when they run.
    absent = {class_type for class_type, _, _ in _not_offered(graph, worker.comfy.object_info)}
    if absent and worker.link_anew(stage.allowance.deadline):
        _asked_anew(absent, worker, stage.allowance.deadline)


def _refreshed(class_types: Collection[str], worker: Worker, deadline: Deadline) -> bool:
    """Whether the object info has changed, once what came onto the volume is linked."""
    worker.link_anew(deadline)
    return _asked_anew(class_types, worker, deadline)


def _asked_anew(class_types: Collection[str], worker: Worker, deadline: Deadline) -> bool:
    """Whether the object info has changed. A ComfyUI that does not answer has nothing new to say."""
    try:
        return worker.comfy.refresh(class_types, deadline)
    except MorpheusError as failure:
        log.warning("its node classes could not be asked for anew: %s", failure)
        return False


def _resolved(request: JobRequest, template: Template, worker: Worker, deadline: Deadline) -> Resolved:
    """The job's params; a model that is not known is looked for anew, for it may have come after the boot."""

    def resolved() -> Resolved:
        return resolve(
            template,
            request.params,
            strict_keys=request.strict_keys,
            object_info=worker.comfy.object_info,
            worker_values={"job_id": request.job_id},
            deployment=worker.settings.deployment,
        )

    try:
        return resolved()
    except MorpheusError as refused:
        told = refused
    if told.code == Code.MISSING_MODEL and _refreshed(choosing_classes(template), worker, deadline):
        try:
            return resolved()
        except MorpheusError as refused:
            told = refused
    raise advised(told, template.document.graph, worker, _texts(request.params))


def advised(
    refused: MorpheusError, graph: Mapping[str, Any], worker: Worker, named: Iterable[str] | None = None
) -> MorpheusError:
    """The same, saying how to get the models that are missing and in the manifest: those that the graph's loaders are
    given, or could be given of the names that the caller sent. `details["sync"]` has their ids."""
    if refused.code != Code.MISSING_MODEL:
        return refused
    if named is not None:
        listed = {place.name for entry in worker.manifest.models for place in (entry.path, *entry.also)}
        named = {name for name in named if name.rpartition("/")[2] in listed}
    ids = fetchable(
        entry
        for _, folder, name in _not_offered(graph, worker.comfy.object_info, named)
        if (entry := entry_for(worker.manifest, folder, name)) is not None
    )
    if not ids:
        return refused
    said = f"{refused.message}; {hint_for(ids)}"
    return MorpheusError(
        refused.code,
        said,
        problems=refused.problems,
        details={**refused.details, "sync": ids},
        retryable=refused.retryable,
        refundable=refused.refundable,
    )


def _not_offered(
    graph: Mapping[str, Any], object_info: ObjectInfo, named: Collection[str] | None = None
) -> Iterator[tuple[str, str, str]]:
    """The class of a loader, the folder that it reads, and the name there, of each model that it does not find."""
    for node in graph.values():
        for name, value in node["inputs"].items():
            known = object_info.input(node["class_type"], name)
            # What takes any text lists no folder, whatever it is called.
            if known is None or known.choices is None:
                continue
            folder = folder_listed(node["class_type"], known)
            if folder in (None, INPUT_FOLDER):
                continue
            for wanted in [value] if named is None else named:
                if isinstance(wanted, str) and wanted not in known.choices:
                    yield node["class_type"], str(folder), wanted


def _texts(value: Any) -> Iterator[str]:
    """Every text in what a caller sent."""
    waiting = [value]
    while waiting:
        match waiting.pop():
            case str(text):
                yield text
            case Mapping() as held:
                waiting += held.values()
            case list(held):
                waiting += held


def _prepare_template(request: JobRequest, worker: Worker, stage: Stage) -> Prepared:
    template = worker.library.get(request.workflow_name or "")
    resolved = _resolved(request, template, worker, stage.allowance.deadline)
    pending: list[MediaSlot | OutputPath] = [*resolved.media, *resolved.output_paths]
    draft = fill(resolved, {slot.key: slot.key for slot in pending})
    places = [place for slot in pending for place in slot.places]
    try:
        _check(
            draft.graph, worker, stage, draft.where, ((place.node_id, place.input) for place in places if place.input)
        )
    except MorpheusError as refused:
        if refused.code == Code.MISSING_NODE and (instead := _does_without(resolved, worker)) is not None:
            key, value = instead
            hint = f"; the params.{key} {as_text(value)} does without them"
            raise MorpheusError(refused.code, refused.message + hint, details=refused.details) from None
        raise
    wanted = [
        Wanted(at=f"params.{slot.key}", kind=slot.kind, value=slot.value, as_path=slot.as_path, suffix=slot.suffix)
        for slot in resolved.media
    ]
    placed = {path.key: stage.output_path(f"params.{path.key}", path.value) for path in resolved.output_paths}
    placed |= zip((slot.key for slot in resolved.media), stage.bring(wanted), strict=True)
    bound = fill(resolved, placed) if pending else draft
    return Prepared(
        graph=bound.graph,
        params=bound.params,
        workflow_name=template.name,
        warnings=(*bound.warnings, *(["'images' come with a graph, and were ignored"] if request.images else [])),
        where=bound.where,
        saves=tuple(
            Save(f"params.{path.key}", path.of, Path(placed[path.key]), is_folder=path.value.endswith("/"))
            for path in resolved.output_paths
            if path.of
        ),
        fails_on={part: Code(code) for code, parts in template.about.fails_on.items() for part in parts},
    )


def _does_without(resolved: Resolved, worker: Worker) -> tuple[str, Any] | None:
    """A param and a value of it with which the workflow needs no node class that this ComfyUI lacks."""
    template, known = resolved.template, worker.comfy.object_info
    for key in template.rewiring_keys:
        param = template.params[key]
        for effect in (*(param.choices if param.own_choices else ()), *param.effects):
            with contextlib.suppress(MorpheusError):
                other = resolve(template, {**resolved.values, key: effect.value}, worker_values=resolved.worker_values)
                if all(template.document.graph[node_id]["class_type"] in known for node_id in other.live):
                    return key, effect.value
    return None


def _prepare_graph(request: JobRequest, graph: Mapping[str, Any], worker: Worker, stage: Stage) -> Prepared:
    problems = check_graph_shape(graph)
    if problems:
        raise from_problems(Code.INVALID_WORKFLOW, "The workflow is no graph in ComfyUI's API format", problems)
    uses = list(_media_uses(graph, request.images, worker.comfy.object_info))
    _check(graph, worker, stage, lambda _node_id, _input_name: None, ((use.node_id, use.input_name) for use in uses))
    wanted: dict[tuple[str, InputKind], Wanted] = {}
    for use in uses:
        wanted.setdefault(use.key, use.wanted)
    placed = dict(zip(wanted, stage.bring(wanted.values()), strict=True))
    rewritten = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in graph.items()}
    for use in uses:
        rewritten[use.node_id]["inputs"][use.input_name] = placed[use.key]
    named = {use.item for use in uses}
    unused = [f"no node names the input '{image.name}'" for image in request.images if image.name not in named]
    if request.ignored_keys:
        unused.append(f"a graph takes no params, so these keys were ignored: {', '.join(request.ignored_keys)}")
    return Prepared(graph=rewritten, warnings=tuple(unused))


@dataclass(frozen=True, slots=True)
class _Use:
    """A node's input that names a medium; `item` is the same for two inputs that name the same one."""

    node_id: str
    input_name: str
    item: str
    wanted: Wanted

    @property
    def key(self) -> tuple[str, InputKind]:
        return self.item, self.wanted.kind


def _media_uses(graph: Mapping[str, Any], images: tuple[InputImage, ...], object_info: ObjectInfo) -> Iterator[_Use]:
    by_name = {image.name: image for image in images}
    for node_id, node in graph.items():
        for input_name, held in node["inputs"].items():
            # ComfyUI takes a value out of such an object before it looks at it.
            value = held["__value__"] if isinstance(held, Mapping) and "__value__" in held else held
            if not isinstance(value, str):
                continue
            known = object_info.input(node["class_type"], input_name)
            kind = _kind_of(known)
            name = value.removesuffix(" [input]")
            at = f"node {node_id} ({node['class_type']}) input {input_name}"
            if name in by_name and (known is None or known.choices is not None):
                sent = Wanted(f"input.images '{name}'", kind, by_name[name].image, name, inline=True)
                yield _Use(node_id, input_name, name, sent)
            elif known is not None and _is_brought(node["class_type"], known, name):
                yield _Use(node_id, input_name, name, Wanted(at, kind, name))


def _kind_of(known: InputInfo | None) -> InputKind:
    return cast(InputKind, known.upload or "file") if known is not None else "file"


def _is_brought(class_type: str, known: InputInfo, name: str) -> bool:
    """For a loader, anything but a plain name in ComfyUI's input folder. An absolute path, or one that climbs, would
    have ComfyUI read whatever file of the machine it names; the stage lets none through that leads off the volume.

    The loaders of some node packs do not say that they are, and offer files like any other choice: of those that nobody
    recorded, only what cannot be a file's name."""
    if known.upload is not None or folder_listed(class_type, known) == INPUT_FOLDER:
        return bool(_FROM_ELSEWHERE.match(name)) or name.startswith(_ON_VOLUME) or ".." in name.split("/")
    return known.choices is not None and name not in known.choices and bool(_FROM_ELSEWHERE.match(name))
