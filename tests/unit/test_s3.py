"""S3 by values alone: what the settings say about the store, the names of objects, parts of files, and what failures
say. URLs are signed offline, so they show which address the SDK makes of the settings."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import parse_qs, urlsplit

import boto3
import pytest
from botocore import exceptions
from botocore.parsers import ResponseParserError

from morpheus_worker.deadlines import Allowance
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.s3 import S3Store
from morpheus_worker.s3.endpoint import S3Name, UnusableUriError, endpoint_of
from morpheus_worker.s3.faults import fault_of, unreachable, upload_failed
from morpheus_worker.s3.uploading import MIB, MOST_PARTS, FilePart, Sizes
from morpheus_worker.settings import Settings

ACCOUNT = "0123456789abcdef0123456789abcdef"
KEY_ID, SECRET = "AKIDTESTTESTTESTTEST", "not+a/real+secret"


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")


@pytest.fixture(scope="module")
def session() -> boto3.session.Session:
    return boto3.session.Session()


@pytest.fixture
def _read_once(monkeypatch: pytest.MonkeyPatch, session: boto3.session.Session) -> None:
    """Every session reads the SDK's descriptions of S3 anew, which takes a fifth of a second."""
    monkeypatch.setattr(boto3.session, "Session", lambda: session)


def settings(endpoint: str | None = None, **more: str) -> Settings:
    given = {"BUCKET_ACCESS_KEY_ID": KEY_ID, "BUCKET_SECRET_ACCESS_KEY": SECRET, **more}
    return Settings.from_environment(given | ({"BUCKET_ENDPOINT_URL": endpoint} if endpoint else {}))


def signed(chosen: Settings, key: str = "job-7/x.png") -> tuple[str, str]:
    """The address of an output, and the region in its signature."""
    store = S3Store.of(chosen)
    try:
        url = urlsplit(store.url_of(store.uri_of(store.endpoint.key_prefix + key)))
    finally:
        store.close()
    return f"{url.scheme}://{url.netloc}{url.path}", parse_qs(url.query)["X-Amz-Credential"][0].split("/")[2]


@pytest.mark.parametrize(
    ("endpoint", "address", "region"),
    [
        # As the official ComfyUI worker documents it, and as its answers look.
        ("https://bkt.s3.eu-west-1.amazonaws.com", "https://bkt.s3.eu-west-1.amazonaws.com/", "eu-west-1"),
        ("https://bkt.s3.eu-west-1.amazonaws.com/", "https://bkt.s3.eu-west-1.amazonaws.com/", "eu-west-1"),
        ("https://a.bkt.s3.eu-west-1.amazonaws.com", "https://s3.eu-west-1.amazonaws.com/a.bkt/", "eu-west-1"),
        ("https://bkt.s3-us-west-2.amazonaws.com", "https://bkt.s3.us-west-2.amazonaws.com/", "us-west-2"),
        ("https://bkt.s3.us-gov-west-1.amazonaws.com", "https://bkt.s3.us-gov-west-1.amazonaws.com/", "us-gov-west-1"),
        ("https://bkt.s3.cn-north-1.amazonaws.com.cn", "https://bkt.s3.cn-north-1.amazonaws.com.cn/", "cn-north-1"),
        ("https://s3.eu-west-1.amazonaws.com/bkt", "https://bkt.s3.eu-west-1.amazonaws.com/", "eu-west-1"),
        (
            "https://s3.eu-west-1.amazonaws.com/bkt/renders",
            "https://bkt.s3.eu-west-1.amazonaws.com/renders/",
            "eu-west-1",
        ),
        (
            "https://bkt.s3.dualstack.eu-west-1.amazonaws.com",
            "https://bkt.s3.dualstack.eu-west-1.amazonaws.com/",
            "eu-west-1",
        ),
        (f"https://{ACCOUNT}.r2.cloudflarestorage.com/bkt", f"https://{ACCOUNT}.r2.cloudflarestorage.com/bkt/", "auto"),
        (
            f"https://bkt.{ACCOUNT}.eu.r2.cloudflarestorage.com",
            f"https://bkt.{ACCOUNT}.eu.r2.cloudflarestorage.com/",
            "auto",
        ),
        ("https://storage.googleapis.com/bkt", "https://storage.googleapis.com/bkt/", "auto"),
        ("https://bkt.storage.googleapis.com", "https://bkt.storage.googleapis.com/", "auto"),
        ("https://bkt.fra1.digitaloceanspaces.com", "https://bkt.fra1.digitaloceanspaces.com/", "fra1"),
        ("https://fra1.digitaloceanspaces.com/bkt", "https://fra1.digitaloceanspaces.com/bkt/", "fra1"),
        ("https://s3.us-west-004.backblazeb2.com/bkt", "https://s3.us-west-004.backblazeb2.com/bkt/", "us-west-004"),
        ("https://bkt.s3.us-west-004.backblazeb2.com", "https://bkt.s3.us-west-004.backblazeb2.com/", "us-west-004"),
        ("https://s3api-eu-ro-1.runpod.io/bkt", "https://s3api-eu-ro-1.runpod.io/bkt/", "EU-RO-1"),
        ("http://minio.s3.svc.cluster.local:9000/bkt", "http://minio.s3.svc.cluster.local:9000/bkt/", "us-east-1"),
        ("https://store.example.com/bkt/deep/down", "https://store.example.com/bkt/deep/down/", "us-east-1"),
    ],
)
@pytest.mark.usefixtures("_read_once")
def test_the_bucket_in_the_endpoint_is_named_once(endpoint: str, address: str, region: str) -> None:
    assert signed(settings(endpoint)) == (f"{address}job-7/x.png", region)


