"""Which node runs next, and which need not run again. Decisions only.

Source: ComfyUI 0.3.64, comfy_execution/graph.py (`TopologicalSort`, `ExecutionList`) and caching.py
(`CacheKeySetInputSignature`). Inputs that a class does not declare count here too: they are links to wait for, and
part of what a cached result depends on.
"""

from __future__ import annotations

from collections.abc import Callable, Hashable, Iterator, Mapping
from typing import Any

from morpheus_worker.comfy.graphs import is_link

Graph = Mapping[str, Mapping[str, Any]]
Fingerprint = Callable[[str], Hashable]
"""What a node depends on beside its inputs (`IS_CHANGED`): a loader's file, say."""


class DeadlyGraphError(Exception):
    """A graph that passes `/prompt` and then kills the thread that executes prompts: a link to a node that does not
    exist, in an input that the class does not declare, or a node that no output needs and whose inputs are no object.
    """


IsLazy = Callable[[str, str], bool]
"""(node id, input) → whether what the input links to runs only when the node asks for it."""


def _never(_node_id: str, _name: str) -> bool:
    return False


class Schedule:
    """The nodes that have yet to run. `is_cached` says of which nodes the outputs are at hand."""

    def __init__(
        self,
        graph: Graph,
        *,
        is_output: Callable[[str], bool],
        is_cached: Callable[[str], bool],
        is_lazy: IsLazy = _never,
    ) -> None:
        self._graph = graph
        self._is_output = is_output
        self._is_cached = is_cached
        self._is_lazy = is_lazy
        self._blockers: dict[str, set[str]] = {}
        self._blocking: dict[str, dict[str, None]] = {}

    def __bool__(self) -> bool:
        return bool(self._blockers)

    def need(self, node_id: str, name: str) -> None:
        """A node asks for what one of its lazy inputs links to: it waits for that.

        Raises:
            DeadlyGraphError: when something that takes does not exist.
        """
        source = self._graph[node_id]["inputs"][name][0]
        if not self._is_cached(source):
            self.add(source)
            self._block(source, node_id)

    def add(self, node_id: str) -> None:
        """Adds an output node, and everything it needs that is not cached.

        Raises:
            DeadlyGraphError: when something it needs does not exist.
        """
        open_ids = [node_id]
        links = []
        while open_ids:
            current = open_ids.pop()
            if current in self._blockers:
                continue
            if current not in self._graph:
                raise DeadlyGraphError(f"node {current} not found")
            self._blockers[current] = set()
            self._blocking[current] = {}
            for source in self._sources_of(current):
                if not self._is_cached(source):
                    open_ids.append(source)
                    links.append((source, current))
        for source, target in links:
            self._block(source, target)

    def _block(self, source: str, target: str) -> None:
        self._blocking[source][target] = None
        self._blockers[target].add(source)

    def _sources_of(self, node_id: str) -> Iterator[str]:
        """The nodes that a node's inputs link to, in the order of its inputs, but for lazy ones."""
        inputs = self._graph[node_id]["inputs"].items()
        return (value[0] for name, value in inputs if is_link(value) and not self._is_lazy(node_id, name))

    def next(self) -> str | None:
        """The node to run now: an output node before others, then one that an output waits for. None in a cycle."""
        ready = [node_id for node_id, blockers in self._blockers.items() if not blockers]
        for wanted in (self._is_output, self._feeds_output, self._feeds_a_feeder):
            if (found := next(filter(wanted, ready), None)) is not None:
                return found
        return ready[0] if ready else None

    def done(self, node_id: str) -> None:
        del self._blockers[node_id]
        for blocked in self._blocking.pop(node_id):
            self._blockers[blocked].discard(node_id)

    def blamed(self) -> str:
        """The node that ComfyUI names when nothing can run any more: the first that waits."""
        return next(iter(self._blockers))

    def _feeds_output(self, node_id: str) -> bool:
        return any(map(self._is_output, self._blocking[node_id]))

    def _feeds_a_feeder(self, node_id: str) -> bool:
        return any(self._feeds_output(blocked) for blocked in self._blocking[node_id])


class Signatures:
    """Of each node, a key that is equal when class, inputs, and all that the inputs come from are equal.

    Raises:
        DeadlyGraphError: when a node's inputs are no object.
    """

    def __init__(self, graph: Graph, *, fingerprint: Fingerprint, knows_its_id: Callable[[str], bool]) -> None:
        self._graph = graph
        self._fingerprint = fingerprint
        self._knows_its_id = knows_its_id
        for node_id, node in graph.items():
            if not isinstance(node.get("inputs"), Mapping):
                raise DeadlyGraphError(f"node {node_id} has no inputs object")
        self._keys = {node_id: self._signature(node_id) for node_id in graph}

    def __getitem__(self, node_id: str) -> Hashable:
        return self._keys[node_id]

    def used(self) -> set[Hashable]:
        return set(self._keys.values())

    def _signature(self, node_id: str) -> Hashable:
        places = {ancestor: place for place, ancestor in enumerate(self._ancestors(node_id))}
        return tuple(self._own(each, places) for each in (node_id, *places))

    def _own(self, node_id: str, places: Mapping[str, int]) -> Hashable:
        if node_id not in self._graph:
            return object()
        node = self._graph[node_id]
        inputs = tuple(
            (name, ("link", places.get(value[0], -1), value[1]) if is_link(value) else _frozen(value))
            for name, value in sorted(node["inputs"].items())
        )
        own_id = node_id if self._knows_its_id(node["class_type"]) else None
        return (node["class_type"], self._fingerprint(node_id), own_id, inputs)

    def _ancestors(self, node_id: str) -> list[str]:
        """All nodes that this one comes from, in an order that depends only on the links' input names."""
        found: dict[str, None] = {}
        open_links = [self._links(node_id)]
        while open_links:
            source = next(open_links[-1], None)
            if source is None:
                open_links.pop()
            elif source not in found:
                found[source] = None
                open_links.append(self._links(source))
        return list(found)

    def _links(self, node_id: str) -> Iterator[str]:
        inputs = self._graph[node_id]["inputs"] if node_id in self._graph else {}
        return (value[0] for _, value in sorted(inputs.items()) if is_link(value))


def _frozen(value: Any) -> Hashable:
    if isinstance(value, Mapping):
        return frozenset((name, _frozen(inner)) for name, inner in value.items())
    if isinstance(value, list):
        return tuple(_frozen(inner) for inner in value)
    hashable: Hashable = value
    return hashable
