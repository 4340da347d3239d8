"""The lock: what the manifest's sources resolved to, so that everybody fetches the same bytes.

JSON, sorted by id, written by a program and read by people in a diff. It holds no key and no signed address.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any, Final, Literal

from pydantic import ValidationError

from morpheus_worker.errors import Problem
from morpheus_worker.manifest import Manifest, ManifestError, ModelEntry, PackEntry
from morpheus_worker.sources import (
    TOKEN,
    AnySource,
    CachePath,
    Commit,
    Id,
    Positive,
    RepositoryUrl,
    Sha256,
    Strict,
    Text,
    as_source,
    shape_of,
)
from morpheus_worker.sync.terms import Resolved, Source
from morpheus_worker.yaml_lines import as_json, read_document

VERSION: Final = 1


@dataclass(frozen=True, slots=True)
class Locked:
    """What one model was found to be. `declared` is the manifest's source that was asked, `source` what it is pinned
    to; the rest as in the manifest. `path` is only for the reader."""

    path: PurePosixPath
    declared: Source
    source: Source
    size: int | None = None
    sha256: str | None = None
    format: str | None = None
    license: str | None = None
    gated: bool = False

    @classmethod
    def of(cls, entry: ModelEntry, declared: Source, resolved: Resolved) -> Locked:
        """What a host said of one of the entry's sources; where the host does not know, what the manifest says."""
        return cls(
            entry.path,
            declared,
            resolved.source,
            resolved.size or entry.size,
            resolved.sha256 or entry.sha256,
            entry.format or _line(resolved.format),
            entry.license or _line(resolved.license),
            entry.gated or resolved.gated,
        )


def _line(said: str | None) -> str | None:
    """A host's word as a line of text: one odd licence must not keep all the rest from being locked."""
    told = " ".join((said or "").split())
    return told if told and not TOKEN.search(told) else None


@dataclass(frozen=True, slots=True)
class LockedPack:
    """The commit, a whole hash, that a pack's repository was at. `requirements` are what the pack asks pip for at that
    commit; None where nobody had looked into it when it was locked."""

    repo: str
    commit: str
    requirements: tuple[str, ...] | None = None

    @classmethod
    def of(cls, repo: str, commit: str, requirements: Sequence[str] | None) -> LockedPack:
        """One line that no lock may hold, such as an address with a key in it, and none of them is written down: a part
        of them would pass for all."""
        lines = [_line(each) for each in requirements or ()]
        told = tuple(line for line in lines if line is not None)
        return cls(repo, commit, told if requirements is not None and len(told) == len(lines) else None)


@dataclass(frozen=True, slots=True)
class Lock:
    """What was resolved, by the ids of the manifest."""

    models: Mapping[str, Locked] = field(default_factory=dict)
    packs: Mapping[str, LockedPack] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Wanted:
    """What a sync shall get for one entry: the first of `sources` that has these bytes.

    `size` in bytes, `sha256` in lower-case hexadecimal, None where neither manifest nor lock knows. `locked`: the first
    source is pinned by the lock.
    """

    entry: ModelEntry
    sources: tuple[Source, ...]
    size: int | None = None
    sha256: str | None = None
    format: str | None = None
    gated: bool = False
    locked: bool = False


def wanted(entry: ModelEntry, lock: Lock) -> Wanted:
    """What to get for the entry. A lock that does not fit the entry any more (`stale`) is not asked."""
    known = lock.models.get(entry.id)
    if known is None or _outdated(entry, known):
        return Wanted(entry, entry.sources, entry.size, entry.sha256, entry.format, entry.gated)
    others = tuple(source for source in entry.sources if source != known.declared)
    return Wanted(
        entry,
        (known.source, *others),
        entry.size or known.size,
        entry.sha256 or known.sha256,
        entry.format or known.format,
        entry.gated or known.gated,
        locked=True,
    )


def wanted_commit(pack: PackEntry, lock: Lock) -> str | None:
    """The commit to fetch: the manifest's, else the lock's where it is of the same repository."""
    known = lock.packs.get(pack.id)
    return pack.commit or (known.commit if known and known.repo == pack.repo else None)


def asked_of_pip(pack: PackEntry, lock: Lock, found: Sequence[str] | None = None) -> tuple[str, ...] | None:
    """What the pack needs of pip, each line once: what the manifest says, the lock, and what was `found` in the pack's
    own folder. None where none of them knows."""
    held = lock.packs.get(pack.id)
    locked = held.requirements if held is not None and _outdated_pack(pack, held) is None else None
    known = [lines for lines in (pack.requirements, locked, found) if lines is not None]
    return tuple(dict.fromkeys(line for lines in known for line in lines)) if known else None


