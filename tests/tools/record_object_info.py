"""Writes the compact object info that travels with the project, from a running ComfyUI:

    python -m tests.tools.record_object_info http://127.0.0.1:8188

The ComfyUI should run without custom nodes. Facts only: types, ranges, defaults, choices, flags, the order of inputs.
Prose (tooltips, descriptions, names for display) and paid API nodes are left out, and so are the names of files.
"""

from __future__ import annotations

import argparse
import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import requests

from morpheus_worker.comfy import recorded

DESTINATION: Final = Path(recorded.__file__).with_name(recorded.RECORDED_NAME)
TIMEOUT_S: Final = 120.0
KEPT_OPTIONS: Final = frozenset(
    {
        *("default", "min", "max", "step", "round", "multiline", "multiselect", "options", "forceInput", "lazy"),
        *("image_upload", "audio_upload", "video_upload", "file_upload", "image_folder", "control_after_generate"),
        *("dynamicPrompts", "rawLink"),
    }
)
CONSTANT_CHOICES: Final = frozenset({"pixel_space", "[None]"})
"""Choices that stand in a list of files without being one."""


def compact(described: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of each class, by its name, from ComfyUI's `GET /object_info`."""
    return {name: _facts(name, raw) for name, raw in described.items() if not raw.get("api_node")}


def _facts(class_type: str, raw: Mapping[str, Any]) -> dict[str, Any]:
    output = list(raw["output"])
    facts: dict[str, Any] = {
        "input": {category: _inputs(class_type, inputs) for category, inputs in raw["input"].items()},
        "output": output,
        "python_module": raw["python_module"],
    }
    if any(raw["output_is_list"]):
        facts["output_is_list"] = list(raw["output_is_list"])
    if list(raw["output_name"]) != output:
        facts["output_name"] = list(raw["output_name"])
    if raw["output_node"]:
        facts["output_node"] = True
    if raw.get("api_node") is False:
        facts["api_node"] = False
    return facts


def _inputs(class_type: str, inputs: Mapping[str, Any]) -> dict[str, Any]:
    return {name: _input(class_type, name, config) for name, config in inputs.items()}


def _input(class_type: str, name: str, config: Any) -> Any:
    if not isinstance(config, list):
        return config
    kind, *rest = config
    lists_files = recorded.folder_of(class_type, name, config) is not None
    if isinstance(kind, list) and lists_files:
        kind = _constants(kind)
    if not rest:
        return [kind]
    options = {option: value for option, value in rest[0].items() if option in KEPT_OPTIONS}
    if lists_files and "options" in options:
        options["options"] = _constants(options["options"])
    return [kind, options]


def _constants(choices: Sequence[Any]) -> list[Any]:
    return [choice for choice in choices if choice in CONSTANT_CHOICES]


def write(version: str, nodes: Mapping[str, Any], destination: Path) -> None:
    """One class a line, in alphabetical order, so that a change of one class is a change of one line."""
    lines = [f"{json.dumps(name)}: {json.dumps(nodes[name], separators=(',', ':'))}" for name in sorted(nodes)]
    head = f'{{"comfyui_version": {json.dumps(version)},\n"nodes": {{\n'
    destination.write_text(head + ",\n".join(lines) + "\n}}\n", encoding="utf-8")


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", help="where ComfyUI listens")
    parser.add_argument("--to", type=Path, default=DESTINATION, help="the file to write (default: %(default)s)")
    asked = parser.parse_args(arguments)
    with requests.Session() as session:
        session.trust_env = False
        stats = session.get(f"{asked.base_url}/system_stats", timeout=TIMEOUT_S).json()
        described = session.get(f"{asked.base_url}/object_info", timeout=TIMEOUT_S).json()
    version = stats["system"]["comfyui_version"]
    nodes = compact(described)
    write(version, nodes, asked.to)
    print(f"{asked.to}: {len(nodes)} classes of ComfyUI {version}, {asked.to.stat().st_size} bytes")


if __name__ == "__main__":
    main()
