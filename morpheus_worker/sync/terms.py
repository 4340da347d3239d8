"""The words of a sync: what can go wrong, what a host says of a file, where bytes come from, what happened."""

from __future__ import annotations

import threading
from collections.abc import Callable, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass, field, fields
from enum import StrEnum
from pathlib import PurePosixPath
from typing import Any, Final, Literal, Protocol


class SyncCode(StrEnum):
    """Why an entry is not there, for a program. The set is closed."""

    INVALID = "invalid"
    """What was asked for makes no sense: a reference, an id, an entry without a source."""
    NOT_FOUND = "not_found"
    """The host has no such file, revision or version."""
    ACCESS_DENIED = "access_denied"
    """The host wants a key, another key, or a licence accepted first."""
    UNREACHABLE = "unreachable"
    """The host cannot be reached, fails, or sends nothing any more, after every try."""
    REJECTED = "rejected"
    """What arrived is not the file: another size or hash, a web page, a format that may run code."""
    CHANGED = "changed"
    """The host has another version than the one that is wanted."""
    CONFLICT = "conflict"
    """Something else lies at the file's place, which is not replaced without being asked to."""
    NO_SPACE = "no_space"
    VOLUME = "volume"
    """The volume cannot be written to or read: read-only, gone, a path that leads out of it."""
    STORE = "store"
    """The bucket that files go to refuses or fails."""
    INTERRUPTED = "interrupted"
    INTERNAL = "internal"


class SyncError(Exception):
    """One file that cannot be had, and why: `what` is a phrase about it, `hint` what to do.

    `passing`: the same may succeed the next moment; `after_s` is then how long the host asks to wait, in seconds.
    `expired`: a signed address is not good any more; resolve anew. Nothing here ever holds a key or a signature.
    """

    def __init__(
        self,
        code: SyncCode,
        what: str,
        hint: str | None = None,
        *,
        passing: bool = False,
        after_s: float = 0.0,
        expired: bool = False,
    ) -> None:
        super().__init__(f"{what} ({hint})" if hint else what)
        self.code, self.what, self.hint = code, what, hint
        self.passing, self.after_s, self.expired = passing, after_s, expired


def stopped() -> SyncError:
    """What is raised when somebody asked to stop."""
    return SyncError(SyncCode.INTERRUPTED, "was interrupted", "the next run goes on from here")


Source = Mapping[str, Any]
"""A source as the manifest has it: its `kind` and that kind's keys."""


@dataclass(frozen=True, slots=True)
class Resolved:
    """What a host says of one file, in exactly one version.

    `source` is the manifest's, pinned: with the whole revision (hf), the file's id (civitai). `size` is in bytes,
    `sha256` in lower-case hexadecimal, both None where the host does not know. `etag` is a strong validator of these
    very bytes, quotes included. `names_version` says whether `source` alone can only ever mean these bytes.
    """

    source: Source
    size: int | None = None
    sha256: str | None = None
    etag: str | None = None
    filename: str | None = None
    format: str | None = None
    license: str | None = None
    gated: bool = False
    names_version: bool = False
    kind: str | None = None
    """What the host calls such a model, in its own words: `Checkpoint`, `LORA` (Civitai)."""

    @property
    def version(self) -> str | None:
        """What tells these bytes from every other version, or None when nothing does: then nothing can be resumed."""
        if self.sha256:
            return f"sha256:{self.sha256}"
        if self.etag:
            return f"etag:{self.etag}:{self.size}"
        return None


class Body(Protocol):
    """The bytes of one answer. `start` is where in the file they begin, `total` the whole file's size where it is
    said, `ranged` whether the host honoured the range (else it sends everything from 0)."""

    start: int
    total: int | None
    ranged: bool

    def readinto(self, buffer: memoryview) -> int:
        """Reads some bytes; 0 at the end of the answer.

        Raises:
            SyncError: passing, when the connection is cut or stalls.
        """


class Feed(Protocol):
    """Where the bytes of one resolved file come from. Several threads may have ranges open at once."""

    resolved: Resolved
    shown: str
    """The address as it may be shown: no query, no key."""
    ranges: bool
    """Whether it is worth asking for ranges."""

    def opened(self, start: int, end: int | None) -> AbstractContextManager[Body]:
        """The bytes from `start` to `end` (exclusive; None: to the file's end), of exactly this version.

        Raises:
            SyncError: `changed` when the host has another version now; anything else as its code says.
        """


@dataclass(frozen=True, slots=True)
class Pace:
    """How patient a transfer is. Seconds, bytes, counts."""

    connect_s: float = 10.0
    stall_s: float = 30.0
    """Without a byte."""
    tries: int = 6
    """In a row that bring next to nothing (less than 16 KiB), of one range."""
    first_wait_s: float = 0.5
    longest_wait_s: float = 30.0
    longest_asked_wait_s: float = 300.0
    """A host that asks to be left alone for longer is given up."""
    connections: int = 8
    """A file."""
    part_bytes: int = 8 * 1024 * 1024
    """What one request asks for; what a kill loses, at most, a connection."""


@dataclass(frozen=True, slots=True)
class Downloaded:
    """A whole file that arrived. `sha256` is None only where hashing was switched off."""

    size: int
    sha256: str | None
    received: int = 0
    """Bytes that came over the network this time."""


@dataclass(frozen=True, slots=True)
class Receipt:
    """What was known of a file when it was verified. Believed for as long as size and time still are the same.

    `path` is relative to the cache. `mtime_ns` is None where another machine put the file there through a bucket.
    `by` says how: fetched here, taken over from a cache filled by hand, or copied in by a bucket's own interface.
    """

    path: PurePosixPath
    size: int
    mtime_ns: int | None
    sha256: str | None
    by: Literal["sync", "adopt", "upload"] = "sync"
    source: Source = field(default_factory=dict)
    etag: str | None = None
    verified_at: str = ""
    requested: bool = False
    """Whether somebody asked for the file by a request: it is needed then, whatever the manifest says."""

    def as_dict(self) -> dict[str, Any]:
        told = {each.name: getattr(self, each.name) for each in fields(self)}
        return {**told, "path": str(self.path), "source": dict(self.source)}


EventKind = Literal[
    "planned", "started", "progress", "waiting", "retrying", "next_source", "verifying",
    "published", "present", "adopted", "failed", "finished",
]  # fmt: skip


@dataclass(frozen=True, slots=True)
class Event:
    """One thing that happened, to one entry (`id`) or to the run as a whole (`id` empty).

    `bytes_done` and `bytes_total` are of this entry; in a `finished` of the run, of everything.
    """

    kind: EventKind
    id: str = ""
    path: str = ""
    bytes_done: int | None = None
    bytes_total: int | None = None
    message: str = ""
    code: str = ""
    details: Mapping[str, Any] = field(default_factory=dict)

    def as_dict(self) -> dict[str, Any]:
        """Without what it does not say."""
        told = {"event": self.kind, **{each.name: getattr(self, each.name) for each in fields(self)[1:]}}
        return {name: value for name, value in told.items() if value not in (None, "", {})}


OnEvent = Callable[[Event], None]
"""Called from several threads."""

Stop = threading.Event
"""Set when everything is to end as soon as it can."""

PROGRESS_S: Final = 0.2
"""Least time between two progress events of one entry, in seconds."""
