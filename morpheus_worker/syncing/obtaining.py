"""The story of one model on the volume: whose turn is it, from where does the file come, is it right, publish it."""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Final

from morpheus_worker.sync.cache import Holder, Lease, check_space, hold, key_of, on_volume, room_of
from morpheus_worker.sync.engine import PartFile, discard, download, inherit, journal_of
from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.planning import (
    ADOPT_HINT,
    REPLACE_HINT,
    Action,
    Seen,
    broken,
    decided,
    expected,
    held_to,
    in_the_way,
    judged,
    refusal,
)
from morpheus_worker.sync.refs import shown_source
from morpheus_worker.sync.terms import Downloaded, Receipt, Resolved, Source, Stop, SyncCode, SyncError
from morpheus_worker.syncing.asking import Silence, asked
from morpheus_worker.syncing.hashing import being_written, hashed
from morpheus_worker.syncing.looking import look_into, now, taken_over
from morpheus_worker.syncing.outcomes import Outcome
from morpheus_worker.syncing.sources import from_any, resolved_often
from morpheus_worker.syncing.stopping import EitherStop
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.turns import PutOff
from morpheus_worker.syncing.work import Work

MOST_TAKEOVERS: Final = 3
"""So often one run may lose the same entry to others and come back to it."""

UNWRITABLE: Final = (SyncCode.VOLUME, SyncCode.NO_SPACE)


@dataclass(frozen=True, slots=True)
class Manner:
    """How a run goes about it. `replace`: other files at an entry's place make room. `hashing`: files of which no hash
    is known are hashed for their receipt; one whose hash is known is always held to it. `silence` is of this run."""

    replace: bool = False
    hashing: bool = True
    silence: Silence = field(default_factory=Silence)


def obtain(work: Work, wanted: Wanted, manner: Manner, tell: Teller, stop: Stop, put_off: PutOff) -> Outcome:
    """Sees to it that the file lies at its place, whole and right, after a look has shown that it does not.

    Raises:
        SyncError: when it does not in the end either. What lay there before still does then.
        HeldElsewhereError: from `put_off`, when somebody else is at work on it.
    """

    def go(lease: Lease, either: Stop) -> Outcome:
        return _Try(work, wanted, manner, tell, either, lease).run()

    try:
        return leased(work, wanted.entry.path, go, tell, stop, put_off)
    except SyncError as failure:
        # A volume that takes nothing keeps nobody from using what lies there, as long as it looks right.
        if manner.replace or failure.code not in UNWRITABLE:
            raise
        if decided(wanted, work.seen(wanted.entry.path)).what != "unverified":
            raise
        wrong = look(work, wanted)
        if wrong is not None and wrong.problem is not None:
            raise wrong.problem from None
        return unverified(work, wanted, failure, tell)


def look(work: Work, wanted: Wanted, *, host_says: str | None = None, replace: bool = False) -> Action | None:
    """What is to be done about a file that lies there and cannot be what it should by a look into it, or None.

    Raises:
        SyncError: `volume`, when it cannot be read.
    """
    try:
        look_into(work.cache.at(wanted.entry.path), wanted, host_says=host_says, any_kind=True)
    except SyncError as failure:
        return broken(wanted, failure, replace=replace)
    return None


def unverified(work: Work, wanted: Wanted, why: SyncError, tell: Teller) -> Outcome:
    """The end of a file that lies there, looks as it should, and that nobody says anything of."""
    said = f"is there, not verified: {why}; {ADOPT_HINT}"
    tell.say("present", said, unverified=True)
    return Outcome(wanted.entry.id, work.uri(wanted.entry.path), None, "unverified", why=said)


def leased(
    work: Work,
    path: PurePosixPath,
    go: Callable[[Lease, Stop], Outcome],
    tell: Teller,
    stop: Stop,
    put_off: PutOff,
) -> Outcome:
    """What `go` makes of the cache's `path` while that is ours to work on; anew where another machine took it over.

    Raises:
        SyncError: as `go`; when it is taken over again and again.
        HeldElsewhereError: from `put_off`, when somebody else is at work on it.
    """

    def on_wait(holder: Holder, beats: int) -> None:
        put_off()
        tell.say("waiting", f"{holder} is at work on it", beats=beats)

    work.cache.ensure_writable()
    for _ in range(MOST_TAKEOVERS):
        with hold(work.cache, key_of(path), stop=stop, on_wait=on_wait, pace=work.beats) as lease:
            try:
                return go(lease, EitherStop(stop, lease.lost))
            except SyncError as failure:
                if stop.is_set() or not lease.lost.is_set() or failure.code is not SyncCode.INTERRUPTED:
                    raise
        tell.say("waiting", "another machine has taken it over")
    raise SyncError(SyncCode.UNREACHABLE, "was taken over by other machines again and again", passing=True)


