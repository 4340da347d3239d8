"""The small models are the same wherever they are made."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

import pytest

from .process import MODEL_MAKER, Installation

MAKE_S = 120.0


def make(installation: Installation, path: Path, *more: str, kind: str = "--upscaler") -> str:
    command = [str(installation.python), str(MODEL_MAKER), kind, str(path), *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=MAKE_S)
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize("kind", ["--upscaler", "--lora", "--vae"])
def test_a_seed_makes_one_model(comfyui_installation: Installation, tmp_path: Path, kind: str) -> None:
    first = make(comfyui_installation, tmp_path / "first.safetensors", kind=kind)
    assert make(comfyui_installation, tmp_path / "again.safetensors", kind=kind) == first
    assert make(comfyui_installation, tmp_path / "other.safetensors", "--seed", "7", kind=kind) != first


def test_the_upscaler_is_small(comfyui_installation: Installation, tmp_path: Path) -> None:
    make(comfyui_installation, tmp_path / "new.safetensors")
    assert 100_000 < (tmp_path / "new.safetensors").stat().st_size < 1_000_000
