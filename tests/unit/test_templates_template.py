from __future__ import annotations

import json
from typing import Any

import pytest

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.templates.describe import describe
from morpheus_worker.templates.params import Param
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.reading import TemplateError
from morpheus_worker.templates.template import Template, check_template, parse_template

INFO = ObjectInfo(
    {
        "Sampler": {
            "input": {
                "required": {
                    "image": ["IMAGE"],
                    "seed": ["INT", {"default": 0, "min": 0, "max": 2**32 - 1}],
                    "steps": ["INT", {"default": 20, "min": 1, "max": 100}],
                    "cfg": ["FLOAT", {"default": 8, "min": 0.0, "max": 30.0}],
                    "text": ["STRING", {"multiline": True}],
                    "tiled": ["BOOLEAN", {"default": False}],
                    "sampler": [["euler", "heun"]],
                    "model": ["COMBO", {"options": ["a.pth"]}],
                    "level": [[1, 2, 3], {"default": 2}],
                },
                "optional": {"note": ["STRING", {}], "mask": ["MASK"]},
            },
            "output": ["IMAGE"],
        },
        "LoadImage": {"input": {"required": {"image": [["x.png"], {"image_upload": True}]}}, "output": ["IMAGE"]},
        "LoadClip": {
            "input": {"required": {"file": ["COMBO", {"options": [], "video_upload": True}]}},
            "output": ["IMAGE"],
        },
        "Fewer": {"input": {"required": {"steps": ["INT", {"default": 5, "min": 3, "max": 50}]}}, "output": ["IMAGE"]},
        "Save": {"input": {"required": {"images": ["IMAGE"]}}, "output": [], "output_node": True},
    }
)


def node(class_type: str, **inputs: Any) -> dict[str, Any]:
    return {"class_type": class_type, "inputs": inputs}


def parse(blocks: dict[str, Any], object_info: ObjectInfo | None = None, **nodes: Any) -> Template:
    graph = {name.removeprefix("n"): body for name, body in nodes.items()}
    return parse_template(json.dumps(blocks | graph), name="test", object_info=object_info)


def one(inputs: dict[str, Any], declared: dict[str, Any] | None = None, *, info: ObjectInfo | None = INFO) -> Param:
    """The only param of a graph of one Sampler with these inputs."""
    template = parse({"_params": declared or {}}, info, n1=node("Sampler", **inputs))
    (param,) = template.params.values()
    return param


def problems_of(blocks: dict[str, Any], **nodes: Any) -> list[str]:
    with pytest.raises(TemplateError) as raised:
        parse(blocks, **(nodes or {"n1": node("Sampler", steps="__param:steps__")}))
    return [problem.what + (f" ({problem.hint})" if problem.hint else "") for problem in raised.value.problems]


@pytest.mark.parametrize(
    ("name", "kind", "default", "limits"),
    [
        ("steps", "int", 20, (1, 100)),
        ("cfg", "float", 8.0, (0.0, 30.0)),
        ("text", "string", MISSING, (None, None)),
        ("tiled", "bool", False, (None, None)),
        ("sampler", "string", MISSING, (None, None)),
        ("level", "int", 2, (None, None)),
        ("seed", "seed", MISSING, (0, 2**32 - 1)),
        ("image", "any", MISSING, (None, None)),
        ("unknown", "any", MISSING, (None, None)),
        ("note", "string", None, (None, None)),
    ],
)
def test_object_info_completes_a_param(name: str, kind: str, default: Any, limits: tuple[Any, Any]) -> None:
    param = one({name: "__param:x__"})
    assert (param.type, param.default, (param.minimum, param.maximum)) == (kind, default, limits)


def test_choices_bind_where_comfyui_would_check_them() -> None:
    checked, open_ = one({"sampler": "__param:x__"}), one({"model": "__param:x__"})
    assert [choice.value for choice in checked.choices] == ["euler", "heun"]
    assert (open_.choices, open_.shown_choices) == ((), ("a.pth",))


