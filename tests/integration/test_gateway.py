"""The gateway over real sockets, asked in raw HTTP, so that what a client library would tidy up reaches the server."""

from __future__ import annotations

import asyncio
import contextlib
import hashlib
import http.client
import io
import json
import logging
import os
import re
import signal
import socket
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from urllib.parse import quote, unquote

import pytest
from aiohttp import web

from morpheus_worker import gateway, volume
from morpheus_worker.errors import MorpheusError
from morpheus_worker.gateway import NotLoopbackError, attachment, create_app, create_runner, is_loopback, serve

PICTURE = b"\x89PNG\r\n\x1a\n" + bytes(range(256)) * 4
NOT_FOUND = {"error": "File not found"}


@dataclass(frozen=True, slots=True)
class Answer:
    status: int
    headers: http.client.HTTPMessage
    body: bytes

    @property
    def json(self) -> object:
        assert self.headers["Content-Type"].startswith("application/json")
        return json.loads(self.body)


@dataclass(frozen=True, slots=True)
class Server:
    port: int

    def ask(self, target: str | bytes, method: str = "GET", **headers: str) -> Answer:
        """One request, its target exactly as given."""
        target = target.encode() if isinstance(target, str) else target
        head = {"Host": "gateway", "Connection": "close"} | {k.replace("_", "-"): v for k, v in headers.items()}
        lines = [method.encode() + b" " + target + b" HTTP/1.1", *(f"{k}: {v}".encode() for k, v in head.items())]
        with socket.create_connection(("127.0.0.1", self.port), timeout=30) as connection:
            connection.sendall(b"\r\n".join(lines) + b"\r\n\r\n")
            response = http.client.HTTPResponse(connection, method=method)
            with response:
                response.begin()
                return Answer(response.status, response.headers, response.read())

    def download(self, path: str, method: str = "GET", **headers: str) -> Answer:
        return self.ask(f"/download/{path}", method, **headers)


