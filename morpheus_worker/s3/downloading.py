"""Brings one object to a file: a chunk at a time, no larger than allowed, and from the start again when it is cut."""

from __future__ import annotations

import contextlib
import socket
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, BinaryIO, Final

from morpheus_worker.deadlines import Allowance, backoff_s
from morpheus_worker.errors import Code, MediaRefusedError
from morpheus_worker.fetching import Fetched
from morpheus_worker.fetching.writing import on_disk
from morpheus_worker.s3.calling import FETCHING, Calls
from morpheus_worker.s3.endpoint import S3Name
from morpheus_worker.s3.faults import fault_of, sdk_errors, unreachable

CHUNK_BYTES: Final = 256 * 1024
TRIES: Final = 3
FIRST_WAIT_S: Final = 0.2
LONGEST_WAIT_S: Final = 2.0


class _NotWantedError(Exception):
    """Nobody waits for the download any more."""


class _CutError(MediaRefusedError):
    """It broke off amid the object. What goes wrong before, the SDK has tried again already."""


@dataclass(slots=True)
class Download:
    """One object on its way to `target`, which does not exist yet. `stop` may be called from another thread."""

    client: Any
    calls: Calls
    name: S3Name
    target: Path
    max_bytes: int
    allowance: Allowance
    _stopped: bool = False
    _body: Any = None

    def run(self) -> Fetched:
        """
        Raises:
            MediaRefusedError: `input_rejected` for an object that is too large, `input_unreachable` for one that cannot
                be had. The target does not exist then.
            MorpheusError: `cancelled`, `timeout`; `internal` when the disk fails.
        """
        for wait_s, _ in zip(backoff_s(FIRST_WAIT_S, LONGEST_WAIT_S), range(TRIES - 1), strict=False):
            with contextlib.suppress(_CutError):
                return self._once()
            self.allowance.wait(wait_s, FETCHING)
        return self._once()

    def stop(self) -> None:
        """Ends what another thread is waiting for, as far as that can be done from outside."""
        self._stopped = True
        # To close the stream would wait for the read that it is in. Its socket can be reached in no public way.
        with contextlib.suppress(AttributeError, OSError):
            self._body._raw_stream.connection.sock.shutdown(socket.SHUT_RDWR)

    def _once(self) -> Fetched:
        answer = self._asked()
        self._body = answer["Body"]
        try:
            with contextlib.closing(self._body):
                # The store may have taken its time, and an empty object would be saved without another look.
                self._check()
                self._check_size(answer.get("ContentLength") or 0)
                size = self._save()
        except sdk_errors() as failure:
            refusal = unreachable(self.name.bucket, fault_of(failure))
            raise _CutError(refusal.code, refusal.what, refusal.hint) from None
        media_type = str(answer.get("ContentType") or "").partition(";")[0].strip().lower()
        return Fetched(size=size, filename=self.name.filename, media_type=media_type or None)

    def _asked(self) -> dict[str, Any]:
        try:
            with self.calls.checked(self._check):
                answer: dict[str, Any] = self.client.get_object(Bucket=self.name.bucket, Key=self.name.key)
        except sdk_errors() as failure:
            raise unreachable(self.name.bucket, fault_of(failure)) from None
        return answer

    def _save(self) -> int:
        size = 0
        with _new_file(self.target) as file:
            for chunk in self._chunks():
                size += len(chunk)
                self._check_size(size)
                with on_disk():
                    file.write(chunk)
        return size

    def _chunks(self) -> Iterator[bytes]:
        while chunk := self._body.read(CHUNK_BYTES):
            self._check()
            yield chunk

    def _check(self) -> None:
        self.allowance.check(FETCHING)
        if self._stopped:
            raise _NotWantedError

    def _check_size(self, size: int) -> None:
        if size > self.max_bytes:
            said = f"has {size} bytes, more than the {self.max_bytes} allowed"
            raise MediaRefusedError(Code.INPUT_REJECTED, said)


@contextlib.contextmanager
def _new_file(path: Path) -> Iterator[BinaryIO]:
    """A file that is gone again when something goes wrong before its end."""
    with on_disk():
        file = path.open("xb")
    try:
        with file:
            yield file
            with on_disk():
                file.close()
    except BaseException:
        with contextlib.suppress(OSError):
            path.unlink(missing_ok=True)
        raise
