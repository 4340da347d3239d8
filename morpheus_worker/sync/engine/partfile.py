"""A file that is being fetched, under a name that nobody else writes to, and its journal."""

from __future__ import annotations

import contextlib
import os
import stat
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Final, Self

from morpheus_worker.sync.engine.disk import disk_error
from morpheus_worker.sync.engine.journal import About, Held, Journal, journal_of, read_journal
from morpheus_worker.sync.terms import Pace, Resolved, Stop, SyncCode, SyncError, stopped

PART_BYTES: Final = Pace().part_bytes
COPY_BYTES: Final = 8 * 1024 * 1024

_FLAGS: Final = os.O_RDWR | os.O_CLOEXEC | os.O_NOFOLLOW


class PartFile:
    """An open part: bytes are written anywhere in it, by several threads, and whole segments are noted in its journal.

    `held` is what an earlier run left of these very bytes; it is empty where nothing tells them from other bytes
    (`Resolved.version` is None), where the size is unknown, or where what lies there is of another version or size.

    Every method raises SyncError `no_space` or `volume` when the disk refuses.
    """

    def __init__(self, path: Path, resolved: Resolved, segment_bytes: int, *, fd: int, held: Held) -> None:
        self.path, self.resolved, self.size, self.segment_bytes = path, resolved, resolved.size, segment_bytes
        self.held = held
        self._fd = fd
        self._noting = threading.Lock()
        self._journal: Journal | None = None
        if about := _about(resolved, segment_bytes):
            self._journal = Journal(journal_of(path), about)

    @classmethod
    def open(cls, path: Path, resolved: Resolved, *, segment_bytes: int = PART_BYTES) -> Self:
        """Goes on with the part at `path` where it is of the same version, size and segments; else begins a new one.

        One that is begun takes no room yet, and is a new file: what hangs on the old one by another name is untouched.
        """
        with _guarded(f"opening the part {path.name}"):
            return cls._resumed(path, resolved, segment_bytes) or cls._fresh(path, resolved, segment_bytes)

    @classmethod
    def _resumed(cls, path: Path, resolved: Resolved, segment_bytes: int) -> Self | None:
        about = _about(resolved, segment_bytes)
        found = read_journal(journal_of(path)) if about else None
        if about is None or found is None or found[0] != about:
            return None
        held = found[1]
        if needs_crc(resolved):
            held.segments = {segment: crc for segment, crc in held.segments.items() if crc is not None}
            held.synced &= held.segments.keys()
        try:
            fd = os.open(path, _FLAGS)
        except FileNotFoundError:
            return None
        with _closed_on_error(fd):
            told = os.fstat(fd)
            # A second name means that it was published: then it is written to no more.
            if not stat.S_ISREG(told.st_mode) or told.st_size != resolved.size or told.st_nlink != 1:
                os.close(fd)
                return None
            part = cls(path, resolved, segment_bytes, fd=fd, held=held)
            part._journal = Journal.anew(journal_of(path), about, held)
        return part

    @classmethod
    def _fresh(cls, path: Path, resolved: Resolved, segment_bytes: int) -> Self:
        # In this order: a journal must never lie beside a part that it is not about.
        for old in (journal_of(path), path):
            old.unlink(missing_ok=True)
        path.parent.mkdir(parents=True, exist_ok=True)
        fd = os.open(path, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        with _closed_on_error(fd):
            # Never posix_fallocate: where the filesystem cannot, it writes zeros, all of them over the network.
            os.ftruncate(fd, resolved.size or 0)
        return cls(path, resolved, segment_bytes, fd=fd, held=Held())

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def write_at(self, data: memoryview, at: int) -> None:
        try:
            while len(data):
                written = os.pwrite(self._fd, data, at)
                data, at = data[written:], at + written
        except OSError as failure:
            raise disk_error(failure, "writing the part") from failure

    def written(self, segment: int, crc: int | None) -> None:
        """Notes that all bytes of the segment were written."""
        if self._journal is not None:
            with self._noting, _guarded("noting what the part holds"):
                self._journal.written(segment, crc)

    def synced(self, segments: list[int]) -> None:
        """Notes that what was written of them is on the disk."""
        if self._journal is not None and segments:
            with _guarded("noting what the part holds"):
                with self._noting:
                    self._journal.synced(segments)
                # Not while others wait to note something: they fetch nothing meanwhile.
                self._journal.flush()

    def wrong(self, segment: int) -> None:
        """Notes that the segment does not hold what was noted."""
        if self._journal is not None:
            with self._noting, _guarded("noting what the part holds"):
                self._journal.wrong(segment)

    def forget(self) -> None:
        """Takes the journal away: no run goes on from this part."""
        journal, self._journal = self._journal, None
        if journal is not None:
            with _guarded("removing the part's journal"):
                journal.close()
                journal_of(self.path).unlink(missing_ok=True)

    def cut(self, size: int) -> None:
        """Ends the file there."""
        with _guarded("ending the part"):
            os.ftruncate(self._fd, size)

    def bytes_on_disk(self) -> int:
        """The file's size."""
        with _guarded("looking at the part"):
            return os.fstat(self._fd).st_size

    def another_fd(self) -> int:
        """A descriptor of its own for a thread that may outlive this object; it closes it."""
        with _guarded("opening the part"):
            return os.dup(self._fd)

    def close(self) -> None:
        """Nothing is written any more. The part and its journal stay."""
        fd, self._fd = self._fd, -1
        if fd >= 0:
            os.close(fd)
        if self._journal is not None:
            self._journal.close()


def discard(path: Path) -> None:
    """Removes a part and its journal, or whatever is left of them.

    Raises:
        SyncError: `volume`.
    """
    with _guarded(f"removing the part {path.name}"):
        for each in (journal_of(path), path):
            each.unlink(missing_ok=True)


def needs_crc(resolved: Resolved) -> bool:
    """Whether nothing but the CRCs of a journal would tell that its segments are not what is on the disk."""
    return resolved.version is not None and resolved.sha256 is None


def inherit(old: Path, new: Path, *, share: bool, version: str | None = None, stop: Stop | None = None) -> int:
    """Makes the part `new` of what another run left in `old`. Returns how many bytes that are.

    `share`: the very file is taken, in one rename; only where its owner is provably dead, since it would go on writing.
    Otherwise the whole segments are copied, which harms nobody. Nothing is taken, and 0 returned, where there is no
    usable journal, its version is not the one that is wanted, or the part is not as it says: its owner may just be
    publishing it.

    Raises:
        SyncError: `no_space`, `volume`, `interrupted`.
    """
    with _guarded(f"taking over the part {old.name}"):
        found = read_journal(journal_of(old))
        if found is None or version not in (None, found[0].version) or not found[1].segments:
            return 0
        about, held = found
        try:
            told = old.lstat()
        except FileNotFoundError:
            return 0
        if not stat.S_ISREG(told.st_mode) or told.st_size != about.size:
            return 0
        new.parent.mkdir(parents=True, exist_ok=True)
        journal_of(new).unlink(missing_ok=True)
        if share:
            # The journal comes last: without it the part is begun anew, and one without its part is not believed.
            os.replace(old, new)
            os.replace(journal_of(old), journal_of(new))
        elif not _copy(old, new, about, held, stop):
            return 0
    return _bytes_of(about, held)


def _copy(old: Path, new: Path, about: About, held: Held, stop: Stop | None) -> bool:
    """Whether there still was something to copy."""
    new.unlink(missing_ok=True)
    held.synced.clear()
    with contextlib.ExitStack() as opened:
        try:
            source = os.open(old, os.O_RDONLY | os.O_CLOEXEC | os.O_NOFOLLOW)
        except FileNotFoundError:
            return False
        opened.callback(os.close, source)
        target = os.open(new, _FLAGS | os.O_CREAT | os.O_EXCL, 0o666)
        opened.callback(os.close, target)
        os.ftruncate(target, about.size)
        for segment in sorted(held.segments):
            if stop is not None and stop.is_set():
                raise stopped()
            _copy_range(source, target, *_bounds(about, segment))
    Journal.anew(journal_of(new), about, held).close()
    return True


def _copy_range(source: int, target: int, start: int, end: int) -> None:
    buffer = memoryview(bytearray(min(COPY_BYTES, end - start)))
    while start < end:
        count = os.preadv(source, [buffer[: end - start]], start)
        if count == 0:
            raise SyncError(SyncCode.VOLUME, "the part that is taken over ends before its size")
        done = 0
        while done < count:
            done += os.pwrite(target, buffer[done:count], start + done)
        start += count


def _bounds(about: About, segment: int) -> tuple[int, int]:
    start = segment * about.segment_bytes
    return start, min(start + about.segment_bytes, about.size)


def _bytes_of(about: About, held: Held) -> int:
    bounds = (_bounds(about, segment) for segment in held.segments)
    return sum(end - start for start, end in bounds)


def _about(resolved: Resolved, segment_bytes: int) -> About | None:
    """What a journal would be about; None where nothing could ever be resumed."""
    if resolved.version is None or not resolved.size:
        return None
    return About(resolved.version, resolved.size, segment_bytes)


@contextlib.contextmanager
def _guarded(doing: str) -> Iterator[None]:
    try:
        yield
    except OSError as failure:
        raise disk_error(failure, doing) from failure


@contextlib.contextmanager
def _closed_on_error(fd: int) -> Iterator[None]:
    try:
        yield
    except BaseException:
        os.close(fd)
        raise
