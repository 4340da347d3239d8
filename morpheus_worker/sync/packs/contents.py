"""What a pack's folder holds: its files with their hashes, and what it asks pip for. Nothing of it is run."""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import tomllib
from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Final

from morpheus_worker.sync.terms import SyncCode, SyncError

_CHUNK: Final = 1024 * 1024
_IGNORED_FOLDERS: Final = frozenset({"__pycache__", ".git"})


def files_of(folder: Path) -> list[str]:
    """Every file, by its path in the folder. What Python and Git keep for themselves is left out."""
    return [
        str(path.relative_to(folder))
        for path in sorted(folder.rglob("*"))
        if path.is_file() and not _IGNORED_FOLDERS.intersection(path.relative_to(folder).parts)
    ]


def inventory(folder: Path, names: Iterable[str]) -> dict[str, str]:
    """The SHA-256 of each file that is there."""
    return {name: sha256 for name in names if (sha256 := hash_of(folder / name)) is not None}


def holds_just(folder: Path, files: Mapping[str, str]) -> bool:
    """Whether the folder's files are these and no others, by their hashes."""
    names = files_of(folder)
    return set(names) == set(files) and all(hash_of(folder / name) == files[name] for name in names)


def refuse_links_out(folder: Path) -> None:
    """
    Raises:
        SyncError: `rejected`, for a link that leads out of the folder.
    """
    home = os.path.realpath(folder)
    for path in folder.rglob("*"):
        if path.is_symlink() and not Path(os.path.realpath(path)).is_relative_to(home):
            raise SyncError(SyncCode.REJECTED, f"has a link that leads out of it: {path.relative_to(folder)}")


def hash_of(path: Path) -> str | None:
    """None for what is no file."""
    try:
        with open(path, "rb", opener=_without_waiting) as stream:
            digest = hashlib.sha256()
            while chunk := stream.read(_CHUNK):
                digest.update(chunk)
    except (FileNotFoundError, IsADirectoryError, NotADirectoryError):
        return None
    return digest.hexdigest()


def requirements_of(folder: Path) -> tuple[str, ...]:
    """What a pack asks pip for: the lines of its requirements.txt, or else its project's dependencies."""
    with contextlib.suppress(OSError, UnicodeDecodeError):
        return tuple(_requirement_lines((folder / "requirements.txt").read_text(encoding="utf-8-sig")))
    with contextlib.suppress(OSError, UnicodeDecodeError, tomllib.TOMLDecodeError, RecursionError):
        project = tomllib.loads((folder / "pyproject.toml").read_text(encoding="utf-8")).get("project")
        listed = project.get("dependencies") if isinstance(project, dict) else None
        return tuple(line for line in listed if isinstance(line, str)) if isinstance(listed, list) else ()
    return ()


def _requirement_lines(text: str) -> Iterator[str]:
    for line in text.replace("\\\n", " ").splitlines():
        # pip takes a # for a comment only after white space: an address may have a fragment.
        if wanted := re.sub(r"(^|\s)#.*", "", line).strip():
            yield wanted


def _without_waiting(path: str, flags: int) -> int:
    """A pipe that somebody put there would be waited for."""
    return os.open(path, flags | os.O_NONBLOCK)
