"""What may be published as a model, and what is refused."""

from __future__ import annotations

import io
import json
import os
import pickle
import struct
import zipfile
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.sync.formats import HEAD_BYTES, judge, judge_file
from morpheus_worker.sync.terms import SyncCode, SyncError


def judged(content: bytes, name: str = "model", *, said: str | None = None, allow_pickle: bool = False) -> str | None:
    return judge(
        content[:HEAD_BYTES],
        len(content),
        name=name,
        format=said,
        allow_pickle=allow_pickle,
        read_at=lambda at, count: content[at : at + count],
    )


def refused(content: bytes, name: str = "model", *, said: str | None = None, allow_pickle: bool = False) -> str:
    with pytest.raises(SyncError) as failure:
        judged(content, name, said=said, allow_pickle=allow_pickle)
    assert failure.value.code is SyncCode.REJECTED
    return str(failure.value)


def safetensors(header: Any, data: bytes = b"", *, padding: int = 0) -> bytes:
    text = (header if isinstance(header, bytes) else json.dumps(header).encode()) + b" " * padding
    return struct.pack("<Q", len(text)) + text + data


def tensor(start: int, end: int, dtype: str = "U8", shape: list[int] | None = None) -> dict[str, Any]:
    return {"dtype": dtype, "shape": [end - start] if shape is None else shape, "data_offsets": [start, end]}


GOOD = safetensors({"a": tensor(0, 8, "F32", [2]), "b": tensor(8, 11), "__metadata__": {"k": "v"}}, bytes(11))
PICKLES = [pickle.dumps({"a": [1, 2.5, "b"], "f": os.path.join}, protocol) for protocol in range(6)]


def zipped(*names: str, comment: bytes = b"") -> bytes:
    file = io.BytesIO()
    with zipfile.ZipFile(file, "w") as archive:
        for name in names:
            archive.writestr(name, b"content of " + name.encode())
        archive.comment = comment
    return file.getvalue()


def field(number: int, value: bytes | int) -> bytes:
    """A protocol buffer's, of at most 127 bytes."""
    if isinstance(value, int):
        return bytes([number << 3, value])
    return bytes([number << 3 | 2, len(value)]) + value


ONNX = field(1, 8) + field(2, b"pytorch") + field(7, b"a graph") + field(8, b"\x10\x0d")


# Pages, messages and pointers.


@pytest.mark.parametrize(
    "page",
    [
        b"<!DOCTYPE html><html><head><title>Log in</title>",
        b"\xef\xbb\xbf \r\n<html lang='en'>",
        b"<!-- a comment --><!doctype html>",
        b'<?xml version="1.0" encoding="UTF-8"?>\n<!DOCTYPE html PUBLIC "-//W3C//DTD XHTML 1.0 Strict//EN">',
    ],
)
@pytest.mark.parametrize("name", ["a.safetensors", "a.pth", "a.json", "a"])
def test_a_web_page_is_no_model(page: bytes, name: str) -> None:
    assert "is a web page" in refused(page, name, allow_pickle=True)


@pytest.mark.parametrize("name", ["a.safetensors", "a.bin", "a", "a.yaml"])
def test_a_git_lfs_pointer_is_no_model(name: str) -> None:
    pointer = b"version https://git-lfs.github.com/spec/v1\noid sha256:00\nsize 5\n"

    assert "git-lfs pointer" in refused(pointer, name)


@pytest.mark.parametrize("name", ["a.safetensors", "a.ckpt", "a.onnx", "a"])
def test_a_hosts_message_is_no_model(name: str) -> None:
    assert "is a JSON document" in refused(b'{"error": "Unauthorized"}', name, allow_pickle=True)
    assert "is an XML document" in refused(b"<?xml version='1.0'?><Error><Code>NoSuchKey</Code></Error>", name)
    assert "is an XML document" in refused(b"<Error><Code>AccessDenied</Code></Error>", name)


@pytest.mark.parametrize("name", ["a.pth", "a.bin", "a.onnx", "a.safetensors"])
def test_text_is_no_model(name: str) -> None:
    refused("Entry not found, désolé".encode(), name, allow_pickle=True)