@contextlib.contextmanager
def running(app: web.Application) -> Iterator[Server]:
    """Serves `app` from a thread until the block ends."""
    loop = asyncio.new_event_loop()
    runner = create_runner(app)

    async def start() -> int:
        await runner.setup()
        site = web.TCPSite(runner, "127.0.0.1", 0)
        await site.start()
        return site.port

    thread = threading.Thread(target=loop.run_forever)
    thread.start()
    try:
        yield Server(asyncio.run_coroutine_threadsafe(start(), loop).result(timeout=30))
    finally:
        asyncio.run_coroutine_threadsafe(runner.cleanup(), loop).result(timeout=30)
        asyncio.run_coroutine_threadsafe(loop.shutdown_default_executor(), loop).result(timeout=30)
        loop.call_soon_threadsafe(loop.stop)
        thread.join()
        loop.close()


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A volume with one published picture, and everything beside it that must not be reached."""
    root = tmp_path / "volume"
    job = root / "job_outputs" / "7"
    (job / "more").mkdir(parents=True)
    (job / "x.png").write_bytes(PICTURE)
    (job / "more" / "deep.txt").write_bytes(b"deep")
    (job / ".y.png.part").write_bytes(b"half")
    (job / ".hidden").mkdir()
    (job / ".hidden" / "z.png").write_bytes(b"hidden")
    (root / "job_outputs" / "loose.png").write_bytes(b"of no job")
    (root / "models").mkdir()
    (root / "models" / "base.safetensors").write_bytes(b"weights")
    (tmp_path / "secret.png").write_bytes(b"secret")
    return root


@pytest.fixture
def server(root: Path) -> Iterator[Server]:
    with running(create_app(root)) as server:
        yield server


def test_health(server: Server) -> None:
    answer = server.ask("/health")
    assert answer.status == 200
    assert answer.json == {"status": "ok", "message": "The file gateway is running."}
    assert server.ask("/health", "HEAD").status == 200


@pytest.mark.parametrize("slash", ["", "/", "%2F"])
@pytest.mark.parametrize("view", ["", "workspace/", "runpod-volume/"])
def test_every_view_of_a_file_is_downloaded(server: Server, view: str, slash: str) -> None:
    answer = server.download(f"{slash}{view}job_outputs/7/x.png")
    assert answer.status == 200
    assert answer.body == PICTURE


def test_the_servers_own_view(server: Server, root: Path) -> None:
    assert server.download(f"{root}/job_outputs/7/x.png").body == PICTURE
    assert server.download(f"{root}/job_outputs/7/x.png".lstrip("/")).body == PICTURE


def test_a_path_that_is_encoded_once_as_a_whole(server: Server) -> None:
    assert server.download(quote("/runpod-volume/job_outputs/7/x.png", safe="")).body == PICTURE
    assert server.download("job_outputs/7/%78.png").body == PICTURE


def test_the_headers_of_a_download(server: Server) -> None:
    answer = server.download("job_outputs/7/x.png")
    assert answer.headers["Content-Type"] == "image/png"
    assert answer.headers["Content-Length"] == str(len(PICTURE))
    assert answer.headers["Content-Disposition"] == "attachment; filename=\"x.png\"; filename*=UTF-8''x.png"
    assert answer.headers["X-Content-Type-Options"] == "nosniff"
    assert answer.headers["Accept-Ranges"] == "bytes"
    assert server.download("job_outputs/7/more/deep.txt").body == b"deep"


def test_head_tells_all_but_the_body(server: Server) -> None:
    got, told = server.download("job_outputs/7/x.png"), server.download("job_outputs/7/x.png", "HEAD")
    assert (told.status, told.body) == (200, b"")
    for name in ("Content-Type", "Content-Length", "Content-Disposition", "ETag", "Last-Modified", "Accept-Ranges"):
        assert told.headers[name] == got.headers[name]
    assert server.download("job_outputs/7/nothing.png", "HEAD").status == 404


@pytest.mark.parametrize(
    "path",
    [
        "",
        "/",
        "job_outputs",
        "job_outputs/",
        "job_outputs/7",
        "job_outputs/7/",
        "job_outputs/7/more",
        "job_outputs/7/nothing.png",
        "job_outputs/8/x.png",
        "job_outputs/7/x.png/y.png",
        "job_outputs/loose.png",
        "job_outputs/7/.y.png.part",
        "job_outputs/7/.hidden/z.png",
        "job_outputs/7/%2ey.png.part",
        "models/base.safetensors",
        "workspace/models/base.safetensors",
        "job_outputs/../models/base.safetensors",
        "job_outputs/7/../../models/base.safetensors",
        "job_outputs/7/..%2f..%2fmodels/base.safetensors",
        "job_outputs/7/%2e%2e/%2e%2e/models/base.safetensors",
        "job_outputs/7/%2e%2e/7/x.png",
        "job_outputs/7/%252e%252e/x.png",
        "job_outputs%252f7%252fx.png",
        "job_outputs/7/x.png%00",
        "job_outputs/7/x.png%00.txt",
        "job_outputs/7/x%0a.png",
        "job_outputs\\7\\x.png",
        "job_outputs%5c7%5cx.png",
        "..\\..\\secret.png",
        "../secret.png",
        "../../../../../../etc/passwd",
        "%2e%2e/secret.png",
        "/etc/passwd",
        "//etc/passwd",
        "%2fetc%2fpasswd",
        "etc/passwd",
        "workspace/../etc/passwd",
        "workspace//etc/passwd",
        "/proc/self/environ",
        "proc/self/environ",
        "~/x.png",
        "~root/.bashrc",
        "job_outputs/7/%ff.png",
        "job_outputs/7/%c0%ae%c0%ae/x.png",
        "job_outputs/7/%ed%b2%80.png",
        "job_outputs/7/" + "x" * 256,
        "job_outputs/" + "7/" * 2000 + "x.png",
        "job_outputs/7/x.png%3F",
        "job_outputs/7/x.png%23",
    ],
)
def test_everything_else_is_not_found(server: Server, path: str) -> None:
    answer = server.download(path)
    assert answer.status == 404
    assert answer.json == NOT_FOUND


def test_raw_bytes_in_the_target(server: Server) -> None:
    """aiohttp's parsers differ here: the compiled one refuses the request, the other lets the path through."""
    assert server.ask(b"/download/job_outputs/7/\xff.png").status in (400, 404)
    assert server.download("job_outputs/7/x.png").status == 200


@pytest.mark.parametrize("target", ["//etc/passwd", "/etc/passwd", "/", "/../etc/passwd", "/health/..", "/download"])
def test_an_unknown_route_is_answered_in_json(server: Server, target: str) -> None:
    answer = server.ask(target)
    assert answer.status == 404
    assert answer.json == {"error": "Not Found"}
    assert answer.headers["X-Content-Type-Options"] == "nosniff"


