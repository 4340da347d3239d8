"""Writes the compact object info that travels with the project, from a running ComfyUI:

    python -m tests.tools.record_object_info http://127.0.0.1:8188

The ComfyUI should run without custom nodes but for tests/tools/class_facts_node.py, copied into its custom_nodes. Paid
API nodes are left out, and so are the names of files.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

import requests

from morpheus_worker.comfy import recorded
from morpheus_worker.comfy.compact import as_text, compact

DESTINATION: Final = Path(recorded.__file__).with_name(recorded.RECORDED_NAME)
TIMEOUT_S: Final = 120.0


def ask(base_url: str) -> tuple[str, dict[str, Any]]:
    """The version of a ComfyUI, and the facts of its classes by their name.

    Raises:
        requests.HTTPError: when it lacks the node that tells what each class checks itself.
    """
    with requests.Session() as session:
        session.trust_env = False

        def get(path: str) -> Any:
            answer = session.get(f"{base_url}{path}", timeout=TIMEOUT_S)
            answer.raise_for_status()
            return answer.json()

        described, class_facts = get("/object_info"), get("/class_facts")
        version: str = get("/system_stats")["system"]["comfyui_version"]
    return version, travelling(described, class_facts)


def travelling(described: Mapping[str, Any], class_facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts that the project keeps: no paid node, no file of the machine that was asked."""
    ours = {name: {**raw, **class_facts.get(name, {})} for name, raw in described.items() if not raw.get("api_node")}
    return compact(ours, files=False)


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", help="where ComfyUI listens")
    parser.add_argument("--to", type=Path, default=DESTINATION, help="the file to write (default: %(default)s)")
    asked = parser.parse_args(arguments)
    version, facts = ask(asked.base_url)
    nodes = {name: fact for name, fact in facts.items() if not fact["python_module"].startswith(recorded.CUSTOM_MODULE)}
    asked.to.write_text(as_text({"comfyui_version": version}, nodes), encoding="utf-8")
    print(f"{asked.to}: {len(nodes)} classes of ComfyUI {version}, {asked.to.stat().st_size} bytes")


if __name__ == "__main__":
    main()
