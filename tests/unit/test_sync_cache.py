"""The cache's folder on real files, links and mounts: where things belong, and how they get there whole."""

from __future__ import annotations

import contextlib
import dataclasses
import errno
import itertools
import os
import shutil
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path, PurePosixPath

import pytest

from morpheus_worker.settings import Settings
from morpheus_worker.sync.cache import (
    Beats,
    Cache,
    Lease,
    Prior,
    check_space,
    hold,
    key_of,
    leftovers,
    remove_leftover,
    space_of,
)
from morpheus_worker.sync.cache.owners import Owner
from morpheus_worker.sync.terms import SyncCode, SyncError

FILE = PurePosixPath("checkpoints/sd.safetensors")
OTHER_FILE = PurePosixPath("loras/sd.safetensors")
KEY = key_of(FILE)
BYTES = b"weights" * 100
GONE = "0123456789ab-1-1-1-00000000"
"""An owner on a machine that nobody knows anything of."""


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    folder = tmp_path / "volume"
    folder.mkdir()
    return folder


@pytest.fixture
def cache(volume: Path) -> Cache:
    cache = Cache(volume / "cache", beneath=volume)
    cache.ensure_writable()
    return cache


@pytest.fixture
def part(cache: Cache) -> Path:
    return part_in(cache)


def part_in(cache: Cache, owner: str = "me", content: bytes = BYTES) -> Path:
    path = cache.part_path(KEY, owner)
    path.write_bytes(content)
    return path


@contextlib.contextmanager
def refused(code: SyncCode) -> Iterator[pytest.ExceptionInfo[SyncError]]:
    with pytest.raises(SyncError) as caught:
        yield caught
    assert caught.value.code is code, caught.value


@pytest.fixture
def small_disk(tmp_path: Path) -> Iterator[Path]:
    yield from mounted(tmp_path / "small", "-t", "tmpfs", "-o", "size=1m", "none")


def mounted(place: Path, *arguments: str) -> Iterator[Path]:
    place.mkdir(exist_ok=True)
    made = subprocess.run(["mount", *arguments, str(place)], capture_output=True, text=True, check=False)
    if made.returncode != 0:
        pytest.skip(f"nothing can be mounted here: {made.stderr.strip()}")
    try:
        yield place
    finally:
        subprocess.run(["umount", str(place)], check=True)


# Where things belong


def test_a_file_lies_at_its_path(cache: Cache) -> None:
    assert cache.at(FILE) == cache.root / FILE


def test_links_to_folders_are_followed_within_the_cache(cache: Cache) -> None:
    (cache.root / "unet").mkdir()
    (cache.root / "diffusion_models").symlink_to("unet")
    assert cache.at(PurePosixPath("diffusion_models/x.gguf")) == cache.root / "unet/x.gguf"


def test_a_path_through_a_link_out_of_the_cache_is_refused(cache: Cache, part: Path, tmp_path: Path) -> None:
    (tmp_path / "elsewhere").mkdir()
    (cache.root / "checkpoints").symlink_to(tmp_path / "elsewhere")
    with refused(SyncCode.VOLUME):
        cache.at(FILE)
    with refused(SyncCode.VOLUME):
        cache.publish(part, FILE, replace=True)
    assert part.exists()
    assert not any((tmp_path / "elsewhere").iterdir())


def test_a_link_in_a_circle_is_refused(cache: Cache) -> None:
    (cache.root / "checkpoints").symlink_to("checkpoints")
    with refused(SyncCode.VOLUME):
        cache.at(FILE)


@pytest.mark.parametrize(
    "path",
    ["../x", "a/../../x", "/etc/passwd", ".", "", ".morpheus/parts/x", ".Morpheus/receipts/x", ".morpheus", "a\0b"],
)
def test_a_path_that_names_no_file_of_the_cache_is_refused(cache: Cache, part: Path, path: str) -> None:
    with refused(SyncCode.INVALID):
        cache.at(PurePosixPath(path))
    with refused(SyncCode.INVALID):
        cache.publish(part, PurePosixPath(path), replace=True)


