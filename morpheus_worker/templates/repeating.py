"""Nodes that are there once for every item of a list, chained one after another."""

from __future__ import annotations

import marshal
from collections.abc import Container, Iterable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.errors import did_you_mean
from morpheus_worker.templates.declared import Declaration
from morpheus_worker.templates.document import Document, Slot
from morpheus_worker.templates.notes import Notes
from morpheus_worker.templates.params import Appearance, Param


def field_appearances(seen: Appearance, repeat: Mapping[str, Any]) -> Appearance:
    """What is seen of a field in the nodes that its list repeats."""
    return Appearance(seen.kinds, tuple(place for place in seen.places if place.node_id in repeat))


def check_repeats(notes: Notes, params: Mapping[str, Param]) -> None:
    """Notes what contradicts itself in lists, their items and the nodes they repeat."""
    holders: dict[str, str] = {}
    for key, param in params.items():
        said = notes.document.declaration(key)
        if param.type == "list":
            _check_limits(notes, key)
        elif said.holds_items:
            notes.note(key, ("type",), f"'{key}' holds items, but is declared '{param.type}'", '"type": "list"')
        if said.repeat and not said.items:
            what = f"'{key}' repeats nodes and says nothing of its items"
            notes.note(key, ("repeat",), what, '"items": {"name": {"type": "string"}}')
        for node_id in said.repeat:
            if (other := holders.setdefault(node_id, key)) != key:
                what = f"'{key}' repeats node {node_id}, which '{other}' repeats already"
                notes.note(key, ("repeat", node_id), what)
        _check_placeholders(notes, key)


def _check_limits(notes: Notes, key: str) -> None:
    said = notes.document.declaration(key)
    for name, limit in (("min", said.min), ("max", said.max)):
        if limit is not None and (limit < 0 or limit != int(limit)):
            notes.note(key, (name,), f"'{name}' of the list '{key}' counts its items, and cannot be {limit}")


def _check_placeholders(notes: Notes, key: str) -> None:
    """Every repeated node takes something of its item, every field goes somewhere, every placeholder has its field."""
    document, said = notes.document, notes.document.declaration(key)
    if not said.items:
        return
    filled: set[str] = set()
    taking: set[str] = set()
    for slot in document.slots:
        for part in slot.placeholders:
            if document.list_of(part.key) != key:
                continue
            taking.add(slot.node_id)
            name = part.key.removeprefix(f"{key}.")
            filled.add(name)
            if name not in said.items:
                what = f"node {slot.node_id} takes the field '{name}', which the items of '{key}' do not have"
                notes.note_at(slot.path, what, did_you_mean(name, said.items) or f"fields: {', '.join(said.items)}")
            elif slot.node_id not in said.repeat:
                what = f"node {slot.node_id} takes '{part.key}', but '{key}' does not repeat it"
                notes.note_at(slot.path, what, f'"repeat": {{"{slot.node_id}": [...]}}')
    _check_idle(notes, key, said, filled, taking)


def _check_idle(notes: Notes, key: str, said: Declaration, filled: Container[str], taking: Container[str]) -> None:
    first = next(iter(said.items))
    for node_id in said.repeat:
        if node_id not in taking and node_id in notes.document.graph:
            what = f"'{key}' repeats node {node_id}, which takes nothing of its items"
            notes.note(key, ("repeat", node_id), what, f'put "__param:{key}.{first}__" in it')
    for name in said.items if said.repeat else ():
        if name not in filled:
            what = f"the field '{name}' of '{key}' fills nothing: it has no placeholder in a repeated node"
            notes.note(key, ("items", name), what, f'put "__param:{key}.{name}__" in one')


@dataclass(frozen=True, slots=True, eq=False)
class Repeat:
    """A node that is there once for every item of the list `key`. `inputs` chain the copies, by output index; `slots`
    are those of its placeholders that take something of an item."""

    key: str
    node_id: str
    inputs: tuple[str, ...]
    slots: tuple[Slot, ...]


def repeats_of(document: Document, params: Mapping[str, Param]) -> tuple[Repeat, ...]:
    """Every node that a list repeats, in the order of the params."""
    taking: dict[str, list[Slot]] = {}
    for slot in document.slots:
        if any(document.list_of(part.key) is not None for part in slot.placeholders):
            taking.setdefault(slot.node_id, []).append(slot)
    return tuple(
        Repeat(key, node_id, tuple(inputs), tuple(taking.get(node_id, ())))
        for key, param in params.items()
        for node_id, inputs in param.repeat.items()
    )


@dataclass(frozen=True, slots=True, eq=False)
class Copies:
    """The nodes of a graph that lists repeat. `ids` are those of each one's copies, its own first."""

    repeats: Mapping[str, Repeat]
    ids: Mapping[str, tuple[str, ...]]

    @classmethod
    def of(cls, graph: Mapping[str, Any], repeats: Iterable[Repeat], values: Mapping[str, Any]) -> Copies:
        there = {repeat.node_id: repeat for repeat in repeats if repeat.node_id in graph}
        taken = set(graph)
        return cls(there, {node_id: _ids(node_id, len(values[one.key]), taken) for node_id, one in there.items()})

    @property
    def origins(self) -> dict[str, tuple[str, int]]:
        """The id of each copy → the node it is a copy of, and its item's index."""
        return {own_id: (node_id, index) for node_id, ids in self.ids.items() for index, own_id in enumerate(ids)}

    def of_node(self, node_id: str, node: dict[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
        """The node's copies by their ids, each reading what it has to; the node itself when nothing repeats it."""
        repeat = self.repeats.get(node_id)
        if repeat is None:
            node["inputs"] = {name: self._redirected(value, None, 0) for name, value in node["inputs"].items()}
            yield node_id, node
            return
        packed = marshal.dumps(node)
        for index, own_id in enumerate(self.ids[node_id]):
            copy = marshal.loads(packed)
            copy["inputs"] = {
                name: self._redirected(value, None if name in repeat.inputs else repeat.key, index)
                for name, value in copy["inputs"].items()
            }
            if index:
                # Backwards, so that of two outputs that one input stands in for, the first is read.
                for output, name in reversed(list(enumerate(repeat.inputs))):
                    copy["inputs"][name] = [self.ids[node_id][index - 1], output]
            yield own_id, copy

    def _redirected(self, value: Any, key: str | None, index: int) -> Any:
        """A link to a repeated node leads to its last copy; between nodes that one list repeats, to the same item's."""
        if not is_link(value) or value[0] not in self.ids:
            return value
        is_mate = self.repeats[value[0]].key == key
        return [self.ids[value[0]][index if is_mate else -1], value[1]]


def _ids(node_id: str, count: int, taken: set[str]) -> tuple[str, ...]:
    """`2`, `2_2`, `2_3`, …, without those that are taken."""
    ids, number = [node_id], 2
    while len(ids) < count:
        if (own_id := f"{node_id}_{number}") not in taken:
            ids.append(own_id)
        number += 1
    taken.update(ids)
    return tuple(ids)
