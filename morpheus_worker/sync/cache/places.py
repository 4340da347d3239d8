"""The cache's folder: where each file belongs, and the one step in which it gets there."""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import shutil
import stat
import time
import uuid
from collections.abc import Iterator
from pathlib import Path, PurePosixPath
from typing import TYPE_CHECKING, Final, Self

from morpheus_worker.sync.cache.parts import BESIDE, PART, sweep
from morpheus_worker.sync.cache.writing import folder_beneath, on_volume, sync_folder, write_whole
from morpheus_worker.sync.receipting import HIDDEN, RECEIPTS, key_of
from morpheus_worker.sync.terms import SyncCode, SyncError
from morpheus_worker.volume import NO_LINKS, WHAT_TO_DO, confined, ensure_writable

if TYPE_CHECKING:
    from morpheus_worker.settings import Settings

logger = logging.getLogger(__name__)

PARTS: Final = "parts"
LEASES: Final = "leases"
QUARANTINE: Final = "quarantine"
TRASH: Final = "trash"
INDEX: Final = "receipts.json"
NOTE: Final = ".why.txt"

CONFLICT_HINT: Final = "--replace takes its place"

_TAKEN: Final = frozenset({errno.EEXIST, errno.ENOTEMPTY, errno.ENOTDIR})


