"""What a host's answer means: status and headers in, values and `SyncError`s out.

Nothing here repeats what a host wrote of its own: a header may hold whatever was sent to it, a key among it.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from email.message import Message
from email.utils import collapse_rfc2231_value, parsedate_to_datetime
from http import HTTPStatus
from typing import Final

from morpheus_worker.sync.terms import SyncCode, SyncError

REDIRECTS: Final = frozenset({301, 302, 303, 307, 308})
REFUSED: Final = frozenset({401, 403, 404, 410})
"""What a signed address answers once it is not good any more."""

_DENIED: Final = frozenset({401, 402, 403, 407, 451})
_GONE: Final = frozenset({404, 410})
_PASSING: Final = frozenset({408, 421, 425, 429})
_NEVER: Final = frozenset({501, 505})
"""Of the 5xx those that no second try changes."""

_CONTENT_RANGE: Final = re.compile(r"\s*bytes\s+(?:(\d{1,18})-(\d{1,18})|\*)/(\d{1,18}|\*)\s*", re.IGNORECASE)
_COUNT: Final = re.compile(r"[0-9]{1,18}")
_STRONG_ETAG: Final = re.compile(r'"[\x21\x23-\x7e]{1,512}"')
_SHA256: Final = re.compile(r'(?:W/)?"?([0-9a-fA-F]{64})"?')
_RESET: Final = re.compile(r"(?:^|;)\s*t=(\d{1,9})")
_PAGES: Final = frozenset({"text/html", "application/xhtml+xml"})
_PLAIN: Final = frozenset({"", "identity"})


@dataclass(frozen=True, slots=True)
class Answer:
    """A status and headers, their names in lower case."""

    status: int
    headers: Mapping[str, str] = field(default_factory=dict)

    def header(self, name: str) -> str:
        return self.headers.get(name, "")

    @property
    def said(self) -> str:
        """`answered 404 (Not Found)`."""
        try:
            return f"answered {self.status} ({HTTPStatus(self.status).phrase})"
        except ValueError:
            return f"answered {self.status}"

    @property
    def length(self) -> int | None:
        """Of the body, in bytes."""
        return None if self.header("transfer-encoding") else count_in(self.header("content-length"))

    @property
    def etag(self) -> str | None:
        """The validator of these very bytes, quotes included; a weak one (RFC 9110, 8.8.1) is none."""
        return strong_etag(self.header("etag"))

    @property
    def content_range(self) -> ContentRange | None:
        return ContentRange.read(self.header("content-range"))

    @property
    def is_page(self) -> bool:
        return self.header("content-type").partition(";")[0].strip().lower() in _PAGES

    @property
    def filename(self) -> str | None:
        """What `Content-Disposition` calls the file: `filename*` before `filename` (RFC 6266, 4.3). Unchecked."""
        header = Message()
        header["Content-Disposition"] = (
            self.header("content-disposition").encode("latin-1", "replace").decode("utf-8", "replace")
        )
        try:
            params = header.get_params([], "Content-Disposition")
        except (TypeError, ValueError):
            # `email` cannot order a name that is given in pieces and whole.
            return None
        names = [value for key, value in params if key.lower() == "filename"]
        names.sort(key=lambda value: isinstance(value, str))
        return collapse_rfc2231_value(names[0]) or None if names else None


@dataclass(frozen=True, slots=True)
class ContentRange:
    """From `start` to `end` (exclusive) of `total` bytes; without a start where nothing of what was asked is there."""

    start: int | None
    end: int | None
    total: int | None

    @classmethod
    def read(cls, text: str) -> ContentRange | None:
        match = _CONTENT_RANGE.fullmatch(text)
        if match is None:
            return None
        first, last, total = match.groups()
        whole = None if total == "*" else int(total)
        if first is None:
            return cls(None, None, whole)
        if int(last) < int(first) or (whole is not None and int(last) >= whole):
            return None
        return cls(int(first), int(last) + 1, whole)


def count_in(text: str) -> int | None:
    """The number of bytes that a header says, or None."""
    return int(text) if _COUNT.fullmatch(text.strip()) else None


def strong_etag(text: str) -> str | None:
    return text.strip() if _STRONG_ETAG.fullmatch(text.strip()) else None


def sha256_in(etag: str) -> str | None:
    """The hash that Hugging Face's `X-Linked-ETag` is for a large file; a small one's is a Git hash, and none."""
    match = _SHA256.fullmatch(etag.strip())
    return match[1].lower() if match else None


def retry_after_s(answer: Answer, now_s: float) -> float:
    """How long the host asks to be left alone: in seconds or until a date (RFC 9110, 10.2.3), else by the `t` of
    `RateLimit` (Hugging Face); 0 where it says nothing that can be read. `now_s` is the time of day since 1970."""
    text = answer.header("retry-after").strip()
    if text.isdecimal():
        return float(text[:9])
    try:
        return max(0.0, parsedate_to_datetime(text).timestamp() - now_s)
    except (ValueError, OverflowError):
        reset = _RESET.search(answer.header("ratelimit"))
        return float(reset[1]) if reset and answer.status == HTTPStatus.TOO_MANY_REQUESTS else 0.0


@dataclass(frozen=True, slots=True)
class Access:
    """What a host was shown of who asks: `variable` is where the key for it stands, `sent` whether it was sent.

    `grants` completes the hint: where a key, or the right to the file, is to be had. `withheld`: there is a key, but
    the address is plain http, which none is sent over.
    """

    variable: str | None = None
    sent: bool = False
    grants: str | None = None
    withheld: bool = False

    @property
    def hint(self) -> str:
        if self.variable is None:
            return "name the variable that holds its key in 'auth_env'"
        if self.withheld:
            return f"the key in {self.variable} is sent over https only"
        said = f"check the key in {self.variable}" if self.sent else f"set {self.variable} to a key for it"
        return f"{said}; {self.grants}" if self.grants else said


def refusal(answer: Answer, told: str, access: Access, now_s: float) -> SyncError:
    """What an answer that is no success says, of an address that a person wrote. `told` begins the sentence."""
    status, said = answer.status, f"{told} {answer.said}"
    if status in _PASSING or (status >= 500 and status not in _NEVER):
        return SyncError(SyncCode.UNREACHABLE, said, passing=True, after_s=retry_after_s(answer, now_s))
    if status in _DENIED:
        return denied(told, access)
    if status in _GONE:
        return SyncError(SyncCode.NOT_FOUND, said, "check the address")
    return SyncError(SyncCode.UNREACHABLE, said)


def denied(told: str, access: Access) -> SyncError:
    """The host wants a key, or another one."""
    what = f"{told} does not accept the key in {access.variable}" if access.sent else f"{told} asks for a key"
    return SyncError(SyncCode.ACCESS_DENIED, what, access.hint)


def expired(answer: Answer, told: str) -> SyncError:
    """A signed address refuses: that says nothing of the file, and another one is to be had."""
    return SyncError(SyncCode.UNREACHABLE, f"{told} {answer.said}", passing=True, expired=True)


def check_plain(answer: Answer, told: str, *, page_expected: bool = False) -> None:
    """That a good answer may be the file itself. A refusal may well be a page.

    Raises:
        SyncError: `rejected`: a web page, or bytes that are encoded and so not the file's own.
    """
    if answer.status >= HTTPStatus.BAD_REQUEST:
        return
    if answer.header("content-encoding").strip().lower() not in _PLAIN:
        hint = "the host must store the file without a content encoding"
        raise SyncError(SyncCode.REJECTED, f"{told} sends its content encoded, though it was asked not to", hint)
    if answer.is_page and not page_expected:
        raise SyncError(
            SyncCode.REJECTED, f"{told} answered with a web page, no file", "it may ask for a login, or for consent"
        )


@dataclass(frozen=True, slots=True)
class Sent:
    """Which bytes an answer holds: from `start`, `length` of them (None: until it ends), of `total`."""

    start: int
    length: int | None
    total: int | None
    ranged: bool


def sent(answer: Answer, told: str, start: int, end: int | None, size: int | None) -> Sent:
    """Which bytes came of those from `start` to `end`, of a file known to have `size` bytes.

    Raises:
        SyncError: `changed` when the file has another size now; passing when it sent others than it was asked for.
    """
    within = answer.content_range
    if answer.status in (412, 416):
        raise _not_these(answer, told, start, within, size)
    partial = answer.status == HTTPStatus.PARTIAL_CONTENT
    total = within.total if partial and within else answer.length if not partial else None
    if size is not None and total is not None and total != size:
        raise changed(told, f"has {total} bytes now, not {size}")
    if not partial:
        return Sent(0, answer.length, total, ranged=start == 0 and end is None)
    if within is None or within.start != start or within.end is None or (end is not None and within.end > end):
        raise _others(told, start, end)
    length = within.end - start
    if answer.length is not None and answer.length != length:
        raise _others(told, start, end)
    return Sent(start, length, total, ranged=True)


def changed(told: str, how: str) -> SyncError:
    return SyncError(SyncCode.CHANGED, f"{told} {how}", "the file was replaced; lock it anew")


def _others(told: str, start: int, end: int | None) -> SyncError:
    asked = f"{start} to {end - 1}" if end is not None else f"{start} on"
    return SyncError(
        SyncCode.UNREACHABLE, f"{told} sent other bytes than {asked}, which it was asked for", passing=True
    )


def _not_these(answer: Answer, told: str, start: int, within: ContentRange | None, size: int | None) -> SyncError:
    total = within.total if within else None
    if answer.status == HTTPStatus.PRECONDITION_FAILED:
        return changed(told, "has another version now")
    if total is not None and (total <= start or total != size):
        return changed(told, f"has {total} bytes now" + ("" if size is None else f", not {size}"))
    return SyncError(SyncCode.UNREACHABLE, f"{told} {answer.said} although it has those bytes", passing=True)
