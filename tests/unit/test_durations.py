"""Seconds and pixels as containers say them, of whole files, broken ones, and very large ones."""

from __future__ import annotations

import io
import os
import struct
import wave
from array import array
from pathlib import Path

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from PIL import Image

from morpheus_worker.durations import duration_of, video_size_of
from morpheus_worker.rehearsal.clip import mp4
from morpheus_worker.rehearsal.flac import flac

CLIP = mp4([Image.new("RGB", (48, 32))] * 12, 8.0)
"""Twelve pictures at eight a second; its index follows its data."""


def box(kind: bytes, *contents: bytes) -> bytes:
    content = b"".join(contents)
    return struct.pack(">I4s", 8 + len(content), kind) + content


FTYP = box(b"ftyp", b"isom\0\0\2\0isom")
PLAIN, TURNED = (0x10000, 0, 0, 0, 0x10000, 0, 0, 0, 1 << 30), (0, 0x10000, 0, -0x10000, 0, 0, 0, 0, 1 << 30)


def mvhd(scale: int, units: int, version: int = 0) -> bytes:
    times = struct.pack(">IIII" if version == 0 else ">QQIQ", 0, 0, scale, units)
    return box(b"mvhd", bytes([version, 0, 0, 0]), times, bytes(80))


def track(width: int, height: int, matrix: tuple[int, ...] = PLAIN, version: int = 0) -> bytes:
    times = bytes(20 if version == 0 else 32)
    placed = bytes(16) + struct.pack(">9i", *matrix) + struct.pack(">II", width << 16, height << 16)
    return box(b"trak", box(b"tkhd", bytes([version, 0, 0, 3]), times, placed), box(b"mdia"))


def movie(*boxes: bytes) -> bytes:
    return FTYP + box(b"moov", *boxes)


def element(name: str, *contents: bytes, size_bytes: int = 0) -> bytes:
    content = b"".join(contents)
    size = len(content) | 1 << 7 * size_bytes if size_bytes else len(content) | 0x80
    return bytes.fromhex(name) + size.to_bytes(size_bytes or 1, "big") + content


EBML = element("1a45dfa3", element("4282", b"webm"))
DURATION = element("4489", struct.pack(">d", 2500.0))
PIXELS = element("e0", element("b0", b"\2\x80"), element("ba", b"\1\x68"))
VIDEO = element("1654ae6b", element("ae", element("83", b"\2")), element("ae", PIXELS))


def webm(*contents: bytes, size_bytes: int = 8) -> bytes:
    return EBML + element("18538067", *contents, size_bytes=size_bytes)


def page(packet: bytes, samples: int, serial: int = 7) -> bytes:
    return struct.pack("<4sBBqIIIB", b"OggS", 0, 0, samples, serial, 0, 0, 1) + bytes([len(packet)]) + packet


OPUS = b"OpusHead\1\2" + struct.pack("<HI", 312, 48000)
VORBIS = b"\1vorbis" + struct.pack("<IBI", 0, 2, 22050)


def wav(seconds: float, *, size: int | None = None) -> bytes:
    raw = io.BytesIO()
    with wave.open(raw, "wb") as sound:
        sound.setnchannels(2)
        sound.setsampwidth(2)
        sound.setframerate(8000)
        sound.writeframes(bytes(int(seconds * 8000) * 4))
    content = bytearray(raw.getvalue())
    if size is not None:
        content[40:44] = struct.pack("<I", size)
    return bytes(content)


LARGE_WAV = (
    b"RF64\xff\xff\xff\xffWAVE" + b"ds64" + struct.pack("<IQQQI", 28, 0, 6_400_000_000, 0, 0)
    + b"fmt " + struct.pack("<IHHIIHH", 16, 1, 2, 8000, 32_000, 4, 16) + b"data\xff\xff\xff\xff"
)  # fmt: skip


def mp3(
    frames: int, tag: bytes = b"Xing", head: bytes = b"\xff\xfb\x90\x00", *, side: int = 32, length: int = 417
) -> bytes:
    frame = head + bytes(side) + tag + struct.pack(">II", 1, frames)
    return frame.ljust(length, b"\0") + head.ljust(length, b"\0")


ID3 = b"ID3\4\0\0\0\0\1\x48" + bytes(200)
AVI = b"RIFF\0\1\0\0AVI LIST\xc0\0\0\0hdrlavih\x38\0\0\0" + struct.pack("<IIIII", 40_000, 0, 0, 16, 75) + bytes(60)

