"""Stores for tests, on loopback: moto's, which keeps objects as S3 does, and a raw one that a test scripts."""

from __future__ import annotations

import contextlib
import functools
import json
import logging
import os
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any, Final

import boto3
import pytest
from boto3.session import Session
from moto.server import ThreadedMotoServer

from morpheus_worker.settings import Settings

ACCESS_KEY: Final = "AKIDTESTTESTTESTTEST"
SECRET_KEY: Final = "not+a/real+secret"
WAIT_S: Final = 10.0
"""How long a test waits for something that must happen."""


def s3_settings(url: str, bucket: str | None = None, **more: str) -> Settings:
    """Settings of a worker with this store. `more` are variables: `MORPHEUS_S3_KEY_PREFIX="x/"`."""
    variables = {
        "BUCKET_ENDPOINT_URL": url,
        "BUCKET_ACCESS_KEY_ID": ACCESS_KEY,
        "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
    }
    return Settings.from_environment(variables | ({"BUCKET_NAME": bucket} if bucket else {}) | more)


@dataclass(frozen=True, slots=True)
class Bucket:
    """A bucket at moto's store, and what lies in it."""

    url: str
    name: str
    client: Any

    def settings(self, **more: str) -> Settings:
        return s3_settings(self.url, self.name, **more)

    def keys(self) -> list[str]:
        listed = self.client.list_objects_v2(Bucket=self.name)
        return sorted(entry["Key"] for entry in listed.get("Contents", ()))

    def read(self, key: str) -> bytes:
        content: bytes = self.client.get_object(Bucket=self.name, Key=key)["Body"].read()
        return content

    def media_type(self, key: str) -> str:
        return str(self.client.head_object(Bucket=self.name, Key=key)["ContentType"])

    def put(self, key: str, content: bytes, media_type: str = "binary/octet-stream") -> str:
        self.client.put_object(Bucket=self.name, Key=key, Body=content, ContentType=media_type)
        return f"s3://{self.name}/{key}"

    def unfinished(self) -> list[str]:
        """Keys of multipart uploads that were begun and neither completed nor aborted."""
        listed = self.client.list_multipart_uploads(Bucket=self.name)
        return [entry["Key"] for entry in listed.get("Uploads", ())]

    def deny(self, action: str) -> None:
        """Refuses an action on the bucket's objects, `s3:PutObject` say, to everybody."""
        statement = {"Effect": "Deny", "Principal": "*", "Action": action, "Resource": f"arn:aws:s3:::{self.name}/*"}
        self.client.put_bucket_policy(Bucket=self.name, Policy=json.dumps({"Statement": [statement]}))


@functools.cache
def moto_url() -> str:
    """The address of moto's server, which is started at the first use and lives as long as the process."""
    # It would log every presigned URL.
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    server = ThreadedMotoServer("127.0.0.1", 0, verbose=False)
    server.start()
    _, port = server.get_host_and_port()
    return f"http://127.0.0.1:{port}"


def new_bucket() -> Bucket:
    """A bucket of the test's own, empty."""
    bucket = Bucket(moto_url(), f"bucket-{uuid.uuid4().hex[:12]}", _client())
    bucket.client.create_bucket(Bucket=bucket.name)
    return bucket


@functools.cache
def sdk_session() -> Session:
    """A session that has read the SDK's descriptions of S3: it takes a fifth of a second each time."""
    return Session()


def sdk_of_nobody(monkeypatch: pytest.MonkeyPatch) -> None:
    """The SDK finds no key and no setting of this machine, and reads its descriptions once for all tests."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name in ("AWS_CONFIG_FILE", "AWS_SHARED_CREDENTIALS_FILE"):
        monkeypatch.setenv(name, os.devnull)
    monkeypatch.setenv("AWS_EC2_METADATA_DISABLED", "true")
    monkeypatch.setattr(boto3.session, "Session", sdk_session)


@functools.cache
def _client() -> Any:
    return sdk_session().client(
        "s3",
        endpoint_url=moto_url(),
        region_name="us-east-1",
        aws_access_key_id=ACCESS_KEY,
        aws_secret_access_key=SECRET_KEY,
    )


@dataclass(frozen=True, slots=True)
class Request:
    """What the raw store was asked. `target` is the request line's, which names the host where it is a proxy's."""

    method: str
    target: str
    headers: dict[str, str]
    size: int


@dataclass(frozen=True, slots=True)
class Answer:
    """What it answers. `length` is what the header says of the body, its own length unless told otherwise."""

    status: int = 200
    body: bytes = b""
    headers: dict[str, str] = field(default_factory=dict)
    length: int | None = None
    """More than the body has: the connection is cut after it. Less than nothing: the header says no length."""
    stalls: bool = False
    """Whether the connection stays open, silent, after the body, until the test lets go."""


def refusal(status: int, code: str) -> Answer:
    """An error as S3 says it, with all that must not get into anybody's log."""
    body = (
        f"<?xml version='1.0'?><Error><Code>{code}</Code><Message>{ACCESS_KEY} may not</Message>"
        f"<AWSAccessKeyId>{ACCESS_KEY}</AWSAccessKeyId><StringToSign>AWS4-HMAC-SHA256</StringToSign></Error>"
    )
    return Answer(status, body.encode(), {"Content-Type": "application/xml"})


@dataclass
class RawStore:
    """A server that answers as `answer` says, and remembers what it was asked."""

    url: str = ""
    answer: Callable[[Request], Answer] = lambda _: Answer(headers={"ETag": '"1"'})
    requests: list[Request] = field(default_factory=list)
    asked: threading.Event = field(default_factory=threading.Event)
    """Set at the first request's headers."""
    hold: Callable[[str], bool] = lambda _: False
    """Whether a request of this method, all of it read, waits until `release` is set; only then is it remembered."""
    release: threading.Event = field(default_factory=threading.Event)

    def methods(self) -> list[str]:
        return [request.method for request in self.requests]


@contextlib.contextmanager
def raw_store() -> Iterator[RawStore]:
    store = RawStore()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"

        def _serve(self) -> None:
            store.asked.set()
            left = size = int(self.headers.get("Content-Length") or 0)
            while left and (content := self.rfile.read(min(left, 1 << 20))):
                left -= len(content)
            if store.hold(self.command):
                store.release.wait()
            request = Request(self.command, self.path, dict(self.headers.items()), size - left)
            store.requests.append(request)
            self._say(store.answer(request))

        def _say(self, answer: Answer) -> None:
            self.send_response(answer.status)
            length = len(answer.body) if answer.length is None else answer.length
            said = {} if length < 0 else {"Content-Length": str(length)}
            for name, value in (said | answer.headers).items():
                self.send_header(name, value)
            self.end_headers()
            if self.command != "HEAD":
                self.wfile.write(answer.body)
            if answer.stalls:
                store.release.wait()
            self.close_connection = self.close_connection or length != len(answer.body)

        do_GET = do_HEAD = do_PUT = do_POST = do_DELETE = _serve  # noqa: N815

        def log_message(self, *_: object) -> None:
            """Silent."""

    class Server(ThreadingHTTPServer):
        def handle_error(self, *_: object) -> None:
            """A client that hangs up is what some tests are about."""

    server = Server(("127.0.0.1", 0), Handler)
    store.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield store
    finally:
        store.release.set()
        server.shutdown()
        server.server_close()
        thread.join()
