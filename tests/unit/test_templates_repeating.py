from __future__ import annotations

import json
from typing import Any

import pytest

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.templates.bind import Bound, fill, resolve
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.reading import TemplateError
from morpheus_worker.templates.template import Template, check_template, parse_template

INFO = ObjectInfo(
    {
        "Load": {"input": {"required": {}}, "output": ["MODEL", "CLIP"]},
        "Lora": {
            "input": {
                "required": {
                    "model": ["MODEL"],
                    "clip": ["CLIP"],
                    "name": [["a.safetensors", "b.safetensors", "c.safetensors"]],
                    "strength": ["FLOAT", {"default": 1.0, "min": -100.0, "max": 100.0}],
                },
                "optional": {"note": ["STRING", {}]},
            },
            "output": ["MODEL", "CLIP"],
        },
        "Sample": {"input": {"required": {"model": ["MODEL"], "clip": ["CLIP"]}}, "output": ["IMAGE"]},
        "LoadImage": {"input": {"required": {"image": [[], {"image_upload": True}]}}, "output": ["IMAGE"]},
        "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
    }
)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


LORA = node("Lora", model=["1", 0], clip=["1", 1], name="__param:loras.name__", strength="__param:loras.strength__")
FIELDS: dict[str, Any] = {
    "name": {"type": "string"},
    "strength": {"type": "float", "default": 1.0, "min": -10, "max": 10},
}
LORAS: dict[str, Any] = {
    "type": "list",
    "default": [],
    "repeat": {"2": ["model", "clip"]},
    "items": FIELDS,
}
CHAIN = {
    "1": node("Load"),
    "2": LORA,
    "3": node("Sample", model=["2", 0], clip=["2", 1]),
    "9": node("Save", images=["3", 0]),
}
"""Load (1) → Lora (2), repeated → Sample (3) → Save (9)."""


def parse(said: Any = None, more: Any = None, info: ObjectInfo | None = INFO, **params: Any) -> Template:
    blocks = {"_params": {"loras": LORAS | (said or {})} | params}
    return parse_template(json.dumps(blocks | CHAIN | (more or {})), name="test", object_info=info)


def bind(template: Template, **params: Any) -> Bound:
    return fill(resolve(template, params))


def refused(template: Template, **params: Any) -> list[str]:
    with pytest.raises(MorpheusError) as raised:
        resolve(template, params)
    return [str(problem) for problem in raised.value.problems]


def problems_of(said: Any, more: Any = None, **params: Any) -> list[str]:
    with pytest.raises(TemplateError) as raised:
        parse(said, more, None, **params)
    return [problem.what + (f" ({problem.hint})" if problem.hint else "") for problem in raised.value.problems]


# Copies


@pytest.mark.parametrize("info", [INFO, None], ids=["known classes", "no object info"])
def test_an_empty_list_leaves_the_node_out(info: ObjectInfo | None) -> None:
    bound = bind(parse(info=info))
    assert bound.graph == {
        "1": node("Load"),
        "3": node("Sample", model=["1", 0], clip=["1", 1]),
        "9": node("Save", images=["3", 0]),
    }
    assert bound.params == {"loras": []}


def test_one_item_is_the_node_itself() -> None:
    bound = bind(parse(), loras=[{"name": "a.safetensors", "strength": "0.5"}])
    lora = node("Lora", model=["1", 0], clip=["1", 1], name="a.safetensors", strength=0.5)
    assert bound.graph == CHAIN | {"2": lora}
    assert bound.params == {"loras": [{"name": "a.safetensors", "strength": 0.5}]}


@pytest.mark.parametrize("info", [INFO, None], ids=["known classes", "no object info"])
def test_copies_are_chained_in_the_order_of_the_items(info: ObjectInfo | None) -> None:
    loras = ["a.safetensors", {"name": "b.safetensors", "strength": 2}, {"name": "c.safetensors", "strength": None}]
    bound = bind(parse(info=info), loras=loras)
    assert list(bound.graph) == ["1", "2", "2_2", "2_3", "3", "9"]
    assert [bound.graph[own_id]["inputs"] for own_id in ("2", "2_2", "2_3", "3")] == [
        {"model": ["1", 0], "clip": ["1", 1], "name": "a.safetensors", "strength": 1.0},
        {"model": ["2", 0], "clip": ["2", 1], "name": "b.safetensors", "strength": 2.0},
        {"model": ["2_2", 0], "clip": ["2_2", 1], "name": "c.safetensors", "strength": 1.0},
        {"model": ["2_3", 0], "clip": ["2_3", 1]},
    ]
    assert bound.params["loras"][2] == {"name": "c.safetensors", "strength": 1.0}


