"""What an inspection says of a workflow."""

from __future__ import annotations

import re
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal

from morpheus_worker.errors import Problem
from morpheus_worker.templates.reading import Path as Way
from morpheus_worker.templates.reading import Tree

Severity = Literal["error", "warning"]

_LINE: Final = re.compile(r"(?:line (?P<line>\d+), column (?P<column>\d+))?(?P<rest>.*)", re.DOTALL)


@dataclass(frozen=True, slots=True, kw_only=True)
class Remark:
    """One thing that is wrong, or worth a look. An error keeps jobs from running; a warning need not.

    `kind` is for a program. `line` and `column` count from 1. `node_id`, `class_type` and `input` tell where in the
    graph, `param` which param is concerned, `variation` with which params it shows when it does not show always.
    """

    severity: Severity
    kind: str
    what: str
    hint: str | None = None
    line: int | None = None
    column: int | None = None
    node_id: str | None = None
    class_type: str | None = None
    input: str | None = None
    param: str | None = None
    variation: str | None = None

    def as_dict(self) -> dict[str, Any]:
        """Every field, null where it does not apply."""
        return {name: getattr(self, name) for name in self.__dataclass_fields__}

    def __str__(self) -> str:
        about = [self.hint] if self.hint else []
        about += [f"when {self.variation}"] if self.variation else []
        return f"{self.severity}: {self.what}" + (f" ({'; '.join(about)})" if about else "")


@dataclass(frozen=True, slots=True)
class Inspection:
    """What there is to say of one file. `variations` is how many graphs of it were judged."""

    workflow: str
    file: Path
    remarks: tuple[Remark, ...] = ()
    variations: int = 0

    @property
    def errors(self) -> int:
        return sum(remark.severity == "error" for remark in self.remarks)

    @property
    def warnings(self) -> int:
        return len(self.remarks) - self.errors


@dataclass(frozen=True, slots=True)
class Placed:
    """Makes remarks about places in one file."""

    tree: Tree

    def remark(
        self, way: Way, severity: Severity, kind: str, what: str, hint: str | None = None, **more: Any
    ) -> Remark:
        """About what `way` leads to in the file, or what is nearest around it."""
        line, column, _ = _position(self.tree.problem(way, "").at)
        return Remark(severity=severity, kind=kind, what=what, hint=hint, line=line, column=column, **more)


def from_problems(problems: Iterable[Problem], kind: str) -> list[Remark]:
    """Errors of a file, whose place is told as `line 3, column 7`."""
    remarks = []
    for problem in problems:
        line, column, rest = _position(problem.at)
        what = f"{rest}: {problem.what}" if rest else problem.what
        remarks.append(Remark(severity="error", kind=kind, what=what, hint=problem.hint, line=line, column=column))
    return remarks


def _position(at: str) -> tuple[int | None, int | None, str]:
    found = _LINE.fullmatch(at)
    if found is None or found["line"] is None:
        return None, None, at.strip()
    return int(found["line"]), int(found["column"]), found["rest"].strip()
