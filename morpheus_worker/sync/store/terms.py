"""What a database has to do to hold requests, and how it fails."""

from __future__ import annotations

from typing import Protocol

from morpheus_worker.sync.requests import Request


class StoreError(Exception):
    """The store cannot be used: `what` went wrong and what to do. `passing`: another try may succeed.

    Nothing here ever holds a password.
    """

    def __init__(self, what: str, hint: str | None = None, *, passing: bool = False) -> None:
        super().__init__(f"{what} ({hint})" if hint else what)
        self.what, self.hint, self.passing = what, hint, passing


class Rows(Protocol):
    """A table of requests with a clock of its own, in seconds since 1970. Each call is one transaction.

    Every method raises StoreError, `passing` where the database cannot be reached or is busy.
    """

    def all(self) -> tuple[Request, ...]:
        """Every row, the first asked for first."""

    def read(self, request_id: str) -> tuple[Request | None, float]:
        """The row, or None, and the time of the store's clock."""

    def claimable(self, limit: int) -> tuple[tuple[Request, ...], float]:
        """Rows that are asked for and have no lease, or one that ended, the first asked for first; and the time."""

    def insert(self, row: Request) -> bool:
        """Adds the row; False where its id is taken."""

    def replace(self, before: Request, after: Request) -> bool:
        """Writes what differs between the two, if state, owner, lease and attempt are still as `before` has them;
        False where they are not."""

    def close(self) -> None: ...
