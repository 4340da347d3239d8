"""The JSON Schema of a template's params, and the example job of each workflow that ships."""

from __future__ import annotations

import json
from typing import Any

import pytest
from jsonschema import Draft202012Validator  # type: ignore[import-untyped]

from morpheus_worker.comfy.recorded import load_known
from morpheus_worker.errors import MorpheusError
from morpheus_worker.library import Library
from morpheus_worker.param_schema import example_params, json_schema
from morpheus_worker.settings import Settings
from morpheus_worker.templates.resolving import resolve
from morpheus_worker.templates.template import Template, parse_template

SHIPPED = Library.load(Settings.from_environment({}).workflows_dir, object_info=load_known())


def template_of(params: dict[str, Any], graph: dict[str, Any] | None = None, **about: Any) -> Template:
    inputs = {key: f"__param:{key}__" for key in params}
    graph = graph or {"1": {"class_type": "Any", "inputs": inputs}}
    return parse_template(json.dumps({"_about": about, "_params": params, **graph}), name="t")


def fits(template: Template, params: dict[str, Any]) -> bool:
    """Whether the schema takes the params, which must be what binding says, too."""
    schema = json_schema(template)
    Draft202012Validator.check_schema(schema)
    accepted = bool(Draft202012Validator(schema).is_valid(params))
    assert accepted == binds(template, params)
    return accepted


def binds(template: Template, params: dict[str, Any]) -> bool:
    try:
        resolve(template, params)
    except MorpheusError:
        return False
    return True


@pytest.mark.parametrize("template", SHIPPED, ids=lambda template: str(template.name))
def test_a_shipped_workflow_has_a_schema_and_an_example_that_can_be_sent(template: Template) -> None:
    schema = json_schema(template)
    Draft202012Validator.check_schema(schema)
    example = example_params(template)
    assert example
    assert not [error.message for error in Draft202012Validator(schema).iter_errors(example)]
    assert binds(template, example)
    assert schema["examples"] == [example]
    assert template.params.keys() | template.aliases.keys() == schema["properties"].keys()


def test_what_a_person_reads_is_in_it() -> None:
    schema = json_schema(SHIPPED.get("sdxl_txt2img"))
    assert (schema["$schema"], schema["type"]) == ("https://json-schema.org/draft/2020-12/schema", "object")
    assert schema["title"] == "SDXL text to image"
    steps = schema["properties"]["steps"]
    assert (steps["type"], steps["minimum"], steps["maximum"], steps["default"]) == ("integer", 1, 150, 30)
    assert "refine" in steps["description"]
    assert "16:9" in schema["properties"]["aspect"]["enum"]
    assert schema["properties"]["cfg_scale"] == {"$ref": "#/properties/cfg", "deprecated": True}
    assert "default" not in schema["properties"]["seed"]
    assert "prompt" in schema["required"]


def test_a_medium_is_text_whose_forms_are_told() -> None:
    image = json_schema(SHIPPED.get("upscale"))["properties"]["image"]
    assert image["type"] == "string"
    assert "data URI" in image["description"]


@pytest.mark.parametrize(
    ("declared", "good", "bad"),
    [
        ({"type": "int", "min": 1, "max": 9}, [1, 9, 7.0], [0, 10, 7.5, True, None, [], "seven"]),
        ({"type": "float", "min": 0, "max": 1}, [0, 1, 0.5], [-0.1, 1.1, True, None, "half"]),
        ({"type": "bool", "default": True}, [True, False], [0, 1, "yes"]),
        ({"type": "string"}, ["", "x"], [1, None, True, ["x"]]),
        ({"type": "string", "choices": ["a", "b"]}, ["a", "b"], ["c", "A", "", 1, None]),
        ({"type": "int", "choices": [1, 2]}, [1, 2, 2.0], [0, 3, True]),
        ({"type": "string", "default": None, "choices": ["a"]}, ["a", None], ["b"]),
        ({"type": "seed"}, [-1, 0, 2**64 - 1], [-2, 2**64, 0.5]),
        ({"type": "seed", "min": 10}, [-1, 10], [-2, 0, 9]),
        ({"type": "image"}, ["https://example.com/a.png"], ["", "  ", 1, None]),
        ({"type": "list"}, [[], [1, "a"]], ["a", {}, None]),
        ({"type": "list", "min": 1, "max": 2}, [[1], [1, 2]], [[], [1, 2, 3]]),
        ({"type": "object"}, [{}, {"a": 1}], ["a", [], None]),
        ({"type": "any"}, [1, "a", None, [], {}], []),
        ({"type": "output_path"}, ["job_outputs/a/b.bin"], ["", " ", 1]),
    ],
    ids=lambda value: json.dumps(value) if isinstance(value, dict) else "",
)
def test_a_value_fits_when_binding_takes_it(declared: dict[str, Any], good: list[Any], bad: list[Any]) -> None:
    template = template_of({"x": declared})
    assert [value for value in good if not fits(template, {"x": value})] == []
    assert [value for value in bad if fits(template, {"x": value})] == []


def test_what_is_no_param_is_refused_and_what_has_a_default_need_not_be_sent() -> None:
    template = template_of({"x": {"type": "int"}, "y": {"type": "int", "default": 3}, "z": {"type": "seed"}})
    assert fits(template, {"x": 1})
    assert fits(template, {"x": 1, "y": 2, "z": 5})
    assert not fits(template, {"y": 2})
    assert not fits(template, {"x": 1, "w": 2})
    assert not fits(template, {"x": 1, "job_id": "a"})


