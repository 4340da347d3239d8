"""ComfyUI's frames as it sends them, and what is made of those that are none."""

from __future__ import annotations

import json
import struct
from typing import Any

import pytest

from morpheus_worker.comfy.codec import MalformedFrameError, decode, decode_event, encode
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
    prompt_of,
)

# (type, data as ComfyUI 0.3.64 sends it, message)
EVENTS: list[tuple[str, dict[str, Any], Message]] = [
    ("status", {"status": {"exec_info": {"queue_remaining": 2}}}, Status(2)),
    ("status", {"status": {"exec_info": {"queue_remaining": 0}}, "sid": "ab12"}, Status(0, "ab12")),
    ("execution_start", {"prompt_id": "p", "timestamp": 1}, ExecutionStart("p")),
    ("execution_cached", {"nodes": ["1", "2"], "prompt_id": "p", "timestamp": 1}, ExecutionCached("p", ("1", "2"))),
    ("execution_cached", {"nodes": [], "prompt_id": "p", "timestamp": 1}, ExecutionCached("p")),
    ("executing", {"node": "3", "display_node": "3", "prompt_id": "p"}, Executing("p", "3", "3")),
    ("executing", {"node": None, "prompt_id": "p"}, Executing("p", None)),
    ("executing", {"node": "3"}, Executing(None, "3")),
    ("progress", {"value": 3, "max": 20, "prompt_id": "p", "node": "3"}, NodeProgress("p", "3", 3.0, 20.0)),
    ("progress", {"value": 3, "max": 20, "prompt_id": None, "node": None}, NodeProgress(None, None, 3.0, 20.0)),
    (
        "progress_state",
        {
            "prompt_id": "p",
            "nodes": {
                "3": {
                    "value": 1.5,
                    "max": 20.0,
                    "state": "running",
                    "node_id": "3",
                    "prompt_id": "p",
                    "display_node_id": "3",
                    "parent_node_id": None,
                    "real_node_id": "3",
                }
            },
        },
        ProgressState("p", {"3": NodeState(1.5, 20.0, "running")}),
    ),
    (
        "executed",
        {"node": "9", "display_node": "9", "output": {"images": [{"filename": "x.png"}]}, "prompt_id": "p"},
        Executed("p", "9", {"images": [{"filename": "x.png"}]}, "9"),
    ),
    ("executed", {"node": "9", "display_node": "9", "output": None, "prompt_id": "p"}, Executed("p", "9", None, "9")),
    ("execution_success", {"prompt_id": "p", "timestamp": 1}, ExecutionSuccess("p")),
    (
        "execution_error",
        {
            "prompt_id": "p",
            "node_id": "3",
            "node_type": "KSampler",
            "executed": ["1"],
            "exception_message": "no",
            "exception_type": "RuntimeError",
            "traceback": ["  File\n"],
            "current_inputs": {"seed": [1]},
            "current_outputs": ["1"],
            "timestamp": 1,
        },
        ExecutionError("p", "3", "KSampler", "RuntimeError", "no", ("  File\n",), ("1",)),
    ),
    (
        "execution_interrupted",
        {"prompt_id": "p", "node_id": "3", "node_type": "KSampler", "executed": ["1"], "timestamp": 1},
        ExecutionInterrupted("p", "3", "KSampler", ("1",)),
    ),
    ("feature_flags", {"supports_preview_metadata": True}, Other("feature_flags", {"supports_preview_metadata": True})),
    ("a.pack's.own", {"anything": [1]}, Other("a.pack's.own", {"anything": [1]})),
]


def u32(number: int) -> bytes:
    return struct.pack(">I", number)


FRAMES: list[tuple[bytes, Message]] = [
    (u32(1) + u32(1) + b"\xff\xd8jpeg", Preview("image/jpeg", b"\xff\xd8jpeg")),
    (u32(1) + u32(2) + b"\x89PNG", Preview("image/png", b"\x89PNG")),
    (u32(3) + u32(2) + b"12" + "läuft".encode(), ProgressText("12", "läuft")),
    (
        u32(4) + u32(41) + b'{"image_type": "image/png", "node": "12"}' + b"\x89PNG",
        Preview("image/png", b"\x89PNG", {"image_type": "image/png", "node": "12"}),
    ),
]


@pytest.mark.parametrize(("kind", "data", "message"), EVENTS)
def test_an_event_as_comfyui_sends_it(kind: str, data: dict[str, Any], message: Message) -> None:
    assert decode(json.dumps({"type": kind, "data": data})) == message
    assert decode_event(kind, data) == message


