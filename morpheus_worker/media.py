"""Brings a job's media to where ComfyUI's loader nodes find it, under names no other job can have.

A file on the volume is linked, inline data is written; both are taken away when the job ends. What arrives is looked
at before it is believed: a picture must have a picture's header.
"""

from __future__ import annotations

import base64
import binascii
import contextlib
import io
import mimetypes
import re
import urllib.parse
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal

from morpheus_worker.comfy.files import ComfyFiles
from morpheus_worker.errors import Code, Problem, from_problems
from morpheus_worker.paths import UnsafePathError, safe_filename, volume_relative
from morpheus_worker.pictures import NotAPictureError, size_of
from morpheus_worker.volume import confined

InputKind = Literal["image", "video", "audio", "file", "dir"]

_DATA_URI: Final = re.compile(r"data:(?P<type>[^;,]*)(?P<options>(?:;[^;,]*)*),", re.IGNORECASE)
_URL: Final = re.compile(r"[a-z][a-z0-9+.-]*://", re.IGNORECASE)


@dataclass(frozen=True, slots=True)
class Limits:
    """`max_bytes` for any file, `max_pixels` for a picture (width times height)."""

    max_bytes: int
    max_pixels: int


@dataclass(frozen=True, slots=True)
class Wanted:
    """One medium to bring in. `at` is the caller's name for it, `as_path` asks for an absolute path as the answer."""

    at: str
    kind: InputKind
    value: object
    name: str = ""
    as_path: bool = False


@dataclass(slots=True)
class Stage:
    """The media of one job, all under names that begin with the job's own `token`."""

    token: str
    files: ComfyFiles
    volume_root: Path
    limits: Limits
    _placed: list[str] = field(default_factory=list)

    def bring(self, wanted: Iterable[Wanted]) -> list[str]:
        """Places everything wanted; returns for each the value that its node's input takes.

        Raises:
            MorpheusError: `input_unreachable` or `input_rejected`, naming every medium that cannot be had.
        """
        values: list[str] = []
        refused: list[tuple[Code, Problem]] = []
        for number, item in enumerate(wanted):
            try:
                values.append(self._bring_one(number, item))
            except MediaRefusedError as failure:
                refused.append((failure.code, Problem(item.at, failure.what, failure.hint)))
        if refused:
            raise from_problems(refused[0][0], "An input cannot be used", [problem for _, problem in refused])
        return values

    def output_path(self, at: str, value: str) -> str:
        """Where on the volume a node may write what the caller wants at `value`, as an absolute path.

        Raises:
            MorpheusError: `input_rejected`, when that is not on the volume.
        """
        try:
            return str(confined(self.volume_root, volume_relative(value, volume_root=self.volume_root)))
        except UnsafePathError as failure:
            problem = Problem(at, str(failure), "name a path on the volume")
            raise from_problems(Code.INPUT_REJECTED, "An output cannot be placed", [problem]) from None

    def withdraw(self) -> None:
        """Takes everything away again. Never fails."""
        for value in self._placed:
            self.files.remove(value)

    def _bring_one(self, number: int, item: Wanted) -> str:
        if not isinstance(item.value, str) or not item.value.strip():
            raise MediaRefusedError(Code.INPUT_REJECTED, "must be a volume path or a data URI, as text")
        content, name = self._content(item, item.value.strip())
        # ComfyUI reads a name that ends in "[output]" as one in its output folder.
        plain = safe_filename(name).replace("[", "(").replace("]", ")")
        placed = self.files.put(f"{self.token}-{number}-{plain}", content)
        self._placed.append(placed)
        return self.files.absolute(placed) if item.as_path else placed

    def _content(self, item: Wanted, value: str) -> tuple[Path | bytes, str]:
        if match := _DATA_URI.match(value):
            data = _decoded(value, match, self.limits.max_bytes)
            return self._inline(item, data, match["type"])
        if _URL.match(value):
            raise MediaRefusedError(
                Code.INPUT_REJECTED,
                "is a URL, which this version does not fetch",
                "upload the file through the gateway and send its path, or send a data URI",
            )
        path = self._on_volume(item, value)
        return path, item.name or path.name

    def _inline(self, item: Wanted, data: bytes, media_type: str) -> tuple[bytes, str]:
        if item.kind == "dir":
            raise MediaRefusedError(Code.INPUT_REJECTED, "must be a folder on the volume, not inline data")
        if item.kind == "image":
            check_picture(io.BytesIO(data), self.limits)
        suffix = mimetypes.guess_extension(media_type.strip().lower()) or ""
        return data, item.name or f"inline{suffix}"

    def _on_volume(self, item: Wanted, value: str) -> Path:
        try:
            path = confined(self.volume_root, volume_relative(value, volume_root=self.volume_root))
            is_right = path.is_dir() if item.kind == "dir" else path.is_file()
            size = path.stat().st_size if is_right else 0
        except UnsafePathError as failure:
            raise MediaRefusedError(Code.INPUT_REJECTED, str(failure), "name a file on the volume") from None
        except OSError as failure:
            raise MediaRefusedError(Code.INPUT_UNREACHABLE, f"cannot be read: {failure.strerror}") from None
        if not is_right:
            what = "folder" if item.kind == "dir" else "file"
            raise MediaRefusedError(Code.INPUT_UNREACHABLE, f"there is no {what} '{_shortened(value)}' on the volume")
        if item.kind != "dir":
            _check_size(size, self.limits.max_bytes)
        if item.kind == "image":
            check_picture(path, self.limits)
        return path


