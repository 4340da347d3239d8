"""`morpheus` as a person starts it: a process of its own, in a folder of its own."""

from __future__ import annotations

import contextlib
import os
import re
import socket
import subprocess
import sys
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

MORPHEUS: Final = str(Path(sys.executable).with_name("morpheus"))
COMPILED: Final = Path(__file__).resolve().parents[1] / ".pytest_cache" / "compiled"
DEADLINE_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class Desk:
    """A folder to work in, with a volume, and a rehearsal engine that answers at `url`, its files in `comfyui`."""

    folder: Path
    url: str

    @property
    def volume(self) -> Path:
        return self.folder / "volume"

    @property
    def comfyui(self) -> Path:
        return self.folder / "comfyui"

    def started(self, *command: str, **environment: str) -> dict[str, Any]:
        """What Popen and run take."""
        ours = {"MORPHEUS_VOLUME_ROOT": str(self.volume), "MORPHEUS_COMFYUI_URL": self.url}
        env = {**own_environment(), **ours, **environment}
        return {"args": command, "env": env, "cwd": self.folder, "text": True}

    def morpheus(self, *arguments: str, **environment: str) -> subprocess.CompletedProcess[str]:
        """One command, to its end."""
        command = self.started(MORPHEUS, *arguments, **environment)
        return subprocess.run(**command, capture_output=True, timeout=DEADLINE_S, check=False)


@contextlib.contextmanager
def desk(folder: Path) -> Iterator[Desk]:
    """A new desk; a sampler's step takes its engine long enough to be interrupted."""
    (folder / "volume").mkdir()
    given = ["--port", "0", "--base-directory", str(folder / "comfyui"), "--step-s", "0.05"]
    with serving("rehearse", *given) as url:
        yield Desk(folder, url)


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def own_environment() -> dict[str, str]:
    """This one, except where Python may not keep what it compiles beside its source: dozens of commands would each
    compile everything anew, so it is kept with pytest's cache."""
    if not os.environ.get("PYTHONDONTWRITEBYTECODE"):
        return dict(os.environ)
    return {**os.environ, "PYTHONDONTWRITEBYTECODE": "", "PYTHONPYCACHEPREFIX": str(COMPILED)}


@contextlib.contextmanager
def serving(*arguments: str) -> Iterator[str]:
    """Runs a server that says in its first line where it listens; yields that URL, and sees it end well."""
    command = [MORPHEUS, *arguments]
    with subprocess.Popen(command, env=own_environment(), stderr=subprocess.PIPE, text=True) as process:
        assert process.stderr is not None
        try:
            said = process.stderr.readline()
            url = re.search(r"http://127\.0\.0\.1:\d+", said)
            assert url is not None, said + process.stderr.read()
            yield url[0]
            process.terminate()
            assert process.wait(timeout=DEADLINE_S) == 0
        finally:
            process.kill()
