"""Media by URL: from servers that behave and those that do not, over real sockets. Nothing is ever left behind."""

from __future__ import annotations

import datetime
import gzip
import ipaddress
import os
import resource
import socket
import ssl
import threading
import tracemalloc
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from email.utils import format_datetime
from pathlib import Path

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from morpheus_worker.addresses import Address, PrivateHosts
from morpheus_worker.deadlines import Allowance, Deadline
from morpheus_worker.errors import Code, MediaRefusedError, MorpheusError
from morpheus_worker.fetching import Fetched, Lookup, Pace, Remote, fetch_all, looked_up

from .media_server import (
    WAIT_S,
    Exchange,
    MediaServer,
    Play,
    content,
    cut_chunked,
    dribble,
    endless,
    head,
    held,
    never,
    raw,
    redirect,
    reset,
    sized,
    stalled,
    status,
    truncated,
)

Outcome = Fetched | MediaRefusedError

LOOPBACK = PrivateHosts.of(["127.0.0.1", "::1"])
BODY = b"a picture, let us say" * 1000
MOST = 1024 * 1024
PLAY_S = 60.0
"""A deadline that no test reaches."""

QUICK = Pace(first_wait_s=0.01)
"""Patient, but quick to try again."""

# Impatient with one thing each.
CONNECTED_SOON = Pace(connect_s=0.3, first_wait_s=0.01)
ANSWERED_SOON = Pace(answer_s=0.3)
NEVER_STALLED = Pace(stall_s=0.3)
NEVER_SLOW = Pace(slow_window_s=0.4, slow_bytes_per_s=1000)


def sockets_open() -> set[str]:
    """Sockets of this process, by the kernel's own number. Those of a test before this one may be closed meanwhile."""
    entries = [Path("/proc/self/fd", fd) for fd in os.listdir("/proc/self/fd")]
    named = [str(entry.readlink()) for entry in entries if entry.is_symlink()]
    return {name for name in named if name.startswith("socket:")}


@pytest.fixture(autouse=True)
def folder(tmp_path: Path) -> Iterator[Path]:
    """Where media go. Afterwards nothing is in it, and no socket is open that was not before."""
    before = sockets_open()
    made = tmp_path / "staged"
    made.mkdir()
    yield made
    assert list(made.iterdir()) == []
    assert sockets_open() <= before


@pytest.fixture
def server(folder: Path) -> Iterator[MediaServer]:
    with MediaServer() as running:
        yield running
        running.wait_until_left()


@dataclass
class Client:
    """Fetches as a job would, and takes away what it got."""

    folder: Path
    bodies: list[bytes] = field(default_factory=list)

    def fetch(
        self,
        *urls: str,
        max_bytes: int = MOST,
        timeout_s: float = PLAY_S,
        allowance: Allowance | None = None,
        pace: Pace = QUICK,
        private_hosts: PrivateHosts = LOOPBACK,
        lookup: Lookup = looked_up,
        tls: ssl.SSLContext | None = None,
    ) -> list[Outcome]:
        remotes = [Remote(url, self.folder / f"medium-{number}", max_bytes) for number, url in enumerate(urls)]
        outcomes = fetch_all(
            remotes,
            private_hosts=private_hosts,
            timeout_s=timeout_s,
            allowance=allowance or Allowance.of(PLAY_S),
            pace=pace,
            lookup=lookup,
            tls=tls,
        )
        arrived = [
            remote.target for remote, outcome in zip(remotes, outcomes, strict=True) if isinstance(outcome, Fetched)
        ]
        self.bodies = [target.read_bytes() for target in arrived]
        for target in arrived:
            target.unlink()
        return outcomes

    def has(self, url: str, **terms: object) -> Fetched:
        (outcome,) = self.fetch(url, **terms)  # type: ignore[arg-type]
        assert isinstance(outcome, Fetched), outcome
        return outcome

    def unreachable(self, url: str, *said: str, retryable: bool, **terms: object) -> None:
        self._refused(url, Code.INPUT_UNREACHABLE, retryable, said, terms)

    def rejected(self, url: str, *said: str, **terms: object) -> None:
        self._refused(url, Code.INPUT_REJECTED, False, said, terms)

    def _refused(self, url: str, code: Code, retryable: bool, said: Sequence[str], terms: dict[str, object]) -> None:
        (outcome,) = self.fetch(url, **terms)  # type: ignore[arg-type]
        assert isinstance(outcome, MediaRefusedError), outcome
        assert (outcome.code, outcome.retryable) == (code, retryable), outcome.what
        # Whoever logs it, with what led to it, logs no secret.
        assert (outcome.__context__, outcome.__traceback__) == (None, None)
        whole = f"{outcome.what} ({outcome.hint})"
        assert [part for part in said if part not in whole] == [], whole
        assert "secret" not in whole


@pytest.fixture
def client(folder: Path) -> Client:
    return Client(folder)


