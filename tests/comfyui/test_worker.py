"""The worker on a real ComfyUI: every form of input, the boot with ComfyUI as its child, the demo."""

from __future__ import annotations

import base64
import hashlib
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests

from morpheus_worker.comfy.client import Order
from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.history import HistoryEntry, reported
from morpheus_worker.comfy.isolation import isolate
from morpheus_worker.comfy.launch import ComfyFolders
from morpheus_worker.deadlines import Deadline
from morpheus_worker.pipeline import Worker, run_job
from tests.commands import free_port
from tests.integration.conftest import assembled
from tests.integration.endpoint import eventually
from tests.integration.jobs import (
    INVERT_GRAPH,
    SMOKE_GRAPH,
    check_files,
    data_uri,
    failed,
    files_below,
    graph_job,
    png,
    succeeded,
)
from tests.integration.media_server import MediaServer, content
from tests.integration.s3_server import ACCESS_KEY, SECRET_KEY, new_bucket
from tests.integration.test_bad_input import CASES
from tests.tools.make_tiny_models import UPSCALER_NAME

from .process import Installation, RealComfyUI

REPOSITORY = Path(__file__).resolve().parents[2]
UPSCALE_PARAMS = {"image": data_uri(png()), "upscale_model": UPSCALER_NAME}
UPSCALE_GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "input_image.png"}},
    "2": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": UPSCALER_NAME}},
    "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["2", 0], "image": ["1", 0]}},
    "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "graph"}},
}
FORMS: dict[str, tuple[dict[str, Any], tuple[int, int]]] = {
    "smoke, name and params": ({"workflow_name": "smoke", "params": {"width": 40, "height": 8}}, (40, 8)),
    "smoke, flat keys": ({"workflow_name": "smoke", "width": 40, "height": 8}, (40, 8)),
    "smoke, config_payload": ({"workflow": "smoke", "config_payload": {"width": 40, "height": 8}}, (40, 8)),
    "smoke, graph": (graph_job(SMOKE_GRAPH), (32, 16)),
    "upscale, name and params": ({"workflow_name": "upscale", "params": UPSCALE_PARAMS}, (48, 32)),
    "upscale, flat keys": ({"workflow_name": "upscale", **UPSCALE_PARAMS}, (48, 32)),
    "upscale, config_payload": ({"workflow": "upscale", "config_payload": UPSCALE_PARAMS}, (48, 32)),
    "upscale, graph": (
        graph_job(UPSCALE_GRAPH, images=[{"name": "input_image.png", "image": data_uri(png())}]),
        (48, 32),
    ),
    "upscale, volume path": (
        {"workflow_name": "upscale", "params": {**UPSCALE_PARAMS, "image": "/workspace/in.png"}},
        (48, 32),
    ),
}


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    (tmp_path / "volume").mkdir()
    (tmp_path / "volume/in.png").write_bytes(png())
    return tmp_path / "volume"


@pytest.fixture
def worker(real_comfyui: RealComfyUI, volume: Path) -> Iterator[Worker]:
    base = real_comfyui.base_directory
    folders = ComfyFolders(base / "models", base / "custom_nodes", base / "input", base / "output", base / "temp")
    with assembled(real_comfyui.url, volume, LocalFiles(folders)) as made:
        yield made


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_input(form: str, worker: Worker, volume: Path) -> None:
    sent, size = FORMS[form]
    for number in range(2):  # the second one meets ComfyUI's cache
        result = succeeded(run_job({"id": f"job-{number}", "input": sent}, worker))
        check_files(result, volume)
        assert [(output.width, output.height) for output in result.outputs] == [size]


SEVERAL_OUTPUTS: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 32, "height": 16, "batch_size": 3, "color": 255}},
    "9": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "first"}},
    "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "second"}},
    "5": {"class_type": "PreviewImage", "inputs": {"images": ["3", 0]}},
    "6": {"class_type": "SaveAnimatedWEBP", "inputs": {
        "images": ["1", 0], "filename_prefix": "moving", "fps": 6.0, "lossless": True, "quality": 80,
        "method": "default",
    }},
}  # fmt: skip


