"""Buckets by values alone: which store a name leads to and with which keys, what its refusals are called, and a file
that arrives in parts."""

from __future__ import annotations

import contextlib
import hashlib
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field
from pathlib import PurePosixPath
from typing import Any

import pytest
from botocore import exceptions

from morpheus_worker.s3.uploading import MIB
from morpheus_worker.settings import Settings
from morpheus_worker.sync.buckets.arriving import (
    HaltedError,
    Part,
    RangedArrival,
    StartOverError,
    StreamedArrival,
    Tally,
    UnrangedError,
)
from morpheus_worker.sync.buckets.faults import reading, writing
from morpheus_worker.sync.buckets.memory import Memory as Limit
from morpheus_worker.sync.buckets.multipart import PartBody
from morpheus_worker.sync.buckets.places import ObjectName, place_of
from morpheus_worker.sync.buckets.putting import LARGEST_PART, Sizes
from morpheus_worker.sync.buckets.receipts import prefixes_of, receipt_name
from morpheus_worker.sync.terms import Body, Pace, Resolved, SyncCode, SyncError

ACCOUNT = "0123456789abcdef0123456789abcdef"
R2 = f"https://{ACCOUNT}.r2.cloudflarestorage.com"
MODELS_KEYS = {"MORPHEUS_MODELS_ACCESS_KEY_ID": "models-key", "MORPHEUS_MODELS_SECRET_ACCESS_KEY": "models-secret"}
BUCKET_KEYS = {"BUCKET_ACCESS_KEY_ID": "outputs-key", "BUCKET_SECRET_ACCESS_KEY": "outputs-secret"}
GS_KEYS = {"MORPHEUS_GS_ACCESS_KEY_ID": "gs-key", "MORPHEUS_GS_SECRET_ACCESS_KEY": "gs-secret"}
FAST = Pace(first_wait_s=0.001, longest_wait_s=0.002, tries=3)


def settings(**variables: str) -> Settings:
    return Settings.from_environment(variables)


def seen(chosen: Settings, uri: str = "s3://bkt/models/x.safetensors") -> tuple[str | None, str | None, str | None]:
    """Address, region, key."""
    place = place_of(chosen, ObjectName.of(uri))
    return place.endpoint.url, place.endpoint.region, place.key.get_secret_value() if place.key else None


# Where a name leads.


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (None, None, None)),
        ({"MORPHEUS_MODELS_REGION": "eu-west-1"}, (None, "eu-west-1", None)),
        (MODELS_KEYS, (None, None, "models-key")),
        # Its own endpoint, as providers show them.
        (
            {"MORPHEUS_MODELS_ENDPOINT_URL": "https://s3api-eu-ro-1.runpod.io/", **MODELS_KEYS},
            ("https://s3api-eu-ro-1.runpod.io", "EU-RO-1", "models-key"),
        ),
        ({"MORPHEUS_MODELS_ENDPOINT_URL": R2, **MODELS_KEYS}, (R2, "auto", "models-key")),
        ({"MORPHEUS_MODELS_ENDPOINT_URL": f"{R2}/bkt"}, (R2, "auto", None)),
        ({"MORPHEUS_MODELS_ENDPOINT_URL": f"{R2}/another"}, (R2, "auto", None)),
        ({"MORPHEUS_MODELS_ENDPOINT_URL": "https://bkt.s3.eu-west-1.amazonaws.com"}, (None, "eu-west-1", None)),
        (
            {"MORPHEUS_MODELS_ENDPOINT_URL": "https://storage.googleapis.com"},
            ("https://storage.googleapis.com", "auto", None),
        ),
        ({"MORPHEUS_MODELS_ENDPOINT_URL": "http://minio:9000/bkt"}, ("http://minio:9000", "us-east-1", None)),
        ({"MORPHEUS_MODELS_ENDPOINT_URL": "http://proxy/store"}, ("http://proxy/store", "us-east-1", None)),
        # The store of the outputs, as a whole.
        (
            {"BUCKET_ENDPOINT_URL": f"{R2}/outputs", "BUCKET_REGION": "weur", **BUCKET_KEYS},
            (R2, "weur", "outputs-key"),
        ),
        ({"BUCKET_ENDPOINT_URL": R2, **BUCKET_KEYS, **MODELS_KEYS}, (R2, "auto", "models-key")),
        ({"BUCKET_NAME": "bkt", "BUCKET_REGION": "eu-west-3", **BUCKET_KEYS}, (None, "eu-west-3", "outputs-key")),
        # Its key goes nowhere else.
        (
            {"BUCKET_ENDPOINT_URL": R2, **BUCKET_KEYS, "MORPHEUS_MODELS_ENDPOINT_URL": "http://minio:9000"},
            ("http://minio:9000", "us-east-1", None),
        ),
        (
            {
                "BUCKET_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com",
                **BUCKET_KEYS,
                "MORPHEUS_MODELS_ENDPOINT_URL": "https://s3.cn-north-1.amazonaws.com.cn",
            },
            (None, "cn-north-1", None),
        ),
        (
            {**BUCKET_KEYS, "MORPHEUS_MODELS_ENDPOINT_URL": "http://minio:9000"},
            ("http://minio:9000", "us-east-1", None),
        ),
        ({"BUCKET_ENDPOINT_URL": R2, **BUCKET_KEYS, "MORPHEUS_MODELS_ENDPOINT_URL": R2}, (R2, "auto", "outputs-key")),
    ],
)
def test_where_s3_names_lead(variables: dict[str, str], expected: tuple[str | None, str | None, str | None]) -> None:
    assert seen(settings(**variables)) == expected


