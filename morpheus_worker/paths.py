"""Path containment: what a text may name on the network volume. Decisions only; `volume` follows links.

One volume has three views: a worker sees it at `/runpod-volume` (or wherever its settings say), a pod at
`/workspace`, and the file gateway speaks of `job_outputs/<job id>/<name>`.
"""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import Final

WORKER_VIEW: Final = PurePosixPath("/runpod-volume")
"""Where RunPod mounts the volume in a serverless worker."""

POD_VIEW: Final = PurePosixPath("/workspace")
"""Where RunPod mounts the same volume in a pod."""

JOB_OUTPUTS: Final = "job_outputs"
"""The folder of the volume that holds one folder a job; the only one that the gateway serves."""

RESERVED: Final = frozenset({"morpheus_model_cache", "models", "huggingface-cache", "morpheus_lib", "job_index"})
"""Folders at the volume's root that belong to the endpoint: no job writes there. What lies in them is loaded as models
and code, or believed."""

MAX_NAME_BYTES: Final = 255
"""NAME_MAX of Linux filesystems."""

MAX_PATH_BYTES: Final = 4096
"""PATH_MAX of Linux, which counts the closing NUL."""

MAX_FILENAME_BYTES: Final = 200
"""What `safe_filename` keeps: a number against clashes, or a hidden working name, still fits beside it."""

FALLBACK_FILENAME: Final = "file"

_MAX_EXTENSION_BYTES: Final = 32
_REFUSED_CATEGORIES: Final = frozenset({"Cc", "Cs"})
"""Unicode's control characters (NUL is one) and surrogates."""

_RECORD_NAME: Final = re.compile(r"result(-\d+)?\.json", re.IGNORECASE)
_USER: Final = re.compile(r"(?<=//)[^/\s]*@|(?<=:)[^/\s]*@")

_REPLACED_CATEGORIES: Final = _REFUSED_CATEGORIES | {"Zl", "Zp"}
_REPLACED_CHARACTERS: Final = frozenset("?#%")
"""These would end or change a path in a URL, and existing clients put a path into a URL as it is."""


class UnsafePathError(ValueError):
    """A path that is refused; the message is a sentence that says why."""


def volume_relative(text: str, *, volume_root: Path) -> PurePosixPath:
    """The path that `text` names, relative to the volume's root; `.` for the root itself.

    These name the same file, with or without the leading slash, with repeated slashes and `.` parts:
    `<volume_root>/job_outputs/7/x.png`, `/runpod-volume/job_outputs/7/x.png`, `/workspace/job_outputs/7/x.png`,
    `/job_outputs/7/x.png`. A relative path that begins with none of these is relative to the root.

    A view is taken off once, at the front. So `workspace/x.png` is a pod's `/workspace/x.png`, never a folder of that
    name at the root of the volume; such a folder is reached as `/runpod-volume/workspace/x.png`. A job folder may be
    called what it likes: `job_outputs/workspace/x.png` begins with `job_outputs`. For the same reason the result is
    to be used, not to be read a second time.

    Nothing is percent-decoded: a `%2e` that is still there is three characters.

    Raises:
        UnsafePathError: for an empty text, control characters, surrogates, backslashes, a `..` part, a part that
            begins with `~`, a part or a path that is too long, and an absolute path outside the views.
    """
    parts = _parts(text)
    for view in _views(volume_root):
        if parts[: len(view)] == view:
            return PurePosixPath(*parts[len(view) :])
    if text.startswith("/") and parts[:1] != (JOB_OUTPUTS,):
        raise UnsafePathError(f"{_shown(text)} is outside the volume, which is {POD_VIEW} or {volume_root}")
    return PurePosixPath(*parts)


def safe_filename(text: str) -> str:
    """One plain file name made of a reported one: its last component, with control characters, surrogates and what a
    URL gives a meaning to replaced by `_`, no leading dot or `~`, at most 200 bytes with the extension kept, never
    empty. Whatever comes out, `volume_relative` accepts as a part."""
    last = text.replace("\\", "/").rstrip("/").rpartition("/")[2]
    name = "".join("_" if _is_replaced(character) else character for character in last)
    return _shortened(name.strip().lstrip(".~ ")) or FALLBACK_FILENAME


def is_record(name: str) -> bool:
    """Whether a file of this name in a job's folder says that the job is complete."""
    return _RECORD_NAME.fullmatch(name) is not None


def _parts(text: str) -> tuple[str, ...]:
    if not text.strip():
        raise UnsafePathError("the path is empty")
    if any(unicodedata.category(character) in _REFUSED_CATEGORIES for character in text):
        raise UnsafePathError(f"{_shown(text)} has a control character or half a surrogate pair in it")
    if "\\" in text:
        raise UnsafePathError(f"{_shown(text)} has a backslash in it; folders are separated by '/'")
    parts = tuple(part for part in text.split("/") if part not in ("", "."))
    for problem in _part_problems(text, parts):
        raise UnsafePathError(f"{_shown(text)} {problem}")
    return parts


def _part_problems(text: str, parts: tuple[str, ...]) -> Iterator[str]:
    if ".." in parts:
        yield "has a '..' part, and so could leave the volume"
    if any(part.startswith("~") for part in parts):
        yield "has a part that begins with '~', which a shell takes for a home folder"
    if any(len(part.encode()) > MAX_NAME_BYTES for part in parts):
        yield f"has a part of more than {MAX_NAME_BYTES} bytes"
    if len(text.encode()) >= MAX_PATH_BYTES:
        yield f"has {MAX_PATH_BYTES} bytes or more"


def _views(volume_root: Path) -> list[tuple[str, ...]]:
    """The views' parts, the deeper first: a root may itself lie in `/workspace`."""
    views = {PurePosixPath(volume_root).parts[1:], WORKER_VIEW.parts[1:], POD_VIEW.parts[1:]}
    return sorted(views, key=len, reverse=True)


def _is_replaced(character: str) -> bool:
    return character in _REPLACED_CHARACTERS or unicodedata.category(character) in _REPLACED_CATEGORIES


def _shortened(name: str) -> str:
    if len(name.encode()) <= MAX_FILENAME_BYTES:
        return name
    stem, dot, extension = name.rpartition(".")
    suffix = dot + extension
    if not stem or len(suffix.encode()) > _MAX_EXTENSION_BYTES:
        stem, suffix = name, ""
    room = MAX_FILENAME_BYTES - len(suffix.encode())
    return stem.encode()[:room].decode(errors="ignore").rstrip() + suffix


def _shown(text: str) -> str:
    """The text as it may be shown: nothing invisible in it, no password of a URL that was taken for a path, and not a
    megabyte of base64."""
    text = _USER.sub("…@", text)
    start = text[:80] + "…" * (len(text) > 80)
    hidden = any(unicodedata.category(character) in _REPLACED_CATEGORIES for character in start)
    return ascii(start) if hidden else f"'{start}'"
