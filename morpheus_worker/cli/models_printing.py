"""How the verbs of `morpheus models` say times, tables and what is wrong."""

from __future__ import annotations

import argparse
import json
import re
import sys
from collections.abc import Iterable, Sequence
from typing import TYPE_CHECKING, Any, Final

from morpheus_worker.cli.terminal import print_table
from morpheus_worker.errors import Problem

if TYPE_CHECKING:
    from morpheus_worker.syncing.outcomes import Selection

_BREAKS: Final = re.compile(r"\s+")


def duration_text(seconds: float) -> str:
    """`0.4 s`, `34 s`, `3 min 20 s`, `2 h 5 min`."""
    if seconds < 9.95:
        return f"{seconds:.1f} s"
    whole = round(seconds)
    if whole < 60:
        return f"{whole} s"
    if whole < 3600:
        return f"{whole // 60} min {whole % 60} s"
    return f"{whole // 3600} h {whole % 3600 // 60} min"


def counted(count: int, name: str) -> str:
    several = f"{name[:-1]}ies" if name.endswith("ry") else f"{name}s"
    return f"{count} {name if count == 1 else several}"


def print_json(document: Any) -> None:
    print(json.dumps(document, indent=2, default=str))


def print_rows(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]], *, aside: bool = False) -> None:
    """A table on a terminal, tab-separated lines elsewhere; nothing where there are no rows.

    `aside`: to standard error, because standard output has events.
    """
    if is_terminal() and not aside:
        if rows:
            print_table(columns, rows)
        return
    for row in rows:
        print("\t".join(_BREAKS.sub(" ", cell) for cell in row), file=sys.stderr if aside else sys.stdout)


def is_terminal() -> bool:
    """Whether a person reads what is printed."""
    return sys.stdout is not None and sys.stdout.isatty()


def is_aside(asked: argparse.Namespace) -> bool:
    """Whether standard output is a program's, and what a person is told goes to standard error."""
    return asked.json or not is_terminal()


def remark(sentence: str, asked: argparse.Namespace) -> None:
    """What it came to: below the table or the bars on a terminal, on standard error elsewhere."""
    print(sentence, file=sys.stderr if is_aside(asked) else sys.stdout)


def tell_left_out(asked: argparse.Namespace, selection: Selection) -> None:
    """What a bucket does not get."""
    if asked.to is not None and (packs := len(selection.packs)):
        remark(f"{counted(packs, 'node pack')} left out: a bucket is filled with models alone", asked)


def tell(*sentences: str | Problem) -> None:
    for sentence in sentences:
        print(f"morpheus: {sentence}", file=sys.stderr)


def tell_failures(failures: Iterable[Problem]) -> None:
    """All that went wrong once more, in one block, where somebody looks who comes back hours later."""
    told = list(failures)
    if told:
        print(f"\nmorpheus: {counted(len(told), 'thing')} went wrong:", file=sys.stderr)
        for problem in told:
            print(f"  {problem}", file=sys.stderr)
