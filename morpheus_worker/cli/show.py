"""What the command line prints about the worker itself."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Sequence
from typing import Final

from rich.console import Console
from rich.table import Column, Table
from rich.text import Text

from morpheus_worker import boot, entry
from morpheus_worker.deadlines import Deadline
from morpheus_worker.errors import MorpheusError
from morpheus_worker.jobs import WIRE_MODELS
from morpheus_worker.manifest import ManifestError
from morpheus_worker.settings import Settings
from morpheus_worker.volume import wait_for_volume

_BREAKS: Final = re.compile(r"[\t\r\n\v\f\x85\u2028\u2029]+")
LONGEST_NAME: Final = 40
"""Columns of a terminal that a name in a table gets at most before it is folded."""


def schema() -> int:
    """The JSON Schema of everything that crosses the wire, one key a model."""
    print(json.dumps({model.__name__: model.model_json_schema() for model in WIRE_MODELS}, indent=2))
    return entry.EXIT_OK


def config(settings: Settings) -> int:
    print_table(("setting", "value", "meaning"), settings.table())
    return entry.EXIT_OK


def link(settings: Settings) -> int:
    """Links the volume into ComfyUI as the boot does, and says what was found."""
    if settings.child_dir is None:
        print("morpheus: set MORPHEUS_COMFYUI_DIR to the ComfyUI to link into", file=sys.stderr)
        return entry.EXIT_USAGE
    try:
        folders = boot.comfyui_folders(settings.child_dir, settings)
        wait_for_volume(settings.volume_root, deadline=Deadline.after(0.0))
        manifest, failure = boot.try_manifest(settings)
        print(boot.link_volume(settings, folders, manifest).summary())
        if failure is not None:
            raise failure
        for absent in boot.missing_entries(settings, folders, manifest):
            print(f"not on the volume: {absent}")
    except (MorpheusError, ManifestError, OSError) as failure:
        print(f"morpheus: {failure}", file=sys.stderr)
        return entry.EXIT_FAILED
    return entry.EXIT_OK


def print_table(columns: tuple[str, ...], rows: Sequence[tuple[str, ...]]) -> None:
    """A table on a terminal, tab-separated lines elsewhere. A cell is one line: what breaks it becomes a space."""
    rows = [tuple(_BREAKS.sub(" ", cell) for cell in row) for row in rows]
    if sys.stdout is None or not sys.stdout.isatty():
        for row in rows:
            print("\t".join(row))
        return
    # Folded, not cut: a file's name or a path is of no use without its end. What a row is called by stays in one piece.
    longest = max((len(row[0]) for row in rows), default=0)
    first = Column(columns[0], overflow="fold", min_width=min(longest, LONGEST_NAME))
    headers = (Column(name, overflow="fold") for name in columns[1:])
    table = Table(first, *headers, box=None, pad_edge=False)
    for row in rows:
        table.add_row(*map(Text, row))
    Console().print(table)
