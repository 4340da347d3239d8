"""The manifest's file, as a worker that boots reads it."""

from __future__ import annotations

from pathlib import Path

import pytest

from morpheus_worker.boot import try_manifest
from morpheus_worker.manifest import ManifestError
from morpheus_worker.manifest_file import read_manifest
from morpheus_worker.settings import Settings


def settings_with(path: Path) -> Settings:
    return Settings.from_environment({"MORPHEUS_MANIFEST": str(path)})


def test_the_manifest_is_read_from_its_file(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_text("version: 1\nmodels: [{id: a, path: loras/a.safetensors}]\n", encoding="utf-8")
    assert [model.id for model in read_manifest(settings_with(path)).models] == ["a"]


def test_a_file_that_is_no_text_is_a_problem_of_the_manifest_and_ends_no_boot(tmp_path: Path) -> None:
    path = tmp_path / "own.yaml"
    path.write_bytes("version: 1 # größer\n".encode("latin-1"))
    with pytest.raises(ManifestError, match=r"own\.yaml: is not UTF-8"):
        read_manifest(settings_with(path))
    manifest, failure = try_manifest(settings_with(path))
    assert manifest.models == ()
    assert isinstance(failure, ManifestError)


def test_a_file_that_is_not_there_says_so(tmp_path: Path) -> None:
    with pytest.raises(FileNotFoundError):
        read_manifest(settings_with(tmp_path / "none.yaml"))
