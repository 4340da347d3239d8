"""The worker that syncs what apps ask for: real stores and transfers, workers that are stopped, killed and cut off."""

from __future__ import annotations

import json
import logging
import multiprocessing
import sqlite3
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from pydantic import SecretStr

from morpheus_worker.manifest import Manifest
from morpheus_worker.settings import Settings
from morpheus_worker.sync.locking import Lock
from morpheus_worker.sync.requests import Request, State
from morpheus_worker.sync.store import RequestStore, Rows, open_store
from morpheus_worker.sync.terms import Event, SyncCode, SyncError
from morpheus_worker.syncing.keeping import Keeper
from morpheus_worker.syncing.pruning import prune
from morpheus_worker.syncing.requested import noted_as_gone, request
from morpheus_worker.syncing.running import sync
from morpheus_worker.syncing.service import Served, serve
from morpheus_worker.syncing.telling import unheard
from morpheus_worker.syncing.work import Work

from .model_server import CivitaiFile, ModelServer, stalled, status
from .postgres import Postgres, postgres
from .s3_server import ACCESS_KEY, SECRET_KEY, Bucket, new_bucket, sdk_of_nobody
from .service_child import PART_BYTES, serve_in_a_process, working
from .syncs import entry, safetensors

SIZE = 300_000
WAIT_S = 20.0


def model(seed: int = 0, size: int = SIZE) -> bytes:
    return safetensors(size, seed)


@dataclass(frozen=True, slots=True)
class Worker:
    served: Future[Served]
    stop: threading.Event

    def ended(self) -> Served:
        return self.served.result(WAIT_S)


@dataclass(frozen=True, slots=True)
class Desk:
    """A volume, a host of models and a store."""

    folder: Path
    server: ModelServer
    store: RequestStore
    url: str

    @property
    def settings(self) -> Settings:
        server = self.server
        return Settings(
            volume_root=self.folder / "volume", hf_endpoint=server.hf_endpoint, civitai_url=server.civitai_url
        )

    @property
    def cache(self) -> Path:
        return self.settings.cache_dir

    @contextmanager
    def work(self, *models: str) -> Iterator[Work]:
        with working(self.settings, *models) as work:
            yield work

    def serve_once(self, *models: str, **more: Any) -> Served:
        with self.work(*models) as work:
            return serve(work, self.store, once=True, **more)

    @contextmanager
    def worker(self, url: str, store: RequestStore | None = None, **more: Any) -> Iterator[Worker]:
        """One in a thread, stopped in the end however the test goes."""
        stop = threading.Event()
        with self.work(url) as work, ThreadPoolExecutor(1) as pool:
            try:
                yield Worker(pool.submit(serve, work, store or self.store, stop=stop, **more), stop)
            finally:
                stop.set()

    def app(self, statement: str, *values: Any) -> None:
        """What an app writes, past all that is ours."""
        with closing(sqlite3.connect(self.folder / "requests.db", timeout=WAIT_S)) as connection, connection:
            connection.execute(statement, values)

    def row(self, name: str) -> Request:
        found = self.store.get(name)
        assert found is not None
        return found


@pytest.fixture
def desk(tmp_path: Path) -> Iterator[Desk]:
    (tmp_path / "volume").mkdir()
    url = f"sqlite:///{tmp_path}/requests.db"
    with ModelServer() as server, open_store(url) as store:
        yield Desk(tmp_path, server, store, url)


class Heard:
    """What a worker told, and a way to wait for it."""

    def __init__(self) -> None:
        self.events: list[Event] = []
        self._news = threading.Condition()

    def __call__(self, event: Event) -> None:
        with self._news:
            self.events.append(event)
            self._news.notify_all()

    def wait_for(self, wanted: Callable[[Event], bool]) -> None:
        with self._news:
            assert self._news.wait_for(lambda: any(map(wanted, self.events)), WAIT_S), self.events


def eventually(holds: Callable[[], bool]) -> None:
    ended = threading.Event()
    for _ in range(int(WAIT_S / 0.02)):
        if holds():
            return
        ended.wait(0.02)
    raise AssertionError("it never came to hold")


# --- what is asked for is synced


