"""`morpheus workflows`: what it lists, shows and imports."""

from __future__ import annotations

import json
import logging
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from morpheus_worker.cli.main import main
from morpheus_worker.comfy.recorded import load_known
from morpheus_worker.library import Library
from morpheus_worker.templates.bind import fill, resolve
from morpheus_worker.templates.template import parse_template
from tests.exports import BASE_REFINER, CONTROLNET, FACE, TXT2IMG

MANIFEST = """
version: 1
models:
  - id: base
    path: checkpoints/base.safetensors
    workflows: [draw]
    license: openrail++
    sources: [{kind: hf, repo: some/base, file: base.safetensors}, {kind: https, url: "https://example.com/base"}]
  - {id: other, path: checkpoints/other.safetensors, workflows: [draw]}
  - {id: hidden, path: insightface/models/det.onnx, workflows: [draw], also: [faces/det.onnx], gated: true}
  - {id: fine, path: vae/fine.safetensors, workflows: [draw], sources: [{kind: civitai, version: 7}]}
custom_nodes:
  - {id: Some-Pack, repo: "https://example.com/some-pack", workflows: [draw]}
"""

DRAW: dict[str, Any] = {
    "_about": {"title": "Draw", "description": "Draws.", "aliases": ["creation"], "timeout_s": 90},
    "_params": {
        "prompt": {"type": "string", "description": "what the picture shows"},
        "style": {"type": "string", "default": "one\ttwo\nthree"},
        "quality": {
            "type": "string",
            "default": "plain",
            "choices": {"plain": {}, "fine": {"set": {"vae_name": "fine.safetensors"}, "links": {"8.vae": ["2", 0]}}},
        },
        "checkpoint_name": {"type": "string", "default": "base.safetensors"},
        "vae_name": {"type": "string", "default": None},
    },
    **TXT2IMG,
    "2": {"class_type": "VAELoader", "inputs": {"vae_name": "__param:vae_name__"}},
    "4": {"class_type": "CheckpointLoaderSimple", "inputs": {"ckpt_name": "__param:checkpoint_name__"}},
    "6": {"class_type": "CLIPTextEncode", "inputs": {"text": "__param:prompt__", "clip": ["30", 1]}},
    "7": {"class_type": "CLIPTextEncode", "inputs": {"text": "__param:style__", "clip": ["30", 1]}},
    "30": {
        "class_type": "LoraLoader",
        "inputs": {
            "lora_name": "film.safetensors",
            "strength_model": 1,
            "strength_clip": 1,
            "model": ["4", 0],
            "clip": ["4", 1],
        },
    },
}


PLAIN: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@pytest.fixture(autouse=True)
def _root_logger_left_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