def test_a_param_in_two_inputs_has_their_narrowest_range_and_the_first_default() -> None:
    template = parse({}, INFO, n1=node("Sampler", steps="__param:s__"), n2=node("Fewer", steps="__param:s__"))
    param = template.params["s"]
    assert (param.default, param.minimum, param.maximum) == (20, 3, 50)


def test_a_placeholder_inside_text_takes_no_type_from_the_input() -> None:
    param = one({"steps": "about __param:x__"})
    assert (param.type, param.default) == ("any", MISSING)


def test_what_is_declared_wins() -> None:
    said = {"type": "int", "default": 7, "min": 2, "max": 9, "description": "how many", "label": "Steps"}
    param = one({"steps": "__param:x__"}, {"x": said})
    assert (param.type, param.default, param.minimum, param.maximum) == ("int", 7, 2, 9)
    assert (param.description, param.label) == ("how many", "Steps")


@pytest.mark.parametrize(
    ("key", "inputs", "declared", "kind", "media"),
    [
        ("face", {"text": "__file:face__"}, {}, "file", "file"),
        ("faces", {"text": "__dir:faces__"}, {}, "dir", "dir"),
        ("face_pod_path", {"text": "__param:face_pod_path__"}, {}, "file", "file"),
        ("face_local_path", {"text": "__param:face_local_path__"}, {}, "file", "file"),
        ("face_pod_path", {"text": "__param:face_pod_path__"}, {"type": "string"}, "string", None),
        ("pid_save_pod_path", {"text": "__param:pid_save_pod_path__"}, {}, "output_path", None),
        ("noise_seed", {"text": "__param:noise_seed__"}, {}, "seed", None),
        ("chance", {"seed": "__param:chance__"}, {"type": "int"}, "seed", None),
        ("seed", {"text": "__param:seed__"}, {"type": "string"}, "string", None),
        ("x", {"text": "__param:x__"}, {"media": "audio"}, "audio", "audio"),
        ("x", {"text": "__param:x__"}, {"type": "string", "media": "image"}, "image", "image"),
        ("x", {"text": "__param:x__"}, {"type": "file", "media": "video"}, "file", "video"),
    ],
)
def test_the_kind_of_a_param(
    key: str, inputs: dict[str, Any], declared: dict[str, Any], kind: str, media: str | None
) -> None:
    param = one(inputs, {key: declared} if declared else {})
    assert (param.type, param.media) == (kind, media)


@pytest.mark.parametrize(
    ("class_type", "name", "placeholder", "kind"),
    [
        ("LoadImage", "image", "__param:x__", "image"),
        ("LoadImage", "image", "__file:x__", "image"),
        ("LoadImage", "image", "__param:x_pod_path__", "image"),
        ("LoadClip", "file", "__param:x__", "video"),
    ],
)
def test_a_loader_tells_the_medium(class_type: str, name: str, placeholder: str, kind: str) -> None:
    (param,) = parse({}, INFO, n1=node(class_type, **{name: placeholder})).params.values()
    assert (param.type, param.media, param.choices, param.default) == (kind, kind, (), MISSING)


@pytest.mark.parametrize(
    ("declared", "kind"),
    [
        ({"default": "a"}, "string"),
        ({"default": True}, "bool"),
        ({"default": [1]}, "list"),
        ({"default": {}}, "object"),
        ({"default": 5}, "any"),
        ({"default": None}, "any"),
        ({"choices": ["a", "b"]}, "string"),
        ({"choices": {"true": {}, "false": {"set": {}}}}, "bool"),
        ({"choices": {"1:1": {}}}, "string"),
        ({}, "any"),
    ],
)
def test_values_tell_the_type_where_nothing_else_does(declared: dict[str, Any], kind: str) -> None:
    assert one({"steps": "__param:x__"}, {"x": declared}, info=None).type == kind