def test_an_entry_of_the_manifest_lands_at_its_place(desk: Desk) -> None:
    url = desk.server.file("/sdxl.safetensors", model())
    desk.store.ask(Request("sdxl"))
    assert desk.serve_once(url) == Served(synced=1)
    row, file = desk.row("sdxl"), desk.cache / "checkpoints" / "sdxl.safetensors"
    assert (row.state, row.uri, row.attempt) == (State.SYNCED, str(file), 1)
    assert (row.bytes_done, row.bytes_total) == (len(model()), len(model()))
    assert file.read_bytes() == model()


@pytest.mark.parametrize("state", ["queued", "syncing"])
@pytest.mark.parametrize(
    ("kind", "name", "place"),
    [
        ("Checkpoint", "My Model", "checkpoints/My_Model-131960.safetensors"),
        ("LORA", None, "loras/my_model-131960.safetensors"),
        ("VAE", "My Model", "vae/My_Model-131960.safetensors"),
    ],
)
def test_a_row_with_an_id_and_a_source_lands_where_comfyui_looks_for_such_a_model(
    desk: Desk, state: str, kind: str, name: str | None, place: str
) -> None:
    desk.server.civitai(131960, [CivitaiFile(7, "my model.safetensors", model(), primary=True)], kind=kind)
    desk.app(
        "INSERT INTO morpheus_sync_requests (id, name, source, state) VALUES ('17', ?, 'civitai:131960', ?)",
        name,
        state,
    )
    assert desk.serve_once() == Served(synced=1)
    file = desk.cache / place
    assert desk.row("17").uri == str(file)
    assert file.read_bytes() == model()


def test_the_folder_that_a_file_is_in_tells_where_it_belongs(desk: Desk) -> None:
    desk.server.hf("owner/name", "vae/x.safetensors", model())
    desk.store.ask(Request("x", name="X", source="hf:owner/name/vae/x.safetensors"))
    assert desk.serve_once() == Served(synced=1)
    (file,) = (desk.cache / "vae").iterdir()
    assert file.name.startswith("X-")


def test_a_file_of_which_nothing_tells_where_it_belongs_wants_a_path_or_a_destination(desk: Desk) -> None:
    desk.server.civitai(5, [CivitaiFile(7, "x.safetensors", model(), primary=True)], kind="Other")
    desk.server.civitai(6, [CivitaiFile(8, "x", model(), primary=True)])
    plain = desk.server.file("/x.safetensors", model())
    desk.store.ask(Request("kind", source="civitai:5"))
    desk.store.ask(Request("ending", source="civitai:6"))
    desk.store.ask(Request("host", source=json.dumps({"kind": "https", "url": plain})))
    assert desk.serve_once() == Served(failed=3)
    for name in ("kind", "ending", "host"):
        row = desk.row(name)
        assert (row.state, row.error_code, row.attempt) == (State.ERROR, "invalid", 1)
        assert "'path' of the request" in (row.error or "")
        assert "destination" in (row.error or "")
    assert desk.server.bytes_sent < SIZE
    desk.store.ask(Request("kind", path="loras/mine.safetensors"))
    assert desk.serve_once() == Served(synced=1)
    assert desk.row("kind").uri == str(desk.cache / "loras" / "mine.safetensors")


# --- what apps asked for stays


def test_what_an_app_asked_for_is_pruned_with_unlisted_alone(desk: Desk) -> None:
    desk.server.civitai(5, [CivitaiFile(7, "x.safetensors", model(), primary=True)])
    urls = [desk.server.file(f"/{name}.safetensors", model(number)) for number, name in enumerate(("sdxl", "other"))]
    with desk.work(*urls) as work:
        sync(work, work.select(), on_event=unheard, stop=threading.Event())
    wishes = [Request("sdxl"), Request("chosen", source="civitai:5", path="loras/mine.safetensors")]
    for wish in (*wishes, Request("placed", source="civitai:5", path="models/name/5.safetensors")):
        desk.store.ask(wish)
    assert desk.serve_once(*urls) == Served(synced=3)
    asked = ["checkpoints/sdxl.safetensors", "loras/mine.safetensors", "models/name/5.safetensors"]
    with desk.work() as work:
        left = prune(work, delete=False)
        every = prune(work, delete=False, unlisted=True)
    assert [(str(item.path), item.why) for item in left.items] == [
        ("checkpoints/other.safetensors", "no entry names it")
    ]
    whys = {str(item.path): item.why for item in every.items}
    assert {path: whys[path] for path in asked} == dict.fromkeys(asked, "no entry names it: an app asked for it")


