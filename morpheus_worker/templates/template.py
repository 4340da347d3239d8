"""A template as a value: parsed once, completed by one object info, never changed."""

from __future__ import annotations

import marshal
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import Any, Final, cast

from morpheus_worker.comfy.graphs import Sources, leading_to, sources_of, wiring_findings
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import Problem
from morpheus_worker.templates.completion import Completion
from morpheus_worker.templates.declared import WORKER_PARAMS, About
from morpheus_worker.templates.document import Document, Slot, read_document
from morpheus_worker.templates.params import Param, rewired
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.reading import TemplateError
from morpheus_worker.templates.repeating import Repeat, repeats_of
from morpheus_worker.templates.taking_out import ANY, left_without
from morpheus_worker.templates.wiring import Bypass, Links, linked, relinked, rewire, sources_past

_NO_INFO: Final = ObjectInfo({})
_NO_BYPASS: Final[Bypass] = {}
_NOTHING: Final[Mapping[str, Any]] = {}


@dataclass(frozen=True, slots=True, eq=False)
class Template:
    """A workflow that is ready to be bound.

    `params` come in the order of `_params`, then in that of the graph. `aliases` lead from every other name of a param,
    the other spelling of a path's key among them, to its own. `problems` are what the object info finds wrong with
    defaults and effects.

    `slots` are all placeholders; `shared_slots` those without anything of an item, which `repeats` have. `fields` are
    the items' fields by the key of their placeholders, `loras.name`. `setting_keys` are the params that set others,
    `rewiring_keys` those that the graph's shape depends on, `list_keys` those whose value may be a list.
    """

    name: str
    about: About
    params: Mapping[str, Param]
    aliases: Mapping[str, str]
    slots: tuple[Slot, ...]
    object_info: ObjectInfo | None
    problems: tuple[Problem, ...]
    setting_keys: tuple[str, ...]
    rewiring_keys: tuple[str, ...]
    seed_keys: frozenset[str]
    list_keys: tuple[str, ...]
    bracket_keys: frozenset[str]
    shared_slots: tuple[Slot, ...]
    repeats: tuple[Repeat, ...]
    fields: Mapping[str, Param]
    worker_keys: frozenset[str]
    demanding: tuple[Param, ...] = field(repr=False)
    """The params that can lack a value, or whose value has to be placed."""

    document: Document = field(repr=False)
    _packed: bytes = field(repr=False)
    _sources: Sources = field(repr=False)
    _links: Mapping[str, Mapping[str, list[Any]]] = field(repr=False)
    _outputs: frozenset[str] = field(repr=False)
    _live: frozenset[str] = field(repr=False)
    _latest: list[Template] = field(default_factory=list, repr=False)
    """The template as the last other object info completed it: an endpoint's changes when models are added."""

    def graph(self) -> dict[str, Any]:
        """A copy of the graph with its placeholders. Nothing in it is shared with the template."""
        # Within one process, marshal copies a tree of JSON values some ten times faster than copy.deepcopy.
        return cast(dict[str, Any], marshal.loads(self._packed))

    def seen_by(self, object_info: ObjectInfo) -> Template:
        """The template as this ComfyUI completes it; the last one's is kept."""
        if object_info is self.object_info:
            return self
        for latest in self._latest:
            if latest.object_info is object_info:
                return latest
        completed = _completed(self.document, object_info)[0]
        self._latest[:] = [completed]
        return completed

    def live_nodes(self, links: Links, bypass: Bypass = _NO_BYPASS) -> frozenset[str]:
        """The nodes that something comes of when these inputs are rewired and these nodes taken out; all that are left
        when nothing is ever put out.

        An output node is one that the object info calls so. A node class that it does not know counts as one when
        nothing in the template reads from it, not even by the links of an effect.
        """
        if bypass:
            sources = sources_past(relinked(self._links, links), bypass)
            return _live_nodes(self.document.graph, self._outputs, sources) - bypass.keys()
        if not links:
            return self._live
        return _live_nodes(self.document.graph, self._outputs, _rewired(self._sources, links))

    def wired(self, links: Links, bypass: Bypass) -> tuple[Mapping[str, Mapping[str, list[Any]]], frozenset[str]]:
        """Every link by node and input when these are rewired, and the nodes that something comes of."""
        return relinked(self._links, links), self.live_nodes(links, bypass)

    def default_wiring(self, given: Mapping[str, Any] = _NOTHING) -> tuple[Links, Bypass]:
        """How the defaults rewire the graph, and which nodes they take out; a param without a default has any value.
        What is `given` comes before its default."""
        values = {key: ANY if param.default is MISSING else param.default for key, param in self.params.items()}
        values |= given
        for key in self.setting_keys:
            for effect in self.params[key].effects_of(values[key]):
                sets = ((target, value) for target, value in effect.sets.items() if target not in given)
                values |= {target: value for target, value in sets if value is not None}
        return rewired(map(self.params.__getitem__, self.rewiring_keys), values)

    def where(self, node_id: str, input_name: str, item: int = 0) -> str | None:
        """How a caller knows this input of a node: `params.steps`, or None when no param fills it. `item` tells which
        copy of a repeated node is meant: `params.loras[1].name`."""
        for slot in self.slots:
            if slot.node_id == node_id and slot.input == input_name:
                keys = [part.key for part in slot.placeholders if part.key not in WORKER_PARAMS]
                return self._named(keys[0], item) if keys else None
        return None

    def _named(self, key: str, item: int) -> str:
        holder = self.document.list_of(key) if key in self.fields else None
        return f"params.{key}" if holder is None else f"params.{holder}[{item}]{key.removeprefix(holder)}"


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