def once_filed(worker: Worker, prompt_id: str) -> HistoryEntry:
    """The entry, which ComfyUI files a moment after it has told of the prompt's success."""
    eventually(lambda: worker.comfy.http.history(prompt_id), "the prompt is not in the history")
    filed = worker.comfy.http.history(prompt_id)
    assert filed is not None
    return filed


@pytest.mark.parametrize("graph", [SMOKE_GRAPH, UPSCALE_GRAPH, SEVERAL_OUTPUTS], ids=["smoke", "upscale", "several"])
def test_the_events_tell_of_the_outputs_what_the_history_says(
    graph: dict[str, Any], worker: Worker, real_comfyui: RealComfyUI
) -> None:
    """On which a prompt is finished, where the events had no gap."""
    (real_comfyui.input_directory / "input_image.png").write_bytes(png())
    for number in range(2):  # the second one meets ComfyUI's cache
        order = Order(isolate(graph, f"events-{number}", worker.comfy.habits), Deadline.after(60), threading.Event())
        finished = worker.comfy.run(order)
        filed = once_filed(worker, finished.entry.prompt_id)
        assert finished.entry.outputs == filed.outputs
        worker.files.discard(f"events-{number}", reported(filed.outputs).unused)


def test_several_outputs_come_in_the_order_of_the_graph(worker: Worker, volume: Path) -> None:
    answer = run_job({"id": "several", "input": graph_job(SEVERAL_OUTPUTS)}, worker)
    names = [output.filename for output in succeeded(answer).outputs]
    assert names == [f"first_0000{n}_.png" for n in (1, 2, 3)] + [f"second_0000{n}_.png" for n in (1, 2, 3)] + [
        "moving_00001_.webp"
    ]
    assert [image["filename"] for image in answer["images"]] == names


@pytest.mark.parametrize("sent", ["url", "base64", "s3"])
@pytest.mark.parametrize("outputs", ["volume", "base64", "s3"])
def test_every_way_in_and_out(sent: str, outputs: str, real_comfyui: RealComfyUI, volume: Path) -> None:
    base, bucket, picture = real_comfyui.base_directory, new_bucket(), png()
    folders = ComfyFolders(base / "models", base / "custom_nodes", base / "input", base / "output", base / "temp")
    environment = {
        "BUCKET_ENDPOINT_URL": bucket.url, "BUCKET_NAME": bucket.name,
        "BUCKET_ACCESS_KEY_ID": ACCESS_KEY, "BUCKET_SECRET_ACCESS_KEY": SECRET_KEY,
        "MORPHEUS_MEDIA_PRIVATE_HOSTS": "127.0.0.1",
    }  # fmt: skip
    before = files_below(real_comfyui.input_directory, real_comfyui.output_directory)
    with (
        MediaServer() as server,
        assembled(real_comfyui.url, volume, LocalFiles(folders), **environment) as worker,
    ):
        value = {
            "url": server.serve("/in.png", content(picture)),
            "base64": data_uri(picture).partition(",")[2],
            "s3": bucket.put("in.png", picture),
        }[sent]
        job = {"workflow_name": "upscale", "params": UPSCALE_PARAMS | {"image": value}, "outputs": outputs}
        (output,) = succeeded(run_job({"id": "job", "input": job}, worker)).outputs
    assert (output.width, output.height) == (48, 32)
    if output.url:
        made = requests.get(output.url, timeout=10).content
    else:
        made = Path(output.path).read_bytes() if output.path else base64.b64decode(output.data or "")
    assert hashlib.sha256(made).hexdigest() == output.sha256
    assert {"volume": output.path, "base64": output.data, "s3": output.url}[outputs]
    assert files_below(real_comfyui.input_directory, real_comfyui.output_directory) == before


def test_nothing_stays_at_comfyui(worker: Worker, real_comfyui: RealComfyUI) -> None:
    folders = (real_comfyui.input_directory, real_comfyui.output_directory)
    before = files_below(*folders)
    for number in range(3):
        succeeded(run_job({"id": f"n{number}", "input": {"workflow_name": "upscale", **UPSCALE_PARAMS}}, worker))
    assert files_below(*folders) == before


def test_a_picture_that_was_cut_short_is_taken_as_far_as_it_goes(worker: Worker) -> None:
    images = [{"name": "input_image.png", "image": data_uri(png(size=(200, 200))[:120])}]
    succeeded(run_job({"id": "cut", "input": graph_job(INVERT_GRAPH, images=images)}, worker))