class Cache:
    """A folder of models and node packs. Several processes, on several machines, may use it at once.

    It is made when something is first written, but only in `beneath`, which has to exist: where a volume is not
    mounted, models would otherwise land on the container's disk and go with it.
    """

    def __init__(self, root: Path, *, beneath: Path | None = None) -> None:
        self.root = root
        self.work = root / HIDDEN
        self.beneath = beneath or root.parent
        self._made: set[str] = set()

    @classmethod
    def of(cls, settings: Settings) -> Self:
        root, volume = settings.cache_dir, settings.volume_root
        return cls(root, beneath=volume if root.is_relative_to(volume) else None)

    def at(self, path: PurePosixPath) -> Path:
        """Where the cache's file `path` lies. Links to folders are followed as far as they stay in the cache; the file
        itself may be a link that somebody made, and is not followed.

        Raises:
            SyncError: `invalid` for a path that names no file of the cache, `volume` for one that leads out of it.
        """
        with on_volume(f"looking for '{path}'"):
            return Path(os.path.realpath(self.root), *self._folder_parts(path), path.name)

    def part_path(self, key: str, owner: str) -> Path:
        """Where `owner` writes what is to become the file of that key. The folder is there once it holds a lease."""
        return self.work / PARTS / f"{key}.{owner}{PART}"

    def ensure_there(self) -> None:
        """Finds the cache, or at least the volume that it is to be made on.

        Raises:
            SyncError: `volume`.
        """
        if not self.root.is_dir() and not self.beneath.is_dir():
            raise SyncError(SyncCode.VOLUME, f"{self.beneath} is not there", WHAT_TO_DO)

    def ensure_writable(self) -> None:
        """Makes the cache where it is not, and writes to it: a read-only or full volume shows only then.

        Raises:
            SyncError: `volume`, `no_space`.
        """
        for name in (PARTS, LEASES, RECEIPTS):
            self.own_folder(name)
        with on_volume(f"writing to {self.root}"):
            ensure_writable(self.work)

    def own_folder(self, name: str) -> Path:
        """A folder of ours in the cache, made where it is not.

        Raises:
            SyncError: `volume`, `no_space`.
        """
        if name not in self._made or not (self.work / name).is_dir():
            with on_volume(f"making {self.work / name}"):
                self._make()
                with folder_beneath(self.root, (HIDDEN, name), make=True):
                    self._made.add(name)
        return self.work / name

    def publish(self, part: Path, path: PurePosixPath, *, replace: bool) -> os.stat_result:
        """Makes a verified part the cache's file `path`, in one step: at no moment is anything but a whole file there.

        Its bytes are synced first. Its time becomes a whole second, set by us: a network volume keeps no finer ones,
        and a receipt shall hold on every machine. It is never the time of the file before, whose receipt may still be
        there. What is returned is of this very file, whatever lies at `path` by then. A link at `path` is replaced,
        never what it points to. What earlier tries left of the same file is removed.

        Raises:
            SyncError: `conflict` when something is there and not `replace`; `volume`, `no_space`, `invalid`.
        """
        with on_volume(f"publishing '{path}'"), _opened(part) as file:
            with self._folder_of(path) as folder:
                _settle(file, _seconds_of(folder, path.name))
                if replace:
                    _replace(part, folder, path)
                else:
                    _link(part, folder, path)
                sync_folder(folder)
                published = os.fstat(file)
            _unlink_beside(part)
            sweep(self.work / PARTS, key_of(path))
        return published

    def publish_folder(self, staged: Path, path: PurePosixPath, *, replace: bool, keep: bool = False) -> Path | None:
        """Makes a staged folder the cache's folder `path`, whole. One that is there is first renamed away, then
        removed, or, with `keep`, left where it is then, which is returned; a link is removed, never what it points to.

        Raises:
            SyncError: `conflict` when something is there and not `replace`; `volume`, `no_space`, `invalid`.
        """
        with on_volume(f"publishing '{path}'"):
            _sync_tree(staged)
            away: Path | None = None
            with self._folder_of(path) as folder:
                try:
                    os.rename(staged, path.name, dst_dir_fd=folder)
                except OSError as failure:
                    if failure.errno not in _TAKEN:
                        raise
                    if not replace:
                        raise _conflict(path) from None
                    away = self._swap(staged, folder, path)
                sync_folder(folder)
            _unlink_beside(staged)
            if away is None or (keep and away.is_dir() and not away.is_symlink()):
                return away
            remove_tree(away)
            return None

    def quarantine(self, part: Path, path: PurePosixPath, why: str) -> Path:
        """Moves a part that was rejected out of the way, with a note beside it that says why; returns its new place.
        What was kept of the same file before is removed: of each there is the newest alone, so that a source which is
        wrong for good fills no volume.

        Raises:
            SyncError: `volume`, `no_space`.
        """
        now = time.gmtime()
        folder = self.own_folder(QUARANTINE)
        place = folder / f"{key_of(path)}.{time.strftime('%Y%m%dT%H%M%SZ', now)}-{uuid.uuid4().hex[:4]}"
        with on_volume(f"putting '{path}' into quarantine"):
            os.rename(part, place)
            _unlink_beside(part)
            _keep_newest(folder, key_of(path), place.name)
        said = f"{path}\n{why}\n{time.strftime('%Y-%m-%d %H:%M:%S', now)} UTC\n"
        try:
            write_whole(place.with_name(place.name + NOTE), said.encode("utf-8", "replace"))
        except OSError as failure:
            # Why it was rejected is what matters, not that a full volume takes no note of it.
            logger.warning("No note can be written beside %s: %s", place, failure)
        return place

    def _make(self) -> None:
        self.ensure_there()
        if self.root.is_dir():
            return
        with folder_beneath(self.beneath, self.root.relative_to(self.beneath).parts, make=True):
            pass

    def _folder_parts(self, path: PurePosixPath) -> tuple[str, ...]:
        """The folders above `path`, from the cache's root, links resolved."""
        if path.is_absolute() or not path.name or ".." in path.parts or "\0" in str(path):
            raise SyncError(SyncCode.INVALID, f"'{path}' names no file of the cache")
        home = os.path.realpath(self.root)
        parts = confined(self.root, path.parent).relative_to(home).parts
        # Where case makes no difference, `.Morpheus` is the same folder.
        if (*parts, path.name)[0].casefold() == HIDDEN:
            raise SyncError(SyncCode.INVALID, f"'{path}' is among the cache's own records")
        return parts

    @contextlib.contextmanager
    def _folder_of(self, path: PurePosixPath) -> Iterator[int]:
        parts = self._folder_parts(path)
        self._make()
        with folder_beneath(self.root, parts, make=True) as folder:
            yield folder

    def _swap(self, staged: Path, folder: int, path: PurePosixPath) -> Path:
        """Returns where the old one lies now."""
        away = self.own_folder(TRASH) / f"{key_of(path)}.{uuid.uuid4().hex[:8]}"
        os.rename(path.name, away, src_dir_fd=folder)
        try:
            os.rename(staged, path.name, dst_dir_fd=folder)
        except OSError as failure:
            with contextlib.suppress(OSError):
                os.rename(away, path.name, dst_dir_fd=folder)
            # Somebody published in between.
            raise _conflict(path) if failure.errno in _TAKEN else failure from None
        return away


