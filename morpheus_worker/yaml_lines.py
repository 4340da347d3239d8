"""YAML (and JSON, which is a part of it) read into plain values that remember their lines, and problems that name them.

Stricter than YAML: no key twice, no aliases of more than one value, no tags but YAML's own.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass, field
from typing import Any, Final

import yaml
from pydantic import ValidationError

from morpheus_worker.errors import Problem, did_you_mean

Location = tuple[str | int, ...]

DEEPEST: Final = 32
"""Collections within collections. libyaml's time grows with the square of the depth."""


@dataclass(frozen=True, slots=True)
class Found:
    """Something wrong at a place in a document."""

    at: Location
    what: str
    hint: str | None = None


@dataclass(slots=True)
class Document:
    """What a text says: `data` as plain values (None where it cannot be read), the line of each place, from 1."""

    data: Any = None
    lines: dict[Location, int] = field(default_factory=lambda: {(): 1})
    found: list[Found] = field(default_factory=list)

    def line_of(self, at: Location) -> int:
        """The line of the place, or of the nearest one around it that stands in the text."""
        while at not in self.lines:
            at = at[:-1]
        return self.lines[at]

    def placed(self, found: Iterable[Found], name: str) -> list[Problem]:
        """The problems in the order of their lines, each `at` as `name:line place`."""
        return [
            Problem(f"{name}:{self.line_of(one.at)} {dotted(one.at)}".rstrip(), one.what, one.hint)
            for one in sorted(found, key=lambda one: self.line_of(one.at))
        ]


def dotted(at: Location) -> str:
    return "".join(f"[{step}]" if isinstance(step, int) else f".{step}" for step in at).removeprefix(".")


_UNREADABLE: Final = re.compile(r"[\x7f-\x9f\u2028\u2029\ufeff\ufffe\uffff]")


def as_json(value: Any, *, indent: int | None = None) -> str:
    """The value as JSON that `read_document` reads as the same value. What is beyond 16 bits stands as it is: as JSON's
    two escapes YAML would refuse it."""
    text = json.dumps(value, indent=indent, ensure_ascii=False)
    return _UNREADABLE.sub(lambda found: f"\\u{ord(found[0]):04x}", text)


def read_document(text: str, *, begins: str) -> Document:
    """Reads one document. `begins` is said of an empty one: what it should begin with."""
    document = Document()
    reader = _Reader(document)
    try:
        document.data = reader.document(text)
    except (yaml.YAMLError, ValueError) as failure:
        mark = getattr(failure, "problem_mark", None)
        document.lines[()] = mark.line + 1 if mark else 1
        said = str(getattr(failure, "problem", None) or failure).splitlines()[0]
        document.found.append(Found((), f"is not YAML: {said}"))
        document.data = None
    if document.data is None and not document.found:
        document.found.append(Found((), "is empty", f"it begins with '{begins}'"))
    return document


_PLAIN_TAGS: Final = (None, "!", "tag:yaml.org,2002:map", "tag:yaml.org,2002:seq")


_TEXT_TAGS: Final = (None, "!", "tag:yaml.org,2002:str")

_VALUE_TAGS: Final = frozenset(f"tag:yaml.org,2002:{kind}" for kind in ("int", "float", "bool", "null"))
"""What is no text. A date is: nothing here wants one."""


class _UnreadableError(ValueError):
    def __init__(self, said: str, event: Any) -> None:
        super().__init__(said)
        self.problem_mark = event.start_mark


