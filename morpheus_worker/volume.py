"""The network volume as a place: whether it is there, whether it takes a file, and opening what lies beneath it.

A network volume is MooseFS over FUSE. It can be mounted late, be read-only or full, and lose its server, after which
a call returns an error or nothing at all.
"""

from __future__ import annotations

import contextlib
import errno
import logging
import os
import stat
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path, PurePosixPath
from typing import BinaryIO, Final

from morpheus_worker.deadlines import Deadline, backoff_s
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.paths import POD_VIEW, WORKER_VIEW, UnsafePathError

logger = logging.getLogger(__name__)

FIRST_WAIT_S: Final = 0.1
LONGEST_WAIT_S: Final = 2.0
LEAST_LOOK_S: Final = 2.0
"""What a single look at the volume gets even when the deadline has passed, in seconds."""

WHERE: Final = f"set MORPHEUS_VOLUME_ROOT to where it is; a pod sees it as {POD_VIEW}"
"""For who looks at a volume that is not there."""

WHAT_TO_DO: Final = (
    f"Attach the network volume to the endpoint (RunPod mounts it at {WORKER_VIEW}); "
    f"a pod sees it as {POD_VIEW}: set MORPHEUS_VOLUME_ROOT={POD_VIEW} there; "
    "for local use set MORPHEUS_VOLUME_ROOT to a folder of this machine."
)

_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY
_FILE: Final = os.O_RDONLY | os.O_NONBLOCK | os.O_NOCTTY
"""O_NONBLOCK so that opening a named pipe comes back, to be refused; on a regular file it means nothing."""

NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})
"""What making a hard link raises on a FUSE file system that knows none."""

_LINK_CHANGED: Final = frozenset({errno.EINVAL, errno.ENOENT})
"""What reading a link raises when it has become something else, or nothing, since it was found to be one."""

_FULL: Final[Mapping[int, str]] = {
    errno.ENOSPC: "the volume is full. Remove what is no longer needed, or enlarge it.",
    errno.EDQUOT: "the volume's quota is used up. Remove what is no longer needed, or raise the quota.",
}
_LOST: Final = "the volume has lost its connection. Try again; if it stays so, restart the worker."
_UNAVAILABLE: Final[Mapping[int, str]] = {
    errno.EROFS: "the volume is mounted read-only. Mount it for writing.",
    errno.EACCES: "the volume refuses access. Give this user the right to use it.",
    errno.EPERM: "the volume refuses access. Give this user the right to use it.",
    errno.ENOENT: f"the folder is not there any more. {WHAT_TO_DO}",
    errno.ENOTDIR: "something that is not a folder is in the way. Remove it.",
    errno.ESTALE: _LOST,
    errno.ENOTCONN: _LOST,
    errno.EIO: _LOST,
    errno.ETIMEDOUT: _LOST,
    errno.EHOSTDOWN: _LOST,
    errno.ENODEV: _LOST,
}


def confined(root: Path, relative: PurePosixPath) -> Path:
    """Where `relative` ends once every link is followed, always beneath `root`. It need not exist.

    Between this answer and its use another process can change a link; `open_beneath` leaves no such gap.

    Raises:
        UnsafePathError: when it ends outside, its links lead in a circle, or they change while they are followed.
    """
    home = os.path.realpath(root)
    try:
        end = Path(os.path.realpath(os.path.join(home, *relative.parts)))
    except OSError as failure:
        if failure.errno not in _LINK_CHANGED:
            raise
        raise UnsafePathError(f"'{relative}' has a link that changed while it was followed") from None
    if not end.is_relative_to(home):
        raise UnsafePathError(f"'{relative}' leads out of the volume")
    if _leads_in_a_circle(end):
        raise UnsafePathError(f"'{relative}' is a link that leads in a circle")
    return end


def open_beneath(root: Path, relative: PurePosixPath, *, follow_links: bool = False) -> BinaryIO:
    """Opens the regular file `relative` beneath `root` for reading.

    It goes down folder by folder, each opened from the one before and none through a link, so a folder that another
    process swaps for a link meanwhile cannot lead out. With `follow_links`, links that end inside the volume are
    resolved first, and what they resolve to is opened in the same way.

    Raises:
        UnsafePathError: a link (without `follow_links`), one that leads out, or anything but a regular file.
        FileNotFoundError, NotADirectoryError: there is no such file.
        MorpheusError: `volume_unavailable`, when the root itself cannot be opened.
        OSError: the volume failed; `volume_error` says it in a sentence.
    """
    parts = confined(root, relative).relative_to(os.path.realpath(root)).parts if follow_links else relative.parts
    if not parts or ".." in parts or relative.is_absolute():
        raise UnsafePathError(f"'{relative}' does not name a file beneath the volume's root")
    with contextlib.ExitStack() as folders:
        folder = _open_root(root)
        folders.callback(os.close, folder)
        for part in parts[:-1]:
            folder = _open_step(part, folder, _FOLDER, relative)
            folders.callback(os.close, folder)
        descriptor = _open_step(parts[-1], folder, _FILE, relative)
    return _regular(descriptor, relative)


