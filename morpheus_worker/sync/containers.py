"""What the formats of model files look like from inside: as little of each is read as tells it apart.

Sources: safetensors 0.5 (README and `tensor.rs`), GGUF's specification (ggml), onnx.proto of ONNX 1.17, PKWARE's
APPNOTE (zip), PyTorch's `serialization.py` and `caffe2/serialize`, CPython's `pickletools`, NumPy's `lib/format.py`.
"""

from __future__ import annotations

import io
import json
import pickletools
import re
import struct
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Final

MAX_HEADER_BYTES: Final = 100_000_000
"""Of a safetensors file, as its reference implementation has it."""

MAX_LIST_BYTES: Final = 64 * 1024 * 1024
"""Of a zip archive's list of contents; a checkpoint's takes some 100 bytes a tensor."""

HEAD_BYTES: Final = 4096
"""How many of a file's first bytes are looked at where a format has no list of its contents."""

ReadAt = Callable[[int, int], bytes]
"""Reads so many bytes (the second) from there on (the first); fewer only at the file's end."""


class BrokenError(Exception):
    """A file that is not what it begins as. The message is a phrase about it: "ends in the middle of a tensor"."""


class UnseenError(Exception):
    """The bytes that would tell are out of reach."""


class Sight:
    """A file of `size` bytes as it is looked at. `read_at` is None where nothing but `head` can be seen of it."""

    def __init__(self, head: bytes, size: int, read_at: ReadAt | None) -> None:
        self.size = size
        self.head = head[:HEAD_BYTES]
        self._known, self._read_at = head[:size], read_at

    def read(self, at: int, count: int) -> bytes:
        """
        Raises:
            BrokenError: when the file does not go so far.
            UnseenError: when it does, and cannot be seen so far.
        """
        if at < 0 or count < 0 or at + count > self.size:
            raise BrokenError("is cut short")
        if at + count <= len(self._known):
            return self._known[at : at + count]
        if self._read_at is None:
            raise UnseenError
        read = self._read_at(at, count)
        if len(read) != count:
            raise BrokenError("became shorter while it was looked at")
        return read

    def number(self, at: int, count: int) -> int:
        """An unsigned integer, little-endian."""
        return int.from_bytes(self.read(at, count), "little")


# safetensors: eight bytes of length, a header in JSON, the tensors without a gap.

_DTYPE_BITS: Final[Mapping[str, int]] = {
    "F4": 4, "F6_E2M3": 6, "F6_E3M2": 6,
    "BOOL": 8, "U8": 8, "I8": 8, "F8_E5M2": 8, "F8_E4M3": 8, "F8_E8M0": 8,
    "I16": 16, "U16": 16, "F16": 16, "BF16": 16,
    "I32": 32, "U32": 32, "F32": 32,
    "I64": 64, "U64": 64, "F64": 64, "C64": 64,
}  # fmt: skip


class _Pairs(tuple[tuple[str, Any], ...]):
    """A JSON object with every key that it has, twice where it stands twice."""


def could_be_safetensors(sight: Sight) -> bool:
    length = int.from_bytes(sight.head[:8], "little")
    return sight.head[8:9] == b"{" and 2 <= length <= min(MAX_HEADER_BYTES, sight.size - 8)


def check_safetensors(sight: Sight) -> None:
    """
    Raises:
        BrokenError: when the reference implementation would refuse it, or the file does not end with its last tensor.
    """
    if sight.size < 8:
        raise BrokenError("is too short for a safetensors file")
    length = sight.number(0, 8)
    if length > MAX_HEADER_BYTES:
        raise BrokenError("is no safetensors file: its header would be longer than any may be")
    if length > sight.size - 8:
        raise BrokenError("is no safetensors file, or cut short: it ends before its header does")
    try:
        header = sight.read(8, length)
    except UnseenError:
        return
    end = 0
    for start, stop in sorted(_spans(_header(header))):
        if start != end:
            raise BrokenError("is a broken safetensors file: its tensors overlap, or leave a gap")
        end = stop
    if end != sight.size - 8 - length:
        raise BrokenError(f"is a broken safetensors file: {sight.size} bytes, and {8 + length + end} by its header")


def _header(text: bytes) -> _Pairs:
    if text[:1] != b"{":
        raise BrokenError("is no safetensors file: its header is not JSON")
    try:
        header = json.loads(text.decode("utf-8"), object_pairs_hook=_Pairs)
    except (ValueError, RecursionError):
        raise BrokenError("is no safetensors file: its header is not JSON") from None
    return header if isinstance(header, _Pairs) else _Pairs()


def _spans(header: _Pairs) -> Iterator[tuple[int, int]]:
    for name, told in header:
        if name == "__metadata__":
            if told is not None and not isinstance(told, _Pairs):
                raise BrokenError("is a broken safetensors file: its metadata are no object")
            continue
        match dict(told) if isinstance(told, _Pairs) else None:
            case {"dtype": str(dtype), "shape": [*shape], "data_offsets": [start, stop]}:
                if type(start) is not int or type(stop) is not int or not 0 <= start <= stop:
                    raise BrokenError("is a broken safetensors file: a tensor lies nowhere")
                if not _fits(dtype, shape, stop - start):
                    raise BrokenError("is a broken safetensors file: a tensor's shape and its bytes do not agree")
                yield start, stop
            case _:
                raise BrokenError("is a broken safetensors file: its header describes something that is no tensor")


