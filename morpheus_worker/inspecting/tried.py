"""A template bound in every variation, and every graph that it becomes judged."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from morpheus_worker.comfy.compact import CONSTANT_CHOICES
from morpheus_worker.comfy.folders import INPUT_FOLDER, folder_listed
from morpheus_worker.comfy.graphs import is_link
from morpheus_worker.comfy.judging import judge
from morpheus_worker.comfy.objectinfo import InputInfo, ObjectInfo
from morpheus_worker.comfy.recorded import load_known, pack_of
from morpheus_worker.comfy.wording import (
    CIRCLE,
    LEADS_NOWHERE,
    MISSING_NODE,
    NO_OUTPUTS,
    VALUE_FOR_LINK,
    Fault,
    Weight,
    missing_class,
)
from morpheus_worker.errors import MorpheusError, Problem
from morpheus_worker.inspecting.remark import Placed, Remark, Severity
from morpheus_worker.templates.bind import Bound
from morpheus_worker.templates.defaults import unset_keys
from morpheus_worker.templates.document import Document
from morpheus_worker.templates.reading import Tree
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.variations import Variation, bound_variation, variations

_FAILS_LATER: Final = frozenset({CIRCLE, VALUE_FOR_LINK})
"""Kinds that ComfyUI lets pass at first and never executes."""

_ELSEWHERE: Final = (
    "if a node pack has it that is not known here, run 'morpheus object-info save' where it is installed, "
    "and check with --object-info FILE"
)
_OTHER_TYPE: Final = "invalid_input_type"
_HOW_TO_WRITE: Final = {"is no INT": "write a whole number, such as 1", "is no FLOAT": "write a number, such as 1.0"}
_NO_VALUE: Final = ("none", "null", "nil", "undefined")

Place = tuple[str, str]


@dataclass(frozen=True, slots=True)
class Try:
    """One variation, and the graph that the template became, or why it did not."""

    variation: Variation
    bound: Bound | None
    refused: MorpheusError | None = None

    @classmethod
    def of(cls, template: Template, variation: Variation) -> Try:
        try:
            return cls(variation, bound_variation(template, variation))
        except MorpheusError as failure:
            return cls(variation, None, failure)

    @property
    def graph(self) -> Mapping[str, Any]:
        return self.bound.graph if self.bound is not None else {}

    def template_node(self, node_id: str) -> str:
        """The node of the template that this one is, or is a copy of."""
        return self.bound.copies.get(node_id, (node_id, 0))[0] if self.bound is not None else node_id


def tries(template: Template) -> list[Try]:
    """Every variation, bound. The first is that of the defaults."""
    return [Try.of(template, variation) for variation in variations(template)]


def judged(template: Template, tried: list[Try], object_info: ObjectInfo) -> list[Remark]:
    """What is wrong with any of the graphs, each thing once."""
    place = Placed(template.document.tree)
    # A plain graph is judged as a job sends it; of a template, nodes that nothing comes of are left out.
    remarks = _of_plain(template, object_info) if not template.params else {}
    for each in tried if template.params else ():
        for remark in _of_try(template, each, object_info, place):
            remarks.setdefault(_identity(remark), remark)
    idle = _idle(template, tried, object_info) if template.params else ()
    return [*remarks.values(), *idle]


def file_inputs(graph: Mapping[str, Any], object_info: ObjectInfo) -> Iterator[tuple[str, InputInfo, str]]:
    """Inputs with a plain value that list a folder of models: node id, input, the folder's name."""
    for node_id, node in graph.items():
        known = object_info.get(node["class_type"])
        for wanted in known.inputs.values() if known else ():
            value = node["inputs"].get(wanted.name)
            if wanted.choices is None or value is None or is_link(value):
                continue
            folder = folder_listed(node["class_type"], wanted)
            if folder is not None and folder != INPUT_FOLDER and not _is_fixed(node["class_type"], wanted.name):
                yield node_id, wanted, folder


def _is_fixed(class_type: str, name: str) -> bool:
    """Whether the class offers the same names on every machine: files that it downloads itself, say."""
    recorded = load_known().input(class_type, name)
    return recorded is not None and lists_files(recorded)


