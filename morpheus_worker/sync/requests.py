"""What apps ask to have synced: one request, the states it can be in, and every way from one to another.

Pure: a row and the store's own time go in, the row as it shall be comes out. Whoever writes it compares and sets.

`lease_until` says one thing in every state: nobody may claim the request before then. A worker that holds it renews it;
one that waits for another try has it without an owner. A request without it was asked for and begun by nobody yet, so
an app asks by writing `queued` or `syncing` and no more.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from enum import StrEnum
from typing import Any, Final

from morpheus_worker.sync.terms import SyncCode, SyncError

DEFAULT_ATTEMPTS: Final = 5
RETRY_S: Final = 15.0
"""Until the second attempt, in seconds; each further wait is twice as long."""
LONGEST_RETRY_S: Final = 900.0
"""Between two attempts, in seconds, unless a host asks for more."""
LONGEST_SENTENCE: Final = 1000
"""Characters of an error that a row keeps."""

MAY_PASS: Final = frozenset(
    {SyncCode.UNREACHABLE, SyncCode.STORE, SyncCode.VOLUME, SyncCode.NO_SPACE, SyncCode.INTERRUPTED}
)
"""Codes for which the same request may succeed later, whatever the failure itself says of the next moment."""


class State(StrEnum):
    """How far a request is. The set is closed; what an app writes beside it is left alone."""

    NOTSYNCED = "notsynced"
    """Nobody asks for it. An app that writes this cancels."""
    QUEUED = "queued"
    SYNCING = "syncing"
    """A worker has it, for as long as its lease runs; without a lease it is asked for, as by `queued`."""
    SYNCED = "synced"
    ERROR = "error"


class Act(StrEnum):
    """What happens to a request."""

    ASK = "ask"
    ASK_AGAIN = "ask again"
    CLAIM = "claim"
    EXHAUST = "exhaust"
    RENEW = "renew"
    SUCCEED = "succeed"
    RETRY = "retry"
    REFUSE = "refuse"
    GIVE_BACK = "give back"
    MISS = "miss"


MOVES: Final[Mapping[tuple[Act, State], State]] = {
    (Act.ASK, State.NOTSYNCED): State.QUEUED,
    (Act.ASK, State.ERROR): State.QUEUED,
    (Act.ASK, State.QUEUED): State.QUEUED,
    (Act.ASK, State.SYNCING): State.SYNCING,
    (Act.ASK, State.SYNCED): State.SYNCED,
    (Act.ASK_AGAIN, State.NOTSYNCED): State.QUEUED,
    (Act.ASK_AGAIN, State.ERROR): State.QUEUED,
    (Act.ASK_AGAIN, State.QUEUED): State.QUEUED,
    (Act.ASK_AGAIN, State.SYNCING): State.SYNCING,
    (Act.ASK_AGAIN, State.SYNCED): State.QUEUED,
    (Act.CLAIM, State.QUEUED): State.SYNCING,
    (Act.CLAIM, State.SYNCING): State.SYNCING,
    (Act.EXHAUST, State.QUEUED): State.ERROR,
    (Act.EXHAUST, State.SYNCING): State.ERROR,
    # An app may write `queued` while a worker has the request: that asks for what is being done.
    (Act.RENEW, State.QUEUED): State.SYNCING,
    (Act.RENEW, State.SYNCING): State.SYNCING,
    (Act.SUCCEED, State.QUEUED): State.SYNCED,
    (Act.SUCCEED, State.SYNCING): State.SYNCED,
    (Act.RETRY, State.QUEUED): State.QUEUED,
    (Act.RETRY, State.SYNCING): State.QUEUED,
    (Act.REFUSE, State.QUEUED): State.ERROR,
    (Act.REFUSE, State.SYNCING): State.ERROR,
    (Act.GIVE_BACK, State.QUEUED): State.QUEUED,
    (Act.GIVE_BACK, State.SYNCING): State.QUEUED,
    # Cancelled meanwhile: it stays so, only the lease is let go.
    (Act.GIVE_BACK, State.NOTSYNCED): State.NOTSYNCED,
    (Act.MISS, State.SYNCED): State.NOTSYNCED,
}
"""Where each act leads from each state. What is not here is illegal."""


class IllegalMoveError(Exception):
    """A request cannot go that way from where it is."""


class LeaseLostError(Exception):
    """The request is not this worker's any more: its lease ended and another has it, or an app cancelled it or asks for
    something else under its id."""


@dataclass(frozen=True, slots=True)
class Request:
    """One row. Times are seconds since 1970 by the store's clock, sizes bytes.

    `id` names an entry of the manifest where `source` is None. `state` is a `State`, or whatever an app wrote.
    `source` is JSON of a manifest's source, or a reference as `morpheus models add` takes it. `destination` is a bucket
    and prefix, or None for the worker's own. `attempt` counts claims, from 1; with `owner` it names one claim.
    """

    id: str
    state: str = State.NOTSYNCED
    name: str | None = None
    source: str | None = None
    path: str | None = None
    destination: str | None = None
    attempt: int = 0
    owner: str | None = None
    lease_until: float | None = None
    bytes_done: int | None = None
    bytes_total: int | None = None
    error_code: str | None = None
    error: str | None = None
    uri: str | None = None
    requested_at: float | None = None
    updated_at: float | None = None

    @property
    def known(self) -> bool:
        """Whether the state is one of ours."""
        return self.state in _STATES

    def live(self, now: float) -> bool:
        """Whether nobody may claim it yet."""
        return self.lease_until is not None and self.lease_until > now


_STATES: Final = frozenset(str(state) for state in State)

WISHES: Final = ("name", "source", "path", "destination")
"""What a request asks for, beside its id."""


def moved(row: Request, act: Act, now: float, **changes: Any) -> Request:
    """The row after `act`, in the state that `MOVES` says.

    Raises:
        IllegalMoveError: from this state there is no such way.
    """
    if not row.known:
        raise IllegalMoveError(f"'{row.id}' is in state '{row.state}', which is none that a worker knows")
    after = MOVES.get((act, State(row.state)))
    if after is None:
        raise IllegalMoveError(f"'{row.id}' is {row.state}: there is no way to {act} from there")
    return replace(row, state=after, updated_at=now, **changes)


def asked(row: Request | None, wish: Request, now: float, *, again: bool = False) -> Request:
    """The row once somebody asked for what `wish` says; what that leaves None stays as it is. `again`: even if synced.

    Unchanged where it waits or a worker has it, unless the wish is for something else: that is asked for anew.

    Raises:
        IllegalMoveError: an app gave it a state of its own.
    """
    wanted = {name: getattr(wish, name) for name in WISHES if getattr(wish, name) is not None}
    if row is None:
        return Request(wish.id, State.QUEUED, requested_at=now, updated_at=now, **wanted)
    changed = any(getattr(row, name) != value for name, value in wanted.items())
    after = moved(row, Act.ASK_AGAIN if again or changed else Act.ASK, now)
    if after.state == row.state and not changed:
        return row
    kept = {name: getattr(row, name) for name in WISHES}
    return Request(wish.id, State.QUEUED, requested_at=now, updated_at=now, **kept | wanted)


def claimable(row: Request, now: float) -> bool:
    return row.state in (State.QUEUED, State.SYNCING) and not row.live(now)


def claimed(row: Request, now: float, *, owner: str, lease_s: float, attempts: int = DEFAULT_ATTEMPTS) -> Request:
    """The row as `owner` has it for `lease_s`; or in `error`, where a claim before this one was the last.

    Raises:
        IllegalMoveError: it is not asked for, or somebody has it.
    """
    if row.live(now):
        raise IllegalMoveError(f"'{row.id}' is not free before {row.lease_until}")
    begun = row.lease_until is not None
    if begun and row.attempt >= attempts:
        return _exhausted(row, now)
    return moved(
        row,
        Act.CLAIM,
        now,
        owner=owner,
        attempt=row.attempt + 1 if begun else 1,
        lease_until=now + lease_s,
        bytes_done=row.bytes_done if begun else 0,
        bytes_total=row.bytes_total if begun else None,
        error_code=None,
        error=None,
        uri=None,
        requested_at=now if row.requested_at is None else row.requested_at,
    )


def renewed(
    row: Request,
    held: Request,
    now: float,
    *,
    lease_s: float,
    bytes_done: int | None = None,
    bytes_total: int | None = None,
) -> Request:
    """The row with its lease prolonged and how far the transfer is.

    Raises:
        LeaseLostError: it is not held as `held` says any more.
    """
    done = row.bytes_done if bytes_done is None else bytes_done
    total = row.bytes_total if bytes_total is None else bytes_total
    return _of_holder(row, held, Act.RENEW, now, lease_until=now + lease_s, bytes_done=done, bytes_total=total)


def succeeded(row: Request, held: Request, now: float, *, uri: str, size: int | None) -> Request:
    """The row once the file is where it shall be, under `uri`. `size` in bytes, None where nobody says.

    Raises:
        LeaseLostError: as `renewed`.
    """
    sizes = {} if size is None else {"bytes_done": size, "bytes_total": size}
    return _of_holder(row, held, Act.SUCCEED, now, **_FREE, uri=uri, **sizes)


def failed(
    row: Request,
    held: Request,
    now: float,
    *,
    failure: SyncError,
    attempts: int = DEFAULT_ATTEMPTS,
    retry_s: float = RETRY_S,
) -> Request:
    """The row after a failure: queued for another try where one may help and is left, else in `error`.

    Raises:
        LeaseLostError: as `renewed`.
    """
    why = {"error_code": str(failure.code), "error": _storable(str(failure))[:LONGEST_SENTENCE]}
    if not worth_another_try(failure) or row.attempt >= attempts:
        return _of_holder(row, held, Act.REFUSE, now, **_FREE, **why)
    wait_s = max(failure.after_s, min(retry_s * 2.0 ** min(row.attempt - 1, _DOUBLINGS), LONGEST_RETRY_S))
    return _of_holder(row, held, Act.RETRY, now, owner=None, lease_until=now + wait_s, **why)


def worth_another_try(failure: SyncError) -> bool:
    return failure.passing or failure.code in MAY_PASS


def given_back(row: Request, held: Request, now: float) -> Request:
    """The row once its worker lets it go: the attempt does not count, and anybody may claim it.

    Raises:
        LeaseLostError: another has it.
    """
    left = row.attempt - 1 if _same_wish(row, held) else 0
    begun = left > 0 and row.state != State.NOTSYNCED
    _demand_held(row, held)
    return _moved_by_holder(row, Act.GIVE_BACK, now, owner=None, attempt=left, lease_until=now if begun else None)


def missed(row: Request, now: float) -> Request:
    """The row of a file that is not where it was put.

    Raises:
        IllegalMoveError: it is not synced.
    """
    return moved(row, Act.MISS, now, uri=None, bytes_done=0)


_FREE: Final[Mapping[str, Any]] = {"owner": None, "lease_until": None}


_DOUBLINGS: Final = 30
"""An app may write any number as attempt."""


def _storable(text: str) -> str:
    """Without what a database refuses in a text."""
    return text.replace("\0", "").encode("utf-8", "replace").decode()


def _exhausted(row: Request, now: float) -> Request:
    if row.error:
        return moved(row, Act.EXHAUST, now, **_FREE)
    said = f"the worker that had it ended without a word, on attempt {row.attempt}"
    return moved(row, Act.EXHAUST, now, **_FREE, error_code=str(SyncCode.INTERRUPTED), error=said)


def _of_holder(row: Request, held: Request, act: Act, now: float, **changes: Any) -> Request:
    _demand_held(row, held)
    if not _same_wish(row, held):
        raise LeaseLostError(f"'{row.id}' asks for something else now")
    return _moved_by_holder(row, act, now, **changes)


def _demand_held(row: Request, held: Request) -> None:
    if (row.owner, row.attempt) != (held.owner, held.attempt):
        raise LeaseLostError(f"'{row.id}' is not this worker's any more")


def _same_wish(row: Request, held: Request) -> bool:
    return all(getattr(row, name) == getattr(held, name) for name in WISHES)


def _moved_by_holder(row: Request, act: Act, now: float, **changes: Any) -> Request:
    try:
        return moved(row, act, now, **changes)
    except IllegalMoveError:
        raise LeaseLostError(f"'{row.id}' was set to '{row.state}' meanwhile") from None
