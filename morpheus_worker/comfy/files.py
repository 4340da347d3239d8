"""ComfyUI's input, output and temp folders: how files get in and out.

Two doors to the same rooms. `LocalFiles` works in the folders themselves, so that an input can be a link and an output
can be moved. `RemoteFiles` goes through ComfyUI's HTTP, for one whose disk the worker does not see.
"""

from __future__ import annotations

import contextlib
import logging
import os
import shutil
import tempfile
from collections.abc import Iterable, Iterator
from pathlib import Path, PurePosixPath
from typing import Protocol

from morpheus_worker.comfy.history import FileRef
from morpheus_worker.comfy.http import ComfyHttp, OutputMissingError
from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.errors import disk_failing
from morpheus_worker.paths import safe_filename

log = logging.getLogger(__name__)


Origin = Path | Iterator[bytes]
"""Where an output's bytes come from: a local file that may be moved away, or chunks to be read once."""


class ComfyFiles(Protocol):
    """A door to ComfyUI's folders."""

    def put(self, name: str, path: Path) -> str:
        """Makes a file or folder available to loader nodes, and leaves it where it is; returns the value that names
        it."""

    def reserve(self, name: str) -> Path:
        """Where a new file may be written that `adopt` then makes available. Whoever does not have it adopted removes
        it."""

    def adopt(self, name: str, path: Path) -> str:
        """Makes a file that was written to a reserved path available under `name`; returns the value that names it.
        Nothing is at the path afterwards."""

    def absolute(self, value: str) -> str:
        """What a node that takes a path, not a choice, gets for a value that `put` or `adopt` returned."""

    def remove(self, value: str) -> None:
        """Takes away what `put` or `adopt` made available. Never fails."""

    def origin(self, ref: FileRef) -> contextlib.AbstractContextManager[Origin]:
        """The bytes of an output.

        Raises:
            OutputMissingError: when there is no such file, or not within ComfyUI's folders.
        """

    def made(self, folder: str, guesses: Iterable[PurePosixPath] = ()) -> list[PurePosixPath]:
        """Every file in an output sub-folder, relative to the output folder; where that cannot be listed, those of
        `guesses` that are there.

        Raises:
            MorpheusError: `connection`.
        """

    def discard(self, folder: str, refs: Iterable[FileRef] = ()) -> None:
        """Takes away an output sub-folder and all in it, and single files. Never fails."""


class LocalFiles:
    """The folders of a ComfyUI on this machine."""

    def __init__(self, folders: ComfyFolders) -> None:
        self._folders = folders
        self._roots = {"output": folders.output, "temp": folders.temp}

    def put(self, name: str, path: Path) -> str:
        with placing():
            self._folders.input.mkdir(parents=True, exist_ok=True)
            (self._folders.input / name).symlink_to(path)
        return name

    def reserve(self, name: str) -> Path:
        """In the input folder itself, so that adopting it copies nothing: no prompt knows the name before."""
        with placing():
            self._folders.input.mkdir(parents=True, exist_ok=True)
        return self._folders.input / name

    def adopt(self, name: str, path: Path) -> str:
        with placing():
            path.rename(self._folders.input / name)
        return name

    def absolute(self, value: str) -> str:
        return str(self._folders.input / value)

    def remove(self, value: str) -> None:
        with contextlib.suppress(OSError):
            (self._folders.input / value).unlink(missing_ok=True)

    @contextlib.contextmanager
    def origin(self, ref: FileRef) -> Iterator[Origin]:
        yield self._path(ref)

    def _path(self, ref: FileRef) -> Path:
        root = self._roots.get(ref.folder)
        if root is None:
            raise OutputMissingError(ref)
        # The names were reported by a node, which may be anybody's code.
        try:
            path = Path(os.path.realpath(root / ref.subfolder / ref.filename))
            is_there = path.is_relative_to(os.path.realpath(root)) and path.is_file()
        except (OSError, ValueError):
            is_there = False
        if not is_there:
            raise OutputMissingError(ref)
        return path

    def made(self, folder: str, guesses: Iterable[PurePosixPath] = ()) -> list[PurePosixPath]:  # noqa: ARG002
        root = self._folders.output
        return [
            PurePosixPath(os.path.relpath(os.path.join(parent, name), root))
            for parent, _, names in os.walk(root / folder)
            for name in names
        ]

    def discard(self, folder: str, refs: Iterable[FileRef] = ()) -> None:
        shutil.rmtree(self._folders.output / folder, ignore_errors=True)
        for ref in refs:
            with contextlib.suppress(OSError, OutputMissingError):
                self._path(ref).unlink()


def placing() -> contextlib.AbstractContextManager[None]:
    """Within it, an OSError becomes the job's error that its input cannot be placed."""
    return disk_failing("An input could not be placed in ComfyUI's input folder")


class RemoteFiles:
    """The folders of a ComfyUI that is only reachable by its URL.

    ComfyUI has no route that deletes a file, so what a job staged or made stays on its disk.
    """

    def __init__(self, http: ComfyHttp) -> None:
        self._http = http

    def put(self, name: str, path: Path) -> str:
        if not path.is_dir():
            with path.open("rb") as stream:
                return self._http.upload(name, stream)
        for entry in sorted(entry for entry in path.iterdir() if entry.is_file()):
            with entry.open("rb") as stream:
                self._http.upload(safe_filename(entry.name), stream, subfolder=name)
        return name

    def reserve(self, name: str) -> Path:
        return Path(tempfile.gettempdir(), name)

    def adopt(self, name: str, path: Path) -> str:
        try:
            with path.open("rb") as stream:
                return self._http.upload(name, stream)
        finally:
            path.unlink(missing_ok=True)

    def absolute(self, value: str) -> str:
        return value

    def remove(self, value: str) -> None:
        log.debug("the staged input %s stays at ComfyUI: it cannot be deleted over HTTP", value)

    @contextlib.contextmanager
    def origin(self, ref: FileRef) -> Iterator[Origin]:
        with self._http.view(ref) as chunks:
            yield chunks

    def made(self, folder: str, guesses: Iterable[PurePosixPath] = ()) -> list[PurePosixPath]:
        return [path for path in guesses if path.is_relative_to(folder) and self._is_there(path)]

    def _is_there(self, path: PurePosixPath) -> bool:
        try:
            with self._http.view(FileRef("", path.name, str(path.parent), "output")):
                return True
        except OutputMissingError:
            return False

    def discard(self, folder: str, refs: Iterable[FileRef] = ()) -> None:
        kept = [folder, *(ref.filename for ref in refs)]
        log.debug("%s stay at ComfyUI: they cannot be deleted over HTTP", ", ".join(kept))
