"""Object info in a file: saved from a running ComfyUI, and read again where there is none.

A saved file has the form of `compact`, with the model lists of the ComfyUI it came from, since those are what makes a
check against it worth something. A raw answer of `GET /object_info` is read as well.
"""

from __future__ import annotations

import contextlib
import gzip
import json
import os
import uuid
import zlib
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from morpheus_worker.comfy.compact import NODES_KEY, as_text, compact, expand
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import with_own_checks
from morpheus_worker.errors import Code, MorpheusError

VERSION_KEY: Final = "comfyui_version"
COMPRESSED_SUFFIX: Final = ".gz"
HOW_TO_SAVE: Final = "save one with 'morpheus object-info save FILE'"


@dataclass(frozen=True, slots=True)
class Saved:
    """What was written: how many classes of which ComfyUI, in how many bytes; ComfyUI's answer had `original_bytes`."""

    path: Path
    version: str
    classes: int
    bytes: int
    original_bytes: int


def save_object_info(path: Path, described: Mapping[str, Any], version: str, *, files: bool = True) -> Saved:
    """Writes the object info that a ComfyUI described, whole or not at all; a file that is there is replaced.

    A name that ends in `.gz` is compressed. A folder that is not there is made. Without `files` the names of models
    and inputs stay out.

    Raises:
        MorpheusError: `connection`, when this is no object info; `invalid_input`, when the file cannot be written.
    """
    if (wrong := _wrong(described)) is not None:
        raise MorpheusError(Code.CONNECTION, f"ComfyUI answered, but not with an object info: {wrong}")
    content = as_text({VERSION_KEY: version}, compact(described, files=files)).encode()
    if path.suffix == COMPRESSED_SUFFIX:
        # Without a time in it, the same object info makes the same file.
        content = gzip.compress(content, mtime=0)
    try:
        _replace(path, content)
    except OSError as failure:
        raise MorpheusError(Code.INVALID_INPUT, f"{path} cannot be written: {failure.strerror or failure}") from None
    return Saved(path, version, len(described), len(content), len(json.dumps(described)))


def load_saved(path: Path) -> ObjectInfo:
    """The object info in a file that `save_object_info` wrote, or that holds what `GET /object_info` answered.

    Raises:
        MorpheusError: `invalid_input`, with the file, the line where there is one, and what is wrong there.
    """
    try:
        content = path.read_bytes()
        text = (gzip.decompress(content) if content.startswith(b"\x1f\x8b") else content).decode()
        held = json.loads(text)
    except UnicodeDecodeError:
        raise _unusable(path, "is not text") from None
    except json.JSONDecodeError as failure:
        raise _unusable(f"{path}:{failure.lineno}", f"is not JSON: {failure.msg} at column {failure.colno}") from None
    except (EOFError, gzip.BadGzipFile, zlib.error) as failure:
        raise _unusable(path, f"is a damaged gzip file: {failure}") from None
    except RecursionError:
        raise _unusable(path, "is nested too deeply") from None
    except OSError as failure:
        raise _unusable(path, f"cannot be read: {failure.strerror or failure}") from None
    return with_own_checks(_described(path, held, text))


def _described(path: Path, held: Any, text: str) -> Mapping[str, Any]:
    """All classes as ComfyUI describes them."""
    is_compact = isinstance(held, Mapping) and VERSION_KEY in held
    nodes = held.get(NODES_KEY) if is_compact else held
    if (wrong := _wrong(nodes)) is not None:
        class_type = _first_wrong(nodes)
        line = text.count("\n", 0, text.find(json.dumps(class_type))) + 1 if class_type is not None else 1
        raise _unusable(f"{path}:{line}", f"is no object info of ComfyUI: {wrong}")
    return {name: expand(name, facts) for name, facts in nodes.items()} if is_compact else nodes


def _wrong(nodes: Any) -> str | None:
    """What keeps this from being node classes by their name, or None."""
    if not isinstance(nodes, Mapping):
        return f"it is a {_kind(nodes)} and not an object of node classes"
    if not nodes:
        return "it names no node class"
    if (class_type := _first_wrong(nodes)) is not None:
        return f"'{class_type}' is not described as a node class, with its inputs and outputs"
    return None


def _first_wrong(nodes: Any) -> str | None:
    if not isinstance(nodes, Mapping):
        return None
    return next((str(name) for name, described in nodes.items() if not _is_class(described)), None)


def _is_class(described: Any) -> bool:
    if not (isinstance(described, Mapping) and isinstance(described.get("input"), Mapping) and "output" in described):
        return False
    return all(names is None or isinstance(names, Mapping) for names in described["input"].values())


def _kind(value: Any) -> str:
    kinds = {str: "text", bool: "true or false", int: "number", float: "number", list: "list", type(None): "null"}
    return kinds.get(type(value), "value")


def _unusable(at: Path | str, what: str) -> MorpheusError:
    return MorpheusError(Code.INVALID_INPUT, f"{at} {what} ({HOW_TO_SAVE})")


def _replace(path: Path, content: bytes) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with _part_beside(path) as part:
        with part.open("xb") as stream:
            stream.write(content)
            stream.flush()
            os.fsync(stream.fileno())
        os.replace(part, path)


@contextlib.contextmanager
def _part_beside(path: Path) -> Iterator[Path]:
    part = path.parent / f".{uuid.uuid4().hex}.part"
    try:
        yield part
    finally:
        with contextlib.suppress(OSError):
            part.unlink(missing_ok=True)
