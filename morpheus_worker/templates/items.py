"""The items of a list, read by their fields: `[{"name": "a", "strength": 0.5}, "b"]`."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

from morpheus_worker.errors import MOST_TOLD, did_you_mean
from morpheus_worker.templates.params import Param
from morpheus_worker.templates.places import MISSING
from morpheus_worker.templates.values import LONGEST_NAME, RefusedValueError, named, read_value, shown


@dataclass(frozen=True, slots=True)
class Refusal:
    """What was refused, and where in the list: `[0].strength`, or nothing for the list itself."""

    at: str
    refused: RefusedValueError


def read_items(param: Param, value: Any) -> tuple[list[dict[str, Any]], list[Refusal]]:
    """Every item as an object of all its fields, and everything that is wrong with them.

    An item that is a text is the first field. A field that is absent or null has its default.
    """
    try:
        items = read_value(param, value)
    except RefusedValueError as refused:
        return [], [Refusal("", refused)]
    refusals: list[Refusal] = []
    return [_read_item(param, item, f"[{index}]", refusals) for index, item in enumerate(items)], refusals


def _read_item(param: Param, item: Any, at: str, refusals: list[Refusal]) -> dict[str, Any]:
    first = next(iter(param.items))
    given = {first: item} if isinstance(item, str) else item
    if not isinstance(given, dict):
        what = f"must be an object of {', '.join(param.items)}, or just the {first} as text, got {shown(item)}"
        refusals.append(Refusal(at, RefusedValueError(what)))
        return {}
    refusals += _unknown_fields(param, given, at)
    read: dict[str, Any] = {}
    for name, field in param.items.items():
        try:
            read[name] = _read_field(field, given.get(name))
        except RefusedValueError as refused:
            refusals.append(Refusal(f"{at}.{name}", refused))
    return read


def _read_field(field: Param, value: Any) -> Any:
    if value is not None:
        return read_value(field, value)
    if field.default is MISSING:
        raise RefusedValueError("is required", field.description or None)
    return field.default


def _unknown_fields(param: Param, given: dict[Any, Any], at: str) -> Iterator[Refusal]:
    unknown = [str(name) for name in given if name not in param.items]
    fields = f"fields: {', '.join(param.items)}"
    for name in unknown[:MOST_TOLD]:
        near = did_you_mean(name, param.items) if len(name) <= LONGEST_NAME else None
        yield Refusal(f"{at}.{named(name)}", RefusedValueError("is no field of an item", near or fields))
