"""What params put into their nodes, held to what these take, and values that only the author's machine has."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Final

from morpheus_worker.comfy.examine import LINKED_TYPES
from morpheus_worker.comfy.folders import INPUT_FOLDER, folder_listed
from morpheus_worker.comfy.graphs import is_link, leading_to
from morpheus_worker.comfy.judging import judge
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.inspecting.remark import Placed, Remark, Severity
from morpheus_worker.inspecting.tried import Try
from morpheus_worker.jobs import JobInput
from morpheus_worker.templates.params import MEDIA_TYPES, Param
from morpheus_worker.templates.places import Place
from morpheus_worker.templates.resolving import lacking_params
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.wiring import sources_past

_NUMBERS: Final = ("INT", "FLOAT")
_NO_NUMBERS: Final = (*MEDIA_TYPES, "output_path", "object")
_OPTIONS: Final = frozenset(JobInput.model_fields)


def filled(template: Template, tried: list[Try], object_info: ObjectInfo) -> Iterator[Remark]:
    """Params that their nodes cannot take, whatever the value, or that a job's own options hide."""
    used = _used(tried)
    for param in (*template.params.values(), *template.fields.values()):
        for place in param.places:
            if not place.whole or place.info is None or place.node_id not in used:
                continue
            if (said := _unfit(param, place)) is not None:
                severity = _severity_of(param, place, tried, object_info)
                yield _at(template, place, severity, *said, param.key)
    yield from _never_absent(template, object_info)
    yield from _hidden(template)
    yield from _left_behind(template, tried, object_info)


def _used(tried: list[Try]) -> set[str]:
    """The nodes of the template that any of the graphs has."""
    return {each.template_node(node_id) for each in tried for node_id in each.graph}


def _unfit(param: Param, place: Place) -> tuple[str, str | None] | None:
    """Why the input takes no value of the param, and what to do."""
    assert place.info is not None, "asked only of inputs that are known"
    wanted = place.info.type
    if param.type == "list" or is_link(param.default):
        return None
    if wanted in LINKED_TYPES:
        return f"takes {wanted} by a link, and '{param.key}' fills in a value", "choose between links by an effect"
    if wanted not in _NUMBERS or param.type == "any":
        return None
    if param.type in _NO_NUMBERS:
        kind = "a file's name" if param.media else "a path" if param.type == "output_path" else f"a {param.type}"
        return f"takes {wanted}, and '{param.key}' fills in {kind}", None
    # Of a default that is a text, trying it tells.
    if param.type == "string" and not param.choices and not isinstance(param.default, str):
        kind = "int" if wanted == "INT" else "float"
        return f"takes {wanted}, and '{param.key}' fills in a text", f'declare it as "type": "{kind}"'
    return None


def _severity_of(param: Param, place: Place, tried: list[Try], object_info: ObjectInfo) -> Severity:
    """A caller may give a link for a param of any type, and a text that is a number. Of several outputs ComfyUI leaves
    out the one that needs a wrong number; a value in the place of a link it notices only when it runs."""
    if param.type in ("any", "string") and not (param.type == "string" and _is_linked(place)):
        return "warning"
    if place.input is None or _is_linked(place):
        return "error"
    each = next(each for each in tried if place.node_id in map(each.template_node, each.graph))
    unfit = {
        node_id: {**node, "inputs": {**node["inputs"], place.input: "?"}}
        for node_id, node in each.graph.items()
        if each.template_node(node_id) == place.node_id
    }
    return "error" if judge({**each.graph, **unfit}, object_info, advice=False).refused else "warning"


def _is_linked(place: Place) -> bool:
    return place.info is not None and place.info.type in LINKED_TYPES


def _at(template: Template, place: Place, severity: Severity, what: str, hint: str | None, key: str) -> Remark:
    way = (place.node_id, "inputs", place.input or "")
    about = {"node_id": place.node_id, "class_type": place.class_type, "input": place.input, "param": key}
    said = f"node {place.node_id} ({place.class_type}) input {place.input}: {what}"
    return Placed(template.document.tree).remark(way, severity, "param_unfit", said, hint, **about)


def _never_absent(template: Template, object_info: ObjectInfo) -> Iterator[Remark]:
    """Params that may be absent by their declaration, and that a part of the graph still reads when they are."""
    links, bypass = template.default_wiring()
    wired, live = template.wired(links, bypass)
    sources = sources_past(wired, bypass)
    for param in lacking_params(template, {}):
        reader = next((node_id for node_id in template.document.graph if node_id in param.node_ids & live), None)
        if param.default is not None or reader is None:
            continue
        outputs = [
            node_id
            for node_id in template.document.graph
            if node_id in live
            and object_info.is_output(template.document.graph[node_id]["class_type"])
            and reader in leading_to([node_id], sources)
        ]
        for_what = f", for the output of node {outputs[0]}" if outputs and outputs[0] != reader else ""
        what = f"'{param.key}' is null by default, and yet a job has to bring it: node {reader} reads it{for_what}"
        is_optional = any(effect.value is None and effect for effect in param.effects)
        out = f'"bypass": {{"{outputs[0]}": []}}' if outputs else None
        hint = f"let the effect of null take that out as well: {out}" if out else None
        severity: Severity = "error" if is_optional else "warning"
        hint = hint if is_optional else 'leave "default" out: then it is required'
        way = ("_params", param.key)
        yield Placed(template.document.tree).remark(way, severity, "never_absent", what, hint, param=param.key)


def _hidden(template: Template) -> Iterator[Remark]:
    """Names that a job without `params` cannot give: beside the workflow's name they are options of the job."""
    place = Placed(template.document.tree)
    aliases = {alias: ("_about", "param_aliases", alias) for alias in template.aliases}
    for name, way in {**aliases, **{key: ("_params", key) for key in template.params}}.items():
        if name in _OPTIONS:
            what = f"'{name}' is an option of every job as well, so a caller has to put it into 'params'"
            yield place.remark(way, "warning", "option_of_jobs", what, "choose another name", param=name)


def _left_behind(template: Template, tried: list[Try], object_info: ObjectInfo) -> Iterator[Remark]:
    """Files of the input folder that a loader names in every job. A graph without params may be sent with them."""
    used = _used(tried) if template.params else set()
    place, filled_in = Placed(template.document.tree), {(slot.node_id, slot.input) for slot in template.slots}
    for node_id in (node_id for node_id in template.document.graph if node_id in used):
        node = template.document.graph[node_id]
        for name, value in node["inputs"].items():
            kind = _kind_of(object_info, node["class_type"], name)
            if kind is None or not isinstance(value, str) or not value or (node_id, name) in filled_in:
                continue
            at = f"node {node_id} ({node['class_type']}) input {name}"
            what = f"{at}: loads '{value}', a file of the machine that the graph comes from"
            about = {"node_id": node_id, "class_type": node["class_type"], "input": name}
            hint = f'put "__param:{kind}__" there, so that a job brings one'
            yield place.remark((node_id, "inputs", name), "warning", "file_of_author", what, hint, **about)


def _kind_of(object_info: ObjectInfo, class_type: str, name: str) -> str | None:
    """What the input loads from ComfyUI's input folder, in a word, or None."""
    known = object_info.input(class_type, name)
    if known is None or folder_listed(class_type, known) != INPUT_FOLDER:
        return None
    return known.upload or name