@pytest.mark.parametrize("target", ["/health", "/download/job_outputs/7/x.png"])
@pytest.mark.parametrize("method", ["POST", "PUT", "DELETE", "PATCH", "OPTIONS"])
def test_another_method_is_refused_in_json(server: Server, root: Path, method: str, target: str) -> None:
    answer = server.ask(target, method)
    assert answer.status == 405
    assert answer.json == {"error": f"{method} is not allowed here, only GET, HEAD"}
    assert answer.headers["Allow"] == "GET,HEAD"
    assert (root / "job_outputs/7/x.png").read_bytes() == PICTURE


@pytest.mark.parametrize("target", ["secret.png", "volume/models/base.safetensors", "volume/job_outputs/7/x.png"])
def test_a_link_in_a_job_folder_is_not_followed(server: Server, root: Path, tmp_path: Path, target: str) -> None:
    (root / "job_outputs/7/link.png").symlink_to(tmp_path / target)
    assert server.download("job_outputs/7/link.png").json == NOT_FOUND


def test_a_job_folder_that_is_a_link_is_not_followed(server: Server, root: Path) -> None:
    (root / "job_outputs/8").symlink_to(root / "models")
    (root / "job_outputs/9").symlink_to("7")
    assert server.download("job_outputs/8/base.safetensors").json == NOT_FOUND
    assert server.download("job_outputs/9/x.png").json == NOT_FOUND


def test_a_named_pipe_is_not_found_at_once(server: Server, root: Path) -> None:
    os.mkfifo(root / "job_outputs/7/pipe")
    assert server.download("job_outputs/7/pipe").json == NOT_FOUND


