"""The story of one node pack on the volume: at its commit, as one folder, once."""

from __future__ import annotations

from pathlib import PurePosixPath
from typing import Literal

from morpheus_worker.manifest import PackEntry
from morpheus_worker.sync.cache import Lease
from morpheus_worker.sync.locking import wanted_commit
from morpheus_worker.sync.packs import PackStanding, fetch_pack, pack_standing, resolve_commit
from morpheus_worker.sync.planning import REPLACE_HINT, Action, What
from morpheus_worker.sync.terms import Stop
from morpheus_worker.syncing.obtaining import Manner, leased
from morpheus_worker.syncing.outcomes import Outcome
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.turns import PutOff
from morpheus_worker.syncing.work import Work


def pack_path(pack: PackEntry) -> PurePosixPath:
    """Where a pack's folder lies in the cache."""
    return PurePosixPath(pack.id)


def pack_action(work: Work, pack: PackEntry, *, replace: bool = False) -> Action:
    """What is to be done about a pack. One that somebody put there by hand stays, unless `replace`."""
    return _decided(pack, pack_standing(work.cache, pack, wanted_commit(pack, work.lock)), replace)


def _decided(pack: PackEntry, standing: PackStanding, replace: bool) -> Action:
    what: What
    match standing.state:
        case "present":
            what, why = "present", "is there at its commit"
        case "other":
            what, why = "replace", "another commit is there"
        case "absent":
            what, why = "get", "is not there"
        case _ if replace:
            what, why = "replace", "was put there by hand"
        case _:
            what, why = "unverified", f"was put there by hand: {REPLACE_HINT}"
    return Action(pack.id, pack_path(pack), what, why, None if what in ("get", "replace") else 0, "pack")


def obtain_pack(work: Work, pack: PackEntry, manner: Manner, tell: Teller, stop: Stop, put_off: PutOff) -> Outcome:
    """Sees to it that the pack's folder is there at its commit.

    Raises:
        SyncError: when it is not. What was there still is then.
        HeldElsewhereError: from `put_off`, when somebody else is at work on it.
    """
    outcome = settled_pack(work, pack, manner, tell)
    if outcome is not None:
        return outcome

    def go(lease: Lease, either: Stop) -> Outcome:
        outcome = settled_pack(work, pack, manner, tell)
        if outcome is not None:
            return outcome
        tell.say("started", pack.repo)
        commit = wanted_commit(pack, work.lock) or resolve_commit(pack.repo, either)
        receipt = fetch_pack(work.cache, pack, commit, owner=lease.owner, stop=either)
        tell.say("published", f"at {receipt.commit[:12]}")
        return Outcome(pack.id, work.uri(receipt.path), None, "fetched", requirements=receipt.requirements)

    return leased(work, pack_path(pack), go, tell, stop, put_off)


def settled_pack(work: Work, pack: PackEntry, manner: Manner, tell: Teller) -> Outcome | None:
    """The outcome where nothing has to be fetched; None where something has."""
    standing = pack_standing(work.cache, pack, wanted_commit(pack, work.lock))
    action = _decided(pack, standing, manner.replace)
    if action.fetches:
        return None
    tell.say("present", "" if action.what == "present" else action.why)
    what: Literal["present", "unverified"] = "present" if action.what == "present" else "unverified"
    return Outcome(pack.id, work.uri(action.path), None, what, requirements=standing.requirements)
