"""Graphs in ComfyUI's API format: their shape, their links, and which of their nodes anything comes of.

A graph is `{node id: {"class_type": text, "inputs": {name: value or link}}}`; a link is `[node id, output index]`.
Source: ComfyUI 0.3.64, execution.py `validate_prompt`, comfy_execution/graph_utils.py `is_link`.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.comfy.objectinfo import NodeInfo, ObjectInfo
from morpheus_worker.errors import Problem, did_you_mean

HOW_TO_EXPORT: Final = (
    "in ComfyUI choose Workflow > Export (API); in an older one switch on the dev mode options in its settings, "
    "then Save (API Format)"
)
MAX_FINDINGS: Final = 20
"""A file that is no graph at all has as many problems as entries; more than this many help nobody."""

STANDS_FOR_OTHERS: Final = "COMFY_"
"""How newer ComfyUIs begin the types that stand for others (COMFY_MATCHTYPE_V3 for any that the node's other inputs
match, say): what they take and bring, their object info does not say."""

LONGEST_NAMED: Final = 200
"""Characters of a name (a file's, a class's, a node's) that a sentence repeats."""

Sources = Mapping[str, Mapping[str, str]]
"""Node id → input name → id of the node that this input reads from."""


@dataclass(frozen=True, slots=True)
class Finding:
    """Something wrong with a graph; `node_id` None means with the whole of it."""

    node_id: str | None
    what: str
    hint: str | None = None

    def as_problem(self) -> Problem:
        return Problem("workflow" if self.node_id is None else f"node {named(self.node_id)}", self.what, self.hint)


def named(name: object) -> str:
    """A name in a sentence, shortened."""
    text = str(name)
    return text if len(text) <= LONGEST_NAMED else f"{text[:LONGEST_NAMED]}…"


def check_graph_shape(graph: object) -> list[Problem]:
    """Everything that keeps `graph` from being one in API format, by shape alone: no node class is looked up."""
    found = list(shape_findings(graph))
    more = len(found) - MAX_FINDINGS
    said = [finding.as_problem() for finding in found[:MAX_FINDINGS]]
    return said + ([Problem("workflow", f"and {more} more problems like these")] if more > 0 else [])


def shape_findings(graph: object) -> Iterator[Finding]:
    """The findings behind `check_graph_shape`."""
    if not isinstance(graph, Mapping):
        yield Finding(None, "must be a JSON object of nodes by their id")
    elif is_editor_export(graph):
        yield Finding(None, "is in the editor's own format, which ComfyUI does not run", HOW_TO_EXPORT)
    elif not graph:
        yield Finding(None, "has no nodes", HOW_TO_EXPORT)
    elif _is_request(graph):
        yield Finding(None, "is a whole request to ComfyUI", "take only what is under its key 'prompt'")
    else:
        for node_id, node in graph.items():
            yield from _node_findings(str(node_id), node)


def is_editor_export(graph: Mapping[str, Any]) -> bool:
    """Whether this is what the editor saves: a list of `nodes` with their places on the canvas."""
    return isinstance(graph.get("nodes"), list)


def is_link(value: object) -> bool:
    """Whether ComfyUI takes an input's value for a link, `[node id, output index]`."""
    if not isinstance(value, list) or len(value) != 2:
        return False
    return isinstance(value[0], str) and isinstance(value[1], (int, float))


def types_meet(received: Any, expected: Any) -> bool:
    """Whether ComfyUI takes an output of the one type for an input of the other. A type is text that may name several
    with commas between, and `*` any; a choice's type is the list itself. One that stands for others meets any."""
    if received == expected or "*" in (received, expected):
        return True
    if any(isinstance(kind, str) and kind.startswith(STANDS_FOR_OTHERS) for kind in (received, expected)):
        return True
    if not isinstance(received, str) or not isinstance(expected, str):
        return False
    return not _names(received).isdisjoint(_names(expected))


def sources_of(graph: Mapping[str, Any]) -> dict[str, dict[str, str]]:
    """Who reads from whom. Nodes without links are left out."""
    found = {
        node_id: {name: value[0] for name, value in node["inputs"].items() if is_link(value)}
        for node_id, node in graph.items()
    }
    return {node_id: sources for node_id, sources in found.items() if sources}


def leading_to(outputs: Iterable[str], sources: Sources) -> set[str]:
    """The outputs and every node that one of them reads from, directly or through others."""
    needed: set[str] = set()
    waiting = list(outputs)
    while waiting:
        node_id = waiting.pop()
        if node_id not in needed:
            needed.add(node_id)
            waiting.extend(sources.get(node_id, {}).values())
    return needed


def reading_from(nodes: Iterable[str], sources: Sources) -> set[str]:
    """The nodes and every one that reads from one of them, directly or through others."""
    readers: dict[str, list[str]] = {}
    for node_id, by_input in sources.items():
        for source in by_input.values():
            readers.setdefault(source, []).append(node_id)
    found: set[str] = set()
    waiting = list(nodes)
    while waiting:
        node_id = waiting.pop()
        if node_id not in found:
            found.add(node_id)
            waiting.extend(readers.get(node_id, ()))
    return found


def dangling_links(graph: Mapping[str, Any]) -> Iterator[Finding]:
    """Links to nodes that are not there. ComfyUI's own answer to one is the bare id, as an exception's text."""
    for node_id, sources in sources_of(graph).items():
        for name, source in sources.items():
            if source not in graph:
                yield Finding(node_id, f"input {name} is linked to node {source}, which is not there")


def circles(sources: Sources) -> Iterator[tuple[tuple[str, str], ...]]:
    """Nodes that feed themselves, as links (node id, input name), each of which reads from the node of the next, and
    the last from that of the first. Circles that share links may be told as one."""
    done: set[str] = set()
    for start in sources:
        path: list[tuple[str, str]] = []
        places: dict[str, int] = {}
        waiting = [iter([("", start)])]
        while waiting:
            name, node_id = next(waiting[-1], (None, ""))
            if name is None:
                waiting.pop()
                if path:
                    done.add(path[-1][0])
                    del places[path.pop()[0]]
                continue
            if path:
                path[-1] = (path[-1][0], name)
            if node_id in places:
                yield tuple(path[places[node_id] :])
            elif node_id not in done:
                places[node_id] = len(path)
                path.append((node_id, ""))
                waiting.append(iter(sources.get(node_id, {}).items()))


def wiring_findings(graph: Mapping[str, Any], object_info: ObjectInfo, nodes: Collection[str]) -> Iterator[Finding]:
    """What is wrong with these nodes of the graph on this ComfyUI: classes it lacks, required inputs that are absent,
    links to outputs that a class does not have or that bring another type. Literal values are not judged."""
    for node_id in graph:
        if node_id not in nodes:
            continue
        class_type = graph[node_id]["class_type"]
        known = object_info.get(class_type)
        if known is None:
            said = f"this ComfyUI has no node class '{class_type}'"
            yield Finding(node_id, said, did_you_mean(class_type, object_info))
        else:
            yield from _input_findings(node_id, known, graph, object_info)


def _node_findings(node_id: str, node: object) -> Iterator[Finding]:
    if not isinstance(node, Mapping):
        yield Finding(node_id, "is not an object with class_type and inputs")
        return
    class_type = node.get("class_type")
    if not isinstance(class_type, str) or not class_type:
        what = "has no class_type" if class_type is None else "has a class_type that is not a name"
        yield Finding(node_id, what, "it names the node's class, such as KSampler")
    if not isinstance(node.get("inputs"), Mapping):
        what = "has no inputs" if node.get("inputs") is None else "has inputs that are not an object"
        yield Finding(node_id, what, "a node that takes none has an empty object, {}")


def _is_request(graph: Mapping[str, Any]) -> bool:
    """The body of a `POST /prompt`, saved by somebody who watched the browser."""
    inner = graph.get("prompt")
    return isinstance(inner, Mapping) and "class_type" not in inner and not any(shape_findings(inner))


def _input_findings(
    node_id: str, known: NodeInfo, graph: Mapping[str, Any], object_info: ObjectInfo
) -> Iterator[Finding]:
    inputs = graph[node_id]["inputs"]
    needed = [one.name for one in known.inputs.values() if one.required and not one.type.startswith(STANDS_FOR_OTHERS)]
    absent = [name for name in needed if name not in inputs]
    for name in absent:
        yield Finding(node_id, f"({known.class_type}) lacks its required input {name}")
    for name, value in inputs.items():
        source = object_info.get(graph[value[0]]["class_type"]) if is_link(value) and value[0] in graph else None
        if source is None or name not in known.inputs:
            continue
        wanted = "*" if known.validates_types else known.inputs[name].takes or known.inputs[name].type
        if (said := _wrong_link(value[1], source, wanted)) is not None:
            yield Finding(node_id, f"({known.class_type}) input {name} {said}")


def _wrong_link(index: int, source: NodeInfo, wanted: str) -> str | None:
    if not 0 <= index < len(source.outputs):
        return f"is linked to output {index} of {source.class_type}, which has {len(source.outputs)}"
    brings = source.outputs[index]
    if types_meet(brings, wanted):
        return None
    return f"takes {wanted}, but its link to {source.class_type} brings {brings}"


def _names(kinds: str) -> set[str]:
    """A type may name several, separated by commas."""
    return {kind.strip() for kind in kinds.split(",")}
