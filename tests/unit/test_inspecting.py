"""What an inspection says of templates and graphs: everything at once, each with its line."""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import load_known
from morpheus_worker.holdings import Holdings
from morpheus_worker.inspecting.inspect import Ground, inspect_file, inspect_templates, totals
from morpheus_worker.inspecting.remark import Inspection, Remark
from morpheus_worker.manifest import parse_manifest

SHIPPED = Path(__file__).resolve().parents[2] / "workflows"
GROUND = Ground(load_known())


def template(**params: Any) -> dict[str, Any]:
    """A picture made, turned and saved. Its size is a param."""
    return {
        "_params": {"size": {"type": "int", "default": 64, "min": 16, "max": 128}, **params},
        "1": {
            "class_type": "EmptyImage",
            "inputs": {"width": "__param:size__", "height": 64, "batch_size": 1, "color": 0},
        },
        "2": {"class_type": "ImageInvert", "inputs": {"image": ["1", 0]}},
        "3": {"class_type": "SaveImage", "inputs": {"images": ["2", 0], "filename_prefix": "x"}},
    }


def written(folder: Path, document: Any, name: str = "mine") -> Path:
    path = folder / f"{name}.json"
    path.write_text(document if isinstance(document, str) else json.dumps(document, indent=1), encoding="utf-8")
    return path


def inspected(folder: Path, document: Any, ground: Ground = GROUND) -> Inspection:
    return inspect_file(written(folder, document), ground)


def only(inspection: Inspection) -> Remark:
    (remark,) = inspection.remarks
    return remark


def kinds(inspection: Inspection) -> list[tuple[str, str]]:
    return [(remark.severity, remark.kind) for remark in inspection.remarks]


def test_a_good_template_has_nothing_said_of_it(tmp_path: Path) -> None:
    found = inspected(tmp_path, template())
    assert (found.remarks, found.variations) == ((), 1)


# --- files


@pytest.mark.parametrize(
    ("text", "line", "said"),
    [
        ("", 1, "the file is empty"),
        ('{"1":\n  nonsense}', 2, "is not JSON"),
        (json.dumps(template()) + "\n and so on", 2, "there is text after the end of the JSON object"),
        ('{\n "__param:key__": {"class_type": "X", "inputs": {}}}', 2, "a placeholder stands in a key"),
        ('{"nodes": [], "links": []}', 1, "the editor's own format"),
        (
            '{"_params": {\n "a": {"typ": "int"}}, "1": {"class_type": "X", "inputs": {}}}',
            2,
            "_params.a.typ is not known",
        ),
    ],
)
def test_a_broken_file_is_named_with_its_line(tmp_path: Path, text: str, line: int, said: str) -> None:
    found = inspected(tmp_path, text)
    assert (found.workflow, found.file) == ("mine", tmp_path / "mine.json")
    assert {remark.severity for remark in found.remarks} == {"error"}
    assert any(said in remark.what and remark.line == line for remark in found.remarks)


def test_the_editors_format_comes_with_the_way_out(tmp_path: Path) -> None:
    assert "Export (API)" in str(only(inspected(tmp_path, {"nodes": [], "links": []})).hint)


def test_a_link_to_nowhere_hides_nothing_else(tmp_path: Path) -> None:
    document = template(
        other={"type": "string", "default": "a", "choices": {"a": {}, "b": {"links": {"5.image": ["1", 0]}}}}
    )
    document["2"]["inputs"]["image"] = ["9", 0]
    document["1"]["inputs"] |= {"width": "__param:size__", "batch_size": 0, "color": "red"}
    document["4"] = {"class_type": "EmptyImagge", "inputs": {}}
    document["5"] = {"class_type": "ImageInvert", "inputs": {}}
    document["6"] = {"class_type": "PreviewImage", "inputs": {"images": ["1", 0]}}
    told = {(remark.node_id, remark.input): remark for remark in inspected(tmp_path, document).remarks}
    assert told.keys() == {(None, None), ("1", "batch_size"), ("1", "color"), ("4", None)}
    assert told[None, None].what.startswith("node 2 input image is linked to node 9")
    assert told["1", "color"].hint == "write a whole number, such as 1"
    assert told["4", None].hint == "did you mean 'EmptyImage'?"


