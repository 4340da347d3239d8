from __future__ import annotations

import json
from typing import Any

import pytest

from morpheus_worker.comfy.graphs import dangling_links
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.templates.params import Param
from morpheus_worker.templates.template import Template, parse_template
from morpheus_worker.templates.values import read_value
from morpheus_worker.templates.variations import Variation, bind_variation, bound_variation, plausible, variations

INFO = ObjectInfo(
    {
        "Draw": {
            "input": {
                "required": {
                    "text": ["STRING", {}],
                    "width": ["INT", {"default": 64}],
                    "height": ["INT", {"min": 16}],
                    "sampler": [["euler", "heun"]],
                }
            },
            "output": ["IMAGE"],
        },
        "LoadImage": {"input": {"required": {"image": [[], {"image_upload": True}]}}, "output": ["IMAGE"]},
        "Style": {"input": {"required": {"image": ["IMAGE"], "name": [["x", "y"]]}}, "output": ["IMAGE"]},
        "Guide": {"input": {"required": {"image": ["IMAGE"], "scale": ["FLOAT", {}]}}, "output": ["IMAGE"]},
        "Enlarge": {"input": {"required": {"image": ["IMAGE"], "model": ["STRING", {}]}}, "output": ["IMAGE"]},
        "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
    }
)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


PARAMS: dict[str, Any] = {
    "prompt": {"type": "string"},
    "aspect": {"default": "1:1", "choices": {"1:1": {}, "2:1": {"set": {"width": 128}}}},
    "enlarge": {
        "type": "bool",
        "default": False,
        "choices": {"true": {"links": {"9.images": ["20", 0]}}, "false": {}},
    },
    "enlarger": {"type": "string"},
    "scale": {"type": "float", "default": 3.0, "effects": {"0": {"bypass": {"5": ["image"]}}}},
    "styles": {"type": "list", "default": [], "repeat": {"6": ["image"]}, "items": {"name": {}}},
    "start": {"type": "image", "default": None, "effects": {"*": {"links": {"5.image": ["7", 0]}}}},
    "seed": {"type": "seed"},
}
GRAPH = {
    "1": node("Draw", text="__param:prompt__ __param:seed__", width="__param:width__", height=64, sampler="euler"),
    "5": node("Guide", image=["1", 0], scale="__param:scale__"),
    "6": node("Style", image=["5", 0], name="__param:styles.name__"),
    "7": node("LoadImage", image="__param:start__"),
    "20": node("Enlarge", image=["6", 0], model="__param:enlarger__"),
    "9": node("Save", images=["6", 0]),
}


def parse(params: Any = None, graph: Any = None, info: ObjectInfo | None = INFO) -> Template:
    return parse_template(
        json.dumps({"_params": PARAMS | (params or {})} | (graph or GRAPH)), name="x", object_info=info
    )


def by_sentence(template: Template) -> dict[str, Variation]:
    return {variation.sentence: variation for variation in variations(template)}


@pytest.mark.parametrize("info", [INFO, None], ids=["known classes", "no object info"])
def test_every_part_is_tried_alone(info: ObjectInfo | None) -> None:
    template = parse(info=info)
    nodes = {sentence: list(bind_variation(template, found)) for sentence, found in by_sentence(template).items()}
    assert nodes == {
        "the defaults": ["1", "5", "9"],
        "aspect = 2:1": ["1", "5", "9"],
        "enlarge = true": ["1", "5", "20", "9"],
        "scale = 0.0": ["1", "9"],
        "styles with 1 item": ["1", "5", "6", "9"],
        "styles with 2 items": ["1", "5", "6", "6_2", "9"],
        "start given": ["5", "7", "9"],
    }


def test_what_is_required_is_made_up_where_it_is_needed() -> None:
    found = by_sentence(parse())
    assert found["the defaults"].params == {"prompt": "prompt"}
    assert found["the defaults"].made_up == {"prompt"}
    assert found["enlarge = true"].params == {"enlarge": True, "prompt": "prompt", "enlarger": "enlarger"}
    assert found["enlarge = true"].made_up == {"prompt", "enlarger"}
    assert found["styles with 2 items"].params["styles"] == [{"name": "x"}, {"name": "x"}]
    assert found["styles with 2 items"].made_up == {"prompt"}
    assert found["start given"].made_up == {"start"}


