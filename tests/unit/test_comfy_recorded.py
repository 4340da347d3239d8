"""What travels with the project about ComfyUI's nodes and those of node packs: facts, and of whom."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from importlib import resources
from typing import Any

import pytest

from morpheus_worker.comfy import recorded
from morpheus_worker.comfy.compact import compact
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import (
    folder_of,
    load_known,
    load_recorded,
    pack_of,
    recorded_packs,
    recorded_version,
    with_own_checks,
)

CONSTANT_CHOICES = {"pixel_space", "[None]", "Select the LoRA to add to the text"}
MOST_BYTES = 400_000
"""What all recorded packs together may weigh in a wheel."""


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


def inputs() -> Iterator[tuple[str, str, Any]]:
    """Every input of every known class, with its entry."""
    for class_type, raw in load_known().raw.items():
        for names in raw["input"].values():
            for name, config in names.items():
                if isinstance(config, list):
                    yield class_type, name, config


def choices(config: Any) -> list[Any] | None:
    if isinstance(config[0], list):
        return config[0]
    return config[1].get("options") if len(config) > 1 else None


def test_no_prose_and_no_files_of_one_machine() -> None:
    for class_type, name, config in inputs():
        options = config[1] if len(config) > 1 else {}
        assert "tooltip" not in options
        if folder_of(class_type, name, config) is not None:
            assert set(choices(config) or []) <= CONSTANT_CHOICES, (class_type, name)


def test_every_list_that_was_empty_has_its_folder() -> None:
    """A choice without choices lists files, so it must be known whose. This one lists a folder in the output folder."""
    empty = {
        (class_type, name)
        for class_type, name, config in inputs()
        if choices(config) == [] and folder_of(class_type, name, config) is None
    }
    assert empty == {("LoadExpData", "file_name")}


def test_what_is_known_is_comfyuis_and_the_packs() -> None:
    known, core, packs = load_known().class_types, load_recorded().class_types, recorded_packs()
    assert known == core.union(*(pack.class_types for pack in packs.values()))
    assert len(known) == len(core) + sum(len(pack.class_types) for pack in packs.values()), "no name is there twice"


@pytest.mark.parametrize("pack_id", sorted(recorded_packs()))
def test_a_pack_says_where_its_facts_come_from(pack_id: str) -> None:
    pack = recorded_packs()[pack_id]
    assert pack.id == pack_id
    assert pack.repo.startswith("https://github.com/")
    assert re.fullmatch("[0-9a-f]{40}", pack.commit)
    assert pack.how in ("recorded", "source")
    assert not pack.others & pack.class_types
    for class_type in pack.class_types:
        assert load_known().raw[class_type]["python_module"] == f"custom_nodes.{pack_id}"
        assert pack_of(class_type) == pack_id


@pytest.mark.parametrize(
    ("class_type", "pack_id"),
    [
        ("FaceDetailer", "ComfyUI-Impact-Pack"),
        ("BboxDetectorSEGS", "ComfyUI-Impact-Pack"),
        ("UltralyticsDetectorProvider", "ComfyUI-Impact-Subpack"),
        ("ApplyPulid", "ComfyUI-PuLID"),
        ("IPAdapterAdvanced", "ComfyUI_IPAdapter_plus"),
        ("ApplyInstantID", "ComfyUI_InstantID"),
        ("ControlNetLoaderAdvanced", "ComfyUI-Advanced-ControlNet"),
        ("DWPreprocessor", "comfyui_controlnet_aux"),
        ("AdvancedLivePortrait", "ComfyUI-AdvancedLivePortrait"),
        ("VHS_VideoCombine", "ComfyUI-VideoHelperSuite"),
        ("KSampler", None),
        ("NoSuchNode", None),
    ],
)
def test_pack_of(class_type: str, pack_id: str | None) -> None:
    assert pack_of(class_type) == pack_id


def test_the_packs_are_small_and_in_the_compact_form() -> None:
    files = list(resources.files("morpheus_worker.comfy").joinpath("packs").iterdir())
    assert len(files) == len(recorded_packs())
    assert sum(len(file.read_bytes()) for file in files) < MOST_BYTES
    for file in files:
        held = json.loads(file.read_text(encoding="utf-8"))
        assert compact(held["nodes"], files=False) == held["nodes"]
        for line in file.read_text(encoding="utf-8").splitlines()[2:-1]:
            assert json.loads("{" + line.removesuffix(",") + "}").keys() <= held["nodes"].keys(), "one class a line"


@pytest.mark.parametrize("info", [load_recorded(), load_known()], ids=["recorded", "known"])
def test_what_comfyuis_classes_check_themselves(info: ObjectInfo) -> None:
    loader, sampler = info.get("LoadImage"), info.get("KSampler")
    assert loader is not None
    assert sampler is not None
    assert loader.validates == frozenset({"image"})
    assert sampler.validates == frozenset()


def test_what_the_packs_classes_check_themselves() -> None:
    known = load_known()
    audio, unbatch, combine = (known.get(f"VHS_{name}") for name in ("LoadAudioUpload", "Unbatch", "VideoCombine"))
    assert audio is not None
    assert audio.validates == frozenset(audio.inputs)
    assert unbatch is not None
    assert unbatch.validates_types
    assert combine is not None
    assert (combine.inputs["images"].type, combine.inputs["images"].takes) == ("IMAGE", "IMAGE,LATENT")
    assert combine.inputs["filename_prefix"].takes is None


def live(**more: Any) -> dict[str, Any]:
    """Classes as another ComfyUI describes them, with the pack under another name of its folder."""
    known = load_known().raw
    video = {**known["VHS_LoadVideo"], "python_module": "custom_nodes.videohelpersuite"}
    return {"LoadImage": known["LoadImage"], "VHS_LoadVideo": video, "MyOwn": known["KSampler"], **more}


def test_another_comfyuis_classes_are_known_by_their_inputs() -> None:
    info = with_own_checks(live())
    assert info.raw == live()
    for class_type, validates in (("LoadImage", {"image"}), ("VHS_LoadVideo", {"video"}), ("MyOwn", None)):
        node = info.get(class_type)
        assert node is not None
        assert node.validates == validates


def test_a_class_of_the_same_name_is_another_when_its_inputs_are_others() -> None:
    other_inputs = {**load_known().raw["LoadImage"], "input": {"required": {"path": ["STRING", {}]}}}
    other_owner = {**load_known().raw["VHS_LoadVideo"], "python_module": "nodes"}
    info = with_own_checks(live(LoadImage=other_inputs, VHS_LoadVideo=other_owner))
    for class_type in ("LoadImage", "VHS_LoadVideo"):
        node = info.get(class_type)
        assert node is not None
        assert node.validates is None


def test_knowing_comfyuis_own_classes_reads_no_pack() -> None:
    """The worker asks for them at every start."""
    recorded._packs.cache_clear()
    load_recorded.cache_clear()
    assert "KSampler" in load_recorded()
    assert load_recorded().get("KSampler") is not None
    assert recorded._packs.cache_info().currsize == 0
