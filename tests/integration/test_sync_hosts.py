"""Hosts over real sockets: what they say of a file, its bytes, and everything that can go wrong on the way."""

from __future__ import annotations

import contextlib
import hashlib
import json
import logging
import socket
import ssl
import subprocess
import threading
import traceback
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from email.utils import formatdate
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.addresses import Address, MediaUrl
from morpheus_worker.settings import Settings
from morpheus_worker.sync.hosts import Hosts, local
from morpheus_worker.sync.hosts.following import key_for
from morpheus_worker.sync.hosts.wires import Terms
from morpheus_worker.sync.terms import Feed, Pace, Resolved, Source, SyncCode, SyncError
from tests.integration.model_server import (
    COMMIT,
    CivitaiFile,
    Fault,
    ModelServer,
    Reply,
    Request,
    bit_flip,
    changed_etag,
    html,
    ignores_range,
    raw,
    redirect,
    stalled,
    status,
    throttled,
    truncated,
    wrong_content_range,
)
from tests.integration.syncs import safetensors

BODY = bytes(range(256)) * 4096
SHA256 = hashlib.sha256(BODY).hexdigest()
TOKEN = "hf_thisIsTheSecretOfTheseTests"
REPO, FILE = "owner/name", "folder/a model.safetensors"
HF: Source = {"kind": "hf", "repo": REPO, "file": FILE}

QUICK = Pace(connect_s=5.0, stall_s=0.3, first_wait_s=0.01, longest_wait_s=0.02)
PATIENT = Pace(connect_s=5.0, stall_s=10.0, first_wait_s=0.01, longest_wait_s=0.02)


@pytest.fixture
def server() -> Iterator[ModelServer]:
    with ModelServer() as running:
        yield running


@pytest.fixture
def cdn() -> Iterator[ModelServer]:
    """Another host: what is sent to it is sent away."""
    with ModelServer() as running:
        yield running


def settings_of(server: ModelServer, folder: Path, **environment: str) -> Settings:
    named = {
        "MORPHEUS_VOLUME_ROOT": str(folder),
        "HF_ENDPOINT": server.hf_endpoint,
        "MORPHEUS_CIVITAI_URL": server.civitai_url,
    }
    return Settings.from_environment({**named, **environment})


Making = Callable[..., Hosts]


@pytest.fixture
def made(server: ModelServer, tmp_path: Path) -> Iterator[Making]:
    """Makes hosts; keywords are variables of the environment, and `terms`."""
    with contextlib.ExitStack() as stack:

        def make(terms: Terms | None = None, **environment: str) -> Hosts:
            settings = settings_of(server, tmp_path, **environment)
            return stack.enter_context(Hosts(settings, terms=terms or Terms(PATIENT)))

        yield make


@pytest.fixture
def hosts(made: Making) -> Hosts:
    return made()


def web(url: str) -> Source:
    return {"kind": "https", "url": url}


def fed(hosts: Hosts, source: Source, **about: Any) -> Feed:
    return hosts.feed(hosts.resolve(source, **about), **about)


def read(feed: Feed, start: int = 0, end: int | None = None) -> bytes:
    """All the bytes of one answer, from `start` on."""
    with feed.opened(start, end) as body:
        assert body.start == start
        return drained(body)


def drained(body: Any) -> bytes:
    buffer, taken = memoryview(bytearray(300_000)), bytearray()
    while got := body.readinto(buffer):
        taken += buffer[:got]
    return bytes(taken)


def failure_of(action: Callable[[], object]) -> SyncError:
    with pytest.raises(SyncError) as caught:
        action()
    return caught.value


# A file on the web.


def test_a_look_says_what_the_host_knows(server: ModelServer, hosts: Hosts) -> None:
    url = server.file("/models/a.safetensors", BODY, etag='"one"')
    assert hosts.resolve(web(url)) == Resolved(web(url), len(BODY), etag='"one"', filename="a.safetensors")
    assert [request.method for request in server.requests] == ["HEAD"]


def test_a_host_that_takes_no_head_is_asked_for_a_byte(server: ModelServer, hosts: Hosts) -> None:
    url = server.file("/a.bin", BODY, etag='"one"', faults=[status(405).on("HEAD")])
    resolved = hosts.resolve(web(url))
    assert (resolved.size, resolved.etag) == (len(BODY), '"one"')
    assert server.bytes_sent == 1


def test_a_weak_etag_pins_nothing(server: ModelServer, hosts: Hosts) -> None:
    resolved = hosts.resolve(web(server.file("/a.bin", BODY, etag='W/"one"')))
    assert (resolved.etag, resolved.version, resolved.names_version) == (None, None, False)


def test_the_name_comes_from_the_host_where_it_gives_one(server: ModelServer, hosts: Hosts) -> None:
    named = {"Content-Disposition": 'attachment; filename="real name.safetensors"'}
    assert hosts.resolve(web(server.file("/download", BODY, headers=named))).filename == "real name.safetensors"


def test_ranges_and_the_whole(server: ModelServer, hosts: Hosts) -> None:
    feed = fed(hosts, web(server.file("/a.bin", BODY)))
    assert read(feed) == BODY
    assert read(feed, 1000, 500_000) == BODY[1000:500_000]
    assert read(feed, len(BODY) - 7, None) == BODY[-7:]
    with feed.opened(5, 10) as body:
        assert (body.start, body.total, body.ranged) == (5, len(BODY), True)
    assert server.requests[-1].headers["if-range"] == feed.resolved.etag


def test_an_empty_file(server: ModelServer, hosts: Hosts) -> None:
    feed = fed(hosts, web(server.file("/empty.txt", b"")))
    assert (feed.resolved.size, read(feed)) == (0, b"")


def test_many_threads_share_few_connections(server: ModelServer, made: Making) -> None:
    hosts = made(MORPHEUS_SYNC_HOST_CONNECTIONS="3")
    feeds = [fed(hosts, web(server.file(f"/{name}.bin", BODY))) for name in "ab"]
    with ThreadPoolExecutor(8) as pool:
        starts = range(0, len(BODY), 65536)
        parts = [pool.submit(read, feed, at, at + 65536) for at in starts for feed in feeds]
        pieces = [part.result() for part in parts]
    assert b"".join(pieces[::2]) == b"".join(pieces[1::2]) == BODY
    assert server.most_at_once <= 3
    assert server.connections <= 3


def test_a_place_is_given_back_whatever_happens(server: ModelServer, made: Making) -> None:
    hosts = made(Terms(QUICK), MORPHEUS_SYNC_HOST_CONNECTIONS="1")
    faults = [status(500), stalled(10), truncated(10), wrong_content_range(), html(), raw(b"nonsense\r\n\r\n")]
    for number, fault in enumerate(faults):
        feed = fed(hosts, web(server.file(f"/{number}.bin", BODY, faults=[fault])))
        failure_of(lambda feed=feed: read(feed, 0, 100))  # type: ignore[misc]
    with pytest.raises(KeyError), fed(hosts, web(server.file("/left.bin", BODY))).opened(0, None):
        raise KeyError
    assert read(fed(hosts, web(server.file("/last.bin", BODY))), 0, 100) == BODY[:100]


