"""An object in parts, which is there only when all of them are and the store was told that they are right.

Two machines may send one object at once. Each has an upload of its own, and what was completed last is what is there:
both were verified, so both are right. Nobody ends what another may still be sending: an upload that was left behind is
told by its newest part, which is older than any part, or the completion of a large upload, may take.
"""

from __future__ import annotations

import contextlib
import logging
import os
import threading
import time
from collections.abc import Iterator
from datetime import UTC, datetime
from email.utils import parsedate_to_datetime
from typing import Any, Final

from morpheus_worker.deadlines import backoff_s
from morpheus_worker.s3.calling import Check
from morpheus_worker.s3.faults import sdk_errors
from morpheus_worker.s3.uploading import NotS3Error
from morpheus_worker.sync.buckets.clients import Store
from morpheus_worker.sync.buckets.faults import read, unwritable, writing
from morpheus_worker.sync.buckets.places import ObjectName
from morpheus_worker.sync.buckets.waiting import awaited, waited

log = logging.getLogger(__name__)

LEFT_AFTER_S: Final = 3 * 3600.0
"""Age of an upload's newest part, in seconds, after which nobody works on it: RunPod's store may be completing one for
two hours."""
ABORT_S: Final = 10.0
"""How long the end of an upload is waited for that is given up, in seconds."""
_FIRST_LOOK_S: Final = 1.0
_LONGEST_LOOK_S: Final = 15.0
_LOOKING: Final = "bucket-look"


class PartBody:
    """A part in memory, in the form in which the SDK takes a body. Each read asks `check` first, until all is read."""

    def __init__(self, content: memoryview, check: Check) -> None:
        self._content = content
        self._check = check
        self._at = 0

    def read(self, amount: int | None = None) -> bytes:
        if self._at < len(self._content):
            self._check()
        end = len(self._content) if amount is None or amount < 0 else min(self._at + amount, len(self._content))
        content = bytes(self._content[self._at : end])
        self._at = max(self._at, end)
        return content

    def seek(self, offset: int, whence: int = os.SEEK_SET) -> int:
        origin = {os.SEEK_SET: 0, os.SEEK_CUR: self._at, os.SEEK_END: len(self._content)}[whence]
        self._at = max(0, origin + offset)
        return self._at

    def tell(self) -> int:
        return self._at


