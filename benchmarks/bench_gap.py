"""How long ComfyUI has nothing to do between jobs that are queued ahead, through the RunPod SDK's own job loop.

A job server on loopback hands out the jobs; half of its round trip passes before it sees a request, half before the
answer leaves. Each worker runs as on RunPod: ours starts a real ComfyUI as its child, the official one finds one
running. A job sleeps in a node of its own (so it takes no processor) and then saves a picture of noise, 1.5 MB as PNG.
Idle is from ComfyUI's `execution_success` of one prompt to its `execution_start` of the next, by its own clock. Every
ten seconds ComfyUI itself collects garbage after a prompt, whoever the worker is: that is in the largest values.
Held is from the moment a job was handed out until ComfyUI starts it: what holding the next job costs, because no other
worker is offered it meanwhile.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from benchmarks.rig import (
    REPOSITORY,
    MissingRigError,
    Rig,
    Span,
    answered,
    comfyui_at,
    found_rig,
    history,
    idle_ms,
    load_fact,
    on_endpoint,
    percentile,
    scratch,
    span_of,
    write_nodes,
)
from tests.commands import free_port
from tests.integration.job_server import JobServer

JOBS: Final = 18
SLEEP_S: Final = 2.0
TARGET_MS: Final = 20
ROUND_TRIPS_S: Final = (0.0, 0.1)

SLEEPING_NODE: Final = """
import time

class BenchSleep:
    RETURN_TYPES = ("IMAGE",)
    FUNCTION = "sleep"
    CATEGORY = "bench"

    @classmethod
    def INPUT_TYPES(cls):
        return {"required": {"image": ("IMAGE",), "seconds": ("FLOAT", {"default": 1.0, "min": 0.0, "max": 60.0})}}

    def sleep(self, image, seconds):
        time.sleep(seconds)
        return (image,)

NODE_CLASS_MAPPINGS = {"BenchSleep": BenchSleep}
"""


def graph_of(number: int) -> dict[str, Any]:
    """A seed of its own, so that ComfyUI's cache answers for nothing but the grey picture."""
    grey = {"width": 720, "height": 720, "batch_size": 1, "color": 0x808080}
    return {
        "1": {"class_type": "EmptyImage", "inputs": grey},
        "2": {"class_type": "ImageAddNoise", "inputs": {"image": ["1", 0], "seed": number, "strength": 0.3}},
        "3": {"class_type": "BenchSleep", "inputs": {"image": ["2", 0], "seconds": SLEEP_S}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "bench"}},
    }


@dataclass(frozen=True, slots=True)
class Measured:
    """`idle_ms` between each two prompts, `held_ms` of each job but the first, which waits for the boot."""

    name: str
    round_trip_s: float
    idle_ms: list[int]
    held_ms: list[float]

    @staticmethod
    def head() -> str:
        numbers = "".join(f"{said:>10}" for said in ("idle ms", "p90", "max", "held ms"))
        return f"{'medians':<28}{'round trip':>12}{numbers}{'target':>8}"

    def row(self, target_ms: int | None) -> str:
        idle = (statistics.median(self.idle_ms), percentile(self.idle_ms, 0.9), max(self.idle_ms))
        numbers = "".join(f"{value:>10.0f}" for value in (*idle, statistics.median(self.held_ms)))
        verdict = "" if target_ms is None else f"{target_ms:>8}  {'met' if idle[0] <= target_ms else 'MISSED'}"
        return f"{self.name:<28}{self.round_trip_s * 1000:>9.0f} ms{numbers}{verdict}"


def measured(name: str, server: JobServer, worker: subprocess.Popen[bytes], url: str, jobs: int) -> Measured:
    """Waits for the results of jobs 1 to `jobs`, then reads ComfyUI's history."""
    for number in range(1, jobs + 1):
        answered(server, worker, str(number))
    executed = spans_by_seed(url)
    epoch_s = time.time() - time.monotonic()
    held = [executed[number].start_ms - 1000 * (server.taken_at_s[str(number)][0] + epoch_s) for number in executed]
    ordered = sorted(executed.values(), key=lambda span: span.start_ms)
    if len(ordered) != jobs:
        raise RuntimeError(f"{name}: ComfyUI executed {len(ordered)} prompts for {jobs} jobs")
    return Measured(name, server.rtt_s, idle_ms(ordered), held[1:])


