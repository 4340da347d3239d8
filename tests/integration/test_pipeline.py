"""Whole jobs, on the rehearsal engine, through real sockets and files."""

from __future__ import annotations

import json
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from morpheus_worker.jobs import Progress
from morpheus_worker.pipeline import Worker, run_job
from morpheus_worker.rehearsal import Faults, RehearsalEngine

from .jobs import INVERT_GRAPH, SMOKE_GRAPH, check_files, data_uri, failed, files_below, graph_job, png, succeeded

FORMS: dict[str, dict[str, Any]] = {
    "name and params": {"workflow_name": "smoke", "params": {"width": 40, "height": 8}},
    "flat keys": {"workflow_name": "smoke", "width": 40, "height": 8, "orchestrator_task": "t-1"},
    "config_payload": {"workflow": "smoke", "config_payload": {"width": 40, "height": 8}},
    "params win": {
        "workflow_name": "smoke",
        "height": 1,
        "config_payload": {"height": 2, "width": 40},
        "params": {"height": 8},
    },
    "graph": graph_job(
        SMOKE_GRAPH | {"1": {**SMOKE_GRAPH["1"], "inputs": {**SMOKE_GRAPH["1"]["inputs"], "width": 40, "height": 8}}}
    ),
}


@pytest.mark.parametrize("form", FORMS)
def test_every_form_of_input_gives_the_same_picture(form: str, worker: Worker, volume: Path) -> None:
    result = succeeded(run_job({"id": "job-1", "input": FORMS[form]}, worker))
    (path,) = check_files(result, volume)
    with Image.open(path) as picture:
        assert picture.size == (40, 8) == (result.outputs[0].width, result.outputs[0].height)
    assert result.image_pod_path == str(path)
    assert json.loads((path.parent / "result.json").read_text()) == result.wire()


def test_an_unknown_flat_key_warns_and_an_unknown_param_is_refused(worker: Worker) -> None:
    flat = succeeded(run_job({"id": "a", "input": {"workflow_name": "smoke", "widht": 9}}, worker))
    assert any("widht" in warning and "width" in warning for warning in flat.warnings)
    strict = failed(run_job({"id": "b", "input": {"workflow_name": "smoke", "params": {"widht": 9}}}, worker))
    assert strict.code == "invalid_params"
    assert "did you mean 'width'?" in strict.error


def test_the_orchestrators_literal_job_runs(worker: Worker, volume: Path) -> None:
    job = {
        "workflow_name": "creation", "prompt": "a lighthouse", "negative_prompt": "fog", "seed": 42, "steps": 3,
        "cfg_scale": 7, "sampler_name": "euler", "scheduler": "normal",
        "checkpoint_name": "talmendoxl_v11_beta.safetensors", "width": 128, "height": 64,
    }  # fmt: skip
    result = succeeded(run_job({"id": "orchestrated", "input": job}, worker))
    check_files(result, volume)
    assert result.warnings == []
    assert (result.params["cfg"], result.params["seed"], result.workflow_name) == (7, 42, "sdxl_txt2img")
    assert (result.outputs[0].width, result.outputs[0].height) == (128, 64)


def test_a_seed_that_is_not_given_is_drawn_and_reported(worker: Worker) -> None:
    job = {
        "workflow_name": "sdxl_txt2img",
        "params": {"prompt": "x", "steps": 1, "width": 64, "height": 64, "seed": -1},
    }
    seeds = {succeeded(run_job({"id": f"s{n}", "input": job}, worker)).params["seed"] for n in range(2)}
    assert len(seeds) == 2
    assert all(0 <= seed < 2**53 for seed in seeds)


def test_the_same_job_again_is_not_answered_with_files_that_were_moved_away(worker: Worker, volume: Path) -> None:
    """ComfyUI answers a repeated prompt from its cache, with the file name of the first run."""
    results = [succeeded(run_job({"id": "local_test", "input": {"workflow_name": "smoke"}}, worker)) for _ in range(3)]
    names = [check_files(result, volume)[0].name for result in results]
    assert names == ["smoke_00001_.png", "smoke_00001_-2.png", "smoke_00001_-3.png"]
    records = {"result.json", "result-2.json", "result-3.json"}
    assert {path.name for path in (volume / "job_outputs/local_test").iterdir()} == records | set(names)


def test_outputs_go_beside_uploads_and_never_over_them(worker: Worker, volume: Path) -> None:
    folder = volume / "job_outputs/job"
    folder.mkdir(parents=True)
    (folder / "smoke_00001_.png").write_bytes(b"an upload")
    result = succeeded(run_job({"id": "job", "input": {"workflow_name": "smoke"}}, worker))
    assert result.outputs[0].filename == "smoke_00001_-2.png"
    assert (folder / "smoke_00001_.png").read_bytes() == b"an upload"


