"""The graph that a template becomes without anybody's wishes, whether ComfyUI would take it, and what it takes else."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping
from dataclasses import replace
from typing import Any

from morpheus_worker.comfy.folders import folder_listed
from morpheus_worker.comfy.judging import judge
from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.comfy.wording import Fault, Weight
from morpheus_worker.errors import MorpheusError, Problem
from morpheus_worker.templates.bind import Bound
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.values import RefusedValueError, read_value
from morpheus_worker.templates.variations import Variation, bound_variation, variations


def as_deployed(template: Template, deployment: Mapping[str, Any]) -> Template:
    """The template with the defaults that the environment sets, by the names of `DEPLOYMENT_DEFAULTS`, as its own."""
    params = dict(template.params)
    for key, param in template.params.items():
        if param.default_env is not None and param.default_env in deployment:
            with contextlib.suppress(RefusedValueError):
                params[key] = replace(param, default=read_value(param, deployment[param.default_env]))
    return replace(template, params=params)


def refused_defaults(template: Template, object_info: ObjectInfo) -> list[Problem]:
    """Why ComfyUI is sure to refuse a job that sends only what it must, each with its place in the file. Models and
    files come and go, so they are not looked for; nor is what a caller would send."""
    template = template.seen_by(object_info)
    usual = next(variations(template))
    try:
        bound = bound_variation(template, usual)
    except MorpheusError as failure:
        if usual.made_up:
            return []
        return [template.document.tree.problem(("_params",), str(problem)) for problem in failure.problems]
    return [_as_problem(fault, template, bound) for fault in _sure(template, usual, bound, object_info)]


def way_around(template: Template, object_info: ObjectInfo) -> str | None:
    """With which params changed ComfyUI may take the graph, in words: empty when the defaults do, None when nothing
    helps that is known here."""
    template = template.seen_by(object_info)
    base, *others = variations(template)
    most = _trouble(template, base, object_info)
    if most == 0 or (most is None and base.made_up):
        return ""
    helpful: list[Variation] = []
    for variation in others:
        left = _trouble(template, variation, object_info)
        if left == 0:
            return variation.sentence
        if left is not None and (most is None or left < most):
            helpful.append(variation)
    together = _together(base, helpful)
    return together.sentence if _trouble(template, together, object_info) == 0 else None


def unset_keys(bound: Bound) -> frozenset[str]:
    """The params, and the fields of items, that are null: what a hand-written template says for having no default."""
    fields = (key for key, field in bound.template.fields.items() if field.default is None)
    return frozenset([*(key for key, value in bound.params.items() if value is None), *fields])


def _trouble(template: Template, variation: Variation, object_info: ObjectInfo) -> int | None:
    """How many faults keep the graph from running; None when the template itself refuses the variation. As long as
    classes are missing only these count, since guessing what was meant by them takes long."""
    try:
        bound = bound_variation(template, variation)
    except MorpheusError:
        return None
    missing = sum(node["class_type"] not in object_info for node in bound.graph.values())
    return missing or len(_sure(template, variation, bound, object_info))


def _together(base: Variation, others: list[Variation]) -> Variation:
    """All of these at once, of those that change one param the first."""
    params, sentences = dict(base.params), []
    for variation in others:
        changed = {key: value for key, value in variation.params.items() if key not in params}
        if changed:
            params |= changed
            sentences.append(variation.sentence)
    made_up = base.made_up.union(*(variation.made_up for variation in others))
    return Variation(" and ".join(sentences), params, made_up)


def _sure(template: Template, variation: Variation, bound: Bound, object_info: ObjectInfo) -> list[Fault]:
    """Why ComfyUI is sure to refuse the graph. It leaves a wrong output out, as long as another one is good."""
    open_inputs = {*_of_callers(template, variation, bound), *_of_files(bound, object_info)}
    judgement = judge(bound.graph, object_info, pending=open_inputs, advice=False)
    sure = (fault for fault in judgement.faults if fault.weight is Weight.CERTAIN and not fault.is_model)
    return list(sure) if judgement.refused else []


def _of_callers(template: Template, usual: Variation, bound: Bound) -> Iterator[tuple[str, str]]:
    """The inputs whose value is made up here or null, or the name of a file."""
    keys = {key for key, param in template.params.items() if param.media or param.type == "output_path"}
    keys |= usual.made_up | unset_keys(bound)
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
            if wanted.choices is not None and folder_listed(node["class_type"], wanted) is not None:
                yield node_id, wanted.name


def _origin(node_id: str, bound: Bound) -> str:
    return bound.copies.get(node_id, (node_id, 0))[0]


def _as_problem(fault: Fault, template: Template, bound: Bound) -> Problem:
    tree = template.document.tree
    if fault.node_id is None:
        return tree.problem((), fault.what, fault.hint)
    place = ("inputs", fault.input) if fault.input else ("class_type",)
    return tree.problem((_origin(fault.node_id, bound), *place), f"{fault.place}: {fault.what}", fault.hint)
