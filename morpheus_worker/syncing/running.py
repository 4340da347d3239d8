"""A whole sync: everything that was asked for, several entries at once, each with its own end."""

from __future__ import annotations

import logging
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Final

from morpheus_worker.manifest import PackEntry
from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.planning import Action, decided, in_order
from morpheus_worker.sync.terms import Event, OnEvent, Stop, SyncCode, SyncError, stopped
from morpheus_worker.syncing.foreseeing import destined, first_look, left_out
from morpheus_worker.syncing.obtaining import Manner, obtain, settled
from morpheus_worker.syncing.outcomes import Outcome, Selection, Summary
from morpheus_worker.syncing.packing import obtain_pack, pack_path
from morpheus_worker.syncing.sending import Sending
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.turns import HeldElsewhereError, PutOff, Turn, work_through
from morpheus_worker.syncing.work import Work

logger = logging.getLogger(__name__)

PACK_THREADS: Final = 1
"""Node packs come one after another, alongside the models: Git's hosts are others."""

Go = Callable[[Teller, PutOff], Outcome]
"""One entry's work."""


def sync(
    work: Work,
    selection: Selection,
    *,
    destination: str | None = None,
    replace: bool = False,
    hashing: bool = True,
    on_event: OnEvent,
    stop: Stop,
) -> Summary:
    """Sees to it that everything selected is on the volume, or in the bucket `destination` (`s3://bucket/prefix`).

    What one entry meets ends that entry alone: its error stands in the summary and the others go on. Node packs are for
    the volume only: the summary says which a bucket did not get. Once `stop` is set all ends within about a second, and
    the next run goes on from there.

    `replace`: a file that somebody put at an entry's place, and that is not the wanted one, makes room. Without
    `hashing` a file is not hashed where no hash is known to hold it to: its receipt then has none.

    Raises:
        SyncError: `invalid` for a destination that is none, and for a node pack that was named for a bucket; `volume`
            when the cache is not there.
    """
    began = time.monotonic()
    run = _Run(work, Manner(replace, hashing), destined(destination), on_event, stop)
    without = left_out(selection, run.prefix)
    if run.prefix is None:
        work.cache.ensure_there()
    run.all(in_order(work.wanted(entry) for entry in selection.models), () if without else selection.packs)
    outcomes = {each: run.outcomes[each] for each in selection.ids if each in run.outcomes}
    interrupted = stop.is_set() and not all(outcome.ok for outcome in outcomes.values())
    summary = Summary(outcomes, interrupted, time.monotonic() - began, without)
    on_event(Event("finished", bytes_done=summary.received, details={"ok": summary.ok, "interrupted": interrupted}))
    return summary


def sync_one(
    work: Work,
    wanted: Wanted,
    *,
    destination: str | None = None,
    on_event: OnEvent,
    stop: Stop,
    key: str | None = None,
) -> Outcome:
    """One file, on the volume or under `destination` (there as the object `key`, by default its path in the cache).

    Raises:
        SyncError: when it cannot be had, whatever the reason.
    """
    prefix = destined(destination)
    _check_place(work, wanted)
    tell = Teller(on_event, wanted.entry.id, wanted.entry.path)
    if prefix is not None:
        path = PurePosixPath(key) if key is not None else wanted.entry.path
        return Sending(work, wanted, Manner(), prefix, path, tell, stop).run()
    action = decided(wanted, work.seen(wanted.entry.path))
    if not action.is_work:
        return settled(work, action, tell)
    try:
        return obtain(work, wanted, Manner(), tell, stop, _never)
    finally:
        work.settle()


def _check_place(work: Work, wanted: Wanted) -> None:
    """
    Raises:
        SyncError: `conflict`, when the place is that of another file of the manifest: one of the two would be replaced
            by the other in every run.
    """
    path, entry = wanted.entry.path, wanted.entry
    for named in work.manifest.models:
        if path not in (named.path, *named.also) or all(source in named.sources for source in entry.sources):
            continue
        if wanted.sha256 is None or wanted.sha256 != work.wanted(named).sha256:
            said = f"{path} is the place of the manifest's '{named.id}'"
            raise SyncError(SyncCode.CONFLICT, said, "name another path")


def _never() -> None:
    """Whoever asks for one file alone waits for it."""


