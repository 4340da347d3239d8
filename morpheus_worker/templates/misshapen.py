"""What a block of ours has in the wrong JSON shape, in the words of the person who writes templates."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from morpheus_worker.errors import Problem, did_you_mean
from morpheus_worker.templates.reading import Path, Tree

_SHOWN_CHARACTERS: Final = 40

_EXAMPLES: Final[Mapping[str, str]] = {
    "_about": '{"title": "…"}',
    "aliases": '["creation"]',
    "param_aliases": '{"cfg_scale": "cfg"}',
    "packs": '["ComfyUI-Impact-Pack"]',
    "fails_on": '{"no_face": ["no face found"]}',
    "choices": '["euler", "ddim"], or an object of presets, {"1:1": {"set": {"width": 1024}}}',
    "effects": '{"0": {"bypass": {"5": ["model"]}}}',
    "set": '{"width": 1024}',
    "links": '{"9.images": ["20", 0]}',
    "bypass": '{"5": ["model", "clip"]}',
    "repeat": '{"2": ["model", "clip"]}',
    "items": '{"name": {"type": "string"}}',
}
_OF_MEMBERS: Final[Mapping[str, str]] = {
    "_params": '{"type": "int", "default": 20}',
    "choices": '{"set": {"width": 1024}}',
    "effects": '{"bypass": {"5": ["model"]}}',
    "items": '{"type": "string"}',
    "links": '["20", 0]',
    "bypass": '["model", "clip"]',
    "repeat": '["model", "clip"]',
    "fails_on": '["no face found"]',
}
_OTHER_NAMES: Final[Mapping[str, str]] = {
    "number": "float",
    "double": "float",
    "text": "string",
    "str": "string",
    "boolean": "bool",
    "picture": "image",
    "folder": "dir",
    "array": "list",
    "dict": "object",
}
_WRITTEN_OTHERWISE: Final = ("dict_type", "model_type", "list_type")
_NOUNS: Final[Mapping[str, str]] = {
    "dict_type": "an object",
    "model_type": "an object",
    "list_type": "a list",
    "string_type": "text",
    "bool_type": "true or false",
    "int_type": "a number",
    "float_type": "a number",
}
_QUOTED: Final = re.compile(r"'([^']+)'")


def misshapen(
    failure: ValidationError, block: Path, tree: Tree, known: Sequence[str], within: Sequence[str] = ()
) -> list[Problem]:
    """Everything that pydantic found wrong with a block, each thing once. `known` are the block's own keys, `within`
    those further in."""
    return list(dict.fromkeys(_problems(failure, block, tree, [*known, *within])))


def _problems(failure: ValidationError, block: Path, tree: Tree, known: Sequence[str]) -> Iterator[Problem]:
    for error in failure.errors():
        # A union's branch appears in pydantic's location and nowhere in the file.
        path = block
        for step in error["loc"]:
            path = (*path, step) if (*path, step) in tree.offsets else path
        dotted = ".".join(str(step) for step in path)
        if error["type"] == "extra_forbidden":
            yield tree.problem(path, f"{dotted} is not known here", did_you_mean(str(path[-1]), known))
        else:
            what, hint = _said(error, path)
            yield tree.problem(path, f"{dotted}: {what}", hint)


def _said(error: ErrorDetails, path: Path) -> tuple[str, str | None]:
    kind, value, limits = error["type"], error["input"], error.get("ctx", {})
    if kind in _NOUNS:
        return f"must be {_NOUNS[kind]}, got {_shown(value)}", _how_to_write(kind, value, path)
    if kind == "literal_error":
        names = _QUOTED.findall(str(limits["expected"]))
        meant = _OTHER_NAMES.get(value) if isinstance(value, str) else None
        near = f"did you mean '{meant}'?" if meant in names else did_you_mean(str(value)[:_SHOWN_CHARACTERS], names)
        return f"must be {limits['expected']}, got {_shown(value)}", near
    if kind == "string_too_short":
        return f"must have {limits['min_length']} characters or more, got {_shown(value)}", None
    if kind == "string_pattern_mismatch":
        return f"must be a dot with letters or digits after it, got {_shown(value)}", 'such as ".ipadpt"'
    if kind == "greater_than":
        return f"must be above {limits['gt']:g}, got {_shown(value)}", None
    if kind == "less_than_equal":
        return f"must be at most {limits['le']:g}, got {_shown(value)}", None
    return error["msg"].removeprefix("Value error, "), None


def _how_to_write(kind: str, value: Any, path: Path) -> str | None:
    if kind in _WRITTEN_OTHERWISE:
        holder = path[-2] if len(path) > 1 else None
        example = _OF_MEMBERS.get(str(holder)) or _EXAMPLES.get(str(path[-1]))
        return f"such as {example}" if example else None
    if kind == "string_type" and not isinstance(value, (list, dict)):
        return f'write "{_shown(value)}"'
    return "without quotes" if isinstance(value, str) else None


def _shown(value: Any) -> str:
    if isinstance(value, str):
        return f"'{value}'" if len(value) <= _SHOWN_CHARACTERS else f"'{value[:_SHOWN_CHARACTERS]}…'"
    if isinstance(value, (list, dict)):
        return "a list" if isinstance(value, list) else "an object"
    return json.dumps(value)