@pytest.mark.parametrize("file", sorted(SHIPPED.glob("*.json")), ids=lambda file: file.stem)
def test_of_a_broken_template_only_what_is_wrong_is_told(tmp_path: Path, file: Path) -> None:
    document = json.loads(file.read_text(encoding="utf-8"))
    document["lost"] = {"class_type": "SaveImage", "inputs": {"images": ["nowhere", 0], "filename_prefix": "x"}}
    remark = only(inspected(tmp_path, document))
    assert (remark.kind, remark.what) == (
        "broken_template",
        "node lost input images is linked to node nowhere, which is not there",
    )


def test_a_broken_template_of_a_folder_is_judged_too(tmp_path: Path) -> None:
    document = template()
    document["2"]["inputs"]["image"] = ["9", 0]
    document["3"]["inputs"] = {"images": ["2", 0]}
    written(tmp_path, document)
    (found,) = inspect_templates(tmp_path, None, GROUND)
    assert kinds(found) == [("error", "broken_template"), ("error", "required_input_missing")]


def test_a_file_that_cannot_be_read(tmp_path: Path) -> None:
    assert only(inspect_file(tmp_path / "gone.json", GROUND)).what.startswith("cannot be read: ")
    path = tmp_path / "latin.json"
    path.write_bytes(b'{"1": "\xe4"}')
    assert only(inspect_file(path, GROUND)).hint == "save it as UTF-8"


def test_a_declaration_that_contradicts_its_node(tmp_path: Path) -> None:
    found = inspected(tmp_path, template(size={"type": "int", "default": 0}))
    assert ("error", "contradiction") in kinds(found)


# --- graphs


def test_what_is_wrong_with_a_graph_is_told_with_its_line_and_its_param(tmp_path: Path) -> None:
    document = template()
    document["2"]["inputs"] = {"image": ["1", 3]}
    document["3"]["inputs"]["images"] = ["2", 0]
    document["1"]["inputs"]["batch_size"] = 0
    found = inspected(tmp_path, document)
    lines = (tmp_path / "mine.json").read_text(encoding="utf-8").splitlines()
    told = {(remark.node_id, remark.input, remark.kind): remark for remark in found.remarks}
    assert told.keys() == {("1", "batch_size", "value_smaller_than_min"), ("2", "image", "no_such_output")}
    assert told["1", "batch_size", "value_smaller_than_min"].what == (
        "node 1 (EmptyImage) input batch_size: 0 is below the smallest value, 1"
    )
    for remark in found.remarks:
        assert remark.line is not None
        assert f'"{remark.input}"' in lines[remark.line - 1]


def test_an_unknown_class_comes_with_its_pack(tmp_path: Path) -> None:
    core = ObjectInfo({name: raw for name, raw in load_known().raw.items() if name != "VHS_VideoCombine"})
    document = {"1": {"class_type": "VHS_VideoCombine", "inputs": {}}}
    remark = inspected(tmp_path, document, Ground(core)).remarks[0]
    assert (remark.severity, remark.kind) == ("error", "missing_node_type")
    assert remark.hint == "the node pack ComfyUI-VideoHelperSuite has it"


def test_a_circle_and_no_output(tmp_path: Path) -> None:
    circle = template()
    circle["2"]["inputs"]["image"] = ["2", 0]
    assert ("error", "dependency_cycle") in kinds(inspected(tmp_path, circle))
    bare = template()
    del bare["3"]
    assert ("error", "prompt_no_outputs") in kinds(inspected(tmp_path, bare))


def test_a_plain_graph_is_judged_whole(tmp_path: Path) -> None:
    document = template()
    del document["_params"]
    document["1"]["inputs"]["width"] = 64
    assert inspected(tmp_path, document).remarks == ()
    idle = {**document, "9": {"class_type": "EmptyImage", "inputs": {"width": 0}}}
    assert {remark.severity for remark in inspected(tmp_path, idle).remarks} == {"warning"}
    assert ("error", "missing_node_type") in kinds(
        inspected(tmp_path, {**document, "9": {"class_type": "Gone", "inputs": {}}})
    )


# --- variations


def choosing(**choices: Any) -> dict[str, Any]:
    """A template with a second way of turning the picture."""
    document = template(way={"type": "string", "default": "plain", "choices": {"plain": {}, **choices}})
    document["4"] = {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["1", 0], "upscale_method": "lanczos", "scale_by": 2.0},
    }
    return document


