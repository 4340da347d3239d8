"""A media server on loopback that misbehaves as a test asks: raw sockets, because a proper server would not let it.

What a path does is a play, a function of one `Exchange`. `server.serve("/a.png", play)` returns the URL that plays it;
of several plays each request takes the next one, and the last goes on for ever.

>>> with MediaServer() as server:
...     url = server.serve("/a.png", status(500), content(b"..."))
"""

from __future__ import annotations

import contextlib
import itertools
import socket
import ssl
import threading
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Self

WAIT_S = 10.0
"""How long a test waits for something that must happen."""

BLOCK = b"\0" * 65536


@dataclass(frozen=True)
class Request:
    """One request as it arrived. `to` is the address that it came to."""

    target: str
    headers: Mapping[str, str]
    to: str

    @property
    def path(self) -> str:
        return self.target.partition("?")[0]


@dataclass(frozen=True)
class Exchange:
    """One request and the connection that waits for its answer."""

    request: Request
    connection: socket.socket
    closing: threading.Event

    def send(self, data: bytes) -> None:
        self.connection.sendall(data)

    def wait_until_left(self) -> None:
        """Until the client closes the connection, or the server ends."""
        with contextlib.suppress(OSError):
            while self.connection.recv(65536):
                pass


Play = Callable[[Exchange], None]


def head(status_line: str, headers: Mapping[str, str | int]) -> bytes:
    lines = [f"HTTP/1.1 {status_line}", *(f"{name}: {value}" for name, value in headers.items())]
    return "\r\n".join([*lines, "", ""]).encode("utf-8", "surrogateescape")


