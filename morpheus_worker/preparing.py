"""From a request to a graph that ComfyUI can run: the template filled or the caller's own graph, its media in place."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from morpheus_worker.comfy.client import ComfyClient
from morpheus_worker.comfy.faults import Where
from morpheus_worker.comfy.files import ComfyFiles
from morpheus_worker.comfy.graphs import check_graph_shape, dangling_links, leading_to, sources_of
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import Code, from_problems
from morpheus_worker.jobs import InputImage, JobRequest
from morpheus_worker.library import Library
from morpheus_worker.media import InputKind, Stage, Wanted
from morpheus_worker.settings import Settings
from morpheus_worker.templates.bind import fill, resolve

_ON_VOLUME: Final = ("/", "runpod-volume/", "workspace/", "job_outputs/", "data:")
"""How a caller's graph may name a file on the volume, or bring one inline, where a loader node wants a file name."""


@dataclass(frozen=True, slots=True)
class Worker:
    """What a job needs of the process it runs in."""

    settings: Settings
    comfy: ComfyClient
    files: ComfyFiles
    library: Library


@dataclass(frozen=True, slots=True)
class Prepared:
    """A graph ready for ComfyUI, with what the result will say about it.

    `where` names a node's input as the caller knows it: the param that fills it, for a template.
    """

    graph: Mapping[str, Any]
    params: Mapping[str, Any] = field(default_factory=dict)
    workflow_name: str | None = None
    timeout_s: float | None = None
    warnings: tuple[str, ...] = ()
    where: Where = lambda _node_id, _input_name: None


def prepare(request: JobRequest, worker: Worker, stage: Stage) -> Prepared:
    """The request's graph, bound and with its media staged.

    Raises:
        MorpheusError: `unknown_workflow`, `invalid_params`, `invalid_workflow`, `input_unreachable`, `input_rejected`.
    """
    if request.graph is not None:
        prepared = _prepare_graph(request, request.graph, worker.comfy.object_info, stage)
    else:
        prepared = _prepare_template(request, worker, stage)
    _refuse_dangling(prepared.graph, worker.comfy.object_info)
    return prepared


def _refuse_dangling(graph: Mapping[str, Any], object_info: ObjectInfo) -> None:
    """ComfyUI (0.3.64) accepts a link to nowhere in an input that the node's class does not declare; executing it then
    ends ComfyUI's only worker thread, while its HTTP goes on answering, and no later prompt ever runs."""
    saving = [key for key, node in graph.items() if object_info.is_output(node["class_type"])]
    needed = leading_to(saving, sources_of(graph))
    problems = [finding.as_problem() for finding in dangling_links(graph) if finding.node_id in needed]
    if problems:
        raise from_problems(Code.INVALID_WORKFLOW, "The workflow's links are wrong", problems)


def _prepare_template(request: JobRequest, worker: Worker, stage: Stage) -> Prepared:
    template = worker.library.get(request.workflow_name or "")
    resolved = resolve(
        template,
        request.params,
        strict_keys=request.strict_keys,
        object_info=worker.comfy.object_info,
        worker_values={"job_id": request.job_id},
    )
    wanted = [
        Wanted(at=f"params.{slot.key}", kind=slot.kind, value=slot.value, as_path=slot.as_path)
        for slot in resolved.media
    ]
    placed = dict(zip((slot.key for slot in resolved.media), stage.bring(wanted), strict=True))
    placed |= {path.key: stage.output_path(f"params.{path.key}", path.value) for path in resolved.output_paths}
    bound = fill(resolved, placed)
    return Prepared(
        graph=bound.graph,
        params=bound.params,
        workflow_name=template.name,
        timeout_s=template.about.timeout_s,
        warnings=(*bound.warnings, *(["'images' come with a graph, and were ignored"] if request.images else [])),
        where=template.where,
    )


def _prepare_graph(request: JobRequest, graph: Mapping[str, Any], object_info: ObjectInfo, stage: Stage) -> Prepared:
    problems = check_graph_shape(graph)
    if problems:
        raise from_problems(Code.INVALID_WORKFLOW, "The workflow is no graph in ComfyUI's API format", problems)
    uses = list(_media_uses(graph, request.images, object_info))
    sent = {use.item: use for use in uses}
    placed = dict(zip(sent, stage.bring(use.wanted for use in sent.values()), strict=True))
    rewritten = {node_id: {**node, "inputs": dict(node["inputs"])} for node_id, node in graph.items()}
    for use in uses:
        rewritten[use.node_id]["inputs"][use.input_name] = placed[use.item]
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


def _media_uses(graph: Mapping[str, Any], images: tuple[InputImage, ...], object_info: ObjectInfo) -> Iterator[_Use]:
    by_name = {image.name: image for image in images}
    for node_id, node in graph.items():
        for input_name, value in node["inputs"].items():
            if not isinstance(value, str):
                continue
            known = object_info.input(node["class_type"], input_name)
            loads = known.upload if known else None
            name = value.removesuffix(" [input]")
            kind: InputKind = "image" if loads == "image" else "file"
            at = f"node {node_id} ({node['class_type']}) input {input_name}"
            if name in by_name and (known is None or known.choices is not None):
                inline = _as_data_uri(by_name[name].image)
                yield _Use(node_id, input_name, name, Wanted(f"input.images '{name}'", kind, inline, name))
            elif loads and _is_brought(name):
                yield _Use(node_id, input_name, name, Wanted(at, kind, name))


def _is_brought(name: str) -> bool:
    """Anything but a plain name in ComfyUI's input folder. An absolute path, or one that climbs, would have ComfyUI
    read whatever file of the machine it names; the stage lets none through that leads off the volume."""
    return name.startswith(_ON_VOLUME) or ".." in name.split("/")


def _as_data_uri(text: str) -> str:
    """Clients of the official worker send a data URI or bare base64. Anything with a scheme stays what it is."""
    return text if text.startswith("data:") or "://" in text[:16] else f"data:;base64,{text}"
