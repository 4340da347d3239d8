"""A wheel brings along everything that the package reads at run time."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]
LOCK = '{"version": 1, "models": {}, "custom_nodes": {}}\n'


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return wheel_of(PROJECT, tmp_path_factory.mktemp("wheel"))


def wheel_of(project: Path, folder: Path) -> Path:
    """A wheel of the checkout, built offline with what the lock file brings, and unpacked."""
    build = ["-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(project)]
    subprocess.run([sys.executable, *build], check=True)
    (wheel,) = folder.glob("*.whl")
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(folder / "unpacked")
    return folder / "unpacked"


def test_it_is_typed_and_holds_the_package_alone(unpacked: Path) -> None:
    assert (unpacked / "morpheus_worker" / "py.typed").exists()
    tops = {path.name for path in unpacked.iterdir() if not path.name.endswith(".dist-info")}
    assert tops == {"morpheus_worker"}


def test_its_workflows_are_those_of_the_checkout(unpacked: Path, tmp_path: Path) -> None:
    shipped = unpacked / "morpheus_worker" / "_shipped"
    assert (shipped / "model_manifest.yaml").read_bytes() == (PROJECT / "model_manifest.yaml").read_bytes()
    listed = subprocess.run(
        [sys.executable, "-m", "morpheus_worker.cli.main", "workflows", "list"],
        env={**os.environ, "PYTHONPATH": str(unpacked), "MORPHEUS_VOLUME_ROOT": str(tmp_path)},
        cwd=tmp_path,
        capture_output=True,
        text=True,
        check=True,
    )
    names = {line.split()[0] for line in listed.stdout.splitlines()}
    assert names == {path.stem for path in (PROJECT / "workflows").glob("*.json")}
    assert names == {path.stem for path in (shipped / "workflows").glob("*.json")}


def test_it_takes_the_lock_along_where_there_is_one(unpacked: Path, tmp_path: Path) -> None:
    copy = tmp_path / "project"
    for name in ("morpheus_worker", "workflows"):
        shutil.copytree(PROJECT / name, copy / name, ignore=shutil.ignore_patterns("__pycache__"))
    for name in ("pyproject.toml", "hatch_build.py", "model_manifest.yaml", "README.md", "LICENSE"):
        shutil.copy(PROJECT / name, copy)
    (copy / "model_manifest.lock").write_text(LOCK, encoding="utf-8")
    shipped = wheel_of(copy, tmp_path / "wheel") / "morpheus_worker" / "_shipped"
    assert (shipped / "model_manifest.lock").read_text(encoding="utf-8") == LOCK
    has_lock = (unpacked / "morpheus_worker" / "_shipped" / "model_manifest.lock").exists()
    assert has_lock == (PROJECT / "model_manifest.lock").exists()


def test_an_image_gets_everything_that_a_wheel_is_built_of() -> None:
    let_through = {line[1:] for line in (PROJECT / ".dockerignore").read_text().splitlines() if line.startswith("!")}
    needed = {"morpheus_worker", "workflows", "pyproject.toml", "hatch_build.py", "README.md", "LICENSE"}
    assert needed | {"model_manifest.yaml", "model_manifest.lock"} <= let_through
