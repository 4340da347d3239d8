"""The rehearsal engine over real sockets, and as a process in ComfyUI's place."""

from __future__ import annotations

import asyncio
import contextlib
import io
import json
import os
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
from PIL import Image

from morpheus_worker.rehearsal import Faults, RehearsalEngine, install_tree, running_engine
from morpheus_worker.rehearsal.faults import CRASH_EXIT_CODE, GARBAGE, OUT_OF_MEMORY

WAIT_S = 20.0
CHECKPOINT = "model.safetensors"

Graph = dict[str, Any]


def picture(colour: int = 0, *, prefix: str = "p", **inputs: Any) -> Graph:
    empty = {"width": 16, "height": 8, "batch_size": 1, "color": colour} | inputs
    return {
        "1": {"class_type": "EmptyImage", "inputs": empty},
        "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": prefix}},
    }


def sampled(steps: int = 2, seed: int = 7) -> Graph:
    links = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0], "latent_image": ["4", 0]}
    given = {"seed": seed, "steps": steps, "cfg": 7, "sampler_name": "euler", "scheduler": "normal", "denoise": 1}
    return {
        "1": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}},
        "2": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": "a lighthouse"}},
        "3": {"class_type": "CLIPTextEncode", "inputs": {"clip": ["1", 1], "text": ""}},
        "4": {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}},
        "5": {"class_type": "KSampler", "inputs": given | links},
        "6": {"class_type": "VAEDecode", "inputs": {"samples": ["5", 0], "vae": ["1", 2]}},
        "7": {"class_type": "SaveImage", "inputs": {"images": ["6", 0], "filename_prefix": "s"}},
    }


class Client:
    """One WebSocket and one HTTP session; `frames` holds what came so far."""

    def __init__(self, url: str, client_id: str = "me") -> None:
        self.url = url
        self.client_id = client_id
        self.http = requests.Session()
        self.frames: list[Any] = []
        self.socket = self.connect()

    def connect(self) -> websocket.WebSocket:
        address = f"{self.url.replace('http', 'ws', 1)}/ws?clientId={self.client_id}"
        return websocket.create_connection(address, timeout=WAIT_S, suppress_origin=True)

    def close(self) -> None:
        self.socket.close()
        self.http.close()

    def get(self, path: str, **query: Any) -> requests.Response:
        return self.http.get(self.url + path, params=query, timeout=WAIT_S)

    def post(self, path: str, body: Any) -> requests.Response:
        return self.http.post(self.url + path, json=body, timeout=WAIT_S)

    def submit(self, graph: Graph, **more: Any) -> str:
        answer = self.post("/prompt", {"prompt": graph, "client_id": self.client_id, **more})
        assert answer.status_code == 200, answer.text
        return str(answer.json()["prompt_id"])

    def until(self, wanted: Callable[[Any], bool]) -> Any:
        """The next wanted message; what comes before it is kept in `frames` too."""
        while True:
            frame: Any = self.socket.recv()
            with contextlib.suppress(ValueError, UnicodeDecodeError):
                frame = json.loads(frame)
            self.frames.append(frame)
            if isinstance(frame, dict) and wanted(frame):
                return frame

    def until_type(self, kind: str) -> Any:
        return self.until(lambda frame: frame.get("type") == kind)["data"]

    def until_end(self, prompt_id: str) -> None:
        end = {"type": "executing", "data": {"node": None, "prompt_id": prompt_id}}
        self.until(lambda frame: frame == end)

    def run(self, graph: Graph, **more: Any) -> Any:
        """The history entry of a prompt that has ended."""
        prompt_id = self.submit(graph, **more)
        self.until_end(prompt_id)
        return self.get(f"/history/{prompt_id}").json()[prompt_id]

    def types(self) -> list[str]:
        return [frame["type"] for frame in self.frames if isinstance(frame, dict) and "type" in frame]


@contextlib.contextmanager
def client_of(url: str, client_id: str = "me") -> Iterator[Client]:
    client = Client(url, client_id)
    try:
        yield client
    finally:
        client.close()


@pytest.fixture
def engine() -> Iterator[RehearsalEngine]:
    with running_engine(model_names={"checkpoints": [CHECKPOINT]}, step_s=0.001) as engine:
        yield engine


