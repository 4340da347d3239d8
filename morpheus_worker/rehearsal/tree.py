"""A folder that looks like ComfyUI's and starts the rehearsal engine, for whoever starts ComfyUI as a child."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import morpheus_worker
from morpheus_worker.comfy.recorded import recorded_version
from morpheus_worker.rehearsal.folders import MODEL_FOLDERS

_MAIN: Final = '''"""Starts the rehearsal engine in the place of ComfyUI, with ComfyUI's own flags."""

import sys
from pathlib import Path

sys.path.insert(0, {package_parent!r})

from morpheus_worker.rehearsal.__main__ import main

main(base_directory=Path(__file__).resolve().parent)
'''


def install_tree(directory: Path) -> None:
    """Writes `main.py`, `comfyui_version.py` and the folders of a fresh ComfyUI. Run `main.py` with a Python that has
    the worker's dependencies."""
    places = {place for named in MODEL_FOLDERS.values() for place in named}
    for folder in (*(f"models/{place}" for place in sorted(places)), "input", "output", "custom_nodes"):
        (directory / folder).mkdir(parents=True, exist_ok=True)
    package_parent = str(Path(morpheus_worker.__file__).resolve().parent.parent)
    (directory / "main.py").write_text(_MAIN.format(package_parent=package_parent), encoding="utf-8")
    (directory / "comfyui_version.py").write_text(f'__version__ = "{recorded_version()}"\n', encoding="utf-8")
