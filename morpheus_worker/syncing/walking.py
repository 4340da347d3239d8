"""The model files of a cache: everything in its model folders, whoever put it there."""

from __future__ import annotations

import os
from collections.abc import Collection, Iterator
from pathlib import PurePosixPath
from typing import Final

from morpheus_worker.linking import PACK_MARK
from morpheus_worker.manifest import PACKS_FOLDER, UNFINISHED
from morpheus_worker.sync.cache import Cache, on_volume

DEEPEST: Final = 12


def model_files(cache: Cache, packs: Collection[str]) -> Iterator[tuple[PurePosixPath, int]]:
    """Path and size in bytes of each, in their order. `packs` are ids of node packs, which lie beside the model folders
    and are none. Links are not followed; what is hidden, unfinished or empty is left out.

    Raises:
        SyncError: `volume`.
    """
    with on_volume(f"listing {cache.root}"):
        for folder in _listed(str(cache.root)):
            skipped = folder.name == PACKS_FOLDER or folder.name in packs or folder.name.startswith(".")
            if not skipped and folder.is_dir(follow_symlinks=False) and not _is_pack(folder.path):
                yield from _within(folder.path, PurePosixPath(folder.name), 1)


def _within(place: str, path: PurePosixPath, depth: int) -> Iterator[tuple[PurePosixPath, int]]:
    for each in _listed(place):
        if each.name.startswith(".") or each.name.endswith(UNFINISHED):
            continue
        if each.is_dir(follow_symlinks=False):
            yield from _within(each.path, path / each.name, depth + 1) if depth < DEEPEST else ()
        elif each.is_file(follow_symlinks=False) and (size := each.stat(follow_symlinks=False).st_size):
            yield path / each.name, size


def _is_pack(place: str) -> bool:
    return os.path.exists(os.path.join(place, PACK_MARK))


def _listed(place: str) -> list[os.DirEntry[str]]:
    with os.scandir(place) as listing:
        return sorted(listing, key=lambda entry: entry.name)
