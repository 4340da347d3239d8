"""Jobs as clients in production send them, word for word, to a worker on a rehearsal engine."""

from __future__ import annotations

import io
import threading
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any, Final

import pytest
from PIL import Image, ImageDraw

from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.launch import folders_of
from morpheus_worker.jobs import JobResult, Progress
from morpheus_worker.manifest import parse_manifest
from morpheus_worker.pipeline import Worker, run_job
from morpheus_worker.rehearsal import Faults, RehearsalEngine, running_engine
from morpheus_worker.settings import Settings
from morpheus_worker.templates.bind import fill, resolve
from morpheus_worker.templates.resolving import lacking_params
from tests.integration.conftest import assembled
from tests.integration.jobs import check_files, failed, files_below, png, succeeded

SAMPLING: Final = {
    "prompt": "portrait of a woman, soft light",
    "negative_prompt": "blurry",
    "seed": 42,
    "steps": 25,
    "cfg_scale": 7,
    "sampler_name": "euler",
    "scheduler": "normal",
    "checkpoint_name": "talmendoxl_v11_beta.safetensors",
}
SIZE: Final = {"width": 1024, "height": 1024}
FACE: Final = "job_outputs/abc/face.png"
POD_FACE: Final = "/workspace/job_outputs/abc/face.png"


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    """A volume with a face that an earlier job has left, beside that job's record."""
    folder = tmp_path / "volume" / "job_outputs" / "abc"
    folder.mkdir(parents=True)
    for number, name in enumerate(("face.png", "face-2.png", "face-3.png")):
        (folder / name).write_bytes(face(number))
    (folder / "result.json").write_text("{}", encoding="utf-8")
    return tmp_path / "volume"


def face(number: int = 0) -> bytes:
    """A picture with more than one colour, which the engine takes for one with a face."""
    picture = Image.new("RGB", (96 + 16 * number, 128), (40, 40, 60))
    ImageDraw.Draw(picture).ellipse((24, 24, 72, 96), fill=(220, 180, 160))
    stream = io.BytesIO()
    picture.save(stream, "PNG")
    return stream.getvalue()


@pytest.fixture
def engine(tmp_path: Path) -> Iterator[RehearsalEngine]:
    """One that has every model of the manifest."""
    with running_engine(tmp_path / "comfyui", model_names=models_of_manifest(), step_s=0.0) as running:
        yield running


def models_of_manifest() -> dict[str, list[str]]:
    manifest = Settings().manifest
    names: dict[str, list[str]] = {}
    for model in parse_manifest(manifest.read_text(encoding="utf-8"), name=manifest.name).models:
        for place in (model.path, *model.also):
            names.setdefault(place.parts[0], []).append("/".join(place.parts[1:]))
    return names


@pytest.fixture
def worker(engine: RehearsalEngine, volume: Path) -> Iterator[Worker]:
    with assembled(engine.url, volume, LocalFiles(folders_of(engine.base_directory, []))) as made:
        yield made


def run(worker: Worker, volume: Path, payload: dict[str, Any]) -> JobResult:
    result = succeeded(run_job({"id": "mine", "input": payload}, worker))
    check_files(result, volume)
    assert result.warnings == []
    return result


PICTURES: Final[dict[str, dict[str, Any]]] = {
    "creation": {"workflow_name": "creation", **SAMPLING, **SIZE},
    "from scratch": {"workflow_name": "generate_dataset_from_scratch", **SAMPLING, **SIZE},
    "from reference": {"workflow_name": "generate_dataset_from_reference", **SAMPLING, "base_image_pod_path": FACE},
    "pulid": {
        "workflow_name": "generate_dataset_with_pulid",
        **SAMPLING,
        **SIZE,
        "base_image_pod_path": POD_FACE,
        "method": "fidelity",
        "weight": 1.0,
        "start_at": 0.0,
        "end_at": 1.0,
    },
    "instantid": {
        "workflow_name": "generate_dataset_with_instantid",
        **SAMPLING,
        **SIZE,
        "base_image_pod_path": POD_FACE,
        "ip_weight": 0.8,
        "cn_strength": 0.8,
    },
    "older pods": {"workflow": "creation", "config_payload": {**SAMPLING, **SIZE}},
}


