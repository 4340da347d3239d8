"""A cache that was filled by hand is taken over: each file hashed once, held to what is known of it, receipted."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath

from morpheus_worker.manifest import ModelEntry, PackEntry
from morpheus_worker.sync.locking import Wanted, wanted_commit
from morpheus_worker.sync.packs import adopt_pack, pack_standing
from morpheus_worker.sync.planning import Seen, decided, judged
from morpheus_worker.sync.terms import OnEvent, Stop, SyncCode, SyncError
from morpheus_worker.syncing.hashing import hashed
from morpheus_worker.syncing.looking import look_into, taken_over
from morpheus_worker.syncing.outcomes import Adopted, AdoptReport, Selection
from morpheus_worker.syncing.packing import pack_path
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.walking import model_files
from morpheus_worker.syncing.work import Work


def adopt(work: Work, selection: Selection | None = None, *, on_event: OnEvent, stop: Stop) -> AdoptReport:
    """Every file without a receipt that holds: all there are in the cache's model folders, or those of a selection.

    A file that is not what the lock or the manifest says, or no model at all, gets no receipt. What was done before
    `stop` was set stays done: the next run goes on with the rest.

    Raises:
        SyncError: `volume`, `no_space`.
    """
    work.cache.ensure_writable()
    run = _Adopting(work, on_event, stop)
    try:
        for wanted in _files(work, selection):
            if not stop.is_set():
                run.file(wanted)
        for pack in work.manifest.custom_nodes if selection is None else selection.packs:
            if not stop.is_set():
                run.pack(pack)
    finally:
        work.settle()
    return AdoptReport(tuple(run.files), run.known, interrupted=stop.is_set())


def _files(work: Work, selection: Selection | None) -> Iterator[Wanted]:
    """What to look at; a file that no entry names is wanted as it is."""
    if selection is not None and not selection.whole:
        yield from (work.wanted(entry) for entry in selection.models)
        return
    named = {entry.path: entry for entry in work.manifest.models}
    packs = {pack.id for pack in work.manifest.custom_nodes}
    for path, _ in model_files(work.cache, packs):
        entry = named.get(path)
        yield work.wanted(entry) if entry is not None else Wanted(ModelEntry("", path), ())


@dataclass(slots=True)
class _Adopting:
    work: Work
    on_event: OnEvent
    stop: Stop
    files: list[Adopted] = field(default_factory=list)
    known: int = 0

    def file(self, wanted: Wanted) -> None:
        """One file, where it is there and has no receipt that holds.

        Raises:
            SyncError: `no_space`, when no receipt can be written.
        """
        path = wanted.entry.path
        tell = Teller(self.on_event, wanted.entry.id or str(path), path)
        try:
            seen = self.work.seen(path)
            if seen.state == "present" and seen.receipt is not None and seen.receipt.sha256 is not None:
                self.known += 1
            elif seen.state != "absent":
                self.files.append(self._adopted(wanted, seen, tell))
        except SyncError as failure:
            if failure.code is SyncCode.NO_SPACE:
                raise
            if failure.code is not SyncCode.INTERRUPTED:
                self._refused(wanted.entry.id, path, failure, tell)

    def pack(self, pack: PackEntry) -> None:
        """A node pack that was cloned by hand."""
        standing = pack_standing(self.work.cache, pack, wanted_commit(pack, self.work.lock))
        if standing.state in ("present", "other"):
            self.known += 1
        if standing.state != "unreceipted":
            return
        tell = Teller(self.on_event, pack.id, pack_path(pack))
        try:
            receipt = adopt_pack(self.work.cache, pack, stop=self.stop)
        except SyncError as failure:
            if failure.code is not SyncCode.INTERRUPTED:
                self._refused(pack.id, pack_path(pack), failure, tell)
            return
        if receipt is None:
            why = SyncError(SyncCode.CONFLICT, "nobody can say which commit it is: it is no clone, or was changed")
            self._refused(pack.id, pack_path(pack), why, tell)
            return
        tell.say("adopted")
        self.files.append(Adopted(pack.id, pack_path(pack), "adopted", f"at commit {receipt.commit[:12]}"))

    def _adopted(self, wanted: Wanted, seen: Seen, tell: Teller) -> Adopted:
        """
        Raises:
            SyncError: why it is not taken over.
        """
        path = wanted.entry.path
        # What its old receipt says does not count: it is what its entry says, or nothing.
        bare = Seen("unreceipted", seen.size)
        problem = decided(wanted, bare).problem
        if problem is not None:
            raise problem
        tell.count(seen.size, kind="verifying")
        tell.say("verifying")
        sha256, told = hashed(self.work.cache.at(path), on_bytes=tell.at, stop=self.stop)
        if wanted.sha256 is not None:
            problem = judged(wanted, bare, sha256).problem
            if problem is not None:
                raise problem
        look_into(self.work.cache.at(path), wanted, any_kind=True)
        receipt = taken_over(wanted, seen.receipt, sha256, size=told.st_size, mtime_ns=told.st_mtime_ns)
        self.work.receipts.write(receipt)
        tell.say("adopted")
        return Adopted(wanted.entry.id, path, "adopted", "", told.st_size, sha256)

    def _refused(self, entry_id: str, path: PurePosixPath, failure: SyncError, tell: Teller) -> None:
        tell.failed(failure)
        self.files.append(Adopted(entry_id, path, "refused", str(failure)))
