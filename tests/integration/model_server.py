"""A host of model files on loopback: ranges, validators, Hugging Face's and Civitai's ways, and faults on request.

Connections are kept alive, one thread each. What is asked of it is recorded, what it sends is counted.

>>> with ModelServer() as server:
...     url = server.file("/a.safetensors", b"...", faults=[status(503, Retry_After=1).first(2)])

A second `ModelServer` is another host: what its `requests` hold, it was sent.
"""

from __future__ import annotations

import contextlib
import hashlib
import itertools
import json
import socket
import ssl
import threading
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Self
from urllib.parse import parse_qs, quote, unquote, urlsplit

WAIT_S = 10.0
"""How long a test waits for something that must happen."""

BLOCK = 256 * 1024
COMMIT = "c0ffee" + "0" * 34


@dataclass(frozen=True)
class Request:
    """One request as it arrived; the headers' names are in lower case."""

    method: str
    target: str
    headers: Mapping[str, str]

    @property
    def path(self) -> str:
        return unquote(self.target.partition("?")[0])

    @property
    def query(self) -> dict[str, list[str]]:
        return parse_qs(urlsplit(self.target).query)

    @property
    def range(self) -> tuple[int, int | None] | None:
        """First and last byte that are asked for; None for the whole file."""
        said = self.headers.get("range", "")
        if not said.startswith("bytes=") or "," in said:
            return None
        first, _, last = said.removeprefix("bytes=").partition("-")
        return int(first), int(last) if last else None


@dataclass
class Reply:
    """What is about to be answered; a fault changes it. `start` is where in the file the body begins."""

    status: int
    headers: dict[str, str]
    body: memoryview = field(default_factory=lambda: memoryview(b""))
    start: int = 0
    whole: memoryview = field(default_factory=lambda: memoryview(b""))
    raw: bytes | None = None
    rate: float | None = None
    cut_after: int | None = None
    stall_after: int | None = None
    until: threading.Event | None = None

    def becomes(self, status: int, body: bytes = b"", **headers: str | int) -> None:
        """Another answer altogether. Underscores in the headers' names stand for hyphens."""
        self.status, self.body = status, memoryview(body)
        named = {name.replace("_", "-"): str(value) for name, value in headers.items()}
        self.headers = {"Content-Length": str(len(body)), **named}


@dataclass
class Fault:
    """Something that goes wrong with GET requests for a path: all of them, or those that `first` and `after` leave."""

    act: Callable[[Request, Reply], None]
    methods: frozenset[str] = frozenset({"GET"})
    skip: int = 0
    times: int | None = None
    seen: int = 0

    def first(self, times: int) -> Self:
        """Only so often, then never again."""
        self.times = times
        return self

    def after(self, skip: int) -> Self:
        """Only once so many requests went well."""
        self.skip = skip
        return self

    def on(self, *methods: str) -> Self:
        self.methods = frozenset(methods)
        return self

    def apply(self, request: Request, reply: Reply) -> None:
        if request.method in self.methods:
            self.seen += 1
            if self.seen > self.skip and (self.times is None or self.seen <= self.skip + self.times):
                self.act(request, reply)


def status(code: int, body: bytes = b"", **headers: str | int) -> Fault:
    """That status instead: `status(429, Retry_After=1)`."""
    return Fault(lambda _, reply: reply.becomes(code, body, **headers))


def redirect(to: str, code: int = 302) -> Fault:
    return Fault(lambda _, reply: reply.becomes(code, Location=to))


def html(text: str = "<!DOCTYPE html><html><body>Log in</body></html>") -> Fault:
    """A page, with status 200, whatever was asked for."""
    return Fault(lambda _, reply: reply.becomes(200, text.encode(), Content_Type="text/html; charset=utf-8"))


def bit_flip(at: int) -> Fault:
    """The lowest bit of the file's byte `at` is wrong."""

    def act(_: Request, reply: Reply) -> None:
        if 0 <= at - reply.start < len(reply.body):
            wrong = bytearray(reply.body)
            wrong[at - reply.start] ^= 1
            reply.body = memoryview(bytes(wrong))

    return Fault(act)


