"""Requests and their answers over connections that are kept: so many to a host at once, each given back whatever
happens."""

from __future__ import annotations

import contextlib
import http.client
import io
import threading
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from http import HTTPStatus
from typing import Final, Self

from morpheus_worker import __version__
from morpheus_worker.addresses import MediaUrl
from morpheus_worker.sync.answers import Answer
from morpheus_worker.sync.hosts.wires import Inlet, Terms, Wire, connected
from morpheus_worker.sync.terms import SyncCode, SyncError, stopped

MOST_TOLD_BYTES: Final = 4 * 1024 * 1024
"""Of what a host tells about a file."""
DRAINED_BYTES: Final = 64 * 1024
"""What is read of an unwanted body so that its connection can be kept."""
DRAINED_S: Final = 0.5
"""And how long that may take."""
IDLE_S: Final = 55.0
"""A connection is kept so long without use; most hosts keep theirs for 60 s."""

_BROKEN: Final = (OSError, http.client.HTTPException, ValueError)
"""All that reading an answer raises when it is none: `ValueError` for numbers that are none."""


class Exchange:
    """One answer, its body not read yet. It holds one of the host's places until it is closed."""

    def __init__(
        self, told: str, wire: Wire, inlet: Inlet, reader: _Reader, response: http.client.HTTPResponse
    ) -> None:
        self.told, self.wire = told, wire
        self.on_close: Callable[[Exchange], None] = lambda _: None
        headers = {name.lower(): value for name, value in response.headers.items()}
        self.answer = Answer(response.status, headers)
        self._reader = reader
        self._inlet, self._response = inlet, response
        self._left = response.length
        """Bytes that are still to come, None where only the end of the answer tells."""
        self._early: memoryview | None = None
        self._patience_s = wire.stall_s
        self._broken = False
        self._ended = response.length == 0

    def readinto(self, buffer: memoryview) -> int:
        """Some bytes of the body, 0 at its end: as many as fit, or as came within a fraction of a second.

        Raises:
            SyncError: passing, when the connection was cut or nothing came for as long as the pace allows.
        """
        if self._ended:
            return 0
        with self._in_words():
            if self._response.chunked:
                return self._chunked(buffer)
            return self._direct(buffer if self._left is None else buffer[: self._left])

    def read(self, most: int) -> bytes:
        """The whole body.

        Raises:
            SyncError: as `readinto`; `rejected` when it is larger than that.
        """
        taken = bytearray(most + 1)
        size = 0
        while (got := self.readinto(memoryview(taken)[size:])) and size <= most:
            size += got
        if size > most:
            raise SyncError(SyncCode.REJECTED, f"{self.told} answered with more than {most} bytes")
        return bytes(taken[:size])

    def _direct(self, view: memoryview) -> int:
        """Past `http.client`'s buffer, once that is empty: into the caller's own."""
        if self._early is None:
            self._early = self._buffered()
        got = min(len(view), len(self._early))
        view[:got], self._early = self._early[:got], self._early[got:]
        if got < len(view):
            got += self._filled(view[got:], wanted=got == 0)
        if self._left is not None:
            self._left -= got
        if not got and self._left:
            raise ConnectionError
        self._ended = not got or self._left == 0
        return got

    def _buffered(self) -> memoryview:
        """What was read beyond the head of the answer."""
        self._inlet.dry = True
        return memoryview(self._reader.read1(io.DEFAULT_BUFFER_SIZE) or b"")

    def _filled(self, view: memoryview, *, wanted: bool) -> int:
        try:
            return self.wire.fill(view, time.monotonic() + self._patience_s * wanted)
        except TimeoutError:
            if wanted:
                raise
            return 0

    def _chunked(self, buffer: memoryview) -> int:
        self._inlet.until_s = time.monotonic() + self._patience_s
        data = self._response.read1(len(buffer))
        buffer[: len(data)] = data
        self._ended = not data
        return len(data)

    @contextlib.contextmanager
    def _in_words(self) -> Iterator[None]:
        try:
            yield
        except TimeoutError:
            self._broken = True
            said = f"{self.told} stopped sending for {self.wire.stall_s:g} s"
            raise SyncError(SyncCode.UNREACHABLE, said, passing=True) from None
        except _BROKEN:
            self._broken = True
            raise SyncError(SyncCode.UNREACHABLE, f"{self.told} cut the connection", passing=True) from None

    def close(self) -> None:
        """Gives the place back, and the connection where it can take another request."""
        on_close, self.on_close = self.on_close, lambda _: None
        try:
            on_close(self)
        finally:
            self._response.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def can_go_on(self) -> bool:
        """Whether the connection can take another request; reads the rest of a small body for that, if it is there."""
        unbounded = self._left is None and not self._response.chunked and not self._ended
        if self._broken or self._response.will_close or unbounded or (self._left or 0) > DRAINED_BYTES:
            return False
        self._patience_s = DRAINED_S
        until_s, read = time.monotonic() + DRAINED_S, 0
        rest = memoryview(bytearray(0 if self._ended else DRAINED_BYTES))
        with contextlib.suppress(SyncError):
            while (got := self.readinto(rest)) and (read := read + got) <= DRAINED_BYTES and time.monotonic() < until_s:
                pass
        return self._ended and not (self._buffered() if self._early is None else self._early)


