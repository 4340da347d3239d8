"""Results of the last prompt, kept for the next one as ComfyUI keeps them.

Source: ComfyUI 0.3.64, comfy_execution/caching.py `HierarchicalCache`: what the current prompt has no node for is
forgotten when it starts. A saver is cached like any other node, so a prompt that runs again names the old file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Hashable, Mapping
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.rehearsal.folders import Folders
from morpheus_worker.rehearsal.schedule import Graph, Signatures

_HASHED: Final[Mapping[str, str]] = {
    "LoadImage": "image",
    "LoadImageMask": "image",
    "LoadImageOutput": "image",
    "LoadAudio": "audio",
    "LoadLatent": "latent",
    "VHS_LoadVideo": "video",
    "VHS_LoadVideoFFmpeg": "video",
}
"""Loaders that run again when the content of the file has changed, with the input that names it."""

_DATED: Final[Mapping[str, str]] = {"LoadVideo": "file"}
"""Loaders that run again when the file's time has changed."""


@dataclass(frozen=True, slots=True)
class Report:
    """What a node reported to show. A node with the same signature shows it too, as that node's."""

    node_id: str
    output: Mapping[str, Any]

    def meta(self) -> dict[str, Any]:
        """As the history's `meta` has it."""
        return {
            "node_id": self.node_id,
            "display_node": self.node_id,
            "parent_node": None,
            "real_node_id": self.node_id,
        }


class Cache:
    """Outputs and reports by signature, of the nodes of one prompt."""

    def __init__(self) -> None:
        self._outputs: dict[Hashable, tuple[Any, ...]] = {}
        self._reports: dict[Hashable, Report] = {}
        self._signatures: Signatures | None = None

    def begin(self, graph: Graph, object_info: ObjectInfo, folders: Folders) -> None:
        """Turns to a new prompt, and forgets what it has no use for."""
        self._signatures = Signatures(
            graph,
            fingerprint=lambda node_id: _fingerprint(graph[node_id], folders),
            knows_its_id=lambda class_type: _knows_its_id(object_info, class_type),
        )
        used = self._signatures.used()
        self._outputs = {key: value for key, value in self._outputs.items() if key in used}
        self._reports = {key: value for key, value in self._reports.items() if key in used}

    def forget(self) -> None:
        self._outputs.clear()
        self._reports.clear()

    def outputs(self, node_id: str) -> tuple[Any, ...] | None:
        return self._outputs.get(self._key(node_id))

    def report(self, node_id: str) -> Report | None:
        return self._reports.get(self._key(node_id))

    def keep(self, node_id: str, outputs: tuple[Any, ...], report: Mapping[str, Any] | None) -> None:
        self._outputs[self._key(node_id)] = outputs
        if report:
            self._reports[self._key(node_id)] = Report(node_id, report)

    def _key(self, node_id: str) -> Hashable:
        assert self._signatures is not None, "begin() comes first"
        return self._signatures[node_id]


def _fingerprint(node: Mapping[str, Any], folders: Folders) -> Hashable:
    """What a loader's file is like now; None for any other node. A file that cannot be read is never the same."""
    name = node["inputs"].get(_HASHED.get(node["class_type"], "") or _DATED.get(node["class_type"], ""))
    if not isinstance(name, str) or is_link(name):
        return None
    path = folders.annotated(name)
    try:
        if node["class_type"] in _DATED:
            return path.stat().st_mtime
        with path.open("rb") as file:
            return hashlib.file_digest(file, "sha256").hexdigest()
    except OSError:
        return object()


def _knows_its_id(object_info: ObjectInfo, class_type: str) -> bool:
    """Whether a node's result depends on its own id, because it asks for it."""
    hidden = object_info.raw[class_type].get("input", {}).get("hidden") or {}
    return any(kind == "UNIQUE_ID" for kind in hidden.values())