def test_every_choice_is_tried(tmp_path: Path) -> None:
    assert inspected(tmp_path, choosing(large={"links": {"3.images": ["4", 0]}})).remarks == ()
    document = choosing(large={"links": {"3.images": ["4", 0]}})
    document["4"]["inputs"]["upscale_method"] = "magic"
    remark = only(inspected(tmp_path, document))
    assert (remark.node_id, remark.input, remark.kind) == ("4", "upscale_method", "value_not_in_list")
    assert remark.variation == "way = large"
    assert str(remark).endswith("(choices: nearest-exact, bilinear, area, bicubic, lanczos; when way = large)")


def test_what_is_wrong_in_all_variations_is_told_once(tmp_path: Path) -> None:
    document = choosing(large={"links": {"3.images": ["4", 0]}})
    document["1"]["inputs"]["color"] = -1
    remark = only(inspected(tmp_path, document))
    assert (remark.input, remark.variation) == ("color", None)


def test_a_declared_choice_that_the_node_does_not_take(tmp_path: Path) -> None:
    document = choosing(large={"links": {"3.images": ["4", 0]}})
    document["_params"]["method"] = {"type": "string", "default": "lanczos", "choices": ["lanczos", "magic"]}
    document["4"]["inputs"]["upscale_method"] = "__param:method__"
    document["3"]["inputs"]["images"] = ["4", 0]
    document["_params"].pop("way")
    document.pop("2")
    remark = only(inspected(tmp_path, document))
    assert (remark.severity, remark.param, remark.variation) == ("error", "method", "method = magic")


def test_a_node_that_no_variation_needs(tmp_path: Path) -> None:
    document = {**template(), "9": {"class_type": "EmptyImage", "inputs": {}}}
    remark = only(inspected(tmp_path, document))
    assert (remark.severity, remark.kind, remark.node_id) == ("warning", "leads_nowhere", "9")


# --- params


def test_a_param_that_is_used_and_not_declared(tmp_path: Path) -> None:
    document = template()
    document["1"]["inputs"]["height"] = "__param:height__"
    remark = only(inspected(tmp_path, document))
    assert (remark.severity, remark.kind, remark.param) == ("warning", "undeclared_param", "height")


def test_a_param_that_is_declared_and_not_used(tmp_path: Path) -> None:
    remark = only(inspected(tmp_path, template(height={"type": "int", "default": 3})))
    assert remark.severity == "error"
    assert "the param 'height' fills nothing" in remark.what


@pytest.mark.parametrize("where", ["idle node", "input that no class declares"])
def test_a_param_that_changes_nothing(tmp_path: Path, where: str) -> None:
    document = template(height={"type": "int", "default": 64})
    if where == "idle node":
        inputs = {"width": 64, "height": "__param:height__", "batch_size": 1, "color": 0}
        document["9"] = {"class_type": "EmptyImage", "inputs": inputs}
    else:
        document["1"]["inputs"]["heigth"] = "__param:height__"
    found = [remark for remark in inspected(tmp_path, document).remarks if remark.severity == "error"]
    assert [(remark.kind, remark.param) for remark in found] == [("idle_param", "height")]


def test_a_choice_that_only_sets_others_changes_something(tmp_path: Path) -> None:
    shape = {"type": "string", "default": "s", "choices": {"s": {"set": {"size": 32}}, "l": {"set": {"size": 96}}}}
    document = template()
    document["_params"] = {"shape": shape, **document["_params"]}
    assert inspected(tmp_path, document).remarks == ()


def test_a_range_that_is_wider_than_the_nodes(tmp_path: Path) -> None:
    wide = template(size={"type": "int", "default": 64, "min": 0, "max": 99999})
    found = inspected(tmp_path, wide)
    assert [(remark.kind, remark.what) for remark in found.remarks] == [
        ("range_too_wide", "'size' may be 0, but its node takes nothing below 1"),
        ("range_too_wide", "'size' may be 99999, but its node takes nothing above 16384"),
    ]


def test_a_value_whose_effect_keeps_it_from_the_node_is_no_such_range(tmp_path: Path) -> None:
    document = template(
        scale={"type": "float", "default": 2.0, "min": 0, "effects": {"0": {"bypass": {"4": ["image"]}}}}
    )
    document["4"] = {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["2", 0], "upscale_method": "lanczos", "scale_by": "__param:scale__"},
    }
    document["3"]["inputs"]["images"] = ["4", 0]
    assert inspected(tmp_path, document).remarks == ()


