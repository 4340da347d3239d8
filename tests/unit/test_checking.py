"""Whether a file is of the kind that is wanted, by what is in it, and what the refusal says."""

from __future__ import annotations

import io
import struct
import zlib
from array import array
from pathlib import Path

import pytest
from PIL import Image

from morpheus_worker.checking import InputKind, Limits, check_content
from morpheus_worker.errors import Code, MediaRefusedError
from morpheus_worker.rehearsal.clip import mp4
from morpheus_worker.rehearsal.flac import flac

LIMITS = Limits(max_bytes=1_000_000, max_pixels=1_000_000)


def picture(kind: str = "png", frames: int = 1) -> bytes:
    raw = io.BytesIO()
    images = [Image.new("RGB", (8, 6), (number * 9, 30, 30)) for number in range(frames)]
    images[0].save(raw, kind, save_all=frames > 1, append_images=images[1:])
    return raw.getvalue()


def png_header(width: int, height: int, extra: bytes = b"") -> bytes:
    def chunk(kind: bytes, data: bytes) -> bytes:
        return struct.pack(">I", len(data)) + kind + data + struct.pack(">I", zlib.crc32(kind + data))

    header = chunk(b"IHDR", struct.pack(">IIBBBBB", width, height, 1, 0, 0, 0, 0))
    text = chunk(b"zTXt", b"k\0\0" + zlib.compress(extra)) if extra else b""
    return b"\x89PNG\r\n\x1a\n" + header + text + chunk(b"IDAT", zlib.compress(b"")) + chunk(b"IEND", b"")


PNG, JPEG = picture(), picture("jpeg")
CLIP = mp4([Image.new("RGB", (16, 16))], 8)
SOUND = flac(array("h", [1, 2, 3]), 8000, 1)
WEBM = b"\x1a\x45\xdf\xa3\x9f\x42\x82\x84webm"
M4A = b"\0\0\0\x14ftypM4A \0\0\2\0isom"
PAGE = b"<!doctype html><title>Log in</title>"
PICTURES = {kind: picture(kind) for kind in ("png", "jpeg", "webp", "gif", "bmp", "tiff", "ppm", "tga", "ico", "avif")}
MOVING = {kind: picture(kind, 3) for kind in ("gif", "png", "webp")}


def checked(path: Path, content: bytes, kind: InputKind, limits: Limits = LIMITS, *, by_url: bool = False) -> str:
    """The media type that the content is found to be."""
    file = path / "x"
    file.write_bytes(content)
    found = check_content(file, kind, limits, by_url=by_url)
    return found.media_type if found else ""


def refusal(path: Path, content: bytes, kind: InputKind, *, by_url: bool = False) -> MediaRefusedError:
    with pytest.raises(MediaRefusedError) as refused:
        checked(path, content, kind, by_url=by_url)
    assert refused.value.code == Code.INPUT_REJECTED
    assert not refused.value.retryable
    return refused.value


@pytest.mark.parametrize("content", PICTURES.values(), ids=PICTURES)
def test_a_picture_of_every_usual_kind(content: bytes, tmp_path: Path) -> None:
    checked(tmp_path, content, "image")


@pytest.mark.parametrize("content", [CLIP, WEBM, *MOVING.values()], ids=["mp4", "webm", *MOVING])
def test_what_serves_as_a_video(content: bytes, tmp_path: Path) -> None:
    assert checked(tmp_path, content, "video")


@pytest.mark.parametrize("content", [SOUND, M4A, CLIP, WEBM], ids=["flac", "m4a", "mp4", "webm"])
def test_what_serves_as_a_sound(content: bytes, tmp_path: Path) -> None:
    assert checked(tmp_path, content, "audio")


@pytest.mark.parametrize(
    "content", [PNG, CLIP, SOUND, PAGE, b"text", b"\x80\x02}q\x00", b"PK\3\4", b"\0"], ids=range(8)
)
def test_a_file_is_anything(content: bytes, tmp_path: Path) -> None:
    checked(tmp_path, content, "file")


