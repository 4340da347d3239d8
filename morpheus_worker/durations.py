"""How long a video or sound lasts and how large its picture is, as its container says: nothing is decoded.

Sources: ISO/IEC 14496-12 (MP4, QuickTime), RFC 8794 and 9559 (Matroska, WebM), RFC 9639 (FLAC), RFC 3533 and 7845 and
"Vorbis I" (Ogg), Microsoft's RIFF and EBU Tech 3306 (WAV, AVI), the tag of LAME (MP3).
"""

from __future__ import annotations

import io
import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from typing import BinaryIO, Final, TypeVar

from morpheus_worker.contents import HEAD_BYTES, content_of

MOST_PARTS: Final = 10_000
"""Boxes, chunks or elements that are walked over before a file is given up: an hour of WebM has a few thousand."""

LONGEST_HEADER_BYTES: Final = 256
"""Most that is read of one of them. What is looked for stands at their beginning."""

OGG_TAIL_BYTES: Final = 128 * 1024
"""Where the last page of an Ogg file begins at the earliest: a page has at most 65,307 bytes."""

_Found = TypeVar("_Found")

Part = tuple[bytes, int, int]
"""A box, chunk or element: its kind, and where in the file its content begins and ends."""


def duration_of(path: Path, media_type: str) -> float | None:
    """Seconds; None for what is neither video nor sound, and for a file that does not say or is broken."""
    if not media_type.startswith(("video/", "audio/")):
        return None
    seconds = _read(path, _DURATIONS)
    return seconds if seconds is not None and math.isfinite(seconds) and seconds > 0 else None


def video_size_of(path: Path) -> tuple[int, int] | None:
    """(width, height) in pixels as shown, of an MP4, QuickTime, Matroska or WebM file; None when it does not say."""
    return _read(path, _SIZES)


def _read(path: Path, readers: Mapping[str, Callable[[BinaryIO], _Found | None]]) -> _Found | None:
    try:
        with path.open("rb", buffering=0) as stream:
            content = content_of(stream.read(HEAD_BYTES))
            reader = readers.get(content.media_type) if content else None
            return reader(stream) if reader else None
    except (OSError, ValueError, LookupError, ArithmeticError, struct.error):
        # A header that was cut short, or that leads to where nothing is.
        return None


def _at(stream: BinaryIO, start: int, end: int) -> bytes:
    stream.seek(start)
    return stream.read(min(end - start, LONGEST_HEADER_BYTES))


def _size(stream: BinaryIO) -> int:
    return stream.seek(0, io.SEEK_END)


def _first(parts: Iterator[Part], kind: bytes) -> Part | None:
    return next((part for part in parts if part[0] == kind), None)


# --- MP4 and QuickTime: boxes


def _boxes(stream: BinaryIO, start: int, end: int) -> Iterator[Part]:
    """The boxes one after the other: a size, in 64 bits where it says 1, to the end where it says 0, and a kind."""
    for _ in range(MOST_PARTS):
        head = _at(stream, start, end)
        if len(head) < 8:
            return
        size, kind = struct.unpack(">I4s", head[:8])
        first = start + 8
        if size == 1:
            size, first = struct.unpack(">Q", head[8:16])[0], start + 16
        size = size or end - start
        if size < first - start:
            return
        yield kind, first, min(start + size, end)
        start += size


def _inside(stream: BinaryIO, *kinds: bytes) -> Part | None:
    """The box that is reached through these, each the first of its kind in the one before."""
    part: Part | None = (b"", 0, _size(stream))
    for kind in kinds:
        if part is None:
            return None
        part = _first(_boxes(stream, *part[1:]), kind)
    return part


def _movie_duration(stream: BinaryIO) -> float | None:
    """A movie in fragments says 0 in its header, and its whole duration in the header of its extension."""
    header = _inside(stream, b"moov", b"mvhd")
    if header is None:
        return None
    raw = _at(stream, *header[1:])
    scale, units = struct.unpack(">IQ", raw[20:32]) if raw[0] == 1 else struct.unpack(">II", raw[12:20])
    is_unknown = units in (0xFFFFFFFF, 0xFFFFFFFFFFFFFFFF)
    if units and not is_unknown:
        return float(units / scale)
    extension = _inside(stream, b"moov", b"mvex", b"mehd")
    if extension is None:
        return None
    raw = _at(stream, *extension[1:])
    return float(struct.unpack(">Q" if raw[0] == 1 else ">I", raw[4 : 12 if raw[0] == 1 else 8])[0] / scale)


