from __future__ import annotations

import copy
import json
import math
from typing import Any

import pytest

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.templates.bind import Bound, draw_seed, fill, resolve
from morpheus_worker.templates.template import Template, parse_template

INFO = ObjectInfo(
    {
        "Canvas": {
            "input": {
                "required": {
                    "width": ["INT", {"default": 512, "min": 16, "max": 4096}],
                    "height": ["INT", {"default": 512, "min": 16, "max": 4096}],
                }
            },
            "output": ["IMAGE"],
        },
        "Sampler": {
            "input": {
                "required": {
                    "image": ["IMAGE"],
                    "seed": ["INT", {"default": 0, "min": 0, "max": 2**64 - 1}],
                    "steps": ["INT", {"default": 20, "min": 1, "max": 100}],
                    "cfg": ["FLOAT", {"default": 8.0, "min": 0.0, "max": 30.0}],
                    "text": ["STRING", {"multiline": True}],
                    "tiled": ["BOOLEAN", {"default": False}],
                    "sampler": [["euler", "heun"]],
                    "model": [["xl/base.safetensors", "small.safetensors"]],
                },
                "optional": {"note": ["STRING", {}], "strength": ["FLOAT", {}]},
            },
            "output": ["IMAGE"],
        },
        "LoadImage": {"input": {"required": {"image": [[], {"image_upload": True}]}}, "output": ["IMAGE"]},
        "LoadPath": {"input": {"required": {"path": ["STRING", {}]}}, "output": ["IMAGE"]},
        "Enlarge": {"input": {"required": {"image": ["IMAGE"], "scale": ["FLOAT"]}}, "output": ["IMAGE"]},
        "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
    }
)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def parse(graph: dict[str, Any], object_info: ObjectInfo | None = INFO, **blocks: Any) -> Template:
    ours = {f"_{name}": block for name, block in blocks.items()}
    return parse_template(json.dumps(ours | graph), name="test", object_info=object_info)


def sampler(params: Any = None, **inputs: Any) -> Template:
    """Canvas (1) → Sampler (2) with these inputs → Save (3)."""
    graph = {"1": node("Canvas"), "2": node("Sampler", image=["1", 0], **inputs), "3": node("Save", images=["2", 0])}
    return parse(graph, params=params or {})


def bind(template: Template, params: dict[str, Any] | None = None, **options: Any) -> Bound:
    return fill(resolve(template, params or {}, **options))


def bound_inputs(template: Template, params: dict[str, Any], **options: Any) -> dict[str, Any]:
    inputs: dict[str, Any] = bind(template, params, **options).graph["2"]["inputs"]
    inputs.pop("image")
    return inputs


def problems_of(template: Template, params: dict[str, Any], **options: Any) -> list[str]:
    with pytest.raises(MorpheusError) as raised:
        resolve(template, params, **options)
    assert raised.value.code == Code.INVALID_PARAMS
    return [str(problem) for problem in raised.value.problems]


# Values and their types


@pytest.mark.parametrize(
    ("name", "value", "bound"),
    [
        ("steps", 7, 7),
        ("steps", 7.0, 7),
        ("steps", "7", 7),
        ("steps", " +7 ", 7),
        ("steps", "7.0", 7),
        ("cfg", 7, 7.0),
        ("cfg", "7.5", 7.5),
        ("cfg", ".5", 0.5),
        ("cfg", "1e1", 10.0),
        ("tiled", True, True),
        ("tiled", "false", False),
        ("tiled", "True", True),
        ("text", "", ""),
        ("text", '"quotes", \\ and\nlines, __param:steps__, 雪', '"quotes", \\ and\nlines, __param:steps__, 雪'),
        ("sampler", "heun", "heun"),
        ("seed", "18446744073709551615", 2**64 - 1),
    ],
)
def test_a_value_arrives_with_its_type(name: str, value: Any, bound: Any) -> None:
    got = bound_inputs(sampler(**{name: "__param:x__"}), {"x": value})[name]
    assert (got, type(got)) == (bound, type(bound))


