"""The store of requests, in SQLite and in PostgreSQL: as apps write to it, and as several workers claim from it."""

from __future__ import annotations

import json
import multiprocessing
import sqlite3
import stat
import subprocess
import sys
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import asdict
from pathlib import Path
from typing import Any

import pytest
import sqlalchemy as sa

from morpheus_worker.sync.requests import LeaseLostError, Request, State
from morpheus_worker.sync.store import RequestStore, StoreError, open_store
from morpheus_worker.sync.store.opening import network_filesystem
from morpheus_worker.sync.store.sql import TABLE
from morpheus_worker.sync.terms import SyncCode, SyncError

from .postgres import Postgres, postgres

MANY = 60
LEASE_S = 60.0
KEY = "s3cret-of-nobody"


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.fixture(params=["sqlite", "postgresql"])
def url(request: pytest.FixtureRequest, tmp_path: Path) -> str:
    if request.param == "sqlite":
        return f"sqlite:///{tmp_path}/requests.db"
    found: Postgres = request.getfixturevalue("server")
    sql(found.url, "DROP TABLE IF EXISTS morpheus_sync_requests")
    return found.url


@pytest.fixture
def store(url: str) -> Iterator[RequestStore]:
    with open_store(url) as opened:
        yield opened


def sql(url: str, statement: str, **values: Any) -> list[Any]:
    """What an app does, past all that is ours."""
    engine = sa.create_engine(url.replace("postgresql://", "postgresql+psycopg://"))
    try:
        with engine.begin() as connection:
            result = connection.execute(sa.text(statement), values)
            return list(result.mappings()) if result.returns_rows else []
    finally:
        engine.dispose()


def claimed(store: RequestStore, owner: str = "one", lease_s: float = LEASE_S) -> Request:
    found = store.claim(owner, lease_s=lease_s)
    assert found is not None
    return found


# --- one request


def test_a_request_comes_back_as_it_was_asked_for(store: RequestStore) -> None:
    wish = Request("m", name="My Model", source='{"kind": "civitai", "version": 1}', path="a/b", destination="s3://b/p")
    made = store.ask(wish)
    assert store.get("m") == made
    assert store.list() == (made,)
    assert (made.name, made.source, made.path, made.destination) == (
        wish.name,
        wish.source,
        wish.path,
        wish.destination,
    )
    assert store.get("other") is None


def test_the_way_of_a_request_that_succeeds(store: RequestStore) -> None:
    store.ask(Request("m"))
    mine = claimed(store)
    assert store.claim("two", lease_s=LEASE_S) is None
    store.renew(mine, lease_s=LEASE_S, bytes_done=5 << 40, bytes_total=6 << 40)
    running = store.get("m")
    assert running is not None
    assert (running.state, running.bytes_done, running.bytes_total) == (State.SYNCING, 5 << 40, 6 << 40)
    store.succeed(mine, uri="gs://bucket/m", size=6 << 40)
    done = store.get("m")
    assert done is not None
    assert (done.state, done.uri, done.owner, done.lease_until) == (State.SYNCED, "gs://bucket/m", None, None)
    assert store.claim("two", lease_s=LEASE_S) is None


def test_a_failure_that_may_pass_is_not_tried_again_before_its_time(store: RequestStore) -> None:
    store.ask(Request("m"))
    store.fail(claimed(store), SyncError(SyncCode.UNREACHABLE, "is away"), retry_s=60.0)
    assert store.claim("two", lease_s=LEASE_S) is None
    waiting = store.get("m")
    assert waiting is not None
    assert (waiting.state, waiting.error_code, waiting.error) == (State.QUEUED, "unreachable", "is away")


def test_a_request_ends_in_an_error_after_its_last_attempt(store: RequestStore) -> None:
    store.ask(Request("m"))
    for _ in range(3):
        store.fail(claimed(store), SyncError(SyncCode.UNREACHABLE, "is away"), attempts=3, retry_s=0.0)
    ended = store.get("m")
    assert ended is not None
    assert (ended.state, ended.attempt, ended.error) == (State.ERROR, 3, "is away")


def test_an_error_may_hold_what_no_database_takes(store: RequestStore) -> None:
    store.ask(Request("m"))
    store.fail(claimed(store), SyncError(SyncCode.REJECTED, "is 'a\0b\udcff'"))
    ended = store.get("m")
    assert ended is not None
    assert ended.error == "is 'ab?'"