def ignores_range() -> Fault:
    """The whole file with status 200, whatever part was asked for."""

    def act(_: Request, reply: Reply) -> None:
        if reply.status == 206:
            reply.status, reply.body, reply.start = 200, reply.whole, 0
            reply.headers.pop("Content-Range")
            reply.headers["Content-Length"] = str(len(reply.body))

    return Fault(act)


def wrong_content_range(said: str | None = None) -> Fault:
    """Another `Content-Range` than the one that was asked for; by default, one that begins a byte later."""

    def act(_: Request, reply: Reply) -> None:
        if reply.status == 206:
            last, total = reply.start + len(reply.body), len(reply.whole)
            reply.headers["Content-Range"] = said or f"bytes {reply.start + 1}-{last}/{total}"

    return Fault(act)


def changed_etag(etag: str = '"another"') -> Fault:
    """Says another ETag than before, and keeps to no condition."""

    def act(_: Request, reply: Reply) -> None:
        reply.headers["ETag"] = etag

    return Fault(act)


def truncated(after: int) -> Fault:
    """So many bytes of the body, then the connection is closed."""

    def act(_: Request, reply: Reply) -> None:
        reply.cut_after = after

    return Fault(act)


def stalled(after: int, until: threading.Event | None = None) -> Fault:
    """So many bytes of the body, then nothing: until the client goes, or `until` is set and the rest follows."""

    def act(_: Request, reply: Reply) -> None:
        reply.stall_after, reply.until = after, until

    return Fault(act)


def throttled(bytes_per_s: float) -> Fault:
    """No faster than that, a connection."""

    def act(_: Request, reply: Reply) -> None:
        reply.rate = bytes_per_s

    return Fault(act)


def raw(data: bytes) -> Fault:
    """Exactly these bytes, then the end: no HTTP unless they are."""

    def act(_: Request, reply: Reply) -> None:
        reply.raw = data

    return Fault(act)


@dataclass
class File:
    """One path. `token`: who does not send it as a bearer gets 401. `signed`: only with a signature that holds;
    `strict`: and with no key beside it."""

    content: memoryview
    etag: str | None
    ranges: bool = True
    headers: Mapping[str, str] = field(default_factory=dict)
    faults: Sequence[Fault] = ()
    token: str | None = None
    signed: bool = False
    strict: bool = False
    refused: Reply | None = None
    goes_to: Callable[[], str] | None = None


@dataclass(frozen=True)
class CivitaiFile:
    """A file of a version on Civitai. `format` and `type` are Civitai's own words."""

    id: int
    name: str
    content: bytes
    type: str = "Model"
    format: str = "SafeTensor"
    fp: str | None = "fp16"
    primary: bool = False
    sha256: str | None = None
    """What Civitai says, where that is not what is true."""


