"""Every command in the docs is run here, on the rehearsal engine, or is named with the reason why it is not.

A line that the table below does not know fails, and so does an entry that no document has any more: the docs and the
tests cannot drift apart. The lines of one document are run in one shell, top to bottom, as a reader types them.
"""

from __future__ import annotations

import functools
import json
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from morpheus_worker.jobs import JobResult
from morpheus_worker.library import Library
from morpheus_worker.manifest import parse_manifest
from morpheus_worker.settings import Settings
from morpheus_worker.templates.template import parse_template
from tests.commands import DEADLINE_S, Desk, desk, free_port, own_environment
from tests.documents import PROJECT, Block, as_json, blocks, documents
from tests.exports import TXT2IMG

JOB_ID = "the-readmes-own-job"
ACTIVATE = ". .venv/bin/activate"


@dataclass(frozen=True, slots=True)
class Session:
    """What a document's lines printed, and the folder that they were typed in."""

    folder: Path
    desk: Desk
    printed: dict[str, str]


@dataclass(frozen=True, slots=True)
class Run:
    """Run here; `look` judges what it printed and left. A server `stays` until the reader ends it."""

    look: Callable[[Session, str], None] = lambda _session, _printed: None
    stays: bool = False
    needs: str | None = None


@dataclass(frozen=True, slots=True)
class Elsewhere:
    """Another test runs it."""

    test: str


@dataclass(frozen=True, slots=True)
class NotRun:
    because: str


# What is to be seen of the lines that are run.


def a_picture(width: int, height: int) -> Callable[[Session, str], None]:
    def look(session: Session, printed: str) -> None:
        (output,) = JobResult.model_validate_json(printed).outputs
        assert (output.width, output.height) == (width, height)
        assert (session.desk.volume / str(output.volume_path)).stat().st_size == output.bytes

    return look


def the_workflows(_session: Session, printed: str) -> None:
    templates = Library.load(Settings.from_environment({}).workflows_dir)
    assert [line.split()[0] for line in printed.splitlines()] == [template.name for template in templates]


def the_params_of(workflow: str) -> Callable[[Session, str], None]:
    def look(_session: Session, printed: str) -> None:
        params = Library.load(Settings.from_environment({}).workflows_dir).get(workflow).params
        assert [line.split("\t")[0] for line in printed.splitlines() if "\t" in line] == list(params)

    return look


def the_import(session: Session, _printed: str) -> None:
    template = parse_template((session.folder / "poster.json").read_text(encoding="utf-8"), name="poster")
    assert list(template.params) == ["prompt", "seed"]


def the_proposal(session: Session, _printed: str) -> None:
    template = parse_template((session.folder / "banner.json").read_text(encoding="utf-8"), name="banner")
    assert {"prompt", "negative_prompt", "seed", "steps", "checkpoint_name"} <= template.params.keys()


def the_report(_session: Session, printed: str) -> None:
    told = json.loads(printed)
    assert [one["workflow"] for one in told["workflows"]] == ["sdxl_txt2img"]
    assert told["ok"] is (told["errors"] == 0) is True


def the_schema(_session: Session, printed: str) -> None:
    assert "prompt" in json.loads(printed)["required"]


def no_errors(_session: Session, printed: str) -> None:
    assert ": 0 errors," in printed.splitlines()[-1]


def a_url(session: Session, printed: str) -> None:
    assert re.search(r"http://127\.0\.0\.1:\d+", printed)


def a_local_test(session: Session, _printed: str) -> None:
    """What the SDK prints is its own; that it ended well the shell has seen."""
    (stored,) = session.desk.volume.glob("job_outputs/local_test/result.json")
    assert JobResult.model_validate_json(stored.read_bytes()).workflow_name == "smoke"


def the_download(session: Session, _printed: str) -> None:
    (published,) = session.desk.volume.glob(f"job_outputs/{JOB_ID}/*.png")
    assert (session.folder / published.name).read_bytes() == published.read_bytes()


def folders(session: Session, printed: str) -> None:
    a_url(session, printed)
    assert {"input", "models", "output"} <= {path.name for path in (session.folder / "rehearsal").iterdir()}


def the_plan(_session: Session, printed: str) -> None:
    told = [json.loads(line) if line.startswith("{") else line for line in printed.splitlines()]
    assert [line.split("\t")[0] for line in told if isinstance(line, str)] == list(MODELS)


def the_models(*ids: str) -> Callable[[Session, str], None]:
    """A sync's lines, one JSON object each, and the files that it left."""

    def look(session: Session, printed: str) -> None:
        summary = json.loads(printed.splitlines()[-1])
        assert summary["ok"]
        assert {outcome["id"] for outcome in summary["outcomes"]} == set(ids)
        for model in ids:
            found = session.desk.volume / "morpheus_model_cache" / MODELS[model]
            assert found.read_bytes() == tiny_model(model)

    return look


