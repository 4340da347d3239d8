"""ComfyUI's WebSocket messages as values, in both directions.

Source: ComfyUI 0.3.64, server.py (`send_json`, `encode_bytes`, `send_image`, `send_progress_text`), execution.py,
main.py (`hijack_progress`), comfy_execution/progress.py, protocol.py. Text frames are `{"type": …, "data": {…}}`;
binary frames begin with a big-endian unsigned 32-bit event type.

The worker decodes, the rehearsal engine encodes; `decode(encode(message)) == message` holds for every message.
"""

from __future__ import annotations

import json
import math
import struct
from collections.abc import Callable, Mapping
from typing import Any, Final

from morpheus_worker.comfy.messages import (
    Executed,
    Executing,
    ExecutionCached,
    ExecutionError,
    ExecutionInterrupted,
    ExecutionStart,
    ExecutionSuccess,
    Message,
    NodeProgress,
    NodeState,
    Other,
    Preview,
    ProgressState,
    ProgressText,
    Status,
)

_U32: Final = struct.Struct(">I")
_PREVIEW, _TEXT, _PREVIEW_WITH_METADATA = 1, 3, 4
_IMAGE_FORMATS: Final = {1: "image/jpeg", 2: "image/png"}
_UNKNOWN_FORMAT, _UNKNOWN_MEDIA_TYPE = 0, "application/octet-stream"
_BINARY: Final = "binary:"


class MalformedFrameError(ValueError):
    """A frame that is not one of ComfyUI's: not JSON, not an object, cut short, or without its fields."""


def decode(frame: str | bytes) -> Message:
    """One WebSocket frame as a message.

    Raises:
        MalformedFrameError: when the frame is none of ComfyUI's.
    """
    return _decode_binary(frame) if isinstance(frame, bytes) else _decode_text(frame)


def encode(message: Message) -> str | bytes:
    """A message as the frame that ComfyUI sends for it."""
    if isinstance(message, Preview):
        return _encode_preview(message)
    if isinstance(message, Other) and message.type.startswith(_BINARY):
        return _U32.pack(int(message.type.removeprefix(_BINARY))) + bytes(message.data)
    if isinstance(message, ProgressText):
        node_id = message.node_id.encode()
        return _U32.pack(_TEXT) + _U32.pack(len(node_id)) + node_id + message.text.encode()
    kind, data = _to_json(message)
    return json.dumps({"type": kind, "data": data})


def _decode_text(frame: str) -> Message:
    try:
        said = json.loads(frame)
        kind, data = said["type"], said.get("data")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError):
        raise MalformedFrameError(f"not a ComfyUI message: {frame[:80]!r}") from None
    if not isinstance(kind, str):
        raise MalformedFrameError(f"a message whose type is not text: {frame[:80]!r}")
    return decode_event(kind, data)


def decode_event(kind: str, data: Any) -> Message:
    """A message of a known type from its `data`; history entries hold these pairs too.

    Raises:
        MalformedFrameError: when the data lacks the type's fields.
    """
    reader = _READERS.get(kind)
    if reader is None:
        return Other(kind, data)
    try:
        return reader(data)
    except (TypeError, KeyError, ValueError, AttributeError, OverflowError) as failure:
        raise MalformedFrameError(f"a '{kind}' message without its fields ({failure!r})") from None


def _decode_binary(frame: bytes) -> Message:
    event, rest = _take_u32(frame)
    if event == _PREVIEW:
        image_format, data = _take_u32(rest)
        return Preview(_IMAGE_FORMATS.get(image_format, _UNKNOWN_MEDIA_TYPE), data)
    if event == _PREVIEW_WITH_METADATA:
        raw, data = _take_block(rest)
        try:
            metadata = json.loads(raw)
            return Preview(str(metadata["image_type"]), data, metadata)
        except (ValueError, TypeError, KeyError, RecursionError):
            raise MalformedFrameError("a preview whose metadata cannot be read") from None
    if event == _TEXT:
        node_id, text = _take_block(rest)
        return ProgressText(node_id.decode(errors="replace"), text.decode(errors="replace"))
    return Other(f"{_BINARY}{event}", rest)


def _take_u32(data: bytes) -> tuple[int, bytes]:
    if len(data) < _U32.size:
        raise MalformedFrameError(f"a binary frame cut short at {len(data)} bytes")
    return _U32.unpack_from(data)[0], data[_U32.size :]


def _take_block(data: bytes) -> tuple[bytes, bytes]:
    length, rest = _take_u32(data)
    if len(rest) < length:
        raise MalformedFrameError(f"a binary frame promises {length} bytes and has {len(rest)}")
    return rest[:length], rest[length:]


def _encode_preview(message: Preview) -> bytes:
    if message.metadata is not None:
        raw = json.dumps(dict(message.metadata)).encode()
        return _U32.pack(_PREVIEW_WITH_METADATA) + _U32.pack(len(raw)) + raw + message.data
    formats = {name: number for number, name in _IMAGE_FORMATS.items()}
    return _U32.pack(_PREVIEW) + _U32.pack(formats.get(message.media_type, _UNKNOWN_FORMAT)) + message.data


def _text(value: object) -> str:
    """A field that must be text. Any node pack can send any frame, so a field is what it is found to be."""
    if not isinstance(value, str):
        raise TypeError(f"{value!r} is no text")
    return value


def _text_or_none(value: object) -> str | None:
    return None if value is None else _text(value)