def choosing_classes(template: Template) -> set[str]:
    """The node classes whose object info says which values the template's params may have."""
    params = [
        *template.params.values(),
        *(field for param in template.params.values() for field in param.items.values()),
    ]
    return {
        place.class_type for param in params for place in param.places if place.info and place.info.choices is not None
    }


def check_template(template: Template, object_info: ObjectInfo) -> list[Problem]:
    """What keeps a well-formed template from running on this ComfyUI with its defaults: node classes and required
    inputs that are absent, links that do not fit, defaults and effects out of the nodes' ranges. Nodes that only
    another value brings in are not judged, nor is whether models are there."""
    template = template.seen_by(object_info)
    graph, live = _by_default(template)
    there = {node_id for node_id in live if node_id in graph and graph[node_id]["class_type"] in object_info}
    found = map(template.document.problem, wiring_findings(graph, object_info, there))
    lacking = wiring_findings(graph, object_info, live - there)
    absent = [
        template.document.tree.problem(
            (said.node_id or "", "class_type"), f"node {said.node_id}: {said.what}", said.hint
        )
        for said in lacking
    ]
    return [*absent, *found, *template.problems]


def absent_classes(template: Template, object_info: ObjectInfo) -> list[tuple[str, str]]:
    """The nodes of a class that this ComfyUI lacks, of those that the defaults need: the class, and its place in the
    file. What was meant by it is not guessed at, which takes long."""
    template = template.seen_by(object_info)
    graph, live = _by_default(template)
    tree = template.document.tree
    return [
        (node["class_type"], tree.problem((node_id, "class_type"), "").at)
        for node_id, node in graph.items()
        if node_id in live and node["class_type"] not in object_info
    ]


def _by_default(template: Template) -> tuple[dict[str, Any], frozenset[str]]:
    """The graph as the defaults rewire it, and the nodes of it that something comes of."""
    links, bypass = template.default_wiring()
    graph = template.graph()
    rewire(graph, links, bypass)
    return graph, template.live_nodes(links, bypass)


def _completed(document: Document, object_info: ObjectInfo | None) -> tuple[Template, list[Problem]]:
    info = object_info or _NO_INFO
    completion = Completion(document, info)
    params = completion.params
    sources = sources_of(document.graph)
    outputs = _outputs(document.graph, info, params.values(), sources)
    repeats = repeats_of(document, params)
    of_items = {slot for repeat in repeats for slot in repeat.slots}
    fields = {field.key: field for param in params.values() for field in param.items.values()}
    template = Template(
        name=document.name,
        about=document.about,
        params=params,
        aliases=completion.aliases,
        slots=document.slots,
        object_info=object_info,
        problems=(),
        setting_keys=tuple(key for key, param in params.items() if param.sets_others),
        rewiring_keys=tuple(key for key, param in params.items() if param.rewires),
        seed_keys=frozenset(key for key, param in params.items() if param.type == "seed"),
        list_keys=tuple(key for key, param in params.items() if param.type in ("list", "any") and param.places),
        bracket_keys=frozenset(param.key for param in (*params.values(), *fields.values()) if param.brackets),
        shared_slots=tuple(slot for slot in document.slots if slot not in of_items),
        repeats=repeats,
        fields=fields,
        worker_keys=WORKER_PARAMS & document.placeholder_keys.keys(),
        demanding=tuple(param for param in params.values() if param.demanding),
        document=document,
        _packed=marshal.dumps(dict(document.graph)),
        _sources=sources,
        _links=linked(document.graph),
        _outputs=outputs,
        _live=_live_nodes(document.graph, outputs, sources),
    )
    problems = [*completion.problems, *left_without(template)]
    return replace(template, problems=tuple(problems)), problems


def _outputs(graph: Mapping[str, Any], info: ObjectInfo, params: Iterable[Param], sources: Sources) -> frozenset[str]:
    effects = [effect for param in params for effect in param.all_effects]
    read_from = {source for by_input in sources.values() for source in by_input.values()}
    read_from |= {link[0] for effect in effects for link in effect.links.values()}
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
