"""Object info in a file: written whole, read again, and told clearly when a file is none."""

from __future__ import annotations

import gzip
import json
import os
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.check import Verdict, validate
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import load_known
from morpheus_worker.comfy.saved import Saved, load_saved, save_object_info
from morpheus_worker.errors import Code, MorpheusError

ANSWERS = json.loads((Path(__file__).parent.parent / "data" / "validation_answers.json").read_text(encoding="utf-8"))
CHECKPOINT = "xl/model.safetensors"
PROSE = "Words for a person."


def described() -> dict[str, Any]:
    """What a ComfyUI with packs, models and paid nodes answers, prose and all."""
    raw: dict[str, Any] = json.loads(json.dumps(dict(load_known().raw)))
    for name, node in raw.items():
        node |= {"description": PROSE, "category": PROSE, "display_name": f"{name}: {PROSE}"}
        for names in node["input"].values():
            for config in names.values():
                if isinstance(config, list) and len(config) > 1:
                    config[1]["tooltip"] = PROSE
    raw["CheckpointLoaderSimple"]["input"]["required"]["ckpt_name"] = [[CHECKPOINT], {"tooltip": PROSE}]
    raw["PaidNode"] = {**raw["SaveImage"], "api_node": True, "output": ["IMAGE"]}
    raw["PackLoader"] = {**raw["LoadImage"], "python_module": "custom_nodes.a_pack_nobody_recorded"}
    return raw


@pytest.fixture(scope="module")
def original() -> ObjectInfo:
    return ObjectInfo(described(), load_known().own_checks)


@pytest.fixture(scope="module")
def again(tmp_path_factory: pytest.TempPathFactory) -> ObjectInfo:
    path = tmp_path_factory.mktemp("saved") / "info.json.gz"
    save_object_info(path, described(), "9.9.9")
    return load_saved(path)


def without_prose(verdict: Verdict) -> Any:
    return json.loads(
        json.dumps([verdict.ok, verdict.outputs, verdict.error, verdict.node_errors]),
        object_hook=lambda found: {key: value for key, value in found.items() if key != "tooltip"},
    )


def extra() -> list[Any]:
    """Graphs with what the recorded answers lack: packs' classes, files of that machine, a paid node."""
    checkpoint = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": CHECKPOINT}}
    unknown = {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "other.safetensors"}}
    save = {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}}
    decode = {"class_type": "VAEDecode", "inputs": {"samples": ["3", 0], "vae": ["1", 2]}}
    latent = {"class_type": "EmptyLatentImage", "inputs": {"width": 64, "height": 64, "batch_size": 1}}
    empty = {"class_type": "EmptyImage", "inputs": {"width": 8, "height": 8, "batch_size": 1, "color": 0}}
    hint = {"class_type": "CannyEdgePreprocessor", "inputs": {"image": ["4", 0], "resolution": 1}}
    loader = {"class_type": "PackLoader", "inputs": {"image": "not/there.png"}}
    return [
        {"1": checkpoint, "2": decode, "3": latent, "9": save},
        {"1": unknown, "2": decode, "3": latent, "9": save},
        {"2": {"class_type": "PaidNode", "inputs": {"images": ["4", 0], "filename_prefix": "x"}}, "4": empty},
        {"2": {"class_type": "PaidNode", "inputs": {"images": ["2", 7], "filename_prefix": "x"}}},
        {"2": hint, "4": empty, "9": save},
        {"2": loader, "9": save},
    ]


GRAPHS = [*(answer["graph"] for answer in ANSWERS["answers"] if answer["answer"]["status"] != 500), *extra()]


def test_there_are_graphs_that_pass_and_graphs_that_fail(original: ObjectInfo) -> None:
    verdicts = {validate(graph, original).ok for graph in GRAPHS}
    assert verdicts == {True, False}


@pytest.mark.parametrize("graph", GRAPHS, ids=range(len(GRAPHS)))
def test_a_check_says_the_same_before_and_after(graph: Any, original: ObjectInfo, again: ObjectInfo) -> None:
    def exists(name: str) -> bool:
        return name in ANSWERS["input_files"]

    before = validate(graph, original, input_exists=exists)
    assert without_prose(validate(graph, again, input_exists=exists)) == without_prose(before)


def test_it_reads_as_what_was_saved(original: ObjectInfo, again: ObjectInfo) -> None:
    assert again.class_types == original.class_types
    for name in original:
        assert again.is_output(name) == original.is_output(name)
    paid = again.raw["PaidNode"]
    assert paid["api_node"] is True
    loader = again.input("CheckpointLoaderSimple", "ckpt_name")
    assert loader is not None
    assert loader.choices == (CHECKPOINT,)
    for name, validates in (("LoadImage", {"image"}), ("VHS_LoadVideo", {"video"}), ("PackLoader", None)):
        node = again.get(name)
        assert node is not None
        assert node.validates == validates


