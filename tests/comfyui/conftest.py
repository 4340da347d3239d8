"""Fixtures for tests that need a real ComfyUI. Every test in this folder carries the marker `comfyui`."""

from __future__ import annotations

import os
from collections.abc import Iterator
from pathlib import Path

import pytest

from .process import Installation, RealComfyUI, running_comfyui

DIRECTORY = "MORPHEUS_TEST_COMFYUI_DIR"
PYTHON = "MORPHEUS_TEST_COMFYUI_PYTHON"
CHECKPOINT = "MORPHEUS_TEST_COMFYUI_SD15"
SDXL_CHECKPOINT = "MORPHEUS_TEST_COMFYUI_SDXL"
SDXL_REFINER = "MORPHEUS_TEST_COMFYUI_SDXL_REFINER"

HERE = Path(__file__).resolve().parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.comfyui)


@pytest.fixture(scope="session")
def comfyui_installation() -> Installation:
    """The ComfyUI that the environment names; tests that ask for it are skipped without one."""
    directory, python = os.environ.get(DIRECTORY), os.environ.get(PYTHON)
    if not directory or not python:
        pytest.skip(f"needs a real ComfyUI: set {DIRECTORY} to its folder and {PYTHON} to the Python that runs it")
    return Installation(Path(directory), Path(python))


@pytest.fixture(scope="session")
def comfyui_checkpoint() -> Path | None:
    """An SD1.5 checkpoint, made by tests/tools/make_tiny_models.py --sd15, or None."""
    named = os.environ.get(CHECKPOINT)
    return Path(named) if named else None


@pytest.fixture(scope="session")
def sdxl_checkpoint() -> Path | None:
    """A checkpoint in SDXL's shape, made by tests/tools/make_tiny_models.py --sdxl, or None."""
    named = os.environ.get(SDXL_CHECKPOINT)
    return Path(named) if named else None


@pytest.fixture(scope="session")
def sdxl_refiner() -> Path | None:
    """A checkpoint in the shape of SDXL's refiner, made by tests/tools/make_tiny_models.py --sdxl-refiner, or None."""
    named = os.environ.get(SDXL_REFINER)
    return Path(named) if named else None


@pytest.fixture(scope="session")
def real_comfyui(
    comfyui_installation: Installation, comfyui_checkpoint: Path | None, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[RealComfyUI]:
    """One ComfyUI for the whole session, on a free port, with a base directory and small models of its own."""
    base = tmp_path_factory.mktemp("comfyui")
    with running_comfyui(comfyui_installation, base, checkpoint=comfyui_checkpoint) as comfyui:
        yield comfyui