def _movie_size(stream: BinaryIO) -> tuple[int, int] | None:
    """That of the first track that has one, turned as its matrix says."""
    movie = _inside(stream, b"moov")
    for kind, start, end in _boxes(stream, *movie[1:]) if movie else ():
        header = _first(_boxes(stream, start, end), b"tkhd") if kind == b"trak" else None
        if header is None:
            continue
        raw = _at(stream, *header[1:])
        after = 52 if raw[0] == 1 else 40
        a, _b, _u, _c, d, *_rest, width, height = struct.unpack(">9i2I", raw[after : after + 44])
        width, height = width >> 16, height >> 16
        if width and height:
            return (height, width) if a == d == 0 else (width, height)
    return None


# --- Matroska and WebM: elements

_SEGMENT, _INFO, _SCALE, _DURATION = b"\x18\x53\x80\x67", b"\x15\x49\xa9\x66", b"\x2a\xd7\xb1", b"\x44\x89"
_TRACKS, _TRACK, _VIDEO, _WIDTH, _HEIGHT = b"\x16\x54\xae\x6b", b"\xae", b"\xe0", b"\xb0", b"\xba"


def _elements(stream: BinaryIO, start: int, end: int) -> Iterator[Part]:
    """The elements one after the other: an id and a size, each of a length that its first byte tells. One of unknown
    size, as a live stream has, goes to the end."""
    for _ in range(MOST_PARTS):
        head = _at(stream, start, min(end, start + 12))
        id_length = 9 - _bits(head)
        length = 9 - _bits(head[id_length:])
        if id_length > 4 or length > 8 or len(head) < id_length + length:
            return
        largest = (1 << 7 * length) - 1
        size = int.from_bytes(head[id_length : id_length + length], "big") & largest
        first = start + id_length + length
        stop = end if size == largest else min(first + size, end)
        yield head[:id_length], first, stop
        start = stop


def _bits(raw: bytes) -> int:
    """How many bits of the first byte are left from the highest one that is set."""
    return raw[0].bit_length() if raw else 0


def _element(stream: BinaryIO, *kinds: bytes) -> Part | None:
    part: Part | None = (b"", 0, _size(stream))
    for kind in kinds:
        if part is None:
            return None
        part = _first(_elements(stream, *part[1:]), kind)
    return part


def _matroska_duration(stream: BinaryIO) -> float | None:
    info = _element(stream, _SEGMENT, _INFO)
    if info is None:
        return None
    told = _told(stream, info)
    raw = told.get(_DURATION, b"")
    if len(raw) not in (4, 8):
        return None
    nanoseconds = int.from_bytes(told.get(_SCALE, b""), "big") or 1_000_000
    return float(struct.unpack(">f" if len(raw) == 4 else ">d", raw)[0] * nanoseconds / 1e9)


def _matroska_size(stream: BinaryIO) -> tuple[int, int] | None:
    tracks = _element(stream, _SEGMENT, _TRACKS)
    for kind, start, end in _elements(stream, *tracks[1:]) if tracks else ():
        video = _first(_elements(stream, start, end), _VIDEO) if kind == _TRACK else None
        if video is not None:
            told = _told(stream, video)
            return int.from_bytes(told[_WIDTH], "big"), int.from_bytes(told[_HEIGHT], "big")
    return None


def _told(stream: BinaryIO, parent: Part) -> dict[bytes, bytes]:
    return {kind: _at(stream, first, end) for kind, first, end in _elements(stream, *parent[1:])}


# --- sounds, and AVI