@pytest.fixture
def client(engine: RehearsalEngine) -> Iterator[Client]:
    with client_of(engine.url) as client:
        yield client


def test_a_picture_is_sampled_saved_and_shown(client: Client, engine: RehearsalEngine) -> None:
    entry = client.run(sampled(steps=3))
    assert entry["outputs"] == {"7": {"images": [{"filename": "s_00001_.png", "subfolder": "", "type": "output"}]}}
    assert [kind for kind, _ in entry["status"]["messages"]] == [
        "execution_start",
        "execution_cached",
        "execution_success",
    ]
    shown = client.get("/view", filename="s_00001_.png", subfolder="", type="output")
    assert shown.headers["Content-Type"] == "image/png"
    with Image.open(io.BytesIO(shown.content)) as image:
        assert image.size == (64, 64)
        assert json.loads(image.info["prompt"])["5"]["inputs"]["cfg"] == 7.0
    steps = [frame["data"]["value"] for frame in client.frames if frame["type"] == "progress"]
    assert steps == [1, 2, 3]
    assert (engine.base_directory / "output" / "s_00001_.png").read_bytes() == shown.content


def test_the_messages_of_a_prompt_in_their_order(client: Client) -> None:
    client.run(picture())
    assert client.types() == [
        *["status"] * 3,
        *["execution_start", "execution_cached"],
        *["progress_state", "executing", "progress_state"],
        *["progress_state", "executing", "executed", "progress_state"],
        *["execution_success", "status", "executing"],
    ]
    assert client.frames[0]["data"]["sid"] == "me"


def test_what_has_not_changed_is_not_done_again(client: Client, engine: RehearsalEngine) -> None:
    first = client.run(picture())
    again = client.run(picture())
    assert again["outputs"] == first["outputs"], "it names the old file"
    assert again["status"]["messages"][1][1]["nodes"] == ["1", "2"]
    assert client.run(picture(prefix="q"))["status"]["messages"][1][1]["nodes"] == ["1"]
    marked = picture(prefix="q")
    marked["2"]["inputs"]["_mark"] = "another job"
    assert client.run(marked)["outputs"]["2"]["images"][0]["filename"] == "q_00002_.png"
    client.post("/free", {"free_memory": True})
    assert client.run(marked)["status"]["messages"][1][1]["nodes"] == []
    assert sorted(path.name for path in engine.folders.output.iterdir()) == [
        "p_00001_.png",
        "q_00001_.png",
        "q_00002_.png",
        "q_00003_.png",
    ]