def wait_for_volume(
    root: Path,
    *,
    deadline: Deadline,
    sleep: Callable[[float], None] = time.sleep,
    look: Callable[[Path], None] | None = None,
) -> None:
    """Waits until `root` exists, is a folder and answers a listing. `look` raises OSError for as long as it does not.

    Raises:
        MorpheusError: `volume_unavailable`, when the deadline passes first.
    """
    began_s = deadline.clock()
    for wait_s in backoff_s(FIRST_WAIT_S, LONGEST_WAIT_S):
        problem = _problem_of(root, look or _list_some, max(deadline.remaining_s, LEAST_LOOK_S))
        if problem is None:
            return
        if deadline.passed:
            break
        logger.info("Waiting for the volume: %s %s", root, problem)
        sleep(min(wait_s, deadline.remaining_s))
    waited = f"after {deadline.clock() - began_s:.0f} s of waiting"
    raise MorpheusError(
        Code.VOLUME_UNAVAILABLE,
        f"The volume is not available: {root} {problem} {waited}. {WHAT_TO_DO}",
        details={"path": str(root)},
    )


def ensure_writable(root: Path) -> None:
    """Writes a small file at `root` and removes it, because a read-only or full volume shows only when written to.

    Raises:
        MorpheusError: `volume_unavailable` or `volume_full`.
    """
    # Past the file's own buffer: closing would try again to write what a full volume refused, and leave the file there.
    # Unsynced: the outputs are synced later, and what a full volume does not say now it will say then.
    probe = os.path.join(root, f".morpheus-{uuid.uuid4().hex}")
    with translated(f"writing to {root}"):
        descriptor = os.open(probe, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
        try:
            os.write(descriptor, b"morpheus")
        finally:
            try:
                os.close(descriptor)
            finally:
                os.unlink(probe)


def volume_error(failure: OSError, doing: str) -> MorpheusError:
    """What an OSError on the volume means for a job. `doing` says what failed: `publishing 'x.png'`.

    `volume_full` and `volume_unavailable` for what a volume does; `internal` for what is no volume's fault, such as
    too many open files.
    """
    number = failure.errno or 0
    said = os.strerror(number) if number else str(failure) or type(failure).__name__
    details = {"errno": errno.errorcode.get(number, "unknown")}
    details |= {"path": str(failure.filename)} if failure.filename else {}
    opening = f"{doing[:1].upper()}{doing[1:]} failed ({said})"
    if number in _FULL:
        return MorpheusError(Code.VOLUME_FULL, f"{opening}: {_FULL[number]}", details=details)
    if number in _UNAVAILABLE:
        return MorpheusError(Code.VOLUME_UNAVAILABLE, f"{opening}: {_UNAVAILABLE[number]}", details=details)
    return MorpheusError(Code.INTERNAL, f"{opening}.", details=details)


@contextlib.contextmanager
def translated(doing: str) -> Iterator[None]:
    """Within it, an OSError becomes the `volume_error` of what was being done."""
    try:
        yield
    except OSError as failure:
        raise volume_error(failure, doing) from failure


def _leads_in_a_circle(end: Path) -> bool:
    """`realpath` leaves a link in place only where following it never ends."""
    try:
        return stat.S_ISLNK(end.lstat().st_mode)
    except OSError as failure:
        return failure.errno == errno.ELOOP


def _open_root(root: Path) -> int:
    with translated(f"opening the volume {root}"):
        return os.open(root, _FOLDER)


def _open_step(name: str, folder: int, flags: int, relative: PurePosixPath) -> int:
    try:
        return os.open(name, flags | os.O_NOFOLLOW, dir_fd=folder)
    except OSError as failure:
        if failure.errno == errno.ELOOP or _is_link(name, folder):
            raise UnsafePathError(f"'{relative}' goes through a link ('{name}'), which is not followed") from None
        if failure.errno == errno.ENXIO:
            raise UnsafePathError(f"'{relative}' is not a regular file") from None
        raise OSError(failure.errno, failure.strerror, str(relative)) from None


def _is_link(name: str, folder: int) -> bool:
    try:
        return stat.S_ISLNK(os.stat(name, dir_fd=folder, follow_symlinks=False).st_mode)
    except OSError:
        return False


def _regular(descriptor: int, relative: PurePosixPath) -> BinaryIO:
    try:
        mode = os.fstat(descriptor).st_mode
        if not stat.S_ISREG(mode):
            what = "a folder" if stat.S_ISDIR(mode) else "not a regular file"
            raise UnsafePathError(f"'{relative}' is {what}, so it cannot be read")
    except BaseException:
        os.close(descriptor)
        raise
    return os.fdopen(descriptor, "rb")


def _list_some(root: Path) -> None:
    with os.scandir(root) as entries:
        next(entries, None)


def _problem_of(root: Path, look: Callable[[Path], None], limit_s: float) -> str | None:
    """What keeps the volume from being used, or None. The look runs in a thread of its own: a FUSE mount whose server
    is gone can hold a call for ever."""
    found: list[str | None] = []

    def run() -> None:
        try:
            look(root)
            found.append(None)
        except FileNotFoundError:
            found.append("does not exist")
        except NotADirectoryError:
            found.append("is not a folder")
        except OSError as failure:
            found.append(f"cannot be listed ({failure.strerror})")

    thread = threading.Thread(target=run, name="volume-look", daemon=True)
    thread.start()
    thread.join(limit_s)
    return found[0] if found else "did not answer"
