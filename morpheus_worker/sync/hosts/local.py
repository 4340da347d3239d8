"""Files that this machine has: a source of its own, and the models that RunPod keeps cached on its hosts."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from morpheus_worker.sources import COMMIT, SHA256
from morpheus_worker.sync.formats import judge_file
from morpheus_worker.sync.terms import Resolved, Source, SyncCode, SyncError

BLOCK_BYTES: Final = 1024 * 1024
"""Read at most so much at once: on a network volume a larger read keeps progress waiting."""


def look(source: Source, path: Path) -> Resolved:
    """What this machine says of a file of kind `file`.

    Raises:
        SyncError: when it is no file that can be read.
    """
    found = _found(path)
    return Resolved(source, found.st_size, etag=_etag(found), filename=path.name)


def look_cached(source: Source, found: CachedFile) -> Resolved:
    """The same of a cached file, whose commit the source then names."""
    etag = f'"{found.path.name}"' if found.sha256 is None else None
    filename = str(source["file"]).rpartition("/")[2]
    pinned = {**source, "revision": found.commit}
    size = _found(found.path).st_size
    return Resolved(pinned, size, found.sha256, etag, filename, names_version=True)


def _found(path: Path) -> os.stat_result:
    with _in_words(path):
        found = path.stat()
    if not stat.S_ISREG(found.st_mode):
        raise SyncError(SyncCode.REJECTED, f"{path} is no file")
    return found


def _etag(found: os.stat_result) -> str:
    return f'"{found.st_mtime_ns:x}-{found.st_size:x}-{found.st_ino:x}"'


@contextlib.contextmanager
def _in_words(path: Path) -> Iterator[None]:
    try:
        yield
    except (FileNotFoundError, NotADirectoryError):
        raise SyncError(SyncCode.NOT_FOUND, f"{path} is not there", "check the path") from None
    except PermissionError:
        raise SyncError(SyncCode.ACCESS_DENIED, f"{path} may not be read by this user") from None
    except OSError as failure:
        reason = os.strerror(failure.errno) if failure.errno else "it failed"
        raise SyncError(SyncCode.UNREACHABLE, f"{path} cannot be read: {reason}", passing=True) from None


@dataclass(slots=True)
class LocalBody:
    """A stretch of an open file."""

    descriptor: int
    path: Path
    start: int
    end: int
    total: int | None
    ranged: bool = True

    def readinto(self, buffer: memoryview) -> int:
        most = min(len(buffer), self.end - self.start, BLOCK_BYTES)
        if most == 0:
            return 0
        with _in_words(self.path):
            got = os.preadv(self.descriptor, [buffer[:most]], self.start)
        if not got:
            raise SyncError(SyncCode.CHANGED, f"{self.path} became shorter while it was read")
        self.start += got
        return got


class LocalFeed:
    """The bytes of a file of this machine; `fixed`: the resolved ETag is made of its size and time."""

    def __init__(self, resolved: Resolved, path: Path, *, fixed: bool) -> None:
        self.resolved, self.shown, self.ranges = resolved, str(path), True
        self._path = path
        self._pin = resolved.etag if fixed else None

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[LocalBody]:
        """As `Feed.opened`."""
        with _in_words(self._path):
            descriptor = os.open(self._path, os.O_RDONLY | os.O_CLOEXEC)
        try:
            found = os.fstat(descriptor)
            size = found.st_size
            if self._pin not in (None, _etag(found)) or self.resolved.size not in (None, size):
                raise SyncError(SyncCode.CHANGED, f"{self._path} was changed", "lock it anew")
            stop = size if end is None else min(end, size)
            yield LocalBody(descriptor, self._path, min(start, stop), stop, size)
        finally:
            os.close(descriptor)


@dataclass(frozen=True, slots=True)
class CachedFile:
    """A file of Hugging Face that lies on this machine. `sha256` is None where its blob is named otherwise."""

    path: Path
    commit: str
    sha256: str | None


def cached(root: Path, source: Mapping[str, Any]) -> CachedFile | None:
    """The file in a Hugging Face cache (`models--owner--name/{refs,snapshots,blobs}`), in the revision that the source
    names; where it names none, or main, in the one that was main when it was cached. One that by its own beginning is
    cut off, or no model at all, is not there.

    The layout is huggingface_hub's, and RunPod's on its hosts, with `hub/` around it or without.
    """
    for folder in (root / "hub", root):
        repo = folder / f"models--{str(source['repo']).replace('/', '--')}"
        commit = _commit(repo, source.get("revision"))
        if commit is not None and (found := _snapshot(repo, commit, str(source["file"]))):
            return found
    return None


def _commit(repo: Path, revision: str | None) -> str | None:
    if revision is not None and COMMIT.fullmatch(revision):
        return revision
    if revision not in (None, "main"):
        return None
    try:
        said = (repo / "refs/main").read_text(encoding="ascii").strip()
    except (OSError, ValueError):
        return None
    return said if COMMIT.fullmatch(said) else None


def _snapshot(repo: Path, commit: str, file: str) -> CachedFile | None:
    """The file itself, wherever the snapshot's link leads within its repository."""
    try:
        path = (repo / "snapshots" / commit / file).resolve(strict=True)
        if not path.is_file() or not path.is_relative_to(repo.resolve()):
            return None
        judge_file(path, name=PurePosixPath(file).name, allow_pickle=True)
    except (OSError, RuntimeError, ValueError, SyncError):
        return None
    return CachedFile(path, commit, path.name if SHA256.fullmatch(path.name) else None)
