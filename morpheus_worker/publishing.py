"""Moves outputs onto the volume: each file whole or not at all, the record last.

A file is staged beside its target under a hidden name, hashed in the same pass, synced, and then linked to its name,
which never replaces a file that is there. `result.json` is written last: where it is, the job is complete.
"""

from __future__ import annotations

import contextlib
import contextvars
import dataclasses
import errno
import functools
import hashlib
import itertools
import json
import os
import threading
import uuid
from collections.abc import Iterable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Final, Protocol

from morpheus_worker.comfy.files import Origin
from morpheus_worker.comfy.history import FileRef
from morpheus_worker.comfy.http import OutputMissingError
from morpheus_worker.deadlines import Allowance, awaited
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import OutputFile
from morpheus_worker.looks import Looks, looks_of
from morpheus_worker.paths import JOB_OUTPUTS, UnsafePathError, is_record, safe_filename
from morpheus_worker.volume import NO_LINKS, confined, ensure_writable, translated

RECORD: Final = "result.json"

LONG_DATA: Final = 16 * 1024
"""Characters from which an output's base64 is put into the record as it is."""

CHUNK_BYTES: Final = 4 * 1024 * 1024
"""MooseFS stores 64 MiB chunks and pays per request, so writes are large; memory stays flat whatever the file."""

STAGED_AT_ONCE: Final = 4
"""Files that are copied, hashed and synced side by side. None of these holds Python's lock, and several syncs share one
commit of a journal."""

GRACE_S: Final = 1.0
"""What stagers get to end in, once the job has to stop. On a volume that hangs, one ends when it can, and takes its
part away then."""

MAKE_TRIES: Final = 5
"""How often a folder is made that another delivery of the job takes away at once, because it withdraws."""

DOING: Final = "publishing the outputs"


class Origins(Protocol):
    """Where the bytes of outputs come from: `comfy.files.ComfyFiles`, for one."""

    def origin(self, ref: FileRef) -> contextlib.AbstractContextManager[Origin]:
        """The bytes of an output.

        Raises:
            OutputMissingError: when there is no such file.
        """


@dataclass(frozen=True, slots=True)
class Part:
    """A staged file: hidden beside its target, whole, synced."""

    path: Path
    size: int
    sha256: str
    looks: Looks


