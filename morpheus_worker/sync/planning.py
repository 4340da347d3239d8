"""What is to be done about one model, decided from what is wanted and what lies at its place. Values in, values out."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from dataclasses import replace as changed
from pathlib import PurePosixPath
from typing import TYPE_CHECKING, Any, Final, Literal

from morpheus_worker.sources import COMMIT, may_run_code
from morpheus_worker.sync.refs import shown_source
from morpheus_worker.sync.terms import Receipt, Resolved, SyncCode, SyncError

if TYPE_CHECKING:
    from morpheus_worker.sync.locking import Wanted

State = Literal["present", "changed", "unreceipted", "absent"]
"""How a file stands to its receipt: as it says; of another size or time; there without one; not there."""

What = Literal["present", "unverified", "get", "replace", "hash", "refuse"]
"""`present`: as it should be. `unverified`: there without a receipt that holds, and neither manifest nor lock knows its
hash, so it is looked into and its source asked. `get`: is not there. `replace`: another version lies there, which makes
room. `hash`: there without a receipt that holds, so it is read once and taken over if it is right. `refuse`: nothing
can be done."""

REPLACE_HINT: Final = "'morpheus models sync --replace' fetches it anew, in place of what lies there"
LOCK_HINT: Final = "'morpheus models lock' takes the host's version into the lock"
ADOPT_HINT: Final = "'morpheus models adopt' hashes it and writes its receipt"


@dataclass(frozen=True, slots=True)
class Seen:
    """What lies at a place: how it stands, its size in bytes (None for what is no file, or a link that leads
    nowhere), its receipt where it has one."""

    state: State
    size: int | None = None
    receipt: Receipt | None = None


@dataclass(frozen=True, slots=True)
class Action:
    """What will be done about one entry. `bytes` is what has to be fetched, None where nobody knows; `problem` is why
    nothing can be done."""

    id: str
    path: PurePosixPath
    what: What
    why: str = ""
    bytes: int | None = 0
    kind: Literal["model", "pack"] = "model"
    problem: SyncError | None = None

    @property
    def fetches(self) -> bool:
        return self.what in ("get", "replace")

    @property
    def is_work(self) -> bool:
        """Whether more than a look at the place is needed."""
        return self.fetches or self.what in ("hash", "unverified")

    def as_dict(self) -> dict[str, Any]:
        told = {"id": self.id, "kind": self.kind, "path": str(self.path), "what": self.what, "why": self.why}
        more: dict[str, Any] = {"bytes": self.bytes} if self.fetches else {}
        if self.problem is not None:
            more |= {"code": str(self.problem.code), "error": self.problem.what, "hint": self.problem.hint}
        return told | more


@dataclass(frozen=True, slots=True)
class Plan:
    """What a sync would do, in its order. `free` is what the volume has left, in bytes, None where there is no telling
    (a bucket); `destination` as it was given, or the cache's folder; `left_out` the node packs that a bucket does not
    get."""

    actions: tuple[Action, ...]
    destination: str
    free: int | None = None
    left_out: tuple[str, ...] = ()

    @property
    def bytes(self) -> int:
        """What has to be fetched, as far as it is known."""
        return sum(action.bytes or 0 for action in self.actions if action.fetches)

    @property
    def unknown(self) -> tuple[str, ...]:
        """The entries to fetch whose size nobody knows yet."""
        return tuple(action.id for action in self.actions if action.fetches and action.bytes is None)

    @property
    def fits(self) -> bool:
        return self.free is None or self.bytes <= self.free

    @property
    def problems(self) -> tuple[Action, ...]:
        """The entries that nothing can be done about."""
        return tuple(action for action in self.actions if action.problem is not None)

    @property
    def ok(self) -> bool:
        return self.fits and not self.problems

    def as_dict(self) -> dict[str, Any]:
        return {
            "destination": self.destination,
            "bytes": self.bytes,
            "free": self.free,
            "fits": self.fits,
            "unknown": list(self.unknown),
            "left_out": list(self.left_out),
            "actions": [action.as_dict() for action in self.actions],
        }


def decided(wanted: Wanted, seen: Seen, *, replace: bool = False) -> Action:
    """What is to be done about one model.

    A file is never fetched over another one that could be somebody's only copy: that is refused, unless `replace`. What
    a sync fetched itself makes room for the version that is wanted now.
    """
    match seen.state:
        case "absent":
            return _fetched(wanted, "get", "is not there")
        case "present" if seen.receipt is not None:
            return _of_receipt(wanted, seen.receipt, replace)
        case _:
            return _of_unknown(wanted, seen, replace)


def known_hashes(wanted: Wanted, seen: Seen) -> tuple[str, ...]:
    """The hashes by which a file without a valid receipt could be told: the wanted one, then its old receipt's."""
    old = seen.receipt.sha256 if seen.receipt is not None else None
    return tuple(dict.fromkeys(each for each in (wanted.sha256, old) if each))