class ModelServer:
    """The server. It is gone, and all its connections with it, when the block ends."""

    def __init__(self, host: str = "127.0.0.1", *, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self.bytes_sent = 0
        """Of bodies."""
        self.connections = 0
        """That were ever opened."""
        self.most_at_once = 0
        """Requests that were being answered at the same time, at most."""
        self._host, self._tls = host, tls
        self._answering = 0
        self._files: dict[str, File] = {}
        self._signatures: set[str] = set()
        self._numbers = itertools.count(1)
        self._threads: list[threading.Thread] = []
        self._open: set[socket.socket] = set()
        self._closing = threading.Event()
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        family = socket.AF_INET6 if ":" in self._host else socket.AF_INET
        self._listener = socket.create_server((self._host, 0), family=family, backlog=128)
        self._run(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._closing.set()
            for connection in self._open:
                _hang_up(connection)
        for thread in self._threads:
            thread.join()
        self._listener.close()

    # What it has.

    def file(
        self,
        path: str,
        content: bytes,
        *,
        etag: str | None = "",
        ranges: bool = True,
        headers: Mapping[str, str] | None = None,
        faults: Sequence[Fault] = (),
        token: str | None = None,
    ) -> str:
        """Puts a file at `path`, over what is there, and returns its address. `etag`: by default a strong one made of
        the content; None for none."""
        said = f'"{hashlib.sha256(content).hexdigest()[:32]}"' if etag == "" else etag
        self._files[path] = File(memoryview(content), said, ranges, dict(headers or {}), faults, token)
        return self.url(path)

    def redirect(self, path: str, to: str, code: int = 302) -> str:
        """An address that sends elsewhere."""
        return self.file(path, b"", faults=[redirect(to, code).on("GET", "HEAD")])

    def url(self, path: str, *, host: str | None = None) -> str:
        """The address of a path, under another name of this machine where `host` says so."""
        return self.origin.replace(self._host, host or self._host) + quote(path, safe="/?=&%")

    @property
    def origin(self) -> str:
        host = f"[{self._host}]" if ":" in self._host else self._host
        return f"{'https' if self._tls else 'http'}://{host}:{self.port}"

    @property
    def port(self) -> int:
        return int(self._listener.getsockname()[1])

    @property
    def hf_endpoint(self) -> str:
        return f"{self.origin}/hf"

    @property
    def civitai_url(self) -> str:
        return self.origin

    def hf(
        self,
        repo: str,
        file: str,
        content: bytes,
        *,
        revision: str = "main",
        commit: str = COMMIT,
        lfs: bool = True,
        token: str | None = None,
        gated: bool = False,
        cdn: ModelServer | None = None,
        faults: Sequence[Fault] = (),
        cdn_faults: Sequence[Fault] = (),
    ) -> str:
        """A file as Hugging Face has it, at `hf_endpoint`, under `revision` and under `commit`; returns that address.

        `lfs`: its bytes are at a signed address of `cdn` (this server by default), whose hash the API tells; else they
        are sent at once. With `token`, only who sends it gets them; `gated`, by reason of a licence.
        """
        sha256 = hashlib.sha256(content).hexdigest()
        headers = {"X-Repo-Commit": commit}
        goes_to = None
        if lfs:
            goes_to = (cdn or self)._signed(f"/cdn/{sha256}", content, cdn_faults, strict=cdn is not None)
            headers |= {"X-Linked-Size": str(len(content)), "X-Linked-ETag": f'"{sha256}"'}
        etag = '"' + hashlib.sha1(b"blob %d\0" % len(content) + content).hexdigest() + '"'
        for name in (revision, commit):
            self._files[f"/hf/{repo}/resolve/{name}/{file}"] = File(
                memoryview(content), etag, True, headers, faults, token, False, False, _refusal(repo, gated), goes_to
            )
        return f"{self.hf_endpoint}/{repo}/resolve/{commit}/{file}"

    def civitai(
        self,
        version: int,
        files: Sequence[CivitaiFile],
        *,
        model: str = "A model",
        name: str = "v1",
        base: str = "SDXL 1.0",
        kind: str = "Checkpoint",
        token: str | None = None,
        login_page: bool = False,
        cdn: ModelServer | None = None,
        faults: Sequence[Fault] = (),
        cdn_faults: Sequence[Fault] = (),
    ) -> str:
        """A version as Civitai has it, at `civitai_url`; returns the address of the API's answer. With `token`, the
        files need it: without it the answer is 401, or a redirect to the login page."""
        refused = Reply(302, {"Location": "/login", "Content-Length": "0"}) if login_page else None
        told = []
        for each in files:
            path = f"/api/download/models/{version}/{each.id}"
            stored = f"/b2/{version}/{each.id}/{each.name}"
            goes_to = (cdn or self)._signed(stored, each.content, cdn_faults, strict=cdn is not None)
            self._files[path] = File(memoryview(b""), None, True, {}, faults, token, False, False, refused, goes_to)
            told.append(_civitai_file(each, self.url(path)))
        about: dict[str, Any] = {"id": version, "modelId": 7, "name": name, "baseModel": base, "files": told}
        about["model"] = {"name": model, "type": kind, "nsfw": False}
        self.file("/login", b"<!DOCTYPE html><title>Log in</title>", headers={"Content-Type": "text/html"})
        as_json = {"Content-Type": "application/json; charset=utf-8"}
        return self.file(f"/api/v1/model-versions/{version}", json.dumps(about).encode(), headers=as_json)

    def expire(self) -> None:
        """None of the signed addresses that were given out are good any more."""
        with self._changed:
            self._signatures.clear()

    def _signed(self, path: str, content: bytes, faults: Sequence[Fault], *, strict: bool) -> Callable[[], str]:
        etag = f'"{hashlib.md5(content).hexdigest()}"'
        self._files[path] = File(memoryview(content), etag, faults=faults, signed=True, strict=strict)

        def sign() -> str:
            with self._changed:
                signature = f"signature{next(self._numbers)}"
                self._signatures.add(signature)
            return f"{self.url(path)}?Expires=9&X-Amz-Signature={signature}"

        return sign

    # What was asked of it.

    def asked_for(self, path: str, method: str | None = None) -> list[Request]:
        return [each for each in self.requests if each.path == path and method in (None, each.method)]

    def wait_for_requests(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, WAIT_S), f"{len(self.requests)} came"

    def wait_for_bytes(self, count: int) -> None:
        """Until it has sent so many bytes of bodies."""
        with self._changed:
            assert self._changed.wait_for(lambda: self.bytes_sent >= count, WAIT_S), f"{self.bytes_sent} were sent"

    def wait_until_left(self) -> None:
        """Until no client has a connection open."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._open, WAIT_S), "somebody is still connected"

    # How it answers.

    def _run(self, target: Callable[..., None], *args: object) -> None:
        thread = threading.Thread(target=target, args=args, name="model server")
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = self._listener.accept()
            except OSError:
                return
            with self._changed:
                self._open.add(connection)
                self.connections += 1
                if self._closing.is_set():
                    _hang_up(connection)
            self._run(self._converse, connection)

    def _converse(self, plain: socket.socket) -> None:
        connection = plain
        try:
            if self._tls:
                connection = self._tls.wrap_socket(plain, server_side=True)
                with self._changed:
                    self._open.remove(plain)
                    self._open.add(connection)
            connection.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            waiting = bytearray()
            while (request := _read(connection, waiting)) and self._answer(connection, request):
                pass
        except OSError:
            pass  # It was the client who hung up, as many tests want it to.
        finally:
            connection.close()
            with self._changed:
                self._open.discard(connection)
                self._open.discard(plain)
                self._changed.notify_all()

    def _answer(self, connection: socket.socket, request: Request) -> bool:
        with self._changed:
            self.requests.append(request)
            self._answering += 1
            self.most_at_once = max(self.most_at_once, self._answering)
            self._changed.notify_all()
        try:
            return self._send(connection, request, self._reply(request))
        finally:
            with self._changed:
                self._answering -= 1

    def _reply(self, request: Request) -> Reply:
        file = self._files.get(request.path)
        if file is None:
            return _missing(request)
        reply = self._proper(request, file)
        with self._changed:
            for fault in file.faults:
                fault.apply(request, reply)
        return reply

    def _proper(self, request: Request, file: File) -> Reply:
        if file.token and request.headers.get("authorization") != f"Bearer {file.token}":
            return file.refused or Reply(401, {"Content-Length": "0"})
        if file.signed and (refusal := self._unsigned(request, strict=file.strict)):
            return refusal
        if file.goes_to is not None:
            return Reply(302, {"Content-Length": "0", **file.headers, "Location": file.goes_to()})
        return _content(request, file)

    def _unsigned(self, request: Request, *, strict: bool) -> Reply | None:
        if strict and "authorization" in request.headers:
            return Reply(400, {"Content-Length": "0"})  # As S3 does: "Only one auth mechanism allowed".
        with self._changed:
            holds = set(request.query.get("X-Amz-Signature", ())) & self._signatures
        return None if holds else Reply(403, {"Content-Length": "0"})

    def _send(self, connection: socket.socket, request: Request, reply: Reply) -> bool:
        """Whether the connection goes on."""
        if reply.raw is not None:
            connection.sendall(reply.raw)
            return False
        lines = [f"HTTP/1.1 {reply.status} So", *(f"{name}: {value}" for name, value in reply.headers.items())]
        connection.sendall("\r\n".join([*lines, "", ""]).encode("latin-1"))
        if request.method == "HEAD":
            return True
        end = len(reply.body) if reply.cut_after is None else min(reply.cut_after, len(reply.body))
        pause = end if reply.stall_after is None else min(reply.stall_after, end)
        self._pour(connection, reply, 0, pause)
        if reply.stall_after is not None:
            self._stall(connection, reply.until)
        self._pour(connection, reply, pause, end)
        return reply.cut_after is None

    def _pour(self, connection: socket.socket, reply: Reply, start: int, end: int) -> None:
        block = BLOCK if reply.rate is None else max(1, min(BLOCK, int(reply.rate / 20)))
        began_s = time.monotonic()
        for at in range(start, end, block):
            piece = reply.body[at : min(at + block, end)]
            connection.sendall(piece)
            with self._changed:
                self.bytes_sent += len(piece)
                self._changed.notify_all()
            if reply.rate is not None:
                due_s = began_s + (at + len(piece) - start) / reply.rate
                self._closing.wait(max(0.0, due_s - time.monotonic()))

    def _stall(self, connection: socket.socket, until: threading.Event | None) -> None:
        if until is not None:
            while not until.wait(0.05) and not self._closing.is_set():
                pass
            return
        with contextlib.suppress(OSError):
            while connection.recv(65536):
                pass
        raise ConnectionAbortedError


def _content(request: Request, file: File) -> Reply:
    total = len(file.content)
    headers = {"Accept-Ranges": "bytes"} if file.ranges else {}
    headers |= {"Content-Length": str(total), "Content-Type": "application/octet-stream", **file.headers}
    if file.etag:
        headers["ETag"] = file.etag
    if request.headers.get("if-match", file.etag) != file.etag:
        return Reply(412, {"Content-Length": "0"})
    asked = request.range if file.ranges and request.headers.get("if-range", file.etag) == file.etag else None
    if asked is None:
        return Reply(200, headers, file.content, whole=file.content)
    first, last = asked[0], min(total - 1 if asked[1] is None else asked[1], total - 1)
    if first > last:
        return Reply(416, {"Content-Length": "0", "Content-Range": f"bytes */{total}"})
    body = file.content[first : last + 1]
    headers |= {"Content-Length": str(len(body)), "Content-Range": f"bytes {first}-{last}/{total}"}
    return Reply(206, headers, body, first, file.content)


def _refusal(repo: str, gated: bool) -> Reply:
    if gated:
        said = f"Access to model {repo} is restricted. You must be authenticated to access it."
        return Reply(401, {"X-Error-Code": "GatedRepo", "X-Error-Message": said, "Content-Length": "0"})
    headers = {"X-Error-Code": "RepoNotFound", "X-Error-Message": "Repository not found", "Content-Length": "0"}
    return Reply(401, headers)


def _missing(request: Request) -> Reply:
    headers = {"Content-Length": "0"}
    if request.path.startswith("/hf/"):
        headers |= {"X-Error-Code": "EntryNotFound", "X-Error-Message": "Entry not found"}
    return Reply(404, headers)


def _civitai_file(file: CivitaiFile, url: str) -> dict[str, Any]:
    sha256 = file.sha256 or hashlib.sha256(file.content).hexdigest()
    return {
        "id": file.id,
        "name": file.name,
        "type": file.type,
        "sizeKB": len(file.content) / 1024,
        "hashes": {"AutoV2": sha256[:10].upper(), "SHA256": sha256.upper()},
        "metadata": {"format": file.format, "fp": file.fp, "size": "pruned"},
        "downloadUrl": url,
        **({"primary": True} if file.primary else {}),
    }


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # A TLS socket's own shutdown takes its state away under the thread that reads from it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _read(connection: socket.socket, waiting: bytearray) -> Request | None:
    """The next request of the connection, or None when the client has gone. A body is no part of any."""
    while b"\r\n\r\n" not in waiting:
        more = connection.recv(65536)
        if not more:
            return None
        waiting += more
        if not waiting[:1].isalpha():
            connection.sendall(b"HTTP/1.1 400 So\r\nContent-Length: 0\r\n\r\n")
            return None
    told, _, rest = bytes(waiting).partition(b"\r\n\r\n")
    waiting[:] = rest
    first, *lines = told.decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    method, target, _ = first.split(" ")
    return Request(method, target, headers)
