"""The Makefile, as far as it can be tried without building an environment."""

from __future__ import annotations

import shutil
import subprocess
import sys
from pathlib import Path

import pytest

PROJECT = Path(__file__).resolve().parents[2]

pytestmark = pytest.mark.skipif(shutil.which("make") is None, reason="make is not installed")


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """The files that make looks at, in a path with a space, and no environment yet."""
    folder = tmp_path / "a checkout"
    folder.mkdir()
    for name in ("Makefile", "pyproject.toml", "requirements.lock", "requirements-dev.lock"):
        shutil.copy(PROJECT / name, folder)
    return folder


def make(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(["make", *arguments], cwd=folder, capture_output=True, text=True, check=False)


def test_without_a_target_it_lists_them(checkout: Path) -> None:
    listed = [line.split()[1] for line in make(checkout).stdout.splitlines()]
    assert listed == ["help", "demo", "test", "lint", "types", "bench", "lock", "clean"]
    assert make(checkout, "help").stdout == make(checkout).stdout


def test_test_checks_everything_and_pytest_has_the_last_word(checkout: Path) -> None:
    planned = make(checkout, "-n", "-j4", "test", f"PYTHON={sys.executable}").stdout.splitlines()
    checks = [
        line.removeprefix(".venv/bin/") for line in planned if line.startswith(".venv/bin/") and " pip" not in line
    ]
    assert checks == ["ruff check .", "ruff format --check .", "mypy", "python -m pytest"]
    assert planned[-1].endswith("python -m pytest")


def test_the_demo_is_told_of_a_comfyui(checkout: Path) -> None:
    planned = make(checkout, "-n", "demo", "COMFYUI=http://127.0.0.1:8188").stdout.splitlines()
    assert planned[-1].endswith("scripts/demo.py --comfyui 'http://127.0.0.1:8188'")
    assert make(checkout, "-n", "demo").stdout.splitlines()[-1].endswith("scripts/demo.py ")


@pytest.mark.parametrize("target", ["demo", "test"])
def test_a_python_that_will_not_do_gets_one_sentence(checkout: Path, target: str, tmp_path: Path) -> None:
    old = tmp_path / "old python"
    old.write_text("#!/bin/sh\nexit 1\n", encoding="utf-8")
    old.chmod(0o755)
    for python in ("/no/such/python", str(old)):
        refused = make(checkout, target, f"PYTHON={python}")
        assert refused.returncode == 2
        assert refused.stderr.splitlines()[0].startswith(f"This needs Python 3.11 or newer, and '{python}'")
        assert not (checkout / ".venv").exists()
