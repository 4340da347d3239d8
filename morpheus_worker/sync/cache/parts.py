"""What unfinished tries of a file left behind, and who may go on from it.

A part is named `<key>.<owner>.part`. Beside it lie the engine's journal and, once its owner has let go of it, a mark
that says so: then nobody writes to it any more, and whoever comes next may go on with the very file.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from morpheus_worker.sync.cache.owners import provably_dead

PART: Final = ".part"
JOURNAL: Final = ".journal"
FREE: Final = ".free"
BESIDE: Final = (JOURNAL, FREE)


@dataclass(frozen=True, slots=True)
class Prior:
    """A part that an earlier try of the same file left. `provably_dead`: nobody writes to it any more, because its
    owner is gone or let go of it; else its bytes may only be copied."""

    part: Path
    provably_dead: bool


def named(part: Path) -> tuple[str, str]:
    """The key and the owner of a part, by its name; empty where the name has none."""
    key, dot, owner = part.name.removesuffix(PART).rpartition(".")
    return (key, owner) if dot else (owner, "")


def is_free(part: Path) -> bool:
    """Whether nobody can be writing to the part any more."""
    return os.path.exists(f"{part}{FREE}") or provably_dead(named(part)[1])


def set_free(part: Path) -> None:
    """Says that the part's owner will not write to it again."""
    if part.is_file():
        part.with_name(part.name + FREE).touch()


def parts_of(folder: Path, key: str) -> Iterator[Path]:
    """The parts of one file. What is left beside one that is gone is removed on the way."""
    names: list[str] = []
    with contextlib.suppress(FileNotFoundError):
        names = sorted(os.listdir(folder))
    for name in names:
        part, ending = os.path.splitext(name)
        if name.endswith(PART) and named(Path(name))[0] == key:
            yield folder / name
        elif ending == FREE and named(Path(part))[0] == key and not (folder / part).exists():
            with contextlib.suppress(OSError):
                os.unlink(folder / name)


def prior_of(folder: Path, key: str, owner: str) -> Prior | None:
    """The best that others than `owner` left of a file: what a journal vouches for, then what has most bytes, then what
    may be taken over whole.

    A part with a second name was published just before its owner was killed. That name alone is taken away: whoever
    went on with it would write into the published file.
    """
    found: list[tuple[bool, int, bool, Path]] = []
    for part in parts_of(folder, key):
        try:
            seen = part.lstat()
            if seen.st_nlink > 1 and stat.S_ISREG(seen.st_mode):
                part.unlink()
                continue
        except FileNotFoundError:
            continue
        if stat.S_ISREG(seen.st_mode) and named(part)[1] != owner:
            found.append((part.with_name(part.name + JOURNAL).exists(), seen.st_blocks, is_free(part), part))
    if not found:
        return None
    *_, free, part = max(found)
    return Prior(part, free)


def sweep(folder: Path, key: str) -> None:
    """Removes what is left of a file's earlier tries, where nobody writes to it any more."""
    for part in parts_of(folder, key):
        if part.is_file() and is_free(part):
            for path in (part, *(part.with_name(part.name + ending) for ending in BESIDE)):
                with contextlib.suppress(OSError):
                    path.unlink()
