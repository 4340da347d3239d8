"""Models in buckets: moto's store for what goes well, a raw one for what stores do besides."""

from __future__ import annotations

import contextlib
import hashlib
import re
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field, replace
from pathlib import Path, PurePosixPath
from typing import Any

import boto3
import moto.s3.models
import pytest

from morpheus_worker.s3.uploading import MIB
from morpheus_worker.settings import Settings
from morpheus_worker.sync.buckets import Buckets, multipart
from morpheus_worker.sync.buckets.clients import Patience
from morpheus_worker.sync.buckets.putting import Sizes
from morpheus_worker.sync.cache import Cache, Receipts
from morpheus_worker.sync.receipting import receipt_text
from morpheus_worker.sync.terms import Body, Feed, Pace, Receipt, Resolved, SyncCode, SyncError
from tests.integration.s3_server import (
    ACCESS_KEY,
    SECRET_KEY,
    WAIT_S,
    Answer,
    Bucket,
    RawStore,
    Request,
    moto_url,
    new_bucket,
    raw_store,
    refusal,
    s3_settings,
    sdk_of_nobody,
    sdk_session,
)

CONTENT = bytes(range(256)) * 40
PATH = PurePosixPath("checkpoints/x.safetensors")
SHA256 = hashlib.sha256(CONTENT).hexdigest()
PACE = Pace(first_wait_s=0.001, longest_wait_s=0.01, tries=4, connections=4)
QUICK = Patience(connect_s=2.0, look_s=5.0, look_tries=1, fetch_s=5.0, fetch_tries=1, send_s=5.0, send_tries=2,
                 complete_s=5.0, complete_tries=2, settle_s=0.0)  # fmt: skip
SMALL = Sizes(part_bytes=MIB, unknown_part_bytes=MIB)


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_of_nobody(monkeypatch)


@pytest.fixture(autouse=True)
def _small_parts(monkeypatch: pytest.MonkeyPatch) -> None:
    """S3 takes no part of less than 5 MiB but the last; here it would only take time."""
    monkeypatch.setattr(moto.s3.models, "S3_UPLOAD_PART_MIN_SIZE", MIB)


@pytest.fixture
def bucket() -> Bucket:
    return new_bucket()


@pytest.fixture
def raw() -> Iterator[RawStore]:
    with raw_store() as running:
        yield running


def models_settings(url: str, **more: str) -> Settings:
    keys = {"MORPHEUS_MODELS_ACCESS_KEY_ID": ACCESS_KEY, "MORPHEUS_MODELS_SECRET_ACCESS_KEY": SECRET_KEY}
    return Settings.from_environment({"MORPHEUS_MODELS_ENDPOINT_URL": url, **keys, **more})


@contextlib.contextmanager
def opened(settings: Settings, *, patience: Patience = QUICK, sizes: Sizes = SMALL) -> Iterator[Buckets]:
    buckets = Buckets(settings, patience=patience, sizes=sizes)
    try:
        yield buckets
    finally:
        buckets.close()


@pytest.fixture
def buckets() -> Iterator[Buckets]:
    with opened(models_settings(moto_url())) as made:
        yield made


