"""The models and node packs that a workflow's graphs name: are they on the volume, does the manifest know them?

All of it is worth a warning and no more: a machine without the volume is a good place to check a workflow, and models
may be put on a volume by hand.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from morpheus_worker.comfy.examine import is_custom, module_of
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.recorded import pack_of
from morpheus_worker.holdings import Holdings
from morpheus_worker.inspecting.remark import Placed, Remark
from morpheus_worker.inspecting.tried import Try, file_inputs, filled_by
from morpheus_worker.manifest import Manifest, ModelEntry, PackEntry
from morpheus_worker.sync.advice import entry_for, hint_for
from morpheus_worker.templates.template import Template

_WINDOWS: Final = re.compile(r"\\+")


@dataclass(frozen=True, slots=True)
class Model:
    """A model that a graph names: ComfyUI's folder, the name in it, and the first node that names it."""

    folder: str
    name: str
    node_id: str
    class_type: str
    input: str


def needs(
    template: Template, tried: list[Try], object_info: ObjectInfo, holdings: Holdings | None, manifest: Manifest | None
) -> list[Remark]:
    """What is to be said of models and packs. Without a volume, and without a manifest, nothing is said of them."""
    place = Placed(template.document.tree)
    remarks = [
        remark
        for model in models_of(template, tried, object_info)
        if "\\" not in model.name or not _is_offered(model, object_info)
        for remark in _of_model(model, template.name, place, holdings, manifest)
    ]
    packs = packs_of(tried, object_info)
    for pack, node_id in packs.items():
        remarks += _of_pack(pack, node_id, template, holdings, manifest)
    for pack in template.about.packs:
        if pack not in packs:
            what = f"_about.packs names {pack}, and no node of the graph is known to be of it"
            remarks.append(place.remark(("_about", "packs"), "warning", "pack_unused", what, "remove it"))
    return remarks


def _is_offered(model: Model, object_info: ObjectInfo) -> bool:
    """Whether this ComfyUI, one on Windows say, has it under that very name."""
    known = object_info.input(model.class_type, model.input)
    return known is not None and model.name in (known.choices or ())


def models_of(template: Template, tried: list[Try], object_info: ObjectInfo) -> list[Model]:
    """The models that the variations name, each once; names that were made up are none."""
    found: dict[tuple[str, str], Model] = {}
    for each in tried:
        made_up = filled_by(template, each.variation.made_up, each)
        for node_id, wanted, folder in file_inputs(each.graph, object_info):
            node = each.graph[node_id]
            name = node["inputs"][wanted.name]
            if isinstance(name, str) and "." in name and (node_id, wanted.name) not in made_up:
                own_id = each.template_node(node_id)
                found.setdefault((folder, name), Model(folder, name, own_id, node["class_type"], wanted.name))
    return list(found.values())


def packs_of(tried: list[Try], object_info: ObjectInfo) -> dict[str, str]:
    """The node packs of the variations' nodes, each with the first of its nodes."""
    found: dict[str, str] = {}
    for each in tried:
        for node_id, node in each.graph.items():
            if (pack := _pack_of(node["class_type"], object_info)) is not None:
                found.setdefault(pack, each.template_node(node_id))
    return found


def _pack_of(class_type: str, object_info: ObjectInfo) -> str | None:
    known = pack_of(class_type)
    if known is None and class_type in object_info and is_custom(class_type, object_info):
        return module_of(class_type, object_info).partition(".")[2] or None
    return known


def _of_model(
    model: Model, workflow: str, place: Placed, holdings: Holdings | None, manifest: Manifest | None
) -> Iterator[Remark]:
    path = f"{model.folder}/{model.name}"
    way = (model.node_id, "inputs", model.input)
    about = {"node_id": model.node_id, "class_type": model.class_type, "input": model.input}
    entry = entry_for(manifest, model.folder, model.name) if manifest is not None else None
    if "\\" in model.name and (holdings is None or not holdings.has_file(model.folder, model.name)):
        what, hint = f"the name of the model {path} has Windows' separator", f"write '{_WINDOWS.sub('/', model.name)}'"
        if re.match(r"[A-Za-z]:|\\\\", model.name):
            hint = f"name it as it is called in {model.folder}/"
        yield place.remark(way, "error", "model_separator", what, hint, **about)
        return
    if holdings is not None and not _is_there(model, entry, holdings):
        if manifest is not None and entry is None:
            what = f"the model {path} is not on the volume, and not in the manifest"
            yield place.remark(way, "warning", "model_absent", what, _listing(None, workflow, manifest), **about)
            return
        said = _how_to_get(entry) if entry is not None else None
        yield place.remark(way, "warning", "model_absent", f"the model {path} is not on the volume", said, **about)
    if manifest is not None and (trouble := _trouble(entry, workflow)) is not None:
        what, hint = f"the model {path} {trouble}", _listing(entry, workflow, manifest)
        yield place.remark(way, "warning", "model_unlisted", what, hint, **about)


def _of_pack(
    pack: str, node_id: str, template: Template, holdings: Holdings | None, manifest: Manifest | None
) -> Iterator[Remark]:
    place = Placed(template.document.tree)
    entry = next((entry for entry in manifest.custom_nodes if entry.id == pack), None) if manifest is not None else None
    if manifest is not None and pack not in template.about.packs:
        what = f"node {node_id} is of the node pack {pack}, which _about.packs does not name"
        hint = f'add "{pack}" to it'
        yield place.remark(("_about", "packs"), "warning", "pack_undeclared", what, hint, node_id=node_id)
    if holdings is not None and not holdings.has_pack(pack):
        what = f"the node pack {pack}, which has the class of node {node_id}, is not on the volume"
        said = hint_for([entry.id]) if entry is not None else None
        yield place.remark((node_id, "class_type"), "warning", "pack_absent", what, said, node_id=node_id)
    if manifest is None:
        return
    if (trouble := _trouble(entry, template.name)) is not None:
        what, hint = f"the node pack {pack} {trouble}", _listing(entry, template.name, manifest)
        yield place.remark((node_id, "class_type"), "warning", "pack_unlisted", what, hint, node_id=node_id)


def _is_there(model: Model, entry: ModelEntry | None, holdings: Holdings) -> bool:
    """Whether a loader finds it once everything is linked: at any place of the entry it is at all of them."""
    places = (entry.path, *entry.also) if entry is not None else ()
    return holdings.has_file(model.folder, model.name) or any(holdings.has_model(place) for place in places)


def _trouble(entry: ModelEntry | PackEntry | None, workflow: str) -> str | None:
    if entry is None:
        return "is not in the manifest"
    return None if workflow in entry.workflows else f"is in the manifest, but not for the workflow '{workflow}'"


def _listing(entry: ModelEntry | PackEntry | None, workflow: str, manifest: Manifest) -> str:
    """What to write into the manifest."""
    if entry is not None:
        return f"name '{workflow}' under its 'workflows' in {manifest.name}"
    return f"add it to {manifest.name} with where it comes from, and name '{workflow}' under its 'workflows'"


def _how_to_get(entry: ModelEntry) -> str:
    return hint_for([entry.id]) if entry.sources else "the manifest lists it, and says of no source"