def test_what_was_written_is_told(tmp_path: Path) -> None:
    path = tmp_path / "info.json"
    saved = save_object_info(path, described(), "9.9.9")
    size = path.stat().st_size
    assert saved == Saved(path, "9.9.9", len(described()), size, len(json.dumps(described())))
    assert size < saved.original_bytes / 2
    assert PROSE not in path.read_text(encoding="utf-8")
    assert load_saved(path).class_types == frozenset(described())


def test_files_may_stay_out(tmp_path: Path) -> None:
    save_object_info(tmp_path / "info.json", described(), "9.9.9", files=False)
    assert CHECKPOINT not in (tmp_path / "info.json").read_text(encoding="utf-8")


def test_a_compressed_file_is_smaller_and_the_same_each_time(tmp_path: Path) -> None:
    plain = save_object_info(tmp_path / "info.json", described(), "1")
    for name in ("a.gz", "b.gz"):
        save_object_info(tmp_path / name, described(), "1")
    packed = (tmp_path / "a.gz").read_bytes()
    assert len(packed) < plain.bytes / 4
    assert packed == (tmp_path / "b.gz").read_bytes()
    assert gzip.decompress(packed) == (tmp_path / "info.json").read_bytes()


def test_folders_are_made_and_a_file_is_replaced(tmp_path: Path) -> None:
    path = tmp_path / "a" / "b" / "info.json"
    save_object_info(path, described(), "1")
    save_object_info(path, {"X": described()["SaveImage"]}, "2")
    assert load_saved(path).class_types == {"X"}
    assert os.listdir(path.parent) == ["info.json"]


@pytest.mark.parametrize("name", ["a_file/info.json", "a_folder"])
def test_a_place_that_cannot_be_is_told(tmp_path: Path, name: str) -> None:
    (tmp_path / "a_file").write_text("x", encoding="utf-8")
    (tmp_path / "a_folder").mkdir()
    with pytest.raises(MorpheusError, match="cannot be written") as told:
        save_object_info(tmp_path / name, described(), "1")
    assert told.value.code is Code.INVALID_INPUT
    assert sorted(os.listdir(tmp_path)) == ["a_file", "a_folder"], "nothing half-written stays"


@pytest.mark.parametrize(
    ("answer", "told"),
    [({}, "no node class"), ({"detail": "x"}, "'detail'"), ({"X": {"input": {"required": []}, "output": []}}, "'X'")],
)
def test_nonsense_is_not_saved(tmp_path: Path, answer: dict[str, Any], told: str) -> None:
    with pytest.raises(MorpheusError, match=told) as failure:
        save_object_info(tmp_path / "info.json", answer, "1")
    assert failure.value.code is Code.CONNECTION
    assert os.listdir(tmp_path) == []


def test_a_raw_answer_is_read_as_well(tmp_path: Path) -> None:
    path = tmp_path / "raw.json"
    path.write_text(json.dumps(described()), encoding="utf-8")
    info = load_saved(path)
    assert info.raw == described()
    loader = info.get("LoadImage")
    assert loader is not None
    assert loader.validates == frozenset({"image"})


NODE = '{"input": {}, "output": []}'


@pytest.mark.parametrize(
    ("content", "at", "told"),
    [
        (b"", ":1", "is not JSON"),
        (b'{"A": 1,\n\n "B" 2}', ":3", "is not JSON: Expecting ':' delimiter at column 6"),
        (b"{} {}", ":1", "is not JSON: Extra data"),
        (b"[1]", ":1", "it is a list"),
        (b"null", ":1", "it is a null"),
        (b'"text"', ":1", "it is a text"),
        (b"{}", ":1", "it names no node class"),
        (b'{"A": %s,\n"B": {"class_type": "A", "inputs": {}}}' % NODE.encode(), ":2", "'B'"),
        (b'{"comfyui_version": "1"}', ":1", "it is a null"),
        (b'{"comfyui_version": "1",\n"nodes": {\n"A": %s,\n"B": 5\n}}' % NODE.encode(), ":4", "'B'"),
        (b"\xff\xfe", "", "is not text"),
        (b"\x1f\x8b\x08broken", "", "is a damaged gzip file"),
        (gzip.compress(b"{}" * 500)[:-9], "", "is a damaged gzip file"),
        (b"[" * 100_000, "", "is nested too deeply"),
    ],
)
def test_anything_else_is_told_with_file_and_line(tmp_path: Path, content: bytes, at: str, told: str) -> None:
    path = tmp_path / "info.json"
    path.write_bytes(content)
    with pytest.raises(MorpheusError) as failure:
        load_saved(path)
    assert failure.value.code is Code.INVALID_INPUT
    assert failure.value.message.startswith(f"{path}{at} ")
    assert told in failure.value.message
    assert "morpheus object-info save" in failure.value.message


@pytest.mark.parametrize("name", ["absent.json", "."])
def test_a_file_that_cannot_be_read_is_told(tmp_path: Path, name: str) -> None:
    with pytest.raises(MorpheusError, match="cannot be read"):
        load_saved(tmp_path / name)