def test_through_http_alone(real_comfyui: RealComfyUI, volume: Path) -> None:
    with assembled(real_comfyui.url, volume, None) as worker:
        images = [{"name": "input_image.png", "image": data_uri(png())}]
        result = succeeded(run_job({"id": "remote", "input": graph_job(INVERT_GRAPH, images=images)}, worker))
        check_files(result, volume)


def test_a_cancel_stops_what_runs(worker: Worker, real_comfyui: RealComfyUI, volume: Path) -> None:
    """Upscaling a large picture on a CPU takes long enough to be caught in the middle."""
    (volume / "large.png").write_bytes(png(size=(1600, 1600)))
    params = {"image": "large.png", "upscale_model": UPSCALER_NAME}
    cancelled = threading.Event()
    answer = failed(
        run_job(
            {"id": "c", "input": {"workflow_name": "upscale", "params": params}},
            worker,
            cancelled=cancelled,
            on_progress=lambda progress: cancelled.set() if progress.class_type == "ImageUpscaleWithModel" else None,
        )
    )
    assert answer.code == "cancelled"
    assert worker.comfy.http.place("any") == "nowhere"
    assert not (volume / "job_outputs/c").exists()
    succeeded(run_job({"id": "after", "input": {"workflow_name": "smoke"}}, worker))


@pytest.mark.parametrize(
    "case", [case for case in CASES if case not in ("an absent model", "a required param missing")]
)
def test_bad_input_reads_the_same_as_on_the_rehearsal_engine(case: str, worker: Worker) -> None:
    sent, code, said = CASES[case]
    answer = failed(run_job({"id": "bad", "input": sent}, worker))
    assert answer.code == code, answer.error
    assert [part for part in said if part not in answer.error] == [], answer.error
    succeeded(run_job({"id": "good", "input": {"workflow_name": "smoke"}}, worker))


def test_boot_from_pod_start_with_comfyui_as_its_child(comfyui_installation: Installation, tmp_path: Path) -> None:
    base, volume = tmp_path / "base", tmp_path / "volume"
    (base / "custom_nodes").mkdir(parents=True)
    cached = volume / "morpheus_model_cache/upscale_models" / UPSCALER_NAME
    cached.parent.mkdir(parents=True)
    maker = REPOSITORY / "tests/tools/make_tiny_models.py"
    subprocess.run([comfyui_installation.python, maker, "--upscaler", cached], check=True, capture_output=True)
    database = f"--database-url sqlite:///{base}/comfyui.db"
    environment = dict(os.environ) | {
        "MORPHEUS_PYTHON": sys.executable,
        "MORPHEUS_VOLUME_ROOT": str(volume),
        "MORPHEUS_COMFYUI_DIR": str(comfyui_installation.directory),
        "MORPHEUS_COMFYUI_PYTHON": str(comfyui_installation.python),
        "MORPHEUS_COMFYUI_URL": f"http://127.0.0.1:{free_port()}",
        "MORPHEUS_COMFYUI_ARGS": f"--cpu --disable-api-nodes --base-directory {base} {database}",
    }
    job = json.dumps({"id": "booted", "input": {"workflow_name": "upscale", "params": UPSCALE_PARAMS}})
    done = subprocess.run(
        [REPOSITORY / "pod_start.sh", "--test_input", job],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stderr[-3000:]
    assert (base / "models/upscale_models" / UPSCALER_NAME).readlink() == cached
    result = json.loads((volume / "job_outputs/booted/result.json").read_text())
    (output,) = result["outputs"]
    assert hashlib.sha256(Path(output["path"]).read_bytes()).hexdigest() == output["sha256"]
    assert files_below(base / "output") == []


def test_the_demo(real_comfyui: RealComfyUI, tmp_path: Path) -> None:
    environment = dict(os.environ) | {"TMPDIR": str(tmp_path)}
    done = subprocess.run(
        [sys.executable, REPOSITORY / "scripts/demo.py", "--comfyui", real_comfyui.url],
        env=environment,
        capture_output=True,
        text=True,
        timeout=180,
        check=False,
    )
    assert done.returncode == 0, done.stdout + done.stderr