def test_copies_take_free_ids() -> None:
    more = {
        "2_2": node("Load"),
        "4": node("Sample", model=["2_2", 0], clip=["2_2", 1]),
        "10": node("Save", images=["4", 0]),
    }
    graph = bind(parse(more=more), loras=["a.safetensors", "b.safetensors"]).graph
    assert list(graph) == ["1", "2", "2_3", "3", "9", "2_2", "4", "10"]
    assert graph["3"]["inputs"]["model"] == ["2_3", 0]
    assert graph["4"]["inputs"]["model"] == ["2_2", 0]


def test_each_copy_has_what_all_of_them_share() -> None:
    more = {"2": node("Lora", **LORA["inputs"], note="__param:note__: __param:loras.name__")}
    graph = bind(parse(more=more), loras=["a.safetensors", "b.safetensors"], note="n").graph
    assert [graph[own_id]["inputs"]["note"] for own_id in ("2", "2_2")] == ["n: a.safetensors", "n: b.safetensors"]


def test_a_field_that_the_node_does_without_is_left_out() -> None:
    items: dict[str, Any] = FIELDS | {"note": {"type": "string", "default": None}}
    more = {"2": node("Lora", **LORA["inputs"], note="__param:loras.note__")}
    template = parse({"items": items}, more)
    graph = bind(template, loras=[{"name": "a.safetensors", "note": "n"}, "b.safetensors"]).graph
    assert graph["2"]["inputs"]["note"] == "n"
    assert "note" not in graph["2_2"]["inputs"]


def test_two_nodes_of_one_list() -> None:
    """Of two nodes that one list repeats, a copy reads that of its own item; everybody else reads the last."""
    said = {"repeat": {"2": ["model", "clip"], "4": ["model"], "5": []}}
    more = {
        "4": node("Lora", model=["3", 0], weights=["5", 0], name="__param:loras.name__"),
        "5": node("Weigh", by="__param:loras.strength__"),
        "9": node("Save", images=["4", 0]),
    }
    graph = bind(parse(said, more, None), loras=["a", {"name": "b", "strength": 2}]).graph
    assert graph["4"]["inputs"] == {"model": ["3", 0], "weights": ["5", 0], "name": "a"}
    assert graph["4_2"]["inputs"] == {"model": ["4", 0], "weights": ["5_2", 0], "name": "b"}
    assert graph["5_2"]["inputs"] == {"by": 2.0}
    assert graph["9"]["inputs"] == {"images": ["4_2", 0]}
    assert graph["3"]["inputs"] == {"model": ["2_2", 0], "clip": ["2_2", 1]}
    assert list(bind(parse(said, more, None)).graph) == ["1", "3", "9"]


def test_a_bypass_takes_every_copy_out_and_nothing_is_asked_for() -> None:
    off = {"type": "bool", "default": False, "effects": {"true": {"bypass": {"2": ["model", "clip"]}}}}
    template = parse({"default": None, "min": 1}, {}, INFO, off=off)
    graph = bind(template, off=True, loras=["a.safetensors", "b.safetensors"]).graph
    assert list(graph) == ["1", "3", "9"]
    assert graph["3"]["inputs"]["model"] == ["1", 0]
    assert bind(template).params == {"loras": None, "off": False}


def test_a_list_that_is_required_is_so_only_where_its_node_is_used() -> None:
    off = {"type": "bool", "default": False, "effects": {"true": {"bypass": {"2": ["model", "clip"]}}}}
    template = parse_template(
        json.dumps({"_params": {"loras": {key: LORAS[key] for key in ("repeat", "items")}, "off": off}} | CHAIN),
        name="test",
        object_info=INFO,
    )
    assert template.params["loras"].type == "list"
    assert refused(template) == ["params.loras: is required"]
    assert list(bind(template, off=True).graph) == ["1", "3", "9"]


