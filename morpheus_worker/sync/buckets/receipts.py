"""What was verified of the files in a bucket, one object each, in the places and words of the cache's own receipts.

A network volume that is filled through its S3 interface has the receipts that a worker on it believes. They know no
time: the store gives a file its own. A receipt is written after its file, so what it says was once true of all of it.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import PurePosixPath
from typing import Final

from morpheus_worker.s3.faults import sdk_errors
from morpheus_worker.sync.buckets.clients import Store
from morpheus_worker.sync.buckets.faults import is_missing, reading, writing
from morpheus_worker.sync.buckets.places import ObjectName
from morpheus_worker.sync.receipting import HIDDEN, RECEIPTS, read_receipt, receipt_file, receipt_text
from morpheus_worker.sync.terms import Receipt

LARGEST: Final = 64 * 1024
"""Bytes. What is larger is no receipt."""


def receipt_name(prefix: str, path: PurePosixPath) -> ObjectName:
    """
    Raises:
        SyncError: `invalid`, for a prefix that names no bucket.
    """
    return ObjectName.under(prefix, f"{HIDDEN}/{RECEIPTS}/{receipt_file(path)}")


def receipt_in(store: Store, prefix: str, path: PurePosixPath) -> Receipt | None:
    """The receipt of a path, or None where there is none that is one.

    Raises:
        SyncError: `access_denied`, `unreachable`.
    """
    name = receipt_name(prefix, path)
    with reading(store.place, name):
        try:
            answer = store.client("looking").get_object(Bucket=name.bucket, Key=name.key)
        except sdk_errors() as failure:
            if is_missing(failure):
                return None
            raise
        with answer["Body"] as stream:
            text = stream.read(LARGEST)
    receipt = read_receipt(text)
    return receipt if receipt is not None and receipt.path == path else None


def put_receipt(store: Store, prefix: str, receipt: Receipt) -> None:
    """
    Raises:
        SyncError: `store`, `access_denied`, `no_space`.
    """
    name = receipt_name(prefix, receipt.path)
    text = receipt_text(replace(receipt, mtime_ns=None, by="upload")).encode()
    with writing(store.place, name):
        store.client("sending").put_object(Bucket=name.bucket, Key=name.key, Body=text, ContentType="application/json")


def prefixes_of(name: ObjectName) -> Iterator[tuple[str, PurePosixPath]]:
    """The folders that an object may be a model of, with its path in each: the nearest to the bucket first."""
    parts = name.key.split("/")
    for at in range(len(parts)):
        if "/".join(parts[at:]).strip("/"):
            yield "/".join((f"{name.scheme}://{name.bucket}", *parts[:at])), PurePosixPath(*parts[at:])
