"""What arrives, onto the disk."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from io import FileIO
from pathlib import Path

from morpheus_worker.errors import disk_failing


@contextlib.contextmanager
def new_file(path: Path) -> Iterator[FileIO]:
    """A file that is gone again when something goes wrong before its end.

    Raises:
        MorpheusError: `internal`, when the disk fails.
    """
    with on_disk():
        file = FileIO(path, "xb")
    try:
        yield file
        with on_disk():
            file.close()
    except BaseException:
        with contextlib.suppress(OSError):
            file.close()
        remove(path)
        raise


def write(file: FileIO, chunk: bytes) -> None:
    """Writes all of it.

    Raises:
        MorpheusError: `internal`, when the disk fails.
    """
    with on_disk():
        rest = memoryview(chunk)
        while rest:
            rest = rest[file.write(rest) :]


def remove(path: Path) -> None:
    """Never fails."""
    with contextlib.suppress(OSError):
        path.unlink(missing_ok=True)


def on_disk() -> contextlib.AbstractContextManager[None]:
    """Within it, an OSError becomes the job's error that its medium cannot be kept."""
    return disk_failing("A medium could not be written to the worker's disk")