def lists_files(wanted: InputInfo) -> bool:
    """Whether the object info knows what files there are; a recorded one has none in its lists."""
    return any(not isinstance(choice, str) or choice not in CONSTANT_CHOICES for choice in wanted.choices or ())


def filled_by(template: Template, keys: frozenset[str], each: Try) -> set[Place]:
    """The inputs of the graph that hold a value of one of these params, or of an item's field of one."""
    spots = {
        (slot.node_id, slot.input)
        for slot in template.slots
        if slot.input is not None
        for part in slot.placeholders
        if part.key in keys or (template.document.list_of(part.key) or "") in keys
    }
    return {
        (node_id, name)
        for node_id, node in each.graph.items()
        for name in node["inputs"]
        if (each.template_node(node_id), name) in spots
    }


def _of_try(template: Template, each: Try, object_info: ObjectInfo, place: Placed) -> Iterator[Remark]:
    if each.refused:
        return _refusals(each, place)
    return _of_graph(template, each, object_info) if each.graph else _of_nothing(each, place)


def _of_nothing(each: Try, place: Placed) -> Iterator[Remark]:
    """A variation that leaves no node: all that puts something out is taken out."""
    param = next(iter(each.variation.params), None)
    shown = each.variation.sentence
    what = f"with {shown} no node is left that saves or shows anything"
    way = ("_params", param) if param is not None else ()
    hint = "an effect may not take out what the job is for"
    yield place.remark(way, "error", NO_OUTPUTS, what, hint, param=param, variation=shown)


def _of_graph(template: Template, each: Try, object_info: ObjectInfo) -> Iterator[Remark]:
    placed = frozenset(key for key, param in template.params.items() if param.media or param.type == "output_path")
    pending = filled_by(template, each.variation.made_up | placed, each)
    pending |= {
        (node_id, wanted.name) for node_id, wanted, _ in file_inputs(each.graph, object_info) if not lists_files(wanted)
    }
    shown = None if not each.variation.params or each.variation.sentence == "the defaults" else each.variation.sentence
    judgement = judge(each.graph, object_info, pack_of=pack_of, pending=pending)
    refused = judgement.refused
    if refused and each.bound is not None:
        unset = filled_by(template, unset_keys(each.bound), each)
        refused = judge(each.graph, object_info, pending=pending | unset, advice=False).refused
    for fault in judgement.faults:
        yield replace(_as_remark(fault, template.document.tree, each, refused=refused), variation=shown)


def _of_plain(template: Template, object_info: ObjectInfo) -> dict[Any, Remark]:
    graph, tree = template.document.graph, template.document.tree
    judgement = judge(graph, object_info, pack_of=pack_of, pending=_unlisted(graph, object_info))
    remarks = [_as_remark(fault, tree, None, refused=judgement.refused) for fault in judgement.faults]
    return {_identity(remark): remark for remark in remarks}


def _unlisted(graph: Mapping[str, Any], object_info: ObjectInfo) -> set[Place]:
    """Inputs that name a file of which the object info does not know whether it is there."""
    return {(key, wanted.name) for key, wanted, _ in file_inputs(graph, object_info) if not lists_files(wanted)}


def judged_as_written(document: Document, problems: Iterable[Problem], object_info: ObjectInfo) -> list[Remark]:
    """What is wrong with the graph of a document that makes no template, besides its `problems`. What its params put
    in, or their values link, is not judged."""
    graph, said = document.graph, [problem.what for problem in problems]
    filled = {(slot.node_id, slot.input) for slot in document.slots if slot.input is not None} | _linked_by(document)
    pending = filled | _unlisted(graph, object_info)
    judgement = judge(graph, object_info, pack_of=pack_of, pending=pending)
    # Which nodes and outputs are used may rest on the values of params.
    left_out = {LEADS_NOWHERE, NO_OUTPUTS} if document.declared or document.slots else set()
    remarks = [
        _as_remark(fault, document.tree, None, refused=judgement.refused)
        for fault in judgement.faults
        if fault.kind not in left_out and (fault.node_id, fault.input) not in filled and not _is_said(fault, said)
    ]
    return list({_identity(remark): remark for remark in remarks}.values())


