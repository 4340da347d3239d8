"""`morpheus object-info save` against a ComfyUI, and against what is none."""

from __future__ import annotations

import http.server
import json
import os
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from morpheus_worker.cli.main import main
from morpheus_worker.comfy.recorded import load_recorded, recorded_version
from morpheus_worker.comfy.saved import load_saved
from morpheus_worker.rehearsal import RehearsalEngine

from .conftest import MODEL_NAMES

NODE = {"input": {"required": {}}, "output": []}


@contextmanager
def answering(**bodies: tuple[int, str]) -> Iterator[str]:
    """The address of a server with these answers, by route; 404 elsewhere."""

    class Handler(http.server.BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            status, body = bodies.get(self.path.strip("/"), (404, "not here"))
            self.send_response(status)
            self.send_header("Content-Length", str(len(body)))
            self.end_headers()
            self.wfile.write(body.encode())

        def log_message(self, format: str, *args: object) -> None:  # noqa: A002
            pass

    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    try:
        yield f"http://127.0.0.1:{server.server_port}"
    finally:
        server.shutdown()
        server.server_close()
        thread.join()


def test_what_a_comfyui_has_is_saved(
    engine: RehearsalEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "kept" / "info.json.gz"
    assert main(["object-info", "save", str(path), "--url", engine.url]) == 0

    told = capsys.readouterr().out
    assert f"{path}: " in told
    assert f"node classes of ComfyUI {recorded_version()}, {path.stat().st_size:,} bytes, " in told
    assert "times smaller" in told
    info = load_saved(path)
    assert info.class_types >= load_recorded().class_types
    loader = info.input("CheckpointLoaderSimple", "ckpt_name")
    assert loader is not None
    assert loader.choices == tuple(MODEL_NAMES["checkpoints"])


def test_the_settings_comfyui_is_asked_unless_another_is_named(
    engine: RehearsalEngine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MORPHEUS_COMFYUI_URL", engine.url)
    assert main(["object-info", "save", str(tmp_path / "info.json")]) == 0


def test_a_comfyui_that_does_not_say_its_version(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering(object_info=(200, json.dumps({"X": NODE})), system_stats=(200, "{}")) as url:
        assert main(["object-info", "save", str(tmp_path / "info.json"), "--url", url]) == 0
    assert "1 node classes of ComfyUI unknown" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("status", "body", "told"),
    [
        (200, "<html>", "its answer was not JSON"),
        (200, "[]", "its answer was not a JSON object"),
        (200, "{}", "not with an object info: it names no node class"),
        (200, '{"detail": "Not Found"}', "not with an object info: 'detail' is not described as a node class"),
        (404, "{}", "ComfyUI answered 404 while describing its nodes"),
        (500, "{}", "it answered 500"),
    ],
)
def test_who_is_no_comfyui_is_told(
    tmp_path: Path, capsys: pytest.CaptureFixture[str], status: int, body: str, told: str
) -> None:
    kept = tmp_path / "info.json"
    kept.write_text("what was there", encoding="utf-8")
    with answering(object_info=(status, body), system_stats=(200, "{}")) as url:
        assert main(["object-info", "save", str(kept), "--url", url]) == 1
        shown = capsys.readouterr().err
        assert told in shown
        assert f"(asked {url}; --url asks another)" in shown
    assert kept.read_text(encoding="utf-8") == "what was there"
    assert os.listdir(tmp_path) == ["info.json"]


def test_nobody_there_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    with answering() as url:
        pass
    assert main(["object-info", "save", str(tmp_path / "info.json"), "--url", url]) == 1
    shown = capsys.readouterr().err
    assert shown.startswith("morpheus: ComfyUI did not answer")
    assert url in shown


@pytest.mark.parametrize("url", ["localhost:8188", "http://", "http://127.0.0.1:8188/api/x", "http://host:port", "-"])
def test_what_is_no_address_is_told(tmp_path: Path, capsys: pytest.CaptureFixture[str], url: str) -> None:
    assert main(["object-info", "save", str(tmp_path / "info.json"), "--url", url]) == 2
    assert f"'{url}' is no address of a ComfyUI" in capsys.readouterr().err


def test_a_file_that_cannot_be_written_is_told(
    engine: RehearsalEngine, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main(["object-info", "save", str(tmp_path), "--url", engine.url]) == 2
    assert f"morpheus: {tmp_path} cannot be written: " in capsys.readouterr().err