def test_what_an_app_asked_for_stays_its_own_when_a_sync_brings_another_version(desk: Desk) -> None:
    url = desk.server.file("/sdxl.safetensors", model())
    desk.store.ask(Request("sdxl"))
    assert desk.serve_once(url) == Served(synced=1)
    newer = entry("sdxl", desk.server.file("/v2/sdxl.safetensors", model(1)), content=model(1))
    with Work.of(desk.settings, manifest=Manifest("newer", (newer,)), lock=Lock()) as work:
        assert sync(work, work.select(), on_event=unheard, stop=threading.Event()).received
    with desk.work() as work:
        assert prune(work, delete=True).items == ()


def test_what_an_app_asked_for_stays_while_the_index_does_not_know_that(desk: Desk) -> None:
    url = desk.server.file("/sdxl.safetensors", model())
    with desk.work(url) as work:
        sync(work, work.select(), on_event=unheard, stop=threading.Event())
    (index,) = desk.cache.glob(".morpheus/receipts.json")
    before = index.read_bytes()
    desk.store.ask(Request("sdxl"))
    assert desk.serve_once(url) == Served(synced=1)
    index.write_bytes(before)
    with desk.work() as work:
        assert prune(work, delete=True).items == ()


def test_a_source_may_be_json_and_its_place_the_app_s_choice(desk: Desk) -> None:
    url = desk.server.file("/x", model(), headers={"Content-Type": "application/octet-stream"})
    source = json.dumps({"kind": "https", "url": url})
    desk.store.ask(Request("x", source=source, path="loras/mine.safetensors"))
    assert desk.serve_once() == Served(synced=1)
    assert (desk.cache / "loras" / "mine.safetensors").read_bytes() == model()


def test_a_request_whose_file_is_there_is_synced_without_a_transfer(desk: Desk) -> None:
    url = desk.server.file("/sdxl.safetensors", model())
    desk.store.ask(Request("sdxl"))
    desk.serve_once(url)
    before = len(desk.server.requests)
    desk.store.ask(Request("sdxl"), again=True)
    assert desk.serve_once(url) == Served(synced=1)
    assert len(desk.server.requests) == before


def test_several_requests_are_done_in_the_order_they_were_asked_for(desk: Desk) -> None:
    urls = [desk.server.file(f"/{name}.safetensors", model(number)) for number, name in enumerate("cab")]
    for name in "cab":
        desk.store.ask(Request(name))
    heard = Heard()
    assert desk.serve_once(*urls, on_event=heard) == Served(synced=3)
    assert [event.id for event in heard.events if event.kind == "published"] == ["c", "a", "b"]


# --- what cannot be had


@pytest.mark.parametrize(
    ("asked", "said"),
    [
        (Request("sdlx"), "did you mean 'sdxl'?"),
        (Request("x", source="{not json"), "not JSON"),
        (Request("x", source='["a"]'), ""),
        (Request("x", source='{"kind": "ftp"}'), "its source"),
        (Request("x", source="civitai:"), ""),
        (Request("x", source="https://github.com/owner/pack"), "is a node pack"),
        (Request("x", source="/etc/passwd"), "may not name a file of the worker's machine"),
        (Request("x", source='{"kind": "file", "path": "/etc/passwd"}'), "may not name a file"),
        (Request("x", source='{"kind": "https", "url": "http://example.org/x"}'), "changed on its way"),
        (Request("sdxl", path="../outside"), "its path has"),
        (Request("x", source="https://h/x.py", path="new/__init__.py"), "its path ends in .py"),
        (Request("sdxl", destination="s3://me:SECRET@bucket/p"), "its destination carries a credential"),
        (Request("x", source='{"kind": "https", "url": "https://h/x?token=SECRET"'), "not JSON"),
        (Request("x", source="s3://me:SECRET@bucket/x"), "carries a key"),
        (Request("sdxl", destination="/somewhere"), ""),
    ],
)
def test_a_request_that_makes_no_sense_ends_at_once_and_is_refused_when_asked(
    desk: Desk, asked: Request, said: str
) -> None:
    url = desk.server.file("/sdxl.safetensors", model())
    with desk.work(url) as work, pytest.raises(SyncError) as refused:
        request(work, desk.store, asked)
    assert refused.value.code is SyncCode.INVALID
    assert said in str(refused.value)
    assert "SECRET" not in str(refused.value)
    assert "SECRET" not in repr(refused.value.__context__)
    assert desk.store.list() == ()
    desk.store.ask(asked)
    heard = Heard()
    assert desk.serve_once(url, on_event=heard) == Served(failed=1)
    row = desk.row(asked.id)
    assert (row.state, row.error_code, row.error) == (State.ERROR, "invalid", str(refused.value))
    assert [(event.kind, event.id, event.code) for event in heard.events] == [("failed", asked.id, "invalid")]