@pytest.mark.parametrize(
    ("name", "value", "said"),
    [
        ("steps", "many", "must be a whole number, got 'many'"),
        ("steps", 7.5, "must be a whole number, got 7.5"),
        ("steps", True, "must be a whole number, got true"),
        ("steps", [7], "must be a whole number, got a list"),
        ("steps", "", "must be a whole number, got ''"),
        ("steps", "1_0", "must be a whole number, got '1_0'"),
        ("steps", "٣", "must be a whole number, got '٣'"),
        ("steps", 0, "is 0, below the smallest value, 1"),
        ("steps", 101, "is 101, above the largest value, 100"),
        ("steps", math.inf, "is not a finite number; JSON has no NaN or infinity"),
        ("cfg", math.nan, "is not a finite number; JSON has no NaN or infinity"),
        ("cfg", "nan", "must be a number, got 'nan'"),
        ("cfg", "1e999", "is not a finite number; JSON has no NaN or infinity"),
        ("cfg", 10**400, "is too large for a number"),
        ("cfg", False, "must be a number, got false"),
        ("cfg", {}, "must be a number, got an object"),
        ("tiled", 1, "must be true or false, got 1"),
        ("tiled", "yes", "must be true or false, got 'yes'"),
        ("text", 7, "must be text, got 7"),
        ("text", ["a"], "must be text, got a list"),
        ("text", "\ud800", "has half a surrogate pair in it, which is no text"),
        ("sampler", "heum", "'heum' is not one of the choices (did you mean 'heun'?)"),
        ("sampler", "quite different", "'quite different' is not one of the choices (choices: euler, heun)"),
        ("seed", -2, "is -2, below the smallest value, 0"),
        ("seed", 2**64, "is 18446744073709551616, above the largest value, 18446744073709551615"),
        ("unknown", {"a": [math.nan]}, "has a number that is not finite; JSON has no NaN or infinity"),
        ("unknown", {1, 2}, "has a set in it, which JSON does not know"),
        ("unknown", json.loads("[" * 70 + "]" * 70), "is nested more than 64 levels deep"),
    ],
)
def test_a_value_of_the_wrong_type_or_range(name: str, value: Any, said: str) -> None:
    assert problems_of(sampler(**{name: "__param:x__"}), {"x": value}) == [f"params.x: {said}"]


@pytest.mark.parametrize(
    ("kind", "value", "said"),
    [
        ("list", {}, "must be a list, got an object"),
        ("object", [], "must be an object, got a list"),
        ("list", "[]", "must be a list, got '[]'"),
        ("object", None, "is required"),
        ("image", 5, "must be a volume path, an http, https or s3 URL, a data URI or base64, as text, got 5"),
        ("image", " ", "must be a volume path, an http, https or s3 URL, a data URI or base64, as text, got ' '"),
        ("output_path", 5, "must be a path on the volume, as text, got 5"),
    ],
)
def test_declared_types(kind: str, value: Any, said: str) -> None:
    assert problems_of(sampler({"x": {"type": kind}}, unknown="__param:x__"), {"x": value}) == [f"params.x: {said}"]


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "", "text", [], [1, [None]], {}, {"a": {"b": [1]}}, ["1", 0]])
def test_a_param_of_any_type_takes_every_json_value(value: Any) -> None:
    template = sampler(unknown="__param:x__")
    bound = bind(template, {"x": value})
    got = bound.graph["2"]["inputs"]["unknown"]
    assert (got, type(got)) == (value, type(value))
    assert bound.params == {"x": value}


def test_values_inside_longer_text() -> None:
    template = sampler({"gone": {"default": None}}, text="<__param:x__|__param:y__|__param:x__|__param:gone__>")
    assert bound_inputs(template, {"x": "__param:y__", "y": True})["text"] == "<__param:y__|true|__param:y__|>"
    assert bound_inputs(template, {"x": 1.5, "y": [1, {"ä": None}]})["text"] == '<1.5|[1, {"ä": null}]|1.5|>'


def test_placeholders_anywhere_below_a_node_are_filled() -> None:
    template = sampler(unknown={"deep": ["__param:a__", {"deeper": "<__param:a__>"}]})
    assert bound_inputs(template, {"a": 5})["unknown"] == {"deep": [5, {"deeper": "<5>"}]}