def test_declared_params_come_first_and_in_their_order() -> None:
    inputs = {"steps": "__param:a__", "cfg": "__param:b__", "text": "__param:c__"}
    template = parse({"_params": {"c": {}, "b": {}}}, n1=node("Sampler", **inputs))
    assert list(template.params) == ["c", "b", "a"]


def test_two_spellings_are_one_param() -> None:
    inputs = {"text": "__param:a_pod_path__", "note": "__file:a_local_path__"}
    template = parse({"_params": {"a_local_path": {"type": "image"}}}, n1=node("Sampler", **inputs))
    assert list(template.params) == ["a_local_path"]
    assert template.aliases == {"a_pod_path": "a_local_path"}


def test_the_other_spelling_of_an_alias_gives_way_to_a_param_and_to_an_alias() -> None:
    inputs = {"text": "__param:a_pod_path__", "note": "__param:b__", "model": "__param:c__"}
    aliases = {"c_pod_path": "c", "c_local_path": "b"}
    template = parse({"_about": {"param_aliases": aliases}}, n1=node("Sampler", **inputs))
    assert template.aliases == {"a_local_path": "a_pod_path", **aliases}


def test_about() -> None:
    about = {
        "title": "T",
        "description": "D",
        "aliases": ["other"],
        "param_aliases": {"cfg_scale": "cfg"},
        "timeout_s": 60,
        "packs": ["Pack"],
        "fails_on": {"no_face": ["nobody there"]},
    }
    template = parse({"_about": about}, n1=node("Sampler", cfg="__param:cfg__"))
    assert template.about.model_dump() == about
    assert template.aliases == {"cfg_scale": "cfg"}
    assert template.params["cfg"].aliases == ("cfg_scale",)


def test_the_graph_is_a_copy_without_our_blocks() -> None:
    template = parse({"_about": {}, "_params": {}}, n1=node("Sampler", image=["1", 0]))
    template.graph()["1"]["inputs"]["image"].append("changed")
    assert template.graph() == {"1": node("Sampler", image=["1", 0])}