def test_a_changed_input_file_is_loaded_again(client: Client, engine: RehearsalEngine) -> None:
    graph = picture() | {"1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}}}
    for colour, cached in (("red", []), ("red", ["1", "2"]), ("blue", [])):
        Image.new("RGB", (4, 4), colour).save(engine.folders.input / "in.png")
        assert client.run(graph)["status"]["messages"][1][1]["nodes"] == cached


def test_an_upload_is_kept_apart_from_another_of_its_name(client: Client) -> None:
    def upload(content: bytes, **fields: str) -> Any:
        files = {"image": ("in.png", content)}
        return client.http.post(f"{client.url}/upload/image", data=fields, files=files, timeout=WAIT_S).json()

    assert upload(b"one")["name"] == "in.png"
    assert upload(b"one")["name"] == "in.png"
    assert upload(b"two")["name"] == "in (1).png"
    assert upload(b"two", overwrite="true") == {"name": "in.png", "subfolder": "", "type": "input"}
    assert upload(b"three", subfolder="a/b")["subfolder"] == "a/b"
    assert client.get("/view", filename="in.png", subfolder="a/b", type="input").content == b"three"
    assert client.get("/view", filename="in (1).png [input]").content == b"two"


@pytest.mark.parametrize(
    ("query", "status"),
    [
        ({}, 404),
        ({"filename": "none.png"}, 404),
        ({"filename": "../secret"}, 400),
        ({"filename": "/etc/passwd"}, 400),
        ({"filename": "x", "subfolder": "../.."}, 403),
        ({"filename": "x", "type": "other"}, 400),
    ],
)
def test_view_stays_within_its_folders(client: Client, query: dict[str, str], status: int) -> None:
    assert client.get("/view", **query).status_code == status


def test_uploads_stay_within_their_folders(client: Client, engine: RehearsalEngine) -> None:
    for name, subfolder in (("../x.png", ""), ("x.png", "../.."), ("x.png", "/tmp")):
        files, fields = {"image": (name, b"x")}, {"subfolder": subfolder}
        answer = client.http.post(f"{client.url}/upload/image", data=fields, files=files, timeout=WAIT_S)
        assert answer.status_code == 400
    assert client.post("/upload/image", {}).status_code == 400
    assert list(engine.base_directory.rglob("x.png")) == []


def test_a_broken_graph_is_refused(client: Client) -> None:
    answer = client.post("/prompt", {"prompt": picture(width=0)})
    assert answer.status_code == 400
    assert answer.json()["node_errors"]["1"]["errors"][0]["type"] == "value_smaller_than_min"
    graph = sampled()
    graph["1"]["inputs"]["ckpt_name"] = "unknown.safetensors"
    (error,) = client.post("/prompt", {"prompt": graph}).json()["node_errors"]["1"]["errors"]
    assert error["details"] == f"ckpt_name: 'unknown.safetensors' not in ['{CHECKPOINT}']"
    loader = picture() | {"1": {"class_type": "LoadImage", "inputs": {"image": "none.png"}}}
    (error,) = client.post("/prompt", {"prompt": loader}).json()["node_errors"]["1"]["errors"]
    assert error["details"] == "image - Invalid image file: none.png"
    assert client.post("/prompt", {}).json()["error"]["type"] == "no_prompt"


def test_a_node_that_raises_ends_the_prompt(client: Client, engine: RehearsalEngine) -> None:
    (engine.folders.input / "in.png").write_text("no picture")
    entry = client.run(picture() | {"1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}}})
    assert entry["status"]["status_str"] == "error"
    assert entry["outputs"] == {}
    error = entry["status"]["messages"][-1][1]
    assert error["exception_type"] == "PIL.UnidentifiedImageError"
    assert (error["node_id"], error["current_inputs"]) == ("1", {"image": ["in.png"]})
    assert client.run(picture())["status"]["status_str"] == "success"


def test_a_running_prompt_is_interrupted_and_a_waiting_one_deleted(client: Client) -> None:
    running = client.submit(sampled(steps=10_000))
    client.until_type("progress")
    waiting, last = client.submit(picture()), client.submit(picture(1))
    assert [item[1] for item in client.get("/queue").json()["queue_pending"]] == [waiting, last]
    client.post("/queue", {"delete": [waiting]})
    client.post("/interrupt", {"prompt_id": last})
    client.post("/interrupt", {"prompt_id": running})
    assert client.until_type("execution_interrupted")["node_id"] == "5"
    client.until_end(last)
    assert waiting not in client.get("/history").json()
    assert client.get(f"/history/{running}").json()[running]["status"]["completed"] is False
    assert client.get("/queue").json() == {"queue_running": [], "queue_pending": []}


def test_after_a_reconnect_the_current_node_is_told(client: Client) -> None:
    running = client.submit(sampled(steps=10_000))
    client.until_type("progress")
    client.socket.close()
    client.socket = client.connect()
    client.frames.clear()
    client.until_type("executing")
    replayed = [frame for frame in client.frames if frame["type"] in ("status", "executing")][:2]
    assert replayed[1] == {"type": "executing", "data": {"node": "5"}}
    client.post("/interrupt", {})
    client.until_end(running)


def test_only_the_submitter_hears_of_a_prompt(client: Client, engine: RehearsalEngine) -> None:
    with client_of(engine.url, "other") as other:
        client.run(picture())
        other.socket.send(json.dumps({"type": "feature_flags", "data": {}}))
        other.until_type("feature_flags")
        assert set(other.types()) == {"status", "feature_flags"}


def test_what_it_says_of_itself(client: Client) -> None:
    assert "not ComfyUI" in client.get("/").text
    assert client.get("/system_stats").json()["system"]["rehearsal"]
    assert client.get("/object_info/KSampler").json()["KSampler"]["output"] == ["LATENT"]
    assert client.get("/object_info/Nothing").json() == {}
    assert client.get("/object_info").json().keys() == client.get("/api/object_info").json().keys()
    assert client.get("/models/checkpoints").json() == [CHECKPOINT]
    assert client.get("/models/nothing").status_code == 404
    assert "loras" in client.get("/models").json()
    assert client.get("/embeddings").json() == client.get("/extensions").json() == []
    assert client.get("/features").json()["supports_preview_metadata"] is True
    assert client.get("/prompt").json() == {"exec_info": {"queue_remaining": 0}}


@pytest.mark.parametrize(
    ("origin", "status"), [("http://example.com", 403), ("http://127.0.0.1", 200), ("http://localhost:1", 403)]
)
def test_a_page_of_another_site_is_refused(client: Client, origin: str, status: int) -> None:
    answer = client.http.get(f"{client.url}/queue", headers={"Origin": origin}, timeout=WAIT_S)
    assert answer.status_code == status


def test_models_of_a_folder_count_as_they_come(client: Client, engine: RehearsalEngine) -> None:
    folder = engine.base_directory / "models" / "upscale_models"
    folder.mkdir()
    (folder / "3x_some.pth").touch()
    graph = picture() | {
        "3": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": "3x_some.pth"}},
        "4": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["3", 0], "image": ["1", 0]}},
    }
    graph["2"]["inputs"]["images"] = ["4", 0]
    (saved,) = client.run(graph)["outputs"]["2"]["images"]
    with Image.open(engine.folders.output / saved["filename"]) as image:
        assert image.size == (48, 24)
    graph["3"]["inputs"]["model_name"] = "gone.pth"
    error = client.run(graph)["status"]["messages"][-1][1]
    assert error["exception_message"] == "Model in folder 'upscale_models' with filename 'gone.pth' not found.\n"


def test_a_prompt_that_kills_the_queue(client: Client) -> None:
    """A link to nowhere in an input that the class does not have: /prompt lets it pass, and ComfyUI hangs."""
    deadly = client.submit(picture(undeclared=["99", 0]))
    client.until_type("execution_cached")
    later = client.submit(picture())
    found = client.get("/queue").json()
    assert [item[1] for item in found["queue_running"]] == [deadly]
    assert [item[1] for item in found["queue_pending"]] == [later]


def test_out_of_memory(client: Client, engine: RehearsalEngine) -> None:
    engine.set_faults(Faults(out_of_memory="KSampler"))
    error = client.run(sampled())["status"]["messages"][-1][1]
    assert error["exception_type"] == OUT_OF_MEMORY
    assert "you ran out of memory on your GPU" in error["exception_message"]
    engine.set_faults(Faults(node_error="5"))
    assert client.run(sampled())["status"]["messages"][-1][1]["node_id"] == "5"
    engine.set_faults(Faults())
    assert client.run(sampled())["status"]["status_str"] == "success"


def test_a_slow_node_can_be_interrupted(client: Client, engine: RehearsalEngine) -> None:
    engine.set_faults(Faults(slow_node=3600))
    running = client.submit(picture())
    client.until_type("executing")
    client.post("/interrupt", {"prompt_id": running})
    assert client.until_type("execution_interrupted")["node_id"] == "1"


def test_dropped_sockets(client: Client, engine: RehearsalEngine) -> None:
    engine.set_faults(Faults(drop_socket=1))
    prompt_id = client.submit(picture())
    with pytest.raises((websocket.WebSocketException, OSError)):
        client.until_end(prompt_id)
    client.socket = client.connect()
    assert client.run(picture(1))["status"]["status_str"] == "success"
    assert prompt_id in client.get("/history").json()


def test_garbage_comes_before_the_events(client: Client, engine: RehearsalEngine) -> None:
    engine.set_faults(Faults(garbage_frame=True))
    entry = client.run(picture())
    assert entry["status"]["status_str"] == "success"
    raw = [frame for frame in client.frames if not isinstance(frame, dict) or "data" not in frame]
    assert len(raw) >= len(GARBAGE) - 3
    assert "this is not JSON" in raw


def test_histories_that_are_empty_or_never_appear(client: Client, engine: RehearsalEngine) -> None:
    engine.set_faults(Faults(empty_history=True))
    entry = client.run(picture())
    assert (entry["outputs"], entry["status"]["status_str"]) == ({}, "success")
    engine.set_faults(Faults(no_history=True))
    prompt_id = client.submit(picture())
    client.until_end(prompt_id)
    assert client.get(f"/history/{prompt_id}").json() == {}


def test_requests_that_answer_500(client: Client, engine: RehearsalEngine) -> None:
    engine.set_faults(Faults(http_500=2))
    assert client.post("/prompt", {"prompt": picture()}).status_code == 500
    assert client.get("/queue").status_code == 200
    assert client.get("/api/history/x").status_code == 500
    assert client.get("/history/x").status_code == 200


def test_a_stall_says_nothing_more(client: Client, engine: RehearsalEngine) -> None:
    engine.set_faults(Faults(stall="SaveImage"))
    running = client.submit(picture())
    client.until(lambda frame: frame["type"] == "executing" and frame["data"]["node"] == "2")
    client.post("/interrupt", {"prompt_id": running})
    client.socket.settimeout(0.2)
    with pytest.raises(websocket.WebSocketTimeoutException):
        client.socket.recv()
    assert [item[1] for item in client.get("/queue").json()["queue_running"]] == [running]


def encoded(image: Image.Image) -> bytes:
    stream = io.BytesIO()
    image.save(stream, "PNG")
    return stream.getvalue()


def identity() -> Graph:
    """A sampler behind InstantID, with the identity in `face.png`."""
    links = {"instantid": ["21", 0], "insightface": ["22", 0], "control_net": ["23", 0], "image": ["20", 0]}
    inputs = {"model": ["1", 0], "positive": ["2", 0], "negative": ["3", 0]}
    graph = sampled()
    graph |= {
        "20": {"class_type": "LoadImage", "inputs": {"image": "face.png"}},
        "21": {"class_type": "InstantIDModelLoader", "inputs": {"instantid_file": "ip-adapter.bin"}},
        "22": {"class_type": "InstantIDFaceAnalysis", "inputs": {"provider": "CPU"}},
        "23": {"class_type": "ControlNetLoader", "inputs": {"control_net_name": "instantid.safetensors"}},
        "24": {
            "class_type": "ApplyInstantID",
            "inputs": {**links, **inputs, "weight": 0.8, "start_at": 0.0, "end_at": 1.0},
        },
    }
    graph["5"]["inputs"] |= {"model": ["24", 0], "positive": ["24", 1], "negative": ["24", 2]}
    return graph


def test_a_picture_without_a_face_and_the_fault(client: Client, engine: RehearsalEngine) -> None:
    face = engine.folders.input / "face.png"
    face.write_bytes(encoded(Image.new("RGB", (64, 64), "red")))
    for place, name in (("instantid", "ip-adapter.bin"), ("controlnet", "instantid.safetensors")):
        (engine.folders.models / place).mkdir(exist_ok=True)
        (engine.folders.models / place / name).touch()
    plain = client.run(identity())
    face.write_bytes(encoded(Image.radial_gradient("L").resize((64, 64))))
    assert client.run(identity())["status"]["status_str"] == "success"
    engine.set_faults(Faults(no_face="ApplyInstantID"))
    client.post("/free", {"free_memory": True})
    for entry in (plain, client.run(identity())):
        error = entry["status"]["messages"][-1][1]
        assert (error["node_id"], error["exception_type"]) == ("24", "Exception")
        assert error["exception_message"] == "Reference Image: No face detected.\n"


def test_it_has_the_packs_that_it_is_told_to_have() -> None:
    with running_engine(packs=["ComfyUI-PuLID"]) as engine, client_of(engine.url) as client:
        assert "ApplyPulid" in client.get("/object_info").json()
        assert client.get("/models/pulid").json() == []
        assert "instantid" not in client.get("/models").json()
        answer = client.post("/prompt", {"prompt": identity()})
        assert answer.status_code == 400
        said = answer.json()["error"]["message"]
        assert said == "Cannot execute because node InstantIDModelLoader does not exist."


BRANCH: Graph = {
    "ImpactIsNotEmptySEGS": {"input": {"required": {"segs": ["SEGS"]}}, "output": ["BOOLEAN"]},
    "BboxDetectorSEGS": {"input": {"required": {"image": ["IMAGE"]}}, "output": ["SEGS"]},
    "ImpactConditionalBranch": {
        "input": {
            "required": {"cond": ["BOOLEAN"], "tt_value": ["*", {"lazy": True}], "ff_value": ["*", {"lazy": True}]}
        },
        "output": ["*"],
    },
}
"""Classes of ComfyUI-Impact-Pack, as far as the test below goes."""


def test_only_the_branch_that_is_wanted_runs() -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "face.png"}},
        "2": {"class_type": "BboxDetectorSEGS", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "ImpactIsNotEmptySEGS", "inputs": {"segs": ["2", 0]}},
        "4": {
            "class_type": "VHS_SelectImages",
            "inputs": {"image": ["1", 0], "indexes": "no face", "err_if_missing": True, "err_if_empty": True},
        },
        "5": {
            "class_type": "ImpactConditionalBranch",
            "inputs": {"cond": ["3", 0], "tt_value": ["1", 0], "ff_value": ["4", 0]},
        },
        "6": {"class_type": "SaveImage", "inputs": {"images": ["5", 0], "filename_prefix": "p"}},
    }
    with running_engine(extra_nodes=BRANCH) as engine, client_of(engine.url) as client:
        (engine.folders.input / "face.png").write_bytes(encoded(Image.radial_gradient("L").resize((64, 64))))
        assert client.run(graph)["status"]["status_str"] == "success"
        ran = [frame["data"]["node"] for frame in client.frames if frame.get("type") == "executing"]
        assert ran == ["1", "2", "3", "5", "6", None]
        (engine.folders.input / "face.png").write_bytes(encoded(Image.new("RGB", (64, 64), "red")))
        client.frames.clear()
        error = client.run(graph)["status"]["messages"][-1][1]
        assert (error["node_id"], error["exception_type"]) == ("4", "ValueError")
        assert "no face" in error["exception_message"]
        ran = [frame["data"]["node"] for frame in client.frames if frame.get("type") == "executing"]
        assert ran == ["1", "2", "3", "5", "4", None], "the node asks, and waits"


