"""What a workflow needs of a volume, and what of it is there: the manifest's entries, and the files that the template's
own loaders are given."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import PurePosixPath
from typing import Any, Literal

from morpheus_worker.comfy.folders import INPUT_FOLDER, folder_listed
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import pack_of
from morpheus_worker.holdings import Holdings
from morpheus_worker.manifest import Manifest, ModelEntry
from morpheus_worker.templates.template import Template

Use = Literal["always", "option", "choice"]
"""Whether every job needs it, only one whose params ask for the part of the graph that has it, or whether it is one of
the files that a job can name."""


@dataclass(frozen=True, slots=True)
class Need:
    """One model, by its path under the model folders, or one node pack, by its id. `there` is None where there is no
    volume to look at."""

    kind: Literal["model", "pack"]
    name: str
    use: Use = "always"
    license: str | None = None
    gated: bool = False
    source: str | None = None
    there: bool | None = None
    entry_id: str | None = None
    """The manifest's entry of which a sync can fetch it."""

    def is_lacking(self, use: Use = "always") -> bool:
        return self.there is False and self.use == use


@dataclass(frozen=True, slots=True)
class _Loading:
    """An input that lists a model folder, and the choices that it has on a ComfyUI without models."""

    folder: str
    own_choices: tuple[Any, ...]


def needs_of(
    template: Template, object_info: ObjectInfo, manifest: Manifest | None, holdings: Holdings | None
) -> list[Need]:
    """Models in the manifest's order, then those that only the template names, then packs. Without a manifest that is
    all; `holdings` None: nowhere to look.

    Raises:
        MorpheusError: `volume_unavailable`, when a folder that is there cannot be read.
    """
    needed = manifest.required_by(template.name) if manifest is not None else Manifest("")
    named = _named(template, object_info)
    open_folders = set(_open_folders(template, object_info))
    needs = []
    for model in needed.models:
        uses = [named.pop(str(path)) for path in (model.path, *model.also) if str(path) in named]
        is_choice = not uses and model.path.parts[0] in open_folders
        use: Use = "choice" if is_choice else "always" if not uses or "always" in uses else "option"
        needs.append(_model_need(model, use, holdings))
    for path, use in named.items():
        needs.append(Need("model", path, use, there=holdings.has_model(PurePosixPath(path)) if holdings else None))
    repos = {pack.id: pack.repo for pack in needed.custom_nodes}
    for pack in dict.fromkeys([*repos, *_packs(template)]):
        there = holdings.has_pack(pack) if holdings else None
        listed = pack if pack in repos else None
        needs.append(Need("pack", pack, source=repos.get(pack), there=there, entry_id=listed))
    return needs


def _model_need(model: ModelEntry, use: Use, holdings: Holdings | None) -> Need:
    there = any(holdings.has_model(path) for path in (model.path, *model.also)) if holdings else None
    source = next(map(_called, model.sources), None)
    entry_id = model.id if model.sources else None
    return Need("model", str(model.path), use, model.license, model.gated, source, there, entry_id)


def _called(source: Mapping[str, Any]) -> str:
    """A source of the manifest's in words."""
    if source["kind"] == "hf":
        return f"huggingface.co/{source['repo']} ({source['file']})"
    if source["kind"] == "civitai":
        return f"Civitai, version {source['version']}"
    return str(source.get("uri") or source.get("url") or source.get("path"))


def _packs(template: Template) -> Iterator[str]:
    yield from template.about.packs
    for node_id in sorted(_live(template)):
        if (pack := pack_of(template.document.graph[node_id]["class_type"])) is not None:
            yield pack


def _live(template: Template) -> frozenset[str]:
    return template.live_nodes(*template.default_wiring())


def _named(template: Template, object_info: ObjectInfo) -> dict[str, Use]:
    """The files that loaders are given: by a default, by the effect of a param, or in the graph itself."""
    live, named = _live(template), dict[str, Use]()
    places = {key: list(_loading(template, object_info, key)) for key in template.params}
    for key, param in template.params.items():
        _add(named, places[key], param.default, not param.node_ids.isdisjoint(live))
        for effect in param.all_effects:
            for target, value in effect.sets.items():
                _add(named, places.get(target, []), value, False)
    filled = {(slot.node_id, slot.input) for slot in template.slots}
    for node_id, node in template.document.graph.items():
        for name, value in node["inputs"].items():
            if (node_id, name) not in filled and (loading := _loading_at(object_info, node["class_type"], name)):
                _add(named, [loading], value, node_id in live)
    return named


def _add(named: dict[str, Use], places: Iterable[_Loading], value: Any, is_live: bool) -> None:
    """What a class has by itself among its choices, such as `none` or a model that it fetches, is no file here."""
    for place in places:
        if isinstance(value, str) and "." in value and value not in place.own_choices:
            path = f"{place.folder}/{value}"
            named[path] = "always" if is_live or named.get(path) == "always" else "option"


def _open_folders(template: Template, object_info: ObjectInfo) -> Iterator[str]:
    """The folders of which a job can name any file."""
    for key in template.params:
        yield from (place.folder.partition("/")[0] for place in _loading(template, object_info, key))


def _loading(template: Template, object_info: ObjectInfo, key: str) -> Iterator[_Loading]:
    for place in template.params[key].places:
        if place.input is not None and place.whole:
            loading = _loading_at(object_info, place.class_type, place.input)
            if loading is not None:
                yield loading


def _loading_at(object_info: ObjectInfo, class_type: str, name: str) -> _Loading | None:
    known = object_info.input(class_type, name)
    folder = folder_listed(class_type, known) if known is not None else None
    if known is None or folder in (None, INPUT_FOLDER):
        return None
    return _Loading(str(folder), known.choices or ())