def judged(wanted: Wanted, seen: Seen, sha256: str, *, replace: bool = False) -> Action:
    """What is to be done about a file that had to be hashed, now that its hash is known."""
    if sha256 == wanted.sha256:
        return _act(wanted, "present", "was hashed and is right")
    old = seen.receipt
    if old is not None and (seen.state == "present" or sha256 == old.sha256):
        # Its receipt holds: it lacked the hash, or the file has another time and nothing else.
        action = _of_receipt(wanted, changed(old, sha256=sha256), replace)
        return _act(wanted, "present", "was hashed and is right") if action.what == "present" else action
    right, *_ = known_hashes(wanted, seen)
    return in_the_way(wanted, f"has the SHA-256 {sha256[:12]}…, not {right[:12]}…", replace)


def _of_receipt(wanted: Wanted, receipt: Receipt, replace: bool) -> Action:
    if wanted.sha256 is not None and receipt.sha256 is None and wanted.size in (None, receipt.size):
        return _act(wanted, "hash", "was never hashed")
    if _is_version(wanted, receipt):
        return _act(wanted, "present", "has a receipt")
    if not receipt.source:
        return in_the_way(wanted, "is another version, taken over from a cache filled by hand", replace)
    return _fetched(wanted, "replace", "another version is there")


def _is_version(wanted: Wanted, receipt: Receipt) -> bool:
    """Whether the receipt is of what is wanted: by the hash, or by all else that is known where none is."""
    if wanted.sha256 is not None:
        return wanted.sha256 == receipt.sha256
    pinned = wanted.sources[0] if wanted.sources else {}
    same_file = all(pinned.get(key) == receipt.source.get(key) for key in ("kind", "repo", "file"))
    revisions = {str(source.get("revision")) for source in (pinned, receipt.source)}
    other_revision = same_file and len(revisions) > 1 and all(map(COMMIT.fullmatch, revisions))
    return wanted.size in (None, receipt.size) and not other_revision


def _of_unknown(wanted: Wanted, seen: Seen, replace: bool) -> Action:
    old = seen.receipt
    if seen.size is None:
        return in_the_way(wanted, "is no file, or a link that leads nowhere", replace)
    sizes = {size for size in (wanted.size, old.size if old and old.sha256 else None) if size is not None}
    any_size = wanted.size is None and wanted.sha256 not in (None, old.sha256 if old else None)
    if sizes and seen.size not in sizes and not any_size:
        return in_the_way(wanted, f"has {seen.size:,} bytes, not {wanted.size or max(sizes):,}", replace)
    if known_hashes(wanted, seen):
        return _act(wanted, "hash", "was put there by hand" if old is None else "was changed since its receipt")
    then = ", and fetches it anew unless its hash is right" if replace and refusal(wanted) is None else ""
    return _act(wanted, "unverified", f"has no receipt, and no hash is known: a sync asks its source{then}")


def held_to(wanted: Wanted, resolved: Resolved, size: int, *, replace: bool = False) -> tuple[Wanted, Action]:
    """What is wanted of a file that lies there with `size` bytes and of which nobody but its source knows anything, and
    what is to be done about it: `hash` where it may be that source's file, else as `in_the_way`."""
    known = changed(wanted, size=resolved.size, sha256=resolved.sha256, sources=(resolved.source, *wanted.sources))
    said = shown_source(resolved.source)
    if resolved.size is not None and size != resolved.size:
        return known, in_the_way(wanted, f"has {size:,} bytes, and {said} has {resolved.size:,}", replace)
    if resolved.sha256 is None and replace and refusal(wanted) is None:
        return known, in_the_way(wanted, "is not known to be right", replace)
    return known, _act(wanted, "hash", f"is compared with {said}")


def broken(wanted: Wanted, failure: SyncError, *, replace: bool = False) -> Action:
    """What is to be done about a file that lies there and cannot be what it should: `failure` says what it is.

    Raises:
        SyncError: the failure itself, where it says nothing of the file but that it could not be looked at.
    """
    if failure.code is not SyncCode.REJECTED:
        raise failure
    return in_the_way(wanted, failure.what, replace)


def in_the_way(wanted: Wanted, what: str, replace: bool) -> Action:
    """What is to be done about something that may be somebody's only copy; `what` says how it differs."""
    if replace:
        return _fetched(wanted, "replace", f"what lies there {what}")
    problem = SyncError(SyncCode.CONFLICT, f"{wanted.entry.path} {what}", REPLACE_HINT)
    return _act(wanted, "refuse", "something else lies there", problem)


