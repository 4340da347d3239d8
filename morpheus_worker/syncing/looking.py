"""What is seen of a file by looking into it, and the receipt of one that was taken over."""

from __future__ import annotations

import dataclasses
from datetime import UTC, datetime
from pathlib import Path

from morpheus_worker.sync import formats
from morpheus_worker.sync.locking import Wanted
from morpheus_worker.sync.terms import Feed, Receipt


def now() -> str:
    """The time as receipts have it."""
    return datetime.now(UTC).strftime("%Y-%m-%dT%H:%M:%SZ")


def look_into(file: Path, wanted: Wanted, *, host_says: str | None = None, any_kind: bool = False) -> None:
    """Looks whether the file can be what the entry says, or its host where the entry says nothing of its format.
    `any_kind`: one that may run code is there already, and is taken as it is.

    Raises:
        SyncError: `rejected`; `volume` when it cannot be read.
    """
    allowed = any_kind or wanted.entry.allow_pickle
    formats.judge_file(file, name=wanted.entry.path.name, format=wanted.format or host_says, allow_pickle=allowed)


def look_at_head(head: bytes, size: int, wanted: Wanted, feed: Feed, *, any_kind: bool = False) -> None:
    """The same of a file on its way, of which only the beginning is there: the rest is read where it comes from.

    Raises:
        SyncError: `rejected`; whatever else reading it raises.
    """

    def read_at(at: int, count: int) -> bytes:
        return head[at : at + count] if at + count <= len(head) else read_from(feed, at, count)

    formats.judge(
        head[: formats.HEAD_BYTES],
        size,
        name=wanted.entry.path.name,
        format=wanted.format or feed.resolved.format,
        allow_pickle=any_kind or wanted.entry.allow_pickle,
        read_at=read_at,
    )


def read_from(feed: Feed, at: int, count: int) -> bytes:
    """So many bytes of the feed from there on; fewer at its end."""
    buffer, done = memoryview(bytearray(count)), 0
    with feed.opened(at, at + count) as body:
        skipped = at - body.start
        while skipped > 0 and (got := body.readinto(memoryview(bytearray(min(skipped, 1 << 20))))):
            skipped -= got
        while done < count and (got := body.readinto(buffer[done:])):
            done += got
    return bytes(buffer[:done])


def taken_over(wanted: Wanted, old: Receipt | None, sha256: str | None, *, size: int, mtime_ns: int) -> Receipt:
    """The receipt of a file that lay there and was hashed. It names a source only where its hash is the wanted one:
    what has a source can be fetched again. Without `sha256` it was only held to its source's size."""
    if sha256 is None:
        return Receipt(wanted.entry.path, size, mtime_ns, None, by="adopt", verified_at=now())
    unhashed = old is not None and (old.sha256, old.size, old.mtime_ns) == (None, size, mtime_ns)
    if old is not None and (unhashed or old.sha256 == sha256):
        return dataclasses.replace(old, size=size, mtime_ns=mtime_ns, sha256=sha256, verified_at=now())
    source = wanted.sources[0] if wanted.sha256 == sha256 and wanted.sources else {}
    return Receipt(wanted.entry.path, size, mtime_ns, sha256, by="adopt", source=source, verified_at=now())