def test_a_host_without_ranges_sends_everything(server: ModelServer, hosts: Hosts) -> None:
    for feed in (
        fed(hosts, web(server.file("/a.bin", BODY, ranges=False))),
        fed(hosts, web(server.file("/b.bin", BODY, faults=[ignores_range()]))),
    ):
        with feed.opened(1000, 2000) as body:
            assert (body.start, body.total, body.ranged) == (0, len(BODY), False)
            assert drained(body) == BODY
        assert not feed.ranges


def test_a_body_in_chunks(server: ModelServer, hosts: Hosts) -> None:
    def act(_: Request, reply: Reply) -> None:
        pieces = [bytes(reply.body[at : at + 100_000]) for at in range(0, len(reply.body), 100_000)]
        framed = b"".join(b"%x\r\n%s\r\n" % (len(piece), piece) for piece in pieces) + b"0\r\n\r\n"
        reply.headers.pop("Content-Length")
        reply.headers["Transfer-Encoding"] = "chunked"
        reply.body = memoryview(framed)

    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[Fault(act)])))
    assert read(feed) == BODY
    assert read(feed) == BODY
    assert server.connections == 1


def test_a_chunked_body_that_is_cut(server: ModelServer, hosts: Hosts) -> None:
    cut = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n5\r\nwo"
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[raw(cut)])))
    failure = failure_of(lambda: read(feed))
    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, True)


ANSWER = b"HTTP/1.1 200 OK\r\nContent-Length: %d\r\n\r\n%s"


def one_after_the_other(answers: list[bytes]) -> tuple[str, threading.Thread]:
    """A server of one connection. It sends an answer for every request, the last one's over and over: each is to be
    sent before the next request is read."""
    listener = socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with listener, connection, contextlib.suppress(OSError):
            for answer in answers:
                while not connection.recv(65536).endswith(b"\r\n\r\n"):
                    pass
                connection.sendall(answer)
            while connection.recv(65536):
                pass

    thread = threading.Thread(target=serve)
    thread.start()
    return f"http://127.0.0.1:{listener.getsockname()[1]}", thread


@pytest.mark.parametrize(
    "announced", [b"HTTP/1.1 103 Early Hints\r\nLink: </x>\r\n\r\n" * 2, b"HTTP/1.1 100 C\r\n\r\n"]
)
def test_what_announces_an_answer_is_none(hosts: Hosts, announced: bytes) -> None:
    origin, thread = one_after_the_other([announced + ANSWER % (3, b"one"), ANSWER % (3, b"two")])
    for path, content in (("one", b"one"), ("two", b"two")):
        assert read(hosts.feed(Resolved(web(f"{origin}/{path}"), 3))) == content
    hosts.close()
    thread.join()


@pytest.mark.parametrize(
    "told",
    [
        b"Transfer-Encoding: gzip, chunked\r\nContent-Length: 8",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: gzip\r\nContent-Length: 8",
        b"Content-Length: 3\r\nContent-Length: 8",
        b"Upgrade: x\r\nContent-Length: 8",
    ],
)
def test_a_body_whose_end_nobody_can_tell_is_none(server: ModelServer, made: Making, told: bytes) -> None:
    status_line = b"101 Switching" if told.startswith(b"Upgrade") else b"200 OK"
    answer = b"HTTP/1.1 " + status_line + b"\r\n" + told + b"\r\n\r\n3\r\nabc\r\n"
    feed = made(Terms(QUICK)).feed(Resolved(web(server.file("/a.bin", BODY, faults=[raw(answer)]))))
    failure = failure_of(lambda: read(feed))
    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, True)
    assert "did not answer in HTTP" in failure.what


@pytest.mark.parametrize(
    "first",
    [
        ANSWER % (3, b"one") + ANSWER % (3, b"bad"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n3\r\none\r\n0\r\n\r\n" + ANSWER % (3, b"bad"),
        b"HTTP/1.1 204 No\r\n\r\n" + ANSWER % (3, b"bad"),
        b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\n3\r\none\r\n0\r\n\r\n",
    ],
)
def test_a_connection_that_holds_more_than_was_asked_for_is_not_kept(hosts: Hosts, first: bytes) -> None:
    origin, thread = one_after_the_other([first])
    with contextlib.suppress(SyncError):
        read(hosts.feed(Resolved(web(f"{origin}/one"))))
    # The server waits for this end of it.
    thread.join(5.0)
    assert not thread.is_alive()


@pytest.mark.parametrize(
    "endless", [b"HTTP/1.1 200 OK\r\nX: y", b"HTTP/1.1 100 Continue\r\n\r\n", b"HTTP/1.1 200 OK\r\n"]
)
def test_a_head_that_comes_for_ever_is_not_waited_for(made: Making, endless: bytes) -> None:
    over, listener = threading.Event(), socket.create_server(("127.0.0.1", 0))

    def serve() -> None:
        connection, _ = listener.accept()
        with connection, contextlib.suppress(OSError):
            connection.sendall(endless)
            while not over.wait(0.05):
                connection.sendall(b"y" if endless.endswith(b"y") else endless)

    thread = threading.Thread(target=serve)
    thread.start()
    feed = made(Terms(QUICK)).feed(Resolved(web(f"http://127.0.0.1:{listener.getsockname()[1]}/a")))
    with ThreadPoolExecutor(1) as pool:
        failing = pool.submit(failure_of, lambda: read(feed))
        try:
            failure = failing.result(5.0)
        finally:
            over.set()
            listener.close()
            thread.join()
    assert failure.passing


def test_a_trailer_without_end_is_not_waited_for(server: ModelServer, made: Making) -> None:
    def act(_: Request, reply: Reply) -> None:
        reply.headers.pop("Content-Length")
        reply.headers["Transfer-Encoding"] = "chunked"
        reply.body, reply.rate = memoryview(b"3\r\none\r\n0\r\n" + b"X: y\r\n" * 5000), 2000.0

    feed = made(Terms(QUICK)).feed(Resolved(web(server.file("/a.bin", b"one", faults=[Fault(act)])), 3))
    assert failure_of(lambda: read(feed)).passing
    assert server.bytes_sent < 20_000


def test_what_came_is_handed_on_although_there_is_room_for_more(server: ModelServer, hosts: Hosts) -> None:
    rest = threading.Event()
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[stalled(100_000, until=rest)])))
    with feed.opened(0, None) as body:
        buffer = memoryview(bytearray(len(BODY)))
        got = 0
        while got < 100_000:
            got += body.readinto(buffer[got:])
        rest.set()
        while more := body.readinto(buffer[got:]):
            got += more
    assert bytes(buffer) == BODY


# Hosts that misbehave.


@pytest.mark.parametrize(
    ("fault", "said"),
    [
        (truncated(1000).first(1), "cut the connection"),
        (stalled(1000).first(1), "stopped sending for 0.3 s"),
        (stalled(0).first(1), "stopped sending for 0.3 s"),
        (wrong_content_range().first(1), "sent other bytes than 0 to 99999"),
        (wrong_content_range("nonsense").first(1), "sent other bytes"),
        (raw(b"I am no web server\r\n\r\n").first(2), "did not answer in HTTP"),
        (raw(b"").first(2), "cut the connection before it answered"),
        (raw(b"HTTP/1.1 200 OK\r\n" + b"X: y\r\n" * 1000).first(2), "headers without end"),
        (raw(b"HTTP/1.1 200 OK\r\nX: " + b"y" * 100_000).first(2), "headers without end"),
        (raw(b"HTTP/1.1 200 OK\r\nContent-Length: 100000\r\nX").first(2), "cut the connection"),
        (status(500).first(1), "answered 500 (Internal Server Error)"),
        (status(503, Retry_After=7).first(1), "answered 503 (Service Unavailable)"),
        (status(416).first(1), "answered 416"),
    ],
)
def test_what_may_pass_is_passing(server: ModelServer, made: Making, fault: Fault, said: str) -> None:
    hosts = made(Terms(QUICK))
    # What is no answer is asked for twice at once: the first time, it may be a kept connection's fault.
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[fault])))
    failure = failure_of(lambda: read(feed, 0, 100_000))
    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, True)
    assert said in failure.what
    assert read(feed, 0, 100_000) == BODY[:100_000]


