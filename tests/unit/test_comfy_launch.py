from __future__ import annotations

from pathlib import Path

import pytest

from morpheus_worker.comfy.launch import (
    IMAGE_PYTHON,
    ComfyFolders,
    command_of,
    environment_of,
    folders_of,
    python_of,
)
from morpheus_worker.settings import IMAGE_COMFYUI_DIR, SettingsError

COMFYUI = Path("/srv/comfyui")
URL = "http://127.0.0.1:8188"


def under(base: str) -> ComfyFolders:
    root = Path(base)
    return ComfyFolders(root / "models", root / "custom_nodes", root / "input", root / "output", root / "temp")


@pytest.mark.parametrize(
    ("args", "base"),
    [
        ([], "/srv/comfyui"),
        (["--cpu", "--whitelist-custom-nodes", "a", "b"], "/srv/comfyui"),
        (["--base-directory", "/data"], "/data"),
        (["--base-directory=/data"], "/data"),
        (["--base-dir", "/data"], "/data"),
        (["--base-directory", "/old", "--base-directory", "/data"], "/data"),
        (["--base-directory", "elsewhere/../data"], "/srv/comfyui/data"),
        (["--base-directory", ""], "/srv/comfyui"),
    ],
)
def test_the_base_directory_moves_every_folder(args: list[str], base: str) -> None:
    assert folders_of(COMFYUI, args) == under(base)


def test_single_folders_win_over_the_base_directory() -> None:
    args = ["--input-directory=/in", "--base-directory", "/data", "--output-directory", "out", "--temp-directory", "/t"]
    folders = folders_of(COMFYUI, args)
    assert (folders.input, folders.output) == (Path("/in"), Path("/srv/comfyui/out"))
    assert folders.temp == Path("/t/temp")
    assert folders.models == Path("/data/models")


@pytest.mark.parametrize("args", [["--base-directory"], ["--port", "high"], ["--tls", "x"]])
def test_arguments_that_comfyui_could_not_read_are_refused(args: list[str]) -> None:
    with pytest.raises(SettingsError, match="MORPHEUS_COMFYUI_ARGS"):
        folders_of(COMFYUI, args)


@pytest.mark.parametrize(
    ("url", "args", "tail"),
    [
        (URL, [], ["--listen", "127.0.0.1", "--port", "8188", "--disable-auto-launch"]),
        (URL, ["--cpu"], ["--listen", "127.0.0.1", "--port", "8188", "--disable-auto-launch", "--cpu"]),
        ("http://localhost:9000/", [], ["--listen", "127.0.0.1", "--port", "9000", "--disable-auto-launch"]),
        ("http://[::1]:9000", [], ["--listen", "::1", "--port", "9000", "--disable-auto-launch"]),
        ("http://10.0.0.7", [], ["--listen", "10.0.0.7", "--port", "80", "--disable-auto-launch"]),
        (URL, ["--port=8188"], ["--listen", "127.0.0.1", "--disable-auto-launch", "--port=8188"]),
        (URL, ["--disable-auto-launch"], ["--listen", "127.0.0.1", "--port", "8188", "--disable-auto-launch"]),
        (URL, ["--auto-launch"], ["--listen", "127.0.0.1", "--port", "8188", "--auto-launch"]),
        (URL, ["--listen"], ["--port", "8188", "--disable-auto-launch", "--listen"]),
        (URL, ["--listen", "0.0.0.0"], ["--port", "8188", "--disable-auto-launch", "--listen", "0.0.0.0"]),
    ],
)
def test_the_command_says_everything_once(url: str, args: list[str], tail: list[str]) -> None:
    command = command_of(Path("/venv/bin/python"), COMFYUI, url, args)
    assert command == ["/venv/bin/python", "-u", "/srv/comfyui/main.py", *tail]


def test_tls_is_passed_through() -> None:
    args = ["--tls-keyfile", "/k", "--tls-certfile", "/c"]
    assert command_of(Path("python"), COMFYUI, "https://127.0.0.1:8443", args)[-4:] == args


