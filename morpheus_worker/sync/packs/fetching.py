"""A pack onto the volume: fetched at one commit and published as one folder, or taken over where it was cloned."""

from __future__ import annotations

import logging
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import Final, TypeVar

from morpheus_worker.deadlines import backoff_s
from morpheus_worker.manifest import PackEntry
from morpheus_worker.sources import COMMIT
from morpheus_worker.sync.cache import Cache, on_volume
from morpheus_worker.sync.cache.parts import is_free, parts_of
from morpheus_worker.sync.cache.places import PARTS, remove_tree
from morpheus_worker.sync.packs.contents import files_of, inventory, refuse_links_out, requirements_of
from morpheus_worker.sync.packs.git import git
from morpheus_worker.sync.packs.records import (
    PackReceipt,
    announce,
    confirm,
    is_as_fetched,
    place_of,
    plain,
    same_repo,
)
from morpheus_worker.sync.terms import Stop, SyncCode, SyncError, stopped

T = TypeVar("T")

logger = logging.getLogger(__name__)

TRIES: Final = 4
FIRST_WAIT_S: Final = 1.0
LONGEST_WAIT_S: Final = 15.0

_PROBE: Final = bytes(range(256)) * 256


def resolve_commit(repo: str, stop: Stop) -> str:
    """The commit that the repository's default branch is at now.

    Raises:
        SyncError: `not_found`, `access_denied`, `unreachable`, `interrupted`.
    """
    said = _patiently(lambda: git(None, ["ls-remote", "--", repo, "HEAD"], repo, stop), stop)
    commit = said.partition("\t")[0].strip()
    if not COMMIT.fullmatch(commit):
        raise SyncError(SyncCode.NOT_FOUND, f"{repo} has no default branch")
    return commit


def fetch_pack(cache: Cache, pack: PackEntry, commit: str, *, owner: str, stop: Stop) -> PackReceipt:
    """Fetches the pack at `commit` and makes it the cache's folder of that id, in place of what was there. That is kept
    in the cache's trash where it is not just what a sync fetched: somebody's work may be in it.

    `owner` tells this run's unfinished folder from another's.

    Raises:
        SyncError: `not_found`, `access_denied`, `unreachable`, `rejected` (a link that leads out of the pack, a
            submodule that is not fetched over https, or no pack at all), `no_space`, `volume`, `interrupted`. What was
            there is still there then.
    """
    key = f"pack-{pack.id}"
    parts = cache.own_folder(PARTS)
    staged = cache.part_path(key, owner)
    try:
        for left in parts_of(parts, key):
            if is_free(left):
                _removed(left)
        _patiently(lambda: _check_out(staged, pack.repo, commit, stop), stop)
        with on_volume(f"publishing the node pack {pack.id}"):
            return _published(cache, staged, pack, commit)
    finally:
        _removed(staged)


def adopt_pack(cache: Cache, pack: PackEntry, *, stop: Stop) -> PackReceipt | None:
    """Takes over a pack that somebody cloned by hand: a receipt for the commit that its own Git folder names.

    None where it has no Git folder, or files that differ from the commit: then nobody can say what it is.

    Raises:
        SyncError: `volume`, `no_space`, `interrupted`.
    """
    place = place_of(cache, pack.id)
    if place is None or not (cache.root / place / ".git").exists():
        return None
    folder = cache.root / place
    try:
        commit = git(folder, ["rev-parse", "HEAD"], pack.repo, stop).strip()
        differing = git(folder, ["status", "--porcelain", "--untracked-files=no"], pack.repo, stop).strip()
        names = git(folder, ["ls-files", "-z", "--recurse-submodules"], pack.repo, stop).split("\0")
        origin = git(folder, ["config", "--get", "remote.origin.url"], pack.repo, stop, may_fail=True).strip()
    except SyncError as failure:
        if failure.code is SyncCode.INTERRUPTED:
            raise
        return None
    if differing or not COMMIT.fullmatch(commit):
        return None
    # A fork is none of the manifest's. Of its address only the plain one is kept: the whole may hold a key.
    repo = pack.repo if same_repo(origin, pack.repo) else plain(origin) or pack.repo
    with on_volume(f"taking over the node pack {pack.id}"):
        files = inventory(folder, [name for name in names if name])
        receipt = PackReceipt(pack.id, repo, commit, files, requirements_of(folder), "adopt", str(place))
        announce(cache, receipt)
        confirm(cache, receipt)
    return receipt


def _check_out(staged: Path, repo: str, commit: str, stop: Stop) -> None:
    _removed(staged)
    with on_volume("making a folder for the node pack"):
        staged.mkdir()
    try:
        _fetched(staged, repo, commit, stop)
    except SyncError as failure:
        if failure.passing:
            # Git does not always say that the volume is full.
            with on_volume("writing the node pack"):
                (staged / ".probe").write_bytes(_PROBE)
        raise


def _fetched(staged: Path, repo: str, commit: str, stop: Stop) -> None:
    git(staged, ["init", "--quiet", "--template="], repo, stop)
    fetch = ["fetch", "--quiet", "--no-tags", "--no-recurse-submodules"]
    try:
        git(staged, [*fetch, "--depth=1", "--", repo, commit], repo, stop)
    except SyncError as failure:
        if failure.code is not SyncCode.NOT_FOUND:
            raise
        # A server may hand out only what a branch points to: then the branches, without their files.
        git(staged, [*fetch, "--filter=blob:none", "--", repo, "+refs/heads/*:refs/remotes/origin/*"], repo, stop)
    git(staged, ["remote", "add", "origin", repo], repo, stop, may_fail=True)
    git(staged, ["checkout", "--quiet", "--detach", "--force", commit], repo, stop)
    if (staged / ".gitmodules").is_file():
        git(staged, ["submodule", "--quiet", "update", "--init", "--recursive", "--depth=1"], repo, stop)
    if git(staged, ["rev-parse", "HEAD"], repo, stop).strip() != commit:
        raise SyncError(SyncCode.REJECTED, f"{repo} handed out another commit than {commit[:12]}")


def _published(cache: Cache, staged: Path, pack: PackEntry, commit: str) -> PackReceipt:
    for folder in [*staged.rglob(".git")]:
        _removed(folder)
    refuse_links_out(staged)
    place = place_of(cache, pack.id) or PurePosixPath(pack.id)
    files = inventory(staged, files_of(staged))
    if not files:
        raise SyncError(SyncCode.REJECTED, f"{pack.repo} is empty at commit {commit[:12]}")
    receipt = PackReceipt(pack.id, pack.repo, commit, files, requirements_of(staged), folder=str(place))
    keep = not is_as_fetched(cache, pack.id)
    announce(cache, receipt)
    kept = cache.publish_folder(staged, place, replace=True, keep=keep)
    confirm(cache, receipt)
    if kept is not None:
        logger.warning("What lay at '%s' was not just what a sync fetched: it is kept as %s", place, kept)
    return receipt


def _patiently(run: Callable[[], T], stop: Stop) -> T:
    """Tried again while the failure is one that passes."""
    for wait_s, _ in zip(backoff_s(FIRST_WAIT_S, LONGEST_WAIT_S), range(TRIES - 1), strict=False):
        try:
            return run()
        except SyncError as failure:
            if not failure.passing:
                raise
        if stop.wait(wait_s):
            raise stopped()
    return run()


def _removed(path: Path) -> None:
    """As far as it can be: what is left is a leftover."""
    try:
        remove_tree(path)
    except OSError as failure:
        if not isinstance(failure, FileNotFoundError):
            logger.warning("%s cannot be removed: %s", path, failure)
