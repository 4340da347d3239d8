"""What the larger benchmarks share: where their rig is, the processes in it, and the arithmetic of their tables."""

from __future__ import annotations

import contextlib
import itertools
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from typing import Any, Final

import requests

from tests.comfyui.process import Installation, RealComfyUI, running_comfyui
from tests.integration.job_server import JobServer

REPOSITORY: Final = Path(__file__).resolve().parents[1]
OFFICIAL_DIR: Final = "MORPHEUS_TEST_OFFICIAL_WORKER_DIR"
COMFYUI_DIR: Final = "MORPHEUS_TEST_COMFYUI_DIR"
COMFYUI_PYTHON: Final = "MORPHEUS_TEST_COMFYUI_PYTHON"

MEMORY_FOLDER: Final = Path("/dev/shm")
ANSWER_S: Final = 120.0
LOOK_S: Final = 5.0
STOP_S: Final = 60.0


class MissingRigError(Exception):
    """Something that the benchmark needs is not on this machine."""


@dataclass(frozen=True, slots=True)
class Rig:
    """A ComfyUI and a checkout of the official ComfyUI worker for RunPod, both on this machine."""

    comfyui: Installation
    official: Path

    def facts(self) -> Iterator[str]:
        yield f"comfyui    {comfyui_version(self.comfyui)}"
        yield f"official   {described(self.official)}"
        yield f"morpheus   {described(REPOSITORY)}"
        yield f"sdk        runpod {version('runpod')}, for both"


def found_rig(environ: Mapping[str, str]) -> Rig:
    """The rig that the environment names.

    Raises:
        MissingRigError: in one sentence, with everything that is missing.
    """
    wanted = {COMFYUI_DIR: "main.py", COMFYUI_PYTHON: "", OFFICIAL_DIR: "handler.py"}
    missing = [name for name, holds in wanted.items() if not (Path(environ.get(name) or os.devnull, holds)).is_file()]
    if missing:
        said = {
            COMFYUI_DIR: "to the folder of a ComfyUI",
            COMFYUI_PYTHON: "to the Python that runs it",
            OFFICIAL_DIR: "to a checkout of github.com/runpod-workers/worker-comfyui",
        }
        raise MissingRigError("set " + " and ".join(f"{name} {said[name]}" for name in missing))
    comfyui = Installation(Path(environ[COMFYUI_DIR]), Path(environ[COMFYUI_PYTHON]))
    return Rig(comfyui, Path(environ[OFFICIAL_DIR]))


def comfyui_version(installation: Installation) -> str:
    spoken = (installation.directory / "comfyui_version.py").read_text(encoding="utf-8")
    return spoken.partition("__version__ = ")[2].strip().strip("\"'")


def described(checkout: Path) -> str:
    """What `git describe` says of it."""
    command = ["git", "-C", str(checkout), "describe", "--tags", "--always", "--dirty"]
    said = subprocess.run(command, capture_output=True, text=True, check=False)
    return said.stdout.strip() or "not a git checkout"


def load_fact() -> str:
    """What else the machine does; a benchmark of milliseconds wants less than its number of cores."""
    return f"load       {os.getloadavg()[0]:.2f} in the last minute"


@contextlib.contextmanager
def scratch(parent: Path) -> Iterator[Path]:
    """A folder that is gone afterwards."""
    with tempfile.TemporaryDirectory(prefix="morpheus-bench-", dir=parent) as folder:
        yield Path(folder)


def file_system(path: Path) -> str:
    """The type and the source of the mount that holds `path`: 'ext4 /dev/vda'."""
    mounts = Path("/proc/mounts").read_text(encoding="utf-8").splitlines()
    fields = [line.split(" ") for line in mounts]
    held = [field for field in fields if path.resolve().is_relative_to(field[1].replace("\\040", " "))]
    source, _at, kind, *_rest = max(held, key=lambda field: len(field[1]))
    return f"{kind} {source}"


@contextlib.contextmanager
def comfyui_at(installation: Installation, base: Path, custom_nodes: Mapping[str, str] | None = None) -> Iterator[str]:
    """The URL of a real ComfyUI with its folders in `base`, and these node packs: file name to source."""
    write_nodes(base, custom_nodes or {})
    running: RealComfyUI
    with running_comfyui(installation, base) as running:
        yield running.url


def write_nodes(base: Path, custom_nodes: Mapping[str, str]) -> None:
    folder = base / "custom_nodes"
    folder.mkdir(parents=True, exist_ok=True)
    for name, source in custom_nodes.items():
        (folder / name).write_text(source, encoding="utf-8")


@contextlib.contextmanager
def on_endpoint(
    command: Sequence[str], server: JobServer, log: Path, environment: Mapping[str, str] | None = None
) -> Iterator[subprocess.Popen[bytes]]:
    """A worker that takes its jobs from the server until the block ends, and then ends itself, and its ComfyUI."""
    with log.open("wb") as stream:
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env={**os.environ, **(environment or {}), **server.environment()},
            stdout=stream,
            stderr=subprocess.STDOUT,
        )
        try:
            yield process
        except RuntimeError as failure:
            raise RuntimeError(f"{failure}\n{log.read_text(encoding='utf-8', errors='replace')[-3000:]}") from None
        finally:
            process.terminate()
            try:
                process.wait(STOP_S)
            except subprocess.TimeoutExpired:
                process.kill()
                process.wait()