@pytest.mark.parametrize(
    ("endpoint", "more", "address", "region"),
    [
        ("https://s3.eu-west-1.amazonaws.com", {}, "https://bkt.s3.eu-west-1.amazonaws.com/", "eu-west-1"),
        ("https://s3.eu-west-1.amazonaws.com", {"MORPHEUS_S3_ADDRESSING": "path"}, None, "eu-west-1"),
        ("https://bkt.s3.eu-west-1.amazonaws.com", {"MORPHEUS_S3_ADDRESSING": "path"}, None, "eu-west-1"),
        ("https://other.s3.eu-west-1.amazonaws.com", {}, "https://bkt.s3.eu-west-1.amazonaws.com/", "eu-west-1"),
        (
            "https://s3.amazonaws.com",
            {"BUCKET_REGION": "eu-west-3"},
            "https://bkt.s3.eu-west-3.amazonaws.com/",
            "eu-west-3",
        ),
        ("https://store.example.com", {}, "https://store.example.com/bkt/", "us-east-1"),
        ("https://store.example.com", {"BUCKET_REGION": "garage"}, "https://store.example.com/bkt/", "garage"),
        ("https://store.example.com/bkt", {}, "https://store.example.com/bkt/", "us-east-1"),
        ("https://x.example.com/storage/v1/s3", {}, "https://x.example.com/storage/v1/s3/bkt/", "us-east-1"),
        (
            "https://store.example.com",
            {"MORPHEUS_S3_ADDRESSING": "virtual"},
            "https://bkt.store.example.com/",
            "us-east-1",
        ),
        ("https://bkt.store.example.com", {}, "https://bkt.store.example.com/", "us-east-1"),
        ("https://bkt.example.com", {"MORPHEUS_S3_ADDRESSING": "path"}, "https://bkt.example.com/bkt/", "us-east-1"),
    ],
)
@pytest.mark.usefixtures("_read_once")
def test_the_bucket_beside_the_endpoint_is_named_once(
    endpoint: str, more: dict[str, str], address: str | None, region: str
) -> None:
    address = address or "https://s3.eu-west-1.amazonaws.com/bkt/"
    assert signed(settings(endpoint, BUCKET_NAME="bkt", **more)) == (f"{address}job-7/x.png", region)


def test_a_bucket_without_an_endpoint_is_at_amazon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_DEFAULT_REGION", "sa-east-1")
    assert signed(settings(BUCKET_NAME="bkt")) == ("https://bkt.s3.sa-east-1.amazonaws.com/job-7/x.png", "sa-east-1")


@pytest.mark.parametrize(
    "chosen",
    [
        settings(),
        settings("https://store.example.com"),
        settings("https://s3.eu-west-1.amazonaws.com"),
        settings("https://fra1.digitaloceanspaces.com/"),
    ],
)
def test_a_bucket_that_nobody_named_is_not_guessed(chosen: Settings) -> None:
    store = S3Store.of(chosen)
    assert not store.can_store
    with pytest.raises(MorpheusError, match="set BUCKET_NAME") as caught:
        store.upload(Path(__file__), "job-7/x.png", media_type="image/png", allowance=Allowance.of(5))
    assert (caught.value.code, caught.value.retryable) == (Code.UPLOAD_FAILED, False)


@pytest.mark.parametrize(
    ("prefix", "expected"),
    [("", ""), ("runs/", "runs/"), ("/runs/", "runs/"), ("runs-", "runs-"), ("../runs/", "runs/")],
)
def test_the_key_prefix_comes_before_the_job_id(prefix: str, expected: str) -> None:
    chosen = settings("https://store.example.com/bkt/folder", MORPHEUS_S3_KEY_PREFIX=prefix)
    assert endpoint_of(chosen).key_prefix == f"folder/{expected}"