@pytest.mark.parametrize(
    ("blocks", "said"),
    [
        ({"_about": {"titel": "x"}}, "_about.titel is not known here (did you mean 'title'?)"),
        ({"_about": 5}, '_about: must be an object, got 5 (such as {"title": "…"})'),
        ({"_about": {"timeout_s": 0}}, "_about.timeout_s: must be above 0, got 0"),
        ({"_about": {"aliases": "x"}}, "_about.aliases: must be a list, got 'x' (such as [\"creation\"])"),
        ({"_about": {"timeout_s": 1e6}}, "_about.timeout_s: must be at most 86400, got 1000000.0"),
        ({"_about": {"title": 3}}, '_about.title: must be text, got 3 (write "3")'),
        (
            {"_about": {"fails_on": {"no_face": ["abc"]}}},
            "_about.fails_on.no_face.0: must have 4 characters or more, got 'abc'",
        ),
        (
            {"_about": {"param_aliases": {"s": "stepz"}}},
            "the alias 's' leads to 'stepz', which is no param (did you mean 'steps'?)",
        ),
        ({"_params": []}, "_params must be an object of params by their key"),
        ({"_params": {"steps": {"type": "integer"}}}, "_params.steps.type: must be 'string', 'int', "),
        ({"_params": {"steps": 7}}, '_params.steps: must be an object, got 7 (such as {"type": "int",'),
        (
            {"_params": {"steps": {"choices": {"1:1": [5, 5]}}}},
            '_params.steps.choices.1:1: must be an object, got a list (such as {"set": {"width": 1024}})',
        ),
        (
            {"_params": {"steps": {"repeat": ["8"]}}},
            '_params.steps.repeat: must be an object, got a list (such as {"2": ["model", "clip"]})',
        ),
        (
            {"_params": {"steps": {"brackets": "yes"}}},
            "_params.steps.brackets: must be true or false, got 'yes' (without quotes)",
        ),
        (
            {"_params": {"steps": {"type": "float", "default": 1, "default_env": "ENABLE_FACE_REFINEMENT"}}},
            "'steps' is of type 'float', but ENABLE_FACE_REFINEMENT is true or false "
            '("type": "bool", or another param that is)',
        ),
        ({"_params": {"steps": {"maximum": 5}}}, "_params.steps.maximum is not known here (did you mean 'max'?)"),
        ({"_params": {"steps": {"min": "5"}}}, "_params.steps.min: must be a number, got '5' (without quotes)"),
        (
            {"_params": {"steps": {"min": 5, "max": 4}}},
            "the smallest value of 'steps' is larger than the largest "
            '("min" may be 4 at most, or "max" must be 5 at least)',
        ),
        (
            {"_params": {"unused": {}}},
            "the param 'unused' fills nothing: it has no placeholder in the graph and no presets "
            "(put its placeholder where a node reads it, or remove it)",
        ),
        (
            {"_params": {"mode": {"choices": {"a": {"set": {"zzz": 1}}}}}},
            "the choice 'a' of 'mode' sets 'zzz', which is no param (params: mode, ",
        ),
        ({"_about": {"param_aliases": {"s": "zzz"}}}, "the alias 's' leads to 'zzz', which is no param (params: "),
        (
            {"_about": {"param_aliases": {"job_id": "steps"}}},
            "the alias 'job_id' is the name of a param itself (remove it, or choose another name)",
        ),
        (
            {"_params": {"steps": {"type": "int", "default": "x"}}},
            "the default of 'steps' must be a whole number, got 'x'",
        ),
        (
            {"_params": {"steps": {"type": "int", "max": 4, "default": 5}}},
            "the default of 'steps' is 5, above the largest value, 4",
        ),
        (
            {"_params": {"steps": {"choices": ["a", "b"], "default": "c"}}},
            "the default of 'steps': 'c' is not one of the choices (choices: a, b)",
        ),
        (
            {"_params": {"steps": {"type": "int", "choices": [1, "x"]}}},
            "a choice of 'steps' must be a whole number, got 'x'",
        ),
        (
            {"_params": {"steps": {"choices": 5}}},
            '_params.steps.choices: must be a list, got 5 (such as ["euler", "ddim"], or an object of presets',
        ),
        (
            {"_params": {"step": {}}},
            "the param 'step' fills nothing: it has no placeholder in the graph and no presets (did you mean 'steps'?)",
        ),
        ({"_params": {"job_id": {}}}, "the param 'job_id' belongs to the worker"),
        (
            {"_params": {"steps": {"type": "int", "media": "image"}}},
            "the param 'steps' is declared 'int', but its media is 'image'",
        ),
        (
            {"_params": {"mode": {"choices": {"a": {"set": {"stepz": 1}}}}}},
            "the choice 'a' of 'mode' sets 'stepz', which is no param (did you mean 'steps'?)",
        ),
        (
            {"_params": {"mode": {"choices": {"a": {"set": {"steps": "x"}}}}, "steps": {"type": "int"}}},
            "the choice 'a' of 'mode' sets 'steps', which must be a whole number, got 'x'",
        ),
        (
            {"_params": {"mode": {"choices": {"a": {"links": {"9.image": ["1", 0]}}}}}},
            "'9.image' is an input of node 9, which is not there (nodes: 1)",
        ),
        (
            {"_params": {"mode": {"choices": {"a": {"links": {"1.image": ["9", 0]}}}}}},
            "'1.image' is linked to node 9, which is not there",
        ),
        (
            {"_params": {"mode": {"choices": {"a": {"links": {"1.image": ["1"]}}}}}},
            "_params.mode.choices.a.links.1.image: a link is a node id and an output index",
        ),
        (
            {"_params": {"mode": {"choices": {"a": {"sets": {}}}}}},
            "_params.mode.choices.a.sets is not known here (did you mean 'set'?)",
        ),
        (
            {"_params": {"steps": {"default_env": "HF_TOKEN"}}},
            "_params.steps.default_env: must be 'ENABLE_FACE_REFINEMENT', got 'HF_TOKEN'",
        ),
        (
            {"_params": {"steps": {"type": "int", "brackets": True}}},
            '\'steps\' has brackets, but is no text ("type": "string")',
        ),
        (
            {"_params": {"steps": {"type": "int", "suffix": ".pid"}}},
            "'steps' has a suffix, but is no file (suffixes are for files)",
        ),
        (
            {"_params": {"steps": {"suffix": "../x"}}},
            "_params.steps.suffix: must be a dot with letters or digits after it, got '../x'",
        ),
        ({"_about": {"fails_on": {"nonsense": ["a face"]}}}, "_about.fails_on"),
        (
            {"_params": {"copy": {"type": "string", "of": "1"}}},
            '\'copy\' is for the file of node 1, but is no output path ("type": "output_path")',
        ),
        (
            {"_params": {"steps": {"type": "output_path", "of": "1"}}},
            "'steps' has a placeholder, so its node writes the file itself (leave out 'of', or the placeholder)",
        ),
        (
            {"_params": {"copy": {"type": "output_path", "of": "11"}}},
            "'copy' is for the file of node 11, which is not there (did you mean '1'?)",
        ),
        (
            {"_about": {"param_aliases": {"a_local_path": "steps"}}, "_params": {"a_pod_path": {"choices": {"x": {}}}}},
            "the alias 'a_local_path' is the other spelling of the param 'a_pod_path'",
        ),
        ({"_param": {}}, "node _param has no class_type (did you mean '_params'?)"),
    ],
)
def test_what_is_wrong_with_the_blocks(blocks: dict[str, Any], said: str) -> None:
    assert problems_of(blocks)[0].startswith(said)