def all_is_well(_session: Session, printed: str) -> None:
    assert json.loads(printed.splitlines()[-1])["ok"]


def the_manifest(session: Session, _printed: str) -> None:
    text = (session.folder / "models.yaml").read_text(encoding="utf-8")
    assert [model.id for model in parse_manifest(text, name="models.yaml").models] == ["talmendoxl_v11_beta"]


MODELS = {"sdxl-vae": "vae/sdxl_vae.safetensors", "film-grain": "loras/film-grain.safetensors"}
"""The manifest of the lines that begin with `morpheus models`: the first belongs to a workflow."""

RESOURCES = (
    "# models\nURL_AUTH, checkpoints/talmendoxl_v11_beta.safetensors, https://civitai.com/api/download/models/131960\n"
)


def tiny_model(model: str) -> bytes:
    data = model.encode() * 100
    header = json.dumps({"w": {"dtype": "U8", "shape": [len(data)], "data_offsets": [0, len(data)]}}).encode()
    return len(header).to_bytes(8, "little") + header + data


def write_models(folder: Path) -> None:
    entries = []
    for model, path in MODELS.items():
        source = folder / f"{model}.safetensors"
        source.write_bytes(tiny_model(model))
        workflows = ["sdxl_txt2img"] if model == "sdxl-vae" else []
        sources = [{"kind": "file", "path": str(source)}]
        entries.append({"id": model, "path": path, "workflows": workflows, "sources": sources})
    (folder / "manifest.yaml").write_text(json.dumps({"version": 1, "models": entries}), encoding="utf-8")
    (folder / "resources.txt").write_text(RESOURCES, encoding="utf-8")


BUCKET = Elsewhere("tests/integration/test_cli_models.py")
RUNPODS_VOLUME_API = NotRun("it needs RunPod's volume API")
REAL_COMFYUI = NotRun("it needs a real ComfyUI")
A_RUNNING_COMFYUI = NotRun("it needs a running ComfyUI; tests/integration/test_object_info_save.py has one")
BENCHMARK = NotRun("it takes as long as what it measures")

LINES: dict[str, Run | Elsewhere | NotRun] = {
    "make demo": Elsewhere("tests/acceptance/test_demo.py"),
    "make test": Elsewhere("tests/acceptance/test_make.py"),
    "make bench": BENCHMARK,
    ACTIVATE: Run(),
    "morpheus rehearse --port 8188 &": Run(),
    "export MORPHEUS_COMFYUI_URL=http://127.0.0.1:8188 MORPHEUS_VOLUME_ROOT=/tmp/volume": Run(),
    "mkdir -p /tmp/volume": Run(),
    'morpheus run sdxl_txt2img --param prompt="a lighthouse at dusk" --param steps=12': Run(a_picture(1024, 1024)),
    "morpheus run upscale --image image=photo.png": Run(a_picture(96, 64)),
    "morpheus workflows list --models": Run(the_workflows),
    "morpheus workflows show sdxl_pulid": Run(the_params_of("sdxl_pulid")),
    "morpheus workflows import export.json --name poster --param prompt=6.text --param seed=3.seed": Run(the_import),
    "morpheus check": Run(no_errors),
    "morpheus workflows import export.json --name banner": Run(the_proposal),
    "morpheus check poster.json banner.json": Run(no_errors),
    "morpheus check sdxl_txt2img --json": Run(the_report),
    "morpheus workflows show sdxl_txt2img": Run(the_params_of("sdxl_txt2img")),
    "morpheus workflows show sdxl_txt2img --json-schema": Run(the_schema),
    "morpheus object-info save nodes.json.gz --url http://127.0.0.1:8188": A_RUNNING_COMFYUI,
    "morpheus check poster.json --object-info nodes.json.gz": A_RUNNING_COMFYUI,
    """python handler.py --test_input '{"input": {"workflow_name": "smoke"}}'""": Run(a_local_test),
    "morpheus gateway --root /workspace --port 8000": Run(a_url, stays=True),
    "curl -O http://127.0.0.1:8000/download/runpod-volume/job_outputs/<job id>/sdxl_txt2img_00001_.png": Run(
        the_download, needs="curl"
    ),
    'bash -c "[ -d /opt/morpheus ] || git clone <this repository> /opt/morpheus; exec /opt/morpheus/pod_start.sh"': (
        NotRun("it needs RunPod's container; tests/integration/test_pod_start.py starts the script")
    ),
    "morpheus rehearse --port 8188 --base-directory /tmp/rehearsal": Run(folders, stays=True),
    "export MORPHEUS_TEST_COMFYUI_DIR=/path/to/ComfyUI MORPHEUS_TEST_COMFYUI_PYTHON=/path/to/its/python": REAL_COMFYUI,
    ".venv/bin/python -m pytest tests/comfyui": REAL_COMFYUI,
    ".venv/bin/python benchmarks/run.py memory": BENCHMARK,
    "export MORPHEUS_VOLUME_ROOT=/workspace": Run(),
    "morpheus models plan": Run(the_plan),
    "morpheus models sync": Run(the_models(*MODELS)),
    "morpheus models sync --workflow sdxl_txt2img": Run(the_models("sdxl-vae")),
    "morpheus models verify": Run(all_is_well),
    "morpheus models verify --full": Run(all_is_well),
    "morpheus models adopt": Run(all_is_well),
    "morpheus models status --requirements": Run(),
    "morpheus models import resources.txt --to models.yaml": Run(the_manifest),
    "morpheus models sync --to s3://our-models/cache": BUCKET,
    "export MORPHEUS_MODELS_MIRROR=s3://our-models/cache": BUCKET,
    "export MORPHEUS_MODELS_ENDPOINT_URL=https://s3api-eu-ro-1.runpod.io": RUNPODS_VOLUME_API,
    "morpheus models sync --to s3://<volume id>/morpheus_model_cache": RUNPODS_VOLUME_API,
    ".venv/bin/python -m benchmarks.bench_official --jobs 30 --only volume": BENCHMARK,
    "export MORPHEUS_TEST_COMFYUI_DIR=…/ComfyUI": REAL_COMFYUI,
    "export MORPHEUS_TEST_COMFYUI_PYTHON=…/ComfyUI/venv/bin/python": REAL_COMFYUI,
    "export MORPHEUS_TEST_OFFICIAL_WORKER_DIR=…/worker-comfyui": BENCHMARK,
}

