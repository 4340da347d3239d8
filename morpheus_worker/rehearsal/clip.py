"""Writes pictures as an MP4 file: Motion JPEG, which needs no encoder but Pillow's.

Source: ISO/IEC 14496-12 (boxes) and 14496-1 (the decoder's description; object type 0x6C is JPEG). Common players and
FFmpeg read it; browsers do not play Motion JPEG.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Sequence
from typing import TYPE_CHECKING, Final

if TYPE_CHECKING:
    from PIL.Image import Image

TIMESCALE: Final = 90_000
"""Units of time a second."""

JPEG_QUALITY: Final = 85
_JPEG_OBJECT_TYPE: Final = 0x6C
_MATRIX: Final = struct.pack(">9I", 0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 0x40000000)


def mp4(frames: Sequence[Image], fps: float) -> bytes:
    """The file's bytes. The frames must all be of one size."""
    # A long batch repeats the same picture objects: each is compressed once.
    compressed = {id(frame): _jpeg(frame) for frame in {id(frame): frame for frame in frames}.values()}
    pictures = [compressed[id(frame)] for frame in frames]
    head = _box(b"ftyp", b"isom" + struct.pack(">I", 0x200) + b"isomiso2mp41")
    media = _box(b"mdat", b"".join(pictures))
    first = len(head) + 8
    return head + media + _movie(frames[0].size, [len(picture) for picture in pictures], first, fps)


def _jpeg(frame: Image) -> bytes:
    content = io.BytesIO()
    frame.convert("RGB").save(content, "JPEG", quality=JPEG_QUALITY)
    return content.getvalue()


def _box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


def _full(kind: bytes, *contents: bytes, flags: int = 0) -> bytes:
    return _box(kind, struct.pack(">I", flags), *contents)


def _movie(size: tuple[int, int], lengths: list[int], first: int, fps: float) -> bytes:
    step = max(1, round(TIMESCALE / fps))
    duration = step * len(lengths)
    head = struct.pack(">4I", 0, 0, TIMESCALE, duration) + struct.pack(">IH10x", 0x10000, 0x100)
    return _box(
        b"moov",
        _full(b"mvhd", head, _MATRIX, bytes(24), struct.pack(">I", 2)),
        _track(size, lengths, first, step, duration),
    )


def _track(size: tuple[int, int], lengths: list[int], first: int, step: int, duration: int) -> bytes:
    width, height = size
    head = (
        struct.pack(">5I", 0, 0, 1, 0, duration) + bytes(16) + _MATRIX + struct.pack(">2I", width << 16, height << 16)
    )
    handler = struct.pack(">I4s12x", 0, b"vide") + b"rehearsal\0"
    information = _box(
        b"minf",
        _full(b"vmhd", bytes(8), flags=1),
        _box(b"dinf", _full(b"dref", struct.pack(">I", 1), _full(b"url ", flags=1))),
        _samples(size, lengths, first, step),
    )
    media = _box(
        b"mdia",
        _full(b"mdhd", struct.pack(">4IHH", 0, 0, TIMESCALE, duration, 0x55C4, 0)),
        _full(b"hdlr", handler),
        information,
    )
    return _box(b"trak", _full(b"tkhd", head, flags=3), media)


def _samples(size: tuple[int, int], lengths: list[int], first: int, step: int) -> bytes:
    count = len(lengths)
    return _box(
        b"stbl",
        _full(b"stsd", struct.pack(">I", 1), _description(size)),
        _full(b"stts", struct.pack(">3I", 1, count, step)),
        _full(b"stsc", struct.pack(">4I", 1, 1, count, 1)),
        _full(b"stsz", struct.pack(">2I", 0, count), struct.pack(f">{count}I", *lengths)),
        _full(b"stco", struct.pack(">2I", 1, first)),
    )


def _description(size: tuple[int, int]) -> bytes:
    decoder = _descriptor(4, struct.pack(">BBHBII", _JPEG_OBJECT_TYPE, 0x11, 0, 0, 0, 0))
    stream = _descriptor(3, struct.pack(">HB", 1, 0), decoder, _descriptor(6, b"\x02"))
    visual = struct.pack(">6xH16xHHIIIH32sHh", 1, *size, 0x480000, 0x480000, 0, 1, b"", 24, -1)
    return _box(b"mp4v", visual, _full(b"esds", stream))


def _descriptor(tag: int, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return bytes((tag, len(content))) + content
