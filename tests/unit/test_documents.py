"""What the docs say in words, tables and examples is what the code says."""

from __future__ import annotations

import functools
import importlib
import json
import re
import shlex
from pathlib import Path
from typing import Any, get_args

import pytest
from pydantic import BaseModel

from morpheus_worker.cli.main import _parser, main
from morpheus_worker.errors import NOT_REFUNDABLE, RETRYABLE, Code
from morpheus_worker.jobs import JobFailure, JobInput, JobResult, OutputFile, Progress, Stage, StoreName, parse_request
from morpheus_worker.library import Library
from morpheus_worker.rehearsal import Faults
from morpheus_worker.settings import PREFIX, SHELL_NAMES, TEST_PREFIX, Settings
from morpheus_worker.templates.bind import fill, resolve
from morpheus_worker.templates.brackets import weighed
from morpheus_worker.templates.declared import About, Declaration, MediaKind, ParamType
from morpheus_worker.templates.template import Template, parse_template
from tests.documents import PROJECT, as_json, blocks, documents, inline_code, links, tables, text_of

PACKAGE = PROJECT / "morpheus_worker"
SIZE = {"width": "__param:width__", "height": "__param:height__"}


def codes_in(cell: str) -> list[str]:
    return re.findall(r"`([^`]+)`", cell)


def json_of(document: str) -> list[Any]:
    texts = [block.text for block in blocks(document) if block.language == "json"]
    return [as_json(text if text.startswith("{") else f"{{{text}}}") for text in texts]


# Links, commands, settings.


@pytest.mark.parametrize("document", documents())
def test_every_link_leads_somewhere(document: str) -> None:
    here = (PROJECT / document).parent
    inside = [link.partition("#") for link in links(document) if not link.startswith(("https://", "http://"))]
    assert [path for path, _, _ in inside if path and not (here / path).exists()] == []
    absent = [
        anchor
        for path, _, anchor in inside
        if anchor and anchor not in anchors(here / path if path else PROJECT / document)
    ]
    assert absent == []


def anchors(document: Path) -> set[str]:
    headings = re.findall(r"^#+ (.*)", document.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w -]", "", heading.lower()).replace(" ", "-") for heading in headings}


@pytest.mark.parametrize("document", documents())
def test_a_command_in_the_text_can_be_typed(document: str, capsys: pytest.CaptureFixture[str]) -> None:
    said = [code for code in inline_code(document) if code.startswith("morpheus ")]
    assert [code for code in said if not is_understood(shlex.split(code)[1:])] == []


def is_understood(arguments: list[str]) -> bool:
    try:
        _parser().parse_args(arguments)
    except SystemExit:
        return False
    return True


@pytest.mark.parametrize("document", documents())
def test_a_target_in_the_text_is_one_of_make_s(document: str) -> None:
    targets = set(re.findall(r"^([a-z]+):", (PROJECT / "Makefile").read_text(encoding="utf-8"), re.MULTILINE))
    said = {code.split()[1] for code in inline_code(document) if code.startswith("make ")}
    assert said - targets == set()


@pytest.mark.parametrize("document", documents())
def test_a_variable_in_the_docs_is_a_setting(document: str) -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields} | SHELL_NAMES
    said = set(re.findall(rf"\b{PREFIX}[A-Z_]*[A-Z]\b", text_of(document)))
    assert {name for name in said if not name.startswith(TEST_PREFIX)} - settings == set()


def test_the_help_names_documents_that_exist(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["rehearse", "--help"]) == 0
    named = re.findall(r"docs/\S+\.md", capsys.readouterr().out)
    assert named == ["docs/rehearsal.md"]
    assert (PROJECT / named[0]).is_file()


# docs/jobs.md


def test_every_form_of_a_job_is_accepted() -> None:
    forms = [as_json(code) for code in inline_code("docs/jobs.md") if code.startswith("{")]
    requests = [parse_request("id", form) for form in forms]
    assert [request.workflow_name for request in requests] == ["sdxl_txt2img", "creation", "creation", None]
    assert [parse_request("id", json.dumps(form)) for form in forms] == requests


def test_the_forms_and_options_are_all_that_a_job_can_have() -> None:
    (rows,) = tables("docs/jobs.md", "form")
    forms = [as_json(codes_in(row[0])[0]) for row in rows]
    options, _output = tables("docs/jobs.md", "key")
    named = {codes_in(row[0])[0] for row in options} | {key for form in forms for key in form}
    assert named - {"prompt", "seed"} == set(JobInput.model_fields)


@pytest.mark.parametrize(("number", "model"), [(0, JobResult), (2, JobFailure), (3, Progress)])
def test_an_example_is_of_its_model(number: int, model: type[BaseModel]) -> None:
    example = json_of("docs/jobs.md")[number]
    assert model.model_validate(example).model_dump(mode="json", exclude_unset=True) == example


