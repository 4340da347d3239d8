"""A param that a graph could have: the inputs it would fill, its type and its default."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from morpheus_worker.comfy.folders import INPUT_FOLDER, folder_listed
from morpheus_worker.importing.export import Export, Spot
from morpheus_worker.templates.declared import MediaKind, ParamType
from morpheus_worker.templates.params import MEDIA_TYPES
from morpheus_worker.templates.places import MISSING, SEED_NAMES, Place, facts_of

_REAL_NAMES: Final = re.compile(r"cfg|guidance|denoise|strength|weight|scale|factor|percent|threshold|_at\Z")
"""Inputs that take a fraction although the editor writes 7.0 as 7, where the object info does not say."""

_SUFFIXES: Final = (
    ("image", re.compile(r"\.(png|jpe?g|webp|gif|bmp|avif)\Z", re.IGNORECASE)),
    ("video", re.compile(r"\.(mp4|webm|mov|mkv|avi|m4v)\Z", re.IGNORECASE)),
    ("audio", re.compile(r"\.(wav|mp3|flac|ogg|opus|m4a)\Z", re.IGNORECASE)),
)


@dataclass(frozen=True, slots=True)
class Proposal:
    """One param. `default` MISSING: a caller gives it, or it is drawn. Limits are only those that are tighter than
    ComfyUI's own."""

    key: str
    spots: tuple[Spot, ...]
    type: ParamType
    default: Any = MISSING
    description: str = ""
    minimum: float | None = None
    maximum: float | None = None


def media_kind(export: Export, spot: Spot) -> MediaKind | None:
    """What the input loads from ComfyUI's input folder. Where the object info does not know the class, a loader is one
    that is called so and names such a file."""
    known, value = export.known(spot), export.value(spot)
    if known is not None:
        if folder_listed(export.class_of(spot.node_id), known) != INPUT_FOLDER:
            return None
        return cast(MediaKind | None, known.upload) or _kind_by_name(value) or _kind_by_input(spot.input)
    return _kind_by_name(value) if "load" in export.class_of(spot.node_id).lower() else None


def _kind_by_name(file: Any) -> MediaKind | None:
    if not isinstance(file, str):
        return None
    return next((cast(MediaKind, kind) for kind, suffix in _SUFFIXES if suffix.search(file)), None)


def _kind_by_input(name: str) -> MediaKind:
    """Of a node pack's loader, which lists the input folder and does not say of what."""
    return "dir" if name in ("directory", "folder") else "file"


def param_type(export: Export, spots: Sequence[Spot], key: str) -> ParamType:
    """The type of what fills these inputs, as the object info has it, if the exported value is of it."""
    value = export.value(spots[0])
    if (kind := media_kind(export, spots[0])) is not None:
        return kind
    if is_whole(value) and any(name in SEED_NAMES for name in (key, *(spot.input for spot in spots))):
        return "seed"
    places = [
        Place(spot.node_id, export.class_of(spot.node_id), spot.input, True, export.known(spot)) for spot in spots
    ]
    told = facts_of(places).type
    of_value = _type_of(value, spots[0].input)
    is_number = told in ("int", "float") and of_value in ("int", "float")
    return told if told is not None and (is_number or told == of_value) and _keeps(told, value) else of_value


def proposal(export: Export, key: str, spots: Sequence[Spot], description: str = "") -> Proposal:
    """The param as the graph has it. Media and seeds get no default: a file of the author's machine means nothing to
    others, and a seed is drawn."""
    kind = param_type(export, spots, key)
    has_default = kind != "seed" and kind not in MEDIA_TYPES
    return Proposal(key, tuple(spots), kind, export.value(spots[0]) if has_default else MISSING, description)


def is_whole(value: Any) -> bool:
    return isinstance(value, int) and not isinstance(value, bool)


def is_number(value: Any) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool)


def _keeps(kind: ParamType, value: Any) -> bool:
    return kind != "int" or is_whole(value)


def _type_of(value: Any, name: str) -> ParamType:
    if is_whole(value):
        return "float" if _REAL_NAMES.search(name) else "int"
    kinds: dict[type, ParamType] = {bool: "bool", float: "float", str: "string", list: "list", dict: "object"}
    return kinds.get(type(value), "any")