def stale(lock: Lock, manifest: Manifest) -> list[Problem]:
    """The entries that the manifest has changed since they were locked; what never was locked is not among them."""
    hint = "lock it anew: morpheus models lock"
    return [
        *(
            Problem(f"models.{entry.id}", f"the lock is older than the manifest: {why}", hint)
            for entry in manifest.models
            if (known := lock.models.get(entry.id)) and (why := _outdated(entry, known))
        ),
        *(
            Problem(f"custom_nodes.{pack.id}", f"the lock is older than the manifest: {why}", hint)
            for pack in manifest.custom_nodes
            if (held := lock.packs.get(pack.id)) and (why := _outdated_pack(pack, held))
        ),
    ]


def _outdated(entry: ModelEntry, known: Locked) -> str | None:
    if known.declared not in entry.sources:
        return "the source that was locked is no source of it now"
    if entry.sha256 and known.sha256 and entry.sha256 != known.sha256:
        return "the manifest gives another sha256"
    if entry.size and known.size and entry.size != known.size:
        return f"the manifest gives another size, {entry.size} bytes instead of {known.size}"
    return None


def _outdated_pack(pack: PackEntry, held: LockedPack) -> str | None:
    if pack.repo != held.repo:
        return "it has another repository now"
    if pack.commit and pack.commit != held.commit:
        return "the manifest gives another commit"
    return None


def lock_text(lock: Lock) -> str:
    """The lock as a file's text: sorted by id, what is not known left out, the same lock always the same text.

    Raises:
        ManifestError: when the lock holds what no lock may, such as an address with a key in it.
    """
    told = {
        "version": VERSION,
        "models": {name: _told(locked) for name, locked in sorted(lock.models.items())},
        "custom_nodes": {name: _told_pack(pack) for name, pack in sorted(lock.packs.items())},
    }
    text = as_json(told, indent=2) + "\n"
    parse_lock(text, name="the lock")
    return text


def _told(locked: Locked) -> dict[str, Any]:
    told = {
        "path": str(locked.path),
        "declared": dict(locked.declared),
        "source": dict(locked.source),
        "size": locked.size,
        "sha256": locked.sha256,
        "format": locked.format,
        "license": locked.license,
        "gated": locked.gated or None,
    }
    return {name: value for name, value in told.items() if value is not None}


def _told_pack(pack: LockedPack) -> dict[str, Any]:
    asked = {} if pack.requirements is None else {"requirements": list(pack.requirements)}
    return {"repo": pack.repo, "commit": pack.commit, **asked}


class _LockedModel(Strict):
    path: CachePath
    declared: AnySource
    source: AnySource
    size: Positive | None = None
    sha256: Sha256 | None = None
    format: Text | None = None
    license: Text | None = None
    gated: bool = False


class _LockedPack(Strict):
    repo: RepositoryUrl
    commit: Commit
    requirements: list[Text] | None = None


class _File(Strict):
    version: Literal[1]
    models: dict[Id, _LockedModel]
    custom_nodes: dict[Id, _LockedPack]


def parse_lock(text: str, *, name: str) -> Lock:
    """Reads a lock. `name` is what problems call it, usually the file's name.

    Raises:
        ManifestError: with every problem found, each with its line.
    """
    document = read_document(text, begins='{"version": 1')
    found, parsed = document.found, None
    if document.data is not None:
        try:
            parsed = _File.model_validate(document.data)
        except ValidationError as failure:
            found += _SHAPE.refused(failure, document.data)
    if found or parsed is None:
        raise ManifestError(document.placed(found, name))
    return Lock(
        {each: _as_locked(model) for each, model in parsed.models.items()},
        {each: _as_locked_pack(pack) for each, pack in parsed.custom_nodes.items()},
    )


def _as_locked_pack(pack: _LockedPack) -> LockedPack:
    return LockedPack(pack.repo, pack.commit, None if pack.requirements is None else tuple(pack.requirements))


def _as_locked(model: _LockedModel) -> Locked:
    fields = {name: getattr(model, name) for name in type(model).model_fields}
    return Locked(
        **fields
        | {
            "path": PurePosixPath(model.path),
            "declared": as_source(model.declared),
            "source": as_source(model.source),
        }
    )


_SHAPE: Final = shape_of("the lock", _File, _LockedModel, _LockedPack)
