"""The worker as a process of its own, as RunPod or a developer starts it, with the rehearsal engine as its ComfyUI."""

from __future__ import annotations

import contextlib
import os
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, Final

from morpheus_worker.rehearsal import install_tree
from tests.commands import free_port, own_environment

from .job_server import JobServer

REPOSITORY: Final = Path(__file__).resolve().parents[2]
POD_START: Final = str(REPOSITORY / "pod_start.sh")
HANDLER: Final = (sys.executable, str(REPOSITORY / "handler.py"))
DEADLINE_S: Final = 60.0


def environment_of(folder: Path, **more: str) -> dict[str, str]:
    """The environment of a worker on a new volume, with a ComfyUI of its own, both in `folder`."""
    (folder / "volume").mkdir()
    install_tree(folder / "ComfyUI")
    return {
        **own_environment(),
        "MORPHEUS_PYTHON": sys.executable,
        "MORPHEUS_VOLUME_ROOT": str(folder / "volume"),
        "MORPHEUS_COMFYUI_DIR": str(folder / "ComfyUI"),
        "MORPHEUS_COMFYUI_PYTHON": sys.executable,
        "MORPHEUS_COMFYUI_URL": f"http://127.0.0.1:{free_port()}",
        "MORPHEUS_LOG_FORMAT": "json",
        **more,
    }


def ended(environment: dict[str, str], *command: str, cwd: Path | None = None) -> subprocess.CompletedProcess[str]:
    """The command, run to its end."""
    return subprocess.run(
        command, env=environment, cwd=cwd, capture_output=True, text=True, timeout=DEADLINE_S, check=False
    )


def pod_start(environment: dict[str, str], *arguments: str) -> subprocess.CompletedProcess[str]:
    """The container's entry point, run to its end."""
    return ended(environment, POD_START, *arguments)


@contextlib.contextmanager
def started(environment: dict[str, str], log: Path, *command: str) -> Iterator[subprocess.Popen[bytes]]:
    """The command, running; its words go to `log`. It is gone when the block ends, however it behaves, and so is the
    process that the SDK forks for its heartbeat, which outlives a worker that is killed."""
    with log.open("wb") as stream:
        process = subprocess.Popen(command, env=environment, stdout=stream, stderr=stream, start_new_session=True)
        try:
            yield process
        finally:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()


@contextlib.contextmanager
def on_endpoint(
    environment: dict[str, str], log: Path, server: JobServer | None = None
) -> Iterator[tuple[JobServer, subprocess.Popen[bytes]]]:
    """A worker as RunPod runs it: the SDK's own loop, against a job server."""
    with (
        server or JobServer() as running,
        started(environment | running.environment(), log, POD_START) as process,
    ):
        yield running, process


def answers(url: str) -> bool:
    """Whether anything listens there."""
    host, _, port = url.removeprefix("http://").partition(":")
    with contextlib.suppress(OSError), socket.create_connection((host, int(port)), timeout=1):
        return True
    return False


def eventually(look: Callable[[], Any], what: str) -> None:
    """Waits until `look` finds something, where nobody tells."""
    until_s = time.monotonic() + DEADLINE_S
    while not look():
        assert time.monotonic() < until_s, what
        time.sleep(0.02)