def test_files_that_go_with_a_model_may_be_text() -> None:
    assert judged(b'{"architectures": []}', "config.json") == "text"
    assert judged(b"a\nb\n", "merges.txt") == "text"
    assert judged(b"model:\n  target: ldm\n", "v1-inference.yaml") == "text"
    assert judged(b"<net name='a'/>", "openvino.xml") == "text"
    assert judged(b"cat\nstable\nclass\nN.", "classes.txt") == "text"
    assert judged(b"<unk>\n<s>\n</s>\n", "vocab.txt") == "text"
    assert judged(b"{{ bos_token }}{% for message in messages %}", "chat_template.jinja") == "text"
    assert judged(b'\xef\xbb\xbf{"weight_map": {}}', "model.safetensors.index.json") == "text"
    assert judged(b'{"id": 5}', "model.civitai.info") == "text"


@pytest.mark.parametrize("name", ["config.json", "config.yaml", "vocab.txt", "merges.csv"])
def test_a_stores_message_is_nothing_that_goes_with_a_model(name: str) -> None:
    assert "is an XML document" in refused(b"<?xml version='1.0'?>\n<Error><Code>NoSuchKey</Code></Error>", name)
    assert "is an XML document" in refused(b"<Error><Code>NoSuchKey</Code></Error>", name)


def test_what_cannot_be_json_is_no_json_file() -> None:
    assert "not JSON" in refused(b"Entry not found", "config.json")
    assert judged(b"// a comment\n[1]", "config.json") == "text"


def test_an_empty_file_is_no_model() -> None:
    assert "is empty" in refused(b"", "a.json")


# safetensors.


def test_a_safetensors_file_is_one_by_any_name() -> None:
    assert judged(GOOD, "a.safetensors") == "safetensors"
    assert judged(GOOD, "a.bin") == "safetensors"
    assert judged(safetensors({}), "a.safetensors") == "safetensors"
    assert judged(safetensors({"a": tensor(0, 0, "F32", [0, 7])}, padding=5), "A.SAFETENSORS") == "safetensors"
    assert judged(safetensors({"a": tensor(0, 2, "F4", [4])}, bytes(2)), "a.sft") == "safetensors"
    assert judged(safetensors({"a": tensor(0, 3, "A_NEW_ONE", [7])}, bytes(3)), "a.safetensors") == "safetensors"


@pytest.mark.parametrize(
    ("content", "why"),
    [
        (b"1234567", "too short"),
        (os.urandom(4) + b"\0\1\0\0" + bytes(100), "longer than any may be"),
        (struct.pack("<Q", 100) + b"{}", "ends before its header"),
        (safetensors(b"no JSON at all"), "not JSON"),
        (safetensors(b"{" * 20_000), "not JSON"),
        (safetensors(b'{"a": \xff}'), "not JSON"),
        (safetensors(b"[]"), "not JSON"),
        (safetensors({"a": 5}), "no tensor"),
        (safetensors({"a": {"dtype": "U8", "shape": [1]}}, b"1"), "no tensor"),
        (safetensors({"__metadata__": []}), "metadata"),
        (safetensors({"a": tensor(0, 8, "F32", [3])}, bytes(8)), "do not agree"),
        (safetensors({"a": tensor(0, 8, "U8", [-8])}, bytes(8)), "do not agree"),
        (safetensors({"a": tensor(0, 8, "U8", [1 << 40] * 1000)}, bytes(8)), "do not agree"),
        (safetensors({"a": {**tensor(0, 1), "data_offsets": [True, 2]}}, bytes(2)), "lies nowhere"),
        (safetensors({"a": {**tensor(0, 1), "data_offsets": [-1, 0]}}, bytes(2)), "lies nowhere"),
        (safetensors({"a": tensor(0, 4), "b": tensor(3, 8)}, bytes(8)), "overlap, or leave a gap"),
        (safetensors({"a": tensor(0, 4), "b": tensor(5, 8)}, bytes(8)), "overlap, or leave a gap"),
        (GOOD[:-1], "by its header"),
        (GOOD + b"1", "by its header"),
    ],
)
def test_a_broken_safetensors_file_is_refused(content: bytes, why: str) -> None:
    assert why in refused(content, "a.safetensors")


def test_a_name_or_a_manifest_that_says_safetensors_is_taken_at_its_word() -> None:
    assert "safetensors" in refused(PICKLES[2], "a.safetensors", allow_pickle=True)
    assert "safetensors" in refused(os.urandom(100), "a.safetensors")
    assert "safetensors" in refused(bytes(range(100)), "a", said="SafeTensor")


