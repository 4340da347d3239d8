"""The shipped templates' graphs, and the files that a ComfyUI needs before it accepts them."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final

from PIL import Image

from morpheus_worker.comfy.objectinfo import InputInfo
from morpheus_worker.comfy.recorded import INPUT_FOLDER, folder_of, load_known
from morpheus_worker.comfy.wording import MODEL_SUFFIXES
from morpheus_worker.library import Library
from morpheus_worker.templates.variations import bind_variation, variations

PICTURE: Final = "morpheus_check.png"


def shipped_graphs(folder: Path) -> dict[str, dict[str, Any]]:
    """What the templates of a folder become in each of their variations, by the template's name and the variation.

    Media are all one picture, and made-up names of models get an ending that ComfyUI lists.
    """
    graphs = {
        f"{template.name}: {variation.sentence}": bind_variation(template, variation)
        for template in (each.seen_by(load_known()) for each in Library.load(folder))
        for variation in variations(template)
    }
    for graph in graphs.values():
        for inputs, wanted, model_folder in _files_in(graph):
            if model_folder is None:
                inputs[wanted.name] = PICTURE
            elif not inputs[wanted.name].endswith(MODEL_SUFFIXES):
                inputs[wanted.name] += MODEL_SUFFIXES[0]
    return graphs


def place_files(graphs: Iterable[Mapping[str, Any]], base_directory: Path) -> None:
    """Empty files for every model that the graphs name, and the picture for their loaders."""
    (base_directory / "input").mkdir(parents=True, exist_ok=True)
    Image.new("RGB", (16, 16)).save(base_directory / "input" / PICTURE)
    for graph in graphs:
        for inputs, wanted, folder in _files_in(graph):
            if folder is not None:
                path = base_directory / "models" / folder / inputs[wanted.name]
                path.parent.mkdir(parents=True, exist_ok=True)
                path.touch()


def _files_in(graph: Mapping[str, Any]) -> Iterator[tuple[dict[str, Any], InputInfo, str | None]]:
    """The inputs that name a file: those of the node, which one, and the model folder, or None for a picture."""
    for node in graph.values():
        known = load_known().get(node["class_type"])
        for wanted in known.inputs.values() if known else ():
            if not isinstance(node["inputs"].get(wanted.name), str):
                continue
            folder = folder_of(node["class_type"], wanted.name, [wanted.type, wanted.options])
            if folder is not None:
                yield node["inputs"], wanted, None if folder == INPUT_FOLDER else folder