def test_nothing_stays_at_comfyui_after_a_job(worker: Worker, engine: RehearsalEngine, volume: Path) -> None:
    (volume / "in.png").write_bytes(png())
    job = {"workflow_name": "upscale", "params": {"image": "/workspace/in.png"}}
    result = succeeded(run_job({"id": "up", "input": job}, worker))
    assert (result.outputs[0].width, result.outputs[0].height) == (96, 64)
    assert files_below(engine.base_directory / "input", engine.base_directory / "output") == []


@pytest.mark.parametrize("sent", ["job_outputs/abc/in.png", "/runpod-volume/job_outputs/abc/in.png", "data"])
def test_media_come_from_the_volume_or_inline(sent: str, worker: Worker, volume: Path) -> None:
    (volume / "job_outputs/abc").mkdir(parents=True)
    (volume / "job_outputs/abc/in.png").write_bytes(png())
    value = data_uri(png()) if sent == "data" else sent
    result = succeeded(run_job({"id": "m", "input": {"workflow_name": "upscale", "params": {"image": value}}}, worker))
    check_files(result, volume)
    assert len(json.dumps(result.params)) < 300, "inline data does not come back in the result"


def test_two_graphs_with_an_input_of_the_same_name_never_see_each_others(worker: Worker, volume: Path) -> None:
    colors = {"red": (255, 0, 0), "green": (0, 255, 0)}

    def run(name: str) -> Path:
        images = [{"name": "input_image.png", "image": data_uri(png(colors[name]))}]
        result = succeeded(run_job({"id": name, "input": graph_job(INVERT_GRAPH, images=images)}, worker))
        return check_files(result, volume)[0]

    with ThreadPoolExecutor(2) as threads:
        paths = dict(zip(colors, threads.map(run, colors), strict=True))
    for name, path in paths.items():
        with Image.open(path) as picture:
            assert picture.convert("RGB").getpixel((0, 0)) == tuple(255 - part for part in colors[name])


def test_bare_base64_and_volume_paths_work_in_a_graph(worker: Worker, volume: Path) -> None:
    (volume / "x.png").write_bytes(png())
    bare = [{"name": "input_image.png", "image": data_uri(png()).partition(",")[2]}]
    succeeded(run_job({"id": "bare", "input": graph_job(INVERT_GRAPH, images=bare)}, worker))
    on_volume = json.loads(json.dumps(INVERT_GRAPH).replace("input_image.png", "/runpod-volume/x.png"))
    succeeded(run_job({"id": "path", "input": graph_job(on_volume)}, worker))


def test_a_picture_that_was_cut_short_is_taken_as_far_as_it_goes(worker: Worker) -> None:
    """As ComfyUI takes it: the worker never refuses what ComfyUI would accept."""
    images = [{"name": "input_image.png", "image": data_uri(png(size=(200, 200))[:120])}]
    succeeded(run_job({"id": "cut", "input": graph_job(INVERT_GRAPH, images=images)}, worker))