class Multipart:
    """One object on its way. Begun at the first part; several threads may send parts at once."""

    def __init__(
        self, store: Store, name: ObjectName, metadata: dict[str, str], check: Check, left_after_s: float
    ) -> None:
        self._store = store
        self._name = name
        self._target = {"Bucket": name.bucket, "Key": name.key}
        self._metadata = metadata
        self._check = check
        self._left_after_s = left_after_s
        self._id: str | None = None
        self._parts: dict[int, str] = {}
        self._lock = threading.Lock()
        self._is_unsure = False
        self._is_over = False

    def send(self, number: int, content: memoryview) -> None:
        """
        Raises:
            SyncError: `store`, `no_space`, `access_denied`.
        """
        upload_id = self._begun()
        with writing(self._store.place, self._name), self._store.checked(self._check):
            body = PartBody(content, self._check)
            answer = self._store.client("sending").upload_part(
                **self._target, UploadId=upload_id, PartNumber=number, Body=body
            )
            if not answer.get("ETag"):
                raise NotS3Error
        self._parts[number] = answer["ETag"]

    def complete(self, size: int, check: Check) -> None:
        """Makes the parts the object. Where the answer is lost, the store is looked at, and asked again: it may have
        gone on, and RunPod's does so for minutes.

        Raises:
            SyncError: `store`, `no_space`.
        """
        before = awaited(self._look, check, _LOOKING)
        for tries_left in range(self._store.patience.complete_tries - 1, -1, -1):
            self._is_unsure = True
            try:
                awaited(self._completed, check, "bucket-complete")
                return
            except sdk_errors() as failure:
                fault = read(failure, self._store.place)
            error = unwritable(self._store.place, self._name, fault)
            # That the upload is not known may mean that it was completed.
            waits = error.passing and fault.code != "NoSuchUpload"
            if self._is_there(size, before, check, waits=waits):
                return
            if not waits or not tries_left:
                self._is_unsure = waits
                raise error

    def abort(self) -> None:
        """Takes the parts away, those that a thread may still be sending included. Never fails. An upload whose
        completion was asked for without an answer is left to the store, which may be at it: what it completes is
        right."""
        self._is_over = True
        if self._id is None:
            return
        if self._is_unsure:
            log.warning(
                "The store did not say whether it completed '%s' in '%s'", self._name.filename, self._name.bucket
            )
            return
        self._end(self._id)

    def _end(self, upload_id: str) -> None:
        with contextlib.suppress(TimeoutError):
            awaited(lambda: _abort(self._store, self._target, upload_id), _patience(ABORT_S), "bucket-abort")

    def _begun(self) -> str:
        with self._lock:
            if self._id is None:
                end_left_behind(self._store, self._name, self._left_after_s)
                with writing(self._store.place, self._name), self._store.checked(self._check):
                    begun = self._store.client("sending").create_multipart_upload(
                        **self._target, Metadata=self._metadata
                    )
                    if not begun.get("UploadId"):
                        raise NotS3Error
                self._id = str(begun["UploadId"])
                if self._is_over:
                    # It was given up while the store was asked.
                    self._end(self._id)
            return self._id

    def _completed(self) -> None:
        parts = [{"PartNumber": number, "ETag": self._parts[number]} for number in sorted(self._parts)]
        self._store.client("completing").complete_multipart_upload(
            **self._target, UploadId=self._id, MultipartUpload={"Parts": parts}
        )

    def _is_there(self, size: int, before: Any, check: Check, *, waits: bool) -> bool:
        """Whether the object has become another than it was, of this size, in a while."""
        left_s = self._store.patience.settle_s if waits else 0.0
        for wait_s in backoff_s(_FIRST_LOOK_S, _LONGEST_LOOK_S):
            now = awaited(self._look, check, _LOOKING)
            if now is not None and now != before and now[0] == size:
                return True
            if left_s <= 0:
                break
            waited(min(wait_s, left_s), check)
            left_s -= wait_s
        return False

    def _look(self) -> tuple[int, str, datetime] | None:
        """Size, ETag and time of the object that is there; None also where the store does not say."""
        try:
            said = self._store.client("looking").head_object(**self._target)
        except sdk_errors():
            return None
        return said["ContentLength"], said.get("ETag", ""), said.get("LastModified", datetime.min)


def end_left_behind(store: Store, name: ObjectName, after_s: float) -> None:
    """Aborts uploads of this object that a killed process left behind. Never fails: not every store lists uploads, nor
    every key may."""
    target = {"Bucket": name.bucket, "Key": name.key}
    with contextlib.suppress(*sdk_errors()):
        listed = store.client("looking").list_multipart_uploads(Bucket=name.bucket, Prefix=name.key)
        now = _now(listed)
        for upload in listed.get("Uploads", ()):
            begun = upload.get("Initiated", now)
            if upload.get("Key") != name.key or (now - begun).total_seconds() <= after_s:
                continue
            newest = max(_part_times(store, target, upload["UploadId"]), default=begun)
            if (now - newest).total_seconds() > after_s:
                log.info("Parts that an earlier upload of '%s' left behind are taken away", name.filename)
                _abort(store, target, upload["UploadId"])


def _part_times(store: Store, target: dict[str, str], upload_id: str) -> Iterator[datetime]:
    pages = store.client("looking").get_paginator("list_parts").paginate(**target, UploadId=upload_id)
    for page in pages:
        for part in page.get("Parts", ()):
            if "LastModified" in part:
                yield part["LastModified"]


def _now(answer: Any) -> datetime:
    """The store's own clock, by which it says how old an upload is."""
    try:
        said = parsedate_to_datetime(answer["ResponseMetadata"]["HTTPHeaders"]["date"])
        return said if said.tzinfo else said.replace(tzinfo=UTC)
    except (KeyError, ValueError):
        return datetime.now(UTC)


def _abort(store: Store, target: dict[str, str], upload_id: str) -> None:
    try:
        store.client("looking").abort_multipart_upload(**target, UploadId=upload_id)
    except sdk_errors() as failure:
        where = f"{target['Bucket']}/{target['Key']}"
        log.warning("Parts of an upload to %s may be left at the store: %s", where, type(failure).__name__)


def _patience(seconds: float) -> Check:
    """A check that raises TimeoutError after so long."""
    until_s = time.monotonic() + seconds

    def check() -> None:
        if time.monotonic() >= until_s:
            raise TimeoutError

    return check
