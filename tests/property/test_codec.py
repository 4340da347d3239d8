"""The message codec, whatever the message and whatever the frame."""

from __future__ import annotations

import json
import math
import struct
from typing import Any

from hypothesis import example, given
from hypothesis import strategies as st

from morpheus_worker.comfy.codec import MalformedFrameError, decode, encode
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

KNOWN = [
    "status",
    "execution_start",
    "execution_cached",
    "executing",
    "progress",
    "progress_state",
    "executed",
    "execution_success",
    "execution_error",
    "execution_interrupted",
]

TEXT = st.text(max_size=20)
IDS = st.text("0123456789.abc", min_size=1, max_size=6)
NUMBERS = st.floats(allow_nan=False, allow_infinity=False)
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | NUMBERS | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(TEXT, JSON, max_size=3)
TUPLES = st.lists(IDS, max_size=4).map(tuple)

MESSAGES: st.SearchStrategy[Message] = st.one_of(
    st.builds(Status, st.integers(min_value=0), st.none() | TEXT),
    st.builds(ExecutionStart, IDS),
    st.builds(ExecutionCached, IDS, TUPLES),
    st.builds(Executing, st.none() | IDS, st.none() | IDS, st.none() | IDS),
    st.builds(NodeProgress, st.none() | IDS, st.none() | IDS, NUMBERS, NUMBERS),
    st.builds(
        ProgressState, IDS, st.dictionaries(IDS, st.builds(NodeState, NUMBERS, NUMBERS, st.sampled_from(["running"])))
    ),
    st.builds(Executed, IDS, IDS, st.none() | OBJECTS, st.none() | IDS),
    st.builds(ExecutionSuccess, IDS),
    st.builds(ExecutionError, IDS, IDS, TEXT, TEXT, TEXT, st.lists(TEXT, max_size=3).map(tuple), TUPLES),
    st.builds(ExecutionInterrupted, IDS, st.none() | IDS, st.none() | TEXT, TUPLES),
    st.builds(Preview, st.sampled_from(["image/jpeg", "image/png"]), st.binary(max_size=40)),
    st.builds(
        lambda media_type, data, more: Preview(media_type, data, {**more, "image_type": media_type}),
        st.sampled_from(["image/jpeg", "image/png"]),
        st.binary(max_size=40),
        OBJECTS,
    ),
    st.builds(ProgressText, TEXT, TEXT),
    st.builds(Other, TEXT.filter(lambda kind: kind not in KNOWN and not kind.startswith("binary:")), JSON),
)

ODD_JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.just(10**400) | st.floats() | TEXT,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXT, inner, max_size=3),
    max_leaves=6,
)
FIELDS = [
    "prompt_id",
    "node",
    "nodes",
    "output",
    "value",
    "max",
    "status",
    "sid",
    "exec_info",
    "queue_remaining",
    "state",
    "display_node",
    "node_id",
    "node_type",
    "exception_type",
    "exception_message",
    "traceback",
    "executed",
]
ODD_DATA = st.recursive(
    ODD_JSON,
    lambda inner: st.dictionaries(st.sampled_from(FIELDS), inner, max_size=6) | st.dictionaries(IDS, inner, max_size=2),
    max_leaves=12,
)


@given(MESSAGES)
def test_a_message_survives_the_wire(message: Message) -> None:
    assert decode(encode(message)) == message


@given(st.integers(0, 2**32 - 1), st.binary(max_size=8))
@example(99, b"abc")
def test_a_binary_frame_of_any_kind_survives_the_wire(event: int, rest: bytes) -> None:
    frame = struct.pack(">I", event) + rest
    try:
        message = decode(frame)
    except MalformedFrameError:
        return
    assert decode(encode(message)) == message


@given(st.text(st.characters(exclude_categories=())) | st.binary())
def test_a_frame_is_a_message_or_malformed(frame: str | bytes) -> None:
    assert_read_or_refused(frame)


@given(st.sampled_from(KNOWN), ODD_DATA)
@example("status", {"status": {"exec_info": {"queue_remaining": math.inf}}})
@example("progress", {"prompt_id": "p", "node": "1", "value": 10**400, "max": 1})
@example("execution_start", {"prompt_id": ["p"]})
def test_an_event_with_any_data_is_a_message_or_malformed(kind: str, data: Any) -> None:
    assert_read_or_refused(json.dumps({"type": kind, "data": data}))


@given(
    st.sampled_from([1, 2, 3, 4]),
    st.binary(max_size=12)
    | st.builds(lambda n, b: struct.pack(">I", n) + b, st.integers(0, 12), st.binary(max_size=12)),
)
def test_a_binary_event_with_any_rest_is_a_message_or_malformed(event: int, rest: bytes) -> None:
    assert_read_or_refused(struct.pack(">I", event) + rest)


def assert_read_or_refused(frame: str | bytes) -> None:
    try:
        message = decode(frame)
    except MalformedFrameError:
        return
    prompt_id = prompt_of(message)
    assert prompt_id is None or isinstance(prompt_id, str)