def test_effects_that_together_take_out_what_saves(tmp_path: Path) -> None:
    def off(node_id: str, *, default: bool) -> dict[str, Any]:
        return {"type": "bool", "default": default, "effects": {"false": {"bypass": {node_id: ["images"]}}}}

    document = template(first=off("3", default=False), second=off("4", default=True))
    document["4"] = {"class_type": "PreviewImage", "inputs": {"images": ["2", 0]}}
    remark = only(inspected(tmp_path, document))
    assert (remark.severity, remark.kind, remark.param) == ("error", "prompt_no_outputs", "second")
    assert remark.what == "with second = false no node is left that saves or shows anything"


def test_no_value_has_a_key_of_its_own(tmp_path: Path) -> None:
    document = template(side={"type": "int", "default": None, "effects": {"null": {}}})
    document["1"]["inputs"]["height"] = "__param:side__"
    document["_params"]["method"] = {
        "type": "string",
        "default": None,
        "choices": ["area"],
        "effects": {"None": {"links": {"3.images": ["1", 0]}}, "*": {"links": {"3.images": ["4", 0]}}},
    }
    document["4"] = {
        "class_type": "ImageScaleBy",
        "inputs": {"image": ["2", 0], "upscale_method": "__param:method__", "scale_by": 2.0},
    }
    refused = [remark for remark in inspected(tmp_path, document).remarks if remark.param == "method"]
    assert all(remark.kind != "idle_param" for remark in refused)


@pytest.mark.parametrize(
    ("declared", "where", "severity", "said"),
    [
        ({"type": "string"}, ("1", "height"), "warning", "takes INT, and 'extra' fills in a text"),
        ({"type": "image"}, ("1", "height"), "error", "takes INT, and 'extra' fills in a file's name"),
        ({"type": "output_path"}, ("1", "height"), "error", "takes INT, and 'extra' fills in a path"),
        ({"type": "string"}, ("2", "image"), "error", "takes IMAGE by a link, and 'extra' fills in a value"),
        ({"type": "any"}, ("2", "image"), "warning", "takes IMAGE by a link, and 'extra' fills in a value"),
    ],
)
def test_a_param_that_its_node_cannot_take(
    tmp_path: Path, declared: dict[str, Any], where: tuple[str, str], severity: str, said: str
) -> None:
    """A text may be a number, and a value of any type a link."""
    document = template(extra=declared)
    document[where[0]]["inputs"][where[1]] = "__param:extra__"
    found = [remark for remark in inspected(tmp_path, document).remarks if remark.kind == "param_unfit"]
    assert [(remark.severity, remark.input, remark.what.partition(": ")[2]) for remark in found] == [
        (severity, where[1], said)
    ]


def no_errors(inspection: Inspection) -> bool:
    return inspection.errors == 0


@pytest.mark.parametrize("declared", [{"type": "list", "default": ["1", 0]}, {"type": "list"}, {"type": "any"}])
def test_a_param_may_be_a_link(tmp_path: Path, declared: dict[str, Any]) -> None:
    document = template(source=declared)
    document["3"]["inputs"]["images"] = "__param:source__"
    assert no_errors(inspected(tmp_path, document)), "nor is the other node's param idle, which a job may link"
    document["_params"]["source"] = {"type": "list", "default": ["9", 0]}
    assert ("error", "dangling_link") in kinds(inspected(tmp_path, document))


@pytest.mark.parametrize(
    "second",
    [
        {"4": {"class_type": "PreviewImage", "inputs": {}}},
        {
            "4": {"class_type": "EmptyImage", "inputs": {"width": 0, "height": 64, "batch_size": 1, "color": 0}},
            "5": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
        },
        {
            "4": {"class_type": "EmptyImage", "inputs": {"width": "__p__", "height": 64, "batch_size": 1, "color": 0}},
            "5": {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}},
        },
    ],
    ids=["link", "range", "param"],
)
@pytest.mark.parametrize("plain", [False, True])
def test_an_output_that_comfyui_leaves_out_is_worth_a_warning(
    tmp_path: Path, second: dict[str, Any], *, plain: bool
) -> None:
    document = {**template(picture={"type": "image"}), **copy.deepcopy(second)}
    unfit = next(iter(second["4"]["inputs"].values()), None) == "__p__"
    if unfit:
        document["4"]["inputs"]["width"] = "__param:picture__"
    else:
        del document["_params"]["picture"]
    if plain and not unfit:
        del document["_params"]
        document["1"]["inputs"]["width"] = 64
    found = inspected(tmp_path, document)
    assert (found.errors, found.warnings) == (0, 1)
    document["1"]["inputs"]["height"] = 0
    assert inspected(tmp_path, document).errors


