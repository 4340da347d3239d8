"""Downloads that may be killed: a process that begins each as a process of its own, when it is told to.

`python -m tests.integration.engine_child` reads one JSON object a line: `url`, `part`, `size`, `sha256`, `etag` (the
last two or null), `connections`, `part_bytes`. It answers with a line when the download begins, {"pid"}, and one when
that process has ended: {"status"}, 0 where the part is whole, -9 where it was killed, 1 where it failed. A part that is
whole is renamed: it has lost its `.part`.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
from pathlib import Path
from typing import Any, Self

from morpheus_worker.sync.engine import PartFile, download, journal_of
from morpheus_worker.sync.terms import Pace, Resolved
from tests.integration.plain_feed import PlainFeed

ROOT = Path(__file__).parents[2]


class Downloads:
    """The parent's side of it."""

    def __enter__(self) -> Self:
        command = [sys.executable, "-m", "tests.integration.engine_child"]
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True, cwd=ROOT)
        return self

    def __exit__(self, *_: object) -> None:
        self._process.communicate(timeout=30)

    def begin(self, **order: Any) -> int:
        """Begins one and returns its process id."""
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(order) + "\n")
        self._process.stdin.flush()
        return int(self._answer()["pid"])

    def ended(self) -> int:
        """Waits for its end and returns its status."""
        return int(self._answer()["status"])

    def _answer(self) -> Any:
        assert self._process.stdout is not None
        return json.loads(self._process.stdout.readline())


def one(order: dict[str, Any]) -> None:
    resolved = Resolved({"kind": "https"}, size=order["size"], sha256=order["sha256"], etag=order["etag"])
    pace = Pace(
        connections=order["connections"],
        part_bytes=order["part_bytes"],
        first_wait_s=0.01,
        longest_wait_s=0.05,
        tries=20,
    )
    path = Path(order["part"])
    with PartFile.open(path, resolved, segment_bytes=pace.part_bytes) as part:
        download(PlainFeed(order["url"], resolved), part, pace=pace, stop=threading.Event())
    path.rename(path.with_suffix(""))
    journal_of(path).unlink()


def main() -> None:
    for line in sys.stdin:
        pid = os.fork()
        if pid == 0:
            status = 1
            try:
                one(json.loads(line))
                status = 0
            finally:
                os._exit(status)
        print(json.dumps({"pid": pid}), flush=True)
        _, status = os.waitpid(pid, 0)
        print(json.dumps({"status": os.waitstatus_to_exitcode(status)}), flush=True)


if __name__ == "__main__":
    main()
