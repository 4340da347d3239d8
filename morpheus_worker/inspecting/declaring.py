"""The params of a template: declared and used, of a range that their nodes have, and good for something."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any

from morpheus_worker.comfy.examine import LINKED_TYPES, is_custom
from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.judging import is_part, judge
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.wording import OUT_OF_RANGE
from morpheus_worker.errors import did_you_mean
from morpheus_worker.inspecting.remark import Placed, Remark, Severity
from morpheus_worker.inspecting.tried import Try, filled_by
from morpheus_worker.templates.declared import Declaration, ItemField
from morpheus_worker.templates.params import Param
from morpheus_worker.templates.places import Facts, facts_of
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.values import as_text, listed
from morpheus_worker.templates.variations import Variation


def declared(template: Template, tried: list[Try], object_info: ObjectInfo) -> list[Remark]:
    """Everything that is to be said of the params."""
    ranges = [
        remark
        for param in _with_fields(template)
        for remark in _range_and_choices(template, param, tried[0], object_info)
    ]
    return [*_undeclared(template), *ranges, *_idle(template, tried, object_info)]


def _with_fields(template: Template) -> Iterator[Param]:
    yield from template.params.values()
    yield from template.fields.values()


def _undeclared(template: Template) -> Iterator[Remark]:
    """A placeholder needs no declaration, but what a param means and how it is called should not be left to chance."""
    document, place = template.document, Placed(template.document.tree)
    for key in template.params.keys() - document.declared.keys():
        slot = next(slot for slot in document.slots if any(part.key == key for part in slot.placeholders))
        what = (
            f"the param '{key}' is used and not declared, so its type and range are the node's and nothing explains it"
        )
        unused = [other for other, param in template.params.items() if not param.places]
        hint = did_you_mean(key, unused) or f'declare it: "_params": {{"{key}": {{"description": "…"}}}}'
        yield place.remark(slot.path, "warning", "undeclared_param", what, hint, param=key, node_id=slot.node_id)


def _said(template: Template, param: Param) -> tuple[tuple[str, ...], Declaration | ItemField] | None:
    """Where and how a param, or an item's field, is declared."""
    document = template.document
    if param.key in document.declared and param.key not in template.fields:
        return ("_params", param.key), document.declared[param.key]
    holder = document.list_of(param.key)
    if holder is None:
        return None
    name = param.key.removeprefix(f"{holder}.")
    found = (document.declared[holder].items or {}).get(name) if holder in document.declared else None
    return None if found is None else (("_params", holder, "items", name), found)


def _range_and_choices(template: Template, param: Param, base: Try, object_info: ObjectInfo) -> Iterator[Remark]:
    """What the template offers and the node does not take."""
    found = _said(template, param)
    if found is None or param.type in ("list", "object"):
        return
    way, said = found
    facts, place = facts_of(param.places), Placed(template.document.tree)
    for name, limit, of_node, beyond in (
        ("min", said.min, facts.minimum, "below"),
        ("max", said.max, facts.maximum, "above"),
    ):
        if limit is None or of_node is None or not (limit < of_node if name == "min" else limit > of_node):
            continue
        severity: Severity | None = "error"
        if param.key in template.params:
            severity = _severity_of(template, param, limit, base, object_info)
        if severity is None:
            continue
        what = f"'{param.key}' may be {limit}, but its node takes nothing {beyond} {of_node}"
        hint = f'"{name}": {of_node}'
        yield place.remark((*way, name), severity, "range_too_wide", what, hint, param=param.key)
    yield from _choices(param, way, facts, place)


def _severity_of(template: Template, param: Param, value: float, base: Try, object_info: ObjectInfo) -> Severity | None:
    """How much it matters that the value comes to a node that does not take it; None when an effect of its own keeps it
    away, or the node's class judges for itself."""
    given = {**base.variation.params, param.key: int(value) if param.type in ("int", "seed") else value}
    tried = Try.of(template, Variation(f"{param.key} = {value}", given))
    places = filled_by(template, frozenset((param.key,)), tried)
    judgement = judge(tried.graph, object_info, advice=False)
    if any((fault.node_id, fault.input) in places and fault.kind in OUT_OF_RANGE for fault in judgement.faults):
        return "error" if judgement.refused else "warning"
    return None


