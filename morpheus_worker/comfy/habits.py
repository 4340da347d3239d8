"""Which node classes have something to show, as far as their runs have told.

The object info says which classes are output nodes. Others may report to the user too: a node that shows a size in the
middle of a graph, or one that expands into nodes that save. ComfyUI's cache keeps what they reported and repeats it in
the history, not in the events. Nothing but a run tells which classes do so; before it has, they count as unknown.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from typing import Any

from morpheus_worker.comfy.objectinfo import ObjectInfo


class Habits:
    """What one ComfyUI's node classes were seen to do. A class that reported once counts as reporting from then on."""

    def __init__(self, object_info: ObjectInfo) -> None:
        self._object_info = object_info
        self._reporting: set[str] = set()
        self._silent: set[str] = set()
        self._saving: set[str] = set()

    def is_silent(self, class_type: str) -> bool:
        """Whether a node of this class has run and reported nothing, and never did otherwise."""
        return class_type in self._silent and not self.reports(class_type)

    def reports(self, class_type: str) -> bool:
        """Whether a node of this class reports something: an output node, by its declaration or by what was seen."""
        return class_type in self._reporting or self._may_be_output(class_type)

    def saves(self, class_type: str) -> bool:
        """Whether a node of this class may leave files: an output node, or one that was seen to."""
        return class_type in self._saving or self._may_be_output(class_type)

    def learn(
        self,
        graph: Mapping[str, Any],
        finished: Collection[str],
        outputs: Mapping[str, Any],
        shown_by: Mapping[str, str],
    ) -> None:
        """Takes in a prompt that succeeded: which of its nodes are known to have been done, what was reported, by node
        id, and for nodes that a node of the graph made of itself, which one that was."""
        reported = {shown_by.get(node_id, node_id) for node_id, output in outputs.items() if output}
        saved = {shown_by.get(node_id, node_id) for node_id, output in outputs.items() if _has_files(output)}
        self._saving.update(graph[node_id]["class_type"] for node_id in saved if node_id in graph)
        for node_id, node in graph.items():
            if node_id in reported:
                self._reporting.add(node["class_type"])
            elif node_id in finished:
                self._silent.add(node["class_type"])

    def _may_be_output(self, class_type: str) -> bool:
        return class_type not in self._object_info or self._object_info.is_output(class_type)


def _has_files(output: object) -> bool:
    lists = output.values() if isinstance(output, Mapping) else ()
    return any(
        isinstance(item, Mapping) and "filename" in item for value in lists if isinstance(value, list) for item in value
    )