def test_a_portrait_becomes_a_clip(client: Client, engine: RehearsalEngine) -> None:
    (engine.folders.input / "face.png").write_bytes(encoded(Image.radial_gradient("L").resize((64, 64))))
    parts = ("rotate_pitch", "rotate_yaw", "rotate_roll", "blink", "eyebrow", "wink", "pupil_x", "pupil_y")
    rest = dict.fromkeys((*parts, "aaa", "eee", "woo", "smile"), 0)
    how = {"src_ratio": 1, "sample_ratio": 1, "sample_parts": "OnlyExpression", "crop_factor": 1.7}
    switches = {"turn_on": True, "tracking_src_vid": False, "animate_without_vid": True}
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "face.png"}},
        "2": {"class_type": "ExpressionEditor", "inputs": {**rest, **how, "blink": -15, "src_image": ["1", 0]}},
        "3": {
            "class_type": "AdvancedLivePortrait",
            "inputs": {
                **switches,
                **{"retargeting_eyes": 0, "retargeting_mouth": 0, "crop_factor": 1.7},
                **{"command": "1=3:1\n0=3:1", "motion_link": ["2", 1]},
            },
        },
        "4": {
            "class_type": "VHS_VideoCombine",
            "inputs": {
                **{"images": ["3", 0], "frame_rate": 8, "loop_count": 0, "filename_prefix": "job/clip"},
                **{"format": "video/h264-mp4", "pingpong": False, "save_output": True, "crf": 19},
            },
        },
    }
    entry = client.run(graph)
    assert entry["outputs"]["2"] == {"images": [{"filename": "expression_edit_preview1.png", "type": "temp"}]}
    (clip,) = entry["outputs"]["4"]["gifs"]
    assert (clip["filename"], clip["subfolder"], clip["frame_rate"]) == ("clip_00001.mp4", "job", 8)
    steps = [frame["data"]["value"] for frame in client.frames if frame.get("type") == "progress"]
    assert steps == list(range(1, 9)), "a step for each picture"
    shown = client.get("/view", filename=clip["filename"], subfolder="job", type="output")
    assert shown.headers["Content-Type"] == "video/mp4"
    assert shown.content[4:8] == b"ftyp"


