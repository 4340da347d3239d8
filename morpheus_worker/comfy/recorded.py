"""The object info that travels with the project: facts about the nodes of a real ComfyUI, and of the packs whose nodes
the shipped workflows use. No prose.

`object_info.json` holds ComfyUI's own classes and `packs/<pack id>.json` a pack's, in the form of `compact`;
tests/tools/record_object_info.py and tests/tools/record_packs.py write them. Inputs that list files of one machine are
recorded without them, and `folder_of` says which folder they list.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from functools import cache
from importlib import resources
from types import MappingProxyType
from typing import Any, Final, Literal

from morpheus_worker.comfy.compact import expand, input_names, own_checks_in
from morpheus_worker.comfy.folders import INPUT_FOLDER, folder_of
from morpheus_worker.comfy.objectinfo import ObjectInfo, OwnChecks

__all__ = [
    "INPUT_FOLDER",
    "RECORDED_NAME",
    "RecordedPack",
    "folder_of",
    "load_known",
    "load_recorded",
    "pack_of",
    "recorded_packs",
    "recorded_version",
    "with_own_checks",
]

RECORDED_NAME: Final = "object_info.json"
PACKS_FOLDER: Final = "packs"
CUSTOM_MODULE: Final = "custom_nodes."
"""How the `python_module` of a pack's class begins; the name of its folder follows."""


@dataclass(frozen=True, slots=True)
class RecordedPack:
    """A node pack whose classes are known. `id` is its folder under custom_nodes, `commit` the one that was read.

    `how` says where the facts come from: `recorded` from the pack running in ComfyUI, `source` from its code.
    `others` are further classes of the pack, of which only the names are known.
    """

    id: str
    repo: str
    commit: str
    how: Literal["recorded", "source"]
    class_types: frozenset[str]
    others: frozenset[str] = frozenset()


@cache
def load_recorded() -> ObjectInfo:
    """Every node class of the recorded ComfyUI, in the shape of its own `GET /object_info`."""
    return ObjectInfo({name: expand(name, facts) for name, facts in _recording()["nodes"].items()}, _core_checks)


@cache
def load_known() -> ObjectInfo:
    """Every node class of the recorded ComfyUI and of the recorded packs."""
    packs = {name: described for pack in _packs().values() for name, described in _expanded(pack)}
    return ObjectInfo({**load_recorded().raw, **packs}, _known_checks)


def recorded_version() -> str:
    """The version of the ComfyUI that was recorded, e.g. `0.3.64`."""
    return str(_recording()["comfyui_version"])


@cache
def recorded_packs() -> Mapping[str, RecordedPack]:
    """The packs whose classes are known, by their id."""
    return MappingProxyType(
        {
            pack_id: RecordedPack(
                id=pack_id,
                repo=pack["repo"],
                commit=pack["commit"],
                how=pack["how"],
                class_types=frozenset(pack["nodes"]),
                others=frozenset(pack.get("others", ())),
            )
            for pack_id, pack in _packs().items()
        }
    )


def pack_of(class_type: str) -> str | None:
    """The id of the recorded pack that has the class; None for ComfyUI's own and for classes that nobody recorded."""
    return _packs_by_class().get(class_type)


def with_own_checks(described: Mapping[str, Any]) -> ObjectInfo:
    """The object info of any ComfyUI, from its `GET /object_info`, with what is known of the checks that its classes
    make themselves: of those that have the inputs they had when they were recorded."""

    def own_checks(class_type: str) -> OwnChecks | None:
        facts, raw = _facts(class_type), described.get(class_type)
        return own_checks_in(facts) if facts is not None and raw is not None and _same(class_type, facts, raw) else None

    return ObjectInfo(described, own_checks)


def _same(class_type: str, facts: Mapping[str, Any], raw: Mapping[str, Any]) -> bool:
    """Whether a ComfyUI's class is the one that was recorded, as far as its inputs tell. A pack's folder may have
    another name there."""
    is_custom = str(raw.get("python_module", "")).startswith(CUSTOM_MODULE)
    return is_custom == (pack_of(class_type) is not None) and set(input_names(facts)) == set(input_names(raw))


def _facts(class_type: str) -> Mapping[str, Any] | None:
    core: Mapping[str, Any] | None = _recording()["nodes"].get(class_type)
    if core is not None:
        return core
    pack_id = pack_of(class_type)
    return _packs()[pack_id]["nodes"].get(class_type) if pack_id else None


def _known_checks(class_type: str) -> OwnChecks | None:
    facts = _facts(class_type)
    return None if facts is None else own_checks_in(facts)


def _core_checks(class_type: str) -> OwnChecks | None:
    facts = _recording()["nodes"].get(class_type)
    return None if facts is None else own_checks_in(facts)


def _expanded(pack: Mapping[str, Any]) -> Iterator[tuple[str, dict[str, Any]]]:
    for name, facts in pack["nodes"].items():
        yield name, expand(name, facts, python_module=CUSTOM_MODULE + pack["pack"])


@cache
def _packs_by_class() -> Mapping[str, str]:
    packs = recorded_packs().values()
    return {name: pack.id for pack in packs for name in pack.others} | {
        name: pack.id for pack in packs for name in pack.class_types
    }


@cache
def _packs() -> Mapping[str, Mapping[str, Any]]:
    folder = resources.files("morpheus_worker.comfy").joinpath(PACKS_FOLDER)
    files = sorted((file for file in folder.iterdir() if file.name.endswith(".json")), key=lambda file: file.name)
    packs = (json.loads(file.read_text(encoding="utf-8")) for file in files)
    return {pack["pack"]: pack for pack in packs}


@cache
def _recording() -> Mapping[str, Any]:
    content = resources.files("morpheus_worker.comfy").joinpath(RECORDED_NAME).read_text(encoding="utf-8")
    recording: Mapping[str, Any] = json.loads(content)
    return recording
