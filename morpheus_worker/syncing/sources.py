"""From where a file is had: each source is asked in its turn, and what every one of them said is kept."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Final, TypeVar

from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.planning import combined, refusal
from morpheus_worker.sync.refs import shown_source
from morpheus_worker.sync.terms import Resolved, Source, Stop, SyncCode, SyncError, stopped
from morpheus_worker.syncing.telling import Teller
from morpheus_worker.syncing.work import Work

Got = TypeVar("Got")

FINAL: Final = frozenset(
    {SyncCode.INTERRUPTED, SyncCode.NO_SPACE, SyncCode.VOLUME, SyncCode.CONFLICT, SyncCode.STORE, SyncCode.INTERNAL}
)
"""What another source would not help against."""

MOST_RESOLVES: Final = 5
"""Of one source within one try: an address that expires again and again is given up."""


AskMirror = Callable[[Source, Callable[[], Source | None]], Source | None]
"""Asks the mirror the question, or raises SyncError without asking."""


def ask_at_once(_: Source, question: Callable[[], Source | None]) -> Source | None:
    return question()


def from_any(
    work: Work,
    wanted: Wanted,
    attempt: Callable[[Source], Got],
    tell: Teller,
    stop: Stop,
    ask_mirror: AskMirror = ask_at_once,
) -> Got:
    """What the first source gives with which `attempt` succeeds.

    Raises:
        SyncError: that names every source and what it said; or at once what no other source would help against.
    """
    problem = refusal(wanted)
    if problem is not None:
        raise problem
    refusals = Refusals(tell)
    return in_turn([*mirrored(work, wanted, refusals, ask_mirror), *wanted.sources], attempt, refusals, stop)


def in_turn(sources: Sequence[Source], attempt: Callable[[Source], Got], refusals: Refusals, stop: Stop) -> Got:
    """What `attempt` makes of the first of these sources with which it succeeds.

    Raises:
        SyncError: as `from_any`.
    """
    for source in sources:
        refusals.next(source)
        try:
            return attempt(source)
        except SyncError as failure:
            if failure.code in FINAL:
                raise
            if stop.is_set():
                raise stopped() from None
            refusals.add(source, failure)
    raise combined(refusals.said)


def resolved_often(
    work: Work, wanted: Wanted, source: Source, tell: Teller, stop: Stop, use: Callable[[Resolved], Got]
) -> Got:
    """What `use` makes of the resolved source, which is resolved anew while its address expires under way, and once
    where what this machine has cached of it is not what is wanted."""
    for _ in range(MOST_RESOLVES - 1):
        resolved = work.hosts.resolve(source, auth_env=wanted.entry.auth_env, stop=stop)
        try:
            return use(resolved)
        except SyncError as failure:
            if failure.expired:
                then = "asks for a new address"
            elif failure.code not in FINAL and work.hosts.pass_over_cache(resolved):
                then = "asks the host, not what is cached here"
            else:
                raise
            tell.say("retrying", f"{failure.what}: {then}", code=str(failure.code))
    return use(work.hosts.resolve(source, auth_env=wanted.entry.auth_env, stop=stop))


@dataclass(slots=True)
class Refusals:
    """What the sources said that were tried, in their order."""

    tell: Teller
    said: list[tuple[str, SyncError]] = field(default_factory=list)

    def add(self, source: Source, failure: SyncError) -> None:
        self.said.append((shown_source(source), failure))

    def next(self, source: Source) -> None:
        """Tells why it goes on to another source."""
        if self.said:
            shown, failure = self.said[-1]
            self.tell.say("next_source", f"{shown}: {failure.what}", code=str(failure.code), next=shown_source(source))


def mirrored(work: Work, wanted: Wanted, refusals: Refusals, ask: AskMirror) -> list[Source]:
    """The mirror's copy, where there is a mirror that has one. One that fails is a source less, no more."""
    prefix = work.settings.models_mirror
    if prefix is None:
        return []
    mirror = {"kind": "s3", "uri": prefix}
    try:
        copy = ask(mirror, lambda: work.buckets.mirror(prefix, wanted.entry.path))
    except SyncError as failure:
        refusals.add(mirror, failure)
        return []
    return [copy] if copy is not None else []