def _wav_duration(stream: BinaryIO) -> float | None:
    """The size of the samples by the bytes a second. One that was written to a pipe does not know its own size, and one
    of more than 4 GiB keeps it in a chunk of its own (`ds64`)."""
    whole, bytes_a_second, long_size = _size(stream), 0, 0
    start = 12
    for _ in range(MOST_PARTS):
        head = _at(stream, start, start + 40)
        kind, size = struct.unpack("<4sI", head[:8])
        if kind == b"fmt ":
            bytes_a_second = struct.unpack("<I", head[16:20])[0]
        elif kind == b"ds64":
            long_size = struct.unpack("<Q", head[16:24])[0]
        elif kind == b"data":
            told = long_size or size
            rest = whole - start - 8
            return float((told if 0 < told < 0xFFFFFFFF or long_size else rest) / bytes_a_second)
        start += 8 + size + size % 2
    return None


def _avi_duration(stream: BinaryIO) -> float | None:
    raw = _at(stream, 0, 52)
    if raw[24:28] != b"avih":
        return None
    microseconds_a_frame, frames = struct.unpack("<I", raw[32:36])[0], struct.unpack("<I", raw[48:52])[0]
    return float(microseconds_a_frame * frames / 1e6)


def _flac_duration(stream: BinaryIO) -> float | None:
    packed = struct.unpack(">Q", _at(stream, 18, 26))[0]
    return float((packed & (1 << 36) - 1) / (packed >> 44))


def _ogg_duration(stream: BinaryIO) -> float | None:
    """The last page of the first stream tells how many samples there are up to its end."""
    head = _at(stream, 0, LONGEST_HEADER_BYTES)
    serial, packet = head[14:18], head[27 + head[26] :]
    skipped = 0
    if packet.startswith(b"OpusHead"):
        skipped, rate = struct.unpack("<H", packet[10:12])[0], 48_000
    elif packet.startswith(b"\x01vorbis"):
        rate = struct.unpack("<I", packet[12:16])[0]
    elif packet.startswith(b"\x7fFLAC"):
        rate = struct.unpack(">Q", packet[27:35])[0] >> 44
    else:
        return None
    stream.seek(max(0, _size(stream) - OGG_TAIL_BYTES))
    tail = stream.read(OGG_TAIL_BYTES)
    at = len(tail)
    while (at := tail.rfind(b"OggS", 0, at)) != -1:
        header = tail[at + 6 : at + 18]
        if header[8:] == serial and (samples := struct.unpack("<q", header[:8])[0]) >= 0:
            return float((samples - skipped) / rate)
    return None


def _mp3_duration(stream: BinaryIO) -> float | None:
    """The encoder's tag in the first frame, behind whatever else was put before it. Without the tag it does not say."""
    start, head = 0, _at(stream, 0, 10)
    if head[:3] == b"ID3":
        start = 10 + sum((byte & 0x7F) << 7 * place for place, byte in enumerate(reversed(head[6:10])))
    frame = _at(stream, start, start + LONGEST_HEADER_BYTES)
    at = max(frame.find(b"Xing"), frame.find(b"Info"))
    if at == -1 or not frame[at + 7] & 1:
        return None
    version = frame[1] >> 3 & 3
    rate = (44_100, 48_000, 32_000)[min(frame[2] >> 2 & 3, 2)] // {3: 1, 2: 2}.get(version, 4)
    frames = struct.unpack(">I", frame[at + 8 : at + 12])[0]
    return float(frames * (1152 if version == 3 else 576) / rate)


_DURATIONS: Final[Mapping[str, Callable[[BinaryIO], float | None]]] = {
    **dict.fromkeys(("video/mp4", "video/quicktime", "audio/mp4", "video/3gpp"), _movie_duration),
    **dict.fromkeys(("video/x-matroska", "video/webm"), _matroska_duration),
    **dict.fromkeys(("audio/ogg", "audio/opus"), _ogg_duration),
    "audio/wav": _wav_duration,
    "audio/flac": _flac_duration,
    "audio/mpeg": _mp3_duration,
    "video/x-msvideo": _avi_duration,
}
_SIZES: Final[Mapping[str, Callable[[BinaryIO], tuple[int, int] | None]]] = {
    **dict.fromkeys(("video/mp4", "video/quicktime", "video/3gpp"), _movie_size),
    **dict.fromkeys(("video/x-matroska", "video/webm"), _matroska_size),
}
