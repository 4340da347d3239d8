"""A wheel brings along everything that the package reads at run time."""

from __future__ import annotations

import os
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]


@pytest.fixture(scope="module")
def unpacked(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A wheel of this checkout, built offline with what the lock file brings, and unpacked."""
    folder = tmp_path_factory.mktemp("wheel")
    build = ["-m", "pip", "wheel", "-qq", "--no-deps", "--no-build-isolation", "--wheel-dir", str(folder), str(PROJECT)]
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
