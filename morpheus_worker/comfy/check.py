"""What ComfyUI would say to a graph at `POST /prompt`, without asking it.

Source: ComfyUI 0.3.64, execution.py `validate_prompt` and `validate_inputs`, and server.py `post_prompt`; recorded
answers of a real one judge this module (tests/data/validation_answers.json). ComfyUI goes through a node's inputs in
no particular order; here it is the order in which the class declares them.

What only a node's own code can know is let through: the `VALIDATE_INPUTS` of custom nodes, and, unless the caller says
which files exist, those of ComfyUI's loaders.
"""

from __future__ import annotations

from collections.abc import Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

from morpheus_worker.comfy.examine import (
    LOADERS,
    PROVOKED,
    ComfyError,
    InputExists,
    comfy_error,
    file_error,
    input_error,
    link_error,
    missing_error,
    value_error,
)
from morpheus_worker.comfy.objectinfo import InputInfo, ObjectInfo

__all__ = ["InputExists", "Verdict", "validate"]


@dataclass(frozen=True, slots=True)
class Verdict:
    """ComfyUI's answer. `ok` means 200: at least one output can be executed; the others are in `node_errors`.

    `graph` is what ComfyUI would queue: the graph with the values it converts (`"5"` to 5 for an INT, say).
    """

    ok: bool
    graph: Mapping[str, Any]
    outputs: tuple[str, ...] = ()
    error: Mapping[str, Any] | None = None
    node_errors: Mapping[str, Any] = field(default_factory=dict)


def validate(
    graph: Mapping[str, Any],
    object_info: ObjectInfo,
    *,
    input_exists: InputExists | None = None,
    targets: Collection[str] | None = None,
) -> Verdict:
    """The verdict on a graph in API format.

    `targets` are the output nodes to execute (`partial_execution_targets` in ComfyUI); None means all.

    Raises:
        TypeError: when the graph's shape is so wrong that ComfyUI answers 500 (a node that is a number, say).
    """
    outputs = []
    for node_id in graph:
        if (error := _invalid_prompt(graph, node_id, object_info)) is not None:
            return Verdict(False, graph, error=error)
        if object_info.is_output(graph[node_id]["class_type"]) and (targets is None or node_id in targets):
            outputs.append(node_id)
    if not outputs:
        return Verdict(False, graph, error=comfy_error("prompt_no_outputs", "Prompt has no outputs", ""))
    return _judge(_Check(graph, object_info, input_exists), outputs)


def _invalid_prompt(graph: Mapping[str, Any], node_id: str, object_info: ObjectInfo) -> dict[str, Any] | None:
    if "class_type" not in graph[node_id]:
        what = "Cannot execute because a node is missing the class_type property."
    elif (class_type := graph[node_id]["class_type"]) not in object_info:
        what = f"Cannot execute because node {class_type} does not exist."
    else:
        return None
    return comfy_error("invalid_prompt", what, f"Node ID '#{node_id}'")


