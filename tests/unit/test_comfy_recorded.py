"""The recorded object info holds facts, and the recorder keeps nothing else."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.recorded import INPUT_FOLDER, expand, folder_of, load_recorded, recorded_version
from tests.tools.record_object_info import compact, write


def test_the_classes_a_worker_meets_are_there() -> None:
    known = load_recorded()
    for name in ("KSampler", "CheckpointLoaderSimple", "LoadImage", "SaveImage", "ImageUpscaleWithModel", "SaveVideo"):
        assert name in known
    assert known.is_output("SaveImage")
    assert not known.is_output("LoadImage")
    assert recorded_version().count(".") == 2


def test_it_has_the_shape_of_comfyuis_answer() -> None:
    described = load_recorded().raw["KSampler"]
    assert described["input_order"]["required"][:3] == ["model", "seed", "steps"]
    assert described["output"] == described["output_name"] == ["LATENT"]
    assert described["output_is_list"] == [False]
    assert described["output_node"] is False
    steps = load_recorded().input("KSampler", "steps")
    assert steps is not None
    assert steps.options == {"default": 20, "min": 1, "max": 10_000}


def inputs() -> list[tuple[str, str, Any]]:
    return [
        (class_type, name, config)
        for class_type, raw in load_recorded().raw.items()
        for names in raw["input"].values()
        for name, config in names.items()
        if isinstance(config, list)
    ]


def test_no_prose_and_no_files_of_one_machine() -> None:
    for class_type, name, config in inputs():
        options = config[1] if len(config) > 1 else {}
        assert "tooltip" not in options
        if folder_of(class_type, name, config) is not None:
            listed = config[0] if isinstance(config[0], list) else options.get("options", [])
            assert set(listed) <= {"pixel_space", "[None]"}, (class_type, name)


def test_every_list_that_was_empty_has_its_folder() -> None:
    """A choice without choices lists files, so it must be known whose."""
    empty = [
        (class_type, name)
        for class_type, name, config in inputs()
        if (config[0] == [] or (len(config) > 1 and config[1].get("options") == []))
        and folder_of(class_type, name, config) is None
    ]
    assert empty == []


@pytest.mark.parametrize(
    ("class_type", "name", "config", "folder"),
    [
        ("CheckpointLoaderSimple", "ckpt_name", [[]], "checkpoints"),
        ("DualCLIPLoader", "clip_name2", [[]], "text_encoders"),
        ("CLIPVisionLoader", "clip_name", [[]], "clip_vision"),
        ("UpscaleModelLoader", "model_name", ["COMBO", {"options": []}], "upscale_models"),
        ("LoadImage", "image", [[], {"image_upload": True}], INPUT_FOLDER),
        ("LoadImageOutput", "image", ["COMBO", {"image_upload": True, "image_folder": "output"}], None),
        ("KSampler", "sampler_name", [["euler"]], None),
        ("KSampler", "seed", ["INT", {}], None),
    ],
)
def test_folder_of(class_type: str, name: str, config: Any, folder: str | None) -> None:
    assert folder_of(class_type, name, config) == folder


def described() -> dict[str, Any]:
    """Two classes as a ComfyUI describes them."""
    return {
        "Loader": {
            "input": {
                "required": {
                    "ckpt_name": [["mine.safetensors"], {"tooltip": "The model."}],
                    "vae_name": [["mine.vae.pt", "pixel_space"]],
                    "steps": ["INT", {"default": 1, "min": 0, "tooltip": "How many."}],
                },
                "hidden": {"prompt": "PROMPT"},
            },
            "output": ["MODEL", "STRING"],
            "output_is_list": [False, True],
            "output_name": ["model", "name"],
            "output_node": True,
            "display_name": "Load it",
            "description": "It loads.",
            "python_module": "custom_nodes.pack",
            "category": "loaders",
        },
        "Paid": {"api_node": True},
    }


def test_compact_keeps_facts_and_expand_gives_them_back(tmp_path: Path) -> None:
    facts = compact(described())
    assert list(facts) == ["Loader"], "paid nodes are left out"
    assert facts["Loader"]["input"]["required"] == {
        "ckpt_name": [[], {}],
        "vae_name": [["pixel_space"]],
        "steps": ["INT", {"default": 1, "min": 0}],
    }
    again = expand("Loader", facts["Loader"])
    original = described()["Loader"]
    for kept in ("output", "output_is_list", "output_name", "output_node", "python_module"):
        assert again[kept] == original[kept]
    assert again["input_order"] == {"required": ["ckpt_name", "vae_name", "steps"], "hidden": ["prompt"]}
    assert "It loads." not in json.dumps(again)

    write("1.2.3", facts, tmp_path / "info.json")
    assert json.loads((tmp_path / "info.json").read_text(encoding="utf-8")) == {
        "comfyui_version": "1.2.3",
        "nodes": facts,
    }
