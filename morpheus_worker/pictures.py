"""What a picture's headers say, without decoding it. However a file is made, looking at it comes to an end."""

from __future__ import annotations

import contextlib
import io
import struct
from collections.abc import Iterator
from dataclasses import dataclass
from itertools import repeat
from pathlib import Path
from typing import TYPE_CHECKING, BinaryIO, Final

if TYPE_CHECKING:
    from PIL.Image import Image

FORMATS: Final = ("PNG", "JPEG", "WEBP", "GIF", "BMP", "TIFF", "MPO", "AVIF", "PPM", "ICO", "TGA")
"""What counts as a picture, in Pillow's names. Formats that hand their content to another program (EPS) do not."""

LARGEST_HEADER_BYTES: Final = 128 * 1024 * 1024
"""Most that Pillow may read to open a file. It reads a WebP or AVIF whole, and of others the texts and profiles."""

MOST_READS: Final = 200_000
"""How often Pillow may read for that: it looks for a broken JPEG's next marker byte by byte."""

MOST_FRAMES: Final = 65_536

MOST_STEPS: Final = 2_000_000
"""Blocks of a GIF, at most 255 bytes each, or tags of a TIFF that are walked over: a second or two."""

WALK_BUFFER_BYTES: Final = 1024 * 1024

_BROKEN: Final = (
    OSError,
    EOFError,
    ValueError,
    SyntaxError,
    LookupError,
    TypeError,
    ArithmeticError,
    AssertionError,
    RuntimeError,
    UserWarning,
    struct.error,
)
"""What Pillow (13) raises for a broken header. It promises less, but its readers trust what they read."""


class NotAPictureError(ValueError):
    """There is no picture's header, or none that ends within bounds. The message says why, where there is a reason."""


@dataclass(frozen=True, slots=True)
class Picture:
    """`width` and `height` in pixels; `pixels` are those of all frames together, which a loader decodes. Of a picture
    beyond the limit that was asked for, `frames` and `pixels` are those counted until then."""

    width: int
    height: int
    frames: int
    pixels: int


def size_of(source: Path | BinaryIO) -> tuple[int, int]:
    """(width, height) in pixels.

    Raises:
        NotAPictureError: for anything but a picture in one of `FORMATS`.
    """
    with _opened(source) as picture:
        return picture.size


def picture_of(source: Path | BinaryIO, *, most_pixels: int) -> Picture:
    """The picture with its frames counted, until they have more than `most_pixels` together.

    All of them count, because ComfyUI's LoadImage decodes every frame of a file (0.3.64, nodes.py).

    Raises:
        NotAPictureError: for anything but a picture in one of `FORMATS`, or when its frames do not end.
    """
    with _opened(source) as picture:
        width, height = picture.size
        frames = pixels = 0
        for wide, high in _frame_sizes(picture, source):
            frames, pixels = frames + 1, pixels + wide * high
            if pixels > most_pixels:
                break
            if frames > MOST_FRAMES:
                raise NotAPictureError(f"it has more than {MOST_FRAMES} frames")
        return Picture(width, height, max(frames, 1), max(pixels, width * height))


@contextlib.contextmanager
def _opened(source: Path | BinaryIO) -> Iterator[Image]:
    # Imported here, because only jobs with pictures need it and it takes a tenth of a second.
    from PIL import Image, UnidentifiedImageError

    Image.init()
    # Pillow's guard against bombs is for those who decode; here it would only keep a large picture's size from us.
    Image.MAX_IMAGE_PIXELS = None
    known: list[str] = [name for name in FORMATS if name in Image.OPEN]
    try:
        with contextlib.ExitStack() as closing:
            stream = closing.enter_context(_Bounded(io.FileIO(source))) if isinstance(source, Path) else source
            yield closing.enter_context(Image.open(stream, formats=known))
    except NotAPictureError:
        raise
    except UnidentifiedImageError:
        raise NotAPictureError from None
    except _BROKEN as failure:
        raise NotAPictureError(str(failure)) from None


class _Bounded(io.BufferedReader):
    """A file of which only so much is read: Pillow believes a header that asks for gigabytes."""

    left_bytes = LARGEST_HEADER_BYTES
    left_reads = MOST_READS

    def read(self, size: int | None = -1, /) -> bytes:
        wanted = self.left_bytes + 1 if size is None or size < 0 else min(size, self.left_bytes + 1)
        data = super().read(wanted)
        self.left_bytes -= len(data)
        self.left_reads -= 1
        if self.left_bytes < 0:
            raise NotAPictureError(f"to open it, more than {LARGEST_HEADER_BYTES} bytes would have to be read")
        if self.left_reads < 0:
            raise NotAPictureError("its header does not end")
        return data


# --- frames