def test_a_folder_that_is_swapped_for_a_link_meanwhile_leads_nowhere(
    cache: Cache, part: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "elsewhere").mkdir()
    (cache.root / "checkpoints").mkdir()
    open_ = os.open

    def swapping(path: str, flags: int, mode: int = 0o777, *, dir_fd: int | None = None) -> int:
        if path == "checkpoints":
            (cache.root / "checkpoints").rename(cache.root / "away")
            (cache.root / "checkpoints").symlink_to(tmp_path / "elsewhere")
        return open_(path, flags, mode, dir_fd=dir_fd)

    monkeypatch.setattr(os, "open", swapping)
    with refused(SyncCode.VOLUME):
        cache.publish(part, FILE, replace=True)
    assert not any((tmp_path / "elsewhere").iterdir())


def test_keys_are_safe_names_and_no_two_paths_share_one() -> None:
    paths = ["a/x.bin", "b/x.bin", "a/" + "y" * 250, "a/" + "y" * 249 + "z", "a/ü €.bin", "a/.hidden", "a b", "a_b"]
    keys = {key_of(PurePosixPath(path)) for path in paths}
    assert len(keys) == len(paths)
    assert all(len(key) < 100 and key.isascii() and not set("/ \0") & set(key) for key in keys)
    assert key_of(FILE).endswith("-sd.safetensors")


# Making the cache


def test_the_cache_is_made_on_a_volume_that_is_there(volume: Path) -> None:
    Cache(volume / "deep/cache", beneath=volume).ensure_writable()
    assert (volume / "deep/cache/.morpheus/parts").is_dir()


def test_nothing_is_made_where_the_volume_is_not_mounted(tmp_path: Path) -> None:
    settings = Settings(volume_root=tmp_path / "runpod-volume")
    cache = Cache.of(settings)
    with refused(SyncCode.VOLUME) as caught:
        cache.ensure_writable()
    assert "MORPHEUS_VOLUME_ROOT" in str(caught.value)
    assert not settings.volume_root.exists()


def test_a_cache_elsewhere_needs_the_folder_above_it(tmp_path: Path) -> None:
    Cache.of(Settings(volume_root=tmp_path / "none", model_cache=tmp_path / "cache")).ensure_writable()
    assert (tmp_path / "cache").is_dir()
    with refused(SyncCode.VOLUME):
        Cache.of(Settings(volume_root=tmp_path / "none", model_cache=tmp_path / "no/cache")).ensure_writable()


def test_our_folder_is_made_again_where_somebody_removed_it(cache: Cache) -> None:
    shutil.rmtree(cache.work)
    cache.ensure_writable()
    assert cache.own_folder("leases").is_dir()


def test_our_folder_is_never_a_link(volume: Path, tmp_path: Path) -> None:
    (volume / "cache").mkdir()
    (volume / "cache/.morpheus").symlink_to(tmp_path)
    with refused(SyncCode.VOLUME):
        Cache(volume / "cache").ensure_writable()


def test_a_read_only_volume_is_said_so(cache: Cache, part: Path, tmp_path: Path) -> None:
    (cache.root / FILE.parent).mkdir()
    for place in mounted(tmp_path / "read-only", "--bind", str(cache.root)):
        subprocess.run(["mount", "-o", "remount,bind,ro", str(place)], check=True)
        _is_read_only(Cache(place), place / part.relative_to(cache.root))


def _is_read_only(cache: Cache, part: Path) -> None:
    for act in (
        cache.ensure_writable,
        lambda: cache.publish(part, FILE, replace=False),
        lambda: next(take(cache, KEY, 1)),
    ):
        with refused(SyncCode.VOLUME) as caught:
            act()
        assert "read-only" in str(caught.value)
    assert space_of(cache).free > 0
    assert [each.kind for each in leftovers(cache)] == ["part"]


# Publishing


def test_a_published_part_is_the_file(cache: Cache, part: Path) -> None:
    published = cache.publish(part, FILE, replace=False)
    assert (cache.root / FILE).read_bytes() == BYTES
    there = (cache.root / FILE).stat()
    assert (there.st_size, there.st_mtime_ns, there.st_ino) == (
        published.st_size,
        published.st_mtime_ns,
        published.st_ino,
    )
    assert published.st_mtime_ns % 1_000_000_000 == 0
    assert there.st_nlink == 1
    assert not any(cache.part_path(KEY, "me").parent.iterdir())


def test_something_else_is_not_replaced_unasked(cache: Cache, part: Path) -> None:
    (cache.root / FILE).parent.mkdir()
    (cache.root / FILE).write_bytes(b"theirs")
    with refused(SyncCode.CONFLICT):
        cache.publish(part, FILE, replace=False)
    assert (cache.root / FILE).read_bytes() == b"theirs"
    assert part.exists()
    cache.publish(part, FILE, replace=True)
    assert (cache.root / FILE).read_bytes() == BYTES


