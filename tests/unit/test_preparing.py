"""How long a job may take, and which inputs of a caller's graph are media."""

from __future__ import annotations

import base64
import io
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest
from PIL import Image

from morpheus_worker.addresses import PrivateHosts
from morpheus_worker.comfy.client import ComfyClient
from morpheus_worker.comfy.files import LocalFiles
from morpheus_worker.comfy.launch import folders_of
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.deadlines import Allowance, Deadline
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.jobs import parse_request
from morpheus_worker.library import Library
from morpheus_worker.media import Limits, Sources, Stage, staged
from morpheus_worker.preparing import Worker, prepare, timeout_of
from morpheus_worker.rehearsal.clip import mp4
from morpheus_worker.replaying import Replays
from morpheus_worker.settings import Settings

GRAPH = {"1": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}


def loader(name: str, config: list[Any]) -> dict[str, Any]:
    return {"input": {"required": {name: config}}, "output": ["*"], "output_node": True}


INFO = ObjectInfo(
    {
        "LoadImage": loader("image", [["a.png"], {"image_upload": True}]),
        "LoadVideo": loader("file", ["COMBO", {"options": ["a.mp4"], "video_upload": True}]),
        "LoadAudio": loader("audio", [["a.wav"], {"audio_upload": True}]),
        "PackLoader": loader("file", [["a.bin"], {}]),
        "VHS_LoadVideo": loader("video", [["a.mp4"], {}]),
        "Ask": loader("service", [["https://one.example/", "https://two.example/"], {}]),
        "Say": loader("text", ["STRING", {}]),
        "LoraByText": loader("lora_name", ["STRING", {}]),
        "Upscale": loader("model_name", ["COMBO", {"options": ["there.pth"]}]),
        "UpscaleModelLoader": loader("model_name", ["COMBO", {"options": ["there.pth"]}]),
    }
)
CLIP = mp4([Image.new("RGB", (16, 16))], 8)


def picture() -> bytes:
    raw = io.BytesIO()
    Image.new("RGB", (8, 6)).save(raw, "PNG")
    return raw.getvalue()


def uri(content: bytes) -> str:
    return f"data:;base64,{base64.b64encode(content).decode()}"


@pytest.fixture
def worker(tmp_path: Path) -> Worker:
    """Of a worker, only what decides."""
    for name, about in (("quick", {"timeout_s": 30, "aliases": ["fast"]}), ("usual", {})):
        (tmp_path / f"{name}.json").write_text(json.dumps({"_about": about, **GRAPH}))
    return Worker(
        settings=Settings(job_timeout_s=500.0),
        comfy=cast(ComfyClient, SimpleNamespace(object_info=INFO, refresh=lambda *_: False)),
        files=LocalFiles(folders_of(tmp_path / "comfy", [])),
        library=Library.load(tmp_path),
        replays=Replays(tmp_path),
    )


@pytest.mark.parametrize(
    ("job_input", "timeout_s"),
    [
        ({"workflow_name": "quick"}, 30),
        ({"workflow_name": "fast"}, 30),
        ({"workflow_name": "quick", "timeout_s": 7}, 7),
        ({"workflow_name": "quick", "timeout_s": 700}, 700),
        ({"workflow_name": "usual"}, 500),
        ({"workflow": GRAPH}, 500),
        ({"workflow": GRAPH, "timeout_s": 0.5}, 0.5),
    ],
)
def test_the_jobs_own_wish_then_the_workflows_then_the_settings(
    worker: Worker, job_input: dict[str, Any], timeout_s: float
) -> None:
    assert timeout_of(parse_request("job-1", job_input), worker) == timeout_s


def test_a_workflow_that_nobody_knows_is_said_at_once(worker: Worker) -> None:
    with pytest.raises(MorpheusError) as unknown:
        timeout_of(parse_request("job-1", {"workflow_name": "quik"}), worker)
    assert unknown.value.code == Code.UNKNOWN_WORKFLOW


# --- media in a caller's graph


def prepared(
    worker: Worker, tmp_path: Path, *nodes: tuple[str, str, object], images: list[dict[str, str]] | None = None
) -> list[Any]:
    """The inputs of these (class, input, value) as ComfyUI gets them, while their files are there."""
    graph = {
        str(number): {"class_type": kind, "inputs": {name: value}} for number, (kind, name, value) in enumerate(nodes)
    }
    job_input = {"workflow": graph, **({"images": images} if images else {})}
    sources = Sources(PrivateHosts(), 5.0)
    stage = Stage("tok", worker.files, tmp_path, Limits(10**6, 10**6), sources, Allowance.of(60.0))
    with staged(stage):
        made = prepare(parse_request("job-1", job_input), worker, stage).graph
        placed = [made[str(number)]["inputs"][name] for number, (_, name, _) in enumerate(nodes)]
        for value in placed:
            assert not str(value).startswith("tok-") or (tmp_path / "comfy" / "input" / value).is_file()
        return placed


def refused(worker: Worker, tmp_path: Path, *nodes: tuple[str, str, object], **more: Any) -> MorpheusError:
    with pytest.raises(MorpheusError) as failure:
        prepared(worker, tmp_path, *nodes, **more)
    return failure.value


