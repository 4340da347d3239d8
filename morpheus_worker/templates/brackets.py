"""`[word]`, which weighs less in other tools of the field, in the form that ComfyUI knows: `(word:0.91)`.

ComfyUI's own weights (0.3.64, comfy/sd1_clip.py `token_weights`): `(…)` multiplies the weight around it by 1.1, while
`(…:1.2)` sets it, whatever is around; a parenthesis behind a backslash is text. A parenthesis without a partner makes
text of everything behind it.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

STEP: Final = 1.1
"""What one pair of parentheses multiplies a weight by, and one pair of brackets divides it by."""

_TOKEN: Final = re.compile(r"\\[()\[\]]|[()\[\]:|]")


@dataclass(slots=True)
class _Pair:
    """An opening bracket or parenthesis, and what is known of its pair so far.

    `colon` is the last colon directly inside, -1 without one; `edits` says that it is prompt editing, which has one of
    `:` and `|` directly inside.
    """

    kind: str
    start: int
    end: int = -1
    colon: int = -1
    edits: bool = False


def weighed(text: str) -> str:
    """The text with its brackets as weights: 1/1.1 of what is around them, for each level.

    `\\[` is a plain bracket. Brackets without a partner, empty ones, and those with `:` or `|` directly inside stay.
    """
    if "[" not in text and "]" not in text:
        return text
    written = _replacements(text, _pairs(text))
    return "".join(written.get(index, character) for index, character in enumerate(text))


def _pairs(text: str) -> list[_Pair]:
    """Every pair in the order of its opening, up to the first parenthesis without a partner."""
    found: list[_Pair] = []
    waiting: list[_Pair] = []
    for match in _TOKEN.finditer(text):
        token, at = match[0], match.start()
        if token in "([":
            waiting.append(_Pair(token, at))
            found.append(waiting[-1])
        elif token in ":|" and waiting:
            waiting[-1].edits = True
            waiting[-1].colon = at if token == ":" else waiting[-1].colon
        elif token == "]" and waiting and waiting[-1].kind == "[":
            waiting.pop().end = at
        elif token == ")":
            while waiting and waiting[-1].kind == "[":
                waiting.pop()
            if not waiting:
                return [pair for pair in found if -1 < pair.end < at]
            waiting.pop().end = at
    lost = min((pair.start for pair in waiting if pair.kind == "("), default=len(text))
    return [pair for pair in found if -1 < pair.end < lost]


def _replacements(text: str, pairs: list[_Pair]) -> Mapping[int, str]:
    """What stands instead of a character of the text, by its index."""
    written = {match.start(): "" for match in _TOKEN.finditer(text) if match[0] in ("\\[", "\\]")}
    inside: list[tuple[_Pair, float]] = []
    for pair in pairs:
        while inside and inside[-1][0].end < pair.start:
            inside.pop()
        around = inside[-1][1] if inside else 1.0
        if pair.kind == "(":
            inside.append((pair, _weight_of(text, pair, around)))
        elif not pair.edits and text[pair.start + 1 : pair.end].strip():
            weight = around / STEP
            inside.append((pair, weight))
            written[pair.start], written[pair.end] = "(", f":{_shown(weight)})"
    _merge(written, pairs)
    return written


def _merge(written: dict[int, str], pairs: list[_Pair]) -> None:
    """`[[word]]` is one weight, the inner one: an outer pair around nothing but another one goes."""
    brackets = {pair.start: pair.end for pair in pairs if pair.kind == "[" and written.get(pair.start) == "("}
    for start, end in brackets.items():
        if brackets.get(start + 1) == end - 1:
            written[start] = written[end] = ""


def _weight_of(text: str, pair: _Pair, around: float) -> float:
    said = text[pair.colon + 1 : pair.end] if pair.colon > pair.start + 1 else ""
    try:
        weight = float(said)
    except ValueError:
        return around * STEP
    return weight if math.isfinite(weight) else around * STEP


def _shown(weight: float) -> str:
    """Two digits behind the point, and two that count for what is smaller."""
    return f"{weight:.2g}" if abs(weight) < 0.1 else f"{round(weight, 2):g}"
