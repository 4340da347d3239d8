"""Processes that sync a volume, for tests that kill them.

A nursery is a process that has loaded everything and forks a child for each run, so that a kill costs milliseconds and
not the start of an interpreter:

>>> with Nursery() as nursery:
...     child = nursery.start(job_of(volume, entries, part_bytes=65536))
...     child.kill()
...     child.ended()
"""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path, PurePosixPath
from typing import Any, Self

from morpheus_worker.manifest import Manifest, ModelEntry
from morpheus_worker.settings import Settings
from morpheus_worker.sync.cache import Beats
from morpheus_worker.sync.locking import Lock
from morpheus_worker.sync.terms import Pace, Stop
from morpheus_worker.syncing.running import sync
from morpheus_worker.syncing.telling import unheard
from morpheus_worker.syncing.work import Work

ROOT = Path(__file__).parents[2]

Job = Mapping[str, Any]


def job_of(volume: Path, entries: Sequence[ModelEntry], *, part_bytes: int, **pace: Any) -> Job:
    """A sync of the entries onto the volume, each from its first source, which is an address."""
    listed = [
        {
            "id": entry.id,
            "path": str(entry.path),
            "url": entry.sources[0]["url"],
            "size": entry.size,
            "sha256": entry.sha256,
        }
        for entry in entries
    ]
    patience = {"part_bytes": part_bytes, "first_wait_s": 0.01, "longest_wait_s": 0.1, **pace}
    return {"environment": {"MORPHEUS_VOLUME_ROOT": str(volume)}, "entries": listed, "pace": patience}


class Nursery:
    """Forks a child for each job, one after another."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.integration.sync_child"]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, cwd=ROOT, text=True, bufsize=1
        )
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate()

    def start(self, job: Job) -> Child:
        """A child that has begun. The one before must have ended."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(job) + "\n")
        return Child(self, int(self.said()))

    def said(self) -> str:
        assert self._process.stdout is not None
        return self._process.stdout.readline().strip()


@dataclass(frozen=True, slots=True)
class Child:
    nursery: Nursery
    pid: int

    def kill(self) -> None:
        """As kill -9 does; one that has ended already stays as it was until `ended` was asked."""
        os.kill(self.pid, signal.SIGKILL)

    def ended(self) -> int:
        """Waits for its end: 0 when everything was there, the negative signal when it was killed."""
        self.nursery._process.stdin.write("\n")  # type: ignore[union-attr]
        return int(self.nursery.said())


def run(job: Job) -> int:
    """One job in this process: 0 when everything is there."""
    entries = [
        ModelEntry(
            each["id"],
            PurePosixPath(each["path"]),
            sources=({"kind": "https", "url": each["url"]},),
            size=each["size"],
            sha256=each["sha256"],
        )
        for each in job["entries"]
    ]
    settings = Settings.from_environment(job["environment"])
    with Work.of(settings, manifest=Manifest("child", tuple(entries)), lock=Lock()) as work:
        work.pace = Pace(**job["pace"])
        work.beats = Beats(beat_s=0.2, missed=5, look_s=0.02)
        summary = sync(work, work.select(), on_event=unheard, stop=Stop())
    for outcome in summary.failed:
        print(f"{outcome.id}: {outcome.error}", file=sys.stderr)
    return 0 if summary.ok else 1


def _serve() -> None:
    """A line is a job; the empty line after it asks for its end: until then its process is not forgotten."""
    for line in iter(sys.stdin.readline, ""):
        pid = os.fork()
        if pid == 0:
            code = 1
            try:
                code = run(json.loads(line))
            finally:
                sys.stderr.flush()
                os._exit(code)
        print(pid, flush=True)
        sys.stdin.readline()
        _, ended = os.waitpid(pid, 0)
        print(os.waitstatus_to_exitcode(ended), flush=True)


if __name__ == "__main__":
    _serve()