def test_a_lease_that_ended_lets_another_claim_and_the_first_one_notices(store: RequestStore) -> None:
    store.ask(Request("m"))
    mine = claimed(store, lease_s=0.0)
    theirs = claimed(store, "two")
    assert (theirs.attempt, theirs.owner) == (2, "two")
    with pytest.raises(LeaseLostError):
        store.renew(mine, lease_s=LEASE_S)
    with pytest.raises(LeaseLostError):
        store.succeed(mine, uri="/m", size=1)
    assert store.renew(theirs, lease_s=LEASE_S).owner == "two"


def test_workers_that_crash_every_time_leave_an_error_with_the_reason(store: RequestStore) -> None:
    store.ask(Request("m"))
    for _ in range(2):
        assert store.claim("one", lease_s=0.0, attempts=2) is not None
    assert store.claim("one", lease_s=0.0, attempts=2) is None
    ended = store.get("m")
    assert ended is not None
    assert (ended.state, ended.error) == (State.ERROR, "the worker that had it ended without a word, on attempt 2")


def test_what_is_given_back_is_claimed_at_once(store: RequestStore) -> None:
    store.ask(Request("m"))
    mine = claimed(store)
    store.give_back(mine)
    assert claimed(store, "two").attempt == 1
    store.give_back(mine)
    assert store.claim("three", lease_s=LEASE_S) is None


def test_the_first_asked_for_is_the_first_claimed(store: RequestStore) -> None:
    for name in "cab":
        store.ask(Request(name))
    assert [claimed(store).id for _ in range(3)] == ["c", "a", "b"]


def test_a_file_that_is_gone_is_noted_once(store: RequestStore) -> None:
    store.ask(Request("m"))
    seen = store.succeed(claimed(store), uri="/m", size=1)
    assert store.missed(seen)
    assert not store.missed(seen)
    assert [row.state for row in store.list()] == [State.NOTSYNCED]


# --- what apps write


@pytest.mark.parametrize("state", ["queued", "syncing"])
def test_an_app_asks_with_an_id_and_a_state(store: RequestStore, url: str, state: str) -> None:
    sql(url, "INSERT INTO morpheus_sync_requests (id, state) VALUES ('m', :state)", state=state)
    mine = claimed(store)
    assert (mine.id, mine.attempt) == ("m", 1)
    assert store.renew(mine, lease_s=LEASE_S).state == State.SYNCING


def test_nulls_in_every_column_that_may_be_null_are_understood(store: RequestStore, url: str) -> None:
    nulls = ", ".join(f"{name} = NULL" for name in Request.__dataclass_fields__ if name not in ("id", "state"))
    sql(url, "INSERT INTO morpheus_sync_requests (id, state) VALUES ('m', 'queued')")
    sql(url, f"UPDATE morpheus_sync_requests SET {nulls}")
    assert store.ask(Request("m")).state == State.QUEUED
    assert claimed(store).attempt == 1


def test_an_app_cancels_with_a_state(store: RequestStore, url: str) -> None:
    store.ask(Request("m"))
    mine = claimed(store)
    sql(url, "UPDATE morpheus_sync_requests SET state = 'notsynced'")
    with pytest.raises(LeaseLostError):
        store.renew(mine, lease_s=LEASE_S)
    store.give_back(mine)
    row = store.get("m")
    assert row is not None
    assert (row.state, row.owner, row.lease_until) == (State.NOTSYNCED, None, None)


def test_a_row_that_an_app_deletes_is_lost_to_its_worker(store: RequestStore, url: str) -> None:
    store.ask(Request("m"))
    mine = claimed(store)
    sql(url, "DELETE FROM morpheus_sync_requests")
    with pytest.raises(LeaseLostError):
        store.renew(mine, lease_s=LEASE_S)
    assert store.list() == ()


def test_a_state_of_an_app_s_own_is_shown_and_never_claimed(store: RequestStore, url: str) -> None:
    sql(url, "INSERT INTO morpheus_sync_requests (id, state) VALUES ('m', 'archived')")
    assert store.claim("one", lease_s=LEASE_S) is None
    assert [row.state for row in store.list()] == ["archived"]


def test_columns_of_an_app_s_own_are_left_alone(store: RequestStore, url: str) -> None:
    sql(url, "ALTER TABLE morpheus_sync_requests ADD COLUMN owner_team TEXT")
    sql(url, "INSERT INTO morpheus_sync_requests (id, state, owner_team) VALUES ('m', 'queued', 'blue')")
    store.succeed(claimed(store), uri="/m", size=1)
    assert sql(url, "SELECT state, owner_team FROM morpheus_sync_requests") == [
        {"state": "synced", "owner_team": "blue"}
    ]


