"""A file behind an address on the web: what a look at it tells, and its bytes, range by range, of one version."""

from __future__ import annotations

import contextlib
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Final

from morpheus_worker.addresses import BadUrlError, MediaUrl
from morpheus_worker.sync.answers import (
    REDIRECTS,
    REFUSED,
    Answer,
    Sent,
    changed,
    check_plain,
    expired,
    refusal,
    sent,
)
from morpheus_worker.sync.hosts.connecting import Connections, Exchange
from morpheus_worker.sync.hosts.following import First, Landing, ask, follow
from morpheus_worker.sync.terms import Resolved, Source, SyncCode, SyncError

PAGE_SUFFIXES: Final = (".html", ".htm", ".xhtml")
ONE_BYTE: Final = {"Range": "bytes=0-0"}
_WAYS: Final = 3
"""How often one range may find that the known place refuses, each time another thread's new one."""

Refusal = Callable[[Answer, Landing], SyncError]
"""What an answer that is no success means, where the first origin gave it."""


def url_of(text: str) -> MediaUrl:
    """Reads an address that a person wrote.

    Raises:
        SyncError: `invalid`.
    """
    try:
        return MediaUrl.of(text)
    except BadUrlError as failure:
        raise SyncError(SyncCode.INVALID, f"the address cannot be fetched: {failure}") from None


def look(connections: Connections, first: First, source: Source) -> Resolved:
    """What the host says of the file at an address: HEAD, or a GET of one byte where HEAD is refused.

    Raises:
        SyncError: when there is no such file, or nobody may have it.
    """
    exchange, landing = follow(connections, first, method="HEAD")
    with exchange:
        status = exchange.answer.status
    known = 200 <= status < 300 and exchange.answer.length is not None
    final = status == 429 or (status in REFUSED - {403} and not landing.away)
    if not known and not final:
        # A signed address is signed for GET; a few hosts know no HEAD.
        exchange, landing = follow(connections, first, headers=ONE_BYTE)
        exchange.close()
    answer = exchange.answer
    check(answer, landing, refused_by(first))
    name = answer.filename or first.url.filename
    check_plain(answer, landing.told, page_expected=_is_page(name))
    # Of an empty file there is no first byte.
    within = answer.content_range if answer.status in (206, 416) else None
    size = within.total if within else answer.length if answer.status < 300 else None
    return Resolved(source, size, etag=answer.etag, filename=name)


def refused_by(first: First) -> Refusal:
    """The words for any host."""
    return lambda answer, at: refusal(answer, at.told, first.key.access_at(at.url), time.time())


def check(answer: Answer, landing: Landing, refused: Refusal) -> None:
    """That it is a success, or says something of the very file.

    Raises:
        SyncError: as the answer says.
    """
    if answer.status in (200, 203, 206, 412, 416):
        return
    if landing.away and answer.status in REFUSED:
        raise expired(answer, landing.told)
    if answer.status in REDIRECTS:
        raise SyncError(SyncCode.UNREACHABLE, f"{landing.told} {answer.said}", passing=True, expired=True)
    raise refused(answer, landing)


def _is_page(name: str | None) -> bool:
    return bool(name and name.lower().endswith(PAGE_SUFFIXES))


@dataclass(slots=True)
class WebBody:
    """The bytes of one answer. `abort` ends it from any thread."""

    exchange: Exchange
    start: int
    total: int | None
    ranged: bool

    def readinto(self, buffer: memoryview) -> int:
        return self.exchange.readinto(buffer)

    def abort(self) -> None:
        """Who reads gets a passing `SyncError`."""
        self.exchange.wire.shut()


@dataclass(frozen=True, slots=True)
class _Place:
    """Where the redirects led, and the ETag that this very address gave, or shall give."""

    landing: Landing
    pin: str | None


