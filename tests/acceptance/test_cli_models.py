"""`morpheus models` as a person starts it: real processes, ended in every way, on a terminal and elsewhere."""

from __future__ import annotations

import json
import os
import pty
import re
import signal
import struct
import subprocess
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest

from morpheus_worker.cli.models_stopping import SAID
from morpheus_worker.sync.terms import Pace
from tests.commands import DEADLINE_S, MORPHEUS, own_environment
from tests.integration.model_server import Fault, ModelServer, stalled

PART = Pace().part_bytes
COUNT = PART + PART // 2
HEADER = json.dumps({"w": {"dtype": "U8", "shape": [COUNT], "data_offsets": [0, COUNT]}}).encode()
CONTENT = struct.pack("<Q", len(HEADER)) + HEADER + os.urandom(COUNT)
"""A model that takes two requests, one after the other."""

MANIFEST = """\
version: 1
models:
  - id: base
    path: checkpoints/base.safetensors
    sources: [{{kind: https, url: "{url}"}}]
"""


@dataclass(frozen=True)
class Here:
    folder: Path
    host: ModelServer

    @property
    def model(self) -> Path:
        return self.folder / "volume/morpheus_model_cache/checkpoints/base.safetensors"

    def serves(self, *faults: Fault) -> None:
        url = self.host.file("/base.safetensors", CONTENT, faults=faults)
        (self.folder / "models.yaml").write_text(MANIFEST.format(url=url), encoding="utf-8")

    def started(self, *arguments: str) -> dict[str, Any]:
        """What Popen and run take."""
        ours = {"MORPHEUS_VOLUME_ROOT": str(self.folder / "volume"), "MORPHEUS_SYNC_CONNECTIONS": "1"}
        ours |= {"MORPHEUS_MANIFEST": str(self.folder / "models.yaml")}
        return {"args": [MORPHEUS, "models", *arguments], "env": {**own_environment(), **ours}, "text": True}

    def models(self, *arguments: str) -> subprocess.CompletedProcess[str]:
        return subprocess.run(**self.started(*arguments), capture_output=True, timeout=DEADLINE_S, check=False)

    def stalls_in_the_second_half(self, *arguments: str) -> subprocess.Popen[str]:
        """A sync that waits for bytes which never come. What it is sent once half is there goes on at that half."""
        self.serves(stalled(1000).after(1))
        process = subprocess.Popen(**self.started("sync", *arguments), stdout=subprocess.PIPE, stderr=subprocess.PIPE)
        self.host.wait_for_bytes(PART + 1000)
        return process


@pytest.fixture
def here(tmp_path: Path) -> Iterator[Here]:
    (tmp_path / "volume").mkdir()
    with ModelServer() as host:
        yield Here(tmp_path, host)


def goes_on_from_there(here: Here) -> None:
    """Nothing half is to be seen; the next run asks for no more than was missing, and for what was under way."""
    assert not here.model.exists()
    here.serves()
    ended = here.models("sync")
    assert ended.returncode == 0, ended.stderr
    assert here.model.read_bytes() == CONTENT
    assert here.host.bytes_sent <= len(CONTENT) + PART


@pytest.mark.parametrize(("signum", "code"), [(signal.SIGINT, 130), (signal.SIGTERM, 143)])
def test_one_that_is_asked_to_end_says_that_the_next_goes_on(here: Here, signum: signal.Signals, code: int) -> None:
    process = here.stalls_in_the_second_half("--json")
    process.send_signal(signum)
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == code
    assert err.splitlines()[0] == f"morpheus: {SAID}"
    summary = json.loads(out.splitlines()[-1])
    assert (summary["interrupted"], summary["ok"]) == (True, False)
    assert "Traceback" not in err
    assert "1 not finished" in err
    goes_on_from_there(here)


def test_one_that_is_killed_leaves_what_the_next_goes_on_from(here: Here) -> None:
    process = here.stalls_in_the_second_half()
    process.kill()
    process.communicate(timeout=DEADLINE_S)
    goes_on_from_there(here)


def test_what_a_shell_put_into_the_background_hears_no_keyboard(here: Here) -> None:
    """A shell without job control starts `command &` with SIGINT ignored."""
    go_on = threading.Event()
    here.serves(stalled(1000, go_on))
    command = here.started("sync", "--json")
    process = subprocess.Popen(
        **{**command, "args": ["sh", "-c", 'trap "" INT; exec "$@"', "sh", *command["args"]]},
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
    )
    here.host.wait_for_bytes(1000)
    process.send_signal(signal.SIGINT)
    go_on.set()
    out, err = process.communicate(timeout=DEADLINE_S)
    assert process.returncode == 0, err
    assert json.loads(out.splitlines()[-1])["ok"]


def on_a_terminal(here: Here, *arguments: str) -> tuple[int, str]:
    """How the command ended, and what the terminal got, without colours and movements."""
    leader, follower = pty.openpty()
    command = here.started(*arguments)
    command["env"] = {**command["env"], "TERM": "xterm", "COLUMNS": "120", "LINES": "40"}
    process = subprocess.Popen(**command, stdin=follower, stdout=follower, stderr=follower)
    os.close(follower)
    got = b""
    try:
        while block := os.read(leader, 65536):
            got += block
    except OSError:
        pass  # Linux says so when the last one closes the terminal.
    finally:
        os.close(leader)
    return process.wait(DEADLINE_S), re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", got.decode())


def test_on_a_terminal_there_are_bars_and_a_table(here: Here) -> None:
    here.serves()
    code, seen = on_a_terminal(here, "sync")
    assert code == 0
    assert "base: 12.6 MB in " in seen
    assert "1 fetched (12.6 MB in " in seen
    assert '"event"' not in seen
    code, seen = on_a_terminal(here, "status")
    assert code == 0
    assert "licence" in seen
    assert "verified" in seen


def test_a_reader_that_has_seen_enough_ends_no_sync(here: Here) -> None:
    here.serves()
    command = here.started("sync")
    script = 'set -o pipefail; "$@" | head -n 1'
    ended = subprocess.run(
        **{**command, "args": ["bash", "-c", script, "bash", *command["args"]]},
        capture_output=True,
        timeout=DEADLINE_S,
        check=False,
    )
    assert ended.returncode == 0, ended.stderr
    assert len(ended.stdout.splitlines()) == 1
    assert here.model.read_bytes() == CONTENT