def test_a_request_brings_nothing_into_a_node_pack(desk: Desk) -> None:
    (desk.cache / "pack").mkdir(parents=True)
    (desk.cache / "pack" / "__init__.py").touch()
    with desk.work() as work, pytest.raises(SyncError, match="into the node pack pack") as refused:
        request(work, desk.store, Request("x", source="https://h/x.js", path="pack/web/x.js"))
    assert refused.value.code is SyncCode.INVALID


@pytest.mark.parametrize("size", [SIZE, SIZE + 1])
def test_what_another_request_was_synced_to_is_not_replaced(desk: Desk, size: int) -> None:
    def source(name: str, content: bytes) -> str:
        return json.dumps({"kind": "https", "url": desk.server.file(f"/{name}.safetensors", content)})

    place = "loras/same.safetensors"
    desk.store.ask(Request("first", source=source("first", model()), path=place))
    desk.store.ask(Request("twin", source=source("first", model()), path=place))
    desk.store.ask(Request("other", source=source("other", model(1, size)), path=place))
    assert desk.serve_once() == Served(synced=2, failed=1)
    assert desk.row("other").error_code == "conflict"
    assert "the request 'first'" in (desk.row("other").error or "")
    assert (desk.cache / place).read_bytes() == model()
    desk.store.ask(Request("alone", source=source("alone", model(2)), path="loras/alone.safetensors"))
    desk.store.ask(Request("alone", source=source("newer", model(3, SIZE + 2)), path="loras/alone.safetensors"))
    assert desk.serve_once() == Served(synced=1)
    assert (desk.cache / "loras/alone.safetensors").read_bytes() == model(3, SIZE + 2)


def test_a_file_that_is_not_there_is_no_use_trying_again(desk: Desk) -> None:
    desk.store.ask(Request("gone"))
    assert desk.serve_once(desk.server.url("/gone.safetensors")) == Served(failed=1)
    row = desk.row("gone")
    assert (row.state, row.error_code, row.attempt) == (State.ERROR, "not_found", 1)


def test_what_fails_for_a_passing_reason_is_tried_so_often_and_then_ends_with_the_reason(desk: Desk) -> None:
    busy = status(503, Retry_After=0).on("GET", "HEAD")
    url = desk.server.file("/busy.safetensors", model(), faults=[busy])
    desk.store.ask(Request("busy"))
    assert desk.serve_once(url, attempts=2, retry_s=0.0) == Served(retried=1, failed=1)
    row = desk.row("busy")
    assert (row.state, row.error_code, row.attempt) == (State.ERROR, "unreachable", 2)
    assert "503" in (row.error or "")


# --- workers that end, and requests that are taken from them


def held_up(desk: Desk, name: str = "big") -> tuple[str, threading.Event]:
    """An address whose first answer stops in the middle until the event is set, while the others come."""
    go_on = threading.Event()
    return desk.server.file(f"/{name}.safetensors", model(), faults=[stalled(10_000, go_on).first(1)]), go_on


def under_way(desk: Desk, name: str = "big") -> None:
    desk.server.wait_for_bytes(SIZE - PART_BYTES)
    eventually(lambda: desk.row(name).state == State.SYNCING)


