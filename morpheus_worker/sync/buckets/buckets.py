"""Buckets as sources, as destinations, and as a mirror of what was synced before."""

from __future__ import annotations

import logging
import threading
from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import PurePosixPath
from typing import Any, Final, Self

from morpheus_worker.s3.faults import fault_of, sdk_errors
from morpheus_worker.settings import Settings
from morpheus_worker.sources import SHA256
from morpheus_worker.sync.buckets import receipts
from morpheus_worker.sync.buckets.arriving import Judge
from morpheus_worker.sync.buckets.clients import Patience, Store, Stores
from morpheus_worker.sync.buckets.faults import is_missing, reading, writing
from morpheus_worker.sync.buckets.memory import Memory
from morpheus_worker.sync.buckets.places import ObjectName
from morpheus_worker.sync.buckets.putting import HASH_KEY, Put, Sizes
from morpheus_worker.sync.buckets.reading import BucketFeed
from morpheus_worker.sync.terms import Downloaded, Feed, Pace, Receipt, Resolved, Source, Stop, SyncError

log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Objects:
    """Objects as they can be read, of where models come from, or of the `destination`."""

    stores: Stores
    destination: bool

    def store(self, name: ObjectName) -> Store:
        return self.stores.of(name, destination=self.destination)

    def resolve(self, uri: str) -> Resolved:
        """What the store says of an object: its size and ETag, and the SHA-256 that it was verified with, from the
        object's metadata or from the receipt beside it.

        Raises:
            SyncError: `invalid`, `not_found`, `access_denied`, `unreachable`.
        """
        name = ObjectName.of(uri)
        store = self.store(name)
        with reading(store.place, name):
            said = store.client("looking").head_object(Bucket=name.bucket, Key=name.key)
        size = int(said["ContentLength"])
        sha256 = _hash_in(said) or _verified_hash(store, name, size)
        return Resolved(name.source, size, sha256, said.get("ETag"), filename=name.filename)

    def feed(self, resolved: Resolved) -> Feed:
        """
        Raises:
            SyncError: `invalid`, `access_denied`.
        """
        name = ObjectName.of(str(resolved.source["uri"]))
        return BucketFeed(self.store(name), name, resolved)

    def size_of(self, name: ObjectName, is_absent: Callable[[Exception], bool]) -> int | None:
        """In bytes; None where the store says what `is_absent`.

        Raises:
            SyncError: `access_denied`, `unreachable`.
        """
        store = self.store(name)
        with reading(store.place, name):
            try:
                said = store.client("looking").head_object(Bucket=name.bucket, Key=name.key)
            except sdk_errors() as failure:
                if is_absent(failure):
                    return None
                raise
        return int(said["ContentLength"])


