"""The folders that a ComfyUI works in, and how it names files in them.

Source: ComfyUI 0.3.64, folder_paths.py.
"""

from __future__ import annotations

import os
import re
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Final, Literal

FolderType = Literal["input", "output", "temp"]

_WEIGHTS: Final = frozenset({".ckpt", ".pt", ".pt2", ".bin", ".pth", ".safetensors", ".pkl", ".sft"})
MODEL_FOLDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "checkpoints": ("checkpoints",),
    "configs": ("configs",),
    "loras": ("loras",),
    "vae": ("vae",),
    "text_encoders": ("text_encoders", "clip"),
    "diffusion_models": ("unet", "diffusion_models"),
    "clip_vision": ("clip_vision",),
    "style_models": ("style_models",),
    "embeddings": ("embeddings",),
    "diffusers": ("diffusers",),
    "vae_approx": ("vae_approx",),
    "controlnet": ("controlnet", "t2i_adapter"),
    "gligen": ("gligen",),
    "upscale_models": ("upscale_models",),
    "custom_nodes": (),
    "hypernetworks": ("hypernetworks",),
    "photomaker": ("photomaker",),
    "classifiers": ("classifiers",),
    "model_patches": ("model_patches",),
    "audio_encoders": ("audio_encoders",),
}
"""ComfyUI's names for model folders, each with its places under `models/`."""

PACK_FOLDERS: Final[Mapping[str, tuple[str, ...]]] = {
    "ComfyUI-Impact-Pack": ("onnx", "sams", "ultralytics"),
    "ComfyUI-Impact-Subpack": ("ultralytics", "ultralytics_bbox", "ultralytics_segm"),
    "ComfyUI-PuLID": ("pulid",),
    "ComfyUI_IPAdapter_plus": ("ipadapter",),
    "ComfyUI_InstantID": ("instantid",),
}
"""The model folders that node packs add to ComfyUI's. Each is at a place of its own name, but for two."""

_PACK_PLACES: Final = {"ultralytics_bbox": "ultralytics/bbox", "ultralytics_segm": "ultralytics/segm"}

_SUFFIXES: Final[Mapping[str, frozenset[str]]] = {
    "configs": frozenset({".yaml"}),
    "classifiers": frozenset({""}),
    "onnx": frozenset({".onnx"}),
}
_OLDER_NAMES: Final[Mapping[str, str]] = {"unet": "diffusion_models", "clip": "text_encoders"}
_ANNOTATION: Final = re.compile(r".?\[(output|input|temp)\]\Z", re.DOTALL)


class OutsideError(ValueError):
    """A path that leads out of the folder it belongs to."""

    exception_type: Final = "Exception"
    """ComfyUI raises a plain one."""


@dataclass(frozen=True, slots=True)
class Target:
    """Where a node saves: `<folder>/<name>_<number>_<suffix>`, the first free number being `first`."""

    folder: Path
    subfolder: str
    name: str
    first: int

    def file(self, index: int, suffix: str) -> str:
        """The name of the `index`th file that the node saves."""
        return f"{self.name.replace('%batch_num%', str(index))}_{self.first + index:05}_{suffix}"


@dataclass(frozen=True, slots=True)
class Folders:
    """A ComfyUI's folders, and the names of models that are to count as present without being there."""

    base: Path
    input: Path
    output: Path
    temp: Path
    model_names: Mapping[str, Sequence[str]]

    @property
    def models(self) -> Path:
        return self.base / "models"

    def create(self) -> None:
        for folder in (self.input, self.output, self.temp, self.models, self.base / "custom_nodes"):
            folder.mkdir(parents=True, exist_ok=True)

    def of(self, kind: str) -> Path | None:
        """The folder that a file's `type` names, or None."""
        return {"input": self.input, "output": self.output, "temp": self.temp}.get(kind)

    def annotated(self, name: str, default: FolderType = "input") -> Path:
        """The path of a loader's value: `a.png` in the input folder, `a.png [output]` in the output folder."""
        found = _ANNOTATION.search(name)
        folder = self.of(found[1] if found else default)
        assert folder is not None, "the pattern names only folders that exist"
        # A path from the root stays one, as in ComfyUI.
        return folder / (name[: found.start()] if found else name)

    def exists(self, name: str) -> bool:
        """Whether a loader's value names something that exists."""
        try:
            return self.annotated(name).exists()
        except (OSError, ValueError):
            return False

    def target(self, prefix: str, kind: FolderType, width: int = 0, height: int = 0) -> Target:
        """Where a node with this `filename_prefix` saves; makes the folder.

        Raises:
            OutsideError: when the prefix leads out of the folder.
        """
        root = Path(os.path.abspath(self.of(kind) or self.output))
        filled = os.path.normpath(_filled(prefix, width, height))
        subfolder, name = os.path.split(filled)
        folder = Path(os.path.abspath(root / subfolder))
        if not folder.is_relative_to(root):
            raise OutsideError(
                "**** ERROR: Saving image outside the output folder is not allowed."
                f"\n full_output_folder: {folder}\n         output_dir: {root}"
                f"\n         commonpath: {os.path.commonpath((root, folder))}"
            )
        folder.mkdir(parents=True, exist_ok=True)
        return Target(folder, subfolder, name, _next_number(folder, name))

    def model_files(self, folder: str) -> list[str]:
        """What ComfyUI lists for a model folder: files that exist there, and the names that count as present."""
        name = _OLDER_NAMES.get(folder, folder)
        suffixes = _SUFFIXES.get(name, _WEIGHTS)
        found = {
            file.relative_to(root).as_posix()
            for place in MODEL_FOLDERS.get(name, (_PACK_PLACES.get(name, name),))
            for root in (self.models / place,)
            for file in (_folders(root) if name == "diffusers" else _files(root))
            if name == "diffusers" or file.suffix.lower() in suffixes
        }
        named = [
            given for key, names in self.model_names.items() if _OLDER_NAMES.get(key, key) == name for given in names
        ]
        return sorted(found.union(named))


def _filled(prefix: str, width: int, height: int) -> str:
    now = time.localtime()
    known = {"width": str(width), "height": str(height), "year": str(now.tm_year)}
    for name, value in (
        ("month", now.tm_mon),
        ("day", now.tm_mday),
        ("hour", now.tm_hour),
        ("minute", now.tm_min),
        ("second", now.tm_sec),
    ):
        known[name] = f"{value:02}"
    return re.sub(r"%(\w+)%", lambda found: known.get(found[1], found[0]), prefix)


def _next_number(folder: Path, name: str) -> int:
    taken = re.compile(re.escape(name) + r"_(\d+)")
    return max((int(found[1]) for entry in os.listdir(folder) if (found := taken.match(entry))), default=0) + 1


def _files(root: Path) -> Iterator[Path]:
    for folder, _, names in _walk(root):
        yield from (folder / name for name in names)


def _folders(root: Path) -> Iterator[Path]:
    """Folders of models in diffusers' layout, which have an index."""
    for folder, _, names in _walk(root):
        if "model_index.json" in names:
            yield folder


def _walk(root: Path) -> Iterator[tuple[Path, list[str], list[str]]]:
    """Like `os.walk`, through links, but into each folder once."""
    seen: set[str] = set()
    for folder, folders, names in os.walk(root, followlinks=True):
        real = os.path.realpath(folder)
        if real in seen:
            folders.clear()
            continue
        seen.add(real)
        yield Path(folder), folders, names
