"""A template file's text as a JSON tree, and the place of everything in it, for the people who fix it."""

from __future__ import annotations

import json
import math
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any, Final, Literal

from morpheus_worker.errors import Problem
from morpheus_worker.templates.scan import Placeholder, Quoted, lookalikes, quote_bare, split
from morpheus_worker.templates.syntax import syntax_fault

MAX_DEPTH: Final = 64
"""How deep a template may be nested; a graph needs three levels."""

OUR_BLOCKS: Final = ("_about", "_params")
"""Top-level keys that are not nodes. Their text is never scanned for placeholders."""

Path = tuple[str | int, ...]
"""The keys and indices that lead to a value."""

_TOKEN: Final = re.compile(r'"[^"\\]*+(?:\\.[^"\\]*+)*+"|[{}\[\],:]|[^\s{}\[\],:"]++')
_REAL: Final = re.compile(r"-?[0-9]+[.eE]")


class TemplateError(Exception):
    """A template file that cannot be used. `problems` holds all of it; each says where in the file."""

    def __init__(self, name: str, problems: list[Problem]) -> None:
        self.name = name
        self.problems = tuple(problems)
        super().__init__(f"{name}: " + "; ".join(str(problem) for problem in problems))


@dataclass(frozen=True, slots=True)
class Tree:
    """A parsed file. `offsets` knows where each value begins, by its path."""

    value: dict[str, Any]
    quoted: Quoted
    offsets: Mapping[Path, int]

    def problem(self, path: Path, what: str, hint: str | None = None) -> Problem:
        """A problem at the value that `path` leads to, or at the nearest one around it."""
        while path not in self.offsets:
            path = path[:-1]
        return Problem(self.line_of(self.offsets[path]), what, hint)

    def line_of(self, offset: int) -> str:
        """`line 3, column 7` of the file as it was written; both count from 1."""
        before = self.quoted.text[:offset]
        first = before.rfind("\n") + 1
        column = self.quoted.original(offset) - self.quoted.original(first) + 1
        return f"line {before.count(chr(10)) + 1}, column {column}"


def read_tree(text: str, *, name: str) -> Tree:
    """Parses a template's text.

    Raises:
        TemplateError: when it is not one JSON object, with every problem that JSON itself allows to see at once:
            keys given twice, numbers that are not finite, placeholders in keys, text that is almost a placeholder.
    """
    quoted = quote_bare(text)
    value = _loaded(quoted, name)
    tokens = list(_tokens(quoted.text))
    offsets: dict[Path, int] = {}
    for token in tokens:
        if token.kind != "key":
            offsets.setdefault(token.path, token.offset)
    tree = Tree(value if isinstance(value, dict) else {}, quoted, offsets)
    problems = [] if isinstance(value, dict) else [tree.problem((), "must be one JSON object", "{…} around the nodes")]
    problems += [Problem(tree.line_of(token.offset), *said) for token in tokens for said in token.problems]
    if problems:
        raise TemplateError(name, problems)
    return tree


def _loaded(quoted: Quoted, name: str) -> Any:
    empty = Tree({}, quoted, {})
    try:
        return json.loads(quoted.text)
    except json.JSONDecodeError as failure:
        problem = Problem(empty.line_of(failure.pos), *syntax_fault(failure, quoted.text))
    except RecursionError:
        problem = Problem("", "is nested too deeply", f"a template has at most {MAX_DEPTH} levels")
    except ValueError as failure:
        problem = Problem("", f"has a number that cannot be read: {failure}")
    raise TemplateError(name, [problem])


@dataclass(frozen=True, slots=True)
class _Token:
    """A key, a scalar value, or the beginning of an object or list."""

    kind: Literal["key", "value"]
    path: Path
    offset: int
    problems: tuple[tuple[str, str], ...] = ()


@dataclass(slots=True)
class _Frame:
    """An object or list that is being read. `step` is the key or index of the value in turn."""

    step: str | int | None
    seen: set[str] = field(default_factory=set)


def _tokens(text: str) -> Iterator[_Token]:
    """Walks text that `json.loads` has accepted."""
    frames: list[_Frame] = []
    for match in _TOKEN.finditer(text):
        raw, offset = match[0], match.start()
        frame = frames[-1] if frames else None
        if raw in "}]":
            frames.pop()
        elif raw == ",":
            assert frame is not None
            frame.step = frame.step + 1 if isinstance(frame.step, int) else None
        elif raw == ":":
            continue
        elif frame is not None and frame.step is None:
            yield _key(_text(raw), frames, offset)
        else:
            path = _path(frames)
            yield _Token("value", path, offset, tuple(_value_problems(raw, path)))
            if raw in "{[":
                frames.append(_Frame(None if raw == "{" else 0))


def _path(frames: list[_Frame]) -> Path:
    return tuple(frame.step for frame in frames if frame.step is not None)


def _key(key: str, frames: list[_Frame], offset: int) -> _Token:
    frame = frames[-1]
    problems = []
    if key in frame.seen:
        problems.append((f"the key '{_short(key)}' is given twice", "JSON would keep the last one; remove one"))
    is_ours = bool(_path(frames[:-1])) and frames[0].step in OUR_BLOCKS
    if "__" in key and not is_ours and any(isinstance(part, Placeholder) for part in split(key)):
        problems.append((f"a placeholder stands in a key: '{_short(key)}'", "only values can be filled in"))
    frame.seen.add(key)
    frame.step = key
    return _Token("key", _path(frames), offset, tuple(problems))


def _value_problems(raw: str, path: Path) -> Iterator[tuple[str, str]]:
    if len(path) > MAX_DEPTH:
        yield "is nested too deeply", f"a template has at most {MAX_DEPTH} levels"
    if raw in ("NaN", "Infinity", "-Infinity") or (_REAL.match(raw) and not math.isfinite(float(raw))):
        yield f"{_short(raw)} is not a finite number", "JSON has no NaN or infinity"
    if raw[0] == '"' and "__" in raw and path[:1] not in [(block,) for block in OUR_BLOCKS]:
        for found in lookalikes(_text(raw)):
            hint = "write __param:key__, __file:key__ or __dir:key__; a key has letters, digits, '_', '-' and '.'"
            yield f"'{found}' looks like a placeholder and is none", hint


def _text(raw: str) -> str:
    """What a JSON string says."""
    return str(json.loads(raw)) if "\\" in raw else raw[1:-1]


def _short(text: str) -> str:
    return text if len(text) <= 60 else f"{text[:57]}..."