@pytest.mark.parametrize(
    ("fault", "code", "said"),
    [
        (changed_etag(), SyncCode.CHANGED, "another version"),
        (wrong_content_range("bytes 0-99999/2000000"), SyncCode.CHANGED, "has 2000000 bytes now"),
        (html(), SyncCode.REJECTED, "web page"),
        (status(404), SyncCode.NOT_FOUND, "404"),
        (status(401), SyncCode.ACCESS_DENIED, "asks for a key"),
    ],
)
def test_what_is_final_is_not_passing(
    server: ModelServer, hosts: Hosts, fault: Fault, code: SyncCode, said: str
) -> None:
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[fault])))
    failure = failure_of(lambda: read(feed, 0, 100_000))
    assert (failure.code, failure.passing) == (code, False)
    assert said in failure.what


def test_a_file_that_is_replaced_is_never_mixed(server: ModelServer, hosts: Hosts) -> None:
    feed = fed(hosts, web(server.file("/a.bin", BODY)))
    read(feed, 0, 1000)
    server.file("/a.bin", BODY[::-1])
    assert failure_of(lambda: read(feed, 1000, 2000)).code == SyncCode.CHANGED


def test_without_an_etag_the_time_of_the_change_tells(server: ModelServer, hosts: Hosts) -> None:
    def at(time_s: float) -> dict[str, str]:
        return {"Last-Modified": formatdate(time_s, usegmt=True)}

    feed = fed(hosts, web(server.file("/a.bin", BODY, etag=None, headers=at(1e9))))
    assert read(feed, 0, 1000) + read(feed, 1000, 2000) == BODY[:2000]
    server.file("/a.bin", BODY[::-1], etag=None, headers=at(1.1e9))
    assert failure_of(lambda: read(feed, 2000, 3000)).code == SyncCode.CHANGED


def test_a_weak_etag_may_tell_of_another_version(server: ModelServer, hosts: Hosts) -> None:
    url = server.file(
        "/a.bin", BODY, etag='"one"', faults=[changed_etag('W/"one"').first(1), changed_etag('W/"two"').after(1)]
    )
    feed = fed(hosts, web(url))
    assert read(feed, 0, 1000) == BODY[:1000]
    assert failure_of(lambda: read(feed, 1000, 2000)).code == SyncCode.CHANGED


def test_a_refusal_may_be_a_page(server: ModelServer, hosts: Hosts) -> None:
    def page(code: int, **more: str) -> Fault:
        return status(code, b"<html>", Content_Type="text/html", **more)

    shorter = server.file("/a.bin", BODY, faults=[page(416, Content_Range="bytes */1000")])
    failure = failure_of(lambda: read(fed(hosts, web(shorter)), 1000, 2000))
    assert (failure.code, "has 1000 bytes now" in failure.what) == (SyncCode.CHANGED, True)
    another = server.file("/b.bin", BODY, faults=[page(412)])
    assert failure_of(lambda: read(fed(hosts, web(another)), 1000, 2000)).code == SyncCode.CHANGED
    busy = server.file("/c.bin", BODY, faults=[page(416)])
    assert failure_of(lambda: read(fed(hosts, web(busy)), 1000, 2000)).passing


def test_an_empty_file_where_no_head_is_taken(server: ModelServer, hosts: Hosts) -> None:
    none = status(416, b"<html>no such range", Content_Type="text/html", Content_Range="bytes */0")
    url = server.file("/a.bin", b"", faults=[status(403).on("HEAD"), none.first(1)])
    feed = fed(hosts, web(url))
    assert (feed.resolved.size, read(feed)) == (0, b"")


def test_a_flipped_bit_is_not_the_hosts_to_notice(server: ModelServer, hosts: Hosts) -> None:
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[bit_flip(70)])))
    assert read(feed, 0, 100)[70] == BODY[70] ^ 1


def test_how_long_to_wait_is_handed_on_in_both_forms(server: ModelServer, hosts: Hosts) -> None:
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[status(429, Retry_After=7)])))
    assert failure_of(lambda: read(feed)).after_s == 7.0
    date = formatdate(4_000_000_000, usegmt=True)
    feed = fed(hosts, web(server.file("/b.bin", BODY, faults=[status(503, Retry_After=date)])))
    assert failure_of(lambda: read(feed)).after_s > 1e9


def test_a_refusal_in_mid_file_may_pass(server: ModelServer, hosts: Hosts) -> None:
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[status(403).after(1).first(1)])))
    read(feed, 0, 1000)
    failure = failure_of(lambda: read(feed, 1000, 2000))
    assert (failure.code, failure.passing) == (SyncCode.ACCESS_DENIED, True)
    assert read(feed, 1000, 2000) == BODY[1000:2000]


def test_a_kept_connection_that_ended_is_made_anew_at_once(server: ModelServer, hosts: Hosts) -> None:
    # It ends when the next request is on its way, where looking at it beforehand would not have told.
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[raw(b"").after(1).first(1)])))
    assert read(feed, 0, 1000) == BODY[:1000]
    assert read(feed, 1000, 2000) == BODY[1000:2000]
    assert server.connections == 2


def test_a_look_is_repeated_while_the_host_fails_in_passing(server: ModelServer, hosts: Hosts) -> None:
    url = server.file("/a.bin", BODY, faults=[status(429).first(2).on("HEAD")])
    assert hosts.resolve(web(url)).size == len(BODY)
    url = server.file("/b.bin", BODY, faults=[status(429, Retry_After=86400).on("HEAD")])
    assert failure_of(lambda: hosts.resolve(web(url))).after_s == 86400.0
    stop, before = threading.Event(), len(server.requests)
    url = server.file(
        "/c.bin", BODY, faults=[Fault(lambda *_: stop.set(), methods=frozenset({"HEAD"})), status(429).on("HEAD")]
    )
    assert failure_of(lambda: hosts.resolve(web(url), stop=stop)).code == SyncCode.INTERRUPTED
    assert failure_of(lambda: hosts.resolve(web(url), stop=stop)).code == SyncCode.INTERRUPTED
    assert len(server.requests) == before + 1


def test_nobody_is_there(server: ModelServer, hosts: Hosts) -> None:
    with ModelServer() as gone:
        url = gone.url("/a.bin")
    failure = failure_of(lambda: hosts.resolve(web(url)))
    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, True)
    assert "takes no connection" in failure.what


def test_a_name_that_does_not_exist(server: ModelServer, made: Making) -> None:
    def nobody(host: str, port: int) -> list[Address]:
        raise OSError

    failure = failure_of(lambda: made(Terms(QUICK, lookup=nobody)).resolve(web("https://nowhere.example/a")))
    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, False)


