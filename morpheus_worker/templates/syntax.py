"""What keeps a text from being JSON, in the words of the person who mends it."""

from __future__ import annotations

import json
import re
from typing import Final

_GENERAL: Final = "look for a missing or extra comma, quote or bracket"
_CUT: Final = "is the file whole? save or export it again"
_COMMENTS: Final = ("//", "/*", "#")
_OTHER_QUOTES: Final = "'`´‘’‚“”„«»"
_WORD: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_]*")
_OTHER_LANGUAGES: Final = {"true": "true", "false": "false", "null": "null", "none": "null", "undefined": "null"}


def syntax_fault(failure: json.JSONDecodeError, text: str) -> tuple[str, str]:
    """What is wrong where `json.loads` gave up, and what to write instead."""
    if not text.strip():
        return "the file is empty", "export a workflow in API format into it"
    if failure.msg == "Extra data":
        return "there is text after the end of the JSON object", "remove it, or look for a '}' too many before it"
    rest = text[failure.pos :]
    near = rest[:20].partition("\n")[0]
    shown = f" near '{near}'" if near.strip() else ""
    why, hint = _within_text(failure.msg, rest) or _between(failure.msg, text[: failure.pos], rest)
    return f"is not JSON{shown}: {why}", hint


def _within_text(said: str, rest: str) -> tuple[str, str] | None:
    """A fault within a text, of which `rest` begins with the culprit."""
    if said.startswith("Unterminated string"):
        return "this text never ends", f'put a " at its end; {_CUT}'
    if said.startswith("Invalid control character"):
        if rest[0] in "\r\n":
            return "a text has a line break in it", 'write \\n for it, or put the missing " at the end of the text'
        written = "\\t" if rest[0] == "\t" else f"\\u{ord(rest[0]):04x}"
        return "a text has a control character in it", f"write {written} for it"
    if said.startswith("Invalid \\"):
        return "a text has a lone backslash in it", "write \\\\ for a backslash, or / between folders"
    return None


def _between(said: str, before: str, rest: str) -> tuple[str, str]:
    """A fault where a value, a key or what stands between them should be."""
    if not rest.strip():
        return "it ends in the middle", _CUT
    if rest.startswith(_COMMENTS):
        return "JSON has no comments", "remove it; a workflow and each param may have a description"
    if said.startswith("Illegal trailing comma") or (rest[0] in "}]" and before.rstrip().endswith(",")):
        return "a comma stands before the end of a list or object", "remove it"
    if rest[0] in _OTHER_QUOTES:
        return "these are not JSON's quotes", 'write straight double quotes: "'
    if said == "Expecting ',' delimiter" and (rest[0] in '"{[-' or rest[0].isdigit()):
        return "a comma is missing before this", "put one there; or look for a quote or bracket too many before it"
    if said == "Expecting ':' delimiter":
        return "a ':' is missing before this", 'a key and its value are written "key": value'
    word = _WORD.match(rest)
    if word is None or said == "Expecting ',' delimiter":
        return said, _GENERAL
    meant = _OTHER_LANGUAGES.get(word[0].lower())
    if meant is not None:
        return "JSON knows true, false and null alone", f"write {meant}"
    return "this stands without quotes", "put a text or key in double quotes"
