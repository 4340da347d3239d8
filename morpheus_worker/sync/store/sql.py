"""Requests in a table of SQLite or PostgreSQL, through SQLAlchemy. Imported only where a store is opened: it is slow.

Every call is one statement of its own (two, to read a row that is not there), so nothing is ever held open: what must
not happen twice rests on the comparison in `replace`, not on a transaction.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from typing import Any, Final, TypeVar
from urllib.parse import quote, quote_plus

import sqlalchemy as sa
from sqlalchemy import exc

from morpheus_worker.sync.requests import Request, State
from morpheus_worker.sync.store.terms import StoreError

TABLE_NAME: Final = "morpheus_sync_requests"

Answer = TypeVar("Answer")

_SECONDS: Final = "in seconds since 1970 by the database's clock"

TABLE: Final = sa.Table(
    TABLE_NAME,
    sa.MetaData(),
    sa.Column("id", sa.Text, primary_key=True, comment="An entry of the manifest where 'source' is null."),
    sa.Column("name", sa.Text, comment="What the file is called in a blob's name."),
    sa.Column("source", sa.Text, comment="A source as JSON, or a reference or URL; null for an entry of the manifest."),
    sa.Column("path", sa.Text, comment="Where in the cache; null: as the manifest says, else by its kind."),
    sa.Column("destination", sa.Text, comment="s3://bucket/prefix or gs://…; null: the worker's own."),
    sa.Column(
        "state",
        sa.Text,
        nullable=False,
        server_default=State.NOTSYNCED,
        index=True,
        comment="notsynced, queued, syncing, synced, error. An app asks by queued or syncing, cancels by notsynced.",
    ),
    sa.Column(
        "attempt", sa.Integer, server_default="0", comment="Claims so far; one that was given back does not count."
    ),
    sa.Column("owner", sa.Text, comment="The worker that has it."),
    sa.Column("lease_until", sa.Double, comment=f"Nobody may claim it before then, {_SECONDS}; null: not begun."),
    sa.Column("bytes_done", sa.BigInteger),
    sa.Column("bytes_total", sa.BigInteger),
    sa.Column("error_code", sa.Text, comment="Of the last attempt, for a program; a queued request may have one."),
    sa.Column("error", sa.Text, comment="The same for a person."),
    sa.Column("uri", sa.Text, comment="Where the file is: s3://…, gs://… or a path."),
    sa.Column("requested_at", sa.Double, comment=f"{_SECONDS}; the first asked for is synced first."),
    sa.Column("updated_at", sa.Double, comment=f"The last write of a worker, {_SECONDS}."),
    comment="What apps ask to have synced. A row needs 'id' and 'state'; columns of an app's own are left alone.",
)

_COLUMNS: Final = tuple(field.name for field in fields(Request))
_CLOCKS: Final[Mapping[str, sa.ColumnElement[float]]] = {
    # The moment of the statement, not of the transaction that it may be part of.
    "postgresql": sa.literal_column("CAST(EXTRACT(EPOCH FROM clock_timestamp()) AS DOUBLE PRECISION)", sa.Double),
    "sqlite": sa.literal_column("(julianday('now') - 2440587.5) * 86400.0", sa.Double),
}
"""The database's own time: machines that share it need not agree about theirs."""