class Buckets:
    """The stores behind `s3://` and `gs://`. Nothing is asked, and the SDK not loaded, before the first use.

    `sources` and `mirror` are about where models are read (MORPHEUS_MODELS_*), everything else about where they are
    sent (MORPHEUS_MODELS_TO_*), each with its own endpoint and key alone. Safe to use from several threads."""

    def __init__(self, settings: Settings, *, patience: Patience | None = None, sizes: Sizes | None = None) -> None:
        self._settings = settings
        self._sizes = sizes or Sizes()
        self._memory = Memory(self._sizes.window_bytes)
        self._stores = Stores(settings, patience or Patience())
        self.sources: Final = Objects(self._stores, destination=False)
        self._sent: Final = Objects(self._stores, destination=True)
        self._requested: set[str] = set()
        """Receipts that were taken away and said that a request asked for the file, to be written anew."""

    @classmethod
    def of(cls, settings: Settings) -> Self:
        return cls(settings)

    def close(self) -> None:
        """Closes the connections."""
        self._stores.close()

    def resolve(self, uri: str) -> Resolved:
        """As `Objects.resolve`, of an object at the destination."""
        return self._sent.resolve(uri)

    def feed(self, resolved: Resolved) -> Feed:
        """As `Objects.feed`, of an object at the destination."""
        return self._sent.feed(resolved)

    def put(
        self,
        feed: Feed,
        uri: str,
        *,
        size: int | None = None,
        expect_sha256: str | None = None,
        hashing: bool = True,
        judge: Judge | None = None,
        pace: Pace | None = None,
        connections: int | None = None,
        on_bytes: Callable[[int], None] = lambda _: None,
        ready: Callable[[], None] = lambda: None,
        stop: Stop | None = None,
    ) -> Downloaded:
        """Makes what the feed says the object `uri`, once its size and hash were verified.

        `size` (bytes) and `expect_sha256` (hexadecimal) are what it must have; by default the feed's. `judge` is given
        the beginning of the file, up to a part of at least 16 MiB, and its size, before anything is sent, or where the
        size is not known before it is completed. `on_bytes` hears how many of the file's bytes arrived, from this
        thread; fewer than before where it has to begin anew. `ready` is called when all was verified and nothing of it
        is seen yet. Up to 96 MiB are held in memory, of all files together.

        Raises:
            SyncError: `rejected`; what the feed and the judge raise; `store`, `no_space`; `interrupted`, about a second
                after `stop` was set. Neither an
                object nor a part of one is left then, but where the store did not answer when it was told to make it.
        """
        name, pace = ObjectName.of(uri), pace or Pace()
        return Put(
            store=self._sent.store(name),
            name=name,
            feed=feed,
            size=feed.resolved.size if size is None else size,
            sha256=expect_sha256 or feed.resolved.sha256,
            hashing=hashing,
            judge=judge,
            pace=pace,
            connections=connections or pace.connections,
            on_bytes=on_bytes,
            ready=ready,
            stop=stop or threading.Event(),
            sizes=self._sizes,
            memory=self._memory,
        ).run()

    def has(self, uri: str) -> int | None:
        """The object's size in bytes, or None where it is not.

        Raises:
            SyncError: `invalid`, `access_denied`, `unreachable`. A store says that access is denied of what is not
                there, too, where listing is not allowed.
        """
        return self._sent.size_of(ObjectName.of(uri), is_missing)

    def are_one(self, source: Source, uri: str) -> bool:
        """Whether a source is the very object that `uri` is at the destination: two stores may have the same names.

        Raises:
            SyncError: `invalid`, `access_denied`.
        """
        name = ObjectName.of(uri)
        return source.get("uri") == uri and self.sources.store(name).is_at(self._sent.store(name))

    def at(self, prefix: str, path: PurePosixPath) -> str:
        """The object that a path of the cache is under `s3://bucket/prefix`.

        Raises:
            SyncError: `invalid`.
        """
        return str(ObjectName.under(prefix, path))

    def mirror(self, prefix: str, path: PurePosixPath) -> Source | None:
        """The source that a mirror under `prefix` is for a path of the cache; None where it has no such object, as far
        as these credentials are told.

        Raises:
            SyncError: `invalid`, `unreachable`; `access_denied` where there are no credentials at all.
        """
        name = ObjectName.under(prefix, path)
        return None if self.sources.size_of(name, _is_out_of_reach) is None else name.source

    def receipt(self, prefix: str, path: PurePosixPath) -> Receipt | None:
        """What was verified of a path of the cache under `prefix`; None where nothing says so.

        Raises:
            SyncError: `invalid`, `access_denied`, `unreachable`.
        """
        return receipts.receipt_in(self._sent.store(ObjectName.under(prefix, path)), prefix, path)

    def put_receipt(self, prefix: str, receipt: Receipt) -> None:
        """Says that a path under `prefix` was verified. To be called after `put`, last.

        Raises:
            SyncError: `invalid`, `store`, `no_space`, `access_denied`.
        """
        if str(receipts.receipt_name(prefix, receipt.path)) in self._requested:
            receipt = replace(receipt, requested=True)
        receipts.put_receipt(self._sent.store(ObjectName.under(prefix, receipt.path)), prefix, receipt)

    def forget(self, prefix: str, path: PurePosixPath) -> None:
        """Says no more that a path under `prefix` was verified. To be called before another file is seen there.

        Raises:
            SyncError: `invalid`, `store`, `access_denied`, `unreachable`.
        """
        receipt, name = self.receipt(prefix, path), str(receipts.receipt_name(prefix, path))
        if receipt is None:
            return
        if receipt.requested:
            self._requested.add(name)
        self.remove(name)

    def remove(self, uri: str) -> None:
        """Takes an object away; that it is not there is no failure.

        Raises:
            SyncError: `invalid`, `store`, `access_denied`.
        """
        name = ObjectName.of(uri)
        store = self._sent.store(name)
        with writing(store.place, name):
            try:
                store.client("looking").delete_object(Bucket=name.bucket, Key=name.key)
            except sdk_errors() as failure:
                if not is_missing(failure):
                    raise


def _verified_hash(store: Store, name: ObjectName, size: int) -> str | None:
    """The hash in the receipt beside the object, whichever of its folders is the one that models were put into."""
    for prefix, path in receipts.prefixes_of(name):
        try:
            receipt = receipts.receipt_in(store, prefix, path)
        except SyncError as failure:
            log.debug("The receipt of %s cannot be read: %s", name, failure.what)
            return None
        if receipt is not None:
            return receipt.sha256 if receipt.size == size else None
    return None


def _is_out_of_reach(failure: Exception) -> bool:
    """Whether the store says that there is no such object, or what it says of one to those who may not list."""
    return fault_of(failure).status in (403, 404)


def _hash_in(said: Any) -> str | None:
    found = str(said.get("Metadata", {}).get(HASH_KEY, "")).lower()
    return found if SHA256.fullmatch(found) else None
