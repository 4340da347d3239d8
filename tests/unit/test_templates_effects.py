from __future__ import annotations

import json
from typing import Any

import pytest

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import MorpheusError
from morpheus_worker.templates.bind import Bound, fill, resolve
from morpheus_worker.templates.reading import TemplateError
from morpheus_worker.templates.template import Template, check_template, parse_template

INFO = ObjectInfo(
    {
        "Load": {"input": {"required": {}}, "output": ["MODEL", "CLIP", "VAE"]},
        "Lora": {
            "input": {"required": {"model": ["MODEL"], "clip": ["CLIP"], "name": ["STRING"], "strength": ["FLOAT"]}},
            "output": ["MODEL", "CLIP"],
        },
        "Guide": {"input": {"required": {"model": ["MODEL"], "scale": ["FLOAT"]}}, "output": ["MODEL"]},
        "Encode": {"input": {"required": {"clip": ["CLIP"]}}, "output": ["CONDITIONING"]},
        "Sample": {
            "input": {"required": {"model": ["MODEL"], "positive": ["CONDITIONING"], "vae": ["VAE"]}},
            "output": ["IMAGE"],
        },
        "Vae": {"input": {"required": {"name": ["STRING"]}}, "output": ["VAE"]},
        "LoadImage": {"input": {"required": {"image": [[], {"image_upload": True}]}}, "output": ["IMAGE"]},
        "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
    }
)
EVERYWHERE = pytest.mark.parametrize("info", [INFO, None], ids=["known classes", "no object info"])


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def graph() -> dict[str, Any]:
    """Load (1) → Lora (2) → Guide (5) → Sample (7) → Save (9), with an Encode (3) that reads the Lora's clip."""
    return {
        "1": node("Load"),
        "2": node("Lora", model=["1", 0], clip=["1", 1], name="a", strength="__param:strength__"),
        "3": node("Encode", clip=["2", 1]),
        "5": node("Guide", model=["2", 0], scale="__param:scale__"),
        "7": node("Sample", model=["5", 0], positive=["3", 0], vae=["1", 2]),
        "8": node("Vae", name="__param:vae__"),
        "9": node("Save", images=["7", 0]),
    }


LORA = {"type": "float", "default": 1.0, "effects": {"0": {"bypass": {"2": ["model", "clip"]}}}}
SCALE = {"type": "float", "default": 3.0, "effects": {"0": {"bypass": {"5": ["model"]}}}}
VAE = {"type": "string", "default": None, "effects": {"*": {"links": {"7.vae": ["8", 0]}}}}
PARAMS = {"strength": LORA, "scale": SCALE, "vae": VAE}


def parse(params: Any = PARAMS, more: Any = None, info: ObjectInfo | None = INFO) -> Template:
    return parse_template(json.dumps({"_params": params} | graph() | (more or {})), name="test", object_info=info)


def bind(template: Template, **params: Any) -> Bound:
    return fill(resolve(template, params))


def problems_of(params: Any, more: Any = None) -> list[str]:
    with pytest.raises(TemplateError) as raised:
        parse({**PARAMS, **params}, more, None)
    return [problem.what + (f" ({problem.hint})" if problem.hint else "") for problem in raised.value.problems]


def links_of(bound: Bound) -> dict[str, dict[str, Any]]:
    return {
        node_id: {name: value for name, value in node["inputs"].items() if isinstance(value, list)}
        for node_id, node in bound.graph.items()
    }


@EVERYWHERE
def test_without_an_effect_the_graph_is_as_it_stands(info: ObjectInfo | None) -> None:
    whole = links_of(bind(parse(info=info)))
    assert list(whole) == ["1", "2", "3", "5", "7", "9"]
    assert whole["7"] == {"model": ["5", 0], "positive": ["3", 0], "vae": ["1", 2]}


@EVERYWHERE
def test_a_bypassed_node_is_read_past(info: ObjectInfo | None) -> None:
    bound = bind(parse(info=info), scale=0)
    assert "5" not in bound.graph
    assert links_of(bound)["7"]["model"] == ["2", 0]
    assert bound.params == {"strength": 1.0, "scale": 0.0, "vae": None}