def test_closing_ends_who_reads_and_who_waits(server: ModelServer, made: Making) -> None:
    hosts = made(MORPHEUS_SYNC_HOST_CONNECTIONS="1")
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[stalled(1000)])))
    with ThreadPoolExecutor(2) as pool:
        reads = [pool.submit(failure_of, lambda: read(feed)) for _ in range(2)]
        server.wait_for_bytes(1000)
        hosts.close()
        codes = {future.result().code for future in reads}
    assert codes == {SyncCode.UNREACHABLE, SyncCode.INTERRUPTED}
    server.wait_until_left()


def test_a_body_can_be_ended_from_another_thread(server: ModelServer, hosts: Hosts) -> None:
    feed = fed(hosts, web(server.file("/a.bin", BODY, faults=[stalled(0)])))
    with feed.opened(0, None) as body, ThreadPoolExecutor(1) as pool:
        reading = pool.submit(failure_of, lambda: drained(body))
        body.abort()  # type: ignore[attr-defined]
        assert reading.result().passing


# Redirects.


def test_where_a_redirect_leads_is_kept_in_mind(server: ModelServer, cdn: ModelServer, hosts: Hosts) -> None:
    server.redirect("/latest", cdn.file("/a.safetensors", BODY))
    feed = fed(hosts, web(server.url("/latest")))
    assert (feed.resolved.size, feed.resolved.filename) == (len(BODY), "latest")
    assert b"".join(read(feed, at, at + 1000) for at in range(0, 5000, 1000)) == BODY[:5000]
    assert len(server.asked_for("/latest", "GET")) == 1


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_every_kind_of_redirect_is_followed(server: ModelServer, hosts: Hosts, code: int) -> None:
    server.redirect("/there", "a.bin", code)
    server.file("/a.bin", BODY)
    assert read(fed(hosts, web(server.url("/there"))), 5, 9) == BODY[5:9]


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("/again", "in a circle"),
        ("", "in a circle"),
        ("ftp://elsewhere.example/a", "only http and https"),
        ("http://user:secret@elsewhere.example/a", "user name or password"),
    ],
)
def test_redirects_that_lead_nowhere(server: ModelServer, hosts: Hosts, to: str, said: str) -> None:
    server.redirect("/again", to)
    failure = failure_of(lambda: hosts.resolve(web(server.url("/again"))))
    assert (failure.code, failure.passing) == (SyncCode.REJECTED, False)
    assert said in failure.what
    assert "secret" not in str(failure)


def test_redirects_have_an_end(server: ModelServer, hosts: Hosts) -> None:
    for number in range(20):
        server.redirect(f"/{number}", f"/{number + 1}")
    failure = failure_of(lambda: hosts.resolve(web(server.url("/0"))))
    assert (failure.code, len(server.requests)) == (SyncCode.REJECTED, 11)


def test_a_key_goes_to_its_own_origin_alone(server: ModelServer, cdn: ModelServer, made: Making) -> None:
    hosts = made(MY_KEY=TOKEN)
    server.redirect("/near", server.file("/a.bin", BODY, token=TOKEN))
    assert read(fed(hosts, web(server.url("/near")), auth_env="MY_KEY"), 0, 9) == BODY[:9]
    server.redirect("/far", cdn.file("/b.bin", BODY))
    assert read(fed(hosts, web(server.url("/far")), auth_env="MY_KEY"), 0, 9) == BODY[:9]
    assert all("authorization" in request.headers for request in server.requests)
    assert cdn.requests
    assert not any(TOKEN in str(request) for request in cdn.requests)


def test_the_same_machine_under_another_name_is_another_host(server: ModelServer, made: Making) -> None:
    server.file("/a.bin", BODY)
    server.redirect("/named", server.url("/a.bin", host="localhost"))
    assert read(fed(made(MY_KEY=TOKEN), web(server.url("/named")), auth_env="MY_KEY"), 0, 9) == BODY[:9]
    assert not any("authorization" in request.headers for request in server.asked_for("/a.bin"))


def test_a_host_in_between_cannot_call_for_the_key(server: ModelServer, cdn: ModelServer, made: Making) -> None:
    back = server.file("/private.bin", BODY, token=TOKEN)
    server.redirect("/there", cdn.redirect("/and-back", back))
    failure_of(lambda: made(MY_KEY=TOKEN).resolve(web(server.url("/there")), auth_env="MY_KEY"))
    assert server.asked_for("/private.bin")
    assert not any("authorization" in request.headers for request in server.asked_for("/private.bin"))


def test_no_key_goes_over_plain_http_to_another_machine(server: ModelServer, tmp_path: Path) -> None:
    settings = settings_of(server, tmp_path, MY_KEY=TOKEN)
    for address, sent in {
        "https://models.example/a": True,
        "http://models.example/a": False,
        "http://10.0.0.7/a": False,
        "http://127.0.0.1/a": True,
        "http://localhost:8000/a": True,
    }.items():
        url = MediaUrl.of(address)
        key = key_for(settings, "https", "MY_KEY", url.origin)
        assert bool(key.headers_for(url)) is sent
        assert key.access_at(url).withheld is not sent
        assert TOKEN not in repr(key)


@pytest.mark.parametrize(
    ("kind", "auth_env", "origin", "variable"),
    [
        ("hf", None, "https://huggingface.co", "HF_TOKEN"),
        ("hf", "HF_TOKEN", "https://huggingface.co", "HF_TOKEN"),
        ("hf", "CIVITAI_API_KEY", "https://huggingface.co", "HF_TOKEN"),
        ("hf", "MY_KEY", "https://huggingface.co", "MY_KEY"),
        ("civitai", "HF_TOKEN", "https://civitai.com", "CIVITAI_API_KEY"),
        ("civitai", "CIVITAI_API_KEY", "https://civitai.com", "CIVITAI_API_KEY"),
        ("https", "HF_TOKEN", "https://mirror.example", None),
        ("https", "CIVITAI_API_KEY", "https://huggingface.co", None),
        ("https", "HF_TOKEN", "https://huggingface.co", "HF_TOKEN"),
        ("https", "CIVITAI_API_KEY", "https://civitai.com", "CIVITAI_API_KEY"),
        ("https", "MY_KEY", "https://mirror.example", "MY_KEY"),
        ("https", None, "https://huggingface.co", None),
    ],
)
def test_a_hosts_own_variable_is_for_no_other_source_of_the_entry(
    kind: str, auth_env: str | None, origin: str, variable: str | None
) -> None:
    keys = {name: f"value-of-{name}" for name in ("HF_TOKEN", "CIVITAI_API_KEY", "MY_KEY")}
    key = key_for(Settings.from_environment(keys), kind, auth_env, origin)
    assert key.variable == variable
    assert (key.value and key.value.get_secret_value()) == (variable and keys[variable])


def test_an_entrys_key_for_one_host_is_not_sent_to_its_next(
    server: ModelServer, cdn: ModelServer, tmp_path: Path
) -> None:
    settings = settings_of(server, tmp_path, HF_TOKEN=TOKEN, MORPHEUS_CIVITAI_URL=cdn.origin)
    cdn.civitai(99, [MODEL])
    with Hosts(settings, terms=Terms(PATIENT)) as hosts:
        for source in (web(cdn.file("/a.bin", BODY)), CIVITAI):
            assert read(fed(hosts, source, auth_env="HF_TOKEN"), 0, 9) == BODY[:9]
    assert not any("authorization" in request.headers for request in cdn.requests)