def test_a_public_address_is_not_signed_and_names_any_key() -> None:
    store = S3Store.of(
        settings("https://store.example.com/bkt", MORPHEUS_S3_PUBLIC_URL="https://cdn.example.com/media/")
    )
    url = store.url_of("s3://bkt/job-7/größe 1+1%.png")
    assert url == "https://cdn.example.com/media/job-7/gr%C3%B6%C3%9Fe%201%2B1%25.png"


def test_another_bucket_than_the_public_one_is_signed() -> None:
    store = S3Store.of(settings("https://store.example.com/bkt", MORPHEUS_S3_PUBLIC_URL="https://cdn.example.com"))
    assert store.url_of("s3://other/x.png").startswith("https://store.example.com/other/x.png?X-Amz-Algorithm=")


def test_a_signed_url_lasts_as_long_as_the_settings_say() -> None:
    store = S3Store.of(settings("https://store.example.com/bkt", MORPHEUS_S3_URL_TTL_S="600"))
    query = parse_qs(urlsplit(store.url_of("s3://bkt/x.png")).query)
    assert query["X-Amz-Algorithm"] == ["AWS4-HMAC-SHA256"]
    assert query["X-Amz-Expires"] == ["600"]
    assert "x-amz-checksum-mode" not in query


def test_without_credentials_nothing_can_be_signed() -> None:
    store = S3Store.of(Settings.from_environment({"BUCKET_ENDPOINT_URL": "https://store.example.com/bkt"}))
    with pytest.raises(MorpheusError, match="BUCKET_ACCESS_KEY_ID") as caught:
        store.url_of("s3://bkt/x.png")
    assert (caught.value.code, caught.value.retryable) == (Code.UPLOAD_FAILED, False)


def test_credentials_come_from_the_sdks_chain_where_the_settings_have_none(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "AKIDOFTHECHAIN")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", SECRET)
    store = S3Store.of(Settings.from_environment({"BUCKET_ENDPOINT_URL": "https://store.example.com/bkt"}))
    assert "X-Amz-Credential=AKIDOFTHECHAIN" in store.url_of("s3://bkt/x.png")


def test_an_address_that_the_sdk_does_not_take_is_told_in_words() -> None:
    store = S3Store.of(settings("http://my_store:9000/bkt"))
    with pytest.raises(MorpheusError, match="BUCKET_ENDPOINT_URL") as caught:
        store.url_of("s3://bkt/x.png")
    assert not caught.value.retryable


@pytest.mark.parametrize("key", ["x.png", "a/b/größe 1+1.png", "a?versionId=3&X=%2F", "a//b", "...", "~"])
def test_the_key_is_taken_exactly_as_it_stands(key: str) -> None:
    name = S3Name.of(f"s3://bucket/{key}")
    assert (name.bucket, name.key, str(name)) == ("bucket", key, f"s3://bucket/{key}")


@pytest.mark.parametrize(
    "uri",
    [
        "https://bucket/key",
        "s3://",
        "s3://bucket",
        "s3://bucket/",
        "s3://bucket/folder/",
        "s3:///key",
        "s3://../key",
        "s3://bucket/../other/key",
        "s3://bucket/./key",
        "s3://user@bucket/key",
        "s3://host:9000/key",
        "s3://arn:aws:s3:us-west-2:123456789012:accesspoint/test/key",
        "s3://bu cket/key",
        "s3://bücket/key",
    ],
)
def test_what_names_no_object_is_refused(uri: str) -> None:
    with pytest.raises(UnusableUriError):
        S3Name.of(uri)