def test_a_value_is_shared_with_nobody() -> None:
    template = sampler(unknown="__param:x__", other="__param:x__")
    value = {"list": [1]}
    graph = bind(template, {"x": value}).graph
    graph["2"]["inputs"]["unknown"]["list"].append(2)
    assert graph["2"]["inputs"]["other"] == value == {"list": [1]}
    before = copy.deepcopy(template.graph())
    graph["1"]["inputs"]["width"] = 5
    assert template.graph() == before


# Defaults, null, required


def test_defaults_of_template_and_object_info() -> None:
    template = sampler({"cfg": {"default": 4}}, cfg="__param:cfg__", steps="__param:steps__")
    assert bind(template).params == {"cfg": 4.0, "steps": 20}


def test_null_means_the_default() -> None:
    template = sampler({"cfg": {"default": 4}}, cfg="__param:cfg__")
    assert bound_inputs(template, {"cfg": None}) == {"cfg": 4.0}


def test_null_is_a_value_where_the_default_is_null() -> None:
    template = sampler({"x": {"type": "string", "default": None}}, unknown="__param:x__")
    assert bound_inputs(template, {}) == {"unknown": None}
    assert bound_inputs(template, {"x": None}) == {"unknown": None}


def test_an_input_that_the_node_does_without_is_left_out() -> None:
    template = sampler(note="__param:note__", strength="__param:strength__")
    bound = bind(template, {"strength": None})
    assert bound.graph["2"]["inputs"] == {"image": ["1", 0]}
    assert bound.params == {"note": None, "strength": None}
    assert bound_inputs(template, {"note": "n", "strength": 1}) == {"note": "n", "strength": 1.0}


def test_what_is_required_is_said_with_its_meaning() -> None:
    template = sampler({"text": {"description": "what to draw"}}, text="__param:text__", sampler="__param:sampler__")
    assert problems_of(template, {"sampler": None}) == [
        "params.text: is required (what to draw)",
        "params.sampler: is required",
    ]


def test_all_problems_at_once() -> None:
    template = sampler(text="__param:text__", steps="__param:steps__", cfg="__param:cfg__")
    with pytest.raises(MorpheusError) as raised:
        resolve(template, {"step": 5, "cfg": "x", "steps": 500})
    assert raised.value.message == (
        "The params of 'test' are refused: params.step: is no param of this workflow (did you mean 'steps'?); "
        "params.steps: is 500, above the largest value, 100; params.cfg: must be a number, got 'x'; "
        "params.text: is required"
    )


def test_a_model_that_is_not_there() -> None:
    template = sampler(model="__param:model__", steps="__param:steps__")
    with pytest.raises(MorpheusError) as raised:
        resolve(template, {"model": "base.safetensors", "steps": 0})
    assert raised.value.code == Code.MISSING_MODEL
    assert [str(problem) for problem in raised.value.problems] == [
        "params.model: there is no model 'base.safetensors' (did you mean 'xl/base.safetensors'?)",
        "params.steps: is 0, below the smallest value, 1",
    ]


# Names


def test_an_unknown_key_beside_the_params_only_warns() -> None:
    template = sampler(steps="__param:steps__")
    params = {"user": 7, "step": 3, "job_id": "x", "steps": 5}
    bound = bind(template, params, strict_keys=())
    assert bound.params == {"steps": 5}
    assert bound.warnings == (
        "these keys are no params of 'test' and were ignored: user, step (did you mean 'steps'?), job_id",
    )


def test_an_unknown_param_lists_the_known_ones() -> None:
    assert problems_of(sampler(steps="__param:steps__"), {"quality": 3}) == [
        "params.quality: is no param of this workflow (params: steps)"
    ]
    assert problems_of(sampler(), {"quality": 3}) == ["params.quality: is no param of this workflow (there are none)"]


def test_long_names_are_told_short() -> None:
    """A failure that repeats them could be too large to be delivered, and its job would never end."""
    long = "x" * 1_000_000
    template = sampler({"sampler": {"choices": ["euler"], "default": "euler"}}, sampler="__param:sampler__")
    for params in ({long: 1}, {"sampler": long}, {"sampler": f"{long}.safetensors"}):
        with pytest.raises(MorpheusError) as raised:
            bind(template, params)
        assert len(raised.value.message) < 500
    flat = bind(template, {"sampler": "euler", long: 1}, strict_keys=())
    assert len(flat.warnings[0]) < 500


