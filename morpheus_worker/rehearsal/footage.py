"""Reads a clip: how many pictures it has, how fast, how large; and the pictures, where no decoder but Pillow's is
needed.

That is Motion JPEG in MP4 or QuickTime, which is what a rehearsal writes, GIF, WebP and APNG. Of every other MP4 the
container tells the length; of WebM and Matroska too. Source of the boxes: ISO/IEC 14496-12.
"""

from __future__ import annotations

import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Final

from morpheus_worker.contents import HEAD_BYTES, content_of
from morpheus_worker.durations import duration_of, video_size_of
from morpheus_worker.rehearsal.values import DEFAULT_SIDE

if TYPE_CHECKING:
    from PIL.Image import Image

DEFAULT_FPS: Final = 24.0
UNKNOWN_LENGTH_S: Final = 2.0
"""Length of a clip that does not say how long it is, in seconds."""

DEFAULT_DELAY_MS: Final = 100.0
"""Between the pictures of an animation that does not say."""

_JPEG: Final = b"\xff\xd8"
_CONTAINERS: Final = frozenset({b"moov", b"trak", b"mdia", b"minf", b"stbl"})


@dataclass(frozen=True, slots=True)
class Footage:
    """A clip's length in pictures, its speed, its size in pixels, and whether it has sound. `pictures` are None when
    they cannot be read."""

    count: int
    fps: float
    size: tuple[int, int]
    has_sound: bool = False
    pictures: tuple[Image, ...] | None = None

    @property
    def seconds(self) -> float:
        return self.count / self.fps


def read_footage(path: Path, most: int) -> Footage:
    """The clip, with at most this many of its pictures.

    Raises:
        OSError: when the file cannot be read, or is an animation that Pillow cannot open.
    """
    with path.open("rb") as stream:
        known = content_of(stream.read(HEAD_BYTES))
    media_type = known.media_type if known else ""
    if media_type.startswith("image/"):
        return _animation(path, most)
    if media_type in ("video/mp4", "video/quicktime", "video/3gpp") and (found := _movie(path, most)) is not None:
        return found
    seconds = duration_of(path, media_type or "video/mp4") or UNKNOWN_LENGTH_S
    size = video_size_of(path) or (DEFAULT_SIDE, DEFAULT_SIDE)
    return Footage(max(1, round(seconds * DEFAULT_FPS)), DEFAULT_FPS, size)


def _animation(path: Path, most: int) -> Footage:
    from PIL import Image, ImageSequence

    with Image.open(path) as opened:
        count = getattr(opened, "n_frames", 1)
        pictures: list[Image.Image] = []
        delays: list[float] = []
        for frame in ImageSequence.Iterator(opened):
            if len(pictures) == most:
                break
            pictures.append(frame.convert("RGB"))
            delays.append(float(frame.info.get("duration") or DEFAULT_DELAY_MS))
    return Footage(count, 1000.0 * len(delays) / sum(delays), pictures[0].size, pictures=tuple(pictures))


@dataclass(slots=True)
class _Track:
    """What a track's boxes say."""

    kind: bytes = b""
    scale: int = 0
    size: tuple[int, int] = (0, 0)
    durations: tuple[tuple[int, int], ...] = ()
    lengths: tuple[int, ...] = ()
    chunks: tuple[int, ...] = ()
    per_chunk: tuple[tuple[int, int], ...] = ()

    def samples(self) -> Iterator[tuple[int, int]]:
        """Where each sample is in the file, and how long it is in bytes."""
        lengths = iter(self.lengths)
        runs = dict(self.per_chunk)
        held = 0
        for number, start in enumerate(self.chunks, 1):
            held, at = runs.get(number, held), start
            for _, length in zip(range(held), lengths, strict=False):
                yield at, length
                at += length

    @property
    def fps(self) -> float:
        units = sum(count * delta for count, delta in self.durations)
        return len(self.lengths) * self.scale / units


def _movie(path: Path, most: int) -> Footage | None:
    """None when the boxes do not say enough, as in a movie of fragments."""
    content = path.read_bytes()
    try:
        tracks = list(_tracks(content))
        video = next(track for track in tracks if track.kind == b"vide" and track.lengths)
        footage = Footage(len(video.lengths), video.fps, video.size, any(track.kind == b"soun" for track in tracks))
    except (StopIteration, ArithmeticError, LookupError, struct.error):
        return None
    return _with_pictures(footage, content, video, most)


def _with_pictures(footage: Footage, content: bytes, video: _Track, most: int) -> Footage:
    from PIL import Image

    pictures: list[Image.Image] = []
    for at, length in video.samples():
        if len(pictures) == most:
            break
        if content[at : at + 2] != _JPEG:
            return footage
        pictures.append(Image.open(io.BytesIO(content[at : at + length])).convert("RGB"))
    return Footage(footage.count, footage.fps, pictures[0].size, footage.has_sound, tuple(pictures))


def _tracks(content: bytes) -> Iterator[_Track]:
    for kind, start, end in _boxes(content, 0, len(content)):
        if kind == b"moov":
            for inner, first, last in _boxes(content, start, end):
                if inner == b"trak":
                    yield _track(content, first, last)


def _track(content: bytes, start: int, end: int) -> _Track:
    track = _Track()
    waiting = [(start, end)]
    while waiting:
        for kind, first, last in _boxes(content, *waiting.pop()):
            if kind in _CONTAINERS:
                waiting.append((first, last))
            else:
                _read_box(track, kind, content[first:last])
    return track


def _read_box(track: _Track, kind: bytes, raw: bytes) -> None:
    if kind == b"hdlr" and raw[8:12] in (b"vide", b"soun"):
        track.kind = raw[8:12]
    elif kind == b"mdhd":
        (track.scale,) = struct.unpack_from(">I", raw, 20 if raw[0] else 12)
    elif kind == b"tkhd":
        width, height = struct.unpack(">2I", raw[-8:])
        track.size = width >> 16, height >> 16
    elif kind == b"stts":
        track.durations = tuple((row[0], row[1]) for row in _rows(raw, 2))
    elif kind == b"stsc":
        track.per_chunk = tuple((row[0], row[1]) for row in _rows(raw, 3))
    elif kind == b"stsz":
        each, count = struct.unpack_from(">2I", raw, 4)
        track.lengths = (each,) * count if each else struct.unpack_from(f">{count}I", raw, 12)
    elif kind in (b"stco", b"co64"):
        (count,) = struct.unpack_from(">I", raw, 4)
        track.chunks = struct.unpack_from(f">{count}{'I' if kind == b'stco' else 'Q'}", raw, 8)


def _rows(raw: bytes, columns: int) -> tuple[tuple[int, ...], ...]:
    (count,) = struct.unpack_from(">I", raw, 4)
    return tuple(struct.unpack_from(f">{columns}I", raw, 8 + 4 * columns * row) for row in range(count))


def _boxes(content: bytes, start: int, end: int) -> Iterator[tuple[bytes, int, int]]:
    while start + 8 <= end:
        size, kind = struct.unpack_from(">I4s", content, start)
        first = start + 8
        if size == 1:
            (size,), first = struct.unpack_from(">Q", content, start + 8), start + 16
        size = size or end - start
        if size < first - start:
            return
        yield kind, first, min(start + size, end)
        start += size