# What runs code.


@pytest.mark.parametrize("content", PICKLES)
def test_a_pickle_needs_leave(content: bytes) -> None:
    assert "allow_pickle: true" in refused(content, "a.bin")
    assert judged(content, "a.bin", allow_pickle=True) == "pickle"


@pytest.mark.parametrize(
    "content",
    [
        b"cposix\nsystem\n(S'id'\ntR.",
        b"(S'id'\nios\nsystem\n.",
        b"X" + struct.pack("<I", 5000) + b"a" * 5000 + b"0cposix\nsystem\n(S'id'\ntR.",
        b"S'" + b"a" * 5000 + b"'\n0cposix\nsystem\n(S'id'\ntR.",
        b"\x80\x01N.",
        b"I0x10\n0U\1\x010cposix\nsystem\n(S'id'\ntR.",
        b"L0x10L\n0U\1\x010cposix\nsystem\n(S'id'\ntR.",
    ],
)
def test_an_old_pickle_that_hides_needs_leave(content: bytes) -> None:
    assert "a pickle" in refused(content, "weights")


def both(kind: str) -> bytes:
    """A whole file of that kind, which `pickle.loads` takes as well; it computes len("ab")."""
    call = b"cbuiltins\nlen\n(S'ab'\ntR."
    if kind == "gguf":
        return b"GGUF" + struct.pack("<I", 3) + b"\0" + b"0" + call
    # The header's length reads as the beginning of a string; from its end, a line goes on to the data.
    data = b"\n0" + call
    skipped = 32
    length = 0x58 | skipped << 8
    text = json.dumps({"__metadata__": {"k": "V" * 40}, "w": tensor(0, len(data))}).encode()
    return struct.pack("<Q", length) + text.ljust(length) + data


@pytest.mark.parametrize("kind", ["safetensors", "gguf"])
def test_a_file_that_is_a_pickle_as_well_needs_leave_unless_its_name_says_who_loads_it(kind: str) -> None:
    content = both(kind)
    assert pickle.loads(content) == 2

    assert "is a pickle" in refused(content, "a.bin")
    assert "is a pickle" in refused(content, "a.pt", said=kind)
    assert judged(content, "a.pt", allow_pickle=True) == "pickle"
    assert judged(content, f"a.{kind}") == kind


def test_an_archive_with_a_pickle_needs_leave() -> None:
    checkpoint = zipped("archive/data.pkl", "archive/data/0", "archive/version")

    assert "is a pickle" in refused(checkpoint, "a.ckpt")
    assert judged(checkpoint, "a.ckpt", allow_pickle=True) == "pickle"
    assert "is a pickle" in refused(zipped("a/DATA.PKL"), "a.zip")
    assert "TorchScript" in refused(zipped("m/code/__torch__.py", "m/data.pkl", "m/constants.pkl"), "a.pt")


def test_an_archive_without_one_needs_none() -> None:
    assert judged(zipped("a.npy", "b.npy"), "a.npz") == "zip"


def test_an_archive_that_can_be_read_in_two_ways_needs_leave() -> None:
    other = zipped("harmless.npy")
    end = other[other.rfind(b"PK\5\6") :]

    assert "not looked into" in refused(zipped("a/data.pkl", comment=end), "a.bin")
    assert "not looked into" in refused(zipped("harmless.npy") + b"and more", "a.bin")


