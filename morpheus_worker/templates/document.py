"""What a template file says by itself, before ComfyUI is asked about its nodes."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from morpheus_worker.comfy.graphs import MAX_FINDINGS, Finding, dangling_links, shape_findings
from morpheus_worker.errors import Problem, did_you_mean
from morpheus_worker.templates.declared import WORKER_PARAMS, About, Declaration, read_about, read_declarations
from morpheus_worker.templates.params import twin_of
from morpheus_worker.templates.reading import OUR_BLOCKS, Path, TemplateError, Tree, read_tree
from morpheus_worker.templates.scan import Part, Placeholder, split
from morpheus_worker.templates.wiring import how_to_write_link, meant_link


@dataclass(frozen=True, slots=True, eq=False)
class Slot:
    """A string of the graph with placeholders in it, and where it is. `parts` name keys as the params do.

    `whole` is the key of the placeholder that is the whole string, or None; `around` leads to what holds the string
    under its `last` step.
    """

    path: Path
    parts: tuple[Part, ...]
    whole: str | None
    around: Path
    last: str | int

    @classmethod
    def of(cls, path: Path, parts: tuple[Part, ...]) -> Slot:
        alone = parts[0] if len(parts) == 1 else None
        return cls(path, parts, alone.key if isinstance(alone, Placeholder) else None, path[:-1], path[-1])

    @property
    def node_id(self) -> str:
        return str(self.path[0])

    @property
    def input(self) -> str | None:
        """The input it lies in, or None outside of the node's inputs, in `_meta` say."""
        return str(self.path[2]) if len(self.path) > 2 and self.path[1] == "inputs" else None

    @property
    def is_input(self) -> bool:
        """Whether it is the value of an input, not something deeper within one."""
        return len(self.path) == 3 and self.path[1] == "inputs"

    @property
    def placeholders(self) -> Iterator[Placeholder]:
        return (part for part in self.parts if isinstance(part, Placeholder))


@dataclass(frozen=True, slots=True, eq=False)
class Document:
    """A template file, parsed. `graph` is what ComfyUI will get, its placeholders still in it."""

    name: str
    tree: Tree
    graph: Mapping[str, Any]
    about: About
    declared: Mapping[str, Declaration]
    slots: tuple[Slot, ...]

    def param_keys(self) -> list[str]:
        """Every param: the declared ones in their order, then those that only the graph names."""
        keys = dict.fromkeys([*self.declared, *self.placeholder_keys])
        return [key for key in keys if key not in WORKER_PARAMS and self.list_of(key) is None]

    @property
    def placeholder_keys(self) -> dict[str, None]:
        """In the order of the file."""
        return dict.fromkeys(placeholder.key for slot in self.slots for placeholder in slot.placeholders)

    def list_of(self, key: str) -> str | None:
        """The list of which this names a field, `loras` for `loras.name`; None for a param's own key."""
        if "." not in key or key in self.declared:
            return None
        dots = [index for index, character in enumerate(key) if character == "."]
        return next((key[:dot] for dot in dots if self.declaration(key[:dot]).holds_items), None)

    def declaration(self, key: str) -> Declaration:
        return self.declared.get(key, _NOTHING_SAID)

    def problem(self, finding: Finding) -> Problem:
        return _as_problem(finding, self.tree)


_NOTHING_SAID = Declaration()


def read_document(text: str, *, name: str) -> tuple[Document, list[Problem]]:
    """Reads a file's text, and the problems that still let the params be looked at.

    Raises:
        TemplateError: when it is not JSON, or holds no graph.
    """
    tree = read_tree(text, name=name)
    graph = {key: value for key, value in tree.value.items() if key not in OUR_BLOCKS}
    found = list(shape_findings(graph))
    if found:
        raise TemplateError(name, [_as_problem(finding, tree) for finding in found[:MAX_FINDINGS]])
    about, problems = read_about(tree)
    declared, more = read_declarations(tree)
    problems += more
    slots = list(_slots(graph))
    problems += [_as_problem(finding, tree) for finding in (*dangling_links(graph), *_chosen_classes(slots))]
    problems += _mistyped_links(graph, tree)
    own = _own_keys([*declared, *(part.key for slot in slots for part in slot.placeholders)])
    renamed = tuple(Slot.of(slot.path, tuple(_renamed(part, own) for part in slot.parts)) for slot in slots)
    return Document(name, tree, graph, about, declared, renamed), problems


def _as_problem(finding: Finding, tree: Tree) -> Problem:
    if finding.node_id is None:
        return tree.problem((), f"the file {finding.what}", finding.hint)
    hint = did_you_mean(finding.node_id, OUR_BLOCKS) if finding.node_id.startswith("_") else None
    return tree.problem((finding.node_id,), f"node {finding.node_id} {finding.what}", hint or finding.hint)


def _chosen_classes(slots: Iterable[Slot]) -> Iterator[Finding]:
    for slot in slots:
        if slot.path[1] == "class_type":
            hint = "a preset's links can choose between nodes"
            yield Finding(slot.node_id, "has a placeholder for its class_type", hint)


def _mistyped_links(graph: Mapping[str, Any], tree: Tree) -> Iterator[Problem]:
    """Links to nodes that are there, written with a number for an id or a text for an output. ComfyUI takes any list
    of two for a link, and trips over these."""
    for node_id, node in graph.items():
        for name, value in node["inputs"].items():
            meant = meant_link(value)
            if meant is not None and meant[0] in graph:
                what = f"node {node_id} input {name} is a link of the wrong JSON types"
                yield tree.problem((node_id, "inputs", name), what, how_to_write_link(meant))


def _slots(graph: Mapping[str, Any]) -> Iterator[Slot]:
    """Every string with a placeholder, in the order of the file."""
    waiting: list[tuple[Path, Any]] = [((), graph)]
    while waiting:
        path, value = waiting.pop()
        if isinstance(value, str):
            parts = split(value) if "__" in value else ()
            if any(isinstance(part, Placeholder) for part in parts):
                yield Slot.of(path, parts)
        elif isinstance(value, Mapping):
            waiting += [((*path, key), inner) for key, inner in reversed(list(value.items()))]
        elif isinstance(value, list):
            waiting += [((*path, index), value[index]) for index in reversed(range(len(value)))]


def _own_keys(keys: Iterable[str]) -> dict[str, str]:
    """Each key and its own name: of two spellings of one key, the one that comes first."""
    own: dict[str, str] = {}
    for key in keys:
        own.setdefault(key, own.get(twin_of(key) or key, key))
    return own


def _renamed(part: Part, own: Mapping[str, str]) -> Part:
    return Placeholder(part.kind, own[part.key]) if isinstance(part, Placeholder) else part
