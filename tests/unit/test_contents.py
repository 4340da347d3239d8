"""What a file is by its first bytes: real beginnings of every kind, and what only looks like one."""

from __future__ import annotations

import gzip
import io
import struct
import wave
import zipfile
from array import array

import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from morpheus_worker.contents import HEAD_BYTES, Content, content_of, right_name
from morpheus_worker.rehearsal.clip import mp4
from morpheus_worker.rehearsal.flac import flac


def picture(kind: str, frames: int = 1) -> bytes:
    raw = io.BytesIO()
    images = [Image.new("RGB", (8, 6), (number * 9, 30, 30)) for number in range(frames)]
    images[0].save(raw, kind, save_all=frames > 1, append_images=images[1:])
    return raw.getvalue()


def wav() -> bytes:
    raw = io.BytesIO()
    with wave.open(raw, "wb") as sound:
        sound.setnchannels(1)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(1600))
    return raw.getvalue()


def archive() -> bytes:
    raw = io.BytesIO()
    with zipfile.ZipFile(raw, "w") as file:
        file.writestr("data.pkl", b"x")
    return raw.getvalue()


def ftyp(major: str, *compatible: str) -> bytes:
    brands = b"".join(brand.encode() for brand in (major, "\0\0\2\0", *compatible))
    return struct.pack(">I", 8 + len(brands)) + b"ftyp" + brands + struct.pack(">I4s", 9, b"mdat") + b"x"


def ogg(packet: bytes) -> bytes:
    return b"OggS\0\2" + bytes(20) + bytes([1, len(packet)]) + packet


MP3_FRAME = b"\xff\xfb\x90\x00" + bytes(413)
AAC_FRAME = b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(9)
EBML = b"\x1a\x45\xdf\xa3\x9f\x42\x86\x81\x01\x42\xf7\x81\x01\x42\xf2\x81\x04\x42\xf3\x81\x08\x42\x82"

