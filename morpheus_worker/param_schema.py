"""A template's params for machines: their JSON Schema (draft 2020-12), and an example.

What the schema accepts, binding accepts. Binding takes more: numbers written as text, `"true"` and `"false"` for a
boolean, and null for the default of every param.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from morpheus_worker.inline import FORMS
from morpheus_worker.templates.declared import ParamType
from morpheus_worker.templates.params import DRAW, PATH_ENDINGS, Param
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.resolving import lacking_params
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.values import as_text

DRAFT: Final = "https://json-schema.org/draft/2020-12/schema"

SEED_EXAMPLE: Final = 42
TEXT_EXAMPLE: Final = "a lighthouse at dusk"

_TYPES: Final[Mapping[ParamType, str]] = {
    "string": "string", "int": "integer", "float": "number", "bool": "boolean", "seed": "integer", "image": "string",
    "video": "string", "audio": "string", "file": "string", "dir": "string", "list": "array", "object": "object",
    "output_path": "string",
}  # fmt: skip
_MEDIA_NAMES: Final = {"image": "photo.png", "video": "clip.mp4", "audio": "sound.wav", "file": "file.bin", "dir": ""}
_NUMBERS: Final[frozenset[ParamType]] = frozenset({"int", "float", "seed"})
_VOLUME_EXAMPLE: Final = "job_outputs/a-job"


def json_schema(template: Template) -> dict[str, Any]:
    """The schema of a job's `params`, for a template that is completed by an object info.

    Every other name of a param is a property of its own, marked deprecated; one job gives a param under one name.
    """
    params = list(template.params.values())
    names = {param.key: _names(template, param) for param in params}
    properties = {param.key: _property(param) for param in params}
    for param in params:
        for alias in names[param.key][1:]:
            properties[alias] = {"$ref": f"#/properties/{param.key}", "deprecated": True}
    rules = [*_needs(template, names), *(_once(taken) for taken in names.values() if len(taken) > 1)]
    described = {"title": template.about.title, "description": template.about.description}
    return {
        "$schema": DRAFT,
        **{key: text for key, text in described.items() if text},
        "type": "object",
        "properties": properties,
        "additionalProperties": False,
        **_joined(rules),
        "examples": [example_params(template)],
    }


def example_params(template: Template) -> dict[str, Any]:
    """Params that this template takes: the required ones, the prompt, a seed, and no others if there are any of these.

    What is required is given by its type alone: a URL stands for a medium.
    """
    given: dict[str, Any] = {}
    for _ in template.params:
        lacking = lacking_params(template, given)
        if not lacking:
            break
        given |= {param.key: _example(param) for param in lacking}
    params = template.params.values()
    given |= {param.key: SEED_EXAMPLE for param in params if param.type == "seed" and _fits(param, SEED_EXAMPLE)}
    given |= {param.key: TEXT_EXAMPLE for param in params if param.key == "prompt" and param.type == "string"}
    if not given:
        defaults = [(param.key, param.default) for param in params if param.default not in (None, MISSING)]
        given = dict(defaults[:2])
    return {key: given[key] for key in template.params if key in given}


# One value.


def _property(param: Param) -> dict[str, Any]:
    said = {"title": param.label or "", "description": _description(param)}
    schema = {**_value(param), **{key: text for key, text in said.items() if text}}
    if param.type != "seed" and param.default is not MISSING:
        schema["default"] = param.default
    if param.shown_choices and not param.choices:
        schema["examples"] = list(param.shown_choices)
    return schema


def _value(param: Param) -> dict[str, Any]:
    """What a value must be. Null is one only where no value at all is the default: elsewhere it means the default."""
    schema: dict[str, Any] = {}
    if (kind := _TYPES.get(param.type)) is not None:
        schema["type"] = [kind, "null"] if param.default is None else kind
    if param.choices:
        values = [choice.value for choice in param.choices]
        schema["enum"] = [*values, None] if param.default is None else values
    if param.media is not None or param.type == "output_path":
        schema["pattern"] = r"\S"
    if param.type == "list":
        schema |= _limits(param, "minItems", "maxItems")
        if param.items:
            schema["items"] = _item(param)
    elif param.type == "seed" and param.minimum is not None and param.minimum > DRAW + 1:
        schema["anyOf"] = [{"const": DRAW}, _limits(param, "minimum", "maximum")]
    elif param.type == "seed":
        schema |= _limits(param, "minimum", "maximum") | {"minimum": DRAW}
    elif param.type in _NUMBERS:
        schema |= _limits(param, "minimum", "maximum")
    return schema


def _limits(param: Param, lowest: str, highest: str) -> dict[str, Any]:
    limits = {lowest: param.minimum, highest: param.maximum}
    is_whole = param.type != "float"
    return {
        name: int(limit) if is_whole and float(limit).is_integer() else limit
        for name, limit in limits.items()
        if limit is not None
    }


def _item(param: Param) -> dict[str, Any]:
    """An object of the fields, or the first of them alone, as text, where the others do without a value."""
    fields = param.items
    first, *others = fields.values()
    required = [name for name, one in fields.items() if one.default is MISSING]
    whole = {
        "type": "object",
        "properties": {name: _property(one) for name, one in fields.items()},
        "additionalProperties": False,
        **({"required": required} if required else {}),
    }
    can_be_text = _TYPES.get(first.type) == "string" and not any(one.default is MISSING for one in others)
    if not can_be_text:
        return whole
    text = {key: value for key, value in _value(first).items() if key not in ("type", "enum")}
    choices = {"enum": [choice.value for choice in first.choices]} if first.choices else {}
    return {"anyOf": [{"type": "string", **text, **choices}, whole]}


def _description(param: Param) -> str:
    said = [param.description]
    if param.media is not None:
        said.append("a folder on the volume, as a path" if param.media == "dir" else _forms(param))
    elif param.type == "output_path":
        said.append("a path on the volume, where it is written to")
    said += [f"{as_text(choice.value)}: {choice.description}" for choice in param.choices if choice.description]
    if param.type == "seed":
        said.append("absent or -1: drawn")
    if param.default_env is not None:
        said.append(f"{param.default_env} may set another default")
    return "; ".join(part for part in said if part)


def _forms(param: Param) -> str:
    return "a path on the volume" if param.key.endswith(PATH_ENDINGS) else FORMS


# What has to be given.


@dataclass(frozen=True, slots=True)
class _Case:
    """One value of a param on which the shape of the graph depends. `schema` tells when it is given, `tried` is one."""

    key: str
    tried: Any
    schema: Mapping[str, Any]


def _needs(template: Template, names: Mapping[str, Sequence[str]]) -> Iterator[dict[str, Any]]:
    """Which params must be given: always, unless a value takes their part of the graph out, or once one brings it
    in."""
    usual = {param.key for param in lacking_params(template, {})}
    spared: dict[str, list[_Case]] = {}
    for case in _cases(template):
        needed = {param.key for param in lacking_params(template, {case.key: case.tried})} - {case.key}
        for key in sorted(usual - needed - {case.key}):
            spared.setdefault(key, []).append(case)
        for key in sorted(needed - usual):
            yield {"if": _given(names[case.key], case.schema), "then": _given(names[key])}
    for key in template.params:
        if key in usual:
            exceptions = [_given(names[case.key], case.schema) for case in spared.get(key, [])]
            yield _any([_given(names[key]), *exceptions])


def _cases(template: Template) -> Iterator[_Case]:
    for param in template.params.values():
        told = [choice.value for choice in itertools.chain(param.choices, param.effects) if choice]
        for value in told:
            if value is not None:
                yield _Case(param.key, value, {"const": value})
        other = _other_than(told, param) if param.otherwise else None
        if other is not None:
            yield _Case(param.key, other, {"not": {"enum": [*told, None]}})


def _other_than(told: Iterable[Any], param: Param) -> Any:
    """Some value that has no effect of its own, or None where there is none to try."""
    tries = [param.default, param.minimum, param.maximum, _example(param)]
    told = list(told)
    return next((one for one in tries if one is not None and one is not MISSING and one not in told), None)


def _given(names: Sequence[str], schema: Mapping[str, Any] | None = None) -> dict[str, Any]:
    """That the param is there under one of its names, and fits the schema."""
    return _any([{"required": [name], **({"properties": {name: schema}} if schema else {})} for name in names])


def _once(names: Sequence[str]) -> dict[str, Any]:
    return {"not": _any([{"required": list(pair)} for pair in itertools.combinations(names, 2)])}


def _any(ways: list[dict[str, Any]]) -> dict[str, Any]:
    return ways[0] if len(ways) == 1 else {"anyOf": ways}


def _joined(rules: Iterable[dict[str, Any]]) -> dict[str, Any]:
    """Plain requirements as one list, the rest beside it."""
    required: list[str] = []
    others: list[dict[str, Any]] = []
    for rule in rules:
        if rule.keys() == {"required"} and len(rule["required"]) == 1:
            required += rule["required"]
        else:
            others.append(rule)
    return {**({"required": required} if required else {}), **({"allOf": others} if others else {})}


def _names(template: Template, param: Param) -> list[str]:
    return [param.key, *(alias for alias, key in template.aliases.items() if key == param.key)]


# Examples.


def _example(param: Param) -> Any:
    """A value of the param's type, within its range."""
    if param.choices:
        return param.choices[0].value
    if param.media is not None or param.type == "output_path":
        return _example_path(param)
    if param.type in _NUMBERS:
        return _example_number(param)
    if param.type == "list":
        item = {name: _example(one) for name, one in param.items.items() if one.default is MISSING} or 0
        return [item] * int(param.minimum or 0)
    others: Mapping[ParamType, Any] = {"bool": True, "object": {}, "string": TEXT_EXAMPLE}
    return others.get(param.type)


def _example_number(param: Param) -> float:
    """1, or what is nearest to it."""
    lowest = -math.inf if param.minimum is None else param.minimum
    highest = math.inf if param.maximum is None else param.maximum
    nearest = min(max(1, lowest), highest)
    return float(nearest) if param.type == "float" else math.ceil(nearest)


def _example_path(param: Param) -> str:
    name = _MEDIA_NAMES.get(param.media or "file", "")
    if param.type == "output_path" or param.key.endswith(PATH_ENDINGS) or param.media == "dir":
        return f"{_VOLUME_EXAMPLE}/{name}".rstrip("/")
    return f"https://example.com/{name}"


def _fits(param: Param, value: int) -> bool:
    above = param.minimum is None or value >= param.minimum
    return above and (param.maximum is None or value <= param.maximum)
