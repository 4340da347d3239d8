"""A template as a value: parsed once, completed by one object info, never changed."""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, cast

from morpheus_worker.comfy.graphs import Sources, leading_to, sources_of, wiring_findings
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import Problem
from morpheus_worker.templates.completion import Completion
from morpheus_worker.templates.declared import WORKER_PARAMS, About
from morpheus_worker.templates.document import Document, Slot, read_document
from morpheus_worker.templates.params import Param
from morpheus_worker.templates.reading import TemplateError

_NO_INFO: Final = ObjectInfo({})

Links = Mapping[tuple[str, str], list[Any]]
"""(node id, input name) → the link that the input is rewired to."""


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A workflow that is ready to be bound.

    `params` come in the order of `_params`, then in that of the graph. `aliases` lead from every other name of a param,
    the other spelling of a path's key among them, to its own. `problems` are what the object info finds wrong with
    defaults and presets.
    """

    name: str
    about: About
    params: Mapping[str, Param]
    aliases: Mapping[str, str]
    slots: tuple[Slot, ...]
    object_info: ObjectInfo | None
    problems: tuple[Problem, ...]
    preset_keys: tuple[str, ...]
    seed_keys: frozenset[str]
    worker_keys: frozenset[str]
    demanding: tuple[Param, ...] = field(repr=False)
    """The params that can lack a value, or whose value has to be placed."""

    document: Document = field(repr=False)
    _packed: bytes = field(repr=False)
    _sources: Sources = field(repr=False)
    _outputs: frozenset[str] = field(repr=False)
    _live: frozenset[str] = field(repr=False)

    def graph(self) -> dict[str, Any]:
        """A copy of the graph with its placeholders. Nothing in it is shared with the template."""
        # Within one process, marshal copies a tree of JSON values some ten times faster than copy.deepcopy.
        return cast(dict[str, Any], marshal.loads(self._packed))

    def seen_by(self, object_info: ObjectInfo) -> Template:
        """The template as this ComfyUI completes it: itself, when it has been completed by the same one already."""
        return self if object_info is self.object_info else _completed(self.document, object_info)[0]

    def live_nodes(self, links: Links) -> frozenset[str]:
        """The nodes that something comes of when these inputs are rewired; all nodes, when nothing is ever put out.

        An output node is one that the object info calls so. A node class that it does not know counts as one when
        nothing in the template reads from it, not even by a preset's links.
        """
        return _live_nodes(self.document.graph, self._outputs, _rewired(self._sources, links)) if links else self._live

    def where(self, node_id: str, input_name: str) -> str | None:
        """How a caller knows this input of a node: `params.steps`, or None when no param fills it."""
        for slot in self.slots:
            if slot.node_id == node_id and slot.input == input_name:
                keys = [part.key for part in slot.placeholders if part.key not in WORKER_PARAMS]
                return f"params.{keys[0]}" if keys else None
        return None


def parse_template(text: str, *, name: str, object_info: ObjectInfo | None = None) -> Template:
    """Reads a template file's text. `name` is the workflow's; `object_info` completes what `_params` leaves out.

    Raises:
        TemplateError: with everything that is wrong in the file, each with its line and column.
    """
    document, problems = read_document(text, name=name)
    template, contradictions = _completed(document, None)
    if problems or contradictions:
        raise TemplateError(name, problems + contradictions)
    return template if object_info is None else template.seen_by(object_info)


def check_template(template: Template, object_info: ObjectInfo) -> list[Problem]:
    """What keeps a well-formed template from running on this ComfyUI: node classes and required inputs that are
    absent, links that do not fit, defaults and presets out of the nodes' ranges. Nodes that only a preset brings in
    are not judged, nor is whether models are there."""
    template = template.seen_by(object_info)
    found = wiring_findings(template.document.graph, object_info, template.live_nodes({}))
    return [*map(template.document.problem, found), *template.problems]


def _completed(document: Document, object_info: ObjectInfo | None) -> tuple[Template, list[Problem]]:
    info = object_info or _NO_INFO
    completion = Completion(document, info)
    sources = sources_of(document.graph)
    outputs = _outputs(document.graph, info, completion.params.values(), sources)
    template = Template(
        name=document.name,
        about=document.about,
        params=completion.params,
        aliases=completion.aliases,
        slots=document.slots,
        object_info=object_info,
        problems=tuple(completion.problems),
        preset_keys=tuple(key for key, param in completion.params.items() if param.has_presets),
        seed_keys=frozenset(key for key, param in completion.params.items() if param.type == "seed"),
        worker_keys=document.placeholder_keys & WORKER_PARAMS,
        demanding=tuple(param for param in completion.params.values() if param.demanding),
        document=document,
        _packed=marshal.dumps(dict(document.graph)),
        _sources=sources,
        _outputs=outputs,
        _live=_live_nodes(document.graph, outputs, sources),
    )
    return template, completion.problems


def _outputs(graph: Mapping[str, Any], info: ObjectInfo, params: Iterable[Param], sources: Sources) -> frozenset[str]:
    choices = [choice for param in params for choice in param.choices]
    read_from = {source for by_input in sources.values() for source in by_input.values()}
    read_from |= {link[0] for choice in choices for link in choice.links.values()}
    is_output = {
        node_id: info.is_output(node["class_type"]) if node["class_type"] in info else node_id not in read_from
        for node_id, node in graph.items()
    }
    return frozenset(node_id for node_id, puts_out in is_output.items() if puts_out)


def _rewired(sources: Sources, links: Links) -> Sources:
    rewired = dict(sources)
    for (node_id, name), link in links.items():
        rewired[node_id] = {**rewired.get(node_id, {}), name: link[0]}
    return rewired


def _live_nodes(graph: Mapping[str, Any], outputs: frozenset[str], sources: Sources) -> frozenset[str]:
    return frozenset(leading_to(outputs, sources)) & graph.keys() if outputs else frozenset(graph)