def _linked_by(document: Document) -> set[Place]:
    """Inputs that a choice or an effect of a param links."""
    presets = [one for said in document.declared.values() for one in (*said.presets.values(), *said.effects.values())]
    places = {place for preset in presets for place in preset.links}
    return {(place[:dot], place[dot + 1 :]) for place in places for dot, letter in enumerate(place) if letter == "."}


def _is_said(fault: Fault, said: Iterable[str]) -> bool:
    """Whether one of these sentences is about the same input, or about the class of the same node."""
    of_class = fault.kind == MISSING_NODE
    opening = f"node {fault.node_id} has a placeholder" if of_class else f"node {fault.node_id} input {fault.input} "
    return any(sentence.startswith(opening) for sentence in said)


def _as_remark(fault: Fault, tree: Tree, each: Try | None, *, refused: bool) -> Remark:
    way: tuple[str | int, ...] = ()
    param = None
    if fault.node_id is not None:
        own_id = each.template_node(fault.node_id) if each is not None else fault.node_id
        way = (own_id, "inputs", fault.input) if fault.input else (own_id, "class_type")
        if each is not None and each.bound is not None and fault.input:
            param = each.bound.where(fault.node_id, fault.input)
    named = param.removeprefix("params.") if param else None
    hint = fault.hint or (_ELSEWHERE if fault.kind == MISSING_NODE else _how_to_write(fault))
    what = f"{fault.place}: {fault.what}" + (f", by the param '{named}'" if named else "")
    severity = _severity(fault, refused=refused)
    return Placed(tree).remark(
        way,
        severity,
        fault.kind,
        what,
        hint,
        node_id=fault.node_id,
        class_type=fault.class_type,
        input=fault.input,
        param=named,
    )


def _how_to_write(fault: Fault) -> str | None:
    """For a value of another type than the input's."""
    if fault.kind != _OTHER_TYPE:
        return None
    return next((hint for ending, hint in _HOW_TO_WRITE.items() if fault.what.endswith(ending)), None)


def _severity(fault: Fault, *, refused: bool) -> Severity:
    """Of a graph that is not refused, ComfyUI leaves out the outputs that need the node, and runs the others."""
    if (refused and fault.weight is Weight.CERTAIN) or (fault.weight is Weight.DOUBTFUL and fault.kind in _FAILS_LATER):
        return "error"
    return "warning"


def _refusals(each: Try, place: Placed) -> Iterator[Remark]:
    assert each.refused is not None, "asked only of what was refused"
    for problem in each.refused.problems:
        param = problem.at.removeprefix("params.")
        what = f"the template refuses a value of its own: {param}: {problem.what}"
        way = ("_params", param.partition("[")[0])
        shown = each.variation.sentence
        value = each.variation.params.get(param)
        is_absent = isinstance(value, str) and value.casefold() in _NO_VALUE
        hint = 'no value at all has the key "null"' if is_absent else problem.hint
        yield place.remark(way, "error", "refused_value", what, hint, param=param, variation=shown)


def _idle(template: Template, tried: list[Try], object_info: ObjectInfo) -> Iterator[Remark]:
    """Nodes that are in none of the graphs. A job never meets them."""
    used = {each.template_node(node_id) for each in tried for node_id in each.graph}
    place = Placed(template.document.tree)
    if any(each.refused for each in tried):
        return
    for node_id, node in template.document.graph.items():
        class_type = node["class_type"]
        if node_id in used:
            continue
        fault = Fault(LEADS_NOWHERE, "leads to no output, whatever the params are", None, node_id, class_type)
        if class_type not in object_info:
            fault = missing_class(node_id, class_type, object_info, pack_of)
        what = f"{fault.place}: {fault.what}"
        about = {"node_id": node_id, "class_type": class_type}
        hint = fault.hint or (_ELSEWHERE if fault.kind == MISSING_NODE else "remove it")
        yield place.remark((node_id,), "warning", fault.kind, what, hint, **about)


def _identity(remark: Remark) -> tuple[Any, ...]:
    """The same whichever variation shows it; copies of a repeated node differ by their id, and not by their line."""
    shared = (remark.line, remark.column, remark.kind, remark.input, remark.hint, remark.class_type)
    return (*shared, remark.what.partition(": ")[2] if remark.node_id else remark.what)
