"""What the command line draws on a terminal: tables, and the log above bars. What draws them is loaded when it does."""

from __future__ import annotations

import contextlib
import logging
import re
import sys
from collections.abc import Iterator, Sequence
from typing import Final

_BREAKS: Final = re.compile(r"[\t\r\n\v\f\x85\u2028\u2029]+")
LONGEST_NAME: Final = 40
"""Columns of a terminal that a name in a table gets at most before it is folded."""


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on a terminal, tab-separated lines elsewhere. A cell is one line: what breaks it becomes a space."""
    rows = [tuple(_BREAKS.sub(" ", cell) for cell in row) for row in rows]
    if sys.stdout is None or not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    from rich.console import Console
    from rich.table import Column, Table
    from rich.text import Text

    # Folded, not cut: a file's name or a path is of no use without its end. What a row is called by stays in one piece.
    longest = max((len(row[0]) for row in rows), default=0)
    first = Column(columns[0], overflow="fold", min_width=min(longest, LONGEST_NAME))
    headers = (Column(name, overflow="fold") for name in columns[1:])
    table = Table(first, *headers, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)


@contextlib.contextmanager
def log_above() -> Iterator[None]:
    """While bars are drawn, lines written to `sys.stderr` appear above them; the log has held the one from before."""
    handlers = [handler for handler in logging.getLogger().handlers if isinstance(handler, logging.StreamHandler)]
    before = [(handler, handler.stream) for handler in handlers if not handler.stream.closed]
    for handler, _ in before:
        handler.setStream(sys.stderr)
    try:
        yield
    finally:
        for handler, stream in before:
            handler.setStream(stream)
