"""What the command line understands, what it says about itself, and its exit codes."""

from __future__ import annotations

import argparse
import base64
import contextlib
import io
import json
import logging
import re
import shlex
import socket
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker import __version__
from morpheus_worker.cli.main import _parser, main
from morpheus_worker.cli.run import job_input, run
from morpheus_worker.cli.show import config
from morpheus_worker.errors import MorpheusError
from morpheus_worker.jobs import WIRE_MODELS, JobFailure, parse_request
from morpheus_worker.settings import Settings, variable_of
from tests.documents import as_json, blocks, inline_code
from tests.json_schema import misfits

COMMANDS = ["run", "rehearse", "gateway", "workflows", "check", "object-info", "schema", "config", "link", "version"]
GRAPH = {"1": {"class_type": "EmptyImage", "inputs": {"width": 8}}}


@pytest.fixture(autouse=True)
def _root_logger_left_as_it_was() -> Iterator[None]:
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    yield
    root.handlers[:] = handlers
    root.setLevel(level)


def asked(*arguments: str) -> argparse.Namespace:
    return _parser().parse_args(["run", *arguments])


def problems_of(*arguments: str) -> dict[str, str]:
    with pytest.raises(MorpheusError) as refused:
        job_input(asked(*arguments))
    assert refused.value.code == "invalid_input"
    return {problem.at: problem.what for problem in refused.value.problems}


# What a command line means.


def test_a_name_alone_is_a_job() -> None:
    request = parse_request("id", job_input(asked("smoke")))
    assert (request.workflow_name, request.graph, request.params) == ("smoke", None, {})


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("12", "12"),
        ("true", "true"),
        ("a lighthouse at dusk", "a lighthouse at dusk"),
        ("", ""),
        ("a=b", "a=b"),
        ("null", None),
        ('["a", 2]', ["a", 2]),
        ('{"a": null}', {"a": None}),
        ('"12"', "12"),
        ('"null"', "null"),
        ('"line one\\nline two"', "line one\nline two"),
        ('"a" and "b"', '"a" and "b"'),
        ("[a photo]", "[a photo]"),
        ("{not json", "{not json"),
        pytest.param("[" * 100_000, "[" * 100_000, id="deep"),
        ("__param:seed__", "__param:seed__"),
    ],
)
def test_a_params_value_stays_text_unless_it_is_clearly_json(text: str, value: Any) -> None:
    assert job_input(asked("smoke", "--param", f"key={text}"))["params"] == {"key": value}


def test_params_pictures_and_a_deadline_make_one_job(tmp_path: Path) -> None:
    picture = tmp_path / "a photo = mine.png"
    picture.write_bytes(b"\x89PNG and so on")
    given = ["upscale", "--param", "a=1", "--param", "a=2", "--image", f"image={picture}", "--timeout", "2.5"]
    given += ["--outputs", "base64"]
    job = job_input(asked(*given))
    request = parse_request("id", job)
    assert (request.workflow_name, request.timeout_s, request.outputs) == ("upscale", 2.5, "base64")
    assert request.strict_keys == {"a", "image"}
    assert request.params["a"] == "2"
    opening, _, content = request.params["image"].partition(",")
    assert opening == "data:image/png;base64"
    assert base64.b64decode(content, validate=True) == picture.read_bytes()


@pytest.mark.parametrize(
    ("name", "media_type"), [("a.JPG", "image/jpeg"), ("a.webp", "image/webp"), ("a", "application/octet-stream")]
)
def test_a_picture_is_of_the_type_that_its_name_says(name: str, media_type: str, tmp_path: Path) -> None:
    (tmp_path / name).write_bytes(b"x")
    image = job_input(asked("upscale", "--image", f"image={tmp_path / name}"))["params"]["image"]
    assert image.startswith(f"data:{media_type};base64,")


def test_a_file_is_a_graph_and_its_pictures_have_the_names_that_it_knows(tmp_path: Path) -> None:
    graph, picture = tmp_path / "graph.json", tmp_path / "photo.png"
    graph.write_text(json.dumps(GRAPH), encoding="utf-8")
    picture.write_bytes(b"x")
    request = parse_request("id", job_input(asked(str(graph), "--image", f"in.png={picture}")))
    assert (request.workflow_name, request.graph, request.params) == (None, GRAPH, {})
    assert [(image.name, image.image) for image in request.images] == [("in.png", "data:image/png;base64,eA==")]