@dataclass
class Names:
    """A lookup that knows some hosts. The answers of a name are given one after the other, the last one for ever."""

    answers: dict[str, list[list[str]]]
    asked: list[str] = field(default_factory=list)

    def __call__(self, host: str, port: int) -> list[Address]:
        self.asked.append(host)
        if not (answers := self.answers.get(host)):
            raise socket.gaierror(socket.EAI_NONAME, "Name or service not known")
        found = answers.pop(0) if len(answers) > 1 else answers[0]
        return [ipaddress.ip_address(text) for text in found]


# --- what arrives


def test_a_medium_arrives_whole(server: MediaServer, client: Client) -> None:
    url = server.serve("/a/picture.png", content(BODY, Content_Type="Image/PNG; charset=binary"))
    assert client.has(url) == Fetched(len(BODY), "picture.png", "image/png")
    assert client.bodies == [BODY]


def test_an_answer_without_a_length_arrives_whole(server: MediaServer, client: Client) -> None:
    chunks = b"".join(b"%x\r\n%s\r\n" % (len(part), part) for part in (BODY, b"!", BODY, b""))
    url = server.serve("/chunked", raw(head("200 OK", {"Transfer-Encoding": "chunked"}) + chunks))
    assert client.has(url) == Fetched(2 * len(BODY) + 1, "chunked", None)
    assert client.bodies == [BODY + b"!" + BODY]
    assert client.has(server.serve("/old", raw(b"HTTP/1.0 200 OK\r\n\r\n" + BODY))).size == len(BODY)
    assert client.bodies == [BODY]


def test_a_page_or_nothing_is_fetched_like_a_picture(server: MediaServer, client: Client) -> None:
    """What it is, is for whoever asked for a picture to find out."""
    assert client.has(server.serve("/x.png", status(200))) == Fetched(4, "x.png", "text/html")
    assert client.has(server.serve("/y.png", content(b""))) == Fetched(0, "y.png", None)


def test_the_request_says_what_it_takes_and_nothing_else(server: MediaServer, client: Client) -> None:
    target = "/a%2Fb/../c?X-Amz-Signature=0%2fA%2B+b&c=%26"
    client.has(server.serve("/a%2Fb/../c", content(BODY)).removesuffix("/a%2Fb/../c") + target + "#part")
    (request,) = server.requests
    assert request.target == target
    assert request.headers["accept-encoding"] == "identity"
    assert request.headers["host"] == f"127.0.0.1:{server.port}"
    assert not {"cookie", "authorization", "referer"} & set(request.headers)


def test_no_cookie_goes_from_one_hop_to_the_next(server: MediaServer, client: Client) -> None:
    server.serve("/b", content(BODY))
    leading = raw(head("302 There", {"Location": "/b", "Set-Cookie": "a=b; Path=/", "Content-Length": 0}))
    client.has(server.serve("/a", leading))
    assert ["cookie" in request.headers for request in server.requests] == [False, False]