class MediaRefusedError(Exception):
    """One medium that cannot be had, before it is told together with the others."""

    def __init__(self, code: Code, what: str, hint: str | None = None) -> None:
        super().__init__(what)
        self.code, self.what, self.hint = code, what, hint


@contextlib.contextmanager
def staged(stage: Stage) -> Iterator[Stage]:
    """The stage for the time of a job; afterwards nothing of it is left."""
    try:
        yield stage
    finally:
        stage.withdraw()


def decoded_base64(text: str, max_bytes: int) -> bytes:
    """The bytes of base64 text, line breaks and missing padding forgiven.

    Raises:
        MediaRefusedError: when it is not base64, or larger than `max_bytes`.
    """
    compact = "".join(text.split()).rstrip("=")
    _check_size(len(compact) * 3 // 4, max_bytes)
    try:
        return base64.b64decode(compact + "=" * (-len(compact) % 4), validate=True)
    except (binascii.Error, ValueError):
        raise MediaRefusedError(Code.INPUT_REJECTED, "is not valid base64") from None


def check_picture(source: Path | io.BytesIO, limits: Limits) -> None:
    """Refuses what has no picture's header, or says that it is larger than the limit.

    Only the header is read: a picture that is broken further on is found by the node that loads it.
    """
    try:
        width, height = size_of(source)
    except NotAPictureError:
        said = f"is not a picture (it begins with {_first_bytes(source)!r})"
        raise MediaRefusedError(Code.INPUT_REJECTED, said) from None
    if width * height > limits.max_pixels:
        said = f"has {width}×{height} pixels, more than the {limits.max_pixels} allowed"
        raise MediaRefusedError(Code.INPUT_REJECTED, said)


def _decoded(value: str, match: re.Match[str], max_bytes: int) -> bytes:
    payload = value[match.end() :]
    if ";base64" in match["options"].lower():
        return decoded_base64(urllib.parse.unquote(payload), max_bytes)
    data = urllib.parse.unquote_to_bytes(payload)
    _check_size(len(data), max_bytes)
    return data


def _check_size(size: int, max_bytes: int) -> None:
    if size > max_bytes:
        raise MediaRefusedError(Code.INPUT_REJECTED, f"has {size} bytes, more than the {max_bytes} allowed")


def _first_bytes(source: Path | io.BytesIO) -> bytes:
    if isinstance(source, Path):
        with contextlib.suppress(OSError), source.open("rb") as stream:
            return stream.read(12)
        return b""
    return source.getvalue()[:12]


def _shortened(text: str) -> str:
    return text if len(text) <= 120 else f"{text[:117]}..."
