"""The simplest feed that there can be: HTTP ranges over kept connections, for tests of what stands on feeds."""

from __future__ import annotations

import contextlib
import http.client
import threading
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import urlsplit

from morpheus_worker.sync.terms import Resolved, SyncCode, SyncError


def unreachable(what: str, after_s: float = 0.0) -> SyncError:
    return SyncError(SyncCode.UNREACHABLE, what, passing=True, after_s=after_s)


@dataclass
class PlainBody:
    """An answer, read past `http.client`'s own buffer where that is possible."""

    start: int
    total: int | None
    ranged: bool
    response: http.client.HTTPResponse

    def readinto(self, buffer: memoryview) -> int:
        try:
            count = self.response.readinto(buffer)
        except (OSError, http.client.HTTPException) as failure:
            raise unreachable("stopped sending") from failure
        if count == 0 and self.response.length:
            raise unreachable("cut the connection")
        return count


class PlainFeed:
    """A file at an address. `on_open` is called before each request, with the range that is asked for."""

    def __init__(
        self,
        url: str,
        resolved: Resolved,
        *,
        ranges: bool = True,
        stall_s: float = 10.0,
        on_open: Callable[[int, int | None], None] = lambda start, end: None,
    ) -> None:
        self.resolved, self.shown, self.ranges = resolved, url, ranges
        self._address = urlsplit(url)
        self._stall_s, self._on_open = stall_s, on_open
        self._idle: list[http.client.HTTPConnection] = []
        self._guard = threading.Lock()

    def close(self) -> None:
        with self._guard:
            for connection in self._idle:
                connection.close()
            self._idle.clear()

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[PlainBody]:
        self._on_open(start, end)
        with self._guard:
            kept = self._idle.pop() if self._idle else None
        connection = kept or http.client.HTTPConnection(self._address.netloc, timeout=self._stall_s)
        response = None
        try:
            response = self._asked(connection, start, end)
            yield self._judged(response, start)
        finally:
            whole = response is not None and response.length == 0 and not response.will_close
            if response is not None:
                response.close()
            if whole:
                with self._guard:
                    self._idle.append(connection)
            else:
                connection.close()

    def _asked(self, connection: http.client.HTTPConnection, start: int, end: int | None) -> http.client.HTTPResponse:
        headers = {"Range": f"bytes={start}-{'' if end is None else end - 1}"} if self.ranges and (start or end) else {}
        try:
            connection.request("GET", self._address.path, headers=headers)
            return connection.getresponse()
        except (OSError, http.client.HTTPException) as failure:
            raise unreachable("did not answer") from failure

    def _judged(self, response: http.client.HTTPResponse, start: int) -> PlainBody:
        if response.status not in (200, 206):
            after_s = float(response.headers.get("Retry-After", "0"))
            if response.status in (429, 500, 503):
                raise unreachable(f"answered {response.status}", after_s)
            raise SyncError(SyncCode.NOT_FOUND, f"answered {response.status}")
        etag = response.headers.get("ETag")
        if self.resolved.etag is not None and etag != self.resolved.etag:
            raise SyncError(SyncCode.CHANGED, "has another version now")
        said: Any = response.headers.get("Content-Range")
        if response.status == 200:
            return PlainBody(0, response.length, not start, response)
        first, total = said.removeprefix("bytes ").partition("-")[0], said.rpartition("/")[2]
        return PlainBody(int(first), int(total), True, response)