def test_a_param_is_given_under_one_of_its_names() -> None:
    template = template_of(
        {"cfg": {"type": "float"}, "face_pod_path": {"type": "image", "default": None}},
        param_aliases={"cfg_scale": "cfg"},
    )
    assert fits(template, {"cfg": 7})
    assert fits(template, {"cfg_scale": 7, "face_local_path": "a.png"})
    assert not fits(template, {"cfg_scale": "a"})
    assert not fits(template, {"face_pod_path": "a.png"})
    assert not fits(template, {"cfg": 7, "cfg_scale": 7})
    assert not fits(template, {"cfg": 7, "face_pod_path": "a.png", "face_local_path": "a.png"})


ITEMS = {
    "type": "list",
    "default": [],
    "repeat": {"2": ["model"]},
    "items": {"name": {"type": "string"}, "strength": {"type": "float", "default": 1.0, "min": -10, "max": 10}},
    "max": 3,
}
REPEATED = {
    "1": {"class_type": "A", "inputs": {}},
    "2": {
        "class_type": "B",
        "inputs": {"model": ["1", 0], "name": "__param:loras.name__", "strength": "__param:loras.strength__"},
    },
    "3": {"class_type": "C", "inputs": {"model": ["2", 0]}},
}


@pytest.mark.parametrize(
    ("items", "is_good"),
    [
        ([], True),
        (["a"], True),
        ([{"name": "a", "strength": 2}, "b"], True),
        ([{"strength": 2}], False),
        ([{"name": "a", "strength": 11}], False),
        ([{"name": "a", "weight": 1}], False),
        ([1], False),
        (["a"] * 4, False),
    ],
)
def test_items_of_a_list_have_their_fields(items: list[Any], is_good: bool) -> None:
    assert fits(template_of({"loras": ITEMS}, REPEATED), {"loras": items}) is is_good


def test_a_value_that_brings_a_part_in_or_takes_it_out_changes_what_is_required() -> None:
    graph = {
        "1": {"class_type": "LoadImage", "inputs": {"image": "__param:image__"}},
        "2": {"class_type": "Pose", "inputs": {"image": ["1", 0], "mask": "__param:mask__"}},
        "3": {"class_type": "Out", "inputs": {"image": ["1", 0]}},
    }
    choices = {
        "plain": {},
        "posed": {"links": {"3.image": ["2", 0]}},
        "blank": {"links": {"3.image": ["4", 0]}},
    }
    graph["4"] = {"class_type": "EmptyImage", "inputs": {}}
    params = {"kind": {"default": "plain", "choices": choices}, "image": {"type": "image"}, "mask": {"type": "int"}}
    template = template_of(params, graph, param_aliases={"sort": "kind"})
    for sent in ({"image": "a"}, {"image": "a", "kind": "plain"}, {"kind": "blank"}, {"sort": "blank"}):
        assert fits(template, sent), sent
    assert fits(template, {"image": "a", "mask": 1, "kind": "posed"})
    for sent in ({}, {"kind": "plain"}, {"image": "a", "kind": "posed"}, {"image": "a", "sort": "posed"}):
        assert not fits(template, sent), sent


def test_any_value_may_bring_a_part_in() -> None:
    graph = {
        "1": {"class_type": "A", "inputs": {}},
        "2": {"class_type": "B", "inputs": {"name": "__param:vae__", "size": "__param:size__"}},
        "3": {"class_type": "C", "inputs": {"vae": ["1", 0]}},
    }
    vae = {"type": "string", "default": None, "effects": {"*": {"links": {"3.vae": ["2", 0]}}}}
    template = template_of({"vae": vae, "size": {"type": "int"}}, graph)
    assert fits(template, {})
    assert fits(template, {"vae": None})
    assert fits(template, {"vae": "a.safetensors", "size": 3})
    assert not fits(template, {"vae": "a.safetensors"})


@pytest.mark.parametrize(
    ("params", "example"),
    [
        ({"prompt": {"type": "string", "default": "x"}}, {"prompt": "a lighthouse at dusk"}),
        ({"seed": {"type": "seed"}}, {"seed": 42}),
        ({"seed": {"type": "seed", "min": 50}, "n": {"type": "int", "default": 3}}, {"n": 3}),
        ({"a": {"type": "int", "min": 5}, "b": {"type": "float", "max": 0.5}}, {"a": 5, "b": 0.5}),
        ({"a": {"type": "string", "choices": ["u", "v"]}, "b": {"type": "bool"}}, {"a": "u", "b": True}),
        ({"clip": {"type": "video"}}, {"clip": "https://example.com/clip.mp4"}),
        ({"many": {"type": "list", "min": 2}}, {"many": [0, 0]}),
        ({"face_pod_path": {"type": "image"}}, {"face_pod_path": "job_outputs/a-job/photo.png"}),
        ({"set": {"type": "dir"}}, {"set": "job_outputs/a-job"}),
        ({key: {"type": "int", "default": 1} for key in "abc"}, {"a": 1, "b": 1}),
    ],
)
def test_an_example_has_what_is_required_and_can_be_sent(params: dict[str, Any], example: dict[str, Any]) -> None:
    template = template_of(params)
    assert example_params(template) == example
    assert fits(template, example)
