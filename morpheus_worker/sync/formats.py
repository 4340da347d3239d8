"""Whether what arrived can be a model at all: looked at before it is published, since a login page is no checkpoint."""

from __future__ import annotations

import codecs
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from morpheus_worker.sync.containers import (
    HEAD_BYTES,
    BrokenError,
    ReadAt,
    Sight,
    check_safetensors,
    could_be_safetensors,
    is_archive,
    is_gguf,
    is_onnx,
    is_pickle,
    numpy_kind,
    zip_kind,
)
from morpheus_worker.sync.terms import SyncCode, SyncError

__all__ = ["HEAD_BYTES", "ReadAt", "judge", "judge_file"]

_ALIASES: Final[Mapping[str, str]] = {
    "safetensors": "safetensors", "safetensor": "safetensors", "sft": "safetensors", "gguf": "gguf", "onnx": "onnx",
    "pickle": "pickle", "pickletensor": "pickle", "pkl": "pickle", "pt": "pickle", "pth": "pickle", "ckpt": "pickle",
    "torch": "pickle", "pytorch": "pickle", "torchscript": "torchscript", "jit": "torchscript",
}  # fmt: skip
"""What manifests and hosts call the formats that are told apart here."""

_PROMISES: Final[Mapping[str, str]] = {
    ".safetensors": "safetensors", ".sft": "safetensors", ".gguf": "gguf", ".onnx": "onnx",
}  # fmt: skip
"""Endings that a file of another format must not have."""

_UNPICKLED: Final = frozenset({".pt", ".pt2", ".pth", ".th", ".ckpt", ".pkl", ".pickle", ".joblib"})
"""Endings of files that are unpickled by who loads them, whatever they hold."""

_BINARIES: Final = _UNPICKLED | {
    ".safetensors", ".sft", ".gguf", ".onnx", ".bin", ".npz", ".npy", ".h5", ".hdf5", ".keras", ".pb", ".tflite",
    ".task", ".engine", ".msgpack", ".zip", ".tar", ".gz", ".7z", ".mlmodel", ".data", ".dat", ".pdparams",
    ".pdiparams", ".onnx_data", ".ort", ".caffemodel", ".weights", ".nemo", ".trt",
}  # fmt: skip
"""Endings of files that are never text."""

_TEXTS: Final = frozenset({
    ".json", ".jsonl", ".txt", ".yaml", ".yml", ".toml", ".xml", ".csv", ".tsv", ".md", ".cfg", ".ini", ".conf",
    ".prototxt", ".py", ".jinja", ".jinja2", ".info",
})  # fmt: skip
"""Endings of files that go with a model, and may be JSON or begin with a tag: `<unk>` is a token."""

_NO_MARKUP: Final = frozenset({".json", ".jsonl", ".yaml", ".yml", ".toml", ".py", ".info"})
"""Endings of such files that never do."""

_SAID: Final[Mapping[str, str]] = {
    "safetensors": "a safetensors file",
    "gguf": "a GGUF file",
    "onnx": "an ONNX model",
    "pickle": "a pickle",
    "torchscript": "a TorchScript archive",
    "archive": "an archive that is not looked into",
    "unknown": "of a format that is not known here, and of a name that is unpickled",
    "zip": "a zip archive",
    "numpy": "a NumPy array",
    "text": "text",
}

_RUNS_CODE: Final = frozenset({"pickle", "torchscript", "archive", "unknown"})
_HARMLESS: Final = frozenset({"safetensors", "gguf", "onnx"})
_TRUST: Final = "write 'allow_pickle: true' into its entry if you trust whoever made it"
_SAYS_WHY: Final = "it may be an error message of the host"


def judge(
    head: bytes,
    size: int,
    *,
    name: str,
    format: str | None = None,  # noqa: A002
    allow_pickle: bool = False,
    read_at: ReadAt | None,
) -> str | None:
    """Says which format the file has: `safetensors`, `gguf`, `onnx`, `pickle`, `torchscript`, `archive`, `zip`,
    `numpy`, `text`, or None for one that is not known here.

    `head` are its first bytes, at least `HEAD_BYTES` or all; `size` is the file's, in bytes. `read_at` reads elsewhere
    in it; None where that cannot be done: then a zip archive counts as one that is not looked into. `name` may promise
    a format, and `format` is what the manifest or the host says, None for nothing; a word that is not known here says
    nothing.

    Raises:
        SyncError: `rejected` when it can be no model, may run code unasked, or is not what it is said to be;
            `volume` when it cannot be read.
    """
    said = _ALIASES.get(format.lower()) if format else None
    suffix = PurePosixPath(name).suffix.lower()
    try:
        found = _found(Sight(head, size, read_at), suffix, said)
    except BrokenError as failure:
        raise _rejected(str(failure)) from None
    except OSError as failure:
        raise _unreadable(failure) from failure
    if found in _RUNS_CODE and not allow_pickle:
        raise _rejected(f"is {_SAID[found]}: loading it can run any code", _TRUST)
    if said is not None and found != said and not {found, said} <= _RUNS_CODE - {"unknown"}:
        raise _rejected(f"is {_SAID.get(found or '', 'something else')}, and its format should be {said}")
    return None if found == "unknown" else found


