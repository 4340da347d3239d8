"""A picture's size and frames from its headers, however large, and what is no picture, however it is made."""

from __future__ import annotations

import io
import struct
import threading
import warnings
import zlib
from collections.abc import Callable, Sequence
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from morpheus_worker.pictures import MOST_FRAMES, NotAPictureError, Picture, picture_of, size_of


def picture(kind: str, size: tuple[int, int] = (8, 6)) -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", size, (200, 30, 30)).save(raw, kind)
    return raw.getvalue()


def png_chunk(kind: bytes, data: bytes) -> bytes:
    return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))


def png_header(width: int, height: int, *chunks: bytes) -> bytes:
    header = png_chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    data = png_chunk(b"IDAT", zlib.compress(b"")) + png_chunk(b"IEND", b"")
    return b"\x89PNG\r\n\x1a\n" + header + b"".join(chunks) + data


def moving(kind: str, sizes: Sequence[tuple[int, int]]) -> bytes:
    raw = io.BytesIO()
    frames = [Image.new("RGB", size, (number * 9 % 256, 30, 30)) for number, size in enumerate(sizes)]
    frames[0].save(raw, kind, save_all=True, append_images=frames[1:])
    return raw.getvalue()


def gif(frames: Sequence[tuple[int, int, int, int]], *, screen: tuple[int, int] = (1, 1)) -> bytes:
    """A GIF with frames at (left, top, width, height), in its fewest bytes."""
    pictures = (b"," + struct.pack("<HHHHB", *frame, 0) + b"\x02\x02\x44\x01\0" for frame in frames)
    return b"GIF89a" + struct.pack("<HHBBB", *screen, 0, 0, 0) + b"".join(pictures) + b";"


def tiff(sizes: Sequence[tuple[int, int]], *, order: str = "<", is_big: bool = False, last: int = 0) -> bytes:
    """A TIFF of nothing but directories. `last` is where the last one says that the next is."""
    count, number, head, kind = ("Q", "Q", 16, 16) if is_big else ("H", "I", 8, 4)
    begin = b"II" if order == "<" else b"MM"
    entry = struct.Struct(f"{order}HH{number}{number}")
    length = struct.calcsize(order + count) + 3 * entry.size + struct.calcsize(order + number)
    places = [head + length * index for index in range(len(sizes))]
    parts = [begin + struct.pack(f"{order}HHHQ" if is_big else f"{order}HI", *((43, 8, 0) if is_big else (42,)), head)]
    for (width, height), next_at in zip(sizes, [*places[1:], last], strict=True):
        entries = (entry.pack(tag, kind, 1, value) for tag, value in ((256, width), (257, height), (273, head)))
        parts.append(struct.pack(order + count, 3) + b"".join(entries) + struct.pack(order + number, next_at))
    return b"".join(parts)


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


@pytest.mark.parametrize("kind", ["png", "jpeg", "tiff", "gif", "bmp", "ppm", "webp", "tga", "ico", "avif", "mpo"])
@settings(max_examples=40)
@given(rest=st.binary(max_size=64), at=st.integers(0, 200))
def test_whatever_the_bytes_they_are_a_picture_or_none(kind: str, rest: bytes, at: int) -> None:
    whole = moving(kind, [(8, 6)] * 3) if kind in ("png", "tiff", "gif", "webp", "mpo") else picture(kind)
    try:
        found = picture_of(io.BytesIO(whole[:at] + rest + whole[at + len(rest) :]), most_pixels=10**6)
    except NotAPictureError:
        return
    assert found.frames >= 1
    assert found.pixels >= found.width * found.height >= 0


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


# --- frames