@EVERYWHERE
def test_each_output_has_its_own_stand_in(info: ObjectInfo | None) -> None:
    links = links_of(bind(parse(info=info), strength=0))
    assert "2" not in links
    assert (links["5"]["model"], links["3"]["clip"]) == (["1", 0], ["1", 1])


def test_a_chain_of_bypassed_nodes_is_followed_through() -> None:
    links = links_of(bind(parse(), strength="0", scale=0.0))
    assert list(links) == ["1", "3", "7", "9"]
    assert (links["7"]["model"], links["3"]["clip"]) == (["1", 0], ["1", 1])


@EVERYWHERE
def test_any_value_or_none(info: ObjectInfo | None) -> None:
    template = parse(info=info)
    assert "8" not in bind(template, vae=None).graph
    given = bind(template, vae="fixed.safetensors")
    assert given.graph["8"]["inputs"] == {"name": "fixed.safetensors"}
    assert given.graph["7"]["inputs"]["vae"] == ["8", 0]


def test_a_value_of_its_own_comes_before_any_other() -> None:
    effects = {"null": {"bypass": {"5": ["model"]}}, "none": {}, "*": {"links": {"7.vae": ["8", 0]}}}
    template = parse(PARAMS | {"vae": {"type": "string", "default": None, "effects": effects}})
    assert list(bind(template).graph) == ["1", "2", "3", "7", "9"]
    assert list(bind(template, vae="none").graph) == ["1", "2", "3", "5", "7", "9"]
    assert list(bind(template, vae="null").graph) == ["1", "2", "3", "5", "7", "8", "9"]


def test_links_come_before_bypasses() -> None:
    """A link to a node that is taken out leads past it, whichever effect makes the link."""
    late = {
        "type": "bool",
        "default": False,
        "effects": {"true": {"links": {"7.model": ["5", 0], "5.model": ["1", 0]}}},
    }
    sample = node("Sample", **graph()["7"]["inputs"], note="__param:late__")
    template = parse(PARAMS | {"late": late}, {"7": sample})
    links = links_of(bind(template, scale=0, late=True))
    assert (links["7"]["model"], "5" in links) == (["1", 0], False)


def test_what_only_a_bypassed_node_reads_is_dropped_and_not_asked_for() -> None:
    mask = {"type": "image", "description": "what to guide by"}
    more = {
        "4": node("LoadImage", image="__param:mask__"),
        "5": node("Guide", model=["2", 0], scale="__param:scale__", mask=["4", 0]),
    }
    template = parse(PARAMS | {"mask": mask}, more)
    with pytest.raises(MorpheusError, match=r"params.mask: is required \(what to guide by\)"):
        resolve(template, {})
    resolved = resolve(template, {"scale": 0, "mask": "a.png"})
    assert resolved.media == ()
    assert list(fill(resolved).graph) == ["1", "2", "3", "7", "9"]


def test_an_optional_picture() -> None:
    picture = {"type": "image", "default": None, "effects": {"*": {"links": {"9.images": ["4", 0]}}}}
    template = parse(PARAMS | {"face": picture}, {"4": node("LoadImage", image="__param:face__")})
    assert resolve(template, {}).media == ()
    assert list(bind(template).graph) == ["1", "2", "3", "5", "7", "9"]
    resolved = resolve(template, {"face": "a.png"})
    assert [medium.key for medium in resolved.media] == ["face"]
    assert fill(resolved, {"face": "x.png"}).graph == {
        "4": node("LoadImage", image="x.png"),
        "9": node("Save", images=["4", 0]),
    }


def test_choices_and_effects_of_one_param() -> None:
    both = {
        "type": "int",
        "default": 1,
        "choices": {"0": {"set": {"strength": 0.5}}, "1": {}},
        "effects": {"0": {"bypass": {"5": ["model"]}}, "*": {"set": {"strength": 0.25}}},
    }
    template = parse({"mode": both} | PARAMS)
    assert bind(template, mode=0).params["strength"] == 0.5
    assert "5" not in bind(template, mode=0).graph
    assert bind(template).params["strength"] == 0.25