def test_a_key_that_no_header_can_hold_is_named_not_shown(server: ModelServer, made: Making) -> None:
    failure = failure_of(lambda: made(MY_KEY=f"{TOKEN}\nX-Other: 1").resolve(web(server.url("/a")), auth_env="MY_KEY"))
    assert failure.code == SyncCode.INVALID
    assert "MY_KEY" in failure.what
    assert TOKEN not in str(failure)
    assert server.requests == []


def test_who_is_reached_in_public_does_not_lead_into_a_private_network(server: ModelServer, made: Making) -> None:
    terms = Terms(QUICK, public=lambda address: str(address) == "127.0.0.2")
    with ModelServer("127.0.0.2") as public:
        url = public.redirect("/metadata", server.file("/secrets", BODY))
        failure = failure_of(lambda: made(terms).resolve(web(url)))
        assert (failure.code, failure.passing) == (SyncCode.REJECTED, False)
        assert "private address" in failure.what
        assert server.requests == []
        # From a private host, which only the operator can have named, both ways are open.
        url = server.redirect("/out", public.file("/a.bin", BODY))
        assert read(fed(made(terms), web(url)), 0, 9) == BODY[:9]


def test_a_kept_private_connection_is_no_way_in_either(server: ModelServer, made: Making) -> None:
    terms = Terms(QUICK, public=lambda address: str(address) == "127.0.0.2")
    hosts = made(terms)
    with ModelServer("127.0.0.2") as public:
        own = server.file("/own.bin", BODY)
        assert read(fed(hosts, web(own)), 0, 9) == BODY[:9]
        before = len(server.requests)
        assert failure_of(lambda: hosts.resolve(web(public.redirect("/in", own)))).code == SyncCode.REJECTED
        assert len(server.requests) == before


def test_a_page_instead_of_a_file(server: ModelServer, hosts: Hosts) -> None:
    url = server.file("/a.safetensors", b"", faults=[html().on("GET", "HEAD")])
    assert failure_of(lambda: hosts.resolve(web(url))).code == SyncCode.REJECTED
    url = server.file("/page.html", b"<p>", headers={"Content-Type": "text/html"})
    assert read(fed(hosts, web(url))) == b"<p>"


def test_an_encoded_answer_is_no_file(server: ModelServer, hosts: Hosts) -> None:
    url = server.file("/a.bin", BODY, headers={"Content-Encoding": "gzip"})
    assert failure_of(lambda: hosts.resolve(web(url))).code == SyncCode.REJECTED
    assert server.requests[0].headers["accept-encoding"] == "identity"


# Hugging Face.


def test_hugging_face_says_commit_size_and_hash(server: ModelServer, cdn: ModelServer, hosts: Hosts) -> None:
    server.hf(REPO, FILE, BODY, cdn=cdn)
    expected = Resolved(
        {**HF, "revision": COMMIT}, len(BODY), SHA256, filename="a model.safetensors", names_version=True
    )
    assert hosts.resolve(HF) == expected
    assert len(server.requests) == 1
    assert cdn.requests == []


def test_a_small_file_of_hugging_face_has_no_sha256(server: ModelServer, hosts: Hosts) -> None:
    server.hf(REPO, "config.json", b"{}", lfs=False)
    resolved = hosts.resolve({**HF, "file": "config.json"})
    assert (resolved.size, resolved.sha256) == (2, None)
    assert resolved.etag
    assert read(hosts.feed(resolved)) == b"{}"


def test_hugging_faces_bytes_come_from_a_store_that_gets_no_key(
    server: ModelServer, cdn: ModelServer, made: Making
) -> None:
    hosts = made(HF_TOKEN=TOKEN)
    server.hf(REPO, FILE, BODY, cdn=cdn, token=TOKEN, gated=True)
    feed = fed(hosts, HF)
    assert b"".join(read(feed, at, at + 1000) for at in range(0, 5000, 1000)) == BODY[:5000]
    assert [request.method for request in server.requests] == ["HEAD", "GET"]
    assert COMMIT in server.requests[1].target
    assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in server.requests)
    assert not any("authorization" in request.headers for request in cdn.requests)


def test_a_login_page_of_a_mirror_is_no_file(server: ModelServer, hosts: Hosts) -> None:
    server.hf(REPO, FILE, BODY, faults=[html().on("HEAD")])
    assert failure_of(lambda: hosts.resolve(HF)).code == SyncCode.REJECTED


def test_a_size_that_is_no_number_is_none(server: ModelServer, hosts: Hosts) -> None:
    def act(_: Request, reply: Reply) -> None:
        reply.headers["X-Linked-Size"] = "9" * 5000

    server.hf(REPO, FILE, BODY, faults=[Fault(act, methods=frozenset({"HEAD"}))])
    assert hosts.resolve(HF).size == len(BODY)


@pytest.mark.parametrize("file", ["a#b?c%20d.bin", "größe 中文.bin", " a+b&c;d .bin"])
def test_names_with_all_kinds_of_characters(server: ModelServer, hosts: Hosts, file: str) -> None:
    server.hf(REPO, file, BODY, revision="refs/pr/1")
    resolved = hosts.resolve({**HF, "file": file, "revision": "refs/pr/1"})
    assert resolved.filename == file
    assert "/resolve/refs%2Fpr%2F1/" in server.requests[0].target
    assert read(hosts.feed(resolved), 0, 9) == BODY[:9]


def test_a_signed_address_that_expired_is_asked_for_anew(server: ModelServer, cdn: ModelServer, hosts: Hosts) -> None:
    server.hf(REPO, FILE, BODY, cdn=cdn)
    feed = fed(hosts, HF)
    assert read(feed, 0, 1000) == BODY[:1000]
    cdn.expire()
    with ThreadPoolExecutor(4) as pool:
        parts = list(pool.map(lambda at: read(feed, at, at + 1000), range(1000, 9000, 1000)))
    assert b"".join(parts) == BODY[1000:9000]
    looked = [request for request in server.requests if request.method == "GET"]
    assert len(looked) == 2


def test_a_signed_address_that_never_works_says_nothing_of_the_key(
    server: ModelServer, cdn: ModelServer, hosts: Hosts
) -> None:
    server.hf(REPO, FILE, BODY, cdn=cdn, cdn_faults=[status(403)])
    failure = failure_of(lambda: read(fed(hosts, HF)))
    assert (failure.code, failure.passing, failure.expired) == (SyncCode.UNREACHABLE, True, True)


def test_the_stores_version_is_pinned_too(server: ModelServer, cdn: ModelServer, hosts: Hosts) -> None:
    server.hf(REPO, FILE, BODY, cdn=cdn, cdn_faults=[changed_etag().after(1)])
    feed = fed(hosts, HF)
    read(feed, 0, 1000)
    assert failure_of(lambda: read(feed, 1000, 2000)).code == SyncCode.CHANGED


def test_another_commit_than_the_pinned_one_is_refused(server: ModelServer, hosts: Hosts) -> None:
    server.hf(REPO, FILE, BODY, revision="a" * 40)
    assert failure_of(lambda: hosts.resolve({**HF, "revision": "a" * 40})).code == SyncCode.CHANGED
    feed = hosts.feed(Resolved({**HF, "revision": "a" * 40}, len(BODY), SHA256))
    assert failure_of(lambda: read(feed)).code == SyncCode.CHANGED