def content_of(size: int) -> bytes:
    """Bytes of which no two parts are alike."""
    return b"".join(number.to_bytes(8) * 8192 for number in range(-(-size // 65536)))[:size]


def read_all(body: Body, buffer_bytes: int = 1 << 20) -> bytes:
    read, buffer = bytearray(), memoryview(bytearray(buffer_bytes))
    while count := body.readinto(buffer):
        read += buffer[:count]
    return bytes(read)


def failed(code: SyncCode, doing: Callable[[], Any]) -> SyncError:
    with pytest.raises(SyncError) as caught:
        doing()
    assert caught.value.code is code, caught.value
    for hidden in (ACCESS_KEY, SECRET_KEY, "Signature"):
        assert hidden not in str(caught.value)
    return caught.value


@dataclass
class Memory:
    """A feed from memory. `cuts` says after how many bytes its answers break off, in their order."""

    content: bytes
    ranges: bool = True
    honours_ranges: bool = True
    says_size: bool = True
    cuts: list[int] = field(default_factory=list)
    resolved: Resolved = field(init=False)
    shown: str = "https://host.example/x.safetensors"
    asked: list[tuple[int, int | None]] = field(default_factory=list)
    before_read: Callable[[int], None] = lambda _: None
    """Called with where in the file a read begins."""

    def __post_init__(self) -> None:
        size = len(self.content) if self.says_size else None
        self.resolved = Resolved({"kind": "https"}, size=size, etag='"1"')

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[Body]:
        self.asked.append((start, end))
        honoured = self.honours_ranges or (start == 0 and end is None)
        start, end = (start, end) if honoured else (0, None)
        cut = self.cuts.pop(0) if self.cuts else None
        yield _MemoryBody(self, start, len(self.content) if self.says_size else None, honoured, end, cut)


@dataclass
class _MemoryBody:
    feed: Memory
    start: int
    total: int | None
    ranged: bool
    end: int | None
    cut: int | None
    at: int = 0

    def readinto(self, buffer: memoryview) -> int:
        self.feed.before_read(self.start + self.at)
        if self.cut is not None and self.at >= self.cut:
            raise SyncError(SyncCode.UNREACHABLE, "was cut", passing=True)
        most = min(len(buffer), 65536) if self.cut is None else min(len(buffer), self.cut - self.at)
        content = self.feed.content[self.start + self.at : self.end][:most]
        buffer[: len(content)] = content
        self.at += len(content)
        return len(content)


# As a source.


def test_what_the_store_says_of_an_object(bucket: Bucket, buckets: Buckets) -> None:
    uri = bucket.put("models/checkpoints/x.safetensors", CONTENT)
    resolved = buckets.resolve(uri)
    assert resolved.source == {"kind": "s3", "uri": uri}
    assert (resolved.size, resolved.sha256, resolved.filename) == (len(CONTENT), None, "x.safetensors")
    assert resolved.etag == f'"{hashlib.md5(CONTENT).hexdigest()}"'
    assert not resolved.names_version


def test_ranges_of_an_object(bucket: Bucket, buckets: Buckets) -> None:
    feed = buckets.feed(buckets.resolve(bucket.put("x", CONTENT)))
    for start, end in [(0, None), (0, 10), (5, 6), (100, None), (len(CONTENT) - 1, len(CONTENT)), (0, len(CONTENT))]:
        with feed.opened(start, end) as body:
            assert (body.start, body.total, body.ranged) == (start, len(CONTENT), True)
            assert read_all(body, 1000) == CONTENT[start:end]


def test_several_ranges_at_once(bucket: Bucket, buckets: Buckets) -> None:
    content = content_of(3 * MIB)
    feed = buckets.feed(buckets.resolve(bucket.put("x", content)))
    with feed.opened(MIB, 2 * MIB) as second, feed.opened(0, MIB) as first:
        assert read_all(first) + read_all(second) == content[: 2 * MIB]


@pytest.mark.parametrize(
    "key", ["größe 中文.safetensors", "a b+c.pt", "100%.pt", "a&b=c;d,e@f:g?h#i.pt", "'quoted'.pt"]
)
def test_names_with_all_kinds_of_characters(bucket: Bucket, buckets: Buckets, key: str) -> None:
    uri = f"s3://{bucket.name}/models/{key}"
    done = buckets.put(Memory(CONTENT), uri, pace=PACE)
    assert (done.size, done.sha256) == (len(CONTENT), SHA256)
    with buckets.feed(buckets.resolve(uri)).opened(0, None) as body:
        assert read_all(body) == CONTENT


def test_an_object_that_was_replaced_is_another_version(bucket: Bucket, buckets: Buckets) -> None:
    feed = buckets.feed(buckets.resolve(bucket.put("x", CONTENT)))
    bucket.put("x", CONTENT[::-1])
    for start, end in [(0, 10), (0, None)]:
        with pytest.raises(SyncError) as caught, feed.opened(start, end):
            pass
        assert caught.value.code is SyncCode.CHANGED


def test_what_is_not_there(bucket: Bucket, buckets: Buckets) -> None:
    uri = f"s3://{bucket.name}/models/x.safetensors"
    error = failed(SyncCode.NOT_FOUND, lambda: buckets.resolve(uri))
    assert bucket.name in error.what
    assert "x.safetensors" in error.what
    assert moto_url().removeprefix("http://") in error.what
    failed(SyncCode.NOT_FOUND, lambda: buckets.resolve("s3://no-such-bucket-anywhere/x"))
    assert buckets.has(uri) is None
    assert buckets.has(bucket.put("models/x.safetensors", CONTENT)) == len(CONTENT)


def test_what_is_no_name(buckets: Buckets) -> None:
    for uri in ("", "x", "s3://bkt", "s3://bkt/a/../b", "https://bkt/x"):
        failed(SyncCode.INVALID, lambda uri=uri: buckets.resolve(uri))  # type: ignore[misc]


def test_an_object_that_may_not_be_read(bucket: Bucket, raw: RawStore) -> None:
    raw.answer = lambda _: refusal(403, "AccessDenied")
    with opened(models_settings(raw.url)) as buckets:
        failed(SyncCode.ACCESS_DENIED, lambda: buckets.resolve("s3://bkt/x"))
        feed = buckets.feed(Resolved({"kind": "s3", "uri": "s3://bkt/x"}, size=10, etag='"1"'))
        failed(SyncCode.ACCESS_DENIED, lambda: feed.opened(0, 5).__enter__())
        failed(SyncCode.ACCESS_DENIED, lambda: buckets.has("s3://bkt/x"))
        assert buckets.mirror("s3://bkt", PATH) is None


def raw_feed(buckets: Buckets, size: int | None = 100) -> Feed:
    return buckets.feed(Resolved({"kind": "s3", "uri": "s3://bkt/x.safetensors"}, size=size, etag='"1"'))


def ranged(content: bytes, start: int, total: int, etag: str = '"1"', **more: Any) -> Answer:
    end = start + (more.get("length") or len(content)) - 1
    return Answer(206, content, {"ETag": etag, "Content-Range": f"bytes {start}-{end}/{total}"}, **more)


def test_a_store_that_is_busy_may_be_asked_again(raw: RawStore) -> None:
    busy = refusal(503, "SlowDown")
    raw.answer = lambda _: replace(busy, headers={**busy.headers, "Retry-After": "3"})
    with opened(models_settings(raw.url)) as buckets:
        error = failed(SyncCode.UNREACHABLE, lambda: raw_feed(buckets).opened(0, 5).__enter__())
        assert (error.passing, error.after_s) == (True, 3.0)


def test_an_answer_that_is_cut_may_be_asked_again(raw: RawStore) -> None:
    raw.answer = lambda _: ranged(b"0123", 0, 100, length=50)
    with opened(models_settings(raw.url)) as buckets, raw_feed(buckets).opened(0, 50) as body:
        error = failed(SyncCode.UNREACHABLE, lambda: read_all(body))
        assert error.passing


def test_an_answer_that_stalls_may_be_asked_again(raw: RawStore) -> None:
    raw.answer = lambda _: ranged(b"0123", 0, 100, length=50, stalls=True)
    with (
        opened(models_settings(raw.url), patience=replace(QUICK, fetch_s=0.2)) as buckets,
        raw_feed(buckets).opened(0, 50) as body,
    ):
        assert failed(SyncCode.UNREACHABLE, lambda: read_all(body)).passing


@pytest.mark.parametrize(
    ("answer", "code"),
    [
        # It ignores what it was asked for.
        (ranged(b"01234", 0, 100, etag='"2"'), SyncCode.CHANGED),
        (ranged(b"01234", 0, 90), SyncCode.CHANGED),
        (ranged(b"01234", 7, 100), SyncCode.UNREACHABLE),
        (refusal(416, "InvalidRange"), SyncCode.CHANGED),
    ],
)
def test_bytes_of_something_else_are_not_taken(raw: RawStore, answer: Answer, code: SyncCode) -> None:
    raw.answer = lambda _: answer
    with opened(models_settings(raw.url)) as buckets:
        failed(code, lambda: raw_feed(buckets).opened(0, 5).__enter__())


def test_a_store_without_ranges_says_so(raw: RawStore) -> None:
    raw.answer = lambda _: Answer(200, CONTENT, {"ETag": '"1"'})
    with opened(models_settings(raw.url)) as buckets, raw_feed(buckets, len(CONTENT)).opened(5, 10) as body:
        assert (body.ranged, body.start, body.total) == (False, 0, len(CONTENT))


def test_a_store_without_conditions_is_asked_without(raw: RawStore) -> None:
    def answer(request: Request) -> Answer:
        asks = any(name.lower() == "if-match" for name in request.headers)
        return refusal(501, "NotImplemented") if asks else ranged(b"01234", 0, 100)

    raw.answer = answer
    with opened(models_settings(raw.url)) as buckets:
        feed = raw_feed(buckets)
        for _ in range(2):
            with feed.opened(0, 5) as body:
                assert read_all(body) == b"01234"
    # It is asked once only.
    assert len(raw.requests) == 3


# With keys.


@pytest.mark.parametrize("status", [301, 302, 307, 308])
def test_keys_are_sent_nowhere_else(raw: RawStore, status: int) -> None:
    with raw_store() as other:
        moved = refusal(status, "PermanentRedirect" if status == 301 else "TemporaryRedirect")
        raw.answer = lambda _: replace(moved, headers={**moved.headers, "Location": f"{other.url}/bkt/x"})
        with opened(models_settings(raw.url)) as buckets:
            for doing in (
                lambda: buckets.resolve("s3://bkt/x"),
                lambda: raw_feed(buckets).opened(0, 5).__enter__(),
                lambda: buckets.put(Memory(CONTENT), "s3://bkt/x", pace=PACE),
            ):
                with pytest.raises(SyncError):
                    doing()
        assert raw.requests
        assert other.requests == []


def test_the_outputs_keys_are_not_sent_to_the_models_endpoint(raw: RawStore, monkeypatch: pytest.MonkeyPatch) -> None:
    given = s3_settings("https://outputs.example.com", "outputs", MORPHEUS_MODELS_ENDPOINT_URL=raw.url)
    with opened(given) as buckets:
        error = failed(SyncCode.ACCESS_DENIED, lambda: buckets.resolve("s3://bkt/x"))
        assert "MORPHEUS_MODELS_ACCESS_KEY_ID" in str(error)
    assert raw.requests == []
    # The AWS SDK's own are for whatever endpoint is set.
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSDKSDKSDKSDKSDKS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sdk")
    monkeypatch.setattr(boto3.session, "Session", type(sdk_session()))
    with opened(given) as buckets, contextlib.suppress(SyncError):
        buckets.resolve("s3://bkt/x")
    shown = str(raw.requests)
    assert "AKIDSDKSDKSDKSDKSDKS" in shown
    assert ACCESS_KEY not in shown


def test_amazons_keys_are_not_sent_to_google(raw: RawStore, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDSDKSDKSDKSDKSDKS")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "sdk")
    with opened(s3_settings(raw.url, "b", MORPHEUS_GS_ENDPOINT_URL=raw.url)) as buckets:
        for doing in (
            lambda: buckets.resolve("gs://bkt/x"),
            lambda: buckets.put(Memory(CONTENT), "gs://bkt/x"),
            lambda: buckets.mirror("gs://bkt", PATH),
        ):
            error = failed(SyncCode.ACCESS_DENIED, doing)
            for told in ("MORPHEUS_GS_ACCESS_KEY_ID", "MORPHEUS_GS_SECRET_ACCESS_KEY", "console.cloud.google.com"):
                assert told in str(error)
    assert raw.requests == []


def test_gs_names(bucket: Bucket) -> None:
    keys = {"MORPHEUS_GS_ACCESS_KEY_ID": ACCESS_KEY, "MORPHEUS_GS_SECRET_ACCESS_KEY": SECRET_KEY}
    given = Settings.from_environment({"MORPHEUS_GS_ENDPOINT_URL": moto_url(), **keys})
    content = content_of(2 * MIB + 99)
    prefix = f"gs://{bucket.name}/models"
    with opened(given) as buckets:
        uri = buckets.at(prefix, PATH)
        done = buckets.put(Memory(content), uri, pace=PACE)
        assert buckets.mirror(prefix, PATH) == {"kind": "gs", "uri": uri}
        resolved = buckets.resolve(uri)
        assert (resolved.source["kind"], resolved.size) == ("gs", len(content))
        buckets.put_receipt(prefix, Receipt(PATH, done.size, None, done.sha256))
        assert buckets.resolve(uri).sha256 == hashlib.sha256(content).hexdigest()
    assert bucket.read("models/checkpoints/x.safetensors") == content


def test_google_and_runpod_are_asked_in_their_regions(raw: RawStore) -> None:
    keys = {"MORPHEUS_GS_ACCESS_KEY_ID": ACCESS_KEY, "MORPHEUS_GS_SECRET_ACCESS_KEY": SECRET_KEY}
    given = models_settings(raw.url, MORPHEUS_MODELS_REGION="EU-RO-1", MORPHEUS_GS_ENDPOINT_URL=raw.url, **keys)
    raw.answer = lambda _: Answer(200, CONTENT, {"ETag": '"1"'})
    with opened(given) as buckets:
        assert buckets.has("s3://volume123/x") == buckets.has("gs://bkt/x") == len(CONTENT)
    signed = [request.headers["Authorization"] for request in raw.requests]
    assert "/EU-RO-1/s3/aws4_request" in signed[0]
    assert "/auto/s3/aws4_request" in signed[1]
    assert [request.target for request in raw.requests] == ["/volume123/x", "/bkt/x"]


# As a destination.


def test_a_small_file_is_sent_whole(bucket: Bucket, buckets: Buckets) -> None:
    heard: list[int] = []
    uri = f"s3://{bucket.name}/x.safetensors"
    done = buckets.put(Memory(CONTENT), uri, size=len(CONTENT), expect_sha256=SHA256, pace=PACE, on_bytes=heard.append)
    assert (done.size, done.sha256, done.received) == (len(CONTENT), SHA256, len(CONTENT))
    assert heard[-1] == len(CONTENT)
    assert bucket.read("x.safetensors") == CONTENT
    assert buckets.resolve(uri).sha256 == SHA256
    assert not buckets.resolve(uri).etag.endswith('-1"')  # type: ignore[union-attr]


def test_an_empty_file(bucket: Bucket, buckets: Buckets) -> None:
    assert buckets.put(Memory(b""), f"s3://{bucket.name}/x", pace=PACE).size == 0
    assert bucket.read("x") == b""


def test_a_file_of_seventeen_parts_from_one_bucket_to_another(bucket: Bucket, buckets: Buckets) -> None:
    content = content_of(16 * MIB + 12345)
    sha256 = hashlib.sha256(content).hexdigest()
    there = new_bucket()
    feed = buckets.feed(buckets.resolve(bucket.put("x", content)))
    heard: list[int] = []
    uri = f"s3://{there.name}/models/x.safetensors"
    done = buckets.put(feed, uri, expect_sha256=sha256, pace=PACE, connections=3, on_bytes=heard.append)
    assert (done.size, done.sha256, done.received) == (len(content), sha256, len(content))
    assert heard == sorted(heard)
    assert heard[-1] == len(content)
    said = there.client.head_object(Bucket=there.name, Key="models/x.safetensors")
    assert said["ETag"].endswith('-17"')
    assert said["Metadata"] == {"sha256": sha256}
    assert there.read("models/x.safetensors") == content
    assert there.unfinished() == []


@pytest.mark.parametrize("kind", ["unknown size", "no ranges", "ranges that are not honoured"])
def test_a_host_that_sends_everything_at_once(bucket: Bucket, buckets: Buckets, kind: str) -> None:
    content = content_of(3 * MIB)
    feed = Memory(
        content,
        says_size=kind != "unknown size",
        ranges=kind != "no ranges",
        honours_ranges=kind == "unknown size",
    )
    done = buckets.put(feed, f"s3://{bucket.name}/x", pace=PACE)
    assert (done.size, done.sha256) == (len(content), hashlib.sha256(content).hexdigest())
    assert bucket.read("x") == content
    assert bucket.unfinished() == []


def test_what_has_no_version_comes_in_one_answer(bucket: Bucket, buckets: Buckets) -> None:
    """Ranges of two versions could not be told from each other."""
    content = content_of(2 * MIB + 99)
    feed = Memory(content)
    feed.resolved = replace(feed.resolved, etag=None)
    buckets.put(feed, f"s3://{bucket.name}/x", pace=PACE)
    assert feed.asked == [(0, None)]
    assert bucket.read("x") == content


def test_a_part_that_is_cut_goes_on_at_its_byte(bucket: Bucket, buckets: Buckets) -> None:
    content = content_of(2 * MIB + 99)
    feed = Memory(content, cuts=[MIB // 4, MIB // 2, 1, 0])
    done = buckets.put(feed, f"s3://{bucket.name}/x", pace=PACE, connections=1)
    assert bucket.read("x") == content
    assert done.received == len(content)
    quarters = [start // (MIB // 4) for start, _ in feed.asked]
    assert quarters == [0, 1, 3, 3, 3, 4, 8]


def test_a_source_that_cannot_go_on_begins_anew(bucket: Bucket, buckets: Buckets) -> None:
    content, heard = content_of(3 * MIB), list[int]()
    feed = Memory(content, ranges=False, honours_ranges=False, cuts=[2 * MIB])
    done = buckets.put(feed, f"s3://{bucket.name}/x", pace=PACE, on_bytes=heard.append)
    assert bucket.read("x") == content
    assert done.received == 5 * MIB
    assert max(heard) == heard[-1] == len(content)
    assert bucket.unfinished() == []


def test_another_hash_leaves_no_object(bucket: Bucket, buckets: Buckets) -> None:
    for content in (CONTENT, content_of(2 * MIB + 99)):
        feed, uri = Memory(content), f"s3://{bucket.name}/x"
        error = failed(SyncCode.REJECTED, lambda f=feed, u=uri: buckets.put(f, u, expect_sha256="0" * 64, pace=PACE))  # type: ignore[misc]
        assert hashlib.sha256(content).hexdigest() in error.what
    assert bucket.keys() == []
    assert bucket.unfinished() == []


def test_another_size_leaves_no_object(bucket: Bucket, buckets: Buckets) -> None:
    for size in (len(CONTENT) - 1, len(CONTENT) + 1, 3 * MIB):
        feed, uri = Memory(CONTENT), f"s3://{bucket.name}/x"
        failed(SyncCode.REJECTED, lambda f=feed, u=uri, s=size: buckets.put(f, u, size=s, pace=PACE))  # type: ignore[misc]
    assert bucket.keys() == []
    assert bucket.unfinished() == []


def test_what_the_judge_refuses_is_never_sent(raw: RawStore) -> None:
    def judge(head: bytes, size: int) -> None:
        assert size == 2 * MIB + 99
        assert head.startswith(b"<!doctype html>")
        raise SyncError(SyncCode.REJECTED, "is a web page")

    page = b"<!doctype html>".ljust(2 * MIB + 99)
    with opened(models_settings(raw.url)) as buckets:
        failed(SyncCode.REJECTED, lambda: buckets.put(Memory(page), "s3://bkt/x", judge=judge, pace=PACE))
    assert raw.requests == []


@pytest.mark.parametrize("size", [len(CONTENT), 2 * MIB + 99])
def test_what_the_judge_refuses_in_the_end_is_taken_back(bucket: Bucket, buckets: Buckets, size: int) -> None:
    heard: list[tuple[int, int]] = []

    def judge(head: bytes, size: int) -> None:
        heard.append((len(head), size))
        raise SyncError(SyncCode.REJECTED, "is a web page")

    feed, uri = Memory(content_of(size), says_size=False), f"s3://{bucket.name}/x"
    failed(SyncCode.REJECTED, lambda: buckets.put(feed, uri, judge=judge, pace=PACE))
    assert heard == [(min(size, MIB), size)]
    assert bucket.keys() == []
    assert bucket.unfinished() == []


def test_to_stop_in_the_middle_leaves_nothing(bucket: Bucket, buckets: Buckets) -> None:
    stop, uri = threading.Event(), f"s3://{bucket.name}/x"
    begun: list[list[str]] = []

    def look(at: int) -> None:
        if at >= 3 * MIB and not stop.is_set():
            # The first parts are there.
            begun.append(bucket.unfinished())
            stop.set()

    feed = Memory(content_of(9 * MIB), before_read=look)
    failed(SyncCode.INTERRUPTED, lambda: buckets.put(feed, uri, pace=PACE, connections=1, stop=stop))
    assert begun == [["x"]]
    assert bucket.keys() == []
    assert bucket.unfinished() == []


def test_a_source_that_fails_in_the_middle_leaves_nothing(bucket: Bucket, buckets: Buckets) -> None:
    def fail(at: int) -> None:
        if at >= 5 * MIB:
            raise SyncError(SyncCode.CHANGED, "was replaced")

    feed, uri = Memory(content_of(9 * MIB), before_read=fail), f"s3://{bucket.name}/x"
    failed(SyncCode.CHANGED, lambda: buckets.put(feed, uri, pace=PACE))
    assert bucket.keys() == []
    assert bucket.unfinished() == []


def test_a_defect_in_the_middle_leaves_nothing(bucket: Bucket, buckets: Buckets) -> None:
    def on_bytes(_: int) -> None:
        raise ZeroDivisionError

    with pytest.raises(ZeroDivisionError):
        buckets.put(Memory(content_of(2 * MIB + 99)), f"s3://{bucket.name}/x", pace=PACE, on_bytes=on_bytes)
    assert bucket.unfinished() == []


def test_what_was_there_stays_until_its_successor_is_verified(bucket: Bucket, buckets: Buckets) -> None:
    uri = bucket.put("x", b"older")
    failed(SyncCode.REJECTED, lambda: buckets.put(Memory(CONTENT), uri, expect_sha256="0" * 64, pace=PACE))
    assert bucket.read("x") == b"older"
    buckets.put(Memory(CONTENT), uri, pace=PACE)
    assert bucket.read("x") == CONTENT


def test_two_machines_may_send_one_object_at_once(bucket: Bucket) -> None:
    content, both = content_of(2 * MIB + 99), threading.Barrier(2)
    sha256, uri = hashlib.sha256(content).hexdigest(), f"s3://{bucket.name}/x"
    failures: list[BaseException] = []

    def meet(at: int) -> None:
        # Each is in the middle of its upload when the other is.
        if at == 2 * MIB:
            both.wait(WAIT_S)

    def send() -> None:
        try:
            with opened(models_settings(moto_url())) as machine:
                feed = Memory(content, before_read=meet)
                machine.put(feed, uri, expect_sha256=sha256, pace=PACE, connections=1)
        except (SyncError, threading.BrokenBarrierError) as failure:
            failures.append(failure)

    threads = [threading.Thread(target=send) for _ in range(2)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert failures == []
    assert bucket.read("x") == content
    assert bucket.unfinished() == []


def test_what_a_killed_run_left_is_taken_away_but_not_what_is_fresh(bucket: Bucket) -> None:
    for key in ("x", "x.other"):
        begun = bucket.client.create_multipart_upload(Bucket=bucket.name, Key=key)["UploadId"]
        bucket.client.upload_part(Bucket=bucket.name, Key=key, UploadId=begun, PartNumber=1, Body=CONTENT)
    content = content_of(2 * MIB + 99)
    with opened(models_settings(moto_url())) as buckets:
        buckets.put(Memory(content), f"s3://{bucket.name}/x", pace=PACE)
        assert sorted(bucket.unfinished()) == ["x", "x.other"]
    with opened(models_settings(moto_url()), sizes=replace(SMALL, left_after_s=-3600.0)) as buckets:
        buckets.put(Memory(content), f"s3://{bucket.name}/x", pace=PACE)
        assert bucket.unfinished() == ["x.other"]


def test_progress_is_told_by_one_thread(bucket: Bucket, buckets: Buckets) -> None:
    tellers = set[int]()
    buckets.put(
        Memory(content_of(9 * MIB)),
        f"s3://{bucket.name}/x",
        pace=PACE,
        on_bytes=lambda _: tellers.add(threading.get_ident()),
    )
    assert tellers == {threading.get_ident()}


def test_what_an_older_file_was_verified_as_is_forgotten_before_another_is_seen(
    bucket: Bucket, buckets: Buckets
) -> None:
    """Or a process that is killed between the two would leave the older hash beside the newer bytes."""
    prefix = f"s3://{bucket.name}/models"
    uri = buckets.at(prefix, PATH)
    for content in (CONTENT, content_of(2 * MIB + 99)):
        buckets.put(Memory(content), uri, pace=PACE)
        buckets.put_receipt(prefix, Receipt(PATH, len(content), None, hashlib.sha256(content).hexdigest()))

        def forget(older: bytes = content) -> None:
            assert bucket.read(f"models/{PATH}") == older
            buckets.forget(prefix, PATH)

        buckets.put(Memory(content[::-1]), uri, pace=PACE, ready=forget)
        assert bucket.read(f"models/{PATH}") == content[::-1]
        assert buckets.receipt(prefix, PATH) is None
    buckets.forget(prefix, PATH)


def test_what_is_not_ready_is_never_seen(bucket: Bucket, buckets: Buckets) -> None:
    def refuse() -> None:
        raise SyncError(SyncCode.STORE, "no")

    for content in (CONTENT, content_of(2 * MIB + 99)):
        feed, uri = Memory(content), f"s3://{bucket.name}/x"
        failed(SyncCode.STORE, lambda f=feed, u=uri: buckets.put(f, u, pace=PACE, ready=refuse))  # type: ignore[misc]
    assert bucket.keys() == []
    assert bucket.unfinished() == []


def test_memory_is_bounded_for_all_files_together(bucket: Bucket) -> None:
    def maps() -> int:
        return Path("/proc/self/maps").read_text().count("/dev/zero (deleted)")

    before, most = maps(), list[int]()
    sizes = replace(SMALL, window_bytes=2 * MIB)
    content = content_of(12 * MIB)
    with opened(models_settings(moto_url()), sizes=sizes) as buckets, ThreadPoolExecutor(4) as pool:
        puts = [
            pool.submit(
                buckets.put,
                Memory(content, before_read=lambda _: most.append(maps())),
                f"s3://{bucket.name}/{name}",
                pace=PACE,
            )
            for name in "abcd"
        ]
        for put in puts:
            put.result()
    assert max(most) - before <= 2
    assert maps() == before
    assert all(bucket.read(name) == content for name in "abcd")


def test_hashing_may_be_left_out(bucket: Bucket, buckets: Buckets) -> None:
    done = buckets.put(Memory(CONTENT), f"s3://{bucket.name}/x", hashing=False, pace=PACE)
    assert done.sha256 is None
    # But not where there is a hash to hold it to.
    uri = f"s3://{bucket.name}/y"
    failed(SyncCode.REJECTED, lambda: buckets.put(Memory(CONTENT), uri, hashing=False, expect_sha256="0" * 64))


def test_an_object_is_removed(bucket: Bucket, buckets: Buckets) -> None:
    uri = bucket.put("x", CONTENT)
    bucket.put("y", CONTENT)
    buckets.remove(uri)
    buckets.remove(uri)
    assert bucket.keys() == ["y"]


# A store that does as RunPod's and other stores do.


@dataclass
class Script:
    """The raw store as a destination. What it does not decide otherwise it does as S3."""

    size: int
    completing: Callable[[int], Answer | None] = lambda _: None
    """By how often completion was asked for before; None: it succeeds."""
    sending: Callable[[int], Answer | None] = lambda _: None
    asked: list[str] = field(default_factory=list)
    there: bool = False

    def answer(self, request: Request) -> Answer:
        _, _, query = request.target.partition("?")
        names = sorted(each.partition("=")[0] for each in query.split("&"))
        doing = f"{request.method} {'&'.join(names)}".strip()
        self.asked.append(doing)
        before = self.asked.count(doing) - 1
        if request.method == "HEAD":
            return Answer(200, b"", {"ETag": '"whole"'}, length=self.size) if self.there else Answer(404)
        if doing == "POST uploads":
            return Answer(
                200, b"<InitiateMultipartUploadResult><UploadId>u1</UploadId></InitiateMultipartUploadResult>"
            )
        if doing == "POST uploadId":
            return self.completing(before) or self._completed()
        if request.method == "DELETE":
            return Answer(204)
        if request.method == "PUT":
            return self.sending(before) or Answer(200, b"", {"ETag": '"part"'})
        return refusal(501, "NotImplemented")

    def _completed(self) -> Answer:
        self.there = True
        return Answer(200, b"<CompleteMultipartUploadResult><ETag>whole</ETag></CompleteMultipartUploadResult>")

    def completes_silently(self, answer: Answer) -> Callable[[int], Answer]:
        def completing(_: int) -> Answer:
            self.there = True
            return answer

        return completing


@pytest.fixture
def script(raw: RawStore) -> Script:
    made = Script(len(PARTS))
    raw.answer = made.answer
    return made


PARTS = content_of(2 * MIB + 5)


def put_tiny(raw: RawStore, **more: Any) -> Any:
    stop = more.pop("stop", None)
    with opened(models_settings(raw.url), sizes=SMALL, patience=replace(QUICK, **more)) as buckets:
        return buckets.put(Memory(PARTS), "s3://bkt/x", pace=PACE, connections=1, stop=stop)


def test_what_a_store_is_asked(raw: RawStore, script: Script) -> None:
    assert put_tiny(raw).sha256 == hashlib.sha256(PARTS).hexdigest()
    assert [doing for doing in script.asked if not doing.startswith("HEAD")] == [
        "GET prefix&uploads",
        "POST uploads",
        "PUT partNumber&uploadId", "PUT partNumber&uploadId", "PUT partNumber&uploadId",
        "POST uploadId",
    ]  # fmt: skip
    sizes = [request.size for request in raw.requests if request.method == "PUT"]
    assert sizes == [MIB, MIB, 5]
    for request in raw.requests:
        names = {name.lower() for name in request.headers}
        assert not {"x-amz-trailer", "x-amz-sdk-checksum-algorithm", "x-amz-decoded-content-length"} & names
        assert not any(name.startswith("x-amz-checksum") for name in names)
        assert "Signature" not in request.target


SILENT = Answer(200, b"", {"Content-Type": "application/xml"}, length=300, stalls=True)


@pytest.mark.parametrize("answer", [SILENT, refusal(504, "GatewayTimeout"), Answer(524), refusal(404, "NoSuchUpload")])
def test_a_completion_whose_answer_is_lost_may_have_succeeded(raw: RawStore, script: Script, answer: Answer) -> None:
    script.completing = script.completes_silently(answer)
    assert put_tiny(raw, complete_s=0.3).size == len(PARTS)
    assert script.asked.count("POST uploadId") == 1
    assert "DELETE uploadId" not in script.asked


def test_a_completion_that_failed_is_asked_for_again(raw: RawStore, script: Script) -> None:
    script.completing = lambda before: refusal(502, "BadGateway") if not before else None
    assert put_tiny(raw).size == len(PARTS)
    assert script.asked.count("POST uploadId") == 2


def test_an_error_in_a_good_answer_is_no_completion(raw: RawStore, script: Script) -> None:
    script.completing = lambda before: replace(refusal(500, "InternalError"), status=200) if not before else None
    assert put_tiny(raw).size == len(PARTS)
    assert script.asked.count("POST uploadId") == 2


def test_an_older_object_is_not_taken_for_the_completed_one(raw: RawStore, script: Script) -> None:
    script.there = True
    script.completing = lambda _: refusal(504, "GatewayTimeout")
    assert failed(SyncCode.STORE, lambda: put_tiny(raw)).passing
    assert script.asked.count("POST uploadId") == 2
    # The store may be at it.
    assert "DELETE uploadId" not in script.asked


def test_a_completion_that_is_refused_is_aborted(raw: RawStore, script: Script) -> None:
    script.completing = lambda _: refusal(400, "InvalidPart")
    assert "InvalidPart" in failed(SyncCode.STORE, lambda: put_tiny(raw)).what
    assert script.asked.count("POST uploadId") == 1
    assert script.asked[-1] == "DELETE uploadId"


def test_an_upload_that_somebody_ended_is_not_completed(raw: RawStore, script: Script) -> None:
    script.completing = lambda _: refusal(404, "NoSuchUpload")
    failed(SyncCode.STORE, lambda: put_tiny(raw))
    assert script.asked.count("POST uploadId") == 1


def test_nobody_waits_for_a_completion_once_told_to_stop(raw: RawStore, script: Script) -> None:
    stop = threading.Event()

    def completing(_: int) -> Answer:
        stop.set()
        return SILENT

    script.completing = completing
    failed(SyncCode.INTERRUPTED, lambda: put_tiny(raw, complete_s=WAIT_S, stop=stop))
    assert "DELETE uploadId" not in script.asked


def stopped_soon(raw: RawStore, stop: threading.Event, content: bytes = PARTS) -> None:
    """Whoever is in the middle of a request that is never answered does not wait for it."""
    with ThreadPoolExecutor(1) as pool, opened(models_settings(raw.url), patience=replace(QUICK, send_s=60)) as buckets:
        put = pool.submit(buckets.put, Memory(content), "s3://bkt/x", pace=PACE, connections=1, stop=stop)
        try:
            assert isinstance(failure := put.exception(WAIT_S), SyncError)
            assert failure.code is SyncCode.INTERRUPTED
        finally:
            raw.release.set()


@pytest.mark.parametrize("content", [PARTS, CONTENT])
def test_nobody_waits_for_a_part_once_told_to_stop(raw: RawStore, script: Script, content: bytes) -> None:
    stop = threading.Event()

    def sending(_: int) -> Answer:
        stop.set()
        return SILENT

    script.sending = sending
    stopped_soon(raw, stop, content)
    assert "POST uploadId" not in script.asked


def test_nobody_waits_for_a_source_once_told_to_stop(raw: RawStore, script: Script) -> None:
    stop, over = threading.Event(), threading.Event()

    def stall(_: int) -> None:
        stop.set()
        over.wait(WAIT_S)

    with ThreadPoolExecutor(1) as pool, opened(models_settings(raw.url)) as buckets:
        for ranges in (True, False):
            stop.clear()
            over.clear()
            feed = Memory(PARTS, before_read=stall, ranges=ranges)
            put = pool.submit(buckets.put, feed, "s3://bkt/x", pace=PACE, stop=stop)
            assert isinstance(put.exception(WAIT_S / 2), SyncError)
            over.set()


def test_an_upload_that_is_begun_too_late_is_ended(raw: RawStore, script: Script) -> None:
    stop, over, ended = threading.Event(), threading.Event(), threading.Event()

    def answer(request: Request) -> Answer:
        if request.method == "POST":
            stop.set()
            over.wait(WAIT_S)
        if request.method == "DELETE":
            ended.set()
        return script.answer(request)

    raw.answer = answer
    stopped_soon(raw, stop)
    assert "POST uploads" not in script.asked
    over.set()
    assert ended.wait(WAIT_S)
    assert script.asked[-2:] == ["POST uploads", "DELETE uploadId"]


def test_nobody_waits_long_for_a_store_that_does_not_end_an_upload(
    raw: RawStore, script: Script, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(multipart, "ABORT_S", 0.1)

    def answer(request: Request) -> Answer:
        return SILENT if request.method == "DELETE" else script.answer(request)

    raw.answer = answer
    script.sending = lambda _: refusal(403, "AccessDenied")
    with ThreadPoolExecutor(1) as pool:
        put = pool.submit(put_tiny, raw, look_s=60)
        try:
            assert isinstance(put.exception(WAIT_S), SyncError)
        finally:
            raw.release.set()


def test_a_part_that_is_refused_for_now_is_sent_again(raw: RawStore, script: Script) -> None:
    script.sending = lambda before: refusal(503, "SlowDown") if before == 1 else None
    assert put_tiny(raw).size == len(PARTS)
    assert script.asked.count("PUT partNumber&uploadId") == 4


@pytest.mark.parametrize(
    ("status", "code", "said"),
    [(403, "AccessDenied", SyncCode.STORE), (507, "InsufficientStorage", SyncCode.NO_SPACE)],
)
def test_a_part_that_is_refused_ends_it(raw: RawStore, script: Script, status: int, code: str, said: SyncCode) -> None:
    script.sending = lambda before: refusal(status, code) if before else None
    error = failed(said, lambda: put_tiny(raw))
    assert code in error.what
    assert script.asked[-1] == "DELETE uploadId"
    assert "POST uploadId" not in script.asked


def test_what_answers_is_no_store(raw: RawStore) -> None:
    raw.answer = lambda _: Answer(200, b"<html>hello</html>", {"Content-Type": "text/html"})
    assert "not S3" in failed(SyncCode.STORE, lambda: put_tiny(raw)).what


# Receipts, and a mirror.


def test_receipts_are_the_caches_own(bucket: Bucket, buckets: Buckets) -> None:
    prefix = f"s3://{bucket.name}/morpheus_model_cache"
    assert buckets.receipt(prefix, PATH) is None
    source = {"kind": "hf", "repo": "a/b", "file": "x.safetensors", "revision": "c" * 40}
    given = Receipt(PATH, len(CONTENT), 123, SHA256, "sync", source, '"1"', "2026-11-21T10:00:00Z")
    buckets.put_receipt(f"{prefix}/", given)
    said = replace(given, mtime_ns=None, by="upload")
    assert buckets.receipt(prefix, PATH) == said
    (key,) = bucket.keys()
    assert re.fullmatch(r"morpheus_model_cache/\.morpheus/receipts/[0-9a-f]{16}-x\.safetensors\.json", key)
    assert bucket.read(key).decode() == receipt_text(said)
    assert buckets.receipt(prefix, PurePosixPath("loras/x.safetensors")) is None


def test_that_a_request_asked_for_it_is_not_forgotten_with_a_receipt(bucket: Bucket, buckets: Buckets) -> None:
    prefix = f"s3://{bucket.name}/p"
    buckets.put_receipt(prefix, Receipt(PATH, 1, None, SHA256, requested=True))
    buckets.forget(f"{prefix}/", PATH)
    assert buckets.receipt(prefix, PATH) is None
    for path, requested in ((PATH, True), (PurePosixPath("loras/x.safetensors"), False)):
        buckets.put_receipt(prefix, Receipt(path, 2, None, SHA256))
        receipt = buckets.receipt(prefix, path)
        assert receipt is not None
        assert (receipt.size, receipt.requested) == (2, requested)


def test_a_volume_that_was_filled_through_its_s3_interface_believes_its_receipts(
    bucket: Bucket, buckets: Buckets, tmp_path: Path
) -> None:
    """Such a volume's objects are its files."""
    prefix = f"s3://{bucket.name}/morpheus_model_cache"
    done = buckets.put(Memory(CONTENT), buckets.at(prefix, PATH), pace=PACE)
    buckets.put_receipt(prefix, Receipt(PATH, done.size, None, done.sha256))
    keys = bucket.keys()
    for key in keys:
        (tmp_path / key).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / key).write_bytes(bucket.read(key))
    known = Receipts(cache := Cache(tmp_path / "morpheus_model_cache"))
    assert known.standing(PATH, known.load()).state == "present"
    cache.at(PATH).write_bytes(CONTENT[:-1])
    assert known.standing(PATH, known.load()).state == "changed"


def test_what_is_no_receipt_is_none(bucket: Bucket, buckets: Buckets) -> None:
    prefix = f"s3://{bucket.name}"
    buckets.put_receipt(prefix, Receipt(PATH, 1, None, SHA256))
    (key,) = bucket.keys()
    other = receipt_text(Receipt(PurePosixPath("other"), 1, None, SHA256)).encode()
    for content in (b"", b"{", b"[]", b"x" * 100_000, other):
        bucket.put(key, content)
        assert buckets.receipt(prefix, PATH) is None


@pytest.mark.parametrize("prefix", ["", "/models", "/a/b/c"])
def test_a_hash_is_taken_from_the_receipt_beside_the_object(bucket: Bucket, buckets: Buckets, prefix: str) -> None:
    root = f"s3://{bucket.name}{prefix}"
    uri = bucket.put(f"{prefix}/{PATH}".strip("/"), CONTENT)
    buckets.put_receipt(root, Receipt(PATH, len(CONTENT), None, SHA256))
    assert buckets.resolve(uri).sha256 == SHA256
    # It speaks of another file.
    bucket.put(f"{prefix}/{PATH}".strip("/"), CONTENT[:-1])
    assert buckets.resolve(uri).sha256 is None


def test_a_hash_in_the_metadata_is_only_taken_where_it_is_one(bucket: Bucket, buckets: Buckets) -> None:
    for said, taken in ((SHA256.upper(), SHA256), ("abc", None)):
        bucket.client.put_object(Bucket=bucket.name, Key="x", Body=CONTENT, Metadata={"sha256": said})
        assert buckets.resolve(f"s3://{bucket.name}/x").sha256 == taken


def test_a_mirror_offers_what_it_has(bucket: Bucket, buckets: Buckets) -> None:
    prefix = f"s3://{bucket.name}/models/"
    assert buckets.mirror(prefix, PATH) is None
    uri = bucket.put(f"models/{PATH}", CONTENT)
    assert buckets.mirror(prefix, PATH) == {"kind": "s3", "uri": uri}
    failed(SyncCode.INVALID, lambda: buckets.mirror(prefix, PurePosixPath("../x")))


def test_a_mirror_that_cannot_be_asked_says_so(raw: RawStore) -> None:
    raw.answer = lambda _: refusal(503, "SlowDown")
    with opened(models_settings(raw.url)) as buckets:
        failed(SyncCode.UNREACHABLE, lambda: buckets.mirror("s3://bkt", PATH))
