"""What a handler adds to ComfyUI's own execution: the official ComfyUI worker's and this one's, at one real ComfyUI.

Both handlers run in processes of their own, on the same Python, and take the same jobs in turn. What counts is the time
of the call, less what ComfyUI's history says it took from `execution_start` to `execution_success`. Every job draws
noise from a seed of its own, and brings a picture of its own where it brings one, so ComfyUI's cache answers for none.
The official worker answers with base64, whatever the case: it has no other way but S3. Ours, where a case says
volume, has the outputs whole, hashed and synced on a folder of another file system than ComfyUI's.
"""

from __future__ import annotations

import argparse
import asyncio
import base64
import contextlib
import io
import itertools
import os
import random
import shutil
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from PIL import Image

from benchmarks.rig import (
    MEMORY_FOLDER,
    Child,
    Compared,
    MissingRigError,
    Rig,
    Span,
    comfyui_at,
    file_system,
    found_rig,
    history,
    load_fact,
    scratch,
    span_of,
)

JOBS: Final = 40
WARM_UP: Final = 4
CONNECTION_JOBS: Final = 5
FILED_S: Final = 5.0
FILED_TURN_S: Final = 0.005

SIDE_PIXELS: Final = 720
"""A picture of noise of this width and height has 1.5 MB as PNG."""
LEAST_BYTES: Final = 1_400_000
THIRD, TWO_THIRDS = 1 / 3, 2 / 3


@dataclass(frozen=True, slots=True)
class Case:
    """What both sides are asked for. `sent` is how our picture travels; theirs is always base64."""

    name: str
    target: float
    pictures: int = 1
    brings: bool = False
    sent: str = "base64"
    outputs: str = "volume"
    side_pixels: int = SIDE_PIXELS


CASES: Final = (
    Case("volume: one PNG", THIRD),
    Case("volume: four PNGs", THIRD, pictures=4),
    Case("volume: a picture in, as a volume path; a small out", THIRD, brings=True, sent="path", side_pixels=16),
    Case("volume: a picture in, as base64; a small one out", THIRD, brings=True, side_pixels=16),
    Case("volume: a picture in, as base64; one PNG out", THIRD, brings=True),
    Case("base64: a picture in, one PNG out", TWO_THIRDS, brings=True, outputs="base64"),
    Case("base64: one PNG", TWO_THIRDS, outputs="base64"),
)


def noise_png(seed: int) -> bytes:
    drawn = random.Random(seed).randbytes(SIDE_PIXELS * SIDE_PIXELS * 3)
    stream = io.BytesIO()
    Image.frombytes("RGB", (SIDE_PIXELS, SIDE_PIXELS), drawn).save(stream, "PNG", compress_level=1)
    return stream.getvalue()


def graph_of(case: Case, seed: int, picture: str) -> dict[str, Any]:
    """Noise over a grey picture, or over the one that is brought, scaled to the size wanted."""
    size = case.side_pixels
    grey = {"width": size, "height": size, "batch_size": case.pictures, "color": 0x808080}
    scale = {"image": ["1", 0], "upscale_method": "nearest-exact", "width": size, "height": size, "crop": "disabled"}
    loaded = {
        "1": {"class_type": "LoadImage", "inputs": {"image": picture}},
        "2": {"class_type": "ImageScale", "inputs": scale},
    }
    noise = {"image": ["2", 0], "seed": seed, "strength": 0.02 if case.brings else 0.3}
    return {
        **(loaded if case.brings else {"2": {"class_type": "EmptyImage", "inputs": grey}}),
        "3": {"class_type": "ImageAddNoise", "inputs": noise},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "bench"}},
    }