def settled(work: Work, action: Action, tell: Teller) -> Outcome:
    """The outcome of an action that is no work.

    Raises:
        SyncError: why nothing can be done.
    """
    if action.problem is not None:
        raise action.problem
    tell.say("present")
    return Outcome(action.id, work.uri(action.path), work.known.get(str(action.path)), "present")


@dataclass(slots=True)
class _Try:
    """One go at it, while the lease is ours."""

    work: Work
    wanted: Wanted
    manner: Manner
    tell: Teller
    stop: Stop
    lease: Lease
    resumed: bool = False
    found: tuple[int, int, int] | None = None
    """What lay there when it was decided to replace it."""

    def run(self) -> Outcome:
        # Somebody may have done the work while we waited.
        self.found = self._there()
        seen = self.work.seen(self.wanted.entry.path)
        action = decided(self.wanted, seen, replace=self.manner.replace)
        found = self._looked_at(action, seen)
        if isinstance(found, Outcome):
            return found
        return self._fetched(found) if found.fetches else settled(self.work, found, self.tell)

    # What lies there already.

    def _looked_at(self, action: Action, seen: Seen) -> Action | Outcome:
        match action.what:
            case "hash":
                return self._hashed(self.wanted, seen)
            case "unverified":
                return self._examined(seen)
        return action

    def _examined(self, seen: Seen) -> Action | Outcome:
        """The file that nobody knows is looked into, and held to what its source says of it now."""
        wanted, again = self.wanted, self.manner.replace
        if (wrong := look(self.work, wanted, replace=again)) is not None:
            return wrong
        try:
            resolved = asked(self.work, wanted, self.manner.silence, self.tell, self.stop)
        except SyncError as failure:
            if failure.code is SyncCode.INTERRUPTED:
                raise
            if again and refusal(wanted) is None:
                return in_the_way(wanted, "is not known to be right", again)
            return unverified(self.work, wanted, failure, self.tell)
        known, action = held_to(wanted, resolved, seen.size or 0, replace=again)
        if action.what != "hash":
            return action
        if known.sha256 is None and (wrong := look(self.work, wanted, host_says=resolved.format, replace=again)):
            return wrong
        return self._hashed(known, seen) if known.sha256 is not None else self._sized(known, seen)

    def _sized(self, wanted: Wanted, seen: Seen) -> Outcome:
        """The file of which its source knows the size alone, which is right: it is taken over by that."""
        path, sha256 = self.work.cache.at(wanted.entry.path), None
        with on_volume(f"looking at '{wanted.entry.path}'"):
            told = path.stat()
        if self.manner.hashing:
            self._verifying(seen)
            sha256, told = hashed(path, on_bytes=self.tell.at, stop=self.stop)
        if told.st_size != seen.size:
            raise being_written(path)
        return self._taken_over(wanted, None, sha256, told)

    def _hashed(self, wanted: Wanted, seen: Seen) -> Action | Outcome:
        """The file that lies there without a receipt that holds is read: taken over, or what is to be done about it."""
        path = self.work.cache.at(wanted.entry.path)
        self._verifying(seen)
        sha256, told = hashed(path, on_bytes=self.tell.at, stop=self.stop)
        action = judged(wanted, seen, sha256, replace=self.manner.replace)
        return action if action.what != "present" else self._taken_over(wanted, seen.receipt, sha256, told)

    def _verifying(self, seen: Seen) -> None:
        self.tell.count(seen.size, kind="verifying")
        self.tell.say("verifying")

    def _taken_over(self, wanted: Wanted, old: Receipt | None, sha256: str | None, told: os.stat_result) -> Outcome:
        receipt = taken_over(wanted, old, sha256, size=told.st_size, mtime_ns=told.st_mtime_ns)
        self.work.receipts.write(receipt)
        self.tell.say("adopted")
        return Outcome(wanted.entry.id, self.work.uri(wanted.entry.path), receipt, "adopted")

    # What a source brings.

    def _fetched(self, action: Action) -> Outcome:
        """From the first source that has it."""

        def attempt(source: Source) -> Outcome:
            return resolved_often(
                self.work, self.wanted, source, self.tell, self.stop, lambda resolved: self._from(resolved, action)
            )

        return from_any(self.work, self.wanted, attempt, self.tell, self.stop, self.manner.silence.ask)

    def _from(self, resolved: Resolved, action: Action) -> Outcome:
        resolved = expected(self.wanted, resolved)
        self.tell.count(resolved.size)
        self.tell.say("started", shown_source(resolved.source))
        got = self._right(resolved)
        path = self.wanted.entry.path
        try:
            self._check_unchanged()
            there = self.work.cache.publish(self.lease.part, path, replace=action.what == "replace")
        except SyncError as failure:
            return self._published_by_another(failure, got)
        receipt = Receipt(
            path=path,
            size=got.size,
            mtime_ns=there.st_mtime_ns,
            sha256=got.sha256,
            source=resolved.source,
            etag=resolved.etag,
            verified_at=now(),
        )
        self.work.receipts.write(receipt)
        self.tell.count(got.size, done=got.size)
        self.tell.say("published")
        return Outcome(self.wanted.entry.id, self.work.uri(path), receipt, "fetched", received=got.received)

    def _check_unchanged(self) -> None:
        """Only what was looked at makes room: while the new version was on its way, somebody may have put another file
        there.

        Raises:
            SyncError: `conflict`.
        """
        there = self._there()
        if there not in (None, self.found) and not self.manner.replace:
            said = f"{self.wanted.entry.path} was changed while its new version was fetched"
            raise SyncError(SyncCode.CONFLICT, said, REPLACE_HINT)

    def _there(self) -> tuple[int, int, int] | None:
        """What tells the file at the place from another, the link where it is one; None where nothing is."""
        path = self.wanted.entry.path
        with on_volume(f"looking at '{path}'"):
            try:
                told = self.work.cache.at(path).lstat()
            except FileNotFoundError:
                return None
        return told.st_ino, told.st_size, told.st_mtime_ns

    def _right(self, resolved: Resolved) -> Downloaded:
        """The whole file in the lease's part, held to everything that is known of it.

        Raises:
            SyncError: `rejected`, with what arrived in quarantine; whatever else ends a download.
        """
        try:
            return self._arrived(resolved)
        except SyncError as failure:
            if not self._is_wrong(failure):
                raise
            if not self.resumed:
                raise self._quarantined(failure) from None
            # What an earlier run left on the disk may have rotted there: the source is not to blame yet.
            self.tell.say("retrying", f"{failure.what}: once more from the beginning", code=str(failure.code))
        discard(self.lease.part)
        self.lease.prior = None
        try:
            return self._arrived(resolved)
        except SyncError as failure:
            raise (self._quarantined(failure) if self._is_wrong(failure) else failure) from None

    def _arrived(self, resolved: Resolved) -> Downloaded:
        part, work = self.lease.part, self.work
        self._take_room(resolved)
        feed = work.hosts.feed(resolved, auth_env=self.wanted.entry.auth_env)
        hashing = self.manner.hashing or resolved.sha256 is not None
        try:
            with PartFile.open(part, resolved, segment_bytes=work.pace.part_bytes) as opened:
                self.resumed = bool(opened.held.segments)
                got = download(feed, opened, pace=work.pace, hashing=hashing, on_bytes=self._counted, stop=self.stop)
        except SyncError as failure:
            if failure.code is SyncCode.NO_SPACE and resolved.size is None:
                # Nobody goes on from it, and all that would fit finds no room beside it.
                discard(part)
            raise
        self.tell.say("verifying")
        try:
            look_into(part, self.wanted, host_says=resolved.format)
        except SyncError:
            journal_of(part).unlink(missing_ok=True)
            raise
        return got

    def _take_room(self, resolved: Resolved) -> None:
        """Takes over what an earlier try left, and reserves room for the rest."""
        part, prior, had = self.lease.part, self.lease.prior, 0
        if prior is not None and resolved.version is not None and not part.exists():
            had = inherit(prior.part, part, share=prior.provably_dead, version=resolved.version, stop=self.stop)
        if resolved.size is not None:
            check_space(self.work.cache, resolved.size, has_bytes=had or _taken(part), lease=self.lease)

    def _counted(self, done: int) -> None:
        self.tell.at(done)
        if self.tell.total is not None:
            self.lease.needs(self.tell.total - done)

    def _is_wrong(self, failure: SyncError) -> bool:
        """Whether bytes arrived that are not the file's; they have no journal then. A host that answers with something
        else altogether, such as a page, says nothing against what has arrived before."""
        part = self.lease.part
        return failure.code is SyncCode.REJECTED and _taken(part) > 0 and not journal_of(part).exists()

    def _quarantined(self, failure: SyncError) -> SyncError:
        place = self.work.cache.quarantine(self.lease.part, self.wanted.entry.path, failure.what)
        hint = f"what arrived is kept as {place}" + (f"; {failure.hint}" if failure.hint else "")
        return SyncError(failure.code, failure.what, hint)

    def _published_by_another(self, failure: SyncError, got: Downloaded) -> Outcome:
        """Somebody put a file at the place meanwhile: the very same, if all is well."""
        if failure.code is not SyncCode.CONFLICT or got.sha256 is None:
            raise failure
        same = replace(self.wanted, size=got.size, sha256=got.sha256)
        seen = self.work.seen(same.entry.path)
        action = decided(same, seen)
        found = self._hashed(same, seen) if action.what == "hash" else action
        if isinstance(found, Action) and found.fetches:
            raise failure
        outcome = found if isinstance(found, Outcome) else settled(self.work, found, self.tell)
        discard(self.lease.part)
        return outcome


def _taken(part: Path) -> int:
    """What a part takes of the volume, in bytes."""
    try:
        return room_of(part.stat())
    except FileNotFoundError:
        return 0
