"""What a volume and a ComfyUI have, by the names that loaders and the manifest use."""

from __future__ import annotations

import os
from pathlib import Path, PurePosixPath

import pytest

from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.holdings import Holdings
from morpheus_worker.settings import Settings


def put(root: Path, *paths: str) -> None:
    for path in paths:
        (root / path).parent.mkdir(parents=True, exist_ok=True)
        (root / path).write_bytes(b"x")


@pytest.fixture
def volume(tmp_path: Path) -> Path:
    made = tmp_path / "volume"
    put(
        made,
        "morpheus_model_cache/checkpoints/a.safetensors",
        "morpheus_model_cache/checkpoints/xl/b.safetensors",
        "morpheus_model_cache/checkpoints/c.safetensors.part",
        "morpheus_model_cache/checkpoints/.hidden.safetensors",
        "morpheus_model_cache/unet/flux.safetensors",
        "morpheus_model_cache/insightface/models/antelopev2/det.onnx",
        "morpheus_model_cache/ComfyUI-PuLID/__init__.py",
        "morpheus_model_cache/custom_nodes/comfyui_controlnet_aux/__init__.py",
        "models/checkpoints/official.safetensors",
        "models/ultralytics/bbox/face.pt",
    )
    return made


def holdings(volume: Path, **environment: str) -> Holdings:
    given = {"MORPHEUS_VOLUME_ROOT": str(volume), "MORPHEUS_COMFYUI_URL": "http://127.0.0.1:8188", **environment}
    return Holdings.of(Settings.from_environment(given))


def test_models_are_found_in_the_cache_and_in_the_official_layout(volume: Path) -> None:
    held = holdings(volume)
    asked = ["a.safetensors", "xl/b.safetensors", "official.safetensors", "b.safetensors", "d.safetensors"]
    assert [held.has_file("checkpoints", name) for name in asked] == [True, True, True, False, False]
    assert held.has_model(PurePosixPath("checkpoints/xl/b.safetensors"))
    assert held.has_model(PurePosixPath("insightface/models/antelopev2"))
    assert not held.has_model(PurePosixPath("insightface/models/buffalo_l"))
    assert held.files("checkpoints") == ("a.safetensors", "official.safetensors", "xl/b.safetensors")
    assert held.files("nothing") == ()


def test_the_older_and_the_newer_name_of_a_folder_are_one(volume: Path) -> None:
    held = holdings(volume)
    assert held.has_file("diffusion_models", "flux.safetensors")
    assert held.has_file("unet", "flux.safetensors")
    assert held.has_model(PurePosixPath("diffusion_models/flux.safetensors"))
    assert held.files("diffusion_models") == ("flux.safetensors",)
    assert held.has_file("ultralytics", "bbox/face.pt")
    assert held.has_file("ultralytics_bbox", "face.pt")


def test_packs_are_found_in_both_places_whatever_their_case(volume: Path) -> None:
    held = holdings(volume)
    assert [held.has_pack(name) for name in ("ComfyUI-PuLID", "comfyui-pulid", "ComfyUI_ControlNet_aux")] == [True] * 3
    assert [held.has_pack(name) for name in ("ComfyUI-Manager", "a.safetensors")] == [False] * 2


def test_a_comfyui_beside_the_volume_counts_with_its_own_folders(volume: Path, tmp_path: Path) -> None:
    comfyui = tmp_path / "ComfyUI"
    put(comfyui, "main.py")
    put(tmp_path / "base", "models/vae/own.safetensors", "custom_nodes/mine/__init__.py")
    args = f"--base-directory {tmp_path / 'base'}"
    held = holdings(volume, MORPHEUS_COMFYUI_DIR=str(comfyui), MORPHEUS_COMFYUI_ARGS=args)
    assert held.has_file("vae", "own.safetensors")
    assert held.has_pack("mine")
    assert not holdings(volume).has_file("vae", "own.safetensors")


def test_a_cache_elsewhere_takes_the_place_of_the_volumes(volume: Path, tmp_path: Path) -> None:
    put(tmp_path / "cache", "checkpoints/elsewhere.safetensors")
    held = holdings(volume, MORPHEUS_MODEL_CACHE=str(tmp_path / "cache"))
    assert held.files("checkpoints") == ("elsewhere.safetensors", "official.safetensors")


def test_without_a_volume_nothing_is_there(tmp_path: Path) -> None:
    nowhere = holdings(tmp_path / "nowhere")
    assert not nowhere.present
    assert not nowhere.has_file("checkpoints", "a.safetensors")
    assert holdings(tmp_path).present


@pytest.mark.parametrize("name", ["", ".", "..", "../checkpoints/a.safetensors", "/etc/passwd", "xl/../a.safetensors"])
def test_a_name_that_leads_elsewhere_is_no_file(name: str, volume: Path) -> None:
    assert not holdings(volume).has_file("checkpoints", name)


def test_links_count_when_they_lead_somewhere(volume: Path) -> None:
    folder = volume / "morpheus_model_cache" / "checkpoints"
    (folder / "linked.safetensors").symlink_to(folder / "a.safetensors")
    (folder / "gone.safetensors").symlink_to(folder / "no-such-file")
    (folder / "round").symlink_to(folder)
    (folder / "itself").symlink_to(folder / "itself")
    held = holdings(volume)
    assert held.has_file("checkpoints", "linked.safetensors")
    assert not held.has_file("checkpoints", "gone.safetensors")
    assert not held.has_file("checkpoints", "itself")
    assert "linked.safetensors" in held.files("checkpoints")


def test_a_folder_is_listed_once(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    held = holdings(volume)
    answers = [held.files("checkpoints"), held.has_pack("ComfyUI-PuLID")]
    seen: list[object] = []
    monkeypatch.setattr(os, "scandir", seen.append)
    assert [held.files("checkpoints"), held.has_pack("comfyui-pulid")] == answers
    assert held.has_file("checkpoints", "a.safetensors")
    assert seen == []


def test_a_folder_that_cannot_be_read_is_the_volumes_failure(volume: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def lost(_folder: object) -> None:
        raise OSError(107, "Transport endpoint is not connected")

    monkeypatch.setattr(os, "scandir", lost)
    with pytest.raises(MorpheusError, match="checkpoints cannot be read: Transport endpoint") as failed:
        holdings(volume).files("checkpoints")
    assert failed.value.code == Code.VOLUME_UNAVAILABLE