class _Reader:
    """Turns the events of a YAML parser into values.

    Not its loader: that recurses in C, and deep nesting ends the whole process.
    """

    def __init__(self, document: Document) -> None:
        self._document = document
        self._scalars = yaml.SafeLoader("")
        self._anchored: dict[str, Any] = {}

    def document(self, text: str) -> Any:
        events = yaml.parse(text, getattr(yaml, "CSafeLoader", yaml.SafeLoader))
        value, documents = None, 0
        for event in events:
            if isinstance(event, yaml.DocumentStartEvent):
                documents += 1
                if documents > 1:
                    raise _UnreadableError("a second document begins", event)
                value = self._value(events, next(events), ())
        return value

    def _value(self, events: Iterator[yaml.Event], event: Any, at: Location) -> Any:
        self._document.lines.setdefault(at, event.start_mark.line + 1)
        if isinstance(event, yaml.AliasEvent):
            return self._alias(event, at)
        if isinstance(event, yaml.ScalarEvent):
            value = self._scalar(event, at)
            if event.anchor is not None:
                self._anchored[event.anchor] = value
            return value
        self._anchored.pop(event.anchor, None)
        if len(at) > DEEPEST:
            raise _UnreadableError("nested too deeply", event)
        if event.tag not in _PLAIN_TAGS:
            self._found(at, "has a tag", f"leave '{event.tag}' out")
        if isinstance(event, yaml.SequenceStartEvent):
            return self._sequence(events, at)
        return self._mapping(events, at)

    def _alias(self, event: Any, at: Location) -> Any:
        """The one value that an alias stands for. Collections would multiply, and hide where they come from."""
        if event.anchor not in self._anchored:
            self._found(at, "is an alias", "write the values out")
        return self._anchored.get(event.anchor)

    def _scalar(self, event: Any, at: Location) -> Any:
        tag = event.tag
        if tag is None:
            tag = self._scalars.resolve(yaml.ScalarNode, event.value, event.implicit)  # type: ignore[no-untyped-call]
        elif tag not in _TEXT_TAGS and tag not in _VALUE_TAGS:
            self._found(at, "has a tag", f"leave '{tag}' out")
        if tag not in _VALUE_TAGS:
            return event.value
        try:
            return self._scalars.construct_object(yaml.ScalarNode(tag, event.value))
        except (ValueError, KeyError):  # KeyError: a word that is no bool, under the tag of one.
            return event.value

    def _sequence(self, events: Iterator[yaml.Event], at: Location) -> list[Any]:
        values: list[Any] = []
        for event in events:
            if isinstance(event, yaml.SequenceEndEvent):
                break
            values.append(self._value(events, event, (*at, len(values))))
        return values

    def _mapping(self, events: Iterator[Any], at: Location) -> dict[str, Any]:
        values: dict[str, Any] = {}
        for event in events:
            if isinstance(event, yaml.MappingEndEvent):
                break
            key, line = self._key(events, event, at), event.start_mark.line + 1
            if key in values:
                self._found((*at, key), f"stands twice, again on line {line}")
            self._document.lines.setdefault((*at, key), line)
            values.setdefault(key, self._value(events, next(events), (*at, key)))
        return values

    def _key(self, events: Iterator[yaml.Event], event: Any, at: Location) -> str:
        if isinstance(event, yaml.ScalarEvent):
            return str(event.value)
        self._value(events, event, (*at, "(a key that is no text)"))
        return "(a key that is no text)"

    def _found(self, at: Location, what: str, hint: str | None = None) -> None:
        self._document.found.append(Found(at, what, hint))


@dataclass(frozen=True, slots=True)
class Shape:
    """What pydantic's findings leave out: what the document is called, the keys that each place may have, the kinds of
    source that there are."""

    called: str
    keys_at: Callable[[Location, Any], Iterable[str]]
    kinds: tuple[str, ...] = ()

    def refused(self, failure: ValidationError, data: Any) -> list[Found]:
        """What a pydantic model finds wrong with a document's data, said as this project says it."""
        return [self._as_found(error, *_without_tags(error["loc"], data)) for error in failure.errors()]

    def _as_found(self, error: Any, at: Location, around: Any) -> Found:
        match error["type"]:
            case "extra_forbidden":
                known = self.keys_at(at[:-1], around)
                return Found(at, f"is no key of {self.called}", did_you_mean(str(at[-1]), known))
            case "missing":
                return Found(at, "is missing")
            case "string_type":
                return Found(at, "must be text", "put it in quotes")
            case "model_type" | "model_attributes_type" | "dict_type":
                return Found(at, "must be keys with values")
            case "union_tag_not_found":
                return Found(at, "has no 'kind'", f"one of {', '.join(self.kinds)}")
            case "union_tag_invalid":
                near = did_you_mean(str(error["ctx"]["tag"]), self.kinds)
                return Found((*at, "kind"), "is no kind of source", near or f"one of {', '.join(self.kinds)}")
            case _:
                said = str(error["msg"]).removeprefix("Value error, ").replace("Input should be", "must be")
                return Found(at, said)


def _without_tags(loc: Location, data: Any) -> tuple[Location, Any]:
    """The place, without the tags of unions ("hf") that pydantic puts in and the text does not have, and what is
    around it."""
    at: list[str | int] = []
    for step in loc[:-1]:
        if isinstance(data, dict) and data.get("kind") == step:
            continue
        at.append(step)
        data = data[step]
    return (*at, *loc[-1:]), data