RUNPOD = "https://s3api-eu-ro-1.runpod.io"
TO_KEYS = {"MORPHEUS_MODELS_TO_ACCESS_KEY_ID": "to-key", "MORPHEUS_MODELS_TO_SECRET_ACCESS_KEY": "to-secret"}
FROM_R2 = {"MORPHEUS_MODELS_ENDPOINT_URL": R2, **MODELS_KEYS}


@pytest.mark.parametrize(
    ("variables", "expected"),
    [
        ({}, (None, None, None)),
        (FROM_R2, (R2, "auto", "models-key")),
        ({"BUCKET_ENDPOINT_URL": R2, **BUCKET_KEYS}, (R2, "auto", "outputs-key")),
        ({**FROM_R2, "MORPHEUS_MODELS_TO_ENDPOINT_URL": RUNPOD, **TO_KEYS}, (RUNPOD, "EU-RO-1", "to-key")),
        # Another key for the same store; another region.
        ({**FROM_R2, **TO_KEYS}, (R2, "auto", "to-key")),
        ({**FROM_R2, "MORPHEUS_MODELS_TO_REGION": "weur"}, (R2, "weur", "models-key")),
        ({**FROM_R2, "MORPHEUS_MODELS_TO_ENDPOINT_URL": f"{R2}/bkt"}, (R2, "auto", "models-key")),
        # No key goes to another store than its own.
        ({**FROM_R2, "MORPHEUS_MODELS_TO_ENDPOINT_URL": RUNPOD}, (RUNPOD, "EU-RO-1", None)),
        (
            {"BUCKET_ENDPOINT_URL": R2, **BUCKET_KEYS, "MORPHEUS_MODELS_TO_ENDPOINT_URL": RUNPOD},
            (RUNPOD, "EU-RO-1", None),
        ),
        (
            {**FROM_R2, "MORPHEUS_MODELS_TO_ENDPOINT_URL": "https://s3.eu-west-1.amazonaws.com"},
            (None, "eu-west-1", None),
        ),
    ],
)
def test_where_models_are_sent(variables: dict[str, str], expected: tuple[str | None, str | None, str | None]) -> None:
    chosen, name = settings(**variables), ObjectName.of("s3://bkt/models/x.safetensors")
    place = place_of(chosen, name, destination=True)
    key = place.key.get_secret_value() if place.key else None
    assert (place.endpoint.url, place.endpoint.region, key) == expected
    without = {name: value for name, value in variables.items() if "_TO_" not in name}
    assert place_of(chosen, name) == place_of(settings(**without), name), "where models are read is another matter"