def test_within_an_event_loop(tmp_path: Path) -> None:
    async def story() -> int:
        async with RehearsalEngine(tmp_path / "base") as engine:
            answer = await asyncio.to_thread(requests.get, f"{engine.url}/queue", timeout=WAIT_S)
            return answer.status_code

    (tmp_path / "base" / "temp").mkdir(parents=True)
    (tmp_path / "base" / "temp" / "old.png").touch()
    assert asyncio.run(story()) == 200
    assert (tmp_path / "base" / "input").is_dir()
    assert not (tmp_path / "base" / "temp" / "old.png").exists(), "as ComfyUI does, it empties its temp folder"


def test_a_temporary_folder_goes_with_the_engine() -> None:
    with running_engine() as engine:
        base = engine.base_directory
        assert base.is_dir()
    assert not base.exists()


def test_a_taken_port_is_an_error() -> None:
    with (
        running_engine() as engine,
        pytest.raises(OSError, match="address already in use"),
        running_engine(port=engine.port),
    ):
        pass


@contextlib.contextmanager
def process(*arguments: str, directory: Path) -> Iterator[tuple[subprocess.Popen[str], str]]:
    """A child in ComfyUI's place, and where it listens."""
    environment = {**os.environ, "PYTHONUNBUFFERED": "1"}
    command = [sys.executable, *arguments]
    started = subprocess.Popen(command, cwd=directory, env=environment, stderr=subprocess.PIPE, text=True)
    assert started.stderr is not None
    try:
        line = started.stderr.readline()
        yield started, json.loads(line)["message"].split("listens at ")[1].split(";")[0]
    finally:
        started.kill()
        started.wait(WAIT_S)
        started.stderr.close()


