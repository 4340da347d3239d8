"""How much memory a worker's process takes at most while 2 GB go through it: published, fetched by URL, or both.

The worker runs from its entry point through the RunPod SDK's job loop, with the rehearsal engine in ComfyUI's place,
and runs a small job first. Measured is VmHWM of its process, the most it ever had resident, everything it imports
included: after the small job, and after the large one. Each row has a worker of its own. ComfyUI's folders and the
volume are on two file systems, so the file is copied, hashed and synced.
"""

from __future__ import annotations

import argparse
import contextlib
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks import big_video
from benchmarks.rig import MEMORY_FOLDER, REPOSITORY, answered, file_system, on_endpoint, scratch
from morpheus_worker.rehearsal import install_tree
from tests.commands import free_port
from tests.integration.job_server import JobServer

GIB: Final = 1024**3
TARGET_MB: Final = 150

SMALL: Final[Mapping[str, Any]] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 255}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "small"}},
}


@dataclass(frozen=True, slots=True)
class Case:
    """Where the video comes from, and whether it is what the job makes, too; else that is a small picture."""

    name: str
    by_url: bool
    published: bool


CASES: Final = (
    Case("published on the volume", by_url=False, published=True),
    Case("fetched by URL", by_url=True, published=False),
    Case("fetched by URL and published", by_url=True, published=True),
)


def graph_of(case: Case, video: str) -> dict[str, Any]:
    loading = {"1": {"class_type": "LoadVideo", "inputs": {"file": video}}}
    if not case.published:
        frames = {"class_type": "GetVideoComponents", "inputs": {"video": ["1", 0]}}
        return {
            **loading,
            "2": frames,
            "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "frame"}},
        }
    how = {"filename_prefix": "large", "format": "auto", "codec": "auto"}
    return {**loading, "2": {"class_type": "SaveVideo", "inputs": {"video": ["1", 0], **how}}}


def peak_mb(pid: int) -> float:
    """The most memory that the process ever had resident, in MB (10⁶ bytes, as the target is)."""
    lines = Path(f"/proc/{pid}/status").read_text(encoding="utf-8").splitlines()
    (kib,) = (line.split()[1] for line in lines if line.startswith("VmHWM:"))
    return int(kib) * 1024 / 1e6


@contextlib.contextmanager
def video_server(size: int) -> Iterator[str]:
    command = [sys.executable, "-m", "benchmarks.big_video", str(size)]
    with subprocess.Popen(command, cwd=REPOSITORY, stdout=subprocess.PIPE, text=True) as process:
        try:
            assert process.stdout is not None
            yield f"http://127.0.0.1:{int(process.stdout.readline())}/large.mp4"
        finally:
            process.terminate()


def row_of(case: Case, size: int, comfyui: Path, volume: Path) -> str:
    install_tree(comfyui)
    environment = {
        "MORPHEUS_PYTHON": sys.executable,
        "MORPHEUS_VOLUME_ROOT": str(volume),
        "MORPHEUS_COMFYUI_DIR": str(comfyui),
        "MORPHEUS_COMFYUI_PYTHON": sys.executable,
        "MORPHEUS_COMFYUI_URL": f"http://127.0.0.1:{free_port()}",
        "MORPHEUS_MAX_INPUT_BYTES": str(size),
        "MORPHEUS_MEDIA_PRIVATE_HOSTS": "127.0.0.1",
    }
    command = [str(REPOSITORY / "pod_start.sh")]
    with (
        JobServer() as server,
        video_server(size) as url,
        on_endpoint(command, server, volume / "worker.log", environment) as worker,
    ):
        server.submit("small", {"workflow": SMALL, "outputs": "volume"})
        answered(server, worker, "small")
        before_mb = peak_mb(worker.pid)
        if not case.by_url:
            big_video.write(volume / "large.mp4", size)
        video = url if case.by_url else str(volume / "large.mp4")
        began_s = time.monotonic()
        server.submit("large", {"workflow": graph_of(case, video), "outputs": "volume"})
        made = answered(server, worker, "large")["outputs"]
        took_s = time.monotonic() - began_s
        after_mb = peak_mb(worker.pid)
    if case.published and [Path(output["path"]).stat().st_size for output in made] != [size]:
        raise RuntimeError(f"{case.name}: not what was asked for: {made}")
    verdict = "met" if after_mb <= TARGET_MB else "MISSED"
    return f"{case.name:<40}{before_mb:>11.1f}{after_mb:>11.1f}{took_s:>9.1f}{TARGET_MB:>8}  {verdict}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--gib", type=float, default=2.0, help="size of the video")
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="for the volume")
    parser.add_argument("--memory", type=Path, default=MEMORY_FOLDER, help="for ComfyUI's folders")
    given = parser.parse_args()
    if not given.memory.is_dir() or given.memory.stat().st_dev == given.disk.stat().st_dev:
        print(f"not run: {given.memory} and {given.disk} must be on two file systems; see --memory, --disk")
        return 0
    size = int(given.gib * GIB)
    print(f"ComfyUI's folders on {file_system(given.memory)}, the volume on {file_system(given.disk)}")
    print(
        f"{f'peak memory in MB, {given.gib:g} GiB':<40}{'before':>11}{'after':>11}{'job s':>9}{'target':>8}", flush=True
    )
    for case in CASES:
        with scratch(given.memory) as comfyui, scratch(given.disk) as volume:
            print(row_of(case, size, comfyui, volume), flush=True)
    return 0


if __name__ == "__main__":
    sys.exit(main())