def test_a_destination_of_its_own_takes_no_key_that_may_be_another_store_s() -> None:
    """What the SDK finds in AWS_* may be the source's."""
    name = ObjectName.of("s3://volume123/x")
    place = place_of(settings(MORPHEUS_MODELS_TO_ENDPOINT_URL=RUNPOD), name, destination=True)
    assert place.needs_key
    assert "MORPHEUS_MODELS_TO_ACCESS_KEY_ID" in place.names.credentials
    assert "AWS_" not in place.names.credentials
    assert "console.runpod.io" in place.names.credentials
    amazon = settings(**FROM_R2, MORPHEUS_MODELS_TO_ENDPOINT_URL="https://s3.eu-west-1.amazonaws.com")
    assert not place_of(amazon, name, destination=True).needs_key
    assert not place_of(settings(MORPHEUS_MODELS_ENDPOINT_URL=RUNPOD), name, destination=True).needs_key


def test_gs_names_lead_to_google_with_google_keys() -> None:
    others = {"BUCKET_ENDPOINT_URL": R2, **BUCKET_KEYS, **MODELS_KEYS}
    assert seen(settings(**others, **GS_KEYS), "gs://bkt/x") == ("https://storage.googleapis.com", "auto", "gs-key")
    place = place_of(settings(**others), ObjectName.of("gs://bkt/x"))
    assert place.needs_key
    assert place.key is None


@pytest.mark.parametrize("region", ["eu-ro-1", "us-ks-2", "eur-is-1"])
def test_a_data_centre_of_runpod_is_its_region(region: str) -> None:
    chosen = settings(MORPHEUS_MODELS_ENDPOINT_URL=f"https://s3api-{region}.runpod.io")
    place = place_of(chosen, ObjectName.of("s3://volume123/x"))
    assert (place.endpoint.region, place.endpoint.addressing) == (region.upper(), "auto")
    assert "console.runpod.io" in place.names.credentials


def test_no_key_in_what_a_place_shows() -> None:
    place = place_of(settings(BUCKET_ENDPOINT_URL=R2, **BUCKET_KEYS), ObjectName.of("s3://bkt/x"))
    assert "outputs-" not in repr(place)


@pytest.mark.parametrize(
    "uri",
    ["", "x", "s3://", "s3://bkt", "s3://bkt/", "s3://bkt/folder/", "http://bkt/x", "s3://b k t/x", "s3://bkt/../x",
     "s3://arn:aws:s3:::bkt/x", "gs:///x", "s3://bkt/a/./x"],
)  # fmt: skip
def test_what_names_no_object(uri: str) -> None:
    with pytest.raises(SyncError) as caught:
        ObjectName.of(uri)
    assert caught.value.code is SyncCode.INVALID


def test_a_path_under_a_prefix() -> None:
    path = PurePosixPath("checkpoints/x.safetensors")
    for prefix in ("s3://bkt/models", "s3://bkt/models/", "S3://bkt/models"):
        assert str(ObjectName.under(prefix, path)) == "s3://bkt/models/checkpoints/x.safetensors"
    assert str(ObjectName.under("gs://bkt", path)) == "gs://bkt/checkpoints/x.safetensors"
    assert ObjectName.under("gs://bkt", path).source == {"kind": "gs", "uri": "gs://bkt/checkpoints/x.safetensors"}


def test_a_receipt_lies_where_the_cache_has_its_own() -> None:
    name = receipt_name("s3://bkt/models", PurePosixPath("checkpoints/x.safetensors"))
    assert name.key.startswith("models/.morpheus/receipts/")
    assert name.key.endswith("-x.safetensors.json")


def test_the_folders_that_an_object_may_be_a_model_of() -> None:
    assert [(prefix, str(path)) for prefix, path in prefixes_of(ObjectName.of("s3://bkt/a/b/x"))] == [
        ("s3://bkt", "a/b/x"),
        ("s3://bkt/a", "b/x"),
        ("s3://bkt/a/b", "x"),
    ]


