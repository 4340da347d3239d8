"""What a node class takes and gives, read from ComfyUI's object info."""

from __future__ import annotations

from typing import Any

import pytest

from morpheus_worker.comfy.objectinfo import ObjectInfo, OwnChecks

RAW: dict[str, Any] = {
    "LoadImage": {
        "input": {"required": {"image": [["a.png", "b.png"], {"image_upload": True}]}},
        "output": ["IMAGE", "MASK"],
        "output_node": False,
    },
    "LoadVideo": {
        "input": {"required": {"file": ["COMBO", {"options": ["a.mp4"], "video_upload": True}]}},
        "output": ["VIDEO"],
        "output_node": False,
    },
    "SaveImage": {
        "input": {
            "required": {"images": ["IMAGE", {"tooltip": "The images."}]},
            "optional": {"filename_prefix": ["STRING", {"default": "ComfyUI"}]},
            "hidden": {"prompt": "PROMPT"},
        },
        "output": [],
        "output_node": True,
    },
    "Sampler": {
        "input": {
            "required": {
                "model": ["MODEL"],
                "steps": ["INT", {"default": 20, "min": 1, "max": 10000}],
                "cfg": ["FLOAT", {}],
                "on": ["BOOLEAN"],
                "name": [["euler", "ddim"]],
                "empty": [[], {}],
                "newer": ["COMBO", {"options": [1, 2]}],
                "newest": ["COMBO"],
                "any": ["*"],
            }
        },
        "output": ["LATENT", ["euler", "ddim"]],
        "output_node": False,
    },
    "Bare": {"input": {}, "output": None},
    "Half": {"input": {"required": None}, "output": ["IMAGE"]},
}
INFO = ObjectInfo(RAW)


def test_an_input_tells_its_type_and_options() -> None:
    steps = INFO.input("Sampler", "steps")
    assert steps is not None
    assert (steps.type, steps.required, steps.choices) == ("INT", True, None)
    assert (steps.options["min"], steps.options["max"]) == (1, 10000)
    prefix = INFO.input("SaveImage", "filename_prefix")
    assert prefix is not None
    assert not prefix.required


@pytest.mark.parametrize(
    ("name", "choices", "checked"),
    [
        ("name", ("euler", "ddim"), True),
        ("empty", (), True),
        ("newer", (1, 2), False),
        ("newest", (), False),
    ],
)
def test_a_choice_in_either_form(name: str, choices: tuple[object, ...], checked: bool) -> None:
    info = INFO.input("Sampler", name)
    assert info is not None
    assert (info.type, info.choices, info.checked_choices) == ("COMBO", choices, checked)


@pytest.mark.parametrize(
    ("class_type", "name", "kind"),
    [("LoadImage", "image", "image"), ("LoadVideo", "file", "video"), ("Sampler", "name", None)],
)
def test_a_loaders_input_tells_the_kind_of_media(class_type: str, name: str, kind: str | None) -> None:
    info = INFO.input(class_type, name)
    assert info is not None
    assert info.upload == kind


def test_widgets_take_values_and_the_rest_take_links() -> None:
    node = INFO.get("Sampler")
    assert node is not None
    widgets = {name for name, info in node.inputs.items() if info.is_widget}
    assert widgets == {"steps", "cfg", "on", "name", "empty", "newer", "newest"}


def test_hidden_inputs_are_none() -> None:
    node = INFO.get("SaveImage")
    assert node is not None
    assert list(node.inputs) == ["images", "filename_prefix"]


def test_outputs_with_a_choice_among_them() -> None:
    node = INFO.get("Sampler")
    assert node is not None
    assert node.outputs == ("LATENT", "COMBO")


def test_output_nodes() -> None:
    assert INFO.is_output("SaveImage")
    assert not INFO.is_output("LoadImage")
    assert not INFO.is_output("Bare")
    assert not INFO.is_output("NoSuchNode")


@pytest.mark.parametrize("class_type", ["Bare", "Half"])
def test_a_class_that_says_little_has_no_inputs(class_type: str) -> None:
    node = INFO.get(class_type)
    assert node is not None
    assert node.inputs == {}


def test_what_this_comfyui_lacks() -> None:
    assert "NoSuchNode" not in INFO
    assert INFO.get("NoSuchNode") is None
    assert INFO.input("NoSuchNode", "x") is None
    assert INFO.input("Sampler", "x") is None
    assert None not in INFO


def test_all_classes() -> None:
    assert set(INFO) == INFO.class_types == set(RAW)


def test_nobody_knows_what_a_class_checks_itself_unless_it_is_said() -> None:
    sampler = INFO.get("Sampler")
    assert sampler is not None
    assert sampler.validates is None
    assert not sampler.validates_types


def test_what_a_class_checks_itself() -> None:
    own = {"Sampler": OwnChecks(frozenset({"steps"}), types=True, takes={"model": "MODEL,CLIP", "newer": "*"})}
    info = ObjectInfo(RAW, own.get)
    sampler, image = info.get("Sampler"), info.get("LoadImage")
    assert sampler is not None
    assert sampler.validates == frozenset({"steps"})
    assert sampler.validates_types
    assert {name: known.takes for name, known in sampler.inputs.items() if known.takes} == own["Sampler"].takes
    assert image is not None
    assert image.validates is None