def agreed(wanted: Wanted, resolved: Resolved) -> tuple[int | None, str | None]:
    """The size and the hash that a file must have, by what is wanted and what its host says of it.

    Raises:
        SyncError: `changed`, when the two do not agree.
    """
    if wanted.sha256 and resolved.sha256 and wanted.sha256 != resolved.sha256:
        said = f"has the SHA-256 {resolved.sha256[:12]}… there, not {wanted.sha256[:12]}…"
        raise SyncError(SyncCode.CHANGED, said, LOCK_HINT)
    if wanted.size is not None and resolved.size is not None and wanted.size != resolved.size:
        said = f"has {resolved.size:,} bytes there, not {wanted.size:,}"
        raise SyncError(SyncCode.CHANGED, said, LOCK_HINT)
    size = wanted.size if wanted.size is not None else resolved.size
    return size, wanted.sha256 or resolved.sha256


def expected(wanted: Wanted, resolved: Resolved) -> Resolved:
    """What is resolved, with the size and the hash that it will be held to.

    Raises:
        SyncError: `changed`, as `agreed`; `rejected`, for a format that may run code.
    """
    size, sha256 = agreed(wanted, resolved)
    problem = program_refusal(wanted, resolved.format or wanted.format)
    if problem is not None:
        raise problem
    return changed(resolved, size=size, sha256=sha256)


def _fetched(wanted: Wanted, what: Literal["get", "replace"], why: str) -> Action:
    problem = refusal(wanted)
    if problem is not None:
        return _act(wanted, "refuse", problem.what, problem)
    return Action(wanted.entry.id, wanted.entry.path, what, why, wanted.size)


def refusal(wanted: Wanted) -> SyncError | None:
    """Why this file may not be fetched at all, or None."""
    if not wanted.sources:
        hint = "give it one in the manifest, or put the file there by hand"
        return SyncError(SyncCode.INVALID, "has no source", hint)
    return program_refusal(wanted, wanted.format)


def program_refusal(wanted: Wanted, *said: str | None) -> SyncError | None:
    """Why a file may not be fetched that may run code, by its name and by what is `said` of its format; or None."""
    risky = [kind for kind in said if may_run_code(wanted.entry.path, kind)]
    if not risky or wanted.entry.allow_pickle:
        return None
    named = f"is of the format {risky[0]}" if risky[0] else f"ends in {wanted.entry.path.suffix}"
    hint = "trust its author, then write 'allow_pickle: true' in its entry"
    return SyncError(SyncCode.REJECTED, f"{named}, so it may run code when it is loaded", hint)


def _act(wanted: Wanted, what: What, why: str, problem: SyncError | None = None) -> Action:
    return Action(wanted.entry.id, wanted.entry.path, what, why, problem=problem)


def in_order(all_wanted: Iterable[Wanted]) -> list[Wanted]:
    """What the first job needs first; within that the large before the small, so that no large one is left to come
    alone in the end, when the other connections idle. One of unknown size may be large."""

    def rank(wanted: Wanted) -> tuple[bool, bool, int]:
        return wanted.entry.phase != "boot", wanted.size is not None, -(wanted.size or 0)

    return sorted(all_wanted, key=rank)


def combined(refusals: Sequence[tuple[str, SyncError]]) -> SyncError:
    """One error for a file that none of its sources could give: each is named, with what it said.

    `refusals` are (source as it may be shown, what it said), at least one, in the order they were tried.
    """
    if len(refusals) == 1:
        shown, only = refusals[0]
        said = only.what if shown in only.what else f"{shown}: {only.what}"
        return SyncError(only.code, said, only.hint, passing=only.passing, after_s=only.after_s)
    told = "; ".join(f"{shown}: {refusal.what}" for shown, refusal in refusals)
    hints = dict.fromkeys(refusal.hint for _, refusal in refusals if refusal.hint)
    main = min((refusal for _, refusal in refusals), key=lambda refusal: _RANK.get(refusal.code, len(_RANK)))
    passing = any(refusal.passing for _, refusal in refusals)
    return SyncError(main.code, f"no source has it: {told}", "; ".join(hints) or None, passing=passing)


_RANK: Final[Mapping[SyncCode, int]] = {
    code: rank
    for rank, code in enumerate(
        (SyncCode.ACCESS_DENIED, SyncCode.REJECTED, SyncCode.CHANGED, SyncCode.UNREACHABLE, SyncCode.NOT_FOUND)
    )
}
"""Of several causes the one that a person can do most about comes first."""