CASES: dict[str, tuple[bytes, float | None]] = {
    "mp4": (CLIP, 1.5),
    "mp4 with its index first": (movie(mvhd(600, 900)) + box(b"mdat", bytes(99)), 1.5),
    "mp4 in 64 bits": (movie(mvhd(90_000, 2**33, version=1)), 2**33 / 90_000),
    "mp4 with a large box": (FTYP + struct.pack(">I4sQ", 1, b"mdat", 116) + bytes(100) + movie(mvhd(600, 900)), 1.5),
    "mp4 whose last box has no size": (FTYP + struct.pack(">I4s", 0, b"moov") + mvhd(600, 900), 1.5),
    "mp4 in fragments": (movie(mvhd(600, 0), box(b"mvex", box(b"mehd", struct.pack(">II", 0, 900)))), 1.5),
    "mp4 in fragments, in 64 bits": (
        movie(mvhd(600, 0), box(b"mvex", box(b"mehd", struct.pack(">IQ", 1 << 24, 900)))),
        1.5,
    ),
    "mp4 in fragments that does not say": (movie(mvhd(600, 0), box(b"mvex")), None),
    "mp4 of unknown duration": (movie(mvhd(600, 0xFFFFFFFF)), None),
    "mp4 without a scale": (movie(mvhd(0, 900)), None),
    "mp4 without an index": (FTYP + box(b"mdat", bytes(99)), None),
    "mp4 whose box ends before it begins": (FTYP + struct.pack(">I4s", 3, b"free") + movie(mvhd(600, 900)), None),
    "webm": (webm(element("1549a966", element("2ad7b1", b"\x0f\x42\x40"), DURATION)), 2.5),
    "webm of its usual scale": (webm(element("1549a966", DURATION)), 2.5),
    "webm with a short number": (webm(element("1549a966", element("4489", struct.pack(">f", 2500.0)))), 2.5),
    "webm of another scale": (webm(element("1549a966", element("2ad7b1", b"\x03\xe8"), DURATION)), 0.0025),
    "webm behind other elements": (webm(element("ec", bytes(90)), element("1549a966", DURATION)), 2.5),
    "webm that is live": (EBML + b"\x18\x53\x80\x67\x01" + b"\xff" * 7 + element("1549a966", DURATION), 2.5),
    "webm that does not say": (webm(element("1549a966")), None),
    "webm without numbers": (webm(element("1549a966", element("4489", b""))), None),
    "webm of no number": (webm(element("1549a966", element("4489", struct.pack(">d", float("nan"))))), None),
    "wav": (wav(1.25), 1.25),
    "wav from a pipe": (wav(1.25, size=0xFFFFFFFF), 1.25),
    "wav that was not finished": (wav(1.25, size=0), 1.25),
    "wav of more than 4 GiB": (LARGE_WAV, 200_000.0),
    "wav without a format": (b"RIFF\0\0\0\0WAVEdata\x10\0\0\0" + bytes(16), None),
    "flac": (flac(array("h", [0]) * 12_000, 8000, 2), 1.5),
    "flac that does not say": (b"fLaC\0\0\0\x22" + bytes(10) + struct.pack(">Q", 8000 << 44) + bytes(16), None),
    "opus": (page(OPUS, 0) + page(b"x", 24_000) + page(b"x", 120_312), 2.5),
    "opus between other streams": (page(OPUS, 0) + page(b"x", 120_312) + page(b"x", 999_999, serial=8), 2.5),
    "opus cut within a page": (page(OPUS, 0) + page(b"x", 120_312) + page(b"x", 240_000)[:10], 2.5),
    "vorbis": (page(VORBIS, 0) + page(b"x", 33_075), 1.5),
    "vorbis whose last page ends no packet": (page(VORBIS, 0) + page(b"x", 33_075) + page(b"x", -1), 1.5),
    "another stream in ogg": (page(b"Speex   ", 0) + page(b"x", 99), None),
    "mp3": (mp3(100), 100 * 1152 / 44_100),
    "mp3 of a constant rate": (mp3(100, tag=b"Info"), 100 * 1152 / 44_100),
    "mp3 behind a tag": (ID3 + mp3(100), 100 * 1152 / 44_100),
    "mp3 at half the rate": (mp3(100, head=b"\xff\xf3\x80\xc0", side=9, length=208), 100 * 576 / 22_050),
    "mp3 that does not say": (b"\xff\xfb\x90\x00" + bytes(413) + b"\xff\xfb\x90\x00" + bytes(413), None),
    "mp3 whose tag has no count": (mp3(100)[:43] + b"\0" + mp3(100)[44:], None),
    "avi": (AVI, 3.0),
    "avi without a header": (b"RIFF\0\1\0\0AVI LIST\xc0\0\0\0movi" + bytes(40), None),
    "a transport stream": ((b"G\x40\x11\x10" + b"\xff" * 184) * 4, None),
    "a text": (b"no video", None),
    "nothing": (b"", None),
}  # fmt: skip