@pytest.fixture
def place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder with a workflow, a manifest, and room for a volume that is not there yet."""
    (tmp_path / "workflows").mkdir()
    (tmp_path / "workflows" / "draw.json").write_text(json.dumps(DRAW), encoding="utf-8")
    (tmp_path / "manifest.yaml").write_text(MANIFEST, encoding="utf-8")
    monkeypatch.setenv("MORPHEUS_WORKFLOWS_DIR", str(tmp_path / "workflows"))
    monkeypatch.setenv("MORPHEUS_MANIFEST", str(tmp_path / "manifest.yaml"))
    monkeypatch.setenv("MORPHEUS_VOLUME_ROOT", str(tmp_path / "volume"))
    monkeypatch.setenv("MORPHEUS_COMFYUI_URL", "http://127.0.0.1:8188")
    monkeypatch.chdir(tmp_path)
    return tmp_path


def put(place: Path, *names: str) -> None:
    for name in names:
        path = place / "volume" / "morpheus_model_cache" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.touch()


ALL = ("checkpoints/base.safetensors", "faces/det.onnx", "loras/film.safetensors", "some-pack/__init__.py")


def lines(capsys: pytest.CaptureFixture[str]) -> list[str]:
    return capsys.readouterr().out.splitlines()


# list


def test_the_list_has_names_aliases_and_titles(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", "list"]) == 0
    assert lines(capsys) == ["draw\tcreation\tDraw"]
    assert main(["workflows", "list", "--json"]) == 0
    assert json.loads(capsys.readouterr().out) == [
        {"name": "draw", "title": "Draw", "description": "Draws.", "aliases": ["creation"]}
    ]


def test_without_a_volume_that_is_said(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", "list", "--models"]) == 0
    shown = capsys.readouterr()
    assert shown.out == "draw\tcreation\tDraw\tno volume\n"
    assert f"there is no volume at {place / 'volume'}" in shown.err
    assert "a pod sees it as /workspace" in shown.err
    assert main(["workflows", "list", "--models", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert (said["ready"], said["lacks"]) == (None, None)


def test_what_a_volume_lacks_is_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(place, "checkpoints/base.safetensors")
    assert main(["workflows", "list", "--models"]) == 0
    lacks = "insightface/models/det.onnx, loras/film.safetensors, the node pack Some-Pack"
    shown = capsys.readouterr()
    assert shown.out.splitlines() == [f"draw\tcreation\tDraw\tlacks {lacks}"]
    assert shown.err == "morpheus: 'morpheus models sync --workflow draw' fetches what draw lacks\n"
    assert main(["workflows", "list", "--models", "--json"]) == 0
    (said,) = json.loads(capsys.readouterr().out)
    assert said["ready"] is False
    assert said["sync"] == "morpheus models sync --workflow draw"
    assert said["lacks"] == {
        "models": ["insightface/models/det.onnx", "loras/film.safetensors"],
        "packs": ["Some-Pack"],
        "options": ["vae/fine.safetensors"],
    }


def test_a_workflow_is_ready_with_what_its_defaults_need(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(place, *ALL)
    assert main(["workflows", "list", "--models"]) == 0
    assert lines(capsys) == ["draw\tcreation\tDraw\tready, but for vae/fine.safetensors"]
    put(place, "vae/fine.safetensors")
    assert main(["workflows", "list", "--models"]) == 0
    shown = capsys.readouterr()
    assert (shown.out, shown.err) == ("draw\tcreation\tDraw\tready\n", ""), "what a job may name is not lacking"


def test_a_volume_that_cannot_be_read_ends_with_1(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(place, "checkpoints/base.safetensors")
    (place / "volume" / "morpheus_model_cache" / "loras").symlink_to(
        place / "volume" / "morpheus_model_cache" / "loras"
    )
    assert main(["workflows", "list", "--models"]) == 1
    assert "loras cannot be read: Too many levels of symbolic links" in capsys.readouterr().err


# show


def test_a_workflow_is_shown_with_all_that_a_caller_needs(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    put(place, "checkpoints/base.safetensors")
    assert main(["workflows", "show", "creation"]) == 0
    shown = lines(capsys)
    assert shown[:5] == ["draw: Draw", "Draws.", "", "also called creation", "a job may take 90 seconds"]
    rows = [line.split("\t") for line in shown if "\t" in line]
    assert [row[0] for row in rows] == ["prompt", "style", "quality", "checkpoint_name", "vae_name"]
    assert rows[0][1:3] == ["string", "required"]
    assert rows[1][2] == "one two three", "a row is one line"
    begin = shown.index("an example job:") + 1
    job = json.loads("\n".join(shown[begin : shown.index("}", begin) + 1]))
    assert job == {"input": {"workflow_name": "draw", "params": {"prompt": "a lighthouse at dusk"}}}
    assert shown[shown.index("}", begin) + 2 :] == [
        "needs the model checkpoints/base.safetensors: it is there; licence openrail++",
        "can use the model checkpoints/other.safetensors: it is not on this volume",
        "needs the model insightface/models/det.onnx: it is not on this volume; gated",
        "for some params needs the model vae/fine.safetensors: it is not on this volume; "
        "to be had from Civitai, version 7",
        "needs the model loras/film.safetensors: it is not on this volume",
        "needs the node pack Some-Pack: it is not on this volume; to be had from https://example.com/some-pack",
        "'morpheus models sync --workflow draw' fetches what is missing",
    ]


def test_without_a_volume_the_needs_are_listed_all_the_same(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", "show", "draw"]) == 0
    shown = lines(capsys)
    source = "huggingface.co/some/base (base.safetensors)"
    assert f"needs the model checkpoints/base.safetensors: to be had from {source}; licence openrail++" in shown
    assert "needs the node pack Some-Pack: to be had from https://example.com/some-pack" in shown
    assert shown[-1].startswith(f"whether they are there cannot be said: there is no volume at {place / 'volume'}")


def test_a_manifest_that_cannot_be_used_is_told(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "manifest.yaml").write_text("version: 2", encoding="utf-8")
    assert main(["workflows", "show", "draw"]) == 0
    shown = capsys.readouterr()
    assert "the model manifest cannot be used" in shown.err
    assert "needs the model checkpoints/base.safetensors" in shown.out
    assert "what else it needs cannot be said: the model manifest cannot be used\n" in shown.out


def test_what_is_not_known_is_not_ready(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (place / "manifest.yaml").write_text("version: 2", encoding="utf-8")
    (place / "volume").mkdir()
    (place / "workflows" / "plain.json").write_text(json.dumps(PLAIN), encoding="utf-8")
    assert main(["workflows", "list", "--models"]) == 0
    assert lines(capsys)[1] == "plain\t\t\tnot known without the manifest"
    assert main(["workflows", "list", "--models", "--json"]) == 0
    assert [said["ready"] for said in json.loads(capsys.readouterr().out)] == [False, None]
    assert main(["workflows", "show", "plain"]) == 0
    assert "needs no model" not in capsys.readouterr().out


def test_an_alias_is_listed_where_it_leads_to(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    other = {"_about": {"aliases": ["creation", "plainly"]}, **PLAIN}
    (place / "workflows" / "plain.json").write_text(json.dumps(other), encoding="utf-8")
    assert main(["workflows", "list"]) == 1
    assert [line.split("\t")[:2] for line in lines(capsys)] == [["draw", "creation"], ["plain", "plainly"]]
    main(["workflows", "list", "--json"])
    assert [said["aliases"] for said in json.loads(capsys.readouterr().out)] == [["creation"], ["plainly"]]
    main(["workflows", "show", "plain"])
    assert "also called plainly" in lines(capsys)


def test_the_schema_alone_is_printed_for_machines(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", "show", "draw", "--json-schema"]) == 0
    schema = json.loads(capsys.readouterr().out)
    Draft202012Validator.check_schema(schema)
    assert schema["required"] == ["prompt"]
    assert schema["properties"]["quality"]["enum"] == ["plain", "fine"]


# Files that are broken.


def test_a_broken_override_is_named_and_the_shipped_workflow_listed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    overrides = tmp_path / "morpheus_lib" / "workflows"
    overrides.mkdir(parents=True)
    (overrides / "smoke.json").write_text("{", encoding="utf-8")
    monkeypatch.setenv("MORPHEUS_VOLUME_ROOT", str(tmp_path))
    assert main(["workflows", "list"]) == 0
    shown = capsys.readouterr()
    assert "smoke\t" in shown.out
    assert f"{overrides / 'smoke.json'} gives way to the shipped workflow 'smoke'" in shown.err


def test_a_broken_shipped_workflow_ends_with_1(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "mine.json").write_text("{", encoding="utf-8")
    monkeypatch.setenv("MORPHEUS_WORKFLOWS_DIR", str(tmp_path))
    assert main(["workflows", "list"]) == 1
    assert "morpheus: mine.json line 1" in capsys.readouterr().err


def test_a_workflows_folder_that_is_not_there_ends_with_1(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MORPHEUS_WORKFLOWS_DIR", "/no/such/folder")
    assert main(["workflows", "list"]) == 1
    assert "MORPHEUS_WORKFLOWS_DIR: there is no folder /no/such/folder" in capsys.readouterr().err


# import


CALLED = "jobs call it 'mine' once it is in the workflows folder"


def write(place: Path, graph: Any, name: str = "export.json") -> str:
    (place / name).write_text(json.dumps(graph), encoding="utf-8")
    return str(place / name)


def test_an_export_becomes_a_workflow(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", "import", write(place, BASE_REFINER), "--name", "mine", "--to", "workflows"]) == 0
    shown = capsys.readouterr()
    assert shown.err == ""
    rows = [line.split("\t") for line in shown.out.splitlines()]
    assert rows[:2] == [
        ["prompt", "6", "CLIPTextEncode", "text", "string", "a daytime sky"],
        ["prompt", "15", "CLIPTextEncode", "text", "string", "a daytime sky"],
    ]
    assert ["seed", "10", "KSamplerAdvanced", "noise_seed", "seed", "drawn"] in rows
    assert rows[-1] == ["workflows/mine.json: 16 params; jobs call it 'mine' once it is in the workflows folder"]
    library = Library.load(place / "workflows", object_info=load_known())
    assert library.warnings == ()
    resolved = resolve(library.get("mine"), {"prompt": "a sea", "steps": 9, "seed": 4})
    graph = fill(resolved).graph
    assert (graph["6"]["inputs"]["text"], graph["15"]["inputs"]["text"]) == ("a sea", "a sea")
    assert (graph["10"]["inputs"]["steps"], graph["11"]["inputs"]["steps"]) == (9, 9)


def test_the_params_can_be_named(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--param", "prompt=6.text", "--param", "seed=3.seed"]
    assert main(["workflows", "import", write(place, TXT2IMG), "--name", "mine", *given]) == 0
    template = parse_template((place / "mine.json").read_text(encoding="utf-8"), name="mine")
    assert list(template.params) == ["prompt", "seed"]
    assert [line.split("\t")[0] for line in lines(capsys)] == ["prompt", "seed", f"mine.json: 2 params; {CALLED}"]


def test_one_param_is_one(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--param", "prompt=6.text"]
    assert main(["workflows", "import", write(place, TXT2IMG), "--name", "mine", *given]) == 0
    assert lines(capsys)[-1] == f"mine.json: 1 param; {CALLED}"


@pytest.mark.parametrize(
    ("name", "said"),
    [
        ("draw", "--name: a workflow 'draw' is there already: on the volume this one replaces it"),
        ("creation", "--name: 'creation' is another name of the workflow 'draw', which loses it to this one"),
    ],
)
def test_a_name_that_is_in_use_is_told(name: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", "import", write(place, TXT2IMG), "--name", name]) == 0
    assert said in capsys.readouterr().err


def test_a_name_is_not_a_files(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", "import", write(place, TXT2IMG), "--name", "mine.json"]) == 2
    assert capsys.readouterr().err == "morpheus: --name: 'mine.json' is a file's name (--name mine)\n"


def test_a_template_of_another_folder_replaces_no_other(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    given = ["--name", "draw", "--to", "workflows", "--force"]
    assert main(["workflows", "import", write(place, TXT2IMG), *given]) == 0
    assert "is there already" not in capsys.readouterr().err


def test_standard_output_gets_the_template_and_nothing_else(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["workflows", "import", write(place, TXT2IMG), "--name", "mine", "--to", "-"]) == 0
    assert parse_template(capsys.readouterr().out, name="mine").params.keys() >= {"prompt", "seed"}
    assert sorted(path.name for path in place.glob("*.json")) == ["export.json"]


def test_a_file_that_is_there_stays_unless_forced(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    export = write(place, TXT2IMG)
    (place / "mine.json").write_text("old", encoding="utf-8")
    assert main(["workflows", "import", export, "--name", "mine"]) == 2
    assert capsys.readouterr().err == "morpheus: mine.json: is there already (--force replaces it)\n"
    assert (place / "mine.json").read_text(encoding="utf-8") == "old"
    assert main(["workflows", "import", export, "--name", "mine", "--force"]) == 0
    assert "_params" in (place / "mine.json").read_text(encoding="utf-8")
    assert sorted(path.name for path in place.iterdir() if path.name.startswith(".")) == []


def test_everything_that_is_wrong_is_told_at_once_and_nothing_written(
    place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    given = ["--name", "no name", "--to", "x.json", "--param", "a=6.txt", "--param", "b=99.text"]
    assert main(["workflows", "import", write(place, TXT2IMG), *given]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(": ")[1] for line in said] == ["--name", "--param a=6.txt", "--param b=99.text"]
    assert not (place / "x.json").exists()


@pytest.mark.parametrize(
    ("content", "said"),
    [
        ('{"nodes": [], "links": []}', "choose Workflow > Export (API)"),
        (json.dumps(DRAW), "is a template already"),
        ("{", "line 1, column 2: is not JSON"),
    ],
)
def test_a_file_that_is_no_export_is_refused(
    content: str, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (place / "export.json").write_text(content, encoding="utf-8")
    assert main(["workflows", "import", "export.json", "--name", "mine"]) == 2
    error = capsys.readouterr().err
    assert error.startswith("morpheus: export.json")
    assert said in error
    assert not (place / "mine.json").exists()


@pytest.mark.parametrize(
    ("given", "code", "said"),
    [
        (["none.json", "--name", "mine"], 2, "none.json: cannot be read: No such file or directory"),
        (["export.json", "--name", "mine", "--to", "no/such/x.json"], 1, "no/such/x.json: cannot be written: No such"),
    ],
)
def test_files_that_cannot_be_read_or_written_are_named(
    given: list[str], code: int, said: str, place: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(place, TXT2IMG)
    assert main(["workflows", "import", *given]) == code
    shown = capsys.readouterr()
    assert shown.out == ""
    assert shown.err.startswith(f"morpheus: {said}")
    assert shown.err.count("\n") == 1


def test_what_is_left_to_look_at_is_told_and_the_file_written(place: Path, capsys: pytest.CaptureFixture[str]) -> None:
    graph = {**CONTROLNET, "40": {"class_type": "NobodysNode", "inputs": {"image": ["8", 0]}}}
    graph["8"] = {**graph["8"], "inputs": {"samples": ["3", 0]}}
    given = ["--name", "mine", "--to", "other.json", "--param", "prompt=31.value"]
    assert main(["workflows", "import", write(place, graph), *given]) == 0
    told = capsys.readouterr().err
    assert "node 12 (LoadImage) input image: loads 'my pose.png', a file of the machine" in told
    assert told.count("NobodysNode") == 1
    assert "other.json line " in told
    assert "node 8 (VAEDecode) lacks its required input vae" in told
    assert "as 'mine' it is found in mine.json" in told
    assert (place / "other.json").is_file()


def test_the_packs_that_it_needs_stand_in_the_file(place: Path) -> None:
    assert main(["workflows", "import", write(place, FACE), "--name", "face"]) == 0
    about = json.loads((place / "face.json").read_text(encoding="utf-8"))["_about"]
    assert about["packs"] == ["ComfyUI-Impact-Pack", "ComfyUI-Impact-Subpack"]