def test_of_very_many_unknown_keys_the_first_are_told() -> None:
    flat = bind(sampler(), {f"step{number}": 1 for number in range(500)}, strict_keys=())
    (warning,) = flat.warnings
    assert warning.endswith("step18, step19 and 480 more")


def test_an_alias() -> None:
    graph = {"1": node("Sampler", cfg="__param:cfg__")}
    template = parse(graph, about={"param_aliases": {"cfg_scale": "cfg"}})
    assert bind(template, {"cfg_scale": 5}).params == {"cfg": 5.0}
    assert problems_of(template, {"cfg_scale": "x"}) == ["params.cfg_scale: must be a number, got 'x'"]


@pytest.mark.parametrize("names", [("cfg", "cfg_scale"), ("cfg_scale", "cfg")])
def test_a_param_by_two_names(names: tuple[str, str]) -> None:
    template = parse({"1": node("Sampler", cfg="__param:cfg__")}, about={"param_aliases": {"cfg_scale": "cfg"}})
    params = dict(zip(names, (1, 2), strict=True))
    assert problems_of(template, params) == [
        f"params.{names[0]}: is given a second time, as '{names[1]}' (send only 'cfg')"
    ]
    flat = bind(template, params, strict_keys=())
    assert flat.params == {"cfg": float(params["cfg"])}
    assert flat.warnings == ("'cfg_scale' was ignored: 'cfg' is the same param",)
    placed = bind(template, params, strict_keys={"cfg_scale"})
    assert placed.params == {"cfg": float(params["cfg_scale"])}
    assert placed.warnings == ("'cfg' was ignored: 'cfg_scale' is the same param",)


def test_the_workers_own_placeholders() -> None:
    template = sampler(text="__param:job_id__ __param:x__", note="__param:job_id__")
    bound = bind(template, {"x": "y"}, worker_values={"job_id": "j1"})
    assert bound.graph["2"]["inputs"] == {"image": ["1", 0], "text": "j1 y", "note": "j1"}
    assert bound.params == {"x": "y"}
    assert problems_of(template, {"x": "y", "job_id": "mine", "output_path": "/etc"}) == [
        "params.job_id: belongs to the worker (leave it out)",
        "params.output_path: belongs to the worker (leave it out)",
    ]
    ignored = bind(template, {"x": "y", "job_id": "mine"}, strict_keys={"x"}, worker_values={"job_id": "j1"})
    assert ignored.graph["2"]["inputs"]["note"] == "j1"


def test_a_placeholder_that_the_worker_cannot_fill() -> None:
    with pytest.raises(MorpheusError) as raised:
        resolve(sampler(text="__param:output_path__"), {}, worker_values={"job_id": "j"})
    assert raised.value.code == Code.INVALID_WORKFLOW
    assert "output_path" in raised.value.message


# Seeds


@pytest.mark.parametrize("params", [{}, {"seed": None}, {"seed": -1}, {"seed": "-1"}, {"seed": -1.0}])
def test_a_seed_is_drawn_and_reported(params: dict[str, Any]) -> None:
    bound = bind(sampler(seed="__param:seed__"), params, draw_seed=lambda: 12345)
    assert bound.params == {"seed": 12345}
    assert bound.graph["2"]["inputs"]["seed"] == 12345


def test_two_seeds_are_drawn_apart() -> None:
    seeds = iter([1, 2])
    template = sampler(seed="__param:chance__", text="__param:noise_seed__")
    assert bind(template, draw_seed=lambda: next(seeds)).params == {"chance": 1, "noise_seed": 2}


@pytest.mark.parametrize("seed", [0, 7, 2**64 - 1])
def test_a_given_seed_is_kept(seed: int) -> None:
    assert bind(sampler(seed="__param:seed__"), {"seed": seed}).params == {"seed": seed}


def test_a_seed_with_a_default() -> None:
    template = sampler({"seed": {"default": 42}}, seed="__param:seed__")
    assert bind(template).params == {"seed": 42}
    assert bind(template, {"seed": -1}, draw_seed=lambda: 5).params == {"seed": 5}
    drawn = sampler({"seed": {"default": -1}}, seed="__param:seed__")
    assert bind(drawn, draw_seed=lambda: 5).params == {"seed": 5}


