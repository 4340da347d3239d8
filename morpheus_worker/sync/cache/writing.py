"""How anything gets onto the volume whole: written beside its place, synced, given its name in one step."""

from __future__ import annotations

import contextlib
import errno
import os
import uuid
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Final

from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.paths import UnsafePathError
from morpheus_worker.sync.terms import SyncCode, SyncError
from morpheus_worker.volume import NO_LINKS, volume_error

TEMPORARY: Final = ".tmp"

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_NO_FOLDER: Final = frozenset({errno.ELOOP, errno.ENOTDIR})
_CODES: Final = {Code.VOLUME_FULL: SyncCode.NO_SPACE, Code.VOLUME_UNAVAILABLE: SyncCode.VOLUME}


@contextlib.contextmanager
def on_volume(doing: str) -> Iterator[None]:
    """Within it, what the volume refuses becomes a SyncError (`no_space`, `volume`, `internal`) that says what was
    being done, and what a person can do."""
    try:
        yield
    except UnsafePathError as failure:
        raise SyncError(SyncCode.VOLUME, str(failure), "nothing is written through a link out of it") from None
    except MorpheusError as failure:
        raise _as_sync_error(failure) from failure
    except OSError as failure:
        raise of_volume(failure, doing) from failure


def of_volume(failure: OSError, doing: str) -> SyncError:
    """What an OSError means for one file."""
    if failure.errno == errno.ENAMETOOLONG:
        return SyncError(SyncCode.INVALID, f"{doing} failed: the name is too long for the volume")
    if failure.errno == errno.EXDEV:
        hint = "the cache has to be one file system, without mounts inside"
        return SyncError(SyncCode.VOLUME, f"{doing} failed: the folder lies on another file system", hint)
    return _as_sync_error(volume_error(failure, doing))


def _as_sync_error(failure: MorpheusError) -> SyncError:
    return SyncError(_CODES.get(failure.code, SyncCode.INTERNAL), failure.message.removesuffix("."))


@contextlib.contextmanager
def folder_beneath(root: Path, parts: Sequence[str], *, make: bool) -> Iterator[int]:
    """A descriptor of the folder `parts` beneath `root`, each opened from the one before and none through a link, so a
    folder that another process swaps for a link meanwhile cannot lead out. With `make`, those that are not there are
    made, one by one.

    Raises:
        SyncError: `volume`, when something else is in the way.
        OSError: the volume failed, or a folder is not there.
    """
    with contextlib.ExitStack() as opened:
        folder = os.open(root, os.O_RDONLY | os.O_DIRECTORY)
        opened.callback(os.close, folder)
        for depth, part in enumerate(parts):
            shown = "/".join(parts[: depth + 1])
            folder = _stepped(part, folder, shown, make=make)
            opened.callback(os.close, folder)
        yield folder


def write_whole(path: Path, content: bytes, *, durable: bool = True) -> None:
    """Makes `content` the file `path` in one step, in place of what was there. `durable`: it outlives a power cut."""
    with _written(path, content, durable=durable) as temporary:
        os.replace(temporary, path)
        if durable:
            sync_folder(path.parent)


def create_whole(path: Path, content: bytes) -> bool:
    """Makes a file of `content` at `path` unless something is there already; then False, and nothing changes."""
    with _written(path, content, durable=False) as temporary:
        try:
            os.link(temporary, path)
        except FileExistsError:
            return False
        except OSError as failure:
            if failure.errno not in NO_LINKS:
                raise
            return _create_without_links(path, content)
        return True


def sync_folder(folder: Path | int) -> None:
    """Makes the names in a folder durable. A FUSE file system that cannot says so; nothing more to do."""
    if isinstance(folder, int):
        with contextlib.suppress(OSError):
            os.fsync(folder)
        return
    descriptor = os.open(folder, os.O_RDONLY | os.O_DIRECTORY)
    try:
        sync_folder(descriptor)
    finally:
        os.close(descriptor)


def _stepped(part: str, folder: int, shown: str, *, make: bool) -> int:
    try:
        return os.open(part, _FOLDER, dir_fd=folder)
    except FileNotFoundError:
        if not make:
            raise
    except OSError as failure:
        raise _in_the_way(failure, shown) from None
    with contextlib.suppress(FileExistsError):
        os.mkdir(part, dir_fd=folder)
    sync_folder(folder)
    try:
        return os.open(part, _FOLDER, dir_fd=folder)
    except OSError as failure:
        raise _in_the_way(failure, shown) from None


def _in_the_way(failure: OSError, shown: str) -> Exception:
    if failure.errno not in _NO_FOLDER:
        return OSError(failure.errno, failure.strerror, shown)
    return SyncError(SyncCode.VOLUME, f"'{shown}' is in the way: it is no folder", "move it away")


@contextlib.contextmanager
def _written(path: Path, content: bytes, *, durable: bool) -> Iterator[Path]:
    """A file of `content` beside `path`, gone afterwards unless it was renamed."""
    temporary = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TEMPORARY}")
    try:
        with temporary.open("xb", buffering=0) as stream:
            rest = memoryview(content)
            while rest:
                rest = rest[stream.write(rest) :]
            if durable:
                os.fsync(stream.fileno())
        yield temporary
    finally:
        with contextlib.suppress(OSError):
            temporary.unlink()


def _create_without_links(path: Path, content: bytes) -> bool:
    """For a moment the file is there and not yet whole: whoever reads it looks again."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o666)
    except FileExistsError:
        return False
    try:
        os.write(descriptor, content)
    except OSError:
        os.unlink(path)
        raise
    finally:
        os.close(descriptor)
    return True
