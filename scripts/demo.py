"""The worker's main job, start to end, on this machine: `make demo`.

Two jobs go through handler.py and the RunPod SDK's own harness to ComfyUI: the rehearsal engine, or the one that
`--comfyui` names. Their outputs land on a volume, a file gateway serves that, and this program, in the place of an app,
downloads them by the paths that the results name.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import json
import os
import re
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final
from urllib.parse import quote
from urllib.request import ProxyHandler, build_opener

from PIL import Image, ImageDraw

from morpheus_worker.comfy.objectinfo import ObjectInfo

PROJECT: Final = Path(__file__).resolve().parent.parent
START_DEADLINE_S: Final = 20.0
STOP_DEADLINE_S: Final = 10.0
JOB_DEADLINE_S: Final = 900.0
POLL_S: Final = 0.02

UPLOAD: Final = "job_outputs/demo_upload/portrait.png"
URL: Final = re.compile(r"http://127\.0\.0\.1:\d+")
LOCAL: Final = build_opener(ProxyHandler({}))
"""Goes straight to its address, whatever proxy the environment names."""

SCALE_GRAPH: Final = {
    "1": {"class_type": "LoadImage", "inputs": {"image": UPLOAD}},
    "2": {"class_type": "ImageScaleBy", "inputs": {"image": ["1", 0], "upscale_method": "lanczos", "scale_by": 2.0}},
    "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "scale"}},
}
"""A caller's own graph in API format; its picture is named by the path on the volume."""


class DemoError(Exception):
    """A step failed; the message is for a person."""


@dataclass(frozen=True, slots=True)
class Job:
    """One job of the demo, with what to say about it."""

    name: str
    about: str
    input: Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class Places:
    """Where the demo keeps what it makes. All of it stays, to be looked at. `run` is this run's own name."""

    run: str
    volume: Path
    downloads: Path
    logs: Path


def main() -> int:
    parser = argparse.ArgumentParser(description="Run the worker's main job on this machine.")
    parser.add_argument("--comfyui", metavar="URL", help="a ComfyUI that runs already; default: the rehearsal engine")
    asked = parser.parse_args()
    try:
        run_demo(asked.comfyui, make_places())
    except KeyboardInterrupt:
        return 130
    except DemoError as failure:
        print(f"The demo failed: {failure}", file=sys.stderr)
        return 1
    return 0


def make_places() -> Places:
    """A new temporary folder; the volume is in it unless MORPHEUS_VOLUME_ROOT names one."""
    folder = Path(tempfile.mkdtemp(prefix="morpheus-demo-"))
    volume = Path(os.environ.get("MORPHEUS_VOLUME_ROOT") or folder / "volume").absolute()
    places = Places(run=folder.name, volume=volume, downloads=folder / "downloads", logs=folder / "logs")
    for path in (volume, places.downloads, places.logs):
        path.mkdir(parents=True, exist_ok=True)
    return places


def run_demo(named: str | None, places: Places) -> None:
    with contextlib.ExitStack() as services:
        serving = ("gateway", "--root", str(places.volume), "--port", "0")
        gateway = services.enter_context(service(*serving, logs=places.logs))
        comfyui = named or services.enter_context(service("rehearse", "--port", "0", logs=places.logs))()
        say("ComfyUI", comfyui if named else f"{comfyui}, the rehearsal engine: no GPU, no models, stand-in pictures")
        say("Volume", str(places.volume))
        say("Gateway", f"{gateway()}, serving that volume as another machine would")
        draw_portrait(places.volume / UPLOAD)
        jobs = [text_to_image(comfyui), picture_to_picture(comfyui)]
        # Two workers at once, as on an endpoint; each spends most of its time on its start.
        running = [services.enter_context(worker(job, comfyui, places)) for job in jobs]
        for job, result_of in zip(jobs, running, strict=True):
            say("Job", job.about)
            for output in result_of()["outputs"]:
                download(output, gateway(), places.downloads / f"{job.name}-{output['filename']}")
    say("Pictures", str(places.downloads))


def text_to_image(comfyui: str) -> Job:
    """sdxl_txt2img where its checkpoint is, and a job without a model elsewhere."""
    checkpoint = template_default("sdxl_txt2img", "checkpoint_name")
    if checkpoint not in models_of(comfyui, "CheckpointLoaderSimple", "ckpt_name"):
        about = f"smoke, in the place of sdxl_txt2img: this ComfyUI has no {checkpoint}"
        return Job("smoke", about, {"workflow_name": "smoke"})
    params = {"prompt": "a lighthouse at dusk, oil on canvas", "seed": 7}
    about = f"sdxl_txt2img, {params['prompt']!r}, seed {params['seed']}"
    return Job("txt2img", about, {"workflow_name": "sdxl_txt2img", "params": params})


def picture_to_picture(comfyui: str) -> Job:
    """upscale with its own model or another that is there, and a graph that needs none where there is none."""
    models = models_of(comfyui, "UpscaleModelLoader", "model_name")
    wanted = template_default("upscale", "upscale_model")
    if not models:
        about = f"a graph that doubles {UPLOAD}, in the place of upscale: this ComfyUI has no upscale model"
        return Job("scale", about, {"workflow": SCALE_GRAPH})
    params = {"image": UPLOAD, "upscale_model": wanted if wanted in models else models[0]}
    about = f"upscale, {UPLOAD} with {params['upscale_model']}"
    return Job("upscale", about, {"workflow_name": "upscale", "params": params})


def template_default(workflow: str, param: str) -> str:
    template = json.loads((PROJECT / "workflows" / f"{workflow}.json").read_text(encoding="utf-8"))
    return str(template["_params"][param]["default"])


