"""What is left of the volume, less what others are about to fill."""

from __future__ import annotations

import contextlib
import os
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_worker.sync.amounts import size_text
from morpheus_worker.sync.cache.leases import ENDING, Holder, Lease
from morpheus_worker.sync.cache.owners import provably_dead
from morpheus_worker.sync.cache.places import LEASES, Cache
from morpheus_worker.sync.cache.writing import TEMPORARY, on_volume
from morpheus_worker.sync.terms import SyncCode, SyncError

STALE_S: Final = 120.0
"""A lease that was not rewritten for so long reserves nothing, in seconds."""

SPACE_HINT: Final = "'morpheus models prune' removes what is no longer needed; or enlarge the volume"


@dataclass(frozen=True, slots=True)
class Space:
    """In bytes: what the volume has free, and how much of it `syncs` others are still going to write.

    Only leases of this cache count: nobody knows what else writes to the volume. RunPod's network volumes may report
    the whole cluster's free space, not what is left of one's own: one that is full all the same says so when it is
    written to.
    """

    free: int
    reserved: int = 0
    syncs: int = 0

    @property
    def left(self) -> int:
        return max(self.free - self.reserved, 0)


@dataclass(frozen=True, slots=True)
class Held:
    """A lease as it lies there: who holds it, and for how many seconds it has not been rewritten. One that is dated in
    the future was written by a clock that was wrong, and says as little as one of the past."""

    key: str
    holder: Holder
    idle_s: float

    @property
    def is_alive(self) -> bool:
        return self.idle_s < STALE_S and not provably_dead(self.holder.owner)


def space_of(cache: Cache, lease: Lease | None = None) -> Space:
    """What is free where the cache lies, or is to lie, and what leases other than this one reserve of it.

    Raises:
        SyncError: `volume`.
    """
    cache.ensure_there()
    with on_volume(f"asking what {cache.root} has free"):
        told = os.statvfs(cache.root if cache.root.is_dir() else cache.beneath)
        held = [each for each in held_leases(cache) if each.is_alive and each.holder.needs_bytes > 0]
    others = [each.holder.needs_bytes for each in held if lease is None or each.holder.owner != lease.owner]
    return Space(told.f_bavail * told.f_frsize, sum(others), len(others))


def check_space(cache: Cache, needs_bytes: int, *, has_bytes: int = 0, lease: Lease | None = None) -> Space:
    """Finds room for a file of `needs_bytes` of which `has_bytes` are there already. With a lease the rest is reserved
    first, so that of two who ask at once none counts on the other's room.

    Raises:
        SyncError: `no_space`, with the numbers; `volume`.
    """
    missing = max(needs_bytes - has_bytes, 0)
    if lease is not None:
        lease.reserve(missing)
    space = space_of(cache, lease)
    if missing <= space.left:
        return space
    if lease is not None:
        lease.needs(0)
    said = f"needs {size_text(missing)}, and the volume has {size_text(space.free)} free"
    if space.reserved:
        by = "another sync" if space.syncs == 1 else f"{space.syncs} others"
        said += f", of which {by} will fill {size_text(space.reserved)}"
    raise SyncError(SyncCode.NO_SPACE, said, SPACE_HINT)


def held_leases(cache: Cache) -> Iterator[Held]:
    """Every lease of the cache, whoever holds it."""
    now_s = volume_now_s(cache)
    with contextlib.suppress(FileNotFoundError):
        for name in sorted(os.listdir(cache.work / LEASES)):
            if not name.startswith(".") and name.endswith(ENDING):
                yield from _held(cache.work / LEASES / name, now_s)


def room_of(seen: os.stat_result) -> int:
    """What a file takes of the volume, in bytes: one with holes takes less than its size."""
    # Counted in these, whatever the file system's own are. See stat(2).
    return seen.st_blocks * 512


def volume_now_s(cache: Cache) -> float:
    """What time it is by the clock that dates the volume's files, in seconds since 1970: it may be another machine's.
    By our own where the volume takes no file."""
    probe = cache.work / LEASES / f".{uuid.uuid4().hex}{TEMPORARY}"
    try:
        probe.touch(exist_ok=False)
        now_s = probe.stat().st_mtime
        probe.unlink()
    except OSError:
        return time.time()
    return now_s


def _held(path: Path, now_s: float) -> Iterator[Held]:
    with contextlib.suppress(FileNotFoundError):
        holder = Holder.read(path.read_bytes())
        yield Held(path.name.removesuffix(ENDING), holder, abs(now_s - path.stat().st_mtime))