@dataclass(frozen=True, slots=True)
class Place:
    """A running ComfyUI, its base directory, and our volume on another file system."""

    url: str
    base: Path
    volume: Path

    def tidy(self) -> None:
        """Takes away what the jobs left, outside of what is measured: memory file systems are small."""
        for folder in (self.volume / "job_outputs", self.volume / "uploads"):
            shutil.rmtree(folder, ignore_errors=True)
        for path in (self.base / "output").glob("bench_*"):
            path.unlink()


class Side:
    """One worker: its process, and its jobs' form."""

    def __init__(self, child: Child, volume: Path | None) -> None:
        self._child = child
        self._volume = volume

    def overhead_ms(self, case: Case, seed: int, url: str) -> float:
        """Runs one job and sees that it made what it should."""
        answer = self._child.ask(self._job(case, seed))
        way = case.outputs if self._volume else "base64"
        least = LEAST_BYTES if case.side_pixels == SIDE_PIXELS else 1
        made = [one for one in answer["made"] if one["as"] == way and one["bytes"] >= least]
        if answer["error"] or len(made) != case.pictures:
            raise RuntimeError(f"{case.name}: not what was asked for: {answer}")
        return float(answer["wall_ms"]) - span_of_seed(url, seed).length_ms

    def _job(self, case: Case, seed: int) -> dict[str, Any]:
        job_input: dict[str, Any] = {"workflow": graph_of(case, seed, "input_image.png")}
        if self._volume:
            job_input["outputs"] = case.outputs
        if case.brings:
            picture = noise_png(seed)
            if self._volume and case.sent == "path":
                path = self._volume / "uploads" / f"{seed}.png"
                path.parent.mkdir(exist_ok=True)
                path.write_bytes(picture)
                job_input["workflow"] = graph_of(case, seed, str(path))
            else:
                uri = "data:image/png;base64," + base64.b64encode(picture).decode()
                job_input["images"] = [{"name": "input_image.png", "image": uri}]
        return {"id": f"bench-{seed}", "input": job_input}


def span_of_seed(url: str, seed: int) -> Span:
    """The span of the job that was run last. A handler may answer a moment before ComfyUI files its entry."""
    until_s = time.monotonic() + FILED_S
    while time.monotonic() < until_s:
        for prompt_id, entry in history(url, latest=1).items():
            if entry["prompt"][2]["3"]["inputs"]["seed"] == seed:
                return span_of(prompt_id, entry)
        time.sleep(FILED_TURN_S)
    raise RuntimeError(f"ComfyUI's history has no entry of the job with seed {seed}")


def compare(case: Case, sides: Sequence[Side], place: Place, jobs: int, seeds: Iterator[int]) -> Compared:
    """Both sides in turn, each going first every other time."""
    took: tuple[list[float], list[float]] = ([], [])
    for number in range(WARM_UP + jobs):
        for which in (0, 1) if number % 2 else (1, 0):
            overhead = sides[which].overhead_ms(case, next(seeds), place.url)
            if number >= WARM_UP:
                took[which].append(overhead)
        place.tidy()
    return Compared(case.name, took[0], took[1], case.target)


@contextlib.contextmanager
def both(rig: Rig, place: Place, url: str) -> Iterator[tuple[Side, Side]]:
    """The two workers, which reach ComfyUI by `url`."""
    base, volume, logs = str(place.base), str(place.volume), place.base / "logs"
    logs.mkdir(exist_ok=True)
    with (
        Child("handler_child", "official", str(rig.official), url, log=logs / "official") as theirs,
        Child("handler_child", "morpheus", url, base, volume, log=logs / "morpheus") as ours,
    ):
        yield Side(theirs, None), Side(ours, place.volume)