def test_a_set_value_has_its_effect() -> None:
    plain = {"type": "bool", "default": False, "choices": {"true": {"set": {"scale": 0}}, "false": {}}}
    template = parse(PARAMS | {"plain": plain})
    assert "5" not in bind(template, plain=True).graph
    assert "5" in bind(template, plain=True, scale=2).graph


def test_an_output_node_can_be_taken_out() -> None:
    preview = {"type": "bool", "default": True, "effects": {"false": {"bypass": {"10": []}}}}
    template = parse(PARAMS | {"preview": preview}, {"10": node("Save", images=["7", 0])})
    assert "10" in bind(template).graph
    assert "10" not in bind(template, preview=False).graph


def test_a_link_that_a_caller_gives_leads_past_a_bypassed_node_too() -> None:
    more = {"7": node("Sample", model="__param:model__", positive=["3", 0], vae=["1", 2])}
    template = parse(PARAMS | {"model": {"type": "any", "default": ["5", 0]}}, more)
    assert bind(template, scale=0).graph["7"]["inputs"]["model"] == ["2", 0]


@pytest.mark.parametrize(
    ("said", "problem"),
    [
        (
            {"effects": {"0": {"bypass": {"55": ["model"]}}}},
            "the effect '0' of 'scale' bypasses node 55, which is not there (did you mean '5'?)",
        ),
        (
            {"effects": {"0": {"bypass": {"5": ["modle"]}}}},
            "the effect '0' of 'scale' bypasses node 5, which has no input 'modle' (did you mean 'model'?)",
        ),
        (
            {"effects": {"0": {"bypass": {"5": ["scale"]}}}},
            "the effect '0' of 'scale' bypasses node 5, whose input 'scale' is no link "
            "(name the inputs that stand in for its outputs)",
        ),
        (
            {"effects": {"0": {"bypass": {"2": ["model"]}}}},
            "node 3 input clip reads output 1 of node 2, and nothing stands in for that "
            '(name an input for each output that is read: {"2": ["model", "clip"]})',
        ),
        (
            {"effects": {"none": {}}},
            "the key 'none' in the effects of 'scale' must be a number, got 'none'",
        ),
        (
            {"max": 5, "effects": {"6": {}}},
            "the key '6' in the effects of 'scale' is 6.0, above the largest value, 5",
        ),
        ({"effects": {"1": {}, "1.0": {}}}, "the effects of 'scale' name one value twice (remove one)"),
        (
            {"effects": {"null": {}}},
            "'scale' is never without a value: it has a default (\"default\": null)",
        ),
        (
            {"effects": {"0": {"links": {"7.model": ["22", 0]}}}},
            "'7.model' is linked to node 22, which is not there (did you mean '2'?)",
        ),
        (
            {"effects": {"0": {"set": {"strenght": 1}}}},
            "the effect '0' of 'scale' sets 'strenght', which is no param (did you mean 'strength'?)",
        ),
        (
            {"effects": {"0": {"bypas": {}}}},
            "_params.scale.effects.0.bypas is not known here (did you mean 'bypass'?)",
        ),
        (
            {"effects": {"0": {"bypass": {"5": "model"}}}},
            '_params.scale.effects.0.bypass.5: must be a list, got \'model\' (such as ["model", "clip"])',
        ),
        (
            {"effects": {"0": {"links": {"77.model": ["2", 0]}}}},
            "'77.model' is an input of node 77, which is not there (did you mean '7'?)",
        ),
        (
            {"effects": {"0": {"links": {"7model": ["2", 0]}}}},
            "'7model' names no input of a node (write \"<node id>.<input name>\")",
        ),
        (
            {"effects": {"0": {"links": {"7.model": [2, 0]}}}},
            '_params.scale.effects.0.links.7.model: write ["2", 0]: the node id is a text, the output a number',
        ),
        (
            {"effects": {"0": {"links": {"7.vae": ["8", 0]}, "bypass": {"8": []}}}},
            "node 7 input vae reads output 0 of node 8, and nothing stands in for that "
            "(node 8 has no link that could stand in for it: link its readers elsewhere instead)",
        ),
        (
            {"effects": {"0": {"set": {"scale": 2}}}},
            "the effect '0' of 'scale' sets 'scale' itself, which has its value already (remove it)",
        ),
        (
            {"choices": [1, 2, 3], "effects": {"4": {}}},
            "the key '4' in the effects of 'scale': 4.0 is not one of the choices (choices: 1.0, 2.0, 3.0)",
        ),
    ],
)
def test_what_is_wrong_with_an_effect(said: dict[str, Any], problem: str) -> None:
    assert problems_of({"scale": {"type": "float", "default": 3.0} | said}) == [problem]