def _fits(dtype: str, shape: list[Any], count: int) -> bool:
    elements = 1
    for each in shape:
        if type(each) is not int or each < 0:
            return False
        elements *= each
        if elements >= 1 << 64:
            return False
    bits = _DTYPE_BITS.get(dtype)
    return bits is None or elements * bits == count * 8


# zip: the list of contents stands at the end.

_END: Final = b"PK\x05\x06"
_MOST_COMMENT: Final = 65535
_PICKLED: Final = (".pkl", ".pickle", ".pt", ".pth", ".ckpt", ".bin", ".joblib")


def zip_kind(sight: Sight) -> str | None:
    """`torchscript`, `pickle` for an archive with a pickle in it, `zip` for one without, `archive` for one that two
    readers might read differently; None when it is no zip archive.

    Raises:
        BrokenError: when its list of contents cannot be read.
    """
    if sight.head[:4] not in (b"PK\x03\x04", _END):
        return None
    try:
        names = _names(sight)
    except UnseenError:
        return "archive"
    if names is None:
        return "archive"
    if any(name.endswith("constants.pkl") or "/code/" in name for name in names):
        return "torchscript"
    return "pickle" if any(name.endswith(_PICKLED) for name in names) else "zip"


def _names(sight: Sight) -> list[str] | None:
    """The names in the list of contents, in lower case as PyTorch compares them; None when there may be two lists."""
    tail_at = max(0, sight.size - 22 - _MOST_COMMENT)
    tail = sight.read(tail_at, sight.size - tail_at)
    if (found := tail.rfind(_END)) < 0 or len(tail) - found < 22:
        raise BrokenError("is a zip archive that is cut short")
    comment_bytes = int.from_bytes(tail[found + 20 : found + 22], "little")
    if tail.count(_END) > 1 or found + 22 + comment_bytes != len(tail):
        return None
    length, at = struct.unpack("<II", tail[found + 12 : found + 20])
    if 0xFFFFFFFF in (length, at):
        length, at = _large_list(sight, tail_at + found)
    if length > MAX_LIST_BYTES:
        raise BrokenError("is a zip archive with a list of contents that is too long")
    return list(_listed(sight.read(at, length)))


def _large_list(sight: Sight, end_at: int) -> tuple[int, int]:
    """Where the list is by the records of archives above 4 GiB."""
    locator = sight.read(end_at - 20, 20)
    if locator[:4] != b"PK\x06\x07":
        raise BrokenError("is a broken zip archive")
    record = sight.read(int.from_bytes(locator[8:16], "little"), 56)
    if record[:4] != b"PK\x06\x06":
        raise BrokenError("is a broken zip archive")
    length, at = struct.unpack("<QQ", record[40:56])
    return length, at


def _listed(contents: bytes) -> Iterator[str]:
    at = 0
    while at < len(contents):
        if contents[at : at + 4] != b"PK\x01\x02" or at + 46 > len(contents):
            raise BrokenError("is a broken zip archive")
        name_bytes, extra_bytes, comment_bytes = struct.unpack("<HHH", contents[at + 28 : at + 34])
        yield contents[at + 46 : at + 46 + name_bytes].decode("utf-8", errors="replace").lower()
        at += 46 + name_bytes + extra_bytes + comment_bytes


# pickle: a program for a small machine.

_MOST_STEPS: Final = 16
_NUMBER: Final = re.compile(rb"\s*[+-]?[\w.+-]+\s*\n")
_DOTTED: Final = re.compile(r"[^\W\d]\w*(?:\.[^\W\d]\w*)*")


def is_pickle(sight: Sight) -> bool:
    """Whether an unpickler would take it: for protocols before 2, which have no signature, whether its first steps
    make sense. A file that begins with a value larger than what is looked at counts."""
    if sight.head[:1] == b"\x80":
        return len(sight.head) > 1 and sight.head[1] <= 9
    stream = io.BytesIO(sight.head)
    stack: list[object] = []
    try:
        for steps, (opcode, argument) in enumerate(_steps(stream), start=1):
            if opcode.name in ("GLOBAL", "INST") and not _names_something(argument):
                return False
            if not _taken(opcode, stack):
                return False
            if opcode.name in ("STOP", "GLOBAL", "INST") or steps >= _MOST_STEPS:
                return True
    except (ValueError, OverflowError):
        # At the end of what is looked at, it may go on.
        return bool(sight.size > len(sight.head) and _went_off(stream, sight.head))
    return False


_OPCODES: Final[Mapping[bytes, pickletools.OpcodeInfo]] = {
    each.code.encode("latin-1"): each for each in pickletools.opcodes
}


_LINES: Final = frozenset({"STRING", "INT", "LONG", "FLOAT"})
"""Their arguments end a line, and `pickletools` takes fewer of them than an unpickler does: it refuses `0x10`."""