@dataclass(frozen=True, slots=True)
class _Idle:
    wire: Wire
    since_s: float


class _Reader(io.BufferedReader):
    """A wire as `HTTPResponse` takes it: a socket that it cannot close, nor what was read from it beforehand."""

    def makefile(self, _mode: str) -> io.BufferedReader:
        return self

    def close(self) -> None:
        pass


class Connections:
    """Connections to any number of hosts, `most` to each at once. For several threads."""

    def __init__(self, terms: Terms, most: int) -> None:
        self.terms = terms
        self._most = most
        self._idle: dict[str, list[_Idle]] = defaultdict(list)
        self._busy: dict[str, int] = defaultdict(int)
        self._wires: set[Wire] = set()
        self._closed = False
        self._changed = threading.Condition()

    def ask(
        self,
        url: MediaUrl,
        told: str,
        *,
        method: str = "GET",
        headers: Mapping[str, str] | None = None,
        private: bool = True,
    ) -> Exchange:
        """One request. It waits for a place at the host first. `private`: whether it may go to a private address;
        `told` begins what is said of failures.

        Raises:
            SyncError: when no answer in HTTP comes; `interrupted` once these connections are closed.
        """
        lines = [f"{method} {url.target} HTTP/1.1", f"Host: {url.origin.partition('://')[2]}"]
        lines += [f"{name}: {value}" for name, value in {**_ALWAYS, **(headers or {})}.items()]
        data = "\r\n".join([*lines, "", ""]).encode("ascii")
        self._take_place(url.origin)
        try:
            exchange = self._asked(url, told, method, data, private)
        except BaseException:
            self._give_place_back(url.origin)
            raise
        exchange.on_close = lambda ended: self._finish(url.origin, ended)
        return exchange

    def close(self) -> None:
        """Ends every exchange, from any thread: who reads or waits gets a `SyncError`."""
        with self._changed:
            self._closed = True
            idle = [each.wire for kept in self._idle.values() for each in kept]
            self._idle.clear()
            for wire in self._wires:
                wire.shut()
            self._changed.notify_all()
        for wire in idle:
            self._drop(wire)

    def _asked(self, url: MediaUrl, told: str, method: str, data: bytes, private: bool) -> Exchange:
        wire = self._kept(url.origin, private)
        if wire is not None:
            # A host may hang up on a kept connection at any moment, a request on its way included.
            with contextlib.suppress(_CutError):
                return self._exchanged(wire, told, method, data)
        wire = connected(url, self.terms, told, private=private)
        with self._changed:
            self._wires.add(wire)
            if self._closed:
                wire.shut()
        try:
            return self._exchanged(wire, told, method, data)
        except _CutError as failure:
            if self._closed:
                raise stopped() from None
            raise SyncError(SyncCode.UNREACHABLE, str(failure), passing=True) from None

    def _exchanged(self, wire: Wire, told: str, method: str, data: bytes) -> Exchange:
        """Asks over a connection, which is gone when that fails."""
        inlet = Inlet(wire, time.monotonic() + wire.stall_s)
        reader = _Reader(inlet)
        try:
            wire.send(data)
            response = _final(reader, method)
            if inlet.ended:
                # `http.client` takes the end of the connection for the end of the headers, whatever they lack.
                raise ConnectionError
            return Exchange(told, wire, inlet, reader, response)
        except TimeoutError:
            self._drop(wire)
            said = f"{told} did not answer within {wire.stall_s:g} s"
            raise SyncError(SyncCode.UNREACHABLE, said, passing=True) from None
        except _BROKEN as failure:
            self._drop(wire)
            raise _CutError(f"{told} {_wording(failure)}") from None
        except BaseException:
            self._drop(wire)
            raise

    def _kept(self, origin: str, private: bool) -> Wire | None:
        """A connection from before that still stands."""
        while True:
            with self._changed:
                kept = self._idle.get(origin)
                if not kept:
                    return None
                idle = kept.pop()
            fresh = time.monotonic() - idle.since_s < IDLE_S
            if fresh and (private or idle.wire.public) and not idle.wire.is_stale:
                return idle.wire
            self._drop(idle.wire)

    def _finish(self, origin: str, exchange: Exchange) -> None:
        try:
            goes_on = exchange.can_go_on()
            with self._changed:
                if goes_on and not self._closed:
                    self._idle[origin].append(_Idle(exchange.wire, time.monotonic()))
                    return
            self._drop(exchange.wire)
        finally:
            self._give_place_back(origin)

    def _drop(self, wire: Wire) -> None:
        with self._changed:
            self._wires.discard(wire)
        wire.close()

    def _take_place(self, origin: str) -> None:
        with self._changed:
            self._changed.wait_for(lambda: self._closed or self._busy[origin] < self._most)
            if self._closed:
                raise stopped()
            self._busy[origin] += 1

    def _give_place_back(self, origin: str) -> None:
        with self._changed:
            self._busy[origin] -= 1
            self._changed.notify_all()