@contextlib.contextmanager
def counting_proxy(url: str) -> Iterator[tuple[str, Callable[[], int]]]:
    """A way to ComfyUI that counts: its URL, and how many connections came so far."""
    came = itertools.count()
    seen = [0]
    target = urlsplit(url)
    loop = asyncio.new_event_loop()

    async def pump(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        with contextlib.suppress(OSError), contextlib.closing(writer):
            while data := await reader.read(1 << 16):
                writer.write(data)
                await writer.drain()

    async def passed_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        seen[0] = next(came) + 1
        there, back = await asyncio.open_connection(target.hostname, target.port)
        await asyncio.gather(pump(reader, back), pump(there, writer))

    async def listening() -> int:
        server = await asyncio.start_server(passed_on, "127.0.0.1", 0)
        return int(server.sockets[0].getsockname()[1])

    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    try:
        port = asyncio.run_coroutine_threadsafe(listening(), loop).result()
        yield f"http://127.0.0.1:{port}", lambda: seen[0]
    finally:
        loop.call_soon_threadsafe(loop.stop)
        thread.join()


def print_connections(rig: Rig, place: Place, seeds: Iterator[int]) -> None:
    """Counted in a pass of its own, which is not timed."""
    print(f"\n{'new TCP connections to ComfyUI per job':<50}{'theirs':>9}{'ours':>9}{'target':>8}")
    with counting_proxy(place.url) as (through, seen), both(rig, place, through) as sides:
        for case in CASES[:5]:
            counts = []
            for side in sides:
                side.overhead_ms(case, next(seeds), place.url)
                before = seen()
                for _ in range(CONNECTION_JOBS):
                    side.overhead_ms(case, next(seeds), place.url)
                counts.append((seen() - before) / CONNECTION_JOBS)
            place.tidy()
            verdict = "met" if not counts[1] else "MISSED"
            print(f"{case.name:<50}{counts[0]:>9.1f}{counts[1]:>9.1f}{0:>8}  {verdict}", flush=True)


def run(rig: Rig, comfyui_folder: Path, volume_folder: Path, jobs: int, *, only: str, connections: bool) -> None:
    """One placement of ComfyUI's folders and of the volume."""
    seeds = itertools.count(1)
    with scratch(comfyui_folder) as base, scratch(volume_folder) as volume:
        print(f"\nComfyUI's folders on {file_system(base)}, the volume on {file_system(volume)}")
        with comfyui_at(rig.comfyui, base) as url:
            place = Place(url, base, volume)
            with both(rig, place, url) as sides:
                print(Compared.head())
                for case in CASES:
                    if only in case.name:
                        print(row_of(case, sides, place, jobs, seeds), flush=True)
            if connections:
                print_connections(rig, place, seeds)


def row_of(case: Case, sides: Sequence[Side], place: Place, jobs: int, seeds: Iterator[int]) -> str:
    try:
        return compare(case, sides, place, jobs, seeds).row()
    except RuntimeError as failure:
        return f"not measured: {failure}"


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0] if __doc__ else None)
    parser.add_argument("--jobs", type=int, default=JOBS, help="of each side in each case")
    parser.add_argument("--disk", type=Path, default=Path(tempfile.gettempdir()), help="a folder on a real disk")
    parser.add_argument("--memory", type=Path, default=MEMORY_FOLDER, help="a folder on another file system")
    parser.add_argument("--only", default="", help="cases whose name contains this")
    parser.add_argument("--one-placement", action="store_true", help="only ComfyUI in memory and the volume on disk")
    given = parser.parse_args()
    try:
        rig = found_rig(os.environ)
        if not given.memory.is_dir() or given.memory.stat().st_dev == given.disk.stat().st_dev:
            raise MissingRigError(f"{given.memory} and {given.disk} must be on two file systems; see --memory, --disk")
    except MissingRigError as missing:
        print(f"not run: {missing}")
        return 0
    print(*rig.facts(), load_fact(), f"jobs       {given.jobs} of each side in each case", sep="\n")
    run(rig, given.memory, given.disk, given.jobs, only=given.only, connections=not given.only)
    if not given.one_placement:
        run(rig, given.disk, given.memory, given.jobs, only=given.only, connections=False)
    print(load_fact())
    return 0


if __name__ == "__main__":
    sys.exit(main())
