"""Opening a store: what a URL means, what it may be, and where the default lies."""

from __future__ import annotations

import contextlib
import os
import re
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

from morpheus_worker.sync.store.requests import RequestStore
from morpheus_worker.sync.store.terms import StoreError

if TYPE_CHECKING:
    from sqlalchemy import URL

DEFAULT_FILE: Final = Path(".local") / "state" / "morpheus" / "requests.db"
"""Beneath the home folder."""

BUSY_S: Final = 15.0
"""How long SQLite waits for another process that writes."""

_FORMS: Final = "sqlite:////a/local/file.db or postgresql://user:password@host/database"
_PATIENCE: Final = {
    "connect_timeout": 10, "keepalives_idle": 15, "keepalives_interval": 5, "keepalives_count": 3,
    "tcp_user_timeout": 20_000,
}  # fmt: skip
"""libpq's, in seconds, the last in milliseconds: a server that is gone is noticed before a lease ends."""

_MOUNTS: Final = Path("/proc/self/mounts")
_NETWORK: Final = frozenset(
    {
        "nfs",
        "nfs4",
        "cifs",
        "smb3",
        "smbfs",
        "ceph",
        "lustre",
        "glusterfs",
        "beegfs",
        "afs",
        "ocfs2",
        "gfs2",
        "virtiofs",
    }
)
_LOCAL_FUSE: Final = frozenset({"fuse.fuse-overlayfs", "fuse.lxcfs", "fuse.ntfs-3g"})
"""Mounted through FUSE, and yet of this machine alone."""


_OCTAL: Final = re.compile(r"\\([0-7]{3})")
"""How /proc/mounts writes a space, a tab, a newline and a backslash."""


def open_store(url: str | None = None) -> RequestStore:
    """The store at `url`, `sqlite:///…` or `postgresql://…`; by default a file beneath the home folder.

    The table is made where it is not there.

    Raises:
        StoreError: the URL makes no sense, the file would lie on a network volume, or the database does not answer.
    """
    from sqlalchemy import create_engine

    from morpheus_worker.sync.store.sql import SqlRows

    read = _sqlite_url(_default_file()) if url is None else _read(url)
    # A password never reaches an error: neither the statement's values nor the URL with it are shown.
    engine = create_engine(read, isolation_level="AUTOCOMMIT", hide_parameters=True, **_manners(read))
    rows = SqlRows(engine, _shown(read), _secrets(read))
    try:
        rows.prepare()
    except BaseException:
        rows.close()
        raise
    return RequestStore(rows)


def network_filesystem(path: Path, mounts: str) -> str | None:
    """The type of the filesystem of `path`, where it is another machine's, else None; `mounts` as in /proc/mounts."""
    best, kind = -1, ""
    for line in mounts.splitlines():
        _, where, found, *_ = line.split(" ")
        point = _OCTAL.sub(lambda escaped: chr(int(escaped[1], 8)), where)
        if path.is_relative_to(point) and len(point) >= best:
            best, kind = len(point), found
    remote = kind in _NETWORK or (kind.startswith("fuse.") and kind not in _LOCAL_FUSE) or kind == "fuse"
    return kind if remote else None


def _read(url: str) -> URL:
    from sqlalchemy import make_url
    from sqlalchemy.exc import ArgumentError

    read = None
    with contextlib.suppress(ArgumentError, ValueError):
        read = make_url(url.strip())
    # Not while that error is handled: it may repeat a password.
    if read is None:
        raise StoreError("the address of the request store makes no sense", _FORMS)
    if read.get_backend_name() == "sqlite" and read.database not in (None, "", ":memory:"):
        return _sqlite_url(Path(str(read.database)))
    if read.drivername in ("postgresql", "postgres", "postgresql+psycopg"):
        return _postgres_url(read)
    raise StoreError("the request store is neither a file of SQLite nor a PostgreSQL", _FORMS)


def _shown(read: URL) -> str:
    """Without a user and what follows a question mark, where a password may stand, too."""
    from sqlalchemy import URL

    name = read.get_backend_name()
    return URL.create(name, host=read.host, port=read.port, database=read.database).render_as_string()


def _secrets(read: URL) -> tuple[str, ...]:
    asked = [value for name, value in read.normalized_query.items() if "pass" in name]
    return tuple(
        secret for secret in [str(read.password or ""), *(each for value in asked for each in value)] if secret
    )


def _default_file() -> Path:
    hint = "name another place in MORPHEUS_SYNC_STORE"
    try:
        file = Path.home() / DEFAULT_FILE
    except RuntimeError:
        raise StoreError("nobody says where the home folder is", hint) from None
    try:
        file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    except OSError as failure:
        raise StoreError(f"{file.parent} cannot be made: {failure.strerror}", hint) from None
    return file


def _sqlite_url(file: Path) -> URL:
    from sqlalchemy import URL

    place = Path(os.path.realpath(file))
    if not os.path.isdir(place.parent):
        raise StoreError(f"the folder of the request store, {place.parent}, does not exist", "make it")
    mounts = _MOUNTS.read_text(encoding="utf-8", errors="surrogateescape") if _MOUNTS.exists() else ""
    kind = network_filesystem(place, mounts)
    if kind is not None:
        raise StoreError(
            f"{place} lies on a network volume ({kind}), where SQLite's locks do not hold",
            "name a file on a local disk, or a PostgreSQL where several machines share the requests",
        )
    return URL.create("sqlite", database=str(place))


def _postgres_url(read: URL) -> URL:
    try:
        import psycopg  # noqa: F401
    except ImportError:
        raise StoreError("PostgreSQL needs the package psycopg", "pip install 'morpheus-worker[postgres]'") from None
    return read.set(drivername="postgresql+psycopg")


def _manners(read: URL) -> dict[str, Any]:
    """What the engine is made with. What the URL itself says of a connection holds."""
    if read.get_backend_name() == "sqlite":
        return {"connect_args": {"timeout": BUSY_S}}
    # Without prepared statements: a pooler such as PgBouncer may hand every statement to another connection.
    wanted = {**_PATIENCE, "prepare_threshold": None}
    given = {name: value for name, value in wanted.items() if name not in read.query}
    return {"connect_args": given, "pool_size": 2, "max_overflow": 2, "pool_timeout": 20, "pool_pre_ping": True}