_ALWAYS: Final = {"User-Agent": f"morpheus-worker/{__version__}", "Accept": "*/*", "Accept-Encoding": "identity"}


def _final(reader: _Reader, method: str) -> http.client.HTTPResponse:
    """The answer after all those that only announce it (RFC 9110, 15.2).

    Raises:
        HTTPException: when nobody could tell for sure where it ends (RFC 9112, 6.3); whatever else reading it raises.
    """
    while True:
        response = http.client.HTTPResponse(reader, method=method)  # type: ignore[arg-type]
        response.begin()
        if not 100 <= response.status < 200:
            break
        if response.status == HTTPStatus.SWITCHING_PROTOCOLS:
            raise http.client.HTTPException
    codings, lengths = (set(response.headers.get_all(name, ())) for name in ("Transfer-Encoding", "Content-Length"))
    if (codings and not response.chunked) or len(codings) > 1 or len(lengths) > 1:
        raise http.client.HTTPException
    response.will_close = response.will_close or bool(codings and lengths)
    return response


class _CutError(Exception):
    """A connection that ended, or led to no answer in HTTP; the message says how."""


def _wording(failure: Exception) -> str:
    if isinstance(failure, http.client.LineTooLong) or "headers" in str(failure):
        return "answered with headers without end"
    if isinstance(failure, OSError):
        return "cut the connection before it answered"
    return "did not answer in HTTP"