def test_every_graph_holds_together() -> None:
    template = parse()
    for variation in variations(template):
        graph = bind_variation(template, variation)
        assert list(dangling_links(graph)) == []
        assert "__param" not in json.dumps(graph)


def test_a_finding_can_be_led_back_to_its_param() -> None:
    template = parse()
    bound = bound_variation(template, by_sentence(template)["styles with 2 items"])
    assert bound.where("6_2", "name") == "params.styles[1].name"


@pytest.mark.parametrize(
    ("said", "sentences"),
    [
        ({"type": "string", "default": None, "effects": {"*": {"bypass": {"5": ["image"]}}}}, ["x given"]),
        ({"type": "string", "default": "a", "effects": {"*": {"bypass": {"5": ["image"]}}}}, []),
        ({"type": "string", "default": "a", "effects": {"a": {}, "*": {"bypass": {"5": ["image"]}}}}, ["x given"]),
        ({"type": "string", "default": None, "effects": {"null": {"bypass": {"5": ["image"]}}}}, ["x given"]),
        ({"type": "any", "default": 5, "effects": {"6": {}}}, ["x = 6"]),
        ({"type": "int", "default": 0, "min": 0, "effects": {"0": {}, "*": {}}}, []),
        (
            {"type": "int", "default": 0, "min": 0, "effects": {"0": {}, "*": {"bypass": {"5": ["image"]}}}},
            ["x given"],
        ),
        ({"type": "int", "default": 2, "choices": [1, 2, 3]}, ["x = 1", "x = 3"]),
        ({"type": "bool", "default": False, "choices": {"false": {}, "true": {}}}, ["x = true"]),
        ({"type": "bool", "default": False}, []),
    ],
)
def test_what_is_worth_a_try(said: Any, sentences: list[str]) -> None:
    graph = GRAPH | {"1": node("Draw", text="__param:x__", width=64, height=64, sampler="euler")}
    params = {"styles": PARAMS["styles"], "x": said}
    template = parse_template(json.dumps({"_params": params} | graph), name="x", object_info=INFO)
    assert [found.sentence for found in variations(template) if found.sentence.startswith("x ")] == sentences


@pytest.mark.parametrize(
    ("param", "value", "made_up"),
    [
        (Param("k", "string", "d"), "d", False),
        (Param("k", "string"), "k", True),
        (Param("k", "string", shown_choices=("a", "b")), "a", False),
        (Param("k", "int"), 1, True),
        (Param("k", "int", minimum=16, maximum=64), 16, True),
        (Param("k", "int", maximum=-5), -5, True),
        (Param("k", "float", minimum=0.0, maximum=0.5), 0.5, True),
        (Param("k", "bool"), True, True),
        (Param("k", "list"), [], True),
        (Param("k", "object"), {}, True),
        (Param("k", "any"), "k", True),
        (Param("k", "image", media="image"), "job_outputs/variation/k", True),
        (Param("k", "output_path"), "job_outputs/variation/k", True),
        (Param("k", "list", items={"a": Param("k.a", "int")}), [{"a": 1}], True),
        (Param("k", "list", items={"a": Param("k.a", "int")}, minimum=2), [{"a": 1}, {"a": 1}], True),
    ],
)
def test_a_plausible_value(param: Param, value: Any, made_up: bool) -> None:
    assert plausible(param) == (value, made_up)
    assert read_value(param, value) == value


def test_a_list_is_tried_within_its_length() -> None:
    styles = PARAMS["styles"]
    one_at_most = by_sentence(parse({"styles": styles | {"max": 1}}))
    assert [said for said in one_at_most if said.startswith("styles")] == ["styles with 1 item"]
    some = by_sentence(parse({"styles": styles | {"min": 1, "default": ["y"]}}))
    assert [said for said in some if said.startswith("styles")] == ["styles with 1 item", "styles with 2 items"]