@pytest.mark.parametrize(
    ("kind", "name", "content", "placed"),
    [
        ("LoadImage", "image", picture(), "tok-0-inline.png"),
        ("LoadVideo", "file", CLIP, "tok-0-inline.mp4"),
        ("LoadAudio", "audio", CLIP, "tok-0-inline.mp4"),
        ("PackLoader", "file", CLIP, "tok-0-inline.mp4"),
    ],
)
def test_a_loader_gets_what_a_graph_brings(
    worker: Worker, tmp_path: Path, kind: str, name: str, content: bytes, placed: str
) -> None:
    assert prepared(worker, tmp_path, (kind, name, uri(content))) == [placed]
    assert prepared(worker, tmp_path, (kind, name, f"{uri(content)} [input]")) == [placed]


@pytest.mark.parametrize(
    ("kind", "name", "said"),
    [
        ("LoadImage", "image", "not a picture"),
        ("LoadVideo", "file", "not a video"),
        ("LoadAudio", "audio", "not a sound"),
    ],
)
def test_each_loader_wants_its_own_kind(worker: Worker, tmp_path: Path, kind: str, name: str, said: str) -> None:
    failure = refused(worker, tmp_path, (kind, name, uri(b"%PDF-1.7")))
    assert f"node 0 ({kind}) input {name}: is a PDF document, {said}" in failure.message


@pytest.mark.parametrize(
    "node",
    [
        ("Ask", "service", "https://two.example/"),
        ("Say", "text", "https://two.example/"),
        ("Say", "text", uri(picture())),
        ("LoadImage", "image", "a.png"),
        ("PackLoader", "file", "/runpod-volume/a.bin"),
        ("LoadImage", "image", ["7", 0]),
        ("LoadImage", "other", "https://two.example/"),
    ],
)
def test_what_is_no_medium_stays_as_it_is(worker: Worker, tmp_path: Path, node: tuple[str, str, object]) -> None:
    nodes = [node, *([("Say", "text", "x")] * 7)]
    assert prepared(worker, tmp_path, *nodes)[0] == node[2]


@pytest.mark.parametrize(
    "node",
    [
        ("LoadImage", "image", {"__value__": "/etc/secret.png"}),
        ("LoadImage", "image", {"__value__": "../secret.png"}),
        ("VHS_LoadVideo", "video", "/etc/secret.mp4"),
        ("VHS_LoadVideo", "video", "../../secret.mp4"),
    ],
)
def test_no_way_of_writing_a_path_leads_off_the_volume(
    worker: Worker, tmp_path: Path, node: tuple[str, str, object]
) -> None:
    assert refused(worker, tmp_path, node).code in (Code.INPUT_REJECTED, Code.INPUT_UNREACHABLE)


def test_a_loader_of_a_node_pack_takes_what_lies_on_the_volume(worker: Worker, tmp_path: Path) -> None:
    (tmp_path / "job_outputs").mkdir()
    (tmp_path / "job_outputs" / "x.mp4").write_bytes(CLIP)
    assert prepared(worker, tmp_path, ("VHS_LoadVideo", "video", "job_outputs/x.mp4")) == ["tok-0-x.mp4"]
    assert prepared(worker, tmp_path, ("VHS_LoadVideo", "video", "a.mp4")) == ["a.mp4"]


def test_a_class_that_is_not_there_is_told_before_anything_is_fetched(worker: Worker, tmp_path: Path) -> None:
    failure = refused(worker, tmp_path, ("Unknown", "x", 1), ("LoadImage", "image", "https://nowhere.example/x.png"))
    assert failure.code == Code.MISSING_NODE
    assert "node 0: this ComfyUI has no node class 'Unknown'" in failure.message


def test_one_picture_for_two_loaders_is_what_each_of_them_wants(worker: Worker, tmp_path: Path) -> None:
    images = [{"name": "in.png", "image": base64.b64encode(picture()).decode()}]
    nodes = [("PackLoader", "file", "in.png"), ("LoadImage", "image", "in.png"), ("PackLoader", "file", "in.png")]
    assert prepared(worker, tmp_path, *nodes, images=images) == ["tok-0-in.png"] * 3
    images = [{"name": "in.png", "image": base64.b64encode(CLIP).decode()}]
    assert "is an MP4 video, not a picture" in refused(worker, tmp_path, *nodes, images=images).message


@pytest.mark.parametrize(
    ("node", "looks"),
    [
        (("UpscaleModelLoader", "model_name", "there.pth"), 0),
        (("UpscaleModelLoader", "model_name", "new.pth"), 1),
        (("Upscale", "model_name", "new.pth"), 0),
        (("LoraByText", "lora_name", "any text"), 0),
    ],
)
def test_the_volume_is_looked_at_anew_for_a_model_that_no_list_has_alone(
    worker: Worker, tmp_path: Path, node: tuple[str, str, object], looks: int
) -> None:
    looked: list[Deadline] = []

    def link_anew(deadline: Deadline) -> bool:
        looked.append(deadline)
        return False

    prepared(replace(worker, link_anew=link_anew), tmp_path, node)
    assert len(looked) == looks
