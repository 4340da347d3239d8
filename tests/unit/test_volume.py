"""The volume as a place, on real files, links and mounts."""

from __future__ import annotations

import errno
import os
import shutil
import socket
import subprocess
import sys
import threading
from collections.abc import Callable
from pathlib import Path, PurePosixPath

import pytest

from morpheus_worker import volume
from morpheus_worker.deadlines import Deadline
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.paths import UnsafePathError
from morpheus_worker.volume import confined, ensure_writable, open_beneath, volume_error, wait_for_volume

FILE = PurePosixPath("job_outputs/7/x.png")


@pytest.fixture
def root(tmp_path: Path) -> Path:
    """A volume with one published file, beside a secret that no path may reach."""
    root = tmp_path / "volume"
    (root / "job_outputs" / "7").mkdir(parents=True)
    (root / FILE).write_bytes(b"picture")
    (tmp_path / "secret").mkdir()
    (tmp_path / "secret" / "x.png").write_bytes(b"secret")
    return root


def read(root: Path, relative: str | PurePosixPath, *, follow_links: bool = False) -> bytes:
    with open_beneath(root, PurePosixPath(relative), follow_links=follow_links) as file:
        return file.read()


# confined


def test_confined_follows_links_that_stay_inside(root: Path) -> None:
    (root / "latest").symlink_to("job_outputs/7")
    assert confined(root, PurePosixPath("latest/x.png")) == root / FILE
    assert confined(root, PurePosixPath()) == root


def test_confined_names_what_does_not_exist_yet(root: Path) -> None:
    assert confined(root, PurePosixPath("job_outputs/8/y.png")) == root / "job_outputs/8/y.png"


def test_confined_under_a_root_that_is_itself_a_link(root: Path, tmp_path: Path) -> None:
    (tmp_path / "mount").symlink_to(root)
    assert confined(tmp_path / "mount", FILE) == root / FILE


@pytest.mark.parametrize("target", ["../secret", "/etc", "../volume2", "missing/../../secret"])
def test_confined_refuses_links_out(root: Path, target: str) -> None:
    (root / "out").symlink_to(target)
    with pytest.raises(UnsafePathError, match="leads out of the volume"):
        confined(root, PurePosixPath("out/x.png"))


def test_confined_refuses_dots_and_absolute_paths(root: Path) -> None:
    for escape in ("../secret/x.png", "/etc/passwd", "job_outputs/../../secret"):
        with pytest.raises(UnsafePathError):
            confined(root, PurePosixPath(escape))


@pytest.mark.parametrize("asked", ["ring", "ring/x.png"])
def test_confined_refuses_a_circle(root: Path, asked: str) -> None:
    (root / "ring").symlink_to("ring")
    with pytest.raises(UnsafePathError, match="circle"):
        confined(root, PurePosixPath(asked))


# open_beneath


def test_a_file_is_opened(root: Path) -> None:
    assert read(root, FILE) == b"picture"


def test_a_link_is_followed_on_request_only(root: Path) -> None:
    (root / "latest").symlink_to("job_outputs/7")
    with pytest.raises(UnsafePathError, match="goes through a link \\('latest'\\)"):
        read(root, "latest/x.png")
    assert read(root, "latest/x.png", follow_links=True) == b"picture"


@pytest.mark.parametrize("follow_links", [False, True])
@pytest.mark.parametrize(("name", "target"), [("job_outputs/7/y.png", "secret/x.png"), ("job_outputs/8", "secret")])
def test_a_link_out_is_never_followed(root: Path, tmp_path: Path, name: str, target: str, follow_links: bool) -> None:
    (root / name).symlink_to(tmp_path / target)
    asked = name if name.endswith(".png") else f"{name}/x.png"
    with pytest.raises(UnsafePathError):
        read(root, asked, follow_links=follow_links)


@pytest.mark.parametrize("escape", ["../secret/x.png", "/etc/passwd", ".", "job_outputs/../../secret/x.png"])
def test_only_paths_beneath_the_root(root: Path, escape: str) -> None:
    with pytest.raises(UnsafePathError):
        read(root, escape)


@pytest.mark.parametrize("relative", ["job_outputs/7/y.png", "job_outputs/8/x.png", "nothing"])
def test_what_is_missing_is_not_found_by_its_whole_path(root: Path, relative: str) -> None:
    with pytest.raises(FileNotFoundError) as missing:
        read(root, relative)
    assert missing.value.filename == relative


def test_a_file_is_no_folder(root: Path) -> None:
    with pytest.raises(NotADirectoryError):
        read(root, FILE / "y.png")


