"""`make demo`, without make: the main job from end to end."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

from PIL import Image

from morpheus_worker.rehearsal import running_engine

PROJECT = Path(__file__).resolve().parents[2]
DEADLINE_S = 120.0


def demo(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The demo, with its temporary folder and its volume in `folder`."""
    return subprocess.run(
        [sys.executable, str(PROJECT / "scripts" / "demo.py"), *arguments],
        env={**os.environ, "MORPHEUS_VOLUME_ROOT": str(folder / "a volume"), "TMPDIR": str(folder)},
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=DEADLINE_S,
        check=False,
    )


def sizes_of_pictures(folder: Path, lines: list[str]) -> list[tuple[int, int]]:
    """The sizes of what was downloaded, once it has been found to be what the jobs published."""
    downloaded = sorted(Path(lines[-1].removeprefix("Pictures").strip()).iterdir())
    published = {path.read_bytes() for path in folder.glob("a volume/job_outputs/morpheus-demo-*/*.png")}
    assert {path.read_bytes() for path in downloaded} == published
    return [size_of(path) for path in downloaded]


def size_of(picture: Path) -> tuple[int, int]:
    with Image.open(picture) as opened:
        opened.load()
        return opened.size


def test_two_jobs_go_in_and_their_pictures_come_back(tmp_path: Path) -> None:
    ended = demo(tmp_path)
    assert (ended.stderr, ended.returncode) == ("", 0)
    lines = ended.stdout.splitlines()
    assert 8 <= len(lines) <= 16
    assert sum(line.endswith("as the result says") for line in lines) == 2
    assert sizes_of_pictures(tmp_path, lines) == [(1024, 1024), (1024, 1024)]
    assert size_of(tmp_path / "a volume" / "job_outputs" / "demo_upload" / "portrait.png") == (256, 256)


def test_a_comfyui_without_models_gets_jobs_that_it_can_run_and_a_line_that_says_so(tmp_path: Path) -> None:
    with running_engine(tmp_path / "comfyui") as engine:
        ended = demo(tmp_path, "--comfyui", engine.url)
    assert (ended.stderr, ended.returncode) == ("", 0)
    lines = ended.stdout.splitlines()
    said = [line.removeprefix("Job").strip() for line in lines if line.startswith("Job")]
    assert said[0] == "smoke, in the place of sdxl_txt2img: this ComfyUI has no sd_xl_base_1.0.safetensors"
    assert said[1].endswith("in the place of upscale: this ComfyUI has no upscale model")
    assert sizes_of_pictures(tmp_path, lines) == [(512, 512), (64, 64)]


def test_a_comfyui_that_is_not_there_is_one_sentence(tmp_path: Path) -> None:
    ended = demo(tmp_path, "--comfyui", "http://127.0.0.1:9")
    assert ended.returncode == 1
    assert ended.stderr.startswith("The demo failed: http://127.0.0.1:9/object_info/CheckpointLoaderSimple does not")
    assert ended.stderr.count("\n") == 1