def test_a_repository_that_was_renamed_gets_the_key_again(server: ModelServer, made: Making) -> None:
    server.hf("owner/new", FILE, BODY, token=TOKEN)
    for revision in ("main", COMMIT):
        server.redirect(
            f"/hf/{REPO}/resolve/{revision}/{FILE}",
            f"/hf/owner/new/resolve/{revision}/folder/a%20model.safetensors",
            307,
        )
    feed = fed(made(HF_TOKEN=TOKEN), HF)
    assert (feed.resolved.sha256, read(feed, 0, 9)) == (SHA256, BODY[:9])


def refusing(server: ModelServer, code: int, error: str) -> None:
    fault = status(code, X_Error_Code=error, X_Error_Message=f"you sent {TOKEN}")
    server.hf(REPO, FILE, BODY, faults=[fault.on("HEAD", "GET")])


@pytest.mark.parametrize(
    ("code", "error", "key", "expected", "words"),
    [
        (401, "GatedRepo", "", SyncCode.ACCESS_DENIED, ("HF_TOKEN", f"https://huggingface.co/{REPO}", "gated")),
        (403, "GatedRepo", TOKEN, SyncCode.ACCESS_DENIED, ("HF_TOKEN", f"https://huggingface.co/{REPO}", "granted")),
        (401, "RepoNotFound", "", SyncCode.NOT_FOUND, ("HF_TOKEN", "private", REPO)),
        (404, "RepoNotFound", TOKEN, SyncCode.NOT_FOUND, ("private", REPO)),
        (404, "RevisionNotFound", "", SyncCode.NOT_FOUND, ("revision main",)),
        (404, "EntryNotFound", "", SyncCode.NOT_FOUND, (FILE,)),
        (401, "", TOKEN, SyncCode.ACCESS_DENIED, ("does not accept the key in HF_TOKEN",)),
        (500, "", "", SyncCode.UNREACHABLE, ("500",)),
    ],
)
def test_hugging_faces_refusals(
    server: ModelServer, made: Making, code: int, error: str, key: str, expected: SyncCode, words: tuple[str, ...]
) -> None:
    refusing(server, code, error)
    hosts = made(HF_TOKEN=key)
    feed = hosts.feed(Resolved(HF))
    for failure in (failure_of(lambda: hosts.resolve(HF)), failure_of(lambda: read(feed))):
        assert failure.code == expected
        assert all(word in str(failure) for word in words), str(failure)
        assert TOKEN not in str(failure)


def test_another_variable_for_the_key(server: ModelServer, made: Making) -> None:
    server.hf(REPO, FILE, BODY, token=TOKEN, gated=True)
    hosts = made(OTHER_KEY=TOKEN, HF_TOKEN="hf_wrong")
    assert hosts.resolve(HF, auth_env="OTHER_KEY").sha256 == SHA256
    failure = failure_of(lambda: hosts.resolve(HF, auth_env="UNSET_KEY"))
    assert "UNSET_KEY" in str(failure)


def test_details_are_a_courtesy(server: ModelServer, hosts: Hosts) -> None:
    server.hf(REPO, FILE, BODY)
    assert hosts.resolve(HF, details=True).license is None
    about = b'{"gated": "auto", "cardData": {"license": "openrail++"}, "sha": "x"}'
    server.file(f"/hf/api/models/{REPO}/revision/{COMMIT}", about, headers={"Content-Type": "application/json"})
    resolved = hosts.resolve(HF, details=True)
    assert (resolved.license, resolved.gated, resolved.sha256) == ("openrail++", True, SHA256)


@pytest.mark.parametrize("file", ["../../other/name/resolve/main/a", "a//b", "/a", "."])
def test_names_that_lead_elsewhere_are_refused(server: ModelServer, hosts: Hosts, file: str) -> None:
    assert failure_of(lambda: hosts.resolve({**HF, "file": file})).code == SyncCode.INVALID
    assert server.requests == []


WHOLE = safetensors(600_000)


def cache_model(root: Path, content: bytes, commit: str = COMMIT) -> Path:
    """The blob that the file lies in."""
    repo = root / f"models--{REPO.replace('/', '--')}"
    blob = repo / "blobs" / hashlib.sha256(content).hexdigest()
    blob.parent.mkdir(parents=True)
    blob.write_bytes(content)
    (repo / "refs").mkdir()
    (repo / "refs/main").write_text(commit)
    link = repo / "snapshots" / commit / FILE
    link.parent.mkdir(parents=True)
    link.symlink_to(blob)
    return blob


@pytest.mark.parametrize("inner", ["hub", ""])
@pytest.mark.parametrize("revision", [{}, {"revision": "main"}, {"revision": COMMIT}])
def test_a_model_that_runpod_cached_takes_no_network(
    server: ModelServer, tmp_path: Path, hosts: Hosts, inner: str, revision: Mapping[str, str]
) -> None:
    cache_model(tmp_path / "huggingface-cache" / inner, WHOLE)
    feed = fed(hosts, {**HF, **revision})
    sha256 = hashlib.sha256(WHOLE).hexdigest()
    assert feed.resolved == Resolved(
        {**HF, "revision": COMMIT}, len(WHOLE), sha256, filename="a model.safetensors", names_version=True
    )
    assert read(feed, 5, 500_000) == WHOLE[5:500_000]
    assert server.requests == []


@pytest.mark.parametrize(
    "content", [WHOLE[:-1], b"", b"<!DOCTYPE html><html></html>"], ids=["cut off", "empty", "a page"]
)
def test_a_cached_model_that_is_none_is_not_offered(
    server: ModelServer, tmp_path: Path, hosts: Hosts, content: bytes
) -> None:
    cache_model(tmp_path / "huggingface-cache", WHOLE).write_bytes(content)
    server.hf(REPO, FILE, WHOLE)
    feed = fed(hosts, HF)
    assert feed.resolved.size == len(WHOLE)
    assert read(feed) == WHOLE


def test_a_cached_model_that_was_not_what_was_wanted_is_passed_over(
    server: ModelServer, tmp_path: Path, hosts: Hosts
) -> None:
    cache_model(tmp_path / "huggingface-cache", WHOLE).write_bytes(WHOLE[:-1] + b"?")
    server.hf(REPO, FILE, WHOLE)
    resolved = hosts.resolve(HF)
    assert hosts.pass_over_cache(resolved)
    assert not hosts.pass_over_cache(resolved), "from then on it comes from the network"
    assert read(hosts.feed(resolved)) == read(fed(hosts, HF)) == WHOLE
    assert not hosts.pass_over_cache(Resolved(web(server.url("/x"))))


@pytest.mark.parametrize("file", ["a\0b", "x" * 5000])
def test_a_name_that_no_file_system_takes_is_not_cached(tmp_path: Path, file: str) -> None:
    cache_model(tmp_path, BODY)
    assert local.cached(tmp_path, {**HF, "file": file}) is None


def test_another_revision_is_fetched(server: ModelServer, tmp_path: Path, hosts: Hosts) -> None:
    cache_model(tmp_path / "huggingface-cache", b"old", commit="0" * 40)
    server.hf(REPO, FILE, BODY)
    assert hosts.resolve({**HF, "revision": COMMIT}).sha256 == SHA256


