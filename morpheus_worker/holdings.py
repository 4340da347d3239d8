"""What is there: the models and node packs of the volume, and those of the ComfyUI beside it.

Names are looked up as ComfyUI finds them once everything is linked: in the cache, in the official layout's `models`,
and in ComfyUI's own folders. A volume is slow on metadata, so a folder is listed once and answers every question after.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path, PurePosixPath
from typing import Final, Self

from morpheus_worker.comfy.launch import folders_of
from morpheus_worker.errors import Code, MorpheusError
from morpheus_worker.manifest import PACKS_FOLDER, UNFINISHED
from morpheus_worker.settings import Settings

MODELS_FOLDER: Final = "models"
"""Where the official worker's layout keeps models, on the volume."""

_ONE_FOLDER: Final[Mapping[str, tuple[str, ...]]] = {
    "controlnet": ("controlnet", "t2i_adapter"),
    "diffusion_models": ("diffusion_models", "unet"),
    "text_encoders": ("text_encoders", "clip"),
    "ultralytics_bbox": ("ultralytics/bbox",),
    "ultralytics_segm": ("ultralytics/segm",),
}
"""Folders that ComfyUI (0.3.64, folder_paths.py) or a node pack reads under one name."""
_SAME_AS: Final[Mapping[str, str]] = {"unet": "diffusion_models", "clip": "text_encoders"}

_DEEPEST: Final = 8
"""Levels below a model folder at which looking for files ends: a link in it may lead in a circle."""


def sources_of(settings: Settings) -> list[Path]:
    """The folders of models and node packs that are linked into ComfyUI, in their order. They need not exist."""
    return [settings.cache_dir, settings.volume_root / MODELS_FOLDER]


@dataclass(frozen=True, slots=True)
class Holdings:
    """Where to look, and what has been seen there.

    `model_roots` hold folders by ComfyUI's names (`checkpoints`, …), `pack_roots` node packs by their ids; none of them
    need exist. Every method raises MorpheusError, `volume_unavailable`, when a folder that is there cannot be read.
    """

    model_roots: tuple[Path, ...]
    pack_roots: tuple[Path, ...]
    volume_root: Path | None = None
    _listed: dict[Path, Mapping[str, bool]] = field(default_factory=dict, repr=False, compare=False)

    @classmethod
    def of(cls, settings: Settings) -> Self:
        """What a worker with these settings would find.

        Raises:
            SettingsError: when ComfyUI's arguments cannot be used.
        """
        models, packs = sources_of(settings), []
        for source in models:
            packs += [source, source / PACKS_FOLDER]
        comfyui = settings.child_dir
        if comfyui is not None and comfyui.is_dir():
            own = folders_of(comfyui, settings.comfyui_args)
            models.append(own.models)
            packs.append(own.custom_nodes)
        return cls(tuple(models), tuple(packs), settings.volume_root)

    @property
    def present(self) -> bool:
        """Whether there is anywhere to look: a volume, a cache elsewhere, or a ComfyUI with models of its own."""
        places = (self.volume_root, *self.model_roots)
        return any(place is not None and os.path.isdir(place) for place in places)

    def has_model(self, path: PurePosixPath) -> bool:
        """Whether the file or folder is there; `path` is relative to a root, such as `checkpoints/x.safetensors`."""
        folder, _, name = str(path).partition("/")
        return self.has_file(folder, name) if name else any(folder in self._list(root) for root in self.model_roots)

    def has_pack(self, pack_id: str) -> bool:
        """Whether a node pack's folder is there. Case does not count: two spellings would be one pack, loaded twice."""
        wanted = pack_id.casefold()
        return any(
            is_folder and name.casefold() == wanted for root in self.pack_roots for name, is_folder in self._items(root)
        )

    def has_file(self, folder: str, name: str) -> bool:
        """Whether a loader that lists the model folder would find `name`, which may have folders in it, `xl/a.ckpt`."""
        path = PurePosixPath(name)
        if not path.parts or path.is_absolute() or ".." in path.parts:
            return False
        return any(path.name in self._list(place / path.parent) for place in self._places(folder))

    def files(self, folder: str) -> tuple[str, ...]:
        """The names that a loader of the model folder can be given, in their order; unfinished and hidden ones are not
        among them."""
        return tuple(sorted({name for place in self._places(folder) for name in self._walk(place, "", 0)}))

    def _places(self, folder: str) -> Iterator[Path]:
        spellings = _ONE_FOLDER.get(_SAME_AS.get(folder, folder), (folder,))
        return (root / spelling for root in self.model_roots for spelling in spellings)

    def _walk(self, place: Path, above: str, depth: int) -> Iterator[str]:
        for name, is_folder in self._items(place):
            if name.startswith(".") or name.endswith(UNFINISHED):
                continue
            if not is_folder:
                yield from [f"{above}{name}"] if "." in name else []
            elif depth < _DEEPEST:
                yield from self._walk(place / name, f"{above}{name}/", depth + 1)

    def _items(self, folder: Path) -> list[tuple[str, bool]]:
        return list(self._list(folder).items())

    def _list(self, folder: Path) -> Mapping[str, bool]:
        """The names in a folder and whether each is a folder itself; nothing of one that is not there."""
        if folder not in self._listed:
            try:
                self._listed[folder] = _names_in(folder)
            except OSError as failure:
                said = f"{folder} cannot be read: {failure.strerror}"
                raise MorpheusError(Code.VOLUME_UNAVAILABLE, said) from failure
        return self._listed[folder]


def _names_in(folder: Path) -> Mapping[str, bool]:
    with contextlib.suppress(FileNotFoundError, NotADirectoryError), os.scandir(folder) as listing:
        return {entry.name: entry.is_dir() for entry in listing if _leads_somewhere(entry)}
    return {}


def _leads_somewhere(entry: os.DirEntry[str]) -> bool:
    """Only a link costs a look more than the listing."""
    return not entry.is_symlink() or os.path.exists(entry.path)
