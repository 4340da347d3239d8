"""What one does with requests: ask, claim, renew, end. `sync.requests` decides each, compare-and-set writes it."""

from __future__ import annotations

import contextlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Final

from morpheus_worker.sync import requests as moves
from morpheus_worker.sync.requests import DEFAULT_ATTEMPTS, LeaseLostError, Request, State
from morpheus_worker.sync.store.terms import Rows, StoreError
from morpheus_worker.sync.terms import SyncError

CANDIDATES: Final = 16
"""Rows that one look for work brings: more than one, because other workers see the same ones first."""
TRIES: Final = 50
"""Of one write, when others write the same row at the same time."""


@dataclass(frozen=True, slots=True)
class RequestStore:
    """The requests of one database. Methods raise StoreError when it cannot be reached; threads may share it."""

    rows: Rows

    def ask(self, wish: Request, *, again: bool = False) -> Request:
        """Asks for what `wish` says under its id: `name`, `source`, `path`, `destination`; the rest is not looked at.

        What is None in the wish stays as the row has it. A request that waits or runs is left alone, one that is synced
        too unless `again`; one that failed begins anew.

        Raises:
            IllegalMoveError: an app gave it a state of its own.
        """
        return self._written(wish.id, lambda row, now: moves.asked(row, wish, now, again=again))

    def get(self, request_id: str) -> Request | None:
        return self.rows.read(request_id)[0]

    def list(self) -> tuple[Request, ...]:
        """All requests, the first asked for first."""
        return self.rows.all()

    def claim(self, owner: str, *, lease_s: float, attempts: int = DEFAULT_ATTEMPTS) -> Request | None:
        """A request that is asked for, now `owner`'s for `lease_s`, or None when nothing is to be done.

        One whose attempts are used up ends in `error` on the way.
        """
        for _ in range(TRIES):
            found, now = self.rows.claimable(CANDIDATES)
            # The database's clock goes on while it reads: what was free at the end may not be at the beginning.
            for row in (each for each in found if moves.claimable(each, now)):
                after = moves.claimed(row, now, owner=owner, lease_s=lease_s, attempts=attempts)
                if self.rows.replace(row, after) and after.state == State.SYNCING:
                    return after
            if not found:
                break
        return None

    def renew(
        self, held: Request, *, lease_s: float, bytes_done: int | None = None, bytes_total: int | None = None
    ) -> Request:
        """Prolongs the lease and notes how far the transfer is, in one write.

        Raises:
            LeaseLostError: another has it, or an app cancelled it: the transfer has to stop.
        """
        return self._held(
            held,
            lambda row, now: moves.renewed(
                row, held, now, lease_s=lease_s, bytes_done=bytes_done, bytes_total=bytes_total
            ),
        )

    def succeed(self, held: Request, *, uri: str, size: int | None) -> Request:
        """Records where the file is now.

        Raises:
            LeaseLostError: as `renew`.
        """
        return self._held(held, lambda row, now: moves.succeeded(row, held, now, uri=uri, size=size))

    def fail(
        self, held: Request, failure: SyncError, *, attempts: int = DEFAULT_ATTEMPTS, retry_s: float = moves.RETRY_S
    ) -> Request:
        """Records why not: queued for another try where that may help, else in `error`.

        Raises:
            LeaseLostError: as `renew`.
        """
        return self._held(
            held, lambda row, now: moves.failed(row, held, now, failure=failure, attempts=attempts, retry_s=retry_s)
        )

    def give_back(self, held: Request) -> None:
        """Lets others claim it at once; the attempt does not count. Nothing happens where it is held no more."""
        with contextlib.suppress(LeaseLostError):
            self._held(held, lambda row, now: moves.given_back(row, held, now))

    def missed(self, seen: Request) -> bool:
        """Notes that the file of a synced request is gone; False where the row is another by now."""
        row, now = self.rows.read(seen.id)
        unchanged = row is not None and (row.state, row.uri, row.updated_at) == (seen.state, seen.uri, seen.updated_at)
        return row is not None and unchanged and self.rows.replace(row, moves.missed(row, now))

    def close(self) -> None:
        self.rows.close()

    def __enter__(self) -> RequestStore:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def _held(self, held: Request, move: Callable[[Request, float], Request]) -> Request:
        def of_row(row: Request | None, now: float) -> Request:
            if row is None:
                raise LeaseLostError(f"'{held.id}' is not in the store any more")
            return move(row, now)

        return self._written(held.id, of_row)

    def _written(self, request_id: str, move: Callable[[Request | None, float], Request]) -> Request:
        for _ in range(TRIES):
            row, now = self.rows.read(request_id)
            after = move(row, now)
            if after == row or (self.rows.insert(after) if row is None else self.rows.replace(row, after)):
                return after
        raise StoreError(f"'{request_id}' is written by others all the time", passing=True)
