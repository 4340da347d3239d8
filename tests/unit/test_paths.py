"""What a text may name on the volume."""

from __future__ import annotations

from pathlib import Path, PurePosixPath

import pytest

from morpheus_worker.paths import MAX_FILENAME_BYTES, UnsafePathError, safe_filename, volume_relative

ROOT = Path("/mnt/volume")
PICTURE = PurePosixPath("job_outputs/7/x.png")


@pytest.mark.parametrize("slash", ["/", ""])
@pytest.mark.parametrize("view", ["mnt/volume/", "runpod-volume/", "workspace/", ""])
def test_every_view_of_a_file_resolves_equally(view: str, slash: str) -> None:
    assert volume_relative(f"{slash}{view}job_outputs/7/x.png", volume_root=ROOT) == PICTURE


@pytest.mark.parametrize(
    ("text", "relative"),
    [
        ("job_outputs/7/", "job_outputs/7"),
        ("//workspace///job_outputs/./7//x.png", "job_outputs/7/x.png"),
        ("./job_outputs/7/x.png", "job_outputs/7/x.png"),
        ("faces/me.png", "faces/me.png"),
        ("/workspace", "."),
        ("/runpod-volume/", "."),
        ("/mnt/volume/.", "."),
        ("job_outputs/7/%2e%2e/x.png", "job_outputs/7/%2e%2e/x.png"),
        ("job_outputs/7/ein Bild – 画像 🎨.png", "job_outputs/7/ein Bild – 画像 🎨.png"),
        ("job_outputs/7/...", "job_outputs/7/..."),
        ("job_outputs/7/x~1.png", "job_outputs/7/x~1.png"),
        ("job_outputs/7/" + "ü" * 127 + "x", "job_outputs/7/" + "ü" * 127 + "x"),
    ],
)
def test_spellings(text: str, relative: str) -> None:
    assert volume_relative(text, volume_root=ROOT) == PurePosixPath(relative)


@pytest.mark.parametrize(
    ("text", "relative"),
    [
        ("workspace/x.png", "x.png"),
        ("/runpod-volume/workspace/x.png", "workspace/x.png"),
        ("/workspace/workspace/x.png", "workspace/x.png"),
        ("/workspace/runpod-volume/x.png", "runpod-volume/x.png"),
        ("job_outputs/workspace/x.png", "job_outputs/workspace/x.png"),
        ("workspace/job_outputs/runpod-volume/x.png", "job_outputs/runpod-volume/x.png"),
        ("/workspaces", None),
        ("workspaces/x.png", "workspaces/x.png"),
    ],
)
def test_a_view_is_taken_off_once_and_only_at_the_front(text: str, relative: str | None) -> None:
    if relative is None:
        with pytest.raises(UnsafePathError):
            volume_relative(text, volume_root=ROOT)
    else:
        assert volume_relative(text, volume_root=ROOT) == PurePosixPath(relative)


def test_a_root_that_lies_in_another_view_is_taken_off_whole() -> None:
    root = Path("/workspace/volume")
    assert volume_relative("/workspace/volume/job_outputs/7/x.png", volume_root=root) == PICTURE
    assert volume_relative("/workspace/job_outputs/7/x.png", volume_root=root) == PICTURE


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("", "is empty"),
        ("  ", "is empty"),
        ("../etc/passwd", "'..'"),
        ("/runpod-volume/../etc/passwd", "'..'"),
        ("job_outputs/7/..", "'..'"),
        ("/etc/passwd", "outside the volume"),
        ("//etc/passwd", "outside the volume"),
        ("/", "outside the volume"),
        ("/runpod-volume2/x.png", "outside the volume"),
        ("/proc/self/environ", "outside the volume"),
        ("job_outputs\\7\\x.png", "backslash"),
        ("..\\x.png", "backslash"),
        ("job_outputs/7/x.png\x00.txt", "control character"),
        ("job_outputs/7/x\n.png", "control character"),
        ("job_outputs/7/x\x85.png", "control character"),
        ("job_outputs/7/\udc80.png", "surrogate"),
        ("~/x.png", "home folder"),
        ("~root/x.png", "home folder"),
        ("/workspace/~/x.png", "home folder"),
        ("job_outputs/7/" + "x" * 256, "more than 255 bytes"),
        ("job_outputs/7/" + "ü" * 128, "more than 255 bytes"),
        ("x/" * 2048, "4096 bytes or more"),
    ],
)
def test_refused(text: str, why: str) -> None:
    with pytest.raises(UnsafePathError, match=why):
        volume_relative(text, volume_root=ROOT)


def test_a_refusal_shows_what_is_invisible_and_not_a_megabyte() -> None:
    with pytest.raises(UnsafePathError) as refused:
        volume_relative("/etc/\x1b[31m" + "x" * 1_000_000, volume_root=ROOT)
    assert "\\x1b" in str(refused.value)
    assert len(str(refused.value)) < 200


@pytest.mark.parametrize(
    ("reported", "plain"),
    [
        ("x_00001_.png", "x_00001_.png"),
        ("video/clip.mp4", "clip.mp4"),
        ("C:\\pictures\\x.png", "x.png"),
        ("../../etc/passwd", "passwd"),
        ("folder/", "folder"),
        ("x\x00y\n.png", "x_y_.png"),
        ("half \ud83d.png", "half _.png"),
        ("100% #1?.png", "100_ _1_.png"),
        (".hidden.png", "hidden.png"),
        ("...", "file"),
        ("", "file"),
        ("/", "file"),
        ("..", "file"),
        ("~backup.png", "backup.png"),
        ("  x.png ", "x.png"),
        ("画像 🎨.png", "画像 🎨.png"),
    ],
)
def test_safe_filename(reported: str, plain: str) -> None:
    assert safe_filename(reported) == plain


def test_a_long_name_keeps_its_extension_and_whole_characters() -> None:
    name = safe_filename("ü" * 300 + ".safetensors")
    assert name.endswith("ü.safetensors")
    assert MAX_FILENAME_BYTES - 1 <= len(name.encode()) <= MAX_FILENAME_BYTES


def test_an_endless_extension_is_none() -> None:
    assert safe_filename("x." + "y" * 300) == "x." + "y" * (MAX_FILENAME_BYTES - 2)


@pytest.mark.parametrize("text", ["//user:5ecret@host/x.png", "https:user:5ecret@host/../x.png", "/a/../user:5ecret@b"])
def test_a_password_in_what_was_taken_for_a_path_is_not_repeated(text: str) -> None:
    with pytest.raises(UnsafePathError) as refused:
        volume_relative(text, volume_root=Path("/runpod-volume"))
    assert "5ecret" not in str(refused.value)