def test_a_node_that_leads_nowhere_may_be_given_anything(tmp_path: Path) -> None:
    document = template(idle={"type": "any"})
    document["4"] = {"class_type": "ImageInvert", "inputs": {"image": "__param:picture__"}}
    document["2"]["inputs"]["other"] = "__param:idle__"
    assert "param_unfit" not in [kind for _, kind in kinds(inspected(tmp_path, document))]


def test_null_may_stand_for_no_default(tmp_path: Path) -> None:
    """What a job brings is not known; of a node that cannot do without, a word is said."""
    found = inspected(tmp_path, template(size={"type": "int", "default": None}))
    assert kinds(found) == [("warning", "invalid_input_type")]
    document = template(image={"type": "image", "default": None})
    document["2"] = {"class_type": "LoadImage", "inputs": {"image": "__param:image__"}}
    document["3"]["inputs"]["filename_prefix"] = "__param:size__"
    document["_params"]["size"] = {"type": "string", "default": "x"}
    remark = next(remark for remark in inspected(tmp_path, document).remarks if remark.param == "image")
    assert (remark.severity, remark.hint) == ("warning", 'leave "default" out: then it is required')


def test_a_part_of_an_input_that_stands_for_others(tmp_path: Path) -> None:
    resize = {
        "input": {"required": {"input": ["IMAGE", {}], "resize_type": ["COMFY_DYNAMICCOMBO_V3", {}]}},
        "output": ["IMAGE"],
        "python_module": "comfy_extras.nodes_resize",
    }
    info = ObjectInfo({**load_known().raw, "Resize": resize}, load_known().own_checks)
    document = template(by={"type": "float", "default": 2.0})
    inputs = {"input": ["2", 0], "resize_type": "by", "resize_type.multiplier": "__param:by__"}
    document["4"] = {"class_type": "Resize", "inputs": inputs}
    document["3"]["inputs"]["images"] = ["4", 0]
    assert inspected(tmp_path, document, Ground(info)).remarks == ()
    inputs["resize_tipe.multiplier"] = inputs.pop("resize_type.multiplier")
    assert ("error", "idle_param") in kinds(inspected(tmp_path, document, Ground(info)))


def test_the_fields_of_items_have_ranges_of_their_own(tmp_path: Path) -> None:
    """The node's own default need not be in them."""
    pads = {
        "type": "list",
        "default": [],
        "repeat": {"4": ["image"]},
        "items": {"width": {"type": "int", "min": 1, "max": 99}},
    }
    scale = {"upscale_method": "area", "width": "__param:pads.width__", "height": 32, "crop": "disabled"}
    document = template(pads=pads)
    document["4"] = {"class_type": "ImageScale", "inputs": {"image": ["2", 0], **scale}}
    document["3"]["inputs"]["images"] = ["4", 0]
    assert inspected(tmp_path, document).remarks == ()
    del pads["default"]
    assert no_errors(inspected(tmp_path, document))


def test_a_param_of_a_class_that_nobody_knows(tmp_path: Path) -> None:
    document = template()
    document["2"]["class_type"] = "Gone"
    document["2"]["inputs"]["side"] = "__param:side__"
    assert kinds(inspected(tmp_path, document)) == [("error", "missing_node_type"), ("warning", "undeclared_param")]


def test_presets_that_make_one_graph(tmp_path: Path) -> None:
    shape = {"type": "string", "default": "s", "choices": {"s": {"set": {"size": 64}}, "l": {"set": {"size": 64}}}}
    document = template()
    document["_params"] = {"shape": shape, **document["_params"]}
    assert kinds(inspected(tmp_path, document)) == [("warning", "idle_param")]


def test_a_title_is_no_more_than_that(tmp_path: Path) -> None:
    document = template(title={"type": "string", "default": "x"})
    document["3"]["_meta"] = {"title": "__param:title__"}
    assert kinds(inspected(tmp_path, document)) == [("warning", "idle_param")]


@pytest.mark.parametrize(
    "declared", [{"type": "string", "default": "64"}, {"type": "string", "choices": ["64"], "default": "64"}, {}]
)
def test_a_text_that_is_a_number_may_be_one(tmp_path: Path, declared: dict[str, Any]) -> None:
    document = template(extra={"description": "d", **declared})
    document["1"]["inputs"]["height"] = "__param:extra__"
    assert inspected(tmp_path, document).remarks == ()


