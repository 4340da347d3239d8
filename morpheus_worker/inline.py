"""Media that come as text: data URIs (RFC 2397) and base64 (RFC 4648)."""

from __future__ import annotations

import binascii
import mimetypes
import re
import urllib.parse
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from morpheus_worker.contents import HEAD_BYTES
from morpheus_worker.errors import Code, MediaRefusedError

FORMS: Final = "a volume path, an http, https or s3 URL, a data URI or base64"
"""What a medium may be sent as, told to whoever sent something else."""

SHORTEST_BASE64: Final = 64
"""In characters. A shorter text without a scheme is a path, whatever else it might be."""

CHUNK_CHARACTERS: Final = 1024 * 1024
"""What is decoded at once, so that a large medium is in memory once, as the text that it came as."""

_DATA_URI: Final = re.compile(r"data:(?P<type>[^;,]*)(?P<options>(?:;[^;,]*)*),", re.IGNORECASE)
_BASE64: Final = re.compile(r"[A-Za-z0-9+/]*")
_BLANKS: Final = " \t\r\n"


@dataclass(frozen=True, slots=True)
class DataUri:
    """The prefix of a data URI: what it says of its content, which begins at `start`."""

    media_type: str
    is_base64: bool
    start: int

    @property
    def suffix(self) -> str:
        """The ending of a file of the media type, or nothing."""
        return mimetypes.guess_extension(self.media_type) or ""


def data_uri(text: str) -> DataUri | None:
    """The prefix, when the text is a data URI."""
    match = _DATA_URI.match(text)
    if match is None:
        return None
    return DataUri(match["type"].strip().lower(), ";base64" in match["options"].lower(), match.end())


def base64_head(text: str, start: int = 0) -> bytes | None:
    """The first bytes of what the text can be the base64 of; None when it is something else, or too short to tell."""
    compact = "".join(text[start : start + 2 * HEAD_BYTES].split()).rstrip("=")
    if len(compact) < SHORTEST_BASE64 or not _BASE64.fullmatch(compact):
        return None
    return binascii.a2b_base64(compact[: len(compact) // 4 * 4])


def base64_chunks(text: str, start: int, max_bytes: int) -> Iterator[bytes]:
    """Decodes base64 from `start` on, piece by piece; line breaks, missing padding and percent-encoding are forgiven.

    Raises:
        MediaRefusedError: when it is not base64, or larger than `max_bytes`.
    """
    if text.find("%", start) != -1:
        text, start = urllib.parse.unquote(text[start:]), 0
    end = len(text)
    while end > start and text[end - 1] in "=" + _BLANKS:
        end -= 1
    length = end - start
    if length * 3 // 4 > max_bytes:
        check_size((length - sum(text.count(blank, start, end) for blank in _BLANKS)) * 3 // 4, max_bytes)
    has_blanks = any(text.find(blank, start, end) != -1 for blank in _BLANKS)
    rest = ""
    try:
        for at in range(start, end, CHUNK_CHARACTERS):
            piece = text[at : min(at + CHUNK_CHARACTERS, end)]
            compact = rest + ("".join(piece.split()) if has_blanks else piece)
            whole = len(compact) // 4 * 4
            rest = compact[whole:]
            # Padding ends base64, so within it there is none.
            if "=" in compact:
                raise binascii.Error
            yield binascii.a2b_base64(compact[:whole], strict_mode=True)
        yield binascii.a2b_base64(rest + "=" * (-len(rest) % 4), strict_mode=True)
    except ValueError:
        raise MediaRefusedError(Code.INPUT_REJECTED, "is not valid base64") from None


def percent_decoded(text: str, start: int, max_bytes: int) -> bytes:
    """The bytes from `start` on, as a data URI without base64 writes them.

    Raises:
        MediaRefusedError: when they are more than `max_bytes`.
    """
    data = urllib.parse.unquote_to_bytes(text[start:])
    check_size(len(data), max_bytes)
    return data


def check_size(size: int, max_bytes: int) -> None:
    """Refuses what is larger than allowed, in bytes.

    Raises:
        MediaRefusedError: `input_rejected`.
    """
    if size > max_bytes:
        raise MediaRefusedError(Code.INPUT_REJECTED, f"has {size} bytes, more than the {max_bytes} allowed")