def test_a_drawn_seed_fits_its_range() -> None:
    template = sampler({"seed": {"min": 10, "max": 19}}, seed="__param:seed__")
    assert bind(template, draw_seed=lambda: 2**53 - 1).params["seed"] in range(10, 20)


def test_drawn_seeds_are_exact_in_every_client() -> None:
    seeds = {draw_seed() for _ in range(50)}
    assert len(seeds) == 50
    assert all(0 <= seed < 2**53 for seed in seeds)


# Presets and optional parts


ASPECT = {
    "aspect": {
        "default": "square",
        "choices": {
            "square": {"set": {"width": 1024, "height": 1024}},
            "wide": {"set": {"width": 1344, "height": 768}},
        },
    }
}


def canvas(params: dict[str, Any]) -> Template:
    graph = {
        "1": node("Canvas", width="__param:width__", height="__param:height__"),
        "2": node("Save", images=["1", 0]),
    }
    return parse(graph, params=params)


@pytest.mark.parametrize(
    ("params", "size"),
    [
        ({}, (1024, 1024)),
        ({"aspect": "wide"}, (1344, 768)),
        ({"aspect": "wide", "width": 640}, (640, 768)),
        ({"aspect": None, "height": None}, (1024, 1024)),
    ],
)
def test_a_preset_sets_what_the_caller_does_not(params: dict[str, Any], size: tuple[int, int]) -> None:
    bound = bind(canvas(ASPECT), params)
    assert bound.graph["1"]["inputs"] == {"width": size[0], "height": size[1]}
    assert bound.params == {"aspect": params.get("aspect") or "square", "width": size[0], "height": size[1]}


def test_a_preset_that_is_no_choice() -> None:
    assert problems_of(canvas(ASPECT), {"aspect": "wid"}) == [
        "params.aspect: 'wid' is not one of the choices (did you mean 'wide'?)"
    ]


def test_later_presets_win_and_may_be_chosen_by_earlier_ones() -> None:
    quality = {"default": "low", "choices": {"low": {}, "high": {"set": {"aspect": "wide", "height": 99}}}}
    template = canvas({"quality": quality} | ASPECT)
    assert bind(template, {"quality": "high"}).graph["1"]["inputs"] == {"width": 1344, "height": 768}


def test_a_preset_may_set_null() -> None:
    choices = {"choices": {"a": {"set": {"width": None, "x": None}}}}
    graph = {"1": node("Canvas", width="__param:width__", other="__param:x__"), "2": node("Save", images=["1", 0])}
    template = parse(graph, params={"mode": choices})
    assert bind(template, {"mode": "a"}).params == {"mode": "a", "width": 512, "x": None}


def test_presets_of_numbers() -> None:
    batch = {"type": "float", "default": 1, "choices": {"1": {"set": {"width": 111}}, "2.5": {"set": {"width": 222}}}}
    template = canvas({"batch": batch})
    assert bind(template).params["width"] == 111
    assert bind(template, {"batch": "2.5"}).params["width"] == 222
    assert problems_of(template, {"batch": 2}) == ["params.batch: 2.0 is not one of the choices (choices: 1.0, 2.5)"]


ENLARGE = {
    "enlarge": {
        "type": "bool",
        "default": False,
        "choices": {"true": {"links": {"9.images": ["20", 0]}, "description": "four times as large"}, "false": {}},
    },
    "scale": {"type": "float", "description": "how much larger"},
}


def optional_part(object_info: ObjectInfo | None = INFO) -> Template:
    """Canvas (1) → Save (9), and between them, when `enlarge` is chosen, Enlarge (20)."""
    graph = {
        "1": node("Canvas", width=64, height=64),
        "20": node("Enlarge", image=["1", 0], scale="__param:scale__"),
        "9": node("Save", images=["1", 0]),
    }
    return parse(graph, object_info, params=ENLARGE)


