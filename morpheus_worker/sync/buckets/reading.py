"""The bytes of an object, a range at a time, all of them of one version."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.s3.faults import fault_of, sdk_errors
from morpheus_worker.sync.answers import Answer, changed, sent
from morpheus_worker.sync.buckets.clients import Store
from morpheus_worker.sync.buckets.faults import reading
from morpheus_worker.sync.buckets.places import ObjectName
from morpheus_worker.sync.terms import Resolved

MOST_AT_ONCE: Final = 256 * 1024
"""Bytes; a read waits until it has all of them, and keeps as many beside the buffer."""

_NOT_TAKEN: Final = frozenset({"NotImplemented", "501"})


@dataclass(slots=True)
class BucketBody:
    """One answer's bytes, as `terms.Body` says."""

    start: int
    total: int | None
    ranged: bool
    _stream: Any
    _store: Store
    _name: ObjectName

    def readinto(self, buffer: memoryview) -> int:
        with reading(self._store.place, self._name):
            return int(self._stream.readinto(buffer[:MOST_AT_ONCE]))


class BucketFeed:
    """An object, as `terms.Feed` says. Several threads may have ranges open at once.

    The version is pinned by its ETag, twice: the store is asked for it (`If-Match`), and the answer's own is compared,
    because some stores take no condition or ignore it.
    """

    ranges = True

    def __init__(self, store: Store, name: ObjectName, resolved: Resolved) -> None:
        self.resolved = resolved
        self.shown = str(name)
        self._store = store
        self._name = name
        self._asks_for_etag = resolved.etag is not None

    @contextlib.contextmanager
    def opened(self, start: int, end: int | None) -> Iterator[BucketBody]:
        """The bytes from `start` to `end` (exclusive; None: to the end).

        Raises:
            SyncError: `changed`, `not_found`, `access_denied`, `unreachable`.
        """
        answer = self._asked(start, end)
        with contextlib.closing(answer["Body"]) as stream:
            yield self._body(answer, stream, start, end)

    def _asked(self, start: int, end: int | None) -> Any:
        wanted = {"Bucket": self._name.bucket, "Key": self._name.key}
        if start or end is not None:
            wanted["Range"] = f"bytes={start}-{'' if end is None else end - 1}"
        with reading(self._store.place, self._name):
            client = self._store.client("fetching")
            if not self._asks_for_etag:
                return client.get_object(**wanted)
            try:
                return client.get_object(**wanted, IfMatch=self.resolved.etag)
            except sdk_errors() as failure:
                if fault_of(failure).code not in _NOT_TAKEN:
                    raise
            answer = client.get_object(**wanted)
            self._asks_for_etag = False
            return answer

    def _body(self, answer: Any, stream: Any, start: int, end: int | None) -> BucketBody:
        place, name = self._store.place, self._name
        told = f"the bucket '{name.bucket}' at {place.host}"
        pinned, etag = self.resolved.etag, answer.get("ETag")
        if pinned is not None and etag is not None and etag != pinned:
            raise changed(told, f"has another '{name.filename}' now")
        meta = answer["ResponseMetadata"]
        bytes_of = sent(Answer(meta["HTTPStatusCode"], meta["HTTPHeaders"]), told, start, end, self.resolved.size)
        return BucketBody(bytes_of.start, bytes_of.total, bytes_of.ranged, stream, self._store, name)