KNOWN: dict[str, tuple[bytes, str, str]] = {
    # head, media type, kind
    "png": (picture("png"), "image/png", "image"),
    "animated png": (picture("png", 3), "image/apng", "image"),
    "jpeg": (picture("jpeg"), "image/jpeg", "image"),
    "gif": (picture("gif", 3), "image/gif", "image"),
    "webp": (picture("webp"), "image/webp", "image"),
    "bmp": (picture("bmp"), "image/bmp", "image"),
    "tiff": (picture("tiff"), "image/tiff", "image"),
    "big tiff": (b"MM\0+\0\x08\0\0", "image/tiff", "image"),
    "ico": (picture("ico"), "image/vnd.microsoft.icon", "image"),
    "ppm": (picture("ppm"), "image/x-portable-anymap", "image"),
    "ppm as text": (b"P3\n2 2\n255\n", "image/x-portable-anymap", "image"),
    "avif": (picture("avif"), "image/avif", "image"),
    "avif by a compatible brand": (ftyp("mif1", "miaf", "avif"), "image/avif", "image"),
    "heic": (ftyp("heic", "mif1"), "image/heic", "other"),
    "heic by a compatible brand": (ftyp("mif1", "heic"), "image/heic", "other"),
    "jpeg xl": (b"\xff\x0a\xfa\x1f", "image/jxl", "other"),
    "photoshop": (b"8BPS\0\1", "image/vnd.adobe.photoshop", "other"),
    "svg": (b"<?xml version='1.0'?>\n<!-- by hand -->\n<svg xmlns='x'/>", "image/svg+xml", "text"),
    "svg alone": (b"\xef\xbb\xbf  <SVG width='1'/>", "image/svg+xml", "text"),
    "mp4": (mp4([Image.new("RGB", (16, 16))], 8), "video/mp4", "video"),
    "mp4 for phones": (ftyp("3gp5"), "video/3gpp", "video"),
    "m4v": (ftyp("M4V ", "isom"), "video/mp4", "video"),
    "m4a": (ftyp("M4A ", "isom", "mp42"), "audio/mp4", "audio"),
    "mov": (ftyp("qt  "), "video/quicktime", "video"),
    "mov without a brand": (b"\0\0\0\x08wide\0\0\x10\0mdat", "video/quicktime", "video"),
    "large mov without a brand": (b"\x7f\0\0\x08mdat\0\0\x10\0", "video/quicktime", "video"),
    "webm": (EBML + b"\x84webm\x42\x87\x81\x04", "video/webm", "video"),
    "matroska": (EBML + b"\x88matroska\x42\x87\x81\x04", "video/x-matroska", "video"),
    "avi": (b"RIFF\x9a\1\0\0AVI LIST", "video/x-msvideo", "video"),
    "transport stream": ((b"G\x40\x11\x10" + b"\xff" * 184) * 4, "video/mp2t", "video"),
    "transport stream of a disc": ((bytes(4) + b"G\x40\x11\x10" + b"\xff" * 184) * 4, "video/mp2t", "video"),
    "program stream": (b"\0\0\1\xba\x44\0\4\0", "video/mpeg", "video"),
    "flv": (b"FLV\1\5\0\0\0\x09", "video/x-flv", "video"),
    "wmv": (bytes.fromhex("3026b2758e66cf11a6d900aa0062ce6c"), "video/x-ms-asf", "video"),
    "theora": (ogg(b"\x80theora\3\2\1"), "video/ogg", "video"),
    "theora behind its sound": (ogg(b"\1vorbis") + ogg(b"\x80theora\3\2\1"), "video/ogg", "video"),
    "opus": (ogg(b"OpusHead\1\2"), "audio/opus", "audio"),
    "vorbis": (ogg(b"\1vorbis\0\0\0\0\2"), "audio/ogg", "audio"),
    "flac in ogg": (ogg(b"\x7fFLAC\1\0"), "audio/ogg", "audio"),
    "wav": (wav(), "audio/wav", "audio"),
    "large wav": (b"RF64\xff\xff\xff\xffWAVEds64", "audio/wav", "audio"),
    "flac": (flac(array("h", [1, 2, 3]), 8000, 1), "audio/flac", "audio"),
    "aiff": (b"FORM\0\0\0\x2eAIFFCOMM", "audio/aiff", "audio"),
    "mp3": (MP3_FRAME * 3, "audio/mpeg", "audio"),
    "mp3 of one frame": (MP3_FRAME, "audio/mpeg", "audio"),
    "mp3 with a tag": (b"ID3\4\0\0\0\0\1\x7fTIT2", "audio/mpeg", "audio"),
    "aac": (AAC_FRAME * 300, "audio/aac", "audio"),
    "html": (b"<!DOCTYPE html>\n<html lang=en>", "text/html", "page"),
    "html in another case": (b"\r\n  <HTML><HEAD>", "text/html", "page"),
    "html behind a comment": (b"<!-- saved from -->\n<html>", "text/html", "page"),
    "html that is xml": (b'<?xml version="1.0"?><html xmlns="x">', "text/html", "page"),
    "html in utf-16": ("<html>\n".encode("utf-16"), "text/html", "page"),
    "a part of a page": (b"<p>Not found</p>", "text/html", "page"),
    "xml": (b'<?xml version="1.0"?>\n<Error><Code>AccessDenied</Code></Error>', "text/xml", "text"),
    "xml without a head": (b"<Error><Code>AccessDenied</Code></Error>", "text/xml", "text"),
    "json": (b' {\n "error": "expired"}', "application/json", "text"),
    "a json list": (b"[1, 2]", "application/json", "text"),
    "text": ("Grüße aus Köln\n".encode(), "text/plain", "text"),
    "text with colors": (b"\x1b[31mred\x1b[0m", "text/plain", "text"),
    "text cut within a character": (("a" * (HEAD_BYTES - 1) + "ü").encode(), "text/plain", "text"),
    "pdf": (b"%PDF-1.7\n%\xe2\xe3", "application/pdf", "other"),
    "postscript": (b"%!PS-Adobe-3.0 EPSF-3.0\n", "application/postscript", "other"),
    "zip": (archive(), "application/zip", "archive"),
    "gzip": (gzip.compress(b"x"), "application/gzip", "archive"),
    "tar": (b"x" + bytes(256) + b"ustar\00000" + bytes(100), "application/x-tar", "archive"),
    "elf": (b"\x7fELF\2\1\1", "application/x-elf", "other"),
    "exe": (b"MZ" + bytes(58) + b"\x40\0\0\0PE\0\0", "application/vnd.microsoft.portable-executable", "other"),
    "gguf": (b"GGUF\3\0\0\0", "application/x-gguf", "other"),
}  # fmt: skip


@pytest.mark.parametrize(("head", "media_type", "kind"), KNOWN.values(), ids=KNOWN)
def test_what_is_known(head: bytes, media_type: str, kind: str) -> None:
    content = content_of(head)
    assert content is not None
    assert (content.media_type, content.kind) == (media_type, kind)
    assert content.said.startswith(("a ", "an ", "plain "))
    assert content.suffix.startswith(".")


