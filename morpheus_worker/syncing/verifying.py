"""Whether what is there is what it should be. Nothing is moved, deleted or written."""

from __future__ import annotations

from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from typing import Final, Literal

from morpheus_worker.manifest import ModelEntry, PackEntry
from morpheus_worker.sync.locking import Wanted, wanted_commit
from morpheus_worker.sync.packs import changed_files, pack_receipt, pack_standing
from morpheus_worker.sync.planning import ADOPT_HINT, Seen, decided, judged
from morpheus_worker.sync.terms import OnEvent, Stop, SyncCode, SyncError, stopped
from morpheus_worker.syncing.hashing import hashed
from morpheus_worker.syncing.looking import look_into
from morpheus_worker.syncing.outcomes import Finding, Selection, VerifyReport
from morpheus_worker.syncing.packing import pack_path
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.work import Work

Found = Literal["ok", "unverified", "changed", "corrupt", "missing"]
Judgement = tuple[Found, str]

OTHER_VERSION: Final = "is another version than the lock's"

BY_CODE: Final[Mapping[SyncCode, Found]] = {SyncCode.REJECTED: "corrupt", SyncCode.CONFLICT: "changed"}
"""What a failure says of a file; one that cannot be read is `unverified`."""


def verify(work: Work, selection: Selection, *, full: bool, on_event: OnEvent, stop: Stop) -> VerifyReport:
    """Holds every entry to its receipt and the lock: by size, time and a look at the file's beginning, or, `full`, by
    the hash of every byte.

    Raises:
        SyncError: `volume`, when the cache is not there.
    """
    work.cache.ensure_there()
    looking = _Looking(work, full, on_event, stop)
    with ThreadPoolExecutor(work.settings.sync_files, thread_name_prefix="verify") as pool:
        models = pool.map(looking.at_model, selection.models)
        packs = pool.map(looking.at_pack, selection.packs)
        found = [*models, *packs]
    findings = tuple(finding for finding in found if finding is not None)
    return VerifyReport(findings, full, interrupted=len(findings) < len(found))


@dataclass(frozen=True, slots=True)
class _Looking:
    work: Work
    full: bool
    on_event: OnEvent
    stop: Stop

    def at_model(self, entry: ModelEntry) -> Finding | None:
        """None where it was interrupted."""
        tell = Teller(self.on_event, entry.id, entry.path)
        try:
            what, why = self._judged(self.work.wanted(entry), tell)
        except SyncError as failure:
            if failure.code is SyncCode.INTERRUPTED:
                return None
            what, why = BY_CODE.get(failure.code, "unverified"), failure.what
        return _told(Finding(entry.id, entry.path, what, why), tell)

    def at_pack(self, pack: PackEntry) -> Finding | None:
        if self.stop.is_set():
            return None
        what, why = self._judged_pack(pack)
        finding = Finding(pack.id, pack_path(pack), what, why, "pack")
        return _told(finding, Teller(self.on_event, pack.id, finding.path))

    def _judged(self, wanted: Wanted, tell: Teller) -> Judgement:
        if self.stop.is_set():
            raise stopped()
        seen = self.work.seen(wanted.entry.path)
        if seen.state == "absent":
            return "missing", "is not there"
        if seen.size is None:
            return "missing", "is no file, or a link that leads nowhere"
        what, why = by_receipt(wanted, seen)
        if what == "changed" and not self.full:
            return what, why
        if self.full:
            what, why = self._hashed(wanted, seen, tell) or (what, why)
        if what in ("ok", "unverified"):
            look_into(self.work.cache.at(wanted.entry.path), wanted, any_kind=True)
        return what, why

    def _hashed(self, wanted: Wanted, seen: Seen, tell: Teller) -> Judgement | None:
        """By every byte; None where no hash is known to hold them to."""
        old = seen.receipt.sha256 if seen.receipt is not None else None
        right = wanted.sha256 or old
        if right is None:
            return None
        tell.count(seen.size, kind="verifying")
        sha256, _ = hashed(self.work.cache.at(wanted.entry.path), on_bytes=tell.at, stop=self.stop)
        if sha256 not in (wanted.sha256, old):
            said = f"has the SHA-256 {sha256[:12]}…, not {right[:12]}…"
            return ("corrupt" if seen.state == "present" else "changed"), said
        found = judged(wanted, seen, sha256)
        if found.what != "present":
            return "changed", OTHER_VERSION
        return "ok", "" if seen.state == "present" else f"is right, but has no receipt that holds: {ADOPT_HINT}"

    def _judged_pack(self, pack: PackEntry) -> Judgement:
        standing = pack_standing(self.work.cache, pack, wanted_commit(pack, self.work.lock))
        match standing.state:
            case "absent":
                return "missing", "is not there"
            case "other":
                return "changed", f"is there at commit {(standing.commit or '?')[:12]}"
            case "unreceipted":
                return "unverified", "was put there by hand"
        receipt = pack_receipt(self.work.cache, pack.id) if self.full else None
        differing = changed_files(self.work.cache, receipt) if receipt is not None else []
        if differing:
            shown = ", ".join(differing[:3]) + (f" and {len(differing) - 3} more" if len(differing) > 3 else "")
            return "corrupt", f"differs from its commit in {shown}"
        return "ok", ""


def by_receipt(wanted: Wanted, seen: Seen) -> Judgement:
    """What size, time and receipt say of a file that is there."""
    if seen.state == "changed":
        return "changed", "has another size or time than its receipt says"
    action = decided(wanted, seen)
    if action.problem is not None or action.fetches:
        return "changed", action.problem.what if action.problem is not None else OTHER_VERSION
    if seen.state == "unreceipted":
        return "unverified", f"has no receipt: {ADOPT_HINT}"
    if seen.receipt is None or seen.receipt.sha256 is None:
        return "unverified", f"was never hashed: {ADOPT_HINT}"
    return "ok", ""


def _told(finding: Finding, tell: Teller) -> Finding:
    if finding.what == "ok":
        tell.say("present", finding.why)
    else:
        tell.say("failed", finding.why, found=finding.what)
    return finding
