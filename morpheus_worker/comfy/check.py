"""What ComfyUI would say to a graph at `POST /prompt`, without asking it.

Source: ComfyUI 0.3.64, execution.py `validate_prompt` and `validate_inputs`, and server.py `post_prompt`; recorded
answers of a real one judge this module (tests/data/validation_answers.json). ComfyUI goes through a node's inputs in
no particular order; here it is the order in which the class declares them.

What only a node's own code can know is let through: the `VALIDATE_INPUTS` of custom nodes, and, unless the caller says
which files exist, those of ComfyUI's loaders.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from morpheus_worker.comfy.graphs import is_link, types_meet
from morpheus_worker.comfy.objectinfo import InputInfo, NodeInfo, ObjectInfo

InputExists = Callable[[str], bool]
"""Whether a loader's value names an existing file: a path within the input folder, or one that ends in ` [output]`,
` [input]` or ` [temp]` and lies in that folder."""

LONGEST_SHOWN_LIST: Final = 20
"""ComfyUI names the choices of an input only when they are at most this many."""


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


@dataclass(frozen=True, slots=True)
class _Loader:
    """The check of its own (`VALIDATE_INPUTS`) that a class of ComfyUI makes of one input: the file must exist."""

    function: str
    input: str
    kind: str


def _loader(owner: str, name: str, kind: str, *, function: str = "VALIDATE_INPUTS") -> _Loader:
    return _Loader(f"{owner}.{function}()", name, kind)


_LOADERS: Final[Mapping[str, _Loader]] = {
    "LoadImage": _loader("LoadImage", "image", "image"),
    "LoadImageMask": _loader("LoadImageMask", "image", "image"),
    "LoadImageOutput": _loader("LoadImage", "image", "image"),
    "WebcamCapture": _loader("LoadImage", "image", "image"),
    "LoadAudio": _loader("LoadAudio", "audio", "audio"),
    "LoadLatent": _loader("LoadLatent", "latent", "latent"),
    "LoadVideo": _loader("LoadVideo", "file", "video", function="validate_inputs"),
}

# ComfyUI catches every exception of a node's validation and reports it; these are the ones that a graph can provoke.
_PROVOKED: Final = (ArithmeticError, AttributeError, LookupError, TypeError, ValueError)


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
        return Verdict(False, graph, error=_error("prompt_no_outputs", "Prompt has no outputs", ""))
    return _judge(_Check(graph, object_info, input_exists), outputs)


def _invalid_prompt(graph: Mapping[str, Any], node_id: str, object_info: ObjectInfo) -> dict[str, Any] | None:
    if "class_type" not in graph[node_id]:
        what = "Cannot execute because a node is missing the class_type property."
    elif (class_type := graph[node_id]["class_type"]) not in object_info:
        what = f"Cannot execute because node {class_type} does not exist."
    else:
        return None
    return _error("invalid_prompt", what, f"Node ID '#{node_id}'")


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
    failed = _error("prompt_outputs_failed_validation", "Prompt outputs failed validation", "\n".join(details))
    return Verdict(False, check.graph, (), failed, node_errors)


@dataclass(slots=True)
class _Findings:
    """What a node's own inputs show. `links` are those that ComfyUI follows; `raised` ends the node's validation."""

    errors: list[dict[str, Any]] = field(default_factory=list)
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
        self.reasons: dict[str, list[dict[str, Any]]] = {}
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
        except _PROVOKED as failure:
            findings.raised = failure
        return _Visit(node_id, findings, iter(findings.links), came_by)

    def _finish(self, visit: _Visit) -> None:
        raised, errors = visit.findings.raised, visit.findings.errors
        self._valid[visit.node_id] = visit.valid and raised is None and not errors
        self.reasons[visit.node_id] = errors if raised is None else [_raised(raised, visit.came_by)]

    def _examine(self, node_id: str, findings: _Findings) -> None:
        inputs, class_type = self.graph[node_id]["inputs"], self.graph[node_id]["class_type"]
        node = self._object_info.get(class_type)
        assert node is not None, "validate() has seen to it"
        loader = _LOADERS.get(class_type)
        for wanted in node.inputs.values():
            if wanted.name not in inputs:
                if wanted.required:
                    findings.errors.append(_missing(wanted.name))
            elif isinstance(inputs[wanted.name], list):
                self._examine_link(wanted, inputs[wanted.name], findings)
            elif (error := self._examine_value(node, loader, wanted, inputs)) is not None:
                findings.errors.append(error)
        if loader is not None and (error := self._examine_file(loader, inputs)) is not None:
            findings.errors.append(error)

    def _examine_link(self, wanted: InputInfo, link: list[Any], findings: _Findings) -> None:
        if len(link) != 2:
            what = "Bad linked input, must be a length-2 list of [node_id, slot_index]"
            findings.errors.append(_input_error("bad_linked_input", what, wanted.name, wanted, received_value=link))
            return
        received = self._output_type(self.graph[link[0]]["class_type"], link[1])
        expected = _declared_type(wanted)
        if types_meet(received, expected):
            findings.links.append((wanted, link))
            return
        details = f"{wanted.name}, received_type({received}) mismatch input_type({expected})"
        what = "Return type mismatch between linked nodes"
        more = {"received_type": received, "linked_node": link}
        findings.errors.append(_input_error("return_type_mismatch", what, details, wanted, **more))

    def _output_type(self, class_type: str, slot: Any) -> Any:
        raw = self._object_info.raw[class_type]
        # Older classes hold a tuple and newer ones a list, which shows in Python's words for a slot out of range.
        outputs = raw.get("output") or ()
        return (list(outputs) if raw.get("api_node") is False else tuple(outputs))[slot]

    def _examine_value(
        self, node: NodeInfo, loader: _Loader | None, wanted: InputInfo, inputs: dict[str, Any]
    ) -> dict[str, Any] | None:
        value = inputs[wanted.name]
        try:
            if isinstance(value, dict) and "__value__" in value:
                value = value["__value__"]
            value = inputs[wanted.name] = _CONVERSIONS[wanted.type](value) if wanted.type in _CONVERSIONS else value
        except (ArithmeticError, TypeError, ValueError) as failure:
            what = f"Failed to convert an input value to a {wanted.type} value"
            more = {"received_value": value, "exception_message": str(failure)}
            return _input_error("invalid_input_type", what, f"{wanted.name}, {value}, {failure}", wanted, **more)
        if loader is not None:
            return None if wanted.name == loader.input else _out_of_bounds(wanted, value)
        return None if wanted.upload and self._is_custom(node) else _out_of_bounds(wanted, value)

    def _is_custom(self, node: NodeInfo) -> bool:
        return str(self._object_info.raw[node.class_type].get("python_module", "")).startswith("custom_nodes")

    def _examine_file(self, loader: _Loader, inputs: dict[str, Any]) -> dict[str, Any] | None:
        if loader.input not in inputs:
            raise TypeError(f"{loader.function} missing 1 required positional argument: '{loader.input}'")
        value = None if is_link(inputs[loader.input]) else inputs[loader.input]
        if not isinstance(value, str):
            raise AttributeError(f"'{type(value).__name__}' object has no attribute 'endswith'")
        if self._input_exists is None or self._input_exists(value):
            return None
        details = f"{loader.input} - Invalid {loader.kind} file: {value}"
        about = {"input_name": loader.input}
        return _error("custom_validation_failed", "Custom validation failed for node", details, about)


_CONVERSIONS: Final[Mapping[str, Callable[[Any], Any]]] = {"INT": int, "FLOAT": float, "STRING": str, "BOOLEAN": bool}


def _copied(node: Any) -> Any:
    inputs = node.get("inputs") if isinstance(node, Mapping) else None
    return {**node, "inputs": dict(inputs)} if isinstance(inputs, Mapping) else node


def _declared_type(wanted: InputInfo) -> Any:
    return list(wanted.choices or ()) if wanted.checked_choices and wanted.choices is not None else wanted.type


def _out_of_bounds(wanted: InputInfo, value: Any) -> dict[str, Any] | None:
    least, most = wanted.options.get("min"), wanted.options.get("max")
    if "min" in wanted.options and value < least:
        what = f"Value {value} smaller than min of {least}"
        return _input_error("value_smaller_than_min", what, wanted.name, wanted, received_value=value)
    if "max" in wanted.options and value > most:
        what = f"Value {value} bigger than max of {most}"
        return _input_error("value_bigger_than_max", what, wanted.name, wanted, received_value=value)
    choices = _declared_type(wanted)
    return _not_in_list(wanted, value, choices) if isinstance(choices, list) and value not in choices else None


def _not_in_list(wanted: InputInfo, value: Any, choices: list[Any]) -> dict[str, Any]:
    short = len(choices) <= LONGEST_SHOWN_LIST
    shown = str(choices) if short else f"(list of length {len(choices)})"
    details = f"{wanted.name}: '{value}' not in {shown}"
    about = {"input_name": wanted.name, "input_config": _config(wanted) if short else None, "received_value": value}
    return _error("value_not_in_list", "Value not in list", details, about)


def _missing(name: str) -> dict[str, Any]:
    return _error("required_input_missing", "Required input is missing", name, {"input_name": name})


def _raised(failure: Exception, came_by: tuple[InputInfo, list[Any]] | None) -> dict[str, Any]:
    about = {"exception_type": type(failure).__qualname__, "traceback": []}
    if came_by is None:
        return _error("exception_during_validation", "Exception when validating node", str(failure), about)
    wanted, link = came_by
    about |= {"exception_message": str(failure), "linked_node": link}
    what = "Exception when validating inner node"
    return _input_error("exception_during_inner_validation", what, str(failure), wanted, **about)


def _config(wanted: InputInfo) -> list[Any]:
    return [_declared_type(wanted), dict(wanted.options)]


def _input_error(kind: str, message: str, details: str, wanted: InputInfo, **more: Any) -> dict[str, Any]:
    return _error(kind, message, details, {"input_name": wanted.name, "input_config": _config(wanted)} | more)


def _error(kind: str, message: str, details: str, about: Mapping[str, Any] | None = None) -> dict[str, Any]:
    return {"type": kind, "message": message, "details": details, "extra_info": dict(about or {})}
