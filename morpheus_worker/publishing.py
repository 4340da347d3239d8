"""Moves outputs onto the volume: each file whole or not at all, all of a job's or none, the record last.

A file is staged beside its target under a hidden name, hashed in the same pass, synced, and then linked to its name,
which never replaces a file that is there. `result.json` is written last: where it is, the job is complete.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import itertools
import json
import os
import re
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final

from morpheus_worker.comfy.files import ComfyFiles
from morpheus_worker.comfy.history import FileRef, TextRef
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import OutputFile
from morpheus_worker.paths import JOB_OUTPUTS, UnsafePathError, safe_filename
from morpheus_worker.pictures import NotAPictureError, size_of
from morpheus_worker.volume import confined, ensure_writable, translated

RECORD: Final = "result.json"
_RECORD_NAME: Final = re.compile(r"result(-\d+)?\.json", re.IGNORECASE)
INLINE_TEXT_BYTES: Final = 256 * 1024
"""RunPod takes answers of 10 MB (20 MB for /runsync), and a larger one is lost: the SDK logs the refusal, and the job
never ends."""

CHUNK_BYTES: Final = 4 * 1024 * 1024
"""MooseFS stores 64 MiB chunks and pays per request, so writes are large; memory stays flat whatever the file."""

# A FUSE file system may know no hard links; it then says one of these.
_NO_LINKS: Final = frozenset({errno.EPERM, errno.EOPNOTSUPP, errno.ENOSYS, errno.EMLINK})


@dataclass(frozen=True, slots=True)
class Part:
    """A staged file: hidden beside its target, whole, synced."""

    path: Path
    size: int
    sha256: str


class JobFolder:
    """`<volume>/job_outputs/<job id>`, which may already hold uploads or an earlier run's outputs."""

    def __init__(self, volume_root: Path, job_id: str) -> None:
        self._volume_root = volume_root
        self.relative = PurePosixPath(JOB_OUTPUTS, job_id)
        self.path = volume_root / self.relative
        self._parts: list[Path] = []
        self._published: list[Path] = []
        self._complete = False

    def make(self) -> None:
        """Makes the folder where it is not: another delivery of the job may have withdrawn while it was empty. Never
        the volume itself: without one, outputs would land on the container's disk, and go with it. And never through a
        link that leads off the volume."""
        for folder in (self.path.parent, self.path):
            with contextlib.suppress(FileExistsError):
                folder.mkdir()
        try:
            is_folder = confined(self._volume_root, self.relative).is_dir()
        except UnsafePathError as failure:
            raise MorpheusError(Code.VOLUME_UNAVAILABLE, f"The job's folder cannot be used: {failure}") from None
        if not is_folder:
            raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.path))

    def publish(self, refs: Sequence[FileRef], files: ComfyFiles) -> list[OutputFile]:
        """Publishes every file, in order, or none. ComfyUI's own copies are gone afterwards, where they are local.

        Raises:
            MorpheusError: `volume_full`, `volume_unavailable`, `connection`.
            OutputMissingError: when a reported file is not there.
        """
        with translated("publishing the outputs"):
            self.make()
            parts = [self._stage(ref, files) for ref in refs]
            outputs = [self._publish_part(ref, part) for ref, part in zip(refs, parts, strict=True)]
            _sync_folder(self.path)
        return outputs

    def publish_text(self, ref: TextRef) -> OutputFile:
        """A text that a node reported: inline, or as a file where it is too long to travel in the answer."""
        raw = ref.text.encode()
        inline = OutputFile(
            kind="text",
            filename=f"{safe_filename(ref.node_id)}.txt",
            node_id=ref.node_id,
            media_type="text/plain",
            bytes=len(raw),
            sha256=hashlib.sha256(raw).hexdigest(),
            text=ref.text,
        )
        if len(raw) <= INLINE_TEXT_BYTES:
            return inline
        with translated("publishing a text"):
            self.make()
            path = self._commit(_written(self._new_part(), [raw]).path, inline.filename)
            self._published.append(path)
        placed = {"filename": path.name, "path": str(path), "volume_path": str(self.relative / path.name)}
        return inline.model_copy(update={"text": None, **placed})

    def complete(self, result: Mapping[str, Any]) -> Path:
        """Writes the job's record, last of all, and returns its path.

        An earlier run's record under the same job id stays; the new one is then `result-2.json`, and so on.
        """
        with translated("writing the result"):
            self.make()
            part = _written(self._new_part(), [json.dumps(result, indent=2, ensure_ascii=False).encode()])
            path = self._commit(part.path, RECORD)
            _sync_folder(self.path)
        self._complete = True
        return path

    def withdraw(self) -> None:
        """Takes back whatever is not complete: hidden parts, published files without a record, an empty folder."""
        doomed = self._parts if self._complete else self._parts + self._published
        for path in doomed:
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _stage(self, ref: FileRef, files: ComfyFiles) -> Part:
        with files.origin(ref) as origin:
            if isinstance(origin, Path):
                return self._move(origin)
            return _written(self._new_part(), origin)

    def _move(self, source: Path) -> Part:
        """Within one file system a rename changes the name, not the bytes; across two the bytes are copied."""
        path = self._new_part()
        try:
            os.replace(source, path)
        except OSError as failure:
            if failure.errno != errno.EXDEV:
                raise
            return _copied(source, path)
        with path.open("rb") as stream:
            digest = hashlib.file_digest(stream, "sha256")
            os.fsync(stream.fileno())
            return Part(path, os.fstat(stream.fileno()).st_size, digest.hexdigest())

    def _new_part(self) -> Path:
        path = self.path / f".{uuid.uuid4().hex}.part"
        self._parts.append(path)
        return path

    def _publish_part(self, ref: FileRef, part: Part) -> OutputFile:
        path = self._commit(part.path, _output_name(ref.filename))
        self._published.append(path)
        width, height = _size(path) if ref.kind == "image" else (None, None)
        return OutputFile(
            kind=ref.kind,
            filename=path.name,
            node_id=ref.node_id,
            media_type=ref.media_type,
            bytes=part.size,
            sha256=part.sha256,
            path=str(path),
            volume_path=str(self.relative / path.name),
            width=width,
            height=height,
        )

    def _commit(self, part: Path, name: str) -> Path:
        """Gives the part the first free name of `name`, `name-2`, …, without ever replacing a file."""
        for candidate in _names(name):
            target = self.path / candidate
            try:
                os.link(part, target)
            except FileExistsError:
                continue
            except OSError as failure:
                if failure.errno not in _NO_LINKS:
                    raise
                if target.exists():
                    continue
                os.rename(part, target)
                return target
            part.unlink()
            return target
        raise AssertionError("unreachable: the names never end")


