"""Starts a real ComfyUI of its own: a free port, a base directory of its own, small models, no graphics card needed."""

from __future__ import annotations

import contextlib
import os
import subprocess
import time
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import requests

from tests.commands import free_port
from tests.contract.live import Models
from tests.tools.make_tiny_models import UPSCALER_NAME

MODEL_MAKER: Final = Path(__file__).resolve().parent.parent / "tools" / "make_tiny_models.py"
CHECKPOINT_NAME: Final = "random_sd15.safetensors"

READY_S: Final = 180.0
STOP_S: Final = 20.0
POLL_S: Final = 0.2

ARGUMENTS: Final = (
    "--cpu",
    "--disable-auto-launch",
    "--disable-api-nodes",
    "--preview-method=latent2rgb",
    "--preview-size=16",
)


@dataclass(frozen=True, slots=True)
class Installation:
    """A ComfyUI that is installed on this machine."""

    directory: Path
    python: Path


@dataclass(frozen=True, slots=True)
class RealComfyUI:
    """A ComfyUI that runs. All of its folders lie below `base_directory`."""

    url: str
    base_directory: Path
    models: Models
    installation: Installation
    pid: int
    log: Path

    @property
    def input_directory(self) -> Path:
        return self.base_directory / "input"

    @property
    def output_directory(self) -> Path:
        return self.base_directory / "output"

    @property
    def temp_directory(self) -> Path:
        return self.base_directory / "temp"

    @property
    def models_directory(self) -> Path:
        return self.base_directory / "models"


@contextlib.contextmanager
def running_comfyui(
    installation: Installation,
    base_directory: Path,
    *,
    checkpoint: Path | None = None,
    arguments: Sequence[str] = (),
) -> Iterator[RealComfyUI]:
    """A ComfyUI with the tiny upscaler, and with `checkpoint` linked in if one is given, until the block ends.

    Raises:
        RuntimeError: when it does not answer within READY_S, with the end of its log.
    """
    prepare(installation, base_directory, checkpoint)
    port, log = free_port(), base_directory / "comfyui.log"
    command = [str(installation.python), "main.py", f"--port={port}", *_own_folders(base_directory), *ARGUMENTS]
    with log.open("wb") as output:
        process = subprocess.Popen(
            [*command, *arguments],
            cwd=installation.directory,
            env=_environment(),
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
        )
        try:
            url = f"http://127.0.0.1:{port}"
            _wait_until_ready(url, process, log)
            models = Models(UPSCALER_NAME, CHECKPOINT_NAME if checkpoint else None)
            yield RealComfyUI(url, base_directory, models, installation, process.pid, log)
        finally:
            _stop(process)


def prepare(installation: Installation, base_directory: Path, checkpoint: Path | None = None) -> None:
    """The folders that ComfyUI expects below its base directory, and the models. It dies without `custom_nodes`."""
    for name in ("custom_nodes", "input", "output", "temp", "user", "models/upscale_models", "models/checkpoints"):
        (base_directory / name).mkdir(parents=True, exist_ok=True)
    upscaler = base_directory / "models" / "upscale_models" / UPSCALER_NAME
    subprocess.run(
        [installation.python, MODEL_MAKER, "--upscaler", upscaler],
        check=True,
        stdout=subprocess.DEVNULL,
        timeout=READY_S,
    )
    if checkpoint is not None:
        (base_directory / "models" / "checkpoints" / CHECKPOINT_NAME).symlink_to(checkpoint.resolve())


def _own_folders(base_directory: Path) -> list[str]:
    database = base_directory / "user" / "comfyui.db"
    return [f"--base-directory={base_directory}", f"--database-url=sqlite:///{database}"]


def _environment() -> dict[str, str]:
    """Ours, less what points at our own Python: ComfyUI has another."""
    ours = ("PYTHONPATH", "PYTHONHOME", "VIRTUAL_ENV")
    return {name: value for name, value in os.environ.items() if name not in ours}


def _wait_until_ready(url: str, process: subprocess.Popen[bytes], log: Path) -> None:
    deadline_s = time.monotonic() + READY_S
    while time.monotonic() < deadline_s and process.poll() is None:
        with contextlib.suppress(requests.RequestException):
            if requests.get(f"{url}/system_stats", timeout=5).ok:
                return
        time.sleep(POLL_S)
    tail = log.read_text(encoding="utf-8", errors="replace")[-2000:]
    raise RuntimeError(f"ComfyUI did not come up (exit status {process.poll()}):\n{tail}")


def _stop(process: subprocess.Popen[bytes]) -> None:
    process.terminate()
    try:
        process.wait(STOP_S)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait(STOP_S)
