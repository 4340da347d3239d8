"""Sends one file: whole, or in parts, several at a time, that become an object only when all of them are there.

The bytes go from the disk to the socket a block at a time, whatever the size of the file or of its parts.
"""

from __future__ import annotations

import contextlib
import contextvars
import logging
import os
import threading
from collections.abc import Iterator
from concurrent.futures import FIRST_EXCEPTION, Future, ThreadPoolExecutor, wait
from dataclasses import dataclass
from typing import Any, BinaryIO, Final

from morpheus_worker.s3.calling import Calls, Check
from morpheus_worker.s3.faults import sdk_errors

log = logging.getLogger(__name__)

MIB: Final = 1024 * 1024
MOST_PARTS: Final = 10_000
"""What S3 takes (Amazon, "Multipart upload limits"; parts of 5 MiB to 5 GiB). All but the last have one size, because
R2 asks for that."""


class NotS3Error(Exception):
    """What took an upload did not answer with what names it, so it is no S3."""


@dataclass(frozen=True, slots=True)
class Sizes:
    """A file of more than `whole_bytes` goes in parts of `part_bytes`, or larger where those would be too many."""

    whole_bytes: int = 32 * MIB
    part_bytes: int = 16 * MIB
    parts_at_once: int = 4

    def part_bytes_of(self, size: int) -> int:
        least = -(-size // MOST_PARTS)
        return max(self.part_bytes, -(-least // MIB) * MIB)


class FilePart:
    """A stretch of an open file, in the form in which the SDK takes a body. Several may share the descriptor.

    Each read asks `check` first, until all is read: to break off then would leave it open what the store makes of it.
    """

    def __init__(self, descriptor: int, start: int, size: int, check: Check) -> None:
        self._descriptor = descriptor
        self._start = start
        self._size = size
        self._check = check
        self._at = 0

    def read(self, amount: int | None = None) -> bytes:
        if left := self._size - self._at:
            self._check()
        wanted = left if amount is None or amount < 0 else min(amount, left)
        content = os.pread(self._descriptor, wanted, self._start + self._at)
        self._at += len(content)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: self._size}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at


@dataclass(frozen=True, slots=True)
class Upload:
    """One file on its way to one object. `target` holds the request's Bucket and Key."""

    client: Any
    calls: Calls
    target: dict[str, str]
    media_type: str
    sizes: Sizes
    check: Check

    def send(self, source: BinaryIO) -> None:
        """
        Raises:
            faults.sdk_errors: no part stays at the store then.
            NotS3Error: when what answers is none.
        """
        size = os.fstat(source.fileno()).st_size
        if size <= self.sizes.whole_bytes:
            body = FilePart(source.fileno(), 0, size, self.check)
            with self.calls.checked(self.check):
                self.client.put_object(**self.target, Body=body, ContentType=self.media_type)
            return
        with self._multipart() as upload_id:
            parts = self._send_parts(source.fileno(), size, upload_id)
            with self.calls.checked(self.check):
                whole = {"Parts": parts}
                self.client.complete_multipart_upload(**self.target, UploadId=upload_id, MultipartUpload=whole)

    @contextlib.contextmanager
    def _multipart(self) -> Iterator[str]:
        with self.calls.checked(self.check):
            begun = self.client.create_multipart_upload(**self.target, ContentType=self.media_type)
        upload_id: str | None = begun.get("UploadId")
        if not upload_id:
            raise NotS3Error
        try:
            yield upload_id
        except BaseException:
            self._abort(upload_id)
            raise

    def _abort(self, upload_id: str) -> None:
        try:
            self.client.abort_multipart_upload(**self.target, UploadId=upload_id)
        except sdk_errors() as failure:
            where = f"{self.target['Bucket']}/{self.target['Key']}"
            log.warning("Parts of an upload to %s may be left at the store: %s", where, type(failure).__name__)

    def _send_parts(self, descriptor: int, size: int, upload_id: str) -> list[dict[str, Any]]:
        """All parts, in order. The first failure stops the others; when this returns or raises, none is under way."""
        stop = threading.Event()
        step = self.sizes.part_bytes_of(size)
        with ThreadPoolExecutor(self.sizes.parts_at_once, thread_name_prefix="s3-part") as pool:
            futures: list[Future[dict[str, Any]]] = [
                pool.submit(
                    contextvars.copy_context().run,
                    self._send_part,
                    FilePart(descriptor, start, min(step, size - start), self._until(stop)),
                    {"UploadId": upload_id, "PartNumber": number},
                    self._until(stop),
                )
                for number, start in enumerate(range(0, size, step), 1)
            ]
            try:
                done, _ = wait(futures, return_when=FIRST_EXCEPTION)
                for future in done:
                    future.result()
            except BaseException:
                stop.set()
                pool.shutdown(wait=False, cancel_futures=True)
                raise
        return [future.result() for future in futures]

    def _send_part(self, body: FilePart, which: dict[str, Any], check: Check) -> dict[str, Any]:
        with self.calls.checked(check):
            answer = self.client.upload_part(**self.target, **which, Body=body)
        if not answer.get("ETag"):
            raise NotS3Error
        return {"PartNumber": which["PartNumber"], "ETag": answer["ETag"]}

    def _until(self, stop: threading.Event) -> Check:
        def check() -> None:
            if stop.is_set():
                raise _StoppedError
            self.check()

        return check


class _StoppedError(Exception):
    """Another part has failed already."""