def test_what_may_be_absent_and_is_read_all_the_same(tmp_path: Path) -> None:
    def optional(null: dict[str, Any]) -> dict[str, Any]:
        document = template(image={"type": "image", "default": None, "effects": {"null": {"bypass": null}}})
        document["4"] = {"class_type": "LoadImage", "inputs": {"image": "__param:image__"}}
        blend = {"image1": ["2", 0], "image2": ["4", 0], "blend_factor": 0.5, "blend_mode": "normal"}
        document["5"] = {"class_type": "ImageBlend", "inputs": blend}
        document["6"] = {"class_type": "PreviewImage", "inputs": {"images": ["4", 0]}}
        document["3"]["inputs"]["images"] = ["5", 0]
        return document

    remark = only(inspected(tmp_path, optional({"5": ["image1"]})))
    assert (remark.severity, remark.kind, remark.param) == ("error", "never_absent", "image")
    assert remark.what == (
        "'image' is null by default, and yet a job has to bring it: node 4 reads it, for the output of node 6"
    )
    assert remark.hint == 'let the effect of null take that out as well: "bypass": {"6": []}'
    assert inspected(tmp_path, optional({"5": ["image1"], "6": []})).remarks == ()


def test_a_name_that_a_job_uses_itself(tmp_path: Path) -> None:
    document = template()
    document["_about"] = {"param_aliases": {"outputs": "size"}}
    document["_params"]["timeout_s"] = {"type": "int", "default": 64}
    document["1"]["inputs"]["height"] = "__param:timeout_s__"
    found = inspected(tmp_path, document).remarks
    assert [(remark.severity, remark.kind, remark.param) for remark in found] == [
        ("warning", "option_of_jobs", "outputs"),
        ("warning", "option_of_jobs", "timeout_s"),
    ]


def test_a_picture_that_only_the_author_has(tmp_path: Path) -> None:
    document = template()
    document["1"] = {"class_type": "LoadImage", "inputs": {"image": "mine.png"}}
    document["4"] = {"class_type": "LoadImage", "inputs": {"image": "idle.png"}}
    document["3"]["inputs"]["filename_prefix"] = "__param:size__"
    document["_params"]["size"] = {"type": "string", "default": "x"}
    found = [remark for remark in inspected(tmp_path, document).remarks if remark.kind == "file_of_author"]
    assert [(remark.severity, remark.node_id, remark.hint) for remark in found] == [
        ("warning", "1", 'put "__param:image__" there, so that a job brings one')
    ]
    del document["_params"]
    document["3"]["inputs"]["filename_prefix"] = "x"
    assert "file_of_author" not in [kind for _, kind in kinds(inspected(tmp_path, document))], "a job may send it"


def test_aliases_that_are_of_no_use(tmp_path: Path) -> None:
    document = {"_about": {"aliases": ["a/b", "mine", "x", "x"]}, **template()}
    found = inspected(tmp_path, document).remarks
    assert [(remark.severity, remark.what) for remark in found] == [
        ("error", "the alias 'a/b' cannot be a workflow's name"),
        ("warning", "the alias 'mine' is the workflow's own name"),
        ("warning", "the alias 'x' is there twice"),
    ]


def test_a_class_that_nobody_knows_comes_with_the_way_to_make_it_known(tmp_path: Path) -> None:
    remark = inspected(tmp_path, {"1": {"class_type": "WASImage", "inputs": {}}}).remarks[0]
    assert remark.hint is not None
    assert "check with --object-info" in remark.hint


# --- models and packs


def loading(model: str = "x4.safetensors") -> dict[str, Any]:
    return {
        "_about": {"packs": []},
        "1": {"class_type": "UpscaleModelLoader", "inputs": {"model_name": model}},
        "2": {"class_type": "EmptyImage", "inputs": {"width": 64, "height": 64, "batch_size": 1, "color": 0}},
        "3": {"class_type": "ImageUpscaleWithModel", "inputs": {"upscale_model": ["1", 0], "image": ["2", 0]}},
        "4": {"class_type": "SaveImage", "inputs": {"images": ["3", 0], "filename_prefix": "x"}},
    }


def volume(folder: Path, *models: str) -> Holdings:
    for model in models:
        (folder / "models" / model).parent.mkdir(parents=True, exist_ok=True)
        (folder / "models" / model).touch()
    return Holdings((folder / "models",), (folder / "packs",), folder)