@contextlib.contextmanager
def job_folder(volume_root: Path, job_id: str) -> Iterator[JobFolder]:
    """The job's folder, made and found writable. What is not complete when the block ends is withdrawn.

    Raises:
        MorpheusError: `volume_full`, `volume_unavailable`: before any GPU time is spent.
    """
    folder = JobFolder(volume_root, job_id)
    try:
        with translated("preparing the job's folder"):
            folder.make()
        ensure_writable(folder.path)
        yield folder
    finally:
        folder.withdraw()


def _size(path: Path) -> tuple[int, int] | tuple[None, None]:
    try:
        return size_of(path)
    except NotAPictureError:
        return None, None


def _copied(source: Path, path: Path) -> Part:
    with source.open("rb", buffering=0) as stream:
        os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
        part = _written(path, iter(lambda: stream.read(CHUNK_BYTES), b""))
    with contextlib.suppress(OSError):
        source.unlink()
    return part


def _written(path: Path, chunks: Iterable[bytes]) -> Part:
    """Writes, hashes and syncs a new file in one pass."""
    digest, size = hashlib.sha256(), 0
    with path.open("xb", buffering=0) as stream:
        for chunk in chunks:
            digest.update(chunk)
            size += len(chunk)
            rest = memoryview(chunk)
            while rest:
                rest = rest[stream.write(rest) :]
        os.fsync(stream.fileno())
    return Part(path, size, digest.hexdigest())


def _output_name(reported: str) -> str:
    """A plain name, and never one of a record: that would say that the job is complete."""
    name = safe_filename(reported)
    return f"output-{name}" if _RECORD_NAME.fullmatch(name) else name


def _names(name: str) -> Iterator[str]:
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    yield name
    for number in itertools.count(2):
        yield f"{stem}-{number}{dot}{suffix}"


def _sync_folder(path: Path) -> None:
    """Makes the names themselves durable. A FUSE file system that cannot sync a folder says so; nothing more to do."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
