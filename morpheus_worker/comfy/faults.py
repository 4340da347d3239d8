"""What ComfyUI says went wrong, in words that reach the person who can act.

Source of the shapes: ComfyUI 0.3.64, execution.py `validate_prompt`, `validate_inputs`, `handle_execution_error`.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

from morpheus_worker.comfy.graphs import WRONG_OUTPUT, cycles, dangling_links, wiring_findings
from morpheus_worker.comfy.messages import ExecutionError
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import Code, MorpheusError, Problem, did_you_mean, from_problems

MODEL_SUFFIXES: Final = (".safetensors", ".sft", ".ckpt", ".pt", ".pt2", ".pth", ".bin", ".gguf", ".onnx", ".pkl")
"""ComfyUI's own list (0.3.64, folder_paths.py `supported_pt_extensions`) and what node packs load beside it."""

SHOWN_CHOICES: Final = 8
_INNER_EXCEPTION: Final = "Exception when validating"
"""How ComfyUI begins its answer to a link that leads nowhere; the rest of it is the bare id."""
TRACEBACK_LINES: Final = 12

_OUT_OF_MEMORY: Final = re.compile(r"OutOfMemoryError|CUDA out of memory|Allocation on device", re.IGNORECASE)
_NO_FACE: Final = re.compile(
    r"\bno (?:human )?faces?\b|\bfaces? (?:was |were )?not (?:found|detected)\b", re.IGNORECASE
)
_BAD_PICTURE: Final = re.compile(
    r"UnidentifiedImageError|image file is truncated|truncated file read|broken (PNG|data)|unrecognized data stream",
    re.IGNORECASE,
)
"""Pillow's words for a picture whose header was good and whose rest is not."""
_NO_MODEL: Final = re.compile(r"Model in folder '(?P<folder>[^']*)' with filename '(?P<name>[^']*)' not found")

Where = Callable[[str, str], str | None]
"""(node id, input name) → how the caller calls that input, e.g. `params.steps`, or None when it has no name for it."""


def from_refusal(
    error: Mapping[str, Any],
    node_errors: Mapping[str, Any],
    graph: Mapping[str, Any],
    object_info: ObjectInfo,
    where: Where,
) -> MorpheusError:
    """ComfyUI's answer 400 to a prompt as one error that names every problem.

    The code is the one the caller can act on: a node pack or a model that is not there comes before a wrong value.
    """
    absent = [
        Problem(f"node {node_id}", f"this ComfyUI has no node class '{name}'", did_you_mean(name, object_info))
        for node_id, node in graph.items()
        if isinstance(name := node.get("class_type"), str) and name not in object_info
    ]
    if absent:
        return from_problems(Code.MISSING_NODE, "The workflow needs nodes that are not installed", absent)
    problems = list(_node_problems(node_errors, graph, object_info, where))
    miswired = [finding.as_problem() for finding in (*dangling_links(graph), *cycles(graph))]
    if not miswired and any(problem.what.startswith(_INNER_EXCEPTION) for _, problem in problems):
        wrong = wiring_findings(graph, object_info, graph.keys())
        miswired = [finding.as_problem() for finding in wrong if WRONG_OUTPUT in finding.what]
    if miswired:
        return from_problems(
            Code.INVALID_WORKFLOW,
            "The workflow's links are wrong",
            miswired + [problem for _, problem in problems if not problem.what.startswith(_INNER_EXCEPTION)],
        )
    if not problems:
        said = ": ".join(str(error[key]) for key in ("message", "details") if error.get(key))
        return MorpheusError(Code.INVALID_WORKFLOW, f"ComfyUI refuses the workflow: {said or 'it does not say why'}")
    codes = {code for code, _ in problems}
    code = next(code for code in (Code.MISSING_MODEL, Code.INVALID_WORKFLOW, Code.INVALID_PARAMS) if code in codes)
    openings = {
        Code.MISSING_MODEL: "The workflow names models that are not there",
        Code.INVALID_WORKFLOW: "ComfyUI refuses the workflow",
        Code.INVALID_PARAMS: "The params are refused",
    }
    return from_problems(code, openings[code], [problem for _, problem in problems])


def ignored_outputs(node_errors: Mapping[str, Any], graph: Mapping[str, Any], object_info: ObjectInfo) -> list[str]:
    """Warnings for a prompt that ComfyUI accepted while it drops some of its outputs."""
    problems = [problem for _, problem in _node_problems(node_errors, graph, object_info, lambda *_: None)]
    return [f"ComfyUI left outputs out: {problem}" for problem in problems]


def from_execution(error: ExecutionError) -> MorpheusError:
    """A node that raised, as an error with the node, the reason, and the end of the traceback in the details."""
    message = error.exception_message.strip()
    details: dict[str, Any] = {
        "node_id": error.node_id,
        "class_type": error.node_type,
        "exception_type": error.exception_type,
        "exception_message": message,
        "traceback": [line.rstrip("\n") for line in error.traceback[-TRACEBACK_LINES:]],
    }
    at = f"node {error.node_id} ({error.node_type})"
    first_line = message.partition("\n")[0].strip() or error.exception_type
    if _OUT_OF_MEMORY.search(f"{error.exception_type} {message}"):
        said = f"The GPU ran out of memory at {at}: use a smaller size or batch, or a GPU with more memory"
        return MorpheusError(Code.GPU_OUT_OF_MEMORY, said, details=details)
    if found := _NO_MODEL.search(message):
        said = f"{at} found no model '{found['name']}' in ComfyUI's folder '{found['folder']}'"
        return MorpheusError(Code.MISSING_MODEL, said, details=details)
    if _BAD_PICTURE.search(f"{error.exception_type} {message}"):
        return MorpheusError(Code.INPUT_REJECTED, f"{at} cannot read its picture: {first_line}", details=details)
    if _NO_FACE.search(message):
        return MorpheusError(Code.NO_FACE, f"{at} found no face in the picture: {first_line}", details=details)
    return MorpheusError(Code.EXECUTION_FAILED, f"{at} failed: {first_line}", details=details)


