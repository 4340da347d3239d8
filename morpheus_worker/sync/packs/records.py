"""The receipts of packs, and how a pack's folder stands to its own."""

from __future__ import annotations

import contextlib
import json
import os
import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from pathlib import Path, PurePosixPath
from typing import Any, Final, Literal

from morpheus_worker.manifest import PACKS_FOLDER, PackEntry
from morpheus_worker.sources import COMMIT
from morpheus_worker.sync.cache import Cache, on_volume
from morpheus_worker.sync.cache.writing import sync_folder, write_whole
from morpheus_worker.sync.packs.contents import hash_of, holds_just, requirements_of

PACKS: Final = "packs"
"""Where the receipts of packs lie, in the cache's own folder."""

_REMOTE: Final = re.compile(r"(?:(?:https?|ssh|git)://)?(?:[^/@]*@)?([^/:]+[/:].*)")


@dataclass(frozen=True, slots=True)
class PackReceipt:
    """What a pack's folder held when it was published. `files` has the SHA-256 of each, by its path in the folder;
    `folder` is where that lies in the cache."""

    id: str
    repo: str
    commit: str
    files: Mapping[str, str]
    requirements: tuple[str, ...] = ()
    by: Literal["sync", "adopt"] = "sync"
    folder: str = ""

    @property
    def path(self) -> PurePosixPath:
        """Relative to the cache."""
        return PurePosixPath(self.folder or self.id)


@dataclass(frozen=True, slots=True)
class PackStanding:
    """How the cache stands to one pack: `present` at the wanted commit; at another, as a sync fetched it (`other`);
    put there by hand (`unreceipted`), whether or not it was taken over since; or `absent`. `commit` is the
    receipt's."""

    state: Literal["present", "other", "unreceipted", "absent"]
    commit: str | None = None
    requirements: tuple[str, ...] = ()


def pack_standing(cache: Cache, pack: PackEntry, commit: str | None = None) -> PackStanding:
    """One look at the folder and its receipt. `commit` is the wanted one, by default the manifest's; without any, the
    commit that is there is as good as another.

    Raises:
        SyncError: `volume`.
    """
    place = place_of(cache, pack.id)
    if place is None:
        return PackStanding("absent")
    folder, receipt = cache.root / place, pack_receipt(cache, pack.id)
    if receipt is None or (receipt.by == "sync" and _is_by_hand(folder)):
        return PackStanding("unreceipted", None, requirements_of(folder))
    wanted = commit or pack.commit
    if receipt.commit == wanted if wanted else same_repo(receipt.repo, pack.repo):
        return PackStanding("present", receipt.commit, receipt.requirements)
    # A clone may hold what nobody else has: branches, stashes, a commit that was never pushed.
    return PackStanding("other" if receipt.by == "sync" else "unreceipted", receipt.commit, receipt.requirements)


def pack_receipt(cache: Cache, pack_id: str) -> PackReceipt | None:
    """None where there is none, or none that can be read.

    Raises:
        SyncError: `volume`.
    """
    return _announced(cache, pack_id) or _read(_receipt_path(cache, pack_id), pack_id)


def is_as_fetched(cache: Cache, pack_id: str) -> bool:
    """Whether the pack's folder holds just what a sync put there, so that nothing of anybody's is lost with it."""
    place, receipt = place_of(cache, pack_id), pack_receipt(cache, pack_id)
    if place is None or receipt is None or receipt.by != "sync" or _is_by_hand(cache.root / place):
        return place is None
    return holds_just(cache.root / place, receipt.files)


def changed_files(cache: Cache, receipt: PackReceipt) -> list[str]:
    """Files of the receipt that are gone or have other content. What the pack made since is its own affair.

    Raises:
        SyncError: `volume`.
    """
    place = place_of(cache, receipt.id)
    if place is None:
        return sorted(receipt.files)
    folder = cache.root / place
    with on_volume(f"looking into the node pack {receipt.id}"):
        return [name for name, sha256 in sorted(receipt.files.items()) if hash_of(folder / name) != sha256]


def announce(cache: Cache, receipt: PackReceipt) -> None:
    """Writes the receipt of a folder that is about to be published; until it is, the one that is there holds."""
    cache.own_folder(PACKS)
    if (earlier := _announced(cache, receipt.id)) is not None:
        confirm(cache, earlier)
    write_whole(_announced_path(cache, receipt.id), _text(receipt))


def confirm(cache: Cache, receipt: PackReceipt) -> None:
    """Makes what was announced the receipt. It takes no room on the volume."""
    announced = _announced_path(cache, receipt.id)
    os.replace(announced, _receipt_path(cache, receipt.id))
    sync_folder(announced.parent)


def place_of(cache: Cache, pack_id: str) -> PurePosixPath | None:
    """Where a pack lies. Volumes hold packs beside the models, or in a folder of their own."""
    places = (PurePosixPath(pack_id), PurePosixPath(PACKS_FOLDER, pack_id))
    return next((place for place in places if (cache.root / place).is_dir()), None)


def same_repo(one: str, other: str) -> bool:
    return plain(one) == plain(other)


def plain(repo: str) -> str:
    """A repository's host and path, however it is reached and by whom; empty for a folder of some machine."""
    found = _REMOTE.fullmatch(repo.strip().lower())
    if found is None or repo.startswith((".", "file:")):
        return ""
    return found[1].partition("?")[0].replace(":", "/", 1).rstrip("/").removesuffix(".git")


def _announced(cache: Cache, pack_id: str) -> PackReceipt | None:
    """A receipt that was announced and not confirmed, where the folder was published all the same."""
    place = place_of(cache, pack_id)
    receipt = _read(_announced_path(cache, pack_id), pack_id) if place is not None else None
    if place is None or receipt is None:
        return None
    with on_volume(f"looking into the node pack {pack_id}"):
        return receipt if holds_just(cache.root / place, receipt.files) else None


def _is_by_hand(folder: Path) -> bool:
    """Whether this is no folder that a sync published: those are no links, and no clones."""
    return folder.is_symlink() or os.path.lexists(folder / ".git")


def _read(path: Path, pack_id: str) -> PackReceipt | None:
    with contextlib.suppress(OSError, ValueError, RecursionError):
        return _receipt_of(json.loads(path.read_bytes()), pack_id)
    return None


def _receipt_of(told: Any, pack_id: str) -> PackReceipt | None:
    match told:
        case {"id": str(found), "repo": str(), "commit": str(commit), "files": dict(files), "requirements": list(asks)}:
            known = {each.name: told[each.name] for each in fields(PackReceipt) if each.name in told}
        case _:
            return None
    receipt = PackReceipt(**{**known, "requirements": tuple(asks)})
    places = ("", pack_id, str(PurePosixPath(PACKS_FOLDER, pack_id)))
    is_whole = COMMIT.fullmatch(commit) and receipt.by in ("sync", "adopt") and receipt.folder in places
    texts = all(isinstance(each, str) for each in (*files.values(), *asks))
    return receipt if found == pack_id and is_whole and texts else None


def _text(receipt: PackReceipt) -> bytes:
    return json.dumps(asdict(receipt), indent=1).encode()


def _receipt_path(cache: Cache, pack_id: str) -> Path:
    return cache.work / PACKS / f"{pack_id}.json"


def _announced_path(cache: Cache, pack_id: str) -> Path:
    return cache.work / PACKS / f".{pack_id}.json.next"
