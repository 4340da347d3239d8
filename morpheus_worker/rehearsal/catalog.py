"""The node classes that a rehearsal offers, with the files of the moment among their choices."""

from __future__ import annotations

import mimetypes
import os
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from typing import Any, Final

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import INPUT_FOLDER, folder_of
from morpheus_worker.rehearsal.folders import Folders

MESH_SUFFIXES: Final = frozenset({".gltf", ".glb", ".obj", ".fbx", ".stl"})
EMBEDS_SUFFIX: Final = ".ipadpt"
_SUFFIXES: Final[Mapping[str, frozenset[str]]] = {
    "latent": frozenset({"latent"}),
    "video": frozenset({"webm", "mp4", "mkv", "gif", "mov"}),
}
"""What a loader without an upload flag lists, by its input: ComfyUI's own latents, ComfyUI-VideoHelperSuite clips."""

_UPLOADS: Final[Mapping[str, tuple[str, ...]]] = {
    "image_upload": ("image",),
    "audio_upload": ("audio", "video"),
    "video_upload": ("video",),
}


class Catalog:
    """Object info as a running ComfyUI gives it. `extra_nodes` are classes of node packs, in the same form."""

    def __init__(self, recorded: ObjectInfo, extra_nodes: Mapping[str, Any], folders: Folders) -> None:
        self._raw = {**recorded.raw, **extra_nodes}
        self._own_checks = recorded.own_checks
        self._folders = folders

    def __contains__(self, class_type: object) -> bool:
        return class_type in self._raw

    def describe(self, class_type: str) -> dict[str, Any]:
        """One class as `GET /object_info/{class}` has it."""
        raw = self._raw[class_type]
        inputs = {
            category: {name: self._with_files(class_type, name, config) for name, config in names.items()}
            for category, names in raw.get("input", {}).items()
        }
        return {**raw, "input": inputs}

    def everything(self) -> dict[str, Any]:
        return {class_type: self.describe(class_type) for class_type in self._raw}

    def for_classes(self, class_types: Iterable[Any]) -> ObjectInfo:
        """All classes; those named with the files of the moment, the others as they were recorded."""
        named = {name for name in class_types if isinstance(name, str) and name in self._raw}
        return ObjectInfo({**self._raw, **{name: self.describe(name) for name in named}}, self._own_checks)

    def missing_model(self, class_type: str, inputs: Mapping[str, Any]) -> tuple[str, str] | None:
        """The first (folder, name) that a loader asks for and that is not there. ComfyUI's newer loaders find out
        only when they run."""
        for names in self._raw[class_type].get("input", {}).values():
            for name, config in names.items():
                folder = folder_of(class_type, name, config)
                value = inputs.get(name)
                if folder in (None, INPUT_FOLDER) or not isinstance(value, str):
                    continue
                if value not in self._choices(class_type, name, config):
                    return str(folder), value
        return None

    def _with_files(self, class_type: str, name: str, config: Any) -> Any:
        if folder_of(class_type, name, config) is None:
            return config
        kind, *rest = config
        choices = self._choices(class_type, name, config)
        if isinstance(kind, list):
            return [choices, *rest]
        return [kind, {**rest[0], "options": choices}] if rest else config

    def _choices(self, class_type: str, name: str, config: Any) -> list[str]:
        folder = folder_of(class_type, name, config)
        files = self._input_files(name, config) if folder == INPUT_FOLDER else self._folders.model_files(str(folder))
        recorded = config[0] if isinstance(config[0], list) else config[1].get("options") or ()
        return [*files, *(choice for choice in recorded if choice not in files)]

    def _input_files(self, name: str, config: Any) -> list[str]:
        root = self._folders.input
        if name == "model_file":
            meshes = sorted((root / "3d").rglob("*"))
            return [mesh.relative_to(root).as_posix() for mesh in meshes if mesh.suffix.lower() in MESH_SUFFIXES]
        if name == "directory":
            return sorted(entry.name for entry in os.scandir(root) if entry.is_dir() and entry.name != "clipspace")
        if name == "folder":
            return sorted(path.relative_to(root).as_posix() for path in root.rglob("*") if path.is_dir())
        if name == "embeds":
            return sorted(path.relative_to(root).as_posix() for path in root.rglob(f"*{EMBEDS_SUFFIX}"))
        return sorted(entry.name for entry in os.scandir(root) if entry.is_file() and _fits(name, config)(entry.name))


def _fits(name: str, config: Any) -> Callable[[str], bool]:
    """Whether a file is what the input loads, by its suffix."""
    if name in _SUFFIXES:
        return lambda file: file.rpartition(".")[2].lower() in _SUFFIXES[name]
    options = config[1] if len(config) > 1 else {}
    kinds = next((kinds for flag, kinds in _UPLOADS.items() if options.get(flag)), ())
    return lambda file: _kind(file) in kinds


def _kind(file: str) -> str:
    if Path(file).suffix.lower() == ".webp":
        return "image"
    return (mimetypes.guess_type(file)[0] or "").partition("/")[0]