@pytest.mark.parametrize(
    ("inputs", "info", "hint"),
    [
        ({"a": ["1", 0], "b": ["1", 1]}, None, '{"4": ["…"]}, of a, b'),
        ({"a": ["1", 0], "b": ["1", 1]}, INFO, '{"4": ["…"]}, of a, b'),
        ({"b": ["1", 1]}, None, '{"4": ["b"]}'),
    ],
)
def test_a_hint_names_the_inputs_that_the_node_has(inputs: Any, info: ObjectInfo | None, hint: str) -> None:
    more = {"4": node("Strange", **inputs), "3": node("Encode", clip=["4", 0])}
    with pytest.raises(TemplateError) as raised:
        parse(PARAMS | {"scale": {**SCALE, "effects": {"0": {"bypass": {"4": []}}}}}, more, info)
    assert [problem.hint for problem in raised.value.problems] == [
        f"name an input for each output that is read: {hint}"
    ]


@EVERYWHERE
def test_what_the_defaults_link_elsewhere_is_not_lost(info: ObjectInfo | None) -> None:
    """Node 3, which reads the output that nothing stands in for, is then not run."""
    around = {"type": "string", "default": "x", "choices": {"x": {"links": {"7.positive": ["1", 0]}}, "y": {}}}
    scale = {**SCALE, "effects": {"0": {"bypass": {"2": ["model"]}}}}
    more = {"7": node("Sample", model=["5", 0], positive=["3", 0], vae=["1", 2])}
    parse(PARAMS | {"scale": scale, "around": around}, more, info)
    del around["default"]
    parse(PARAMS | {"scale": scale, "around": around}, more, info)
    around["default"] = "y"
    with pytest.raises(TemplateError, match="reads output 1 of node 2"):
        parse(PARAMS | {"scale": scale, "around": around}, more, info)


@EVERYWHERE
def test_of_an_output_that_several_read_one_is_told(info: ObjectInfo | None) -> None:
    more = {"4": node("Encode", clip=["2", 1]), "7": node("Sample", model=["5", 0], positive=["3", 0], vae=["4", 0])}
    effects = {"0": {"bypass": {"2": ["model"]}}}
    with pytest.raises(TemplateError) as raised:
        parse(PARAMS | {"scale": {**SCALE, "effects": effects}}, more, info)
    (problem,) = raised.value.problems
    assert problem.what == "node 3 input clip reads output 1 of node 2, and nothing stands in for that"


@pytest.mark.parametrize("inputs", [["images"], []])
def test_an_effect_that_ends_all_outputs(inputs: list[str]) -> None:
    """Only who knows the classes knows which nodes save something."""
    params = PARAMS | {"scale": {"type": "float", "default": 1, "effects": {"0": {"bypass": {"9": inputs}}}}}
    assert parse(params, info=None).problems == ()
    template = parse(params)
    assert [str(problem).partition(": ")[2] for problem in template.problems] == [
        "the effect '0' of 'scale' takes out node 9, and then nothing is saved or shown "
        "(leave in a node that saves or shows something)"
    ]
    assert list(bind(template, scale=0).graph) == list(bind(template).graph)


def test_an_effect_may_end_one_output_of_two() -> None:
    params = PARAMS | {"scale": {"type": "float", "default": 1, "effects": {"0": {"bypass": {"9": []}}}}}
    template = parse(params, {"10": node("Save", images=["7", 0])})
    assert template.problems == ()
    assert "9" not in bind(template, scale=0).graph