def judge_file(
    path: Path,
    *,
    name: str | None = None,
    format: str | None = None,  # noqa: A002
    allow_pickle: bool = False,
) -> str | None:
    """As `judge`, of a file on the disk; `name` is the one that it will have, by default its own.

    Raises:
        SyncError: as `judge`.
    """
    try:
        with open(path, "rb", buffering=0) as file:
            fd = file.fileno()
            return judge(
                _read_fully(fd, 0, HEAD_BYTES),
                os.fstat(fd).st_size,
                name=name or path.name,
                format=format,
                allow_pickle=allow_pickle,
                read_at=lambda at, count: _read_fully(fd, at, count),
            )
    except OSError as failure:
        raise _unreadable(failure) from failure


def _read_fully(fd: int, at: int, count: int) -> bytes:
    read = bytearray()
    while len(read) < count and (more := os.pread(fd, count - len(read), at + len(read))):
        read += more
    return bytes(read)


def _rejected(what: str, hint: str | None = None) -> SyncError:
    return SyncError(SyncCode.REJECTED, what, hint)


def _unreadable(failure: OSError) -> SyncError:
    reason = os.strerror(failure.errno).lower() if failure.errno else "the disk fails"
    return SyncError(SyncCode.VOLUME, f"cannot be read to be looked at: {reason}")


_LOOKS: Final[tuple[Callable[[Sight], str | None], ...]] = (
    zip_kind,
    lambda sight: "archive" if is_archive(sight) and not is_text(sight.head) else None,
    lambda sight: "gguf" if is_gguf(sight) else None,
    numpy_kind,
    lambda sight: "onnx" if is_onnx(sight) else None,
)


def _found(sight: Sight, suffix: str, said: str | None) -> str | None:
    if sight.size == 0 or not sight.head:
        raise BrokenError("is empty")
    _refuse_pages(sight.head, suffix)
    found = _by_content(sight, suffix, _PROMISES.get(suffix) or said)
    if found in _HARMLESS and suffix not in _PROMISES and is_pickle(sight):
        # It is both. Who loads a file of such a name may well unpickle it.
        return "pickle"
    return found


def _by_content(sight: Sight, suffix: str, promised: str | None) -> str | None:
    if promised == "safetensors" or could_be_safetensors(sight):
        check_safetensors(sight)
        return "safetensors"
    found = next((kind for look in _LOOKS if (kind := look(sight)) is not None), None) or _plain(sight, suffix)
    if promised in ("gguf", "onnx") and found != promised:
        raise BrokenError(f"is not {_SAID[promised]}, or only a part of one")
    return found


def _plain(sight: Sight, suffix: str) -> str | None:
    """What has no signature. Protocol 0 of pickle is text, too; but nobody unpickles a `.txt`."""
    text = is_text(sight.head)
    if not (text and suffix in _TEXTS) and is_pickle(sight):
        return "pickle"
    if text and suffix in _BINARIES:
        raise _rejected("is text, not a model", _SAYS_WHY)
    if text:
        return "text"
    return "unknown" if suffix in _UNPICKLED else None


# What is no model, whatever it is called.

_LFS: Final = b"version https://git-lfs.github.com/spec/"
_PAGE: Final = re.compile(
    rb"(?:<\?xml[^>]*>\s*)?<(?:!doctype\s+html|html|head|body|title|script|meta|iframe|h1|div|table|style)[\s>/]",
    re.IGNORECASE,
)
_XML: Final = re.compile(rb"<(?:\?xml\s|Error>)")
_MARKUP: Final = re.compile(rb"<(?:!--|!doctype\s|[a-z][\w:.-]*[\s>/])", re.IGNORECASE)
_COULD_BE_JSON: Final = re.compile(rb'[\[{"\d/-]|true|false|null')
_JSON: Final = re.compile(rb'[\[{]\s*(?:["\[\]{}\d-]|true|false|null|$)')


def _refuse_pages(head: bytes, suffix: str) -> None:
    text = head.removeprefix(b"\xef\xbb\xbf").lstrip(b" \t\r\n\x0c")
    if text.startswith(_LFS):
        hint = "take the address of the file itself; on Hugging Face it has /resolve/ in it"
        raise _rejected("is a git-lfs pointer, not the file that it points to", hint)
    if _PAGE.match(text) or (text.startswith(b"<!--") and _PAGE.search(text)):
        raise _rejected("is a web page", "the host may want a key, or a licence accepted, or it is another address")
    if not is_text(head):
        return
    if (suffix != ".xml" and _XML.match(text)) or (suffix not in _TEXTS - _NO_MARKUP and _MARKUP.match(text)):
        raise _rejected("is an XML document, not a model", _SAYS_WHY)
    if suffix == ".json" and not _COULD_BE_JSON.match(text):
        raise _rejected("is text, not JSON", _SAYS_WHY)
    if suffix not in _TEXTS and _JSON.match(text):
        raise _rejected("is a JSON document, not a model", _SAYS_WHY)


def is_text(head: bytes) -> bool:
    """Whether it is readable text in UTF-8, whose last character may be cut."""
    try:
        text = codecs.getincrementaldecoder("utf-8")().decode(head)
    except UnicodeDecodeError:
        return False
    return all(each >= " " or each in "\t\r\n\x0c" for each in text) and "\x7f" not in text
