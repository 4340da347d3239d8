"""A graph as ComfyUI exported it, read with what the object info knows of its nodes."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.comfy.folders import INPUT_FOLDER, folder_listed
from morpheus_worker.comfy.graphs import HOW_TO_EXPORT, Sources, is_link, leading_to, sources_of
from morpheus_worker.comfy.objectinfo import InputInfo, ObjectInfo
from morpheus_worker.contents import HEAD_BYTES, content_of
from morpheus_worker.errors import Problem
from morpheus_worker.templates.reading import OUR_BLOCKS, TemplateError
from morpheus_worker.templates.scan import quote_bare
from morpheus_worker.templates.template import parse_template

STALE: Final = "is_changed"
"""What ComfyUI notes in a node of a prompt that it has run. Sent back, it would stand for the node's own answer whether
its input has changed (0.3.64, comfy_execution/caching.py)."""

_ABSOLUTE: Final = re.compile(r"[A-Za-z]:|\\\\")
"""How a whole path of a Windows machine begins."""


@dataclass(frozen=True, slots=True, order=True)
class Spot:
    """One input of one node."""

    node_id: str
    input: str

    def __str__(self) -> str:
        return f"{self.node_id}.{self.input}"


@dataclass(frozen=True, slots=True, eq=False)
class Export:
    """`live` are the nodes that lead to an output: of the others nothing comes."""

    graph: Mapping[str, Mapping[str, Any]]
    info: ObjectInfo
    live: frozenset[str]
    sources: Sources

    def inputs(self, node_id: str) -> Mapping[str, Any]:
        inputs: Mapping[str, Any] = self.graph[node_id]["inputs"]
        return inputs

    def class_of(self, node_id: str) -> str:
        return str(self.graph[node_id]["class_type"])

    def title(self, node_id: str) -> str:
        meta = self.graph[node_id].get("_meta")
        title = meta.get("title") if isinstance(meta, Mapping) else None
        return title if isinstance(title, str) else ""

    def value(self, spot: Spot) -> Any:
        """The literal value, without what keeps ComfyUI from taking a list for a link."""
        value = self.inputs(spot.node_id).get(spot.input)
        return value["__value__"] if isinstance(value, Mapping) and "__value__" in value else value

    def literal(self, node_id: str, name: str) -> bool:
        """Whether the input is there and is no link."""
        return name in self.inputs(node_id) and not is_link(self.inputs(node_id)[name])

    def known(self, spot: Spot) -> InputInfo | None:
        return self.info.input(self.class_of(spot.node_id), spot.input)

    def links(self, node_id: str) -> dict[str, tuple[str, int]]:
        """Its linked inputs, in their order, each with the node and output that it reads."""
        inputs = self.inputs(node_id)
        return {name: (value[0], int(value[1])) for name, value in inputs.items() if is_link(value)}

    def output_type(self, node_id: str, index: int) -> str:
        """`*` for what the object info does not know."""
        node = self.info.get(self.class_of(node_id))
        return node.outputs[index] if node is not None and 0 <= index < len(node.outputs) else "*"

    def upstream(self, node_id: str) -> set[str]:
        """The node and everything that it reads from."""
        return leading_to([node_id], self.sources)

    def live_spots(self) -> Iterator[Spot]:
        """Every literal input of a node that something comes of, in the order of the file."""
        for node_id in self.graph:
            if node_id in self.live:
                yield from (Spot(node_id, name) for name in self.inputs(node_id) if self.literal(node_id, name))


def read_export(content: bytes, *, name: str, info: ObjectInfo) -> Export:
    """Reads what *Export (API)* of ComfyUI wrote. `name` is the workflow's.

    Raises:
        TemplateError: when it is something else, which is then named, or a graph with something wrong in it.
    """
    text = _text(content, name)
    _refuse_other_documents(text, name)
    template = parse_template(text, name=name, object_info=info)
    if template.slots:
        raise _is_template(name)
    graph = {
        node_id: {key: value for key, value in node.items() if key != STALE}
        for node_id, node in template.graph().items()
    }
    for node in graph.values():
        node["inputs"] = {
            name: _as_here(node["class_type"], name, value, info) for name, value in node["inputs"].items()
        }
    sources = sources_of(graph)
    return Export(graph, info, frozenset(_live(graph, info, sources)), sources)


def _as_here(class_type: str, name: str, value: Any, info: ObjectInfo) -> Any:
    """The name of a model in a folder, as ComfyUI has it everywhere but on Windows."""
    known = info.input(class_type, name)
    if known is None or known.choices is None or not isinstance(value, str) or _ABSOLUTE.match(value):
        return value
    folder = folder_listed(class_type, known)
    return value.replace("\\", "/") if folder not in (None, INPUT_FOLDER) else value


def _live(graph: Mapping[str, Any], info: ObjectInfo, sources: Sources) -> set[str]:
    """A node of a class that the object info does not know puts something out when nothing reads from it."""
    read_from = {source for by_input in sources.values() for source in by_input.values()}
    outputs = [
        node_id
        for node_id, node in graph.items()
        if (info.is_output(node["class_type"]) if node["class_type"] in info else node_id not in read_from)
    ]
    return leading_to(outputs, sources) & graph.keys() if outputs else set(graph)


def _text(content: bytes, name: str) -> str:
    seen = content_of(content[:HEAD_BYTES])
    if seen is not None and seen.kind in ("image", "video", "audio"):
        hint = f"if ComfyUI made it, drop it on ComfyUI's window, which opens its graph; then {HOW_TO_EXPORT}"
        raise _refused(name, f"is {seen.said}, no graph", hint)
    try:
        return content.decode("utf-8-sig")
    except UnicodeDecodeError as failure:
        raise _refused(name, f"is not UTF-8 text (byte {failure.start})", "save it as UTF-8") from None


def _refuse_other_documents(text: str, name: str) -> None:
    """What is JSON and no graph, by what the people who have it call it."""
    try:
        document = json.loads(quote_bare(text).text)
    except (ValueError, RecursionError):
        return
    if not isinstance(document, dict):
        return
    if any(block in document for block in OUR_BLOCKS):
        raise _is_template(name)
    job = document.get("input")
    if isinstance(job, dict) and isinstance(job.get("workflow"), dict):
        raise _refused(name, "is a whole job", "take only the graph, what is under its key 'workflow'")
    entries = [document, *document.values()]
    if any(isinstance(entry, dict) and isinstance(entry.get("prompt"), list) for entry in entries):
        raise _refused(name, "is an entry of ComfyUI's history", "take only the graph, the third item of its 'prompt'")


def _is_template(name: str) -> TemplateError:
    return _refused(
        name, "is a template already", "put it into the workflows folder as it is, and run 'morpheus check'"
    )


def _refused(name: str, what: str, hint: str) -> TemplateError:
    return TemplateError(name, [Problem("", what, hint)])
