"""The project's Markdown files as a reader sees them: blocks, inline code, tables and links."""

from __future__ import annotations

import itertools
import json
import re
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from markdown_it import MarkdownIt
from markdown_it.token import Token

PROJECT: Final = Path(__file__).resolve().parents[1]
_MARKDOWN: Final = MarkdownIt().enable("table")
_LEFT_OUT: Final = re.compile(r"(?P<kept>[\[{,])\s*…[^\]}\"]*(?=[\]}])")


@dataclass(frozen=True, slots=True)
class Block:
    """A fenced block; `line` is the fence's, counted from 1."""

    document: str
    line: int
    language: str
    text: str

    def __str__(self) -> str:
        return f"{self.document}:{self.line}"


def documents() -> list[str]:
    """Every Markdown file of the project, by its path in it."""
    found = [*PROJECT.glob("*.md"), *PROJECT.glob("[!.]*/**/*.md")]
    return sorted(str(path.relative_to(PROJECT)) for path in found)


def text_of(document: str) -> str:
    return (PROJECT / document).read_text(encoding="utf-8")


def blocks(document: str) -> list[Block]:
    return [
        Block(document, (token.map or [0])[0] + 1, token.info.strip(), token.content)
        for token in _tokens(document)
        if token.type == "fence"
    ]


def inline_code(document: str) -> list[str]:
    """What stands between backticks outside the blocks, on one line each."""
    return [" ".join(token.content.split()) for token in _within_text(document) if token.type == "code_inline"]


def links(document: str) -> list[str]:
    return [str(token.attrs["href"]) for token in _within_text(document) if token.type == "link_open"]


def tables(document: str, first_header: str) -> list[list[list[str]]]:
    """The rows of every table whose first column is called that, each cell as it is written."""
    found: list[list[list[str]]] = []
    for token, inside in itertools.pairwise(_tokens(document)):
        if token.type == "table_open":
            found.append([])
        elif token.type == "tr_open":
            found[-1].append([])
        elif token.type in ("th_open", "td_open"):
            found[-1][-1].append(inside.content)
    return [rows for header, *rows in found if header[0] == first_header]


def as_json(example: str) -> Any:
    """An example as JSON, once what it leaves out with a bare `…` is gone."""
    return json.loads(re.sub(r",(\s*[\]}])", r"\1", _LEFT_OUT.sub(r"\g<kept>", example)))


def _tokens(document: str) -> list[Token]:
    return _MARKDOWN.parse(text_of(document))


def _within_text(document: str) -> Iterator[Token]:
    for token in _tokens(document):
        yield from token.children or ()
