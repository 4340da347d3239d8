"""One connection to a host: made to an address that was judged, read in large blocks, never waited for without end."""

from __future__ import annotations

import contextlib
import io
import os
import socket
import ssl
import struct
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import Future
from dataclasses import dataclass, field
from functools import cache
from ipaddress import ip_address
from typing import Final

from morpheus_worker.addresses import Address, MediaUrl, is_public
from morpheus_worker.sync.terms import Pace, SyncCode, SyncError

TICK_S: Final = 0.4
"""What is read comes back after this long, however little it is."""

Lookup = Callable[[str, int], Sequence[Address]]
"""Host and port to addresses. It may block, and raises OSError when there are none."""


def looked_up(host: str, port: int) -> list[Address]:
    """The addresses of a name, by the machine's resolver, in the order to try them.

    Raises:
        OSError: when it has none.
    """
    found = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM, flags=socket.AI_ADDRCONFIG)
    return list(dict.fromkeys(ip_address(str(entry[4][0]).partition("%")[0]) for entry in found))


@cache
def trusted() -> ssl.SSLContext:
    """certifi's authorities, because slim images have none, and those that the machine itself trusts."""
    import certifi

    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context


@dataclass(frozen=True, slots=True)
class Terms:
    """What holds for every connection. `public` says which addresses anybody's server may be at."""

    pace: Pace = field(default_factory=Pace)
    lookup: Lookup = looked_up
    public: Callable[[Address], bool] = is_public
    tls: Callable[[], ssl.SSLContext] = trusted


class Wire:
    """An open connection. `public`: its peer is at a public address. One thread reads; any may `shut` it."""

    def __init__(self, sock: socket.socket, *, public: bool, stall_s: float) -> None:
        self.public, self.stall_s = public, stall_s
        self._sock = sock
        self._tick_s = min(TICK_S, stall_s)
        self._tls = isinstance(sock, ssl.SSLSocket)
        if self._tls:
            sock.settimeout(self._tick_s)
        else:
            # The kernel's own limit, so that one call can wait for a whole block and still come back in time.
            sock.settimeout(None)
            limit = struct.pack("ll", int(self._tick_s), int(self._tick_s % 1 * 1_000_000))
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_RCVTIMEO, limit)
            sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDTIMEO, struct.pack("ll", int(stall_s) + 1, 0))

    def send(self, data: bytes) -> None:
        self._sock.sendall(data)

    def some(self, view: memoryview, until_s: float) -> int:
        """Reads what there is, at least a byte; 0 at the end.

        Raises:
            TimeoutError: when nothing came until then, on the monotonic clock.
            OSError: when the connection broke.
        """
        return self._within(view, until_s, 0)

    def fill(self, view: memoryview, until_s: float) -> int:
        """Reads until `view` is full or `TICK_S` is over, at least a byte; 0 at the end. Raises as `some`."""
        if not self._tls:
            return self._within(view, until_s, socket.MSG_WAITALL)
        got = self._within(view, until_s, 0)
        enough_s = time.monotonic() + self._tick_s
        while 0 < got < len(view) and time.monotonic() < enough_s:
            try:
                more = self._sock.recv_into(view[got:])
            except TimeoutError:
                break
            if not more:
                break
            got += more
        return got

    def _within(self, view: memoryview, until_s: float, flags: int) -> int:
        while True:
            try:
                return self._sock.recv_into(view, 0, flags)
            except (TimeoutError, BlockingIOError):
                if time.monotonic() >= until_s:
                    raise TimeoutError from None

    @property
    def is_stale(self) -> bool:
        """Whether the peer hung up, or sent what nobody asked for."""
        import select

        poll = select.poll()
        poll.register(self._sock, select.POLLIN)
        return bool(poll.poll(0))

    def shut(self) -> None:
        """Wakes who reads from it."""
        with contextlib.suppress(OSError):
            # Not a TLS socket's own shutdown, which takes its state away under the thread that reads from it.
            socket.socket.shutdown(self._sock, socket.SHUT_RDWR)

    def close(self) -> None:
        self._sock.close()