def test_a_link_out_of_the_cache_is_not_followed(server: ModelServer, tmp_path: Path, hosts: Hosts) -> None:
    cache_model(tmp_path / "huggingface-cache", BODY)
    link = tmp_path / "huggingface-cache/models--owner--name/snapshots" / COMMIT / FILE
    link.unlink()
    link.symlink_to("/etc/hostname")
    assert failure_of(lambda: hosts.resolve(HF)).code == SyncCode.NOT_FOUND
    assert server.requests


# Civitai.

MODEL = CivitaiFile(11, "a.safetensors", BODY + b"odd", primary=True)
CIVITAI: Source = {"kind": "civitai", "version": 99}


def test_civitai_says_what_its_api_knows(server: ModelServer, hosts: Hosts) -> None:
    server.civitai(99, [CivitaiFile(10, "vae.pt", b"odd", type="VAE"), MODEL])
    expected = Resolved(
        {**CIVITAI, "file": 11},
        len(MODEL.content),
        hashlib.sha256(MODEL.content).hexdigest(),
        filename="a.safetensors",
        format="safetensors",
        names_version=True,
        kind="Checkpoint",
    )
    assert hosts.resolve(CIVITAI) == expected
    assert len(server.requests) == 1
    assert hosts.resolve({**CIVITAI, "file": 10}).kind == "VAE"


def test_civitais_bytes_come_from_a_store_that_gets_no_key(server: ModelServer, cdn: ModelServer, made: Making) -> None:
    server.civitai(99, [MODEL], token=TOKEN, cdn=cdn)
    feed = fed(made(CIVITAI_API_KEY=TOKEN), CIVITAI)
    assert b"".join(read(feed, at, at + 1000) for at in range(0, 5000, 1000)) == BODY[:5000]
    assert all(request.headers["authorization"] == f"Bearer {TOKEN}" for request in server.requests)
    assert not any("authorization" in request.headers for request in cdn.requests)
    cdn.expire()
    assert read(feed, 5000, 6000) == BODY[5000:6000]


def test_an_address_elsewhere_that_the_api_names_gets_no_key(
    server: ModelServer, cdn: ModelServer, made: Making
) -> None:
    address = cdn.file("/a.safetensors", MODEL.content)
    about = {"files": [{"id": 11, "type": "Model", "sizeKB": len(MODEL.content) / 1024, "downloadUrl": address}]}
    server.file("/api/v1/model-versions/99", json.dumps(about).encode())
    assert read(fed(made(CIVITAI_API_KEY=TOKEN), CIVITAI), 0, 9) == BODY[:9]
    assert "authorization" in server.requests[0].headers
    assert not any("authorization" in request.headers for request in cdn.requests)


def naming(server: ModelServer, address: str) -> Source:
    """Its API says that the file is there."""
    about = {"files": [{"id": 11, "type": "Model", "sizeKB": len(MODEL.content) / 1024, "downloadUrl": address}]}
    server.file("/api/v1/model-versions/99", json.dumps(about).encode())
    return CIVITAI


def test_an_address_that_the_api_names_leads_into_no_private_network(server: ModelServer, made: Making) -> None:
    terms = Terms(QUICK, public=lambda address: str(address) == "127.0.0.2")
    inside = server.file("/latest/meta-data", MODEL.content)
    with ModelServer("127.0.0.2") as public:
        source = naming(public, inside)
        feed = fed(made(terms, MORPHEUS_CIVITAI_URL=public.origin), source)
        failure = failure_of(lambda: read(feed))
        assert (failure.code, "private address" in failure.what) == (SyncCode.REJECTED, True)
    assert server.requests == []


@pytest.mark.parametrize("address", ["ftp://x/y", "http://user:secret@127.0.0.1/y"])
def test_an_address_of_the_api_that_is_none(server: ModelServer, hosts: Hosts, address: str) -> None:
    failure = failure_of(lambda: hosts.resolve(naming(server, address)))
    assert failure.code == SyncCode.REJECTED
    assert "secret" not in str(failure)


def test_a_locked_file_of_civitai_needs_no_look_beforehand(server: ModelServer, hosts: Hosts) -> None:
    server.civitai(99, [MODEL])
    feed = hosts.feed(Resolved({**CIVITAI, "file": 11}, len(MODEL.content)))
    assert server.requests == []
    assert read(feed, 0, 9) + read(feed, 9, 18) == BODY[:18]
    assert len(server.asked_for("/api/v1/model-versions/99")) == 1


@pytest.mark.parametrize("login_page", [False, True])
@pytest.mark.parametrize("key", ["", "wrong"])
def test_civitai_asks_for_a_login(server: ModelServer, made: Making, login_page: bool, key: str) -> None:
    server.civitai(99, [MODEL], token=TOKEN, login_page=login_page)
    feed = fed(made(CIVITAI_API_KEY=key), CIVITAI)
    failure = failure_of(lambda: read(feed))
    assert (failure.code, failure.passing) == (SyncCode.ACCESS_DENIED, False)
    assert "CIVITAI_API_KEY" in str(failure)
    assert "https://civitai.com/user/account" in str(failure)


def test_what_the_api_leaves_open_stays_open(server: ModelServer, hosts: Hosts) -> None:
    bare = {"id": 11, "name": None, "hashes": None, "metadata": None, "primary": None, "sizeKB": None}
    server.file("/api/v1/model-versions/99", json.dumps({"files": [bare], "model": None}).encode())
    assert hosts.resolve(CIVITAI) == Resolved({**CIVITAI, "file": 11})


def test_which_of_several_files(server: ModelServer, hosts: Hosts) -> None:
    pruned = CivitaiFile(12, "pruned.safetensors", BODY + b"p")
    full = CivitaiFile(13, "full.ckpt", BODY + b"f", format="PickleTensor", fp="fp32")
    server.civitai(99, [pruned, full])
    failure = failure_of(lambda: hosts.resolve(CIVITAI))
    assert failure.code == SyncCode.INVALID
    assert "12 pruned.safetensors (Model, SafeTensor, fp16, pruned)" in str(failure)
    assert "13 full.ckpt (Model, PickleTensor, fp32" in str(failure)
    resolved = hosts.resolve({**CIVITAI, "file": 13})
    assert (resolved.format, resolved.size) == ("pickle", len(full.content))
    assert failure_of(lambda: hosts.resolve({**CIVITAI, "file": 14})).code == SyncCode.NOT_FOUND
    server.civitai(98, [pruned, CivitaiFile(14, "vae.pt", b"x", type="VAE")])
    assert hosts.resolve({"kind": "civitai", "version": 98}).source["file"] == 12


def test_a_size_that_may_be_rounded_is_measured(server: ModelServer, hosts: Hosts) -> None:
    server.civitai(99, [CivitaiFile(11, "a.safetensors", BODY)])
    assert hosts.resolve(CIVITAI).size == len(BODY)
    assert server.bytes_sent < 2000
    assert len(server.requests) == 3


def test_a_size_that_may_be_rounded_and_cannot_be_measured_is_none(server: ModelServer, hosts: Hosts) -> None:
    server.civitai(99, [CivitaiFile(11, "a.safetensors", BODY)], token=TOKEN)
    resolved = hosts.resolve(CIVITAI)
    assert (resolved.size, resolved.sha256) == (None, SHA256)