def _judge(check: _Check, outputs: list[str]) -> Verdict:
    good: list[str] = []
    details: list[str] = []
    node_errors: dict[str, Any] = {}
    for output in outputs:
        if check.passes(output):
            good.append(output)
            continue
        details += [f"{reason['message']}: {reason['details']}" for reason in check.reasons[output]]
        # ComfyUI lists every node found wrong so far under this output, whether or not the output depends on it.
        for node_id, reasons in check.reasons.items():
            if reasons:
                class_type = check.graph[node_id]["class_type"]
                empty = {"errors": reasons, "dependent_outputs": [], "class_type": class_type}
                node_errors.setdefault(node_id, empty)["dependent_outputs"].append(output)
    if good:
        return Verdict(True, check.graph, tuple(good), None, node_errors)
    failed = comfy_error("prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(details))
    return Verdict(False, check.graph, (), failed, node_errors)


@dataclass(slots=True)
class _Findings:
    """What a node's own inputs show. `links` are those that ComfyUI follows; `raised` ends the node's validation."""

    errors: list[ComfyError] = field(default_factory=list)
    links: list[tuple[InputInfo, list[Any]]] = field(default_factory=list)
    raised: Exception | None = None


@dataclass(slots=True)
class _Visit:
    node_id: str
    findings: _Findings
    links: Iterator[tuple[InputInfo, list[Any]]]
    came_by: tuple[InputInfo, list[Any]] | None
    valid: bool = True


class _Check:
    """Walks a graph from its outputs. `reasons` holds every visited node in the order in which ComfyUI finishes them;
    `graph` takes the converted values."""

    def __init__(self, graph: Mapping[str, Any], object_info: ObjectInfo, input_exists: InputExists | None) -> None:
        self.graph = {node_id: _copied(node) for node_id, node in graph.items()}
        self.reasons: dict[str, list[ComfyError]] = {}
        self._valid: dict[str, bool] = {}
        self._object_info = object_info
        self._input_exists = input_exists

    def passes(self, output: str) -> bool:
        """Whether the output node and all that it needs are valid. A node that needs itself is not."""
        if output in self._valid:
            return self._valid[output]
        open_visits = [self._visit(output, None)]
        ids = {output}
        while open_visits:
            visit = open_visits[-1]
            link = next(visit.links, None)
            if link is None:
                self._finish(open_visits.pop())
                ids.discard(visit.node_id)
                if open_visits and not self._valid[visit.node_id]:
                    open_visits[-1].valid = False
            elif (origin := link[1][0]) in self._valid or origin in ids:
                visit.valid = visit.valid and self._valid.get(origin, False)
            else:
                open_visits.append(self._visit(origin, link))
                ids.add(origin)
        return self._valid[output]

    def _visit(self, node_id: str, came_by: tuple[InputInfo, list[Any]] | None) -> _Visit:
        findings = _Findings()
        try:
            self._examine(node_id, findings)
        except PROVOKED as failure:
            findings.raised = failure
        return _Visit(node_id, findings, iter(findings.links), came_by)

    def _finish(self, visit: _Visit) -> None:
        raised, errors = visit.findings.raised, visit.findings.errors
        self._valid[visit.node_id] = visit.valid and raised is None and not errors
        self.reasons[visit.node_id] = errors if raised is None else [_raised(raised, visit.came_by)]

    def _examine(self, node_id: str, findings: _Findings) -> None:
        inputs, class_type = self.graph[node_id]["inputs"], self.graph[node_id]["class_type"]
        known = self._object_info.get(class_type)
        assert known is not None, "validate() has seen to it"
        for wanted in known.inputs.values():
            error = None
            if wanted.name not in inputs:
                error = missing_error(wanted.name) if wanted.required else None
            elif isinstance(value := inputs[wanted.name], list):
                error = link_error(known, wanted, value, self.graph, self._object_info)
                if error is None:
                    findings.links.append((wanted, value))
            else:
                inputs[wanted.name], error = value_error(known, wanted, value, self._object_info)
            if error is not None:
                findings.errors.append(error)
        loader = LOADERS.get(class_type)
        if loader is not None and (error := file_error(loader, inputs, self._input_exists)) is not None:
            findings.errors.append(error)


def _copied(node: Any) -> Any:
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    return {**node, "inputs": dict(inputs)} if isinstance(inputs, Mapping) else node


def _raised(failure: Exception, came_by: tuple[InputInfo, list[Any]] | None) -> ComfyError:
    about = {"exception_type": type(failure).__qualname__, "traceback": []}
    if came_by is None:
        return comfy_error("exception_during_validation", "Exception when validating node", str(failure), about)
    wanted, link = came_by
    about |= {"exception_message": str(failure), "linked_node": link}
    what = "Exception when validating inner node"
    return input_error("exception_during_inner_validation", what, str(failure), wanted, **about)
