"""Models that are read from one store and sent to another: each has its own endpoint and its own key, and no other."""

from __future__ import annotations

import threading
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

import pytest
from moto.server import ThreadedMotoServer

from morpheus_worker.sync.requests import Request
from morpheus_worker.sync.store import open_store
from morpheus_worker.sync.terms import SyncCode
from morpheus_worker.syncing.service import Served, serve
from tests.integration.model_server import ModelServer
from tests.integration.s3_server import sdk_of_nobody, sdk_session
from tests.integration.syncs import Volume, entry, safetensors

LARGE = safetensors(600_000, 2)
OTHER = safetensors(600_000, 3)


@dataclass
class Store:
    """A store of its own, with a bucket in it, that remembers the method, target and headers of what it was asked."""

    url: str
    key: str
    secret: str
    bucket: str = field(default_factory=lambda: f"bucket-{uuid.uuid4().hex[:12]}")
    asked: list[tuple[str, str, str]] = field(default_factory=list)

    def put(self, key: str, content: bytes) -> str:
        self.client.put_object(Bucket=self.bucket, Key=key, Body=content)
        self.asked.clear()
        return f"s3://{self.bucket}/{key}"

    def read(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.bucket, Key=key)["Body"].read()
        return content

    @property
    def client(self) -> Any:
        return sdk_session().client(
            "s3",
            endpoint_url=self.url,
            region_name="us-east-1",
            aws_access_key_id=self.key,
            aws_secret_access_key=self.secret,
        )

    @property
    def methods(self) -> set[str]:
        return {method for method, _, _ in self.asked}

    def heard_of(self, *words: str) -> bool:
        return any(word in each for asked in self.asked for each in asked for word in words)

    def variables(self, prefix: str) -> dict[str, str]:
        told = {"ENDPOINT_URL": self.url, "ACCESS_KEY_ID": self.key, "SECRET_ACCESS_KEY": self.secret}
        return {f"MORPHEUS_{prefix}_{name}": value for name, value in told.items()}


def running(name: str) -> tuple[ThreadedMotoServer, Store]:
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    store = Store(f"http://127.0.0.1:{server.get_host_and_port()[1]}", f"AKID{name}", f"not+a/real+{name}")
    answering: Any = server._server
    app = answering.app

    def noting(environ: dict[str, Any], start: Any) -> Any:
        headers = " ".join(str(value) for key, value in environ.items() if key.startswith("HTTP_"))
        target = f"{environ['PATH_INFO']}?{environ.get('QUERY_STRING', '')}"
        store.asked.append((environ["REQUEST_METHOD"], target, headers))
        return app(environ, start)

    answering.app = noting
    store.client.create_bucket(Bucket=store.bucket)
    return server, store


@pytest.fixture(scope="module")
def stores() -> Iterator[tuple[Store, Store]]:
    (first, source), (second, destination) = running("SOURCE"), running("DESTINATION")
    yield source, destination
    first.stop()
    second.stop()


@pytest.fixture
def source(stores: tuple[Store, Store]) -> Store:
    stores[0].asked.clear()
    return stores[0]


@pytest.fixture
def destination(stores: tuple[Store, Store]) -> Store:
    stores[1].asked.clear()
    return stores[1]


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_of_nobody(monkeypatch)


@pytest.fixture
def volume(tmp_path: Path, source: Store, destination: Store) -> Volume:
    return Volume(tmp_path / "volume", {**source.variables("MODELS"), **destination.variables("MODELS_TO")})


def assert_apart(source: Store, destination: Store) -> None:
    """No key of one has ever reached the other, and each was asked for its own bucket alone."""
    assert source.asked
    assert destination.asked
    assert source.methods <= {"GET", "HEAD"}
    assert all(source.key in headers for _, _, headers in source.asked)
    assert all(destination.key in headers for _, _, headers in destination.asked)
    assert not source.heard_of(destination.key, destination.secret, destination.bucket)
    assert not destination.heard_of(source.key, source.secret, source.bucket)