@pytest.mark.parametrize(("content", "seconds"), CASES.values(), ids=CASES)
def test_the_duration_that_a_file_says(content: bytes, seconds: float | None, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    for media_type in ("video/mp4", "audio/wav"):
        assert duration_of(tmp_path / "x", media_type) == pytest.approx(seconds)


def test_what_does_not_last_has_no_duration(tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(CLIP)
    assert duration_of(tmp_path / "x", "image/png") is None
    assert duration_of(tmp_path / "x", "application/json") is None


@pytest.mark.parametrize(
    ("content", "size"),
    [
        (CLIP, (48, 32)),
        (movie(mvhd(1, 1), track(640, 360)), (640, 360)),
        (movie(mvhd(1, 1), track(640, 360, TURNED)), (360, 640)),
        (movie(mvhd(1, 1), track(640, 360, version=1)), (640, 360)),
        (movie(mvhd(1, 1), track(0, 0), track(640, 360)), (640, 360)),
        (movie(mvhd(1, 1), track(0, 0)), None),
        (movie(mvhd(1, 1), box(b"trak")), None),
        (webm(element("1549a966", DURATION), VIDEO), (640, 360)),
        (webm(element("1654ae6b", element("ae", element("e0")))), None),
        (webm(), None),
        (wav(1.0), None),
        (b"", None),
    ],
    ids=range(12),
)
def test_the_size_that_a_video_says(content: bytes, size: tuple[int, int] | None, tmp_path: Path) -> None:
    (tmp_path / "x").write_bytes(content)
    assert video_size_of(tmp_path / "x") == size


def test_a_file_that_is_not_there_says_nothing(tmp_path: Path) -> None:
    assert duration_of(tmp_path / "gone.mp4", "video/mp4") is None
    assert video_size_of(tmp_path) is None


@settings(max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    name=st.sampled_from(sorted(CASES)), at=st.integers(0, 300), rest=st.binary(max_size=24), cut=st.integers(0, 400)
)
def test_a_broken_file_raises_nothing(tmp_path: Path, name: str, at: int, rest: bytes, cut: int) -> None:
    whole = CASES[name][0]
    for content in (whole[:cut], whole[:at] + rest + whole[at + len(rest) :]):
        (tmp_path / "x").write_bytes(content)
        seconds = duration_of(tmp_path / "x", "video/mp4")
        assert seconds is None or seconds > 0
        video_size_of(tmp_path / "x")


def read_bytes() -> int:
    """What this process has read from files until now."""
    counts = dict(line.split(": ") for line in Path("/proc/self/io").read_text().splitlines())
    return int(counts["rchar"])


@pytest.mark.parametrize(
    "parts",
    [
        (FTYP + struct.pack(">I4sQ", 1, b"mdat", 8 * 1024**3), 8 * 1024**3 + len(FTYP), movie(mvhd(600, 900))),
        (page(OPUS, 0), 8 * 1024**3, page(b"x", 72_312)),
        (movie(mvhd(600, 900)), 8 * 1024**3, b"x"),
        (FTYP + box(b"free") * 200_000, 8 * 1024**3, b"x"),
        (webm(element("ec", bytes(16)) * 100_000, size_bytes=4), 8 * 1024**3, b"x"),
    ],
    ids=["its index at the end", "a sound", "its index at the beginning", "no end of boxes", "no end of elements"],
)
def test_a_file_of_gigabytes_is_not_read(parts: tuple[bytes, int, bytes], tmp_path: Path) -> None:
    head, at, tail = parts
    with (tmp_path / "x").open("wb") as stream:
        stream.write(head)
        stream.seek(at)
        stream.write(tail)
    before = read_bytes()
    seconds = duration_of(tmp_path / "x", "video/mp4")
    assert read_bytes() - before < 64 * 1024**2
    assert seconds in (None, 1.5)
    assert os.stat(tmp_path / "x").st_size > 8 * 1024**3