@pytest.mark.parametrize(("kind", "data", "message"), EVENTS)
def test_an_encoded_event_has_all_that_comfyui_sends_of_it(kind: str, data: dict[str, Any], message: Message) -> None:
    """Apart from what only ComfyUI knows: the moment, and the values that a failed node was given."""
    said = json.loads(encode(message))
    assert said["type"] == kind
    unknowable = {"timestamp", "current_inputs", "current_outputs"}
    assert said["data"] == {key: value for key, value in data.items() if key not in unknowable}


@pytest.mark.parametrize(("frame", "message"), FRAMES)
def test_a_binary_frame_as_comfyui_sends_it(frame: bytes, message: Message) -> None:
    assert decode(frame) == message
    assert encode(message) == frame


def test_a_binary_event_nobody_knows_is_other() -> None:
    assert decode(u32(99) + b"abc") == Other("binary:99", b"abc")
    assert decode(u32(1) + u32(77) + b"abc") == Preview("application/octet-stream", b"abc")


def test_the_prompt_a_message_speaks_of() -> None:
    assert prompt_of(ExecutionStart("p")) == "p"
    assert prompt_of(Executing(None, "3")) is None
    assert prompt_of(Status(1)) is None
    assert prompt_of(Preview("image/png", b"")) is None
    assert prompt_of(Other("x", {"prompt_id": "p"})) is None


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "no json",
        "7",
        "null",
        "[]",
        '"status"',
        "{}",
        '{"type": 7, "data": {}}',
        '{"data": {}}',
        '{"type": null}',
        "[" * 100_000,
        '{"type": "status"}',
        '{"type": "status", "data": {"status": null}}',
        '{"type": "status", "data": {"status": {"exec_info": {"queue_remaining": "many"}}}}',
        '{"type": "execution_start", "data": {}}',
        '{"type": "execution_start", "data": null}',
        '{"type": "execution_start", "data": []}',
        '{"type": "executing", "data": {"prompt_id": "p"}}',
        '{"type": "progress", "data": {"value": "x", "max": 1}}',
        '{"type": "progress", "data": {"max": 1}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": []}}',
        '{"type": "progress_state", "data": {"prompt_id": "p", "nodes": {"1": {}}}}',
        '{"type": "execution_error", "data": {"prompt_id": "p"}}',
        b"",
        b"\x00\x00\x00",
        u32(1),
        u32(1) + b"\x00",
        u32(3) + u32(5) + b"1234",
        u32(4) + u32(2) + b"{",
        u32(4) + u32(2) + b"{}" + b"\x89PNG",
        u32(4) + u32(2) + b"[]",
        u32(4) + u32(2) + b"\xff\xff",
    ],
)
def test_what_is_no_frame_of_comfyuis_is_malformed(frame: str | bytes) -> None:
    with pytest.raises(MalformedFrameError) as refused:
        decode(frame)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("kind", "data"),
    [
        ("execution_start", {"prompt_id": ["p"]}),
        ("execution_start", {"prompt_id": None}),
        ("execution_success", {"prompt_id": {"p": 1}}),
        ("execution_cached", {"prompt_id": "p", "nodes": "12"}),
        ("execution_cached", {"prompt_id": "p", "nodes": [["1"]]}),
        ("executing", {"prompt_id": ["p"], "node": "1"}),
        ("executing", {"prompt_id": "p", "node": {"1": 2}}),
        ("executed", {"prompt_id": "p", "node": ["1"], "output": {}}),
        ("executed", {"prompt_id": "p", "node": "1", "output": [1]}),
        ("progress", {"prompt_id": ["p"], "node": "1", "value": 1, "max": 2}),
        ("progress_state", {"prompt_id": ["p"], "nodes": {}}),
        ("execution_interrupted", {"prompt_id": ["p"]}),
        ("status", {"status": {"exec_info": {"queue_remaining": float("inf")}}}),
        ("progress", {"prompt_id": "p", "node": "1", "value": float("nan"), "max": 2}),
        ("progress", {"prompt_id": "p", "node": "1", "value": 1, "max": float("inf")}),
        ("progress", {"prompt_id": "p", "node": "1", "value": 10**400, "max": 2}),
        ("progress_state", {"prompt_id": "p", "nodes": {"1": {"value": float("nan"), "max": 1, "state": "running"}}}),
    ],
)
def test_a_field_of_another_type_is_malformed(kind: str, data: dict[str, Any]) -> None:
    """Whoever takes in a message relies on its types: a list is no key of a table, and no NaN is a step."""
    with pytest.raises(MalformedFrameError):
        decode(json.dumps({"type": kind, "data": data}))
