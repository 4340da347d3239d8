"""As much of JSON Schema (2020-12) as pydantic writes for the models on the wire."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, Final

NOT_ABOUT_VALUES: Final = frozenset({"$defs", "title", "description", "default", "format", "writeOnly"})
TYPES: Final[Mapping[str, tuple[type, ...]]] = {
    "null": (type(None),),
    "boolean": (bool,),
    "integer": (int,),
    "number": (int, float),
    "string": (str,),
    "array": (list,),
    "object": (dict,),
}


def misfits(schema: Mapping[str, Any], value: Any) -> list[str]:
    """What keeps the value from fitting the schema, each with its place.

    Raises:
        AssertionError, KeyError: the schema itself is wrong, or uses a keyword that this module does not know.
    """
    return list(_misfits(schema, value, schema.get("$defs", {}), "$"))


def _misfits(schema: Mapping[str, Any], value: Any, known: Mapping[str, Any], at: str) -> Iterator[str]:
    for keyword, said in schema.items():
        match keyword:
            case "$ref":
                yield from _misfits(known[said.removeprefix("#/$defs/")], value, known, at)
            case "anyOf":
                if all(list(_misfits(branch, value, known, at)) for branch in said):
                    yield f"{at} is of no form that it may have"
            case "properties" if isinstance(value, dict):
                for key in value.keys() & said.keys():
                    yield from _misfits(said[key], value[key], known, f"{at}.{key}")
            case "additionalProperties" if isinstance(value, dict) and not isinstance(said, bool):
                for key in value.keys() - schema.get("properties", {}).keys():
                    yield from _misfits(said, value[key], known, f"{at}.{key}")
            case "items" if isinstance(value, list):
                for index, item in enumerate(value):
                    yield from _misfits(said, item, known, f"{at}[{index}]")
            case _ if not _fits(keyword, said, value):
                yield f"{at} does not fit {keyword}: {said}"


def _fits(keyword: str, said: Any, value: Any) -> bool:
    is_number = isinstance(value, int | float)
    match keyword:
        case "type":
            return isinstance(value, TYPES[said]) and (said == "boolean" or not isinstance(value, bool))
        case "enum":
            return value in said
        case "const":
            return bool(value == said)
        case "required":
            return not isinstance(value, dict) or set(said) <= value.keys()
        case "additionalProperties":
            return said is not False
        case "minLength":
            return not isinstance(value, str) or len(value) >= said
        case "maxLength":
            return not isinstance(value, str) or len(value) <= said
        case "minimum":
            return not is_number or value >= said
        case "exclusiveMinimum":
            return not is_number or value > said
        case "maximum":
            return not is_number or value <= said
        case "properties" | "items":
            return True
        case _:
            assert keyword in NOT_ABOUT_VALUES, f"'{keyword}' is no keyword of JSON Schema that is known here"
            return True