def test_an_archive_that_was_cut_is_refused() -> None:
    whole = zipped(*(f"a/data/{index}" for index in range(9)))

    assert "cut short" in refused(whole[: len(whole) // 2], "a.pth", allow_pickle=True)
    assert "broken zip" in refused(whole.replace(b"PK\1\2", b"PK\1\3"), "a.pth", allow_pickle=True)


def test_an_archive_above_4_gib_is_read_by_its_own_records() -> None:
    whole = zipped("archive/data.pkl")
    at = whole.rfind(b"PK\5\6")
    length, start = struct.unpack("<II", whole[at + 12 : at + 20])
    record = b"PK\6\6" + struct.pack("<QHHIIQQQQ", 44, 45, 45, 0, 0, 1, 1, length, start)
    locator = b"PK\6\7" + struct.pack("<IQI", 0, at, 1)
    end = whole[at : at + 12] + b"\xff" * 8 + whole[at + 20 :]

    assert judged(whole[:at] + record + locator + end, "a.pt", allow_pickle=True) == "pickle"


@pytest.mark.parametrize(
    "content",
    [
        b"7z\xbc\xaf\x27\x1c" + bytes(50),
        b"Rar!\x1a\x07\x01" + bytes(50),
        b"\x1f\x8b\x08" + bytes(50),
        bytes(257) + b"ustar" + bytes(300),
        b"\x78\x5e" + bytes(50),
    ],
)
def test_other_archives_need_leave(content: bytes) -> None:
    assert "an archive" in refused(content, "a.bin")
    assert judged(content, "a.bin", allow_pickle=True) == "archive"


def test_an_array_of_objects_needs_leave() -> None:
    start = b"\x93NUMPY\1\0v\0{'descr': "

    assert "a pickle" in refused(start + b"'|O', 'fortran_order': False, 'shape': (1,), }", "a.npy")
    assert judged(start + b"'<f8', 'fortran_order': False, 'shape': (1,), }", "a.npy") == "numpy"


def test_what_is_not_known_by_a_name_that_is_unpickled_needs_leave() -> None:
    content = b"\xff\xfe\xfd" * 100

    assert "not known here" in refused(content, "a.ckpt")
    assert "not known here" in refused(content, "a.pt2")
    assert judged(content, "a.ckpt", allow_pickle=True) is None
    assert judged(content, "a.h5") is None


# The others, and what the manifest says.


def test_other_formats_are_known() -> None:
    assert judged(b"GGUF" + struct.pack("<I", 3) + bytes(30), "a.gguf") == "gguf"
    assert judged(ONNX, "a.onnx") == "onnx"


def test_a_name_that_promises_a_format_is_held_to_it() -> None:
    assert "is not a GGUF file" in refused(b"\0\1\2\3" * 20, "a.gguf")
    assert "is not an ONNX model" in refused(b"\0\1\2\3" * 20, "a.onnx")
    assert "only a part of one" in refused(ONNX[:15], "a.onnx")
    refused(PICKLES[4], "a.gguf", allow_pickle=True)


def test_a_manifest_that_says_otherwise_is_believed() -> None:
    assert "should be pickle" in refused(GOOD, "a.bin", said="pickle", allow_pickle=True)
    assert "should be pickle" in refused(b"\xff\xfe" * 50, "a.ckpt", said="PickleTensor", allow_pickle=True)
    assert "is not an ONNX model" in refused(b"\0\1" * 50, "a", said="onnx")
    assert judged(PICKLES[2], "a.pt", said="torchscript", allow_pickle=True) == "pickle"
    assert judged(b"\x89HDF\r\n\x1a\n" + bytes(50), "a.h5", said="keras") is None


def test_only_what_is_needed_is_read() -> None:
    asked: list[tuple[int, int]] = []
    header = json.dumps({"a": tensor(0, 1 << 30)}).encode()
    head = struct.pack("<Q", len(header)) + header

    def read_at(at: int, count: int) -> bytes:
        asked.append((at, count))
        return bytes(count)

    assert judge(head, len(head) + (1 << 30), name="a.safetensors", read_at=read_at) == "safetensors"
    assert asked == []


def test_what_cannot_be_seen_is_not_believed() -> None:
    archive = zipped("a.npy") + bytes(0)

    with pytest.raises(SyncError) as failure:
        judge(archive[:30], 1 << 30, name="a.npz", read_at=None)
    assert "not looked into" in str(failure.value)


def test_a_file_on_the_disk_is_judged_by_the_name_that_it_will_have(tmp_path: Path) -> None:
    part = tmp_path / "a.part"
    part.write_bytes(PICKLES[2])

    assert judge_file(part, name="a.ckpt", allow_pickle=True) == "pickle"
    with pytest.raises(SyncError) as failure:
        judge_file(part, name="a.safetensors", allow_pickle=True)
    assert failure.value.code is SyncCode.REJECTED


def test_a_file_that_is_gone_is_the_volumes_fault(tmp_path: Path) -> None:
    with pytest.raises(SyncError) as failure:
        judge_file(tmp_path / "gone")
    assert failure.value.code is SyncCode.VOLUME