def test_a_folder_is_no_file(root: Path) -> None:
    with pytest.raises(UnsafePathError, match="is a folder"):
        read(root, FILE.parent)


def test_a_named_pipe_is_refused_without_waiting_for_its_writer(root: Path) -> None:
    os.mkfifo(root / "pipe")
    with pytest.raises(UnsafePathError, match="not a regular file"):
        read(root, "pipe")


def test_a_socket_is_refused(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(root)  # a socket's path may have 107 bytes
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind("s")
        with pytest.raises(UnsafePathError, match="not a regular file"):
            read(root, "s")


def test_a_root_that_is_gone_is_the_volumes_fault(tmp_path: Path) -> None:
    with pytest.raises(MorpheusError) as failure:
        read(tmp_path / "nowhere", FILE)
    assert failure.value.code == Code.VOLUME_UNAVAILABLE


def test_a_folder_swapped_for_a_link_after_it_was_opened(
    root: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """The moment between two steps cannot be met otherwise, so the call that makes them is wrapped."""
    really_open = os.open

    def swap_then_open(path: str, flags: int, *, dir_fd: int | None = None) -> int:
        if path == "x.png":
            (root / "job_outputs/7").rename(root / "job_outputs/old")
            (root / "job_outputs/7").symlink_to(tmp_path / "secret")
        return really_open(path, flags, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swap_then_open)
    assert read(root, FILE) == b"picture"


def test_a_folder_that_keeps_being_swapped_never_leads_out(root: Path, tmp_path: Path) -> None:
    folder, aside, link = root / "job_outputs/7", root / "aside", root / "link"
    link.symlink_to(tmp_path / "secret")
    stop = threading.Event()

    def swap() -> None:
        while not stop.is_set():
            folder.rename(aside)
            link.rename(folder)
            folder.rename(link)
            aside.rename(folder)

    swapper = threading.Thread(target=swap)
    swapper.start()
    try:
        seen = {_outcome(root, follow_links=number % 2 == 0) for number in range(3000)}
    finally:
        stop.set()
        swapper.join()
    assert b"secret" not in seen
    assert read(root, FILE) == b"picture"


def _outcome(root: Path, *, follow_links: bool) -> bytes | type[Exception]:
    try:
        return read(root, FILE, follow_links=follow_links)
    except (UnsafePathError, FileNotFoundError, NotADirectoryError) as failure:
        return type(failure)


def test_no_descriptor_is_left_behind(root: Path) -> None:
    os.mkfifo(root / "pipe")
    (root / "link").symlink_to("job_outputs")
    before = len(os.listdir("/dev/fd"))
    for relative in ("pipe", "link/7/x.png", "job_outputs/7", "job_outputs/9/x", "job_outputs/7/x.png/y"):
        with pytest.raises((UnsafePathError, OSError)):
            read(root, relative)
    assert len(os.listdir("/dev/fd")) == before


# wait_for_volume


class FakeTime:
    """A clock that only sleeping moves, and what happens meanwhile."""

    def __init__(self, meanwhile: Callable[[], None] = lambda: None, *, at_s: float = 3.0) -> None:
        self.now_s = 0.0
        self.meanwhile, self.at_s = meanwhile, at_s

    def clock(self) -> float:
        return self.now_s

    def sleep(self, seconds: float) -> None:
        before_s, self.now_s = self.now_s, self.now_s + seconds
        if before_s < self.at_s <= self.now_s:
            self.meanwhile()


def test_a_volume_that_is_there_costs_no_wait(root: Path) -> None:
    def never(seconds: float) -> None:
        raise AssertionError("slept")

    wait_for_volume(root, deadline=Deadline.after(0.0), sleep=never)


def test_a_volume_that_comes_late(tmp_path: Path) -> None:
    time = FakeTime((tmp_path / "volume").mkdir)
    wait_for_volume(tmp_path / "volume", deadline=Deadline.after(60.0, clock=time.clock), sleep=time.sleep)
    assert 3.0 <= time.now_s <= 6.0


def test_a_volume_that_never_comes(tmp_path: Path) -> None:
    time = FakeTime()
    with pytest.raises(MorpheusError) as failure:
        wait_for_volume(tmp_path / "volume", deadline=Deadline.after(60.0, clock=time.clock), sleep=time.sleep)
    assert failure.value.code == Code.VOLUME_UNAVAILABLE
    assert f"{tmp_path}/volume does not exist after 60 s of waiting" in failure.value.message
    assert "/runpod-volume" in failure.value.message
    assert "MORPHEUS_VOLUME_ROOT" in failure.value.message


def test_a_file_is_no_volume(tmp_path: Path) -> None:
    (tmp_path / "volume").write_text("")
    with pytest.raises(MorpheusError, match="is not a folder"):
        wait_for_volume(tmp_path / "volume", deadline=Deadline.after(0.0))


def test_a_volume_whose_listing_fails(root: Path) -> None:
    def look(_: Path) -> None:
        raise OSError(errno.ENOTCONN, os.strerror(errno.ENOTCONN))

    with pytest.raises(MorpheusError, match="cannot be listed \\(Transport endpoint is not connected\\)"):
        wait_for_volume(root, deadline=Deadline.after(0.0), look=look)


def test_a_volume_that_does_not_answer_at_all(root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(volume, "LEAST_LOOK_S", 0.05)
    answer = threading.Event()

    def look(_: Path) -> None:
        answer.wait()

    with pytest.raises(MorpheusError, match="did not answer"):
        wait_for_volume(root, deadline=Deadline.after(0.0), look=look)
    answer.set()


# ensure_writable, volume_error


def test_a_writable_volume_keeps_nothing_of_the_probe(root: Path) -> None:
    before = sorted(root.rglob("*"))
    ensure_writable(root)
    assert sorted(root.rglob("*")) == before


def test_a_volume_that_refuses_to_be_written(tmp_path: Path) -> None:
    refusing = Path("/sys") if os.geteuid() == 0 else tmp_path
    if refusing == tmp_path:
        tmp_path.chmod(0o555)
    with pytest.raises(MorpheusError) as failure:
        ensure_writable(refusing)
    assert failure.value.code == Code.VOLUME_UNAVAILABLE
    assert f"Writing to {refusing} failed" in failure.value.message


MOUNTED = """
import pathlib, sys
from morpheus_worker.errors import MorpheusError
from morpheus_worker.volume import ensure_writable
root = pathlib.Path(sys.argv[1])
try:
    ensure_writable(root)
except MorpheusError as failure:
    print(failure.code, failure.message, len(list(root.iterdir())))
"""


@pytest.mark.parametrize(
    ("options", "filled", "code", "said"),
    [("ro", False, "volume_unavailable", "mounted read-only"), ("size=4k", True, "volume_full", "the volume is full")],
)
def test_a_mounted_volume(tmp_path: Path, options: str, filled: bool, code: str, said: str) -> None:
    """A tmpfs in a mount namespace of its own, which needs no root where user namespaces are allowed."""
    if shutil.which("unshare") is None:
        pytest.skip("needs the command unshare")
    fill = 'head -c 4096 /dev/zero > "$1/f"; ' if filled else ""
    script = f'mount -t tmpfs -o {options} none "$1" || exit 77; {fill}exec "$2" -c "$3" "$1"'
    unshare = ["unshare", "--mount", *([] if os.geteuid() == 0 else ["--user", "--map-root-user"])]
    command = [*unshare, "sh", "-c", script, "sh", str(tmp_path), sys.executable, MOUNTED]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, cwd=Path(__file__).parents[2])
    if done.returncode and not done.stdout and "Traceback" not in done.stderr:
        pytest.skip(f"cannot mount here: {done.stderr.strip()}")
    assert done.stdout.startswith(code), done.stderr
    assert said in done.stdout
    assert done.stdout.split()[-1] == ("1" if filled else "0")


@pytest.mark.parametrize(
    ("number", "code"),
    [
        (errno.ENOSPC, Code.VOLUME_FULL),
        (errno.EDQUOT, Code.VOLUME_FULL),
        (errno.EROFS, Code.VOLUME_UNAVAILABLE),
        (errno.EACCES, Code.VOLUME_UNAVAILABLE),
        (errno.ESTALE, Code.VOLUME_UNAVAILABLE),
        (errno.ENOTCONN, Code.VOLUME_UNAVAILABLE),
        (errno.EIO, Code.VOLUME_UNAVAILABLE),
        (errno.EMFILE, Code.INTERNAL),
    ],
)
def test_volume_error(number: int, code: Code) -> None:
    failure = volume_error(OSError(number, os.strerror(number), "/runpod-volume/x.png"), "publishing 'x.png'")
    assert failure.code == code
    assert failure.message.startswith(f"Publishing 'x.png' failed ({os.strerror(number)})")
    assert failure.message.endswith(".")
    assert failure.details == {"errno": errno.errorcode[number], "path": "/runpod-volume/x.png"}


def test_volume_error_without_a_number() -> None:
    failure = volume_error(OSError("short write"), "publishing 'x.png'")
    assert failure.message == "Publishing 'x.png' failed (short write)."
    assert failure.code == Code.INTERNAL