def test_nothing_heavy_is_loaded_before_the_first_use() -> None:
    code = (
        "import sys; from morpheus_worker.settings import Settings; from morpheus_worker.sync.buckets import Buckets; "
        "Buckets.of(Settings.from_environment({})).close(); print({'boto3', 'botocore', 'requests'} & set(sys.modules))"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=True)
    assert said.stdout.strip() == "set()"


# What a store says.


def refused(status: int, code: str | None = None, **headers: str) -> exceptions.ClientError:
    meta = {"HTTPStatusCode": status, "HTTPHeaders": headers}
    return exceptions.ClientError({"Error": {"Code": code or str(status)}, "ResponseMetadata": meta}, "GetObject")


URL = "https://store.example.com/bkt/x?X-Amz-Signature=abc"


@pytest.mark.parametrize(
    ("failure", "code", "passing", "says"),
    [
        (refused(404, "NoSuchKey"), SyncCode.NOT_FOUND, False, "is not in the bucket 'bkt'"),
        (refused(404), SyncCode.NOT_FOUND, False, "is not in the bucket 'bkt'"),
        (refused(404, "NoSuchBucket"), SyncCode.NOT_FOUND, False, "MORPHEUS_MODELS_ENDPOINT_URL"),
        (refused(403), SyncCode.ACCESS_DENIED, False, "where listing is not allowed"),
        (refused(403, "AccessDenied"), SyncCode.ACCESS_DENIED, False, "s3:GetObject"),
        (refused(403, "SignatureDoesNotMatch"), SyncCode.ACCESS_DENIED, False, "MORPHEUS_MODELS_SECRET_ACCESS_KEY"),
        (refused(403, "InvalidAccessKeyId"), SyncCode.ACCESS_DENIED, False, "MORPHEUS_MODELS_ACCESS_KEY_ID"),
        (refused(412, "PreconditionFailed"), SyncCode.CHANGED, False, "was replaced"),
        (refused(416, "InvalidRange"), SyncCode.CHANGED, False, "was replaced"),
        (refused(503, "SlowDown"), SyncCode.UNREACHABLE, True, "SlowDown"),
        (refused(500, "InternalError"), SyncCode.UNREACHABLE, True, "InternalError"),
        (exceptions.ReadTimeoutError(endpoint_url=URL), SyncCode.UNREACHABLE, True, "stopped answering"),
        (exceptions.EndpointConnectionError(endpoint_url=URL), SyncCode.UNREACHABLE, True, "cannot be reached"),
        (
            exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2),
            SyncCode.UNREACHABLE, True, "broke the connection",
        ),
        (exceptions.NoCredentialsError(), SyncCode.ACCESS_DENIED, False, "MORPHEUS_MODELS_ACCESS_KEY_ID"),
    ],
)  # fmt: skip
def test_what_a_source_says(failure: Exception, code: SyncCode, passing: bool, says: str) -> None:
    name = ObjectName.of("s3://bkt/deep/down/x.safetensors")
    place = place_of(settings(MORPHEUS_MODELS_ENDPOINT_URL="https://store.example.com", **MODELS_KEYS), name)
    with pytest.raises(SyncError) as caught, reading(place, name):
        raise failure
    error = caught.value
    assert (error.code, error.passing) == (code, passing)
    assert says in str(error)
    for told in ("bkt", "x.safetensors", "store.example.com"):
        assert told in error.what
    for hidden in ("models-key", "models-secret", "Signature=abc", "deep/down"):
        assert hidden not in str(error)


@pytest.mark.parametrize(
    ("failure", "code", "passing"),
    [
        (refused(404, "NoSuchBucket"), SyncCode.STORE, False),
        (refused(403), SyncCode.STORE, False),
        (refused(403, "QuotaExceeded"), SyncCode.NO_SPACE, False),
        (refused(507, "InsufficientStorage"), SyncCode.NO_SPACE, False),
        (refused(502), SyncCode.STORE, True),
        (exceptions.NoCredentialsError(), SyncCode.ACCESS_DENIED, False),
    ],
)
def test_what_a_destination_says(failure: Exception, code: SyncCode, passing: bool) -> None:
    name = ObjectName.of("gs://bkt/x")
    with pytest.raises(SyncError) as caught, writing(place_of(settings(), name), name):
        raise failure
    assert (caught.value.code, caught.value.passing) == (code, passing)
    assert "BUCKET_" not in str(caught.value)