def test_an_effect_rewires_what_the_first_copy_reads_and_who_reads_the_last() -> None:
    other = {
        "type": "bool",
        "default": False,
        "effects": {"true": {"links": {"2.model": ["7", 0], "9.images": ["2", 0]}}},
    }
    graph = bind(parse({}, {"7": node("Load")}, INFO, other=other), other=True, loras=["a.safetensors"] * 2).graph
    assert graph["2"]["inputs"]["model"] == ["7", 0]
    assert graph["2_2"]["inputs"]["model"] == ["2", 0]
    assert graph["9"]["inputs"]["images"] == ["2_2", 0]


def test_binding_twice_gives_the_same() -> None:
    template = parse()
    first = bind(template, loras=["a.safetensors"] * 3).graph
    bind(template, loras=[])
    assert bind(template, loras=["a.safetensors"] * 3).graph == first


def test_where_an_input_comes_from() -> None:
    more = {"3": node("Sample", model=["2", 0], clip=["2", 1], note="__param:note__")}
    bound = bind(parse({}, more, INFO, note={"type": "string"}), loras=["a.safetensors"] * 2, note="x")
    assert bound.where("2", "name") == "params.loras[0].name"
    assert bound.where("2_2", "name") == "params.loras[1].name"
    assert bound.where("2_2", "strength") == "params.loras[1].strength"
    assert bound.where("2_2", "model") is None
    assert bound.where("2_3", "name") is None
    assert bound.where("3", "note") == "params.note"


# Items


def test_a_field_is_completed_by_the_object_info() -> None:
    items: dict[str, Any] = {"name": {}, "strength": {}}
    fields = parse({"items": items}).params["loras"].items
    assert [(field.key, field.type, field.default) for field in fields.values()] == [
        ("loras.name", "string", MISSING),
        ("loras.strength", "float", 1.0),
    ]
    assert (fields["strength"].minimum, fields["strength"].maximum) == (-100.0, 100.0)
    assert [choice.value for choice in fields["name"].choices] == ["a.safetensors", "b.safetensors", "c.safetensors"]


def test_everything_wrong_with_the_items_is_told_at_once() -> None:
    items = [
        {"nam": "a.safetensors", "strength": "x"},
        "a.safetensors",
        {"name": "a.safetensors", "strength": 11},
        5,
        None,
    ]
    assert refused(parse(), loras=items) == [
        "params.loras[0].nam: is no field of an item (did you mean 'name'?)",
        "params.loras[0].name: is required",
        "params.loras[0].strength: must be a number, got 'x'",
        "params.loras[2].strength: is 11.0, above the largest value, 10",
        "params.loras[3]: must be an object of name, strength, or just the name as text, got 5",
        "params.loras[4]: must be an object of name, strength, or just the name as text, got null",
    ]


def test_an_item_names_a_model_that_is_not_there() -> None:
    with pytest.raises(MorpheusError, match=r"params.loras\[0\].name: there is no model 'aa.safetensors'") as raised:
        resolve(parse(), {"loras": ["aa.safetensors"]})
    assert raised.value.code == Code.MISSING_MODEL


def test_an_item_is_told_by_the_name_that_the_caller_used() -> None:
    template = parse_template(
        json.dumps({"_about": {"param_aliases": {"adapters": "loras"}}, "_params": {"loras": LORAS}} | CHAIN), name="x"
    )
    assert refused(template, adapters=[{}]) == ["params.adapters[0].name: is required"]


@pytest.mark.parametrize(
    ("said", "count", "problem"),
    [
        ({}, 17, "params.loras: has 17 items, more than 16"),
        ({"max": 1}, 2, "params.loras: has 2 items, more than 1"),
        ({"min": 2, "default": ["a", "b"]}, 1, "params.loras: has 1 item, fewer than 2"),
    ],
)
def test_a_list_has_so_many_items(said: Any, count: int, problem: str) -> None:
    assert refused(parse(said, None, None), loras=["a"] * count) == [problem]


