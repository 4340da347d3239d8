"""The recorders of object info, against what a ComfyUI with a pack would answer."""

from __future__ import annotations

import http.server
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest
import requests

from tests.tools import record_object_info, record_packs

PACK = "ComfyUI-PuLID"


def node(module: str, **more: Any) -> dict[str, Any]:
    required = {"pulid_file": [["mine.safetensors"], {"tooltip": "prose"}], "image": ["IMAGE"]}
    return {"input": {"required": required}, "output": ["PULID"], "python_module": module, **more}


ANSWERS: dict[str, Any] = {
    "/system_stats": {"system": {"comfyui_version": "1.2.3"}},
    "/object_info": {
        "Loader": node("nodes"),
        "PackLoader": node(f"custom_nodes.{PACK}"),
        "Other": node("custom_nodes.another"),
        "Paid": node("nodes", api_node=True),
    },
    "/class_facts": {"PackLoader": {"validates": "*", "takes": {"image": "IMAGE,LATENT"}}},
}


class Answers(http.server.BaseHTTPRequestHandler):
    answers: ClassVar[dict[str, Any]] = ANSWERS

    def do_GET(self) -> None:
        body = json.dumps(self.answers.get(self.path)).encode()
        self.send_response(200 if self.path in self.answers else 404)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, format: str, *args: object) -> None:  # noqa: A002
        pass


def serving(handler: type[http.server.BaseHTTPRequestHandler]) -> Iterator[str]:
    server = http.server.ThreadingHTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=server.serve_forever, args=(0.01,), daemon=True)
    thread.start()
    yield f"http://127.0.0.1:{server.server_port}"
    server.shutdown()
    server.server_close()
    thread.join()


@pytest.fixture
def comfyui() -> Iterator[str]:
    yield from serving(Answers)


@pytest.fixture
def without_facts() -> Iterator[str]:
    class Fewer(Answers):
        answers: ClassVar[dict[str, Any]] = {route: said for route, said in ANSWERS.items() if route != "/class_facts"}

    yield from serving(Fewer)


@pytest.fixture
def custom_nodes(tmp_path: Path) -> Path:
    """A folder with the pack in it, as a checkout of one commit."""
    checkout = tmp_path / "custom_nodes" / PACK
    checkout.mkdir(parents=True)
    who = ("-c", "user.name=a", "-c", "user.email=a@b.c")
    for words in (["init", "-q"], [*who, "commit", "-q", "--allow-empty", "-m", "one"]):
        subprocess.run(["git", "-C", str(checkout), *words], check=True)
    return checkout.parent


FACTS = {"input": {"required": {"pulid_file": [[], {}], "image": ["IMAGE"]}}, "output": ["PULID"]}


def test_comfyuis_own_classes(comfyui: str, tmp_path: Path) -> None:
    record_object_info.main([comfyui, "--to", str(tmp_path / "info.json")])
    held = json.loads((tmp_path / "info.json").read_text(encoding="utf-8"))
    assert held == {"comfyui_version": "1.2.3", "nodes": {"Loader": FACTS | {"python_module": "nodes"}}}


def test_a_packs_classes(comfyui: str, custom_nodes: Path, tmp_path: Path) -> None:
    record_packs.main([comfyui, str(custom_nodes), PACK, "--to", str(tmp_path)])
    held = json.loads((tmp_path / f"{PACK}.json").read_text(encoding="utf-8"))
    own = {"validates": "*", "takes": {"image": "IMAGE,LATENT"}}
    assert held == {
        "pack": PACK,
        "repo": "https://github.com/cubiq/PuLID_ComfyUI",
        "commit": record_packs.commit_of(custom_nodes / PACK),
        "how": "recorded",
        "nodes": {"PackLoader": FACTS | own},
    }
    assert len(held["commit"]) == 40


def test_a_pack_that_did_not_import_is_told(
    comfyui: str, custom_nodes: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit):
        record_packs.main([comfyui, str(custom_nodes), "ComfyUI_InstantID", "--to", str(tmp_path)])
    assert "has no class of ComfyUI_InstantID" in capsys.readouterr().err


def test_nothing_is_recorded_without_what_classes_check_themselves(without_facts: str, tmp_path: Path) -> None:
    with pytest.raises(requests.HTTPError):
        record_object_info.main([without_facts, "--to", str(tmp_path / "info.json")])
    assert not (tmp_path / "info.json").exists()