def test_a_model_that_is_not_on_the_volume_is_worth_a_warning(tmp_path: Path) -> None:
    assert inspected(tmp_path, loading()).remarks == (), "no volume, no word of it"
    there = Ground(load_known(), volume(tmp_path, "upscale_models/x4.safetensors"))
    assert inspected(tmp_path, loading(), there).remarks == ()
    remark = only(inspected(tmp_path, loading("y.safetensors"), there))
    assert (remark.severity, remark.kind, remark.input) == ("warning", "model_absent", "model_name")
    assert remark.what == "the model upscale_models/y.safetensors is not on the volume"


def test_a_saved_object_info_knows_its_models(tmp_path: Path) -> None:
    raw = copy.deepcopy(dict(load_known().raw))
    raw["UpscaleModelLoader"]["input"]["required"]["model_name"] = [["4x_a.safetensors"], {}]
    ground = Ground(ObjectInfo(raw, load_known().own_checks))
    assert inspected(tmp_path, loading("4x_a.safetensors"), ground).remarks == ()
    remark = only(inspected(tmp_path, loading("4x_b.safetensors"), ground))
    assert (remark.severity, remark.kind, remark.hint) == (
        "error",
        "value_not_in_list",
        "did you mean '4x_a.safetensors'?",
    )


MANIFEST = """
version: 1
models:
  - {id: x4, path: upscale_models/x4.safetensors, workflows: [WORKFLOW]}
"""


def test_what_the_manifest_does_not_know(tmp_path: Path) -> None:
    for workflow, trouble in (("mine", None), ("other", "is in the manifest, but not for the workflow 'mine'")):
        manifest = parse_manifest(MANIFEST.replace("WORKFLOW", workflow), name="manifest.yaml")
        found = inspected(tmp_path, loading(), Ground(load_known(), None, manifest))
        assert [remark.what for remark in found.remarks] == (
            [] if trouble is None else [f"the model upscale_models/x4.safetensors {trouble}"]
        )
    unknown = inspected(tmp_path, loading("z.pth"), Ground(load_known(), None, manifest))
    assert only(unknown).what == "the model upscale_models/z.pth is not in the manifest"
    assert only(unknown).hint == (
        "add it to manifest.yaml with where it comes from, and name 'mine' under its 'workflows'"
    )


def test_a_model_that_is_nowhere_is_told_once(tmp_path: Path) -> None:
    manifest = parse_manifest(MANIFEST, name="manifest.yaml")
    remark = only(inspected(tmp_path, loading("z.pth"), Ground(load_known(), volume(tmp_path), manifest)))
    assert remark.what == "the model upscale_models/z.pth is not on the volume, and not in the manifest"


def test_a_model_of_the_manifest_can_be_fetched_where_it_has_a_source(tmp_path: Path) -> None:
    source = 'sources: [{kind: https, url: "https://host/x4.safetensors"}]'
    for more, hint in (
        ("", "the manifest lists it, and says of no source"),
        (f", {source}", "'morpheus models sync x4' fetches it"),
    ):
        manifest = parse_manifest(MANIFEST.replace("[WORKFLOW]", f"[mine]{more}"), name="manifest.yaml")
        remark = only(inspected(tmp_path, loading(), Ground(load_known(), volume(tmp_path), manifest)))
        assert (remark.kind, remark.hint) == ("model_absent", hint)


def test_a_model_is_there_wherever_its_entry_has_it(tmp_path: Path) -> None:
    also = MANIFEST.replace("WORKFLOW], ", "").replace("[WORKFLOW]", "[mine], also: [other_models/x4.safetensors]")
    manifest = parse_manifest(also, name="manifest.yaml")
    there = Ground(load_known(), volume(tmp_path, "other_models/x4.safetensors"), manifest)
    assert inspected(tmp_path, loading(), there).remarks == ()


def test_a_model_of_a_windows_machine_is_found_on_no_other(tmp_path: Path) -> None:
    remark = only(inspected(tmp_path, loading("real\\x4.safetensors")))
    assert (remark.severity, remark.kind, remark.hint) == ("error", "model_separator", "write 'real/x4.safetensors'")
    whole = only(inspected(tmp_path, loading("C:\\models\\x4.safetensors")))
    assert whole.hint == "name it as it is called in upscale_models/"
    raw = copy.deepcopy(dict(load_known().raw))
    raw["UpscaleModelLoader"]["input"]["required"]["model_name"] = [["real\\x4.safetensors"], {}]
    of_windows = Ground(ObjectInfo(raw, load_known().own_checks))
    assert inspected(tmp_path, loading("real\\x4.safetensors"), of_windows).remarks == ()
    there = Ground(load_known(), volume(tmp_path, "upscale_models/real\\x4.safetensors"))
    assert inspected(tmp_path, loading("real\\x4.safetensors"), there).remarks == ()