class Inlet(io.RawIOBase):
    """A wire as `http.client` reads from it: `until_s` is when the head of the answer must be there."""

    def __init__(self, wire: Wire, until_s: float) -> None:
        self.until_s = until_s
        self.dry = False
        """Whether it reads no more: what is buffered before it can then be taken out."""
        self.ended = False
        self._wire = wire

    def readable(self) -> bool:
        return True

    def readinto(self, buffer: memoryview) -> int | None:  # type: ignore[override]
        if self.dry:
            return None
        if time.monotonic() >= self.until_s:
            # However much comes, a head or a trailer without end is none.
            raise TimeoutError
        got = self._wire.some(buffer, self.until_s)
        self.ended = not got
        return got


def connected(url: MediaUrl, terms: Terms, told: str, *, private: bool) -> Wire:
    """A connection for `url`. Unless `private`, to a public address only. `told` begins what is said of failures.

    Raises:
        SyncError: when there is none to be had.
    """
    found = [url.address] if url.address is not None else _addresses(url, terms, told)
    allowed = [address for address in found if private or terms.public(address)]
    if not allowed:
        hint = "an address that anybody could have written leads to no private network"
        raise SyncError(SyncCode.REJECTED, f"{told} leads to a private address", hint)
    sock, address = _first_of(allowed, url, terms.pace, told)
    try:
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        if url.scheme == "https":
            sock = _secured(sock, url, terms, told)
        return Wire(sock, public=terms.public(address), stall_s=terms.pace.stall_s)
    except BaseException:
        sock.close()
        raise


def _first_of(addresses: Sequence[Address], url: MediaUrl, pace: Pace, told: str) -> tuple[socket.socket, Address]:
    said = ""
    for address in addresses:
        try:
            return socket.create_connection((str(address), url.port), timeout=pace.connect_s), address
        except TimeoutError:
            said = f"{told} took no connection within {pace.connect_s:g} s"
        except OSError as failure:
            # Its own text may name the address that was looked up.
            reason = f": {os.strerror(failure.errno)}" if failure.errno else ""
            said = f"{told} takes no connection{reason}"
    raise SyncError(SyncCode.UNREACHABLE, said, passing=True)


def _secured(sock: socket.socket, url: MediaUrl, terms: Terms, told: str) -> ssl.SSLSocket:
    try:
        return terms.tls().wrap_socket(sock, server_hostname=url.host)
    except ssl.SSLCertVerificationError:
        said = f"{told} has no certificate that can be trusted"
        raise SyncError(SyncCode.UNREACHABLE, said) from None
    except (TimeoutError, ssl.SSLEOFError, ConnectionError):
        raise SyncError(SyncCode.UNREACHABLE, f"{told} cut the connection at its start", passing=True) from None
    except OSError:
        raise SyncError(SyncCode.UNREACHABLE, f"{told} does not speak TLS") from None


def _addresses(url: MediaUrl, terms: Terms, told: str) -> Sequence[Address]:
    limit_s = terms.pace.connect_s
    try:
        return _begun(terms.lookup, url).result(limit_s)
    except TimeoutError:
        said = f"{told} has a host that could not be looked up within {limit_s:g} s"
        raise SyncError(SyncCode.UNREACHABLE, said, passing=True) from None
    except (OSError, ValueError) as failure:
        if isinstance(failure, socket.gaierror) and failure.errno == socket.EAI_AGAIN:
            said = f"{told} has a host that cannot be looked up at the moment"
            raise SyncError(SyncCode.UNREACHABLE, said, passing=True) from None
        raise SyncError(SyncCode.UNREACHABLE, f"{told} has a host that does not exist", "check the address") from None


def _begun(lookup: Lookup, url: MediaUrl) -> Future[Sequence[Address]]:
    """The lookup, in a thread that nobody ever joins: a resolver can hang for minutes."""
    outcome: Future[Sequence[Address]] = Future()
    outcome.set_running_or_notify_cancel()

    def run() -> None:
        try:
            outcome.set_result(lookup(url.host, url.port))
        except (OSError, ValueError) as failure:
            outcome.set_exception(failure)

    threading.Thread(target=run, name="lookup", daemon=True).start()
    return outcome
