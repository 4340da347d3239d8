"""pod_start.sh: it finds the code and a Python, sets the environment, and becomes that Python."""

from __future__ import annotations

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

PROJECT = Path(__file__).resolve().parents[2]

HANDLER = """
import json, os, signal, sys
seen = {name: value for name, value in os.environ.items() if name.startswith(("RUNPOD_", "PYTHON"))}
said = {"pid": os.getpid(), "cwd": os.getcwd(), "python": sys.executable, "arguments": sys.argv[1:]}
signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))
print(json.dumps(said | {"environment": seen}))
if "wait" in sys.argv:
    signal.pause()
"""


@pytest.fixture
def clone(tmp_path: Path) -> Path:
    """A checkout in a path with a space, whose handler.py says how it was started."""
    folder = tmp_path / "a clone"
    folder.mkdir()
    shutil.copy(PROJECT / "pod_start.sh", folder)
    (folder / "handler.py").write_text(HANDLER, encoding="utf-8")
    return folder


def command(clone: Path, *arguments: str, **environment: str) -> dict[str, Any]:
    """What Popen and run take: started from elsewhere, as a container does, with a Python that has everything."""
    return {
        "args": [str(clone / "pod_start.sh"), *arguments],
        "env": {**os.environ, "MORPHEUS_PYTHON": sys.executable, **environment},
        "cwd": "/tmp",
        "stdout": subprocess.PIPE,
        "stderr": subprocess.PIPE,
        "text": True,
    }


def started(clone: Path, *arguments: str, **environment: str) -> Any:
    ended = subprocess.run(**command(clone, *arguments, **environment), check=True)
    return json.loads(ended.stdout)


def test_arguments_and_environment_reach_the_handler(clone: Path) -> None:
    said = started(clone, "--test_input", '{"input": {"prompt": "two words"}}')
    assert said["arguments"] == ["--test_input", '{"input": {"prompt": "two words"}}']
    assert said["cwd"] == str(clone)
    assert said["environment"]["PYTHONUNBUFFERED"] == "1"
    assert said["environment"]["RUNPOD_SKIP_GPU_CHECK"] == "true"


def test_what_the_endpoint_sets_wins(clone: Path) -> None:
    said = started(clone, RUNPOD_SKIP_GPU_CHECK="false")
    assert said["environment"]["RUNPOD_SKIP_GPU_CHECK"] == "false"


def test_a_volume_does_not_become_the_working_directory(clone: Path) -> None:
    assert started(clone, MORPHEUS_VOLUME_ROOT=str(clone.parent))["cwd"] == "/"


def test_the_environment_beside_it_is_the_first_choice(clone: Path) -> None:
    beside = clone / ".venv" / "bin"
    beside.mkdir(parents=True)
    beside.joinpath("python").write_text(f'#!/bin/sh\nexec "{sys.executable}" "$@"\n', encoding="utf-8")
    beside.joinpath("python").chmod(0o755)
    ended = subprocess.run(**command(clone, MORPHEUS_PYTHON="", PATH="/usr/bin:/bin"), check=True)
    assert json.loads(ended.stdout)["python"] == sys.executable


def test_sigterm_reaches_python(clone: Path) -> None:
    """The process that a container runtime starts is the one that it tells to stop."""
    with subprocess.Popen(**command(clone, "wait")) as process:
        assert process.stdout is not None
        assert json.loads(process.stdout.readline())["pid"] == process.pid
        process.send_signal(signal.SIGTERM)
        assert process.wait(timeout=10) == 143


def test_a_python_without_the_requirements_is_refused_in_one_line(clone: Path, tmp_path: Path) -> None:
    bare = tmp_path / "bare"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", str(bare)], check=True)
    ended = subprocess.run(**command(clone, MORPHEUS_PYTHON=str(bare / "bin" / "python")), check=False)
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (1, "", 1)
    assert "lacks what the worker needs (runpod, requests, websocket, boto3, pydantic" in ended.stderr
    assert f"install --require-hashes -r '{clone}/requirements.lock'" in ended.stderr


def test_a_python_that_is_not_there_is_named(clone: Path) -> None:
    ended = subprocess.run(**command(clone, MORPHEUS_PYTHON="/no/such/python"), check=False)
    assert ended.returncode == 1
    assert "there is no '/no/such/python'" in ended.stderr
