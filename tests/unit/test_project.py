"""The project's own files agree with each other, and their linters, where installed, have nothing to say."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

from morpheus_worker import __version__

PROJECT = Path(__file__).resolve().parents[2]
PYPROJECT: dict[str, Any] = tomllib.loads((PROJECT / "pyproject.toml").read_text(encoding="utf-8"))
WORKER_LOCK = "requirements.lock"
DEV_LOCK = "requirements-dev.lock"
PIN = re.compile(r"[a-z0-9][a-z0-9-]*==[A-Za-z0-9.!+]+( ; [^\\/:@]+)? \\")
HASH = re.compile(r"    --hash=sha256:[0-9a-f]{64}( \\)?")


def lock_lines(name: str) -> list[str]:
    return (PROJECT / name).read_text(encoding="utf-8").splitlines()


def pins_of(name: str) -> dict[str, str]:
    requirements = (Requirement(line.rstrip(" \\")) for line in lock_lines(name) if not line.startswith(" "))
    return {canonicalize_name(found.name): str(found.specifier).removeprefix("==") for found in requirements}


def declared(group: str) -> Iterator[Requirement]:
    for entry in PYPROJECT["dependency-groups"][group]:
        if isinstance(entry, dict):
            yield from declared(entry["include-group"])
        else:
            yield Requirement(entry)


def tool(name: str) -> str:
    """The program's path: beside this Python, where the lock files put it, or on the PATH."""
    found = shutil.which(name, path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")
    if found is None:
        pytest.skip(f"{name} is not installed")
    return found


def linted(*command: str) -> str:
    return subprocess.run(command, cwd=PROJECT, capture_output=True, text=True, check=False).stdout


@pytest.mark.parametrize("name", [WORKER_LOCK, DEV_LOCK])
def test_a_lock_file_holds_pins_and_hashes_and_nothing_else(name: str) -> None:
    """No index, host or path: an install takes the files from wherever pip is configured to look."""
    assert [line for line in lock_lines(name) if not (PIN.fullmatch(line) or HASH.fullmatch(line))] == []


def test_every_direct_dependency_is_locked_in_its_range() -> None:
    wanted = [Requirement(text) for text in PYPROJECT["project"]["dependencies"]] + list(declared("build"))
    assert unlocked(wanted, pins_of(WORKER_LOCK)) == []
    assert unlocked(wanted + list(declared("dev")), pins_of(DEV_LOCK)) == []


def unlocked(wanted: list[Requirement], pins: dict[str, str]) -> list[str]:
    versions = ((requirement, pins.get(canonicalize_name(requirement.name))) for requirement in wanted)
    return [str(wished) for wished, version in versions if not (version and wished.specifier.contains(version))]


def test_the_development_lock_adds_to_the_worker_s_and_changes_nothing() -> None:
    assert pins_of(WORKER_LOCK).items() <= pins_of(DEV_LOCK).items()


def test_what_builds_the_project_is_what_the_lock_brings() -> None:
    built_with = {Requirement(text).name for text in PYPROJECT["build-system"]["requires"]}
    assert built_with <= {requirement.name for requirement in declared("build")}


def test_the_changelog_speaks_of_this_version() -> None:
    changelog = (PROJECT / "CHANGELOG.md").read_text(encoding="utf-8")
    assert re.search(rf"^## {re.escape(__version__)}\b", changelog, re.MULTILINE)


@pytest.mark.parametrize("name", [".ci/run", "pod_start.sh"])
def test_a_script_that_others_start_is_executable(name: str) -> None:
    assert os.access(PROJECT / name, os.X_OK)


def test_the_shell_scripts_pass_shellcheck() -> None:
    assert linted(tool("shellcheck"), ".ci/run", "pod_start.sh") == ""


def test_the_dockerfile_passes_hadolint() -> None:
    assert linted(tool("hadolint"), "Dockerfile") == ""
