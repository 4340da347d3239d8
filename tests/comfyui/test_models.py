"""The small models are the same wherever they are made."""

from __future__ import annotations

import hashlib
import subprocess
from pathlib import Path

from .process import MODEL_MAKER, Installation

MAKE_S = 120.0


def make(installation: Installation, path: Path, *more: str) -> str:
    command = [str(installation.python), str(MODEL_MAKER), "--upscaler", str(path), *more]
    subprocess.run(command, check=True, stdout=subprocess.DEVNULL, timeout=MAKE_S)
    return hashlib.sha256(path.read_bytes()).hexdigest()


def test_a_seed_makes_one_upscaler(comfyui_installation: Installation, tmp_path: Path) -> None:
    first = make(comfyui_installation, tmp_path / "first.safetensors")
    assert make(comfyui_installation, tmp_path / "again.safetensors") == first
    assert make(comfyui_installation, tmp_path / "other.safetensors", "--seed", "7") != first


def test_the_upscaler_is_small(comfyui_installation: Installation, tmp_path: Path) -> None:
    make(comfyui_installation, tmp_path / "new.safetensors")
    assert 100_000 < (tmp_path / "new.safetensors").stat().st_size < 1_000_000
