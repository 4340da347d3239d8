"""Node packs from a real Git server into a cache."""

from __future__ import annotations

import errno
import os
import shutil
import subprocess
import threading
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.manifest import PackEntry
from morpheus_worker.sync.cache import Cache
from morpheus_worker.sync.cache.owners import Owner
from morpheus_worker.sync.packs import (
    PackReceipt,
    adopt_pack,
    changed_files,
    fetch_pack,
    fetching,
    pack_receipt,
    pack_standing,
    requirements_of,
    resolve_commit,
)
from morpheus_worker.sync.packs.git import in_words
from morpheus_worker.sync.terms import SyncCode, SyncError
from tests.integration.git_server import GitServer, git

pytestmark = pytest.mark.skipif(shutil.which("git") is None, reason="git is not installed")

FILES = {
    "__init__.py": "NODE_CLASS_MAPPINGS = {}\n",
    "nodes/a.py": "A = 1\n",
    "requirements.txt": "numpy>=1.26  # fast\n",
}
NOBODY = threading.Event()


@pytest.fixture
def server(tmp_path: Path) -> Iterator[GitServer]:
    with GitServer(tmp_path / "repositories") as server:
        yield server


@pytest.fixture
def cache(tmp_path: Path) -> Cache:
    (tmp_path / "cache").mkdir()
    return Cache(tmp_path / "cache")


def fetched(cache: Cache, pack: PackEntry, commit: str) -> PackReceipt:
    return fetch_pack(cache, pack, commit, owner="o1", stop=NOBODY)


def leftovers(cache: Cache) -> list[str]:
    return [path.name for path in (cache.work / "parts").glob("*")]


