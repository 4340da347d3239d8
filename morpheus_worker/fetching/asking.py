"""One request and its answer: to addresses that were checked, in words when it fails."""

from __future__ import annotations

import contextlib
import os
import socket
import ssl
import time
from collections.abc import AsyncIterator, Iterator, Sequence
from email.message import Message
from email.utils import collapse_rfc2231_value, parsedate_to_datetime
from functools import cache
from http import HTTPStatus
from typing import Final

import aiohttp
import certifi
from aiohttp.abc import AbstractResolver, ResolveResult
from yarl import URL

from morpheus_worker import __version__
from morpheus_worker.addresses import Address, MediaUrl
from morpheus_worker.errors import Code, MediaRefusedError
from morpheus_worker.fetching.terms import Pace, PassingError, Terms

BUFFER_BYTES: Final = 512 * 1024
"""What a connection may hold in memory, twice, before its sender has to wait."""

_GOOD: Final = frozenset({200, 203})
_PASSING: Final = frozenset({408, 429})
_PLAIN: Final = frozenset({"", "identity"})

_HINTS: Final = {
    401: "the URL must need no login; a presigned one may have expired",
    403: "the URL must need no login; a presigned one may have expired",
    404: "check the URL",
    410: "check the URL",
}


@contextlib.asynccontextmanager
async def asked(
    url: MediaUrl, addresses: Sequence[Address], terms: Terms, told: str
) -> AsyncIterator[aiohttp.ClientResponse]:
    """The answer to one GET, from one of `addresses`. Nothing is left open afterwards."""
    # A session for each hop: it can reach the addresses that were checked for this hop, and nothing else.
    connector = aiohttp.TCPConnector(
        resolver=_Checked(addresses),
        use_dns_cache=False,
        force_close=True,
        ssl=(terms.tls or _trust()) if url.scheme == "https" else True,
    )
    with _in_words(told, terms.pace):
        async with (
            aiohttp.ClientSession(
                connector=connector,
                cookie_jar=aiohttp.DummyCookieJar(),
                timeout=aiohttp.ClientTimeout(total=None, connect=terms.pace.connect_s),
                headers={"Accept-Encoding": "identity", "User-Agent": f"morpheus-worker/{__version__}"},
                auto_decompress=False,
                trust_env=False,
                read_bufsize=BUFFER_BYTES,
            ) as session,
            session.get(URL(url.text, encoded=True), allow_redirects=False) as answer,
        ):
            yield answer


class _Checked(AbstractResolver):
    """A resolver in aiohttp's sense that knows one host, and only the addresses of it that were checked."""

    def __init__(self, addresses: Sequence[Address]) -> None:
        self._addresses = addresses

    async def resolve(self, host: str, port: int = 0, family: int = 0) -> list[ResolveResult]:  # noqa: ARG002
        return [
            {
                "hostname": host,
                "host": str(address),
                "port": port,
                "family": socket.AF_INET if address.version == 4 else socket.AF_INET6,
                "proto": 0,
                "flags": socket.AI_NUMERICHOST,
            }
            for address in self._addresses
        ]

    async def close(self) -> None:
        """Nothing is open."""


@cache
def _trust() -> ssl.SSLContext:
    """certifi's authorities, because slim images have none, and those that the machine itself trusts."""
    context = ssl.create_default_context(cafile=certifi.where())
    context.load_default_certs()
    return context


@contextlib.contextmanager
def _in_words(told: str, pace: Pace) -> Iterator[None]:
    """What went wrong on the way, as a sentence about the medium."""
    try:
        yield
    except aiohttp.ClientSSLError:
        said = f"{told} has no certificate that can be trusted, or does not speak TLS"
        raise MediaRefusedError(Code.INPUT_UNREACHABLE, said, retryable=False) from None
    except aiohttp.ServerTimeoutError:
        raise PassingError(f"{told} took no connection within {pace.connect_s:g} s") from None
    except aiohttp.ClientConnectorError as failure:
        # Its own text names the address that was looked up.
        reason = f": {os.strerror(failure.errno)}" if failure.errno else ""
        raise PassingError(f"{told} takes no connection{reason}") from None
    except (aiohttp.ClientConnectionError, aiohttp.ClientPayloadError):
        raise PassingError(f"{told} cut the connection") from None
    except aiohttp.ClientError:
        raise MediaRefusedError(Code.INPUT_UNREACHABLE, f"{told} did not answer in HTTP", retryable=False) from None


def check(answer: aiohttp.ClientResponse, told: str, pace: Pace) -> None:
    """Refuses an answer that is not the medium itself, in full and as it is."""
    status = answer.status
    if status not in _GOOD:
        said = f"{told} answered {status}{_phrase(status)}"
        if status < 500 and status not in _PASSING:
            raise MediaRefusedError(Code.INPUT_UNREACHABLE, said, _HINTS.get(status), retryable=False)
        after_s = _retry_after_s(answer.headers.get("Retry-After", ""))
        if after_s > pace.longest_wait_s:
            raise MediaRefusedError(Code.INPUT_UNREACHABLE, said, f"it asks to come back in {after_s:.0f} s")
        raise PassingError(said, after_s=after_s)
    encoding = answer.headers.get("Content-Encoding", "").strip().lower()
    if encoding not in _PLAIN:
        said = f"{told} sends its content encoded ('{encoding[:20]}'), though it was asked not to"
        raise MediaRefusedError(Code.INPUT_REJECTED, said, "store the file without a content encoding")


def _phrase(status: int) -> str:
    try:
        return f" ({HTTPStatus(status).phrase})"
    except ValueError:
        return ""


def _retry_after_s(text: str) -> float:
    """Seconds, or the seconds until a date (RFC 9110, 10.2.3)."""
    if text.strip().isdecimal():
        return float(text)
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - time.time())
    except ValueError:
        return 0.0


def media_type(answer: aiohttp.ClientResponse) -> str | None:
    return answer.headers.get("Content-Type", "").partition(";")[0].strip().lower() or None


def filename(answer: aiohttp.ClientResponse) -> str | None:
    """`filename*`, which can hold any character, before `filename` (RFC 6266, 4.3)."""
    header = Message()
    header["Content-Disposition"] = _readable(answer.headers.get("Content-Disposition", ""))
    params = header.get_params([], "Content-Disposition")
    names = [value for key, value in params if key.lower() == "filename"]
    names.sort(key=lambda value: isinstance(value, str))
    return collapse_rfc2231_value(names[0]) or None if names else None


def _readable(text: str) -> str:
    """A header as text: aiohttp hands on as half surrogate pairs what is not UTF-8."""
    return text.encode(errors="surrogateescape").decode(errors="replace")