@pytest.mark.parametrize("size", [1, 32 * MIB, 2 * 1024 * MIB, 160_000 * MIB + 1, 5_000_000 * MIB])
def test_parts_are_never_too_many_nor_too_small(size: int) -> None:
    step = Sizes().part_bytes_of(size)
    assert step >= 16 * MIB
    assert -(-size // step) <= MOST_PARTS


@pytest.fixture
def descriptor(tmp_path: Path) -> Iterator[int]:
    path = tmp_path / "file"
    path.write_bytes(b"0123456789")
    with path.open("rb") as stream:
        yield stream.fileno()


def test_a_part_reads_its_stretch_alone(descriptor: int) -> None:
    part = FilePart(descriptor, 3, 4, lambda: None)
    assert [part.read(3), part.read(3), part.read(3)] == [b"345", b"6", b""]
    assert part.seek(0) == 0
    assert (part.read(), part.tell()) == (b"3456", 4)
    assert (part.seek(-1, os.SEEK_END), part.read(-1)) == (3, b"6")


def test_a_part_asks_before_each_read(descriptor: int) -> None:
    allowance = Allowance.of(60)
    part = FilePart(descriptor, 0, 10, lambda: allowance.check("uploading"))
    assert part.read(1) == b"0"
    allowance.cancelled.set()
    with pytest.raises(MorpheusError) as caught:
        part.read(1)
    assert caught.value.code is Code.CANCELLED
    part.seek(0, os.SEEK_END)
    assert part.read(1) == b"", "what has gone out whole is not broken off"


def refused(status: int, code: str | None) -> Exception:
    response: dict[str, Any] = {"ResponseMetadata": {"HTTPStatusCode": status}}
    response |= {"Error": {"Code": code, "Message": f"{KEY_ID} {SECRET}"}} if code else {}
    return exceptions.ClientError(response, "PutObject")  # type: ignore[no-any-return]


URL = "https://bkt.example.com/k?X-Amz-Signature=0000"


@pytest.mark.parametrize(
    ("failure", "retryable", "says"),
    [
        (refused(404, "NoSuchBucket"), False, "said NoSuchBucket (404); check BUCKET_NAME"),
        (refused(403, "AccessDenied"), False, "said AccessDenied (403); give the credentials the rights"),
        (refused(403, "InvalidAccessKeyId"), False, "said InvalidAccessKeyId (403); check BUCKET_ACCESS_KEY_ID"),
        (refused(403, "SignatureDoesNotMatch"), False, "check BUCKET_SECRET_ACCESS_KEY"),
        (refused(400, "AuthorizationHeaderMalformed"), False, "set BUCKET_REGION"),
        (refused(501, "NotImplemented"), False, "check BUCKET_ENDPOINT_URL"),
        (refused(403, "RequestTimeTooSkewed"), True, "clock"),
        (refused(503, "SlowDown"), True, "said SlowDown (503); try again"),
        (refused(500, "InternalError"), True, "try again"),
        (refused(429, "TooManyRequests"), True, "try again"),
        (refused(403, None), False, "answered 403; give the credentials the rights"),
        (refused(400, "<b>what ever</b>"), False, "answered 400"),
        (exceptions.NoCredentialsError(), False, "set BUCKET_ACCESS_KEY_ID"),
        (exceptions.EndpointConnectionError(endpoint_url=URL), True, "cannot be reached"),
        (exceptions.ConnectTimeoutError(endpoint_url=URL), True, "cannot be reached"),
        (exceptions.SSLError(endpoint_url=URL, error="x"), False, "certificate"),
        (exceptions.ReadTimeoutError(endpoint_url=URL), True, "stopped answering"),
        (exceptions.ConnectionClosedError(endpoint_url=URL), True, "broke the connection"),
        (ResponseParserError("<html>"), False, "not S3's"),
        (exceptions.ProfileNotFound(profile="p"), False, "ProfileNotFound"),
        (ValueError("Invalid endpoint"), False, "check BUCKET_ENDPOINT_URL"),
    ],
)
def test_a_failure_says_what_the_store_said_and_what_to_do(failure: Exception, retryable: bool, says: str) -> None:
    error = upload_failed("x.png", "b", "https://store.example.com", fault_of(failure))
    assert error.message.startswith("'x.png' could not be uploaded to the bucket 'b': the store at https://store.")
    assert says in error.message
    assert (error.code, error.retryable, error.details["bucket"]) == (Code.UPLOAD_FAILED, retryable, "b")
    shown = error.message + str(error.details)
    assert not any(secret in shown for secret in (KEY_ID, SECRET, "Signature=", "X-Amz"))


@pytest.mark.parametrize(
    ("failure", "retryable", "says"),
    [
        (refused(404, "NoSuchKey"), False, "is not in the bucket 'b'"),
        (refused(404, None), False, "is not in the bucket 'b'"),
        (refused(404, "NoSuchBucket"), False, "said NoSuchBucket (404)"),
        (refused(403, "AccessDenied"), False, "may not be read"),
        (refused(503, "SlowDown"), True, "SlowDown"),
        (exceptions.IncompleteReadError(actual_bytes=1, expected_bytes=2), True, "broke the connection"),
        (exceptions.NoCredentialsError(), False, "no credentials"),
    ],
)
def test_a_refused_medium_says_why(failure: Exception, retryable: bool, says: str) -> None:
    refusal = unreachable("b", fault_of(failure))
    assert (refusal.code, refusal.retryable) == (Code.INPUT_UNREACHABLE, retryable)
    assert says in refusal.what