@pytest.mark.parametrize("name", PICTURES)
def test_a_picture_as_production_asks_for_it(name: str, worker: Worker, volume: Path) -> None:
    result = run(worker, volume, PICTURES[name])
    assert [output.kind for output in result.outputs] == ["image"]
    assert result.image_pod_path == result.outputs[0].path
    sent = PICTURES[name].get("config_payload", PICTURES[name])
    assert result.params["prompt"] == sent["prompt"]
    assert result.params["seed"] == 42
    assert result.params["cfg"] == 7.0
    if "width" in sent:
        assert (result.outputs[0].width, result.outputs[0].height) == (1024, 1024)


def test_an_identity_is_made_of_a_folder_and_used(worker: Worker, volume: Path) -> None:
    made = run(
        worker,
        volume,
        {"workflow_name": "create_pid", "dataset_pod_path": "job_outputs/abc/", "pid_save_pod_path": "pids/abc.pid"},
    )
    assert [output.kind for output in made.outputs] == ["file"]
    saved = volume / "pids" / "abc.pid"
    assert saved.read_bytes() == Path(made.outputs[0].path or "").read_bytes()
    answer = run_job(
        {
            "id": "other",
            "input": {"workflow_name": "image_identity_transfer", **SAMPLING, "pid_vector_local_path": "pids/abc.pid"},
        },
        worker,
    )
    drawn = succeeded(answer)
    assert drawn.warnings == []
    assert [output.kind for output in drawn.outputs] == ["image"]


def test_an_identity_is_made_at_a_comfyui_elsewhere(engine: RehearsalEngine, volume: Path) -> None:
    """One that is reached by its URL alone, and reports nothing of the file."""
    job = {"workflow_name": "create_pid", "dataset_pod_path": "job_outputs/abc/", "pid_save_pod_path": "pids/abc.pid"}
    with assembled(engine.url, volume, None) as worker:
        (made,) = run(worker, volume, job).outputs
    assert (volume / "pids" / "abc.pid").read_bytes() == Path(made.path or "").read_bytes()


def test_a_folder_without_pictures_is_told_before_anything_runs(worker: Worker, volume: Path) -> None:
    (volume / "job_outputs" / "empty").mkdir()
    answer = failed(
        run_job(
            {"id": "mine", "input": {"workflow_name": "create_pid", "dataset_pod_path": "job_outputs/empty"}}, worker
        )
    )
    assert answer.code == "input_rejected"
    assert "params.dataset_pod_path: the folder 'job_outputs/empty' has no files in it" in answer.error


def test_an_identity_is_never_saved_among_the_models(worker: Worker, volume: Path) -> None:
    job = {
        "workflow_name": "create_pid",
        "dataset_pod_path": "job_outputs/abc/",
        "pid_save_pod_path": "morpheus_model_cache/custom_nodes/evil.py",
    }
    answer = failed(run_job({"id": "mine", "input": job}, worker))
    assert (answer.code, answer.retryable) == ("input_rejected", False)
    assert "pid_save_pod_path" in answer.error
    assert files_below(volume / "job_outputs") == [
        "abc/face-2.png",
        "abc/face-3.png",
        "abc/face.png",
        "abc/result.json",
    ]


def test_a_picture_without_a_face_is_no_face(worker: Worker, volume: Path) -> None:
    (volume / "job_outputs/abc/face.png").write_bytes(png())
    answer = failed(run_job({"id": "mine", "input": PICTURES["pulid"]}, worker))
    assert (answer.code, answer.refundable) == ("no_face", True)


def test_a_model_that_came_after_the_boot_is_found(worker: Worker, volume: Path, engine: RehearsalEngine) -> None:
    job = {**PICTURES["creation"], "checkpoint_name": "new.safetensors"}
    answer = failed(run_job({"id": "early", "input": job}, worker))
    assert (answer.code, answer.retryable) == ("missing_model", False)
    folder = engine.base_directory / "models" / "checkpoints"
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "new.safetensors").touch()
    assert run(worker, volume, job).params["checkpoint_name"] == "new.safetensors"
    graph = {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "newer.safetensors"}},
        "2": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "3": {"class_type": "VAEDecode", "inputs": {"samples": ["2", 0], "vae": ["1", 2]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "graph"}},
    }
    assert failed(run_job({"id": "early", "input": {"workflow": graph}}, worker)).code == "missing_model"
    (folder / "newer.safetensors").touch()
    succeeded(run_job({"id": "late", "input": {"workflow": graph}}, worker))