def test_a_store_may_ask_to_be_left_alone() -> None:
    name = ObjectName.of("s3://bkt/x")
    with pytest.raises(SyncError) as caught, reading(place_of(settings(), name), name):
        raise refused(503, "SlowDown", **{"retry-after": "7"})
    assert caught.value.after_s == 7.0


# Parts.


@pytest.mark.parametrize(
    ("size", "step"),
    [
        (None, 32 * MIB),
        (0, 16 * MIB),
        (40_000 * MIB, 16 * MIB),
        (200_000 * MIB, 23 * MIB),
        (4_000_000 * MIB, 445 * MIB),
    ],
)
def test_parts_grow_with_the_file(size: int | None, step: int) -> None:
    assert Sizes().part_bytes_of(size) == step
    assert step <= LARGEST_PART
    assert size is None or -(-size // step) <= 9000


def test_a_file_may_be_too_large_for_parts() -> None:
    with pytest.raises(SyncError) as caught:
        Sizes().part_bytes_of(LARGEST_PART * 9001)
    assert caught.value.code is SyncCode.STORE


@pytest.mark.parametrize(
    ("step", "connections", "count"), [(16 * MIB, 4, 4), (16 * MIB, 32, 6), (445 * MIB, 8, 1), (1, 1, 1)]
)
def test_little_is_held_at_once(step: int, connections: int, count: int) -> None:
    assert Sizes().at_once(step, connections) == count


def test_memory_is_lent_up_to_its_limit() -> None:
    memory = Limit(100)

    def give_up() -> None:
        raise HaltedError

    with memory.lent(60, give_up) as first, memory.lent(40, give_up) as second:
        assert (len(first), len(second)) == (60, 40)
        with pytest.raises(HaltedError), memory.lent(1, give_up):
            pass
    # What is larger than all of it.
    with memory.lent(500, give_up), pytest.raises(HaltedError), memory.lent(1, give_up):
        pass
    with memory.lent(100, give_up):
        pass


def test_what_was_lent_is_gone_while_its_variable_is_not() -> None:
    memory = Limit(100)
    with memory.lent(100, lambda: None) as pages, pages[:5] as part:
        part[:] = b"12345"
    with pytest.raises(ValueError, match="released"):
        pages[0]
    # Nor does it matter that a failure still has hold of some of it.
    with contextlib.suppress(ZeroDivisionError), memory.lent(100, lambda: None) as pages:
        part = pages[:5]
        raise ZeroDivisionError
    with memory.lent(100, lambda: None):
        part.release()


def test_a_part_is_read_as_a_file_is_until_told_to_stop() -> None:
    asked = []
    body = PartBody(memoryview(b"0123456789"), lambda: asked.append(1))
    assert body.seek(0, 2) == 10
    assert body.seek(0) == 0
    assert (body.read(4), body.tell(), body.read(), body.read(), body.read(5)) == (b"0123", 4, b"456789", b"", b"")
    assert len(asked) == 2


@dataclass
class Bytes:
    """An answer from memory. `cut` is where it breaks off."""

    content: bytes
    start: int
    total: int | None
    ranged: bool
    cut: int | None = None
    at: int = 0

    def readinto(self, buffer: memoryview) -> int:
        end = len(self.content) if self.cut is None else min(self.cut, len(self.content))
        if self.at == self.cut:
            raise SyncError(SyncCode.UNREACHABLE, "was cut", passing=True)
        count = min(len(buffer), end - self.at, 3)
        buffer[:count] = self.content[self.at : self.at + count]
        self.at += count
        return count


@dataclass
class Memory:
    """A feed from memory: what it was asked for, and where its answers break off, in their order."""

    content: bytes
    ranges: bool = True
    says_size: bool = True
    version: bool = True
    cuts: list[int | None] = field(default_factory=list)
    asked: list[tuple[int, int | None]] = field(default_factory=list)
    shown: str = "memory:"
    lock: threading.Lock = field(default_factory=threading.Lock)
    resolved: Resolved = field(init=False)

    def __post_init__(self) -> None:
        size = len(self.content) if self.says_size else None
        self.resolved = Resolved({"kind": "https"}, size=size, etag='"1"' if self.version else None)

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[Body]:
        with self.lock:
            self.asked.append((start, end))
            cut = self.cuts.pop(0) if self.cuts else None
        if not self.ranges:
            start, end = 0, None
        total = len(self.content) if self.says_size else None
        yield Bytes(self.content[start:end], start, total, self.ranges, cut)


CONTENT = bytes(range(100))


def tally(size: int | None, **more: Any) -> Tally:
    return Tally(size=size, hashing=True, judge=more.get("judge"))


def all_parts(arrival: RangedArrival | StreamedArrival, step: int) -> list[bytes]:
    parts: list[bytes] = []
    buffer = memoryview(bytearray(step))
    while (part := arrival.take(buffer)) is not None:
        assert part == Part(len(parts) + 1, part.size, whole=part.whole)
        parts.append(bytes(buffer[: part.size]))
    return parts


@pytest.mark.parametrize("cuts", [[], [0], [4, 4, None, 1, 0, 7], [0, 0, 3, 0, 0, 3]])
def test_ranges_go_on_where_they_broke_off(cuts: list[int | None]) -> None:
    feed, count = Memory(CONTENT, cuts=cuts), tally(100)
    assert all_parts(RangedArrival(feed, count, FAST, size=100, part_bytes=30), 30) == [
        CONTENT[:30], CONTENT[30:60], CONTENT[60:90], CONTENT[90:],
    ]  # fmt: skip
    assert count.end() == (100, hashlib.sha256(CONTENT).hexdigest())
    assert count.received == 100
    asked = [start for start, _ in feed.asked]
    assert asked == sorted(asked)


def test_a_range_is_given_up_after_tries_without_a_byte() -> None:
    feed = Memory(CONTENT, cuts=[5, 0, 0, 0])
    with pytest.raises(SyncError) as caught:
        RangedArrival(feed, tally(100), FAST, size=100, part_bytes=100).take(memoryview(bytearray(100)))
    assert caught.value.what == "was cut"
    # The first broke off after five bytes; then as many without a byte as the pace has tries.
    assert feed.asked == [(0, 100), (5, 100), (5, 100), (5, 100)]


def test_a_host_that_asks_for_too_long_a_wait_is_given_up() -> None:
    class Busy(Memory):
        @contextlib.contextmanager
        def opened(self, start: int, end: int | None) -> Iterator[Body]:
            with super().opened(start, end):
                raise SyncError(SyncCode.UNREACHABLE, "is busy", passing=True, after_s=3600.0)
            yield  # type: ignore[unreachable]  # It must be a generator.

    feed = Busy(CONTENT)
    with pytest.raises(SyncError, match="busy"):
        RangedArrival(feed, tally(100), FAST, size=100, part_bytes=50).take(memoryview(bytearray(50)))
    assert len(feed.asked) == 1


def test_a_host_without_ranges_is_noticed() -> None:
    with pytest.raises(UnrangedError):
        RangedArrival(Memory(CONTENT, ranges=False), tally(100), FAST, size=100, part_bytes=50).take(
            memoryview(bytearray(50))
        )


@pytest.mark.parametrize("kind", ["ranged", "streamed"])
@pytest.mark.parametrize("size", [99, 101])
def test_another_size_is_rejected(kind: str, size: int) -> None:
    feed, count = Memory(CONTENT), tally(size)
    arrival = (
        RangedArrival(feed, count, FAST, size=size, part_bytes=50)
        if kind == "ranged"
        else StreamedArrival(feed, count, FAST, part_bytes=50)
    )
    with pytest.raises(SyncError) as caught:
        all_parts(arrival, 50)
    assert caught.value.code is SyncCode.REJECTED


def test_more_than_was_said_is_rejected_before_its_end() -> None:
    arrival = StreamedArrival(Memory(CONTENT, says_size=False), tally(40), FAST, part_bytes=50)
    with pytest.raises(SyncError) as caught:
        all_parts(arrival, 50)
    assert caught.value.code is SyncCode.REJECTED


@pytest.mark.parametrize("says_size", [True, False])
@pytest.mark.parametrize("step", [7, 50, 99, 100, 101, 1000])
def test_one_answer_is_cut_into_parts(says_size: bool, step: int) -> None:
    feed, count = Memory(CONTENT, says_size=says_size), tally(None)
    parts = all_parts(StreamedArrival(feed, count, FAST, part_bytes=step), step)
    assert [len(part) for part in parts] == [min(step, 100 - start) for start in range(0, 100, step)]
    assert count.end() == (100, hashlib.sha256(CONTENT).hexdigest())
    assert feed.asked == [(0, None)]


def test_one_answer_that_broke_off_goes_on_where_the_host_can() -> None:
    feed, count = Memory(CONTENT, cuts=[33, 0, 40]), tally(None)
    assert b"".join(all_parts(StreamedArrival(feed, count, FAST, part_bytes=20), 20)) == CONTENT
    assert [start for start, _ in feed.asked] == [0, 33, 33, 73]


@pytest.mark.parametrize("lacks", ["ranges", "version"])
def test_one_answer_that_broke_off_begins_anew_where_two_versions_might_mix(lacks: str) -> None:
    feed = Memory(CONTENT, cuts=[33], ranges=lacks != "ranges", version=lacks != "version")
    with pytest.raises(StartOverError):
        all_parts(StreamedArrival(feed, tally(None), FAST, part_bytes=20), 20)


def test_an_answer_that_ends_too_early_is_no_end() -> None:
    class Short(Memory):
        @contextlib.contextmanager
        def opened(self, start: int, end: int | None) -> Iterator[Body]:
            self.asked.append((start, end))
            yield Bytes(self.content[start:60] if len(self.asked) == 1 else self.content[start:end], start, 100, True)

    feed = Short(CONTENT)
    assert b"".join(all_parts(StreamedArrival(feed, tally(100), FAST, part_bytes=40), 40)) == CONTENT
    assert feed.asked == [(0, None), (60, None)]


def test_an_empty_file_is_one_part() -> None:
    count = tally(0)
    assert all_parts(StreamedArrival(Memory(b""), count, FAST, part_bytes=40), 40)[:1] == [b""]
    assert count.end()[0] == 0


def test_several_threads_hash_in_order() -> None:
    content = bytes(range(256)) * 40
    count = tally(len(content))
    arrival = RangedArrival(Memory(content, cuts=[100, None, 3, 8]), count, FAST, size=len(content), part_bytes=100)
    parts: dict[int, bytes] = {}

    def carry() -> None:
        buffer = memoryview(bytearray(100))
        while (part := arrival.take(buffer)) is not None:
            parts[part.number] = bytes(buffer[: part.size])

    threads = [threading.Thread(target=carry) for _ in range(6)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert b"".join(parts[number] for number in sorted(parts)) == content
    assert count.end() == (len(content), hashlib.sha256(content).hexdigest())


def test_the_beginning_is_judged_with_the_size_as_soon_as_both_are_known() -> None:
    heard: list[tuple[bytes, int]] = []
    known = tally(100, judge=lambda head, size: heard.append((head, size)))
    RangedArrival(Memory(CONTENT), known, FAST, size=100, part_bytes=30).take(memoryview(bytearray(30)))
    assert heard == [(CONTENT[:30], 100)]
    unknown = tally(None, judge=lambda head, size: heard.append((head, size)))
    all_parts(StreamedArrival(Memory(CONTENT, says_size=False), unknown, FAST, part_bytes=20), 20)
    assert len(heard) == 1
    unknown.end()
    assert heard[1:] == [(CONTENT[:20], 100)]


def test_what_is_waiting_ends_when_another_has_failed() -> None:
    count = tally(100)
    ended = threading.Event()

    def wait_for_its_turn() -> None:
        with contextlib.suppress(HaltedError):
            count.settle(1, memoryview(CONTENT))
        ended.set()

    thread = threading.Thread(target=wait_for_its_turn)
    thread.start()
    count.halt()
    assert ended.wait(10)
    thread.join()
