"""Outputs to and inputs from a store that speaks S3, over real sockets: moto's for what a store keeps, a raw one for
what is sent and for what goes wrong."""

from __future__ import annotations

import contextlib
import hashlib
import io
import logging
import os
import threading
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from urllib.parse import urlsplit

import boto3
import pytest
import requests
from PIL import Image

from morpheus_worker.comfy.files import Origin
from morpheus_worker.comfy.history import FileRef
from morpheus_worker.comfy.http import OutputMissingError
from morpheus_worker.deadlines import Allowance, Deadline
from morpheus_worker.errors import Code, MediaRefusedError, MorpheusError
from morpheus_worker.fetching import Fetched
from morpheus_worker.jobs import OutputFile
from morpheus_worker.s3 import S3Folder, S3Store, downloading, folder
from morpheus_worker.s3.store import Patience
from morpheus_worker.s3.uploading import MIB, Sizes
from morpheus_worker.settings import Settings
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
NAMES = ["x.png", "größe 中文.png", "a b+c.png", "100%.png", "a&b=c;d,e@f:g.png", "'quoted'.png"]
SMALL_PARTS = Sizes(whole_bytes=6 * MIB, part_bytes=5 * MIB, parts_at_once=3)
"""5 MiB is the least that S3 takes for a part that is not the last."""

ONE_TRY = Patience(connect_s=2.0, read_s=5.0, tries=1)


@pytest.fixture(autouse=True)
def _no_aws_of_this_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    sdk_of_nobody(monkeypatch)


@pytest.fixture
def bucket() -> Bucket:
    return new_bucket()


@pytest.fixture
def raw() -> Iterator[RawStore]:
    with raw_store() as running:
        yield running


@pytest.fixture
def allowance() -> Allowance:
    return Allowance.of(60)


@pytest.fixture
def stores() -> Iterator[Callable[..., S3Store]]:
    """Makes stores, which are closed at the end."""
    with contextlib.ExitStack() as ending:

        def make(settings: Settings, sizes: Sizes | None = None, patience: Patience | None = None) -> S3Store:
            store = S3Store(settings, sizes=sizes, patience=patience)
            ending.callback(store.close)
            return store

        yield make


Stores = Callable[..., S3Store]


@dataclass
class Outputs:
    """Outputs of a prompt: by name, as a file on the disk or, as from a ComfyUI that is reached by HTTP, as chunks."""

    root: Path
    remote: dict[str, bytes] = field(default_factory=dict)

    def local(self, name: str, content: bytes = CONTENT, node_id: str = "9") -> FileRef:
        path = self.root / node_id / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(content)
        return FileRef(node_id, name, "", "output")

    def distant(self, name: str, content: bytes = CONTENT) -> FileRef:
        self.remote[name] = content
        return FileRef("9", name, "", "output")

    @contextlib.contextmanager
    def origin(self, ref: FileRef) -> Iterator[Origin]:
        if ref.filename in self.remote:
            content = self.remote[ref.filename]
            yield iter([content[:1000], content[1000:]])
        elif (path := self.root / ref.node_id / ref.filename).is_file():
            yield path
        else:
            raise OutputMissingError(ref)


@pytest.fixture
def outputs(tmp_path: Path) -> Outputs:
    return Outputs(tmp_path / "outputs")


def picture() -> bytes:
    stream = io.BytesIO()
    Image.new("RGB", (24, 16), (1, 2, 3)).save(stream, "PNG")
    return stream.getvalue()


def delivered(entry: OutputFile | MorpheusError) -> OutputFile:
    assert isinstance(entry, OutputFile), entry
    return entry


def file_of(path: Path, size: int) -> Path:
    with path.open("wb") as stream:
        stream.truncate(size)
        stream.write(os.urandom(4096))
    return path


def ending_after(checks: int, code: Code) -> Allowance:
    """An allowance that is used up, by a cancel or by its deadline, after so many looks at it."""

    class Cancel(threading.Event):
        looks = 0

        def is_set(self) -> bool:
            self.looks += 1
            return self.looks > checks

    if code is Code.CANCELLED:
        return Allowance(Deadline.after(600), Cancel())
    moments = iter(range(10**9))
    return Allowance(Deadline(float(checks), clock=lambda: float(next(moments))), threading.Event())


# Uploads, and what can be downloaded afterwards.