def test_a_pack_that_is_not_on_the_volume(tmp_path: Path) -> None:
    document = {
        "_about": {"packs": ["ComfyUI-VideoHelperSuite"]},
        "1": {"class_type": "LoadImage", "inputs": {"image": "x.png"}},
        "2": {
            "class_type": "VHS_VideoCombine",
            "inputs": {
                "images": ["1", 0],
                "frame_rate": 8,
                "loop_count": 0,
                "filename_prefix": "x",
                "format": "image/gif",
                "pingpong": False,
                "save_output": True,
            },
        },
    }
    ground = Ground(load_known(), volume(tmp_path))
    absent = [remark for remark in inspected(tmp_path, document, ground).remarks if remark.kind == "pack_absent"]
    assert [(remark.severity, remark.node_id, remark.hint) for remark in absent] == [("warning", "2", None)]
    listed = 'version: 1\ncustom_nodes: [{id: ComfyUI-VideoHelperSuite, repo: "https://host/x", workflows: [mine]}]'
    known = Ground(load_known(), volume(tmp_path), parse_manifest(listed, name="manifest.yaml"))
    hints = {remark.hint for remark in inspected(tmp_path, document, known).remarks if remark.kind == "pack_absent"}
    assert hints == {"'morpheus models sync ComfyUI-VideoHelperSuite' fetches it"}
    (tmp_path / "packs" / "ComfyUI-VideoHelperSuite").mkdir(parents=True)
    again = Ground(load_known(), volume(tmp_path))
    assert "pack_absent" not in [remark.kind for remark in inspected(tmp_path, document, again).remarks]


# --- all templates of a worker


def test_clashing_aliases_are_named_with_their_line(tmp_path: Path) -> None:
    shipped, overrides = tmp_path / "shipped", tmp_path / "overrides"
    shipped.mkdir()
    overrides.mkdir()
    written(shipped, {"_about": {"aliases": ["make"]}, **template()}, "one")
    written(shipped, {"_about": {"aliases": ["make", "a b"]}, **template()}, "two")
    written(overrides, {"_about": {"aliases": ["make", "one"]}, **template()}, "three")
    written(overrides, {"_about": {"aliases": ["make"]}, **template()}, "one")
    written(overrides, "{", "broken")
    found = inspect_templates(shipped, overrides, GROUND)
    assert [(each.file.parent.name, each.workflow) for each in found] == [
        ("shipped", "one"),
        ("shipped", "two"),
        ("overrides", "broken"),
        ("overrides", "one"),
        ("overrides", "three"),
    ]
    assert [[remark.what for remark in each.remarks if remark.kind == "alias_taken"] for each in found] == [
        [],
        ["the alias 'make' is taken by the workflow 'one'"],
        [],
        [],
        ["the alias 'make' is taken by the workflow 'one'", "the alias 'one' is taken by the workflow 'one'"],
    ]
    assert all(remark.line for each in found for remark in each.remarks)
    assert [remark.what for remark in found[1].remarks if remark.kind == "bad_alias"] == [
        "the alias 'a b' cannot be a workflow's name"
    ]
    assert totals(found)["errors"] == 5


def test_an_override_may_be_called_as_an_alias(tmp_path: Path) -> None:
    shipped, overrides = tmp_path / "shipped", tmp_path / "overrides"
    shipped.mkdir()
    overrides.mkdir()
    written(shipped, {"_about": {"aliases": ["old"]}, **template()}, "new")
    written(overrides, template(), "old")
    assert totals(inspect_templates(shipped, overrides, GROUND)) == {"errors": 0, "warnings": 0}


def test_folders_that_are_not_there(tmp_path: Path) -> None:
    (found,) = inspect_templates(tmp_path / "gone", tmp_path / "none", GROUND)
    assert "there is no folder" in only(found).what


def test_the_shipped_templates_have_no_errors() -> None:
    found = inspect_templates(SHIPPED, None, GROUND)
    assert [f"{each.workflow}: {remark}" for each in found for remark in each.remarks] == []