def _frame_sizes(picture: Image, source: Path | BinaryIO) -> Iterator[tuple[int, int]]:
    """Pillow finds out how many frames a GIF or TIFF has by going through all, without an end in sight; the other
    formats say so at their beginning."""
    if picture.format in ("GIF", "TIFF"):
        with _walking(source) as walk:
            yield from _gif_frames(walk) if picture.format == "GIF" else _tiff_frames(walk)
    elif picture.format == "MPO":
        yield from _mpo_frames(picture)
    else:
        yield from repeat(picture.size, getattr(picture, "n_frames", 1))


@dataclass(slots=True)
class _Walk:
    """A file that is read in small steps, of which there may be `MOST_STEPS`."""

    stream: BinaryIO
    steps: int = 0

    def take(self, length: int, steps: int = 1) -> bytes:
        self.steps += steps
        if self.steps > MOST_STEPS:
            raise NotAPictureError("its frames do not end")
        return self.stream.read(length)

    def skip(self, length: int) -> None:
        self.stream.seek(length, io.SEEK_CUR)

    def skip_blocks(self) -> None:
        """A GIF's data: blocks of up to 255 bytes, each behind its length, and an empty one."""
        while (length := self.take(1)) not in (b"", b"\0"):
            self.skip(length[0])


@contextlib.contextmanager
def _walking(source: Path | BinaryIO) -> Iterator[_Walk]:
    if isinstance(source, Path):
        with source.open("rb", buffering=WALK_BUFFER_BYTES) as stream:
            yield _Walk(stream)
    else:
        source.seek(0)
        yield _Walk(source)


def _gif_frames(walk: _Walk) -> Iterator[tuple[int, int]]:
    """A frame that reaches beyond the screen enlarges it, as Pillow reads it, for all that follow (GIF89a)."""
    _, width, height, flags, _, _ = struct.unpack("<6sHHBBB", walk.take(13))
    walk.skip(_colors(flags))
    while (kind := walk.take(1)) not in (b"", b";"):
        if kind == b"!":
            walk.skip(1)
            walk.skip_blocks()
        elif kind == b",":
            descriptor = walk.take(9)
            if len(descriptor) < 9:
                return
            left, top, wide, high, flags = struct.unpack("<HHHHB", descriptor)
            width, height = max(width, left + wide), max(height, top + high)
            yield width, height
            walk.skip(_colors(flags) + 1)
            walk.skip_blocks()


def _colors(flags: int) -> int:
    """Bytes of the table of colors that these flags announce."""
    return 6 << (flags & 7) if flags & 0x80 else 0


_NUMBERS: Final = {3: "H", 4: "I", 16: "Q"}
"""How `struct` reads a number of the types SHORT, LONG and LONG8 (TIFF 6.0, BigTIFF)."""
_WIDTH_TAG: Final = 256
_HEIGHT_TAG: Final = 257


def _tiff_frames(walk: _Walk) -> Iterator[tuple[int, int]]:
    """The directories, each with the place of the next. One that was there before ends the list."""
    head = walk.take(16)
    order = "<" if head[:1] == b"I" else ">"
    is_big = head[2:4] in (b"+\0", b"\0+")
    [next_at] = struct.unpack_from(f"{order}Q" if is_big else f"{order}I", head, 8 if is_big else 4)
    seen: set[int] = set()
    while next_at and next_at not in seen:
        seen.add(next_at)
        walk.stream.seek(next_at)
        found = _directory(walk, order, is_big=is_big)
        if found is None:
            return
        size, next_at = found
        yield size


def _directory(walk: _Walk, order: str, *, is_big: bool) -> tuple[tuple[int, int], int] | None:
    """((width, height), where the next one is), or None where the file ends first."""
    count_form, entry_bytes, next_form = ("Q", 20, "Q") if is_big else ("H", 12, "I")
    raw = walk.take(struct.calcsize(f"{order}{count_form}"))
    if len(raw) < struct.calcsize(f"{order}{count_form}"):
        return None
    [count] = struct.unpack(order + count_form, raw)
    entries = walk.take(count * entry_bytes, steps=1 + count)
    following = walk.take(struct.calcsize(f"{order}{next_form}"))
    if len(entries) < count * entry_bytes or len(following) < struct.calcsize(f"{order}{next_form}"):
        return None
    size = {_WIDTH_TAG: 0, _HEIGHT_TAG: 0}
    for at in range(0, len(entries), entry_bytes):
        tag, kind = struct.unpack_from(f"{order}HH", entries, at)
        if tag in size and kind in _NUMBERS:
            [size[tag]] = struct.unpack_from(order + _NUMBERS[kind], entries, at + (12 if is_big else 8))
    return (size[_WIDTH_TAG], size[_HEIGHT_TAG]), struct.unpack(order + next_form, following)[0]


def _mpo_frames(picture: Image) -> Iterator[tuple[int, int]]:
    """A phone adds a small picture of the brightness to a large photo: the frames differ in size."""
    yield picture.size
    for frame in range(1, getattr(picture, "n_frames", 1)):
        try:
            picture.seek(frame)
        except _BROKEN:
            return
        yield picture.size
