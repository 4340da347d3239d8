"""What a request means: which file it wants and where that shall be; whether it still is there; asking for it."""

from __future__ import annotations

import contextlib
import json
import logging
import os
from collections.abc import Iterable, Mapping
from dataclasses import replace
from pathlib import Path, PurePosixPath
from typing import Any, Final

from morpheus_worker.errors import did_you_mean
from morpheus_worker.linking import PACK_MARK
from morpheus_worker.manifest import ModelEntry
from morpheus_worker.sources import cache_path, carries_credential, in_the_clear, read_source
from morpheus_worker.sync.cache import on_volume
from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.naming import blob_name, extension_of, volume_name
from morpheus_worker.sync.planning import decided
from morpheus_worker.sync.refs import PackRef, parse_ref
from morpheus_worker.sync.requests import Request, State
from morpheus_worker.sync.store import RequestStore
from morpheus_worker.sync.terms import Resolved, Source, Stop, SyncCode, SyncError
from morpheus_worker.syncing.describing import folder_of
from morpheus_worker.syncing.foreseeing import BUCKETS, destined
from morpheus_worker.syncing.outcomes import Outcome
from morpheus_worker.syncing.sending import looked_at
from morpheus_worker.syncing.work import Work

log = logging.getLogger(__name__)

PROGRAMS: Final = frozenset({".py", ".pyc", ".pyd", ".so"})
"""Endings of what Python imports: a folder with such a file in it can be a node pack."""

PLACE_HINT: Final = (
    "give the path ('path' of the request, --path): a model folder and a name, such as loras/name.safetensors; "
    "or a destination, a bucket that keeps it under models/"
)


def request(work: Work, store: RequestStore, wish: Request, *, force: bool = False) -> Request:
    """Asks for what `wish` says. What is synced is asked for again only where its file is gone, or with `force`.

    Raises:
        SyncError: `invalid`, when it makes no sense: an unknown id, a source that nobody can fetch, a path out of the
            cache.
        IllegalMoveError: an app gave it a state of its own.
        StoreError: the store cannot be reached.
    """
    before = store.get(wish.id)
    _checked(work, wish if before is None or wish.source is not None else replace(wish, source=before.source))
    synced = before is not None and before.state == State.SYNCED
    return store.ask(wish, again=force or (before is not None and synced and is_gone(work, before)))


def noted_as_gone(work: Work, store: RequestStore, row: Request) -> bool:
    """Makes a synced request `notsynced` where its file is gone; whether it was. The volume or the bucket
    is the truth; where it does not answer, nothing changes.

    Raises:
        StoreError: the store cannot be reached.
    """
    if row.state != State.SYNCED or not is_gone(work, row) or not store.missed(row):
        return False
    log.warning("'%s' is not where it was synced to any more: %s", row.id, row.uri)
    return True


def wanted_of(work: Work, row: Request, *, destination: str | None = None, stop: Stop | None = None) -> Wanted:
    """The file that a request is for, in one version, and its place: the request's path, the manifest's, or, in a
    bucket (`destination`, where the request names none), `models/<name>/<version><extension>`; on the volume
    `<folder>/<name>-<version><extension>`, in the folder that is for what its host calls such a model.

    Raises:
        SyncError: `invalid`, when it makes no sense, or nothing tells the folder; as its host refuses; `interrupted`
            when `stop` is set.
    """
    source = _checked(work, row)
    if source is None:
        known = work.wanted(_entry(work, row.id))
        return known if row.path is None else replace(known, entry=replace(known.entry, path=PurePosixPath(row.path)))
    resolved = work.hosts.resolve(source, stop=stop)
    if row.path is not None:
        path = row.path
    elif destined(row.destination or destination) is not None:
        path = _path(blob_name(row.name or row.id, source, resolved))
    else:
        path = _path(_on_volume(row, source, resolved))
    entry = ModelEntry(row.id, PurePosixPath(path), sources=(source,))
    return Wanted(entry, (resolved.source,), resolved.size, resolved.sha256, resolved.format, resolved.gated)


def _on_volume(row: Request, source: Source, resolved: Resolved) -> str:
    """A place where ComfyUI looks for such a model.

    Raises:
        SyncError: `invalid`, when nothing tells which, or how the file's name ends.
    """
    folder = folder_of(source, resolved)
    if folder is None:
        raise _invalid("nothing tells which model folder it belongs in", PLACE_HINT)
    if not extension_of(source, resolved):
        raise _invalid("nothing tells how its name ends, and ComfyUI lists models by that", PLACE_HINT)
    return volume_name(folder, row.name, source, resolved)


def check_place(
    work: Work, rows: Iterable[Request], row: Request, wanted: Wanted, *, destination: str | None = None
) -> None:
    """That its place has no other file that another of these requests was synced to, and that it would replace.

    Raises:
        SyncError: `conflict`; as the volume or the bucket refuses.
    """
    prefix, path = destined(destination), wanted.entry.path
    uri = work.uri(path) if prefix is None else work.buckets.at(prefix, path)
    others = [each for each in rows if (each.state, each.uri) == (State.SYNCED, uri) and each.id != row.id]
    if not others:
        return
    if prefix is None:
        seen = work.seen(path)
        action = decided(wanted, seen)
    else:
        action, seen = looked_at(work, wanted, prefix, path, replace=False)
    # Two files of one size are told by their hash alone, or by where they come from.
    source = seen.receipt.source if seen.receipt is not None and wanted.sha256 is None else {}
    if action.what == "replace" or (source and source not in wanted.sources):
        said = f"{uri} is the place of the request '{others[0].id}'"
        raise SyncError(SyncCode.CONFLICT, said, "name another path")


