"""Files are named, found and confined as ComfyUI does it."""

from __future__ import annotations

import re
from pathlib import Path

import pytest

from morpheus_worker.rehearsal.folders import Folders, OutsideError


@pytest.fixture
def folders(tmp_path: Path) -> Folders:
    made = Folders(tmp_path, tmp_path / "input", tmp_path / "output", tmp_path / "temp", {})
    made.create()
    return made


def test_names_count_on_from_the_highest_number(folders: Folders) -> None:
    target = folders.target("picture", "output")
    assert target.file(0, ".png") == "picture_00001_.png"
    assert target.file(1, ".png") == "picture_00002_.png"
    (folders.output / "picture_00007_.webp").touch()
    (folders.output / "picture_other_00009_.png").touch()
    (folders.output / "pictures_00011_.png").touch()
    assert folders.target("picture", "output").file(0, ".png") == "picture_00008_.png"


def test_a_prefix_may_name_subfolders(folders: Folders) -> None:
    target = folders.target("a/b/./picture", "output")
    assert (target.subfolder, target.name) == ("a/b", "picture")
    assert target.folder == folders.output / "a" / "b"
    assert target.folder.is_dir()


def test_a_prefix_is_filled_in(folders: Folders) -> None:
    name = folders.target("%width%x%height%_%year%-%month%_%unknown%", "output", 64, 32).name
    assert re.fullmatch(r"64x32_\d{4}-\d\d_%unknown%", name)
    assert folders.target("p_%batch_num%", "output").file(3, ".png") == "p_3_00004_.png"


@pytest.mark.parametrize("prefix", ["../x", "a/../../x", "/etc/x"])
def test_a_prefix_never_leads_outside(folders: Folders, prefix: str) -> None:
    with pytest.raises(OutsideError, match="outside the output folder is not allowed"):
        folders.target(prefix, "output")


@pytest.mark.parametrize(
    ("name", "path"),
    [
        ("a.png", "input/a.png"),
        ("sub/a.png [input]", "input/sub/a.png"),
        ("a.png [output]", "output/a.png"),
        ("a.png [temp]", "temp/a.png"),
        ("a.png[temp]", "temp/a.pn"),
        ("a.png [other]", "input/a.png [other]"),
    ],
)
def test_a_loaders_value_names_its_folder(folders: Folders, name: str, path: str) -> None:
    assert folders.annotated(name) == folders.base / path
    assert not folders.exists(name)
    folders.annotated(name).parent.mkdir(exist_ok=True)
    folders.annotated(name).touch()
    assert folders.exists(name)


def test_a_name_that_cannot_be_one_does_not_exist(folders: Folders) -> None:
    assert not folders.exists("a\0b.png")
    assert not folders.exists("a" * 5000)


def test_models_are_found_through_links_and_in_folders(folders: Folders, tmp_path: Path) -> None:
    cache = tmp_path / "cache"
    (cache / "xl").mkdir(parents=True)
    (cache / "xl" / "one.safetensors").touch()
    (cache / "notes.txt").touch()
    (cache / "round").symlink_to(cache, target_is_directory=True)
    (folders.models / "checkpoints").symlink_to(cache, target_is_directory=True)
    assert folders.model_files("checkpoints") == ["xl/one.safetensors"]


def test_older_names_of_model_folders(folders: Folders) -> None:
    for place, name in (("unet", "a.safetensors"), ("diffusion_models", "b.sft"), ("clip", "c.safetensors")):
        (folders.models / place).mkdir()
        (folders.models / place / name).touch()
    assert folders.model_files("diffusion_models") == folders.model_files("unet") == ["a.safetensors", "b.sft"]
    assert folders.model_files("text_encoders") == ["c.safetensors"]
    assert folders.model_files("no_such_folder") == []


def test_diffusers_models_are_folders(folders: Folders) -> None:
    (folders.models / "diffusers" / "flux" / "unet").mkdir(parents=True)
    (folders.models / "diffusers" / "flux" / "model_index.json").touch()
    assert folders.model_files("diffusers") == ["flux"]


def test_names_that_count_as_present(tmp_path: Path) -> None:
    named = {"checkpoints": ["b.safetensors", "a.safetensors"], "clip": ["t5.safetensors"]}
    folders = Folders(tmp_path, tmp_path, tmp_path, tmp_path, named)
    assert folders.model_files("checkpoints") == ["a.safetensors", "b.safetensors"]
    assert folders.model_files("text_encoders") == ["t5.safetensors"]