class JobFolder:
    """`<volume>/job_outputs/<job id>`, which may already hold uploads or an earlier run's outputs."""

    def __init__(self, volume_root: Path, job_id: str, allowance: Allowance) -> None:
        self._volume_root = volume_root
        self.allowance = allowance
        self.relative = PurePosixPath(JOB_OUTPUTS, job_id)
        self.path = volume_root / self.relative
        self._parts: list[Path] = []
        self._published: list[Path] = []
        self._complete = False
        self._volume: tuple[int, int] | None = None
        self._staged: dict[tuple[str, str, str], Future[Part | OutputMissingError]] = {}
        self._given_up = threading.Event()

    def make(self) -> None:
        """Makes the folder where it is not; another delivery of the job may have withdrawn while it was empty. Never
        the volume itself, nor on what lies where the volume was: outputs would land on the container's disk, and go
        with it. And never through a link that leads off the volume."""
        root = self._volume_root.stat()
        self._volume = self._volume or (root.st_dev, root.st_ino)
        if self._volume != (root.st_dev, root.st_ino):
            raise MorpheusError(Code.VOLUME_UNAVAILABLE, f"The volume was taken away from {self._volume_root}")
        for _ in range(MAKE_TRIES):
            for folder in (self.path.parent, self.path):
                with contextlib.suppress(FileExistsError):
                    folder.mkdir()
            try:
                end = confined(self._volume_root, self.relative)
            except UnsafePathError as failure:
                raise MorpheusError(Code.VOLUME_UNAVAILABLE, f"The job's folder cannot be used: {failure}") from None
            if end.is_dir():
                return
            if end.exists():
                break
        raise NotADirectoryError(errno.ENOTDIR, os.strerror(errno.ENOTDIR), str(self.path))

    def begin(self, refs: Sequence[FileRef], files: Origins) -> None:
        """Starts on files that `publish` will be asked for, in the background. Nothing is to be seen of it yet."""
        for ref in refs:
            self._staging(ref, files)

    def publish(self, refs: Sequence[FileRef], files: Origins) -> list[OutputFile | MorpheusError]:
        """Publishes every file, in order; a file that is not there is its entry's `OutputMissingError`. ComfyUI's own
        copies are gone afterwards, where they are local.

        Raises:
            MorpheusError: `volume_full`, `volume_unavailable`, `connection`, `cancelled`, `timeout`. Then nothing is
                published.
        """
        with translated(DOING):
            staged = [self._staging(ref, files) for ref in refs]
            awaited(staged, self._check)
            parts = [staging.result() for staging in staged]
            return [
                part if isinstance(part, MorpheusError) else self._publish_part(ref, part)
                for ref, part in zip(refs, parts, strict=True)
            ]

    def complete(self, result: Mapping[str, Any], *, max_bytes: int | None = None) -> Path:
        """Writes the job's record, last of all, and returns its path.

        An earlier run's record under the same job id stays; the new one is then `result-2.json`, and so on. It is
        synced where it says what lies on the volume; otherwise it only serves a second delivery, which does without.

        Raises:
            MorpheusError: `result_too_large`, when it has more than `max_bytes`; `volume_full`, `volume_unavailable`,
                `cancelled`, `timeout`.
        """
        record = _as_json(result) if max_bytes is None else refuse_too_large(result, max_bytes)
        self._check()
        with translated("writing the result"):
            part = self._new_part()
            with part.open("xb") as stream:
                stream.write(record)
                stream.flush()
                if self._published:
                    os.fsync(stream.fileno())
            path = give_name(part, self.path, RECORD)
            if self._published:
                _sync_folder(self.path)
        self._complete = True
        return path

    def withdraw(self) -> None:
        """Takes back whatever is not complete: hidden parts, published files without a record, an empty folder."""
        self._given_up.set()
        wait_for_begun(self._staged.values())
        doomed = self._parts if self._complete else self._parts + self._published
        self._unlink(doomed)

    def _unlink(self, paths: Iterable[Path]) -> None:
        for path in tuple(paths):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
        with contextlib.suppress(OSError):
            self.path.rmdir()

    def _staging(self, ref: FileRef, files: Origins) -> Future[Part | OutputMissingError]:
        key = (ref.folder, ref.subfolder, ref.filename)
        if key not in self._staged:
            self._staged[key] = _stagers().submit(contextvars.copy_context().run, self._part_of, ref, files)
        return self._staged[key]

    def _part_of(self, ref: FileRef, files: Origins) -> Part | OutputMissingError:
        self._check()
        try:
            with files.origin(ref) as origin:
                if isinstance(origin, Path):
                    return self._moved(origin, ref.media_type)
                return self._written(self._new_part(), origin, ref.media_type)
        except OutputMissingError as failure:
            return failure
        finally:
            if self._given_up.is_set():
                # Nobody waits any more, and the withdrawal may be over.
                self._unlink(self._parts)

    def _moved(self, source: Path, media_type: str) -> Part:
        """Within one file system a rename changes the name, not the bytes; across two the bytes are copied."""
        path = self._new_part()
        try:
            os.replace(source, path)
        except OSError as failure:
            if failure.errno != errno.EXDEV:
                raise
            return self._copied(source, path, media_type)
        digest = hashlib.sha256()
        with path.open("rb", buffering=0) as stream:
            synced = _hands().submit(os.fsync, stream.fileno())
            try:
                for chunk in self._allowed(_chunks(stream.fileno())):
                    digest.update(chunk)
            finally:
                wait([synced])
            synced.result()
            return Part(path, os.fstat(stream.fileno()).st_size, digest.hexdigest(), looks_of(path, media_type))

    def _copied(self, source: Path, path: Path, media_type: str) -> Part:
        with source.open("rb", buffering=0) as stream:
            os.posix_fadvise(stream.fileno(), 0, 0, os.POSIX_FADV_SEQUENTIAL)
            part = self._written(path, _chunks(stream.fileno()), media_type)
        with contextlib.suppress(OSError):
            source.unlink()
        return part

    def _written(self, path: Path, chunks: Iterable[bytes], media_type: str) -> Part:
        """Writes, hashes and syncs a new file in one pass. A chunk is hashed while it is written, and the last one,
        like the look at the file, while it is synced."""
        digest, size = hashlib.sha256(), 0
        hashed: Future[None] | None = None
        with path.open("xb", buffering=0) as stream:
            for chunk in self._allowed(chunks):
                if hashed is not None:
                    hashed.result()
                hashed = _hands().submit(digest.update, chunk)
                size += len(chunk)
                rest = memoryview(chunk)
                while rest:
                    rest = rest[stream.write(rest) :]
            seen = _hands().submit(looks_of, path, media_type)
            try:
                os.fsync(stream.fileno())
            finally:
                wait([seen])
        if hashed is not None:
            hashed.result()
        return Part(path, size, digest.hexdigest(), seen.result())

    def _allowed(self, chunks: Iterable[bytes]) -> Iterator[bytes]:
        """The chunks, for as long as the job may go on."""
        for chunk in chunks:
            self._check()
            yield chunk

    def _check(self) -> None:
        self.allowance.check(DOING)
        if self._given_up.is_set():
            raise MorpheusError(Code.CANCELLED, "The job has failed already")

    def _new_part(self) -> Path:
        if not self.path.is_dir():
            self.make()
        path = self.path / f".{uuid.uuid4().hex}.part"
        self._parts.append(path)
        return path

    def _publish_part(self, ref: FileRef, part: Part) -> OutputFile:
        path = give_name(part.path, self.path, output_name(ref.filename))
        self._published.append(path)
        where = {"path": str(path), "volume_path": str(self.relative / path.name)}
        return output_of(ref, path.name, part.size, part.sha256, part.looks, **where)