@dataclass(slots=True)
class SqlRows:
    """`engine` commits each statement by itself. `shown` is the database as it may be shown, `secrets` what may not."""

    engine: sa.Engine = field(repr=False)
    shown: str
    secrets: tuple[str, ...] = field(default=(), repr=False)
    text_ids: bool = field(default=False, init=False)
    """Whether ids are texts: they are then found without reading every row."""

    def prepare(self) -> None:
        """Makes the table where it is not there, and looks whether it has what requests need.

        Raises:
            StoreError: it is there and lacks columns or has them of other kinds, or cannot be made.
        """
        there = self._done(self._made)
        if missing := [name for name in _COLUMNS if name not in there]:
            raise StoreError(
                f"the table {TABLE_NAME} in {self.shown} has no {', '.join(missing)}",
                "add the columns, or let an empty database be used, where the table is made",
            )
        self.text_ids = isinstance(there["id"], sa.Text | sa.VARCHAR)
        self.claimable(1)

    def all(self) -> tuple[Request, ...]:
        return self._rows(sa.select(*_selected()).order_by(*_ORDER))[0]

    def read(self, request_id: str) -> tuple[Request | None, float]:
        found, now = self._rows(sa.select(*_selected(), self._clock).where(self._named(request_id)))
        if found:
            return found[0], now
        return None, self._done(lambda connection: float(connection.scalar(sa.select(self._clock)) or 0.0))

    def claimable(self, limit: int) -> tuple[tuple[Request, ...], float]:
        lease = _column("lease_until")
        asked = TABLE.c.state.in_([State.QUEUED, State.SYNCING])
        query = sa.select(*_selected(), self._clock).where(asked, lease.is_(None) | (lease <= self._clock))
        return self._rows(query.order_by(*_ORDER).limit(limit))

    def insert(self, row: Request) -> bool:
        values = {name: getattr(row, name) for name in _COLUMNS}

        def add(connection: sa.Connection) -> bool:
            try:
                connection.execute(sa.insert(TABLE).values(values))
            except exc.IntegrityError:
                if connection.scalar(sa.select(sa.literal(1)).where(self._named(row.id))) is None:
                    raise
                return False
            return True

        return self._done(add)

    def replace(self, before: Request, after: Request) -> bool:
        changes = {name: getattr(after, name) for name in _COLUMNS if getattr(after, name) != getattr(before, name)}
        as_read = [_column(name).is_not_distinct_from(getattr(before, name)) for name in _COMPARED]
        changed = sa.update(TABLE).where(self._named(before.id), *as_read).values(changes)
        return self._done(lambda connection: connection.execute(changed).rowcount == 1)

    def close(self) -> None:
        self.engine.dispose()

    @property
    def _clock(self) -> sa.ColumnElement[float]:
        return _CLOCKS[self.engine.dialect.name].label("now")

    def _named(self, request_id: str) -> sa.ColumnElement[bool]:
        return (TABLE.c.id if self.text_ids else _column("id")) == request_id

    def _rows(self, query: sa.Select[Any]) -> tuple[tuple[Request, ...], float]:
        found = self._done(lambda connection: connection.execute(query).mappings().all())
        now = max((float(row.get("now", 0.0)) for row in found), default=0.0)
        return tuple(Request(**{name: row[name] for name in _COLUMNS}) for row in found), now

    def _made(self, connection: sa.Connection) -> dict[str, Any]:
        """The columns of the table, which is made where it is not there, and their types."""
        if not sa.inspect(connection).has_table(TABLE_NAME):
            try:
                TABLE.metadata.create_all(connection)
            except exc.DBAPIError:
                # Another process made it at the same time.
                if not sa.inspect(connection).has_table(TABLE_NAME):
                    raise
        return {column["name"]: column["type"] for column in sa.inspect(connection).get_columns(TABLE_NAME)}

    def _done(self, ask: Callable[[sa.Connection], Answer]) -> Answer:
        """
        Raises:
            StoreError: the database's own error, said, and not behind it: that one has the row's values with it.
        """
        try:
            with self.engine.connect() as connection:
                return ask(connection)
        except exc.DBAPIError as failure:
            said = StoreError(f"{self.shown}: {self._said(failure.orig or failure)}", passing=_may_pass(failure))
        except exc.SQLAlchemyError as failure:
            said = StoreError(f"{self.shown}: {self._said(failure)}", passing=isinstance(failure, exc.TimeoutError))
        raise said

    def _said(self, failure: BaseException) -> str:
        """A driver's words on one line. Some repeat what they were given to connect with."""
        said = str(failure)
        for secret in sorted(self.secrets, key=len, reverse=True):
            for form in (secret, quote(secret, safe=""), quote(secret), quote_plus(secret)):
                said = said.replace(form, "***")
        return " ".join(said.split())


_PASSING: Final = ("SQLITE_BUSY", "SQLITE_LOCKED", "SQLITE_FULL", "SQLITE_IOERR", "SQLITE_PROTOCOL", "SQLITE_SCHEMA")


def _may_pass(failure: exc.DBAPIError) -> bool:
    """Whether the same may succeed later: nobody waits for a file that is read-only, or a table that was dropped."""
    if isinstance(failure.orig, sqlite3.Error):
        return (getattr(failure.orig, "sqlite_errorname", None) or "").startswith(_PASSING)
    passing = exc.OperationalError | exc.InterfaceError | exc.InternalError
    return failure.connection_invalidated or isinstance(failure, passing)


_NUMBERS: Final[Mapping[str, sa.types.TypeEngine[Any]]] = {
    **dict.fromkeys(("attempt", "bytes_done", "bytes_total"), sa.BigInteger()),
    **dict.fromkeys(("lease_until", "requested_at", "updated_at"), sa.Double()),
}
_MEANT: Final[Mapping[str, Any]] = {"attempt": 0, "state": State.NOTSYNCED}
"""What the absence of a value means: an app may have written no more than an id and a state."""


def _column(name: str) -> sa.ColumnElement[Any]:
    """A column as what it has to be. An app's own table may have a number or a UUID as id, JSON as source, padded
    texts; and SQLite keeps any value in any column, where 'NULL' then is 0."""
    value = sa.cast(TABLE.c[name], _NUMBERS.get(name, sa.Text()))
    return sa.func.coalesce(value, _MEANT[name]) if name in _MEANT else value


def _selected() -> list[sa.ColumnElement[Any]]:
    return [_column(name).label(name) for name in _COLUMNS]


_ORDER: Final = (sa.func.coalesce(_column("requested_at"), 0.0), TABLE.c.id)
_COMPARED: Final = ("state", "owner", "lease_until", "attempt")