@pytest.mark.parametrize("name", NAMES)
def test_what_goes_up_comes_down_by_url_and_by_name(
    bucket: Bucket, stores: Stores, tmp_path: Path, allowance: Allowance, name: str
) -> None:
    store = stores(bucket.settings())
    (tmp_path / "source").write_bytes(CONTENT)
    uri = store.upload(tmp_path / "source", f"job-7/{name}", media_type="image/png", allowance=allowance)
    assert uri == f"s3://{bucket.name}/job-7/{name}"
    assert bucket.keys() == [f"job-7/{name}"]

    url = store.url_of(uri)
    answer = requests.get(url, timeout=WAIT_S)
    assert "X-Amz-Algorithm=AWS4-HMAC-SHA256" in url
    assert (answer.status_code, answer.content, answer.headers["Content-Type"]) == (200, CONTENT, "image/png")

    fetched = store.fetch(uri, tmp_path / "target", max_bytes=len(CONTENT), allowance=allowance)
    assert fetched == Fetched(size=len(CONTENT), filename=name, media_type="image/png")
    assert (tmp_path / "target").read_bytes() == CONTENT


def test_an_empty_file_is_an_object_too(bucket: Bucket, stores: Stores, tmp_path: Path, allowance: Allowance) -> None:
    store = stores(bucket.settings())
    (tmp_path / "empty").touch()
    uri = store.upload(tmp_path / "empty", "empty.txt", media_type="text/plain", allowance=allowance)
    assert store.fetch(uri, tmp_path / "target", max_bytes=1, allowance=allowance).size == 0
    assert (tmp_path / "target").read_bytes() == b""