def test_a_source_in_one_store_is_sent_to_another(volume: Volume, source: Store, destination: Store) -> None:
    uri, to = source.put("a/model.safetensors", LARGE), f"s3://{destination.bucket}/p"
    wanted = entry("model", {"kind": "s3", "uri": uri}, content=LARGE)
    outcome = volume.one(wanted, destination=to)
    assert outcome.action == "fetched", outcome.error
    assert destination.methods >= {"HEAD", "PUT"}
    assert_apart(source, destination)
    assert destination.read("p/checkpoints/model.safetensors") == LARGE
    source.asked.clear()
    assert volume.one(wanted, destination=to).action == "present"
    assert source.asked == []


def test_a_mirror_in_one_store_is_sent_to_another(volume: Volume, source: Store, destination: Store) -> None:
    source.put("mirror/checkpoints/model.safetensors", LARGE)
    volume.environment = {**volume.environment, "MORPHEUS_MODELS_MIRROR": f"s3://{source.bucket}/mirror"}
    with ModelServer() as server:
        wanted = entry("model", server.url("/none"), content=LARGE)
        assert volume.one(wanted, destination=f"s3://{destination.bucket}/q").action == "fetched"
    assert_apart(source, destination)
    assert destination.read("q/checkpoints/model.safetensors") == LARGE


def test_what_lies_at_the_destination_is_asked_of_the_destination(
    volume: Volume, source: Store, destination: Store
) -> None:
    to, wanted = f"s3://{destination.bucket}/r", entry("model", {"kind": "s3", "uri": "s3://none/x"}, content=LARGE)
    destination.put("r/checkpoints/model.safetensors", OTHER)
    error = volume.one(wanted, destination=to).error
    assert error is not None
    assert error.code is SyncCode.CONFLICT
    assert source.asked == []
    assert destination.asked


def test_the_service_reads_in_one_store_and_sends_to_another(
    volume: Volume, source: Store, destination: Store, tmp_path: Path
) -> None:
    uri = source.put("a/model.safetensors", LARGE)
    with open_store(f"sqlite:///{tmp_path}/requests.db") as store, volume.work() as work:
        store.ask(Request("17", name="My Model", source=uri))
        stop = threading.Event()
        assert serve(work, store, once=True, destination=f"s3://{destination.bucket}/s", stop=stop) == Served(synced=1)
        row = store.get("17")
        assert row is not None
        assert row.uri is not None
        assert row.uri.startswith(f"s3://{destination.bucket}/s/models/My_Model/")
        assert work.buckets.has(row.uri) == len(LARGE)
        path = PurePosixPath(row.uri.partition("/s/")[2])
        receipt = work.buckets.receipt(f"s3://{destination.bucket}/s", path)
        assert receipt is not None
        assert receipt.requested
    assert_apart(source, destination)


def test_a_destination_without_a_key_of_its_own_gets_none(volume: Volume, source: Store, destination: Store) -> None:
    uri = source.put("a/model.safetensors", LARGE)
    given = {**source.variables("MODELS"), "MORPHEUS_MODELS_TO_ENDPOINT_URL": destination.url}
    volume.environment = given
    error = volume.one(
        entry("model", {"kind": "s3", "uri": uri}, content=LARGE), destination=f"s3://{destination.bucket}/t"
    ).error
    assert error is not None
    assert error.code is SyncCode.ACCESS_DENIED
    assert "MORPHEUS_MODELS_TO_ACCESS_KEY_ID" in str(error)
    assert destination.asked == []


def test_two_stores_may_have_the_same_names(volume: Volume, source: Store) -> None:
    with volume.work() as work:
        uri = f"s3://{source.bucket}/x"
        assert not work.buckets.are_one({"kind": "s3", "uri": uri}, uri)
    volume.environment = source.variables("MODELS")
    with volume.work() as work:
        assert work.buckets.are_one({"kind": "s3", "uri": uri}, uri)
        assert not work.buckets.are_one({"kind": "s3", "uri": uri}, f"{uri}y")
