"""The compact form keeps the facts of a class, gives them back, and keeps nothing else."""

from __future__ import annotations

import json
from typing import Any

import pytest

from morpheus_worker.comfy.compact import as_text, compact, expand, input_names, own_checks_in
from morpheus_worker.comfy.objectinfo import OwnChecks


def described() -> dict[str, Any]:
    """Classes as a ComfyUI describes them."""
    return {
        "Loader": {
            "input": {
                "required": {
                    "ckpt_name": [["mine.safetensors"], {"tooltip": "The model."}],
                    "vae_name": [["mine.vae.pt", "pixel_space"]],
                    "clip_name": ["COMBO", {"options": ["mine.clip"], "tooltip": "The text encoder."}],
                    "steps": ["INT", {"default": 1, "min": 0, "tooltip": "How many."}],
                },
                "hidden": {"prompt": "PROMPT"},
            },
            "input_order": {"required": ["ckpt_name", "vae_name", "clip_name", "steps"], "hidden": ["prompt"]},
            "output": ["MODEL", "STRING"],
            "output_is_list": [False, True],
            "output_name": ["model", "name"],
            "output_node": True,
            "name": "Loader",
            "display_name": "Load it",
            "description": "It loads.",
            "python_module": "custom_nodes.pack",
            "category": "loaders",
        },
        "Newer": {
            "input": {"required": {}, "optional": None},
            "output": [],
            "output_is_list": [],
            "output_name": [],
            "output_node": False,
            "python_module": "comfy_extras.nodes_newer",
            "api_node": False,
        },
        # A class whose author forgot a comma: Python then takes the text apart.
        "Slip": {"input": {"required": {"odd": "INT"}}, "output": "IMAGE", "output_is_list": [False] * 5},
    }


def test_expand_gives_back_what_compact_kept() -> None:
    for name, facts in compact(described()).items():
        original, again = described()[name], expand(name, facts)
        for kept in ("output", "output_is_list", "output_name", "output_node", "python_module", "api_node"):
            assert again.get(kept) == original.get(kept, again.get(kept)), (name, kept)
    loader = expand("Loader", compact(described())["Loader"])
    assert loader["input_order"] == described()["Loader"]["input_order"]
    assert "api_node" not in loader


def test_prose_stays_out() -> None:
    text = json.dumps(compact(described()))
    for prose in ("The model.", "How many.", "Load it", "It loads.", "loaders", "input_order"):
        assert prose not in text


def test_files_stay_in() -> None:
    inputs = compact(described())["Loader"]["input"]["required"]
    assert inputs["ckpt_name"] == [["mine.safetensors"], {}]
    assert inputs["clip_name"] == ["COMBO", {"options": ["mine.clip"]}]


def test_files_stay_out_when_they_should() -> None:
    assert compact(described(), files=False)["Loader"]["input"]["required"] == {
        "ckpt_name": [[], {}],
        "vae_name": [["pixel_space"]],
        "clip_name": ["COMBO", {"options": []}],
        "steps": ["INT", {"default": 1, "min": 0}],
    }


def test_a_module_that_is_not_named_is_the_given_one() -> None:
    facts = {"input": {"required": {}}, "output": ["IMAGE"]}
    assert expand("X", facts)["python_module"] == "nodes"
    assert expand("X", facts, python_module="custom_nodes.pack")["python_module"] == "custom_nodes.pack"


@pytest.mark.parametrize(
    ("more", "expected"),
    [
        ({}, OwnChecks()),
        ({"validates": ["a"]}, OwnChecks(frozenset({"a"}))),
        ({"validates": "*"}, OwnChecks(frozenset({"a", "b"}))),
        ({"types": True}, OwnChecks(types=True)),
        ({"takes": {"a": "IMAGE,LATENT"}}, OwnChecks(takes={"a": "IMAGE,LATENT"})),
    ],
)
def test_what_a_class_checks_itself(more: dict[str, Any], expected: OwnChecks) -> None:
    raw = {"input": {"required": {"a": ["INT"]}, "optional": {"b": ["INT"]}, "hidden": {"c": "PROMPT"}}, "output": []}
    facts = compact({"X": raw | more})["X"]
    assert own_checks_in(facts) == expected
    assert not {"validates", "types", "takes"} & expand("X", facts).keys(), "ComfyUI does not say so"
    assert input_names(facts) == ["a", "b"]


def test_one_class_a_line_in_order() -> None:
    facts = compact(described())
    lines = as_text({"comfyui_version": "1.2.3"}, facts).splitlines()
    assert [line.partition(":")[0] for line in lines[2:-1]] == ['"Loader"', '"Newer"', '"Slip"']
    assert json.loads("".join(lines)) == {"comfyui_version": "1.2.3", "nodes": facts}


def test_no_classes_are_still_json() -> None:
    assert json.loads(as_text({"pack": "p", "how": "source"}, {})) == {"pack": "p", "how": "source", "nodes": {}}