@pytest.mark.parametrize(
    "object_info", [INFO, ObjectInfo({}), None], ids=["known", "unknown classes", "no object info"]
)
def test_an_optional_part(object_info: ObjectInfo | None) -> None:
    template = optional_part(object_info)
    without = bind(template)
    assert without.graph == {"1": node("Canvas", width=64, height=64), "9": node("Save", images=["1", 0])}
    assert without.params == {"enlarge": False}
    part = bind(template, {"enlarge": True, "scale": 4})
    assert part.graph["9"]["inputs"] == {"images": ["20", 0]}
    assert part.graph["20"]["inputs"] == {"image": ["1", 0], "scale": 4.0}


def test_an_optional_part_requires_its_params() -> None:
    assert problems_of(optional_part(), {"enlarge": "true"}) == ["params.scale: is required (how much larger)"]


def test_nodes_that_lead_to_no_output_are_dropped() -> None:
    graph = {
        "1": node("Canvas"),
        "2": node("Save", images=["1", 0]),
        "3": node("Canvas"),
        "4": node("Enlarge", image=["3", 0]),
    }
    assert list(bind(parse(graph)).graph) == ["1", "2"]


def test_an_unknown_class_that_nothing_reads_from_is_an_output() -> None:
    graph = {"1": node("Canvas"), "2": node("Save", images=["1", 0]), "3": node("Strange", image=["1", 0])}
    assert list(bind(parse(graph)).graph) == ["1", "2", "3"]


def test_a_graph_without_any_output_is_left_to_comfyui() -> None:
    assert list(bind(parse({"1": node("Canvas"), "2": node("Enlarge", image=["1", 0])})).graph) == ["1", "2"]


def test_a_list_given_as_a_link_keeps_its_node() -> None:
    graph = {"1": node("Canvas"), "2": node("Canvas"), "3": node("Save", images="__param:source__")}
    assert list(bind(parse(graph), {"source": ["2", 0]}).graph) == ["2", "3"]


# Defaults of the deployment


REFINED = {"type": "bool", "default": True, "default_env": "ENABLE_FACE_REFINEMENT"}


@pytest.mark.parametrize(
    ("deployment", "params", "used"),
    [
        (None, {}, True),
        ({}, {}, True),
        ({"ENABLE_FACE_REFINEMENT": None}, {}, True),
        ({"ENABLE_FACE_REFINEMENT": False}, {}, False),
        ({"ENABLE_FACE_REFINEMENT": "false"}, {}, False),
        ({"ENABLE_FACE_REFINEMENT": False}, {"refine": None}, False),
        ({"ENABLE_FACE_REFINEMENT": False}, {"refine": True}, True),
    ],
)
def test_a_deployment_sets_a_default(deployment: Any, params: Any, used: bool) -> None:
    template = sampler({"refine": REFINED}, tiled="__param:refine__")
    bound = bind(template, params, deployment=deployment)
    assert (bound.params, bound.warnings) == ({"refine": used}, ())
    assert bound.graph["2"]["inputs"]["tiled"] is used


def test_a_default_of_the_deployment_has_its_effects() -> None:
    choices = {"true": {}, "false": {"links": {"3.images": ["1", 0]}, "set": {"steps": 7}}}
    template = sampler({"refine": REFINED | {"choices": choices}}, steps="__param:steps__")
    assert list(bind(template).graph) == ["1", "2", "3"]
    bound = bind(template, deployment={"ENABLE_FACE_REFINEMENT": False})
    assert (list(bound.graph), bound.params) == (["1", "3"], {"refine": False, "steps": 7})


def test_what_a_preset_sets_comes_before_the_deployment() -> None:
    style = {"type": "string", "default": "a", "choices": {"a": {}, "b": {"set": {"refine": True}}}}
    template = sampler({"style": style, "refine": REFINED}, tiled="__param:refine__")
    deployment = {"ENABLE_FACE_REFINEMENT": False}
    assert bind(template, {"style": "b"}, deployment=deployment).params["refine"] is True
    assert bind(template, {}, deployment=deployment).params["refine"] is False


def test_what_a_deployment_says_wrongly_is_ignored_aloud() -> None:
    template = sampler({"refine": REFINED}, tiled="__param:refine__")
    bound = bind(template, deployment={"ENABLE_FACE_REFINEMENT": "sometimes"})
    assert bound.params == {"refine": True}
    assert bound.warnings == ("ENABLE_FACE_REFINEMENT was ignored: it must be true or false, got 'sometimes'",)


