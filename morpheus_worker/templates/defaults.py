"""The graph that a template becomes without anybody's wishes, and whether ComfyUI would take it."""

from __future__ import annotations

from collections.abc import Collection, Iterator

from morpheus_worker.comfy.folders import folder_of
from morpheus_worker.comfy.judging import judge
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.wording import Fault, Weight
from morpheus_worker.errors import MorpheusError, Problem
from morpheus_worker.templates.bind import Bound
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.variations import Variation, bound_variation, variations


def refused_defaults(template: Template, object_info: ObjectInfo) -> list[Problem]:
    """What a ComfyUI that has all of the classes is sure to refuse in a job that sends only what it must, each with its
    place in the file. Models and files come and go, so they are not looked for; nor is what a caller would send."""
    template = template.seen_by(object_info)
    usual = next(variations(template))
    try:
        bound = bound_variation(template, usual)
    except MorpheusError as failure:
        return [template.document.tree.problem(("_params",), str(problem)) for problem in failure.problems]
    open_inputs = {*_of_callers(template, usual, bound), *_of_files(bound, object_info)}
    faults = judge(bound.graph, object_info, pending=open_inputs, advice=False).faults
    sure = (fault for fault in faults if fault.weight is Weight.CERTAIN and not fault.is_model)
    return [_as_problem(fault, template, bound) for fault in sure]


def way_around(template: Template, absent: Collection[str]) -> str | None:
    """With which one param changed the graph does without these node classes, in words; None when with none."""
    for variation in variations(template):
        try:
            graph = bound_variation(template, variation).graph
        except MorpheusError:
            continue
        if not any(node["class_type"] in absent for node in graph.values()):
            return variation.sentence
    return None


def _of_callers(template: Template, usual: Variation, bound: Bound) -> Iterator[tuple[str, str]]:
    """The inputs whose value is made up here, or the name of a file."""
    keys = {key for key, param in template.params.items() if param.media or param.type == "output_path"}
    keys |= usual.made_up
    slots = {
        (slot.node_id, slot.input)
        for slot in template.slots
        if any(part.key in keys or template.document.list_of(part.key) in keys for part in slot.placeholders)
    }
    for node_id, node in bound.graph.items():
        origin = _origin(node_id, bound)
        yield from ((node_id, name) for name in node["inputs"] if (origin, name) in slots)


def _of_files(bound: Bound, object_info: ObjectInfo) -> Iterator[tuple[str, str]]:
    for node_id, node in bound.graph.items():
        known = object_info.get(node["class_type"])
        for wanted in known.inputs.values() if known else ():
            lists = wanted.choices is not None
            if lists and folder_of(node["class_type"], wanted.name, [wanted.type, wanted.options]) is not None:
                yield node_id, wanted.name


def _origin(node_id: str, bound: Bound) -> str:
    return bound.copies.get(node_id, (node_id, 0))[0]


def _as_problem(fault: Fault, template: Template, bound: Bound) -> Problem:
    tree = template.document.tree
    if fault.node_id is None:
        return tree.problem((), fault.what, fault.hint)
    place = ("inputs", fault.input) if fault.input else ("class_type",)
    return tree.problem((_origin(fault.node_id, bound), *place), f"{fault.place}: {fault.what}", fault.hint)