FIGURES = {"README.md": ["app ── job: workflow_name + params ──▶ RunPod", "/runpod-volume/"]}
"""Blocks that show something and are not typed, by how their first line begins."""


def is_figure(block: Block) -> bool:
    return any(block.text.strip().startswith(opening) for opening in FIGURES.get(block.document, []))


@functools.cache
def lines_of(document: str) -> tuple[str, ...]:
    """What is to be typed, without the remarks after it."""
    typed = [block for block in blocks(document) if block.language in ("", "sh", "bash") and not is_figure(block)]
    return tuple(
        re.sub(r"\s{2,}#.*", "", line).strip()
        for block in typed
        for line in block.text.replace("\\\n", " ").splitlines()
        if line.strip()
    )


def run_here() -> Iterator[tuple[str, str]]:
    for document in documents():
        for line in lines_of(document):
            if isinstance(LINES.get(line), Run):
                yield document, line


# The table and the docs know the same lines.


def test_every_line_in_the_docs_is_known_and_no_other() -> None:
    shown = {line for document in documents() for line in lines_of(document)}
    assert shown - LINES.keys() == set(), "say in LINES how these are run, or why they are not"
    assert LINES.keys() - shown == set(), "no document has these any more"


def test_a_block_is_typed_or_data_or_a_figure() -> None:
    every = [block for document in documents() for block in blocks(document)]
    assert {block.language for block in every} <= {"", "sh", "bash", "json"}
    assert sum(is_figure(block) for block in every) == sum(map(len, FIGURES.values()))


def test_what_runs_the_other_lines_is_there() -> None:
    tests = {how.test for how in LINES.values() if isinstance(how, Elsewhere)}
    assert [test for test in tests if not (PROJECT / test).is_file()] == []


# The lines, typed.


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Desk]:
    with desk(tmp_path_factory.mktemp("desk")) as made:
        yield made


@pytest.fixture(scope="module")
def example(own: Desk) -> Any:
    """What the job of the README's first example becomes, through handler.py."""
    job = {"id": JOB_ID, **as_json(json_of("README.md")[0])}
    command = own.started(sys.executable, str(PROJECT / "handler.py"), "--test_input", json.dumps(job))
    subprocess.run(**command, capture_output=True, timeout=DEADLINE_S, check=True)
    return json.loads((own.volume / "job_outputs" / JOB_ID / "result.json").read_text(encoding="utf-8"))


@pytest.fixture(scope="module")
def session_of(own: Desk, example: Any, tmp_path_factory: pytest.TempPathFactory) -> Callable[[str], Session]:
    """The session of a document; its lines are typed once."""
    return functools.cache(lambda document: typed(document, own, tmp_path_factory.mktemp("session")))