@pytest.mark.parametrize(
    ("content", "kind", "said"),
    [
        (PAGE, "image", "is an HTML page, not a picture (it begins with b'<!doctype ht')"),
        (PAGE, "video", "is an HTML page, not a video (it begins with b'<!doctype ht')"),
        (b"<Error>Denied</Error>", "image", "is an XML document, not a picture (it begins with b'<Error>Denie')"),
        (b'{"error": 404}', "audio", "is a JSON document, not a sound (it begins with b'{\"error\": 40')"),
        (b"ABC", "image", "is plain text, not a picture (it begins with b'ABC')"),
        (b"<svg/>", "image", "is an SVG drawing, which is not taken"),
        (b"8BPS\0\1", "image", "is a Photoshop picture, which is not taken"),
        (b"\0\0\0\x18ftypheic\0\0\0\0mif1", "image", "is an HEIC picture, which is not taken"),
        (b"%PDF-1.7", "image", "is a PDF document, not a picture"),
        (b"PK\3\4", "image", "is a ZIP archive, not a picture"),
        (CLIP, "image", "is an MP4 video, not a picture"),
        (SOUND, "image", "is a FLAC sound, not a picture"),
        (PNG, "video", "is a PNG picture, not a video"),
        (JPEG, "audio", "is a JPEG picture, not a sound"),
        (SOUND, "video", "is a FLAC sound, not a video"),
        (MOVING["gif"], "audio", "is a GIF picture, not a sound"),
        (b"\x80\x02}q\x00", "image", "is not a picture (it begins with b'\\x80\\x02}q\\x00')"),
        (b"\x80\x02}q\x00", "video", "is not a video (it begins with b'\\x80\\x02}q\\x00')"),
        (PNG[:20], "image", "is a PNG picture that cannot be opened: Truncated File Read"),
        (b"GIF89a", "image", "is a GIF picture that cannot be opened"),
        (b"RIFF\0\0\0\0WEBPVP8 ", "image", "is a WebP picture that cannot be opened: could not create decoder object"),
        (b"BM" + b"\xff" * 60, "image", "is not a picture (it begins with b'BM" + "\\xff" * 10 + "')"),
        (b"", "image", "is empty"),
        (b"", "file", "is empty"),
    ],
    ids=range(24),
)  # fmt: skip
def test_what_it_is_instead(content: bytes, kind: InputKind, said: str, tmp_path: Path) -> None:
    assert refusal(tmp_path, content, kind).what == said


def test_a_page_from_a_url_is_no_file_that_anybody_meant(tmp_path: Path) -> None:
    for kind in ("file", "image", "video", "audio"):
        refused = refusal(tmp_path, PAGE, kind, by_url=True)
        assert "an HTML page" in refused.what
        assert "login" in (refused.hint or "")
    assert refusal(tmp_path, b"ABC", "image", by_url=True).hint is None


def test_a_png_whose_text_unpacks_to_too_much_is_refused(tmp_path: Path) -> None:
    said = refusal(tmp_path, png_header(8, 6, bytes(8 * 1024**2)), "image").what
    assert said.startswith("is a PNG picture that cannot be opened: ")
    assert "too large" in said


@pytest.mark.parametrize(("width", "height"), [(1000, 1001), (100_000, 100), (60_000, 60_000)])
def test_a_picture_of_too_many_pixels(width: int, height: int, tmp_path: Path) -> None:
    said = refusal(tmp_path, png_header(width, height), "image").what
    assert said == f"has {width}×{height} pixels, more than the 1000000 allowed"


@pytest.mark.parametrize(("width", "height"), [(1000, 1000), (10_000, 10_000), (20_000, 20_000)])
def test_the_limit_of_pixels_is_the_one_that_is_set(width: int, height: int, tmp_path: Path) -> None:
    checked(tmp_path, png_header(width, height), "image", Limits(10**9, width * height))


@pytest.mark.parametrize("kind", ["gif", "png", "webp"])
def test_frames_count_together(kind: str, tmp_path: Path) -> None:
    checked(tmp_path, MOVING[kind], "image", Limits(10**6, 3 * 48))
    with pytest.raises(MediaRefusedError, match="3 frames or more, of 144 pixels together, more than the 143 allowed"):
        checked(tmp_path, MOVING[kind], "image", Limits(10**6, 3 * 48 - 1))
    checked(tmp_path, MOVING[kind], "video", Limits(10**6, 1))


@pytest.mark.parametrize("kind", ["image", "file"])
def test_the_limit_of_bytes(kind: InputKind, tmp_path: Path) -> None:
    checked(tmp_path, PNG, kind, Limits(len(PNG), 10**6))
    with pytest.raises(MediaRefusedError, match=f"has {len(PNG)} bytes, more than the {len(PNG) - 1} allowed"):
        checked(tmp_path, PNG, kind, Limits(len(PNG) - 1, 10**6))


def test_a_file_that_is_gone_is_unreachable(tmp_path: Path) -> None:
    with pytest.raises(MediaRefusedError, match="No such file") as refused:
        check_content(tmp_path / "gone", "file", LIMITS)
    assert refused.value.code == Code.INPUT_UNREACHABLE