def noted_as_asked_for(work: Work, outcome: Outcome, destination: str | None) -> None:
    """Writes into the receipt of a file that a request asked for it, so that no `prune` takes it for left over.

    Raises:
        SyncError: as the volume or the bucket refuses.
    """
    receipt = outcome.receipt
    if receipt is None or receipt.requested:
        return
    prefix, noted = destined(destination), replace(receipt, requested=True)
    if prefix is None:
        work.receipts.write(noted)
        work.settle()
    else:
        work.buckets.put_receipt(prefix, noted)


def is_gone(work: Work, row: Request) -> bool:
    """Whether the file of a synced request is certainly not where it was put, or of another size. False where there is
    no telling: a folder of another machine, a bucket or a volume that does not answer."""
    try:
        size = _size_at(work, row.uri or "")
    except (SyncError, ValueError) as failure:  # ValueError: what an app wrote is no path.
        log.info("Whether '%s' still is at %s cannot be told: %s", row.id, row.uri, failure)
        return False
    return size is None or size not in (UNKNOWN, row.bytes_total or size)


UNKNOWN: Final = -1


def _size_at(work: Work, uri: str) -> int | None:
    """The size of what is there, in bytes; None where nothing is, `UNKNOWN` where there is no telling."""
    if uri.startswith(BUCKETS):
        return work.buckets.has(uri)
    if not Path(uri).is_relative_to(os.path.realpath(work.cache.root)):
        return UNKNOWN
    # Without its volume every file looks gone.
    work.cache.ensure_there()
    with on_volume(f"looking at '{uri}'"):
        try:
            return os.stat(uri).st_size
        except (FileNotFoundError, NotADirectoryError):
            return None


def _checked(work: Work, row: Request) -> Source | None:
    """The source that is asked for, or None for an entry of the manifest."""
    if row.path is not None:
        _check_no_program(work, PurePosixPath(_path(row.path)))
    if row.destination is not None and carries_credential(row.destination):
        raise _invalid("its destination carries a credential", "keep it in a variable of the worker's environment")
    destined(row.destination)
    if row.source is None or not row.source.strip():
        _entry(work, row.id)
        return None
    source = _read(row.source.strip())
    if source["kind"] == "file":
        # Whoever may write requests would otherwise read this machine's files through them.
        raise _invalid("a request may not name a file of the worker's machine", "put it into the manifest")
    if source["kind"] == "https" and in_the_clear(source["url"]):
        raise _invalid("http:// can be read and changed on its way", "give an https:// address")
    return source


def _read(text: str) -> Source:
    """A source as an app wrote it: JSON, or a reference."""
    if not text.startswith(("{", '"')):
        return _one_file(parse_ref(text))
    said = _json(text)
    if isinstance(said, str):
        return _one_file(parse_ref(said))
    if not isinstance(said, Mapping):
        raise _invalid("its source must be keys with values", None)
    try:
        return read_source(said)
    except ValueError as failure:
        raise _invalid(f"its source {failure}", None) from None


def _json(text: str) -> Any:
    with contextlib.suppress(ValueError, RecursionError):
        return json.loads(text)
    # Not while the parser's error is handled: that one has the whole text with it, and so would this.
    raise _invalid("its source is not JSON", "write a source of the manifest as JSON, or a reference")


def _one_file(found: Source | PackRef) -> Source:
    if isinstance(found, PackRef):
        raise _invalid("is a node pack", "node packs come with 'morpheus models sync'")
    return found


def _path(text: str) -> str:
    try:
        return cache_path(text)
    except ValueError as failure:
        raise _invalid(f"its path {failure}", None) from None


def _check_no_program(work: Work, path: PurePosixPath) -> None:
    """That ComfyUI will not run it: whoever may write requests would otherwise run code through them.

    Raises:
        SyncError: `invalid`.
    """
    if path.suffix.lower() in PROGRAMS:
        raise _invalid(f"its path ends in {path.suffix}, and ComfyUI may run that", "node packs come with the manifest")
    folder = path.parts[0]
    packs = {pack.id.casefold() for pack in work.manifest.custom_nodes}
    with on_volume(f"looking at '{folder}'"):
        is_pack = folder.casefold() in packs or (work.cache.root / folder / PACK_MARK).exists()
    if is_pack:
        raise _invalid(f"its path leads into the node pack {folder}", "name a model folder, such as loras/")


def _entry(work: Work, name: str) -> ModelEntry:
    known = {entry.id: entry for entry in work.manifest.models}
    if name not in known:
        raise _invalid(f"no model of the manifest is called '{name}'", did_you_mean(name, known))
    return known[name]


def _invalid(what: str, hint: str | None) -> SyncError:
    return SyncError(SyncCode.INVALID, what, hint)