def test_a_worker_that_is_asked_to_stop_gives_its_request_back_and_the_next_goes_on_from_there(desk: Desk) -> None:
    url, _ = held_up(desk)
    desk.store.ask(Request("big"))
    with desk.worker(url) as worker:
        under_way(desk)
        worker.stop.set()
        assert worker.ended() == Served(returned=1)
    row = desk.row("big")
    assert (row.state, row.owner, row.attempt, row.lease_until) == (State.QUEUED, None, 0, None)
    before = desk.server.bytes_sent
    assert desk.serve_once(url) == Served(synced=1)
    assert desk.row("big").attempt == 1
    assert desk.server.bytes_sent - before < len(model())


def test_the_request_of_a_worker_that_was_killed_is_done_by_another(desk: Desk) -> None:
    url, _ = held_up(desk)
    desk.store.ask(Request("big"))
    spawned = multiprocessing.get_context("spawn")
    process = spawned.Process(target=serve_in_a_process, args=(desk.folder, desk.url, url, 1.0))
    process.start()
    try:
        under_way(desk)
    finally:
        process.kill()
        process.join()
    assert desk.row("big").state == State.SYNCING
    with desk.worker(url, poll_s=0.1):
        eventually(lambda: desk.row("big").state == State.SYNCED)
    row = desk.row("big")
    assert (row.attempt, row.owner) == (2, None)
    assert (desk.cache / "checkpoints" / "big.safetensors").read_bytes() == model()


def test_a_request_that_an_app_cancels_under_way_is_let_go(desk: Desk) -> None:
    url, _ = held_up(desk)
    desk.store.ask(Request("big"))
    with desk.worker(url, once=True, lease_s=0.6) as worker:
        under_way(desk)
        desk.app("UPDATE morpheus_sync_requests SET state = 'notsynced'")
        assert worker.ended() == Served(returned=1)
    row = desk.row("big")
    assert (row.state, row.owner, row.lease_until) == (State.NOTSYNCED, None, None)
    assert not (desk.cache / "checkpoints" / "big.safetensors").exists()


def test_a_request_that_another_worker_took_over_is_left_to_it(desk: Desk) -> None:
    url, _ = held_up(desk)
    desk.store.ask(Request("big"))
    with desk.worker(url, once=True, lease_s=0.6) as worker:
        under_way(desk)
        desk.app("UPDATE morpheus_sync_requests SET owner = 'another', attempt = 2, lease_until = 9e12")
        assert worker.ended() == Served(returned=1)
    row = desk.row("big")
    assert (row.state, row.owner, row.attempt) == (State.SYNCING, "another", 2)


def test_a_request_that_asks_for_something_else_under_way_gets_that(desk: Desk) -> None:
    url, go_on = held_up(desk)
    other = desk.server.file("/other.safetensors", model(1))
    desk.store.ask(Request("big", source=url, path="loras/big.safetensors"))
    with desk.worker(url, once=True) as worker:
        under_way(desk)
        desk.app(
            "UPDATE morpheus_sync_requests SET state = 'queued', source = ?, path = ?", other, "loras/o.safetensors"
        )
        go_on.set()
        assert worker.ended() == Served(synced=1, returned=1)
    row, file = desk.row("big"), desk.cache / "loras" / "o.safetensors"
    assert (row.state, row.uri, row.attempt) == (State.SYNCED, str(file), 1)
    assert file.read_bytes() == model(1)


def test_a_transfer_that_takes_longer_than_a_lease_keeps_its_request(desk: Desk) -> None:
    url, go_on = held_up(desk)
    desk.store.ask(Request("big"))
    with desk.worker(url, once=True, lease_s=0.3) as worker:
        under_way(desk)
        ends = desk.row("big").lease_until
        assert ends is not None
        eventually(lambda: (desk.row("big").lease_until or 0.0) > ends + 0.6)
        assert desk.store.claim("another", lease_s=1.0) is None
        go_on.set()
        assert worker.ended() == Served(synced=1)
    assert desk.row("big").attempt == 1