def test_params_for_a_graph_are_refused_by_the_job_itself(tmp_path: Path) -> None:
    (tmp_path / "graph.json").write_text(json.dumps(GRAPH), encoding="utf-8")
    with pytest.raises(MorpheusError, match="a graph carries its own values"):
        parse_request("id", job_input(asked(str(tmp_path / "graph.json"), "--param", "width=8")))


@pytest.mark.parametrize(
    ("content", "what"),
    [
        (b"{", "is not JSON: Expecting property name"),
        (b"", "is not JSON: Expecting value"),
        (b"\xff\xfe{}", "is not JSON: 'utf-8' codec"),
        pytest.param(b"[" * 100_000, "is not JSON: ", id="deep"),
    ],
)
def test_a_file_that_is_no_json_is_refused(content: bytes, what: str, tmp_path: Path) -> None:
    graph = tmp_path / "graph.json"
    graph.write_bytes(content)
    assert problems_of(str(graph))[str(graph)].startswith(what)


def test_all_arguments_that_cannot_be_used_are_told_at_once(tmp_path: Path) -> None:
    given = ["--param", "steps", "--param", "=7", "--image", "image=/no/such.png", "--image", f"mask={tmp_path}"]
    assert problems_of("/no/such.json", *given) == {
        "--param steps": "is not of the form KEY=VALUE",
        "--param =7": "is not of the form KEY=VALUE",
        "--image image=/no/such.png": "cannot be read: No such file or directory",
        f"--image mask={tmp_path}": "cannot be read: Is a directory",
        "/no/such.json": "cannot be read: No such file or directory",
    }


# Exit codes.


@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        ([], "the following arguments are required: COMMAND"),
        (["nonsense"], "invalid choice: 'nonsense'"),
        (["run"], "the following arguments are required: workflow"),
        (["run", "smoke", "--outputs", "mars"], "argument --outputs: invalid choice: 'mars'"),
        (["run", "smoke", "--timeout", "soon"], "argument --timeout: invalid float value: 'soon'"),
        (["run", "smoke", "--steps", "3"], "unrecognized arguments: --steps 3"),
        (["workflows"], "the following arguments are required: VERB"),
        (["workflows", "show"], "the following arguments are required: workflow"),
        (["workflows", "import", "graph.json"], "the following arguments are required: --name"),
        (["rehearse", "--port", "65536"], "a port is a number from 0 to 65535, not '65536'"),
        (["gateway", "--port", "-1"], "a port is a number from 0 to 65535, not '-1'"),
        (["gateway", "--port", "http"], "a port is a number from 0 to 65535, not 'http'"),
        (["rehearse", "--step-s", "-1"], "'-1' is not a number of seconds"),
        (["rehearse", "--step-s", "nan"], "'nan' is not a number of seconds"),
    ],
)
def test_what_cannot_be_understood_ends_with_2(
    arguments: list[str], said: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(arguments) == 2
    shown = capsys.readouterr()
    assert shown.out == ""
    assert said in shown.err


def test_settings_that_are_wrong_end_with_2_and_are_all_told(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MORPHEUS_CONCURRENCY", "many")
    monkeypatch.setenv("MORPHEUS_VOLUME_ROOT", "here")
    assert main(["config"]) == 2
    said = capsys.readouterr().err.splitlines()
    assert [line.split(":")[1].strip() for line in said] == ["MORPHEUS_VOLUME_ROOT", "MORPHEUS_CONCURRENCY"]


def test_a_misspelt_setting_is_warned_about(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MORPHEUS_CONCURENCY", "2")
    assert main(["config"]) == 0
    assert "did you mean 'MORPHEUS_CONCURRENCY'?" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["rehearse", "--fault", "slow_nod=1", "--fault", "http_500=x"], 2, "did you mean 'slow_node'?); http_500=x: "),
        (["rehearse", "--port", "TAKEN"], 1, "127.0.0.1:TAKEN cannot be listened on"),
        (["rehearse", "--host", "192.0.2.1", "--port", "0"], 1, "192.0.2.1:0 cannot be listened on"),
        (["rehearse", "--port", "0", "--base-directory", "HERE/main.py"], 1, "HERE/main.py"),
        (["gateway", "--root", "HERE", "--host", "::"], 2, "'::' is reachable from other machines"),
        (["gateway", "--root", "HERE", "--port", "TAKEN"], 1, "127.0.0.1:TAKEN cannot be listened on"),
        (["gateway", "--root", "HERE/nowhere"], 1, "HERE/nowhere does not exist"),
        (["workflows", "show", "creations"], 2, "did you mean 'creation'?"),
    ],
)
def test_what_cannot_be_done_is_one_sentence(
    arguments: list[str], code: int, said: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "main.py").touch()
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = str(taken.getsockname()[1])
        given = [word.replace("TAKEN", port).replace("HERE", str(tmp_path)) for word in arguments]
        assert main(given) == code
    shown = capsys.readouterr()
    assert (shown.out, shown.err.count("\n")) == ("", 1)
    assert said.replace("TAKEN", port).replace("HERE", str(tmp_path)) in shown.err


