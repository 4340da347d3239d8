"""Whatever arrives, it is judged or refused, and little of it is read."""

from __future__ import annotations

import io
import json
import pickle
import random
import struct
import zipfile
from collections.abc import Callable

from hypothesis import given
from hypothesis import strategies as st

from morpheus_worker.sync.containers import MAX_HEADER_BYTES, MAX_LIST_BYTES
from morpheus_worker.sync.formats import HEAD_BYTES, judge
from morpheus_worker.sync.terms import SyncCode, SyncError

NAMES = st.sampled_from(["a.safetensors", "a.ckpt", "a.bin", "a.onnx", "a.gguf", "a.json", "a.npz", "a.h5", "a", ""])
SAID = st.sampled_from([None, "safetensors", "pickle", "torchscript", "onnx", "gguf", "keras", ""])


def archive() -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as into:
        into.writestr("archive/data.pkl", pickle.dumps([1, 2], 2))
        into.writestr("archive/data/0", b"0" * 100)
    return file.getvalue()


def safetensors() -> bytes:
    header = json.dumps({"a": {"dtype": "F32", "shape": [2, 2], "data_offsets": [0, 16]}}).encode()
    return struct.pack("<Q", len(header)) + header + b"0" * 16


SEEDS = [
    archive(),
    safetensors(),
    *(pickle.dumps({"a": (1, "b")}, protocol) for protocol in range(6)),
    b"\x08\x08\x12\x02me\x3a\x05graph\x42\x02\x10\x0d",
    b"GGUF\3\0\0\0" + bytes(20),
    b"\x93NUMPY\1\0v\0{'descr': '<f8', }",
    b"<!DOCTYPE html><html>",
    b'{"error": 1}',
]


FINE = (None, SyncCode.REJECTED)


def refusal(look: Callable[[], object]) -> SyncCode | None:
    try:
        look()
    except SyncError as failure:
        return failure.code
    return None


@st.composite
def contents(draw: st.DrawFn) -> bytes:
    """Anything, or something that was right before bytes of it were changed, cut off or added."""
    if draw(st.booleans()):
        return draw(st.binary(max_size=300))
    content = bytearray(draw(st.sampled_from(SEEDS)))
    for _ in range(draw(st.integers(0, 4))):
        if content:
            at = draw(st.integers(0, len(content) - 1))
            content[at : at + draw(st.integers(0, 3))] = draw(st.binary(max_size=4))
    return bytes(content[: draw(st.integers(0, len(content)))] if draw(st.booleans()) else content)


@given(contents(), NAMES, SAID, st.booleans(), st.sampled_from([8, 64, HEAD_BYTES]))
def test_it_is_judged_or_refused(content: bytes, name: str, said: str | None, allow: bool, head: int) -> None:
    def read_at(at: int, count: int) -> bytes:
        assert at >= 0
        assert at + count <= len(content)
        return content[at : at + count]

    size = len(content)
    begun = content[:head]
    assert refusal(lambda: judge(begun, size, name=name, format=said, allow_pickle=allow, read_at=read_at)) in FINE


@given(contents(), st.integers(0, 1 << 62), NAMES, SAID)
def test_no_size_makes_it_read_much(content: bytes, more: int, name: str, said: str | None) -> None:
    """A file that is as long as it says, and whose further bytes are anything."""
    size = len(content) + more
    read = 0

    def read_at(at: int, count: int) -> bytes:
        nonlocal read
        assert 0 <= at <= at + count <= size
        read += count
        assert read <= MAX_HEADER_BYTES + MAX_LIST_BYTES + 2 * 65536
        return random.Random(at).randbytes(count) if count < 1 << 20 else bytes(count)

    head = content[:HEAD_BYTES]
    assert refusal(lambda: judge(head, size, name=name, format=said, allow_pickle=True, read_at=read_at)) in FINE
