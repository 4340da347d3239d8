"""How to get what is missing: which entry of the manifest it is, and the command that fetches it."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Final

from morpheus_worker.manifest import Manifest, ModelEntry

SYNC: Final = "morpheus models sync"

MOST_IDS: Final = 4
"""More ids than that are not written into a command."""

_OTHER_NAMES: Final[Mapping[str, str]] = {"diffusion_models": "unet", "text_encoders": "clip"}
"""Folders that ComfyUI (0.3.64, folder_paths.py) reads under one name."""


def command_for(ids: Sequence[str] = (), workflow: str | None = None) -> str:
    """The command that fetches these entries, or what a workflow needs; without either, everything."""
    if workflow is not None:
        return f"{SYNC} --workflow {workflow}"
    return " ".join([SYNC, *ids]) if len(ids) <= MOST_IDS else SYNC


def hint_for(ids: Sequence[str] = (), workflow: str | None = None) -> str:
    """The same as a hint."""
    many = workflow is not None or len(ids) != 1
    return f"'{command_for(ids, workflow)}' fetches {'them' if many else 'it'}"


def entry_for(manifest: Manifest, folder: str, name: str) -> ModelEntry | None:
    """The entry of the model that a loader of this folder calls so."""
    places = {f"{each}/{name}" for each in (folder, _OTHER_NAMES.get(folder, folder))}
    return next((entry for entry in manifest.models if not places.isdisjoint(_places(entry))), None)


def fetchable(entries: Iterable[ModelEntry]) -> list[str]:
    """The ids of those that have a source, each once."""
    return list(dict.fromkeys(entry.id for entry in entries if entry.sources))


def _places(entry: ModelEntry) -> set[str]:
    return {str(place) for place in (entry.path, *entry.also)}
