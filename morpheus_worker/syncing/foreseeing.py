"""What a sync would do, without doing it."""

from __future__ import annotations

import errno
import os
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace as changed
from typing import Final

from morpheus_worker.sync.cache import on_volume, space_of
from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.planning import Action, Plan, decided, expected, in_order
from morpheus_worker.sync.terms import Resolved, Source, Stop, SyncCode, SyncError
from morpheus_worker.syncing.keys import lacking_key
from morpheus_worker.syncing.outcomes import Selection
from morpheus_worker.syncing.packing import pack_action
from morpheus_worker.syncing.sending import looked_at
from morpheus_worker.syncing.sources import from_any, resolved_often
from morpheus_worker.syncing.telling import Teller, unheard
from morpheus_worker.syncing.work import Work

BUCKETS: Final = ("s3://", "gs://")
"""How the address of a bucket begins."""
LOOKS_AT_ONCE: Final = 8


def plan(
    work: Work, selection: Selection, *, destination: str | None = None, replace: bool = False, stop: Stop | None = None
) -> Plan:
    """What `sync` would do, in its order, with bytes and free space, and what it would refuse.

    Hosts are asked only about what has to be fetched and whose size nobody knows: what is locked needs no network. What
    is there without a receipt is not looked into: whether it is right shows when a sync does.

    Raises:
        SyncError: `invalid` for a destination that is none, and for a node pack that was named for a bucket; `volume`
            when the cache is not there; `interrupted`.
    """
    prefix = destined(destination)
    without = left_out(selection, prefix)
    if prefix is None:
        work.cache.ensure_there()
    unwritable = refused_by_volume(work) if prefix is None else None
    wanted = in_order(work.wanted(entry) for entry in selection.models)
    stop = stop or Stop()
    with ThreadPoolExecutor(LOOKS_AT_ONCE, thread_name_prefix="plan") as looking:
        actions = list(looking.map(lambda each: _planned(work, each, prefix, replace, unwritable, stop), wanted))
    if stop.is_set():
        raise SyncError(SyncCode.INTERRUPTED, "was interrupted")
    if prefix is not None:
        return Plan(tuple(actions), prefix, left_out=without)
    packs = [_possible(pack_action(work, pack, replace=replace), unwritable) for pack in selection.packs]
    return Plan((*actions, *packs), str(work.cache.root), space_of(work.cache).left)


def destined(destination: str | None) -> str | None:
    """A destination as its prefix without a slash at the end; None for the volume.

    Raises:
        SyncError: `invalid`.
    """
    if destination is None:
        return None
    prefix = destination.rstrip("/")
    if not prefix.startswith(BUCKETS) or not prefix.partition("://")[2]:
        said = f"'{destination}' is no place to sync to"
        raise SyncError(SyncCode.INVALID, said, "s3://bucket/prefix or gs://bucket/prefix; without it, the volume")
    return prefix


def left_out(selection: Selection, prefix: str | None) -> tuple[str, ...]:
    """The node packs of the selection that a bucket does not get; none on the volume, `prefix` None.

    Raises:
        SyncError: `invalid`, when one of them was asked for by its id.
    """
    if prefix is None:
        return ()
    packs = tuple(pack.id for pack in selection.packs)
    named = [pack for pack in packs if pack in selection.named]
    if named:
        which = ", ".join(f"'{each}'" for each in named)
        said = f"{which} {'is a node pack' if len(named) == 1 else 'are node packs'}, and {prefix} gets models alone"
        raise SyncError(SyncCode.INVALID, said, "leave --to out: node packs are for the volume")
    return packs


def refused_by_volume(work: Work) -> SyncError | None:
    """Why nothing can be written to the cache, as far as that shows without writing; None where nothing does."""
    places = (work.cache.work, work.cache.root, work.cache.beneath)
    place = next((each for each in places if each.is_dir()), places[-1])
    try:
        with on_volume(f"writing to {place}"):
            if os.statvfs(place).f_flag & os.ST_RDONLY:
                raise OSError(errno.EROFS, os.strerror(errno.EROFS))
            if not os.access(place, os.W_OK | os.X_OK):
                raise OSError(errno.EACCES, os.strerror(errno.EACCES))
    except SyncError as failure:
        return failure
    return None


def first_look(work: Work, wanted: Wanted, *, replace: bool) -> Action:
    """What is to be done about a model on the volume, by one stat. What cannot be looked at is refused."""
    try:
        return decided(wanted, work.seen(wanted.entry.path), replace=replace)
    except SyncError as failure:
        return _refused(wanted, failure)


def _planned(
    work: Work, wanted: Wanted, prefix: str | None, replace: bool, unwritable: SyncError | None, stop: Stop
) -> Action:
    """The same with all that a sync would meet and that shows before it, and with the bytes to fetch, asked of the host
    where they are not known."""
    try:
        if prefix is None:
            action = _possible(first_look(work, wanted, replace=replace), unwritable)
            # A path that leads out of the cache.
            work.uri(wanted.entry.path)
        else:
            action, _ = looked_at(work, wanted, prefix, wanted.entry.path, replace=replace)
        if action.fetches and (problem := lacking_key(work, wanted)) is not None:
            return _refused(wanted, problem)
        if not action.fetches or action.bytes is not None or stop.is_set():
            return action
        return changed(action, bytes=_asked_size(work, wanted, stop))
    except SyncError as failure:
        return _refused(wanted, failure)


def _possible(action: Action, unwritable: SyncError | None) -> Action:
    """The same, refused where it takes a volume that can be written to. What is only looked at does not."""
    if unwritable is None or not (action.fetches or action.what == "hash"):
        return action
    return changed(action, what="refuse", why=unwritable.what, bytes=0, problem=unwritable)


def _asked_size(work: Work, wanted: Wanted, stop: Stop) -> int | None:
    tell = Teller(unheard, wanted.entry.id, wanted.entry.path)

    def size_of(resolved: Resolved) -> int | None:
        return expected(wanted, resolved).size

    def attempt(source: Source) -> int | None:
        return resolved_often(work, wanted, source, tell, stop, size_of)

    return from_any(work, wanted, attempt, tell, stop)


def _refused(wanted: Wanted, failure: SyncError) -> Action:
    return Action(wanted.entry.id, wanted.entry.path, "refuse", failure.what, problem=failure)