class WebFeed:
    """The bytes of a resolved file behind an address. Where that redirects, the place is kept for later ranges, and
    found anew when it refuses.

    `first` is asked for the address whenever the redirects are followed, `landed` looks at where they led. `refused`
    puts into words what the first origin answers. `fixed`: the resolved ETag is this address's own.
    """

    def __init__(
        self,
        connections: Connections,
        resolved: Resolved,
        first: Callable[[], First],
        *,
        shown: str,
        fixed: bool,
        refused: Refusal,
        landed: Callable[[Landing], None] = lambda _: None,
    ) -> None:
        self.resolved, self.shown, self.ranges = resolved, shown, True
        self._connections, self._first = connections, first
        self._refused, self._landed = refused, landed
        self._page_expected = _is_page(resolved.filename)
        self._pin = resolved.etag if fixed else None
        self._place: _Place | None = None
        self._age: str | None = None
        self._worked = False
        self._finding = threading.Lock()

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[WebBody]:
        """As `Feed.opened`."""
        exchange, place = self._found(start, end)
        with exchange:
            within = self._judged(exchange.answer, place, start, end)
            if not within.ranged:
                self.ranges = False
            yield WebBody(exchange, within.start, within.total, within.ranged)

    def _found(self, start: int, end: int | None) -> tuple[Exchange, _Place]:
        """The answer to one range, by the way that is known or a new one."""
        for _ in range(_WAYS):
            with self._finding:
                place = self._place
                if place is None:
                    # The others wait for what comes of it.
                    return self._anew(start, end)
            exchange = ask(self._connections, self._first(), place.landing, headers=_asking(start, end, place.pin))
            with _closed_on_error(exchange):
                if not place.landing.moved or exchange.answer.status not in REFUSED | REDIRECTS:
                    check(exchange.answer, place.landing, self._in_words)
                    return exchange, place
            exchange.close()
            self._forget(place)
        raise SyncError(SyncCode.UNREACHABLE, f"{self.shown} redirects anew each time", passing=True, expired=True)

    def _anew(self, start: int, end: int | None) -> tuple[Exchange, _Place]:
        """Follows the redirects."""
        exchange, landing = follow(self._connections, self._first(), headers=_asking(start, end, self._pin))
        with _closed_on_error(exchange):
            check(exchange.answer, landing, self._in_words)
            self._landed(landing)
            # What a store behind the host calls this version is its own affair, and another store's differs.
            place = _Place(landing, self._pin or exchange.answer.etag)
            self._judged(exchange.answer, place, start, end)
        self._place, self._worked = place, True
        return exchange, place

    def _forget(self, place: _Place) -> None:
        with self._finding:
            if self._place is place:
                self._place = None

    def _in_words(self, answer: Answer, landing: Landing) -> SyncError:
        said = self._refused(answer, landing)
        if self._worked and answer.status in REFUSED:
            # It was there a moment ago: hosts that are asked too much answer so, too.
            return SyncError(said.code, said.what, said.hint, passing=True)
        return said

    def _judged(self, answer: Answer, place: _Place, start: int, end: int | None) -> Sent:
        told = place.landing.told
        check_plain(answer, told, page_expected=self._page_expected)
        within = sent(answer, told, start, end, self.resolved.size)
        etag = answer.header("etag").strip().removeprefix("W/")
        if place.pin and etag and place.pin != etag:
            raise changed(told, "has another version now")
        if place.pin is None and self.resolved.sha256 is None:
            self._same_age(answer, told)
        return within

    def _same_age(self, answer: Answer, told: str) -> None:
        """Where nothing better tells two versions apart, the time of the last change does."""
        age = answer.header("last-modified")
        if self._age is None:
            self._age = age
        elif self._age != age:
            raise changed(told, "was changed meanwhile")


def _asking(start: int, end: int | None, pin: str | None) -> dict[str, str]:
    if start == 0 and end is None:
        return {}
    asked = {"Range": f"bytes={start}-{'' if end is None else end - 1}"}
    return {**asked, "If-Range": pin} if pin else asked


@contextlib.contextmanager
def _closed_on_error(exchange: Exchange) -> Iterator[None]:
    try:
        yield
    except BaseException:
        exchange.close()
        raise
