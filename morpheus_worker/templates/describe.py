"""A template's params as rows for a person to read."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final

from morpheus_worker.comfy.objectinfo import ObjectInfo
from morpheus_worker.templates.params import Param
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


def describe(template: Template, object_info: ObjectInfo | None = None) -> list[Row]:
    """One row a param, in the template's order, completed by the object info where one is given."""
    template = template if object_info is None else template.seen_by(object_info)
    return [_row(param) for param in template.params.values()]


def _row(param: Param) -> Row:
    also = f"also called {', '.join(param.aliases)}" if param.aliases else ""
    said = "; ".join(part for part in (param.description or param.label or "", also) if part)
    return Row(param.key, param.type, _default(param), _allowed(param), param.media or "", said)


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
    return f"{lowest} to {highest}" if lowest and highest else f"at least {lowest}" if lowest else f"at most {highest}"
