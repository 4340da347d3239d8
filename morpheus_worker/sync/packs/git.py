"""Git as a program: run to its end or until somebody asks to stop, and what it says put into words."""

from __future__ import annotations

import contextlib
import os
import re
import shutil
import signal
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from morpheus_worker.sync.terms import Stop, SyncCode, SyncError, stopped

POLL_S: Final = 0.1
STALL_S: Final = 60
"""Git gives a transfer up that brings less than `STALL_BYTES_PER_S` for that long."""
STALL_BYTES_PER_S: Final = 1000

# Asks nobody for a password, runs no hook of a template, and speaks only to what the manifest's address may name. A
# submodule's address is the repository's own word, so it is held to the same.
_ENVIRONMENT: Final = (
    "GIT_TERMINAL_PROMPT=0", "GIT_ASKPASS=true", "GIT_OPTIONAL_LOCKS=0", "GIT_LFS_SKIP_SMUDGE=1", "LC_ALL=C",
)  # fmt: skip
_OPTIONS: Final = (
    "-c", "protocol.allow=never", "-c", "protocol.https.allow=always", "-c", "safe.directory=*", "-c", "gc.auto=0",
    "-c", "core.hooksPath=/dev/null", "-c", "core.fsmonitor=false", "-c", "advice.detachedHead=false",
    "-c", f"http.lowSpeedLimit={STALL_BYTES_PER_S}", "-c", f"http.lowSpeedTime={STALL_S}",
)  # fmt: skip

# They name another repository than the folder's own: within a hook, or a shell that was set up for one, the user's.
_ELSEWHERE: Final = (
    "GIT_DIR", "GIT_WORK_TREE", "GIT_COMMON_DIR", "GIT_INDEX_FILE", "GIT_OBJECT_DIRECTORY", "GIT_NAMESPACE",
    "GIT_ALTERNATE_OBJECT_DIRECTORIES", "GIT_SHALLOW_FILE", "GIT_GRAFT_FILE", "GIT_REPLACE_REF_BASE", "GIT_PREFIX",
)  # fmt: skip

_FULL: Final = ("No space left", "Disk quota")
_REFUSED: Final = re.compile(r"transport '[^']*' not allowed")
_NO_SUCH: Final = ("not our ref", "couldn't find remote ref", "not a tree", "unadvertised object", "bad object")
_DENIED: Final = ("could not read Username", "could not read Password", "Authentication failed", "error: 403")
_GONE: Final = ("Repository not found", "not found", "does not appear to be a git repository")
_SUBMODULE: Final = "into submodule path"
_USER: Final = re.compile(r"(?<=//)[^/@\s]*@")


def git(folder: Path | None, arguments: Sequence[str], repo: str, stop: Stop, *, may_fail: bool = False) -> str:
    """Runs Git in the repository that `folder` itself is, never one above it; returns what it printed.

    Raises:
        SyncError: `interrupted`; what Git complained of. Its text names `repo`.
    """
    program = shutil.which("git")
    if program is None:
        raise SyncError(SyncCode.INVALID, "cannot be fetched without git", "install it: apt-get install git")
    if stop.is_set():
        raise stopped()
    place = ["-C", str(folder)] if folder is not None else []
    above = [f"GIT_CEILING_DIRECTORIES={os.path.realpath(folder.parent)}"] if folder is not None else []
    # The manifest takes http only to this machine.
    more = ["-c", "protocol.http.allow=always"] if repo.startswith("http://") else []
    unset = [f"--unset={name}" for name in _ELSEWHERE]
    command = ["env", *unset, *_ENVIRONMENT, *above, program, *_OPTIONS, *more, *place, *arguments]
    with tempfile.TemporaryFile() as said, tempfile.TemporaryFile() as complained:
        process = subprocess.Popen(
            command, stdin=subprocess.DEVNULL, stdout=said, stderr=complained, start_new_session=True
        )
        try:
            while True:
                with contextlib.suppress(subprocess.TimeoutExpired):
                    process.wait(POLL_S)
                    break
                if stop.is_set():
                    raise stopped()
        finally:
            _ended(process)
        if process.returncode != 0 and not may_fail:
            complained.seek(0)
            raise in_words(complained.read().decode(errors="replace"), repo)
        said.seek(0)
        return os.fsdecode(said.read())


def in_words(complaint: str, repo: str) -> SyncError:
    """What Git complained of, as an error about `repo` or a submodule of it."""
    about = f"a submodule of {repo}" if _SUBMODULE in complaint else repo
    if any(said in complaint for said in _FULL):
        return SyncError(SyncCode.NO_SPACE, "the volume is full", "remove what is no longer needed, or enlarge it")
    if found := _REFUSED.search(complaint):
        hint = "clone it by hand; 'git config --get-regexp insteadof' shows where Git's settings rewrite addresses"
        return SyncError(SyncCode.REJECTED, f"{about} is not fetched over https ({found[0]})", hint)
    if any(said in complaint for said in _NO_SUCH):
        return SyncError(SyncCode.NOT_FOUND, f"{about} has no such commit", "check 'commit' in the manifest")
    if any(said in complaint for said in _DENIED):
        # GitHub asks for a login where there is no such repository, too.
        return SyncError(SyncCode.ACCESS_DENIED, f"{about} is not there, or is not public", _check(about, repo))
    if any(said in complaint for said in _GONE):
        return SyncError(SyncCode.NOT_FOUND, f"{about} is no Git repository, or is not there", _check(about, repo))
    return SyncError(SyncCode.UNREACHABLE, f"{about} cannot be fetched: {_last(complaint)}", passing=True)


def _check(about: str, repo: str) -> str:
    return "check 'repo' in the manifest" if about == repo else "another commit of it may do without"


def _last(complaint: str) -> str:
    """The last thing said that names a cause, as it may be shown: a server's words may hold anything."""
    lines = [line for line in complaint.splitlines() if line.startswith(("fatal:", "error:", "remote:"))]
    last = (lines[-1] if lines else complaint.strip().rpartition("\n")[2]).partition(":")[2].strip() or "it failed"
    return "".join(each if each.isprintable() else " " for each in _USER.sub("", last)[:200])


def _ended(process: subprocess.Popen[bytes]) -> None:
    """Git's children included: its transport goes on otherwise."""
    if process.poll() is None:
        with contextlib.suppress(ProcessLookupError):
            os.killpg(process.pid, signal.SIGKILL)
        process.wait()