def test_presets_choose_in_the_order_of_declaration() -> None:
    first = {"choices": {"a": {"set": {"second": "b"}}}}
    second = {"choices": {"b": {}, "c": {"set": {"first": "a"}}}}
    (said,) = problems_of({"_params": {"first": first, "second": second}})
    assert said == (
        "the choice 'c' of 'second' sets 'first', whose own choice has been made by then "
        "(declare 'first' after 'second')"
    )


def test_what_is_wrong_with_the_graph() -> None:
    assert problems_of({}, n1={"class_type": "__param:x__", "inputs": {}}) == [
        "node 1 has a placeholder for its class_type (a preset's links can choose between nodes)"
    ]
    assert problems_of({}, n1=node("Sampler", image=["9", 0])) == [
        "node 1 input image is linked to node 9, which is not there"
    ]
    assert problems_of({"_params": {"x": {"type": "int"}}}, n1=node("Sampler", steps="__file:x__")) == [
        "the param 'x' is declared 'int', but its placeholder names a file or folder"
    ]


def test_an_empty_graph_and_the_editor_format() -> None:
    with pytest.raises(TemplateError, match="line 1, column 1: the file has no nodes"):
        parse({"_about": {}})
    with pytest.raises(TemplateError, match=r"the file is in the editor's own format.*Export \(API\)"):
        parse({}, nnodes=[], nlinks=[])


def test_problems_are_found_together_and_say_where() -> None:
    text = """{
      "_about": {"titel": "x"},
      "_params": {
        "steps": {"type": "int", "default": "many"},
        "ghost": {}
      },
      "1": {"class_type": "Sampler", "inputs": {"steps": __param:steps__, "image": ["7", 0]}}
    }"""
    with pytest.raises(TemplateError) as raised:
        parse_template(text, name="test")
    assert [problem.at for problem in raised.value.problems] == [
        "line 2, column 27",
        "line 7, column 12",
        "line 4, column 45",
        "line 5, column 18",
    ]