def remove_tree(path: Path) -> None:
    """Removes a file, a link or a folder, as far as it can be.

    Raises:
        FileNotFoundError: when there is nothing.
    """
    if stat.S_ISDIR(path.lstat().st_mode):
        shutil.rmtree(path, onerror=lambda _, at, __: logger.warning("%s cannot be removed", at))
    else:
        path.unlink()


@contextlib.contextmanager
def _opened(part: Path) -> Iterator[int]:
    descriptor = os.open(part, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        if not stat.S_ISREG(os.fstat(descriptor).st_mode):
            raise SyncError(SyncCode.INTERNAL, f"{part.name} is no file")
        yield descriptor
    finally:
        os.close(descriptor)


def _settle(file: int, taken_s: int | None) -> None:
    """Syncs the file. A whole second from now on says when it was published, another one than `taken_s`."""
    now_s = int(time.time())
    now_s += now_s == taken_s
    try:
        os.utime(file, (now_s, now_s))
    except OSError as failure:
        # A file system that sets no times: then those are its own, and the receipt has whatever it says.
        if failure.errno not in NO_LINKS:
            raise
    os.fsync(file)


def _seconds_of(folder: int, name: str) -> int | None:
    """When what lies there was last written, in whole seconds."""
    try:
        return int(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mtime)
    except FileNotFoundError:
        return None


def _replace(part: Path, folder: int, path: PurePosixPath) -> None:
    try:
        os.replace(part, path.name, dst_dir_fd=folder)
    except IsADirectoryError:
        raise SyncError(SyncCode.CONFLICT, f"'{path}' is a folder", "move it away") from None


def _link(part: Path, folder: int, path: PurePosixPath) -> None:
    """`link` fails where a name exists, `rename` does not."""
    try:
        os.link(part, path.name, dst_dir_fd=folder)
    except FileExistsError:
        if not _is_same(part, folder, path.name):
            raise _conflict(path) from None
    except OSError as failure:
        if failure.errno not in NO_LINKS:
            raise
        if _exists(folder, path.name):
            raise _conflict(path) from None
        os.rename(part, path.name, dst_dir_fd=folder)
        return
    part.unlink(missing_ok=True)


def _conflict(path: PurePosixPath) -> SyncError:
    return SyncError(SyncCode.CONFLICT, f"something else lies at '{path}'", CONFLICT_HINT)


def _exists(folder: int, name: str) -> bool:
    try:
        os.stat(name, dir_fd=folder, follow_symlinks=False)
    except FileNotFoundError:
        return False
    return True


def _is_same(part: Path, folder: int, name: str) -> bool:
    """A network file system may say that a link is there already which it has just made."""
    there = os.stat(name, dir_fd=folder, follow_symlinks=False)
    return os.path.samestat(part.lstat(), there)


def _keep_newest(folder: Path, key: str, newest: str) -> None:
    """Removes whatever else is kept of that key, and its notes."""
    for older in os.listdir(folder):
        if older.startswith(f"{key}.") and not older.startswith(newest):
            with contextlib.suppress(OSError):
                folder.joinpath(older).unlink()


def _unlink_beside(part: Path) -> None:
    for ending in BESIDE:
        with contextlib.suppress(OSError):
            part.with_name(part.name + ending).unlink()


def _sync_tree(folder: Path) -> None:
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if not os.path.islink(path):
                _sync_file(path)
        sync_folder(Path(place))


def _sync_file(path: str) -> None:
    descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    try:
        os.fsync(descriptor)
    finally:
        os.close(descriptor)