def test_a_bad_job_fetches_nothing(worker: Worker) -> None:
    """Its picture is at an address that nothing answers; that would be `input_unreachable`, after a while."""
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "https://192.0.2.1/x.png"}},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 9], "filename_prefix": "graph"}},
        "3": {"class_type": "PreviewImage", "inputs": {}},
    }
    answer = failed(run_job({"id": "mine", "input": {"workflow": graph}}, worker))
    assert answer.code == "invalid_workflow"
    assert {(fault["node_id"], fault["input"]) for fault in answer.details["faults"]} == {
        ("2", "images"),
        ("3", "images"),
    }


def test_the_deployment_decides_about_faces(engine: RehearsalEngine, volume: Path) -> None:
    files = LocalFiles(folders_of(engine.base_directory, []))
    job: dict[str, Any] = {"workflow_name": "sdxl_txt2img_pag", "params": {"prompt": "1girl, [red] hair", "seed": 1}}
    with assembled(engine.url, volume, files, ENABLE_FACE_REFINEMENT="0") as worker:
        assert run(worker, volume, job).params["face_detail"] is False
    with assembled(engine.url, volume, files) as worker:
        other = {**job, "params": {**job["params"], "seed": 2}}
        assert run(worker, volume, other).params["face_detail"] is True


def test_a_neighbour_without_a_face_is_not_this_job_s(worker: Worker, volume: Path, engine: RehearsalEngine) -> None:
    """One prompt finds no face, and minds it not; the next one waits behind it, and would."""
    (volume / "job_outputs/abc/plain.png").write_bytes(png())
    params = {key: value for key, value in PICTURES["pulid"].items() if key != "workflow_name"}
    resolved = resolve(worker.library.get("sdxl_pulid"), params, object_info=worker.comfy.object_info)
    careless = fill(resolved, {medium.key: "job_outputs/abc/plain.png" for medium in resolved.media}).graph
    engine.set_faults(Faults(slow_node=0.1))
    executing = threading.Event()

    def watch(progress: Progress) -> None:
        if progress.stage == "executing":
            executing.set()

    with ThreadPoolExecutor(2) as pool:
        first = pool.submit(run_job, {"id": "first", "input": {"workflow": careless}}, worker, on_progress=watch)
        assert executing.wait(30)
        second = pool.submit(run_job, {"id": "second", "input": PICTURES["pulid"]}, worker)
        succeeded(second.result(60))
        succeeded(first.result(60))


QUICK: Final[dict[str, dict[str, Any]]] = {"liveportrait_animate": {"fps": 12, "size": 256}, "upscale": {"scale": 0.5}}


@pytest.mark.parametrize("name", sorted(path.stem for path in Settings().workflows_dir.glob("*.json")))
def test_every_workflow_runs_as_it_ships(name: str, worker: Worker, volume: Path) -> None:
    """With what it requires, and nothing else."""
    (volume / "abc.pid").write_bytes(b"vector")
    media = {"image": FACE, "dir": "job_outputs/abc", "file": "abc.pid", None: "pids/made.pid"}
    template = worker.library.get(name).seen_by(worker.comfy.object_info)
    params: dict[str, Any] = {**dict.fromkeys(template.seed_keys, 7), **QUICK.get(name, {})}
    while lacking := lacking_params(template, params):
        for param in lacking:
            params[param.key] = "a lighthouse" if param.type == "string" else media[param.media]
    result = run(worker, volume, {"workflow_name": name, "params": params})
    wanted = {"liveportrait_animate": "video", "identity_create": "file"}.get(name, "image")
    assert wanted in {output.kind for output in result.outputs}
    for video in (output for output in result.outputs if output.kind == "video"):
        assert (video.duration_s, video.path) == (10.0, result.video_pod_path)


def test_a_node_pack_that_is_not_there_is_named_and_so_is_the_way_without_it(tmp_path: Path, volume: Path) -> None:
    job: dict[str, Any] = {"workflow_name": "sdxl_txt2img_pag", "params": {"prompt": "1girl"}}
    with (
        running_engine(tmp_path / "bare", model_names=models_of_manifest(), packs=()) as engine,
        assembled(engine.url, volume, LocalFiles(folders_of(engine.base_directory, []))) as worker,
    ):
        answer = failed(run_job({"id": "mine", "input": job}, worker))
        assert answer.code == "missing_node"
        assert "ComfyUI-Impact-Pack" in answer.error
        assert answer.error.endswith("the params.face_detail false does without them")
        run(worker, volume, {**job, "params": {**job["params"], "face_detail": False}})