def test_none_is_written_null() -> None:
    vae = {**VAE, "effects": {"None": {"links": {"7.vae": ["8", 0]}}}}
    assert problems_of({"vae": vae}) == [
        "the key 'None' in the effects of 'vae' stands for that text (no value at all is written \"null\")"
    ]


@pytest.mark.parametrize(
    "said",
    [
        {"effects": {"none": {}, "null": {}}},
        {"choices": ["none", "soft"], "effects": {"none": {}}},
        {"default": "none", "effects": {"none": {}}},
    ],
)
def test_a_text_that_says_none(said: dict[str, Any]) -> None:
    assert parse(PARAMS | {"vae": {"type": "string", "default": None} | said}).problems == ()


def test_the_effects_of_a_file_know_any_and_none_only() -> None:
    face: dict[str, Any] = {"type": "image", "default": None, "effects": {"a.png": {}}}
    assert problems_of({"face": face}, {"4": node("LoadImage", image="__param:face__")}) == [
        "the effects of 'face' cannot tell one file from another (use '*' for any, and 'null' for none)"
    ]


def test_a_required_param_has_no_effect_of_being_absent() -> None:
    vae = {"type": "string", "effects": {"null": {}}}
    assert problems_of({"vae": vae}) == ["'vae' is never without a value: it is required (\"default\": null)"]


def test_nodes_that_read_from_each_other_cannot_be_taken_out() -> None:
    effect = {"links": {"2.model": ["5", 0]}, "bypass": {"5": ["model"], "2": ["model", "clip"]}}
    said = problems_of({"scale": {"type": "float", "default": 1, "effects": {"0": effect}}})
    assert said[0].startswith("node 7 input model reads from node 5, which is taken out and reads from itself")


def test_a_stand_in_may_be_linked_by_the_same_effect() -> None:
    more = {"5": node("Guide", scale="__param:scale__")}
    effect = {"links": {"5.model": ["1", 0]}, "bypass": {"5": ["model"]}}
    template = parse(PARAMS | {"scale": {"type": "float", "default": 1, "effects": {"0": effect}}}, more, None)
    assert bind(template, scale=0).graph["7"]["inputs"]["model"] == ["1", 0]


def test_a_reader_that_is_left_out_itself_needs_no_stand_in() -> None:
    effect = {"bypass": {"5": ["model"], "2": ["model"]}, "links": {"7.positive": ["8", 0]}}
    template = parse(PARAMS | {"scale": {"type": "float", "default": 1, "effects": {"0": effect}}})
    assert list(bind(template, scale=0, vae="v").graph) == ["1", "7", "8", "9"]


def test_a_problem_says_where() -> None:
    text = """{
      "_params": {"scale": {"type": "float", "default": 1,
        "effects": {"0": {"bypass": {
          "77": ["model"]}}}}},
      "1": {"class_type": "Save", "inputs": {"x": "__param:scale__"}}
    }"""
    with pytest.raises(TemplateError) as raised:
        parse_template(text, name="test")
    assert [problem.at for problem in raised.value.problems] == ["line 4, column 17"]


def test_only_the_defaults_have_to_run_on_this_comfyui() -> None:
    """A part that the defaults leave out may be of classes that this ComfyUI lacks; one they bring in may not."""
    more = {"5": node("Strange", model=["2", 0], scale="__param:scale__")}
    assert [problem.what for problem in check_template(parse(more=more), INFO)] == [
        "node 5: this ComfyUI has no node class 'Strange'"
    ]
    off = {**SCALE, "default": 0}
    assert check_template(parse(PARAMS | {"scale": off}, more), INFO) == []
    chosen = {"type": "bool", "default": True, "choices": {"true": {"set": {"scale": 0}}, "false": {}}}
    assert check_template(parse(PARAMS | {"off": chosen}, more), INFO) == []
    unfit = PARAMS | {"vae": {**VAE, "default": "x", "effects": {"*": {"links": {"7.vae": ["1", 0]}}}}}
    assert [problem.what for problem in check_template(parse(unfit), INFO)] == [
        "node 7 (Sample) input vae takes VAE, but its link to Load brings MODEL"
    ]