def test_previews_are_published_when_nothing_else_is(worker: Worker, volume: Path) -> None:
    graph = {"1": SMOKE_GRAPH["1"], "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    for number in range(2):
        result = succeeded(run_job({"id": f"preview-{number}", "input": graph_job(graph)}, worker))
        assert len(check_files(result, volume)) == 1
        assert any("preview" in warning for warning in result.warnings)


def test_texts_come_inline_and_a_graph_with_no_files_says_so(worker: Worker) -> None:
    graph = {
        "1": {"class_type": "PrimitiveString", "inputs": {"value": "ein Text, 日本語"}},
        "2": {"class_type": "PreviewAny", "inputs": {"source": ["1", 0]}},
    }
    result = succeeded(run_job({"id": "text", "input": graph_job(graph)}, worker))
    assert [(output.kind, output.text, output.path) for output in result.outputs] == [
        ("text", "ein Text, 日本語", None)
    ]


def test_progress_runs_through_the_stages_and_never_back(worker: Worker) -> None:
    seen: list[Progress] = []
    job = {"workflow_name": "sdxl_txt2img", "params": {"prompt": "x", "steps": 8, "width": 64, "height": 64}}
    succeeded(run_job({"id": "p", "input": job}, worker, on_progress=seen.append))
    stages = list(dict.fromkeys(progress.stage for progress in seen))
    assert stages in (["staging", "queued", "executing", "publishing"], ["staging", "executing", "publishing"])
    assert [p.percent for p in seen] == sorted(p.percent for p in seen)
    assert seen[-1].percent == 100
    assert any(p.class_type == "KSampler" and p.steps == 8 for p in seen)


def test_a_remote_comfyui_is_worked_through_its_http_alone(remote_worker: Worker, volume: Path) -> None:
    job = {"workflow_name": "upscale", "params": {"image": data_uri(png())}}
    check_files(succeeded(run_job({"id": "remote", "input": job}, remote_worker)), volume)
    other = {"workflow_name": "upscale", "params": {"image": data_uri(png((1, 2, 3)))}}
    again = succeeded(run_job({"id": "remote", "input": other}, remote_worker))
    assert again.outputs[0].filename == "upscale_00001_-2.png"


def test_a_cancelled_job_stops_at_comfyui_and_leaves_nothing(
    worker: Worker, engine: RehearsalEngine, volume: Path
) -> None:
    engine.set_faults(Faults(slow_node=0.3))
    cancelled = threading.Event()
    job = {"id": "c", "input": {"workflow_name": "smoke"}}
    with ThreadPoolExecutor(1) as threads:
        running = threads.submit(
            run_job, job, worker, cancelled=cancelled, on_progress=lambda p: cancelled.set() if p.node_id else None
        )
        answer = failed(running.result(timeout=20))
    assert (answer.code, answer.refundable) == ("cancelled", False)
    assert files_below(volume, engine.base_directory / "output") == []
    assert not (volume / "job_outputs/c").exists()


def test_a_cancel_while_publishing_leaves_nothing(worker: Worker, engine: RehearsalEngine, volume: Path) -> None:
    cancelled = threading.Event()
    job = {"id": "late", "input": {"workflow_name": "smoke"}}
    answer = failed(
        run_job(
            job,
            worker,
            cancelled=cancelled,
            on_progress=lambda progress: cancelled.set() if progress.stage == "publishing" else None,
        )
    )
    assert answer.code == "cancelled"
    assert files_below(volume, engine.base_directory / "output") == []


def test_previews_of_a_failed_job_do_not_pile_up(worker: Worker, engine: RehearsalEngine, volume: Path) -> None:
    graph = {
        "1": SMOKE_GRAPH["1"],
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
        "3": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "never"}},
    }
    engine.set_faults(Faults(node_error="4"))
    assert failed(run_job({"id": "f", "input": graph_job(graph)}, worker)).code == "execution_failed"
    assert files_below(engine.base_directory / "temp", engine.base_directory / "output", volume) == []


def test_previews_beside_saved_pictures_do_not_pile_up(worker: Worker, engine: RehearsalEngine, volume: Path) -> None:
    graph = SMOKE_GRAPH | {"3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}}
    result = succeeded(run_job({"id": "both", "input": graph_job(graph)}, worker))
    assert [path.name for path in check_files(result, volume)] == ["graph_00001_.png"]
    assert files_below(engine.base_directory / "temp", engine.base_directory / "output") == []


def test_a_deadline_ends_the_job(worker: Worker, engine: RehearsalEngine, volume: Path) -> None:
    engine.set_faults(Faults(slow_node=0.4))
    answer = failed(run_job({"id": "t", "input": {"workflow_name": "smoke", "timeout_s": 0.2}}, worker))
    assert (answer.code, answer.retryable) == ("timeout", True)
    engine.set_faults(Faults())
    succeeded(run_job({"id": "t", "input": {"workflow_name": "smoke"}}, worker))


FAULTS: dict[str, tuple[Faults, str | None]] = {
    "sockets cut": (Faults(drop_socket=2, slow_node=0.05), None),
    "garbage frames": (Faults(garbage_frame=True), None),
    "two answers of 500": (Faults(http_500=2), None),
    "out of memory": (Faults(out_of_memory="SaveImage"), "gpu_out_of_memory"),
    "a node that raises": (Faults(node_error="SaveImage"), "execution_failed"),
    "an entry without outputs, the events whole": (Faults(empty_history=True), None),
    "an entry without outputs, the events not": (Faults(empty_history=True, garbage_frame=True), None),
    "an entry that never appears, the events whole": (Faults(no_history=True), None),
    "an entry that never appears, the events not": (Faults(no_history=True, garbage_frame=True), "comfyui_crashed"),
}


@pytest.mark.parametrize("fault", FAULTS)
def test_what_goes_wrong_at_comfyui_ends_the_job_rightly(
    fault: str, worker: Worker, engine: RehearsalEngine, volume: Path
) -> None:
    faults, code = FAULTS[fault]
    succeeded(run_job({"id": "before", "input": {"workflow_name": "smoke"}}, worker))
    before = files_below(volume)
    engine.set_faults(faults)
    answer = run_job({"id": "f", "input": {"workflow_name": "smoke"}}, worker)
    if code is None:
        check_files(succeeded(answer), volume)
    else:
        assert failed(answer).code == code
        assert files_below(volume) == before
    engine.set_faults(Faults())
    succeeded(run_job({"id": "next", "input": {"workflow_name": "smoke"}}, worker))