def test_how_far_a_transfer_is_can_be_seen_while_it_runs(desk: Desk) -> None:
    url, go_on = held_up(desk)
    desk.store.ask(Request("big"))
    with desk.worker(url, once=True, lease_s=0.9) as worker:
        eventually(lambda: (desk.row("big").bytes_done or 0) > 0)
        assert desk.row("big").bytes_total == len(model())
        assert (desk.row("big").bytes_done or 0) < len(model())
        go_on.set()
        worker.ended()


# --- a store that does not answer


@pytest.fixture(scope="module")
def server() -> Iterator[Postgres]:
    with postgres() as running:
        yield running


@pytest.mark.parametrize("lease_s", [60.0, 0.6], ids=["for less than a lease", "for longer than a lease"])
def test_a_worker_outlives_its_store_and_goes_on_when_it_is_back(
    desk: Desk, server: Postgres, lease_s: float, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.INFO)
    url, go_on = held_up(desk)
    heard = Heard()
    with open_store(server.url) as store:
        store.ask(Request("big"), again=True)
        with desk.worker(url, store, lease_s=lease_s, poll_s=0.1, on_event=heard):
            heard.wait_for(lambda event: bool(event.bytes_done))
            server.stop()
            if lease_s < 1:
                eventually(lambda: "its lease of 0.6 s could not be renewed" in caplog.text)
            go_on.set()
            if lease_s > 1:
                heard.wait_for(lambda event: event.kind == "published")
            server.start()
            eventually(lambda: getattr(store.get("big"), "state", None) == State.SYNCED)
        row = store.get("big")
    assert row is not None
    assert row.attempt == 1
    assert (desk.cache / "checkpoints" / "big.safetensors").read_bytes() == model()


class Counting:
    """The rows of another store, with a count of what is written."""

    def __init__(self, rows: Rows) -> None:
        self._rows, self.written = rows, 0

    def __getattr__(self, name: str) -> Any:
        return getattr(self._rows, name)

    def replace(self, before: Request, after: Request) -> bool:
        self.written += 1
        return self._rows.replace(before, after)


def test_a_thousand_words_of_progress_are_a_few_writes(desk: Desk) -> None:
    counting = Counting(desk.store.rows)
    store = RequestStore(counting)
    store.ask(Request("m"))
    held = store.claim("one", lease_s=1.5)
    assert held is not None
    with Keeper(store, held, lease_s=1.5) as keeper:
        for done in range(1000):
            keeper.hear(Event("progress", bytes_done=done, bytes_total=1000))
        eventually(lambda: desk.row("m").bytes_done == 999)
    assert counting.written < 10


# --- a bucket


@pytest.fixture
def bucket(monkeypatch: pytest.MonkeyPatch) -> Bucket:
    sdk_of_nobody(monkeypatch)
    return new_bucket()


def gone_by_now(work: Work, desk: Desk) -> tuple[str, ...]:
    return tuple(row.id for row in desk.store.list() if noted_as_gone(work, desk.store, row))


def test_a_bucket_gets_the_file_under_the_same_name_and_the_request_its_address(desk: Desk, bucket: Bucket) -> None:
    keys = {"models_access_key_id": SecretStr(ACCESS_KEY), "models_secret_access_key": SecretStr(SECRET_KEY)}
    settings = desk.settings.model_copy(update={"models_endpoint_url": bucket.url, **keys})
    desk.server.civitai(131960, [CivitaiFile(7, "my model.safetensors", model(), primary=True)])
    url = desk.server.file("/sdxl.safetensors", model(1))
    desk.store.ask(Request("17", name="My Model", source="civitai:131960"))
    desk.store.ask(Request("sdxl", destination=f"s3://{bucket.name}/other"))
    with working(settings, url) as work:
        assert serve(work, desk.store, once=True, destination=f"s3://{bucket.name}/p") == Served(synced=2)
        assert desk.row("17").uri == f"s3://{bucket.name}/p/models/My_Model/131960.safetensors"
        assert desk.row("sdxl").uri == f"s3://{bucket.name}/other/checkpoints/sdxl.safetensors"
        assert bucket.read("p/models/My_Model/131960.safetensors") == model()
        assert gone_by_now(work, desk) == ()
        for prefix, path in (("p", "models/My_Model/131960.safetensors"), ("other", "checkpoints/sdxl.safetensors")):
            receipt = work.buckets.receipt(f"s3://{bucket.name}/{prefix}", PurePosixPath(path))
            assert receipt is not None
            assert receipt.requested
        bucket.client.delete_object(Bucket=bucket.name, Key="other/checkpoints/sdxl.safetensors")
        assert gone_by_now(work, desk) == ("sdxl",)
    assert not desk.cache.exists()


