"""The hash of a file that lies there already."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path
from typing import Final

from morpheus_worker.sync.cache import on_volume
from morpheus_worker.sync.terms import Stop, SyncCode, SyncError, stopped

BLOCK_BYTES: Final = 4 * 1024 * 1024
"""A network volume is read in large steps, one after another."""


def hashed(path: Path, *, on_bytes: Callable[[int], None], stop: Stop) -> tuple[str, os.stat_result]:
    """The file's SHA-256, and what its folder says of it. `on_bytes` hears how many bytes have been read.

    Raises:
        SyncError: `interrupted`; `volume` when it cannot be read; `conflict` when somebody wrote to it meanwhile.
    """
    with on_volume(f"reading {path.name}"), path.open("rb", buffering=0) as file:
        before = os.fstat(file.fileno())
        digest = _digest(file.readinto, on_bytes, stop)
        after = os.fstat(file.fileno())
    if (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns):
        raise being_written(path)
    return digest, after


def being_written(path: Path) -> SyncError:
    return SyncError(SyncCode.CONFLICT, f"{path.name} is being written by somebody", "try again once it is whole")


def _digest(read: Callable[[bytearray], int | None], on_bytes: Callable[[int], None], stop: Stop) -> str:
    digest, buffer, done = hashlib.sha256(), bytearray(BLOCK_BYTES), 0
    while count := read(buffer):
        if stop.is_set():
            raise stopped()
        digest.update(memoryview(buffer)[:count])
        done += count
        on_bytes(done)
    return digest.hexdigest()
