"""A picture's size from its header, however large, and what is no picture."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from morpheus_worker.pictures import NotAPictureError, size_of


def picture(kind: str, size: tuple[int, int] = (8, 6)) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(raw, kind)
    return raw.getvalue()


def png_header(width: int, height: int) -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0)
    return b"\x89PNG\r\n\x1a\n" + chunk(b"IHDR", header) + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm", "tga", "ico"])
def test_a_picture_of_every_usual_kind(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(picture(kind))
    assert size_of(tmp_path / "x") == size_of(io.BytesIO(picture(kind))) == (8, 6)


@pytest.mark.parametrize(("width", "height"), [(1, 1), (10_000, 10_000), (16_384, 16_384), (100_000, 100_000)])
def test_no_size_is_too_large_for_a_header(width: int, height: int) -> None:
    assert size_of(io.BytesIO(png_header(width, height))) == (width, height)


@pytest.mark.parametrize(
    "content",
    [
        b"",
        b"text",
        b"<svg xmlns='http://www.w3.org/2000/svg'/>",
        b"%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n",
        b"%PDF-1.7",
        b"\x89PNG\r\n\x1a\n",
        b"\x89PNG\r\n\x1a\n" + bytes(100),
        b"GIF89a",
        b"\xff\xd8\xff\xe0",
        b"RIFF\x00\x00\x00\x00WEBPVP8 ",
        b"II*\x00\x08\x00\x00\x00\xff\xff",
        b"BM" + b"\xff" * 60,
        b"\x00\x00\x01\x00\xff\xff" + bytes(20),
    ],
    ids=range(13),
)
def test_what_is_no_picture(content: bytes, tmp_path: Path) -> None:
    (tmp_path / "x.png").write_bytes(content)
    for source in (tmp_path / "x.png", io.BytesIO(content)):
        with pytest.raises(NotAPictureError):
            size_of(source)


def test_a_file_that_is_not_there_is_no_picture(tmp_path: Path) -> None:
    with pytest.raises(NotAPictureError):
        size_of(tmp_path / "gone.png")


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "gif", "bmp", "ppm", "webp", "tga", "ico"])
@settings(max_examples=40)
@given(rest=st.binary(max_size=64), at=st.integers(0, 200))
def test_whatever_the_bytes_they_are_a_picture_or_none(kind: str, rest: bytes, at: int) -> None:
    whole = picture(kind)
    try:
        width, height = size_of(io.BytesIO(whole[:at] + rest + whole[at + len(rest) :]))
    except NotAPictureError:
        return
    assert width >= 0
    assert height >= 0


def test_several_threads_leave_the_filters_of_warnings_as_they_were() -> None:
    corrupt = picture("tiff")[:-40]
    before = warnings.filters[:]

    def look() -> None:
        for _ in range(50):
            size_of(io.BytesIO(corrupt))

    threads = [threading.Thread(target=look) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert warnings.filters == before
