"""What the sources say of a file that lies there and of which nobody else knows anything: a small look, no bytes."""

from __future__ import annotations

import threading
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Final, TypeVar
from urllib.parse import urlsplit

from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.planning import agreed
from morpheus_worker.sync.terms import Resolved, Source, Stop, SyncCode, SyncError
from morpheus_worker.syncing.sources import FINAL, Refusals, in_turn, mirrored
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.work import Work

Answer = TypeVar("Answer")

MOST_SILENT: Final = 3
"""After so many files in a row of which a host says nothing, it is asked about no other one in the same run."""


@dataclass(slots=True)
class Silence:
    """The hosts that cannot be reached, so that hundreds of files are not each waited for. For several threads."""

    _failures: dict[str, int] = field(default_factory=dict)
    _guard: threading.Lock = field(default_factory=threading.Lock)

    def ask(self, source: Source, question: Callable[[], Answer]) -> Answer:
        """What the source's host answers.

        Raises:
            SyncError: as `question`; `unreachable` without asking, where the host was silent too often.
        """
        host = _host_of(source)
        with self._guard:
            if self._failures.get(host, 0) >= MOST_SILENT:
                raise SyncError(SyncCode.UNREACHABLE, f"{host} did not answer before")
        try:
            answer = question()
        except SyncError as failure:
            self._note(host, answered=failure.code is not SyncCode.UNREACHABLE)
            raise
        self._note(host, answered=True)
        return answer

    def _note(self, host: str, *, answered: bool) -> None:
        with self._guard:
            self._failures[host] = 0 if answered else self._failures.get(host, 0) + 1


def asked(work: Work, wanted: Wanted, silence: Silence, tell: Teller, stop: Stop) -> Resolved:
    """What the first source says that knows a size or a hash of this file.

    Raises:
        SyncError: none does: each is named, with what it said; `interrupted`.
    """

    def attempt(source: Source) -> Resolved:
        try:
            resolved = silence.ask(
                source, lambda: work.hosts.resolve(source, auth_env=wanted.entry.auth_env, stop=stop)
            )
        except SyncError as failure:
            raise _passed_over(failure) from None
        size, sha256 = agreed(wanted, resolved)
        if resolved.size is None and sha256 is None:
            raise SyncError(SyncCode.NOT_FOUND, "says neither its size nor its hash")
        return replace(resolved, size=size)

    if not wanted.sources:
        raise SyncError(SyncCode.INVALID, "it has no source to be compared with")
    # It is there already, whatever it is: nothing is fetched here that could run code, so nothing is refused.
    refusals = Refusals(tell)
    return in_turn([*mirrored(work, wanted, refusals, silence.ask), *wanted.sources], attempt, refusals, stop)


def _passed_over(failure: SyncError) -> SyncError:
    """Whatever is wrong with one source, the next is asked; only a stop ends it."""
    if failure.code is SyncCode.INTERRUPTED or failure.code not in FINAL:
        return failure
    return SyncError(SyncCode.UNREACHABLE, failure.what, failure.hint)


def _host_of(source: Source) -> str:
    address = source.get("url") or source.get("uri")
    return urlsplit(str(address)).netloc.rpartition("@")[2] if address else str(source["kind"])