def blocked(error: ExecutionError) -> str:
    """A warning for a node that did not run because another one blocked what it passes on."""
    return f"node {error.node_id} ({error.node_type}) did not run: {error.exception_message.strip()}"


def _node_problems(
    node_errors: Mapping[str, Any], graph: Mapping[str, Any], object_info: ObjectInfo, where: Where
) -> Iterator[tuple[Code, Problem]]:
    for node_id, said in node_errors.items():
        class_type = str(said.get("class_type") or (graph.get(node_id) or {}).get("class_type") or "?")
        for error in said.get("errors") or ():
            yield _node_problem(str(node_id), class_type, error, object_info, where)


def _node_problem(
    node_id: str, class_type: str, error: Mapping[str, Any], object_info: ObjectInfo, where: Where
) -> tuple[Code, Problem]:
    extra = error.get("extra_info") or {}
    name = str(extra.get("input_name") or "")
    param = where(node_id, name)
    at = param or f"node {node_id} ({class_type})" + (f" input {name}" if name else "")
    value = extra.get("received_value")
    if error.get("type") == "value_not_in_list":
        return _not_in_list(at, value, _choices(class_type, name, extra, object_info), is_param=param is not None)
    said = _SENTENCES.get(str(error.get("type")), _as_said)(error, value)
    return (Code.INVALID_PARAMS if param else Code.INVALID_WORKFLOW), Problem(at, said)


def _not_in_list(at: str, value: object, choices: tuple[str, ...], *, is_param: bool) -> tuple[Code, Problem]:
    hint = did_you_mean(str(value), choices)
    if str(value).lower().endswith(MODEL_SUFFIXES):
        there = f"there are: {_shortened(choices)}" if choices else "there is none in that folder"
        return Code.MISSING_MODEL, Problem(at, f"there is no model '{value}'", hint or there)
    said = f"'{value}' is not one of the choices"
    return (Code.INVALID_PARAMS if is_param else Code.INVALID_WORKFLOW), Problem(
        at, said, hint or f"choices: {_shortened(choices)}"
    )


def _choices(class_type: str, name: str, extra: Mapping[str, Any], object_info: ObjectInfo) -> tuple[str, ...]:
    """ComfyUI leaves a list of more than 20 choices out of its answer; its object info has them."""
    config = extra.get("input_config")
    if isinstance(config, list) and config and isinstance(config[0], list):
        return tuple(str(choice) for choice in config[0])
    known = object_info.input(class_type, name)
    return tuple(str(choice) for choice in (known.choices or ())) if known else ()


def _shortened(choices: tuple[str, ...]) -> str:
    more = len(choices) - SHOWN_CHOICES
    return ", ".join(choices[:SHOWN_CHOICES]) + (f" and {more} more" if more > 0 else "")


def _limit(extra: Mapping[str, Any], bound: str) -> str:
    config = extra.get("input_config")
    options = config[1] if isinstance(config, list) and len(config) > 1 else {}
    return str(options.get(bound)) if isinstance(options, Mapping) else "?"


def _too_small(error: Mapping[str, Any], value: object) -> str:
    return f"{value} is below the smallest value, {_limit(error.get('extra_info') or {}, 'min')}"


def _too_big(error: Mapping[str, Any], value: object) -> str:
    return f"{value} is above the largest value, {_limit(error.get('extra_info') or {}, 'max')}"


def _absent(_error: Mapping[str, Any], _value: object) -> str:
    return "is required and missing"


def _wrong_type(error: Mapping[str, Any], value: object) -> str:
    config = (error.get("extra_info") or {}).get("input_config")
    kind = config[0] if isinstance(config, list) and config else "value"
    return f"{value!r} is no {kind}"


def _wrong_link(error: Mapping[str, Any], _value: object) -> str:
    extra = error.get("extra_info") or {}
    config = extra.get("input_config")
    kind = config[0] if isinstance(config, list) and config else "another type"
    source = (extra.get("linked_node") or ["?"])[0]
    return f"takes {kind}, but its link to node {source} brings {extra.get('received_type')}"


def _refused_by_node(error: Mapping[str, Any], _value: object) -> str:
    """`details` is "<input> - <reason>"."""
    return str(error.get("details", "")).partition(" - ")[2] or "the node refuses the value"


def _as_said(error: Mapping[str, Any], _value: object) -> str:
    said = ": ".join(str(error[key]) for key in ("message", "details") if error.get(key))
    return said or "ComfyUI does not say why"


_SENTENCES: Final[Mapping[str, Callable[[Mapping[str, Any], object], str]]] = {
    "value_smaller_than_min": _too_small,
    "value_bigger_than_max": _too_big,
    "required_input_missing": _absent,
    "invalid_input_type": _wrong_type,
    "return_type_mismatch": _wrong_link,
    "custom_validation_failed": _refused_by_node,
}