def test_a_table_that_an_app_made_with_types_of_its_own_serves(server: Postgres) -> None:
    sql(server.url, "DROP TABLE IF EXISTS morpheus_sync_requests")
    theirs = {
        "id": "SERIAL PRIMARY KEY",
        "source": "JSONB",
        "attempt": "BIGINT",
        "bytes_done": "BIGINT",
        "bytes_total": "BIGINT",
    }
    theirs |= dict.fromkeys(("lease_until", "requested_at", "updated_at"), "DOUBLE PRECISION")
    columns = ", ".join(f"{name} {theirs.get(name, 'VARCHAR(200)')}" for name in Request.__dataclass_fields__)
    sql(server.url, f"CREATE TABLE morpheus_sync_requests ({columns})")
    sql(server.url, "INSERT INTO morpheus_sync_requests (state, source) VALUES ('syncing', '{\"kind\": \"civitai\"}')")
    with open_store(server.url) as store:
        mine = claimed(store)
        assert (mine.id, json.loads(mine.source or "")) == ("1", {"kind": "civitai"})
        assert store.succeed(mine, uri="/m", size=1).state == State.SYNCED


def test_padded_texts_are_what_they_say(server: Postgres) -> None:
    sql(server.url, "DROP TABLE IF EXISTS morpheus_sync_requests")
    theirs = dict.fromkeys(("attempt", "bytes_done", "bytes_total"), "INT")
    theirs |= dict.fromkeys(("lease_until", "requested_at", "updated_at"), "NUMERIC")
    columns = ", ".join(f"{name} {theirs.get(name, 'CHAR(80)')}" for name in Request.__dataclass_fields__)
    sql(server.url, f"CREATE TABLE morpheus_sync_requests ({columns})")
    sql(server.url, "INSERT INTO morpheus_sync_requests (id, state) VALUES ('m', 'queued')")
    with open_store(server.url) as store:
        mine = claimed(store)
        assert (mine.id, mine.state, mine.owner) == ("m", State.SYNCING, "one")
        assert store.succeed(store.renew(mine, lease_s=LEASE_S), uri="/m", size=1).uri == "/m"
        assert store.get("m") == store.list()[0]


def test_a_column_of_another_kind_is_said_when_the_store_is_opened(server: Postgres) -> None:
    sql(server.url, "DROP TABLE IF EXISTS morpheus_sync_requests")
    with open_store(server.url):
        pass
    sql(server.url, "ALTER TABLE morpheus_sync_requests DROP COLUMN lease_until, ADD COLUMN lease_until TIMESTAMPTZ")
    with pytest.raises(StoreError, match="cannot cast type timestamp") as refused:
        open_store(server.url)
    assert not refused.value.passing


@pytest.mark.parametrize(
    "odd",
    [
        "attempt = 'NULL', lease_until = 'NULL'", "lease_until = '2024-01-01 10:00:00', attempt = '2'",
        "requested_at = '2024-01-01', updated_at = 'now'", "bytes_done = '7', bytes_total = 'NULL'",
        "name = 5, source = 6, path = 7.5, destination = x'41', owner = 8, error = 9",
    ],
)  # fmt: skip
def test_sqlite_keeps_whatever_an_app_writes_and_it_is_claimed(tmp_path: Path, odd: str) -> None:
    url = f"sqlite:///{tmp_path}/requests.db"
    columns = ", ".join(Request.__dataclass_fields__)
    for table in ("", f"CREATE TABLE morpheus_sync_requests ({columns})"):
        sql(url, "DROP TABLE IF EXISTS morpheus_sync_requests")
        if table:
            sql(url, table)
        with open_store(url) as store:
            sql(url, "INSERT INTO morpheus_sync_requests (id, state) VALUES ('m', 'queued')")
            sql(url, f"UPDATE morpheus_sync_requests SET {odd}")
            mine = claimed(store)
            texts = (mine.name, mine.source, mine.path, mine.destination)
            assert all(text is None or isinstance(text, str) for text in texts)
            store.renew(mine, lease_s=LEASE_S)
            store.fail(mine, SyncError(SyncCode.UNREACHABLE, "is away"))
            assert json.dumps([asdict(row) for row in store.list()])


def test_a_request_that_came_free_while_others_were_read_waits_for_the_next_look() -> None:
    class Slow:
        looks = 0

        def claimable(self, limit: int) -> tuple[tuple[Request, ...], float]:
            self.looks += 1
            row = Request("m", State.SYNCING, lease_until=100.5, attempt=1)
            return (row,), 100.0 if self.looks == 1 else 101.0

        def replace(self, before: Request, after: Request) -> bool:
            return True

    rows: Any = Slow()
    assert claimed(RequestStore(rows)).attempt == 2
    assert rows.looks == 2