@pytest.mark.parametrize(("document", "line"), list(run_here()))
def test_a_line_does_what_the_docs_say(document: str, line: str, session_of: Callable[[str], Session]) -> None:
    how = LINES[line]
    assert isinstance(how, Run)
    if how.needs is not None and shutil.which(how.needs) is None:
        pytest.skip(f"{how.needs} is not installed")
    session = session_of(document)
    how.look(session, session.printed[line])


def typed(document: str, own: Desk, folder: Path) -> Session:
    Image.new("RGB", (24, 16), "teal").save(folder / "photo.png")
    (folder / "export.json").write_text(json.dumps(TXT2IMG), encoding="utf-8")
    write_models(folder)
    lines = [line for line in lines_of(document) if isinstance(LINES[line], Run)]
    (folder / "session.sh").write_text(script(lines, substitutes(own, folder)), encoding="utf-8")
    with (folder / "log").open("w") as log:
        shell = subprocess.Popen(
            ["sh", "session.sh"],
            cwd=folder,
            env=own_environment(),
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
        )
        try:
            code = shell.wait(DEADLINE_S)
        finally:
            with suppress(ProcessLookupError):
                os.killpg(shell.pid, signal.SIGKILL)
            shell.wait()
    printed = [folder / f"{number}.out" for number in range(len(lines))]
    assert code == 0, (folder / "log").read_text() + "".join(path.read_text() for path in printed if path.exists())
    return Session(folder, own, {line: path.read_text() for line, path in zip(lines, printed, strict=True)})


def script(lines: list[str], places: dict[str, str]) -> str:
    """The lines for `sh`, each with a file for what it prints; what runs in the background ends with the shell."""
    steps = ["set -e", "pids=", "trap 'kill $pids || true; wait' EXIT"]
    steps += [] if ACTIVATE in lines else [substituted(ACTIVATE, places)]
    for number, line in enumerate(lines):
        how, command = LINES[line], substituted(line, places)
        if isinstance(how, Run) and how.needs is not None and shutil.which(how.needs) is None:
            steps.append(f": >{number}.out")
        elif isinstance(how, Run) and how.stays:
            # A server says where it listens once it does. Its end of the pipe stays open, for what it says later.
            steps += [f"mkfifo {number}.pipe", f"{command} 2>{number}.pipe &", 'pids="$pids $!"']
            steps += [f"exec 3<{number}.pipe", "read -r said <&3", f'printf "%s\\n" "$said" >{number}.out']
        elif line.endswith("&"):
            steps += [f"{command.removesuffix('&')} >{number}.out &", 'pids="$pids $!"']
        else:
            steps.append(f"{{ {command}\n}} >{number}.out")
    return "\n".join(steps) + "\n"


def substituted(line: str, places: dict[str, str]) -> str:
    for shown, here in places.items():
        line = line.replace(shown, here)
    return line


def substitutes(own: Desk, folder: Path) -> dict[str, str]:
    """What the docs say → what stands for it here."""
    return {
        ".venv/bin/activate": shlex.quote(str(Path(sys.executable).with_name("activate"))),
        "morpheus models": f"MORPHEUS_MANIFEST={shlex.quote(str(folder / 'manifest.yaml'))} morpheus models",
        "handler.py": shlex.quote(str(PROJECT / "handler.py")),
        "/tmp/volume": shlex.quote(str(own.volume)),
        "/workspace": shlex.quote(str(own.volume)),
        "/tmp/rehearsal": shlex.quote(str(folder / "rehearsal")),
        "<job id>": JOB_ID,
        "8188": str(free_port()),
        "8000": str(free_port()),
    }


# The examples, held to what really comes.


def json_of(document: str) -> list[str]:
    return [block.text for block in blocks(document) if block.language == "json"]


def test_the_example_of_a_result_is_what_the_example_of_a_job_becomes(own: Desk, example: Any) -> None:
    text = json_of("README.md")[1].replace("<job id>", JOB_ID).replace("/runpod-volume/", f"{own.volume}/")
    said = as_json(text)
    (told,), (made,) = said.pop("outputs"), example["outputs"]
    assert said.items() <= example.items()
    assert told.keys() <= made.keys()
    assert {key: told[key] for key in told if key not in ("bytes", "sha256")}.items() <= made.items()


def test_the_example_of_a_failure_is_what_a_caller_gets(own: Desk) -> None:
    said = as_json(json_of("docs/jobs.md")[2])
    ended = own.morpheus("run", "sdxl_txt2img", "--param", "prompt=x", "--param", "steps=0")
    failure = json.loads(ended.stdout)
    assert said.keys() == failure.keys()
    assert {**said, "job_id": None, "trace_id": None} == {**failure, "job_id": None, "trace_id": None}