@dataclass(slots=True)
class _Run:
    """`outcomes` has an entry's end, or that it was interrupted until its turn has come."""

    work: Work
    manner: Manner
    prefix: str | None
    on_event: OnEvent
    stop: Stop
    outcomes: dict[str, Outcome] = field(default_factory=dict)
    _cramped: list[str] | None = None
    """Entries that found no room while others reserved theirs; None when no others are at work."""

    def all(self, wanted: Sequence[Wanted], packs: Sequence[PackEntry]) -> None:
        looked = [(each, self._looked_at(each)) for each in wanted]
        self._announce([action for _, action in looked], len(packs))
        turns = [turn for each, action in looked if (turn := self._begun(action, self._model(each))) is not None]
        folders = [self._turn(pack.id, pack_path(pack), self._pack(pack)) for pack in packs]
        all_turns = [*turns, *folders]
        self._cramped = [] if len(all_turns) > 1 else None
        try:
            work_through(
                [(turns, self.work.settings.sync_files), (folders, PACK_THREADS)], self.stop, self.work.interrupt
            )
            # What found no room beside the others may find it now, or fail for good.
            cramped, self._cramped = self._cramped or (), None
            work_through([([turn for turn in all_turns if turn.id in cramped], 1)], self.stop, self.work.interrupt)
        finally:
            if self.prefix is None:
                self.work.settle()

    def _looked_at(self, wanted: Wanted) -> Action:
        """What is to be done, as far as a look at the volume tells; a bucket is asked when the entry's turn comes."""
        if self.prefix is not None:
            return Action(wanted.entry.id, wanted.entry.path, "get", bytes=wanted.size)
        return first_look(self.work, wanted, replace=self.manner.replace)

    def _announce(self, actions: Sequence[Action], packs: int) -> None:
        total = sum(action.bytes or 0 for action in actions if action.fetches)
        unknown = sum(action.fetches and action.bytes is None for action in actions)
        details = {"entries": len(actions) + packs, "unknown": unknown}
        self.on_event(Event("planned", bytes_total=total, details=details))

    def _begun(self, action: Action, go: Go) -> Turn | None:
        """Ends what needs no work at once; a turn for what does."""
        if action.is_work:
            return self._turn(action.id, action.path, go)
        tell = Teller(self.on_event, action.id, action.path)
        self.outcomes[action.id] = _ended(tell, lambda: settled(self.work, action, tell))
        return None

    def _turn(self, entry_id: str, path: PurePosixPath, go: Go) -> Turn:
        tell = Teller(self.on_event, entry_id, path)
        self.outcomes[entry_id] = Outcome(entry_id, "", None, "failed", stopped())

        def run(put_off: PutOff) -> None:
            self.outcomes[entry_id] = _ended(tell, lambda: self._roomy(tell, lambda: go(tell, put_off)))

        return Turn(entry_id, run)

    def _roomy(self, tell: Teller, go: Callable[[], Outcome]) -> Outcome:
        """The entry's end; for want of room only once the others have ended, which may have reserved what they never
        took."""
        try:
            return go()
        except SyncError as failure:
            if failure.code is not SyncCode.NO_SPACE or self._cramped is None:
                raise
            self._cramped.append(tell.id)
            tell.say("waiting", f"{failure.what}: is tried again when the others are done", code=str(failure.code))
            return Outcome(tell.id, "", None, "failed", failure)

    def _model(self, wanted: Wanted) -> Go:
        prefix = self.prefix
        if prefix is None:
            return lambda tell, put_off: obtain(self.work, wanted, self.manner, tell, self.stop, put_off)
        path = wanted.entry.path
        return lambda tell, _: Sending(self.work, wanted, self.manner, prefix, path, tell, self.stop).run()

    def _pack(self, pack: PackEntry) -> Go:
        return lambda tell, put_off: obtain_pack(self.work, pack, self.manner, tell, self.stop, put_off)


def _ended(tell: Teller, go: Callable[[], Outcome]) -> Outcome:
    """The entry's end, whatever happens on the way.

    Raises:
        HeldElsewhereError: it is not its turn yet.
    """
    try:
        return go()
    except HeldElsewhereError:
        raise
    except SyncError as failure:
        error = failure
    except Exception:
        # Whatever is wrong with one entry, the others are not to suffer for it.
        logger.exception("%s failed in a way that nobody foresaw", tell.id)
        error = SyncError(SyncCode.INTERNAL, "failed in a way that nobody foresaw", "the log says more")
    tell.failed(error)
    return Outcome(tell.id, "", None, "failed", error)
