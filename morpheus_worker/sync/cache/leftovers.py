"""What killed and failed syncs left in the cache's own folder, and nobody may come back for."""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Collection, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

from morpheus_worker.sync.cache.leases import ENDING, TAKEN
from morpheus_worker.sync.cache.parts import BESIDE, PART, is_free, named
from morpheus_worker.sync.cache.places import LEASES, NOTE, PARTS, QUARANTINE, TRASH, Cache, remove_tree
from morpheus_worker.sync.cache.space import STALE_S, held_leases, room_of, volume_now_s
from morpheus_worker.sync.cache.writing import TEMPORARY, on_volume

Kind = Literal["part", "quarantine", "trash", "lease", "temporary"]


@dataclass(frozen=True, slots=True)
class Leftover:
    """One thing in the cache's own folder that is no record. `size` is what it takes of the volume, in bytes; `age_s`
    is since it was last written, by this machine's clock. `held`: somebody is at work on it. `free`: nobody can be."""

    path: Path
    kind: Kind
    key: str
    owner: str
    size: int
    age_s: float
    held: bool
    free: bool


def leftovers(cache: Cache) -> list[Leftover]:
    """Everything that a prune may look at: parts, what was rejected, what was renamed away, leases that nobody
    rewrites, temporary files.

    Raises:
        SyncError: `volume`.
    """
    with on_volume("looking for what is left over"):
        now_s = volume_now_s(cache)
        held = list(held_leases(cache))
        idle = {f"{each.key}{ENDING}" for each in held if not each.is_alive}
        look = _Look(now_s, frozenset(each.holder.owner for each in held if each.is_alive))
        return [
            *(look.part(path) for path in _listed(cache.work / PARTS) if path.name.endswith(PART)),
            *(look.of(path, "quarantine") for path in _listed(cache.work / QUARANTINE) if not _is_note(path)),
            *(look.of(path, "trash") for path in _listed(cache.work / TRASH)),
            *(look.of(path, "lease") for path in _listed(cache.work / LEASES) if path.name in idle),
            *(look.temporary(path) for path in (*_temporary(cache.work), *_orphans(cache.work / PARTS))),
        ]


def remove_leftover(leftover: Leftover) -> None:
    """Removes it, with what belongs to it.

    Raises:
        SyncError: `volume`.
    """
    with on_volume(f"removing {leftover.path.name}"):
        with contextlib.suppress(FileNotFoundError):
            remove_tree(leftover.path)
        for ending in (*BESIDE, NOTE):
            leftover.path.with_name(leftover.path.name + ending).unlink(missing_ok=True)


@dataclass(frozen=True, slots=True)
class _Look:
    """One moment, and who was at work in it."""

    now_s: float
    owners: Collection[str]

    def of(self, path: Path, kind: Kind) -> Leftover:
        size, written_s = _room(path, self.now_s)
        return Leftover(path, kind, "", "", size, max(self.now_s - written_s, 0.0), held=False, free=True)

    def part(self, path: Path) -> Leftover:
        key, owner = named(path)
        held = owner in self.owners
        return replace(self.of(path, "part"), key=key, owner=owner, held=held, free=not held and is_free(path))

    def temporary(self, path: Path) -> Leftover:
        """A young one is somebody's who is just writing it."""
        found = self.of(path, "temporary")
        young = found.age_s < STALE_S
        return replace(found, held=young, free=not young)


def _temporary(work: Path) -> Iterator[Path]:
    for folder in (work, *(path for path in _listed(work) if path.is_dir())):
        yield from (path for path in _listed(folder) if _is_temporary(path.name))


def _orphans(parts: Path) -> Iterator[Path]:
    """What lay beside a part that is gone."""
    for path in _listed(parts):
        part, beside, _ = path.name.rpartition(f"{PART}.")
        if beside and not os.path.lexists(parts / f"{part}{PART}"):
            yield path


def _is_temporary(name: str) -> bool:
    return name.startswith(".") and name.endswith((TEMPORARY, TAKEN))


def _room(path: Path, now_s: float) -> tuple[int, float]:
    """What a file or folder takes, in bytes, and when it was last written; nothing, and now, where it is gone."""
    try:
        seen = path.lstat()
    except FileNotFoundError:
        return 0, now_s
    size, written_s = room_of(seen), seen.st_mtime
    for inside in _listed(path) if stat.S_ISDIR(seen.st_mode) else ():
        more, later_s = _room(inside, now_s)
        size, written_s = size + more, max(written_s, later_s)
    return size, written_s


def _is_note(path: Path) -> bool:
    return path.name.endswith(NOTE) or path.name.startswith(".")


def _listed(folder: Path) -> list[Path]:
    try:
        return [folder / name for name in sorted(os.listdir(folder))]
    except (FileNotFoundError, NotADirectoryError):
        return []