def test_a_pack_comes_at_its_commit_without_history(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    first = git(repository.folder, "rev-parse", "HEAD")
    repository.commit({"nodes/a.py": "A = 2\n"})
    receipt = fetched(cache, PackEntry("Pack", repository.url, first), first)
    folder = cache.root / "Pack"
    assert (folder / "nodes/a.py").read_text() == "A = 1\n"
    assert not (folder / ".git").exists()
    assert receipt.requirements == ("numpy>=1.26",)
    assert set(receipt.files) == set(FILES)
    assert pack_receipt(cache, "Pack") == receipt
    assert leftovers(cache) == []


def test_another_commit_takes_the_folders_place_whole(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", {**FILES, "old.py": ""})
    first = resolve_commit(repository.url, NOBODY)
    pack = PackEntry("Pack", repository.url, first)
    fetched(cache, pack, first)
    (repository.folder / "old.py").unlink()
    second = repository.commit({"new.py": ""})
    assert pack_standing(cache, pack, second).state == "other"
    fetched(cache, pack, second)
    assert not (cache.root / "Pack/old.py").exists()
    assert (cache.root / "Pack/new.py").exists()
    assert pack_standing(cache, pack, second).state == "present"


def test_standing_names_what_is_known(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    pack = PackEntry("Pack", repository.url)
    assert pack_standing(cache, pack).state == "absent"
    (cache.root / "custom_nodes/Pack").mkdir(parents=True)
    assert pack_standing(cache, pack).state == "unreceipted"


def test_a_changed_file_is_found_and_a_new_one_is_the_packs_own(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    commit = resolve_commit(repository.url, NOBODY)
    receipt = fetched(cache, PackEntry("Pack", repository.url), commit)
    (cache.root / "Pack/config.ini").write_text("made at run time")
    assert changed_files(cache, receipt) == []
    (cache.root / "Pack/nodes/a.py").write_text("A = 3\n")
    (cache.root / "Pack/__init__.py").unlink()
    assert changed_files(cache, receipt) == ["__init__.py", "nodes/a.py"]


def test_a_clone_by_hand_is_taken_over_when_it_is_as_committed(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    pack = PackEntry("Pack", repository.url)
    git(cache.root, "clone", "--quiet", repository.url, "Pack")
    (cache.root / "Pack/nodes/a.py").write_text("A = 3\n")
    assert adopt_pack(cache, pack, stop=NOBODY) is None
    (cache.root / "Pack/nodes/a.py").write_text("A = 1\n")
    adopted = adopt_pack(cache, pack, stop=NOBODY)
    assert adopted is not None
    assert (adopted.commit, adopted.by) == (resolve_commit(repository.url, NOBODY), "adopt")
    assert pack_standing(cache, pack, adopted.commit).state == "present"


def test_a_server_that_fails_for_a_moment_is_asked_again(
    server: GitServer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(fetching, "FIRST_WAIT_S", 0.01)
    repository = server.repository("pack", FILES)
    commit = resolve_commit(repository.url, NOBODY)
    server.failing = 2
    assert fetched(cache, PackEntry("Pack", repository.url), commit).commit == commit


@pytest.mark.parametrize(("commit", "code"), [("f" * 40, SyncCode.NOT_FOUND)])
def test_a_commit_that_is_not_there_leaves_the_folder_as_it_was(
    server: GitServer, cache: Cache, commit: str, code: SyncCode
) -> None:
    repository = server.repository("pack", FILES)
    pack = PackEntry("Pack", repository.url)
    fetched(cache, pack, resolve_commit(repository.url, NOBODY))
    with pytest.raises(SyncError, match="no such commit") as raised:
        fetched(cache, pack, commit)
    assert raised.value.code is code
    assert (cache.root / "Pack/__init__.py").exists()
    assert leftovers(cache) == []


def test_a_repository_that_is_not_there_is_named(server: GitServer) -> None:
    repository = server.repository("pack", FILES)
    with pytest.raises(SyncError) as raised:
        resolve_commit(repository.url + "-no", NOBODY)
    assert raised.value.code in (SyncCode.NOT_FOUND, SyncCode.ACCESS_DENIED)
    assert "pack-no" in raised.value.what


def test_a_link_out_of_the_pack_is_refused(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    os.symlink("/etc/passwd", repository.folder / "secrets.txt")
    commit = repository.commit({})
    with pytest.raises(SyncError, match=r"leads out of it: secrets\.txt") as raised:
        fetched(cache, PackEntry("Pack", repository.url), commit)
    assert raised.value.code is SyncCode.REJECTED
    assert not (cache.root / "Pack").exists()
    assert leftovers(cache) == []


def test_stopping_ends_it_and_leaves_nothing(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    commit = resolve_commit(repository.url, NOBODY)
    stop = threading.Event()
    stop.set()
    with pytest.raises(SyncError) as raised:
        fetch_pack(cache, PackEntry("Pack", repository.url), commit, owner="o1", stop=stop)
    assert raised.value.code is SyncCode.INTERRUPTED
    assert leftovers(cache) == []


def test_requirements_are_read_as_pip_reads_them(tmp_path: Path) -> None:
    assert requirements_of(tmp_path) == ()
    (tmp_path / "pyproject.toml").write_text('[project]\ndependencies = ["scipy"]\n')
    assert requirements_of(tmp_path) == ("scipy",)
    (tmp_path / "requirements.txt").write_text("# fast\nnumpy \\\n>=1.26\n\ngit+https://x.org/a.git#egg=a # why\n")
    assert requirements_of(tmp_path) == ("numpy  >=1.26", "git+https://x.org/a.git#egg=a")


# What somebody made stays


def trash_of(cache: Cache) -> list[Path]:
    return sorted((cache.work / "trash").glob("*"))


def test_what_was_put_into_a_fetched_folder_is_kept_when_another_commit_takes_its_place(
    server: GitServer, cache: Cache
) -> None:
    repository = server.repository("pack", FILES)
    first = resolve_commit(repository.url, NOBODY)
    pack = PackEntry("Pack", repository.url)
    fetched(cache, pack, first)
    (cache.root / "Pack/__pycache__").mkdir()
    (cache.root / "Pack/__pycache__/a.pyc").write_text("made again at any time")
    second = repository.commit({"nodes/a.py": "A = 2\n"})
    fetched(cache, pack, second)
    assert trash_of(cache) == []
    (cache.root / "Pack/config.ini").write_text("by hand")
    fetched(cache, pack, first)
    (kept,) = trash_of(cache)
    assert (kept / "config.ini").read_text() == "by hand"
    assert (kept / "nodes/a.py").read_text() == "A = 2\n"
    assert not (cache.root / "Pack/config.ini").exists()
    (cache.root / "Pack/nodes/a.py").write_text("A = 'mended by hand'\n")
    fetched(cache, pack, second)
    assert len(trash_of(cache)) == 2


def test_a_clone_that_was_taken_over_is_not_replaced_unasked(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    pack = PackEntry("Pack", repository.url)
    git(cache.root, "clone", "--quiet", repository.url, "Pack")
    git(cache.root / "Pack", "commit", "--quiet", "--allow-empty", "--message", "nobody else has it")
    adopted = adopt_pack(cache, pack, stop=NOBODY)
    assert adopted is not None
    upstream = resolve_commit(repository.url, NOBODY)
    assert pack_standing(cache, pack, upstream).state == "unreceipted"
    fetched(cache, pack, upstream)
    (kept,) = trash_of(cache)
    assert git(kept, "rev-parse", "HEAD") == adopted.commit
    assert pack_standing(cache, pack, upstream).state == "present"


@pytest.mark.parametrize("manner", ["clone", "link"])
def test_a_folder_that_took_a_fetched_ones_place_by_hand_is_no_longer_the_syncs(
    server: GitServer, cache: Cache, tmp_path: Path, manner: str
) -> None:
    repository = server.repository("pack", FILES)
    commit = resolve_commit(repository.url, NOBODY)
    pack = PackEntry("Pack", repository.url)
    fetched(cache, pack, commit)
    place = cache.root / "Pack" if manner == "clone" else tmp_path / "mine"
    shutil.rmtree(cache.root / "Pack")
    git(cache.root, "clone", "--quiet", repository.url, str(place))
    if manner == "link":
        (cache.root / "Pack").symlink_to(place)
    assert pack_standing(cache, pack, commit).state == "unreceipted"
    assert pack_standing(cache, pack, "f" * 40).state == "unreceipted"
    fetched(cache, pack, commit)
    assert not (cache.root / "Pack").is_symlink()
    assert (place if manner == "link" else trash_of(cache)[0]).joinpath(".git").is_dir()


def test_a_pack_in_the_packs_own_folder_is_replaced_there(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    pack = PackEntry("zpack", repository.url)
    (cache.root / "custom_nodes").mkdir()
    git(cache.root / "custom_nodes", "clone", "--quiet", repository.url, "zpack")
    commit = repository.commit({"nodes/a.py": "A = 2\n"})
    receipt = fetched(cache, pack, commit)
    assert str(receipt.path) == "custom_nodes/zpack"
    assert (cache.root / "custom_nodes/zpack/nodes/a.py").read_text() == "A = 2\n"
    # A second one beside it would be the one that is loaded, or not.
    assert not (cache.root / "zpack").exists()
    assert pack_standing(cache, pack, commit).state == "present"


def test_a_run_that_ends_between_folder_and_receipt_has_published_it(
    server: GitServer, cache: Cache, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*_: object, **__: object) -> None:
        raise OSError(errno.ENOSPC, "full")

    repository = server.repository("pack", FILES)
    first = resolve_commit(repository.url, NOBODY)
    pack = PackEntry("Pack", repository.url)
    with monkeypatch.context() as patched:
        patched.setattr(fetching, "confirm", full)
        with pytest.raises(SyncError):
            fetched(cache, pack, first)
        assert pack_standing(cache, pack, first).state == "present"
        second = repository.commit({"nodes/a.py": "A = 2\n"})
        patched.setattr(Cache, "publish_folder", full)
        with pytest.raises(SyncError):
            fetched(cache, pack, second)
    # What was announced and never published says nothing of the folder that is there.
    assert pack_standing(cache, pack, second).state == "other"
    assert pack_standing(cache, pack, first).state == "present"


@pytest.mark.parametrize(
    "text",
    ["[]", "null", "{}", "[" * 100_000, '{"id": "Pack", "repo": "r", "commit": 5, "files": {}, "requirements": []}',
     '{"id": "Pack", "repo": "r", "commit": "%s", "files": {}, "requirements": [1]}' % ("a" * 40),
     '{"id": "Pack", "repo": "r", "commit": "%s", "files": {}, "requirements": [], "folder": "../x"}' % ("a" * 40)],
)  # fmt: skip
def test_a_receipt_that_makes_no_sense_is_none(cache: Cache, text: str) -> None:
    (cache.work / "packs").mkdir(parents=True)
    (cache.work / "packs/Pack.json").write_text(text)
    (cache.root / "Pack").mkdir()
    assert pack_standing(cache, PackEntry("Pack", "https://example.org/pack")).state == "unreceipted"


def test_a_pipe_in_a_packs_folder_is_not_waited_for(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    receipt = fetched(cache, PackEntry("Pack", repository.url), resolve_commit(repository.url, NOBODY))
    (cache.root / "Pack/__init__.py").unlink()
    os.mkfifo(cache.root / "Pack/__init__.py")
    assert changed_files(cache, receipt) == ["__init__.py"]


# Taking over


def test_a_clone_that_is_none_is_not_told_from_a_repository_above_it(server: GitServer, cache: Cache) -> None:
    git(cache.root, "init", "--quiet")
    git(cache.root, "commit", "--quiet", "--allow-empty", "--message", "the volume's own")
    (cache.root / "Pack/.git").mkdir(parents=True)
    assert adopt_pack(cache, PackEntry("Pack", "https://example.org/pack"), stop=NOBODY) is None


def test_a_fork_is_taken_over_as_what_it_is_without_its_key(server: GitServer, cache: Cache) -> None:
    fork = server.repository("fork", FILES)
    git(cache.root, "clone", "--quiet", fork.url, "Pack")
    git(cache.root / "Pack", "remote", "set-url", "origin", "https://me:SECRET@example.org/Me/Pack.git")
    (cache.root / "Pack/settings.json").write_text("{}")
    pack = PackEntry("Pack", "https://example.org/them/pack")
    adopted = adopt_pack(cache, pack, stop=NOBODY)
    assert adopted is not None
    assert adopted.repo == "example.org/me/pack"
    assert set(adopted.files) == set(FILES)
    assert "SECRET" not in (cache.work / "packs/Pack.json").read_text()
    assert pack_standing(cache, pack).state == "unreceipted"
    assert pack_standing(cache, pack, adopted.commit).state == "present"


def test_an_ssh_address_names_the_same_repository(server: GitServer, cache: Cache) -> None:
    git(cache.root, "clone", "--quiet", server.repository("pack", FILES).url, "Pack")
    git(cache.root / "Pack", "remote", "set-url", "origin", "git@github.com:Them/Pack.git")
    adopted = adopt_pack(cache, PackEntry("Pack", "https://github.com/them/pack"), stop=NOBODY)
    assert adopted is not None
    assert adopted.repo == "https://github.com/them/pack"


# Repositories and servers that mean no good


def test_the_repository_that_the_environment_names_is_left_alone(
    server: GitServer, cache: Cache, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = server.repository("pack", FILES)
    commit = resolve_commit(repository.url, NOBODY)
    mine = tmp_path / "mine"
    mine.mkdir()
    git(mine, "init", "--quiet")
    head = (mine / ".git/HEAD").read_text()
    with monkeypatch.context() as patched:
        patched.setenv("GIT_DIR", str(mine / ".git"))
        patched.setenv("GIT_WORK_TREE", str(mine))
        patched.setenv("GIT_INDEX_FILE", str(mine / ".git/index"))
        # The server's Git is ours alone to mislead.
        patched.setattr(GitServer, "run", _undisturbed(GitServer.run))
        fetched(cache, PackEntry("Pack", repository.url), commit)
    assert (mine / ".git/HEAD").read_text() == head
    assert sorted(path.name for path in mine.iterdir()) == [".git"]


def _undisturbed(run: Callable[..., Any]) -> Callable[..., Any]:
    def undisturbed(*arguments: Any) -> Any:
        with pytest.MonkeyPatch.context() as patched:
            for name in ("GIT_DIR", "GIT_WORK_TREE", "GIT_INDEX_FILE"):
                patched.delenv(name, raising=False)
            return run(*arguments)

    return undisturbed


@pytest.mark.parametrize("url", ["git@github.com:a/b.git", "file:///tmp", "ext::sh -c touch% pwned"])
def test_a_submodule_comes_over_https_or_not_at_all(server: GitServer, cache: Cache, url: str) -> None:
    repository = server.repository("pack", FILES)
    (repository.folder / ".gitmodules").write_text(f'[submodule "x"]\n\tpath = x\n\turl = {url}\n')
    git(repository.folder, "add", ".gitmodules")
    git(repository.folder, "update-index", "--add", "--cacheinfo", f"160000,{'1' * 40},x")
    git(repository.folder, "commit", "--quiet", "--message", "submodule")
    with pytest.raises(SyncError, match=r"a submodule of .* is not fetched over https") as raised:
        fetched(cache, PackEntry("Pack", repository.url), git(repository.folder, "rev-parse", "HEAD"))
    assert (raised.value.code, raised.value.passing) == (SyncCode.REJECTED, False)
    assert not (cache.root / "Pack").exists()


def test_a_link_out_of_the_pack_is_refused_wherever_it_is(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    (repository.folder / "__pycache__").mkdir()
    os.symlink("/etc", repository.folder / "__pycache__/x")
    with pytest.raises(SyncError, match="leads out of it: __pycache__/x"):
        fetched(cache, PackEntry("Pack", repository.url), repository.commit({}))


@pytest.mark.parametrize("branch", ["main", "master"])
def test_a_server_that_hands_out_branches_only_is_asked_for_those(
    server: GitServer, cache: Cache, branch: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    repository = server.repository("pack", FILES)
    first = resolve_commit(repository.url, NOBODY)
    repository.commit({"nodes/a.py": "A = 2\n"})
    git(repository.folder, "branch", "--move", branch)
    server.by_hash = False
    # What a new repository calls its branch is a setting of whoever runs this.
    for name, value in {"COUNT": "1", "KEY_0": "init.defaultBranch", "VALUE_0": branch}.items():
        monkeypatch.setenv(f"GIT_CONFIG_{name}", value)
    fetched(cache, PackEntry("Pack", repository.url, first), first)
    assert (cache.root / "Pack/nodes/a.py").read_text() == "A = 1\n"


def test_a_deep_project_file_is_no_project(tmp_path: Path) -> None:
    (tmp_path / "pyproject.toml").write_text("[project]\ndependencies = " + "[" * 5000 + "]" * 5000)
    assert requirements_of(tmp_path) == ()


def test_what_a_server_says_is_shown_without_keys_and_control_characters() -> None:
    said = in_words("remote: \x1b[31mgo to https://me:SECRET@example.org/\x1b[0m\n", "https://example.org/pack").what
    assert "SECRET" not in said
    assert said.isprintable()


def test_what_a_killed_fetch_left_goes_with_the_next_one(server: GitServer, cache: Cache) -> None:
    repository = server.repository("pack", FILES)
    dead = cache.part_path("pack-Pack", str(replace(Owner.new(), began=1)))
    alive = cache.part_path("pack-Pack", "0123456789ab-1-1-1-00000000")
    for folder in (dead, alive):
        (folder / ".git").mkdir(parents=True)
    fetched(cache, PackEntry("Pack", repository.url), resolve_commit(repository.url, NOBODY))
    assert leftovers(cache) == [alive.name]


def test_a_full_volume_is_said_so_whatever_git_says(server: GitServer, tmp_path: Path) -> None:
    small = tmp_path / "small"
    small.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=1m", "none", str(small)], capture_output=True, check=False
    )
    if made.returncode != 0:
        pytest.skip("nothing can be mounted here")
    try:
        repository = server.repository("pack", {**FILES, "blob": "much of the same " * 200_000})
        cache = Cache(small / "cache")
        with pytest.raises(SyncError) as raised:
            fetched(cache, PackEntry("Pack", repository.url), resolve_commit(repository.url, NOBODY))
        assert raised.value.code is SyncCode.NO_SPACE
        assert not (cache.root / "Pack").exists()
        assert leftovers(cache) == []
    finally:
        subprocess.run(["umount", str(small)], check=True)