def test_the_answer_to_a_graph_is_an_excerpt_of_a_result() -> None:
    excerpt = json_of("docs/jobs.md")[1]
    whole = {"job_id": "id", "trace_id": "id", "params": {}, "timings": {}, "outputs": [], **excerpt}
    assert JobResult.model_validate(whole).model_dump(mode="json", exclude_unset=True) == whole
    (rows,) = tables("docs/jobs.md", "`outputs`")
    assert [codes_in(row[0])[0] for row in rows] == list(get_args(StoreName))


def test_the_readme_shows_a_job_and_an_excerpt_of_its_result() -> None:
    job, result = json_of("README.md")
    assert parse_request("id", job["input"]).workflow_name == "sdxl_txt2img"
    rest = {"job_id": "id", "trace_id": "id", "params": {}, "timings": {}}
    whole = {**rest, **result, "outputs": [{"node_id": "7", **output} for output in result["outputs"]]}
    assert JobResult.model_validate(whole).model_dump(mode="json", exclude_unset=True) == whole


def test_the_table_of_an_output_is_the_model() -> None:
    _options, rows = tables("docs/jobs.md", "key")
    assert [code for row in rows for code in codes_in(row[0])] == list(OutputFile.model_fields)
    assert codes_in(rows[0][1]) == list(get_args(OutputFile.model_fields["kind"].annotation))


def test_the_table_of_failures_is_the_code() -> None:
    (rows,) = tables("docs/jobs.md", "code")
    said = {codes_in(row[0])[0]: row[3] for row in rows}
    assert said == {code.value: "yes" if code in RETRYABLE else "no" for code in Code}
    (kept,) = NOT_REFUNDABLE
    assert f"`refundable` is false for `{kept}` alone." in text_of("docs/jobs.md")


def test_the_stages_are_those_of_progress() -> None:
    (said,) = re.findall(r"`stage` is (.*?);", text_of("docs/jobs.md"))
    assert codes_in(said) == list(get_args(Stage))


# docs/templates.md


def template(inputs: str) -> Template:
    """A template of one node, with these inputs as they are written."""
    return parse_template(f'{{"1": {{"class_type": "Node", "inputs": {{{inputs}}}}}}}', name="test")


def test_the_placeholders_become_what_the_table_says() -> None:
    (rows,) = tables("docs/templates.md", "placeholder")
    shown = [codes_in(row[0])[0] for row in rows]
    whole, bare, text, file, folder = (template(code) for code in shown)
    for steps in (20, True, ["a", "b"]):
        for form in (whole, bare):
            assert fill(resolve(form, {"steps": steps})).graph["1"]["inputs"] == {"steps": steps}
    assert fill(resolve(text, {"subject": "a cat"})).graph["1"]["inputs"] == {"text": "photo of a cat, sharp"}
    kinds = {slot.key: slot.kind for form in (file, folder) for slot in staged(form)}
    assert kinds == {"face": "file", "dataset": "dir"}


def staged(form: Template) -> Any:
    return resolve(form, dict.fromkeys(form.params, "job_outputs/a/b")).media


def test_the_example_of_about_has_every_key() -> None:
    about, *_ = json_of("docs/templates.md")
    assert About.model_validate(about["_about"]).model_fields_set == set(About.model_fields)


def test_the_example_of_params_does_what_the_text_says() -> None:
    _, params, *_ = json_of("docs/templates.md")
    graph = {
        "8": {"class_type": "Draw", "inputs": {key: f"__param:{key}__" for key in ("prompt", "steps")} | SIZE},
        "20": {"class_type": "Enlarge", "inputs": {"image": ["8", 0], "by": "__param:by__"}},
        "9": {"class_type": "SaveImage", "inputs": {"images": ["8", 0]}},
    }
    made = parse_template(json.dumps(params | graph), name="test")
    small = fill(resolve(made, {"prompt": "x", "aspect": "16:9", "height": 700})).graph
    assert small["8"]["inputs"] == {"prompt": "x", "steps": 30, "width": 1344, "height": 700}
    assert "20" not in small
    large = fill(resolve(made, {"prompt": "x", "enlarge": True, "by": 2})).graph
    assert (large["9"]["inputs"]["images"], large["20"]["inputs"]["by"]) == (["20", 0], 2)