def test_the_environment_s_proxy_is_not_asked(
    server: MediaServer, client: Client, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("http_proxy", "http://127.0.0.1:9")
    assert client.has(server.serve("/x", content(BODY))).size == len(BODY)


@pytest.mark.parametrize(
    ("disposition", "filename"),
    [
        ('attachment; filename="a b.png"', "a b.png"),
        ("attachment; filename=a.png", "a.png"),
        ("attachment; filename*=UTF-8''%e2%82%ac%20rates.png", "€ rates.png"),
        ("attachment; filename=\"fallback.png\"; filename*=UTF-8''%c3%a9.png", "é.png"),
        ('attachment; FileName="../../etc/passwd"', "../../etc/passwd"),
        ('attachment; filename="é.png"', "é.png"),
        ('attachment; filename="\udcff.png"', "\ufffd.png"),
        ("attachment", "x.png"),
        ('attachment; filename=""', "x.png"),
        ("attachment; filename*=nonsense''%41.png", "A.png"),
        (";;=;", "x.png"),
    ],
)
def test_the_sender_names_the_file(server: MediaServer, client: Client, disposition: str, filename: str) -> None:
    url = server.serve("/x.png", content(BODY, Content_Disposition=disposition))
    assert client.has(url).filename == filename


@pytest.mark.parametrize(("second", "filename"), [("/b/there.png", "there.png"), ("/b/", "here.png")])
def test_after_a_redirect_the_last_url_names_the_file(
    server: MediaServer, client: Client, second: str, filename: str
) -> None:
    server.serve(second, content(BODY))
    assert client.has(server.serve("/a/here.png", redirect(second))).filename == filename


def test_several_arrive_in_their_order_and_one_refusal_is_one(server: MediaServer, client: Client) -> None:
    late = threading.Event()

    def last(exchange: Exchange) -> None:
        content(b"second")(exchange)
        late.set()

    urls = [
        server.serve("/first", held(late, content(b"first"))),
        server.serve("/missing", status(404)),
        server.serve("/second", last),
    ]
    first, missing, second = client.fetch(*urls)
    assert (first, second) == (Fetched(5, "first", None), Fetched(6, "second", None))
    assert isinstance(missing, MediaRefusedError)
    assert client.bodies == [b"first", b"second"]


def test_nothing_to_fetch_is_no_work(client: Client) -> None:
    assert client.fetch() == []


def test_eight_are_fetched_at_once_and_no_more(server: MediaServer, client: Client) -> None:
    changed, now, most = threading.Condition(), 0, 0

    def counted(exchange: Exchange) -> None:
        nonlocal now, most
        with changed:
            now, most = now + 1, max(most, now + 1)
            changed.notify_all()
            assert changed.wait_for(lambda: most >= 8, WAIT_S)
            now -= 1
        content(BODY)(exchange)

    outcomes = client.fetch(*(server.serve(f"/{number}", counted) for number in range(20)))
    assert [isinstance(outcome, Fetched) for outcome in outcomes] == [True] * 20
    assert most == 8


def test_memory_stays_flat(server: MediaServer, client: Client, folder: Path) -> None:
    """A large file is never in memory; `client.fetch` would read it."""
    url, size = server.serve("/large", sized(64 * MOST)), 64 * MOST
    target = folder / "large"
    tracemalloc.start()
    try:
        outcomes = fetch_all(
            [Remote(url, target, size)], private_hosts=LOOPBACK, timeout_s=PLAY_S, allowance=Allowance.of(PLAY_S)
        )
        _, peak = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert outcomes == [Fetched(size, "large", None)]
    assert target.stat().st_size == size
    target.unlink()
    assert peak < 8 * MOST


# --- what is not there


@pytest.mark.parametrize(
    ("code", "said"),
    [
        (404, "404 (Not Found)"),
        (403, "expired"),
        (401, "login"),
        (410, "410"),
        (400, "400"),
        (418, "418"),
        (499, "499"),
    ],
)
def test_an_answer_that_says_no_is_believed(server: MediaServer, client: Client, code: int, said: str) -> None:
    url = server.serve("/a/x.png", status(code))
    client.unreachable(url + "?sig=secret#secret", f"{url} answered", said, retryable=False)
    assert len(server.requests) == 1


@pytest.mark.parametrize("code", [204, 206, 304, 300])
def test_an_answer_that_is_not_the_whole_medium_is_none(server: MediaServer, client: Client, code: int) -> None:
    client.unreachable(server.serve("/x", raw(head(f"{code} So", {}))), str(code), retryable=False)


@pytest.mark.parametrize("code", [500, 502, 503, 429, 408])
def test_what_may_pass_is_tried_again(server: MediaServer, client: Client, code: int) -> None:
    url = server.serve("/x", status(code), status(code), content(BODY))
    assert client.has(url).size == len(BODY)
    assert len(server.requests) == 3


def test_three_tries_are_enough(server: MediaServer, client: Client) -> None:
    url = server.serve("/x", status(503))
    client.unreachable(url, f"{url} answered 503 (Service Unavailable)", retryable=True)
    assert len(server.requests) == 3


def in_an_hour() -> str:
    return format_datetime(datetime.datetime.now(datetime.UTC) + datetime.timedelta(hours=1), usegmt=True)


@pytest.mark.parametrize("after", ["3600", in_an_hour()])
def test_a_sender_that_wants_to_be_left_alone_is(server: MediaServer, client: Client, after: str) -> None:
    url = server.serve("/x", status(429, Retry_After=after))
    client.unreachable(url, "429", "come back in 3", retryable=True)
    assert len(server.requests) == 1


@pytest.mark.parametrize("after", ["0", "soon", "-1", "Thu, 01 Jan 1970 00:00:00 GMT", "²"])
def test_a_wait_that_is_none_is_none(server: MediaServer, client: Client, after: str) -> None:
    client.has(server.serve("/x", status(503, Retry_After=after), content(BODY)))


def test_a_wait_that_is_asked_for_is_waited(server: MediaServer, client: Client) -> None:
    url = server.serve("/x", status(503, Retry_After="9"), content(BODY))
    client.unreachable(url, "did not arrive within 0.3 s", retryable=True, timeout_s=0.3)
    assert len(server.requests) == 1


@pytest.mark.parametrize(
    "play",
    [
        reset,
        raw(b""),
        truncated(BODY, said=len(BODY) + 1),
        cut_chunked,
    ],
    ids=["reset", "hung up", "truncated", "cut chunked"],
)
def test_a_cut_connection_is_tried_again_and_never_a_short_file(
    server: MediaServer, client: Client, play: Play
) -> None:
    assert client.has(server.serve("/x", play, content(BODY))).size == len(BODY)
    assert client.bodies == [BODY]
    url = server.serve("/y", play)
    client.unreachable(url, f"{url} cut the connection", retryable=True)
    # The HTTP client asks a second time by itself where nothing at all came back.
    assert server.asked_for("/y") in (3, 6)


def test_a_broken_chunk_is_never_a_short_file(server: MediaServer, client: Client) -> None:
    broken = raw(head("200 OK", {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\nnonsense")
    (outcome,) = client.fetch(server.serve("/x", broken))
    assert isinstance(outcome, MediaRefusedError)
    assert outcome.code == Code.INPUT_UNREACHABLE


@pytest.mark.parametrize(
    "data",
    [b"SSH-2.0-OpenSSH_9.2\r\n", b"HTTP/1.1 abc\r\n\r\n", b"HTTP/1.1 200 OK\r\nContent-Length: x\r\n\r\n"],
)
def test_what_is_not_http_is_said(server: MediaServer, client: Client, data: bytes) -> None:
    client.unreachable(server.serve("/x", raw(data)), "did not answer in HTTP", retryable=False)


def test_a_header_without_an_end_is_not_read_for_ever(server: MediaServer, client: Client) -> None:
    client.unreachable(
        server.serve("/x", raw(b"HTTP/1.1 200 OK\r\nX: " + b"x" * MOST)), "did not answer in HTTP", retryable=False
    )


def test_a_refused_connection_is_tried_again(client: Client) -> None:
    with socket.create_server(("127.0.0.1", 0)) as placeholder:
        port = placeholder.getsockname()[1]
    url = f"http://127.0.0.1:{port}/x"
    client.unreachable(url + "?secret", f"{url} takes no connection", "refused", retryable=True)


def test_a_host_that_does_not_exist_is_said_at_once(client: Client) -> None:
    names = Names({})
    url = "http://nowhere.example/x"
    client.unreachable(url, f"{url} has a host that does not exist", retryable=False, lookup=names)
    assert names.asked == ["nowhere.example"]


def test_a_name_server_that_is_away_is_asked_again(server: MediaServer, client: Client) -> None:
    failures = [socket.gaierror(socket.EAI_AGAIN, "Temporary failure in name resolution")]

    def lookup(host: str, port: int) -> list[Address]:
        if failures:
            raise failures.pop()
        return [ipaddress.ip_address("127.0.0.1")]

    server.serve("/x", content(BODY))
    assert client.has(f"http://media.example:{server.port}/x", lookup=lookup).size == len(BODY)


# --- what takes too long


def test_a_sender_that_never_answers_is_left(server: MediaServer, client: Client) -> None:
    url = server.serve("/x", never)
    client.unreachable(url, f"{url} did not answer within 0.3 s", retryable=True, pace=ANSWERED_SOON)
    assert len(server.requests) == 1


def test_headers_a_byte_at_a_time_are_no_answer(server: MediaServer, client: Client) -> None:
    url = server.serve("/x", dribble(0.01, first=b"HTTP/1.1 200 OK\r\nX: "))
    client.unreachable(url, "did not answer within", retryable=True, pace=ANSWERED_SOON)


def test_a_sender_that_stalls_is_left(server: MediaServer, client: Client) -> None:
    client.unreachable(server.serve("/x", stalled), "stopped sending for 0.3 s", retryable=True, pace=NEVER_STALLED)
    assert len(server.requests) == 1


def test_a_sender_that_sends_a_byte_at_a_time_is_left(server: MediaServer, client: Client) -> None:
    client.unreachable(
        server.serve("/x", dribble(0.02)), "sends less than 1000 bytes a second", retryable=True, pace=NEVER_SLOW
    )


def test_a_medium_has_its_own_deadline(server: MediaServer, client: Client) -> None:
    client.unreachable(server.serve("/x", dribble(0.02)), "did not arrive within 0.3 s", retryable=True, timeout_s=0.3)


def test_waiting_to_try_again_ends_with_the_medium_s_deadline(server: MediaServer, client: Client) -> None:
    pace = Pace(first_wait_s=PLAY_S, longest_wait_s=PLAY_S)
    client.unreachable(server.serve("/x", status(500)), "within 0.3 s", retryable=True, timeout_s=0.3, pace=pace)


def test_a_medium_that_waits_for_its_turn_does_not_use_up_its_time(server: MediaServer, client: Client) -> None:
    """The first eight take all of it, and the ninth has its own."""
    slow = [server.serve(f"/{number}", never) for number in range(8)]
    outcomes = client.fetch(*slow, server.serve("/x", content(BODY)), timeout_s=1.0)
    assert [isinstance(outcome, Fetched) for outcome in outcomes] == [False] * 8 + [True]


def test_a_host_that_takes_no_connection_is_tried_again(client: Client) -> None:
    """A full queue of connections drops the next one's first packet, as a firewall does."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full:
        address = full.getsockname()
        waiting = [socket.socket() for _ in range(4)]
        try:
            for sock in waiting:
                sock.setblocking(False)
                sock.connect_ex(address)
            said = "took no connection within 0.3 s"
            client.unreachable(f"http://127.0.0.1:{address[1]}/x", said, retryable=True, pace=CONNECTED_SOON)
        finally:
            for sock in waiting:
                sock.close()


class Hanging:
    """A name server that does not answer until it is let go."""

    def __init__(self) -> None:
        self.begun, self.let_go = threading.Event(), threading.Event()
        self.threads: list[threading.Thread] = []

    def __call__(self, host: str, port: int) -> list[Address]:
        self.threads.append(threading.current_thread())
        self.begun.set()
        self.let_go.wait(PLAY_S)
        return []


@pytest.fixture
def hanging(caplog: pytest.LogCaptureFixture) -> Iterator[Hanging]:
    lookup = Hanging()
    yield lookup
    assert not lookup.let_go.is_set()
    lookup.let_go.set()
    for thread in lookup.threads:
        thread.join()
    assert caplog.records == [], "an answer that comes too late disturbs nobody"


def test_a_hanging_lookup_is_not_waited_for(client: Client, hanging: Hanging) -> None:
    said = "could not be looked up within 0.3 s"
    client.unreachable("http://media.example/x", said, retryable=True, lookup=hanging, pace=CONNECTED_SOON)
    assert len(hanging.threads) == 3


def test_a_cancel_does_not_wait_for_a_hanging_lookup(client: Client, hanging: Hanging) -> None:
    with pytest.raises(MorpheusError) as caught, cancelled_once(hanging.begun) as allowance:
        client.fetch("http://media.example/x", lookup=hanging, allowance=allowance)
    assert caught.value.code == Code.CANCELLED


# --- what is too large, or not as it is


@pytest.mark.parametrize("size", [10 * 1024**3, MOST + 1])
def test_a_medium_that_says_it_is_too_large_is_not_read(server: MediaServer, client: Client, size: int) -> None:
    url = server.serve("/x", raw(head("200 OK", {"Content-Length": size})))
    client.rejected(url, f"{url} has {size} bytes, more than the {MOST} allowed")
    assert len(server.requests) == 1


def test_a_medium_of_exactly_the_limit_is_taken(server: MediaServer, client: Client) -> None:
    assert client.has(server.serve("/x", sized(MOST))).size == MOST


def test_a_medium_without_an_end_is_read_to_the_limit(server: MediaServer, client: Client) -> None:
    url = server.serve("/x", endless)
    client.rejected(url, f"{url} has more than the {MOST} bytes allowed")


@pytest.mark.parametrize("encoding", ["gzip", "br", "GZIP", "identity, gzip", "x" * 4000])
def test_encoded_content_is_refused(server: MediaServer, client: Client, encoding: str) -> None:
    """A few bytes of it may be gigabytes."""
    url = server.serve("/x", content(gzip.compress(bytes(MOST)), Content_Encoding=encoding))
    client.rejected(url, "encoded", encoding[:20].lower())


def test_content_that_says_it_is_plain_is_taken(server: MediaServer, client: Client) -> None:
    assert client.has(server.serve("/x", content(BODY, Content_Encoding="identity"))).size == len(BODY)


def test_a_file_that_is_compressed_itself_stays_so(server: MediaServer, client: Client) -> None:
    packed = gzip.compress(BODY)
    client.has(server.serve("/x.gz", content(packed, Content_Type="application/gzip")))
    assert client.bodies == [packed]


# --- where it leads


def local_names() -> Names:
    """Which resolvers know the one with the dot differs from machine to machine."""
    return Names({"localhost": [["127.0.0.1"]], "localhost.": [["127.0.0.1", "::1"]]})


@pytest.mark.parametrize(
    "host",
    [
        *("127.0.0.1", "127.0.0.1.", "2130706433", "0x7f.1", "0177.0.0.1", "127.1", "0", "0.0.0.0", "localhost"),
        *("localhost.", "LOCALHOST", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[::ffff:7f00:1]", "[64:ff9b::7f00:1]"),
        *("127。0。0。1", "①②⑦.0.0.1", "169.254.169.254", "10.0.0.1", "[fd00:ec2::254]", "[fe80::1]"),
    ],
)
def test_a_private_host_is_refused_in_every_spelling(server: MediaServer, client: Client, host: str) -> None:
    server.serve("/x", content(BODY))
    url = f"http://{host}:{server.port}/x"
    said = ("leads to a private address", "MORPHEUS_MEDIA_PRIVATE_HOSTS")
    client.rejected(url, *said, private_hosts=PrivateHosts(), lookup=local_names())
    assert server.requests == []


@pytest.mark.parametrize("host", ["127.0.0.1", "2130706433", "0x7f.1", "localhost.", "LOCALHOST"])
def test_a_private_host_that_is_open_is_reached_in_every_spelling(
    server: MediaServer, client: Client, host: str
) -> None:
    server.serve("/x", content(BODY))
    assert client.has(f"http://{host}:{server.port}/x", lookup=local_names()).size == len(BODY)


def test_the_machine_s_own_resolver_is_asked(server: MediaServer, client: Client) -> None:
    server.serve("/x", content(BODY))
    url = f"http://localhost:{server.port}/x"
    client.rejected(url, "leads to a private address", private_hosts=PrivateHosts())
    assert client.has(url).size == len(BODY)


def test_a_host_is_open_by_its_name(server: MediaServer, client: Client) -> None:
    names = Names({"minio": [["127.0.0.1"]], "other": [["127.0.0.1"]]})
    server.serve("/x", content(BODY))
    only_minio = PrivateHosts.of(["minio"])
    client.has(f"http://MinIO:{server.port}/x", lookup=names, private_hosts=only_minio)
    assert server.requests[0].headers["host"] == f"minio:{server.port}"
    client.rejected(f"http://other:{server.port}/x", "private", lookup=names, private_hosts=only_minio)


def test_ipv6_is_spoken(client: Client) -> None:
    with MediaServer("::1") as server:
        assert client.has(server.serve("/x", content(BODY))).size == len(BODY)
        names = Names({"media.example": [["::1"]]})
        assert client.has(f"http://media.example:{server.port}/x", lookup=names).size == len(BODY)
        assert [request.to for request in server.requests] == ["::1", "::1"]
        server.wait_until_left()


@pytest.mark.parametrize("found", [["127.0.0.2", "127.0.0.1"], ["127.0.0.1", "127.0.0.2"]])
def test_of_a_name_with_several_addresses_only_those_allowed_are_reached(client: Client, found: list[str]) -> None:
    """127.0.0.2 stands for a private address, 127.0.0.1 for a public one."""
    with MediaServer("127.0.0.1", "127.0.0.2") as server:
        server.serve("/x", content(BODY))
        client.has(f"http://media.example:{server.port}/x", lookup=Names({"media.example": [found]}))
        assert [request.to for request in server.requests] == ["127.0.0.1"]


def test_the_next_address_is_tried_when_one_takes_no_connection(server: MediaServer, client: Client) -> None:
    names = Names({"media.example": [["::1", "127.0.0.1"]]})
    server.serve("/x", content(BODY))
    client.has(f"http://media.example:{server.port}/x", lookup=names)
    assert names.asked == ["media.example"]


def test_a_name_is_looked_up_once_and_what_was_checked_is_connected_to(client: Client) -> None:
    """A name that is public when it is checked and private when it is used (DNS rebinding) finds no second lookup."""
    with MediaServer("127.0.0.1", "127.0.0.2") as server:
        server.serve("/x", content(BODY))
        names = Names({"rebinding.example": [["127.0.0.1"], ["127.0.0.2"]]})
        client.has(f"http://rebinding.example:{server.port}/x", lookup=names)
        assert names.asked == ["rebinding.example"]
        assert [request.to for request in server.requests] == ["127.0.0.1"]


def test_what_is_looked_up_again_is_checked_again(client: Client) -> None:
    """For another try, or another hop."""
    with MediaServer("127.0.0.1", "127.0.0.2") as server:
        url = f"http://rebinding.example:{server.port}"
        server.serve("/again", status(503))
        server.serve("/hop", redirect("/x"))
        for path in ("/again", "/hop"):
            names = Names({"rebinding.example": [["127.0.0.1"], ["127.0.0.2"]]})
            client.rejected(url + path, "leads to a private address", lookup=names)
        assert [request.to for request in server.requests] == ["127.0.0.1", "127.0.0.1"]


@pytest.mark.parametrize(
    ("url", "said"),
    [
        ("http://user:secret@127.0.0.1/x", "user name"),
        ("ftp://127.0.0.1/x", "'ftp'"),
        ("http:///x", "no host"),
        ("http://127.0.0.1:99999/", "port"),
        ("http://127.0.0.1/\r\nX: secret", "control character"),
        ("http://127.0.0.1/" + "x" * 9000, "more than the 8192"),
    ],
)
def test_a_bad_url_is_refused(client: Client, url: str, said: str) -> None:
    client.rejected(url, "is a URL that cannot be fetched: ", said)


# --- redirects


@pytest.mark.parametrize("code", [301, 302, 303, 307, 308])
def test_a_redirect_is_followed(server: MediaServer, client: Client, code: int) -> None:
    server.serve("/b", content(BODY))
    assert client.has(server.serve("/a", redirect("/b?secret", code))).size == len(BODY)


def test_five_redirects_are_followed_and_a_sixth_is_not(server: MediaServer, client: Client) -> None:
    for number in range(7):
        server.serve(f"/{number}", redirect(f"/{number + 1}"))
    server.serve("/7", content(BODY))
    base = server.serve("/x", content(BODY)).removesuffix("/x")
    assert client.has(f"{base}/2").size == len(BODY)
    client.rejected(f"{base}/1", f"{base}/1 redirects more than 5 times")


def test_a_redirect_in_a_circle_ends(server: MediaServer, client: Client) -> None:
    client.rejected(server.serve("/x", redirect("/x")), "redirects more than 5 times")
    assert len(server.requests) == 6


@pytest.mark.parametrize(
    "to",
    [
        *("http://169.254.169.254/latest/meta-data/", "http://10.0.0.1/", "//[::ffff:169.254.169.254]/"),
        *("http://2852039166/", "http://private.example/"),
    ],
)
def test_a_redirect_to_a_private_address_is_refused(server: MediaServer, client: Client, to: str) -> None:
    names = Names({"private.example": [["192.168.0.1"]]})
    url = server.serve("/x", redirect(to + "?secret"))
    client.rejected(url, f"{url} redirects, and http://", "leads to a private address", lookup=names)


def test_a_redirect_from_an_open_host_to_a_private_one_is_refused(server: MediaServer, client: Client) -> None:
    names = Names({"open.example": [["127.0.0.1"]], "closed.example": [["127.0.0.1"]]})
    server.serve("/a", redirect(f"http://closed.example:{server.port}/b"))
    server.serve("/b", content(BODY))
    client.rejected(
        f"http://open.example:{server.port}/a",
        "closed.example",
        "leads to a private address",
        lookup=names,
        private_hosts=PrivateHosts.of(["open.example"]),
    )
    assert server.asked_for("/b") == 0


@pytest.mark.parametrize(
    ("to", "said"),
    [
        ("file:///etc/passwd", "'file'"),
        ("data:image/png;base64,AAAA", "'data'"),
        ("http://user:secret@127.0.0.1/", "user name"),
        ("http://127.0.0.1:0/", "port"),
        ("/\udcff", "surrogate"),
    ],
)
def test_a_redirect_to_a_bad_url_is_refused(server: MediaServer, client: Client, to: str, said: str) -> None:
    url = server.serve("/x", redirect(to))
    client.rejected(url, f"{url} redirects to a URL that cannot be fetched: ", said)


def test_a_redirect_to_nowhere_is_a_redirect_to_itself(server: MediaServer, client: Client) -> None:
    client.rejected(server.serve("/x", raw(head("302 There", {"Content-Length": 0}))), "more than 5 times")


# --- TLS


@dataclass(frozen=True)
class Authority:
    """Both sides of TLS: a server's certificate for `localhost` and 127.0.0.1, and a client that trusts it."""

    server: ssl.SSLContext
    client: ssl.SSLContext


@pytest.fixture(scope="session")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "a test")])
    now = datetime.datetime.now(datetime.UTC)
    hosts = [x509.DNSName("media.example"), x509.IPAddress(ipaddress.ip_address("127.0.0.1"))]
    certificate = (
        x509.CertificateBuilder()
        .subject_name(name)
        .issuer_name(name)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(now - datetime.timedelta(days=1))
        .not_valid_after(now + datetime.timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName(hosts), critical=False)
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(key, hashes.SHA256())
    )
    pem = tmp_path_factory.mktemp("tls") / "both.pem"
    private = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    pem.write_bytes(private + certificate.public_bytes(serialization.Encoding.PEM))
    server = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    server.load_cert_chain(pem)
    return Authority(server, ssl.create_default_context(cafile=str(pem)))


@pytest.fixture
def tls_server(folder: Path, authority: Authority) -> Iterator[MediaServer]:
    with MediaServer(tls=authority.server) as running:
        yield running
        running.wait_until_left()


def test_tls_is_spoken_to_the_name_not_to_the_address(
    tls_server: MediaServer, client: Client, authority: Authority
) -> None:
    names = Names({"media.example": [["127.0.0.1"]], "other.example": [["127.0.0.1"]]})
    url = tls_server.serve("/x", content(BODY))
    assert client.has(url, tls=authority.client).size == len(BODY)
    named = f"https://media.example:{tls_server.port}/x"
    assert client.has(named, tls=authority.client, lookup=names).size == len(BODY)
    other = f"https://other.example:{tls_server.port}/x"
    client.unreachable(other, "certificate", retryable=False, tls=authority.client, lookup=names)


def test_a_certificate_that_nobody_vouches_for_is_refused(tls_server: MediaServer, client: Client) -> None:
    url = tls_server.serve("/x", content(BODY))
    client.unreachable(url, f"{url} has no certificate that can be trusted", retryable=False)
    assert tls_server.requests == []


def test_a_server_that_speaks_no_tls_is_refused(server: MediaServer, client: Client) -> None:
    url = server.serve("/x", content(BODY)).replace("http:", "https:")
    client.unreachable(url, "does not speak TLS", retryable=False)


def test_a_large_medium_arrives_over_tls(tls_server: MediaServer, client: Client, authority: Authority) -> None:
    assert client.has(tls_server.serve("/x", sized(MOST)), tls=authority.client).size == MOST


def test_a_redirect_from_https_to_http_is_refused(
    server: MediaServer, tls_server: MediaServer, client: Client, authority: Authority
) -> None:
    url = tls_server.serve("/x", redirect(server.serve("/x", content(BODY))))
    client.rejected(url, "leaves https for http", tls=authority.client)
    assert server.requests == []


def test_a_redirect_from_http_to_https_is_followed(
    server: MediaServer, tls_server: MediaServer, client: Client, authority: Authority
) -> None:
    url = server.serve("/x", redirect(tls_server.serve("/x", content(BODY))))
    assert client.has(url, tls=authority.client).size == len(BODY)


# --- when the job has to stop


class cancelled_once:  # noqa: N801
    """An allowance that is cancelled when `something` has happened."""

    def __init__(self, something: threading.Event) -> None:
        self._allowance = Allowance.of(PLAY_S)
        self._thread = threading.Thread(target=self._watch, args=(something,))

    def _watch(self, something: threading.Event) -> None:
        assert something.wait(WAIT_S)
        self._allowance.cancelled.set()

    def __enter__(self) -> Allowance:
        self._thread.start()
        return self._allowance

    def __exit__(self, *_: object) -> None:
        self._thread.join()


def once_there(path: Path, then: Play) -> Play:
    """Goes on when the whole of `BODY` has arrived at `path`, for all who wait for it: whoever sees it may be why it is
    gone when the next one looks."""
    seen = threading.Event()

    def play(exchange: Exchange) -> None:
        while not (seen.is_set() or _is_whole(path)) and not exchange.closing.wait(0.005):
            pass
        seen.set()
        then(exchange)

    return play


def _is_whole(path: Path) -> bool:
    try:
        return path.stat().st_size == len(BODY)
    except FileNotFoundError:
        return False


@pytest.mark.parametrize("play", [never, stalled, dribble(0.02)], ids=["waiting", "stalled", "receiving"])
def test_a_cancel_leaves_nothing_behind(server: MediaServer, client: Client, play: Play) -> None:
    """Neither of what was on its way, nor of what had arrived, nor of what had not begun."""
    begun = threading.Event()

    def after_the_first(exchange: Exchange) -> None:
        begun.set()
        play(exchange)

    held_back = once_there(client.folder / "medium-0", after_the_first)
    urls = [server.serve("/whole", content(BODY)), *(server.serve(f"/{number}", held_back) for number in range(20))]
    with pytest.raises(MorpheusError) as caught, cancelled_once(begun) as allowance:
        client.fetch(*urls, allowance=allowance)
    assert caught.value.code == Code.CANCELLED


def test_the_job_s_deadline_ends_it_too(server: MediaServer, client: Client) -> None:
    allowance = Allowance(Deadline.after(0.3), threading.Event())
    with pytest.raises(MorpheusError, match="fetching its media") as caught:
        client.fetch(server.serve("/whole", content(BODY)), server.serve("/x", never), allowance=allowance)
    assert caught.value.code == Code.TIMEOUT


def test_a_job_that_is_cancelled_already_asks_nobody(server: MediaServer, client: Client) -> None:
    allowance = Allowance.of(PLAY_S)
    allowance.cancelled.set()
    with pytest.raises(MorpheusError):
        client.fetch(server.serve("/x", content(BODY)), allowance=allowance)
    assert server.requests == []


# --- the worker's own disk


def test_a_disk_that_fails_is_not_the_medium_s_fault(server: MediaServer, folder: Path) -> None:
    """A folder that is not there stands for it. What arrived beside it is taken away."""
    arrived = folder / "arrived"
    remotes = [
        Remote(server.serve("/x", content(BODY)), arrived, MOST),
        Remote(server.serve("/y", once_there(arrived, content(BODY))), folder / "missing" / "y", MOST),
    ]
    with pytest.raises(MorpheusError, match="worker's disk: No such file") as caught:
        fetch_all(remotes, private_hosts=LOOPBACK, timeout_s=PLAY_S, allowance=Allowance.of(PLAY_S))
    assert (caught.value.code, caught.value.retryable) == (Code.INTERNAL, True)


def test_a_disk_that_is_full_before_the_last_byte_is_told(server: MediaServer, folder: Path) -> None:
    """The largest file that the process may write stands for it: what is beyond it is refused in the same way."""
    remote = Remote(server.serve("/x", sized(MOST)), folder / "x", MOST)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (MOST - 1, before[1]))
    try:
        with pytest.raises(MorpheusError, match="worker's disk: File too large") as caught:
            fetch_all([remote], private_hosts=LOOPBACK, timeout_s=PLAY_S, allowance=Allowance.of(PLAY_S))
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
    assert caught.value.code == Code.INTERNAL


def test_a_file_that_is_there_already_is_left_as_it_is(server: MediaServer, folder: Path) -> None:
    target = folder / "x"
    target.write_bytes(b"somebody's")
    with pytest.raises(MorpheusError, match="File exists"):
        fetch_all(
            [Remote(server.serve("/x", content(BODY)), target, MOST)],
            private_hosts=LOOPBACK,
            timeout_s=PLAY_S,
            allowance=Allowance.of(PLAY_S),
        )
    assert target.read_bytes() == b"somebody's"
    target.unlink()