def answered(server: JobServer, worker: subprocess.Popen[bytes], job_id: str) -> dict[str, Any]:
    """The worker's answer to a job.

    Raises:
        RuntimeError: when it gives none, or one that says that the job failed.
    """
    until_s = time.monotonic() + ANSWER_S
    while worker.poll() is None and time.monotonic() < until_s:
        with contextlib.suppress(TimeoutError):
            answer = server.result(job_id, LOOK_S)
            if "error" in answer:
                raise RuntimeError(f"job {job_id} failed: {answer['error']}")
            output: dict[str, Any] = answer["output"]
            return output
    raise RuntimeError(f"no answer to job {job_id} (the worker's exit status: {worker.poll()})")


class Child:
    """A process of this folder that takes a JSON line and answers with one. What it logs goes to `log`."""

    def __init__(self, module: str, *arguments: str, log: Path) -> None:
        self.log = log
        with log.open("ab") as stream:
            self._process = subprocess.Popen(
                [sys.executable, "-m", f"benchmarks.{module}", *arguments],
                cwd=REPOSITORY,
                stdin=subprocess.PIPE,
                stdout=subprocess.PIPE,
                stderr=stream,
                text=True,
            )
        self.pid = self._process.pid
        self._read()

    def ask(self, question: Mapping[str, Any]) -> dict[str, Any]:
        assert self._process.stdin is not None
        self._process.stdin.write(json.dumps(question) + "\n")
        self._process.stdin.flush()
        return self._read()

    def _read(self) -> dict[str, Any]:
        assert self._process.stdout is not None
        line = self._process.stdout.readline()
        if not line:
            said = self.log.read_text(encoding="utf-8", errors="replace")[-2000:]
            raise RuntimeError(f"a process of the benchmark ended (exit status {self._process.wait()}):\n{said}")
        answer: dict[str, Any] = json.loads(line)
        return answer

    def __enter__(self) -> Child:
        return self

    def __exit__(self, *_exception: object) -> None:
        assert self._process.stdin is not None
        assert self._process.stdout is not None
        self._process.stdin.close()
        self._process.wait(ANSWER_S)
        self._process.stdout.close()


def answering(answer: Callable[[Any], Any]) -> None:
    """The child's side of `Child`: says that it is ready, then answers every line, until there are no more.

    Whatever the code in between prints goes where its log goes.
    """
    with os.fdopen(os.dup(sys.stdout.fileno()), "w", encoding="utf-8") as out:
        os.dup2(sys.stderr.fileno(), sys.stdout.fileno())
        print("{}", file=out, flush=True)
        for line in sys.stdin:
            print(json.dumps(answer(json.loads(line))), file=out, flush=True)


@dataclass(frozen=True, slots=True)
class Span:
    """When ComfyUI executed a prompt, by its own clock, in milliseconds since the epoch."""

    prompt_id: str
    start_ms: int
    end_ms: int

    @property
    def length_ms(self) -> int:
        return self.end_ms - self.start_ms


def span_of(prompt_id: str, entry: Mapping[str, Any]) -> Span:
    """The span of a history entry.

    Raises:
        ValueError: when the prompt did not succeed.
    """
    at_ms = {event: data["timestamp"] for event, data in entry["status"]["messages"]}
    if "execution_success" not in at_ms:
        raise ValueError(f"prompt {prompt_id} did not succeed: {entry['status']}")
    return Span(prompt_id, at_ms["execution_start"], at_ms["execution_success"])


def history(url: str, latest: int | None = None) -> dict[str, Any]:
    """ComfyUI's history, or the latest entries of it, by prompt id."""
    wanted = {} if latest is None else {"max_items": latest}
    entries: dict[str, Any] = requests.get(f"{url}/history", params=wanted, timeout=ANSWER_S).json()
    return entries


def idle_ms(executed: Sequence[Span]) -> list[int]:
    """How long ComfyUI had nothing to do between each two prompts, which are in the order of their execution."""
    return [after.start_ms - before.end_ms for before, after in itertools.pairwise(executed)]


def percentile(values: Sequence[float], share: float) -> float:
    """The smallest value that at least `share` of all values do not exceed: of ten values, the ninth for 0.9."""
    ordered = sorted(values)
    return ordered[max(1, math.ceil(len(ordered) * share)) - 1]


@dataclass(frozen=True, slots=True)
class Compared:
    """One line of a comparison, in milliseconds; `target` is the largest ratio of the medians, ours to theirs."""

    case: str
    theirs: Sequence[float]
    ours: Sequence[float]
    target: float

    @property
    def ratio(self) -> float:
        return statistics.median(self.ours) / statistics.median(self.theirs)

    @property
    def met(self) -> bool:
        return self.ratio <= self.target

    def row(self) -> str:
        sides = "".join(
            f"{statistics.median(side):>9.1f}{percentile(side, 0.9):>9.1f}" for side in (self.theirs, self.ours)
        )
        verdict = "met" if self.met else "MISSED"
        return f"{self.case:<50}{sides}{self.ratio:>8.2f}{self.target:>8.2f}  {verdict}"

    @staticmethod
    def head() -> str:
        sides = "".join(f"{side:>9}{'p90':>9}" for side in ("theirs", "ours"))
        return f"{'median ms':<50}{sides}{'ratio':>8}{'target':>8}"