def test_a_link_by_hand_is_replaced_never_what_it_points_to(cache: Cache, part: Path, tmp_path: Path) -> None:
    (tmp_path / "theirs").write_bytes(b"theirs")
    (cache.root / FILE).parent.mkdir()
    (cache.root / FILE).symlink_to(tmp_path / "theirs")
    with refused(SyncCode.CONFLICT):
        cache.publish(part, FILE, replace=False)
    cache.publish(part, FILE, replace=True)
    assert not (cache.root / FILE).is_symlink()
    assert (tmp_path / "theirs").read_bytes() == b"theirs"


def test_a_link_that_leads_nowhere_is_in_the_way(cache: Cache, part: Path) -> None:
    (cache.root / FILE).parent.mkdir()
    (cache.root / FILE).symlink_to("nothing")
    with refused(SyncCode.CONFLICT):
        cache.publish(part, FILE, replace=False)


@pytest.mark.parametrize("replace", [False, True])
def test_a_folder_is_never_replaced_by_a_file(cache: Cache, part: Path, replace: bool) -> None:
    (cache.root / FILE).mkdir(parents=True)
    with refused(SyncCode.CONFLICT):
        cache.publish(part, FILE, replace=replace)


def test_a_file_where_a_folder_belongs_is_named(cache: Cache, part: Path) -> None:
    (cache.root / "checkpoints").write_bytes(b"")
    with refused(SyncCode.VOLUME) as caught:
        cache.publish(part, FILE, replace=False)
    assert "checkpoints" in str(caught.value)