def test_a_process_in_the_place_of_comfyui(tmp_path: Path) -> None:
    install_tree(tmp_path / "ComfyUI")
    (tmp_path / "ComfyUI" / "models" / "checkpoints" / CHECKPOINT).touch()
    flags = ["--port", "0", "--cpu", "--disable-auto-launch", "--reserve-vram", "2", "--disable-metadata"]
    with process("main.py", *flags, directory=tmp_path / "ComfyUI") as (started, url):
        with client_of(url) as client:
            client.run(sampled())
        with Image.open(tmp_path / "ComfyUI" / "output" / "s_00001_.png") as image:
            assert "prompt" not in image.info
        started.send_signal(signal.SIGTERM)
        assert started.wait(WAIT_S) == 0


def test_folders_and_faults_by_flags(tmp_path: Path) -> None:
    flags = ["--port", "0", "--listen", "127.0.0.1", "--base-directory", str(tmp_path / "base")]
    flags += ["--output-directory", str(tmp_path / "out"), "--temp-directory", str(tmp_path / "scratch")]
    flags += ["--fault", "crash=PreviewImage"]
    with process("-m", "morpheus_worker.rehearsal", *flags, directory=tmp_path) as (started, url):
        with client_of(url) as client:
            client.run(picture())
            assert (tmp_path / "out" / "p_00001_.png").is_file()
            assert (tmp_path / "scratch" / "temp").is_dir()
            client.submit({**picture(), "3": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}})
            with pytest.raises((websocket.WebSocketException, OSError)):
                client.until(lambda frame: False)
            assert client.frames[-1] == {
                "type": "executing",
                "data": {"node": "3", "display_node": "3", "prompt_id": client.frames[-1]["data"]["prompt_id"]},
            }
        assert started.wait(WAIT_S) == CRASH_EXIT_CODE


def test_a_fault_that_does_not_exist_is_named(tmp_path: Path) -> None:
    command = [sys.executable, "-m", "morpheus_worker.rehearsal", "--fault", "crush=1"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert said.returncode == 2
    assert "crush=1: no such fault (did you mean 'crash'?)" in said.stderr


def test_packs_by_a_flag(tmp_path: Path) -> None:
    with process("-m", "morpheus_worker.rehearsal", "--port", "0", "--packs", "none", directory=tmp_path) as (_, url):
        described = requests.get(f"{url}/object_info", timeout=WAIT_S).json()
        assert not [name for name, raw in described.items() if raw["python_module"].startswith("custom_nodes")]
    command = [sys.executable, "-m", "morpheus_worker.rehearsal", "--packs", "ComfyUI-PuLI"]
    said = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=WAIT_S, check=False)
    assert said.returncode == 2
    assert "did you mean 'ComfyUI-PuLID'?" in said.stderr
