"""The command line as a person uses it: real processes, and a rehearsal engine in another."""

from __future__ import annotations

import hashlib
import json
import os
import pty
import re
import signal
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import requests
import websocket
from PIL import Image

from morpheus_worker import __version__
from morpheus_worker.jobs import JobFailure, JobResult
from morpheus_worker.library import Library
from morpheus_worker.rehearsal import Faults
from morpheus_worker.settings import Settings, variable_of
from tests.commands import DEADLINE_S, MORPHEUS, Desk, desk, own_environment, serving
from tests.exports import TXT2IMG

GRAPH = {
    "1": {"class_type": "LoadImage", "inputs": {"image": "in.png"}},
    "2": {"class_type": "SaveImage", "inputs": {"images": ["1", 0], "filename_prefix": "graph"}},
}


@pytest.fixture(scope="module")
def here(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk(tmp_path_factory.mktemp("desk")) as made:
        Image.new("RGB", (24, 16), "teal").save(made.folder / "photo.png")
        (made.folder / "graph.json").write_text(json.dumps(GRAPH), encoding="utf-8")
        (made.folder / "broken.json").write_text('{"1": ', encoding="utf-8")
        yield made


def succeeded(ended: subprocess.CompletedProcess[str]) -> JobResult:
    assert ended.returncode == 0, ended.stdout + ended.stderr
    return JobResult.model_validate_json(ended.stdout)


def failed(ended: subprocess.CompletedProcess[str]) -> JobFailure:
    assert "Traceback" not in ended.stderr
    return JobFailure.model_validate_json(ended.stdout)


# Jobs.


@pytest.fixture(scope="module")
def made(here: Desk) -> JobResult:
    return succeeded(here.morpheus("run", "smoke", "--param", "width=40", "--id", "a-job"))


def test_a_job_runs_and_its_result_is_all_of_standard_output(here: Desk, made: JobResult) -> None:
    (output,) = made.outputs
    assert (made.workflow_name, made.params["width"], output.width) == ("smoke", 40, 40)
    assert output.path is not None
    assert Path(output.path).parent == here.volume / "job_outputs" / "a-job"
    assert Path(output.path).stat().st_size == output.bytes
    assert json.loads((here.volume / "job_outputs" / "a-job" / "result.json").read_text()) == made.wire()


def test_a_picture_from_a_file_here_goes_in(here: Desk) -> None:
    (output,) = succeeded(here.morpheus("run", "upscale", "--image", "image=photo.png")).outputs
    assert (output.width, output.height) == (96, 64)


def test_a_template_from_a_file_runs(here: Desk) -> None:
    """One that `workflows import` has just written, say; also with a bare placeholder, which is no JSON."""
    text = json.dumps({"_about": {"title": "mine"}, **GRAPH}).replace('"in.png"', "__param:photo__")
    (here.folder / "own.json").write_text(text, encoding="utf-8")
    result = succeeded(here.morpheus("run", "own.json", "--image", "photo=photo.png"))
    assert result.workflow_name == "own"
    assert list(result.params) == ["photo"]
    (here.folder / "own.json").write_text(text + " and more", encoding="utf-8")
    failure = failed(here.morpheus("run", "own.json", "--image", "photo=photo.png"))
    assert failure.code == "invalid_workflow"
    assert "there is text after the end of the JSON object" in failure.error


def test_a_graph_from_a_file_runs_with_a_picture_for_its_loader(here: Desk) -> None:
    result = succeeded(here.morpheus("run", "graph.json", "--image", "in.png=photo.png"))
    assert result.workflow_name is None
    assert (result.outputs[0].width, result.outputs[0].height) == (24, 16)


@pytest.mark.parametrize(
    ("arguments", "code", "said"),
    [
        (["sdxl_txt2img", "--param", "prompt=x", "--param", "step=3"], "invalid_params", "did you mean 'steps'?"),
        (["smok"], "unknown_workflow", "did you mean 'smoke'?"),
        (["broken.json"], "invalid_input", "broken.json: is not JSON"),
    ],
)
def test_a_job_asked_for_wrongly_ends_with_2_and_a_failure_as_json(
    arguments: list[str], code: str, said: str, here: Desk
) -> None:
    ended = here.morpheus("run", *arguments)
    assert ended.returncode == 2
    failure = failed(ended)
    assert failure.code == code
    assert said in failure.error


def test_a_comfyui_that_is_away_ends_with_1(here: Desk) -> None:
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        url = f"http://127.0.0.1:{taken.getsockname()[1]}"
        ended = here.morpheus("run", "smoke", MORPHEUS_COMFYUI_URL=url, MORPHEUS_BOOT_TIMEOUT_S="0.2")
    assert ended.returncode == 1
    failure = failed(ended)
    assert (failure.code, failure.retryable) == ("connection", True)
    assert url in failure.error


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_ctrl_c_stops_the_prompt_and_leaves_nothing(number: signal.Signals, code: int, here: Desk) -> None:
    before = files_below(here.volume, here.comfyui)
    given = ["run", "sdxl_txt2img", "--param", "prompt=x", "--param", "steps=150", "--id", "interrupted"]
    watch = websocket.create_connection(f"ws{here.url.removeprefix('http')}/ws", timeout=DEADLINE_S)
    with interruptible(**here.started(MORPHEUS, *given), stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        try:
            while remaining(watch.recv()) != 1:
                pass
            process.send_signal(number)
            out, err = process.communicate(timeout=DEADLINE_S)
        finally:
            process.kill()
            watch.close()
    assert (process.returncode, out) == (code, ""), err
    assert "Traceback" not in err
    assert answer(here, "/queue") == {"queue_running": [], "queue_pending": []}
    assert files_below(here.volume, here.comfyui) == before


def interruptible(**command: Any) -> subprocess.Popen[str]:
    """A process that hears of Ctrl-C, even where these tests were started in the background and do not."""
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        return subprocess.Popen(**command)
    finally:
        signal.signal(signal.SIGINT, before)


def remaining(message: str | bytes) -> Any:
    """How many prompts the engine has, where a message tells."""
    data = json.loads(message)["data"] if isinstance(message, str) else {}
    return data.get("status", {}).get("exec_info", {}).get("queue_remaining")


def answer(here: Desk, path: str) -> Any:
    with requests.get(f"{here.url}{path}", timeout=DEADLINE_S) as answered:
        return answered.json()


def files_below(*folders: Path) -> set[Path]:
    return {path for folder in folders for path in folder.rglob("*")}


# Where the words go.


def test_a_terminal_gets_a_bar_and_the_log_and_standard_output_the_result_alone(here: Desk) -> None:
    given = ["run", "sdxl_txt2img", "--param", "prompt=x", "--param", "steps=20"]
    code, shown, out = on_a_terminal(here, *given, stream="stderr")
    assert code == 0
    assert JobResult.model_validate_json(out).status == "success"
    assert re.search(r"KSampler \d+/20", shown)
    (done,) = [line for line in re.split(r"[\r\n]+", shown) if "done: 1 outputs" in line]
    assert re.match(r"(\x1b\[2K)?\d\d:\d\d:\d\d info", done), "the bar and the log keep to lines of their own"


def test_a_table_on_a_terminal_cuts_nothing(here: Desk) -> None:
    code, shown, _ = on_a_terminal(here, "config", stream="stdout", MORPHEUS_COMFYUI_ARGS="[bold]" + "x" * 200)
    assert code == 0
    assert all(variable_of(name) in shown for name in Settings.model_fields)
    assert "[bold]" in shown
    assert shown.count("x") >= 200


def on_a_terminal(here: Desk, *arguments: str, stream: str, **environment: str) -> tuple[int, str, str]:
    """The exit code, what the terminal that is `stream` showed, and what went to the other one."""
    ours, theirs = pty.openpty()
    other = "stdout" if stream == "stderr" else "stderr"
    command = here.started(MORPHEUS, *arguments, TERM="xterm", COLUMNS="80", **environment)
    command |= {stream: theirs, other: subprocess.PIPE}
    with subprocess.Popen(**command) as process:
        os.close(theirs)
        shown = "".join(read_terminal(ours))
        pipe = process.stdout or process.stderr
        assert pipe is not None
        rest = pipe.read()
    return process.returncode, shown, rest


def read_terminal(ours: int) -> Iterator[str]:
    with open(ours, "rb", buffering=0) as terminal:
        try:
            while shown := terminal.read(4096):
                yield shown.decode("utf-8", "replace")
        except OSError:
            return  # Linux's way to say that nobody holds the other end any more.


@pytest.mark.parametrize(("arguments", "unbuffered"), [(["config"], ""), (["config"], "1"), (["run", "smoke"], "")])
def test_a_reader_that_has_seen_enough_is_no_failure(arguments: list[str], unbuffered: str, here: Desk) -> None:
    ours, theirs = os.pipe()
    os.close(ours)
    try:
        command = here.started(MORPHEUS, *arguments, PYTHONUNBUFFERED=unbuffered, MORPHEUS_LOG_LEVEL="ERROR")
        ended = subprocess.run(**command, stdout=theirs, stderr=subprocess.PIPE, timeout=DEADLINE_S, check=False)
    finally:
        os.close(theirs)
    assert (ended.returncode, ended.stderr) == (0, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="there is no /dev/full here")
@pytest.mark.parametrize("unbuffered", ["", "1"])
def test_a_result_that_cannot_be_written_is_a_failure(unbuffered: str, here: Desk) -> None:
    with open("/dev/full", "w") as full:
        command = here.started(MORPHEUS, "version", PYTHONUNBUFFERED=unbuffered)
        ended = subprocess.run(**command, stdout=full, stderr=subprocess.PIPE, timeout=DEADLINE_S, check=False)
    assert ended.returncode == 1
    assert re.fullmatch("morpheus: .*No space left on device\n", ended.stderr)


# The servers.


def test_rehearse_takes_a_free_port_and_says_its_url(here: Desk) -> None:
    """The engine of this module was found by what it said."""
    assert answer(here, "/system_stats")["system"]["rehearsal"] == __version__
    assert set(answer(here, "/object_info/CheckpointLoaderSimple")) == {"CheckpointLoaderSimple"}
    assert (here.comfyui / "models").is_dir()


def test_rehearse_does_not_know_every_fault(here: Desk) -> None:
    ended = here.morpheus("rehearse", "--port", "0", "--fault", "nonsense")
    assert (ended.returncode, ended.stdout, ended.stderr.count("\n")) == (2, "", 1)
    assert "nonsense: no such fault" in ended.stderr
    assert all(name in ended.stderr for name, _ in Faults.table())


def test_ctrl_c_is_how_a_server_ends() -> None:
    command = [MORPHEUS, "rehearse", "--port", "0"]
    with interruptible(args=command, stderr=subprocess.PIPE, text=True, env=own_environment()) as process:
        try:
            assert process.stderr is not None
            assert "listens at" in process.stderr.readline()
            process.send_signal(signal.SIGINT)
            assert process.wait(timeout=DEADLINE_S) == 0
            assert process.stderr.read() == ""
        finally:
            process.kill()


def test_the_gateway_refuses_to_be_public_by_accident(here: Desk) -> None:
    ended = here.morpheus("gateway", "--root", "volume", "--port", "0", "--host", "0.0.0.0")
    assert (ended.returncode, ended.stdout) == (2, "")
    assert "'0.0.0.0' is reachable from other machines" in ended.stderr
    assert "--allow-public" in ended.stderr


def test_the_gateway_serves_what_a_job_made(here: Desk, made: JobResult) -> None:
    (output,) = made.outputs
    with (
        serving("gateway", "--root", str(here.volume), "--port", "0") as url,
        requests.get(f"{url}/download/{output.volume_path}", timeout=DEADLINE_S) as answered,
    ):
        assert hashlib.sha256(answered.content).hexdigest() == output.sha256


# What it says about itself.


def test_the_workflows_are_listed_for_programs_as_lines_with_tabs(here: Desk) -> None:
    listed = here.morpheus("workflows", "list")
    rows = [line.split("\t") for line in listed.stdout.splitlines()]
    library = Library.load(Settings.from_environment({}).workflows_dir)
    assert rows == [[t.name, ", ".join(t.about.aliases), t.about.title] for t in library]
    assert (listed.returncode, listed.stderr) == (0, "")


def test_a_workflow_is_shown_by_its_alias_with_ranges_that_the_object_info_completes(here: Desk) -> None:
    shown = here.morpheus("workflows", "show", "creation")
    assert shown.returncode == 0
    assert shown.stdout.startswith("sdxl_txt2img: ")
    rows = {line.split("\t")[0]: line.split("\t")[1:] for line in shown.stdout.splitlines() if "\t" in line}
    assert rows["steps"][:3] == ["int", "30", "1 to 150"]
    assert rows["prompt"][:2] == ["string", "required"]
    assert rows["seed"][:2] == ["seed", "drawn"]
    assert "dpmpp_2m_sde" in rows["sampler_name"][2] or "euler" in rows["sampler_name"][2]


def test_an_export_becomes_a_workflow_of_the_volume_and_runs(here: Desk) -> None:
    (here.folder / "export.json").write_text(json.dumps(TXT2IMG), encoding="utf-8")
    overrides = here.volume / "morpheus_lib" / "workflows"
    overrides.mkdir(parents=True)
    imported = here.morpheus("workflows", "import", "export.json", "--name", "mine", "--to", str(overrides))
    assert (imported.returncode, imported.stderr) == (0, "")
    try:
        result = succeeded(here.morpheus("run", "mine", "--param", "width=64", "--param", "height=72"))
    finally:
        (overrides / "mine.json").unlink()
    assert (result.workflow_name, result.outputs[0].width, result.outputs[0].height) == ("mine", 64, 72)


def test_link_says_what_it_did_and_what_is_missing(here: Desk, tmp_path: Path) -> None:
    comfyui, volume = tmp_path / "ComfyUI", tmp_path / "volume"
    (volume / "morpheus_model_cache" / "loras").mkdir(parents=True)
    (volume / "morpheus_model_cache" / "loras" / "film.safetensors").write_bytes(b"weights")
    comfyui.mkdir()
    (comfyui / "main.py").touch()
    environment = {"MORPHEUS_COMFYUI_DIR": str(comfyui), "MORPHEUS_VOLUME_ROOT": str(volume)}
    linked = here.morpheus("link", **environment)
    assert linked.returncode == 0, linked.stderr
    assert linked.stdout.startswith("1 links in place (1 new, 0 repaired)")
    assert "not on the volume: model realesrgan-x4plus" in linked.stdout
    assert linked.stdout.splitlines()[-1].startswith("'morpheus models sync' fetches them")
    assert (comfyui / "models" / "loras" / "film.safetensors").read_bytes() == b"weights"
    assert here.morpheus("link", **environment).stdout.startswith("1 links in place (0 new, 0 repaired)")


@pytest.mark.parametrize("command", [[MORPHEUS], [sys.executable, "-m", "morpheus_worker.cli.main"]])
def test_version_either_way(command: list[str], here: Desk) -> None:
    started = here.started(*command, "version")
    assert subprocess.run(**started, capture_output=True, check=True).stdout == f"{__version__}\n"