def test_a_file_is_wanted_of_a_node_that_makes_none() -> None:
    said = {"copy": {"type": "output_path", "default": None, "of": "1"}}
    template = parse({"_params": said}, n1=node("Sampler"), n2=node("Save", images=["1", 0]))
    assert [problem.what for problem in template.seen_by(INFO).problems] == [
        "'copy' is for the file of node 1 (Sampler), which makes none"
    ]


@pytest.mark.parametrize(
    ("said", "meant"), [("integer", "int"), ("number", "float"), ("text", "string"), ("boolean", "bool")]
)
def test_types_of_other_names(said: str, meant: str) -> None:
    with pytest.raises(TemplateError, match=f"did you mean '{meant}'"):
        parse({"_params": {"steps": {"type": said}}}, n1=node("Sampler", steps="__param:steps__"))


def test_each_thing_is_told_once() -> None:
    """A limit may be of two types, and pydantic tells of both."""
    with pytest.raises(TemplateError) as raised:
        parse({"_params": {"steps": {"min": "5"}}}, n1=node("Sampler", steps="__param:steps__"))
    assert len(raised.value.problems) == 1


@pytest.mark.parametrize("link", [[1, 0], ["1", "0"], [1, "0"]])
def test_a_link_of_the_wrong_json_types(link: list[Any]) -> None:
    with pytest.raises(TemplateError) as raised:
        parse({}, n1=node("Sampler"), n2=node("Save", images=link))
    (problem,) = raised.value.problems
    assert problem.what == "node 2 input images is a link of the wrong JSON types"
    assert problem.hint == 'write ["1", 0]: the node id is a text, the output a number'


@pytest.mark.parametrize("value", [["1", 0], [512, 512], ["a", "b"], [True, 1], ["1", 0.0], [1, 2, 3], ["1", -1]])
def test_other_lists_are_no_mistyped_links(value: list[Any]) -> None:
    assert parse({}, n1=node("Sampler"), n2=node("Save", images=value)).problems == ()


def test_being_completed_once_for_each_object_info() -> None:
    """After a model was added an endpoint has another object info, and every job asks by that one."""
    template = parse({}, INFO, n1=node("Sampler", steps="__param:steps__"))
    other = ObjectInfo(INFO.raw)
    assert template.seen_by(other) is template.seen_by(other)
    assert template.seen_by(other).object_info is other


def test_being_seen_by_another_object_info() -> None:
    bare = parse({}, n1=node("Sampler", steps="__param:steps__"))
    assert bare.params["steps"].type == "any"
    seen = bare.seen_by(INFO)
    assert seen.params["steps"].type == "int"
    assert seen.seen_by(INFO) is seen
    assert seen.seen_by(ObjectInfo({})).params["steps"].type == "any"


def test_a_template_that_this_comfyui_cannot_run() -> None:
    blocks = {"_params": {"steps": {"default": 500}}}
    template = parse(
        blocks, n1=node("Fewer", steps="__param:steps__"), n2=node("Save"), n3=node("Svae", images=["1", 0])
    )
    problems = check_template(template, INFO)
    assert [problem.what for problem in problems] == [
        "node 3: this ComfyUI has no node class 'Svae'",
        "node 2 (Save) lacks its required input images",
        "the default of 'steps' is 500, above the largest value, 50",
    ]
    assert problems[2].at == "line 1, column 35"
    text = json.dumps(blocks | dict(template.document.graph))
    assert problems[0].at == f"line 1, column {text.index('Svae')}"


def test_models_are_no_matter_of_a_template() -> None:
    blocks = {"_params": {"sampler": {"default": "absent.safetensors"}}}
    template = parse(blocks, n1=node("Sampler", sampler="__param:sampler__"))
    assert template.seen_by(INFO).problems == ()


