"""What a result says about how a file looks or sounds: pixels and seconds."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from morpheus_worker.comfy.history import kind_of
from morpheus_worker.durations import duration_of, video_size_of
from morpheus_worker.pictures import NotAPictureError, size_of


@dataclass(frozen=True, slots=True)
class Looks:
    """`width` and `height` in pixels, `duration_s` in seconds; None where they do not apply or the file says none."""

    width: int | None = None
    height: int | None = None
    duration_s: float | None = None


def looks_of(path: Path, media_type: str) -> Looks:
    """Read from the file's own headers. A broken file has no looks; nothing is raised for it."""
    kind = kind_of(media_type)
    if kind == "image":
        return _picture(path)
    if kind == "video":
        width, height = video_size_of(path) or (None, None)
        return Looks(width, height, duration_of(path, media_type))
    return Looks(duration_s=duration_of(path, media_type)) if kind == "audio" else Looks()


def _picture(path: Path) -> Looks:
    try:
        return Looks(*size_of(path))
    except NotAPictureError:
        return Looks()
