"""`morpheus check`: what it prints for people and for machines, and how it ends."""

from __future__ import annotations

import argparse
import io
import json
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.cli.check import check
from morpheus_worker.comfy.recorded import load_known
from morpheus_worker.settings import Settings

GRAPH: dict[str, Any] = {
    "1": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "x"}},
}


@pytest.fixture
def settings(tmp_path: Path) -> Settings:
    """Two shipped templates, one of them good, and no volume."""
    workflows = tmp_path / "workflows"
    workflows.mkdir()
    write(workflows / "good.json", {"_about": {"aliases": ["fine"]}, **GRAPH})
    write(workflows / "wrong.json", wrong())
    manifest = tmp_path / "manifest.yaml"
    manifest.write_text("version: 1\n", encoding="utf-8")
    given = {"workflows_dir": workflows, "manifest": manifest, "volume_root": tmp_path / "volume"}
    return Settings.model_validate(given)


def wrong() -> dict[str, Any]:
    return {**GRAPH, "1": {"class_type": "EmptyImage", "inputs": {**GRAPH["1"]["inputs"], "width": 0}}}


def write(path: Path, document: Any) -> Path:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(document, indent=1), encoding="utf-8")
    return path


def asked(*names: str, object_info: Path | None = None, as_json: bool = False) -> argparse.Namespace:
    return argparse.Namespace(workflow=list(names), object_info=object_info, json=as_json)


def test_all_templates_are_checked_and_an_error_is_exit_code_1(
    settings: Settings, capsys: pytest.CaptureFixture[str]
) -> None:
    assert check(asked(), settings) == 1
    said = capsys.readouterr()
    assert "good: good (1 graph)\nwrong:\n" in said.out
    assert "wrong.json:5:" in said.out, "file and line stand in front"
    assert ": error: node 1 (EmptyImage) input width: 0 is below the smallest value, 1\n" in said.out
    assert said.out.endswith("as recorded: 1 error, 0 warnings\n")
    assert "there is no volume at" in said.err


@pytest.mark.parametrize("name", ["good", "fine"])
def test_a_workflow_by_its_name_or_alias(settings: Settings, name: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(asked(name), settings) == 0
    assert "wrong" not in capsys.readouterr().out


def test_an_override_is_checked_beside_the_shipped_one(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    write(settings.volume_root / "morpheus_lib" / "workflows" / "good.json", wrong())
    assert check(asked("good", as_json=True), settings) == 1
    files = {each["file"]: len(each["problems"]) for each in json.loads(capsys.readouterr().out)["workflows"]}
    assert sorted(files.values()) == [0, 1]


def test_an_alias_that_another_workflow_has_is_told_of_one_file(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    document = {"_about": {"aliases": ["fine", "own", "wrong"]}, **GRAPH}
    override = settings.volume_root / "morpheus_lib" / "workflows" / "new.json"
    for file in (tmp_path / "apart.json", override):
        write(file, document)
    for wanted in (str(tmp_path / "apart.json"), str(override), "new"):
        assert check(asked(wanted), settings) == 1
        said = capsys.readouterr().out
        assert "the alias 'fine' is taken by the workflow 'good'" in said
        assert "the alias 'wrong' is taken by the workflow 'wrong'" in said
        assert "'own'" not in said or wanted.endswith("apart.json"), "an override has it, and it is this one"
    broken = {"_params": {"unused": {"type": "int"}}, **document}
    assert check(asked(str(write(tmp_path / "broken.json", broken))), settings) == 1
    assert "the alias 'fine' is taken by the workflow 'good'" in capsys.readouterr().out


def test_a_file_of_a_graph(settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(asked(str(write(tmp_path / "graph.json", GRAPH))), settings) == 0
    assert check(asked(str(write(tmp_path / "editor.json", {"nodes": [], "links": []}))), settings) == 1
    assert "Export (API)" in capsys.readouterr().out


def test_for_machines_it_is_one_json_document(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(asked(as_json=True), settings) == 1
    told = json.loads(capsys.readouterr().out)
    assert (told["ok"], told["errors"], told["warnings"]) == (False, 1, 0)
    good, bad = told["workflows"]
    assert (good["workflow"], good["problems"], good["variations"]) == ("good", [], 1)
    assert bad["file"] == str(settings.workflows_dir / "wrong.json")
    (problem,) = bad["problems"]
    assert isinstance(problem.pop("line"), int)
    assert isinstance(problem.pop("column"), int)
    assert problem == {
        "severity": "error",
        "kind": "value_smaller_than_min",
        "what": "node 1 (EmptyImage) input width: 0 is below the smallest value, 1",
        "hint": None,
        "node_id": "1",
        "class_type": "EmptyImage",
        "input": "width",
        "param": None,
        "variation": None,
    }


def test_an_unknown_name_is_a_wrong_use(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert check(asked("goood"), settings) == 2
    assert "there is no workflow 'goood' (did you mean 'good'?)" in capsys.readouterr().err


def test_a_saved_object_info_is_what_counts(
    settings: Settings, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    few = write(tmp_path / "info.json", {"SaveImage": load_known().raw["SaveImage"]})
    assert check(asked("good", object_info=few), settings) == 1
    said = capsys.readouterr().out
    assert "this ComfyUI has no node class 'EmptyImage'" in said
    assert f"checked against {few}" in said
    assert check(asked(object_info=write(tmp_path / "no.json", [])), settings) == 2
    assert "no.json" in capsys.readouterr().err


def test_a_manifest_with_a_fault_is_one_of_the_errors(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings.manifest.write_text("version: 1\nmodels:\n  - {id: a}\n", encoding="utf-8")
    assert check(asked("good"), settings) == 1
    said = capsys.readouterr().out
    assert "good: good (1 graph)" in said
    assert "manifest.yaml" in said
    assert "2 files checked" in said


def test_a_workflow_that_only_the_manifest_has(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    entry = "{id: base, path: checkpoints/base.safetensors, workflows: [good, goood, fine]}"
    settings.manifest.write_text(f"version: 1\nmodels:\n  - {entry}\n", encoding="utf-8")
    (settings.workflows_dir / "wrong.json").unlink()
    assert check(asked(as_json=True), settings) == 0
    (_, manifest) = json.loads(capsys.readouterr().out)["workflows"]
    assert manifest["file"] == str(settings.manifest)
    assert [(said["severity"], said["what"], said["hint"]) for said in manifest["problems"]] == [
        ("warning", "the entry 'base' names the workflow 'goood', which is not there", "did you mean 'good'?"),
        (
            "warning",
            "the entry 'base' names the workflow 'fine', which is not there",
            "write 'good', whose other name it is",
        ),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "ascii"])
def test_what_no_terminal_can_show_is_written_as_an_escape(
    encoding: str, settings: Settings, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "half.json"
    path.write_text('{"1": {"class_type": "\\ud800 é", "inputs": {}}}', encoding="utf-8")
    written = io.BytesIO()
    monkeypatch.setattr("sys.stdout", io.TextIOWrapper(written, encoding=encoding, write_through=True))
    assert check(asked(str(path)), settings) == 1
    assert b"no node class '\\ud800 " in written.getvalue()


def test_without_a_manifest_the_rest_is_checked(settings: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    settings.manifest.unlink()
    assert check(asked("good"), settings) == 0
    assert "the model manifest cannot be used" in capsys.readouterr().err
