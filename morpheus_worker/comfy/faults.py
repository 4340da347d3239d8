"""What ComfyUI says went wrong, in words that reach the person who can act.

Source of the shapes: ComfyUI 0.3.64, execution.py `validate_prompt`, `validate_inputs`, `handle_execution_error`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping
from typing import Any, Final

from morpheus_worker.comfy.judging import judge
from morpheus_worker.comfy.messages import ExecutionError
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.wording import (
    BAD_SHAPE,
    LINK_FAULTS,
    MISSING_NODE,
    MODEL_SUFFIXES,
    NO_OUTPUTS,
    TRIPPED,
    Fault,
    Guesses,
    PackOf,
    Weight,
    Where,
    as_error,
    from_comfyui,
    no_outputs,
    no_pack,
    said_by_comfyui,
    shortened,
)
from morpheus_worker.errors import Code, MorpheusError

__all__ = ["MODEL_SUFFIXES", "Where", "blocked", "from_execution", "from_refusal", "ignored_outputs"]

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


def from_refusal(
    error: Mapping[str, Any],
    node_errors: Mapping[str, Any],
    graph: Mapping[str, Any],
    object_info: ObjectInfo,
    where: Where,
    *,
    pack_of: PackOf = no_pack,
) -> MorpheusError:
    """ComfyUI's answer 400 to a prompt as one error that names every problem, also those that ComfyUI has no words for:
    the other classes that are missing, links in a circle or to what is not there.

    The code is the one the caller can act on: a node pack or a model that is not there comes before a wrong value.
    """
    faults = _refused(error, node_errors, graph, object_info, pack_of)
    if faults:
        return as_error(faults, where)
    why = said_by_comfyui(error) or "it does not say why"
    return MorpheusError(Code.INVALID_WORKFLOW, f"ComfyUI refuses the workflow: {why}")


def _refused(
    error: Mapping[str, Any],
    node_errors: Mapping[str, Any],
    graph: Mapping[str, Any],
    object_info: ObjectInfo,
    pack_of: PackOf,
) -> list[Fault]:
    if error.get("type") == NO_OUTPUTS:
        return [no_outputs()]
    judged = judge(graph, object_info, pack_of=pack_of, advice=False).faults
    ours = [fault for fault in judged if fault.weight is Weight.CERTAIN]
    if any(fault.kind in (MISSING_NODE, BAD_SHAPE) for fault in ours):
        return ours
    theirs = list(_said(node_errors, graph, object_info))
    links = [fault for fault in ours if fault.kind in LINK_FAULTS]
    return links + [fault for fault in theirs if not links or fault.kind not in TRIPPED]


def ignored_outputs(node_errors: Mapping[str, Any], graph: Mapping[str, Any], object_info: ObjectInfo) -> list[str]:
    """Warnings for a prompt that ComfyUI accepted while it drops some of its outputs."""
    problems = [fault.as_problem(lambda *_: None) for fault in _said(node_errors, graph, object_info)]
    return [f"ComfyUI left outputs out: {problem}" for problem in problems]


def from_execution(error: ExecutionError) -> MorpheusError:
    """A node that raised, as an error with the node, the reason, and the end of the traceback in the details."""
    message = shortened(error.exception_message.strip())
    details: dict[str, Any] = {
        "node_id": error.node_id,
        "class_type": error.node_type,
        "exception_type": error.exception_type,
        "exception_message": message,
        "traceback": [shortened(line.rstrip("\n")) for line in error.traceback[-TRACEBACK_LINES:]],
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
    return f"node {error.node_id} ({error.node_type}) did not run: {shortened(error.exception_message.strip())}"


def _said(node_errors: Mapping[str, Any], graph: Mapping[str, Any], object_info: ObjectInfo) -> Iterator[Fault]:
    guesses = Guesses()
    for node_id, told in node_errors.items():
        class_type = str(told.get("class_type") or (graph.get(node_id) or {}).get("class_type") or "?")
        for error in told.get("errors") or ():
            yield from_comfyui(str(node_id), class_type, error, object_info, guesses=guesses)