def _choices(param: Param, way: tuple[str, ...], facts: Facts, place: Placed) -> Iterator[Remark]:
    """Those that ComfyUI itself refuses show when they are tried; of the others its nodes complain while they run."""
    if not param.own_choices or facts.checked or not facts.choices or param.media:
        return
    for choice in param.choices:
        if choice.value not in facts.choices:
            names = [as_text(offered) for offered in facts.choices]
            what = f"'{param.key}' may be '{as_text(choice.value)}', which its node does not offer"
            hint = did_you_mean(as_text(choice.value), names) or f"choices: {listed(names)}"
            yield place.remark((*way, "choices"), "warning", "choice_not_offered", what, hint, param=param.key)


def _idle(template: Template, tried: list[Try], object_info: ObjectInfo) -> Iterator[Remark]:
    """Declared params whose value changes nothing that reaches an output, whatever the other params are."""
    if not tried or tried[0].bound is None or _lets_link(template):
        return
    place, base = Placed(template.document.tree), tried[0]
    for key, param in template.params.items():
        is_used = (param.of is not None and any(param.of in each.graph for each in tried)) or any(
            _arrives(template, key, each, object_info) for each in tried
        )
        is_known = key in template.document.declared and not any(_refuses(key, each) for each in tried)
        if is_known and not is_used and not _changes(key, base, tried):
            what = f"the param '{key}' changes nothing that reaches an output"
            hint = "put its placeholder where a node reads it, or remove it"
            # Its effects may do something together with another param's, and a title is for a person.
            elsewhere = not param.places or any(spot.input is None for spot in param.places)
            yield place.remark(
                ("_params", key), "warning" if elsewhere else "error", "idle_param", what, hint, param=key
            )
    for key in template.fields:
        holder = template.document.list_of(key) or key
        is_known = not any(_refuses(holder, each) for each in tried)
        if is_known and not any(_arrives(template, key, each, object_info) for each in tried):
            what = f"the field '{key}' changes nothing that reaches an output"
            way = ("_params", holder, "items", key.removeprefix(f"{holder}."))
            yield place.remark(way, "error", "idle_param", what, None, param=key)


def _lets_link(template: Template) -> bool:
    """Whether a job may link the nodes as it likes: nobody knows then which it is that its outputs need."""
    return any(
        place.whole and place.info is not None and place.info.type in LINKED_TYPES
        for key in template.list_keys
        for place in template.params[key].places
    )


def _refuses(key: str, each: Try) -> bool:
    """Whether the template refuses the values that it was tried with: what they would have changed is not known."""
    return each.refused is not None and key in each.variation.params


def _arrives(template: Template, key: str, each: Try, object_info: ObjectInfo) -> bool:
    """Whether a node of the graph is given the param's value in an input that its class has."""
    param = template.params.get(key) or template.fields[key]
    may_link = param.type in ("list", "any")
    return any(
        _is_read(each.graph[node_id], name, object_info, may_link=may_link)
        for node_id, name in filled_by(template, frozenset((key,)), each)
    )


def _is_read(node: Mapping[str, Any], name: str, object_info: ObjectInfo, *, may_link: bool) -> bool:
    """`may_link`: a link there may be the param's own value, and not that of an effect."""
    if is_link(node["inputs"][name]) and not may_link:
        return False
    known = object_info.get(node["class_type"])
    # A pack's class may read what it does not declare.
    return known is None or name in known.inputs or is_part(name, known) or is_custom(node["class_type"], object_info)


def _changes(key: str, base: Try, tried: list[Try]) -> bool:
    """Whether a graph with another value of the param differs from that of the defaults."""
    return any(each.graph != base.graph for each in tried if key in each.variation.params and each.bound is not None)
