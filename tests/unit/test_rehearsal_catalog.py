"""The classes of a rehearsal list the files of the moment."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.comfy.recorded import load_known, load_recorded
from morpheus_worker.rehearsal.catalog import Catalog
from morpheus_worker.rehearsal.folders import Folders

PACK: dict[str, Any] = {
    "PackLoader": {
        "input": {"required": {"lora_name": [["recorded.safetensors"]]}},
        "output": ["MODEL"],
        "python_module": "custom_nodes.pack",
    }
}


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path, tmp_path / "input", tmp_path / "output", tmp_path / "temp", {"vae": ["named.safetensors"]})
    made.create()
    (made.models / "loras").mkdir()
    (made.models / "loras" / "mine.safetensors").touch()
    for name in ("b.png", "a.jpg", "song.mp3", "clip.mp4", "x.latent", "page.html", "photo.webp"):
        (made.input / name).touch()
    (made.input / "set" / "inner").mkdir(parents=True)
    (made.input / "3d").mkdir()
    (made.input / "3d" / "cube.glb").touch()
    return made


@pytest.fixture
def catalog(folders: Folders) -> Catalog:
    return Catalog(load_recorded(), PACK, folders)


@pytest.mark.parametrize(
    ("class_type", "name", "choices"),
    [
        ("LoraLoader", "lora_name", ["mine.safetensors"]),
        ("PackLoader", "lora_name", ["mine.safetensors", "recorded.safetensors"]),
        ("CheckpointLoaderSimple", "ckpt_name", []),
        ("VAELoader", "vae_name", ["named.safetensors", "pixel_space"]),
        ("LoadImage", "image", ["a.jpg", "b.png", "photo.webp"]),
        ("LoadAudio", "audio", ["clip.mp4", "song.mp3"]),
        ("LoadVideo", "file", ["clip.mp4"]),
        ("LoadLatent", "latent", ["x.latent"]),
        ("LoadImageSetFromFolderNode", "folder", ["3d", "set", "set/inner"]),
        ("Load3D", "model_file", ["3d/cube.glb"]),
        ("KSampler", "scheduler", ["simple"]),
    ],
)
def test_choices(catalog: Catalog, class_type: str, name: str, choices: list[str]) -> None:
    listed = catalog.for_classes([class_type]).input(class_type, name)
    assert listed is not None
    assert listed.choices is not None
    assert list(listed.choices)[: max(1, len(choices))] == choices


def test_choices_of_node_packs(folders: Folders) -> None:
    for place in ("ipadapter", "ultralytics/bbox", "ultralytics/segm"):
        (folders.models / place).mkdir(parents=True)
    (folders.models / "ipadapter/plus.safetensors").touch()
    (folders.models / "ultralytics/bbox/face.pt").touch()
    (folders.models / "ultralytics/segm/person.pt").touch()
    (folders.input / "set/inner/me.ipadpt").touch()
    (folders.input / "anim.gif").touch()
    catalog = Catalog(load_known(), {}, folders)

    def listed(class_type: str, name: str) -> list[str]:
        found = catalog.for_classes([class_type]).input(class_type, name)
        assert found is not None
        assert found.choices is not None
        return list(found.choices)

    assert listed("IPAdapterModelLoader", "ipadapter_file") == ["plus.safetensors"]
    assert listed("UltralyticsDetectorProvider", "model_name") == ["bbox/face.pt", "segm/person.pt"]
    assert listed("IPAdapterLoadEmbeds", "embeds") == ["set/inner/me.ipadpt"]
    assert listed("VHS_LoadVideo", "video") == ["anim.gif", "clip.mp4"]
    assert listed("VHS_LoadImages", "directory") == ["3d", "set"]


def test_what_a_class_checks_itself_is_not_forgotten(folders: Folders) -> None:
    loader = Catalog(load_known(), {}, folders).for_classes(["VHS_LoadVideo"]).get("VHS_LoadVideo")
    assert loader is not None
    assert loader.validates == frozenset({"video"})


def test_a_class_is_described_like_comfyuis(catalog: Catalog) -> None:
    described = catalog.describe("UpscaleModelLoader")
    assert described["input"]["required"]["model_name"] == ["COMBO", {"multiselect": False, "options": []}]
    assert catalog.everything().keys() == load_recorded().raw.keys() | PACK.keys()
    assert "PackLoader" in catalog
    assert "Nothing" not in catalog


def test_a_model_that_is_missing(catalog: Catalog) -> None:
    assert catalog.missing_model("LoraLoader", {"lora_name": "mine.safetensors"}) is None
    assert catalog.missing_model("LoraLoader", {"lora_name": "no.pt"}) == ("loras", "no.pt")
    assert catalog.missing_model("LoadImage", {"image": "no.png"}) is None
    assert catalog.missing_model("VAELoader", {"vae_name": "pixel_space"}) is None


def test_odd_class_names_are_passed_over(catalog: Catalog) -> None:
    assert "KSampler" in catalog.for_classes([None, ["x"], {}, "Nothing", 5])
