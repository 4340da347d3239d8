"""Placeholders in text: `__param:key__`, `__file:key__`, `__dir:key__`.

A key is made of letters, digits, `_`, `-` and `.`, and is as short as it can be: `__param:a__b__` is the placeholder
`a`, followed by the text `b__`.
"""

from __future__ import annotations

import re
from bisect import bisect_left
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Final, Literal, cast

PlaceholderKind = Literal["param", "file", "dir"]

_PLACEHOLDER: Final = re.compile(r"__(param|file|dir):([A-Za-z0-9_.-]+?)__")
_OUR_BLOCK: Final = re.compile(r'"_(?:about|params)"\s*:')
_LOOKALIKE: Final = re.compile(r"__(?:params?|files?|dirs?):", re.IGNORECASE)
_STRING_OR_PLACEHOLDER: Final = re.compile(
    r'(?P<string>"[^"\\]*+(?:\\.[^"\\]*+)*+")|(?P<bare>__(?:param|file|dir):[A-Za-z0-9_.-]+?__)|(?P<open>")', re.DOTALL
)


@dataclass(frozen=True, slots=True)
class Placeholder:
    kind: PlaceholderKind
    key: str

    def __str__(self) -> str:
        return f"__{self.kind}:{self.key}__"


Part = str | Placeholder


def split(text: str) -> tuple[Part, ...]:
    """The text as its pieces: placeholders, and what stands between them. A text without any is one piece, itself.

    >>> split("a __param:b__ c")
    ('a ', Placeholder(kind='param', key='b'), ' c')
    """
    parts: list[Part] = []
    end = 0
    for match in _PLACEHOLDER.finditer(text):
        parts.append(text[end : match.start()])
        parts.append(Placeholder(cast(PlaceholderKind, match[1]), match[2]))
        end = match.end()
    parts.append(text[end:])
    return tuple(part for part in parts if part != "") or ("",)


def is_template(text: str) -> bool:
    """Whether a file's text is that of a template rather than of a plain graph: it has a placeholder, or a block of
    ours."""
    return bool(_PLACEHOLDER.search(text) or _OUR_BLOCK.search(text))


def lookalikes(text: str) -> Iterator[str]:
    """What begins like a placeholder and is none (`__param:my key__`, `__params:steps__`), shortened."""
    found = {match.start() for match in _PLACEHOLDER.finditer(text)}
    for match in _LOOKALIKE.finditer(text):
        if match.start() not in found:
            yield text[match.start() : match.start() + 40]


@dataclass(frozen=True, slots=True)
class Quoted:
    """Text whose bare placeholders have become JSON strings. `inserted` are the offsets of the added quotes."""

    text: str
    inserted: Sequence[int]

    def original(self, offset: int) -> int:
        """The offset in the text as it was written."""
        return offset - bisect_left(self.inserted, offset)


def quote_bare(text: str) -> Quoted:
    """Puts quotes around every placeholder that stands outside of any JSON string. One scan, which knows strings and
    their escapes; from a string that never ends on, nothing is touched."""
    pieces: list[str] = []
    inserted: list[int] = []
    end = length = 0
    for match in _STRING_OR_PLACEHOLDER.finditer(text):
        if match["open"]:
            break
        if match["bare"]:
            before = text[end : match.start()]
            inserted += [length + len(before), length + len(before) + 1 + len(match["bare"])]
            pieces += [before, '"', match["bare"], '"']
            length += len(before) + len(match["bare"]) + 2
            end = match.end()
    return Quoted("".join([*pieces, text[end:]]), inserted)
