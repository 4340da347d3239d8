"""Shapes of what ComfyUI says: which fields, of which types, whatever the values.

More fields than these are no fault: versions add some.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import Any, Final

from morpheus_worker.comfy.codec import decode, encode
from morpheus_worker.comfy.messages import Executed, Message, Other, Preview, ProgressText, Status

from .model import Frame, Recording

Shape = Any
"""A type, a tuple of types, None for null, a mapping of field → shape, or a one-element list for a list of that."""

NUMBER: Final = (int, float)
TEXT_OR_NULL: Final = (str, type(None))

STATUS: Final = {"status": {"exec_info": {"queue_remaining": int}}}

NODE_STATE: Final = {
    "value": NUMBER,
    "max": NUMBER,
    "state": str,
    "node_id": str,
    "prompt_id": str,
    "display_node_id": str,
    "parent_node_id": TEXT_OR_NULL,
    "real_node_id": str,
}

MESSAGES: Final[Mapping[str, Shape]] = {
    "status": STATUS,
    "execution_start": {"prompt_id": str, "timestamp": int},
    "execution_cached": {"prompt_id": str, "nodes": [str], "timestamp": int},
    "executing": {"node": TEXT_OR_NULL},
    "progress": {"prompt_id": str, "node": str, "value": NUMBER, "max": NUMBER},
    "progress_state": {"prompt_id": str, "nodes": dict},
    "executed": {"prompt_id": str, "node": str, "display_node": str, "output": (dict, type(None))},
    "execution_success": {"prompt_id": str, "timestamp": int},
    "execution_error": {
        "prompt_id": str,
        "node_id": str,
        "node_type": str,
        "executed": [str],
        "exception_message": str,
        "exception_type": str,
        "traceback": [str],
        "current_inputs": dict,
        "current_outputs": [str],
        "timestamp": int,
    },
    "execution_interrupted": {
        "prompt_id": str,
        "node_id": str,
        "node_type": str,
        "executed": [str],
        "timestamp": int,
    },
    "feature_flags": dict,
}

HISTORY: Final = {"prompt": list, "outputs": dict, "meta": dict, "status": {"status_str": str, "completed": bool}}
META: Final = {"node_id": str, "display_node": str, "parent_node": TEXT_OR_NULL, "real_node_id": str}
FILE: Final = {"filename": str, "subfolder": str, "type": str}
ERROR: Final = {"type": str, "message": str, "details": str, "extra_info": dict}

EXTRA_INFO: Final[Mapping[str, set[str]]] = {
    "required_input_missing": {"input_name"},
    "value_smaller_than_min": {"input_name", "input_config", "received_value"},
    "value_bigger_than_max": {"input_name", "input_config", "received_value"},
    "value_not_in_list": {"input_name", "input_config", "received_value"},
    "invalid_input_type": {"input_name", "input_config", "received_value", "exception_message"},
    "return_type_mismatch": {"input_name", "input_config", "received_type", "linked_node"},
    "bad_linked_input": {"input_name", "input_config", "received_value"},
    "custom_validation_failed": {"input_name"},
    "exception_during_validation": {"exception_type", "traceback"},
}


def check(value: Any, shape: Shape, at: str) -> None:
    """Asserts that `value` has the shape; `at` says in the message what is looked at."""
    if isinstance(shape, Mapping):
        assert isinstance(value, Mapping), f"{at} is {type(value).__name__}, not an object"
        for name, inner in shape.items():
            assert name in value, f"{at} lacks '{name}'; it has {sorted(value)}"
            check(value[name], inner, f"{at}.{name}")
    elif isinstance(shape, list):
        assert isinstance(value, Sequence), f"{at} is {type(value).__name__}, not a list"
        for index, inner in enumerate(value):
            check(inner, shape[0], f"{at}[{index}]")
    else:
        is_number = isinstance(value, bool) and bool not in _types(shape)
        assert isinstance(value, shape), f"{at} is {value!r}"
        assert not is_number, f"{at} is {value!r}"


def _types(shape: Any) -> tuple[type, ...]:
    return shape if isinstance(shape, tuple) else (shape,)


def check_frames(recording: Recording) -> None:
    """Every frame is well formed, decodes into the message it should be, and survives the codec.

    The first that a client hears is the queue's length with its own id; later ones come without an id.
    """
    heard: set[str] = set()
    for frame in recording.frames():
        message = frame.message
        if isinstance(message, Status) or frame.client not in heard:
            assert isinstance(message, Status), f"client {frame.client} is greeted with {message}"
            assert (message.sid is None) == (frame.client in heard), f"client {frame.client} hears {message}"
            heard.add(frame.client)
        if frame.type is None:
            assert isinstance(message, Preview | ProgressText), f"an unknown binary frame: {message}"
        else:
            check_text_frame(frame, frame.type, message)
        assert decode(encode(message)) == message, f"the codec loses something of {message}"


def check_text_frame(frame: Frame, kind: str, message: Message) -> None:
    assert kind in MESSAGES, f"an unknown message: {frame.content}"
    check(frame.data, MESSAGES[kind], f"'{kind}'")
    if kind == "feature_flags":
        assert isinstance(message, Other)
        return
    as_class = "NodeProgress" if kind == "progress" else re.sub(r"(?:^|_)(.)", _upper, kind)
    assert type(message).__name__ == as_class
    if kind == "progress_state":
        check_progress_state(frame)
    if isinstance(message, Executed):
        assert frame.data["display_node"] == message.node


def check_progress_state(frame: Frame) -> None:
    for node_id, state in frame.data["nodes"].items():
        check(state, NODE_STATE, f"progress_state of node {node_id}")
        assert state["node_id"] == node_id
        assert state["prompt_id"] == frame.data["prompt_id"]
        assert state["state"] in ("running", "finished", "error"), "pending nodes are not sent"
        assert 0 <= state["value"] <= state["max"]


def check_error(error: Any, at: str) -> None:
    check(error, ERROR, at)
    expected = EXTRA_INFO.get(error["type"], set())
    assert expected <= set(error["extra_info"]), f"{at}.extra_info has {sorted(error['extra_info'])}"


def _upper(match: re.Match[str]) -> str:
    return match.group(1).upper()
