"""What the stories come back with: values that a person or a program can be told."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from morpheus_worker.manifest import ModelEntry, PackEntry
from morpheus_worker.sync.planning import State
from morpheus_worker.sync.terms import Receipt, SyncError


@dataclass(frozen=True, slots=True)
class Selection:
    """The entries that a command is about, in the manifest's order. `whole`: all there are; `named`: the ids that were
    asked for one by one."""

    models: tuple[ModelEntry, ...] = ()
    packs: tuple[PackEntry, ...] = ()
    whole: bool = False
    named: tuple[str, ...] = ()

    @property
    def ids(self) -> tuple[str, ...]:
        return (*(model.id for model in self.models), *(pack.id for pack in self.packs))


@dataclass(frozen=True, slots=True)
class Outcome:
    """What became of one entry. `uri` is where it is now: the file's path, or `s3://…` / `gs://…`.

    `action`: `fetched`, `present` (nothing had to be done), `adopted` (was there without a receipt, and is right by its
    hash, or by its size where its source says no more), `unverified` (is there and looks as it should, and nobody says
    what it should be: `why` has the reason), `failed` (then `error` says why and `uri` is empty). `receipt` is None for
    a pack, a failure and what is unverified. `received` is what came over the network, in bytes.
    """

    id: str
    uri: str
    receipt: Receipt | None
    action: Literal["fetched", "present", "adopted", "unverified", "failed"]
    error: SyncError | None = None
    received: int = 0
    requirements: tuple[str, ...] = ()
    """Of a pack: what it asks pip for."""
    why: str = ""

    @property
    def ok(self) -> bool:
        return self.error is None

    def as_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {"id": self.id, "action": self.action}
        if self.error is not None:
            return told | {"code": str(self.error.code), "error": self.error.what, "hint": self.error.hint}
        told["uri"] = self.uri
        if self.receipt is not None:
            told |= {"bytes": self.receipt.size, "sha256": self.receipt.sha256}
        told |= {"why": self.why} if self.why else {}
        return told | ({"requirements": list(self.requirements)} if self.requirements else {})


@dataclass(frozen=True, slots=True)
class Summary:
    """What became of everything that a sync was asked for, by id, in the selection's order. `left_out` are the node
    packs that a bucket does not get."""

    outcomes: Mapping[str, Outcome]
    interrupted: bool = False
    seconds: float = 0.0
    left_out: tuple[str, ...] = ()

    @property
    def ok(self) -> bool:
        return not self.interrupted and all(outcome.ok for outcome in self.outcomes.values())

    @property
    def failed(self) -> tuple[Outcome, ...]:
        return tuple(outcome for outcome in self.outcomes.values() if not outcome.ok)

    @property
    def received(self) -> int:
        """Bytes that came over the network."""
        return sum(outcome.received for outcome in self.outcomes.values())

    @property
    def requirements(self) -> Mapping[str, tuple[str, ...]]:
        """What the node packs ask pip for, by pack: for the image to install, not at boot."""
        return {outcome.id: outcome.requirements for outcome in self.outcomes.values() if outcome.requirements}

    def as_dict(self) -> dict[str, Any]:
        return {
            "ok": self.ok,
            "interrupted": self.interrupted,
            "received": self.received,
            "seconds": round(self.seconds, 3),
            "left_out": list(self.left_out),
            "outcomes": [outcome.as_dict() for outcome in self.outcomes.values()],
        }


@dataclass(frozen=True, slots=True)
class Finding:
    """What `verify` says of one entry.

    `ok`; `unverified`: there, but nothing says what it should be (no receipt, no hash); `changed`: of another size,
    time or version than its receipt or the lock says; `corrupt`: its bytes are not what they should be; `missing`.
    """

    id: str
    path: PurePosixPath
    what: Literal["ok", "unverified", "changed", "corrupt", "missing"]
    why: str = ""
    kind: Literal["model", "pack"] = "model"

    def as_dict(self) -> dict[str, Any]:
        return {"id": self.id, "kind": self.kind, "path": str(self.path), "what": self.what, "why": self.why}


@dataclass(frozen=True, slots=True)
class VerifyReport:
    """`ok` only where every file is known to be right: the command ends with 0 then, and with 1 otherwise."""

    findings: tuple[Finding, ...]
    full: bool
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        return not self.interrupted and all(finding.what == "ok" for finding in self.findings)

    def of(self, what: str) -> tuple[Finding, ...]:
        return tuple(finding for finding in self.findings if finding.what == what)

    def as_dict(self) -> dict[str, Any]:
        findings = [finding.as_dict() for finding in self.findings]
        return {"ok": self.ok, "full": self.full, "interrupted": self.interrupted, "findings": findings}


@dataclass(frozen=True, slots=True)
class Adopted:
    """What `adopt` made of one file. `id` is the entry's, empty where the manifest does not name the file.

    `adopted`: hashed, and it has a receipt now; `refused`: it is not what the lock or the manifest says, and gets none.
    """

    id: str
    path: PurePosixPath
    what: Literal["adopted", "refused"]
    why: str = ""
    size: int = 0
    sha256: str | None = None

    def as_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {"id": self.id, "path": str(self.path), "what": self.what, "why": self.why}
        return told | {"bytes": self.size, "sha256": self.sha256}


@dataclass(frozen=True, slots=True)
class AdoptReport:
    """`known` counts the files that had a receipt already."""

    files: tuple[Adopted, ...]
    known: int = 0
    interrupted: bool = False

    @property
    def ok(self) -> bool:
        return not self.interrupted and all(file.what == "adopted" for file in self.files)

    def as_dict(self) -> dict[str, Any]:
        files = [file.as_dict() for file in self.files]
        return {"ok": self.ok, "known": self.known, "interrupted": self.interrupted, "files": files}


@dataclass(frozen=True, slots=True)
class EntryStatus:
    """How the cache stands to one entry, by its receipt alone: nothing is read and nobody is asked.

    `state` is `other` where its receipt, or its size, is of another version than the lock's, else as `planning.State`:
    `unreceipted` says that it is there and not verified. `locked`:
    the lock knows it; `stale`: what the manifest says of it has changed since.
    """

    id: str
    kind: Literal["model", "pack"]
    path: PurePosixPath
    state: State | Literal["other"]
    size: int | None = None
    sha256: str | None = None
    version: str = ""
    """Of a pack, the commit that is there."""
    locked: bool = False
    stale: str = ""
    workflows: tuple[str, ...] = ()
    requirements: tuple[str, ...] | None = None
    """Of a pack, what it asks pip for; None where nobody knows."""

    @property
    def ok(self) -> bool:
        return self.state == "present"

    def as_dict(self) -> dict[str, Any]:
        told: dict[str, Any] = {"id": self.id, "kind": self.kind, "path": str(self.path), "state": self.state}
        told |= {"bytes": self.size}
        told |= {"sha256": self.sha256, "locked": self.locked, "stale": self.stale, "workflows": list(self.workflows)}
        asked = None if self.requirements is None else list(self.requirements)
        return told | ({"commit": self.version, "requirements": asked} if self.kind == "pack" else {})


@dataclass(frozen=True, slots=True)
class Pruned:
    """One thing that `prune` takes away, or would. `path` is relative to the cache, `bytes` its size."""

    path: PurePosixPath
    why: str
    bytes: int = 0

    def as_dict(self) -> dict[str, Any]:
        return {"path": str(self.path), "why": self.why, "bytes": self.bytes}


@dataclass(frozen=True, slots=True)
class PruneReport:
    """`deleted` says whether it was done, `kept` what could not be taken away and why."""

    items: tuple[Pruned, ...]
    deleted: bool
    kept: tuple[Pruned, ...] = ()

    @property
    def bytes(self) -> int:
        return sum(item.bytes for item in self.items)

    @property
    def ok(self) -> bool:
        return not self.kept

    def as_dict(self) -> dict[str, Any]:
        items, kept = [item.as_dict() for item in self.items], [item.as_dict() for item in self.kept]
        return {"deleted": self.deleted, "bytes": self.bytes, "items": items, "kept": kept}