def models_of(comfyui: str, class_type: str, input_name: str) -> tuple[str, ...]:
    """The model files that this ComfyUI offers at one input of a loader node."""
    info = ObjectInfo(json.loads(fetched(f"{comfyui.rstrip('/')}/object_info/{class_type}")))
    found = info.input(class_type, input_name)
    return (found.choices or ()) if found else ()


@contextlib.contextmanager
def worker(job: Job, comfyui: str, places: Places) -> Iterator[Callable[[], dict[str, Any]]]:
    """Runs one job in a worker process of its own; yields what waits for the result stored on the volume."""
    job_id = f"{places.run}-{job.name}"
    log = places.logs / f"{job.name}.log"
    test_input = json.dumps({"id": job_id, "input": job.input})
    environment = own_environment(MORPHEUS_COMFYUI_URL=comfyui, MORPHEUS_VOLUME_ROOT=str(places.volume))
    command = [sys.executable, str(PROJECT / "handler.py"), "--test_input", test_input]
    with process(command, environment, log) as handler:
        yield lambda: result_of(handler, places.volume / "job_outputs" / job_id / "result.json", log)


def result_of(handler: subprocess.Popen[bytes], stored: Path, log: Path) -> dict[str, Any]:
    """The result that a worker has left on the volume when it ends.

    Raises:
        DemoError: the job failed, or the worker does not end.
    """
    try:
        status = handler.wait(JOB_DEADLINE_S)
    except subprocess.TimeoutExpired:
        raise DemoError(f"handler.py did not end in {JOB_DEADLINE_S:.0f} s; see {log}") from None
    if status != 0:
        raise DemoError(f"handler.py ended with exit status {status}{last_words(log)}; see {log}")
    result: dict[str, Any] = json.loads(stored.read_text(encoding="utf-8"))
    say("", f"{result['status']}, {result['timings']['total_s']:.2f} s from the job to the result on the volume")
    return result


def last_words(log: Path) -> str:
    """The SDK's own sentence about a job that failed, where there is one."""
    found = re.search(r"failed with error: (.*)", log.read_text(encoding="utf-8", errors="replace"))
    return f" ({found[1]})" if found else ""


def own_environment(**more: str) -> dict[str, str]:
    """This environment, less what would tell the SDK that it is at RunPod or the worker anything but `more`."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith(("RUNPOD_", "MORPHEUS_"))}
    return kept | more


def download(output: Mapping[str, Any], gateway: str, into: Path) -> None:
    """Fetches one output by the path its result names, and checks it against the result's hash."""
    url = f"{gateway}/download/{quote(str(output['path']).lstrip('/'))}"
    content = fetched(url)
    found = hashlib.sha256(content).hexdigest()
    if found != output["sha256"]:
        raise DemoError(f"{url} has the sha256 {found}, its result says {output['sha256']}")
    into.write_bytes(content)
    say("", f"GET {url.removeprefix(gateway)}")
    say("", f"{output['width']} x {output['height']}, {len(content):,} bytes, sha256 {found[:12]} as the result says")


def fetched(url: str) -> bytes:
    try:
        with LOCAL.open(url, timeout=START_DEADLINE_S) as response:
            content: bytes = response.read()
    except (OSError, ValueError) as failure:
        raise DemoError(f"{url} does not answer: {getattr(failure, 'reason', failure)}") from failure
    return content


@contextlib.contextmanager
def service(*command: str, logs: Path) -> Iterator[Callable[[], str]]:
    """Runs `morpheus <command>` until the block ends; yields what waits for the URL that it listens on."""
    log = logs / f"{command[0]}.log"
    morpheus = Path(sys.executable).with_name("morpheus")
    with process([str(morpheus), *command], own_environment(), log) as served:
        yield lambda: announced_url(served, log)


@contextlib.contextmanager
def process(command: Sequence[str], environment: Mapping[str, str], log: Path) -> Iterator[subprocess.Popen[bytes]]:
    """A process that says everything to `log`, and has ended when the block has."""
    with (
        log.open("wb") as output,
        subprocess.Popen(
            command, env=environment, cwd=log.parent, stdin=subprocess.DEVNULL, stdout=output, stderr=output
        ) as running,
    ):
        try:
            yield running
        finally:
            running.terminate()
            with contextlib.suppress(subprocess.TimeoutExpired):
                running.wait(STOP_DEADLINE_S)
            running.kill()


def announced_url(served: subprocess.Popen[bytes], log: Path) -> str:
    """The URL in a service's first words.

    Raises:
        DemoError: it ended, or names none in time.
    """
    deadline_s = time.monotonic() + START_DEADLINE_S
    while time.monotonic() < deadline_s and served.poll() is None:
        if found := URL.search(log.read_text(encoding="utf-8")):
            return found[0]
        time.sleep(POLL_S)
    raise DemoError(f"'morpheus {log.stem}' did not start; see {log}")


def draw_portrait(path: Path) -> None:
    """What an app would have uploaded: a small picture, whole on the volume before the job names it."""
    picture = Image.radial_gradient("L").convert("RGB")
    pen = ImageDraw.Draw(picture)
    pen.ellipse((68, 48, 188, 208), fill="bisque", outline="sienna", width=4)
    for x in (100, 140):
        pen.ellipse((x, 105, x + 16, 121), fill="sienna")
    pen.arc((98, 130, 158, 180), 20, 160, fill="sienna", width=5)
    path.parent.mkdir(parents=True, exist_ok=True)
    picture.save(path)


def say(what: str, sentence: str) -> None:
    print(f"{what:<9} {sentence}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