@pytest.mark.parametrize(
    ("environ", "code", "said"),
    [
        ({"COMFYUI_URL": "http://127.0.0.1:9"}, 2, "set MORPHEUS_COMFYUI_DIR"),
        ({"COMFYUI_DIR": "/no/such/comfyui"}, 1, "There is no ComfyUI at /no/such/comfyui"),
        ({"COMFYUI_DIR": "HERE", "VOLUME_ROOT": "/no/such/volume"}, 1, "The volume is not available"),
        ({"COMFYUI_DIR": "HERE", "VOLUME_ROOT": "HERE", "MANIFEST": "/no/such.yaml"}, 1, "/no/such.yaml"),
        ({"COMFYUI_DIR": "HERE", "VOLUME_ROOT": "HERE", "MANIFEST": "HERE/main.py"}, 1, "main.py"),
        ({"COMFYUI_DIR": "HERE", "COMFYUI_ARGS": "--base-directory"}, 2, "expected one argument"),
    ],
)
def test_links_that_cannot_be_made_are_one_sentence(
    environ: dict[str, str],
    code: int,
    said: str,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    (tmp_path / "main.py").write_text("[", encoding="utf-8")
    for name, value in environ.items():
        monkeypatch.setenv(f"MORPHEUS_{name}", value.replace("HERE", str(tmp_path)))
    assert main(["link"]) == code
    said_by_it = capsys.readouterr().err
    assert said in said_by_it
    assert said_by_it.count("\n") == 1


def test_a_manifest_that_is_not_there_is_named(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setenv("MORPHEUS_MANIFEST", "/no/such/manifest.yaml")
    assert main(["rehearse", "--port", "0"]) == 1
    said = "morpheus: /no/such/manifest.yaml cannot be used: No such file or directory\n"
    assert capsys.readouterr().err == said


@pytest.mark.parametrize(
    ("arguments", "code", "exit_code"),
    [(["smoke", "--param", "steps"], "invalid_input", 2), (["smoke"], "volume_unavailable", 1)],
)
def test_a_job_that_does_not_start_is_a_failure_on_standard_output(
    arguments: list[str], code: str, exit_code: int, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    environ = {"MORPHEUS_VOLUME_ROOT": str(tmp_path / "nothing"), "MORPHEUS_VOLUME_TIMEOUT_S": "0"}
    assert run(asked(*arguments), Settings.from_environment(environ)) == exit_code
    assert JobFailure.model_validate_json(capsys.readouterr().out).code == code


@pytest.mark.parametrize("encoding", ["utf-8", "iso-8859-1", "ascii"])
def test_the_answer_is_json_whatever_the_terminal_can_show(encoding: str) -> None:
    """An argument that is no UTF-8 comes with lone surrogates in its place."""
    written = io.BytesIO()
    with contextlib.redirect_stdout(io.TextIOWrapper(written, encoding)) as stream:
        assert run(asked("smoke", "--param", "über 🌊 \udcff"), Settings.from_environment({})) == 2
        stream.flush()
    (problem,) = json.loads(written.getvalue().decode(encoding))["details"]["problems"]
    assert problem["at"] == "--param über 🌊 \udcff"


# What it says about itself.


def test_the_help_names_every_command_and_every_exit_code(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    shown = capsys.readouterr().out.splitlines()
    first_words = [line.split()[0] for line in shown if line.strip()]
    assert [word for word in first_words if word in COMMANDS] == COMMANDS
    assert [word for word in first_words if word.isdecimal()] == ["0", "1", "2", "130"]


def test_the_examples_of_the_help_can_be_typed(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["--help"]) == 0
    examples = re.findall(r"^ +morpheus (\S.*?)(?:  .*)?$", capsys.readouterr().out, re.MULTILINE)
    assert len(examples) == 4
    for example in examples:
        assert _parser().parse_args(shlex.split(example)).command


@pytest.mark.parametrize("command", [*COMMANDS, "workflows list", "workflows show", "workflows import"])
def test_every_command_has_its_help(command: str, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*command.split(), "--help"]) == 0
    assert capsys.readouterr().out.startswith(f"usage: morpheus {command} ")


def test_every_option_says_what_it_is_for() -> None:
    options = [action for parser in parsers(_parser()) for action in parser._actions]
    assert [str(option) for option in options if not option.help and option.dest != argparse.SUPPRESS] == []


def parsers(parser: argparse.ArgumentParser) -> Iterator[argparse.ArgumentParser]:
    yield parser
    for action in parser._actions:
        if isinstance(action, argparse._SubParsersAction):
            for inner in action.choices.values():
                yield from parsers(inner)


def test_version(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["version"]) == 0
    assert capsys.readouterr().out == f"{__version__}\n"


def test_config_prints_every_setting_with_its_value_and_meaning(capsys: pytest.CaptureFixture[str]) -> None:
    environ = {"MORPHEUS_VOLUME_ROOT": "/mnt/v", "MORPHEUS_COMFYUI_ARGS": "--cpu '[two words]'"}
    assert config(Settings.from_environment(environ)) == 0
    rows = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert [row[0] for row in rows] == [variable_of(name) for name in Settings.model_fields]
    assert all(len(row) == 3 and row[2] for row in rows)
    values = {row[0]: row[1] for row in rows}
    assert values["MORPHEUS_VOLUME_ROOT"] == "/mnt/v"
    assert values["MORPHEUS_COMFYUI_ARGS"] == "--cpu '[two words]'"
    assert values["MORPHEUS_JOB_TIMEOUT_S"] == "600.0"


# The schema.


@pytest.fixture
def schemas(capsys: pytest.CaptureFixture[str]) -> dict[str, Any]:
    assert main(["schema"]) == 0
    printed: dict[str, Any] = json.loads(capsys.readouterr().out)
    return printed


def test_the_schema_is_that_of_all_models_on_the_wire(schemas: dict[str, Any]) -> None:
    assert list(schemas) == [model.__name__ for model in WIRE_MODELS]
    assert all(schema["type"] == "object" for schema in schemas.values())


def test_the_examples_of_the_docs_fit_the_schema(schemas: dict[str, Any]) -> None:
    forms = [as_json(code) for code in inline_code("docs/jobs.md") if code.startswith("{")]
    shown = [as_json(block.text) for block in blocks("docs/jobs.md") if block.language == "json"]
    shown[1] = {"job_id": "id", "trace_id": "id", "params": {}, "timings": {}, "outputs": [], **shown[1]}
    assert (len(forms), len(shown)) == (4, 4)
    assert [misfits(schemas["JobInput"], form) for form in forms] == [[]] * 4
    models = ["JobResult", "JobResult", "JobFailure", "Progress"]
    assert [misfits(schemas[model], example) for model, example in zip(models, shown, strict=True)] == [[]] * 4


@pytest.mark.parametrize(
    ("model", "value", "misfit"),
    [
        ("JobInput", [], "$ does not fit type"),
        ("JobInput", {"workflow_name": 3}, "$.workflow_name is of no form"),
        ("JobInput", {"workflow": []}, "$.workflow is of no form"),
        ("JobInput", {"timeout_s": 0}, "$.timeout_s is of no form"),
        ("JobInput", {"images": [{"name": "a.png"}]}, "$.images is of no form"),
        ("JobFailure", {"error": "It failed"}, "$ does not fit required"),
        ("Progress", {"stage": "cooking"}, "$.stage does not fit enum"),
        ("Progress", {"stage": "queued", "percent": 101}, "$.percent does not fit maximum"),
    ],
)
def test_what_is_wrong_does_not_fit_the_schema(model: str, value: Any, misfit: str, schemas: dict[str, Any]) -> None:
    assert misfits(schemas[model], value)[0].startswith(misfit)
