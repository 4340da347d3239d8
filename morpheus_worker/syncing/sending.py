"""The story of one model in a bucket: is it there, from where does it come, through memory alone into the store."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import PurePosixPath

from morpheus_worker.sync.formats import HEAD_BYTES
from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.planning import (
    REPLACE_HINT,
    Action,
    Seen,
    State,
    broken,
    decided,
    expected,
    held_to,
    in_the_way,
    judged,
    refusal,
)
from morpheus_worker.sync.refs import shown_source
from morpheus_worker.sync.terms import Receipt, Resolved, Source, Stop, SyncCode, SyncError
from morpheus_worker.syncing.asking import asked
from morpheus_worker.syncing.looking import look_at_head, now, read_from
from morpheus_worker.syncing.obtaining import Manner
from morpheus_worker.syncing.outcomes import Outcome
from morpheus_worker.syncing.sources import from_any, resolved_often
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.work import Work


@dataclass(frozen=True, slots=True)
class Sending:
    """One file's way into a bucket: to `path` below `prefix` (`s3://bucket/prefix`), by default the cache's path."""

    work: Work
    wanted: Wanted
    manner: Manner
    prefix: str
    path: PurePosixPath
    tell: Teller
    stop: Stop

    def run(self) -> Outcome:
        """Sees to it that the file is there.

        Raises:
            SyncError: when it is not.
        """
        action, seen = looked_at(self.work, self.wanted, self.prefix, self.path, replace=self.manner.replace)
        if action.problem is not None:
            raise action.problem
        if action.fetches:
            return self._sent(seen.size)
        return self._examined(seen) if action.what == "unverified" else self._settled(seen)

    def _settled(self, seen: Seen) -> Outcome:
        """The object is right."""
        if seen.state == "present":
            self.tell.say("present")
            return Outcome(self.wanted.entry.id, self._uri, seen.receipt, "present")
        return self._adopted(seen.size or 0, self.wanted)

    def _adopted(self, size: int, wanted: Wanted) -> Outcome:
        """It was verified when it was sent, and lacks only its receipt."""
        source = wanted.sources[0] if wanted.sources else {}
        receipt = Receipt(self.path, size, None, wanted.sha256, by="upload", source=source, verified_at=now())
        self.work.buckets.put_receipt(self.prefix, receipt)
        self.tell.say("adopted")
        return Outcome(wanted.entry.id, self._uri, receipt, "adopted")

    def _examined(self, seen: Seen) -> Outcome:
        """The object that nobody knows is looked into, and held to what its source says of it now, as far as the store
        knows what it holds: it is not read as a whole.

        Raises:
            SyncError: `conflict`, when it is not that; whatever fetching another one raises.
        """
        wanted, again = self.wanted, self.manner.replace
        action = self._wrong(seen.size or 0)
        if action is not None:
            return self._made_right(action, seen)
        try:
            resolved = asked(self.work, wanted, self.manner.silence, self.tell, self.stop)
        except SyncError as failure:
            if failure.code is SyncCode.INTERRUPTED:
                raise
            if again and refusal(wanted) is None:
                return self._made_right(in_the_way(wanted, "is not known to be right", again), seen)
            return self._unverified(failure)
        known, action = held_to(wanted, resolved, seen.size or 0, replace=again)
        sha256 = self.work.buckets.resolve(self._uri).sha256
        if action.what == "hash" and known.sha256 is not None and sha256 is not None:
            action = judged(known, seen, sha256, replace=again)
        if action.problem is not None or action.fetches:
            return self._made_right(action, seen)
        if action.what == "present":
            return self._adopted(seen.size or 0, known)
        if again and refusal(wanted) is None:
            return self._made_right(in_the_way(wanted, "is not known to be right", again), seen)
        said = f"it has the size that {shown_source(resolved.source)} says, and the store knows no hash of it"
        return self._unverified(SyncError(SyncCode.NOT_FOUND, said))

    def _wrong(self, size: int) -> Action | None:
        """What is to be done about an object that cannot be what it should by a look at its beginning, or None."""
        feed = self.work.buckets.feed(self.work.buckets.resolve(self._uri))
        try:
            head = read_from(feed, 0, min(HEAD_BYTES, size))
            look_at_head(head, size, self.wanted, feed, any_kind=True)
        except SyncError as failure:
            return broken(self.wanted, failure, replace=self.manner.replace)
        return None

    def _made_right(self, action: Action, seen: Seen) -> Outcome:
        if action.problem is not None:
            raise action.problem
        return self._sent(seen.size)

    def _unverified(self, why: SyncError) -> Outcome:
        said = f"is there, not verified: {why}"
        self.tell.say("present", said, unverified=True)
        return Outcome(self.wanted.entry.id, self._uri, None, "unverified", why=said)

    @property
    def _uri(self) -> str:
        return self.work.buckets.at(self.prefix, self.path)

    def _sent(self, there: int | None) -> Outcome:
        """From the first source that has it, in place of the object of `there` bytes, None where none was."""
        ask = self.manner.silence.ask
        try:
            return from_any(self.work, self.wanted, lambda source: self._from(source, there), self.tell, self.stop, ask)
        except SyncError as failure:
            if failure.code is not SyncCode.CONFLICT:
                raise
            # Somebody sent an object meanwhile: the very same, if all is well.
            action, seen = looked_at(self.work, self.wanted, self.prefix, self.path, replace=False)
            if action.what != "present":
                raise
            return self._settled(seen)

    def _from(self, source: Source, there: int | None) -> Outcome:
        if self.work.buckets.are_one(source, self._uri):
            raise SyncError(SyncCode.INVALID, "is the very object that it is to become")
        return resolved_often(
            self.work, self.wanted, source, self.tell, self.stop, lambda resolved: self._put(resolved, there)
        )

    def _make_room(self, there: int | None) -> None:
        """Only what was looked at makes room. What the older file's receipt says would be said of the new one.

        Raises:
            SyncError: `conflict`; what the store refuses with.
        """
        if not self.manner.replace and self.work.buckets.has(self._uri) not in (None, there):
            raise SyncError(SyncCode.CONFLICT, f"{self._uri} was put there while it was fetched", REPLACE_HINT)
        self.work.buckets.forget(self.prefix, self.path)

    def _put(self, resolved: Resolved, there: int | None) -> Outcome:
        resolved = expected(self.wanted, resolved)
        self.tell.count(resolved.size)
        self.tell.say("started", shown_source(resolved.source))
        feed = self.work.hosts.feed(resolved, auth_env=self.wanted.entry.auth_env)
        got = self.work.buckets.put(
            feed,
            self._uri,
            size=resolved.size,
            expect_sha256=resolved.sha256,
            hashing=self.manner.hashing or resolved.sha256 is not None,
            judge=lambda head, length: look_at_head(head, length, self.wanted, feed),
            pace=self.work.pace,
            on_bytes=self.tell.at,
            ready=lambda: self._make_room(there),
            stop=self.stop,
        )
        receipt = Receipt(self.path, got.size, None, got.sha256, by="upload", source=resolved.source, verified_at=now())
        self.work.buckets.put_receipt(self.prefix, receipt)
        self.tell.count(got.size, done=got.size)
        self.tell.say("published", self._uri)
        return Outcome(self.wanted.entry.id, self._uri, receipt, "fetched", received=got.received)


def looked_at(work: Work, wanted: Wanted, prefix: str, path: PurePosixPath, *, replace: bool) -> tuple[Action, Seen]:
    """What is to be done about an object, and how it stands to its receipt: two small requests.

    As on the volume, what a sync did not put there is not replaced unasked. It is not read either: its hash is the one
    that it was verified with, where the store keeps that.

    Raises:
        SyncError: what the store refuses with.
    """
    uri = work.buckets.at(prefix, path)
    size = work.buckets.has(uri)
    if size is None:
        return decided(wanted, Seen("absent"), replace=replace), Seen("absent")
    receipt = work.buckets.receipt(prefix, path)
    state: State = "unreceipted" if receipt is None else "present" if receipt.size == size else "changed"
    seen = Seen(state, size, receipt)
    action = decided(wanted, seen, replace=replace)
    if action.what != "hash":
        return action, seen
    if state == "present" and receipt is not None and receipt.source:
        # A sync sent it, and did not hash it.
        return decided(wanted, Seen("absent"), replace=replace), seen
    sha256 = work.buckets.resolve(uri).sha256
    if sha256 is None:
        return in_the_way(wanted, f"is there as {uri}, and nobody knows its hash", replace), seen
    return judged(wanted, seen, sha256, replace=replace), seen