def test_a_large_file_goes_in_parts_and_arrives_whole(
    bucket: Bucket, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    source = file_of(tmp_path / "clip.mp4", 12 * MIB + 17)
    store = stores(bucket.settings(), SMALL_PARTS)
    uri = store.upload(source, "clip.mp4", media_type="video/mp4", allowance=allowance)
    said = bucket.client.head_object(Bucket=bucket.name, Key="clip.mp4")
    assert said["ETag"].endswith('-3"')
    assert said["ContentType"] == "video/mp4"
    store.fetch(uri, tmp_path / "target", max_bytes=20 * MIB, allowance=allowance)
    assert (tmp_path / "target").read_bytes() == source.read_bytes()
    assert bucket.unfinished() == []


def test_the_parts_of_a_file_go_up_at_once(raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance) -> None:
    together = threading.Barrier(3)

    def put(_: Request) -> None:
        together.wait(WAIT_S)

    raw.answer = multipart(put)
    source = file_of(tmp_path / "clip.mp4", 12 * MIB)
    stores(s3_settings(raw.url, "bkt"), SMALL_PARTS).upload(
        source, "clip.mp4", media_type="video/mp4", allowance=allowance
    )
    assert sorted(request.size for request in raw.requests if request.method == "PUT") == [2 * MIB, 5 * MIB, 5 * MIB]


def multipart(put: Callable[[Request], Answer | None]) -> Callable[[Request], Answer]:
    """Answers a multipart upload, its parts as `put` says."""

    def answer(request: Request) -> Answer:
        if request.target.endswith("?uploads"):
            return Answer(body=b"<Result><UploadId>u-1</UploadId></Result>")
        if request.method == "POST":
            return Answer(body=b'<CompleteMultipartUploadResult><ETag>"1"</ETag></CompleteMultipartUploadResult>')
        return (put(request) if request.method == "PUT" else None) or Answer(headers={"ETag": '"1"'})

    return answer


@pytest.mark.parametrize("code", [Code.CANCELLED, Code.TIMEOUT])
@pytest.mark.parametrize("checks", [0, 10, 60])
def test_a_job_that_must_stop_leaves_no_parts_behind(
    bucket: Bucket, stores: Stores, tmp_path: Path, code: Code, checks: int
) -> None:
    source = file_of(tmp_path / "clip.mp4", 12 * MIB)
    store = stores(bucket.settings(), SMALL_PARTS)
    with pytest.raises(MorpheusError) as caught:
        store.upload(source, "clip.mp4", media_type="video/mp4", allowance=ending_after(checks, code))
    assert caught.value.code is code
    assert (bucket.unfinished(), bucket.keys()) == ([], [])


@pytest.mark.parametrize("checks", [0, 1, 3])
def test_a_job_that_must_stop_leaves_no_small_object_behind(
    bucket: Bucket, stores: Stores, outputs: Outputs, checks: int
) -> None:
    job = S3Folder(stores(bucket.settings()), "job-7", ending_after(checks, Code.CANCELLED))
    with pytest.raises(MorpheusError) as caught:
        job.publish([outputs.local("x.png", os.urandom(MIB))], outputs)
    job.withdraw()
    assert caught.value.code is Code.CANCELLED
    assert bucket.keys() == []


def test_a_part_that_is_refused_ends_the_others_and_leaves_nothing(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    raw.answer = multipart(lambda request: refusal(403, "AccessDenied") if "partNumber=2" in request.target else None)
    source = file_of(tmp_path / "clip.mp4", 60 * MIB)
    with pytest.raises(MorpheusError, match="AccessDenied") as caught:
        stores(s3_settings(raw.url, "bkt"), SMALL_PARTS).upload(
            source, "clip.mp4", media_type="video/mp4", allowance=allowance
        )
    assert not caught.value.retryable
    assert raw.methods().count("PUT") < 12
    assert raw.methods()[-1] == "DELETE"
    assert raw.requests[-1].target == "/bkt/clip.mp4?uploadId=u-1"


def test_a_server_that_takes_anything_is_no_store(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    raw.answer = lambda _: Answer(body=b"<html></html>")
    source = file_of(tmp_path / "clip.mp4", 12 * MIB)
    with pytest.raises(MorpheusError, match="not S3's") as caught:
        stores(s3_settings(raw.url, "bkt"), SMALL_PARTS).upload(
            source, "clip.mp4", media_type="video/mp4", allowance=allowance
        )
    assert (caught.value.code, caught.value.retryable) == (Code.UPLOAD_FAILED, False)


# What is sent.


def test_an_upload_is_plain_enough_for_every_store(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    (tmp_path / "x.png").write_bytes(CONTENT)
    stores(s3_settings(raw.url, "bkt")).upload(tmp_path / "x.png", "x.png", media_type="image/png", allowance=allowance)
    [request] = raw.requests
    headers = {name.lower(): value for name, value in request.headers.items()}
    assert (request.method, request.target, request.size) == ("PUT", "/bkt/x.png", len(CONTENT))
    assert headers["x-amz-content-sha256"] == hashlib.sha256(CONTENT).hexdigest()
    assert headers["content-type"] == "image/png"
    assert headers["authorization"].startswith("AWS4-HMAC-SHA256 Credential=")
    assert not {"content-encoding", "x-amz-trailer", "x-amz-decoded-content-length", "transfer-encoding"} & set(headers)
    assert not [
        name for name in headers if name.startswith(("x-amz-checksum", "x-amz-sdk-checksum", "if-", "x-amz-acl"))
    ]


@pytest.mark.parametrize(
    ("endpoint", "more", "address"),
    [
        ("http://store.example.com/bkt", {}, "http://store.example.com/bkt/job-7/x.png"),
        ("http://store.example.com", {"BUCKET_NAME": "bkt"}, "http://store.example.com/bkt/job-7/x.png"),
        (
            "http://store.example.com",
            {"BUCKET_NAME": "bkt", "MORPHEUS_S3_ADDRESSING": "virtual"},
            "http://bkt.store.example.com/job-7/x.png",
        ),
        ("http://bkt.store.example.com", {"BUCKET_NAME": "bkt"}, "http://bkt.store.example.com/job-7/x.png"),
        (
            "http://bkt.store.example.com",
            {"BUCKET_NAME": "bkt", "MORPHEUS_S3_ADDRESSING": "path"},
            "http://bkt.store.example.com/bkt/job-7/x.png",
        ),
        ("http://bkt.s3.eu-west-1.amazonaws.com", {}, "http://bkt.s3.eu-west-1.amazonaws.com/job-7/x.png"),
    ],
)
def test_requests_go_where_the_urls_lead(
    raw: RawStore,
    stores: Stores,
    tmp_path: Path,
    allowance: Allowance,
    monkeypatch: pytest.MonkeyPatch,
    endpoint: str,
    more: dict[str, str],
    address: str,
) -> None:
    # As a proxy, the raw store hears the whole address, and no name has to be looked up.
    monkeypatch.setenv("HTTP_PROXY", raw.url)
    monkeypatch.delenv("NO_PROXY", raising=False)
    (tmp_path / "x.png").write_bytes(CONTENT)
    store = stores(s3_settings(endpoint, **more))
    uri = store.upload(tmp_path / "x.png", "job-7/x.png", media_type="image/png", allowance=allowance)
    assert [request.target for request in raw.requests] == [address]
    assert store.url_of(uri).split("?")[0] == address


def test_a_url_is_made_without_asking_anybody(raw: RawStore, stores: Stores) -> None:
    assert urlsplit(stores(s3_settings(raw.url, "bkt")).url_of("s3://bkt/x.png")).path == "/bkt/x.png"
    assert raw.requests == []


def test_threads_share_one_client(stores: Stores, monkeypatch: pytest.MonkeyPatch) -> None:
    made: list[str] = []

    def session() -> boto3.session.Session:
        made.append("a session")
        return sdk_session()

    monkeypatch.setattr(boto3.session, "Session", session)
    store, together = stores(s3_settings(moto_url(), "bkt")), threading.Barrier(8)

    def sign(_: int) -> str:
        together.wait(WAIT_S)
        return store.url_of("s3://bkt/x.png")

    with ThreadPoolExecutor(8) as pool:
        assert len(list(pool.map(sign, range(8)))) == 8
    assert made == ["a session"]


# The outputs of a job.


def test_outputs_are_told_in_order_with_all_that_is_known_of_them(
    bucket: Bucket, stores: Stores, outputs: Outputs, allowance: Allowance
) -> None:
    shot = picture()
    refs = [outputs.local("x.png", shot), outputs.distant("clip.mp4"), outputs.local("notes.txt", b"hello")]
    job = S3Folder(stores(bucket.settings(MORPHEUS_S3_KEY_PREFIX="runs/")), "job-7", allowance)
    first, second, third = [delivered(entry) for entry in job.publish(refs, outputs)]

    assert bucket.keys() == ["runs/job-7/clip.mp4", "runs/job-7/notes.txt", "runs/job-7/x.png"]
    assert (first.kind, first.filename, first.node_id, first.media_type) == ("image", "x.png", "9", "image/png")
    assert (first.bytes, first.sha256) == (len(shot), hashlib.sha256(shot).hexdigest())
    assert (first.width, first.height) == (24, 16)
    assert (first.path, first.volume_path, first.data) == (None, None, None)
    assert first.s3_uri == f"s3://{bucket.name}/runs/job-7/x.png"
    assert requests.get(str(first.url), timeout=WAIT_S).content == shot
    assert (second.kind, second.bytes, second.sha256) == ("video", len(CONTENT), hashlib.sha256(CONTENT).hexdigest())
    assert (third.kind, third.media_type) == ("text", "text/plain")
    assert bucket.read("runs/job-7/clip.mp4") == CONTENT
    assert bucket.media_type("runs/job-7/clip.mp4") == "video/mp4"
    assert (outputs.root / "9" / "x.png").is_file(), "a local output is not moved"


def test_outputs_go_up_several_at_once(raw: RawStore, stores: Stores, outputs: Outputs, allowance: Allowance) -> None:
    together = threading.Barrier(3)

    def answer(request: Request) -> Answer:
        if request.method == "PUT":
            together.wait(WAIT_S)
        return Answer(404 if request.method == "HEAD" else 200, headers={"ETag": '"1"'})

    raw.answer = answer
    refs = [outputs.local(f"{number}.png") for number in range(3)]
    job = S3Folder(stores(s3_settings(raw.url, "bkt")), "job-7", allowance)
    assert [delivered(entry).filename for entry in job.publish(refs, outputs)] == ["0.png", "1.png", "2.png"]


def test_two_outputs_of_one_name_get_two_names_in_order(
    bucket: Bucket, stores: Stores, outputs: Outputs, allowance: Allowance
) -> None:
    refs = [outputs.local("x.png", b"first", node_id="8"), outputs.local("x.png", b"second", node_id="9")]
    job = S3Folder(stores(bucket.settings()), "job-7", allowance)
    assert [delivered(entry).filename for entry in job.publish(refs, outputs)] == ["x.png", "x-2.png"]
    assert (bucket.read("job-7/x.png"), bucket.read("job-7/x-2.png")) == (b"first", b"second")


def test_a_second_run_goes_beside_the_first_and_takes_back_only_its_own(
    bucket: Bucket, stores: Stores, outputs: Outputs, allowance: Allowance
) -> None:
    store = stores(bucket.settings())
    S3Folder(store, "job-7", allowance).publish([outputs.local("x.png", b"first")], outputs)
    second = S3Folder(store, "job-7", allowance)
    [entry] = second.publish([outputs.local("x.png", b"second")], outputs)
    assert delivered(entry).filename == "x-2.png"
    assert (bucket.read("job-7/x.png"), bucket.read("job-7/x-2.png")) == (b"first", b"second")
    second.withdraw()
    assert bucket.keys() == ["job-7/x.png"]


def test_a_store_that_has_every_name_is_not_asked_for_ever(
    raw: RawStore, stores: Stores, outputs: Outputs, allowance: Allowance
) -> None:
    job = S3Folder(stores(s3_settings(raw.url, "bkt")), "job-7", allowance)
    [entry] = job.publish([outputs.local("x.png")], outputs)
    assert delivered(entry).filename.startswith("x-")
    assert raw.methods().count("HEAD") == folder.MOST_LOOKS
    assert raw.methods().count("PUT") == 1


def test_names_are_made_plain(bucket: Bucket, stores: Stores, outputs: Outputs, allowance: Allowance) -> None:
    job = S3Folder(stores(bucket.settings()), "job-7", allowance)
    refs = [outputs.distant("../a?b#c%.png"), outputs.distant(".hidden")]
    assert [delivered(entry).filename for entry in job.publish(refs, outputs)] == ["a_b_c_.png", "hidden"]


def test_an_output_that_is_not_there_is_its_entry_alone(
    bucket: Bucket, stores: Stores, outputs: Outputs, allowance: Allowance
) -> None:
    job = S3Folder(stores(bucket.settings()), "job-7", allowance)
    missing, there = job.publish([FileRef("9", "gone.png", "", "output"), outputs.local("x.png")], outputs)
    assert isinstance(missing, OutputMissingError)
    assert delivered(there).filename == "x.png"


def test_withdrawing_takes_back_everything(
    bucket: Bucket, stores: Stores, outputs: Outputs, allowance: Allowance
) -> None:
    job = S3Folder(stores(bucket.settings()), "job-7", allowance)
    job.publish([outputs.local("x.png")], outputs)
    job.publish([outputs.local("y.png")], outputs)
    job.withdraw()
    assert bucket.keys() == []


def test_withdrawing_never_fails(
    bucket: Bucket, stores: Stores, outputs: Outputs, allowance: Allowance, caplog: pytest.LogCaptureFixture
) -> None:
    job = S3Folder(stores(bucket.settings()), "job-7", allowance)
    job.publish([outputs.local("x.png")], outputs)
    bucket.deny("s3:DeleteObject")
    job.withdraw()
    assert bucket.keys() == ["job-7/x.png"]
    assert f"s3://{bucket.name}/job-7/x.png stays at the store: 403" in caplog.text


# Refusals.


def test_a_bucket_that_is_not_there(bucket: Bucket, stores: Stores, outputs: Outputs, allowance: Allowance) -> None:
    job = S3Folder(stores(s3_settings(bucket.url, "no-such-bucket")), "job-7", allowance)
    [entry] = job.publish([outputs.local("x.png")], outputs)
    assert isinstance(entry, MorpheusError)
    assert (entry.code, entry.retryable) == (Code.UPLOAD_FAILED, False)
    assert "'no-such-bucket'" in entry.message
    assert "NoSuchBucket (404); check BUCKET_NAME" in entry.message


def test_a_bucket_that_refuses_one_action(
    bucket: Bucket, stores: Stores, outputs: Outputs, allowance: Allowance
) -> None:
    bucket.deny("s3:PutObject")
    [entry] = S3Folder(stores(bucket.settings()), "job-7", allowance).publish([outputs.local("x.png")], outputs)
    assert isinstance(entry, MorpheusError)
    assert (entry.code, entry.retryable, entry.details["status"]) == (Code.UPLOAD_FAILED, False, 403)


@pytest.mark.parametrize(
    ("status", "code", "retryable"),
    [
        (403, "AccessDenied", False),
        (403, "InvalidAccessKeyId", False),
        (403, "SignatureDoesNotMatch", False),
        (503, "SlowDown", True),
        (500, "InternalError", True),
    ],
)
def test_a_refusal_is_told_without_what_is_secret_in_it(
    raw: RawStore,
    stores: Stores,
    outputs: Outputs,
    allowance: Allowance,
    caplog: pytest.LogCaptureFixture,
    status: int,
    code: str,
    retryable: bool,
) -> None:
    caplog.set_level(logging.DEBUG, logger="morpheus_worker")
    raw.answer = lambda request: Answer(404) if request.method == "HEAD" else refusal(status, code)
    job = S3Folder(stores(s3_settings(raw.url, "bkt"), None, ONE_TRY), "job-7", allowance)
    [entry] = job.publish([outputs.local("x.png")], outputs)
    job.withdraw()
    assert isinstance(entry, MorpheusError)
    assert (entry.code, entry.retryable) == (Code.UPLOAD_FAILED, retryable)
    assert f"said {code} ({status})" in entry.message
    shown = f"{entry.message} {entry.details} {caplog.text}"
    assert not [secret for secret in (ACCESS_KEY, SECRET_KEY, "AWS4-", "X-Amz-") if secret in shown]


def test_a_store_that_is_busy_is_asked_again(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    answers = iter([refusal(503, "SlowDown"), Answer(headers={"ETag": '"1"'})])
    raw.answer = lambda _: next(answers)
    (tmp_path / "x.png").write_bytes(CONTENT)
    stores(s3_settings(raw.url, "bkt")).upload(tmp_path / "x.png", "x.png", media_type="image/png", allowance=allowance)
    assert [request.size for request in raw.requests] == [len(CONTENT), len(CONTENT)]


def test_a_job_that_must_stop_does_not_wait_for_a_busy_store(
    raw: RawStore, stores: Stores, allowance: Allowance
) -> None:
    def answer(request: Request) -> Answer:
        allowance.cancelled.set()
        return Answer(503)

    raw.answer = answer
    with pytest.raises(MorpheusError) as caught:
        stores(s3_settings(raw.url, "bkt")).has("x.png", allowance)
    assert caught.value.code is Code.CANCELLED
    assert len(raw.requests) == 1


def test_a_store_that_is_not_there(stores: Stores, outputs: Outputs, allowance: Allowance) -> None:
    with raw_store() as gone:
        pass
    job = S3Folder(stores(s3_settings(gone.url, "bkt"), None, ONE_TRY), "job-7", allowance)
    [entry] = job.publish([outputs.local("x.png")], outputs)
    assert isinstance(entry, MorpheusError)
    assert (entry.code, entry.retryable) == (Code.UPLOAD_FAILED, True)
    assert "cannot be reached" in entry.message


def test_without_credentials_nothing_is_sent(
    raw: RawStore, stores: Stores, outputs: Outputs, allowance: Allowance, tmp_path: Path
) -> None:
    settings = Settings.from_environment({"BUCKET_ENDPOINT_URL": f"{raw.url}/bkt"})
    store = stores(settings)
    [entry] = S3Folder(store, "job-7", allowance).publish([outputs.local("x.png")], outputs)
    assert isinstance(entry, MorpheusError)
    assert (entry.code, entry.retryable) == (Code.UPLOAD_FAILED, False)
    with pytest.raises(MediaRefusedError, match="no credentials") as caught:
        store.fetch("s3://bkt/x.png", tmp_path / "target", max_bytes=1, allowance=allowance)
    assert not caught.value.retryable
    assert raw.requests == []


@pytest.fixture
def _short_grace(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(folder, "GRACE_S", 0.01)


@pytest.mark.usefixtures("_short_grace")
def test_a_store_that_hangs_holds_no_job_and_what_it_makes_later_is_removed(
    raw: RawStore, stores: Stores, outputs: Outputs, allowance: Allowance
) -> None:
    removed = threading.Event()

    def answer(request: Request) -> Answer:
        if request.method == "DELETE" and "PUT" in raw.methods():
            removed.set()
        return Answer(404 if request.method == "HEAD" else 200, headers={"ETag": '"1"'})

    def hold(method: str) -> bool:
        if method == "PUT":
            allowance.cancelled.set()
        return method == "PUT"

    raw.answer, raw.hold = answer, hold
    job = S3Folder(stores(s3_settings(raw.url, "bkt")), "job-7", allowance)
    with pytest.raises(MorpheusError) as caught:
        job.publish([outputs.local("x.png")], outputs)
    assert caught.value.code is Code.CANCELLED
    job.withdraw()
    raw.release.set()
    assert removed.wait(WAIT_S)
    assert raw.methods() == ["HEAD", "DELETE", "PUT", "DELETE"]
    assert {request.target for request in raw.requests} == {"/bkt/job-7/x.png"}


def cancel_when_asked(raw: RawStore, allowance: Allowance) -> None:
    raw.asked.wait(WAIT_S)
    allowance.cancelled.set()


# Inputs.


@pytest.mark.parametrize(
    "uri",
    ["s3://", "s3://bucket", "s3:///key", "https://bucket/key", "s3://b:9/key", "s3://user@host/key", "s3://b/../k"],
)
def test_what_is_no_name_of_an_object_is_never_asked_for(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance, uri: str
) -> None:
    with pytest.raises(MediaRefusedError) as caught:
        stores(s3_settings(raw.url, "bkt")).fetch(uri, tmp_path / "target", max_bytes=1, allowance=allowance)
    assert caught.value.code is Code.INPUT_REJECTED
    assert raw.requests == []


@pytest.mark.parametrize("key", [*NAMES, "a?versionId=1", "a%2Fb", "deep/er/x"])
def test_the_key_is_asked_for_exactly_as_it_stands(
    bucket: Bucket, stores: Stores, tmp_path: Path, allowance: Allowance, key: str
) -> None:
    uri = bucket.put(key, key.encode())
    stores(bucket.settings()).fetch(uri, tmp_path / "target", max_bytes=1000, allowance=allowance)
    assert (tmp_path / "target").read_bytes() == key.encode()


def test_an_input_may_lie_in_any_bucket_of_the_store(
    bucket: Bucket, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    uri = new_bucket().put("x.png", CONTENT, "image/png; charset=x")
    fetched = stores(bucket.settings()).fetch(uri, tmp_path / "target", max_bytes=10**6, allowance=allowance)
    assert fetched == Fetched(size=len(CONTENT), filename="x.png", media_type="image/png")


def test_an_object_that_is_not_there(bucket: Bucket, stores: Stores, tmp_path: Path, allowance: Allowance) -> None:
    store = stores(bucket.settings())
    for uri, says in [(f"s3://{bucket.name}/gone", "NoSuchKey"), ("s3://no-such-bucket/gone", "NoSuchBucket")]:
        with pytest.raises(MediaRefusedError, match=says) as caught:
            store.fetch(uri, tmp_path / "target", max_bytes=1, allowance=allowance)
        assert (caught.value.code, caught.value.retryable) == (Code.INPUT_UNREACHABLE, False)
    assert not (tmp_path / "target").exists()


def test_an_object_that_may_not_be_read(bucket: Bucket, stores: Stores, tmp_path: Path, allowance: Allowance) -> None:
    uri = bucket.put("x.png", CONTENT)
    bucket.deny("s3:GetObject")
    with pytest.raises(MediaRefusedError, match="may not be read") as caught:
        stores(bucket.settings()).fetch(uri, tmp_path / "target", max_bytes=10**6, allowance=allowance)
    assert (caught.value.code, caught.value.retryable) == (Code.INPUT_UNREACHABLE, False)


def test_an_object_that_is_too_large_is_not_fetched(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    raw.answer = lambda _: Answer(body=CONTENT, length=10 * 10**9, stalls=True)
    with pytest.raises(MediaRefusedError, match="has 10000000000 bytes, more than the 100 allowed") as caught:
        stores(s3_settings(raw.url, "bkt")).fetch("s3://bkt/x", tmp_path / "target", max_bytes=100, allowance=allowance)
    assert caught.value.code is Code.INPUT_REJECTED
    assert not (tmp_path / "target").exists()


def test_an_object_that_does_not_say_its_size_is_counted(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    store = stores(s3_settings(raw.url, "bkt"))
    raw.answer = lambda _: Answer(body=CONTENT, length=-1)
    assert store.fetch("s3://bkt/x", tmp_path / "whole", max_bytes=len(CONTENT), allowance=allowance).size == 10_240
    with pytest.raises(MediaRefusedError, match="more than the 100 allowed"):
        store.fetch("s3://bkt/x", tmp_path / "target", max_bytes=100, allowance=allowance)
    assert not (tmp_path / "target").exists()


@pytest.fixture
def _short_waits(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(downloading, "FIRST_WAIT_S", 0.001)


@pytest.mark.usefixtures("_short_waits")
def test_an_object_that_is_cut_is_fetched_again_from_the_start(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    answers = iter([Answer(body=CONTENT[:5000], length=len(CONTENT)), Answer(body=CONTENT)])
    raw.answer = lambda _: next(answers)
    store = stores(s3_settings(raw.url, "bkt"))
    assert store.fetch("s3://bkt/x", tmp_path / "target", max_bytes=10**6, allowance=allowance).size == len(CONTENT)
    assert (tmp_path / "target").read_bytes() == CONTENT


@pytest.mark.usefixtures("_short_waits")
def test_an_object_that_is_always_cut_is_refused(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    raw.answer = lambda _: Answer(body=CONTENT[:5000], length=len(CONTENT))
    with pytest.raises(MediaRefusedError, match="broke the connection") as caught:
        stores(s3_settings(raw.url, "bkt")).fetch(
            "s3://bkt/x", tmp_path / "target", max_bytes=10**6, allowance=allowance
        )
    assert (caught.value.code, caught.value.retryable) == (Code.INPUT_UNREACHABLE, True)
    assert len(raw.requests) == downloading.TRIES
    assert not (tmp_path / "target").exists()


def test_a_store_that_fails_is_not_asked_more_often_than_the_sdk_does(
    raw: RawStore, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    raw.answer = lambda _: refusal(503, "SlowDown")
    store = stores(s3_settings(raw.url, "bkt"), None, ONE_TRY)
    with pytest.raises(MediaRefusedError, match="SlowDown") as caught:
        store.fetch("s3://bkt/x", tmp_path / "target", max_bytes=1, allowance=allowance)
    assert (caught.value.code, caught.value.retryable) == (Code.INPUT_UNREACHABLE, True)
    assert len(raw.requests) == 1


@pytest.mark.parametrize("moment", ["before the answer", "amid the body"])
@pytest.mark.parametrize("code", [Code.CANCELLED, Code.TIMEOUT])
def test_a_job_that_must_stop_does_not_wait_for_a_store_that_hangs(
    raw: RawStore, stores: Stores, tmp_path: Path, moment: str, code: Code
) -> None:
    allowance = Allowance(Deadline.after(0.3 if code is Code.TIMEOUT else 600), threading.Event())
    raw.hold = lambda _: moment == "before the answer"
    raw.answer = lambda _: Answer(body=CONTENT, length=10**6, stalls=True)
    if code is Code.CANCELLED:
        threading.Thread(target=cancel_when_asked, args=(raw, allowance)).start()
    with pytest.raises(MorpheusError) as caught:
        stores(s3_settings(raw.url, "bkt")).fetch(
            "s3://bkt/x", tmp_path / "target", max_bytes=10**6, allowance=allowance
        )
    assert caught.value.code is code
    raw.release.set()
    for thread in [thread for thread in threading.enumerate() if thread.name.startswith("s3-fetch")]:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert not (tmp_path / "target").exists()


def test_the_read_of_a_body_that_stalls_is_ended(raw: RawStore, stores: Stores, tmp_path: Path) -> None:
    """Not after the read's own timeout: the job's medium has a time of its own, and then the connection is cut."""
    raw.answer = lambda _: Answer(body=CONTENT, length=10**6, stalls=True)
    store = stores(s3_settings(raw.url, "bkt", MORPHEUS_MEDIA_TIMEOUT_S="0.3"))
    with pytest.raises(MediaRefusedError, match=r"did not arrive from the store within 0\.3 s") as caught:
        store.fetch("s3://bkt/x", tmp_path / "target", max_bytes=10**6, allowance=Allowance.of(60))
    assert (caught.value.code, caught.value.retryable) == (Code.INPUT_UNREACHABLE, True)
    for thread in [thread for thread in threading.enumerate() if thread.name.startswith("s3-fetch")]:
        thread.join(WAIT_S)
        assert not thread.is_alive()
    assert not raw.release.is_set()
    assert not (tmp_path / "target").exists()


def test_a_disk_that_fails_is_no_fault_of_the_medium(
    bucket: Bucket, stores: Stores, tmp_path: Path, allowance: Allowance
) -> None:
    uri = bucket.put("x.png", CONTENT)
    with pytest.raises(MorpheusError, match="disk") as caught:
        stores(bucket.settings()).fetch(uri, tmp_path / "no" / "target", max_bytes=10**6, allowance=allowance)
    assert (caught.value.code, caught.value.retryable) == (Code.INTERNAL, True)
