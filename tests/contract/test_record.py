"""What the recorder keeps, and what it takes out."""

from __future__ import annotations

from pathlib import Path

from tests.comfyui.process import Installation, RealComfyUI
from tests.recordings.record import LONGEST_INPUT, names_of_this_machine, scrubbed

from .live import Models
from .model import Call, Frame, Line, Recording

COMFYUI = RealComfyUI(
    url="http://127.0.0.1:45678",
    base_directory=Path("/home/someone/base"),
    models=Models("tiny.safetensors"),
    installation=Installation(Path("/home/someone/ComfyUI"), Path("/home/someone/venv/bin/python")),
    pid=1,
    log=Path("/home/someone/base/comfyui.log"),
)


def clean(seen: Call | Frame | Line) -> Call | Frame | Line:
    return scrubbed(Recording("any", [seen]), names_of_this_machine(COMFYUI)).exchanges[0]


def test_paths_become_words() -> None:
    argv = ["/home/someone/ComfyUI/main.py", "--port=45678", "--base-directory=/home/someone/base"]
    seen = clean(Call(0, "GET", "/system_stats", None, 200, {"system": {"argv": argv, "ram_total": 123}}))
    assert isinstance(seen, Call)
    said = seen.received["system"]
    assert said["argv"] == ["<comfyui>/main.py", "--port=<port>", "--base-directory=<base>"]
    assert said["ram_total"] != 123


def test_tracebacks_keep_their_last_two_lines() -> None:
    traceback = [
        '  File "/home/someone/ComfyUI/execution.py", line 1, in execute\n    one()\n    ~~~^^\n',
        '  File "/home/someone/venv/lib/PIL/Image.py", line 2, in open\n    two()\n    ~~~^^\n',
    ]
    seen = clean(Frame(0, "a", {"type": "execution_error", "data": {"traceback": traceback}}))
    assert isinstance(seen, Frame)
    assert seen.data["traceback"] == ['  File "<environment>/lib/PIL/Image.py", line 2, in open\n    two()\n']


def test_tensors_are_cut() -> None:
    inputs = {"image": ["tensor(" + "0.0000, " * 1000], "width": [16]}
    seen = clean(Frame(0, "a", {"type": "execution_error", "data": {"current_inputs": inputs}}))
    assert isinstance(seen, Frame)
    assert len(seen.data["current_inputs"]["image"][0]) == LONGEST_INPUT
    assert seen.data["current_inputs"]["width"] == ["16"]


def test_bytes_stay_as_they_are() -> None:
    frame = Frame(0, "a", b"\x00\x00\x00\x01/home/someone/base")
    assert clean(frame) == frame
