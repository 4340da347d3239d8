"""What every story of a sync works with: the manifest, its lock, the cache with its receipts, and whom to ask."""

from __future__ import annotations

import logging
import threading
from collections.abc import Sequence
from contextlib import ExitStack
from pathlib import Path, PurePosixPath
from types import TracebackType
from typing import TYPE_CHECKING, Self

from morpheus_worker.errors import did_you_mean
from morpheus_worker.manifest import Manifest, ModelEntry, PackEntry
from morpheus_worker.manifest_file import read_manifest
from morpheus_worker.settings import Settings
from morpheus_worker.sync.cache import BEATS, Beats, Cache, Known, Receipts
from morpheus_worker.sync.locking import Lock, Wanted, parse_lock, wanted
from morpheus_worker.sync.planning import Seen
from morpheus_worker.sync.terms import Pace, SyncCode, SyncError
from morpheus_worker.syncing.outcomes import Selection

if TYPE_CHECKING:
    from morpheus_worker.sync.buckets import Buckets
    from morpheus_worker.sync.hosts import Hosts

logger = logging.getLogger(__name__)


class Work:
    """A context manager: connections and background threads end with it."""

    def __init__(self, settings: Settings, manifest: Manifest, lock: Lock) -> None:
        self.settings, self.manifest, self.lock = settings, manifest, lock
        self.cache = Cache.of(settings)
        self.receipts = Receipts(self.cache)
        self.pace = Pace(connections=settings.sync_connections)
        self.beats: Beats = BEATS
        self._known: Known | None = None
        self._folders: dict[PurePosixPath, Path] = {}
        self._buckets: Buckets | None = None
        self._hosts: Hosts | None = None
        self._guard = threading.RLock()
        self._open = ExitStack()

    @classmethod
    def of(cls, settings: Settings, *, manifest: Manifest | None = None, lock: Lock | None = None) -> Self:
        """Reads the manifest and its lock (none is as good as an empty one) unless they are handed in.

        Raises:
            ManifestError: with every problem in either.
            SyncError: `invalid` when a file is there and cannot be read.
        """
        return cls(settings, manifest or manifest_of(settings), lock or read_lock(settings))

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, failure: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._open.close()

    def interrupt(self) -> None:
        """Ends what hosts are asked just now, from any thread: whoever waits for one of them gets a SyncError."""
        with self._guard:
            hosts, self._hosts = self._hosts, None
        if hosts is not None:
            hosts.close()

    def select(self, ids: Sequence[str] = (), workflow: str | None = None) -> Selection:
        """The entries with these ids, those that a workflow needs, or both together; all of them when nothing is asked.

        Raises:
            SyncError: `invalid`, with every unknown name and the nearest known one.
        """
        if not ids and workflow is None:
            return Selection(self.manifest.models, self.manifest.custom_nodes, whole=True)
        self._know(ids, workflow)
        chosen = set(ids)
        return Selection(
            tuple(entry for entry in self.manifest.models if entry.id in chosen or workflow in entry.workflows),
            tuple(entry for entry in self.manifest.custom_nodes if entry.id in chosen or workflow in entry.workflows),
            named=tuple(dict.fromkeys(ids)),
        )

    def _know(self, ids: Sequence[str], workflow: str | None) -> None:
        entries: list[ModelEntry | PackEntry] = [*self.manifest.models, *self.manifest.custom_nodes]
        known = [entry.id for entry in entries]
        workflows = sorted({name for entry in entries for name in entry.workflows})
        unknown = [
            (f"no entry is called '{name}'", did_you_mean(name, known) or "'morpheus models status' lists the entries")
            for name in dict.fromkeys(ids)
            if name not in known
        ]
        if workflow is not None and workflow not in workflows:
            hint = did_you_mean(workflow, workflows) or "'morpheus workflows list' lists the workflows"
            unknown.append((f"no entry is for a workflow '{workflow}'", hint))
        if unknown:
            *others, (last, hint) = unknown
            said = [f"{what} ({each})" if each != hint else what for what, each in others]
            raise SyncError(SyncCode.INVALID, "; ".join([*said, last]), hint)

    def wanted(self, entry: ModelEntry) -> Wanted:
        """The entry in the version that the lock names."""
        return wanted(entry, self.lock)

    @property
    def known(self) -> Known:
        """The cache's receipts, read once.

        Raises:
            SyncError: `volume`, when the cache is not there or cannot be read.
        """
        with self._guard:
            if self._known is None:
                self._known = self.receipts.load()
            return self._known

    def seen(self, path: PurePosixPath) -> Seen:
        """How the cache's file stands to its receipt: one stat.

        Raises:
            SyncError: `volume`.
        """
        return self.receipts.standing(path, self.known)

    def settle(self) -> None:
        """Brings the receipts' index up to date. It is a view of them, so that a volume which takes no more, or is
        read-only, costs the next run some reads and this one nothing."""
        try:
            self.receipts.settle()
        except SyncError as failure:
            logger.warning("The index of receipts is left as it was: %s", failure)

    def uri(self, path: PurePosixPath) -> str:
        """Where the cache's file is, for whoever wants to open it. Each folder is looked at once."""
        folder = self._folders.get(path.parent)
        if folder is None:
            folder = self._folders[path.parent] = self.cache.at(path).parent
        return str(folder / path.name)

    @property
    def buckets(self) -> Buckets:
        with self._guard:
            if self._buckets is None:
                # Imported here, as the hosts are: where all is there, nobody is asked.
                from morpheus_worker.sync.buckets import Buckets

                self._buckets = Buckets.of(self.settings)
                self._open.callback(self._buckets.close)
            return self._buckets

    @property
    def hosts(self) -> Hosts:
        with self._guard:
            if self._hosts is None:
                from morpheus_worker.sync.hosts import Hosts

                self._hosts = Hosts.of(self.settings, buckets=self.buckets.sources, pace=self.pace)
                self._open.callback(self._hosts.close)
            return self._hosts


def manifest_of(settings: Settings) -> Manifest:
    """The manifest that the settings name.

    Raises:
        ManifestError: with every problem.
        SyncError: `invalid` when there is none, or it cannot be read.
    """
    try:
        return read_manifest(settings)
    except OSError as failure:
        raise _unreadable("manifest", settings.manifest, failure, "MORPHEUS_MANIFEST says where it is") from failure


def read_lock(settings: Settings) -> Lock:
    """The lock beside the manifest, or an empty one where there is none.

    Raises:
        ManifestError: with every problem.
        SyncError: `invalid` when it is there and cannot be read.
    """
    try:
        text = settings.lock_file.read_text(encoding="utf-8")
    except FileNotFoundError:
        return Lock()
    except (OSError, UnicodeDecodeError) as failure:
        raise _unreadable("lock", settings.lock_file, failure, "MORPHEUS_MANIFEST_LOCK says where it is") from failure
    return parse_lock(text, name=settings.lock_file.name)


def _unreadable(what: str, path: object, failure: Exception, hint: str) -> SyncError:
    said = failure.strerror if isinstance(failure, OSError) else "it is not UTF-8"
    return SyncError(SyncCode.INVALID, f"the {what} {path} cannot be read: {said}", hint)
