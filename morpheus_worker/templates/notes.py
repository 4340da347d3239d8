"""What contradicts itself in a document's params, gathered with its place in the file; nothing of it is raised."""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass, field, replace
from typing import Any, Final

from morpheus_worker.errors import Problem, did_you_mean
from morpheus_worker.templates.document import Document
from morpheus_worker.templates.items import read_items
from morpheus_worker.templates.params import Param
from morpheus_worker.templates.reading import Path
from morpheus_worker.templates.values import RefusedValueError, listed, read_value

_GO_ON: Final = ("is ", "must ", "has ")
"""How a refusal begins that goes on with a sentence about the value; others are sentences of their own."""


@dataclass(frozen=True, slots=True)
class Notes:
    """The problems of one completion of one document."""

    document: Document
    problems: list[Problem] = field(default_factory=list)

    def note(self, key: str, at: Path, what: str, hint: str | None = None) -> None:
        """A problem of a param's declaration; `at` leads on from there."""
        self.note_at(("_params", key, *at), what, hint)

    def note_at(self, path: Path, what: str, hint: str | None = None) -> None:
        self.problems.append(self.document.tree.problem(path, what, hint))

    def read(self, param: Param, value: Any, key: str, at: Path, what: str) -> Any:
        """The value as the param has it. What it refuses is noted at `key`, and kept."""
        if param.items:
            items, refusals = read_items(param, value)
            for refusal in refusals:
                at_item = f"{what} {refusal.at}".rstrip()
                self.note(key, at, f"{at_item} {refusal.refused.what}", refusal.refused.hint)
            return value if refusals else items
        try:
            return read_value(param, value)
        except RefusedValueError as refused:
            joint = " " if refused.what.startswith(_GO_ON) else ": "
            self.note(key, at, f"{what}{joint}{refused.what}", refused.hint)
            return value


def judge(param: Param) -> Param:
    """The param that judges a template's own values: what models a ComfyUI has is no matter of the template."""
    if param.items:
        return replace(param, items={name: judge(field) for name, field in param.items.items()})
    return param if param.own_choices else replace(param, choices=())


def near_or_all(name: str, known: Collection[str], kind: str) -> str:
    """What was probably meant; when nothing is near, what there is."""
    return did_you_mean(name, known) or (f"{kind}: {listed(list(known))}" if known else f"there are no {kind}")
