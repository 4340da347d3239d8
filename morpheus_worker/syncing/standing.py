"""How the cache stands to every entry, by receipts alone: nothing is read, nobody is asked."""

from __future__ import annotations

from morpheus_worker.manifest import ModelEntry, PackEntry
from morpheus_worker.sync.locking import asked_of_pip, stale, wanted_commit
from morpheus_worker.sync.packs import pack_standing
from morpheus_worker.sync.planning import decided
from morpheus_worker.syncing.outcomes import EntryStatus, Selection
from morpheus_worker.syncing.packing import pack_path
from morpheus_worker.syncing.work import Work


def status(work: Work, selection: Selection) -> list[EntryStatus]:
    """One look at each entry's place: a stat, and receipts that are read in one go.

    Raises:
        SyncError: `volume`, when the cache is not there or cannot be read.
    """
    work.cache.ensure_there()
    outdated = {problem.at: problem.what for problem in stale(work.lock, work.manifest)}
    return [
        *(_of_model(work, entry, outdated.get(f"models.{entry.id}", "")) for entry in selection.models),
        *(_of_pack(work, pack, outdated.get(f"custom_nodes.{pack.id}", "")) for pack in selection.packs),
    ]


def _of_model(work: Work, entry: ModelEntry, outdated: str) -> EntryStatus:
    seen, wanted = work.seen(entry.path), work.wanted(entry)
    # What has no receipt is of another version where its size alone says so.
    is_other = seen.state in ("present", "unreceipted") and decided(wanted, seen).what in ("replace", "refuse")
    return EntryStatus(
        id=entry.id,
        kind="model",
        path=entry.path,
        state="other" if is_other else seen.state,
        size=seen.size,
        sha256=seen.receipt.sha256 if seen.receipt is not None and seen.state == "present" else None,
        locked=entry.id in work.lock.models,
        stale=outdated,
        workflows=entry.workflows,
    )


def _of_pack(work: Work, pack: PackEntry, outdated: str) -> EntryStatus:
    standing = pack_standing(work.cache, pack, wanted_commit(pack, work.lock))
    # Another commit's are as good as can be had where nothing else is known.
    found = standing.requirements if standing.state != "absent" else None
    asked = asked_of_pip(pack, work.lock, None if standing.state == "other" else found)
    return EntryStatus(
        id=pack.id,
        kind="pack",
        path=pack_path(pack),
        state=standing.state,
        version=standing.commit or "",
        locked=wanted_commit(pack, work.lock) is not None,
        stale=outdated,
        workflows=pack.workflows,
        requirements=found if asked is None else asked,
    )