def give_name(part: Path, folder: Path, name: str) -> Path:
    """Gives a hidden file in `folder` the first free name of `name`, `name-2`, …, without ever replacing a file, and
    returns its path."""
    for candidate in numbered(name):
        target = folder / candidate
        try:
            os.link(part, target)
        except FileExistsError:
            continue
        except OSError as failure:
            if failure.errno not in NO_LINKS:
                raise
            if target.exists():
                continue
            os.rename(part, target)
            return target
        part.unlink()
        return target
    raise AssertionError("unreachable: the names never end")


def output_of(ref: FileRef, filename: str, size: int, sha256: str, looks: Looks, **where: str) -> OutputFile:
    """What the result says of a file, wherever it went: `where` are the keys of `OutputFile` that say so."""
    return OutputFile(
        kind=ref.kind,
        filename=filename,
        node_id=ref.node_id,
        media_type=ref.media_type,
        bytes=size,
        sha256=sha256,
        **dataclasses.asdict(looks),
        **where,
    )


def wait_for_begun(futures: Iterable[Future[Any]]) -> None:
    """Cancels what has not begun, and gives the rest a moment to end."""
    wait([future for future in futures if not future.cancel()], timeout=GRACE_S)


@functools.cache
def _stagers() -> ThreadPoolExecutor:
    """The process's own: a thread takes as long to start as a small file to copy."""
    return ThreadPoolExecutor(STAGED_AT_ONCE, thread_name_prefix="publish")


@functools.cache
def _hands() -> ThreadPoolExecutor:
    """For the half of a stager's work that goes on beside the other. Nothing here waits for anything."""
    return ThreadPoolExecutor(STAGED_AT_ONCE, thread_name_prefix="publish-beside")


@contextlib.contextmanager
def job_folder(volume_root: Path, job_id: str, allowance: Allowance) -> Iterator[JobFolder]:
    """The job's folder, made and found writable. What is not complete when the block ends is withdrawn.

    Raises:
        MorpheusError: `volume_full`, `volume_unavailable`: before any GPU time is spent.
    """
    folder = JobFolder(volume_root, job_id, allowance)
    try:
        with translated("preparing the job's folder"):
            folder.make()
        ensure_writable(folder.path)
        yield folder
    finally:
        folder.withdraw()


def _as_json(result: Mapping[str, Any]) -> bytes:
    """The record. Base64 is put in as it is: nothing in it needs an escape, and looking for one in megabytes takes
    longer than everything else about a record."""
    data: list[str] = []
    mark = uuid.uuid4().hex

    def marked(item: Any) -> Any:
        if not isinstance(item, Mapping) or len(item.get("data") or "") < LONG_DATA:
            return item
        data.append(item["data"])
        return {**item, "data": mark}

    short = {key: [marked(item) for item in result[key]] for key in ("outputs", "images") if result.get(key)}
    pieces = json.dumps({**result, **short}, indent=2, ensure_ascii=False).split(mark)
    return "".join(itertools.chain(*zip(pieces, [*data, ""], strict=True))).encode()


def _chunks(descriptor: int) -> Iterator[bytes]:
    while chunk := os.read(descriptor, CHUNK_BYTES):
        yield chunk


def numbered(name: str) -> Iterator[str]:
    """`x.png`, `x-2.png`, `x-3.png`, … without end."""
    stem, dot, suffix = name.rpartition(".")
    if not stem:
        stem, dot, suffix = name, "", ""
    yield name
    for number in itertools.count(2):
        yield f"{stem}-{number}{dot}{suffix}"


def refuse_too_large(result: Mapping[str, Any], max_bytes: int) -> bytes:
    """The result as JSON, once it is known that it fits into an answer.

    Raises:
        MorpheusError: `result_too_large`.
    """
    text = _as_json(result)
    if len(text) > max_bytes:
        raise too_large(max_bytes)
    return text


def too_large(max_bytes: int) -> MorpheusError:
    """The failure of a job whose answer would be lost on its way back."""
    said = (
        f"The result is larger than an answer may be ({max_bytes / 1e6:g} MB): ask for 'outputs': 'volume', which "
        "answers with paths"
    )
    return MorpheusError(Code.RESULT_TOO_LARGE, said, details={"max_result_bytes": max_bytes})


def output_name(reported: str) -> str:
    """A plain name, and never one of a record: that would say that the job is complete."""
    name = safe_filename(reported)
    return f"output-{name}" if is_record(name) else name


def _sync_folder(path: Path) -> None:
    """Makes the names themselves durable. A FUSE file system that cannot sync a folder says so; nothing more to do."""
    descriptor = os.open(path, os.O_RDONLY | os.O_DIRECTORY)
    try:
        with contextlib.suppress(OSError):
            os.fsync(descriptor)
    finally:
        os.close(descriptor)