def content(body: bytes, **headers: str | int) -> Play:
    """A proper answer. Underscores in the headers' names stand for hyphens."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return raw(head("200 OK", {"Content-Length": len(body), **named}) + body)


def status(code: int, **headers: str | int) -> Play:
    """An answer with that status and a page that says nothing."""
    named = {name.replace("_", "-"): value for name, value in headers.items()}
    return raw(head(f"{code} So", {"Content-Type": "text/html", "Content-Length": 4, **named}) + b"<p/>")


def redirect(to: str, code: int = 302) -> Play:
    return raw(head(f"{code} There", {"Location": to, "Content-Length": 0}))


def raw(data: bytes) -> Play:
    """Exactly these bytes, then the end."""
    return lambda exchange: exchange.send(data)


def never(exchange: Exchange) -> None:
    """Takes the request and says nothing."""
    exchange.wait_until_left()


def dribble(every_s: float, *, first: bytes = head("200 OK", {"Content-Length": 10**6})) -> Play:
    """`first` at once, then a byte at a time."""

    def play(exchange: Exchange) -> None:
        exchange.send(first)
        while not exchange.closing.wait(every_s):
            exchange.send(b"x")

    return play


def stalled(exchange: Exchange) -> None:
    """Begins well, and then sends nothing more."""
    exchange.send(head("200 OK", {"Content-Length": 10**6}) + BLOCK)
    exchange.wait_until_left()


def sized(size: int) -> Play:
    """As many bytes as it says, or as many as are taken."""

    def play(exchange: Exchange) -> None:
        exchange.send(head("200 OK", {"Content-Length": size}))
        for sent in range(0, size, len(BLOCK)):
            exchange.send(BLOCK[: size - sent])

    return play


def endless(exchange: Exchange) -> None:
    """Chunk after chunk, without an end."""
    exchange.send(head("200 OK", {"Transfer-Encoding": "chunked"}))
    while not exchange.closing.is_set():
        exchange.send(b"%x\r\n%s\r\n" % (len(BLOCK), BLOCK))


def truncated(body: bytes, *, said: int) -> Play:
    """Says one size, sends less, and hangs up."""
    return raw(head("200 OK", {"Content-Length": said}) + body)


def cut_chunked(exchange: Exchange) -> None:
    """Hangs up in the middle of a chunked body."""
    exchange.send(head("200 OK", {"Transfer-Encoding": "chunked"}) + b"5\r\nhello\r\n5\r\nwo")


def reset(exchange: Exchange) -> None:
    """Cuts the connection the hard way."""
    exchange.connection.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, b"\1\0\0\0\0\0\0\0")


def held(until: threading.Event, then: Play) -> Play:
    """Goes on only when it is let."""

    def play(exchange: Exchange) -> None:
        if until.wait(WAIT_S):
            then(exchange)

    return play


class MediaServer:
    """The server, one thread a connection. It is gone, and all its connections with it, when the block ends."""

    def __init__(self, *hosts: str, port: int = 0, tls: ssl.SSLContext | None = None) -> None:
        self.requests: list[Request] = []
        self._hosts, self._tls = hosts or ("127.0.0.1",), tls
        self._port = port
        self._plays: dict[str, itertools.chain[Play]] = {}
        self._listeners: list[socket.socket] = []
        self._threads: list[threading.Thread] = []
        self._connections: set[socket.socket] = set()
        self._closing = threading.Event()
        self._changed = threading.Condition()

    def __enter__(self) -> Self:
        for host in self._hosts:
            family = socket.AF_INET6 if ":" in host else socket.AF_INET
            listener = socket.create_server((host, self._port), family=family)
            self._port = listener.getsockname()[1]
            self._listeners.append(listener)
            self._run(self._accept, listener)
        return self

    def __exit__(self, *_: object) -> None:
        for listener in self._listeners:
            listener.shutdown(socket.SHUT_RDWR)
        with self._changed:
            self._closing.set()
            for connection in self._connections:
                _hang_up(connection)
        for thread in self._threads:
            thread.join()
        for listener in self._listeners:
            listener.close()

    @property
    def port(self) -> int:
        return self._port

    def serve(self, path: str, *plays: Play, host: str | None = None) -> str:
        """The URL at which `path` does that; `host` where it is not the server's own first one."""
        self._plays[path] = itertools.chain(plays, itertools.repeat(plays[-1]))
        named = host or self._hosts[0]
        return f"{'https' if self._tls else 'http'}://{f'[{named}]' if ':' in named else named}:{self._port}{path}"

    def asked_for(self, path: str) -> int:
        """How many requests for `path` there were."""
        return sum(request.path == path for request in self.requests)

    def wait_for_requests(self, count: int) -> None:
        with self._changed:
            assert self._changed.wait_for(lambda: len(self.requests) >= count, WAIT_S), f"{len(self.requests)} came"

    def wait_until_left(self) -> None:
        """Until no client has a connection open."""
        with self._changed:
            assert self._changed.wait_for(lambda: not self._connections, WAIT_S), "somebody is still connected"

    def _run(self, target: Callable[[socket.socket], None], sock: socket.socket) -> None:
        thread = threading.Thread(target=target, args=(sock,), name="media server")
        self._threads.append(thread)
        thread.start()

    def _accept(self, listener: socket.socket) -> None:
        while not self._closing.is_set():
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            with self._changed:
                self._connections.add(connection)
                if self._closing.is_set():
                    _hang_up(connection)
            self._run(self._converse, connection)

    def _converse(self, plain: socket.socket) -> None:
        connection = plain
        try:
            if self._tls:
                connection = self._tls.wrap_socket(plain, server_side=True)
                self._swap(plain, connection)
            if request := _read(connection):
                self._play(Exchange(request, connection, self._closing))
            else:
                connection.sendall(head("400 Bad Request", {"Content-Length": 0}))
        except OSError:
            pass  # It was the client who hung up, as many tests want it to.
        finally:
            connection.close()
            with self._changed:
                self._connections.discard(connection)
                self._connections.discard(plain)
                self._changed.notify_all()

    def _swap(self, plain: socket.socket, wrapped: socket.socket) -> None:
        with self._changed:
            self._connections.remove(plain)
            self._connections.add(wrapped)

    def _play(self, exchange: Exchange) -> None:
        with self._changed:
            self.requests.append(exchange.request)
            play = next(self._plays.get(exchange.request.path, itertools.repeat(status(404))))
            self._changed.notify_all()
        play(exchange)


def _hang_up(connection: socket.socket) -> None:
    with contextlib.suppress(OSError):
        # A TLS socket's own shutdown takes its state away under the thread that reads from it.
        socket.socket.shutdown(connection, socket.SHUT_RDWR)


def _read(connection: socket.socket) -> Request | None:
    data = b""
    while b"\r\n\r\n" not in data:
        more = connection.recv(65536)
        data += more
        if not more or not data[:1].isalpha():
            return None
    first, *lines = data.partition(b"\r\n\r\n")[0].decode("latin-1").split("\r\n")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    return Request(first.split(" ")[1], headers, str(connection.getsockname()[0]))
