"""Clips are read as far as it can be done without a decoder."""

from __future__ import annotations

import struct
from pathlib import Path

import pytest
from PIL import Image

from morpheus_worker.rehearsal.clip import mp4
from morpheus_worker.rehearsal.footage import DEFAULT_FPS, UNKNOWN_LENGTH_S, read_footage

RED, BLUE = (255, 0, 0), (0, 0, 255)


def pictures(*colours: tuple[int, int, int], size: tuple[int, int] = (16, 8)) -> list[Image.Image]:
    return [Image.new("RGB", size, colour) for colour in colours]


def near(picture: Image.Image, colour: tuple[int, int, int]) -> bool:
    seen = picture.getpixel((4, 4))
    assert isinstance(seen, tuple)
    return all(abs(one - other) < 12 for one, other in zip(seen, colour, strict=True))


def test_its_own_clips_come_back(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(mp4(pictures(RED, BLUE, RED), 12.5))
    footage = read_footage(path, 100)
    assert (footage.count, footage.fps, footage.size, footage.has_sound) == (3, 12.5, (16, 8), False)
    assert footage.seconds == 3 / 12.5
    assert footage.pictures is not None
    assert [near(frame, colour) for frame, colour in zip(footage.pictures, (RED, BLUE, RED), strict=True)] == [True] * 3


def test_no_more_than_asked_for(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(mp4(pictures(RED, BLUE, RED), 10))
    footage = read_footage(path, 2)
    assert footage.count == 3
    assert footage.pictures is not None
    assert len(footage.pictures) == 2


def test_a_codec_that_cannot_be_read_leaves_the_numbers(tmp_path: Path) -> None:
    path = tmp_path / "h264.mp4"
    path.write_bytes(mp4(pictures(*[RED] * 50), 25).replace(b"\xff\xd8\xff", b"\x00\x00\x00"))
    footage = read_footage(path, 100)
    assert (footage.count, footage.fps, footage.size, footage.pictures) == (50, 25.0, (16, 8), None)


def test_a_track_of_sound_is_seen(tmp_path: Path) -> None:
    path = tmp_path / "clip.mp4"
    content = mp4(pictures(RED), 10)
    handler = b"\0" * 8 + b"soun" + b"\0" * 13
    sound = box(b"trak", box(b"mdia", box(b"hdlr", handler)))
    at = content.index(b"moov") - 4
    (size,) = struct.unpack_from(">I", content, at)
    path.write_bytes(content[:at] + struct.pack(">I", size + len(sound)) + content[at + 4 :] + sound)
    assert read_footage(path, 1).has_sound


def box(kind: bytes, content: bytes) -> bytes:
    return struct.pack(">I4s", 8 + len(content), kind) + content


@pytest.mark.parametrize("suffix", [".gif", ".webp", ".png"])
def test_animations(tmp_path: Path, suffix: str) -> None:
    path = tmp_path / f"moving{suffix}"
    first, *others = pictures(RED, BLUE)
    first.save(path, save_all=True, append_images=others, duration=50)
    footage = read_footage(path, 10)
    assert (footage.count, footage.fps, footage.size) == (2, 20.0, (16, 8))
    assert footage.pictures is not None
    assert near(footage.pictures[1], BLUE)


@pytest.mark.parametrize("content", [b"a clip", b"", b"\0\0\0\x18ftypmp42" + b"\0" * 12])
def test_a_clip_that_says_nothing_has_a_length_all_the_same(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "clip.mp4"
    path.write_bytes(content)
    footage = read_footage(path, 10)
    assert footage.seconds == UNKNOWN_LENGTH_S
    assert (footage.fps, footage.pictures) == (DEFAULT_FPS, None)


def test_a_file_that_is_not_there(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_footage(tmp_path / "no.mp4", 1)
