"""The outputs of one job in the bucket: several on their way at once, none of them over an object that was there."""

from __future__ import annotations

import contextlib
import hashlib
import logging
import tempfile
import threading
import uuid
from collections.abc import Iterable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor, wait
from contextvars import copy_context
from dataclasses import dataclass
from pathlib import Path
from typing import IO, Final

from morpheus_worker.comfy.files import Origin
from morpheus_worker.comfy.history import FileRef
from morpheus_worker.deadlines import Allowance, awaited
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import OutputFile
from morpheus_worker.looks import looks_of
from morpheus_worker.paths import safe_filename
from morpheus_worker.publishing import Origins, numbered, output_of
from morpheus_worker.s3.calling import UPLOADING
from morpheus_worker.s3.store import FILES_AT_ONCE, S3Store

log = logging.getLogger(__name__)

CHUNK_BYTES: Final = 1024 * 1024
MOST_LOOKS: Final = 20
"""Names that are tried for one output before it gets one that nobody can have taken."""

GRACE_S: Final = 0.25
"""What uploads get to end in, once the job has to stop. One that hangs longer ends, and takes back what it made, after
the job."""

WITHDRAWAL_S: Final = 5.0
"""What the job waits for its objects to be removed, in seconds."""


@dataclass(frozen=True, slots=True)
class _File:
    """An output on this machine's disk."""

    path: Path
    size: int
    sha256: str


class S3Folder:
    """The objects of one job: `<key prefix><job id>/<filename>`, beside those of its earlier runs.

    Whether a name is free the store is asked before; no store-side condition guards the moment between, because not
    every store knows one.
    """

    def __init__(self, store: S3Store, job_id: str, allowance: Allowance) -> None:
        self._store = store
        self._prefix = f"{store.endpoint.key_prefix}{job_id}/"
        self._allowance = allowance
        self._lock = threading.Lock()
        self._names: set[str] = set()
        self._uris: list[str] = []
        self._withdrawn = False

    def publish(self, refs: Sequence[FileRef], files: Origins) -> list[OutputFile | MorpheusError]:
        """Uploads every file, several at once; in the order of `refs`. One that cannot be delivered is its entry's
        error.

        Raises:
            MorpheusError: `cancelled`, `timeout`.
        """
        pool = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="s3-upload")
        # The first names are given here, in order, whichever upload comes first.
        wanted = [(ref, self._free_name(ref)) for ref in refs]
        futures = [pool.submit(copy_context().run, self._entry, ref, name, files) for ref, name in wanted]
        try:
            awaited(futures, self._check)
        except BaseException:
            pool.shutdown(wait=False, cancel_futures=True)
            wait(futures, timeout=GRACE_S)
            raise
        finally:
            pool.shutdown(wait=False)
        return [future.result() for future in futures]

    def withdraw(self) -> None:
        """Removes what was uploaded, now or, where an upload still hangs, as soon as it ends. Never fails."""
        with self._lock:
            self._withdrawn = True
            uris = list(self._uris)
        if not uris:
            return
        pool = ThreadPoolExecutor(FILES_AT_ONCE, thread_name_prefix="s3-remove")
        futures = [pool.submit(copy_context().run, self._store.remove, uri) for uri in uris]
        if wait(futures, timeout=WITHDRAWAL_S).not_done:
            log.warning("The store takes long to remove the objects of this job; some may stay")
        pool.shutdown(wait=False)

    def _check(self) -> None:
        self._allowance.check(UPLOADING)

    def _entry(self, ref: FileRef, name: str, files: Origins) -> OutputFile | MorpheusError:
        try:
            with files.origin(ref) as origin, self._on_disk(origin) as file:
                return self._upload(ref, name, file)
        except OSError as failure:
            self._check()
            said = f"'{ref.filename}' could not be read for its upload: {failure.strerror or failure}"
            return MorpheusError(Code.UPLOAD_FAILED, said)
        except MorpheusError as failure:
            self._check()
            return failure

    @contextlib.contextmanager
    def _on_disk(self, origin: Origin) -> Iterator[_File]:
        """The output as a file: the one that it is already, or a temporary one until the block ends."""
        if isinstance(origin, Path):
            with origin.open("rb", buffering=0) as stream:
                size, sha256 = self._measured(iter(lambda: stream.read(CHUNK_BYTES), b""))
            yield _File(origin, size, sha256)
            return
        with tempfile.NamedTemporaryFile(prefix="morpheus-") as spool:
            size, sha256 = self._measured(_kept(origin, spool))
            yield _File(Path(spool.name), size, sha256)

    def _measured(self, chunks: Iterable[bytes]) -> tuple[int, str]:
        """Size in bytes and SHA-256 in hex."""
        digest, size = hashlib.sha256(), 0
        for chunk in chunks:
            self._check()
            digest.update(chunk)
            size += len(chunk)
        return size, digest.hexdigest()

    def _upload(self, ref: FileRef, name: str, file: _File) -> OutputFile:
        name = self._untaken(ref, name)
        looks = looks_of(file.path, ref.media_type)
        uri = self._send(ref, name, file)
        return output_of(ref, name, file.size, file.sha256, looks, s3_uri=uri, url=self._store.url_of(uri))

    def _send(self, ref: FileRef, name: str, file: _File) -> str:
        key = self._prefix + name
        uri = self._store.uri_of(key)
        with self._lock:
            # Noted before: an upload whose answer was lost may have made the object.
            self._uris.append(uri)
        try:
            return self._store.upload(file.path, key, media_type=ref.media_type, allowance=self._allowance)
        finally:
            if self._withdrawn:
                self._store.remove(uri)

    def _untaken(self, ref: FileRef, name: str) -> str:
        """A name that no earlier run of this job left an object under."""
        for _ in range(MOST_LOOKS):
            if not self._store.has(self._prefix + name, self._allowance):
                return name
            name = self._free_name(ref)
        path = Path(name)
        return f"{path.stem}-{uuid.uuid4().hex[:8]}{path.suffix}"

    def _free_name(self, ref: FileRef) -> str:
        """The first of `x.png`, `x-2.png`, … that no other output of this job has."""
        with self._lock:
            name = next(name for name in numbered(safe_filename(ref.filename)) if name not in self._names)
            self._names.add(name)
        return name


def _kept(chunks: Iterable[bytes], spool: IO[bytes]) -> Iterator[bytes]:
    for chunk in chunks:
        spool.write(chunk)
        yield chunk
    spool.flush()