@pytest.mark.parametrize("kind", ["png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm", "tga", "ico", "avif"])
def test_a_still_picture_has_one_frame(kind: str, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(picture(kind))
    for source in (tmp_path / "x", io.BytesIO(picture(kind))):
        assert picture_of(source, most_pixels=48) == Picture(8, 6, 1, 48)


@pytest.mark.parametrize("kind", ["png", "webp", "gif", "tiff", "avif"])
@pytest.mark.parametrize("frames", [2, 7])
def test_every_frame_counts(kind: str, frames: int, tmp_path: Path) -> None:
    content = moving(kind, [(8, 6)] * frames)
    (tmp_path / "x").write_bytes(content)
    for source in (tmp_path / "x", io.BytesIO(content)):
        assert picture_of(source, most_pixels=10**6) == Picture(8, 6, frames, 48 * frames)


@pytest.mark.parametrize("kind", ["gif", "tiff", "webp", "png"])
def test_the_count_is_that_of_a_loader(kind: str) -> None:
    """Pillow's own count, by going through all frames, which is what ComfyUI's LoadImage does."""
    content = moving(kind, [(8, 6)] * 5)
    with Image.open(io.BytesIO(content)) as loaded:
        assert picture_of(io.BytesIO(content), most_pixels=10**6).frames == getattr(loaded, "n_frames", None)


@pytest.mark.parametrize("kind", ["png", "webp", "gif", "tiff"])
def test_the_count_ends_beyond_the_limit(kind: str) -> None:
    found = picture_of(io.BytesIO(moving(kind, [(8, 6)] * 9)), most_pixels=100)
    assert (found.frames, found.pixels) == (3, 144)


def test_a_photo_with_a_smaller_picture_in_it() -> None:
    """What phones write: JPEG with a map of the brightness behind it. A count of whole frames would refuse it."""
    assert picture_of(io.BytesIO(moving("mpo", [(80, 60), (20, 15)])), most_pixels=10**6) == Picture(80, 60, 2, 5100)


def test_a_photo_that_names_a_large_picture_again_and_again(tmp_path: Path) -> None:
    """Sixteen bytes in its index for each time that a loader decodes it."""
    content = moving("mpo", [(80, 60), (80, 60)])
    (tmp_path / "x").write_bytes(content)
    for source in (tmp_path / "x", io.BytesIO(content)):
        found = picture_of(source, most_pixels=4800)
        assert (found.frames, found.pixels) == (2, 9600)


def test_a_frame_that_reaches_beyond_the_screen_enlarges_it() -> None:
    content = gif([(0, 0, 1, 1), (0, 0, 1, 1), (3000, 2000, 1000, 1000), (0, 0, 1, 1)])
    assert picture_of(io.BytesIO(content), most_pixels=10**9) == Picture(1, 1, 4, 2 + 2 * 4000 * 3000)
    with Image.open(io.BytesIO(content)) as loaded:
        loaded.seek(2)
        assert loaded.size == (4000, 3000)


@pytest.mark.parametrize(("order", "is_big"), [("<", False), (">", False), ("<", True)])
def test_each_page_has_its_own_size(order: str, is_big: bool) -> None:
    content = tiff([(8, 6), (50_000, 40_000), (1, 1)], order=order, is_big=is_big)
    assert picture_of(io.BytesIO(content), most_pixels=10**12) == Picture(8, 6, 3, 49 + 50_000 * 40_000)


def test_a_list_of_pages_that_leads_back_ends() -> None:
    assert picture_of(io.BytesIO(tiff([(8, 6), (8, 6)], last=8)), most_pixels=10**6).frames == 2


def test_a_page_that_lies_beyond_the_file_is_none() -> None:
    assert picture_of(io.BytesIO(tiff([(8, 6)], last=10**6)), most_pixels=10**6).frames == 1


def test_a_moving_picture_that_was_cut_short_counts_as_far_as_it_goes() -> None:
    content = gif([(0, 0, 1, 1)] * 5)
    for cut in range(30, len(content)):
        assert 1 <= picture_of(io.BytesIO(content[:cut]), most_pixels=10**6).frames <= 5


# --- made to keep somebody busy


def declaring_frames() -> bytes:
    return png_header(1, 1, png_chunk(b"acTL", struct.pack(">II", 0x7FFFFFFF, 0)))


ENDLESS: dict[str, Callable[[], bytes]] = {
    "frames of a GIF": lambda: gif([(0, 0, 1, 1)] * (MOST_FRAMES + 2)),
    "frames that a PNG declares": declaring_frames,
    "pages of a TIFF": lambda: tiff([(1, 1)] * (MOST_FRAMES + 2)),
    "blocks of a GIF": lambda: gif([(0, 0, 1, 1)])[:-1] + b"!\xfe" + b"\1x" * 300_000,
    "bytes between the parts of a GIF": lambda: gif([(0, 0, 1, 1)])[:-1] + b"x" * 300_000,
    "a JPEG without a marker": lambda: b"\xff\xd8\xff\xe0\0\2" + b"x" * 210_000,
}


@pytest.mark.parametrize("made", ENDLESS.values(), ids=ENDLESS)
def test_what_does_not_end_is_given_up(
    made: Callable[[], bytes], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("morpheus_worker.pictures.MOST_STEPS", 4 * MOST_FRAMES)
    (tmp_path / "x").write_bytes(made())
    with pytest.raises(NotAPictureError, match=r"frames|does not end|do not end"):
        picture_of(tmp_path / "x", most_pixels=10**12)


@pytest.mark.parametrize(
    "chunk",
    [
        png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(8 * 1024**2))),
        png_chunk(b"iTXt", b"k\0\1\0\0\0" + zlib.compress(bytes(8 * 1024**2))),
        png_chunk(b"iCCP", b"k\0\0" + zlib.compress(bytes(8 * 1024**2))),
        b"".join(png_chunk(b"zTXt", b"k\0\0" + zlib.compress(bytes(1024**2))) for _ in range(70)),
    ],
    ids=["a text", "an international text", "a color profile", "many texts"],
)
def test_a_png_whose_texts_unpack_to_too_much(chunk: bytes, tmp_path: Path) -> None:
    """Eight megabytes of zeros take eight kilobytes; Pillow's own guard stops at one."""
    (tmp_path / "x.png").write_bytes(png_header(8, 6, chunk))
    assert (tmp_path / "x.png").stat().st_size < 200_000
    with pytest.raises(NotAPictureError, match=r"too large|Too much memory"):
        picture_of(tmp_path / "x.png", most_pixels=10**6)


def test_a_png_with_texts_is_a_picture() -> None:
    text = png_chunk(b"zTXt", b"prompt\0\0" + zlib.compress(b"a graph" * 10_000))
    assert picture_of(io.BytesIO(png_header(8, 6, text)), most_pixels=10**6).pixels == 48


@pytest.mark.parametrize(
    "head",
    [
        png_header(8, 6)[:33] + struct.pack(">I4s", 2**31 - 1, b"tEXt"),
        b"II*\0\x08\0\0\0\x01\0" + struct.pack("<HHII", 270, 2, 2**31 - 1, 26) + bytes(4),
        b"RIFF\xf8\xff\xff\x7fWEBPVP8L\xf0\xff\xff\x7f",
    ],
    ids=["png", "tiff", "webp"],
)
def test_a_header_of_gigabytes_is_not_read(head: bytes, tmp_path: Path) -> None:
    with (tmp_path / "x").open("wb") as stream:
        stream.write(head)
        stream.truncate(2**31 + 2**20)
    with pytest.raises(NotAPictureError):
        picture_of(tmp_path / "x", most_pixels=10**6)
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    before = int(counts["rchar"])
    with pytest.raises(NotAPictureError):
        size_of(tmp_path / "x")
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    assert int(counts["rchar"]) - before < 200 * 1024**2