def test_a_deployment_sets_nothing_that_the_template_does_not_ask_for() -> None:
    template = sampler({"refine": {"type": "bool", "default": True}}, tiled="__param:refine__")
    assert bind(template, deployment={"ENABLE_FACE_REFINEMENT": False, "refine": False}).params == {"refine": True}


# Media


def loader(
    class_type: str = "LoadImage", name: str = "image", value: str = "__param:face__", **blocks: Any
) -> Template:
    graph = {"1": node(class_type, **{name: value}), "2": node("Save", images=["1", 0])}
    return parse(graph, **blocks)


def test_media_are_staged_between_the_steps() -> None:
    resolved = resolve(loader(), {"face": "job_outputs/7/face.png"})
    (medium,) = resolved.media
    assert (medium.key, medium.kind, medium.value, medium.as_path) == ("face", "image", "job_outputs/7/face.png", False)
    assert [(place.node_id, place.class_type, place.input) for place in medium.places] == [("1", "LoadImage", "image")]
    bound = fill(resolved, {"face": "morpheus-1-face.png"})
    assert bound.graph["1"]["inputs"] == {"image": "morpheus-1-face.png"}
    assert bound.params == {"face": "job_outputs/7/face.png"}


def test_media_that_were_not_staged_never_reach_the_graph() -> None:
    with pytest.raises(ValueError, match="not placed: face"):
        fill(resolve(loader(), {"face": "/etc/passwd"}))


@pytest.mark.parametrize(
    ("class_type", "name", "value", "kind", "as_path"),
    [
        ("LoadImage", "image", "__file:face__", "image", False),
        ("LoadPath", "path", "__file:face__", "file", True),
        ("LoadPath", "path", "__dir:face__", "dir", True),
        ("LoadPath", "path", '{"path": "__file:face__"}', "file", True),
        ("Strange", "path", "__file:face__", "file", False),
    ],
)
def test_how_a_medium_is_wanted(class_type: str, name: str, value: str, kind: str, as_path: bool) -> None:
    (medium,) = resolve(loader(class_type, name, value), {"face": "a.png"}).media
    assert (medium.kind, medium.as_path) == (kind, as_path)


@pytest.mark.parametrize("sent", ["face_pod_path", "face_local_path"])
def test_both_spellings_of_a_path_are_accepted(sent: str) -> None:
    resolved = resolve(loader(value="__param:face_pod_path__"), {sent: "/workspace/a.png"})
    assert [(medium.key, medium.value) for medium in resolved.media] == [("face_pod_path", "/workspace/a.png")]


@pytest.mark.parametrize("sent", ["base_image_pod_path", "base_image_local_path"])
def test_an_alias_that_names_a_path_has_both_spellings(sent: str) -> None:
    template = loader(about={"param_aliases": {"base_image_pod_path": "face"}})
    assert [medium.value for medium in resolve(template, {sent: "/workspace/a.png"}).media] == ["/workspace/a.png"]
    assert problems_of(template, {"base_image_pod_path": "a", "base_image_local_path": "b"}) == [
        "params.base_image_pod_path: is given a second time, as 'base_image_local_path' (send only 'face')"
    ]


def test_an_output_path_is_placed_too() -> None:
    template = loader("LoadPath", "path", "__param:pid_save_pod_path__")
    resolved = resolve(template, {"pid_save_local_path": "/workspace/job_outputs/7/pid.bin"})
    assert resolved.media == ()
    (path,) = resolved.output_paths
    assert (path.key, path.value) == ("pid_save_pod_path", "/workspace/job_outputs/7/pid.bin")
    with pytest.raises(ValueError, match="not placed: pid_save_pod_path"):
        fill(resolved)
    bound = fill(resolved, {"pid_save_pod_path": "/v/pid.bin"})
    assert bound.graph["1"]["inputs"]["path"] == "/v/pid.bin"
    assert bound.params == {"pid_save_pod_path": "/workspace/job_outputs/7/pid.bin"}


COPY = {"copy_pod_path": {"type": "output_path", "default": None, "of": "3"}}


