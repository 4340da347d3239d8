"""Who is at work on which file, so that several syncs on one volume do the work once.

A lease is a small file that one of several makes first and rewrites every few seconds. Clocks of other machines are
not trusted, nor file locks: whoever waits takes a lease over once it has not changed for a number of its own beats.

Correctness never depends on it. For a moment two may hold the same lease, when one slept that long and wakes up: each
writes to a part of its own, and publishing is one rename of a verified file. The one that lost finds out at its next
beat (`Lease.lost`), or when it publishes, from the conflict.
"""

from __future__ import annotations

import contextlib
import json
import logging
import os
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Final

from morpheus_worker.sync.cache.owners import Owner, provably_dead
from morpheus_worker.sync.cache.parts import Prior, prior_of, set_free
from morpheus_worker.sync.cache.places import LEASES, PARTS, Cache
from morpheus_worker.sync.cache.writing import create_whole, on_volume, write_whole
from morpheus_worker.sync.terms import Stop, stopped

logger = logging.getLogger(__name__)

ENDING: Final = ".json"
TAKEN: Final = ".taken"

LONGEST_RELEASE_S: Final = 5.0

SHORT_S: Final = 0.01
"""Before a lease that was just given back is tried again, in seconds: a network volume may take a while to notice."""


@dataclass(frozen=True, slots=True)
class Beats:
    """How often a lease is rewritten, how many beats it may miss, how often a waiter looks. Seconds, counts."""

    beat_s: float = 5.0
    missed: int = 6
    look_s: float = 1.0


BEATS: Final = Beats()


@dataclass(frozen=True, slots=True)
class Holder:
    """What a lease says. `needs_bytes` is what its part still has to grow; `started` is UTC by the holder's clock."""

    owner: str = ""
    host: str = ""
    pid: int = 0
    beat: int = 0
    part: str = ""
    needs_bytes: int = 0
    started: str = ""

    @classmethod
    def read(cls, content: bytes) -> Holder:
        """An unknown holder where the content is none of ours, or not whole yet."""
        try:
            told = json.loads(content)
            known = {name: type(default)(told[name]) for name, default in asdict(cls()).items()}
        except (ValueError, TypeError, KeyError, OverflowError, RecursionError):
            return cls()
        return cls(**known)

    def __str__(self) -> str:
        return f"process {self.pid} on {self.host}" if self.host else "somebody"


OnWait = Callable[[Holder, int], None]
"""Called with who holds the lease, and for how many beats it has not been rewritten, whenever that changes."""


class Lease:
    """The work on one file, ours until the block of `hold` ends, or `lost` is set: then somebody else has it, because
    ours was not rewritten for long. Whoever lost it stops, and asks for it anew."""

    def __init__(self, cache: Cache, key: str, needs_bytes: int, pace: Beats) -> None:
        owner = Owner.new()
        self.owner = str(owner)
        self.key = key
        self.part = cache.part_path(key, self.owner)
        self.prior: Prior | None = None
        self.lost = threading.Event()
        self.path = cache.own_folder(LEASES) / f"{key}{ENDING}"
        self._started = time.strftime("%Y-%m-%dT%H:%M:%SZ", time.gmtime())
        self._pid = owner.pid
        self._needs_bytes = max(needs_bytes, 0)
        self._beat = 0
        self._pace = pace
        self._ended = threading.Event()
        self._writing = threading.Lock()
        self._thread = threading.Thread(target=self._keep, name=f"lease {key}", daemon=True)

    def needs(self, needs_bytes: int) -> None:
        """Reserves what is still to be written, in bytes; others see it from the next beat on."""
        self._needs_bytes = max(needs_bytes, 0)

    def reserve(self, needs_bytes: int) -> None:
        """As `needs`, and others see it when this returns.

        Raises:
            SyncError: `volume`, `no_space`.
        """
        self.needs(needs_bytes)
        with on_volume("reserving space"):
            self._rewrite()

    def _content(self) -> bytes:
        told = Holder(
            self.owner, os.uname().nodename, self._pid, self._beat, self.part.name, self._needs_bytes, self._started
        )
        return json.dumps(asdict(told)).encode()

    def _create(self) -> bool:
        return create_whole(self.path, self._content()) or self._is_ours()

    def _is_ours(self) -> bool:
        found = _read(self.path)
        return found is not None and Holder.read(found).owner == self.owner

    def _acquire(self, stop: Stop, on_wait: OnWait) -> None:
        """Returns once the lease is ours."""
        watch = _Watch(self._pace, on_wait)
        while not self._create():
            if stop.is_set():
                raise stopped()
            found = _read(self.path)
            if found is not None and watch.is_over(found):
                _take(self.path, found)
            elif stop.wait(self._pace.look_s if found is not None else SHORT_S):
                raise stopped()

    def _keep(self) -> None:
        """The heartbeat."""
        while not self._ended.wait(self._pace.beat_s):
            try:
                self._rewrite()
            except OSError as failure:
                # Full or gone for the moment. If it lasts, somebody will take over, and we shall see.
                logger.warning("The lease of %s cannot be rewritten: %s", self.key, failure)
            if self.lost.is_set():
                return

    def _rewrite(self) -> None:
        with self._writing:
            if self._ended.is_set() or self.lost.is_set():
                return
            self._beat += 1
            # Where it is gone, somebody may just be looking whether it still beats: then it is made again.
            if self._is_ours():
                write_whole(self.path, self._content(), durable=False)
            elif not self._create():
                logger.warning("The lease of %s was taken over", self.key)
                self.lost.set()

    def _release(self) -> None:
        """The part, where there still is one, is anybody's from now on."""
        self._ended.set()
        try:
            set_free(self.part)
            # A volume that hangs may hold a beat for ever; then the lease ages, and is taken over.
            if self._writing.acquire(timeout=LONGEST_RELEASE_S):
                try:
                    self._give_back()
                finally:
                    self._writing.release()
        except OSError as failure:
            logger.warning("The lease of %s cannot be given back: %s", self.key, failure)

    def _give_back(self) -> None:
        if not self.lost.is_set() and self._is_ours():
            _take(self.path, None, owner=self.owner)