@pytest.mark.parametrize(
    "head",
    [
        b"",
        b"\0",
        bytes(4096),
        b"\x80\x02}q\x00",  # a pickle
        struct.pack("<Q", 90) + b'{"__metadata__":{}}',  # a safetensors file
        b"\xff\xfb\x90\x00" + bytes(600),  # one frame of an MP3, and no second
        b"\xff\xf1\x50\x80\x02\x1f\xfc" + bytes(600),  # one frame of AAC, and no second
        b"G" + bytes(400),
        b"BM" + bytes(30),
        b"MZ" + bytes(100),
        b"\0\0\1\0" + bytes(20),
        b"RIFF\0\0\0\0sfbk",
        b"\xc3\x28 no UTF-8",
        b"a\0b",
    ],
    ids=range(14),
)  # fmt: skip
def test_what_is_not_known(head: bytes) -> None:
    assert content_of(head) is None


@pytest.mark.parametrize(
    "text",
    [
        "The wide road",
        "The free one",
        "a = ftypes()",
        "GGGG" * 300,
        "ID3 tags are a mess",
        "MZ was here. " * 20,
        "BMW makes cars, and motorcycles too",
        "RIFF raff AVI",
        "caff",
        "{curly} but no JSON",
        "<3 you",
        "< p",
        "[x] done",
        "#!/bin/sh\necho",
    ],
)
@pytest.mark.parametrize("encoding", ["utf-8", "utf-16"])
def test_a_text_is_a_text(text: str, encoding: str) -> None:
    content = content_of(text.encode(encoding))
    assert content is not None
    assert content.said == "plain text"


def test_a_png_moves_only_when_it_says_so_before_its_data() -> None:
    content = content_of(picture("png")[:-12] + b"\0\0\0\x08acTL\0\0\0\2\0\0\0\0")
    assert content is not None
    assert not content.moves


@pytest.mark.parametrize("kind", ["gif", "png", "webp"])
def test_a_moving_picture_may_serve_as_a_video(kind: str) -> None:
    content = content_of(picture(kind, 3))
    assert content is not None
    assert content.moves


@pytest.mark.parametrize("kind", ["png", "webp", "jpeg", "avif"])
def test_a_still_picture_does_not_move(kind: str) -> None:
    content = content_of(picture(kind))
    assert content is not None
    assert not content.moves


@given(st.binary(max_size=600) | st.sampled_from([head for head, _, _ in KNOWN.values()]), st.integers(0, 60))
def test_any_beginning_is_known_or_not(head: bytes, length: int) -> None:
    for cut in (head, head[:length]):
        content = content_of(cut)
        assert content is None or content.kind in ("image", "video", "audio", "page", "text", "archive", "other")


def known(name: str) -> Content:
    content = content_of(KNOWN[name][0])
    assert content is not None
    return content


@pytest.mark.parametrize(
    ("name", "content", "right"),
    [
        ("photo.png", "png", "photo.png"),
        ("PHOTO.PNG", "png", "PHOTO.PNG"),
        ("photo.jpeg", "jpeg", "photo.jpeg"),
        ("photo.jfif", "jpeg", "photo.jfif"),
        ("download.php", "jpeg", "download.jpg"),
        ("photo.png", "jpeg", "photo.jpg"),
        ("a.b.c", "png", "a.b.png"),
        ("download", "png", "download.png"),
        ("v1.2 final cut", "mp4", "v1.2 final cut.mp4"),
        ("clip.bin", "mp4", "clip.mp4"),
        ("clip.mov", "mp4", "clip.mov"),
        ("song.m4a", "mp4", "song.m4a"),
        ("clip", "webm", "clip.webm"),
        ("clip.mkv", "webm", "clip.mkv"),
        ("song.ogg", "opus", "song.ogg"),
        ("song", "opus", "song.opus"),
        ("model.ckpt", "zip", "model.ckpt"),
        ("notes.md", "text", "notes.md"),
        ("notes", "text", "notes.txt"),
        ("archive", "zip", "archive.zip"),
        (".png", "png", ".png.png"),
    ],
)
def test_a_name_that_says_what_it_is(name: str, content: str, right: str) -> None:
    assert right_name(name, known(content)) == right


def test_a_name_stays_where_nothing_is_known() -> None:
    assert right_name("face.tga", None) == "face.tga"
    assert right_name("face", None) == "face"


def test_a_name_may_keep_an_ending_of_its_own() -> None:
    assert right_name("table.lut", known("png"), or_its_own=True) == "table.lut"
    assert right_name("table", known("png"), or_its_own=True) == "table.png"