def test_the_example_of_optional_parts_does_what_the_text_says() -> None:
    _, _, params, _ = json_of("docs/templates.md")
    graph = {
        "1": {"class_type": "Load", "inputs": {}},
        "5": {"class_type": "Guide", "inputs": {"model": ["1", 0], "scale": "__param:guidance__"}},
        "10": {"class_type": "Encode", "inputs": {}},
        "11": {"class_type": "LoadImage", "inputs": {"image": "__param:face__"}},
        "12": {"class_type": "Identify", "inputs": {"model": ["5", 0], "image": ["11", 0]}},
        "13": {"class_type": "Control", "inputs": {"positive": ["10", 0], "negative": ["10", 1], "image": ["11", 0]}},
        "7": {"class_type": "Sample", "inputs": {"model": ["12", 0], "plus": ["13", 0], "minus": ["13", 1]}},
        "8": {"class_type": "LoadVae", "inputs": {"name": "__param:vae_name__"}},
        "6": {"class_type": "Decode", "inputs": {"samples": ["7", 0], "vae": ["1", 2]}},
    }
    made = parse_template(json.dumps(params | graph), name="test")
    plain = fill(resolve(made, {"guidance": 0})).graph
    assert list(plain) == ["1", "10", "7", "6"]
    assert plain["7"]["inputs"] == {"model": ["1", 0], "plus": ["10", 0], "minus": ["10", 1]}
    whole = fill(resolve(made, {"face": "a.png", "vae_name": "v"}), {"face": "a.png"}).graph
    assert (list(whole), whole["6"]["inputs"]["vae"]) == (list(graph), ["8", 0])


def test_the_example_of_a_list_does_what_the_text_says() -> None:
    _, _, _, params = json_of("docs/templates.md")
    graph: dict[str, Any] = {
        "1": {"class_type": "Load", "inputs": {}},
        "2": {"class_type": "Lora", "inputs": {"model": ["1", 0], "clip": ["1", 1]}},
        "3": {"class_type": "Sample", "inputs": {"model": ["2", 0], "clip": ["2", 1]}},
    }
    graph["2"]["inputs"] |= {"name": "__param:loras.name__", "strength": "__param:loras.strength__"}
    made = parse_template(json.dumps(params | graph), name="test")
    (sent,) = [
        as_json(f'{{"loras": {code}}}') for code in inline_code("docs/templates.md") if code.startswith('[{"name"')
    ]
    filled = fill(resolve(made, sent)).graph
    assert list(filled) == ["1", "2", "2_2", "3"]
    assert filled["2_2"]["inputs"] == {"model": ["2", 0], "clip": ["2", 1], "name": "b.safetensors", "strength": 1.0}
    assert fill(resolve(made, {})).graph["3"]["inputs"] == {"model": ["1", 0], "clip": ["1", 1]}
    (row,) = (row for row in tables("docs/templates.md", "key")[0] if codes_in(row[0])[0] == "brackets")
    assert weighed(codes_in(row[1])[1]) == codes_in(row[1])[2]


def test_the_keys_and_types_of_a_declaration_are_all_there() -> None:
    (rows,) = tables("docs/templates.md", "key")
    said = {key: row[1] for row in rows for key in codes_in(row[0])}
    assert set(said) == set(Declaration.model_fields)
    assert codes_in(said["type"]) == list(get_args(ParamType))
    assert codes_in(said["media"]) == list(get_args(MediaKind))


def test_the_workflows_are_those_that_ship() -> None:
    (rows,) = tables("README.md", "template")
    shipped = Library.load(Settings.from_environment({}).workflows_dir)
    assert sorted(codes_in(row[0]) for row in rows) == [[made.name, *made.about.aliases] for made in shipped]


# docs/rehearsal.md and ARCHITECTURE.md


def test_the_faults_are_those_of_the_engine() -> None:
    (rows,) = tables("docs/rehearsal.md", "fault")
    words = [codes_in(row[0])[0] for row in rows]
    assert [word.partition("=")[0] for word in words] == [name for name, _ in Faults.table()]
    assert Faults.parse(words) != Faults()


def test_every_module_has_a_place_on_one_floor() -> None:
    (rows,) = tables("ARCHITECTURE.md", "floor")
    places = [code for row in rows for code in codes_in(row[2])]
    paths = (path for path in PACKAGE.rglob("*.py") if path.name != "__init__.py")
    homes = {
        module: [place for place in places if module == place or (place[-1] == "/" and module.startswith(place))]
        for module in (str(path.relative_to(PACKAGE).with_suffix("")) for path in paths)
    }
    assert {module: found for module, found in homes.items() if len(found) != 1} == {}
    assert set(places) == {found for module in homes.values() for found in module}


@pytest.mark.parametrize("document", documents())
def test_what_is_named_in_the_code_is_there(document: str) -> None:
    said = [code for code in inline_code(document) if re.fullmatch(r"[a-z/]+(\.\w+)+", code)]
    ours = [code for code in said if is_module(code.partition(".")[0]) and not (PROJECT / code).exists()]
    assert [code for code in ours if not is_there(code)] == []


def is_module(path: str) -> bool:
    return (PACKAGE / f"{path}.py").is_file() or (PACKAGE / path / "__init__.py").is_file()


def is_there(code: str) -> bool:
    """`comfy/client.ComfyClient.run`: a module, and what is found in it."""
    module, *names = code.split(".")
    found: Any = importlib.import_module(f"morpheus_worker.{module.replace('/', '.')}")
    try:
        functools.reduce(getattr, names, found)
    except AttributeError:
        return False
    return True