def test_a_version_that_is_not_there(server: ModelServer, hosts: Hosts) -> None:
    failure = failure_of(lambda: hosts.resolve(CIVITAI))
    assert (failure.code, failure.hint) == (SyncCode.NOT_FOUND, "give the version's number, not the model's")
    server.file("/api/v1/model-versions/99", b'{"files": [{"id": "no number"}]}')
    failure = failure_of(lambda: hosts.resolve(CIVITAI))
    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, True)


# Files of this machine, and buckets.


def test_a_file_of_this_machine(hosts: Hosts, tmp_path: Path) -> None:
    path = tmp_path / "a.safetensors"
    path.write_bytes(BODY)
    source = {"kind": "file", "path": str(path)}
    feed = fed(hosts, source)
    assert (feed.resolved.size, feed.resolved.filename, feed.shown) == (len(BODY), path.name, str(path))
    assert read(feed) == BODY
    assert read(feed, 7, 500_007) == BODY[7:500_007]
    path.write_bytes(BODY + b"more")
    assert failure_of(lambda: read(feed)).code == SyncCode.CHANGED
    path.unlink()
    assert failure_of(lambda: read(feed)).code == SyncCode.NOT_FOUND
    assert failure_of(lambda: hosts.resolve(source)).code == SyncCode.NOT_FOUND
    assert failure_of(lambda: hosts.resolve({**source, "path": str(tmp_path)})).code == SyncCode.REJECTED


def test_names_of_buckets_are_handed_on(server: ModelServer, tmp_path: Path) -> None:
    class Store:
        """A bucket that holds one file of this machine."""

        def resolve(self, uri: str) -> Resolved:
            return Resolved({"kind": "s3", "uri": uri}, 3)

        def feed(self, resolved: Resolved) -> Feed:
            (tmp_path / "x").write_bytes(b"abc")
            with Hosts.of(settings_of(server, tmp_path)) as own:
                return own.feed(Resolved({"kind": "file", "path": str(tmp_path / "x")}))

    with Hosts.of(settings_of(server, tmp_path), buckets=Store()) as hosts:
        assert read(fed(hosts, {"kind": "s3", "uri": "s3://bucket/key"})) == b"abc"
        assert failure_of(lambda: hosts.resolve({"kind": "ftp"})).code == SyncCode.INVALID


# TLS.


@pytest.fixture(scope="module")
def pem(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A key and a certificate for 127.0.0.1 that signs itself."""
    path = tmp_path_factory.mktemp("tls") / "both.pem"
    names = "subjectAltName=IP:127.0.0.1"
    making = ["openssl", "req", "-x509", "-newkey", "rsa:2048", "-nodes", "-days", "2", "-subj", "/CN=x"]
    subprocess.run(
        [*making, "-addext", names, "-keyout", str(path), "-out", f"{path}.crt"], check=True, capture_output=True
    )
    path.write_bytes(path.read_bytes() + Path(f"{path}.crt").read_bytes())
    return path


@pytest.fixture
def secure(pem: Path) -> Iterator[ModelServer]:
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(pem)
    with ModelServer(tls=context) as running:
        yield running


def test_over_tls(secure: ModelServer, server: ModelServer, made: Making, pem: Path) -> None:
    hosts = made(Terms(QUICK, tls=lambda: ssl.create_default_context(cafile=str(pem))))
    feed = fed(hosts, web(secure.file("/a.bin", BODY, faults=[throttled(20e6).first(1)])))
    assert read(feed, 3, 900_000) == BODY[3:900_000]
    assert read(feed) == BODY
    assert secure.connections == 1
    for fault, said in ((stalled(1000), "stopped sending"), (truncated(1000), "cut the connection")):
        feed = fed(hosts, web(secure.file("/b.bin", BODY, faults=[fault])))
        failure = failure_of(lambda feed=feed: read(feed))  # type: ignore[misc]
        assert failure.passing
        assert said in failure.what
    secure.redirect("/down", server.file("/plain.bin", BODY))
    assert "leaves https" in str(failure_of(lambda: hosts.resolve(web(secure.url("/down")))))


def test_a_certificate_that_nobody_vouches_for(secure: ModelServer, made: Making) -> None:
    failure = failure_of(lambda: made(Terms(QUICK)).resolve(web(secure.file("/a.bin", BODY))))
    assert (failure.code, failure.passing) == (SyncCode.UNREACHABLE, False)
    assert "certificate" in failure.what


def test_plain_http_where_tls_was_expected(server: ModelServer, made: Making) -> None:
    url = server.file("/a.bin", BODY).replace("http://", "https://")
    assert failure_of(lambda: made(Terms(QUICK)).resolve(web(url))).code == SyncCode.UNREACHABLE


# Nothing leaks.


def test_no_key_and_no_signature_is_ever_told(
    server: ModelServer, cdn: ModelServer, made: Making, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level(logging.DEBUG)
    hosts = made(Terms(QUICK), HF_TOKEN=TOKEN, CIVITAI_API_KEY=TOKEN, MY_KEY=TOKEN)
    told: list[str] = []
    echo = {"X_Error_Message": TOKEN, "WWW_Authenticate": TOKEN, "X_Error_Code": TOKEN}
    faults = [
        *(status(code, TOKEN.encode(), **echo) for code in (400, 401, 403, 404, 416, 429, 500)),
        *(stalled(9), truncated(9), html(TOKEN), wrong_content_range(TOKEN), changed_etag(f'"{TOKEN}"')),
        *(raw(f"{TOKEN}\r\n\r\n".encode()), redirect(f"ftp://{TOKEN}.example/{TOKEN}"), redirect(f"//{TOKEN}@x/")),
    ]
    for number, fault in enumerate(faults):
        at = f"/{number}.bin"
        query = "?X-Amz-Signature=theSignature"
        source = web(cdn.file(at, BODY, token=TOKEN, faults=[fault.on("GET", "HEAD").after(1)]) + query)
        resolved = hosts.resolve(source, auth_env="MY_KEY")
        feed = hosts.feed(resolved, auth_env="MY_KEY")
        told += [feed.shown, _all_of(lambda feed=feed: read(feed, 0, 9))]  # type: ignore[misc]
        told.append(_all_of(lambda source=source: hosts.resolve(source, auth_env="MY_KEY")))  # type: ignore[misc]
        away = server.redirect(f"/to{at}", f"{cdn.url(at)}?X-Amz-Signature=theSignature")
        told.append(_all_of(lambda away=away: hosts.resolve(web(away), auth_env="MY_KEY")))  # type: ignore[misc]
        server.hf(REPO, f"{number}.bin", BODY, token=TOKEN, cdn=cdn, cdn_faults=[fault])
        told.append(_all_of(lambda at=at: read(hosts.feed(Resolved({**HF, "file": at[1:]})), 0, 9)))  # type: ignore[misc]
    assert len([text for text in told if "SyncError" in text]) > 3 * len(faults)
    everything = "\n".join([*told, *(str(record.__dict__) for record in caplog.records)])
    assert TOKEN not in everything
    assert "ignature" not in everything


def _all_of(action: Callable[[], object]) -> str:
    """Everything that a log of the failure could show, if it is one."""
    try:
        action()
    except SyncError as failure:
        return f"{failure!r} {failure} {failure.__dict__} {''.join(traceback.format_exception(failure))}"
    return ""