def _steps(stream: io.BytesIO) -> Iterator[tuple[pickletools.OpcodeInfo, object]]:
    """As `pickletools.genops`, which warns of what a string of protocol 0 escapes.

    Raises:
        ValueError: where it goes no further.
    """
    while True:
        opcode = _OPCODES.get(stream.read(1))
        if opcode is None:
            raise ValueError("no opcode")
        if opcode.name in _LINES:
            yield opcode, _line(stream, opcode)
        else:
            yield opcode, opcode.arg.reader(stream) if opcode.arg is not None else None


def _line(stream: io.BytesIO, opcode: pickletools.OpcodeInfo) -> bytes:
    line = stream.readline()
    if opcode.name != "STRING" and not _NUMBER.fullmatch(line):
        raise ValueError("no number")
    return line


def _went_off(stream: io.BytesIO, head: bytes) -> bool:
    return stream.tell() >= len(head)


def _names_something(argument: object) -> bool:
    """Whether a module and a name could be imported that are called so."""
    words = str(argument).split(" ")
    return len(words) == 2 and all(_DOTTED.fullmatch(word) for word in words)


def _taken(opcode: pickletools.OpcodeInfo, stack: list[object]) -> bool:
    """Does to the stack what the opcode does; False when the stack has not what it takes."""
    before = list(opcode.stack_before)
    if pickletools.markobject in before or (opcode.name == "POP" and stack and stack[-1] is pickletools.markobject):
        if pickletools.markobject not in stack:
            return False
        while stack.pop() is not pickletools.markobject:
            pass
        before = before[: before.index(pickletools.markobject)] if pickletools.markobject in before else []
    if len(before) > len(stack) or any(each is pickletools.markobject for each in stack[len(stack) - len(before) :]):
        return False
    del stack[len(stack) - len(before) :]
    stack.extend(opcode.stack_after)
    return True


def numpy_kind(sight: Sight) -> str | None:
    """`numpy`; `pickle` where the array holds Python's objects, which are pickled."""
    if sight.head[:6] != b"\x93NUMPY":
        return None
    header = re.search(rb"'descr':\s*('[^']*'|\[.*\])", sight.head)
    return "pickle" if header is None or b"O" in header[1] else "numpy"


# ONNX: a protocol buffer of the message ModelProto. GGUF: a signature and a version.

_MODEL_FIELDS: Final[Mapping[int, int]] = {
    1: 0, 2: 2, 3: 2, 4: 2, 5: 0, 6: 2, 7: 2, 8: 2, 14: 2, 20: 2, 25: 2, 26: 2,
}  # fmt: skip
"""Which fields a ModelProto has, and each one's wire type: 0 a number, 2 a length and so many bytes."""

_GRAPH: Final = 7
_MOST_FIELDS: Final = 64


def is_onnx(sight: Sight) -> bool:
    """Whether its fields are a model's as far as its graph, and the graph ends in the file. The version of the format
    is in every model, and comes first."""
    if sight.head[:1] != b"\x08":
        return False
    at = 0
    try:
        for _ in range(_MOST_FIELDS):
            tag, at = _varint(sight, at)
            field, wire = tag >> 3, tag & 7
            if _MODEL_FIELDS.get(field) != wire:
                return False
            value, at = _varint(sight, at)
            at += value if wire == 2 else 0
            if at > sight.size:
                return False
            if field == _GRAPH:
                return value > 0
    except (BrokenError, UnseenError):
        return False
    return False


def _varint(sight: Sight, at: int) -> tuple[int, int]:
    value = 0
    for index, byte in enumerate(sight.read(at, min(10, sight.size - at))):
        value |= (byte & 0x7F) << (7 * index)
        if byte < 0x80:
            return value, at + index + 1
    raise BrokenError("is cut short")


def is_gguf(sight: Sight) -> bool:
    """The version may stand in either byte order."""
    version = sight.head[4:8]
    little, big = int.from_bytes(version, "little"), int.from_bytes(version, "big")
    return sight.head[:4] == b"GGUF" and len(version) == 4 and 1 <= min(little, big) <= 255


_ARCHIVES: Final = (
    b"7z\xbc\xaf\x27\x1c", b"Rar!\x1a\x07", b"\x1f\x8b\x08", b"BZh", b"\xfd7zXZ\x00", b"\x28\xb5\x2f\xfd",
    b"\x04\x22\x4d\x18",
)  # fmt: skip
"""7z, RAR, gzip, bzip2, XZ, Zstandard, LZ4."""


def is_archive(sight: Sight) -> bool:
    """Whether its contents are packed so that they cannot be looked at; TAR among them, which PyTorch unpickles."""
    return sight.head.startswith(_ARCHIVES) or sight.head[257:262] == b"ustar" or _is_zlib(sight.head)


def _is_zlib(head: bytes) -> bool:
    # joblib's pickles: an ordinary window, a level, and a check digit.
    return head[:1] == b"\x78" and head[1:2] in (b"\x01", b"\x5e", b"\x9c", b"\xda")
