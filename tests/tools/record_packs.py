"""Writes what travels with the project about node packs, one file a pack, from a running ComfyUI that has them:

    python -m tests.tools.record_packs http://127.0.0.1:8188 CUSTOM_NODES [PACK_ID …]

CUSTOM_NODES is that ComfyUI's folder of packs, each a git checkout under its id; tests/tools/class_facts_node.py lies
beside them. A pack whose classes were read from its source is not touched unless it is named.
"""

from __future__ import annotations

import argparse
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from morpheus_worker.comfy import recorded
from morpheus_worker.comfy.compact import as_text
from tests.tools.record_object_info import ask

DESTINATION: Final = Path(recorded.__file__).parent / recorded.PACKS_FOLDER

REPOS: Final[Mapping[str, str]] = {
    "ComfyUI-Advanced-ControlNet": "https://github.com/Kosinkadink/ComfyUI-Advanced-ControlNet",
    "ComfyUI-AdvancedLivePortrait": "https://github.com/PowerHouseMan/ComfyUI-AdvancedLivePortrait",
    "ComfyUI-Impact-Subpack": "https://github.com/ltdrdata/ComfyUI-Impact-Subpack",
    "ComfyUI-PuLID": "https://github.com/cubiq/PuLID_ComfyUI",
    "ComfyUI-VideoHelperSuite": "https://github.com/Kosinkadink/ComfyUI-VideoHelperSuite",
    "ComfyUI_IPAdapter_plus": "https://github.com/cubiq/ComfyUI_IPAdapter_plus",
    "ComfyUI_InstantID": "https://github.com/cubiq/ComfyUI_InstantID",
    "comfyui_controlnet_aux": "https://github.com/Fannovel16/comfyui_controlnet_aux",
}


def of_pack(pack_id: str, facts: Mapping[str, Any]) -> dict[str, Any]:
    """The facts of the pack's classes, without the module that follows from its id."""
    module = recorded.CUSTOM_MODULE + pack_id
    return {
        name: {key: value for key, value in fact.items() if key != "python_module"}
        for name, fact in facts.items()
        if fact["python_module"] == module
    }


def commit_of(checkout: Path) -> str:
    """The commit that a checkout stands at."""
    asked = ["git", "-C", str(checkout), "rev-parse", "HEAD"]
    return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()


def main(arguments: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("base_url", help="where ComfyUI listens")
    parser.add_argument("custom_nodes", type=Path, help="its folder of packs")
    parser.add_argument("pack", nargs="*", default=list(REPOS), help="ids (default: all that are known to import)")
    parser.add_argument("--to", type=Path, default=DESTINATION, help="the folder to write to (default: %(default)s)")
    asked = parser.parse_args(arguments)
    _, facts = ask(asked.base_url)
    for pack_id in asked.pack:
        if not (nodes := of_pack(pack_id, facts)):
            parser.error(f"{asked.base_url} has no class of {pack_id}: did it import?")
        commit = commit_of(asked.custom_nodes / pack_id)
        head = {"pack": pack_id, "repo": REPOS[pack_id], "commit": commit, "how": "recorded"}
        target = asked.to / f"{pack_id}.json"
        target.write_text(as_text(head, nodes), encoding="utf-8")
        print(f"{target}: {len(nodes)} classes at {commit}, {target.stat().st_size} bytes")


if __name__ == "__main__":
    main()