def test_more_items_where_the_template_says_so() -> None:
    assert len(bind(parse({"max": 20}, None, None), loras=["a"] * 20).graph) == 23


@pytest.mark.parametrize("value", ["a.safetensors", {"name": "a.safetensors"}, 5])
def test_a_list_is_a_list(value: Any) -> None:
    (said,) = refused(parse(), loras=value)
    assert said.startswith("params.loras: must be a list, got ")


def test_defaults_and_presets_are_read_as_items_too() -> None:
    style = {"type": "string", "default": "a", "choices": {"a": {}, "b": {"set": {"loras": ["b.safetensors"]}}}}
    template = parse({"default": ["a.safetensors"]}, None, INFO, style=style)
    assert bind(template).params["loras"] == [{"name": "a.safetensors", "strength": 1.0}]
    assert bind(template, style="b").params["loras"] == [{"name": "b.safetensors", "strength": 1.0}]
    assert problems_of({"default": ["a", {"nam": "b"}, {"name": "c", "strength": "x"}]}) == [
        "the default of 'loras' [1].nam is no field of an item (did you mean 'name'?)",
        "the default of 'loras' [1].name is required",
        "the default of 'loras' [2].strength must be a number, got 'x'",
    ]


def test_items_of_a_list_that_repeats_nothing() -> None:
    said = {"type": "list", "items": {"x": {"type": "int"}, "y": {"type": "int", "default": 0}}}
    blocks = {"_params": {"points": said}, "1": node("Draw", points={"__value__": "__param:points__"})}
    template = parse_template(json.dumps(blocks), name="test")
    bound = fill(resolve(template, {"points": [{"x": "1"}]}))
    assert bound.graph["1"]["inputs"] == {"points": {"__value__": [{"x": 1, "y": 0}]}}
    assert refused(template, points=[{"x": "a"}]) == ["params.points[0].x: must be a whole number, got 'a'"]


# Contradictions


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (
            {"repeat": {"2": ["model", "clip"], "22": []}},
            "'loras' repeats node 22, which is not there (did you mean '2'?)",
        ),
        (
            {"repeat": {"2": ["model", "clap"]}},
            "'loras' repeats node 2, which has no input 'clap' (did you mean 'clip'?)",
        ),
        (
            {"repeat": {"2": ["model", "name"]}},
            "'loras' repeats node 2, whose input 'name' is no link (name the inputs that stand in for its outputs)",
        ),
        (
            {"repeat": {"2": ["model"]}},
            "node 3 input clip reads output 1 of node 2, and nothing stands in for that "
            '(name an input for each output that is read: {"2": ["model", "clip"]})',
        ),
        (
            {"repeat": {"2": ["model", "clip"], "3": ["model"]}},
            "'loras' repeats node 3, which takes nothing of its items (put \"__param:loras.name__\" in it)",
        ),
        (
            {"items": {"name": {}}},
            "node 2 takes the field 'strength', which the items of 'loras' do not have (fields: name)",
        ),
        (
            {"items": FIELDS | {"weight": {}}},
            "the field 'weight' of 'loras' fills nothing: it has no placeholder in a repeated node "
            '(put "__param:loras.weight__" in one)',
        ),
        (
            {"items": FIELDS | {"strength": {"typ": "int"}}},
            "_params.loras.items.strength.typ is not known here (did you mean 'type'?)",
        ),
        (
            {"items": FIELDS | {"strength": {"type": "image"}}},
            "the field 'loras.strength' cannot be of type 'image'",
        ),
        (
            {"items": FIELDS | {"strength": {"min": 2, "max": 1}}},
            "the smallest value of 'loras.strength' is larger than the largest "
            '("min" may be 1 at most, or "max" must be 2 at least)',
        ),
        (
            {"items": FIELDS | {"strength": {"type": "int", "default": "x"}}},
            "the default of 'loras.strength' must be a whole number, got 'x'",
        ),
        (
            {"items": FIELDS | {"strength": {"type": "int", "brackets": True}}},
            '\'loras.strength\' has brackets, but is no text ("type": "string")',
        ),
        ({"type": "object", "default": {}}, "'loras' holds items, but is declared 'object' (\"type\": \"list\")"),
        ({"max": 1.5}, "'max' of the list 'loras' counts its items, and cannot be 1.5"),
        ({"min": -1}, "'min' of the list 'loras' counts its items, and cannot be -1"),
        ({"min": 1}, "the default of 'loras' has 0 items, fewer than 1"),
    ],
)
def test_what_is_wrong_with_a_list(said: Any, problem: str) -> None:
    assert problems_of(said)[0] == problem