def test_where_an_input_comes_from() -> None:
    inputs = {"steps": "__param:steps__", "text": "x __param:job_id__ __param:a__", "note": "__param:job_id__"}
    template = parse({}, n1=node("Sampler", **inputs))
    assert template.where("1", "steps") == "params.steps"
    assert template.where("1", "text") == "params.a"
    assert template.where("1", "note") is None
    assert template.where("1", "cfg") is None
    assert template.where("2", "steps") is None


def test_rows_tell_of_what_values_do() -> None:
    picture = {
        "type": "image",
        "default": None,
        "effects": {"*": {"links": {"9.images": ["2", 0]}, "description": "brings a face in"}, "null": {}},
    }
    blocks = {
        "_params": {
            "cfg": {"default": 3, "description": "how closely", "effects": {"0": {"bypass": {"3": ["image"]}}}},
            "size": {"default": "s", "choices": {"s": {"description": "small"}, "l": {"set": {"cfg": 1}}}},
            "face": picture,
            "styles": {
                "type": "list",
                "default": [],
                "repeat": {"4": ["image"]},
                "items": {"text": {"type": "string"}, "steps": {"default": 5}},
            },
            "copy": {"type": "output_path", "default": None, "of": "9"},
            "tiled": {"default": True, "default_env": "ENABLE_FACE_REFINEMENT"},
        }
    }
    nodes = {
        "n1": node("Sampler", image=["2", 0], tiled="__param:tiled__"),
        "n2": node("LoadImage", image="__param:face__"),
        "n3": node("Sampler", image=["1", 0], cfg="__param:cfg__"),
        "n4": node("Sampler", image=["3", 0], text="__param:styles.text__", steps="__param:styles.steps__"),
        "n9": node("Save", images=["4", 0]),
    }
    rows = {row.key: row for row in describe(parse(blocks, None, **nodes), INFO)}
    assert {key: row.description for key, row in rows.items()} == {
        "cfg": "how closely",
        "size": "s: small",
        "face": "any other: brings a face in",
        "styles": "an item has text (string, required), steps (int, 5, 1 to 100)",
        "copy": "the file of node 9 is put there as well",
        "tiled": "ENABLE_FACE_REFINEMENT sets the default",
    }
    assert (rows["styles"].default, rows["styles"].allowed) == ("[]", "0 to 16 items")
    deployed = describe(parse(blocks, None, **nodes), INFO, {"ENABLE_FACE_REFINEMENT": False})
    assert (rows["tiled"].default, deployed[-1].default) == ("true", "false")


def test_rows_for_a_person() -> None:
    blocks = {
        "_about": {"param_aliases": {"cfg_scale": "cfg"}},
        "_params": {
            "cfg": {"description": "how closely"},
            "prompt": {"type": "string"},
            "mode": {"default": "a", "choices": {"a": {}, "b": {}}},
            "picture": {"type": "image", "default": None, "label": "Picture"},
            "note": {"type": "string", "default": ""},
            "most": {"type": "int", "default": 1, "max": 5},
            "least": {"type": "int", "default": 1, "min": 0},
        },
    }
    inputs = {
        "cfg": "__param:cfg__",
        "text": "__param:prompt__",
        "seed": "__param:seed__",
        "image": "__param:picture__",
    }
    deep = "__param:most__ __param:least__ __param:note__"
    rows = describe(parse(blocks, n1=node("Sampler", **inputs, note=deep, sampler="__param:s__")), INFO)
    assert [(row.key, row.type, row.default, row.allowed, row.media, row.description) for row in rows] == [
        ("cfg", "float", "8.0", "0.0 to 30.0", "", "how closely; also called cfg_scale"),
        ("prompt", "string", "required", "", "", ""),
        ("mode", "string", "a", "a, b", "", ""),
        ("picture", "image", "none", "", "image", "Picture"),
        ("note", "string", '""', "", "", ""),
        ("most", "int", "1", "at most 5", "", ""),
        ("least", "int", "1", "at least 0", "", ""),
        ("seed", "seed", "drawn", "0 to 4294967295", "", ""),
        ("s", "string", "required", "euler, heun", "", ""),
    ]