# --- the truth


def test_what_was_synced_is_looked_at_between_requests_and_keeps_none_waiting(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morpheus_worker.syncing.service.LOOK_S", 0.0)
    for name in "abc":
        desk.app(
            "INSERT INTO morpheus_sync_requests (id, state, uri) VALUES (?, 'synced', ?)", name, f"{desk.cache}/{name}"
        )
    desk.cache.mkdir(parents=True)
    url = desk.server.file("/sdxl.safetensors", model())
    desk.store.ask(Request("sdxl"))
    states: list[str] = []

    def note(event: Event) -> None:
        if event.kind == "published":
            states.extend(desk.row(name).state for name in "abc")

    assert desk.serve_once(url, on_event=note) == Served(synced=1)
    assert states == ["notsynced", "synced", "synced"]
    assert [desk.row(name).state for name in "abc"] == ["notsynced"] * 3


def synced(desk: Desk, name: str = "sdxl") -> tuple[str, Path]:
    url = desk.server.file(f"/{name}.safetensors", model())
    desk.store.ask(Request(name))
    assert desk.serve_once(url) == Served(synced=1)
    return url, desk.cache / "checkpoints" / f"{name}.safetensors"


def test_a_request_whose_file_is_gone_is_not_synced_any_more(desk: Desk) -> None:
    url, file = synced(desk)
    file.unlink()
    assert desk.serve_once(url) == Served()
    assert (desk.row("sdxl").state, desk.row("sdxl").uri) == (State.NOTSYNCED, None)


def test_a_volume_that_is_not_mounted_says_nothing_of_what_was_synced(desk: Desk) -> None:
    url, _ = synced(desk)
    (desk.folder / "volume").rename(desk.folder / "elsewhere")
    with desk.work(url) as work:
        assert gone_by_now(work, desk) == ()
    assert desk.row("sdxl").state == State.SYNCED


@pytest.mark.parametrize("uri", ["/other/volume/sdxl.safetensors", "", None, 5, "CACHE/a\0b"])
def test_a_place_that_this_worker_cannot_see_is_believed(desk: Desk, uri: object) -> None:
    uri = uri.replace("CACHE", str(desk.cache)) if isinstance(uri, str) else uri
    desk.app("INSERT INTO morpheus_sync_requests (id, state, uri) VALUES ('x', 'synced', ?)", uri)
    desk.cache.mkdir(parents=True)
    with desk.work() as work:
        assert gone_by_now(work, desk) == ()


def test_asking_for_what_is_synced_asks_the_volume(desk: Desk) -> None:
    url, file = synced(desk)
    with desk.work(url) as work:
        assert request(work, desk.store, Request("sdxl")).state == State.SYNCED
        assert request(work, desk.store, Request("sdxl"), force=True).state == State.QUEUED
        assert desk.serve_once(url) == Served(synced=1)
        file.unlink()
        assert request(work, desk.store, Request("sdxl")).state == State.QUEUED


def test_a_state_that_no_worker_knows_is_told_once(
    desk: Desk, caplog: pytest.LogCaptureFixture, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morpheus_worker.syncing.service.RECONCILE_S", 0.0)
    desk.app("INSERT INTO morpheus_sync_requests (id, state) VALUES ('x', 'archived')")
    urls = [desk.server.file(f"/{name}.safetensors", model(number)) for number, name in enumerate("ab")]
    for name in "ab":
        desk.store.ask(Request(name))
    with caplog.at_level(logging.WARNING):
        assert desk.serve_once(*urls) == Served(synced=2)
    said = [record.getMessage() for record in caplog.records if "'archived'" in record.getMessage()]
    assert said == ["'x' is in state 'archived', which no worker knows; it is left alone"]
    assert desk.row("x").state == "archived"