class _Watch:
    """Counts how long a lease that somebody else holds has not changed, in looks of this process: a machine that was
    asleep as a whole has missed none."""

    def __init__(self, pace: Beats, on_wait: OnWait) -> None:
        self._pace, self._on_wait = pace, on_wait
        self._seen: bytes | None = None
        self._looks = 0
        self._told: tuple[str, int] | None = None

    def is_over(self, found: bytes) -> bool:
        """Whether the lease that was `found` may be taken over."""
        holder = Holder.read(found)
        if provably_dead(holder.owner):
            return True
        if found != self._seen:
            self._seen, self._looks = found, 0
        beats = int(self._looks * self._pace.look_s / self._pace.beat_s)
        if beats >= self._pace.missed:
            return True
        if self._told != (holder.owner, beats):
            self._told = (holder.owner, beats)
            self._on_wait(holder, beats)
        self._looks += 1
        return False


@contextlib.contextmanager
def hold(
    cache: Cache,
    key: str,
    *,
    needs_bytes: int = 0,
    stop: Stop,
    on_wait: OnWait = lambda _holder, _beats: None,
    pace: Beats = BEATS,
) -> Iterator[Lease]:
    """The lease of the file with that key, waited for while somebody else has it. `prior` is then what may be gone on
    from. Nothing may write to the lease's part any more when the block ends.

    What was true of the file before is to be looked at again within the block: somebody may have done the work.

    Raises:
        SyncError: `interrupted` when `stop` is set while waiting; `volume`, `no_space`.
    """
    parts = cache.own_folder(PARTS)
    lease = Lease(cache, key, needs_bytes, pace)
    with on_volume("taking the lease"):
        lease._acquire(stop, on_wait)
    try:
        with on_volume("looking for earlier tries"):
            lease.prior = prior_of(parts, key, lease.owner)
        lease._thread.start()
        yield lease
    finally:
        lease._release()


def _take(path: Path, seen: bytes | None, *, owner: str = "") -> bool:
    """Takes a lease away if it is the one that was seen, or `owner`'s. One that changed in between is put back; should
    somebody have made another meanwhile, its holder finds out."""
    grave = path.with_name(f".{path.name}.{uuid.uuid4().hex}{TAKEN}")
    try:
        os.rename(path, grave)
    except FileNotFoundError:
        return False
    try:
        found = grave.read_bytes()
        if found == seen or (owner and Holder.read(found).owner == owner):
            return True
        create_whole(path, found)
        return False
    finally:
        grave.unlink(missing_ok=True)


def _read(path: Path) -> bytes | None:
    try:
        return path.read_bytes()
    except FileNotFoundError:
        return None
