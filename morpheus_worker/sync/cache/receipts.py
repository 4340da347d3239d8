"""What is known of the cache's files: a receipt each, which is the truth, and an index of all, read in one go.

An index that lags behind costs a read, never a wrong answer: what it lacks, or what does not agree with the file, is
looked up in the file's own receipt. A receipt that cannot be read counts as none.
"""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import json
import os
import stat
import threading
from collections.abc import Collection, Iterable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import Final

from morpheus_worker.sync.cache.places import INDEX, Cache
from morpheus_worker.sync.cache.writing import on_volume, write_whole
from morpheus_worker.sync.planning import Seen
from morpheus_worker.sync.receipting import (
    RECEIPTS,
    json_bytes,
    read_receipt,
    receipt_file,
    receipt_of,
    receipt_text,
    seen_with,
)
from morpheus_worker.sync.terms import Receipt

INDEX_VERSION: Final = 1

_ENDING: Final = ".json"
_NOT_FOUND: Final = frozenset({errno.ENOENT, errno.ENOTDIR, errno.ELOOP})


class Known(Mapping[str, Receipt]):
    """The receipts of a cache, by path. One that the index lacks is read when it is asked for, each time anew until
    there is one; what is iterated and counted is what has been read so far."""

    def __init__(self, folder: Path, listed: Iterable[Receipt]) -> None:
        self._folder = folder
        self._read = {str(receipt.path): receipt for receipt in listed}
        self.unlisted: set[str] = set()
        """Paths of which the index says nothing, or nothing right."""

    def __getitem__(self, path: str) -> Receipt:
        receipt = self._read.get(path) or self.reread(PurePosixPath(path))
        if receipt is None:
            raise KeyError(path)
        return receipt

    def __iter__(self) -> Iterator[str]:
        return iter(tuple(self._read))

    def __len__(self) -> int:
        return len(self._read)

    def reread(self, path: PurePosixPath) -> Receipt | None:
        """The file's own receipt, whatever the index says."""
        receipt = _own(self._folder / receipt_file(path))
        if receipt is None or receipt.path != path:
            return None
        if receipt != self._read.get(str(path)):
            self.put(receipt)
        return receipt

    def put(self, receipt: Receipt) -> None:
        self._read[str(receipt.path)] = receipt
        self.unlisted.add(str(receipt.path))

    def drop(self, path: PurePosixPath) -> None:
        self._read.pop(str(path), None)
        self.unlisted.add(str(path))


