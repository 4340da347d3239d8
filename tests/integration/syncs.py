"""A volume to sync onto: settings, a manifest and files that are models, for tests that run the whole story."""

from __future__ import annotations

import hashlib
import json
import random
import struct
import threading
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Any

from morpheus_worker.manifest import Manifest, ModelEntry
from morpheus_worker.settings import Settings
from morpheus_worker.sync.cache import Beats
from morpheus_worker.sync.locking import Lock
from morpheus_worker.sync.terms import Event, Pace
from morpheus_worker.syncing.outcomes import Outcome, Summary
from morpheus_worker.syncing.running import sync
from morpheus_worker.syncing.work import Work

QUICK = Pace(
    connect_s=5, stall_s=1, tries=3, first_wait_s=0.01, longest_wait_s=0.05, connections=3, part_bytes=64 * 1024
)
"""Small parts and short waits: a file of half a megabyte then comes in eight of them."""
BEATS = Beats(beat_s=0.1, missed=5, look_s=0.02)


def safetensors(size: int, seed: int = 0) -> bytes:
    """A safetensors file of exactly `size` bytes, at least 200, full of noise."""
    header = json.dumps({"t": {"dtype": "U8", "shape": [0], "data_offsets": [0, 0]}})
    room = len(header) + 40
    header = header.replace("[0]", f"[{size - 8 - room}]").replace("[0, 0]", f"[0, {size - 8 - room}]").ljust(room)
    return struct.pack("<Q", room) + header.encode() + random.Random(seed).randbytes(size - 8 - room)


def sha256_of(content: bytes) -> str:
    return hashlib.sha256(content).hexdigest()


def entry(
    entry_id: str, *sources: Mapping[str, Any] | str, path: str | None = None, content: bytes | None = None, **more: Any
) -> ModelEntry:
    """A checkpoint. A text is the address of an https source; with `content` its size and hash are known."""
    known: dict[str, Any] = {} if content is None else {"size": len(content), "sha256": sha256_of(content)}
    listed = tuple({"kind": "https", "url": each} if isinstance(each, str) else dict(each) for each in sources)
    place = PurePosixPath(path or f"checkpoints/{entry_id}.safetensors")
    return ModelEntry(entry_id, place, sources=listed, **known | more)


@dataclass
class Volume:
    """One volume as one machine has it; `events` are what the last run told."""

    root: Path
    environment: Mapping[str, str] = field(default_factory=dict)
    events: list[Event] = field(default_factory=list)
    stop: threading.Event = field(default_factory=threading.Event)
    pace: Pace = QUICK

    def __post_init__(self) -> None:
        self.root.mkdir(parents=True, exist_ok=True)

    @property
    def cache(self) -> Path:
        return self.root / "morpheus_model_cache"

    def settings(self, **more: str) -> Settings:
        return Settings.from_environment({"MORPHEUS_VOLUME_ROOT": str(self.root), **self.environment, **more})

    def work(self, *entries: ModelEntry, lock: Lock | None = None, **more: Any) -> Work:
        work = Work.of(self.settings(), manifest=Manifest("test", tuple(entries), **more), lock=lock or Lock())
        work.pace, work.beats = self.pace, BEATS
        return work

    def sync(self, *entries: ModelEntry, lock: Lock | None = None, **more: Any) -> Summary:
        """A run for all of these, as a process of its own would do it."""
        self.events.clear()
        with self.work(*entries, lock=lock) as work:
            return sync(work, work.select(), on_event=self.events.append, stop=self.stop, **more)

    def one(self, wanted: ModelEntry, **more: Any) -> Outcome:
        return self.sync(wanted, **more).outcomes[wanted.id]

    def put(self, path: str, content: bytes) -> Path:
        """A file that somebody put there by hand."""
        place = self.cache / path
        place.parent.mkdir(parents=True, exist_ok=True)
        place.write_bytes(content)
        return place

    def at(self, wanted: ModelEntry) -> Path:
        return self.cache / wanted.path

    def kinds(self, entry_id: str) -> list[str]:
        """What was told of an entry, each kind once in a row."""
        told = [event.kind for event in self.events if event.id == entry_id and event.kind != "progress"]
        return [kind for kind, before in zip(told, ["", *told], strict=False) if kind != before]

    def finals(self) -> Sequence[Path]:
        """Every file at a final path."""
        return sorted(
            path
            for path in self.cache.rglob("*")
            if path.is_file() and ".morpheus" not in path.relative_to(self.cache).parts
        )

    def parts(self) -> Sequence[Path]:
        """Unfinished files."""
        return [path for path in self.own("parts") if path.suffix == ".part"]

    def leases(self) -> Sequence[Path]:
        return [path for path in self.own("leases") if not path.name.startswith(".")]

    def own(self, name: str) -> Sequence[Path]:
        """What lies in a folder of the cache's own."""
        return sorted((self.cache / ".morpheus" / name).glob("*"))
