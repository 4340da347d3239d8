"""What a result says about how a file looks or sounds: pixels and seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import BinaryIO

from morpheus_worker.comfy.history import kind_of
from morpheus_worker.durations import duration_of, video_size_of
from morpheus_worker.jobs import MediaKind
from morpheus_worker.pictures import NotAPictureError, size_of


@dataclass(frozen=True, slots=True)
class Looks:
    """`width` and `height` in pixels, `duration_s` in seconds; None where they do not apply or the file says none."""

    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


def looks_of(source: Path | BinaryIO, media_type: str) -> Looks:
    """Read from the file's own headers; of what is no file, only pictures are looked at. What is broken has no looks;
    nothing is raised for it."""
    kind = kind_of(media_type)
    if kind == "image":
        return _picture(source)
    return _moving(source, media_type, kind) if isinstance(source, Path) else Looks()


def _moving(path: Path, media_type: str, kind: MediaKind) -> Looks:
    if kind == "video":
        width, height = video_size_of(path) or (None, None)
        return Looks(width, height, duration_of(path, media_type))
    return Looks(duration_s=duration_of(path, media_type)) if kind == "audio" else Looks()


def _picture(source: Path | BinaryIO) -> Looks:
    try:
        return Looks(*size_of(source))
    except NotAPictureError:
        return Looks()
