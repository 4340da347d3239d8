"""A template's params as rows for a person to read."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, replace
from typing import Any, Final

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.templates.params import Effect, Param
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.template import Template
from morpheus_worker.templates.values import as_text, listed

LONGEST_LIST: Final = 12
"""How many choices a row names."""


@dataclass(frozen=True, slots=True)
class Row:
    """One param, in words."""

    key: str
    type: str
    default: str
    allowed: str
    media: str
    description: str


def describe(
    template: Template, object_info: ObjectInfo | None = None, deployment: Mapping[str, Any] | None = None
) -> list[Row]:
    """One row a param, in the template's order, completed by the object info where one is given. `deployment` has the
    defaults that the worker's environment sets."""
    template = template if object_info is None else template.seen_by(object_info)
    set_here = deployment or {}
    return [_row(_deployed(param, set_here)) for param in template.params.values()]


def _deployed(param: Param, set_here: Mapping[str, Any]) -> Param:
    name = param.default_env
    return replace(param, default=set_here[name]) if name is not None and name in set_here else param


def _row(param: Param) -> Row:
    also = f"also called {', '.join(param.aliases)}" if param.aliases else ""
    said = [param.description or param.label or "", *_items(param), *_effects(param), _deployment(param), also]
    meaning = "; ".join(part for part in said if part)
    return Row(param.key, param.type, _default(param), _allowed(param), param.media or "", meaning)


def _items(param: Param) -> Iterator[str]:
    """`an item has name (string, required), strength (float, 1.0, 0 to 2)`."""
    fields = [
        f"{name} ({', '.join(part for part in (field.type, _default(field), _allowed(field)) if part)})"
        for name, field in param.items.items()
    ]
    if fields:
        yield f"an item has {', '.join(fields)}"


def _effects(param: Param) -> Iterator[str]:
    """What single values do besides, in the template's words. What they do to the graph is nothing to a caller."""
    yield from (f"{as_text(choice.value)}: {choice.description}" for choice in param.choices if choice.description)
    for effect in param.effects:
        if said := _done_by(effect):
            yield f"{'none' if effect.value is None else as_text(effect.value)}: {said}"
    if said := _done_by(param.otherwise):
        yield f"{'any other' if param.effects else 'any'}: {said}"
    if param.of is not None:
        yield f"the file of node {param.of} is put there as well"


def _done_by(effect: Effect) -> str:
    sets = ", ".join(f"{key} {as_text(value) or 'none'}" for key, value in effect.sets.items())
    return effect.description or (f"sets {sets}" if sets else "")


def _deployment(param: Param) -> str:
    return f"{param.default_env} sets the default" if param.default_env else ""


def _default(param: Param) -> str:
    if param.default is MISSING or (param.type == "seed" and param.default in (None, -1)):
        return "drawn" if param.type == "seed" else "required"
    return "none" if param.default is None else as_text(param.default) or '""'


def _allowed(param: Param) -> str:
    choices = [as_text(choice.value) for choice in param.choices] or [as_text(value) for value in param.shown_choices]
    if choices:
        return listed(choices, LONGEST_LIST)
    if param.minimum is None and param.maximum is None:
        return ""
    lowest = "" if param.minimum is None else str(param.minimum)
    highest = "" if param.maximum is None else str(param.maximum)
    said = f"{lowest} to {highest}" if lowest and highest else f"at least {lowest}" if lowest else f"at most {highest}"
    return f"{said} items" if param.type == "list" else said