class Receipts:
    """Reads and writes the receipts of one cache. Several threads may write."""

    def __init__(self, cache: Cache) -> None:
        self._cache = cache
        self._folder = cache.work / RECEIPTS
        self._index = cache.work / INDEX
        self._lock = threading.Lock()
        self._known = Known(self._folder, ())
        self._completed: dict[str, Receipt] = {}

    def load(self) -> Known:
        """What the index knows, in one read; whatever is asked for beyond it is read when it is.

        Raises:
            SyncError: `volume`, when it is not there or cannot be read.
        """
        with on_volume("reading the receipts"):
            listed = list(self._read_index())
        if not listed:
            self._cache.ensure_there()
        with self._lock:
            unlisted = self._known.unlisted
            self._known = Known(self._folder, listed)
            self._known.unlisted |= unlisted
            return self._known

    def standing(self, path: PurePosixPath, known: Known) -> Seen:
        """How the cache's file stands to its receipt: `present`, `changed`, `unreceipted` or `absent`, with its size
        in bytes and the receipt that was believed. One stat, where the index agrees with the file.

        A receipt without a time, written for a file that came through a bucket, is completed with the file's.

        Raises:
            SyncError: `volume`, when there is no telling.
        """
        there = self._look(path)
        if there is None:
            return Seen("absent")
        receipt = known.get(str(path))
        # Anything but a file is never read: a pipe would be waited for.
        if not stat.S_ISREG(there.st_mode):
            return Seen("changed" if receipt else "unreceipted", None, receipt)
        seen = seen_with(receipt, there.st_size, there.st_mtime_ns)
        if seen.state == "changed" and (own := known.reread(path)) is not None:
            seen = seen_with(own, there.st_size, there.st_mtime_ns)
        if seen.state == "present" and seen.receipt is not None and seen.receipt.mtime_ns is None:
            complete = dataclasses.replace(seen.receipt, mtime_ns=there.st_mtime_ns)
            with self._lock:
                self._completed[str(path)] = complete
                known.put(complete)
            return dataclasses.replace(seen, receipt=complete)
        return seen

    def write(self, receipt: Receipt) -> None:
        """Writes the receipt of a file that was published. That a request asked for the file is not forgotten when
        another version takes its place.

        Raises:
            SyncError: `volume`, `no_space`.
        """
        folder = self._cache.own_folder(RECEIPTS)
        if not receipt.requested and (old := _own(folder / receipt_file(receipt.path))) is not None and old.requested:
            receipt = dataclasses.replace(receipt, requested=True)
        with on_volume(f"writing the receipt of '{receipt.path}'"):
            write_whole(folder / receipt_file(receipt.path), receipt_text(receipt).encode())
        with self._lock:
            self._completed.pop(str(receipt.path), None)
            self._known.put(receipt)

    def forget(self, path: PurePosixPath) -> None:
        """Removes the receipt of a file. The index goes without it from the next `settle` on.

        Raises:
            SyncError: `volume`.
        """
        with on_volume(f"removing the receipt of '{path}'"), contextlib.suppress(FileNotFoundError):
            (self._folder / receipt_file(path)).unlink()
        with self._lock:
            self._completed.pop(str(path), None)
            self._known.drop(path)

    def settle(self) -> None:
        """Writes the index anew where it is known to lack something: what it says by now, brought up to date from the
        receipts beside it. Receipts that were completed are written first.

        Raises:
            SyncError: `volume`, `no_space`.
        """
        for receipt in tuple(self._completed.values()):
            self.write(receipt)
        with self._lock:
            unlisted, self._known.unlisted = self._known.unlisted, set()
        if not unlisted:
            return
        self._cache.own_folder(RECEIPTS)
        try:
            with on_volume("writing the index of receipts"):
                receipts = [receipt.as_dict() for receipt in self._gathered(unlisted)]
                told = {"version": INDEX_VERSION, "receipts": receipts}
                write_whole(self._index, json_bytes(told, separators=(",", ":")))
        except BaseException:
            with self._lock:
                self._known.unlisted |= unlisted
            raise

    def _look(self, path: PurePosixPath) -> os.stat_result | None:
        """What is there, links followed; of a link that leads nowhere, the link."""
        place = self._cache.root / path
        with on_volume(f"looking at '{path}'"):
            try:
                return os.stat(place)
            except OSError as failure:
                if failure.errno not in _NOT_FOUND:
                    raise
            try:
                return os.lstat(place)
            except OSError as failure:
                if failure.errno not in _NOT_FOUND:
                    raise
        return None

    def _gathered(self, unlisted: Collection[str]) -> list[Receipt]:
        """Every receipt there is, each read only where the index on the volume does not have it, or not rightly."""
        listed = {
            receipt_file(receipt.path): receipt for receipt in self._read_index() if str(receipt.path) not in unlisted
        }
        with os.scandir(self._folder) as listing:
            names = sorted(entry.name for entry in listing if entry.name.endswith(_ENDING))
        found = ((name, listed.get(name) or _own(self._folder / name)) for name in names)
        return [receipt for name, receipt in found if receipt is not None and receipt_file(receipt.path) == name]

    def _read_index(self) -> Iterator[Receipt]:
        """The index's receipts; none where there is no index, or a broken one."""
        try:
            told = json.loads(self._index.read_bytes())
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError, ValueError, RecursionError):
            return
        listed = told.get("receipts") if isinstance(told, dict) and told.get("version") == INDEX_VERSION else None
        for each in listed if isinstance(listed, list) else ():
            if (receipt := receipt_of(each)) is not None:
                yield receipt


def _own(place: Path) -> Receipt | None:
    """The receipt in a file of its own."""
    with contextlib.suppress(OSError):
        return read_receipt(place.read_bytes())
    return None
