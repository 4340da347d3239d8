"""What nobody needs any more: versions that no entry names, and what killed syncs left behind."""

from __future__ import annotations

import contextlib
import os
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import PurePosixPath
from typing import Final

from morpheus_worker.sync.cache import leftovers, on_volume, remove_leftover
from morpheus_worker.sync.cache.places import TRASH, remove_tree
from morpheus_worker.sync.packs import PACKS, PackReceipt, pack_receipt
from morpheus_worker.sync.packs.records import is_as_fetched
from morpheus_worker.sync.planning import Seen
from morpheus_worker.sync.terms import SyncCode, SyncError
from morpheus_worker.syncing.outcomes import Pruned, PruneReport
from morpheus_worker.syncing.walking import model_files
from morpheus_worker.syncing.work import Work

OLD_S: Final = 3600.0
"""A part whose owner may still live, on another machine, and that nobody has written to for so long is left over."""

WHY: Final = {
    "part": "an unfinished download that nobody is at work on",
    "quarantine": "was rejected",
    "trash": "the folder of a node pack, as it was before another took its place",
    "lease": "a lease that nobody holds",
    "temporary": "a temporary file",
}


@dataclass(frozen=True, slots=True)
class _Item:
    told: Pruned
    remove: Callable[[], None]


def prune(work: Work, *, delete: bool, unlisted: bool = False) -> PruneReport:
    """What could go, and with `delete` what went.

    That is: files that a sync fetched and that no entry names (by its path or `also`), node packs likewise, receipts
    without a file, and leftovers in the cache's own folder that nobody is at work on. With `unlisted` also what
    somebody put into a model folder by hand, what apps asked for, and folders of node packs that somebody had changed
    before another commit took their place. Nothing else is ever touched.

    Raises:
        SyncError: `volume`, when the cache is not there or cannot be read.
    """
    work.cache.ensure_there()
    items = [*_files(work, unlisted), *_packs(work, unlisted), *_forgotten(work), *_left_over(work, unlisted)]
    if not delete:
        return PruneReport(tuple(item.told for item in items), deleted=False)
    gone, kept = [], []
    for item in items:
        try:
            item.remove()
            gone.append(item.told)
        except SyncError as failure:
            kept.append(Pruned(item.told.path, failure.what, item.told.bytes))
    work.settle()
    return PruneReport(tuple(gone), deleted=True, kept=tuple(kept))


def _files(work: Work, unlisted: bool) -> Iterator[_Item]:
    listed = (place for entry in work.manifest.models for place in (entry.path, *entry.also))
    named = {place for path in listed for place in (path, _real(work, path))}
    packs = {pack.id for pack in work.manifest.custom_nodes} | set(_receipted_packs(work))
    for path, size in model_files(work.cache, packs):
        if path in named:
            continue
        seen = work.seen(path)
        if _is_ours(seen):
            seen = _by_own_receipt(work, path)
        if unlisted or _is_ours(seen):
            yield _Item(Pruned(path, _why(seen), size), partial(_remove_file, work, path, seen))


def _by_own_receipt(work: Work, path: PurePosixPath) -> Seen:
    """What is seen by the file's own receipt: the index may not know yet that an app asked for it."""
    work.known.reread(path)
    return work.seen(path)


def _real(work: Work, path: PurePosixPath) -> PurePosixPath:
    """The file that a path of the cache means, where links of the cache lead to it."""
    return PurePosixPath(os.path.relpath(os.path.realpath(work.cache.root / path), os.path.realpath(work.cache.root)))


def _is_ours(seen: Seen) -> bool:
    """Whether a sync of the manifest fetched it, and nobody changed it since. Of what somebody put there by hand, taken
    over or not, there may be no other copy; what a request asked for is an app's."""
    receipt = seen.receipt
    return seen.state == "present" and receipt is not None and receipt.by != "adopt" and not receipt.requested


def _why(seen: Seen) -> str:
    if seen.receipt is None:
        return "nobody knows it: it was put there by hand"
    if seen.receipt.requested:
        return "no entry names it: an app asked for it"
    if seen.state != "present":
        return "no entry names it, and it was changed since its receipt"
    return "no entry names it: it was put there by hand" if seen.receipt.by == "adopt" else "no entry names it"


def _remove_file(work: Work, path: PurePosixPath, seen: Seen) -> None:
    if _by_own_receipt(work, path) != seen:
        raise SyncError(SyncCode.CONFLICT, "was changed in this moment", "look at what 'prune' lists now")
    with on_volume(f"removing '{path}'"):
        work.cache.at(path).unlink(missing_ok=True)
    work.receipts.forget(path)
    _remove_empty(work, path.parent)


def _remove_empty(work: Work, folder: PurePosixPath) -> None:
    """Folders that nothing lies in any more, from there upwards."""
    while folder.parts:
        try:
            os.rmdir(work.cache.root / folder)
        except OSError:
            return
        folder = folder.parent


def _receipted_packs(work: Work) -> list[str]:
    with on_volume("listing the packs' receipts"), contextlib.suppress(FileNotFoundError):
        return sorted(name.removesuffix(".json") for name in os.listdir(work.cache.work / PACKS) if name[0] != ".")
    return []


def _packs(work: Work, unlisted: bool) -> Iterator[_Item]:
    listed = {pack.id for pack in work.manifest.custom_nodes}
    for pack_id in _receipted_packs(work):
        receipt = pack_receipt(work.cache, pack_id)
        if pack_id not in listed and receipt is not None and (unlisted or is_as_fetched(work.cache, pack_id)):
            told = Pruned(receipt.path, "no entry names this node pack")
            yield _Item(told, partial(_remove_pack, work, receipt))


def _remove_pack(work: Work, receipt: PackReceipt) -> None:
    """Out of the way first, so that nobody ever imports half of it."""
    away = work.cache.own_folder(TRASH) / f"{receipt.id}.{uuid.uuid4().hex[:8]}"
    with on_volume(f"removing the node pack {receipt.id}"):
        with contextlib.suppress(FileNotFoundError):
            os.rename(work.cache.at(receipt.path), away)
            remove_tree(away)
        (work.cache.work / PACKS / f"{receipt.id}.json").unlink(missing_ok=True)


def _forgotten(work: Work) -> Iterator[_Item]:
    """Receipts of files that are gone."""
    for text in list(work.known):
        path = PurePosixPath(text)
        if work.seen(path).state == "absent":
            yield _Item(Pruned(path, "a receipt without a file"), partial(_forget, work, path))


def _forget(work: Work, path: PurePosixPath) -> None:
    if work.seen(path).state == "absent":
        work.receipts.forget(path)


def _left_over(work: Work, unlisted: bool) -> Iterator[_Item]:
    for left in leftovers(work.cache):
        # What a sync had fetched it removed itself: what was kept holds somebody's own work.
        if left.kind == "trash" and not unlisted:
            continue
        if not left.held and (left.free or left.age_s >= OLD_S):
            path = PurePosixPath(os.path.relpath(left.path, work.cache.root))
            yield _Item(Pruned(path, WHY[left.kind], left.size), partial(remove_leftover, left))