def test_a_folder_swapped_for_a_link_between_check_and_sending(
    server: Server, root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The file is open by then; what its name leads to since is of no interest."""
    really_open = volume.open_beneath

    def open_then_swap(*arguments: object, **options: object) -> object:
        file = really_open(*arguments, **options)  # type: ignore[arg-type]
        (root / "job_outputs/7").rename(tmp_path / "aside")
        (tmp_path / "7").mkdir()
        (tmp_path / "7" / "x.png").write_bytes(b"secret")
        (root / "job_outputs/7").symlink_to(tmp_path / "7")
        return file

    monkeypatch.setattr(gateway, "open_beneath", open_then_swap)
    assert server.download("job_outputs/7/x.png").body == PICTURE
    monkeypatch.undo()
    assert server.download("job_outputs/7/x.png").json == NOT_FOUND


def test_a_compressed_sibling_is_never_sent_instead(server: Server, root: Path) -> None:
    (root / "job_outputs/7/x.png.gz").write_bytes(b"something else")
    answer = server.download("job_outputs/7/x.png", Accept_Encoding="gzip, br")
    assert answer.body == PICTURE
    assert answer.headers["Content-Encoding"] is None


@pytest.mark.parametrize(
    ("asked", "start", "end"),
    [("bytes=0-9", 0, 10), ("bytes=100-", 100, None), ("bytes=-16", -16, None), ("bytes=1000-999999", 1000, None)],
)
def test_a_range(server: Server, asked: str, start: int, end: int | None) -> None:
    answer = server.download("job_outputs/7/x.png", Range=asked)
    assert answer.status == 206
    assert answer.body == PICTURE[start:end]
    first = start % len(PICTURE)
    assert answer.headers["Content-Range"] == f"bytes {first}-{first + len(answer.body) - 1}/{len(PICTURE)}"


def test_a_range_beyond_the_end(server: Server, root: Path) -> None:
    answer = server.download("job_outputs/7/x.png", Range="bytes=5000-")
    assert answer.status == 416
    assert answer.headers["Content-Range"] == f"bytes */{len(PICTURE)}"
    assert answer.json == {"error": f"The file has only {len(PICTURE)} bytes"}
    (root / "job_outputs/7/empty.txt").touch()
    assert server.download("job_outputs/7/empty.txt", Range="bytes=0-").status == 416
    assert server.download("job_outputs/7/empty.txt").status == 200


@pytest.mark.parametrize("asked", ["bytes=0-1,4-5", "bytes=9-2", "pages=1-2", "nonsense"])
def test_a_range_that_is_not_understood_is_ignored(server: Server, asked: str) -> None:
    answer = server.download("job_outputs/7/x.png", Range=asked)
    assert (answer.status, answer.body) == (200, PICTURE)


def test_a_resumed_download_gets_the_rest_of_the_same_version_only(server: Server, root: Path) -> None:
    etag = server.download("job_outputs/7/x.png", "HEAD").headers["ETag"]
    rest = server.download("job_outputs/7/x.png", Range="bytes=500-", If_Range=etag)
    assert (rest.status, rest.body) == (206, PICTURE[500:])
    (root / "job_outputs/7/x.png").write_bytes(PICTURE + b"changed")
    whole = server.download("job_outputs/7/x.png", Range="bytes=500-", If_Range=etag)
    assert (whole.status, whole.body) == (200, PICTURE + b"changed")


def test_a_conditional_request(server: Server) -> None:
    got = server.download("job_outputs/7/x.png")
    same = server.download("job_outputs/7/x.png", If_None_Match=got.headers["ETag"])
    assert (same.status, same.body) == (304, b"")
    assert server.download("job_outputs/7/x.png", If_Modified_Since=got.headers["Last-Modified"]).status == 304


@pytest.mark.parametrize("name", ["画像 🎨.png", 'it\'s 100% "fine"; a=b.png', "a+b & c.png", "e\u0301t\u00e9.png"])
def test_a_name_with_everything_in_it(server: Server, root: Path, name: str) -> None:
    (root / "job_outputs/7" / name).write_bytes(PICTURE)
    answer = server.download(quote(f"job_outputs/7/{name}"))
    assert answer.body == PICTURE
    said = re.fullmatch(
        r"attachment; filename=\"([^\"\\]*)\"; filename\*=UTF-8''([!#$&+.^_`|~0-9A-Za-z%-]*)",
        answer.headers["Content-Disposition"],
    )
    assert said is not None
    assert unquote(said[2]) == name
    assert said[1].isascii()


def test_a_name_cannot_add_a_header() -> None:
    assert "\n" not in attachment('x"\r\nSet-Cookie: a=b')


@pytest.mark.parametrize(
    ("name", "media_type"),
    [("x.mp4", "video/mp4"), ("x.webp", "image/webp"), ("x.flac", "audio/flac"), ("x", "application/octet-stream")],
)
def test_the_media_type_follows_the_extension(server: Server, root: Path, name: str, media_type: str) -> None:
    (root / "job_outputs/7" / name).write_bytes(b"<html>")
    assert server.download(f"job_outputs/7/{name}").headers["Content-Type"] == media_type


def test_a_large_file_arrives_whole(server: Server, root: Path) -> None:
    block = os.urandom(1024 * 1024)
    content = b"".join(bytes([number]) + block for number in range(50))
    (root / "job_outputs/7/clip.mp4").write_bytes(content)
    answer = server.download("job_outputs/7/clip.mp4")
    assert hashlib.sha256(answer.body).digest() == hashlib.sha256(content).digest()


def test_a_client_that_leaves_early_disturbs_nobody(server: Server, root: Path) -> None:
    (root / "job_outputs/7/clip.mp4").write_bytes(bytes(20 * 1024 * 1024))
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", server.port), timeout=30) as connection:
            connection.sendall(b"GET /download/job_outputs/7/clip.mp4 HTTP/1.1\r\nHost: gateway\r\n\r\n")
            assert connection.recv(1024)
    assert server.download("job_outputs/7/x.png").body == PICTURE


def test_descriptors_are_given_back(server: Server) -> None:
    """Asked on one connection, so that the connections' own do not count."""
    connection = http.client.HTTPConnection("127.0.0.1", server.port, timeout=30)
    with contextlib.closing(connection):

        def get(path: str, **headers: str) -> None:
            connection.request("GET", f"/download/{path}", headers=headers)
            connection.getresponse().read()

        get("job_outputs/7/nothing.png")
        before = len(os.listdir("/dev/fd"))
        for _ in range(20):
            get("job_outputs/7/x.png")
            get("job_outputs/7/x.png", Range="bytes=9999-")
            get("job_outputs/7")
            get("job_outputs/7/nothing.png")
        assert len(os.listdir("/dev/fd")) == before


def test_a_volume_that_is_gone_is_not_a_missing_file(server: Server, root: Path, tmp_path: Path) -> None:
    root.rename(tmp_path / "elsewhere")
    answer = server.download("job_outputs/7/x.png")
    assert answer.status == 503
    assert answer.headers["Retry-After"] == "5"
    assert "opening the volume" in str(answer.json).lower()
    (tmp_path / "elsewhere").rename(root)
    assert server.download("job_outputs/7/x.png").status == 200


def test_a_volume_that_fails_is_not_a_missing_file(server: Server, monkeypatch: pytest.MonkeyPatch) -> None:
    """No filesystem here fails on demand, so the opening does."""

    def fail(*_: object) -> io.BytesIO:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(gateway, "open_beneath", fail)
    answer = server.download("job_outputs/7/x.png")
    assert answer.status == 503
    assert "lost its connection" in str(answer.json)


def test_an_error_of_its_own_is_answered_in_json_and_logged(
    server: Server, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    def fail(*_: object) -> io.BytesIO:
        raise RuntimeError("a bug")

    monkeypatch.setattr(gateway, "open_beneath", fail)
    answer = server.download("job_outputs/7/x.png")
    assert answer.status == 500
    assert answer.json == {"error": "The gateway failed; its log says how."}
    assert "a bug" in caplog.text


def test_each_request_is_logged_with_its_job(root: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A line is written after its answer has been sent, so they are read once the server has ended."""
    caplog.set_level(logging.INFO, logger=gateway.__name__)
    with running(create_app(root)) as server:
        server.download("job_outputs/7/x.png?signature=secret")
        server.download("job_outputs/8/x.png")
        server.download("models/base.safetensors")
        server.ask("/health")
    lines = {record.__dict__["path"]: record.__dict__ for record in caplog.records if "path" in record.__dict__}
    got, missed = lines["/download/job_outputs/7/x.png"], lines["/download/job_outputs/8/x.png"]
    assert (got["job_id"], got["status"], got["bytes"]) == ("7", 200, len(PICTURE))
    assert (missed["job_id"], missed["status"]) == ("8", 404)
    assert "job_id" not in lines["/health"]
    assert "job_id" not in lines["/download/models/base.safetensors"]
    assert "secret" not in caplog.text


# serve

SERVE = """
import sys
from pathlib import Path
from morpheus_worker import logs
from morpheus_worker.gateway import serve
logs.configure("json", "INFO")
serve(Path(sys.argv[1]), port=0)
"""


@dataclass(frozen=True, slots=True)
class Served:
    process: subprocess.Popen[bytes]
    server: Server

    def next_line(self) -> dict[str, object]:
        assert self.process.stderr is not None
        line: dict[str, object] = json.loads(self.process.stderr.readline())
        return line


@pytest.fixture
def served(root: Path) -> Iterator[Served]:
    """`serve` in a process of its own."""
    command = [sys.executable, "-c", SERVE, str(root)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, cwd=Path(__file__).parents[2]) as process:
        try:
            port = re.search(r"http://127\.0\.0\.1:(\d+)", str(Served(process, Server(0)).next_line()["message"]))
            assert port is not None
            yield Served(process, Server(int(port[1])))
        finally:
            process.kill()


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_serve_until_told_to_stop(served: Served, number: signal.Signals) -> None:
    assert served.server.download("job_outputs/7/x.png").body == PICTURE
    line = served.next_line()
    assert (line["job_id"], line["status"], line["method"]) == ("7", 200, "GET")
    served.process.send_signal(number)
    assert served.process.wait(timeout=30) == 0


def test_a_download_under_way_ends_whole_when_serve_is_told_to_stop(served: Served, root: Path) -> None:
    content = os.urandom(1024 * 1024) * 20
    (root / "job_outputs/7/clip.mp4").write_bytes(content)
    connection = http.client.HTTPConnection("127.0.0.1", served.server.port, timeout=30)
    with contextlib.closing(connection):
        connection.request("GET", "/download/job_outputs/7/clip.mp4")
        response = connection.getresponse()
        begun = response.read(1000)
        served.process.send_signal(signal.SIGTERM)
        assert served.next_line()["message"] == "The file gateway stops"
        assert begun + response.read() == content
    assert served.process.wait(timeout=30) == 0


def test_serve_needs_a_volume(tmp_path: Path) -> None:
    with pytest.raises(MorpheusError, match="does not exist"):
        serve(tmp_path / "nowhere", port=0)


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "192.168.1.2", "gateway.example", "127.0.0.1.example"])
def test_serve_refuses_to_be_public_unasked(root: Path, host: str) -> None:
    assert not is_loopback(host)
    with pytest.raises(NotLoopbackError, match="reachable from other machines"):
        serve(root, host, 0)


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_loopback(host: str) -> None:
    assert is_loopback(host)


def test_public_on_request_comes_with_a_warning(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    """A missing volume ends it before it listens."""
    with pytest.raises(MorpheusError, match="does not exist"):
        serve(tmp_path / "nowhere", "0.0.0.0", 0, allow_public=True)
    assert "whoever reaches it can download every output" in caplog.text
