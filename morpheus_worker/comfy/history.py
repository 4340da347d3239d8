"""ComfyUI's history entry and what a prompt's nodes reported in it, as values.

Source: ComfyUI 0.3.64, execution.py `PromptQueue.task_done`, and the `ui` results of its save nodes. An entry is judged
by its status and messages, never by its outputs: a failed prompt has `outputs: {}` or those of the nodes that ran
before.
"""

from __future__ import annotations

import mimetypes
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Final

from morpheus_worker.comfy.codec import MalformedFrameError, decode_event
from morpheus_worker.comfy.messages import ExecutionError
from morpheus_worker.jobs import MediaKind


class End(StrEnum):
    """How a prompt ended."""

    SUCCESS = "success"
    ERROR = "error"
    INTERRUPTED = "interrupted"


@dataclass(frozen=True, slots=True)
class HistoryEntry:
    """One prompt's line in `/history`. `error` is set when a node raised."""

    prompt_id: str
    end: End
    outputs: Mapping[str, Any] = field(default_factory=dict)
    error: ExecutionError | None = None


@dataclass(frozen=True, slots=True)
class FileRef:
    """A file that a node reported: `subfolder` and `filename` within the folder that `folder` names
    (`output`, `temp` or `input`), and the `key` it came under."""

    node_id: str
    filename: str
    subfolder: str
    folder: str
    key: str = field(default="images", compare=False)

    @property
    def media_type(self) -> str:
        return media_type_of(self.filename)

    @property
    def kind(self) -> MediaKind:
        return kind_of(self.media_type)


@dataclass(frozen=True, slots=True)
class TextRef:
    """A text that a node reported inline."""

    node_id: str
    text: str


@dataclass(frozen=True, slots=True)
class Reported:
    """What a prompt has to show: its saved files, or its previews when it saved nothing, and its texts.

    `unused` are the previews of a prompt that saved something.
    """

    files: tuple[FileRef, ...]
    texts: tuple[TextRef, ...]
    unused: tuple[FileRef, ...] = ()

    def __bool__(self) -> bool:
        return bool(self.files or self.texts)


def read_entry(prompt_id: str, raw: Mapping[str, Any]) -> HistoryEntry:
    """Reads one value of `GET /history/{prompt_id}`.

    A prompt whose graph could not even be staged for execution (a cycle, say) ends with ComfyUI's `success` still set
    from the prompt before it, so the messages count for more than `status_str`.
    """
    status = raw.get("status") or {}
    error: ExecutionError | None = None
    end = End.ERROR if status.get("status_str") == "error" else End.SUCCESS
    for event, data in _events(status.get("messages")):
        if event == "execution_interrupted":
            end = End.INTERRUPTED
        elif event == "execution_error":
            end, error = End.ERROR, _error(data)
    outputs = raw.get("outputs")
    return HistoryEntry(prompt_id, end, outputs if isinstance(outputs, Mapping) else {}, error)


def reported(outputs: Mapping[str, Any]) -> Reported:
    """Every file and text in the outputs of an entry, in the nodes' order, whatever the key they came under.

    Keys seen in the field: `images`, `gifs` (VideoHelperSuite), `audio`, `video`, `3d`, `files`, `text`; the shape of
    an item tells what it is, so a key nobody has seen yet works too. Files of type `input` are a loader's own preview.
    """
    files: list[FileRef] = []
    texts: list[TextRef] = []
    for node_id, key, items in _items(outputs):
        for item in items:
            if isinstance(item, str):
                texts.append(TextRef(node_id, item))
            elif isinstance(item, Mapping) and isinstance(item.get("filename"), str) and item["filename"]:
                files.append(_file(node_id, key, item))
    # One node may save a file and another show it; the first one made it.
    once: dict[tuple[str, str, str], FileRef] = {}
    for ref in files:
        once.setdefault((ref.folder, ref.subfolder, ref.filename), ref)
    saved = tuple(ref for ref in once.values() if ref.folder == "output")
    previews = tuple(ref for ref in once.values() if ref.folder == "temp")
    return Reported(saved or previews, tuple(texts), previews if saved else ())


def media_type_of(filename: str) -> str:
    """The media type that a file name's extension says, e.g. `image/png`."""
    suffix = PurePosixPath(filename).suffix.lower()
    return _MEDIA_TYPES.get(suffix) or mimetypes.guess_type(f"x{suffix}")[0] or "application/octet-stream"


def kind_of(media_type: str) -> MediaKind:
    """The kind of output that a media type makes."""
    return _KINDS.get(media_type.partition("/")[0], "file")


# What the standard library's table lacks, or answers differently from one machine's /etc/mime.types to the next.
_MEDIA_TYPES: Final[Mapping[str, str]] = {
    ".webp": "image/webp",
    ".avif": "image/avif",
    ".exr": "image/x-exr",
    ".mp4": "video/mp4",
    ".mkv": "video/x-matroska",
    ".webm": "video/webm",
    ".mov": "video/quicktime",
    ".flac": "audio/flac",
    ".opus": "audio/opus",
    ".mp3": "audio/mpeg",
    ".wav": "audio/wav",
    ".glb": "model/gltf-binary",
    ".gltf": "model/gltf+json",
    ".obj": "model/obj",
    ".ply": "model/ply",
    ".stl": "model/stl",
}
_KINDS: Final[Mapping[str, MediaKind]] = {
    "image": "image",
    "video": "video",
    "audio": "audio",
    "model": "model3d",
    "text": "text",
}


def _events(messages: object) -> Iterator[tuple[str, Mapping[str, Any]]]:
    for message in messages if isinstance(messages, list) else ():
        if isinstance(message, list) and len(message) == 2 and isinstance(message[1], Mapping):
            yield str(message[0]), message[1]


def _error(data: Mapping[str, Any]) -> ExecutionError | None:
    try:
        message = decode_event("execution_error", data)
    except MalformedFrameError:
        return None
    return message if isinstance(message, ExecutionError) else None


def _items(outputs: Mapping[str, Any]) -> Iterator[tuple[str, str, list[Any]]]:
    for node_id, output in outputs.items():
        for key, value in output.items() if isinstance(output, Mapping) else ():
            if isinstance(value, list):
                yield str(node_id), str(key), value


def _file(node_id: str, key: str, item: Mapping[str, Any]) -> FileRef:
    subfolder, folder = str(item.get("subfolder") or ""), str(item.get("type") or "output")
    return FileRef(node_id, item["filename"], subfolder, folder, key)
