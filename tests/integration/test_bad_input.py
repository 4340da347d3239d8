"""Every bad job ends in one error with its code that names every problem; the next job runs; nothing is left behind."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.launch import folders_of
from morpheus_worker.pipeline import Worker, run_job
from morpheus_worker.rehearsal import RehearsalEngine

from .conftest import assembled
from .jobs import INVERT_GRAPH, SMOKE_GRAPH, data_uri, failed, files_below, graph_job, png, succeeded

UI_EXPORT = {"last_node_id": 2, "nodes": [{"id": 1, "type": "SaveImage"}], "links": [], "version": 0.4}


def changed(node_id: str, **inputs: Any) -> dict[str, Any]:
    node = SMOKE_GRAPH[node_id]
    return graph_job(SMOKE_GRAPH | {node_id: {**node, "inputs": {**node["inputs"], **inputs}}})


def smoke(**params: Any) -> dict[str, Any]:
    return {"workflow_name": "smoke", "params": params}


def upscale(image: object) -> dict[str, Any]:
    return {"workflow_name": "upscale", "params": {"image": image}}


CASES: dict[str, tuple[Any, str, tuple[str, ...]]] = {
    # input, code, what the sentence must say
    "not JSON": ("{", "invalid_input", ("not JSON",)),
    "null": (None, "invalid_input", ("null", "object")),
    "a list": ([1], "invalid_input", ("list", "object")),
    "no workflow": ({}, "invalid_input", ("workflow_name",)),
    "both": ({"workflow": "smoke", "workflow_name": "smoke"}, "invalid_input", ("workflow_name", "one of them")),
    "three problems": (
        {"workflow_name": 7, "timeout_s": -1, "images": [{"name": "x"}]},
        "invalid_input",
        ("workflow_name", "timeout_s", "images"),
    ),
    "NaN": (smoke(width=float("nan")), "invalid_input", ("params.width", "finite")),
    "unknown": ({"workflow_name": "smok"}, "unknown_workflow", ("smok", "did you mean 'smoke'")),
    "dots in a name": ({"workflow_name": "../smoke"}, "unknown_workflow", ("../smoke",)),
    "an absolute name": ({"workflow_name": "/etc/passwd"}, "unknown_workflow", ("/etc/passwd",)),
    "UI format": (graph_job(UI_EXPORT), "invalid_workflow", ("API", "Export")),
    "an empty graph": (graph_job({}), "invalid_workflow", ("no nodes",)),
    "nodes that are none": (graph_job({"1": 5, "2": {"inputs": {}}}), "invalid_workflow", ("1", "2", "class_type")),
    "an unknown class": (
        graph_job(
            SMOKE_GRAPH | {"7": {"class_type": "KSamplr", "inputs": {}}, "8": {"class_type": "Foo", "inputs": {}}}
        ),
        "missing_node",
        ("KSamplr", "did you mean 'KSampler'", "Foo"),
    ),
    "an absent model": (
        {"workflow_name": "sdxl_txt2img", "params": {"prompt": "x", "checkpoint_name": "sd_xl_bas_1.0.safetensors"}},
        "missing_model",
        ("sd_xl_bas_1.0", "did you mean 'sd_xl_base_1.0.safetensors'"),
    ),
    "a model found missing at run time": (
        {"workflow_name": "upscale", "params": {"image": data_uri(png()), "upscale_model": "nope.pth"}},
        "missing_model",
        ("nope.pth",),
    ),
    "no output node": (graph_job({"1": SMOKE_GRAPH["1"]}), "invalid_workflow", ("no outputs",)),
    "out of range in a graph": (changed("1", width=0), "invalid_workflow", ("node 1", "width", "0", "1")),
    "a link to nowhere": (changed("2", images=["9", 0]), "invalid_workflow", ("node 2", "node 9, which is not there")),
    "a circle": (
        graph_job(
            {
                "1": {"class_type": "ImageInvert", "inputs": {"image": ["2", 0]}},
                "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
                "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
            }
        ),
        "invalid_workflow",
        ("circle", "1 ← 2 ← 1"),
    ),
    "params of the wrong type and range": (
        smoke(width="wide", height=0, color=-1, batch_size=99),
        "invalid_params",
        ("params.width", "params.height", "params.color", "params.batch_size"),
    ),
    "a required param missing": ({"workflow_name": "sdxl_txt2img", "params": {}}, "invalid_params", ("prompt",)),
    "a wrong choice": (
        {"workflow_name": "sdxl_txt2img", "params": {"prompt": "x", "sampler_name": "euleer", "aspect": "16:10"}},
        "invalid_params",
        ("euleer", "did you mean 'euler'", "16:10"),
    ),
    "a path that is not there": (upscale("job_outputs/nope.png"), "input_unreachable", ("params.image", "nope.png")),
    "a path outside": (upscale("/etc/passwd"), "input_rejected", ("/etc/passwd",)),
    "a path that climbs": (upscale("job_outputs/../../etc/passwd"), "input_rejected", ("..",)),
    "a picture that is none": (upscale(data_uri(b"<html>")), "input_rejected", ("not a picture", "<html>")),
    "a link to an output that a node does not have": (
        changed("2", images=["1", 9]),
        "invalid_workflow",
        ("node 2", "output 9 of EmptyImage"),
    ),
    "a graph as text": ({"workflow": '{"1": {}}'}, "invalid_input", ("graph as text",)),
    "a URL among a graph's pictures": (
        graph_job(INVERT_GRAPH, images=[{"name": "input_image.png", "image": "ftp://example.com/x.png"}]),
        "input_rejected",
        ("input.images 'input_image.png'", "begins with ftp://"),
    ),
    "base64 that is none": (upscale("data:image/png;base64,@@@"), "input_rejected", ("base64",)),
    "a URL of the machine's metadata": (upscale("http://169.254.169.254/x"), "input_rejected", ("169.254.169.254",)),
    "a graph that reads the machine": (
        graph_job(INVERT_GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": "/etc/passwd"}}}),
        "input_rejected",
        ("/etc/passwd", "node 1"),
    ),
    "a graph that climbs": (
        graph_job(INVERT_GRAPH | {"1": {"class_type": "LoadImage", "inputs": {"image": "../../etc/passwd"}}}),
        "input_rejected",
        ("..", "node 1"),
    ),
    "a number as a picture": (upscale(5), "invalid_params", ("image",)),
    "two bad pictures": (
        graph_job(
            INVERT_GRAPH | {"9": {"class_type": "LoadImage", "inputs": {"image": "b.png"}}},
            images=[{"name": "input_image.png", "image": "AAAA"}, {"name": "b.png", "image": "@"}],
        ),
        "input_rejected",
        ("input_image.png", "b.png"),
    ),
}


@pytest.mark.parametrize("case", CASES)
def test_bad_input(case: str, worker: Worker, engine: RehearsalEngine, volume: Path) -> None:
    sent, code, said = CASES[case]
    answer = failed(run_job({"id": "bad", "input": sent}, worker))
    assert answer.code == code, answer.error
    assert [part for part in said if part not in answer.error] == [], answer.error
    assert "Traceback" not in answer.error
    assert files_below(volume, engine.base_directory / "input", engine.base_directory / "output") == []
    assert not (volume / "job_outputs/bad").exists()
    succeeded(run_job({"id": "good", "input": {"workflow_name": "smoke"}}, worker))


@pytest.mark.parametrize("job_id", ["../x", "/etc", "", ".hidden", "a/b", "a\0b", "x" * 129, None, 7])
def test_a_job_id_that_is_no_folder_name_is_refused(job_id: object, worker: Worker, volume: Path) -> None:
    answer = failed(run_job({"id": job_id, "input": {"workflow_name": "smoke"}}, worker))
    assert answer.code == "invalid_input"
    assert files_below(volume) == []


@pytest.fixture
def mounted(tmp_path: Path) -> Iterator[Path]:
    """A file system of 256 KiB, which can be filled and made read-only, as only root can make one."""
    root = tmp_path / "mounted"
    root.mkdir()
    made = subprocess.run(
        ["mount", "-t", "tmpfs", "-o", "size=256k", "tmpfs", str(root)], capture_output=True, text=True
    )
    if made.returncode != 0:
        pytest.skip(f"needs to mount a small file system, which takes root: {made.stderr.strip()}")
    try:
        yield root
    finally:
        subprocess.run(["umount", str(root)], check=True)


def test_a_volume_that_fills_up_while_publishing(mounted: Path, engine: RehearsalEngine) -> None:
    graph = {
        "2": {"class_type": "EmptyImage", "inputs": {"width": 2000, "height": 2000, "batch_size": 3, "color": 1}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "big"}},
    }
    (mounted / "ballast").write_bytes(b"x" * 240_000)
    with assembled(engine.url, mounted, LocalFiles(folders_of(engine.base_directory, []))) as worker:
        answer = failed(run_job({"id": "big", "input": graph_job(graph)}, worker))
        assert (answer.code, answer.retryable) == ("volume_full", True)
        assert files_below(mounted, engine.base_directory / "output") == ["ballast"]
        (mounted / "ballast").unlink()
        succeeded(run_job({"id": "big", "input": {"workflow_name": "smoke"}}, worker))


def test_a_read_only_volume(mounted: Path, engine: RehearsalEngine) -> None:
    with assembled(engine.url, mounted, LocalFiles(folders_of(engine.base_directory, []))) as worker:
        subprocess.run(["mount", "-o", "remount,ro", str(mounted)], check=True)
        answer = failed(run_job({"id": "x", "input": {"workflow_name": "smoke"}}, worker))
        assert answer.code == "volume_unavailable"
        assert "read-only" in answer.error
        assert files_below(engine.base_directory / "output") == []


def test_a_volume_with_something_in_the_way_is_said_before_the_gpu_works(
    worker: Worker, engine: RehearsalEngine, volume: Path
) -> None:
    """A file in the place of the folder: what root, too, cannot write into."""
    (volume / "job_outputs").write_text("in the way")
    answer = failed(run_job({"id": "x", "input": {"workflow_name": "smoke"}}, worker))
    assert (answer.code, answer.retryable) == ("volume_unavailable", True)
    assert files_below(engine.base_directory / "output") == []
    os.unlink(volume / "job_outputs")
    succeeded(run_job({"id": "x", "input": {"workflow_name": "smoke"}}, worker))