@pytest.mark.parametrize(
    ("url", "args", "said"),
    [
        (URL, ["--port", "9000"], "--port 9000, but MORPHEUS_COMFYUI_URL is http://127.0.0.1:8188"),
        (URL, ["--listen", "10.0.0.7"], "--listen 10.0.0.7, but"),
        ("http://[::1]:8188", ["--listen", "0.0.0.0"], "--listen 0.0.0.0, but"),
        ("https://127.0.0.1:8188", [], "TLS is off, but"),
        (URL, ["--tls-keyfile", "/k", "--tls-certfile", "/c"], "TLS is on, but"),
        ("http://127.0.0.1:99999", [], "MORPHEUS_COMFYUI_URL"),
        ("ftp://127.0.0.1", [], "is not an http"),
    ],
)
def test_a_comfyui_that_would_not_be_heard_is_refused(url: str, args: list[str], said: str) -> None:
    with pytest.raises(SettingsError) as caught:
        command_of(Path("python"), COMFYUI, url, args)
    assert said in str(caught.value)


def test_all_disagreements_are_said_at_once() -> None:
    with pytest.raises(SettingsError) as caught:
        command_of(Path("python"), COMFYUI, URL, ["--port", "1", "--listen", "10.0.0.7"])
    assert len(caught.value.problems) == 2


@pytest.mark.parametrize("listen", ["127.0.0.1,::1", "0.0.0.0", "localhost", "0.0.0.0,::"])
def test_listening_more_widely_is_fine(listen: str) -> None:
    assert "--listen" in command_of(Path("python"), COMFYUI, URL, ["--listen", listen])


@pytest.mark.parametrize(
    ("comfyui_dir", "configured", "existing", "chosen"),
    [
        (COMFYUI, "/set/python", ["/srv/comfyui/.venv/bin/python"], "/set/python"),
        (
            COMFYUI,
            None,
            ["/srv/comfyui/.venv/bin/python", "/srv/comfyui/venv/bin/python"],
            "/srv/comfyui/.venv/bin/python",
        ),
        (COMFYUI, None, ["/srv/comfyui/venv/bin/python"], "/srv/comfyui/venv/bin/python"),
        (COMFYUI, None, [str(IMAGE_PYTHON)], "/own/python"),
        (IMAGE_COMFYUI_DIR, None, [str(IMAGE_PYTHON)], str(IMAGE_PYTHON)),
        (IMAGE_COMFYUI_DIR, None, [], "/own/python"),
    ],
)
def test_the_python_that_has_comfyuis_packages(
    comfyui_dir: Path, configured: str | None, existing: list[str], chosen: str
) -> None:
    set_to = Path(configured) if configured else None
    found = python_of(comfyui_dir, set_to, Path("/own/python"), exists=lambda path: str(path) in existing)
    assert found == Path(chosen)


def test_the_child_does_not_get_what_only_the_worker_needs() -> None:
    kept = {"PATH": "/bin", "HF_TOKEN": "h", "CIVITAI_API_KEY": "c", "RUNPOD_POD_ID": "p", "LD_PRELOAD": "libtc.so"}
    withheld = {
        "MORPHEUS_GATEWAY_TOKEN": "t",
        "RUNPOD_AI_API_KEY": "k",
        "RUNPOD_API_KEY": "k",
        "RUNPOD_WEBHOOK_GET_JOB": "u",
        "AWS_SECRET_ACCESS_KEY": "s",
        "BUCKET_SECRET_ACCESS_KEY": "s",
    }
    child = environment_of(kept | withheld)
    assert child == kept | {"DO_NOT_TRACK": "1", "HF_HUB_DISABLE_TELEMETRY": "1"}


def test_a_node_pack_looks_for_its_own_models_where_the_volume_is_linked() -> None:
    folders = folders_of(Path("/comfyui"), [])
    assert environment_of({}, folders)["AUX_ANNOTATOR_CKPTS_PATH"] == "/comfyui/models/controlnet_aux"
    chosen = {"AUX_ANNOTATOR_CKPTS_PATH": "/elsewhere"}
    assert environment_of(chosen, folders)["AUX_ANNOTATOR_CKPTS_PATH"] == "/elsewhere"
