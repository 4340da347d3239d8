"""The lock: every source asked what it is now, and pinned to that."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from typing import Final, TypeVar

from morpheus_worker.manifest import ModelEntry, PackEntry
from morpheus_worker.sync.locking import Lock, Locked, LockedPack, Wanted
from morpheus_worker.sync.packs import pack_standing, resolve_commit
from morpheus_worker.sync.planning import agreed
from morpheus_worker.sync.refs import shown_source
from morpheus_worker.sync.terms import OnEvent, Resolved, Source, Stop, SyncCode, SyncError
from morpheus_worker.syncing.outcomes import Selection
from morpheus_worker.syncing.sources import Refusals, in_turn
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.work import Work

LOOKS_AT_ONCE: Final = 8

Entry = TypeVar("Entry", ModelEntry, PackEntry)
Found = TypeVar("Found")


def resolve_all(
    work: Work, selection: Selection, on_event: OnEvent, stop: Stop | None = None
) -> tuple[Lock, list[tuple[str, SyncError]]]:
    """The lock with everything selected resolved anew, and the entries that could not be: of those, and of what is not
    selected, it keeps what it said. What the manifest does not name any more is left out.

    A hash that no host tells is taken from the file's receipt, where that is of the very version that was found.
    """
    looking = _Looking(work, on_event, stop or Stop())
    models = looking.at(selection.models, looking.model)
    packs = looking.at(selection.packs, looking.pack)
    lock = Lock(
        {**_kept(work.lock.models, {entry.id for entry in work.manifest.models}), **models},
        {**_kept(work.lock.packs, {pack.id for pack in work.manifest.custom_nodes}), **packs},
    )
    return lock, looking.failures


class _Looking:
    def __init__(self, work: Work, on_event: OnEvent, stop: Stop) -> None:
        self._work, self._on_event, self._stop = work, on_event, stop
        self.failures: list[tuple[str, SyncError]] = []

    def at(self, entries: Collection[Entry], look: Callable[[Entry, Teller], Found]) -> dict[str, Found]:
        """What a look at each found; what failed is among the `failures`, in the entries' order."""
        if not entries:
            return {}
        with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="lock") as pool:
            found = list(pool.map(lambda entry: self._one(entry, look), entries))
        told = {entry.id: each for entry, each in zip(entries, found, strict=True)}
        self.failures += [(entry_id, each) for entry_id, each in told.items() if isinstance(each, SyncError)]
        return {entry_id: each for entry_id, each in told.items() if not isinstance(each, SyncError)}

    def _one(self, entry: Entry, look: Callable[[Entry, Teller], Found]) -> Found | SyncError:
        path = entry.path if isinstance(entry, ModelEntry) else entry.id
        tell = Teller(self._on_event, entry.id, path)
        try:
            return look(entry, tell)
        except SyncError as failure:
            tell.failed(failure)
            return failure

    def model(self, entry: ModelEntry, tell: Teller) -> Locked:
        """
        Raises:
            SyncError: when no source tells.
        """
        if not entry.sources:
            raise SyncError(SyncCode.INVALID, "has no source to lock", "give it one in the manifest")
        wanted = Wanted(entry, entry.sources, entry.size, entry.sha256, entry.format, entry.gated)

        def attempt(source: Source) -> Locked:
            asked = self._work.hosts.resolve(source, auth_env=entry.auth_env, details=True, stop=self._stop)
            agreed(wanted, asked)
            return Locked.of(entry, source, replace(asked, sha256=asked.sha256 or _hash_here(self._work, entry, asked)))

        locked = in_turn(entry.sources, attempt, Refusals(tell), self._stop)
        tell.count(locked.size)
        tell.say("present", shown_source(locked.source))
        return locked

    def pack(self, pack: PackEntry, tell: Teller) -> LockedPack:
        """
        Raises:
            SyncError: when the repository does not tell.
        """
        commit = pack.commit or resolve_commit(pack.repo, self._stop)
        tell.say("present", f"{pack.repo} at {commit[:12]}")
        return LockedPack.of(pack.repo, commit, _requirements_here(self._work, pack, commit))


def _hash_here(work: Work, entry: ModelEntry, resolved: Resolved) -> str | None:
    """The hash of the file in the cache, where it is known to be what was resolved. A lock is made without a cache,
    too."""
    with contextlib.suppress(SyncError):
        seen = work.seen(entry.path)
        receipt = seen.receipt
        if receipt is not None and seen.state == "present" and receipt.size == resolved.size:
            same = resolved.etag is not None and resolved.etag == receipt.etag
            if receipt.source == resolved.source and (same or resolved.names_version):
                return receipt.sha256
    return None


def _requirements_here(work: Work, pack: PackEntry, commit: str) -> tuple[str, ...] | None:
    """What the pack asks pip for at this commit: by the folder in the cache where that is of it, else as it was locked
    before. A host is not asked, for it would send the whole pack."""
    with contextlib.suppress(SyncError):
        standing = pack_standing(work.cache, pack, commit)
        if standing.state == "present":
            return standing.requirements
    held = work.lock.packs.get(pack.id)
    return held.requirements if held is not None and (held.repo, held.commit) == (pack.repo, commit) else None


def _kept(known: Mapping[str, Found], named: Collection[str]) -> dict[str, Found]:
    return {entry_id: each for entry_id, each in known.items() if entry_id in named}