def test_another_source_under_way_is_claimed_anew(store: RequestStore, url: str) -> None:
    sql(url, "INSERT INTO morpheus_sync_requests (id, state, source) VALUES ('m', 'queued', 'civitai:1')")
    mine = claimed(store)
    sql(url, "UPDATE morpheus_sync_requests SET source = 'civitai:2', state = 'queued'")
    with pytest.raises(LeaseLostError):
        store.succeed(mine, uri="/1", size=1)
    store.give_back(mine)
    again = claimed(store, "two")
    assert (again.source, again.attempt, again.uri) == ("civitai:2", 1, None)


def test_a_table_that_lacks_columns_is_named_with_all_of_them(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/requests.db"
    sql(url, "CREATE TABLE morpheus_sync_requests (id TEXT PRIMARY KEY, state TEXT, name TEXT, source TEXT)")
    with pytest.raises(StoreError, match="has no path, destination, attempt, owner, lease_until"):
        open_store(url)


# --- many at once


def claim_all(url: str, owner: str, done: Any) -> None:
    with open_store(url) as store:
        while (mine := store.claim(owner, lease_s=LEASE_S)) is not None:
            store.renew(mine, lease_s=LEASE_S, bytes_done=1, bytes_total=2)
            store.succeed(mine, uri=f"/{mine.id}", size=2)
            done.put((owner, mine.id, mine.attempt))


def test_two_processes_do_each_of_many_requests_exactly_once(store: RequestStore, url: str) -> None:
    for number in range(MANY):
        store.ask(Request(f"m{number:03}"))
    spawning = multiprocessing.get_context("spawn")
    done = spawning.SimpleQueue()
    workers = [spawning.Process(target=claim_all, args=(url, owner, done)) for owner in ("one", "two")]
    for worker in workers:
        worker.start()
    # Read before they are joined: a process waits until what it put there is taken.
    claims = [done.get() for _ in range(MANY)]
    for worker in workers:
        worker.join(60)
    assert [worker.exitcode for worker in workers] == [0, 0]
    assert done.empty()
    assert sorted((name, attempt) for _, name, attempt in claims) == [(f"m{number:03}", 1) for number in range(MANY)]
    assert {row.state for row in store.list()} == {State.SYNCED}


def test_threads_that_open_a_new_store_at_once_all_find_its_table(url: str) -> None:
    def ask(number: int) -> None:
        with open_store(url) as store:
            store.ask(Request(f"m{number}"))

    with ThreadPoolExecutor(4) as pool:
        list(pool.map(ask, range(4)))
    with open_store(url) as store:
        assert len(store.list()) == 4


def test_two_who_ask_for_the_same_at_once_make_one_request(store: RequestStore) -> None:
    with ThreadPoolExecutor(4) as pool:
        rows = list(pool.map(lambda _: store.ask(Request("m")), range(8)))
    assert len(set(rows)) == 1
    assert len(store.list()) == 1


# --- the database


def test_a_file_that_is_read_only_is_not_waited_for(tmp_path: Path) -> None:
    url = f"sqlite:///{tmp_path}/requests.db"
    with open_store(url) as store:
        store.ask(Request("m"))
    with open_store(f"sqlite:///{tmp_path}/requests.db") as store:
        with store.rows.engine.connect() as connection:  # type: ignore[attr-defined]
            connection.exec_driver_sql("PRAGMA query_only = on")
        with pytest.raises(StoreError, match="readonly database") as refused:
            store.claim("one", lease_s=LEASE_S)
        assert not refused.value.passing


def test_a_table_that_is_dropped_is_not_waited_for(store: RequestStore, url: str) -> None:
    sql(url, "DROP TABLE morpheus_sync_requests")
    with pytest.raises(StoreError, match="morpheus_sync_requests") as refused:
        store.claim("one", lease_s=LEASE_S)
    assert not refused.value.passing


def test_a_disk_that_is_full_may_have_room_again(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/requests.db") as store:
        with store.rows.engine.connect() as connection:  # type: ignore[attr-defined]
            connection.exec_driver_sql("PRAGMA max_page_count = 1")
        with pytest.raises(StoreError, match="full") as refused:
            store.ask(Request("m", source="x" * 100_000))
        assert refused.value.passing
        assert refused.value.__context__ is None


def test_an_id_is_found_without_reading_every_row(tmp_path: Path) -> None:
    with open_store(f"sqlite:///{tmp_path}/requests.db") as store:
        rows: Any = store.rows
        query = sa.select(sa.literal(1)).select_from(TABLE).where(rows._named("m"))
        with rows.engine.connect() as connection:
            said = query.compile(rows.engine, compile_kwargs={"literal_binds": True})
            (plan,) = connection.exec_driver_sql(f"EXPLAIN QUERY PLAN {said}").mappings()
    assert "SEARCH" in plan["detail"]


def test_a_home_that_nobody_knows_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def unknown() -> Path:
        raise RuntimeError("Could not determine home directory.")

    monkeypatch.setattr(Path, "home", unknown)
    with pytest.raises(StoreError, match="MORPHEUS_SYNC_STORE"):
        open_store()


def test_a_server_that_comes_back_serves_on(server: Postgres) -> None:
    sql(server.url, "DROP TABLE IF EXISTS morpheus_sync_requests")
    with open_store(server.url) as store:
        store.ask(Request("m"))
        server.stop()
        with pytest.raises(StoreError) as lost:
            store.get("m")
        assert lost.value.passing
        server.start()
        assert claimed(store).id == "m"


def test_a_password_is_in_no_error_and_no_repr(server: Postgres) -> None:
    wrong = server.url_with(KEY)
    with pytest.raises(StoreError) as refused:
        open_store(wrong)
    assert "password authentication failed" in str(refused.value)
    assert KEY not in repr(refused.value)
    assert refused.value.__context__ is None
    with open_store(server.url) as store:
        assert server.password not in repr(store)


@pytest.mark.parametrize(
    "url",
    [
        f"mysql://me:{KEY}@host/db",
        f"postgresql://me:{KEY}@[::1/db",
        f"postgresql://me:{KEY}@host:port/db",
        f"{KEY}",
        "sqlite://",
        "sqlite:///:memory:",
    ],
)
def test_an_address_that_makes_no_sense_is_refused_without_repeating_it(url: str) -> None:
    with pytest.raises(StoreError, match="request store") as refused:
        open_store(url)
    assert KEY not in str(refused.value)
    assert refused.value.__context__ is None
    assert refused.value.hint is not None
    assert "postgresql://user:password@host/database" in refused.value.hint


@pytest.mark.parametrize("query", ["bogus=1", f"password={KEY}", f"passfile=/{KEY}"])
def test_what_follows_the_question_mark_is_not_shown(query: str) -> None:
    with pytest.raises(StoreError) as refused:
        open_store(f"postgresql://me:{KEY}@127.0.0.1:1/db?{query}")
    assert "postgresql://127.0.0.1:1/db" in str(refused.value)
    assert KEY not in str(refused.value)


def test_a_file_in_a_folder_that_does_not_exist_is_refused(tmp_path: Path) -> None:
    with pytest.raises(StoreError, match=r"/gone, does not exist"):
        open_store(f"sqlite:///{tmp_path}/gone/requests.db")


def test_the_default_lies_in_a_folder_of_the_user_s_own(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    with open_store() as store:
        store.ask(Request("m"))
    file = tmp_path / ".local" / "state" / "morpheus" / "requests.db"
    assert sqlite3.connect(file).execute("SELECT id FROM morpheus_sync_requests").fetchall() == [("m",)]
    assert stat.S_IMODE(file.parent.stat().st_mode) == 0o700


def test_the_database_s_libraries_are_loaded_only_where_a_store_is_opened() -> None:
    said = "import sys, morpheus_worker.sync.store; print({'sqlalchemy', 'psycopg'} & set(sys.modules))"
    assert subprocess.run([sys.executable, "-c", said], capture_output=True, text=True).stdout == "set()\n"


MOUNTS = """\
overlay / overlay rw 0 0
mfs#10.0.0.1:9421 /runpod-volume fuse rw 0 0
s3fs /mnt/with\\040space fuse.s3fs rw 0 0
fuse-overlayfs /home fuse.fuse-overlayfs rw 0 0
server:/modèles /mnt/modèles nfs4 rw 0 0
server:/export /mnt/nfs nfs4 rw 0 0
/dev/sda1 /mnt/nfs/local ext4 rw 0 0
"""


@pytest.mark.parametrize(
    ("path", "kind"),
    [
        ("/srv/requests.db", None),
        ("/runpod-volume/requests.db", "fuse"),
        ("/runpod-volume-2/requests.db", None),
        ("/mnt/with space/requests.db", "fuse.s3fs"),
        ("/mnt/modèles/requests.db", "nfs4"),
        ("/home/me/requests.db", None),
        ("/mnt/nfs/requests.db", "nfs4"),
        ("/mnt/nfs/local/requests.db", None),
    ],
)
def test_a_network_volume_is_known_by_what_is_mounted(path: str, kind: str | None) -> None:
    assert network_filesystem(Path(path), MOUNTS) == kind