def spans_by_seed(url: str) -> dict[int, Span]:
    entries = history(url).items()
    found = {entry["prompt"][2]["2"]["inputs"]["seed"]: span_of(key, entry) for key, entry in entries}
    return dict(sorted(found.items()))


@contextlib.contextmanager
def job_server(round_trip_s: float, jobs: int, options: Mapping[str, Any]) -> Iterator[JobServer]:
    """A server whose queue holds every job before a worker asks."""
    with JobServer(rtt_s=round_trip_s) as server:
        for number in range(1, jobs + 1):
            server.submit(str(number), {"workflow": graph_of(number), **options})
        yield server


def theirs(rig: Rig, folder: Path, round_trip_s: float, jobs: int) -> Measured:
    """The official worker, which answers with base64."""
    nodes = {"bench_sleep.py": SLEEPING_NODE}
    command = [sys.executable, "-u", "-m", "benchmarks.official_worker", str(rig.official)]
    with (
        comfyui_at(rig.comfyui, folder, nodes) as url,
        job_server(round_trip_s, jobs, {}) as server,
        on_endpoint([*command, url], server, folder / "worker.log") as worker,
    ):
        return measured("official", server, worker, url, jobs)


def ours(rig: Rig, folder: Path, round_trip_s: float, jobs: int, concurrency: int) -> Measured:
    """This worker from its entry point, with ComfyUI as its child and its outputs on the volume."""
    write_nodes(folder, {"bench_sleep.py": SLEEPING_NODE})
    volume = folder / "volume"
    volume.mkdir()
    url = f"http://127.0.0.1:{free_port()}"
    database = f"--database-url sqlite:///{folder}/comfyui.db"
    environment = {
        "MORPHEUS_PYTHON": sys.executable,
        "MORPHEUS_VOLUME_ROOT": str(volume),
        "MORPHEUS_COMFYUI_DIR": str(rig.comfyui.directory),
        "MORPHEUS_COMFYUI_PYTHON": str(rig.comfyui.python),
        "MORPHEUS_COMFYUI_URL": url,
        "MORPHEUS_COMFYUI_ARGS": f"--cpu --disable-api-nodes --base-directory {folder} {database}",
        "MORPHEUS_CONCURRENCY": str(concurrency),
    }
    with (
        job_server(round_trip_s, jobs, {"outputs": "volume"}) as server,
        on_endpoint([str(REPOSITORY / "pod_start.sh")], server, folder / "worker.log", environment) as worker,
    ):
        return measured(f"ours, concurrency {concurrency}", server, worker, url, jobs)


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=JOBS, help="queued ahead, of each worker at each round trip")
    parser.add_argument("--gaps", action="store_true", help="print every gap, in the order of the jobs")
    parser.add_argument("--folder", type=Path, default=Path(tempfile.gettempdir()), help="for ComfyUI and the volume")
    given = parser.parse_args()
    try:
        rig = found_rig(os.environ)
    except MissingRigError as missing:
        print(f"not run: {missing}")
        return 0
    print(*rig.facts(), load_fact(), f"jobs       {given.jobs} of {SLEEP_S:g} s for each row", sep="\n")
    print(f"\n{Measured.head()}", flush=True)
    for round_trip_s in ROUND_TRIPS_S:
        for concurrency in (None, 1, 2):
            with scratch(given.folder) as folder:
                if concurrency is None:
                    row = theirs(rig, folder, round_trip_s, given.jobs)
                else:
                    row = ours(rig, folder, round_trip_s, given.jobs, concurrency)
            print(row.row(TARGET_MS if concurrency == 2 else None), flush=True)
            if given.gaps:
                print(f"    gaps {row.idle_ms}", flush=True)
    print(load_fact())
    return 0


if __name__ == "__main__":
    sys.exit(main())