def test_the_file_of_a_node_is_put_somewhere_as_well() -> None:
    template = sampler(COPY)
    assert resolve(template, {}).output_paths == ()
    resolved = resolve(template, {"copy_local_path": "/workspace/a.png"})
    assert [(path.key, path.value, path.of) for path in resolved.output_paths] == [
        ("copy_pod_path", "/workspace/a.png", "3")
    ]
    with pytest.raises(ValueError, match="not placed: copy_pod_path"):
        fill(resolved)
    assert fill(resolved, {"copy_pod_path": "/v/a.png"}).graph == bind(template).graph
    assert fill(resolved, {"copy_pod_path": "/v/a.png"}).params == {"copy_pod_path": "/workspace/a.png"}


def test_the_file_of_a_node_that_is_left_out_is_put_nowhere() -> None:
    saves = {"type": "bool", "default": True, "effects": {"false": {"bypass": {"4": []}}}}
    graph = {"1": node("Canvas"), "3": node("Save", images=["1", 0]), "4": node("Save", images=["1", 0])}
    required = {"type": "output_path", "of": "4"}
    template = parse(graph, params={"saves": saves, "copy": required})
    assert problems_of(template, {}) == ["params.copy: is required"]
    resolved = resolve(template, {"saves": False, "copy": "/workspace/a.png"})
    assert resolved.output_paths == ()
    assert resolved.warnings == ("'copy' was ignored: node 4, whose file it is for, is not run",)
    assert resolve(template, {"copy": "/workspace/a.png"}).warnings == ()


def test_media_of_a_part_that_is_left_out_are_not_asked_for() -> None:
    choices = {"true": {"links": {"9.images": ["2", 0]}}, "false": {}}
    graph = {"1": node("Canvas"), "2": node("LoadImage", image="__param:face__"), "9": node("Save", images=["1", 0])}
    template = parse(graph, params={"use": {"type": "bool", "default": False, "choices": choices}})
    assert resolve(template, {"face": "a.png"}).media == ()
    assert problems_of(template, {"use": True}) == ["params.face: is required"]


def test_a_loader_needs_something_to_load() -> None:
    assert problems_of(loader(params={"face": {"type": "image", "default": None}}), {}) == ["params.face: is required"]


@pytest.mark.parametrize(
    ("sent", "shown"),
    [
        ("/workspace/a.png", "/workspace/a.png"),
        ("https://example.org/a.png", "https://example.org/a.png"),
        ("https://example.org/a.png?X-Amz-Signature=geheim", "https://example.org/a.png?…"),
        ("https://example.org/a.png#geheim", "https://example.org/a.png?…"),
        ("HTTPS://me:geheim@example.org:8443/a@b.png", "HTTPS://example.org:8443/a@b.png"),
        ("s3://bucket/a.png?versionId=geheim", "s3://bucket/a.png?…"),
        ("https://example.org", "https://example.org"),
        ("data:image/png;base64," + "QUJD" * 1000 + "QQ==", "data:image/png;base64,… (3001 bytes)"),
        ("data:text/plain,a%20b", "data:text/plain,… (3 bytes)"),
        ("QUJD" * 1000, "base64… (3000 bytes)"),
        ("https://example.org/" + "a" * 5000, "https://example.org/" + "a" * 2028 + "…"),
        ("https://example.org/" + "a" * 5000 + "?geheim", "https://example.org/" + "a" * 2028 + "…?…"),
    ],
)
def test_inline_media_are_described_not_repeated(sent: str, shown: str) -> None:
    assert fill(resolve(loader(), {"face": sent}), {"face": "x.png"}).params == {"face": shown}


# Object info


def test_resolving_with_an_object_info_of_its_own() -> None:
    template = parse({"1": node("Sampler", steps="__param:steps__")}, None)
    assert bind(template, {"steps": "7"}).params == {"steps": "7"}
    assert bind(template, {"steps": "7"}, object_info=INFO).params == {"steps": 7}


def test_a_file_s_name_can_be_asked_to_end_in_something() -> None:
    declared = {"vector": {"type": "file", "suffix": ".ipadpt"}}
    template = parse({"1": node("LoadThing", embeds="__param:vector__")}, params=declared)
    (slot,) = resolve(template, {"vector": "a.pid"}).media
    assert slot.suffix == ".ipadpt"