def _whole_or_none(value: object) -> int | None:
    return value if isinstance(value, int) else None


def _texts(value: object) -> tuple[str, ...]:
    if not isinstance(value, (list, tuple)):
        raise TypeError(f"{value!r} is no list")
    return tuple(_text(item) for item in value)


def _number(value: object) -> float:
    if isinstance(value, bool) or not isinstance(value, (int, float)):
        raise TypeError(f"{value!r} is no number")
    number = float(value)
    if not math.isfinite(number):
        raise ValueError(f"{value!r} is not finite")
    return number


def _read_status(data: Any) -> Status:
    return Status(int(data["status"]["exec_info"]["queue_remaining"]), _text_or_none(data.get("sid")))


def _read_progress_state(data: Any) -> ProgressState:
    nodes = {
        _text(node_id): NodeState(_number(line["value"]), _number(line["max"]), _text(line["state"]))
        for node_id, line in data["nodes"].items()
    }
    return ProgressState(_text(data["prompt_id"]), nodes)


def _read_executing(data: Any) -> Executing:
    return Executing(
        _text_or_none(data.get("prompt_id")), _text_or_none(data["node"]), _text_or_none(data.get("display_node"))
    )


def _read_progress(data: Any) -> NodeProgress:
    return NodeProgress(
        _text_or_none(data.get("prompt_id")),
        _text_or_none(data.get("node")),
        _number(data["value"]),
        _number(data["max"]),
    )


def _read_executed(data: Any) -> Executed:
    output = data["output"]
    if output is not None and not isinstance(output, Mapping):
        raise TypeError("an output that is no object")
    return Executed(_text(data["prompt_id"]), _text(data["node"]), output, _text_or_none(data.get("display_node")))


def _read_error(data: Any) -> ExecutionError:
    return ExecutionError(
        prompt_id=_text(data["prompt_id"]),
        node_id=str(data["node_id"]),
        node_type=str(data["node_type"]),
        exception_type=str(data["exception_type"]),
        exception_message=str(data["exception_message"]),
        traceback=_texts(data.get("traceback") or ()),
        executed=_texts(data.get("executed") or ()),
    )


def _read_interrupted(data: Any) -> ExecutionInterrupted:
    return ExecutionInterrupted(
        _text(data["prompt_id"]),
        _text_or_none(data.get("node_id")),
        _text_or_none(data.get("node_type")),
        _texts(data.get("executed") or ()),
    )


_READERS: Final[Mapping[str, Callable[[Any], Message]]] = {
    "status": _read_status,
    "execution_start": lambda data: ExecutionStart(_text(data["prompt_id"]), _whole_or_none(data.get("timestamp"))),
    "execution_cached": lambda data: ExecutionCached(_text(data["prompt_id"]), _texts(data["nodes"])),
    "executing": _read_executing,
    "progress": _read_progress,
    "progress_state": _read_progress_state,
    "executed": _read_executed,
    "execution_success": lambda data: ExecutionSuccess(_text(data["prompt_id"])),
    "execution_error": _read_error,
    "execution_interrupted": _read_interrupted,
}


def _to_json(message: Message) -> tuple[str, Any]:
    match message:
        case Status(queue_remaining, sid):
            status = {"status": {"exec_info": {"queue_remaining": queue_remaining}}}
            return "status", status | ({"sid": sid} if sid is not None else {})
        case ExecutionStart(prompt_id, timestamp_ms):
            told = {"timestamp": timestamp_ms} if timestamp_ms is not None else {}
            return "execution_start", {"prompt_id": prompt_id} | told
        case ExecutionCached(prompt_id, nodes):
            return "execution_cached", {"nodes": list(nodes), "prompt_id": prompt_id}
        case Executing(prompt_id, node, display_node):
            shown = {"display_node": display_node} if display_node is not None else {}
            asked = {"prompt_id": prompt_id} if prompt_id is not None else {}
            return "executing", {"node": node} | shown | asked
        case NodeProgress(prompt_id, node, value, maximum):
            return "progress", {"value": value, "max": maximum, "prompt_id": prompt_id, "node": node}
        case ProgressState(prompt_id, states):
            return "progress_state", {"prompt_id": prompt_id, "nodes": _state_lines(prompt_id, states)}
        case Executed(prompt_id, node, output, display_node):
            shown = {"display_node": display_node} if display_node is not None else {}
            return "executed", {"node": node} | shown | {"output": output, "prompt_id": prompt_id}
        case ExecutionSuccess(prompt_id):
            return "execution_success", {"prompt_id": prompt_id}
        case ExecutionError():
            return "execution_error", _error_fields(message)
        case ExecutionInterrupted():
            return "execution_interrupted", _error_fields(message)
        case Other(kind, data):
            return kind, data
        case Preview() | ProgressText():
            raise TypeError(f"{type(message).__name__} is a binary message")


def _state_lines(prompt_id: str, states: Mapping[str, NodeState]) -> dict[str, Any]:
    return {
        node_id: {
            "value": line.value,
            "max": line.max,
            "state": line.state,
            "node_id": node_id,
            "prompt_id": prompt_id,
            "display_node_id": node_id,
            "parent_node_id": None,
            "real_node_id": node_id,
        }
        for node_id, line in states.items()
    }


def _error_fields(message: ExecutionError | ExecutionInterrupted) -> dict[str, Any]:
    return {
        name: list(value) if isinstance(value := getattr(message, name), tuple) else value
        for name in message.__dataclass_fields__
    }
