"""Records what the real ComfyUI says, scenario by scenario, as data for the tests.

    python tests/recordings/record.py --comfyui DIR --python PY --out tests/recordings [--sd15 FILE] [NAME …]

It starts a ComfyUI of its own in a temporary folder, so nothing of an existing installation is touched. `--sd15` names
a checkpoint as made by tests/tools/make_tiny_models.py; without it the scenarios that need one are left out.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Mapping, Sequence
from dataclasses import replace
from datetime import UTC, datetime
from pathlib import Path
from typing import Any, Final

import requests

if __package__ in (None, ""):
    sys.path.insert(0, str(Path(__file__).resolve().parents[2]))

from tests.comfyui.process import Installation, RealComfyUI, running_comfyui
from tests.contract.live import live
from tests.contract.model import Call, Exchange, Frame, Line, Recording, save
from tests.contract.scenarios import SCENARIOS, Scenario

TRACEBACK_LINES: Final = 2
LONGEST_INPUT: Final = 200
"""Characters that are kept of a node's input in an error message: tensors are spelt out there."""


def record(scenario: Scenario, comfyui: RealComfyUI) -> Recording:
    """Plays the scenario, judges it, and hands it back without anything that belongs to this machine."""
    with live(comfyui.url, scenario.name, comfyui.models) as driver:
        scenario.play(driver)
        seen = driver.recording()
    scenario.check(seen)
    cleaned = scrubbed(seen, names_of_this_machine(comfyui))
    return replace(cleaned, header={"about": scenario.about, "recorded": versions(comfyui)})


def versions(comfyui: RealComfyUI) -> dict[str, str]:
    system = requests.get(f"{comfyui.url}/system_stats", timeout=30).json()["system"]
    return {
        "comfyui": system["comfyui_version"],
        "python": system["python_version"].split()[0],
        "torch": system["pytorch_version"],
        "date": datetime.now(UTC).date().isoformat(),
    }


def names_of_this_machine(comfyui: RealComfyUI) -> dict[str, str]:
    """What to replace by what, the longest first."""
    names = {
        str(comfyui.base_directory): "<base>",
        str(comfyui.installation.directory): "<comfyui>",
        str(comfyui.installation.python.parent.parent): "<environment>",
        comfyui.url: "<url>",
        f"--port={comfyui.url.rpartition(':')[2]}": "--port=<port>",
    }
    resolved = {str(Path(name).resolve()): word for name, word in names.items() if name.startswith("/")}
    both = names | resolved
    return {name: both[name] for name in sorted(both, key=len, reverse=True)}


def scrubbed(seen: Recording, names: Mapping[str, str]) -> Recording:
    """The recording with paths replaced, tracebacks cut to their last lines, and the machine's sizes rounded away."""
    return replace(seen, exchanges=tuple(_scrubbed(exchange, names) for exchange in seen.exchanges))


def _scrubbed(seen: Exchange, names: Mapping[str, str]) -> Exchange:
    match seen:
        case Call():
            return replace(seen, sent=_clean(seen.sent, names), received=_clean(seen.received, names))
        case Frame(content=bytes()):
            return seen
        case Frame():
            return replace(seen, content=_clean(seen.content, names))
        case Line():
            return seen


def _clean(value: Any, names: Mapping[str, str], key: str = "") -> Any:
    if key == "current_inputs":
        return {name: [str(inner)[:LONGEST_INPUT] for inner in values] for name, values in value.items()}
    if isinstance(value, dict):
        return {name: _clean(inner, names, name) for name, inner in value.items()}
    if isinstance(value, list):
        cleaned = [_clean(inner, names, key) for inner in value]
        return _last_lines(cleaned) if key == "traceback" else cleaned
    if isinstance(value, str):
        for name, word in names.items():
            value = value.replace(name, word)
    if isinstance(value, int) and key.startswith(("vram_", "torch_vram_", "ram_")):
        return 1 << 34
    return value


def _last_lines(traceback: list[str]) -> list[str]:
    lines = [line for entry in traceback for line in entry.splitlines() if line.strip(" ^~")]
    return ["\n".join(lines[-TRACEBACK_LINES:]) + "\n"] if lines else []


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--comfyui", type=Path, required=True, metavar="DIR", help="ComfyUI's folder")
    parser.add_argument("--python", type=Path, required=True, metavar="PY", help="the Python that runs it")
    parser.add_argument("--out", type=Path, required=True, metavar="DIR", help="where the recordings go")
    parser.add_argument("--sd15", type=Path, metavar="FILE", help="a checkpoint for the scenarios that need one")
    parser.add_argument("names", nargs="*", metavar="NAME", help="only these scenarios")
    given = parser.parse_args(arguments)
    if unknown := sorted(set(given.names) - set(SCENARIOS)):
        parser.error(f"no such scenario: {', '.join(unknown)}; there are {', '.join(SCENARIOS)}")
    given.out.mkdir(parents=True, exist_ok=True)
    chosen = [SCENARIOS[name] for name in given.names or SCENARIOS]
    with (
        tempfile.TemporaryDirectory(prefix="comfyui-") as base,
        running_comfyui(Installation(given.comfyui, given.python), Path(base), checkpoint=given.sd15) as comfyui,
    ):
        for scenario in chosen:
            if "checkpoint" in scenario.needs and given.sd15 is None:
                print(f"{scenario.name}: left out, it needs --sd15")
                continue
            recording = record(scenario, comfyui)
            save(recording, given.out / f"{scenario.name}.json")
            print(f"{scenario.name}: {len(recording.exchanges)} exchanges")


if __name__ == "__main__":
    main()
