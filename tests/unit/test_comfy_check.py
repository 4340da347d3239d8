"""The graph check says what ComfyUI says: recorded answers of a real one are compared field by field."""

from __future__ import annotations

import copy
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.check import Verdict, validate
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import load_recorded, recorded_version

RECORDED = json.loads((Path(__file__).parent.parent / "data" / "validation_answers.json").read_text(encoding="utf-8"))
CASES = {case["case"]: case for case in RECORDED["answers"]}


def exists(name: str) -> bool:
    return name in RECORDED["input_files"]


def ordered(errors: list[Any]) -> list[Any]:
    """ComfyUI reports the errors of a node in no particular order."""
    return sorted(errors, key=lambda error: (error["extra_info"].get("input_name", ""), error["type"]))


def comparable(error: Mapping[str, Any] | None, node_errors: Mapping[str, Any]) -> Any:
    """An answer without what ComfyUI leaves to chance: orders, and which outputs are listed when several failed."""
    said = dict(error or {})
    said["details"] = sorted(said.get("details", "").split("\n"))
    several = len({output for found in node_errors.values() for output in found["dependent_outputs"]}) > 1
    nodes = {
        node_id: {
            "class_type": found["class_type"],
            "errors": ordered(found["errors"]),
            "dependent_outputs": bool(found["dependent_outputs"]) if several else found["dependent_outputs"],
        }
        for node_id, found in node_errors.items()
    }
    # Python 3.14 has other words for what the Python of the recorded ComfyUI said.
    text = json.dumps([said, nodes]).replace("is not a container or iterable", "is not iterable")
    return json.loads(text)


def test_the_answers_are_of_the_recorded_comfyui() -> None:
    assert RECORDED["comfyui_version"] == recorded_version()


@pytest.mark.parametrize("name", CASES)
def test_says_what_comfyui_says(name: str) -> None:
    graph, answer = CASES[name]["graph"], CASES[name]["answer"]
    before = copy.deepcopy(graph)

    verdict = validate(graph, load_recorded(), input_exists=exists)

    assert verdict.ok == (answer["status"] == 200)
    assert comparable(verdict.error, verdict.node_errors) == comparable(answer["error"], answer["node_errors"])
    assert graph == before, "the caller's graph is not touched"


def picture(**inputs: Any) -> dict[str, Any]:
    given = {"width": 16, "height": 16, "batch_size": 1, "color": 0} | inputs
    return {
        "1": {"class_type": "EmptyImage", "inputs": given},
        "2": {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}},
    }


def test_values_are_converted_as_comfyui_converts_them() -> None:
    verdict = validate(picture(width="24", height=24.9, batch_size={"__value__": True}), load_recorded())
    assert verdict.ok
    assert verdict.outputs == ("2",)
    assert verdict.graph["1"]["inputs"] == {"width": 24, "height": 24, "batch_size": 1, "color": 0}


def test_only_the_wanted_outputs_count() -> None:
    graph = picture() | {"3": {"class_type": "SaveImage", "inputs": {"images": ["1", 0]}}}
    assert validate(graph, load_recorded(), targets=["2"]) == Verdict(
        True, validate(graph, load_recorded()).graph, ("2",)
    )
    nothing = validate(graph, load_recorded(), targets=["9"])
    assert nothing.error is not None
    assert nothing.error["type"] == "prompt_no_outputs"


@pytest.mark.parametrize("graph", [None, {"1": 5}, {"1": None}, {"1": {"class_type": []}}, ["1"]])
def test_a_shape_that_comfyui_answers_with_500(graph: Any) -> None:
    with pytest.raises(TypeError):
        validate(graph, load_recorded())


def test_without_word_of_the_files_a_loader_passes() -> None:
    graph = picture() | {"1": {"class_type": "LoadImage", "inputs": {"image": "any.png"}}}
    assert validate(graph, load_recorded()).ok
    assert not validate(graph, load_recorded(), input_exists=exists).ok


def pack(**more: Any) -> ObjectInfo:
    """The recorded classes and a loader of a node pack, whose code nobody here knows."""
    choice = [["one.mp4"], {"video_upload": True}]
    loader = {"input": {"required": {"video": choice}, "optional": {"mode": [["a", "b"]]}}, "output": ["IMAGE"]}
    return ObjectInfo({**load_recorded().raw, "PackLoader": loader | more})


@pytest.mark.parametrize(
    ("module", "refused"), [("custom_nodes.ComfyUI-Pack", ["mode"]), ("comfy_extras.pack", ["mode", "video"])]
)
def test_an_upload_of_a_node_pack_is_let_through(module: str, refused: list[str]) -> None:
    graph = picture() | {"1": {"class_type": "PackLoader", "inputs": {"video": "new.mp4", "mode": "c"}}}
    verdict = validate(graph, pack(python_module=module))
    names = sorted(error["extra_info"]["input_name"] for error in verdict.node_errors["1"]["errors"])
    assert names == refused


@pytest.mark.parametrize(
    ("received", "wanted", "meets"),
    [
        ("IMAGE", "IMAGE", True),
        ("IMAGE", "MASK", False),
        ("*", "IMAGE", True),
        ("IMAGE", "*", True),
        ("IMAGE,MASK", "MASK", True),
        ("INT , FLOAT", "STRING, FLOAT", True),
        ("INT", "FLOAT", False),
        (["a"], [["a"]], True),
        (["a"], [["b"]], False),
    ],
)
def test_types_meet(received: Any, wanted: Any, meets: bool) -> None:
    raw = {
        "Source": {"input": {}, "output": [received]},
        "Target": {"input": {"required": {"x": wanted if isinstance(wanted, list) else [wanted]}}, "output_node": True},
    }
    graph = {"1": {"class_type": "Source", "inputs": {}}, "2": {"class_type": "Target", "inputs": {"x": ["1", 0]}}}
    assert validate(graph, ObjectInfo(raw)).ok is meets


def test_a_chain_longer_than_the_stack_is_deep() -> None:
    graph: dict[str, Any] = {"0": picture()["1"]}
    for index in range(1, 3000):
        graph[str(index)] = {"class_type": "ImageInvert", "inputs": {"image": [str(index - 1), 0]}}
    graph["end"] = {"class_type": "PreviewImage", "inputs": {"images": ["2999", 0]}}
    assert validate(graph, load_recorded()).ok