def test_a_repeat_needs_items() -> None:
    graph = CHAIN | {"2": node("Lora", model=["1", 0], clip=["1", 1])}
    said = {"type": "list", "default": [], "repeat": {"2": ["model", "clip"]}}
    with pytest.raises(TemplateError) as raised:
        parse_template(json.dumps({"_params": {"loras": said}} | graph), name="test")
    assert [problem.what for problem in raised.value.problems] == [
        "'loras' repeats nodes and says nothing of its items"
    ]


def test_a_node_is_repeated_by_one_list_only() -> None:
    again = {"type": "list", "default": [], "repeat": {"2": ["model", "clip"]}, "items": {"name": {"type": "string"}}}
    more = {"2": node("Lora", **LORA["inputs"], note="__param:again.name__")}
    assert problems_of({}, more, again=again) == ["'again' repeats node 2, which 'loras' repeats already"]


def test_a_field_elsewhere() -> None:
    more = {"3": node("Sample", model=["2", 0], clip=["2", 1], note="__param:loras.name__")}
    assert problems_of({}, more) == [
        "node 3 takes 'loras.name', but 'loras' does not repeat it (\"repeat\": {\"3\": [...]})"
    ]


def test_a_field_cannot_fill_a_loader_of_files() -> None:
    more = {"2": node("LoadImage", image="__param:loras.name__", s="__param:loras.strength__"), "3": node("Sample")}
    template = parse({"repeat": {"2": []}, "items": {"name": {}, "strength": {}}}, more)
    assert [problem.what for problem in template.problems] == [
        "the field 'loras.name' fills a loader of files, which no item can bring"
    ]


def test_a_seed_of_an_item_is_a_number() -> None:
    info = ObjectInfo(
        {**INFO.raw, "Lora": {"input": {"required": {"seed": ["INT", {"min": 0, "max": 9}]}}, "output": []}}
    )
    more = {"2": node("Lora", model=["1", 0], clip=["1", 1], seed="__param:loras.seed__")}
    assert parse({"items": {"seed": {}}}, more, info).params["loras"].items["seed"].type == "int"


def test_an_empty_list_by_default_spares_the_node_the_check() -> None:
    more = {"2": node("Strange", **LORA["inputs"])}
    assert check_template(parse(more=more), INFO) == []
    assert [problem.what for problem in check_template(parse({"default": ["a.safetensors"]}, more), INFO)] == [
        "node 2: this ComfyUI has no node class 'Strange'"
    ]


def test_an_empty_list_that_ends_all_outputs() -> None:
    more = {"9": node("Save", images=["3", 0], prefix="__param:loras.name__")}
    said = {"repeat": {"9": ["images"]}, "items": {"name": {"type": "string"}}}
    lone = {"2": node("Lora", model=["1", 0], clip=["1", 1], name="a.safetensors", strength=1.0)}
    assert [problem.what for problem in parse(said, more | lone).problems] == [
        "an empty list 'loras' takes out node 9, and then nothing is saved or shown"
    ]
    assert parse({**said, "min": 1, "default": ["a"]}, more | lone).problems == ()


def test_a_whole_list_is_no_input() -> None:
    """It would come to ComfyUI as a link."""
    with pytest.raises(TemplateError) as raised:
        parse(more={"4": node("Save", images="__param:loras__")})
    (problem,) = raised.value.problems
    assert problem.what == "node 4 input images takes the whole list 'loras', which ComfyUI reads as a link"
    assert problem.hint == (
        '"__param:loras.name__" in a node that the list repeats, or {"__value__": "__param:loras__"}'
    )
    template = parse(more={"4": node("Save", images={"__value__": "__param:loras__"}, said="of __param:loras__")})
    assert template.problems == ()