@pytest.mark.parametrize("number", [errno.EPERM, errno.EOPNOTSUPP])
def test_a_volume_without_hard_links_does_it_otherwise(
    cache: Cache, part: Path, number: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise OSError(number, os.strerror(number))

    monkeypatch.setattr(os, "link", refusing)
    cache.publish(part, FILE, replace=False)
    assert (cache.root / FILE).read_bytes() == BYTES
    with refused(SyncCode.CONFLICT):
        cache.publish(part_in(cache), FILE, replace=False)
    with hold(cache, KEY, stop=threading.Event()) as lease:
        assert lease.path.exists()


def test_a_volume_that_sets_no_times_keeps_its_own(cache: Cache, part: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, os.strerror(errno.EPERM))

    monkeypatch.setattr(os, "utime", refusing)
    assert cache.publish(part, FILE, replace=False).st_mtime_ns == (cache.root / FILE).stat().st_mtime_ns


def test_a_new_version_never_has_the_time_of_the_one_before(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("morpheus_worker.sync.cache.places.time.time", lambda: 1_700_000_000.5)
    before = cache.publish(part_in(cache, content=b"older"), FILE, replace=False)
    after = cache.publish(part_in(cache, content=b"newer"), FILE, replace=True)
    # The receipt of the one before is still there when a run ends just now: it must not hold for the new bytes.
    assert (before.st_size, before.st_mtime_ns) != (after.st_size, after.st_mtime_ns)


def test_what_was_published_is_told_even_where_another_file_lies_there_by_then(
    cache: Cache, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def meanwhile(_: object) -> None:
        other = cache.root / "other"
        other.write_bytes(BYTES[::-1])
        os.utime(other, (1000, 1000))
        other.replace(cache.root / FILE)

    inode = part.stat().st_ino
    monkeypatch.setattr("morpheus_worker.sync.cache.places.sync_folder", meanwhile)
    told = cache.publish(part, FILE, replace=False)
    assert told.st_ino == inode
    assert told.st_mtime_ns != (cache.root / FILE).stat().st_mtime_ns


@pytest.mark.parametrize("replace", [False, True])
def test_a_pipe_at_the_place_is_not_waited_for(cache: Cache, part: Path, replace: bool) -> None:
    (cache.root / FILE).parent.mkdir()
    os.mkfifo(cache.root / FILE)
    if replace:
        cache.publish(part, FILE, replace=True)
        assert (cache.root / FILE).read_bytes() == BYTES
    else:
        with refused(SyncCode.CONFLICT):
            cache.publish(part, FILE, replace=False)


def test_a_full_volume_without_hard_links_keeps_no_half_a_lease(cache: Cache, monkeypatch: pytest.MonkeyPatch) -> None:
    def refusing(*_: object, **__: object) -> None:
        raise OSError(errno.EPERM, "no links")

    def full(*_: object) -> int:
        raise OSError(errno.ENOSPC, "full")

    with monkeypatch.context() as patched:
        patched.setattr(os, "link", refusing)
        patched.setattr(os, "write", full)
        with refused(SyncCode.NO_SPACE), hold(cache, KEY, stop=threading.Event()):
            pass
    assert not any((cache.work / "leases").iterdir())


def test_publishing_clears_what_earlier_tries_left_and_only_that(cache: Cache, part: Path) -> None:
    with hold(cache, KEY, stop=threading.Event()) as lease:
        lease.part.write_bytes(b"half")
    cache.part_path(KEY, GONE).write_bytes(b"may still be written to")
    cache.part_path(key_of(PurePosixPath("another")), "me").write_bytes(b"another file's")
    cache.publish(part, FILE, replace=False)
    left = {path.name for path in part.parent.iterdir()}
    assert left == {f"{KEY}.{GONE}.part", f"{key_of(PurePosixPath('another'))}.me.part"}


KILLED_PUBLISHING = """
import sys
from pathlib import Path, PurePosixPath
from morpheus_worker.sync.cache import Cache
Cache(Path(sys.argv[1])).publish(Path(sys.argv[2]), PurePosixPath(sys.argv[3]), replace=sys.argv[4] == "replace")
"""


@pytest.mark.skipif(shutil.which("strace") is None, reason="strace kills a process at a system call")
@pytest.mark.parametrize(
    ("manner", "call", "when", "left"),
    [
        ("new", "link,linkat", 1, None),
        ("new", "unlink,unlinkat", 1, BYTES),
        ("new", "fsync", 3, BYTES),
        ("replace", "rename,renameat", 1, b"older"),
        ("replace", "fsync", 2, BYTES),
    ],
)
def test_no_kill_leaves_anything_but_a_whole_file(
    cache: Cache, manner: str, call: str, when: int, left: bytes | None
) -> None:
    part = part_in(cache, str(dataclasses.replace(Owner.new(), began=1)))
    if manner == "replace":
        (cache.root / FILE).parent.mkdir()
        (cache.root / FILE).write_bytes(b"older")
    inject = ["strace", "-f", "-o", os.devnull, "-e", f"trace={call}", "-e", f"inject={call}:signal=KILL:when={when}"]
    arguments = [str(cache.root), str(part), str(FILE), manner]
    killed = subprocess.run([*inject, sys.executable, "-B", "-c", KILLED_PUBLISHING, *arguments], check=False)
    assert killed.returncode != 0
    there = cache.root / FILE
    assert (there.read_bytes() if there.exists() else None) == left
    with hold(cache, KEY, stop=threading.Event()) as lease:
        # What is published already is nothing to go on from: writing to it would be writing to the published file.
        assert lease.prior == (None if left == BYTES else Prior(part, provably_dead=True))
    assert not part.exists() or part.stat().st_nlink == 1


# Folders


def staged(cache: Cache, content: str = "new") -> Path:
    folder = cache.part_path("pack-x", "me")
    (folder / "inner").mkdir(parents=True)
    (folder / "__init__.py").write_text(content)
    (folder / "inner/link").symlink_to("nowhere")
    return folder


def test_a_folder_is_published_whole(cache: Cache) -> None:
    cache.publish_folder(staged(cache), PurePosixPath("custom_nodes/x"), replace=False)
    assert (cache.root / "custom_nodes/x/__init__.py").read_text() == "new"
    assert not cache.part_path("pack-x", "me").exists()


def test_a_folder_is_replaced_only_when_asked_and_leaves_nothing(cache: Cache) -> None:
    path = PurePosixPath("x")
    cache.publish_folder(staged(cache, "old"), path, replace=False)
    with refused(SyncCode.CONFLICT):
        cache.publish_folder(staged(cache), path, replace=False)
    cache.publish_folder(cache.part_path("pack-x", "me"), path, replace=True)
    assert (cache.root / "x/__init__.py").read_text() == "new"
    assert leftovers(cache) == []


@pytest.mark.parametrize("kind", ["link", "file"])
def test_a_link_or_file_gives_way_to_a_folder_only_when_asked(cache: Cache, tmp_path: Path, kind: str) -> None:
    (tmp_path / "theirs").mkdir()
    (tmp_path / "theirs/mine.py").write_text("theirs")
    if kind == "link":
        (cache.root / "x").symlink_to(tmp_path / "theirs")
    else:
        (cache.root / "x").write_text("theirs")
    with refused(SyncCode.CONFLICT):
        cache.publish_folder(staged(cache), PurePosixPath("x"), replace=False)
    cache.publish_folder(cache.part_path("pack-x", "me"), PurePosixPath("x"), replace=True)
    assert not (cache.root / "x").is_symlink()
    assert (cache.root / "x/__init__.py").read_text() == "new"
    assert (tmp_path / "theirs/mine.py").read_text() == "theirs"
    assert leftovers(cache) == []


def test_what_was_replaced_is_kept_when_asked(cache: Cache) -> None:
    cache.publish_folder(staged(cache, "old"), PurePosixPath("x"), replace=False)
    assert cache.publish_folder(staged(cache), PurePosixPath("y"), replace=True, keep=True) is None
    kept = cache.publish_folder(staged(cache), PurePosixPath("x"), replace=True, keep=True)
    assert kept is not None
    assert (kept / "__init__.py").read_text() == "old"
    assert [(each.kind, each.path) for each in leftovers(cache)] == [("trash", kept)]


def test_of_two_that_replace_a_folder_at_once_one_says_so_and_harms_nothing(
    cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    cache.publish_folder(staged(cache, "old"), PurePosixPath("x"), replace=False)
    rename = os.rename

    def racing(source: str | Path, target: str | Path, **more: int) -> None:
        rename(source, target, **more)
        if source == "x":
            (cache.root / "x").mkdir()
            (cache.root / "x/__init__.py").write_text("theirs")

    monkeypatch.setattr("morpheus_worker.sync.cache.places.os.rename", racing)
    with refused(SyncCode.CONFLICT):
        cache.publish_folder(staged(cache), PurePosixPath("x"), replace=True)
    assert (cache.root / "x/__init__.py").read_text() == "theirs"


# What is left over


def test_a_rejected_part_goes_into_quarantine_with_its_reason(cache: Cache, part: Path) -> None:
    part.with_name(part.name + ".journal").write_text("{}")
    place = cache.quarantine(part, FILE, "has the SHA-256 aa, not bb")
    assert place.read_bytes() == BYTES
    assert place.parent == cache.work / "quarantine"
    assert "has the SHA-256 aa, not bb" in place.with_name(place.name + ".why.txt").read_text()
    assert not any(part.parent.iterdir())
    assert [(each.kind, each.path) for each in leftovers(cache)] == [("quarantine", place)]


def test_of_each_file_the_newest_that_was_rejected_is_kept(cache: Cache, part: Path) -> None:
    other = cache.quarantine(part, OTHER_FILE, "is another's")
    cache.quarantine(part_in(cache), FILE, "was first")
    newest = cache.quarantine(part_in(cache), FILE, "was last")
    kept = {path for place in (other, newest) for path in (place, place.with_name(place.name + ".why.txt"))}
    assert set((cache.work / "quarantine").iterdir()) == kept
    assert "was last" in newest.with_name(newest.name + ".why.txt").read_text()


def test_why_it_was_rejected_is_told_where_a_full_volume_takes_no_note(
    cache: Cache, part: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    monkeypatch.setattr("morpheus_worker.sync.cache.places.write_whole", full)
    assert cache.quarantine(part, FILE, "is a web page").read_bytes() == BYTES


def test_what_lies_beside_a_part_that_is_gone_is_left_over(cache: Cache) -> None:
    kept = part_in(cache, GONE)
    for part in (kept, kept.with_name(f"gone.{GONE}.part")):
        for ending in (".journal", ".journal.new", ".free"):
            part.with_name(part.name + ending).touch()
            os.utime(part.with_name(part.name + ending), (1000, 1000))
    (cache.work / "packs").mkdir()
    (cache.work / "packs/.x.json.1.tmp").touch()
    os.utime(cache.work / "packs/.x.json.1.tmp", (1000, 1000))
    found = [each for each in leftovers(cache) if each.kind == "temporary"]
    assert [each.path.name.removeprefix(f"gone.{GONE}.part") for each in found] == [
        ".x.json.1.tmp",
        ".free",
        ".journal",
        ".journal.new",
    ]


def test_leftovers_tell_whose_they_are_and_whether_they_are_at_work(cache: Cache) -> None:
    cache.part_path(KEY, GONE).write_bytes(b"x" * 5000)
    os.utime(cache.part_path(KEY, GONE), (1000, 1000))
    with hold(cache, KEY, needs_bytes=1, stop=threading.Event()) as lease:
        lease.part.write_bytes(b"y")
        found = {each.owner: each for each in leftovers(cache)}
        assert set(found) == {GONE, lease.owner}
        theirs, ours = found[GONE], found[lease.owner]
        assert (ours.key, ours.kind, ours.held, ours.free) == (KEY, "part", True, False)
        assert (theirs.held, theirs.free) == (False, False)
        assert theirs.size >= 5000
        assert theirs.age_s > 1_000_000
    assert {each.owner: each.free for each in leftovers(cache)} == {GONE: False, lease.owner: True}
    for each in leftovers(cache):
        remove_leftover(each)
    assert leftovers(cache) == []
    assert not any(cache.part_path(KEY, GONE).parent.iterdir())


def test_a_lease_that_nobody_rewrites_is_left_over(cache: Cache) -> None:
    lease = cache.work / "leases" / f"{KEY}.json"
    lease.write_text("{}")
    assert leftovers(cache) == []
    os.utime(lease, (1000, 1000))
    temporary = cache.work / "receipts/.x.json.1.tmp"
    temporary.touch()
    os.utime(temporary, (1000, 1000))
    assert [each.kind for each in leftovers(cache)] == ["lease", "temporary"]
    for each in leftovers(cache):
        remove_leftover(each)
    assert not lease.exists()


# Space


def take(cache: Cache, name: str, needs_bytes: int) -> Iterator[Lease]:
    with hold(cache, name, needs_bytes=needs_bytes, stop=threading.Event()) as lease:
        yield lease


def test_what_others_will_write_is_not_there_for_us(cache: Cache) -> None:
    free = space_of(cache).free
    for other in take(cache, "other", free - 1000):
        for lease in take(cache, "ours", 0):
            with refused(SyncCode.NO_SPACE) as caught:
                check_space(cache, 50_000_000_000, has_bytes=1_000_000_000, lease=lease)
            said = str(caught.value)
            assert "needs 49.0 GB" in said
            assert "free" in said
            assert "another sync" in said
            assert "prune" in said
            other.reserve(0)
            assert check_space(cache, 1_000_000, lease=lease).reserved == 0


def test_dead_and_idle_leases_reserve_nothing(cache: Cache) -> None:
    lease = cache.work / "leases/other.json"
    told = '{"owner": "%s", "host": "h", "pid": 1, "beat": 1, "part": "p", "needs_bytes": 500, "started": ""}'
    lease.write_text(told % GONE)
    assert space_of(cache).reserved == 500
    os.utime(lease, (1000, 1000))
    assert space_of(cache).reserved == 0
    # By a clock that was years ahead.
    os.utime(lease, (4_000_000_000, 4_000_000_000))
    assert space_of(cache).reserved == 0
    assert [each.kind for each in leftovers(cache)] == ["lease"]


def test_a_full_disk_is_said_so_and_the_lease_survives_it(small_disk: Path) -> None:
    cache = Cache(small_disk / "cache")
    cache.ensure_writable()
    with hold(cache, KEY, stop=threading.Event(), pace=Beats(beat_s=0.01)) as lease:
        with refused(SyncCode.NO_SPACE):
            check_space(cache, 10_000_000, lease=lease)
        fill(small_disk / "fill")
        with refused(SyncCode.NO_SPACE):
            cache.ensure_writable()
        with refused(SyncCode.NO_SPACE):
            lease.reserve(1)
        with refused(SyncCode.NO_SPACE), hold(cache, "other", stop=threading.Event()):
            pass
        (small_disk / "fill").unlink()
        lease.reserve(1)
        assert not lease.lost.is_set()
        assert [path.name for path in (cache.work / "leases").iterdir() if not path.name.startswith(".")] == [
            lease.path.name
        ]


def fill(place: Path) -> None:
    with place.open("wb", buffering=0) as stream, pytest.raises(OSError, match="No space left"):
        stream.writelines(itertools.repeat(bytes(4096)))


def test_what_a_journal_vouches_for_is_gone_on_with_before_what_is_larger(cache: Cache) -> None:
    small = cache.part_path(KEY, "small")
    small.write_bytes(b"x" * 5_000)
    small.with_name(small.name + ".journal").write_text("of the version that is wanted\n")
    cache.part_path(KEY, "large").write_bytes(b"y" * 500_000)
    with hold(cache, KEY, stop=threading.Event()) as lease:
        assert lease.prior is not None
        assert lease.prior.part == small
